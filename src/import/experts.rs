//! Experts of a mixture: a PEFT folder has a pair for each, a GGUF file stacks the pairs of one tensor.
//!
//! The pairs of a stack share one rank and one format. A pair of a lower rank gets rows and columns of zeros, and an
//! expert without a pair gets zeros alone: neither changes what is added.

use std::collections::{HashMap, HashSet};

use ndarray::{Array2, Axis};

use super::dequant::Matrix;
use super::pack::{SettledPair, Storage};
use super::quantize::{Factors, Stored, StoredPair, store_pair};
use super::safetensors::Dtype;

/// Gives the pairs of each stack one rank. The strength of each, its alpha over its rank, stays.
pub(super) fn level(pairs: &mut [SettledPair]) {
    let mut most: HashMap<String, usize> = HashMap::new();
    for pair in pairs.iter().filter(|pair| pair.target.expert.is_some()) {
        let rank = most.entry(pair.target.tensor.clone()).or_default();
        *rank = pair.a.nrows().max(*rank);
    }
    for pair in pairs.iter_mut() {
        let Some(&rank) = most.get(&pair.target.tensor) else { continue };
        let missing = rank - pair.a.nrows();
        if missing > 0 {
            pair.alpha *= rank as f64 / pair.a.nrows() as f64;
            pair.a = padded(&pair.a, Axis(0), missing);
            pair.b = padded(&pair.b, Axis(1), missing);
        }
    }
}

fn padded(matrix: &Matrix, axis: Axis, missing: usize) -> Matrix {
    let mut shape = matrix.raw_dim();
    shape[axis.index()] = missing;
    let zeros = Array2::zeros(shape);
    ndarray::concatenate(axis, &[matrix.view(), zeros.view()]).unwrap_or_else(|_| matrix.clone())
}

/// Stores the pairs of one tensor, of one rank: a plain pair, or a stack of all its experts.
pub(super) fn store(pairs: &[&SettledPair], storage: Storage) -> StoredPair {
    let one = |pair: &SettledPair, storage: Storage, source: Dtype| {
        let factors = Factors { a: &pair.a, b: &pair.b, transposed: pair.target.embedding };
        store_pair(factors, storage, source)
    };
    let first = pairs[0];
    let Some((_, experts)) = first.target.expert else { return one(first, storage, first.source) };
    let alike = pairs.iter().all(|pair| pair.source == first.source);
    let source = if alike { first.source } else { Dtype::F32 };
    let all = |storage| pairs.iter().map(|pair| one(pair, storage, source)).collect::<Vec<_>>();
    let mut stored = all(storage);
    let kinds: HashSet<_> = stored.iter().map(|pair| (pair.a.kind.id(), pair.b.kind.id())).collect();
    let widened = kinds.len() > 1 || stored.iter().any(|pair| pair.widened);
    if kinds.len() > 1 {
        stored = all(Storage::F32);
    }
    let stack = |half: fn(&StoredPair) -> &Stored| {
        let (kind, size) = (half(&stored[0]).kind, half(&stored[0]).bytes.len());
        // Zero bytes are zeros in every format that is written.
        let mut bytes = vec![0; size * experts as usize];
        for (pair, stored) in pairs.iter().zip(&stored) {
            let Some((at, _)) = pair.target.expert else { continue };
            bytes[at as usize * size..][..size].copy_from_slice(&half(stored).bytes);
        }
        Stored { kind, bytes }
    };
    StoredPair {
        a: stack(|pair| &pair.a),
        b: stack(|pair| &pair.b),
        lost: stored.iter().map(|pair| pair.lost).sum(),
        whole: stored.iter().map(|pair| pair.whole).sum(),
        widened,
    }
}
