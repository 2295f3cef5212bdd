//! An adapter as the changes that it makes: pairs of factors with their strength in them, and gains.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::MergeError;
use crate::gguf::{self, AdapterFacts, AdapterKind, Gguf, GgufError, GgufWriter, LoraPair, TensorType};
use crate::import::{Matrix, decode};

/// A change `B A` of one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// `[rank, inputs]`.
    pub a: Matrix,
    /// `[outputs, rank]`, with alpha over rank in it.
    pub b: Matrix,
}

impl Pair {
    /// The rank that it may have.
    pub fn rank(&self) -> usize {
        self.a.nrows()
    }

    /// The inner product of two changes, number by number, from small matrices: `(B'b) . (A a')`. In 64 bits.
    pub fn inner(&self, other: &Pair) -> f64 {
        let wide = |matrix: &Matrix| -> Array2<f64> { matrix.mapv(f64::from) };
        let left = wide(&self.b).t().dot(&wide(&other.b));
        let right = wide(&self.a).dot(&wide(&other.a).t());
        left.iter().zip(right.iter()).map(|(left, right)| left * right).sum()
    }

    /// The whole change, `[outputs, inputs]`.
    pub fn whole(&self) -> Matrix {
        self.b.dot(&self.a)
    }
}

/// What an adapter changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Deltas {
    /// The architecture of its base model.
    pub architecture: String,
    /// Changes by base tensor.
    pub pairs: BTreeMap<String, Pair>,
    /// Gains less 1 by base tensor.
    pub gains: BTreeMap<String, Vec<f32>>,
}

impl Deltas {
    /// Reads a checked adapter file.
    ///
    /// # Errors
    /// A kind that has no changes of matrices (soft prompts, prefixes, control vectors, activated LoRA), stacked experts,
    /// formats that are not decoded.
    pub fn read(bytes: &[u8], facts: &AdapterFacts) -> Result<Self, MergeError> {
        match facts.kind {
            AdapterKind::Lora | AdapterKind::Gain => (),
            ref other => return Err(MergeError::Kind(other.name())),
        }
        let broken = |e: GgufError| MergeError::Tensor { tensor: "header".to_owned(), reason: e.to_string() };
        let gguf = Gguf::read(bytes).map_err(broken)?;
        let mut pairs = BTreeMap::new();
        for pair in &facts.pairs {
            pairs.insert(pair.tensor.clone(), read_pair(&gguf, pair, facts.alpha)?);
        }
        let number = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        let found = gguf::gains(bytes).map_err(broken)?.into_iter();
        let gains =
            found.map(|(tensor, gain)| (tensor.to_owned(), gain.as_chunks::<4>().0.iter().map(number).collect()));
        Ok(Self { architecture: facts.architecture.clone(), pairs, gains: gains.collect() })
    }

    /// Reads an adapter file whose base model is not at hand: only what the file itself says is checked.
    ///
    /// # Errors
    /// As [`Deltas::read`].
    pub fn read_alone(bytes: &[u8]) -> Result<Self, MergeError> {
        let refuse =
            |tensor: &str, reason: &str| MergeError::Tensor { tensor: tensor.to_owned(), reason: reason.to_owned() };
        let broken = |e: GgufError| refuse("header", &e.to_string());
        let gguf = Gguf::read(bytes).map_err(broken)?;
        match gguf.str("adapter.type").map_err(broken)? {
            Some("lora") if gguf.get("adapter.alora.invocation_tokens").is_none() => (),
            Some("lora_gain") => return Err(MergeError::Kind("gain (DoRA, IA3)")),
            _ => return Err(MergeError::Kind("these")),
        }
        let alpha = gguf.f32("adapter.lora.alpha").map_err(broken)?.unwrap_or(1.0);
        let mut pairs = BTreeMap::new();
        for a in gguf.tensors() {
            let Some(tensor) = a.name.strip_suffix(".lora_a") else { continue };
            let embedding = tensor == "token_embd.weight";
            let rank = if embedding { a.dims[0] } else { a.dims[1] };
            let pair = LoraPair {
                tensor: tensor.to_owned(),
                target: String::new(),
                layer: None,
                rank: u32::try_from(rank).map_err(|_| refuse(tensor, "has too large a rank"))?,
                experts: u32::try_from(a.dims[2]).unwrap_or(u32::MAX),
                embedding,
                a: a.kind,
                b: a.kind,
            };
            pairs.insert(tensor.to_owned(), read_pair(&gguf, &pair, alpha)?);
        }
        let architecture = gguf.str("general.architecture").map_err(broken)?.unwrap_or_default().to_owned();
        Ok(Self { architecture, pairs, gains: BTreeMap::new() })
    }

    /// The inner product of two adapters' changes; gains are left out.
    pub fn inner(&self, other: &Deltas) -> f64 {
        let both = self.pairs.iter().filter_map(|(tensor, pair)| Some((pair, other.pairs.get(tensor)?)));
        both.map(|(one, other)| one.inner(other)).sum()
    }

