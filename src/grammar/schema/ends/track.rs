//! Follows a JSON text through the nodes of a schema.

use std::sync::Arc;

use serde_json::Value;

use super::super::holds::same;
use super::{Ends, Form};

/// Alternatives that are followed at once; what is beyond them is left out.
const ALTERNATIVES: usize = 64;

/// A text, followed.
#[derive(Debug, Clone)]
pub(in super::super::super) struct Track {
    pub(super) ends: Arc<Ends>,
    pub(super) open: Vec<Frame>,
    pub(super) at: At,
}

/// An object or an array that is open.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub object: bool,
    /// Members and items that are complete.
    pub count: usize,
    /// Keys, that of the member under way included.
    pub keys: Vec<String>,
    pub alternatives: Vec<Alternative>,
}

/// What a frame can be: a form of a node, for one alternative of the frame around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alternative {
    pub node: usize,
    pub form: usize,
    pub up: usize,
}

/// What a value can be: a node, for one alternative of the frame around it.
pub(super) type Slot = (usize, usize);

/// Where in the innermost frame.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// Before a value. The second: the array is still empty.
    Value(Vec<Slot>, bool),
    /// In a string; what stands behind its quotation mark.
    Text {
        raw: Vec<u8>,
        escaped: bool,
        slots: Vec<Slot>,
    },
    /// In a number or a word.
    Word(Vec<u8>, Vec<Slot>),
    /// Before a key. `true`: the object is still empty.
    Key(bool),
    Name {
        raw: Vec<u8>,
        escaped: bool,
    },
    Colon(Vec<Slot>),
    /// Behind a value.
    Next,
    /// The text has left what is known.
    Lost,
}

impl Track {
    pub fn new(ends: Arc<Ends>) -> Track {
        let at = At::Value(vec![(ends.root, 0)], false);
        Track { ends, open: Vec::new(), at }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.at = match std::mem::replace(&mut self.at, At::Lost) {
            At::Lost => At::Lost,
            At::Text { mut raw, escaped: false, slots } if byte == b'"' => {
                raw.insert(0, b'"');
                raw.push(b'"');
                self.simple(&raw, &slots)
            }
            At::Text { mut raw, escaped, slots } => {
                raw.push(byte);
                At::Text { raw, escaped: !escaped && byte == b'\\', slots }
            }
            At::Name { mut raw, escaped: false } if byte == b'"' => {
                raw.insert(0, b'"');
                raw.push(b'"');
                match serde_json::from_slice::<String>(&raw) {
                    Ok(key) => self.key(key),
                    Err(_) => At::Lost,
                }
            }
            At::Name { mut raw, escaped } => {
                raw.push(byte);
                At::Name { raw, escaped: !escaped && byte == b'\\' }
            }
            At::Word(mut raw, slots) => {
                if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte) {
                    raw.push(byte);
                    At::Word(raw, slots)
                } else {
                    self.at = self.simple(&raw, &slots);
                    return self.byte(byte);
                }
            }
            at if byte.is_ascii_whitespace() => at,
            At::Value(_, true) if byte == b']' => self.close(false),
            At::Value(slots, _) => match byte {
                b'"' => At::Text { raw: Vec::new(), escaped: false, slots },
                b'{' | b'[' => self.begin(byte == b'{', &slots),
                _ => At::Word(vec![byte], slots),
            },
            At::Key(_) if byte == b'"' => At::Name { raw: Vec::new(), escaped: false },
            At::Key(true) if byte == b'}' => self.close(true),
            At::Colon(slots) if byte == b':' => At::Value(slots, false),
            At::Next => match (byte, self.open.last().map(|frame| frame.object)) {
                (b',', Some(true)) => At::Key(false),
                (b',', Some(false)) => At::Value(self.items(), false),
                (b'}', Some(true)) => self.close(true),
                (b']', Some(false)) => self.close(false),
                _ => At::Lost,
            },
            _ => At::Lost,
        };
    }

    /// Behind a value without values in it.
    fn simple(&mut self, raw: &[u8], slots: &[Slot]) -> At {
        let Ok(value) = serde_json::from_slice::<Value>(raw) else { return At::Lost };
        let spelled = std::str::from_utf8(raw).unwrap_or_default();
        let fits = |form: &Form| match (form, &value) {
            (Form::Values(values), _) => values.iter().any(|(known, _)| same(known, &value)),
            (Form::Text(text), Value::String(value)) => text.admits(value),
            (Form::Number(digits), Value::Number(_)) => digits.admits(spelled),
            _ => false,
        };
        let good = slots.iter().filter(|(node, _)| self.ends.nodes[*node].iter().any(fits));
        let ups = good.map(|(_, up)| *up).collect();
        self.done(ups)
    }

    /// Behind a value, which these alternatives of the frame around it allow.
    fn done(&mut self, mut ups: Vec<usize>) -> At {
        ups.sort_unstable();
        ups.dedup();
        if ups.is_empty() {
            return At::Lost;
        }
        if let Some(frame) = self.open.last_mut() {
            frame.alternatives = ups.into_iter().map(|up| frame.alternatives[up]).collect();
            frame.count += 1;
        }
        At::Next
    }

    fn begin(&mut self, object: bool, slots: &[Slot]) -> At {
        let mut alternatives = Vec::new();
        for &(node, up) in slots {
            for (form, what) in self.ends.nodes[node].iter().enumerate() {
                let kind = if object { matches!(what, Form::Object(_)) } else { matches!(what, Form::Array(_)) };
                if kind && alternatives.len() < ALTERNATIVES {
                    alternatives.push(Alternative { node, form, up });
                }
            }
        }
        if alternatives.is_empty() {
            return At::Lost;
        }
        self.open.push(Frame { object, count: 0, keys: Vec::new(), alternatives });
        if object { At::Key(true) } else { At::Value(self.items(), true) }
    }

    /// What the next item of the innermost array can be.
    fn items(&self) -> Vec<Slot> {
        let Some(frame) = self.open.last() else { return Vec::new() };
        let item = |(up, alternative): (usize, &Alternative)| match self.form(alternative) {
            Form::Array(array) => array.item(frame.count).map(|node| (node, up)),
            _ => None,
        };
        frame.alternatives.iter().enumerate().filter_map(item).collect()
    }

    /// Behind a key.
    fn key(&mut self, key: String) -> At {
        let Some(frame) = self.open.last() else { return At::Lost };
        let mut slots = Vec::new();
        for (up, alternative) in frame.alternatives.iter().enumerate() {
            if let Form::Object(object) = self.form(alternative) {
                slots.extend(object.values(&key).into_iter().map(|node| (node, up)));
            }
        }
        if let Some(frame) = self.open.last_mut() {
            frame.keys.push(key);
        }
        if slots.is_empty() { At::Lost } else { At::Colon(slots) }
    }

    fn close(&mut self, object: bool) -> At {
        let Some(frame) = self.open.pop().filter(|frame| frame.object == object) else { return At::Lost };
        let good = |alternative: &&Alternative| match self.form(alternative) {
            Form::Array(array) => frame.count >= array.min,
            Form::Object(object) => {
                let there = |name: &String| frame.keys.contains(name);
                object.named.iter().all(|member| !member.required || there(&member.name)) && frame.count >= object.min
            }
            _ => false,
        };
        let ups = frame.alternatives.iter().filter(good).map(|alternative| alternative.up).collect();
        self.done(ups)
    }

    pub(super) fn form(&self, alternative: &Alternative) -> &Form {
        &self.ends.nodes[alternative.node][alternative.form]
    }
}
