//! Where rows stand in the file: near ones near each other, so that a search finds its cache lines on few pages.
//!
//! A tree of halves: the points of a part are parted at the middle of their order along one direction, from one far end of
//! the part to the other, until few are left (as in random projection trees, Dasgupta and Freund, STOC 2008, with the
//! direction chosen by the data). The leaves in their order are the order.

use crate::router::index::quant::{self, dot_codes};

/// Points of a leaf: the heads of so many rows are a page of memory.
const LEAF: usize = 32;
/// Points that a direction is chosen by.
const SAMPLE: usize = 128;

/// Rows of `dim` numbers each, of which some stand for points.
struct Points<'a> {
    dim: usize,
    codes: &'a [i8],
    /// The row of each point.
    rows: &'a [u32],
}

impl Points<'_> {
    fn row(&self, point: u32) -> &[i8] {
        let at = self.rows.get(point as usize).copied().unwrap_or(0) as usize * self.dim;
        self.codes.get(at..at + self.dim).unwrap_or(&[])
    }

    /// Of these points the one that is least like `row`.
    fn farthest(&self, row: &[i8], points: &[u32]) -> u32 {
        points.iter().copied().min_by_key(|point| (dot_codes(self.row(*point), row), *point)).unwrap_or(0)
    }
}

/// The points `0..rows.len()`, near ones near each other; point `i` is row `rows[i]` of `codes`. The same for the same
/// numbers.
pub(in crate::router::index) fn near_order(dim: usize, codes: &[i8], rows: &[u32]) -> Vec<u32> {
    let points = Points { dim, codes, rows };
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    let mut parts = vec![(0, order.len())];
    let mut keyed: Vec<(i32, u32)> = Vec::new();
    while let Some((from, to)) = parts.pop() {
        if to - from <= LEAF {
            continue;
        }
        let part = &mut order[from..to];
        let direction = direction(&points, part);
        keyed.clear();
        keyed.extend(part.iter().map(|point| (dot_codes(points.row(*point), &direction), *point)));
        let middle = keyed.len() / 2;
        keyed.select_nth_unstable(middle);
        part.iter_mut().zip(&keyed).for_each(|(place, (_, point))| *place = *point);
        parts.extend([(from, from + middle), (from + middle, to)]);
    }
    order
}

/// The direction in which the points of a part lie farthest apart, about: between the means of those that are nearer to
/// one far point and those that are nearer to another.
fn direction(points: &Points<'_>, part: &[u32]) -> Vec<i8> {
    let taken = part.len().min(SAMPLE);
    let sample: Vec<u32> = (0..taken).map(|i| part[i * part.len() / taken]).collect();
    let one = points.farthest(points.row(sample[0]), &sample);
    let other = points.farthest(points.row(one), &sample);
    let (one, other) = (points.row(one), points.row(other));
    let mut sums = [vec![0_i32; points.dim], vec![0_i32; points.dim]];
    let mut counts = [1_i32; 2];
    for point in &sample {
        let row = points.row(*point);
        let side = usize::from(dot_codes(row, one) < dot_codes(row, other));
        counts[side] += 1;
        sums[side].iter_mut().zip(row).for_each(|(sum, code)| *sum += i32::from(*code));
    }
    let mean = |side: usize, i: usize| sums[side][i] as f32 / counts[side] as f32;
    let between: Vec<f32> = (0..points.dim).map(|i| mean(0, i) - mean(1, i)).collect();
    let mut codes = Vec::with_capacity(points.dim);
    quant::quantize(&between, &mut codes);
    codes
}

#[cfg(test)]
mod tests {
    use super::near_order;

    /// Rows around a circle, by chance: those of one of 64 sectors stand in few blocks of 32.
    #[test]
    fn near_rows_stand_together() {
        let (sectors, each) = (64_usize, 32_usize);
        let sector = |i: usize| i * 37 % sectors;
        let row = |i: usize| {
            let angle =
                (sector(i) as f32 + (i / sectors) as f32 / each as f32) / sectors as f32 * std::f32::consts::TAU;
            [(angle.cos() * 120.0).round() as i8, (angle.sin() * 120.0).round() as i8]
        };
        let codes: Vec<i8> = (0..sectors * each).flat_map(row).collect();
        let rows: Vec<u32> = (0..(sectors * each) as u32).collect();
        let order = near_order(2, &codes, &rows);
        assert_eq!(order, near_order(2, &codes, &rows));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, rows, "every point once");
        let in_blocks = |order: &[u32]| {
            let sectors_of = |block: &[u32]| {
                block.iter().map(|i| sector(*i as usize)).collect::<std::collections::BTreeSet<_>>().len()
            };
            order.chunks(32).map(sectors_of).sum::<usize>()
        };
        let (near, as_given) = (in_blocks(&order), in_blocks(&rows));
        assert!(near * 8 < as_given, "{near} sectors in all blocks, {as_given} before");
    }

    #[test]
    fn few_or_equal_points() {
        assert!(near_order(8, &[], &[]).is_empty());
        assert_eq!(near_order(2, &[1, 2], &[0]), [0]);
        let order = near_order(2, &[5; 400], &(0..200).collect::<Vec<_>>());
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..200).collect::<Vec<_>>());
    }
}
