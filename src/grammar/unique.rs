//! `uniqueItems`, which no grammar can say: the arrays of an answer are followed beside the engine, and what would
//! complete an item that is there already is not allowed. The same for keys, where an object must have some number.
//!
//! Which arrays are meant is known by the key they stand under. An array elsewhere under the same key is held to it
//! too: stricter, never laxer.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::schema::same;

/// The arrays of a schema whose items must differ.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct UniqueArrays {
    /// By the key they stand under; with all values an item can have, if they are few.
    pub keys: HashMap<String, Option<Vec<Value>>>,
    /// Every array.
    pub all: bool,
    /// The answer itself.
    pub root: bool,
    /// In no object may a key stand twice: some object counts its keys.
    pub keys_once: bool,
}

impl UniqueArrays {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.all && !self.root && !self.keys_once
    }
}

impl UniqueArrays {
    /// The arrays of several schemas, each the schema of what stands under `key`.
    pub fn under(key: &str, schemas: impl IntoIterator<Item = UniqueArrays>) -> Self {
        let mut found = UniqueArrays::default();
        for mut schema in schemas {
            found.all |= schema.all;
            found.keys_once |= schema.keys_once;
            if schema.root {
                schema.keys.insert(key.to_owned(), None);
            }
            // A list holds for the arrays of one schema, not for those of another one under the same key.
            found.keys.extend(schema.keys.into_keys().map(|key| (key, None)));
        }
        found
    }
}

/// Follows one text.
#[derive(Clone)]
pub(super) struct Follower {
    arrays: Arc<UniqueArrays>,
    /// The text from where the outermost array of interest begins.
    text: Vec<u8>,
    open: Vec<Open>,
    in_string: bool,
    escaped: bool,
}

#[derive(Clone)]
enum Open {
    Array {
        unique: bool,
        /// Items before the one under way.
        items: Vec<Value>,
        /// Where the item under way begins.
        start: Option<usize>,
        /// The texts an item can have.
        texts: Option<Arc<Vec<String>>>,
    },
    Object {
        key: String,
        /// Where the key under way begins.
        start: usize,
        before_value: bool,
        /// The keys that are there, where they are looked at.
        seen: Vec<String>,
    },
}

/// An item or a key stands twice.
#[derive(Debug)]
pub(super) struct Repeated;

impl Follower {
    pub fn new(arrays: Arc<UniqueArrays>) -> Self {
        Follower { arrays, text: Vec::new(), open: Vec::new(), in_string: false, escaped: false }
    }

    /// Whether the bytes may come next, as far as this goes.
    pub fn allows(&self, bytes: &[u8]) -> bool {
        self.clone().feed(bytes).is_ok()
    }

    /// Whether a token with these bytes could be refused here at all.
    pub fn concerns(&self, bytes: &[u8]) -> bool {
        if self.arrays.keys_once && matches!(self.open.last(), Some(Open::Object { .. })) && bytes.contains(&b'"') {
            return true;
        }
        let inside = self.open.iter().any(|open| matches!(open, Open::Array { unique: true, .. }));
        if !inside {
            // Only a token that begins such an array and goes on to its second item.
            return bytes.contains(&b'[') && bytes.contains(&b',');
        }
        let listed = matches!(self.open.last(), Some(Open::Array { texts: Some(_), .. }));
        listed || bytes.iter().any(|byte| b"\"],}".contains(byte))
    }