    /// The norm of the changes; gains are left out.
    pub fn norm(&self) -> f64 {
        self.inner(self).max(0.0).sqrt()
    }

    /// The largest rank.
    pub fn rank(&self) -> usize {
        self.pairs.values().map(Pair::rank).max().unwrap_or(0)
    }

    /// The same changes, this much as strong.
    #[must_use]
    pub fn scaled(&self, by: f32) -> Deltas {
        let mut scaled = self.clone();
        scaled.pairs.values_mut().for_each(|pair| pair.b.mapv_inplace(|n| n * by));
        scaled.gains.values_mut().flatten().for_each(|n| *n *= by);
        scaled
    }

    /// An adapter of random numbers with the same shapes and the same norm: what a check compares with.
    #[must_use]
    pub fn random_like(&self, seed: u64) -> Deltas {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((word ^ (word >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut random = self.clone();
        for pair in random.pairs.values_mut() {
            let norm = pair.inner(pair).max(0.0);
            pair.a.mapv_inplace(|_| draw());
            pair.b.mapv_inplace(|_| draw());
            // Matrix by matrix, so that the change is as strong in each place.
            let scale = (norm / pair.inner(pair).max(f64::MIN_POSITIVE)).sqrt() as f32;
            pair.b.mapv_inplace(|n| n * scale);
        }
        random
    }

    /// The adapter as a GGUF file of 32-bit numbers.
    ///
    /// # Errors
    /// A name that GGUF cannot hold.
    pub fn to_gguf(&self, name: &str) -> Result<Vec<u8>, GgufError> {
        let mut file = GgufWriter::new();
        file.set("general.architecture", self.architecture.as_str())?;
        file.set("general.type", "adapter")?;
        file.set("adapter.type", if self.gains.is_empty() { "lora" } else { "lora_gain" })?;
        file.set("general.name", name)?;
        let alpha = self.rank() as f32;
        if !self.pairs.is_empty() {
            file.set("adapter.lora.alpha", alpha)?;
        }
        let bytes = |matrix: &Matrix| -> Vec<u8> { matrix.iter().flat_map(|n| n.to_le_bytes()).collect() };
        for (tensor, pair) in &self.pairs {
            let (rank, inputs, outputs) = (pair.rank() as u64, pair.a.ncols() as u64, pair.b.nrows() as u64);
            let (a, dims) = match tensor == "token_embd.weight" {
                true => (bytes(&pair.a.t().as_standard_layout().into_owned()), [rank, inputs]),
                false => (bytes(&pair.a), [inputs, rank]),
            };
            // A reader multiplies by alpha over rank.
            let b = bytes(&pair.b.mapv(|n| n * rank as f32 / alpha));
            file.tensor(&format!("{tensor}.lora_a"), TensorType::F32, &dims, a)?;
            file.tensor(&format!("{tensor}.lora_b"), TensorType::F32, &[rank, outputs], b)?;
        }
        for (tensor, gain) in &self.gains {
            let numbers: Vec<u8> = gain.iter().flat_map(|n| n.to_le_bytes()).collect();
            file.tensor(&format!("{tensor}.gain"), TensorType::F32, &[gain.len() as u64], numbers)?;
        }
        Ok(file.to_bytes())
    }
}

fn read_pair(gguf: &Gguf<'_>, pair: &LoraPair, alpha: f32) -> Result<Pair, MergeError> {
    let refuse = |reason: String| MergeError::Tensor { tensor: pair.tensor.clone(), reason };
    if pair.experts != 1 {
        return Err(refuse("stacks experts, which are not merged".to_owned()));
    }
    let half = |end: &str| -> Result<Matrix, MergeError> {
        let name = format!("{}.{end}", pair.tensor);
        let info = gguf.tensor(&name).ok_or_else(|| refuse(format!("has no .{end}")))?;
        let numbers = decode(info.kind, gguf.tensor_bytes(info))
            .ok_or_else(|| refuse(format!("is stored as {}, which is not read", info.kind)))?;
        if !numbers.iter().all(|n| n.is_finite()) {
            return Err(refuse("holds NaN or infinite weights".to_owned()));
        }
        // The tensor's numbers are in memory.
        let shape = (info.dims[1] as usize, info.dims[0] as usize);
        Matrix::from_shape_vec(shape, numbers).map_err(|e| refuse(e.to_string()))
    };
    let (a, b) = (half("lora_a")?, half("lora_b")?);
    let a = if pair.embedding { a.t().as_standard_layout().into_owned() } else { a };
    if a.nrows() != b.ncols() || a.nrows() == 0 {
        return Err(refuse(format!("has rank {} in A and {} in B", a.nrows(), b.ncols())));
    }
    let strength = alpha / a.nrows() as f32;
    Ok(Pair { b: b.mapv(|n| n * strength), a })
}
