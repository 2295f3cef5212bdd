//! The order of the rows of q and k in GGUF files of the llama family.
//!
//! Hugging Face rotates the two halves of a head against each other, llama.cpp (NORM rope) neighbours. Converting a
//! model therefore interleaves the halves of every head (`LlamaModel.permute` in `conversion/llama.py`), and whatever
//! adds to these rows must follow.

use super::dequant::Matrix;

/// The row of the Hugging Face matrix that stands at `row` of the GGUF matrix, for heads of `head` rows (even).
fn source_row(row: usize, head: usize) -> usize {
    let (start, within) = (row / head * head, row % head);
    start + (within % 2) * (head / 2) + within / 2
}

/// A matrix with its rows in GGUF order.
pub(super) fn rows(matrix: &Matrix, head: usize) -> Matrix {
    let order: Vec<usize> = (0..matrix.nrows()).map(|row| source_row(row, head)).collect();
    matrix.select(ndarray::Axis(0), &order)
}

/// A vector with a number per row, in GGUF order.
pub(super) fn vector(numbers: &[f32], head: usize) -> Vec<f32> {
    let source = |row| numbers.get(source_row(row, head)).copied().unwrap_or_default();
    (0..numbers.len()).map(source).collect()
}
