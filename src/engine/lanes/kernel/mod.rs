//! The arithmetic of lanes: `h = A x` ([`project`]), then `y += s B h` ([`expand`]). Both are called by every thread of
//! the engine's pool with its own index, and each thread does its own part.
//!
//! Sums are made in the order in which llama.cpp's CPU path makes them, so that a row in a mixed batch gets the very
//! numbers it would get alone (checked bit for bit in `tests/it/lanes.rs`): for one row of a sequence, ggml's own dot
//! product (`ggml_vec_dot_*` of `ggml-cpu`, which adds leftovers in double precision); for several, the order of its
//! small matrix product (`tinyBLAS` in `llamafile/sgemm.cpp`: one vector of partial sums, then a tree). Where the
//! order is not known (quantized weights, other instruction sets), the difference is rounding noise.
//!
//! With one row for each of several adapters the arithmetic is a fraction of what reading the adapters costs: a step
//! goes through all of them once. So while one is worked on, the next is fetched ([`Numerics::prefetch`]).

mod sums;

use std::cell::RefCell;
use std::ops::Range;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

pub use self::sums::TILE;
use self::sums::{LANES, dots, in_double, in_tree};
use super::pack::{LaneWeight, Outputs, Stored};
use super::step::{Member, Place};
use super::{Columns, LaneAdapter, Numerics, Step};
use crate::gguf::TensorType;

/// Tiles of outputs that are widened at once.
const TILES: usize = 4;

/// Rows that are worked on together during a prompt: their inputs stay in the second-level cache.
const ROWS: usize = 32;

/// Rows of A in registers at once.
const RANKS: usize = if LANES == 16 { 4 } else { 2 };

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

    /// This thread's outputs of a linear with `n_out`: whole tiles.
    pub fn outputs(self, n_out: usize) -> Range<usize> {
        self.range(n_out, TILE)
    }
}

/// `h = A x` for every row of the step that has adapters at `site`. `x(column)` is an input row, `[n_in]`. `n_out` is the
/// number of the linear's outputs: [`expand`] comes next, and what it reads first is fetched meanwhile.
pub fn project<'x>(
    step: &Step,
    columns: Columns,
    (site, n_out): (usize, usize),
    numerics: &dyn Numerics,
    share: Share,
    x: impl Fn(usize) -> &'x [f32],
) {
    let rows: usize = step.groups.iter().map(|g| g.places(columns).len()).sum();
    // Many rows are shared out among the threads, few are computed together.
    let by_rows = rows >= 2 * share.threads;
    let mine = share.range(rows, 1);
    let mut tasks = Vec::with_capacity(step.groups.len());
    let mut before = 0;
    for group in &step.groups {
        let all = group.places(columns);
        let clip = |at: usize| at.clamp(before, before + all.len()) - before;
        let places = if by_rows { &all[clip(mine.start)..clip(mine.end)] } else { all };
        before += all.len();
        if places.is_empty() {
            continue;
        }
        for (member, weight) in group.at(site) {
            let ranks = if by_rows { 0..weight.rank } else { share.range(weight.rank, 1) };
            if !ranks.is_empty() {
                let together = all.len() > 1 && weight.rank % 4 == 0 && follows_order(weight.a.kind);
                tasks.push(Task { step, member, weight, places, ranks, together });
            }
        }
    }
    let first = step.groups.iter().flat_map(|g| g.at(site)).next();
    let outputs = first.map_or(&[][..], |(m, w)| m.adapter.outputs(w, share.outputs(n_out)));
    BUFFERS.with_borrow_mut(|buffers| {
        for (i, task) in tasks.iter().enumerate() {
            let ahead = tasks.get(i + 1).map_or(outputs, Task::bytes);
            if task.together {
                task.project_many(buffers, &x);
            } else {
                task.project_each(buffers, numerics, &x, ahead);
            }
        }
    });
}

/// The rows of a matrix of outputs, `[columns][n_out]`.
pub trait OutputRows {
    /// A part of one row.
    fn part(&mut self, column: usize, range: Range<usize>) -> &mut [f32];
}

