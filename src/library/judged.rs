//! Requests whose answers were judged, kept where that was asked for: what a router can learn from.
//!
//! In a table of its own, made at the first write. Texts are people's, so they are kept only on request
//! (`--keep-judged`), cut, and the oldest go.

use rusqlite::params;

use super::catalog::rows::sql_number;
use super::feedback::there;
use super::writer::now;
use super::{Library, LibraryError};
use crate::adapter::AdapterDigest;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS judged(
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, digest BLOB NOT NULL, good INTEGER NOT NULL,
    text TEXT NOT NULL)";

/// Most requests kept; the oldest go.
pub const MOST: u64 = 20_000;
/// Most bytes kept of a text.
pub const TEXT: usize = 4_000;

/// A request whose answer was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The content that answered.
    pub digest: AdapterDigest,
    /// Whether the answer was called good.
    pub good: bool,
    /// What the router reads of the request.
    pub text: String,
}

impl Library {
    /// Keeps a request whose answer was judged. Does not change the [`generation`](Library::generation).
    ///
    /// # Errors
    /// [`LibraryError::Busy`] while another writer is at work; disk failures.
    pub fn keep_judged(&self, judged: &Judged) -> Result<(), LibraryError> {
        let text = judged.text.get(..judged.text.floor_char_boundary(TEXT)).unwrap_or_default();
        self.write_beside(self.options.busy_timeout, |db| {
            db.execute_batch(TABLE)?;
            let sql = "INSERT INTO judged(time, digest, good, text) VALUES(?1, ?2, ?3, ?4)";
            let digest = &judged.digest.as_bytes()[..];
            db.prepare_cached(sql)?.execute(params![now(), digest, judged.good, text])?;
            db.prepare_cached("DELETE FROM judged WHERE id <= (SELECT max(id) FROM judged) - ?1")?
                .execute([sql_number(MOST)])?;
            Ok(())
        })
    }

    /// What is kept, the oldest first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn judged(&self) -> Result<Vec<Judged>, LibraryError> {
        self.readers.read(|db| {
            if !there(db, "judged")? {
                return Ok(Vec::new());
            }
            let mut query = db.prepare_cached("SELECT digest, good, text FROM judged ORDER BY id")?;
            let rows = query.query_map([], |row| {
                Ok(Judged { digest: AdapterDigest::from_bytes(row.get(0)?), good: row.get(1)?, text: row.get(2)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Forgets all of it.
    ///
    /// # Errors
    /// As [`Library::keep_judged`].
    pub fn forget_judged(&self) -> Result<(), LibraryError> {
        self.write_beside(self.options.busy_timeout, |db| Ok(db.execute_batch("DROP TABLE IF EXISTS judged")?))
    }
}
