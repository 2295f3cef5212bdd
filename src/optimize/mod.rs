//! A library that looks after itself: near duplicates found by what they change, merges accepted only when next-token
//! distributions hold, dead adapters named. Nothing here changes a library but [`apply`], and that can be undone.
//!
//! ```text
//! scan.rs    the library's low-rank adapters, and their sketches (kept in derived/sketches)
//! twins.rs   pairs whose exact cosine is above a bound; groups around the most used of them     pure but for reading
//! verdict.rs distributions -> divergence -> accepted or not                                     pure
//! prune.rs   use, success, age -> score -> which may go                                         pure
//! apply.rs   one transaction and one note of the journal for each group
//! ```

mod apply;
mod prune;
mod scan;
mod twins;
mod verdict;

pub use apply::{apply_merge, apply_prune};
pub use prune::{PruneRules, Standing, prune};
pub use scan::{Scan, scan};
pub use twins::{Group, Twin, group, twins};
pub use verdict::{Distribution, Judged, Limits, divergence, judge};

use crate::gguf::GgufError;
use crate::library::LibraryError;
use crate::merge::MergeError;

/// Why the library could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum OptimizeError {
    /// The library refused.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// An adapter cannot be read or merged.
    #[error("adapter '{name}': {source}")]
    Merge {
        /// Which.
        name: String,
        /// Why.
        source: MergeError,
    },
    /// A merged adapter that cannot be written.
    #[error("the merged adapter: {0}")]
    File(#[from] GgufError),
    /// The sketches cannot be kept.
    #[error("'{file}': {source}")]
    Disk {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests;
