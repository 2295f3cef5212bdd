//! The arithmetic of lanes: `h = A x` ([`project`]), then `y += s B h` ([`expand`]). Both are called by every thread of
//! the engine's pool with its own index, and each thread does its own part.
//!
//! Sums are made in the order in which llama.cpp's CPU path makes them, so that a row in a mixed batch gets the very
//! numbers it would get alone (checked bit for bit in `tests/it/lanes.rs`): for one row of a sequence, ggml's own dot
//! product (`ggml_vec_dot_*` of `ggml-cpu`, which adds leftovers in double precision); for several, the order of its
//! small matrix product (`tinyBLAS` in `llamafile/sgemm.cpp`: one vector of partial sums, then a tree). Where the
//! order is not known (quantized weights, other instruction sets), the difference is rounding noise.

use std::cell::RefCell;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::pack::{LaneWeight, Outputs, Stored};
use super::step::{Member, Place};
use super::{Columns, LaneAdapter, Numerics, Step};
use crate::gguf::TensorType;

/// Floats in a vector of the instruction set this program is built for; 1 when ggml's order is not followed.
const LANES: usize = if cfg!(all(target_feature = "avx512f", target_feature = "fma")) {
    16
} else if cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c")) {
    8
} else {
    1
};

/// Outputs computed at once.
const BLOCK: usize = 64;

/// Which thread of how many.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// From 0.
    pub thread: usize,
    /// At least 1.
    pub threads: usize,
}

impl Share {
    /// This thread's part of `0..n`, in whole multiples of `grain` (the last part aside).
    pub fn range(self, n: usize, grain: usize) -> Range<usize> {
        let blocks = n.div_ceil(grain);
        let at = |i: usize| (blocks * i / self.threads * grain).min(n);
        at(self.thread)..at(self.thread + 1)
    }
}

/// `h = A x` for every row of the step that has adapters at `site`. `x(column)` is an input row, `[n_in]`.
pub fn project<'x>(
    step: &Step,
    columns: Columns,
    site: usize,
    numerics: &dyn Numerics,
    share: Share,
    x: impl Fn(usize) -> &'x [f32],
) {
    let rows: usize = step.groups.iter().map(|g| g.places(columns).len()).sum();
    // Many rows are shared out among the threads, few are computed together.
    let by_rows = rows >= 2 * share.threads;
    let mine = share.range(rows, 1);
    BUFFERS.with_borrow_mut(|buffers| {
        let mut before = 0;
        for group in &step.groups {
            let all = group.places(columns);
            let places = if by_rows {
                let clip = |at: usize| at.clamp(before, before + all.len()) - before;
                &all[clip(mine.start)..clip(mine.end)]
            } else {
                all
            };
            before += all.len();
            if places.is_empty() {
                continue;
            }
            for member in &group.members {
                let Some(weight) = member.adapter.weight(site).filter(|w| w.rank > 0) else { continue };
                let ranks = if by_rows { 0..weight.rank } else { share.range(weight.rank, 1) };
                if ranks.is_empty() {
                    continue;
                }
                let task = Task { step, member, weight, places, ranks };
                if all.len() > 1 && weight.rank % 4 == 0 && follows_order(weight.a.kind) {
                    task.project_many(buffers, &x);
                } else {
                    task.project_each(buffers, numerics, &x);
                }
            }
        }
    });
}

/// The rows of a matrix of outputs, `[columns][n_out]`.
pub trait OutputRows {
    /// A part of one row.
    fn part(&mut self, column: usize, range: Range<usize>) -> &mut [f32];
}

