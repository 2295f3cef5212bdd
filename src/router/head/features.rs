//! Words and pieces of words as hashed features: what a text says beside what it means.
//!
//! Word unigrams and bigrams, and runs of two to five characters within a word's borders, counted sublinearly; the
//! choice that holds its own against embeddings in short intent texts (Wang and Manning, 2012). Features are hashed
//! (Weinberger and others, 2009), so nothing has to be remembered but their weights.

use std::collections::HashMap;

/// Bytes of a text that are read.
pub const TEXT_BYTES: usize = 2 << 10;
/// Shortest and longest run of characters.
const GRAMS: std::ops::RangeInclusive<usize> = 2..=5;

/// A feature: where it hashes to.
pub type Bucket = u32;

/// Which part of the features a bucket belongs to; each part is normalised by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words and pairs of words.
    Words,
    /// Runs of characters.
    Letters,
}

/// The features of a text: each once, sorted, with `1 + ln(count)`, the two parts apart.
pub fn features(text: &str) -> [Vec<(Bucket, f32)>; 2] {
    let text = cut(text).to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut of_words = HashMap::new();
    for word in &words {
        *of_words.entry(hash(Part::Words, &[word])).or_insert(0u32) += 1;
    }
    for pair in words.windows(2) {
        *of_words.entry(hash(Part::Words, pair)).or_insert(0) += 1;
    }
    let mut of_letters = HashMap::new();
    let mut padded = String::new();
    for word in text.split_whitespace() {
        padded.clear();
        padded.push(' ');
        padded.push_str(word);
        padded.push(' ');
        let borders: Vec<usize> = padded.char_indices().map(|(at, _)| at).chain([padded.len()]).collect();
        for length in GRAMS {
            for window in borders.windows(length + 1) {
                if let [first, .., last] = window {
                    let gram = padded.get(*first..*last).unwrap_or_default();
                    *of_letters.entry(hash(Part::Letters, &[gram])).or_insert(0) += 1;
                }
            }
        }
    }
    [of_words, of_letters].map(|counts| {
        let mut list: Vec<(Bucket, f32)> =
            counts.into_iter().map(|(bucket, count)| (bucket, 1.0 + (count as f32).ln())).collect();
        list.sort_unstable_by_key(|(bucket, _)| *bucket);
        list
    })
}

/// The first [`TEXT_BYTES`] bytes, to a border of characters.
fn cut(text: &str) -> &str {
    if text.len() <= TEXT_BYTES {
        return text;
    }
    let end = (0..=TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// FNV-1a with a last mix, of 64 bits folded to 32.
fn hash(part: Part, pieces: &[&str]) -> Bucket {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325 ^ (part as u64);
    let mut byte = |byte: u8| state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    for piece in pieces {
        piece.bytes().for_each(&mut byte);
        byte(0xff);
    }
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    (state >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_the_same_features_whatever_their_case() {
        assert_eq!(features("Set an Alarm"), features("set an alarm"));
        assert_ne!(features("set an alarm"), features("alarm an set"), "pairs keep the order");
        let [words, letters] = features("a a a");
        assert_eq!(words.len(), 2, "a, and a after a: {words:?}");
        assert!(words.iter().any(|(_, weight)| (*weight - (1.0 + 3f32.ln())).abs() < 1e-6));
        assert_eq!(letters.len(), 3, "' a', 'a ', ' a '");
    }

    #[test]
    fn hostile_texts_have_bounded_features() {
        for text in
            [String::new(), "x".repeat(1 << 20), "\u{0}\u{1b}[2J\u{202e}".into(), "日本語 עברית ελ".repeat(99_999)]
        {
            let [words, letters] = features(&text);
            assert!(words.len() + letters.len() <= 6 * TEXT_BYTES, "{}", words.len());
        }
    }
}
