//! Strings in the engine's words: patterns that must be found, and lengths. What must not be found becomes a pattern
//! of everything else.

use serde_json::{Map, Value, json};

use super::super::super::error::GrammarError;
use super::super::part::{Origin, Text};
use super::super::pattern::Pattern;
use super::{Low, Lowering};

/// Lengths beyond this are as good as none; a minimum beyond it cannot be written.
const LONGEST: u64 = 100_000;

impl Lowering<'_, '_> {
    pub(super) fn text(&mut self, text: &Text) -> Result<Vec<Low>, GrammarError> {
        if text.max.is_some_and(|max| text.min > max) {
            return Ok(Vec::new());
        }
        if text.min > LONGEST {
            self.lose(&Origin { pointer: "".into(), keyword: "minLength" }, false);
            return Ok(Vec::new());
        }
        let mut patterns: Vec<String> = text.like.iter().map(|pattern| pattern.source().to_owned()).collect();
        if !text.unlike.is_empty() {
            // Alone first: the pattern of everything else is often short. Else together with what must be found.
            let alone = Pattern::combined(&[], &text.unlike);
            match alone.or_else(|_| Pattern::combined(&text.like, &text.unlike)) {
                Ok(Some(pattern)) => patterns.push(pattern.source().to_owned()),
                Ok(None) => return Ok(Vec::new()),
                Err(_) => {
                    if !self.lose(&Origin { pointer: "".into(), keyword: "not" }, true) {
                        return Ok(Vec::new());
                    }
                }
            }
            if text.like.len() == 1 && matches!(Pattern::combined(&text.like, &text.unlike), Ok(None)) {
                return Ok(Vec::new());
            }
        }
        let mut leaf = Map::new();
        leaf.insert("type".into(), "string".into());
        if text.min > 0 {
            leaf.insert("minLength".into(), text.min.into());
        }
        if let Some(max) = text.max {
            leaf.insert("maxLength".into(), max.min(LONGEST).into());
        }
        let mut patterns = patterns.into_iter();
        if let Some(first) = patterns.next() {
            leaf.insert("pattern".into(), first.into());
        }
        let more: Vec<Value> = patterns.map(|pattern| json!({"type": "string", "pattern": pattern})).collect();
        if !more.is_empty() {
            leaf.insert("allOf".into(), more.into());
        }
        Ok(vec![Low::Leaf(Value::Object(leaf))])
    }
}
