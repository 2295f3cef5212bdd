//! Lanes: rows of one batch under different weighted sets of adapters, computed row by row.
//!
//! llama.cpp applies one set to a whole batch. Here the set belongs to the row: after a linear of the base model has
//! given `y = W x`, every row `t` gets `y_t += sum over its adapters i of s_i * B_i (A_i x_t)`, and rows without
//! adapters get nothing and cost nothing. So an adapter costs what its own rows cost, however many adapters are
//! resident and whatever their ranks are; changing the adapter of a sequence changes one index. (The idea of a
//! kernel that gathers per row is Punica's, <https://arxiv.org/abs/2310.18547>; two ways that stay inside ggml's own
//! operators, packing with a mask and `MUL_MAT_ID`, are compared with it in `docs/mixed-batches.md`.)
//!
//! This module is plain safe Rust: which linears there are ([`Sites`]), an adapter laid out for the kernels
//! ([`LaneAdapter`]), which row uses what ([`Step`]), and the arithmetic ([`kernel`]). It knows no llama.cpp; what it
//! needs of ggml's number formats comes in through [`Numerics`]. [`crate::engine::llama`] calls it from inside
//! ggml's threads.

pub mod kernel;
mod pack;
mod residents;
mod sites;
mod step;
#[cfg(test)]
mod tests;

pub use pack::{LaneAdapter, NotForLanes};
pub use residents::{ResidentStats, Residents};
pub use sites::Sites;
pub use step::{Columns, Step};

use crate::gguf::TensorType;

/// Dot products in the number formats of adapter weights, as the engine's own matrix products make them.
pub trait Numerics: Sync {
    /// Converts `x` to the format in which `kind` wants its right-hand side, appending to `out`.
    fn convert(&self, kind: TensorType, x: &[f32], out: &mut Vec<u8>);

    /// The dot product of one row of weights, `n` elements in `kind`, with a converted vector.
    fn dot(&self, kind: TensorType, row: &[u8], x: &[u8], n: usize) -> f32;

    /// Says that these bytes are read soon. Nothing need happen.
    fn prefetch(&self, _bytes: &[u8]) {}
}
