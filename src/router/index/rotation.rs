//! A turn of the axes after which the first dimensions say most.
//!
//! The search looks at the head of a row, a cache line, before it looks at the rest. So the axes are turned to the
//! principal ones of a sample (uncentred: dot products stay what they are), eigenvectors by cyclic Jacobi rotations.
//! The axes of the head are then mixed by a Hadamard matrix, so that no number of a row is much larger than the others
//! and four bits for each are enough.

use super::quant::head_dims;

/// An orthogonal matrix, row after row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rotation {
    dim: usize,
    rows: Vec<f32>,
}

/// Vectors looked at to find the axes.
const SAMPLE: usize = 16_384;
/// Sweeps of Jacobi's method; it has converged long before.
const SWEEPS: usize = 12;

impl Rotation {
    /// The principal axes of up to 16,384 vectors, evenly taken.
    pub fn principal(dim: usize, vectors: usize, read: impl Fn(usize, &mut Vec<f32>)) -> Self {
        let taken = vectors.min(SAMPLE);
        let mut moments = vec![0.0_f32; dim * dim];
        let mut vector = Vec::with_capacity(dim);
        for i in 0..taken {
            vector.clear();
            read(i * vectors / taken.max(1), &mut vector);
            for (row, x) in moments.chunks_exact_mut(dim).zip(&vector) {
                row.iter_mut().zip(&vector).for_each(|(m, y)| *m += x * y);
            }
        }
        let mut rotation = Self::of_symmetric(dim, moments.iter().map(|m| f64::from(*m)).collect());
        rotation.mix_head();
        rotation
    }

    /// The eigenvectors of a symmetric matrix, that of the largest eigenvalue first.
    fn of_symmetric(dim: usize, mut matrix: Vec<f64>) -> Self {
        let mut vectors = vec![0.0_f64; dim * dim];
        for (i, row) in vectors.chunks_exact_mut(dim).enumerate() {
            row[i] = 1.0;
        }
        let total: f64 = matrix.iter().map(|x| x * x).sum();
        for _ in 0..SWEEPS {
            let mut off = 0.0;
            for p in 0..dim {
                for q in p + 1..dim {
                    let (pq, pp, qq) = (matrix[p * dim + q], matrix[p * dim + p], matrix[q * dim + q]);
                    off += pq * pq;
                    if pq * pq <= 1e-22 * total {
                        continue;
                    }
                    let theta = (qq - pp) / (2.0 * pq);
                    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                    let c = (t * t + 1.0).sqrt().recip();
                    turn_rows(&mut matrix, dim, (p, q), (c, t * c));
                    turn_columns(&mut matrix, dim, (p, q), (c, t * c));
                    turn_rows(&mut vectors, dim, (p, q), (c, t * c));
                }
            }
            if off <= 1e-16 * total {
                break;
            }
        }
        let mut order: Vec<usize> = (0..dim).collect();
        order.sort_by(|a, b| matrix[b * dim + b].total_cmp(&matrix[a * dim + a]).then(a.cmp(b)));
        let rows = order.iter().flat_map(|i| vectors[i * dim..(i + 1) * dim].iter().map(|x| *x as f32)).collect();
        Self { dim, rows }
    }

    /// Mixes the first axes, as many as the largest power of two in a head, evenly (Sylvester's Hadamard matrix).
    fn mix_head(&mut self) {
        let head = head_dims(self.dim);
        let mixed = if head == 0 { 0 } else { 1 << head.ilog2() };
        let mut stride = 1;
        while stride < mixed {
            for i in (0..mixed).filter(|i| i & stride == 0) {
                let (above, below) = self.rows.split_at_mut((i + stride) * self.dim);
                for (x, y) in above[i * self.dim..(i + 1) * self.dim].iter_mut().zip(&mut below[..self.dim]) {
                    let root = std::f32::consts::FRAC_1_SQRT_2;
                    (*x, *y) = ((*x + *y) * root, (*x - *y) * root);
                }
            }
            stride *= 2;
        }
    }

    /// As it was stored; nothing if the length is not that of a square of `dim`.
    pub fn from_rows(dim: usize, rows: Vec<f32>) -> Option<Self> {
        (rows.len() == dim * dim).then_some(Self { dim, rows })
    }

    /// The matrix, row after row.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// The vector in the turned axes.
    pub fn turn(&self, vector: &[f32]) -> Vec<f32> {
        self.rows.chunks_exact(self.dim).map(|row| dot(row, vector)).collect()
    }

    /// The vector that [`turn`](Self::turn) made this from.
    pub fn turn_back(&self, turned: &[f32]) -> Vec<f32> {
        let mut vector = vec![0.0; self.dim];
        for (row, x) in self.rows.chunks_exact(self.dim).zip(turned) {
            vector.iter_mut().zip(row).for_each(|(v, r)| *v += x * r);
        }
        vector
    }
}

/// Dot product in eight sums, always in the same order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (xs, ys) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in xs.zip(ys) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn turn_rows(matrix: &mut [f64], dim: usize, (p, q): (usize, usize), (c, s): (f64, f64)) {
    let (above, below) = matrix.split_at_mut(q * dim);
    for (x, y) in above[p * dim..(p + 1) * dim].iter_mut().zip(&mut below[..dim]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

fn turn_columns(matrix: &mut [f64], dim: usize, (p, q): (usize, usize), (c, s): (f64, f64)) {
    for row in matrix.chunks_exact_mut(dim) {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_stay_and_the_first_dimensions_hold_most() {
        let dim = 24;
        let vector = |i: usize| -> Vec<f32> {
            (0..dim).map(|d| ((i * 31 + d * 17) % 101) as f32 / 101.0 * if d % 6 == 0 { 5.0 } else { 0.3 }).collect()
        };
        let mut rotation = Rotation::principal(dim, 500, |i, out| out.extend(vector(i)));
        rotation.mix_head(); // its own inverse
        let (mut head, mut all) = (0.0, 0.0);
        for i in 0..100 {
            let before = vector(i);
            let turned = rotation.turn(&before);
            let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>();
            assert!((length(&before) / length(&turned) - 1.0).abs() < 1e-4);
            let back = rotation.turn_back(&turned);
            assert!(before.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-3));
            head += length(&turned[..6]);
            all += length(&turned);
        }
        assert!(head > 0.95 * all, "{head} of {all}");
    }
}
