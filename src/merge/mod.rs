//! Several adapters made into one: exactly by stacking, or cut to a rank, with the error told. Adapters compared by what
//! they change, without making the whole change. Pure.
//!
//! An adapter is a sum of changes `B A` of matrices. A weighted sum of adapters is their factors side by side
//! ([`Method::Concat`]), which is also the exact average of what clients trained apart (FLoRA, Wang et al. 2024);
//! averaging the factors is not. [`Method::Svd`] cuts that sum to a rank by the singular values of the product.
//! [`Method::Ties`] (Yadav et al. 2023) and [`Method::Dare`] (Yu et al. 2024) change single numbers of the whole matrices, and
//! what comes of it is cut to a rank again.
//!
//! It does not know: files, the library, engines, base weights.

mod deltas;
mod dense;
mod similar;

use ndarray::{Axis, concatenate};

pub use deltas::{Deltas, Pair};
pub use similar::{Sketch, Sketcher, WIDTH as SKETCH_WIDTH, candidates, cosine};

use crate::gguf::limits::MAX_RANK;
use crate::import::{low_rank, low_rank_product};

/// How adapters become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Factors side by side: exact; the rank is the sum of the ranks.
    Concat,
    /// The sum, cut to a rank by singular values.
    Svd,
    /// The largest numbers of each, signs by vote, those that agree averaged; then cut to a rank.
    Ties {
        /// Share of the numbers that each adapter keeps.
        density: f32,
    },
    /// Numbers dropped by chance, the rest enlarged to make up for it, summed; then cut to a rank.
    Dare {
        /// Share of the numbers that each adapter keeps.
        density: f32,
        /// Of the draw.
        seed: u64,
    },
}

impl Method {
    /// The name: `svd`.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Concat => "concat",
            Method::Svd => "svd",
            Method::Ties { .. } => "ties",
            Method::Dare { .. } => "dare",
        }
    }
}

/// Why adapters cannot be made into one.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("give at least one adapter")]
    Nothing,
    /// A kind without a sum.
    #[error("{0} adapters cannot be merged; LoRA, DoRA and IA3 can")]
    Kind(&'static str),
    /// Gains stand in the way of a method.
    #[error(
        "{0} works on numbers of low-rank changes, and an adapter has gains (DoRA, IA3); use concat or svd, or add it --as-lora"
    )]
    Gains(&'static str),
    /// A tensor that cannot be read or does not fit.
    #[error("tensor '{tensor}': {reason}")]
    Tensor {
        /// Which.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// Too many columns side by side.
    #[error("tensor '{tensor}': the ranks add up to {rank}, at most {MAX_RANK} are possible; give a rank to cut to")]
    Rank {
        /// Which.
        tensor: String,
        /// The sum.
        rank: usize,
    },
    /// A weight or setting out of bounds.
    #[error("{field} is {value}, expected {expected}")]
    Setting {
        /// Which.
        field: &'static str,
        /// Its value.
        value: f32,
        /// What it may be.
        expected: &'static str,
    },
}

/// What came of a merge.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The new adapter.
    pub deltas: Deltas,
    /// Norm of what the cut to a rank lost over the norm of the whole, over all matrices. 0 where nothing was cut.
    pub error: f64,
}

/// Merges adapters with a weight each. `rank` bounds the rank of the result; without one, [`Method::Concat`] keeps all and
/// the others take the largest rank among the adapters for each matrix.
///
/// # Errors
/// Shapes that differ, a rank that is too large, settings out of bounds, gains where they cannot be.
pub fn merge(parts: &[(&Deltas, f32)], method: Method, rank: Option<usize>) -> Result<Merged, MergeError> {
    if parts.is_empty() {
        return Err(MergeError::Nothing);
    }
    if let Some((_, weight)) = parts.iter().find(|(_, weight)| !weight.is_finite() || weight.abs() > 1e6) {
        return Err(MergeError::Setting { field: "weight", value: *weight, expected: "a finite number" });
    }
    if let Method::Ties { density } | Method::Dare { density, .. } = method {
        if !(density > 0.0 && density <= 1.0) {
            return Err(MergeError::Setting { field: "density", value: density, expected: "above 0, at most 1" });
        }
        if parts.iter().any(|(deltas, _)| !deltas.gains.is_empty()) {
            return Err(MergeError::Gains(method.name()));
        }
    }
    let mut merged = Deltas { pairs: Default::default(), gains: summed_gains(parts)?, ..parts[0].0.clone() };
    let (mut lost, mut whole) = (0.0, 0.0);
    let mut tensors: Vec<&String> = parts.iter().flat_map(|(deltas, _)| deltas.pairs.keys()).collect();
    tensors.sort_unstable();
    tensors.dedup();
    for tensor in tensors {
        let of_tensor: Vec<(&Pair, f32)> =
            parts.iter().filter_map(|(deltas, weight)| Some((deltas.pairs.get(tensor)?, *weight))).collect();
        same_shape(tensor, &of_tensor)?;
        let largest = of_tensor.iter().map(|(pair, _)| pair.rank()).max().unwrap_or(1);
        let (pair, missing, norm) = match method {
            Method::Concat | Method::Svd => {
                let stacked = stack(tensor, &of_tensor)?;
                let most = match method {
                    Method::Concat => rank.unwrap_or(usize::MAX),
                    _ => rank.unwrap_or(largest),
                };
                cut(tensor, stacked, most)?
            }
            Method::Ties { density } => dense::cut(&dense::ties(tensor, &of_tensor, density)?, rank.unwrap_or(largest)),
            Method::Dare { density, seed } => {
                dense::cut(&dense::dare(tensor, &of_tensor, density, seed)?, rank.unwrap_or(largest))
            }
        };
        lost += missing;
        whole += norm;
        merged.pairs.insert(tensor.clone(), pair);
    }
    let error = if whole > 0.0 { (lost / whole).sqrt() } else { 0.0 };
    Ok(Merged { deltas: merged, error })
}

