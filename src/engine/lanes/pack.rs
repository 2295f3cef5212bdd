//! An adapter laid out for the kernels.

use std::ops::Range;
use std::sync::Arc;

use super::Sites;
use super::kernel::TILE;
use crate::adapter::{AdapterDigest, AdapterFile};
use crate::gguf::{Gguf, TensorInfo, TensorType};

/// An adapter whose rows can share a batch with any others.
///
/// A stays where it is, in the file's mapped bytes. B is kept in tiles of [`TILE`] outputs, `[n_out / TILE][rank][TILE]`,
/// so that it is read from one end to the other and a tile of outputs is a sum of vectors; quantized B stays as it is.
#[derive(Debug)]
pub struct LaneAdapter {
    file: Arc<AdapterFile>,
    /// Sorted by site.
    weights: Vec<LaneWeight>,
    max_rank: usize,
    heap_bytes: usize,
}

/// What the adapter does to one linear: `delta = strength * scale * B (A x)`, and `scale * gain * y` when it has a gain.
#[derive(Debug)]
pub(super) struct LaneWeight {
    pub(super) site: usize,
    /// 0 when there is only a gain.
    pub(super) rank: usize,
    pub(super) a: Stored,
    pub(super) b: Outputs,
    /// `[n_out]`, minus one: what is added to `y` is `scale * gain * y`.
    pub(super) gain: Option<Box<[f32]>>,
}

/// Rows of a tensor in the file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) kind: TensorType,
    pub(super) range: Range<usize>,
    pub(super) row_bytes: usize,
}

/// B: in tiles (16-bit formats as bits; the last tile is filled up with zeros), or as stored when quantized.
#[derive(Debug)]
pub(super) enum Outputs {
    F32(Box<[f32]>),
    F16(Box<[u16]>),
    Bf16(Box<[u16]>),
    Rows(Stored),
}

/// Why an adapter cannot share a batch. It still runs, by llama.cpp's own path, in steps of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotForLanes(pub String);

impl LaneAdapter {
    /// Lays out a checked adapter.
    ///
    /// # Errors
    /// It changes a tensor that is not a plain matrix (embedding table, stacked experts).
    pub fn pack(file: &Arc<AdapterFile>, sites: &Sites) -> Result<Self, NotForLanes> {
        let bytes = file.bytes();
        let gguf = Gguf::read(bytes).map_err(|e| NotForLanes(e.to_string()))?;
        let mut weights: Vec<LaneWeight> = Vec::new();
        let mut heap_bytes = 0;
        for tensor in gguf.tensors() {
            let (target, gain) = match (tensor.name.strip_suffix(".lora_a"), tensor.name.strip_suffix(".gain")) {
                (Some(target), _) => (target, false),
                (_, Some(target)) => (target, true),
                _ => continue,
            };
            let site = sites.find(target).ok_or_else(|| NotForLanes(format!("it changes '{target}'")))?;
            let at = weights.iter().position(|w| w.site == site).unwrap_or_else(|| {
                weights.push(LaneWeight {
                    site,
                    rank: 0,
                    a: Stored { kind: TensorType::F32, range: 0..0, row_bytes: 0 },
                    b: Outputs::F32(Box::default()),
                    gain: None,
                });
                weights.len() - 1
            });
            let weight = &mut weights[at];
            if gain {
                weight.gain = Some(floats(gguf.tensor_bytes(tensor)));
            } else {
                let name = format!("{target}.lora_b");
                let b = gguf.tensor(&name).ok_or_else(|| NotForLanes(format!("it has no '{name}'")))?;
                weight.rank = usize::try_from(b.dims[0]).unwrap_or(usize::MAX);
                weight.a = stored(bytes, &gguf, tensor);
                weight.b = outputs(bytes, &gguf, b);
            }
        }
        weights.sort_unstable_by_key(|w| w.site);
        for w in &weights {
            heap_bytes += size_of::<LaneWeight>() + w.b.heap_bytes() + w.gain.as_ref().map_or(0, |g| g.len() * 4);
        }
        let max_rank = weights.iter().map(|w| w.rank).max().unwrap_or(0);
        Ok(Self { file: file.clone(), weights, max_rank, heap_bytes })
    }

    /// Identity of the content.
    pub fn digest(&self) -> AdapterDigest {
        self.file.digest()
    }

    /// The largest rank of any linear.
    pub fn max_rank(&self) -> usize {
        self.max_rank
    }

