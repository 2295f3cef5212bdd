//! What people say of answers, and which adapters are used together. Beside the counts of [`Usage`](super::Usage).
//!
//! Both have tables of their own, made at the first write, so that libraries of earlier programs stay as they are until
//! there is something to keep.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::catalog::rows::sql_number;
use super::{Library, LibraryError};
use crate::adapter::AdapterDigest;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS feedback(digest BLOB PRIMARY KEY, good INTEGER NOT NULL, bad INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS together(
    one BLOB NOT NULL, other BLOB NOT NULL, uses INTEGER NOT NULL, PRIMARY KEY(one, other)) WITHOUT ROWID;
";

/// What people said of the answers of an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// Answers called good.
    pub good: u64,
    /// Answers called bad.
    pub bad: u64,
}

impl Feedback {
    /// The share of good ones; none without any.
    pub fn rate(&self) -> Option<f64> {
        let all = self.good + self.bad;
        (all > 0).then(|| self.good as f64 / all as f64)
    }
}

/// Pairs of contents, the smaller digest first, with how often both took part in one answer.
pub(super) type Together = HashMap<(AdapterDigest, AdapterDigest), u64>;

impl Library {
    /// Notes what someone said of an answer, for each adapter that took part in it. Written at once: people are slow.
    /// Does not change the [`generation`](Library::generation).
    ///
    /// # Errors
    /// [`LibraryError::Busy`] while another writer is at work; disk failures.
    pub fn record_feedback(&self, digests: &[AdapterDigest], good: bool) -> Result<(), LibraryError> {
        self.write_beside(self.options.busy_timeout, |db| {
            let sql = "INSERT INTO feedback VALUES(?1, ?2, ?3) ON CONFLICT(digest) DO UPDATE SET \
                good = good + excluded.good, bad = bad + excluded.bad";
            db.execute_batch(TABLES)?;
            for digest in digests {
                db.prepare_cached(sql)?.execute(params![&digest.as_bytes()[..], i64::from(good), i64::from(!good)])?;
            }
            Ok(())
        })
    }

    /// What was said of this content's answers.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn feedback(&self, digest: AdapterDigest) -> Result<Feedback, LibraryError> {
        self.readers.read(|db| {
            if !there(db, "feedback")? {
                return Ok(Feedback::default());
            }
            let mut query = db.prepare_cached("SELECT good, bad FROM feedback WHERE digest = ?1")?;
            let read = |row: &rusqlite::Row<'_>| {
                let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                Ok(Feedback { good: number(0)?, bad: number(1)? })
            };
            Ok(query.query_row([&digest.as_bytes()[..]], read).optional()?.unwrap_or_default())
        })
    }

    /// The contents that took part in answers beside this one, the most frequent first, at most `limit`, as far as
    /// written.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn used_with(&self, digest: AdapterDigest, limit: usize) -> Result<Vec<(AdapterDigest, u64)>, LibraryError> {
        let sql = "SELECT other, uses FROM together WHERE one = ?1 UNION ALL SELECT one, uses FROM together \
            WHERE other = ?1 ORDER BY 2 DESC, 1 LIMIT ?2";
        self.readers.read(|db| {
            if !there(db, "together")? {
                return Ok(Vec::new());
            }
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map(params![&digest.as_bytes()[..], sql_number(limit as u64)], |row| {
                Ok((AdapterDigest::from_bytes(row.get(0)?), row.get::<_, i64>(1)?.unsigned_abs()))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Adds counts of pairs.
pub(super) fn add_together(db: &Connection, together: &Together) -> Result<(), LibraryError> {
    if together.is_empty() {
        return Ok(());
    }
    db.execute_batch(TABLES)?;
    let sql =
        "INSERT INTO together VALUES(?1, ?2, ?3) ON CONFLICT(one, other) DO UPDATE SET uses = uses + excluded.uses";
    let mut statement = db.prepare_cached(sql)?;
    for ((one, other), uses) in together {
        statement.execute(params![&one.as_bytes()[..], &other.as_bytes()[..], sql_number(*uses)])?;
    }
    Ok(())
}

/// Whether a table was made already.
pub(super) fn there(db: &Connection, table: &str) -> Result<bool, LibraryError> {
    Ok(db.prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1")?.exists([table])?)
}
