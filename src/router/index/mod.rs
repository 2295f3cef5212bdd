//! The routing index: vectors, words and attributes of up to millions of adapters, mapped from disk.
//!
//! ```text
//! MANIFEST          embedder, dimensions, generation, segments with their dead, the log      swapped by rename
//! NNNNNNNN.seg      adapters, sealed: see segment.rs                                          mapped
//! NNNNNNNN.log      changes since the last sealing, one checked record for each `apply`       appended to
//! WRITE, MERGE      locks
//! ```
//!
//! **Changes** go to the log, and from there into a small part in memory that is scanned: seen in about a millisecond,
//! nothing is rebuilt. What is too much for the log becomes a sealed segment that is scanned; [`Index::compact`] merges
//! segments and makes graphs. A removed adapter is marked dead until its segment is merged.
//!
//! **A search** takes the nearest vectors from each segment's graph (or scans, where few are behind the gate) and the
//! adapters that have the query's words from its postings, scores both exactly, and gives the best. The gate is a bitmap
//! made before, so that nothing it holds back is ever scored.
//!
//! **Crash safety.** Segment, log and manifest are written, fsynced and renamed in this order. A record that a killed
//! writer left half done does not fit its check, is never read and is cut off by the next writer.
//!
//! **Processes.** Any number may read, one at a time writes. A reader asks its log's length before each search; a log
//! without a name means that there is a new manifest.
//!
//! It knows adapters by digest and files of its own; no engine, no request, no library catalog, no embedder beyond a
//! fingerprint. Figures are in docs/routing-index.md.

mod admission;
mod bits;
mod bytes;
mod change;
mod draft;
mod error;
mod gate;
mod graph;
mod keywords;
mod log;
mod manifest;
mod quant;
mod rotation;
mod seal;
mod search;
mod segment;
mod state;
pub mod synthetic;
#[cfg(test)]
mod tests;
mod types;
mod words;

pub use error::IndexError;
pub use gate::Gate;
pub use types::{CLOSE, Candidate, Change, IndexStats, Profile, Query};

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::adapter::AdapterDigest;

use manifest::Manifest;
use search::Scratch;
use segment::Section;
use state::State;

/// The most vectors one adapter may have.
pub const MAX_VECTORS: usize = 256;
/// The most dimensions a vector may have.
pub const MAX_DIM: usize = 384;

/// Buffers kept for searches that run at the same time.
const MAX_IDLE: usize = 4;

/// An index on disk. To be shared between threads as it is; other processes may read and write the same directory.
#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    dim: usize,
    state: RwLock<State>,
    idle: Mutex<Vec<Scratch>>,
}

impl Index {
    /// Opens the index in `dir`, or makes an empty one.
    ///
    /// # Errors
    /// [`IndexError::EmbedderChanged`] if its vectors come from another embedder or have another dimension.
    pub fn open(dir: &Path, embedder: [u8; 32], dim: usize) -> Result<Index, IndexError> {
        if dim == 0 || dim > MAX_DIM {
            return Err(IndexError::Dimension { dim, most: MAX_DIM });
        }
        change::create(dir, embedder, dim)?;
        let known = Manifest::read(dir)?.is_some_and(|known| known.embedder == embedder && known.dim as usize == dim);
        if !known {
            return Err(IndexError::EmbedderChanged { dir: dir.to_owned() });
        }
        let state = State::load(dir)?;
        Ok(Self { dir: dir.to_owned(), dim, state: RwLock::new(state), idle: Mutex::default() })
    }

