//! From changes to a file: cut to a rank where needed, one alpha for all pairs, gains beside them, numbers as they are
//! stored.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

use ndarray::linalg::general_mat_mul;

use super::config::{Config, PeftKind};
use super::dequant::Matrix;
use super::error::ImportError;
use super::experts;
use super::limits::DEFAULT_RANK;
use super::names::Target;
use super::safetensors::Dtype;
use super::svd::low_rank;
use super::update::{Change, Gain, Update};
use super::{Imported, Options};
use crate::gguf::limits::MAX_RANK;
use crate::gguf::{GgufError, GgufWriter, ModelFacts, TensorType, check_adapter};

/// How the numbers of an adapter are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Storage {
    /// 16-bit floats, as most adapters are.
    #[default]
    F16,
    /// 32-bit floats.
    F32,
    /// As the folder stores them: F32, F16 or BF16.
    Source,
    /// 8-bit blocks. Matrices whose rows are no multiple of 32 stay F16.
    Q8_0,
    /// 4-bit blocks. Matrices whose rows are no multiple of 32 stay F16.
    Q4_0,
}

impl Storage {
    /// The tensor type; F32 for the source's own.
    pub(super) fn kind(self) -> TensorType {
        match self {
            Self::F16 => TensorType::F16,
            Self::F32 | Self::Source => TensorType::F32,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q4_0 => TensorType::Q4_0,
        }
    }
}

/// What an import cost one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorError {
    /// The base tensor.
    pub tensor: String,
    /// The rank it got.
    pub rank: u32,
    /// What was cut, relative to the change of this matrix; None when nothing was.
    pub conversion: Option<f32>,
    /// What the rounding of the stored numbers changed, relative to the product of the factors.
    pub storage: f32,
}

/// What goes into the file for one module.
pub(super) struct Settled {
    pair: Option<SettledPair>,
    gain: Option<(String, Gain)>,
}

/// A pair of factors, and what was cut to get it.
pub(super) struct SettledPair {
    pub(super) target: Target,
    pub(super) source: Dtype,
    /// `[rank, inputs]`.
    pub(super) a: Matrix,
    /// `[outputs, rank]`.
    pub(super) b: Matrix,
    /// What is divided by the rank.
    pub(super) alpha: f64,
    /// The squared norms of what was cut and of the whole change.
    cut: Option<(f64, f64)>,
}

/// Makes a pair of a change, cutting it to a rank where it must be; gains stay as they are.
pub(super) fn settle(update: Update, options: &Options) -> Result<Settled, ImportError> {
    let Update { target, source, change, gain } = update;
    if let Some(gain) = gain.as_ref().filter(|gain| !gain.less_one.iter().all(|number| number.is_finite())) {
        let reason =
            format!("would be multiplied by infinite numbers ({} of them); is it damaged?", gain.less_one.len());
        return Err(ImportError::tensor(&target.tensor, reason));
    }
    let gain = gain.map(|gain| (target.tensor.clone(), gain));
    Ok(Settled { pair: pair(target, source, change, options)?, gain })
}

fn pair(target: Target, source: Dtype, change: Change, options: &Options) -> Result<Option<SettledPair>, ImportError> {
    // MAX_RANK fits any usize.
    let most = options.rank.unwrap_or(MAX_RANK as u32).clamp(1, MAX_RANK as u32) as usize;
    let (whole, rank) = match change {
        Change::Factors { a, b, alpha } if a.nrows() <= most => {
            return Ok(Some(SettledPair { target, source, a, b, alpha, cut: None }));
        }
        Change::Factors { a, b, alpha } => {
            target.check_whole()?;
            let strength = (alpha / a.nrows() as f64) as f32;
            (b.dot(&a) * strength, most)
        }
        Change::Nothing => return Ok(None),
        Change::Whole(whole) => (whole, options.rank.unwrap_or(DEFAULT_RANK) as usize),
    };
    if !whole.iter().all(|number| number.is_finite()) {
        return Err(ImportError::tensor(&target.tensor, "would change by infinite amounts; the adapter is damaged"));
    }
    let norm = squares(&whole);
    let low = low_rank(&whole, rank.min(most));
    let mut missing = whole;
    general_mat_mul(-1.0, &low.b, &low.a, 1.0, &mut missing);
    let alpha = low.a.nrows() as f64;
    let lost = squares(&missing);
    if !lost.is_finite() {
        return Err(ImportError::tensor(&target.tensor, "changes by numbers too large to work with; is it damaged?"));
    }
    let cut = Some((lost, norm));
    Ok(Some(SettledPair { target, source, a: low.a, b: low.b, alpha, cut }))
}

fn squares(matrix: &Matrix) -> f64 {
    matrix.iter().map(|number| f64::from(*number).powi(2)).sum()
}

