//! Sums in the orders in which ggml makes them, written so that the compiler keeps them in vector registers: arrays of
//! constant length, and loops over them.

use std::array::from_fn;

/// Floats in a vector of the instruction set this program is built for; 1 when ggml's order is not followed.
pub(super) const LANES: usize = if cfg!(all(target_feature = "avx512f", target_feature = "fma")) {
    16
} else if cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c")) {
    8
} else {
    1
};

/// Outputs of B that lie together: the layout of `LaneAdapter` and the kernels agree on it.
pub const TILE: usize = 16;

/// Dot products of `R` rows with `C` vectors of the same length, in the order of `tinyBLAS`: one vector of partial sums,
/// then a tree.
pub(super) fn dots<const R: usize, const C: usize>(rows: [&[f32]; R], inputs: [&[f32]; C]) -> [[f32; C]; R] {
    let count = rows[0].len() / LANES;
    let a = rows.map(|row| &row.as_chunks::<LANES>().0[..count]);
    let x = inputs.map(|input| &input.as_chunks::<LANES>().0[..count]);
    let mut sums = [[[0f32; LANES]; C]; R];
    for k in 0..count {
        for r in 0..R {
            for c in 0..C {
                let (a, x) = (&a[r][k], &x[c][k]);
                sums[r][c] = from_fn(|i| multiply_add(a[i], x[i], sums[r][c][i]));
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            for (i, at) in (count * LANES..rows[0].len()).enumerate() {
                sums[r][c][i] = multiply_add(rows[r][at], inputs[c][at], sums[r][c][i]);
            }
        }
    }
    sums.map(|sums| sums.map(|sum| across(&sum)))
}

/// `B h` for a tile of outputs, `tile` being `[rank][TILE]`, as `tinyBLAS` sums: partial sums over every `LANES`-th
/// product, then a tree.
pub(super) fn in_tree(hidden: &[f32], tile: &[[f32; TILE]]) -> [f32; TILE] {
    // The usual ranks are known when this is compiled; parts beyond the rank are zero, so there may be fewer than `LANES`.
    match (hidden.len(), LANES) {
        (4, 8..) => folded::<4, 1>(hidden, tile),
        (8, 8..) => folded::<8, 1>(hidden, tile),
        (16, 16) => folded::<16, 1>(hidden, tile),
        (32, 16) => folded::<16, 2>(hidden, tile),
        (64, 16) => folded::<16, 4>(hidden, tile),
        (16, 8) => folded::<8, 2>(hidden, tile),
        (32, 8) => folded::<8, 4>(hidden, tile),
        _ => any_rank(hidden, tile),
    }
}

/// `P` partial sums of `TIMES` products each; the rank is `P * TIMES`.
fn folded<const P: usize, const TIMES: usize>(hidden: &[f32], tile: &[[f32; TILE]]) -> [f32; TILE] {
    let (Some(hidden), Some(tile)) =
        (hidden.as_chunks::<P>().0.first_chunk::<TIMES>(), tile.as_chunks::<P>().0.first_chunk::<TIMES>())
    else {
        return [0.0; TILE];
    };
    // Output by output: the compiler makes a vector of the outer loop, as all that is inside is written out.
    from_fn(|i| {
        let mut parts = [0f32; P];
        for k in 0..TIMES {
            for j in 0..P {
                parts[j] = multiply_add(tile[k][j][i], hidden[k][j], parts[j]);
            }
        }
        fold(parts)
    })
}

/// Adds the upper half to the lower until one is left. `P` is a power of two, at most 16.
#[inline(always)]
fn fold<const P: usize>(mut parts: [f32; P]) -> f32 {
    for half in [8, 4, 2, 1] {
        if half < P {
            for j in 0..half {
                parts[j] += parts[j + half];
            }
        }
    }
    parts[0]
}

fn any_rank(hidden: &[f32], tile: &[[f32; TILE]]) -> [f32; TILE] {
    let mut parts = [[0f32; TILE]; LANES];
    for (j, (h, b)) in hidden.iter().zip(tile).enumerate() {
        let part = &mut parts[j % LANES];
        *part = from_fn(|i| multiply_add(b[i], *h, part[i]));
    }
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            let (low, high) = parts.split_at_mut(j + half);
            low[j].iter_mut().zip(&high[0]).for_each(|(a, b)| *a += b);
        }
        half /= 2;
    }
    parts[0]
}

/// The numbers of one vector in the same order. Not inlined: the compiler would gather from several vectors at once, which
/// costs more.
#[inline(never)]
fn across(sum: &[f32; LANES]) -> f32 {
    fold(*sum)
}

/// As [`in_tree`], in the order in which ggml's dot product sums what is shorter than its vectors: products in single,
/// the sum in double precision.
pub(super) fn in_double(hidden: &[f32], tile: &[[f32; TILE]]) -> [f32; TILE] {
    let mut wide = [0f64; TILE];
    for (h, b) in hidden.iter().zip(tile) {
        wide = from_fn(|i| wide[i] + f64::from(h * b[i]));
    }
    wide.map(|sum| sum as f32)
}

/// Fused where the instruction set has it; a library call otherwise would cost more than it is worth.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_feature = "fma") { a.mul_add(b, c) } else { a * b + c }
}
