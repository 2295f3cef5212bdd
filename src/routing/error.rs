//! What can go wrong when requests are routed.

use std::path::{Path, PathBuf};

use crate::library::LibraryError;
use crate::router::head::HeadError;
use crate::router::index::IndexError;

/// Why a library cannot be routed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// The library.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A file that routing keeps beside the index.
    #[error("routing: cannot {action} '{}': {source}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The trained router on disk.
    #[error("'{}': {source}", path.display())]
    Head {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: HeadError,
    },
    /// Weights and curves on disk that this program cannot use.
    #[error("'{}' is damaged or of another version of smoa; 'smoa adapter train-router' learns anew", path.display())]
    Tuning {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to learn from.
    #[error("{0}")]
    Training(String),
}

impl RoutingError {
    pub(super) fn disk(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Disk { action, path: path.to_owned(), source }
    }
}
