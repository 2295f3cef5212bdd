//! The host tier: adapters held open, so that a request finds them checked and hashed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::cache::ByteLru;
use super::{AdapterDigest, AdapterError, AdapterFile, HeldBytes};
use crate::gguf::ModelFacts;
use crate::mapped::Identity;

/// The adapters opened so far: a file is checked and hashed once for as long as it does not change, and a content
/// is held once for each of its names. The host tier of adapters: what is not in use stays open, least recently used
/// first out, up to so many bytes of mapped files.
#[derive(Debug)]
pub struct OpenAdapters(Mutex<Tier>);

/// One content under one name: messages tell the name.
type Key = (PathBuf, AdapterDigest);

#[derive(Debug)]
struct Tier {
    /// What each path stood for when it was opened.
    paths: HashMap<PathBuf, (Identity, AdapterDigest)>,
    /// All that somebody holds, the tier or a request.
    known: HashMap<Key, Weak<AdapterFile>>,
    lru: ByteLru<Key>,
    /// Exactly what is in `lru`.
    held: HashMap<Key, Arc<AdapterFile>>,
    hits: u64,
    misses: u64,
}

/// What the host tier holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStatistics {
    /// Adapters held open.
    pub adapters: usize,
    /// Bytes of their files, mapped.
    pub bytes: u64,
    /// Requests for an adapter that was open.
    pub hits: u64,
    /// Requests for one that had to be opened, checked and hashed.
    pub misses: u64,
}

impl Default for OpenAdapters {
    fn default() -> Self {
        Self::with_capacity(Self::BYTES)
    }
}

impl OpenAdapters {
    /// Bytes held open unless chosen.
    pub const BYTES: u64 = 1 << 30;
    /// Most names remembered; beyond it those that nobody holds are forgotten.
    const CAPACITY: usize = 4096;

    /// Holds up to so many bytes open beyond what is in use.
    pub fn with_capacity(bytes: u64) -> Self {
        Self(Mutex::new(Tier {
            paths: HashMap::new(),
            known: HashMap::new(),
            lru: ByteLru::new(bytes),
            held: HashMap::new(),
            hits: 0,
            misses: 0,
        }))
    }

    /// The adapter at `path`, as its content is now. A file that was replaced is opened anew; requests that
    /// already hold the old one keep it.
    ///
    /// # Errors
    /// As [`AdapterFile::open`].
    pub fn file(&self, path: &Path, base: &ModelFacts) -> Result<Arc<AdapterFile>, AdapterError> {
        let now = Identity::of(path).map_err(|source| AdapterError::Open { path: path.to_owned(), source })?;
        {
            let mut tier = self.lock();
            match tier.paths.get(path).copied() {
                Some((then, digest)) if then == now => {
                    if let Some(known) = tier.find(&(path.to_owned(), digest)) {
                        return Ok(known);
                    }
                }
                Some((_, digest)) => tier.forget(&(path.to_owned(), digest)),
                None => {}
            }
        }
        // Replaced meanwhile: the older identity does not match at the next call, and the file is opened anew.
        let file = Arc::new(AdapterFile::open(path, base)?);
        let mut tier = self.lock();
        if tier.paths.len() >= Self::CAPACITY {
            tier.paths.clear();
        }
        tier.paths.insert(path.to_owned(), (now, file.digest()));
        tier.keep(&file);
        Ok(file)
    }

    /// The adapter with this content under this name, as it is held, or made from what `hold` gives.
    ///
    /// # Errors
    /// What `hold` answers, or as [`AdapterFile::new`].
    pub fn content<E: From<AdapterError>>(
        &self,
        name: &Path,
        digest: AdapterDigest,
        hold: impl FnOnce() -> Result<Box<dyn HeldBytes>, E>,
        base: &ModelFacts,
    ) -> Result<Arc<AdapterFile>, E> {
        if let Some(known) = self.lock().find(&(name.to_owned(), digest)) {
            return Ok(known);
        }
        let file = Arc::new(AdapterFile::new(name, hold()?, digest, base)?);
        self.lock().keep(&file);
        Ok(file)
    }

    /// Keeps an adapter open for as long as this lives, whatever else is used.
    pub fn pin(&self, file: &Arc<AdapterFile>) {
        let mut tier = self.lock();
        let key = file.key();
        let gone = tier.lru.insert_pinned(key.clone(), file.bytes().len() as u64);
        tier.held.insert(key, file.clone());
        gone.iter().for_each(|key| drop(tier.held.remove(key)));
    }

    /// What is held, and how often it was of use.
    pub fn statistics(&self) -> TierStatistics {
        let tier = self.lock();
        TierStatistics { adapters: tier.lru.len(), bytes: tier.lru.used(), hits: tier.hits, misses: tier.misses }
    }

