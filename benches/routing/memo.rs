//! Vectors kept between runs of a bench.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use smoa::router::embed::Embedder;

/// Vectors of training texts, kept between runs: a slow embedder need not see them twice. Other texts are embedded
/// each time, so that times are what they are.
pub struct Memo {
    inner: Arc<dyn Embedder>,
    path: PathBuf,
    texts: HashSet<[u8; 32]>,
    known: Mutex<Known>,
}

/// Vectors by the digest of embedder and text, and how many of them the file holds.
type Known = (HashMap<[u8; 32], Vec<f32>>, usize);

impl Memo {
    /// Vectors by `inner`; those of `texts` are looked for in the file at `path`, and kept there.
    pub fn new(inner: Arc<dyn Embedder>, path: &Path, texts: impl Iterator<Item = String>) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        let row = 32 + 4 * inner.dim();
        let entry = |row: &[u8]| {
            let (key, vector) = row.split_at(32);
            let vector = vector.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            (<[u8; 32]>::try_from(key).expect("32 bytes"), vector)
        };
        let known: HashMap<_, _> = bytes.chunks_exact(row).map(entry).collect();
        let loaded = known.len();
        let mut memo = Self { inner, path: path.into(), texts: HashSet::new(), known: Mutex::new((known, loaded)) };
        memo.texts = texts.map(|text| memo.key(&text)).collect();
        memo
    }

    fn key(&self, text: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.inner.fingerprint()).update(text.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

impl Embedder for Memo {
    fn fingerprint(&self) -> [u8; 32] {
        self.inner.fingerprint()
    }

    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let key = self.key(text);
        if !self.texts.contains(&key) {
            return self.inner.embed(text);
        }
        let known = self.known.lock().expect("no panic").0.get(&key).cloned();
        known.unwrap_or_else(|| {
            let vector = self.inner.embed(text);
            self.known.lock().expect("no panic").0.insert(key, vector.clone());
            vector
        })
    }
}

impl Drop for Memo {
    fn drop(&mut self) {
        let Ok(known) = self.known.lock() else { return };
        if known.0.len() > known.1 {
            let row = |(key, vector): (&[u8; 32], &Vec<f32>)| -> Vec<u8> {
                key.iter().copied().chain(vector.iter().flat_map(|x| x.to_le_bytes())).collect()
            };
            let _ = std::fs::write(&self.path, known.0.iter().flat_map(row).collect::<Vec<u8>>());
        }
    }
}
