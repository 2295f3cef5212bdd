//! The routing index: vectors, words and attributes of up to millions of adapters, mapped from disk.
//!
//! It knows adapters by digest and files of its own; no engine, no request, no library catalog, no embedder beyond a
//! fingerprint. (Under construction: the types are final, the bodies are not there yet.)

mod error;
mod gate;
mod types;

pub use error::IndexError;
pub use gate::Gate;
pub use types::{Candidate, Change, IndexStats, Profile, Query};

use std::path::Path;

/// The most vectors one adapter may have.
pub const MAX_VECTORS: usize = 64;
/// The most dimensions a vector may have.
pub const MAX_DIM: usize = 384;

/// An index on disk. To be shared between threads as it is; other processes may read and write the same directory.
#[derive(Debug)]
pub struct Index {}

impl Index {
    /// Opens the index in `dir`, or makes an empty one.
    ///
    /// # Errors
    /// [`IndexError::EmbedderChanged`] if its vectors come from another embedder or have another dimension.
    pub fn open(dir: &Path, embedder: [u8; 32], dim: usize) -> Result<Index, IndexError> {
        todo!("{dir:?} {embedder:?} {dim}")
    }

    /// Takes changes in. When it returns they are on disk and seen by every search, of other processes too.
    ///
    /// # Errors
    /// A profile that cannot be taken in, or a disk that refuses; then none of the changes is visible.
    pub fn apply(&self, changes: &[Change<'_>]) -> Result<(), IndexError> {
        todo!("{}", changes.len())
    }

    /// The adapters nearest to a query, best [`Candidate::semantic`] first, equal ones by digest. The same for the
    /// same content and query.
    pub fn search(&self, query: &Query<'_>) -> Vec<Candidate> {
        todo!("{query:?}")
    }

    /// Whether so much was added that [`compact`](Self::compact) is worth its time.
    pub fn wants_compaction(&self) -> bool {
        todo!()
    }

    /// Seals what was added and merges segments. Takes up to minutes for a million adapters; searching goes on.
    ///
    /// # Errors
    /// A disk that refuses; the index stays as it was.
    pub fn compact(&self) -> Result<(), IndexError> {
        todo!()
    }

    /// Counts the changes; another number means another content.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// Adapters in it.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sizes.
    pub fn stats(&self) -> IndexStats {
        todo!()
    }
}
