//! The static embedder: the sum of its tokens' rows, at unit length. No network, nothing to load.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::table::{Table, TableError};
use super::words::{MAX_BYTES, MAX_TOKENS, UNKNOWN, Words};
use super::{Embedder, normalize};

/// The table that is part of the program, and its vocabulary; `models/embed/README.md` tells where they come from.
const TABLE: &[u8] = include_bytes!("../../../models/embed/static-256.bin");
const VOCABULARY: &str = include_str!("../../../models/embed/vocabulary.txt");

/// Sums rows of a [`Table`]: microseconds for a short text, and the same bits on every machine.
#[derive(Debug)]
pub struct StaticEmbedder {
    words: Words,
    table: Table,
    fingerprint: [u8; 32],
}

impl StaticEmbedder {
    /// The embedder that is part of the program; made on the first call.
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<StaticEmbedder> = OnceLock::new();
        BUILTIN
            .get_or_init(|| Self::read(Cow::Borrowed(TABLE), VOCABULARY).expect("a test reads the program's own table"))
    }

    /// An embedder from a table and its vocabulary: one token a line, the row's number is the line's.
    ///
    /// # Errors
    /// [`TableError`] when either is damaged or they do not fit each other.
    pub fn read(table: Cow<'static, [u8]>, vocabulary: &str) -> Result<Self, TableError> {
        let table = Table::read(table)?;
        let lines = vocabulary.lines().count();
        if lines != table.rows() {
            let reason = format!("has {lines} lines for a table of {} rows", table.rows());
            return Err(TableError::Vocabulary(reason));
        }
        if !vocabulary.lines().any(|token| token == UNKNOWN) {
            return Err(TableError::Vocabulary(format!("has no {UNKNOWN}")));
        }
        let mut hasher =
            blake3::Hasher::new_derive_key("smoa static embedder: WordPiece tokens, sum of rows, unit length");
        hasher.update(&(MAX_BYTES as u64).to_le_bytes()).update(&(MAX_TOKENS as u64).to_le_bytes());
        hasher.update(&(table.bytes().len() as u64).to_le_bytes());
        hasher.update(table.bytes()).update(vocabulary.as_bytes());
        Ok(Self { words: Words::new(vocabulary)?, table, fingerprint: *hasher.finalize().as_bytes() })
    }
}

impl Embedder for StaticEmbedder {
    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn dim(&self) -> usize {
        self.table.dim()
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let mut sum = vec![0.0; self.table.dim()];
        for id in self.words.ids(text) {
            self.table.add(id as usize, &mut sum);
        }
        normalize(&mut sum);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::embed::table::sample;

    fn cosine(left: &str, right: &str) -> f32 {
        let embedder = StaticEmbedder::builtin();
        embedder.embed(left).iter().zip(embedder.embed(right)).map(|(left, right)| left * right).sum()
    }

    #[test]
    fn vectors_have_unit_length_or_none() {
        let embedder = StaticEmbedder::builtin();
        let hostile = [
            "a".repeat(1 << 20),
            "\u{1}\u{7f}\u{0}\u{202e}".repeat(1000),
            "привет мир 中文 عربى हिन्दी ελληνικά".into(),
            "e\u{301}\u{301}".repeat(100_000),
            "#".repeat(5000),
            "[CLS] [UNK] [SEP]".into(),
            "\u{10ffff}\u{feff}".into(),
        ];
        for text in hostile.iter().map(String::as_str).chain(["hello", "What's the weather?", "", " ", "\u{1f9a5}"]) {
            let vector = embedder.embed(text);
            assert_eq!(vector.len(), embedder.dim());
            let square: f32 = vector.iter().map(|number| number * number).sum();
            let shown: String = text.chars().take(20).collect();
            assert!(square == 0.0 || (square - 1.0).abs() < 1e-5, "{shown:?}: {square}");
        }
        assert!(embedder.embed("").iter().all(|number| *number == 0.0));
        assert!(embedder.embed("\u{10ffff}").iter().all(|number| *number == 0.0));
    }

    #[test]
    fn like_texts_are_nearer_than_unlike_ones() {
        for (text, like, unlike) in [
            ("how do i reset my password", "i forgot my login code", "what is the weather like tomorrow"),
            ("translate this into french", "how do you say hello in spanish", "my card was declined at the shop"),
            ("book a table for two", "reserve a restaurant tonight", "the engine makes a strange noise"),
        ] {
            let (near, far) = (cosine(text, like), cosine(text, unlike));
            assert!(near > far + 0.1, "{text}: {near} {far}");
        }
    }

    #[test]
    fn the_vector_is_the_same_everywhere() {
        let embedder = StaticEmbedder::builtin();
        let texts = ["Transfer $200 to my savings account, please.", "naïve café", "SELECT * FROM users"];
        let mut hasher = blake3::Hasher::new();
        for number in texts.iter().flat_map(|text| embedder.embed(text)) {
            hasher.update(&number.to_le_bytes());
        }
        // Changes with the table, and with nothing else.
        assert_eq!(hasher.finalize().to_hex()[..16], *"0e16dda5da39af2e");
    }

    #[test]
    fn table_and_vocabulary_must_fit() {
        let table = || Cow::Owned(sample(1.0, &[&[0, 0], &[3, 4]]));
        let embedder = StaticEmbedder::read(table(), "[UNK]\nyes\n").expect("they fit");
        assert_eq!(embedder.embed("no yes"), [0.6, 0.8]);
        for vocabulary in ["", "[UNK]", "yes\nno", "[UNK]\nyes\nno"] {
            assert!(
                matches!(StaticEmbedder::read(table(), vocabulary), Err(TableError::Vocabulary(_))),
                "{vocabulary:?}"
            );
        }
        let other = StaticEmbedder::read(table(), "[UNK]\nno\n").expect("they fit");
        assert_ne!(embedder.fingerprint(), other.fingerprint());
    }
}
