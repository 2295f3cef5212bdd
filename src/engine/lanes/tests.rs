//! The kernels against sums written out in double precision, and the bounds of the residents.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use proptest::prelude::*;

use super::kernel::{self, Share};
use super::*;
use crate::adapter::{AdapterDigest, AdapterFile, HeldBytes};
use crate::gguf::{GgufWriter, ModelFacts};

/// Number formats without an engine: 32-bit and 16-bit floats, summed in double precision.
struct Plain;

impl Numerics for Plain {
    fn convert(&self, kind: TensorType, x: &[f32], out: &mut Vec<u8>) {
        let half = kind == TensorType::F16;
        x.iter().for_each(|x| {
            let x = if half { f16::from_f32(*x).to_f32() } else { *x };
            out.extend(x.to_le_bytes());
        });
    }

    fn dot(&self, kind: TensorType, row: &[u8], x: &[u8], n: usize) -> f32 {
        let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let weight = |i: usize| match kind {
            TensorType::F16 => f16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32(),
            _ => float(&row[4 * i..]),
        };
        (0..n).map(|i| f64::from(weight(i)) * f64::from(float(&x[4 * i..]))).sum::<f64>() as f32
    }
}

struct Held(Vec<u8>);

impl HeldBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

const N_IN: usize = 24;
const N_OUT: usize = 40;
const NAME: &str = "blk.0.attn_q.weight";

fn base() -> ModelFacts {
    let mut facts = crate::gguf::tests::sample::facts(&crate::gguf::tests::sample::model());
    facts.tensors.insert(NAME.to_string(), [N_IN as u64, N_OUT as u64, 1, 1]);
    facts
}

