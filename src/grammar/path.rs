//! Where in a JSON text one is, and which keys the objects there require.

use std::collections::HashMap;

/// Keys that the objects of a schema require, by the key under which an object stands. Objects that stand elsewhere under
/// the same key are thought to require them too: this guides a search and a wish, and decides nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Required {
    /// `None`: the answer itself, and what stands in its arrays.
    under: HashMap<Option<String>, Vec<String>>,
    all: Vec<String>,
}

impl Required {
    /// Notes what an object under `key` requires.
    pub fn add(&mut self, key: Option<&str>, names: impl IntoIterator<Item = String>) {
        let of = self.under.entry(key.map(str::to_owned)).or_default();
        for name in names {
            if !self.all.contains(&name) {
                self.all.push(name.clone());
            }
            if !of.contains(&name) {
                of.push(name);
            }
        }
    }

    /// Takes in what another schema requires, whose answer stands under `key`.
    pub fn take_in(&mut self, key: &str, other: Required) {
        for (under, names) in other.under {
            self.add(Some(under.as_deref().unwrap_or(key)), names);
        }
        self.add(Some(key), []);
        for name in other.all {
            if !self.all.contains(&name) {
                self.all.push(name);
            }
        }
    }

    /// Names to try in an object under `key`: its own first.
    pub fn of(&self, key: Option<&[u8]>) -> impl Iterator<Item = &String> {
        let key = key.map(|key| String::from_utf8_lossy(key).into_owned());
        let own = self.under.get(&key).map(Vec::as_slice).unwrap_or_default();
        own.iter().chain(self.all.iter().filter(|name| !own.contains(name)))
    }
}

/// Bytes of a key that are kept.
const KEY: usize = 256;

/// Follows a text that is JSON, or has JSON in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Path {
    /// Whether it is an object, and the key it stands under.
    open: Vec<(bool, Option<Vec<u8>>)>,
    /// The last key of the innermost object.
    key: Option<Vec<u8>>,
    /// The text from the last quotation mark on, without it, as far as it may be part of a key.
    begun: Vec<u8>,
    in_string: bool,
    escaped: bool,
}

impl Path {
    pub fn feed(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.byte(byte));
    }

    /// The key under which the innermost object or array stands.
    pub fn under(&self) -> Option<&[u8]> {
        self.open.last().and_then(|(_, key)| key.as_deref())
    }

    /// The text since the last quotation mark.
    pub fn begun(&self) -> &[u8] {
        &self.begun
    }

    fn byte(&mut self, byte: u8) {
        let ends = self.in_string && !self.escaped && byte == b'"';
        if byte == b'"' && (ends || !self.in_string) {
            if ends {
                // A text that turns out to be no key is replaced by the next one.
                self.key = Some(std::mem::take(&mut self.begun));
            }
            self.begun.clear();
            self.in_string = !ends;
            return;
        }
        if self.begun.len() < KEY {
            self.begun.push(byte);
        }
        if self.in_string {
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        match byte {
            b'{' | b'[' => {
                let under = match self.open.last() {
                    Some((true, _)) => self.key.clone(),
                    Some((false, key)) => key.clone(),
                    None => None,
                };
                self.open.push((byte == b'{', under));
            }
            b'}' | b']' => _ = self.open.pop(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, Required};

    #[test]
    fn objects_are_known_by_the_key_they_stand_under() {
        for (text, under) in [
            ("", None),
            ("{\"a\": 1, ", None),
            ("{\"a\": {", Some("a")),
            ("{\"a\": {\"b\": [{\"c\": 1}, {", Some("b")),
            ("{\"a\": {\"b\": [{\"c\": 1}, {}], ", Some("a")),
            ("{\"a\": \"} \\\" {\", \"b\": {", Some("b")),
            ("[{\"a\": {}}, {", None),
        ] {
            let mut path = Path::default();
            path.feed(text.as_bytes());
            assert_eq!(path.under(), under.map(str::as_bytes), "{text}");
        }
        let mut path = Path::default();
        path.feed(b"{\"a\": 1, \"nam");
        assert_eq!(path.begun(), b"nam");
    }

    #[test]
    fn its_own_names_come_first() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut required = Required::default();
        required.add(None, names(&["title", "author"]));
        required.add(Some("author"), names(&["name", "title"]));
        let of = |key: Option<&str>| required.of(key.map(str::as_bytes)).cloned().collect::<Vec<_>>();
        assert_eq!(of(Some("author")), ["name", "title", "author"]);
        assert_eq!(of(None), ["title", "author", "name"]);
        assert_eq!(of(Some("elsewhere")), ["title", "author", "name"]);
        let mut calls = Required::default();
        calls.take_in("arguments", required.clone());
        assert_eq!(calls.of(Some(b"arguments")).next().map(String::as_str), Some("title"));
    }
}
