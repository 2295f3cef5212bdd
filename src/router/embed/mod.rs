//! Text to unit vectors: the one trait the router compares texts with, and the embedders behind it.
//!
//! It knows tokens, tables and arithmetic. It does not know adapters, indexes, files or llama.cpp; an embedder that runs
//! on llama.cpp implements [`Embedder`] in `engine::llama`.

/// Turns text into a unit vector. Same text, same vector, on every machine.
pub trait Embedder: Send + Sync {
    /// Identity of table or model, tokenizer and pooling (BLAKE3). Vectors of different fingerprints are never compared.
    fn fingerprint(&self) -> [u8; 32];
    /// Numbers in a vector.
    fn dim(&self) -> usize;
    /// A vector of [`dim`](Self::dim) numbers of unit length, or of zeros for text without a known token. Never fails on
    /// hostile text (empty, 1 MiB, control characters, mixed scripts): the input is bounded.
    fn embed(&self, text: &str) -> Vec<f32>;
}
