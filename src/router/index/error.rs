//! What can go wrong with the index.

use std::io;
use std::path::{Path, PathBuf};

/// An index that cannot be opened or changed. Nothing of a failed change is visible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The vectors in it come from another embedder.
    #[error(
        "the routing index in {} was made with another embedder; remove the folder and build it again with this one",
        dir.display()
    )]
    EmbedderChanged {
        /// Of the index.
        dir: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}; remove the folder of the routing index and build it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A profile that cannot be taken in.
    #[error("adapter {digest}: {reason}")]
    Profile {
        /// First digits of the digest.
        digest: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Too much for one index.
    #[error("a routing index holds at most {most} {what}, not {count}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
        /// The number asked for.
        count: usize,
    },
    /// Vectors too short or too long.
    #[error("a routing index holds vectors of 1 to {most} dimensions, not {dim}")]
    Dimension {
        /// The number asked for.
        dim: usize,
        /// The limit.
        most: usize,
    },
}

impl IndexError {
    pub(super) fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk { action, path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}
