//! Text to unit vectors: the one trait the router compares texts with, and the embedders behind it.
//!
//! It knows tokens, tables and arithmetic. It does not know adapters, indexes, files or llama.cpp; an embedder that runs
//! on llama.cpp implements [`Embedder`] in `engine::llama`.
//!
//! ```text
//! table.rs    one row of small numbers per token, checked      fixed.rs    StaticEmbedder: tokens, rows, their sum
//! words.rs    WordPiece tokens of a bounded text               cascade.rs  when to ask the slower embedder too
//! ```

mod cascade;
mod fixed;
mod table;
mod words;

pub use cascade::{Cascade, Trial};
pub use fixed::StaticEmbedder;
pub use table::{Table, TableError};
pub use words::{MAX_BYTES, MAX_TOKENS, bounded};

/// Turns text into a unit vector. Same text, same vector: bit for bit on every machine with [`StaticEmbedder`], up to the
/// last bits with an embedder that runs on llama.cpp, whose kernels differ between processors.
pub trait Embedder: Send + Sync {
    /// Identity of table or model, tokenizer and pooling (BLAKE3). Vectors of different fingerprints are never compared.
    fn fingerprint(&self) -> [u8; 32];
    /// Numbers in a vector.
    fn dim(&self) -> usize;
    /// A vector of [`dim`](Self::dim) numbers of unit length, or of zeros for text without a known token. Never fails on
    /// hostile text (empty, 1 MiB, control characters, mixed scripts): at most the first [`MAX_TOKENS`] tokens of the first
    /// [`MAX_BYTES`] bytes are read.
    fn embed(&self, text: &str) -> Vec<f32>;
}

impl<E: Embedder + ?Sized> Embedder for &E {
    fn fingerprint(&self) -> [u8; 32] {
        (**self).fingerprint()
    }

    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        (**self).embed(text)
    }
}

/// Scales a vector to unit length. One without a direction (zeros, or numbers that are not finite) becomes zeros.
pub fn normalize(vector: &mut [f32]) {
    // In 64 bits and in order, so that every machine gives the same bits.
    let square: f64 = vector.iter().map(|number| f64::from(*number) * f64::from(*number)).sum();
    let norm = square.sqrt();
    if norm.is_finite() && norm > 0.0 {
        vector.iter_mut().for_each(|number| *number = (f64::from(*number) / norm) as f32);
    } else {
        vector.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn vectors_without_direction_become_zeros() {
        for mut vector in [vec![0.0_f32; 3], vec![f32::NAN, 1.0], vec![f32::INFINITY, 1.0], vec![]] {
            normalize(&mut vector);
            assert!(vector.iter().all(|number| *number == 0.0), "{vector:?}");
        }
        let mut vector = [3e30_f32, -4e30];
        normalize(&mut vector);
        assert!((vector[0] - 0.6).abs() < 1e-6 && (vector[1] + 0.8).abs() < 1e-6, "{vector:?}");
    }
}
