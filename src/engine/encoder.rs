//! Texts to vectors: what an embedding route needs from an engine, and how texts are put into batches.

use std::ops::Range;

use super::{EngineError, Token};

/// How the outputs of a text's tokens become its vector (`--pooling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// They do not: a vector per token.
    None,
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// A score out of the model's classification head.
    Rank,
}

impl Pooling {
    /// All, with llama.cpp's names.
    pub const NAMES: [(&'static str, Pooling); 5] = [
        ("none", Pooling::None),
        ("mean", Pooling::Mean),
        ("cls", Pooling::Cls),
        ("last", Pooling::Last),
        ("rank", Pooling::Rank),
    ];

    /// llama.cpp's name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Fixed properties of an encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderFacts {
    /// A name for people: the model file's.
    pub model: String,
    /// Numbers of a vector; of a score, those the head gives.
    pub dim: usize,
    /// Most tokens of one text.
    pub limit: usize,
    /// Most tokens of one batch.
    pub rows: usize,
    /// Most texts of one batch.
    pub texts: usize,
    /// How vectors come about.
    pub pooling: Pooling,
}

/// Texts to vectors. Shared by threads, which take turns batch by batch.
pub trait Encoder: Send + Sync {
    /// Fixed properties.
    fn facts(&self) -> &EncoderFacts;

    /// The tokens of a text with the special ones that the model wants around it. Spellings of control tokens are
    /// control tokens, as in llama-server.
    fn tokens(&self, text: &str) -> Vec<Token>;

    /// The tokens of a question and a document side by side, for [`Pooling::Rank`].
    fn pair(&self, query: &str, document: &str) -> Vec<Token>;

    /// One vector per text, not normalised; with [`Pooling::None`] the vectors of its tokens, one after the other.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] for an empty text, a batch beyond the facts or a token outside the vocabulary;
    /// [`EngineError::Compute`] otherwise.
    fn encode(&self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, EngineError>;
}

/// Neighbouring texts that fit into a batch together, in order. Each length is at most `rows`.
pub fn batches(lengths: &[usize], rows: usize, texts: usize) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    let mut filled = 0;
    for (at, length) in lengths.iter().enumerate() {
        match out.last_mut() {
            Some(last) if filled + length <= rows && last.len() < texts => {
                last.end = at + 1;
                filled += length;
            }
            _ => {
                out.push(at..at + 1);
                filled = *length;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_share_a_batch() {
        assert_eq!(batches(&[3, 3, 3, 9, 1], 9, 8), [0..3, 3..4, 4..5]);
        assert_eq!(batches(&[1, 1, 1], 9, 2), [0..2, 2..3]);
        assert!(batches(&[], 9, 2).is_empty());
    }

    proptest! {
        #[test]
        fn every_text_is_in_one_batch_that_holds_it(
            lengths in proptest::collection::vec(1usize..20, 0..40), texts in 1usize..6,
        ) {
            let all = batches(&lengths, 20, texts);
            let flat: Vec<usize> = all.iter().cloned().flatten().collect();
            prop_assert_eq!(flat, (0..lengths.len()).collect::<Vec<_>>());
            for range in all {
                prop_assert!(range.len() <= texts && lengths[range].iter().sum::<usize>() <= 20);
            }
        }
    }
}