/// `y += scale * B h` for this thread's `outputs` of every row with adapters at `site`. The rows hold `y = W x` when this
/// is called.
pub fn expand(
    step: &Step,
    columns: Columns,
    site: usize,
    outputs: Range<usize>,
    numerics: &dyn Numerics,
    rows: &mut impl OutputRows,
) {
    BUFFERS.with_borrow_mut(|buffers| {
        for group in &step.groups {
            let places = group.places(columns);
            let gains = group.members.iter().filter_map(|m| Some((m, m.adapter.weight(site)?.gain.as_deref()?)));
            let plain: Vec<(&Member, &[f32])> = gains.collect();
            for place in places {
                // Gains multiply `W x` itself, so they are taken before anything is added to it.
                let mut start = outputs.start;
                while !plain.is_empty() && start < outputs.end {
                    let end = (start + BLOCK).min(outputs.end);
                    let y = rows.part(place.column, start..end);
                    for (i, y) in y.iter_mut().enumerate() {
                        let base = *y;
                        for (member, gain) in &plain {
                            *y += member.scale * gain[start + i] * base;
                        }
                    }
                    start = end;
                }
            }
            for member in &group.members {
                let Some(weight) = member.adapter.weight(site).filter(|w| w.rank > 0) else { continue };
                let strength = strength(&member.adapter, weight, member.scale);
                let tree = places.len() > 1 && LANES > 1 && weight.b_follows_order();
                buffers.hidden.clear();
                buffers.converted.clear();
                for place in places {
                    buffers.fetch(step, place.scratch + member.offset, weight, numerics);
                }
                let mut start = outputs.start;
                while start < outputs.end {
                    let end = (start + BLOCK).min(outputs.end);
                    buffers.load(weight, start..end);
                    for (index, place) in places.iter().enumerate() {
                        let y = rows.part(place.column, start..end);
                        buffers.add(
                            member,
                            weight,
                            Part { index, of: places.len(), start, tree },
                            strength,
                            numerics,
                            y,
                        );
                    }
                    start = end;
                }
            }
        }
    });
}

thread_local! {
    /// Each thread of the engine's pool keeps its own.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Which row, whose first output, and how it is summed.
struct Part {
    index: usize,
    of: usize,
    start: usize,
    tree: bool,
}

/// As `llama_adapter_lora_weight::get_scale` computes it, in the same order.
fn strength(adapter: &LaneAdapter, weight: &LaneWeight, scale: f32) -> f32 {
    scale * adapter.alpha() / weight.rank as f32
}

/// Formats whose sums are made in ggml's order here.
fn follows_order(kind: TensorType) -> bool {
    LANES > 1 && matches!(kind, TensorType::F32 | TensorType::F16)
}

impl LaneWeight {
    fn b_follows_order(&self) -> bool {
        matches!(self.b, Outputs::F32(_) | Outputs::F16(_))
    }
}

/// `A x` of one adapter, for some rows and some of its ranks.
struct Task<'a> {
    step: &'a Step,
    member: &'a Member,
    weight: &'a LaneWeight,
    places: &'a [Place],
    ranks: Range<usize>,
}

impl Task<'_> {
    fn put(&self, place: &Place, rank: usize, value: f32) {
        self.step.put(place.scratch + self.member.offset + rank, value);
    }

    fn a(&self) -> &Stored {
        &self.weight.a
    }

    /// Each row by itself, with the engine's dot product.
    fn project_each<'x>(&self, buffers: &mut Buffers, numerics: &dyn Numerics, x: &impl Fn(usize) -> &'x [f32]) {
        for place in self.places {
            let x = x(place.column);
            buffers.converted.clear();
            numerics.convert(self.a().kind, x, &mut buffers.converted);
            for rank in self.ranks.clone() {
                let row = self.member.adapter.row(self.a(), rank);
                self.put(place, rank, numerics.dot(self.a().kind, row, &buffers.converted, x.len()));
            }
        }
    }

    /// Many rows: A is widened once, and four rows go through the arithmetic together.
    fn project_many<'x>(&self, buffers: &mut Buffers, x: &impl Fn(usize) -> &'x [f32]) {
        let half = self.a().kind == TensorType::F16;
        let n = x(self.places[0].column).len();
        for four in self.places.chunks(4) {
            buffers.inputs.clear();
            for place in four {
                let x = x(place.column);
                if half {
                    // ggml rounds the input to half floats for half-float weights.
                    buffers.halves.clear();
                    buffers.halves.resize(n, f16::ZERO);
                    buffers.halves.convert_from_f32_slice(x);
                    let at = buffers.inputs.len();
                    buffers.inputs.resize(at + n, 0.0);
                    buffers.halves.convert_to_f32_slice(&mut buffers.inputs[at..]);
                } else {
                    buffers.inputs.extend_from_slice(x);
                }
            }
            for rank in self.ranks.clone() {
                let row = self.member.adapter.row(self.a(), rank);
                buffers.row.clear();
                buffers.row.resize(n, 0.0);
                widen(self.a().kind, row, &mut buffers.row);
                let sums = match four.len() {
                    4 => dots::<4>(&buffers.row, &buffers.inputs),
                    3 => dots::<3>(&buffers.row, &buffers.inputs),
                    2 => dots::<2>(&buffers.row, &buffers.inputs),
                    _ => dots::<1>(&buffers.row, &buffers.inputs),
                };
                for (place, sum) in four.iter().zip(sums) {
                    self.put(place, rank, sum);
                }
            }
        }
    }
}

