//! Strings: the shortest ones, and the shortest ends of begun ones.

use std::sync::OnceLock;

use serde_json::Value;

use super::super::pattern::{Automaton, Words};

/// Largest length that an automaton counts to.
const COUNTED: usize = 64;

/// The strings that a schema allows.
#[derive(Debug)]
pub(super) struct Text {
    patterns: Vec<String>,
    min: usize,
    max: Option<usize>,
    /// Worked out when it is first asked for; none where that is too large.
    words: OnceLock<Option<Words>>,
}

impl Text {
    /// Of a schema of a string, as the rewriting writes it.
    pub fn of(leaf: &Value) -> Text {
        let bound = |key: &str| leaf[key].as_u64().and_then(|bound| usize::try_from(bound).ok());
        let more = leaf["allOf"].as_array().into_iter().flatten();
        let patterns = std::iter::once(leaf).chain(more).filter_map(|part| part["pattern"].as_str());
        Text {
            patterns: patterns.map(str::to_owned).collect(),
            min: bound("minLength").unwrap_or(0),
            max: bound("maxLength"),
            words: OnceLock::new(),
        }
    }

    pub fn like(pattern: &str) -> Text {
        Text { patterns: vec![pattern.to_owned()], min: 0, max: None, words: OnceLock::new() }
    }

    pub fn any() -> Text {
        Text { patterns: Vec::new(), min: 0, max: None, words: OnceLock::new() }
    }

    fn words(&self) -> Option<&Words> {
        self.words.get_or_init(|| self.work_out()).as_ref()
    }

    fn work_out(&self) -> Option<Words> {
        let mut patterns: Option<Automaton> = None;
        for pattern in &self.patterns {
            let one = Automaton::of(pattern)?;
            patterns = Some(match patterns {
                None => one,
                Some(all) => all.meet(&one, |a, b| a && b)?,
            });
        }
        let patterns = patterns?;
        // Counting far multiplies the states; a large bound is left to `rest` and to the engine.
        let near = self.max.filter(|max| *max <= COUNTED).map(|max| max as u64);
        let counted = (self.min > 0 || near.is_some()).then(|| Automaton::lengths(self.min as u64, near)).flatten();
        let both = counted.and_then(|counted| patterns.meet(&counted, |a, b| a && b));
        Some(Words::of(both.unwrap_or(patterns)))
    }

    /// Whether the text is one of them; also where that is not known.
    pub fn admits(&self, text: &str) -> bool {
        if self.patterns.is_empty() {
            let length = text.chars().count();
            return length >= self.min && self.max.is_none_or(|max| length <= max);
        }
        self.words().is_none_or(|words| words.admits(text))
    }

    /// The shortest text that makes `begun` one of them; none if there is none, or none is known.
    pub fn rest(&self, begun: &str) -> Option<String> {
        if self.patterns.is_empty() {
            let length = begun.chars().count();
            return self.max.is_none_or(|max| length <= max).then(|| "a".repeat(self.min.saturating_sub(length)));
        }
        let rest = self.words()?.rest(begun)?;
        let length = begun.chars().count() + rest.chars().count();
        self.max.is_none_or(|max| length <= max).then_some(rest)
    }

    /// The shortest but `others`, so that several differ.
    pub fn another(&self, others: usize) -> Option<String> {
        if others == 0 {
            return self.rest("");
        }
        if self.patterns.is_empty() {
            let name = format!("{}{others}", "a".repeat(self.min.saturating_sub(others.to_string().len())));
            return self.max.is_none_or(|max| name.len() <= max).then_some(name);
        }
        self.words()?.some(others + 1).into_iter().nth(others)
    }
}

/// A text as JSON spells it, without quotation marks.
pub(super) fn spelled(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].replace('\x7f', "\\u007f")
}

/// What a begun string means, and what its last escape lacks. `raw` is what stands behind the quotation mark.
pub(super) fn meaning(raw: &[u8]) -> Option<(String, &'static str)> {
    // A character that is cut is left to the engine.
    let raw = std::str::from_utf8(raw).ok()?;
    ["", "n", "1", "0", "41", "00", "041", "c00", "0041", "dc00", "udc00", "\\udc00"].into_iter().find_map(|lacks| {
        let whole = format!("\"{raw}{lacks}\"");
        serde_json::from_str(&whole).ok().map(|text| (text, lacks))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ends_of_strings() {
        let dated = Text::of(&json!({"type": "string", "minLength": 3, "maxLength": 6, "pattern": "^[a-z]*[0-9]$"}));
        let named = Text::of(&json!({"type": "string", "minLength": 2}));
        let mailed = Text::of(&json!({"minLength": 10, "maxLength": 200, "pattern": ".+[@].+[.]___"}));
        let both = Text::of(&json!({"pattern": "^a", "allOf": [{"pattern": "z$"}]}));
        for (text, begun, rest) in [
            (&dated, "", Some("aa0")),
            (&dated, "abcde", Some("0")),
            (&dated, "abcdef", None),
            (&named, "x", Some("a")),
            (&named, "xyz", Some("")),
            (&both, "", Some("az")),
            (&both, "abc", Some("z")),
            (&both, "b", None),
        ] {
            assert_eq!(text.rest(begun).as_deref(), rest, "{begun}");
        }
        for begun in ["", ",,", "a@b.", "a@b.___"] {
            let rest = mailed.rest(begun).unwrap();
            assert!(mailed.admits(&format!("{begun}{rest}")) && begun.len() + rest.len() == 10, "{begun}{rest}");
        }
        assert_eq!(mailed.rest(&",".repeat(198)), None);
        let several: Vec<String> = (0..20).filter_map(|n| named.another(n)).collect();
        assert!(several.iter().enumerate().all(|(at, one)| named.admits(one) && !several[..at].contains(one)));
        assert_eq!(several.len(), 20);
    }

    #[test]
    fn begun_escapes_are_completed() {
        for (raw, meant, lacks) in [
            ("ab", "ab", ""),
            ("a\\", "a\n", "n"),
            ("\\\\", "\\", ""),
            ("\\u", "A", "0041"),
            ("\\u00e9", "é", ""),
            ("\\u00", "A", "41"),
            ("\\ud83d", "\u{1f400}", "\\udc00"),
        ] {
            assert_eq!(meaning(raw.as_bytes()), Some((meant.to_owned(), lacks)), "{raw}");
        }
        assert_eq!(meaning(&[0xC3]), None);
    }
}