/// Writes the file, after checking that not too much was cut.
pub(super) fn finish(
    settled: Vec<Settled>,
    config: &Config,
    base: &ModelFacts,
    options: &Options,
    mut notes: Vec<String>,
) -> Result<Imported, ImportError> {
    let (pairs, gains): (Vec<_>, Vec<_>) = settled.into_iter().map(|one| (one.pair, one.gain)).unzip();
    let mut pairs: Vec<SettledPair> = pairs.into_iter().flatten().collect();
    let gains = join_gains(gains.into_iter().flatten())?;
    let mut seen = HashSet::new();
    if let Some(twice) = pairs.iter().find(|pair| !seen.insert((pair.target.tensor.as_str(), pair.target.expert))) {
        return Err(ImportError::tensor(&twice.target.tensor, "is adapted by two modules of the folder"));
    }
    experts::level(&mut pairs);
    let alpha = common_alpha(&pairs);
    for pair in &mut pairs {
        // llama.cpp knows one alpha: what differs goes into B.
        if pair.alpha as f32 != alpha {
            let factor = pair.alpha / f64::from(alpha);
            pair.b.mapv_inplace(|number| (f64::from(number) * factor) as f32);
        }
    }
    let mut file = GgufWriter::new();
    let mut errors = Vec::with_capacity(pairs.len());
    let (mut lost, mut stored) = (0.0, 0.0);
    let (mut widened, mut ragged, mut lacking) = (0_usize, 0_usize, 0_usize);
    for stack in stacks(&pairs) {
        let pair = stack[0];
        let transposed = pair.target.embedding;
        let written = experts::store(&stack, options.storage);
        let (rank, wide, high) = (pair.a.nrows() as u64, pair.a.ncols() as u64, pair.b.nrows() as u64);
        // A plain pair is two matrices, a stack has a third dimension.
        let (all, dims) = pair.target.expert.map_or((1, 2), |(_, experts)| (u64::from(experts), 3));
        lacking += usize::try_from(all).unwrap_or(0).saturating_sub(stack.len());
        let a_dims = if transposed { [rank, wide, all] } else { [wide, rank, all] };
        let b_dims = [rank, high, all];
        widened += usize::from(written.widened);
        let blocks = matches!(options.storage, Storage::Q8_0 | Storage::Q4_0);
        ragged += usize::from(blocks && written.b.kind.block_elements() == 1);
        let name = &pair.target.tensor;
        file.tensor(&format!("{name}.lora_a"), written.a.kind, &a_dims[..dims], written.a.bytes)
            .and_then(|file| file.tensor(&format!("{name}.lora_b"), written.b.kind, &b_dims[..dims], written.b.bytes))
            .map_err(ImportError::Result)?;
        // The pair without its alpha over rank, which is the same on both sides.
        let weight = (f64::from(alpha) / rank as f64).powi(2);
        lost += written.lost * weight;
        stored += written.whole * weight;
        errors.push(TensorError {
            tensor: name.clone(),
            rank: rank as u32,
            conversion: stack.iter().filter_map(|pair| pair.cut.map(|(cut, whole)| ratio(cut, whole))).reduce(f32::max),
            storage: ratio(written.lost, written.whole),
        });
    }
    for (tensor, gain) in &gains {
        file.tensor(&format!("{tensor}.gain"), TensorType::F32, &[gain.len() as u64], super::number::to_f32(gain))
            .map_err(ImportError::Result)?;
    }
    let relative_error = check_cut(&pairs, &errors, config.kind, options)?;
    if widened > 0 {
        notes.push(format!(
            "{widened} pairs are stored as F32: 16 bits would lose too much of their small or large numbers"
        ));
    }
    if lacking > 0 {
        notes.push(format!("{lacking} linears of experts are not adapted; they are stacked as zeros"));
    }
    if ragged > 0 {
        notes.push(format!("{ragged} B matrices are stored as F16: their rank is no multiple of 32"));
    }
    let origin = Origin { alpha: (!pairs.is_empty()).then_some(alpha), gained: !gains.is_empty(), relative_error };
    set_keys(&mut file, config, base, options, &origin).map_err(ImportError::Result)?;
    let ranks = || errors.iter().map(|error| error.rank);
    let adapted = pairs.iter().map(|pair| &pair.target.tensor).chain(gains.keys());
    let mut targets: Vec<String> = adapted.map(|tensor| kind_of(tensor).to_owned()).collect();
    targets.sort_unstable();
    targets.dedup();
    let gguf = file.to_bytes();
    Ok(Imported {
        facts: check_adapter(&gguf, base).map_err(ImportError::Result)?,
        gguf,
        kind: config.kind,
        exact: relative_error.is_none(),
        relative_error,
        storage_error: ratio(lost, stored),
        rank_min: ranks().min().unwrap_or(0),
        rank_max: ranks().max().unwrap_or(0),
        errors,
        targets,
        notes,
    })
}

