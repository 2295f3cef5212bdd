//! Which adapters of a large library change the same things: a sketch of each, candidates by bands of its signs, and the
//! exact cosine for those.
//!
//! The sketch is a random projection of the whole change, computed from the factors: entry `j` is the sum over matrices of
//! `s u' B A v`, with signs `s`, `u`, `v` drawn by `j`, so that the inner product of two sketches estimates that of the
//! changes. Two adapters are candidates when a band of 16 signs of random sums of their sketches is equal in any of 64
//! bands (at a cosine of 0.9 one of 250 pairs is missed, of unrelated ones one in a thousand is looked at), and their
//! sketches' cosine is near the bound. Bands are sorted one at a time, so the work grows with n log n and the memory with n.

use std::collections::BTreeSet;

use ndarray::Array2;

use super::Deltas;
use crate::import::Matrix;

/// Numbers in a sketch.
pub const WIDTH: usize = 128;
/// Bands of signs.
const BANDS: usize = 64;
/// Signs in a band.
const BITS: usize = 16;
/// How far below the bound a sketch's cosine may be for its pair to be looked at exactly.
const SLACK: f32 = 0.15;

/// A short stand-in of an adapter's changes, of length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch {
    /// The direction.
    pub numbers: Vec<f32>,
}

/// The cosine between the changes of two adapters: 1 for the same change at any strength, 0 for unrelated ones.
pub fn cosine(one: &Deltas, other: &Deltas) -> f64 {
    let norms = one.norm() * other.norm();
    if norms > 0.0 { one.inner(other) / norms } else { 0.0 }
}

/// Makes sketches; keeps the random signs for as many rows as it has seen.
#[derive(Debug)]
pub struct Sketcher {
    left: Matrix,
    right: Matrix,
}

impl Default for Sketcher {
    fn default() -> Self {
        Self { left: Matrix::zeros((0, WIDTH)), right: Matrix::zeros((0, WIDTH)) }
    }
}

impl Sketcher {
    /// The sketch of an adapter; of zeros where it changes nothing.
    pub fn sketch(&mut self, deltas: &Deltas) -> Sketch {
        let mut numbers = vec![0.0_f64; WIDTH];
        for (tensor, pair) in &deltas.pairs {
            let left = signs(&mut self.left, pair.b.nrows(), 1);
            let p = pair.b.t().dot(&left);
            let right = signs(&mut self.right, pair.a.ncols(), 2);
            let q = pair.a.dot(&right);
            let name =
                tensor.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
            for (j, number) in numbers.iter_mut().enumerate() {
                let product: f64 =
                    p.column(j).iter().zip(q.column(j)).map(|(p, q)| f64::from(*p) * f64::from(*q)).sum();
                *number += if mix(name ^ j as u64) & 1 == 0 { product } else { -product };
            }
        }
        let norm = numbers.iter().map(|n| n * n).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        Sketch { numbers: numbers.into_iter().map(|n| (n * scale) as f32).collect() }
    }
}

/// The first rows of an endless matrix of signs.
fn signs(known: &mut Matrix, rows: usize, side: u64) -> ndarray::ArrayView2<'_, f32> {
    if known.nrows() < rows {
        *known = Array2::from_shape_fn((rows, WIDTH), |(row, column)| {
            if mix(side << 60 ^ (row as u64) << 8 ^ column as u64) & 1 == 0 { 1.0 } else { -1.0 }
        });
    }
    known.slice(ndarray::s![..rows, ..])
}

/// Pairs of sketches whose cosine may be at least `bound`, by their places, each once, in order.
pub fn candidates(sketches: &[Sketch], bound: f32) -> Vec<(usize, usize)> {
    let mut found = BTreeSet::new();
    for band in 0..BANDS {
        let mut keys: Vec<(u16, u32)> =
            sketches.iter().zip(0..).filter_map(|(sketch, at)| Some((key(sketch, band)?, at))).collect();
        keys.sort_unstable();
        for group in keys.chunk_by(|a, b| a.0 == b.0) {
            for (nth, (_, one)) in group.iter().enumerate() {
                for (_, other) in group.iter().skip(nth + 1) {
                    let pair = (*one as usize, *other as usize);
                    let (Some(a), Some(b)) = (sketches.get(pair.0), sketches.get(pair.1)) else { continue };
                    let estimate: f32 = a.numbers.iter().zip(&b.numbers).map(|(a, b)| a * b).sum();
                    if estimate >= bound - SLACK {
                        found.insert(pair);
                    }
                }
            }
        }
    }
    found.into_iter().collect()
}

/// The signs of one band; none for a sketch of zeros.
fn key(sketch: &Sketch, band: usize) -> Option<u16> {
    if sketch.numbers.iter().all(|n| *n == 0.0) {
        return None;
    }
    let bit = |bit: usize| {
        let plane = (band * BITS + bit) as u64;
        let mut words = [0u64; WIDTH / 64];
        words.iter_mut().zip(0u64..).for_each(|(word, at)| *word = mix(3 << 60 ^ plane << 8 ^ at));
        let sign = |at: usize| words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
        sketch.numbers.iter().enumerate().map(|(at, n)| if sign(at) { *n } else { -*n }).sum::<f32>() > 0.0
    };
    Some((0..BITS).fold(0, |key, at| key << 1 | u16::from(bit(at))))
}

/// The output function of SplitMix64, of a word that was moved on.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