fn same_shape(tensor: &str, pairs: &[(&Pair, f32)]) -> Result<(), MergeError> {
    let shapes: Vec<_> = pairs.iter().map(|(pair, _)| (pair.b.nrows(), pair.a.ncols())).collect();
    match shapes.first().filter(|first| shapes.iter().any(|shape| shape != *first)) {
        None => Ok(()),
        Some(_) => {
            let reason = "the adapters change matrices of different sizes: they are for different base models";
            Err(MergeError::Tensor { tensor: tensor.to_owned(), reason: reason.to_owned() })
        }
    }
}

/// The factors of all side by side, weights in B.
fn stack(tensor: &str, pairs: &[(&Pair, f32)]) -> Result<Pair, MergeError> {
    let broken = |e: ndarray::ShapeError| MergeError::Tensor { tensor: tensor.to_owned(), reason: e.to_string() };
    let weighed: Vec<_> = pairs.iter().map(|(pair, weight)| &pair.b * *weight).collect();
    let a: Vec<_> = pairs.iter().map(|(pair, _)| pair.a.view()).collect();
    let b: Vec<_> = weighed.iter().map(|b| b.view()).collect();
    Ok(Pair { a: concatenate(Axis(0), &a).map_err(broken)?, b: concatenate(Axis(1), &b).map_err(broken)? })
}

/// The pair at a rank, with the squared norms of what is missing and of the whole.
fn cut(tensor: &str, pair: Pair, rank: usize) -> Result<(Pair, f64, f64), MergeError> {
    let norm = pair.inner(&pair);
    if pair.rank() <= rank.min(MAX_RANK as usize) {
        return Ok((pair, 0.0, norm));
    }
    if rank > MAX_RANK as usize {
        return Err(MergeError::Rank { tensor: tensor.to_owned(), rank: pair.rank() });
    }
    let low = low_rank_product(&pair.b, &pair.a, rank);
    let low = Pair { a: low.a, b: low.b };
    // |W - V|^2 = |W|^2 - 2 W.V + |V|^2; rounding can leave less than nothing.
    let missing = (norm - 2.0 * pair.inner(&low) + low.inner(&low)).max(0.0);
    Ok((low, missing, norm))
}

/// Gains add up as everything does: they stand less 1.
fn summed_gains(parts: &[(&Deltas, f32)]) -> Result<std::collections::BTreeMap<String, Vec<f32>>, MergeError> {
    let mut all = std::collections::BTreeMap::<String, Vec<f32>>::new();
    for (deltas, weight) in parts {
        for (tensor, gain) in &deltas.gains {
            let sum = all.entry(tensor.clone()).or_insert_with(|| vec![0.0; gain.len()]);
            if sum.len() != gain.len() {
                let reason = "the adapters have gains of different lengths".to_owned();
                return Err(MergeError::Tensor { tensor: tensor.clone(), reason });
            }
            sum.iter_mut().zip(gain).for_each(|(sum, gain)| *sum += gain * weight);
        }
    }
    Ok(all)
}

/// A dense matrix cut to a rank, for the methods that need one.
fn cut_dense(matrix: &crate::import::Matrix, rank: usize) -> Pair {
    let low = low_rank(matrix, rank.clamp(1, MAX_RANK as usize));
    Pair { a: low.a, b: low.b }
}

#[cfg(test)]
mod tests;
