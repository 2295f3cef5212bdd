//! Sums against sums made whole, cuts against the best there is, twins against strangers.

use std::collections::BTreeMap;

use super::similar::{Sketcher, candidates};
use super::*;
use crate::gguf::Gguf;
use crate::import::Matrix;

/// Numbers from -1 to 1.
fn random(rows: usize, columns: usize, seed: u64) -> Matrix {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15;
    Matrix::from_shape_simple_fn((rows, columns), || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn adapter(seed: u64, rank: usize) -> Deltas {
    let mut pairs = BTreeMap::new();
    for (at, (tensor, outputs, inputs)) in
        [("blk.0.attn_q.weight", 24, 16), ("blk.0.ffn_up.weight", 40, 16), ("blk.1.ffn_down.weight", 16, 40)]
            .into_iter()
            .enumerate()
    {
        let seed = seed * 100 + at as u64 * 2;
        pairs.insert(tensor.to_owned(), Pair { a: random(rank, inputs, seed + 1), b: random(outputs, rank, seed + 2) });
    }
    Deltas { architecture: "llama".into(), pairs, gains: BTreeMap::new() }
}

/// The weighted sum, number by number.
fn whole(parts: &[(&Deltas, f32)], tensor: &str) -> Matrix {
    let all = parts.iter().map(|(deltas, weight)| deltas.pairs[tensor].whole() * *weight);
    all.reduce(|sum, one| sum + one).expect("at least one")
}

fn distance(deltas: &Deltas, parts: &[(&Deltas, f32)]) -> f32 {
    let far = |tensor: &String| {
        (whole(parts, tensor) - deltas.pairs[tensor].whole()).iter().fold(0.0f32, |m, n| m.max(n.abs()))
    };
    deltas.pairs.keys().map(far).fold(0.0, f32::max)
}

#[test]
fn stacking_is_the_exact_sum_whatever_the_ranks() {
    let (a, b, c) = (adapter(1, 2), adapter(2, 3), adapter(3, 4));
    let parts = [(&a, 0.5), (&b, 0.3), (&c, -0.2)];
    let merged = merge(&parts, Method::Concat, None).expect("merged");
    assert_eq!((merged.deltas.rank(), merged.error), (9, 0.0));
    assert!(distance(&merged.deltas, &parts) < 1e-5);
    // The average of the factors is another adapter.
    let mean = Pair {
        a: (&a.pairs["blk.0.attn_q.weight"].a + &adapter(5, 2).pairs["blk.0.attn_q.weight"].a) * 0.5,
        ..a.pairs["blk.0.attn_q.weight"].clone()
    };
    assert!(
        (whole(&[(&a, 0.5), (&adapter(5, 2), 0.5)], "blk.0.attn_q.weight") - mean.whole())
            .iter()
            .any(|n| n.abs() > 0.1)
    );
    // A matrix that only one of them changes stays.
    let mut less = b.clone();
    less.pairs.remove("blk.0.attn_q.weight");
    let merged = merge(&[(&a, 1.0), (&less, 1.0)], Method::Concat, None).expect("merged");
    assert_eq!((merged.deltas.pairs.len(), merged.deltas.pairs["blk.0.attn_q.weight"].rank()), (3, 2));
}

#[test]
fn a_cut_sum_is_as_near_as_can_be_and_tells_its_error() {
    let (a, b) = (adapter(1, 4), adapter(2, 4));
    let parts = [(&a, 0.6), (&b, 0.4)];
    for rank in [1, 3, 6, 8] {
        let merged = merge(&parts, Method::Svd, Some(rank)).expect("merged");
        assert!(merged.deltas.rank() <= rank);
        let (mut lost, mut all) = (0.0f64, 0.0f64);
        for tensor in merged.deltas.pairs.keys() {
            let full = whole(&parts, tensor);
            let best = low_rank(&full, rank);
            let squares = |m: &Matrix| m.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>();
            let ours = squares(&(&full - &merged.deltas.pairs[tensor].whole()));
            assert!(ours <= squares(&(&full - &best.b.dot(&best.a))) * 1.02 + 1e-7, "{tensor} at {rank}");
            lost += ours;
            all += squares(&full);
        }
        assert!((merged.error - (lost / all).sqrt()).abs() < 1e-3, "{rank}: {} {}", merged.error, (lost / all).sqrt());
    }
    // Twins lose nothing at their own rank.
    let merged = merge(&[(&a, 0.5), (&a, 0.5)], Method::Svd, None).expect("merged");
    assert!(merged.error < 1e-3 && distance(&merged.deltas, &[(&a, 1.0)]) < 1e-3, "{}", merged.error);
}

#[test]
fn ties_and_dare_do_what_their_authors_say() {
    let (a, b) = (adapter(1, 2), adapter(2, 2));
    // Twins agree everywhere: the weighted sum.
    let merged = merge(&[(&a, 0.5), (&a, 0.5)], Method::Ties { density: 1.0 }, None).expect("merged");
    assert!(distance(&merged.deltas, &[(&a, 1.0)]) < 1e-3);
    // One number: signs by vote, and the larger side wins alone.
    let one = |n: f32| Pair { a: Matrix::from_elem((1, 1), 1.0), b: Matrix::from_elem((1, 1), n) };
    let (up, down) = (one(3.0), one(-1.0));
    let ties = dense::ties("t", &[(&up, 0.5), (&down, 0.5)], 1.0).expect("merged");
    assert_eq!(ties[[0, 0]], 3.0);
    // The smallest numbers are dropped first.
    let row = Pair {
        a: Matrix::from_shape_vec((1, 4), vec![1.0, -4.0, 2.0, 3.0]).expect("shape"),
        b: Matrix::from_elem((1, 1), 1.0),
    };
    let kept = dense::ties("t", &[(&row, 1.0)], 0.5).expect("merged");
    assert_eq!(kept.as_slice().expect("a row"), [0.0, -4.0, 0.0, 3.0]);
    // DARE is right on average, and the same for the same seed.
    let big = Pair { a: Matrix::from_elem((1, 300), 1.0), b: Matrix::from_elem((300, 1), 2.0) };
    let dare = dense::dare("t", &[(&big, 0.5)], 0.25, 7).expect("merged");
    let kept = dare.iter().filter(|n| **n != 0.0).count() as f64 / dare.len() as f64;
    assert!((kept - 0.25).abs() < 0.01 && dare.iter().all(|n| *n == 0.0 || *n == 4.0), "{kept}");
    assert_eq!(dare, dense::dare("t", &[(&big, 0.5)], 0.25, 7).expect("merged"));
    assert_ne!(dare, dense::dare("t", &[(&big, 0.5)], 0.25, 8).expect("merged"));
    let whole = merge(&[(&a, 0.5), (&b, 0.5)], Method::Dare { density: 1.0, seed: 1 }, Some(4)).expect("merged");
    assert!(distance(&whole.deltas, &[(&a, 0.5), (&b, 0.5)]) < 1e-3);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let a = adapter(1, 2);
    let mut other = adapter(2, 2);
    other.pairs.insert("blk.0.attn_q.weight".into(), Pair { a: random(2, 8, 1), b: random(24, 2, 2) });
    let mut gained = adapter(3, 2);
    gained.gains.insert("blk.0.attn_k.weight".into(), vec![0.5, -0.5]);
    assert_eq!(merge(&[], Method::Svd, None).expect_err("none"), MergeError::Nothing);
    let cases = [
        (vec![(&a, 1.0), (&other, 1.0)], Method::Concat, "different base models"),
        (vec![(&a, f32::NAN)], Method::Concat, "weight"),
        (vec![(&a, 1.0)], Method::Ties { density: 0.0 }, "density"),
        (vec![(&gained, 1.0)], Method::Dare { density: 0.5, seed: 0 }, "gains"),
        (vec![(&a, 1.0); 300], Method::Concat, "ranks add up to 600"),
    ];
    for (parts, method, words) in cases {
        let error = merge(&parts, method, None).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    let merged = merge(&[(&gained, 0.5), (&gained, 0.25)], Method::Svd, None).expect("gains add up");
    assert_eq!(merged.deltas.gains["blk.0.attn_k.weight"], [0.375, -0.375]);
}

#[test]
fn adapters_survive_their_file() {
    let mut deltas =
        merge(&[(&adapter(1, 2), 1.0), (&adapter(2, 3), 1.0)], Method::Concat, None).expect("merged").deltas;
    // Ranks that differ share one alpha.
    deltas.pairs.insert("blk.1.attn_v.weight".into(), Pair { a: random(1, 16, 8), b: random(8, 1, 9) });
    let file = deltas.to_gguf("both").expect("written");
    let back = Deltas::read_alone(&file).expect("read");
    assert_eq!(back.pairs.keys().collect::<Vec<_>>(), deltas.pairs.keys().collect::<Vec<_>>());
    assert!(distance(&back, &[(&deltas, 1.0)]) < 1e-5);
    assert_eq!(Gguf::read(&file).expect("GGUF").str("general.name").expect("a text"), Some("both"));
}

/// The same change by other factors: `B M` and the inverse of `M` before `A`, for a rotation `M`.
fn rotated(deltas: &Deltas) -> Deltas {
    let mut turned = deltas.clone();
    for pair in turned.pairs.values_mut() {
        let rank = pair.rank();
        let mut m = Matrix::eye(rank);
        let (sine, cosine) = 0.7f32.sin_cos();
        m[[0, 0]] = cosine;
        m[[0, 1]] = -sine;
        m[[1, 0]] = sine;
        m[[1, 1]] = cosine;
        pair.b = pair.b.dot(&m);
        pair.a = m.t().dot(&pair.a);
    }
    turned
}

#[test]
fn twins_are_found_and_strangers_are_not() {
    let originals: Vec<Deltas> = (0..40).map(|seed| adapter(seed + 10, 4)).collect();
    let mut all = originals.clone();
    // Twins: scaled, turned, noised to a cosine of about 0.95.
    for (at, original) in originals.iter().enumerate().take(12) {
        let noise = adapter(1000 + at as u64, 4);
        let noised = merge(
            &[(original, 1.0), (&noise.scaled((original.norm() / noise.norm() * 0.3) as f32), 1.0)],
            Method::Concat,
            None,
        );
        all.push(match at % 3 {
            0 => original.scaled(1.7),
            1 => rotated(original),
            _ => noised.expect("merged").deltas,
        });
    }
    let mut sketcher = Sketcher::default();
    let sketches: Vec<Sketch> = all.iter().map(|deltas| sketcher.sketch(deltas)).collect();
    let found = candidates(&sketches, 0.9);
    let twins: Vec<(usize, usize)> =
        found.iter().copied().filter(|(one, other)| cosine(&all[*one], &all[*other]) > 0.9).collect();
    let planted: Vec<(usize, usize)> = (0..12).map(|at| (at, 40 + at)).collect();
    assert_eq!(twins, planted);
    assert!(found.len() < 30, "few are looked at: {}", found.len());
    for (one, other) in [(0, 1), (5, 17)] {
        assert!(cosine(&all[one], &all[other]).abs() < 0.2, "strangers");
    }
    assert!((cosine(&all[1], &all[41]) - 1.0).abs() < 1e-5);
    let nothing = Deltas { pairs: BTreeMap::new(), ..originals[0].clone() };
    assert!(candidates(&[sketcher.sketch(&nothing), sketcher.sketch(&nothing)], 0.9).is_empty());
}