/// The pairs by base tensor: one, or those of its experts. In the order of the folder.
fn stacks(pairs: &[SettledPair]) -> Vec<Vec<&SettledPair>> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut stacks: Vec<Vec<&SettledPair>> = Vec::new();
    for pair in pairs {
        let at = *places.entry(&pair.target.tensor).or_insert(stacks.len());
        match stacks.get_mut(at) {
            Some(stack) => stack.push(pair),
            None => stacks.push(vec![pair]),
        }
    }
    stacks
}

/// The gains by base tensor. Those of a linear's outputs and of the next one's inputs multiply.
fn join_gains(gains: impl Iterator<Item = (String, Gain)>) -> Result<BTreeMap<String, Vec<f32>>, ImportError> {
    let mut seen = HashSet::new();
    let mut joined: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (tensor, gain) in gains {
        if !seen.insert((tensor.clone(), gain.side)) {
            return Err(ImportError::tensor(&tensor, "is scaled by two modules of the folder"));
        }
        match joined.entry(tensor) {
            Entry::Vacant(place) => drop(place.insert(gain.less_one)),
            Entry::Occupied(mut there) => {
                for (one, other) in there.get_mut().iter_mut().zip(&gain.less_one) {
                    // (1 + one) (1 + other) - 1
                    *one += other + *one * other;
                }
            }
        }
    }
    Ok(joined)
}

/// `attn_q` of `blk.3.attn_q.weight`.
fn kind_of(tensor: &str) -> &str {
    let name = tensor.trim_end_matches(".weight");
    name.rsplit_once('.').map_or(name, |(_, kind)| kind)
}

fn ratio(part: f64, whole: f64) -> f32 {
    if whole > 0.0 { (part / whole).sqrt() as f32 } else { 0.0 }
}

/// The alpha that most pairs have, so that their B stays as it was; the smallest among equals.
fn common_alpha(pairs: &[SettledPair]) -> f32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for pair in pairs {
        // Positive floats are ordered as their bits are.
        *counts.entry((pair.alpha as f32).to_bits()).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(bits, count)| (*count, std::cmp::Reverse(*bits)));
    most.map_or(1.0, |(bits, _)| f32::from_bits(bits))
}

/// The relative error of all that was cut. Refuses more than the limit.
fn check_cut(
    pairs: &[SettledPair],
    errors: &[TensorError],
    kind: PeftKind,
    options: &Options,
) -> Result<Option<f32>, ImportError> {
    if pairs.iter().all(|pair| pair.cut.is_none()) {
        return Ok(None);
    }
    let (mut cut, mut whole) = (0.0, 0.0);
    for pair in pairs {
        let (missing, norm) = pair.cut.unwrap_or_else(|| {
            let strength = pair.alpha / pair.a.nrows() as f64;
            (0.0, super::quantize::product_norm(&pair.b, &pair.a) * strength.powi(2))
        });
        cut += missing;
        whole += norm;
    }
    let error = ratio(cut, whole);
    let Some(limit) = options.max_relative_error.filter(|limit| error > *limit) else {
        return Ok(Some(error));
    };
    let worst =
        errors.iter().max_by(|one, other| one.conversion.unwrap_or(0.0).total_cmp(&other.conversion.unwrap_or(0.0)));
    Err(ImportError::TooInexact {
        kind: kind.name(),
        rank: errors.iter().map(|error| error.rank).max().unwrap_or(0),
        error,
        tensor: worst.map(|worst| worst.tensor.clone()).unwrap_or_default(),
        worst: worst.and_then(|worst| worst.conversion).unwrap_or(0.0),
        limit,
    })
}

/// What the keys tell beside the configuration.
struct Origin {
    /// None without pairs.
    alpha: Option<f32>,
    gained: bool,
    relative_error: Option<f32>,
}

/// The keys, in the order of llama.cpp's converter.
fn set_keys(
    file: &mut GgufWriter<'_>,
    config: &Config,
    base: &ModelFacts,
    options: &Options,
    origin: &Origin,
) -> Result<(), GgufError> {
    file.set("general.architecture", base.architecture.as_str())?;
    file.set("general.type", "adapter")?;
    file.set("adapter.type", if origin.gained { "lora_gain" } else { "lora" })?;
    if let Some(name) = &options.name {
        file.set("general.name", name.as_str())?;
    }
    if let Some(alpha) = origin.alpha {
        file.set("adapter.lora.alpha", alpha)?;
    }
    if !config.invocation.is_empty() {
        file.set("adapter.alora.invocation_tokens", config.invocation.as_slice())?;
    }
    if matches!(options.storage, Storage::Q8_0 | Storage::Q4_0) {
        file.set("general.quantization_version", 2_u32)?;
    }
    // Where the numbers came from, for whoever finds the file later.
    file.set("smoa.import.kind", config.kind.name())?;
    if let Some(error) = origin.relative_error {
        file.set("smoa.import.relative_error", error)?;
    }
    Ok(())
}
