//! `uniqueItems`, which no grammar can say: the arrays of an answer are followed beside the engine, and what would
//! complete an item that is there already is not allowed. The same for keys, where an object must have some number.
//!
//! Which arrays are meant is known by the key they stand under. An array elsewhere under the same key is held to it
//! too: stricter, never laxer.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::mask::TokenMask;
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

/// Tokens by what they could do to a [`Follower`]: all others it lets through wherever it stands alike.
#[derive(Debug)]
pub(super) struct Concerned {
    /// With a quotation mark.
    quotes: TokenMask,
    /// With a mark that can end an item.
    marks: TokenMask,
    /// That open an array and go on to its second item.
    arrays: TokenMask,
}

impl Concerned {
    /// Of the tokens with these bytes.
    pub fn new<'a>(tokens: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let none = TokenMask::empty(tokens.len());
        let mut found = Concerned { quotes: none.clone(), marks: none.clone(), arrays: none };
        for (token, bytes) in (0u32..).zip(tokens) {
            let sets = [
                (&mut found.quotes, bytes.contains(&b'"')),
                (&mut found.marks, bytes.iter().any(|byte| b"\"],}".contains(byte))),
                (&mut found.arrays, bytes.contains(&b'[') && bytes.contains(&b',')),
            ];
            sets.into_iter().filter(|(_, holds)| *holds).for_each(|(set, _)| set.insert(token));
        }
        found
    }
}

/// Follows one text. A copy costs little, however long the text.
#[derive(Clone)]
pub(super) struct Follower {
    arrays: Arc<UniqueArrays>,
    open: Vec<Open>,
    in_string: bool,
    escaped: bool,
}

#[derive(Clone)]
enum Open {
    Array {
        unique: bool,
        /// Items before the one under way.
        items: Arc<Vec<Value>>,
        /// The item under way, if the items must differ.
        item: Vec<u8>,
        /// The texts an item can have.
        texts: Option<Arc<Vec<String>>>,
    },
    Object {
        key: Arc<str>,
        /// The key under way.
        begun: Vec<u8>,
        before_value: bool,
        /// The keys that are there, where they are looked at.
        seen: Arc<Vec<Arc<str>>>,
    },
}

/// An item or a key stands twice.
#[derive(Debug)]
pub(super) struct Repeated;

impl Follower {
    pub fn new(arrays: Arc<UniqueArrays>) -> Self {
        Follower { arrays, open: Vec::new(), in_string: false, escaped: false }
    }

    /// Whether the bytes may come next, as far as this goes.
    pub fn allows(&self, bytes: &[u8]) -> bool {
        self.clone().feed(bytes).is_ok()
    }

    /// The tokens of a mask that could be refused here at all.
    pub fn concerned<'a>(&self, mask: &'a TokenMask, of: &'a Concerned) -> impl Iterator<Item = u32> + use<'a> {
        let listed = matches!(self.open.last(), Some(Open::Array { texts: Some(_), .. }));
        let inside = self.open.iter().any(|open| matches!(open, Open::Array { unique: true, .. }));
        let keys = self.arrays.keys_once && matches!(self.open.last(), Some(Open::Object { .. }));
        let (set, also) = match (listed, inside) {
            (true, _) => (None, None),
            // Nothing ends in a string but by its end.
            (_, true) if self.in_string => (Some(&of.quotes), None),
            (_, true) => (Some(&of.marks), None),
            // Only a token that begins such an array and goes on to its second item.
            (_, false) => (Some(&of.arrays), keys.then_some(&of.quotes)),
        };
        let words = move |index: usize| match (set, also) {
            (None, _) => u32::MAX,
            (Some(set), also) => set.words()[index] | also.map_or(0, |also| also.words()[index]),
        };
        mask.iter_where(words)
    }