/// `y += scale * B h` for this thread's `outputs` (see [`Share::outputs`]) of every row with adapters at `site`. The rows
/// hold `y = W x` when this is called.
pub fn expand(
    step: &Step,
    columns: Columns,
    site: usize,
    outputs: Range<usize>,
    numerics: &dyn Numerics,
    rows: &mut impl OutputRows,
) {
    debug_assert!(outputs.start.is_multiple_of(TILE));
    if outputs.is_empty() {
        return;
    }
    BUFFERS.with_borrow_mut(|buffers| {
        let mut groups = step.groups.iter().flat_map(|g| g.at(site));
        groups.next();
        for group in &step.groups {
            let places = group.places(columns);
            add_gains(group.gains(site), places, outputs.clone(), rows);
            for (member, weight) in group.at(site) {
                let ahead = groups.next().map_or(&[][..], |(m, w)| m.adapter.outputs(w, outputs.clone()));
                let task = Expansion { step, member, weight, places, outputs: outputs.clone() };
                task.run(buffers, numerics, ahead, rows);
            }
        }
    });
}

/// Gains multiply `W x` itself, so they are taken before anything is added to it.
fn add_gains<'a>(
    gains: impl Iterator<Item = (&'a Member, &'a [f32])> + Clone,
    places: &[Place],
    outputs: Range<usize>,
    rows: &mut impl OutputRows,
) {
    if gains.clone().next().is_none() {
        return;
    }
    for place in places {
        let y = rows.part(place.column, outputs.clone());
        for (y, output) in y.iter_mut().zip(outputs.clone()) {
            let base = *y;
            for (member, gain) in gains.clone() {
                *y += member.scale * gain[output] * base;
            }
        }
    }
}

