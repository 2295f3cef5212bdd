//! The catalog: names, metadata, places and statistics, in SQLite.
//!
//! Knows rows, not files of segments.

pub mod facets;
pub mod query;
pub mod rows;
pub mod schema;
pub mod words;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::LibraryError;
use schema::Use;

/// The catalog's file in the library's directory. SQLite puts `-wal` and `-shm` beside it.
pub const FILE: &str = "catalog.sqlite";

/// A few connections for reading, made when needed. None of them ever waits for a writer.
#[derive(Debug)]
pub struct Readers {
    file: PathBuf,
    purpose: Use,
    busy: Duration,
    cache_kib: u32,
    /// Connections kept for the next query.
    keep: usize,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Readers of the catalog in `dir`; looks at it once.
    ///
    /// # Errors
    /// The catalog cannot be opened or is not one.
    pub fn open(dir: &Path, busy: Duration, cache_kib: u32, keep: usize) -> Result<Self, LibraryError> {
        let readers =
            |purpose| Self { file: dir.join(FILE), purpose, busy, cache_kib, keep, idle: Mutex::new(Vec::new()) };
        let normal = readers(Use::Read);
        match normal.read(schema::version) {
            Ok(version) => normal.checked(dir, version),
            // A file system that cannot be written: SQLite cannot make its shared index. Without a log that somebody
            // may still be writing, the file is all there is.
            Err(LibraryError::Catalog(error))
                if is_frozen(&error)
                    && std::fs::metadata(dir.join(format!("{FILE}-wal"))).map_or(true, |m| m.len() == 0) =>
            {
                let frozen = readers(Use::ReadFrozen);
                let version = frozen.read(schema::version)?;
                frozen.checked(dir, version)
            }
            Err(error) => Err(error),
        }
    }

    fn checked(self, dir: &Path, version: u32) -> Result<Self, LibraryError> {
        match version {
            schema::FORMAT => Ok(self),
            0 => Err(LibraryError::damaged(&self.file, "it is not a catalog of a library")),
            newer => Err(LibraryError::Newer { dir: dir.to_owned(), found: newer.to_string(), known: schema::FORMAT }),
        }
    }

    /// Runs a query.
    pub fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, LibraryError>) -> Result<T, LibraryError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::connect(&self.file, self.purpose, self.busy, self.cache_kib)?,
        };
        let answer = query(&connection);
        if answer.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < self.keep {
                idle.push(connection);
            }
        }
        answer
    }

    /// Runs several queries that see one state.
    pub fn snapshot<T>(&self, queries: impl FnOnce(&Connection) -> Result<T, LibraryError>) -> Result<T, LibraryError> {
        self.read(|db| {
            let transaction = db.unchecked_transaction()?;
            let answer = queries(db)?;
            transaction.finish()?;
            Ok(answer)
        })
    }
}

/// Whether an error may come from a file system that cannot be written.
fn is_frozen(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
    matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly))
}
