//! API keys: compared in a time that tells nothing, kept as digests, some of them limited to named adapters.

use std::sync::Arc;

/// Keys that open a door.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    digest: blake3::Hash,
    adapters: Option<Arc<[String]>>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What a key lets its bearer do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Whose cached prefixes its requests share: each key has a cache of its own. 0 where there are no keys.
    pub owner: u64,
    /// Only these adapters, and the base; `None` for all.
    pub adapters: Option<Arc<[String]>>,
}

impl Grant {
    /// Whether the adapter with this name may be used.
    pub fn allows(&self, name: &str) -> bool {
        self.adapters.as_ref().is_none_or(|all| all.iter().any(|a| a == name))
    }
}

impl Keys {
    /// Reads keys, one per line; after a key and white space may stand the names of adapters that it is limited to,
    /// separated by commas. Empty lines and lines that begin with `#` are skipped.
    pub fn read(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (key, names) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let names: Vec<String> = names.split(',').map(|n| n.trim().to_string()).filter(|n| !n.is_empty()).collect();
            self.add(key, (!names.is_empty()).then(|| names.into()));
        }
    }

    /// Adds a key.
    pub fn add(&mut self, key: &str, adapters: Option<Arc<[String]>>) {
        self.0.push(Key { digest: blake3::hash(key.as_bytes()), adapters });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What this key grants. Takes as long for a wrong key as for a right one of the same length: digests are compared
    /// in constant time, and always all of them.
    pub fn check(&self, presented: &[u8]) -> Option<Grant> {
        let digest = blake3::hash(presented);
        let mut found = None;
        for key in &self.0 {
            // blake3's own comparison runs in constant time.
            if key.digest == digest {
                found = Some(key);
            }
        }
        found.map(|key| Grant { owner: owner(&key.digest), adapters: key.adapters.clone() })
    }
}

/// The same for a key at every start, so that slots saved under it can be restored; tells nothing of the key.
fn owner(key: &blake3::Hash) -> u64 {
    let derived = blake3::derive_key("smoa 2026 owner of cached prefixes", key.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = derived;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_open_and_limit() {
        let mut keys = Keys::default();
        keys.read("# comment\n\nopen-all\nlimited  a, b\n");
        let open = keys.check(b"open-all").expect("a key");
        let limited = keys.check(b"limited").expect("a key");
        assert!(open.adapters.is_none() && open.owner != 0 && open.owner != limited.owner);
        assert!(limited.allows("a") && limited.allows("b") && !limited.allows("c"));
        for wrong in ["", "open-al", "open-all ", "limited a", "# comment"] {
            assert_eq!(keys.check(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert!(!format!("{keys:?}").contains("open"));
    }
}
