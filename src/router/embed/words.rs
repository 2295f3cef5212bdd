//! WordPiece tokens of a text whose length is bounded first.

use tokenizers::decoders::wordpiece::WordPiece as Decoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::tokenizer::TokenizerImpl;

use super::table::TableError;

/// Bytes of a text that are read: its beginning, cut at a character. About 700 words.
pub const MAX_BYTES: usize = 4096;
/// Tokens of those that count.
pub const MAX_TOKENS: usize = 512;

/// The token for words that no tokens spell.
pub(super) const UNKNOWN: &str = "[UNK]";

/// The beginning of a text, at most [`MAX_BYTES`] long.
pub fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_BYTES)).unwrap_or(text)
}

/// BERT's tokenizer: clean, lower case, accents off, split at spaces and punctuation, longest pieces first.
///
/// Knows no special tokens: `[CLS]` in a text is three pieces like any other.
#[derive(Debug)]
pub(super) struct Words(TokenizerImpl<WordPiece, BertNormalizer, BertPreTokenizer, BertProcessing, Decoder>);

impl Words {
    /// A tokenizer for the tokens of `vocabulary`, one a line; a token's id is its line, from 0.
    pub(super) fn new(vocabulary: &str) -> Result<Self, TableError> {
        let refused = |error: tokenizers::Error| TableError::Vocabulary(error.to_string());
        let model = WordPiece::builder()
            .vocab(WordPiece::read_bytes(vocabulary.as_bytes()).map_err(refused)?)
            .unk_token(UNKNOWN.into())
            .continuing_subword_prefix("##".into())
            .build()
            .map_err(refused)?;
        let mut words = TokenizerImpl::new(model);
        words
            .with_normalizer(Some(BertNormalizer::default()))
            .map_err(refused)?
            .with_pre_tokenizer(Some(BertPreTokenizer));
        Ok(Self(words))
    }

    /// The ids of the first [`MAX_TOKENS`] tokens of the beginning of a text; none where tokenizing fails, which no text
    /// is known to cause.
    pub(super) fn ids(&self, text: &str) -> Vec<u32> {
        let encoding = self.0.encode_fast(bounded(text), false);
        encoding.map_or_else(|_| Vec::new(), |e| e.get_ids().iter().take(MAX_TOKENS).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: &str = "[UNK]\nhello\nwor\n##ld\n,\ncafe\n[\n]\ncl\n##s\n中\n";

    fn ids(text: &str) -> Vec<u32> {
        Words::new(VOCABULARY).expect("a vocabulary").ids(text)
    }

    #[test]
    fn texts_and_their_tokens() {
        for (text, expected) in [
            ("", &[][..]),
            (" \t\n\u{1}\u{0}\u{fffd}", &[]),
            ("Hello, WORLD", &[1, 4, 2, 3]),
            ("café CAFE\u{301}", &[5, 5]),
            ("world wor", &[2, 3, 2]),
            ("zzz hello", &[0, 1]),
            ("[CLS]", &[6, 8, 9, 7]),
            ("中中", &[10, 10]),
            ("hel\u{200b}lo", &[1]),
        ] {
            assert_eq!(ids(text), expected, "{text:?}");
        }
    }

    #[test]
    fn length_is_bounded_at_a_character() {
        assert_eq!(ids(&"hello ".repeat(100_000)).len(), MAX_TOKENS);
        assert_eq!(bounded(&"é".repeat(MAX_BYTES)).len(), MAX_BYTES);
        assert_eq!(bounded(&format!("a{}", "é".repeat(MAX_BYTES))).len(), MAX_BYTES - 1);
        assert_eq!(bounded("short"), "short");
    }
}