    /// Takes changes in, in order. When it returns they are on disk and seen by every search, of other processes too.
    /// More than about 4,000 vectors at once are sealed at once: that is how an index is filled, in parts of any size,
    /// with a [`compact`](Self::compact) at the end.
    ///
    /// # Errors
    /// A profile that cannot be taken in, or a disk that refuses; then none of the changes is visible.
    pub fn apply(&self, changes: &[Change<'_>]) -> Result<(), IndexError> {
        self.change(changes)
    }

    /// The adapters nearest to a query, best [`Candidate::semantic`] first, equal ones by digest. The same for the
    /// same files and query. If the disk refuses to say what is new, the answer is from what was known.
    pub fn search(&self, query: &Query<'_>) -> Vec<Candidate> {
        let _ = self.renew();
        let idle = |pool: &Mutex<Vec<Scratch>>| pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = idle(&self.idle).unwrap_or_default();
        let found = self.reading(|state| search::search(state, query, &mut scratch));
        let mut pool = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < MAX_IDLE {
            pool.push(scratch);
        }
        found
    }

    /// What a search would say of these adapters, whether or not they are among the best; `None` for one that is not here.
    /// The query's gate and limit are not looked at.
    pub fn look_up(&self, query: &Query<'_>, digests: &[AdapterDigest]) -> Vec<Option<Candidate>> {
        let _ = self.renew();
        self.reading(|state| search::look_up(state, query, digests))
    }

    /// Whether so much was added or removed that [`compact`](Self::compact) is worth its time.
    pub fn wants_compaction(&self) -> bool {
        self.reading(|state| !change::choose(&state.segments).is_empty())
    }

    /// Seals what was added, merges segments where that is worth it, and makes graphs. Takes up to minutes for a million
    /// adapters; searches and changes go on meanwhile.
    ///
    /// # Errors
    /// A disk that refuses; the index stays as it was.
    pub fn compact(&self) -> Result<(), IndexError> {
        self.merge()
    }

    /// Looks for changes by other processes, as every search does.
    ///
    /// # Errors
    /// A disk that refuses, damaged files; what was known stays.
    pub fn renew(&self) -> Result<(), IndexError> {
        if self.reading(|state| state.log.news()) == (false, true) {
            return Ok(());
        }
        self.state.write().unwrap_or_else(PoisonError::into_inner).refresh(&self.dir)
    }

    /// Counts the changes; another number means another content.
    pub fn generation(&self) -> u64 {
        self.reading(State::generation)
    }

    /// Adapters in it.
    pub fn len(&self) -> usize {
        self.reading(State::len)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an adapter is in it.
    pub fn contains(&self, digest: &crate::adapter::AdapterDigest) -> bool {
        let sealed = |open: &state::Open| open.segment.find(digest).is_some_and(|entry| !open.dead.has(entry));
        self.reading(|state| state.latest.contains_key(digest) || state.segments.iter().any(sealed))
    }

    /// Sizes.
    pub fn stats(&self) -> IndexStats {
        let idle: usize = self.idle.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Scratch::bytes).sum();
        self.reading(|state| {
            let mut stats = IndexStats {
                entries: state.len(),
                vectors: state.latest.values().map(|entry| state.tail.scales.get(*entry).len()).sum(),
                segments: state.segments.len(),
                tail_entries: state.latest.len(),
                file_bytes: state.log.end,
                anonymous_bytes: (idle + state.tail.bytes() + state.latest.capacity() * 40) as u64,
                ..IndexStats::default()
            };
            for open in &state.segments {
                let segment = &*open.segment;
                let bytes = |sections: &[Section]| sections.iter().map(|s| segment.bytes(*s).len() as u64).sum::<u64>();
                use Section::*;
                stats.vectors += segment.shape.vectors;
                stats.dead_entries += open.dead_count;
                stats.vector_bytes += bytes(&[Heads, Bodies, Scales]);
                stats.graph_bytes += bytes(&[Links]);
                stats.keyword_bytes += bytes(&[WordEnds, Words, PostingEnds, Postings, TextEnds, Texts]);
                stats.gate_bytes += bytes(&[FacetEnds, Facets, FacetLists, FacetBits]);
                stats.table_bytes += bytes(&[Axes, Digests, Firsts, Owners]);
                stats.file_bytes += segment.file_bytes();
                stats.anonymous_bytes += (open.dead.bytes() + segment.bytes(Axes).len()) as u64;
            }
            stats
        })
    }

    fn reading<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}
