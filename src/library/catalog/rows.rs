//! Rows of the catalog as values, each with a check.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::entry::Place;
use super::super::{AdapterName, Entry, EntryId, LibraryError, Metadata};
use super::FILE;
use crate::adapter::AdapterDigest;

/// What [`Raw::read`] reads; `a`, `b` and `s` are adapter, blob and segment.
pub const COLUMNS: &str = "a.id, a.name, b.digest, b.length, b.segment, b.offset, s.length, a.added, a.removed, \
    a.metadata, a.seal";
/// The tables joined to `a` for [`COLUMNS`].
pub const JOINED: &str = "LEFT JOIN blob b ON b.id = a.blob LEFT JOIN segment s ON s.id = b.segment";

/// A row as it lies in the catalog, not checked yet.
pub struct Raw {
    id: i64,
    name: String,
    digest: Option<Vec<u8>>,
    /// Length, segment, offset, length of the segment.
    place: [Option<i64>; 4],
    added: i64,
    removed: Option<i64>,
    metadata: String,
    seal: i64,
}

impl Raw {
    /// Reads [`COLUMNS`].
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            digest: row.get(2)?,
            place: [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?],
            added: row.get(7)?,
            removed: row.get(8)?,
            metadata: row.get(9)?,
            seal: row.get(10)?,
        })
    }

    /// The row as an entry, if every field is sound and the check is right.
    pub fn check(self) -> Result<Entry, LibraryError> {
        let shown: String = self.name.chars().take(AdapterName::MAX).flat_map(char::escape_debug).collect();
        let broken = |what: &str| LibraryError::damaged(FILE, format!("row of adapter '{shown}': {what}"));
        let digest = self.digest.as_deref().and_then(|bytes| bytes.try_into().ok()).map(AdapterDigest::from_bytes);
        let digest = digest.ok_or_else(|| broken("it has no content"))?;
        if seal(&self.name, digest, self.added, self.removed, &self.metadata) != self.seal {
            return Err(broken("it is damaged"));
        }
        let [length, segment, offset, segment_length] =
            self.place.map(|number| number.and_then(|number| u64::try_from(number).ok()));
        let place = match (length, segment, offset, segment_length) {
            (Some(length), Some(segment), Some(offset), Some(segment_length)) => {
                Place { segment, segment_length, offset, length }
            }
            _ => return Err(broken("its content has no place")),
        };
        Ok(Entry {
            id: EntryId(self.id),
            name: AdapterName::new(self.name).map_err(|error| broken(&error.to_string()))?,
            digest,
            bytes: place.length,
            added: self.added.unsigned_abs(),
            removed: self.removed.map(i64::unsigned_abs),
            metadata: Metadata::from_json(&self.metadata).map_err(|what| broken(&what))?,
            place,
        })
    }
}

/// The check of a row: the first eight bytes of BLAKE3 over its fields.
pub fn seal(name: &str, digest: AdapterDigest, added: i64, removed: Option<i64>, metadata: &str) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&[0]).update(digest.as_bytes());
    hasher.update(&added.to_le_bytes()).update(&removed.unwrap_or(-1).to_le_bytes()).update(metadata.as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    i64::from_le_bytes(first)
}

/// The one adapter for which `condition` (on `a` and `b`) holds.
pub fn one(db: &Connection, condition: &str, with: impl rusqlite::Params) -> Result<Option<Entry>, LibraryError> {
    let sql = format!("SELECT {COLUMNS} FROM adapter a {JOINED} WHERE {condition} LIMIT 1");
    db.prepare_cached(&sql)?.query_row(with, Raw::read).optional()?.map(Raw::check).transpose()
}

/// The adapter that a name stands for.
pub fn by_name(db: &Connection, name: &AdapterName) -> Result<Option<Entry>, LibraryError> {
    one(db, "a.name = ?1 AND a.removed IS NULL", [name.as_str()])
}

/// An adapter with this content: the oldest that is there, or, if none is, the last that was removed.
pub fn by_digest(db: &Connection, digest: AdapterDigest) -> Result<Option<Entry>, LibraryError> {
    let condition = "a.blob = (SELECT id FROM blob WHERE digest = ?1) ORDER BY a.removed IS NOT NULL, a.id";
    one(db, condition, [&digest.as_bytes()[..]])
}

/// The adapter of this name that was removed last.
pub fn removed(db: &Connection, name: &AdapterName) -> Result<Option<Entry>, LibraryError> {
    one(db, "a.name = ?1 AND a.removed IS NOT NULL ORDER BY a.id DESC", [name.as_str()])
}

/// A number of the table `meta`.
pub fn meta(db: &Connection, key: &str) -> Result<u64, LibraryError> {
    let value: i64 = db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0))?;
    u64::try_from(value).map_err(|_| LibraryError::damaged(FILE, format!("meta '{key}' is {value}")))
}

/// Sets a number of the table `meta`.
pub fn set_meta(db: &Connection, key: &str, value: u64) -> Result<(), LibraryError> {
    db.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?.execute(params![key, sql_number(value)])?;
    Ok(())
}

/// A number as SQLite keeps it. Lengths and counts of this world fit; anything else becomes the largest.
pub fn sql_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