    /// Takes bytes that the engine has allowed.
    ///
    /// # Errors
    /// [`Repeated`], with the follower in no useful state.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Repeated> {
        for &byte in bytes {
            if self.open.is_empty() && !self.in_string {
                self.text.clear();
            }
            self.text.push(byte);
            self.byte(byte)?;
            self.known()?;
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8) -> Result<(), Repeated> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    let end = self.text.len();
                    if let Some(Open::Object { key, start, before_value: true, seen }) = self.open.last_mut() {
                        *key = serde_json::from_slice(&self.text[*start..end]).unwrap_or_default();
                        if self.arrays.keys_once {
                            if seen.contains(key) {
                                return Err(Repeated);
                            }
                            seen.push(key.clone());
                        }
                    } else {
                        self.complete()?;
                    }
                }
                _ => {}
            }
            return Ok(());
        }
        let at = self.text.len() - 1;
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b':' => {
                if let Some(Open::Object { before_value, .. }) = self.open.last_mut() {
                    *before_value = false;
                }
            }
            b',' => {
                self.end_item()?;
                if let Some(Open::Object { before_value, .. }) = self.open.last_mut() {
                    *before_value = true;
                }
            }
            b']' => {
                self.end_item()?;
                self.open.pop();
                self.complete()?;
            }
            b'}' => {
                self.open.pop();
                self.complete()?;
            }
            byte => {
                match self.open.last_mut() {
                    Some(Open::Array { start, .. }) => _ = start.get_or_insert(at),
                    Some(Open::Object { start, before_value: true, .. }) => *start = at,
                    _ => {}
                }
                match byte {
                    b'"' => self.in_string = true,
                    b'{' => self.open.push(Open::Object {
                        key: String::new(),
                        start: 0,
                        before_value: true,
                        seen: Vec::new(),
                    }),
                    b'[' => {
                        let array = self.array();
                        self.open.push(array);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn array(&self) -> Open {
        let known = match self.open.last() {
            None => self.arrays.root.then_some(&None),
            Some(Open::Object { key, .. }) => self.arrays.keys.get(key),
            Some(Open::Array { .. }) => None,
        };
        let texts =
            known.and_then(Option::as_ref).map(|values| Arc::new(values.iter().map(Value::to_string).collect()));
        Open::Array { unique: known.is_some() || self.arrays.all, items: Vec::new(), start: None, texts }
    }

    /// A string, an object or an array is complete: if it is an item, it must be a new one.
    fn complete(&self) -> Result<(), Repeated> {
        match self.open.last() {
            Some(Open::Array { unique: true, items, start: Some(start), .. }) => {
                let item: Option<Value> = serde_json::from_slice(&self.text[*start..]).ok();
                match item {
                    Some(item) if items.iter().any(|known| same(known, &item)) => Err(Repeated),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The item before a `,` or `]` is complete, whatever it is.
    fn end_item(&mut self) -> Result<(), Repeated> {
        let end = self.text.len() - 1;
        if let Some(Open::Array { unique: true, items, start, .. }) = self.open.last_mut()
            && let Some(start) = start.take()
            && let Ok(item) = serde_json::from_slice::<Value>(&self.text[start..end])
        {
            if items.iter().any(|known| same(known, &item)) {
                return Err(Repeated);
            }
            items.push(item);
        } else if let Some(Open::Array { start, .. }) = self.open.last_mut() {
            *start = None;
        }
        Ok(())
    }

    /// Of a listed item, some value that is not there yet must still be possible.
    fn known(&self) -> Result<(), Repeated> {
        let Some(Open::Array { items, start: Some(start), texts: Some(texts), .. }) = self.open.last() else {
            return Ok(());
        };
        let begun = self.text[*start..].trim_ascii_end();
        let spelled: Vec<String> = items.iter().map(ToString::to_string).collect();
        let fresh = |text: &&String| !spelled.contains(text);
        match texts.iter().filter(fresh).any(|text| text.as_bytes().starts_with(begun)) {
            true => Ok(()),
            false => Err(Repeated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(keys: &[&str], root: bool, text: &str) -> bool {
        let keys = keys.iter().map(|key| ((*key).to_owned(), None)).collect();
        Follower::new(Arc::new(UniqueArrays { keys, root, ..UniqueArrays::default() })).allows(text.as_bytes())
    }

    #[test]
    fn items_may_not_stand_twice() {
        for (text, wanted) in [
            (r#"[1, 2, 12]"#, true),
            (r#"[1, 2, 1]"#, false),
            (r#"[1, 1.0]"#, false),
            (r#"["a", "ab"]"#, true),
            (r#"["a", "a"#, true),
            (r#"["a", "a""#, false),
            (r#"["\"", "\\", "\"x"]"#, true),
            (r#"["a,", ["a,"], {"a": 1}, {"a": 2}]"#, true),
            (r#"[{"a": 1, "b": 2}, {"b": 2, "a": 1}"#, false),
            (r#"[[1, 1], [1, 1, 1]]"#, true),
            (r#"[[1], [1]"#, false),
            (r#"[true, false, null, true]"#, false),
        ] {
            assert_eq!(allows(&[], true, text), wanted, "{text}");
        }
        assert!(allows(&["x"], false, r#"{"y": [1, 1], "x": [1, {"z": [2, 2]}, 2]}"#));
        assert!(!allows(&["x"], false, r#"{"y": [1, 1], "x": [1, 1]}"#));
        assert!(!allows(&["x"], false, r#"[{"x": [1, 1]}]"#));
    }

    #[test]
    fn listed_items_are_led_away_from_what_is_there() {
        let values = vec![Value::from("red"), Value::from("rose")];
        let keys = HashMap::from([("x".to_owned(), Some(values))]);
        let mut follower = Follower::new(Arc::new(UniqueArrays { keys, ..UniqueArrays::default() }));
        follower.feed(br#"{"x": ["red", "r"#).unwrap();
        assert!(!follower.allows(b"e") && follower.allows(b"ose\""));
    }
}