thread_local! {
    /// Each thread of the engine's pool keeps its own.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Memory of one thread for one linear.
#[derive(Default)]
struct Buffers {
    converted: Vec<u8>,
    halves: Vec<f16>,
    /// Input rows, `[rows][n_in]`.
    inputs: Vec<f32>,
    /// Rows of A, `[RANKS][n_in]`.
    ranks: Vec<f32>,
    /// Tiles of B, `[tiles][rank][TILE]`.
    tiles: Vec<f32>,
    /// `A x` of some rows, `[rows][rank]`.
    hidden: Vec<f32>,
}

/// As `llama_adapter_lora_weight::get_scale` computes it, in the same order.
fn strength(adapter: &LaneAdapter, weight: &LaneWeight, scale: f32) -> f32 {
    scale * adapter.alpha() / weight.rank as f32
}

/// Formats whose sums are made in ggml's order here.
fn follows_order(kind: TensorType) -> bool {
    LANES > 1 && matches!(kind, TensorType::F32 | TensorType::F16)
}

/// The first `n` of a buffer that only grows.
fn room(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// Fetches part `i` of `of` of what comes next.
fn fetch(numerics: &dyn Numerics, ahead: &[u8], i: usize, of: usize) {
    let part = ahead.len().div_ceil(of.max(1));
    let clip = |at: usize| at.min(ahead.len());
    numerics.prefetch(&ahead[clip(i * part)..clip((i + 1) * part)]);
}

/// `A x` of one adapter, for some rows and some of its ranks.
struct Task<'a> {
    step: &'a Step,
    member: &'a Member,
    weight: &'a LaneWeight,
    places: &'a [Place],
    ranks: Range<usize>,
    /// Whether the rows are a sequence of several, as `tinyBLAS` takes them.
    together: bool,
}

impl<'a> Task<'a> {
    fn put(&self, place: &Place, rank: usize, value: f32) {
        self.step.put(place.scratch + self.member.offset + rank, value);
    }

    fn a(&self) -> &'a Stored {
        &self.weight.a
    }

    /// What it reads.
    fn bytes(&self) -> &'a [u8] {
        self.member.adapter.rows(self.a(), self.ranks.clone())
    }

    /// Each row by itself, with the engine's dot product.
    fn project_each<'x>(
        &self,
        buffers: &mut Buffers,
        numerics: &dyn Numerics,
        x: &impl Fn(usize) -> &'x [f32],
        ahead: &[u8],
    ) {
        for (i, place) in self.places.iter().enumerate() {
            let x = x(place.column);
            buffers.converted.clear();
            numerics.convert(self.a().kind, x, &mut buffers.converted);
            for (j, rank) in self.ranks.clone().enumerate() {
                let row = self.member.adapter.row(self.a(), rank);
                self.put(place, rank, numerics.dot(self.a().kind, row, &buffers.converted, x.len()));
                if i == 0 {
                    fetch(numerics, ahead, j, self.ranks.len());
                }
            }
        }
    }

    /// Many rows: A is widened once for [`ROWS`] of them, and several go through the arithmetic together.
    fn project_many<'x>(&self, buffers: &mut Buffers, x: &impl Fn(usize) -> &'x [f32]) {
        let half = self.a().kind == TensorType::F16;
        let n = x(self.places[0].column).len();
        for places in self.places.chunks(ROWS) {
            let inputs = room(&mut buffers.inputs, places.len() * n);
            for (place, input) in places.iter().zip(inputs.chunks_exact_mut(n)) {
                if half {
                    // ggml rounds the input to half floats for half-float weights.
                    buffers.halves.resize(n, f16::ZERO);
                    buffers.halves.convert_from_f32_slice(x(place.column));
                    buffers.halves.convert_to_f32_slice(input);
                } else {
                    input.copy_from_slice(x(place.column));
                }
            }
            let inputs = &buffers.inputs[..places.len() * n];
            let mut rank = self.ranks.start;
            while rank < self.ranks.end {
                let count = if self.ranks.end - rank >= RANKS { RANKS } else { 1 };
                let a = room(&mut buffers.ranks, count * n);
                for (j, a) in a.chunks_exact_mut(n).enumerate() {
                    widen(self.a().kind, self.member.adapter.row(self.a(), rank + j), a);
                }
                let a = |j: usize| &buffers.ranks[j * n..(j + 1) * n];
                if count == RANKS {
                    self.block::<RANKS>(std::array::from_fn(a), rank, places, inputs);
                } else {
                    self.block::<1>([a(0)], rank, places, inputs);
                }
                rank += count;
            }
        }
    }

    /// `R` rows of A with all inputs, four at a time.
    fn block<const R: usize>(&self, a: [&[f32]; R], rank: usize, places: &[Place], inputs: &[f32]) {
        let n = a[0].len();
        for (four, inputs) in places.chunks(4).zip(inputs.chunks(4 * n)) {
            match four.len() {
                4 => self.cross::<R, 4>(a, rank, four, inputs),
                3 => self.cross::<R, 3>(a, rank, four, inputs),
                2 => self.cross::<R, 2>(a, rank, four, inputs),
                _ => self.cross::<R, 1>(a, rank, four, inputs),
            }
        }
    }

    fn cross<const R: usize, const C: usize>(&self, a: [&[f32]; R], rank: usize, places: &[Place], inputs: &[f32]) {
        let n = a[0].len();
        let sums = dots::<R, C>(a, std::array::from_fn(|c| &inputs[c * n..(c + 1) * n]));
        for (j, sums) in sums.iter().enumerate() {
            places.iter().zip(sums).for_each(|(place, sum)| self.put(place, rank + j, *sum));
        }
    }
}

/// `B h` of one adapter, for the rows of a group and some outputs.
struct Expansion<'a> {
    step: &'a Step,
    member: &'a Member,
    weight: &'a LaneWeight,
    places: &'a [Place],
    outputs: Range<usize>,
}

