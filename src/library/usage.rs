//! How often each adapter was used, and with what success. Gathered in memory, written now and then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::catalog::rows::sql_number;
use super::feedback::{Together, add_together};
use super::writer::{now, unsure};
use super::{Access, Library, LibraryError};
use crate::adapter::AdapterDigest;

/// Digests gathered before the next flush; uses of any more are not counted.
const MOST: usize = 1 << 16;
/// How long a library that is dropped waits to write what it gathered.
const LAST_WAIT: Duration = Duration::from_millis(100);

/// Statistics of one adapter, by content: they stay through renames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Answers it took part in.
    pub uses: u64,
    /// Those that were good, as told by the caller.
    pub successes: u64,
    /// Summed time of the answers.
    pub latency: Duration,
    /// The last use, in seconds since 1970; 0 if never used.
    pub last_used: u64,
}

impl Usage {
    fn add(&mut self, other: &Self) {
        self.uses += other.uses;
        self.successes += other.successes;
        self.latency = self.latency.saturating_add(other.latency);
        self.last_used = self.last_used.max(other.last_used);
    }
}

/// Uses that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<Gathered>);

/// Counts by content, and of pairs.
#[derive(Debug, Default)]
struct Gathered {
    single: HashMap<AdapterDigest, Usage>,
    together: Together,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, digest: AdapterDigest, usage: &Usage) {
        let uses = &mut self.lock().single;
        if uses.len() < MOST || uses.contains_key(&digest) {
            uses.entry(digest).or_default().add(usage);
        }
    }

    fn add_pair(&self, pair: (AdapterDigest, AdapterDigest), count: u64) {
        let pairs = &mut self.lock().together;
        if pairs.len() < MOST || pairs.contains_key(&pair) {
            *pairs.entry(pair).or_default() += count;
        }
    }
}

impl Library {
    /// Notes one answer with this adapter. No disk is touched: a few hundred nanoseconds.
    pub fn record_use(&self, digest: AdapterDigest, success: bool, latency: Duration) {
        let last_used = now().unsigned_abs();
        self.uses.add(digest, &Usage { uses: 1, successes: u64::from(success), latency, last_used });
    }

    /// Notes one answer in which these adapters took part together: each one's use, and each pair's.
    pub fn record_uses(&self, digests: &[AdapterDigest], success: bool, latency: Duration) {
        for (at, one) in digests.iter().enumerate() {
            self.record_use(*one, success, latency);
            for other in digests.iter().skip(at + 1).filter(|other| *other != one) {
                let smaller_first = one.as_bytes() <= other.as_bytes();
                self.uses.add_pair(if smaller_first { (*one, *other) } else { (*other, *one) }, 1);
            }
        }
    }

    /// Writes what was noted. To be called every few seconds by who records uses; also done when the library is
    /// dropped. Does not change the [`generation`](Library::generation).
    ///
    /// # Errors
    /// [`LibraryError::Busy`] while another writer is at work, and disk failures: nothing is lost, try later.
    pub fn flush_uses(&self) -> Result<(), LibraryError> {
        self.flush_uses_within(self.options.busy_timeout)
    }

    pub(super) fn flush_uses_within(&self, busy: Duration) -> Result<(), LibraryError> {
        let uses = std::mem::take(&mut *self.uses.lock());
        if uses.single.is_empty() {
            return Ok(());
        }
        let written = self.write_beside(busy, |db| {
            insert(db, &uses.single)?;
            add_together(db, &uses.together)
        });
        if written.is_err() {
            uses.single.iter().for_each(|(digest, usage)| self.uses.add(*digest, usage));
            uses.together.iter().for_each(|(pair, count)| self.uses.add_pair(*pair, *count));
        }
        written
    }

    /// A transaction that changes no adapter.
    pub(super) fn write_beside(
        &self,
        busy: Duration,
        act: impl FnOnce(&Connection) -> Result<(), LibraryError>,
    ) -> Result<(), LibraryError> {
        let mut connection = self.begin(busy)?;
        let Some(db) = connection.as_ref() else {
            return Err(LibraryError::ReadOnly { dir: self.dir.clone() });
        };
        let done = act(db).and_then(|()| Ok(db.execute_batch("COMMIT")?));
        if let Err(error) = &done {
            if unsure(error) {
                self.poison(error);
            }
            if !db.is_autocommit() && db.execute_batch("ROLLBACK").is_err() {
                *connection = None;
            }
        }
        done
    }

    /// What is known of the use of this content, the uses not written yet included.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn usage(&self, digest: AdapterDigest) -> Result<Usage, LibraryError> {
        let sql = "SELECT digest, uses, successes, latency_us, last_used FROM usage WHERE digest = ?1";
        let mut usage = self.readers.read(|db| {
            let mut query = db.prepare_cached(sql)?;
            Ok(query.query_row([&digest.as_bytes()[..]], |row| Ok(read(row)?.1)).optional()?)
        })?;
        let unwritten = self.uses.lock().single.get(&digest).copied().unwrap_or_default();
        usage.get_or_insert_default().add(&unwritten);
        Ok(usage.unwrap_or_default())
    }

    /// The most used contents, as far as written, at most `limit`.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn most_used(&self, limit: usize) -> Result<Vec<(AdapterDigest, Usage)>, LibraryError> {
        let sql =
            "SELECT digest, uses, successes, latency_us, last_used FROM usage ORDER BY uses DESC, digest LIMIT ?1";
        self.readers.read(|db| {
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map([sql_number(limit as u64)], read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if self.access == Access::Write {
            let _ = self.flush_uses_within(LAST_WAIT);
        }
    }
}

fn insert(db: &Connection, uses: &HashMap<AdapterDigest, Usage>) -> Result<(), LibraryError> {
    let sql = "INSERT INTO usage VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT(digest) DO UPDATE SET \
        uses = uses + excluded.uses, successes = successes + excluded.successes, \
        latency_us = latency_us + excluded.latency_us, last_used = max(last_used, excluded.last_used)";
    let mut statement = db.prepare_cached(sql)?;
    for (digest, usage) in uses {
        let latency = u64::try_from(usage.latency.as_micros()).unwrap_or(u64::MAX);
        let [uses, successes, latency, last] = [usage.uses, usage.successes, latency, usage.last_used].map(sql_number);
        statement.execute(params![&digest.as_bytes()[..], uses, successes, latency, last])?;
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<(AdapterDigest, Usage)> {
    let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
    let usage = Usage {
        uses: number(1)?,
        successes: number(2)?,
        latency: Duration::from_micros(number(3)?),
        last_used: number(4)?,
    };
    Ok((AdapterDigest::from_bytes(row.get(0)?), usage))
}
