//! What can go wrong in a library, with the file, segment, field or name inside.

use std::io;
use std::path::PathBuf;

use super::{AdapterName, NameError};
use crate::adapter::AdapterDigest;
use crate::gguf::GgufError;

/// A refused or failed operation of a library. Displays as one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// The directory is not a library.
    #[error("'{}' is not an adapter library: {reason}", dir.display())]
    NotALibrary {
        /// The directory.
        dir: PathBuf,
        /// What is missing or in the way.
        reason: String,
    },
    /// Written by a newer program.
    #[error("'{}' has library format {found}, this program reads up to {known}; use a newer smoa", dir.display())]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// The format it says.
        found: String,
        /// The newest format this program reads.
        known: u32,
    },
    /// No adapter has this name.
    #[error("no adapter '{name}' in the library{}", or_near(near))]
    NotFound {
        /// The name.
        name: AdapterName,
        /// Names like it, nearest first.
        near: Vec<AdapterName>,
    },
    /// No adapter has this content.
    #[error("no adapter with digest {0} in the library")]
    NoDigest(AdapterDigest),
    /// The name is taken.
    #[error("adapter '{name}' is there already ({digest}); rename it, remove it, or replace it")]
    Exists {
        /// The name.
        name: AdapterName,
        /// The content it stands for now.
        digest: AdapterDigest,
    },
    /// The name is taken by other content than expected.
    #[error("adapter '{name}' is {found} now, not {expected}: someone changed it")]
    Changed {
        /// The name.
        name: AdapterName,
        /// What the caller thought.
        expected: AdapterDigest,
        /// What it is.
        found: AdapterDigest,
    },
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Content that is not a GGUF file.
    #[error("adapter '{name}': {source}")]
    NotGguf {
        /// The name it was to have.
        name: AdapterName,
        /// The field and the reason.
        source: GgufError,
    },
    /// A field of the metadata.
    #[error("{field}: {reason}")]
    Field {
        /// The field, as in a sidecar file.
        field: String,
        /// Why it is refused.
        reason: String,
    },
    /// The adapter was made for another base model.
    #[error("adapter '{name}' is for base model {adapter}, this one is {model}")]
    WrongBase {
        /// The adapter.
        name: AdapterName,
        /// The fingerprint it carries.
        adapter: String,
        /// The fingerprint of the model in use.
        model: String,
    },
    /// A file of the library is damaged.
    #[error("library file '{}': {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The field or place, and what is wrong with it.
        what: String,
    },
    /// Another process or thread is writing.
    #[error("another writer is at work in '{}'; try again", dir.display())]
    Busy {
        /// The library.
        dir: PathBuf,
    },
    /// Opened for reading only, or on a file system that is.
    #[error("the library '{}' is open for reading only", dir.display())]
    ReadOnly {
        /// The library.
        dir: PathBuf,
    },
    /// An earlier write failed in a way that leaves unknown what is on disk.
    #[error("an earlier write to '{}' failed ({cause}); nothing is written any more: open the library again", dir.display())]
    Poisoned {
        /// The library.
        dir: PathBuf,
        /// The failure, as it was reported.
        cause: String,
    },
    /// The file system refused an operation.
    #[error("{action} '{}': {source}", path.display())]
    Disk {
        /// What was tried: `write`, `fsync`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite refused an operation on the catalog.
    #[error("library catalog ({file}): {what}", file = super::catalog::FILE, what = in_one_line(.0))]
    Catalog(#[from] rusqlite::Error),
}

/// The classes that front ends tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such adapter or library.
    NotFound,
    /// A name, a field or a conflict that the caller can resolve.
    Usage,
    /// A file whose content is refused: damaged, newer, of another base, not GGUF.
    InvalidFile,
    /// Another writer; try again.
    Busy,
    /// The disk: full, failing, read-only.
    Disk,
}

impl LibraryError {
    /// Which class it belongs to.
    pub fn kind(&self) -> ErrorKind {
        use LibraryError as E;
        match self {
            E::NotALibrary { .. } | E::NotFound { .. } | E::NoDigest(_) => ErrorKind::NotFound,
            E::Exists { .. } | E::Changed { .. } | E::Name(_) | E::Field { .. } => ErrorKind::Usage,
            E::Newer { .. } | E::NotGguf { .. } | E::WrongBase { .. } | E::Damaged { .. } => ErrorKind::InvalidFile,
            E::Busy { .. } => ErrorKind::Busy,
            E::ReadOnly { .. } | E::Poisoned { .. } | E::Disk { .. } => ErrorKind::Disk,
            E::Catalog(source) => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                    ErrorKind::InvalidFile
                }
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => ErrorKind::Busy,
                _ => ErrorKind::Disk,
            },
        }
    }

    /// A disk error with its action and file.
    pub(super) fn disk(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { action, path, source }
    }

    /// A damaged file.
    pub(super) fn damaged(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), what: what.into() }
    }
}

/// What SQLite says. It quotes the schema it cannot read, line breaks and damaged bytes included.
fn in_one_line(error: &rusqlite::Error) -> String {
    let text = error.to_string();
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The end of "no adapter ..": names that may have been meant.
fn or_near(near: &[AdapterName]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean '{one}'?"),
        [rest @ .., last] => {
            let rest: Vec<String> = rest.iter().map(|name| format!("'{name}'")).collect();
            format!("; did you mean {} or '{last}'?", rest.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sqlite_quotes_stays_in_one_line() {
        let error =
            rusqlite::Error::InvalidColumnName("malformed database schema (blob) - \"(\n    id\u{1} INTEGER\"".into());
        let line = LibraryError::from(error).to_string();
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.contains("schema (blob)") && line.contains("INTEGER"), "{line:?}");
    }
}
