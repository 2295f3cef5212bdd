//! The tables of the catalog, and how a connection to it is set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::super::LibraryError;

/// The version of the tables, and of the directory.
pub const FORMAT: u32 = 1;
/// What `file` shows of the catalog: "smoa".
const APPLICATION: u32 = 0x736d_6f61;

/// - `meta`: `generation` (counts the commits that changed adapters), `purged` (the generation of the last gc that
///   forgot removed adapters), `segment` (the last segment number given).
/// - `blob`: content, once each, and where it lies.
/// - `adapter`: names and metadata. `removed` is a time; removed ones stay until gc. `changed` is the generation of the
///   last change. `seal` is a check of the row.
/// - `facet`: a fact to filter by (`tag:law`, `attribute:region=eu`) with the number of adapters that have it; removed
///   ones have none. `facet_of` has them in the order of their names, so that any page of any filter is at hand.
/// - `words`: the full-text index, of adapters that are not removed.
/// - `usage`: statistics, by content.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES('generation', 0), ('purged', 0), ('segment', 0);
CREATE TABLE IF NOT EXISTS segment(id INTEGER PRIMARY KEY, length INTEGER NOT NULL, entries INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blob(
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE,
    segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS blob_place ON blob(segment, offset);
CREATE TABLE IF NOT EXISTS adapter(
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, blob INTEGER NOT NULL, added INTEGER NOT NULL,
    removed INTEGER, changed INTEGER NOT NULL, seal INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS adapter_name ON adapter(name) WHERE removed IS NULL;
CREATE INDEX IF NOT EXISTS adapter_removed ON adapter(name) WHERE removed IS NOT NULL;
CREATE INDEX IF NOT EXISTS adapter_changed ON adapter(changed);
CREATE INDEX IF NOT EXISTS adapter_blob ON adapter(blob);
CREATE TABLE IF NOT EXISTS facet(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, adapters INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facet_of(
    facet INTEGER NOT NULL, name TEXT NOT NULL, adapter INTEGER NOT NULL, PRIMARY KEY(facet, name)) WITHOUT ROWID;
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, content='', contentless_delete=1,
    tokenize='unicode61 remove_diacritics 2');
CREATE TABLE IF NOT EXISTS usage(
    digest BLOB PRIMARY KEY, uses INTEGER NOT NULL, successes INTEGER NOT NULL, latency_us INTEGER NOT NULL,
    last_used INTEGER NOT NULL) WITHOUT ROWID;
";

/// Makes the tables in a new or half-made catalog.
pub fn create(file: &Path) -> Result<(), LibraryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > FORMAT {
        return Err(LibraryError::damaged(file, format!("user_version {version} is newer than {FORMAT}")));
    }
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
    ))?;
    Ok(())
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Queries.
    Read,
    /// Queries on a file system that cannot be written, where nothing changes.
    ReadFrozen,
    /// Everything.
    Write,
}

/// Opens the catalog. `cache_kib` bounds the pages it keeps in memory.
pub fn connect(file: &Path, purpose: Use, busy: Duration, cache_kib: u32) -> Result<Connection, LibraryError> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match purpose {
        Use::Read => Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        Use::Write => Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_READ_WRITE)?,
        Use::ReadFrozen => {
            let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{}?immutable=1", escaped(file)), flags)?
        }
    };
    connection.busy_timeout(busy)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    connection.pragma_update(None, "trusted_schema", false)?;
    if purpose == Use::Write {
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    }
    connection.set_prepared_statement_cache_capacity(48);
    Ok(connection)
}

/// The version the catalog says it has. Also the first look at the file: a damaged one fails here.
pub fn version(connection: &Connection) -> Result<u32, LibraryError> {
    let application: u32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(if application == APPLICATION { version } else { 0 })
}

/// A path within a `file:` address.
fn escaped(file: &Path) -> String {
    let mut text = String::new();
    for byte in file.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