    fn lock(&self) -> MutexGuard<'_, Tier> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tier {
    /// What is held under a key, as the last used.
    fn find(&mut self, key: &Key) -> Option<Arc<AdapterFile>> {
        let Some(known) = self.known.get(key).and_then(Weak::upgrade) else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        if !self.lru.touch(key) {
            // In use by a request after it had to go; its use brings it back.
            self.admit(&known);
        }
        Some(known)
    }

    fn keep(&mut self, file: &Arc<AdapterFile>) {
        if self.known.len() >= OpenAdapters::CAPACITY {
            self.known.retain(|_, known| known.strong_count() > 0);
        }
        self.known.insert(file.key(), Arc::downgrade(file));
        self.admit(file);
    }

    fn admit(&mut self, file: &Arc<AdapterFile>) {
        let key = file.key();
        let gone = self.lru.insert(key.clone(), file.bytes().len() as u64);
        self.held.insert(key, file.clone());
        gone.iter().for_each(|key| drop(self.held.remove(key)));
    }

    fn forget(&mut self, key: &Key) {
        self.lru.forget(key);
        self.held.remove(key);
        self.known.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgufWriter, TensorType, check_model};

    struct Bytes(Vec<u8>);

    impl HeldBytes for Bytes {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }

    fn base() -> ModelFacts {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/peft/base.gguf");
        check_model(&std::fs::read(path).expect("read")).expect("sound")
    }

    fn adapter(seed: f32) -> Vec<u8> {
        let mut file = GgufWriter::new();
        file.set("general.architecture", "llama").expect("set");
        file.set("general.type", "adapter").expect("set");
        file.set("adapter.type", "lora").expect("set");
        file.set("adapter.lora.alpha", 2.0_f32).expect("set");
        for (half, dims) in [("lora_a", [64, 2]), ("lora_b", [2, 64])] {
            let data = seed.to_le_bytes().repeat(128);
            file.tensor(&format!("blk.0.attn_q.weight.{half}"), TensorType::F32, &dims, data).expect("tensor");
        }
        file.to_bytes()
    }

    /// Asks for adapter `n` by name; whether it had to be opened.
    fn ask(open: &OpenAdapters, base: &ModelFacts, n: u8) -> (Arc<AdapterFile>, bool) {
        let bytes = adapter(f32::from(n));
        let (name, digest) = (format!("a{n}"), AdapterDigest::of(&bytes));
        let mut opened = false;
        let hold = || -> Result<Box<dyn HeldBytes>, AdapterError> {
            opened = true;
            Ok(Box::new(Bytes(bytes)))
        };
        let file = open.content(Path::new(&name), digest, hold, base).expect("opened");
        (file, opened)
    }

    #[test]
    fn what_was_used_last_stays_open_within_the_bytes() {
        let base = base();
        let size = adapter(1.0).len() as u64;
        let open = OpenAdapters::with_capacity(2 * size);
        let opened = |n| ask(&open, &base, n).1;
        assert!(opened(1) && opened(2) && !opened(1) && opened(3));
        assert!(!opened(1), "used after 2");
        assert!(opened(2), "the oldest had to go");
        let statistics = open.statistics();
        assert_eq!(statistics, TierStatistics { adapters: 2, bytes: 2 * size, hits: 2, misses: 4 });
    }

    #[test]
    fn what_is_in_use_is_found_even_after_it_had_to_go() {
        let base = base();
        let open = OpenAdapters::with_capacity(adapter(1.0).len() as u64);
        let (held, _) = ask(&open, &base, 1);
        assert!(ask(&open, &base, 2).1);
        let (again, opened) = ask(&open, &base, 1);
        assert!(!opened && Arc::ptr_eq(&held, &again));
        drop((held, again));
        assert!(!ask(&open, &base, 1).1, "its use brought it back");
    }

    #[test]
    fn pinned_ones_stay_whatever_else_comes() {
        let base = base();
        let open = OpenAdapters::with_capacity(0);
        open.pin(&ask(&open, &base, 1).0);
        assert!(ask(&open, &base, 2).1 && ask(&open, &base, 2).1, "without a cache nothing else stays");
        assert!(!ask(&open, &base, 1).1);
    }

    #[test]
    fn a_file_that_was_replaced_is_opened_anew() {
        let (base, dir) = (base(), tempfile::tempdir().expect("a directory"));
        let path = dir.path().join("a.gguf");
        let open = OpenAdapters::default();
        let put = |seed| {
            std::fs::write(dir.path().join("b"), adapter(seed)).expect("written");
            std::fs::rename(dir.path().join("b"), &path).expect("renamed");
        };
        put(1.0);
        let old = open.file(&path, &base).expect("opened");
        assert!(Arc::ptr_eq(&old, &open.file(&path, &base).expect("opened")));
        put(2.0);
        let new = open.file(&path, &base).expect("opened");
        assert_ne!(old.digest(), new.digest());
        assert_eq!(open.statistics().adapters, 1, "the old one is not kept");
    }
}