/// Stored numbers as 32-bit floats.
fn widen(kind: TensorType, row: &[u8], out: &mut [f32]) {
    if kind == TensorType::F16 {
        if let Ok(row) = bytemuck::try_cast_slice::<u8, u16>(row) {
            half::slice::HalfBitsSliceExt::reinterpret_cast::<f16>(row).convert_to_f32_slice(out);
            return;
        }
        for (out, b) in out.iter_mut().zip(row.chunks_exact(2)) {
            *out = f16::from_le_bytes([b[0], b[1]]).to_f32();
        }
    } else {
        for (out, b) in out.iter_mut().zip(row.chunks_exact(4)) {
            *out = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
    }
}

/// Dot products of `row` with `N` vectors that lie one after the other, in the order of `tinyBLAS`. Only the first `N`
/// results count.
fn dots<const N: usize>(row: &[f32], inputs: &[f32]) -> [f32; 4] {
    let n = row.len();
    let mut sums = [[0f32; LANES]; N];
    let whole = n - n % LANES;
    let (head, tail) = row.split_at(whole);
    for (chunk, a) in head.chunks_exact(LANES).enumerate() {
        for (k, sum) in sums.iter_mut().enumerate() {
            let x = &inputs[k * n + chunk * LANES..][..LANES];
            for i in 0..LANES {
                sum[i] = multiply_add(a[i], x[i], sum[i]);
            }
        }
    }
    for (k, sum) in sums.iter_mut().enumerate() {
        for (i, a) in tail.iter().enumerate() {
            sum[i] = multiply_add(*a, inputs[k * n + whole + i], sum[i]);
        }
    }
    let mut out = [0f32; 4];
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = tree(sum);
    }
    out
}

/// Adds the upper half of a vector to the lower until one number is left.
fn tree(mut sum: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sum[i] += sum[i + half];
        }
        half /= 2;
    }
    sum[0]
}

/// Fused where the instruction set has it; a library call otherwise would cost more than it is worth.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_feature = "fma") { a.mul_add(b, c) } else { a * b + c }
}

/// Memory of one thread for one linear.
#[derive(Default)]
struct Buffers {
    converted: Vec<u8>,
    halves: Vec<f16>,
    inputs: Vec<f32>,
    row: Vec<f32>,
    /// A block of B by columns, `[rank][width]`.
    columns: Vec<f32>,
    width: usize,
    /// `A x` of some rows, `[rows][rank]`.
    hidden: Vec<f32>,
}