    /// Bytes it occupies: its own memory, and that part of the mapped file which the kernels read.
    pub fn bytes(&self) -> usize {
        let mapped = self.weights.iter().map(|w| w.a.range.len() + w.b.mapped_bytes());
        self.heap_bytes + mapped.sum::<usize>()
    }

    /// The numbers of the linears it changes.
    pub fn sites(&self) -> impl Iterator<Item = usize> + '_ {
        self.weights.iter().map(|w| w.site)
    }

    /// LoRA alpha: the strength of a pair is alpha / rank.
    pub(super) fn alpha(&self) -> f32 {
        self.file.facts().alpha
    }

    pub(super) fn weight(&self, site: usize) -> Option<&LaneWeight> {
        self.weights.binary_search_by_key(&site, |w| w.site).ok().map(|at| &self.weights[at])
    }

    /// Row `index` of a stored tensor.
    pub(super) fn row(&self, stored: &Stored, index: usize) -> &[u8] {
        self.rows(stored, index..index + 1)
    }

    /// Some rows of a stored tensor.
    pub(super) fn rows(&self, stored: &Stored, rows: Range<usize>) -> &[u8] {
        let at = |row: usize| stored.range.start + row * stored.row_bytes;
        &self.file.bytes()[at(rows.start)..at(rows.end)]
    }

    /// What is read of B for some outputs, which begin with a tile.
    pub(super) fn outputs<'a>(&'a self, weight: &'a LaneWeight, outputs: Range<usize>) -> &'a [u8] {
        let at = |output: usize| output.div_ceil(TILE) * weight.rank * TILE;
        let range = at(outputs.start)..at(outputs.end);
        match &weight.b {
            Outputs::F32(b) => bytemuck::cast_slice(&b[range]),
            Outputs::F16(b) | Outputs::Bf16(b) => bytemuck::cast_slice(&b[range]),
            Outputs::Rows(stored) => self.rows(stored, outputs),
        }
    }
}

impl Outputs {
    fn heap_bytes(&self) -> usize {
        match self {
            Outputs::F32(v) => v.len() * 4,
            Outputs::F16(v) | Outputs::Bf16(v) => v.len() * 2,
            Outputs::Rows(_) => 0,
        }
    }

    fn mapped_bytes(&self) -> usize {
        if let Outputs::Rows(stored) = self { stored.range.len() } else { 0 }
    }
}

fn stored(bytes: &[u8], gguf: &Gguf<'_>, tensor: &TensorInfo<'_>) -> Stored {
    let data = gguf.tensor_bytes(tensor);
    let start = data.as_ptr().addr() - bytes.as_ptr().addr();
    let rows = usize::try_from(tensor.dims[1]).unwrap_or(1).max(1);
    Stored { kind: tensor.kind, range: start..start + data.len(), row_bytes: data.len() / rows }
}

fn outputs(bytes: &[u8], gguf: &Gguf<'_>, b: &TensorInfo<'_>) -> Outputs {
    let data = gguf.tensor_bytes(b);
    let rank = usize::try_from(b.dims[0]).unwrap_or(1).max(1);
    match b.kind {
        TensorType::F32 => Outputs::F32(in_tiles(data.as_chunks().0, rank, f32::from_le_bytes)),
        TensorType::F16 => Outputs::F16(in_tiles(data.as_chunks().0, rank, u16::from_le_bytes)),
        TensorType::BF16 => Outputs::Bf16(in_tiles(data.as_chunks().0, rank, u16::from_le_bytes)),
        _ => Outputs::Rows(stored(bytes, gguf, b)),
    }
}

/// `[n_out][rank]` to `[n_out / TILE][rank][TILE]`.
fn in_tiles<const N: usize, T: Copy + Default>(rows: &[[u8; N]], rank: usize, read: fn([u8; N]) -> T) -> Box<[T]> {
    let n_out = rows.len() / rank;
    let mut tiles = vec![T::default(); n_out.div_ceil(TILE) * rank * TILE];
    let outputs = rows.chunks(rank * TILE);
    for (tile, rows) in tiles.chunks_exact_mut(rank * TILE).zip(outputs) {
        for (o, row) in rows.chunks_exact(rank).enumerate() {
            for (j, value) in row.iter().enumerate() {
                tile[j * TILE + o] = read(*value);
            }
        }
    }
    tiles.into_boxed_slice()
}

fn floats(data: &[u8]) -> Box<[f32]> {
    data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
