//! Merges that look at every number of the whole change: one matrix at a time, then cut to a rank.

use super::{MergeError, Pair, cut_dense};
use crate::import::Matrix;
use crate::import::limits::MAX_MATRIX;

/// The whole changes of one matrix.
fn wholes(tensor: &str, pairs: &[(&Pair, f32)]) -> Result<Vec<(Matrix, f32)>, MergeError> {
    let size = pairs.first().map_or(0, |(pair, _)| pair.b.nrows() as u64 * pair.a.ncols() as u64);
    if size > MAX_MATRIX {
        let reason = format!("has {size} numbers, more than {MAX_MATRIX}; use concat or svd");
        return Err(MergeError::Tensor { tensor: tensor.to_owned(), reason });
    }
    Ok(pairs.iter().map(|(pair, weight)| (pair.whole(), *weight)).collect())
}

/// The largest numbers of each; the sign by weighted vote; the weighted average of those that agree, times the sum of all
/// weights, so that equal adapters give their weighted sum.
pub fn ties(tensor: &str, pairs: &[(&Pair, f32)], density: f32) -> Result<Matrix, MergeError> {
    let mut all = wholes(tensor, pairs)?;
    all.iter_mut().for_each(|(matrix, _)| trim(matrix, density));
    let total: f32 = all.iter().map(|(_, weight)| weight).sum();
    let mut merged = Matrix::zeros(all.first().map_or((0, 0), |(matrix, _)| matrix.dim()));
    let mut agreed = merged.clone();
    let mut vote = merged.clone();
    for (matrix, weight) in &all {
        vote.scaled_add(*weight, matrix);
    }
    for (matrix, weight) in &all {
        ndarray::Zip::from(&mut merged).and(&mut agreed).and(matrix).and(&vote).for_each(|sum, weights, n, vote| {
            if *n != 0.0 && (n * weight).signum() == vote.signum() {
                *sum += n * weight;
                *weights += weight;
            }
        });
    }
    merged.zip_mut_with(&agreed, |sum, weights| *sum = if *weights == 0.0 { 0.0 } else { *sum / weights * total });
    Ok(merged)
}

/// Zeros for all but the largest numbers.
fn trim(matrix: &mut Matrix, density: f32) {
    let keep = ((matrix.len() as f64 * f64::from(density)).ceil() as usize).clamp(1, matrix.len().max(1));
    if keep >= matrix.len() {
        return;
    }
    let mut sizes: Vec<f32> = matrix.iter().map(|n| n.abs()).collect();
    let at = sizes.len() - keep;
    let (_, least, _) = sizes.select_nth_unstable_by(at, f32::total_cmp);
    let least = *least;
    matrix.mapv_inplace(|n| if n.abs() < least { 0.0 } else { n });
}

/// Numbers dropped by chance, the rest divided by the share kept, summed with the weights.
pub fn dare(tensor: &str, pairs: &[(&Pair, f32)], density: f32, seed: u64) -> Result<Matrix, MergeError> {
    let all = wholes(tensor, pairs)?;
    let mut merged = Matrix::zeros(all.first().map_or((0, 0), |(matrix, _)| matrix.dim()));
    let name = tensor.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let limit = (f64::from(density) * 2f64.powi(53)) as u64;
    for (at, (matrix, weight)) in all.iter().enumerate() {
        let mut state = mix(seed ^ name.rotate_left(17) ^ mix(at as u64));
        merged.zip_mut_with(matrix, |sum, n| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            if mix(state) >> 11 < limit {
                *sum += n * weight / density;
            }
        });
    }
    Ok(merged)
}

/// The output function of SplitMix64.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A matrix as a pair of a rank, with the squared norms of what is missing and of the whole.
pub fn cut(matrix: &Matrix, rank: usize) -> (Pair, f64, f64) {
    let pair = cut_dense(matrix, rank);
    let squares = |matrix: &Matrix| matrix.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>();
    let missing = squares(&(matrix - &pair.whole()));
    (pair, missing, squares(matrix))
}