impl Buffers {
    /// Widens a block of B.
    fn load(&mut self, weight: &LaneWeight, outputs: Range<usize>) {
        self.width = outputs.len();
        self.columns.clear();
        self.columns.resize(weight.rank * self.width, 0.0);
        let rows = self.columns.chunks_exact_mut(self.width.max(1));
        match &weight.b {
            Outputs::F32(b) => {
                let n_out = b.len() / weight.rank;
                rows.zip(b.chunks_exact(n_out)).for_each(|(out, b)| out.copy_from_slice(&b[outputs.clone()]));
            }
            Outputs::F16(b) => {
                let n_out = b.len() / weight.rank;
                rows.zip(b.chunks_exact(n_out)).for_each(|(out, b)| b[outputs.clone()].convert_to_f32_slice(out));
            }
            Outputs::Bf16(b) => {
                let n_out = b.len() / weight.rank;
                rows.zip(b.chunks_exact(n_out)).for_each(|(out, b)| b[outputs.clone()].convert_to_f32_slice(out));
            }
            Outputs::Rows(_) => (),
        }
    }

    /// Appends `A x` of a row, rounded as ggml rounds the right-hand side of B's format.
    fn fetch(&mut self, step: &Step, at: usize, weight: &LaneWeight, numerics: &dyn Numerics) {
        let begin = self.hidden.len();
        self.hidden.extend((0..weight.rank).map(|j| step.get(at + j)));
        let hidden = &mut self.hidden[begin..];
        match &weight.b {
            Outputs::F16(_) => {
                self.halves.resize(hidden.len(), f16::ZERO);
                self.halves.convert_from_f32_slice(hidden);
                self.halves.convert_to_f32_slice(hidden);
            }
            Outputs::Bf16(_) => hidden.iter_mut().for_each(|h| *h = bf16::from_f32(*h).to_f32()),
            Outputs::F32(_) => (),
            Outputs::Rows(stored) => numerics.convert(stored.kind, hidden, &mut self.converted),
        }
    }

    /// Adds `strength * B h` to a part of a row.
    fn add(
        &self,
        member: &Member,
        weight: &LaneWeight,
        part: Part,
        strength: f32,
        numerics: &dyn Numerics,
        y: &mut [f32],
    ) {
        if let Outputs::Rows(stored) = &weight.b {
            let width = self.converted.len() / part.of;
            let h = &self.converted[part.index * width..][..width];
            for (i, y) in y.iter_mut().enumerate() {
                let row = member.adapter.row(stored, part.start + i);
                *y += numerics.dot(stored.kind, row, h, weight.rank) * strength;
            }
            return;
        }
        let hidden = &self.hidden[part.index * weight.rank..][..weight.rank];
        let mut sums = [0f32; BLOCK];
        if part.tree {
            self.sum_in_tree(hidden, &mut sums);
        } else {
            self.sum_in_double(hidden, &mut sums);
        }
        for (y, sum) in y.iter_mut().zip(sums) {
            *y += sum * strength;
        }
    }

    /// As `tinyBLAS` sums.
    fn sum_in_tree(&self, hidden: &[f32], sums: &mut [f32; BLOCK]) {
        let mut parts = [[0f32; BLOCK]; LANES];
        let used = LANES.min(hidden.len());
        for (j, (h, b)) in hidden.iter().zip(self.columns.chunks_exact(self.width.max(1))).enumerate() {
            let part = &mut parts[j % LANES];
            for (part, b) in part.iter_mut().zip(b) {
                *part = multiply_add(*b, *h, *part);
            }
        }
        let mut half = LANES / 2;
        while half > 0 {
            // Parts beyond the rank are zero: adding them changes nothing.
            for i in 0..half.min(used.saturating_sub(half)) {
                let (low, high) = parts.split_at_mut(i + half);
                low[i].iter_mut().zip(&high[0]).for_each(|(a, b)| *a += b);
            }
            half /= 2;
        }
        *sums = parts[0];
    }

    /// As ggml's dot product sums what is shorter than its vectors: products in single, the sum in double precision.
    fn sum_in_double(&self, hidden: &[f32], sums: &mut [f32; BLOCK]) {
        let mut wide = [0f64; BLOCK];
        for (h, b) in hidden.iter().zip(self.columns.chunks_exact(self.width.max(1))) {
            for (wide, b) in wide.iter_mut().zip(b) {
                *wide += f64::from(*h * *b);
            }
        }
        sums.iter_mut().zip(wide).for_each(|(sum, wide)| *sum = wide as f32);
    }
}