/// An adapter with its numbers: A by rows, B by rows.
struct Sample {
    lane: Arc<LaneAdapter>,
    file: Arc<AdapterFile>,
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

fn sample(seed: u64, rank: usize, kind: TensorType) -> Sample {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        f16::from_f32((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0).to_f32()
    };
    let a: Vec<f32> = (0..rank * N_IN).map(|_| next()).collect();
    let b: Vec<f32> = (0..rank * N_OUT).map(|_| next()).collect();
    let bytes = |v: &[f32]| -> Vec<u8> {
        match kind {
            TensorType::F16 => v.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            _ => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    };
    let mut writer = GgufWriter::new();
    writer.set("general.type", "adapter").expect("set").set("adapter.type", "lora").expect("set");
    writer.set("general.architecture", "llama").expect("set").set("adapter.lora.alpha", 2.0f32).expect("set");
    writer.tensor(&format!("{NAME}.lora_a"), kind, &[N_IN as u64, rank as u64], bytes(&a)).expect("added");
    writer.tensor(&format!("{NAME}.lora_b"), kind, &[rank as u64, N_OUT as u64], bytes(&b)).expect("added");
    let bytes = writer.to_bytes();
    let digest = AdapterDigest::of(&bytes);
    let file = Arc::new(AdapterFile::new(Path::new("a"), Box::new(Held(bytes)), digest, &base()).expect("sound"));
    let lane = Arc::new(LaneAdapter::pack(&file, &Sites::of(&base())).expect("for lanes"));
    Sample { lane, file, rank, a, b }
}

impl kernel::OutputRows for Vec<Vec<f32>> {
    fn part(&mut self, column: usize, range: std::ops::Range<usize>) -> &mut [f32] {
        &mut self[column][range]
    }
}

/// Runs both kernels as `threads` threads would, one after the other.
fn apply(step: &Step, columns: Columns, x: &[Vec<f32>], y: &mut Vec<Vec<f32>>, threads: usize) {
    let site = Sites::of(&base()).find(NAME).expect("there");
    for thread in 0..threads {
        kernel::project(step, columns, (site, N_OUT), &Plain, Share { thread, threads }, |c| x[c].as_slice());
    }
    for thread in 0..threads {
        let mine = Share { thread, threads }.outputs(N_OUT);
        kernel::expand(step, columns, site, mine, &Plain, y);
    }
}

/// What a row should get, in double precision.
fn expected(set: &[(&Sample, f32)], x: &[f32], output: usize) -> f64 {
    let of = |(s, scale): &(&Sample, f32)| {
        let h = |j: usize| (0..N_IN).map(|i| f64::from(s.a[j * N_IN + i]) * f64::from(x[i])).sum::<f64>();
        let sum: f64 = (0..s.rank).map(|j| f64::from(s.b[output * s.rank + j]) * h(j)).sum();
        sum * f64::from(*scale) * 2.0 / s.rank as f64
    };
    set.iter().map(of).sum()
}

fn rows(n: usize, width: usize, seed: usize) -> Vec<Vec<f32>> {
    // Numbers that half floats hold exactly.
    (0..n).map(|r| (0..width).map(|i| ((r * 7 + i * 3 + seed) % 16) as f32 / 16.0 - 0.5).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any rows, any sets, any number of threads: each row gets the weighted sum of its own adapters and nothing else.
    #[test]
    fn every_row_gets_its_own_sum(
        runs in proptest::collection::vec((0usize..4, 1usize..6, 0usize..3), 1..6),
        ranks in proptest::collection::vec(1usize..20, 3),
        threads in 1usize..5,
        half in any::<bool>(),
        outputs_only in any::<bool>(),
    ) {
        let kind = if half { TensorType::F16 } else { TensorType::F32 };
        let samples: Vec<Sample> = ranks.iter().enumerate().map(|(i, r)| sample(i as u64 + 1, *r, kind)).collect();
        let mut step = Step::default();
        let mut sets: Vec<Vec<(usize, f32)>> = Vec::new();
        for (which, length, members) in runs {
            let members: Vec<(usize, f32)> = (0..members).map(|m| ((which + m) % 3, 0.5 + m as f32)).collect();
            let set: Vec<_> = members.iter().map(|(i, s)| (samples[*i].lane.clone(), *s)).collect();
            // The last row of a run wants logits.
            let wants: Vec<bool> = (0..length).map(|i| i + 1 == length).collect();
            step.push(&set, &wants);
            sets.extend((0..length).filter(|i| !outputs_only || wants[*i]).map(|_| members.clone()));
        }
        let x = rows(sets.len(), N_IN, 1);
        let before = rows(sets.len(), N_OUT, 5);
        let mut y = before.clone();
        let columns = step.columns(sets.len()).expect("one of the two numbers");
        apply(&step, columns, &x, &mut y, threads);
        for (row, set) in sets.iter().enumerate() {
            let set: Vec<_> = set.iter().map(|(i, s)| (&samples[*i], *s)).collect();
            for o in 0..N_OUT {
                let added = f64::from(y[row][o]) - f64::from(before[row][o]);
                let wanted = expected(&set, &x[row], o);
                // Half-float weights round `A x` to 11 bits.
                let bound = if half { 2e-2 } else { 1e-4 };
                prop_assert!((added - wanted).abs() <= bound * (1.0 + wanted.abs()), "row {row}: {added} for {wanted}");
                if set.is_empty() {
                    prop_assert_eq!(y[row][o].to_bits(), before[row][o].to_bits(), "a base row is not touched");
                }
            }
        }
    }
}

#[test]
fn a_gain_multiplies_what_the_base_gave_beside_any_pair() {
    let pair = sample(3, 4, TensorType::F32);
    let gain: Vec<f32> = (0..N_OUT).map(|o| o as f32 / 8.0 - 1.0).collect();
    let mut writer = GgufWriter::new();
    writer.set("general.type", "adapter").expect("set").set("adapter.type", "lora_gain").expect("set");
    writer.set("general.architecture", "llama").expect("set").set("adapter.lora.alpha", 1.0f32).expect("set");
    let bytes: Vec<u8> = gain.iter().flat_map(|g| g.to_le_bytes()).collect();
    writer.tensor(&format!("{NAME}.gain"), TensorType::F32, &[N_OUT as u64], bytes).expect("added");
    let bytes = writer.to_bytes();
    let digest = AdapterDigest::of(&bytes);
    let file = Arc::new(AdapterFile::new(Path::new("g"), Box::new(Held(bytes)), digest, &base()).expect("sound"));
    let lane = Arc::new(LaneAdapter::pack(&file, &Sites::of(&base())).expect("for lanes"));
    let mut step = Step::default();
    step.push(&[(pair.lane.clone(), 1.0), (lane, 0.5)], &[true, true]);
    let (x, before) = (rows(2, N_IN, 1), rows(2, N_OUT, 5));
    let mut y = before.clone();
    apply(&step, Columns::All, &x, &mut y, 2);
    for row in 0..2 {
        for o in 0..N_OUT {
            let base = f64::from(before[row][o]);
            let wanted = base + 0.5 * f64::from(gain[o]) * base + expected(&[(&pair, 1.0)], &x[row], o);
            assert!((f64::from(y[row][o]) - wanted).abs() < 1e-4, "row {row} output {o}");
        }
    }
}

#[test]
fn a_matrix_of_neither_size_is_not_understood() {
    let mut step = Step::default();
    step.push(&[], &[false, false, true]);
    assert_eq!(step.columns(3), Some(Columns::All));
    assert_eq!(step.columns(1), Some(Columns::Outputs));
    assert_eq!(step.columns(2), None);
    step.clear();
    step.push(&[], &[true]);
    assert_eq!(step.columns(1), Some(Columns::All), "when both are equal they are the same rows");
}

#[test]
fn the_least_recently_used_adapter_goes_first() {
    let residents = Residents::new(Sites::of(&base()), 2, usize::MAX);
    let files: Vec<_> = (1..4).map(|i| sample(i, 4, TensorType::F16).file).collect();
    residents.ready(&files[0]).expect("for lanes");
    residents.ready(&files[1]).expect("for lanes");
    residents.ready(&files[0]).expect("for lanes");
    residents.ready(&files[2]).expect("for lanes");
    assert!(residents.get(files[0].digest()).is_some());
    assert!(residents.get(files[1].digest()).is_none(), "it was used longest ago");
    assert_eq!((residents.stats().loads, residents.stats().evictions), (3, 1));
    let small = Residents::new(Sites::of(&base()), 9, residents.stats().bytes / 2);
    files.iter().for_each(|f| drop(small.ready(f).expect("for lanes")));
    assert_eq!(small.stats().resident, 1, "bounded in bytes too");
}

#[test]
fn what_is_pinned_or_held_stays() {
    let residents = Residents::new(Sites::of(&base()), 2, usize::MAX);
    let files: Vec<_> = (1..6).map(|i| sample(i, 4, TensorType::F16).file).collect();
    residents.pin(&files[0]).expect("for lanes");
    let held = residents.ready(&files[1]).expect("for lanes");
    files[2..].iter().for_each(|f| drop(residents.ready(f).expect("for lanes")));
    assert!(residents.get(files[0].digest()).is_some(), "pinned");
    let loads = residents.stats().loads;
    let again = residents.ready(&files[1]).expect("for lanes");
    assert!(Arc::ptr_eq(&held, &again) && residents.stats().loads == loads, "held, so it is not laid out again");
    drop((held, again));
    assert!(residents.get(files[1].digest()).is_none(), "nobody holds it now");
}

#[test]
fn an_adapter_larger_than_the_budget_is_laid_out_and_drives_nobody_out() {
    let small = sample(1, 4, TensorType::F16);
    let residents = Residents::new(Sites::of(&base()), 9, small.lane.bytes());
    residents.ready(&small.file).expect("for lanes");
    let large = sample(2, 16, TensorType::F16).file;
    let held = residents.ready(&large).expect("for lanes");
    let stats = residents.stats();
    assert_eq!((stats.resident, stats.evictions, stats.oversized), (1, 0, 1));
    assert!(residents.get(small.file.digest()).is_some());
    assert!(residents.get(large.digest()).is_some(), "while it is held");
    drop(held);
    assert!(residents.get(large.digest()).is_none());
}

#[test]
fn an_adapter_costs_its_own_bytes() {
    for rank in [8, 16] {
        let s = sample(1, rank, TensorType::F16);
        // The last tile of outputs is a whole one.
        let weights = (rank * (N_IN + N_OUT.next_multiple_of(kernel::TILE)) * 2) as f64;
        let over = s.lane.bytes() as f64 - weights;
        assert!(over <= 200.0, "{over} bytes more than its {weights} for one linear");
    }
}
