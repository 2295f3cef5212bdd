//! The best approximation of a matrix by a product of two thin ones: its largest singular values, found by a
//! randomized sketch with power iterations (Halko, Martinsson, Tropp, 2011).
//!
//! Chosen over a whole decomposition because adapters need a few dozen of hundreds or thousands of values: nearly all
//! the work is six products of the matrix with a thin one. The rest is thin and done in 64 bits. No chance: the sketch
//! comes from a fixed seed.

use ndarray::{Array2, ArrayView2, Axis, s};

use super::dequant::Matrix;

/// Columns of the sketch beyond the rank.
const OVERSAMPLING: usize = 10;
/// Power iterations. Two bring the error within about a percent of the best even for flat spectra.
const ITERATIONS: usize = 2;
/// Singular values below this part of the largest are rounding.
const NEGLIGIBLE: f64 = 1e-6;
/// Rows whose cosine is below this are orthogonal.
const ORTHOGONAL: f64 = 1e-12;
/// Rounds of rotations; some eight are enough.
const MAX_SWEEPS: usize = 30;

/// `b a`: `b` of `[rows, rank]`, `a` of `[rank, columns]`, balanced so that both have the roots of the singular values.
pub(crate) struct LowRank {
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
}

/// The best approximation of at most this rank, at least 1. Not finite when squares of the numbers overflow.
pub(crate) fn low_rank(matrix: &Matrix, rank: usize) -> LowRank {
    let (rows, columns) = matrix.dim();
    let rank = rank.clamp(1, rows.min(columns).max(1));
    let width = (rank + OVERSAMPLING).min(rows.min(columns));
    // The sketch: orthonormal columns that span nearly what the largest singular vectors span.
    let mut left = orthonormal(&matrix.dot(&noise(columns, width)));
    for _ in 0..ITERATIONS {
        let right = orthonormal(&matrix.t().dot(&left));
        left = orthonormal(&matrix.dot(&right));
    }
    // What the sketch sees of the matrix is thin; its singular values are the roots of the eigenvalues of core core'.
    let core = left.t().dot(matrix);
    let wide = core.mapv(f64::from);
    let (values, vectors) = eigen(wide.dot(&wide.t()));
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|one, other| value(&values, *other).total_cmp(&value(&values, *one)));
    let largest = order.first().map_or(0.0, |first| value(&values, *first));
    let kept = |at: &usize| value(&values, *at) > largest * NEGLIGIBLE * NEGLIGIBLE;
    order.retain(kept);
    order.truncate(rank);
    if order.is_empty() {
        return LowRank { a: Matrix::zeros((1, columns)), b: Matrix::zeros((rows, 1)) };
    }
    let chosen = vectors.select(Axis(1), &order);
    let mut b = left.mapv(f64::from).dot(&chosen);
    let mut a = chosen.t().dot(&wide);
    for (at, index) in order.iter().enumerate() {
        // The fourth root of the eigenvalue: half of the singular value on each side.
        let half = value(&values, *index).sqrt().sqrt();
        b.column_mut(at).mapv_inplace(|number| number * half);
        a.row_mut(at).mapv_inplace(|number| number / half);
    }
    LowRank { a: a.mapv(|number| number as f32), b: b.mapv(|number| number as f32) }
}

/// As [`low_rank`], of the product `b a` of `[rows, n]` and `[n, columns]`, which is not made: each factor is taken apart into
/// orthonormal columns and a small square, and the product of the squares has the singular values of the whole.
pub(crate) fn low_rank_product(b: &Matrix, a: &Matrix, rank: usize) -> LowRank {
    let (left, right) = (orthonormal(b), orthonormal(&a.t().as_standard_layout().into_owned()));
    let core = left.t().dot(b).dot(&a.dot(&right));
    let small = low_rank(&core, rank);
    LowRank { a: small.a.dot(&right.t()), b: left.dot(&small.b) }
}

fn value(values: &[f64], at: usize) -> f64 {
    values.get(at).copied().unwrap_or(0.0)
}

