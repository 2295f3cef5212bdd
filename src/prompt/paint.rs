//! Painting a user's text, to recognise it in what a template made of it.
//!
//! Paint replaces a character by another one that occurs nowhere else, and can be taken off.

use super::spellings::Spellings;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

/// What can be paint. It is taken from the end, where characters have no meaning and no case.
const PAINTS: RangeInclusive<char> = '\u{10000}'..=char::MAX;

/// The characters of a text that could be paint, and are not if the text is to be painted.
pub(super) fn candidates(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().filter(|c| PAINTS.contains(c))
}

/// How much of a text is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coat {
    /// Nothing.
    None,
    /// Every character some control token is spelled with.
    Full,
    /// The same, but for text the template has in quotes and may look for.
    SparingLiterals,
    /// Control-token spellings only.
    SpellingsOnly,
}

/// Paint for one conversation.
pub(super) struct Palette<'a> {
    spellings: &'a Spellings,
    literals: &'a Spellings,
    paint: HashMap<char, char>,
    original: HashMap<char, char>,
}

impl<'a> Palette<'a> {
    /// Chooses paint from the [`candidates`] that `used` does not hold. None when there is no such paint, which takes a
    /// text of every character there is.
    pub(super) fn new(spellings: &'a Spellings, literals: &'a Spellings, used: &HashSet<char>) -> Option<Self> {
        // White space is trimmed by templates, and JSON escapes quotes: painted, they would
        // not be. No control token is spelled with nothing else.
        let mut alphabet: Vec<char> = spellings.alphabet().iter().copied().collect();
        alphabet.retain(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | '\\'));
        alphabet.sort_unstable();
        let mut free = PAINTS.rev().filter(|c| !used.contains(c));
        let mut paint = HashMap::new();
        for c in alphabet {
            paint.insert(c, free.next()?);
        }
        let original = paint.iter().map(|(&c, &painted)| (painted, c)).collect();
        Some(Self { spellings, literals, paint, original })
    }

    /// The character below the paint, if there is paint.
    pub(super) fn original(&self, c: char) -> Option<char> {
        self.original.get(&c).copied()
    }

    /// Paints a text.
    pub(super) fn text(&self, text: &str, coat: Coat) -> String {
        let mut painted = vec![coat != Coat::SpellingsOnly; text.len()];
        if coat == Coat::None {
            return text.to_owned();
        }
        if coat == Coat::SparingLiterals {
            for range in self.literals.find(text) {
                painted[range].fill(false);
            }
        }
        for range in self.spellings.find(text) {
            painted[range].fill(true);
        }
        text.char_indices()
            .map(|(at, c)| match self.paint.get(&c) {
                Some(&paint) if painted[at] => paint,
                _ => c,
            })
            .collect()
    }

    /// A value as the template sees it, with every string in it painted.
    ///
    /// Names of fields are looked up by templates: of them only control-token spellings are
    /// painted.
    pub(super) fn value(&self, value: &Value, coat: Coat) -> minijinja::Value {
        match value {
            Value::Null => minijinja::Value::from(()),
            Value::Bool(truth) => minijinja::Value::from(*truth),
            Value::Number(number) => {
                if let Some(number) = number.as_i64() {
                    minijinja::Value::from(number)
                } else if let Some(number) = number.as_u64() {
                    minijinja::Value::from(number)
                } else {
                    minijinja::Value::from(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(text) => minijinja::Value::from(self.text(text, coat)),
            Value::Array(items) => items.iter().map(|item| self.value(item, coat)).collect(),
            Value::Object(fields) => minijinja::Value::from_pairs(self.fields(fields, coat)),
        }
    }

    /// The fields of an object as the template sees them.
    pub(super) fn fields(
        &self,
        fields: &Map<String, Value>,
        coat: Coat,
    ) -> impl Iterator<Item = (String, minijinja::Value)> {
        let names = if coat == Coat::None { Coat::None } else { Coat::SpellingsOnly };
        fields.iter().map(move |(name, value)| (self.text(name, names), self.value(value, coat)))
    }
}