impl Expansion<'_> {
    fn run(&self, buffers: &mut Buffers, numerics: &dyn Numerics, ahead: &[u8], rows: &mut impl OutputRows) {
        let Buffers { hidden, converted, halves, tiles, .. } = buffers;
        hidden.clear();
        converted.clear();
        for place in self.places {
            self.hidden(place, hidden, halves, converted, numerics);
        }
        let strength = strength(&self.member.adapter, self.weight, self.member.scale);
        if let Outputs::Rows(stored) = &self.weight.b {
            return self.add_rows(stored, converted, strength, numerics, rows);
        }
        let (rank, tree) = (self.weight.rank, self.places.len() > 1 && LANES > 1 && self.weight.b_follows_order());
        let last = self.outputs.end.div_ceil(TILE);
        let blocks = (last - self.outputs.start / TILE).div_ceil(TILES);
        for (i, block) in (self.outputs.start / TILE..last).step_by(TILES).enumerate() {
            fetch(numerics, ahead, i, blocks);
            let b = wide(&self.weight.b, rank, block..(block + TILES).min(last), tiles);
            let outputs = block * TILE..((block + TILES) * TILE).min(self.outputs.end);
            for (place, h) in self.places.iter().zip(hidden.chunks_exact(rank)) {
                let y = rows.part(place.column, outputs.clone());
                for (y, b) in y.chunks_mut(TILE).zip(b.chunks_exact(rank)) {
                    let sums = if tree { in_tree(h, b) } else { in_double(h, b) };
                    match y.first_chunk_mut::<TILE>() {
                        Some(y) => (0..TILE).for_each(|i| y[i] += sums[i] * strength),
                        None => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum * strength),
                    }
                }
            }
        }
    }

    /// Appends `A x` of a row, rounded as ggml rounds the right-hand side of B's format.
    fn hidden(
        &self,
        place: &Place,
        hidden: &mut Vec<f32>,
        halves: &mut Vec<f16>,
        converted: &mut Vec<u8>,
        numerics: &dyn Numerics,
    ) {
        let (begin, at) = (hidden.len(), place.scratch + self.member.offset);
        hidden.extend((0..self.weight.rank).map(|j| self.step.get(at + j)));
        let hidden = &mut hidden[begin..];
        match &self.weight.b {
            Outputs::F16(_) => {
                halves.resize(hidden.len(), f16::ZERO);
                halves.convert_from_f32_slice(hidden);
                halves.convert_to_f32_slice(hidden);
            }
            Outputs::Bf16(_) => hidden.iter_mut().for_each(|h| *h = bf16::from_f32(*h).to_f32()),
            Outputs::F32(_) => (),
            Outputs::Rows(stored) => numerics.convert(stored.kind, hidden, converted),
        }
    }

    /// B as it is stored, with the engine's dot product.
    fn add_rows(
        &self,
        stored: &Stored,
        converted: &[u8],
        strength: f32,
        numerics: &dyn Numerics,
        rows: &mut impl OutputRows,
    ) {
        let width = converted.len() / self.places.len().max(1);
        for (place, h) in self.places.iter().zip(converted.chunks_exact(width.max(1))) {
            let y = rows.part(place.column, self.outputs.clone());
            for (y, output) in y.iter_mut().zip(self.outputs.clone()) {
                let row = self.member.adapter.row(stored, output);
                *y += numerics.dot(stored.kind, row, h, self.weight.rank) * strength;
            }
        }
    }
}

impl LaneWeight {
    fn b_follows_order(&self) -> bool {
        matches!(self.b, Outputs::F32(_) | Outputs::F16(_))
    }
}

/// Some tiles of B as 32-bit floats, `[tiles][rank]` of tiles.
fn wide<'a>(b: &'a Outputs, rank: usize, tiles: Range<usize>, buffer: &'a mut Vec<f32>) -> &'a [[f32; TILE]] {
    let range = tiles.start * rank * TILE..tiles.end * rank * TILE;
    let flat = match b {
        Outputs::F32(b) => &b[range],
        Outputs::F16(b) => {
            let buffer = room(buffer, range.len());
            b[range].reinterpret_cast::<f16>().convert_to_f32_slice(buffer);
            buffer
        }
        Outputs::Bf16(b) => {
            let buffer = room(buffer, range.len());
            b[range].reinterpret_cast::<bf16>().convert_to_f32_slice(buffer);
            buffer
        }
        Outputs::Rows(_) => &[],
    };
    flat.as_chunks().0
}

/// Stored numbers as 32-bit floats.
fn widen(kind: TensorType, row: &[u8], out: &mut [f32]) {
    if kind == TensorType::F16 {
        if let Ok(row) = bytemuck::try_cast_slice::<u8, u16>(row) {
            row.reinterpret_cast::<f16>().convert_to_f32_slice(out);
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
