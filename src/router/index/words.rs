//! Texts as words: what of a text can be found, and how much each word of it weighs.

/// Words too frequent to tell adapters apart.
const STOP: [&str; 78] = [
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could", "d", "did",
    "do", "does", "for", "from", "get", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is",
    "it", "its", "ll", "m", "me", "my", "no", "of", "on", "or", "our", "please", "re", "s", "she", "should", "so",
    "some", "t", "that", "the", "their", "them", "then", "there", "these", "they", "this", "to", "up", "us", "ve",
    "was", "we", "were", "what", "which", "who", "will", "with", "would", "you", "your", "yours",
];
/// Bytes of a text that are read.
pub(super) const MAX_TEXT: usize = 8 << 10;
/// Bytes of a word that are kept.
const MAX_WORD: usize = 32;
/// How fast more of the same word stops to count (BM25).
const K1: f32 = 1.2;
/// How much long texts are held back (BM25).
const B: f32 = 0.5;
/// Words of a text of middling length. Fixed, so that what is stored stays right while the library grows.
const MIDDLING: f32 = 16.0;

/// The words of a text in order: letters and digits, lower case, plurals as singulars, `camelCase` and `snake_case`
/// taken apart, stop words left out. In scripts without spaces every character is a word.
pub(super) fn words(text: &str) -> Vec<String> {
    let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
    let mut found = Vec::new();
    let mut word = String::new();
    let mut was_lower = false;
    for c in text.chars() {
        let spaceless = matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{0e00}'..='\u{0eff}' | '\u{f900}'..='\u{faff}');
        if !c.is_alphanumeric() || spaceless || (was_lower && c.is_uppercase()) {
            finish(&mut word, &mut found);
        }
        if spaceless && c.is_alphanumeric() {
            found.push(c.to_string());
        } else if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    finish(&mut word, &mut found);
    found
}

fn finish(word: &mut String, found: &mut Vec<String>) {
    if !word.is_empty() && STOP.binary_search(&word.as_str()).is_err() {
        singular(word);
        word.truncate(word.floor_char_boundary(MAX_WORD));
        found.push(word.clone());
    }
    word.clear();
}

/// Takes the plural's ending off (the "S" stemmer of Harman, JASIS 1991).
fn singular(word: &mut String) {
    if word.len() < 4 || !word.ends_with('s') || ["ss", "us", "is"].iter().any(|end| word.ends_with(end)) {
        return;
    }
    let keep = word.len() - 1;
    if word.ends_with("ies") && !["eies", "aies"].iter().any(|end| word.ends_with(end)) {
        word.truncate(word.len() - 3);
        word.push('y');
    } else if ["sses", "xes", "ches", "shes"].iter().any(|end| word.ends_with(end)) {
        word.truncate(word.len() - 2);
    } else {
        word.truncate(keep);
    }
}

/// The words of a profile's text, each once, with how much it weighs there: BM25's part of the text, of 255.
pub(super) fn weighed(text: &str) -> Vec<(String, u8)> {
    let mut words = words(text);
    words.sort_unstable();
    let length = words.len() as f32;
    let groups = words.chunk_by(|a, b| a == b);
    groups.filter_map(|group| Some((group.first()?.clone(), impact(group.len() as f32, length)))).collect()
}

/// Of 255: the part of BM25's greatest value for a word that comes `count` times in a text of `length` words.
fn impact(count: f32, length: f32) -> u8 {
    let share = count / (count + K1 * (1.0 - B + B * length / MIDDLING));
    (share * 255.0).round().clamp(1.0, 255.0) as u8
}

/// How much a word tells that `having` of `all` adapters have.
pub(super) fn information(having: usize, all: usize) -> f32 {
    let (having, all) = (having.min(all) as f32, all as f32);
    (1.0 + (all - having + 0.5) / (having + 0.5)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_apart() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(text), expected, "{text}");
        check("Refund_not_showing_up", &["refund", "not", "showing"]);
        check("AddToPlaylist", &["add", "playlist"]);
        check("Where are my parties, boxes & buses?", &["where", "party", "box", "buse"]);
        check("glass status 2nd ÉCOLES", &["glass", "status", "2nd", "école"]);
        check("天气 weather", &["天", "气", "weather"]);
        check("\0\u{1b}[31m the", &["31m"]);
        check("", &[]);
        assert!(words(&"x".repeat(1 << 20)).iter().all(|word| word.len() <= MAX_WORD));
        assert!(words(&"ß ".repeat(1 << 20)).len() < MAX_TEXT);
        assert!(STOP.is_sorted());
    }

    #[test]
    fn more_of_a_word_and_shorter_texts_weigh_more() {
        assert!(impact(2.0, 10.0) > impact(1.0, 10.0));
        assert!(impact(1.0, 5.0) > impact(1.0, 50.0));
        assert!(information(1, 1000) > information(500, 1000));
        assert_eq!(weighed("play play music").len(), 2);
    }
}