/// A matrix of numbers from -1 to 1 from a fixed seed (SplitMix64). Not of signs, whose sums cancel in small matrices.
fn noise(rows: usize, columns: usize) -> Matrix {
    let mut state = 0x736d_6f61_u64;
    Matrix::from_shape_simple_fn((rows, columns), || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The upper bits, as many as an F32 holds.
        ((word ^ (word >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// Orthonormal columns with the span of the given ones; zeros for columns that depend on those before them.
/// Cholesky of the products of the columns, twice: the second time makes up for the rounding of the first.
fn orthonormal(matrix: &Matrix) -> Matrix {
    let mut columns = matrix.mapv(f64::from);
    for _ in 0..2 {
        let inverse = inverse_root(columns.t().dot(&columns));
        columns = columns.dot(&inverse);
    }
    columns.mapv(|number| number as f32)
}

/// The inverse of the upper Cholesky factor, with zeros for rows that depend on others.
fn inverse_root(products: Array2<f64>) -> Array2<f64> {
    let n = products.nrows();
    let mut factor = Array2::<f64>::zeros((n, n));
    for row in 0..n {
        let above = factor.slice(s![..row, row]).to_owned();
        let left = products[[row, row]] - above.dot(&above);
        // Relative to the column's own length: what is left of a dependent column is rounding.
        if left <= products[[row, row]] * 1e-12 || left <= 0.0 {
            continue;
        }
        let root = left.sqrt();
        for column in row..n {
            let known = above.dot(&factor.slice(s![..row, column]));
            factor[[row, column]] = (products[[row, column]] - known) / root;
        }
    }
    // Solve factor * inverse = 1, from the last row up.
    let mut inverse = Array2::<f64>::zeros((n, n));
    for row in (0..n).rev() {
        let pivot = factor[[row, row]];
        if pivot == 0.0 {
            continue;
        }
        let below: ArrayView2<'_, f64> = inverse.slice(s![row + 1.., ..]);
        let mut solved = -factor.slice(s![row, row + 1..]).dot(&below);
        solved[row] += 1.0;
        inverse.row_mut(row).assign(&(solved / pivot));
    }
    inverse
}

/// Eigenvalues and eigenvectors (columns) of a symmetric matrix without negative eigenvalues: rotations of pairs of
/// rows until all are orthogonal (one-sided Jacobi, all along memory).
fn eigen(mut matrix: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = matrix.nrows();
    let mut vectors = Array2::<f64>::eye(n);
    for _ in 0..MAX_SWEEPS {
        let mut turned = false;
        for p in 0..n {
            for q in p + 1..n {
                let (one, other) = (matrix.row(p), matrix.row(q));
                let (long, wide, across) = (one.dot(&one), other.dot(&other), one.dot(&other));
                if across.abs() <= ORTHOGONAL * (long * wide).sqrt() {
                    continue;
                }
                let ratio = (wide - long) / (2.0 * across);
                let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let rotation = (cosine, tangent * cosine);
                rotate(&mut matrix, p, q, rotation);
                rotate(&mut vectors, p, q, rotation);
                turned = true;
            }
        }
        if !turned {
            break;
        }
    }
    let values = matrix.axis_iter(Axis(0)).map(|row| row.dot(&row).sqrt()).collect();
    (values, vectors.reversed_axes())
}

/// Rotates two rows into each other.
fn rotate(matrix: &mut Array2<f64>, p: usize, q: usize, (cosine, sine): (f64, f64)) {
    let (mut one, mut other) = matrix.multi_slice_mut((s![p, ..], s![q, ..]));
    ndarray::Zip::from(&mut one).and(&mut other).for_each(|one, other| {
        let (p, q) = (*one, *other);
        *one = cosine * p - sine * q;
        *other = sine * p + cosine * q;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix with these singular values: two sets of orthonormal columns around them.
    fn matrix_of(values: &[f32], rows: usize, columns: usize) -> Matrix {
        let left = orthonormal(&noise(rows, values.len()));
        let right = orthonormal(&noise(columns + 1, values.len()).slice(s![1.., ..]).to_owned());
        let mut scaled = left;
        for (mut column, value) in scaled.axis_iter_mut(Axis(1)).zip(values) {
            column *= *value;
        }
        scaled.dot(&right.t())
    }

    fn norm(matrix: &Matrix) -> f32 {
        matrix.iter().map(|number| number * number).sum::<f32>().sqrt()
    }

    #[test]
    fn the_error_is_near_the_best_there_is() {
        for (values, rows, columns) in [
            ((1..=40).map(|at| 1.0 / at as f32).collect::<Vec<_>>(), 90, 60),
            ((0..40).map(|at| 40.0 - at as f32).collect(), 60, 90),
            (vec![1.0; 40], 64, 64),
            (vec![3.0, 1.0, 1e-3], 50, 40),
        ] {
            let matrix = matrix_of(&values, rows, columns);
            for rank in [1, 2, 5, 20, 39] {
                let LowRank { a, b } = low_rank(&matrix, rank);
                assert!(a.nrows() <= rank && a.nrows() == b.ncols());
                let best = values.iter().skip(rank).map(|value| value * value).sum::<f32>().sqrt();
                let error = norm(&(&matrix - &b.dot(&a)));
                let limit = best * 1.03 + norm(&matrix) * 1e-5;
                assert!(error <= limit, "{rows} x {columns} at rank {rank}: {error}, best {best}");
            }
        }
    }

    #[test]
    fn edges_are_whole() {
        let zero = low_rank(&Matrix::zeros((5, 3)), 2);
        assert_eq!((zero.a.dim(), zero.b.dim()), ((1, 3), (5, 1)));
        assert!(zero.a.iter().chain(&zero.b).all(|number| *number == 0.0));
        let row = Matrix::from_shape_vec((1, 3), vec![1.0, -2.0, 3.0]).expect("shape");
        let found = low_rank(&row, 9);
        assert!(norm(&(&row - &found.b.dot(&found.a))) < 1e-5);
        let dependent = Matrix::from_elem((7, 9), 2.0);
        let found = low_rank(&dependent, 4);
        assert_eq!(found.a.nrows(), 1);
        assert!(norm(&(&dependent - &found.b.dot(&found.a))) < 1e-4);
    }
}