    /// Takes bytes that the engine has allowed.
    ///
    /// # Errors
    /// [`Repeated`], with the follower in no useful state.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Repeated> {
        for &byte in bytes {
            self.byte(byte)?;
            self.known()?;
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8) -> Result<(), Repeated> {
        if self.in_string {
            self.note(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    if let Some(Open::Object { key, begun, before_value: true, seen }) = self.open.last_mut() {
                        *key = serde_json::from_slice::<String>(begun).unwrap_or_default().into();
                        if self.arrays.keys_once {
                            if seen.contains(key) {
                                return Err(Repeated);
                            }
                            Arc::make_mut(seen).push(Arc::clone(key));
                        }
                    } else {
                        self.complete()?;
                    }
                }
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => self.note(byte),
            b':' => {
                if let Some(Open::Object { before_value, .. }) = self.open.last_mut() {
                    *before_value = false;
                }
                self.note(byte);
            }
            b',' => {
                self.end_item()?;
                self.note(byte);
                if let Some(Open::Object { before_value, .. }) = self.open.last_mut() {
                    *before_value = true;
                }
            }
            b']' => {
                self.end_item()?;
                self.open.pop();
                self.note(byte);
                self.complete()?;
            }
            b'}' => {
                self.open.pop();
                self.note(byte);
                self.complete()?;
            }
            byte => {
                if let Some(Open::Object { begun, before_value: true, .. }) = self.open.last_mut() {
                    begun.clear();
                }
                self.note(byte);
                match self.open.last_mut() {
                    Some(Open::Array { unique: true, item, .. }) if item.is_empty() => item.push(byte),
                    _ => {}
                }
                match byte {
                    b'"' => self.in_string = true,
                    b'{' => self.open.push(Open::Object {
                        key: "".into(),
                        begun: Vec::new(),
                        before_value: true,
                        seen: Arc::default(),
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

    /// Appends a byte to the items and the key that it is part of.
    fn note(&mut self, byte: u8) {
        for open in &mut self.open {
            match open {
                Open::Array { item, .. } if !item.is_empty() => item.push(byte),
                _ => {}
            }
        }
        if let Some(Open::Object { begun, before_value: true, .. }) = self.open.last_mut() {
            begun.push(byte);
        }
    }

    fn array(&self) -> Open {
        let known = match self.open.last() {
            None => self.arrays.root.then_some(&None),
            Some(Open::Object { key, .. }) => self.arrays.keys.get(&**key),
            Some(Open::Array { .. }) => None,
        };
        let texts =
            known.and_then(Option::as_ref).map(|values| Arc::new(values.iter().map(Value::to_string).collect()));
        let unique = known.is_some() || self.arrays.all;
        Open::Array { unique, items: Arc::default(), item: Vec::new(), texts }
    }

    /// A string, an object or an array is complete: if it is an item, it must be a new one.
    fn complete(&self) -> Result<(), Repeated> {
        match self.open.last() {
            Some(Open::Array { unique: true, items, item, .. }) if !item.is_empty() && !items.is_empty() => {
                match serde_json::from_slice::<Value>(item) {
                    Ok(item) if items.iter().any(|known| same(known, &item)) => Err(Repeated),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The item before a `,` or `]` is complete, whatever it is.
    fn end_item(&mut self) -> Result<(), Repeated> {
        if let Some(Open::Array { unique: true, items, item, .. }) = self.open.last_mut()
            && let Ok(value) = serde_json::from_slice::<Value>(&std::mem::take(item))
        {
            if items.iter().any(|known| same(known, &value)) {
                return Err(Repeated);
            }
            Arc::make_mut(items).push(value);
        }
        Ok(())
    }

    /// Of a listed item, some value that is not there yet must still be possible.
    fn known(&self) -> Result<(), Repeated> {
        let Some(Open::Array { items, item, texts: Some(texts), .. }) = self.open.last() else {
            return Ok(());
        };
        if item.is_empty() {
            return Ok(());
        }
        let begun = item.trim_ascii_end();
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
