//! What was done to the library for its own good, so that it can be undone: which adapters went, which came.
//!
//! An entry is written in the transaction that does what it tells: either both are there after a crash, or neither is.
//! What went stays restorable until [`Library::gc`].

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::catalog::rows::{self, sql_number};
use super::feedback::there;
use super::writer::now;
use super::{Entry, EntryId, Library, LibraryError, Writer, limits};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS journal(
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, what TEXT NOT NULL, went TEXT NOT NULL,
    came TEXT NOT NULL, undone INTEGER NOT NULL)";

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Its number, from 1.
    pub id: u64,
    /// When, in seconds since 1970.
    pub time: u64,
    /// For people: one line.
    pub what: String,
    /// The entries that were removed.
    pub went: Vec<EntryId>,
    /// The entries that were added.
    pub came: Vec<EntryId>,
    /// Whether it was undone.
    pub undone: bool,
}

impl Writer<'_> {
    /// Notes what this transaction does, to be undone by [`Library::undo`]. The number of the note.
    ///
    /// # Errors
    /// Disk and catalog failures.
    pub fn note(&mut self, what: &str, went: &[EntryId], came: &[EntryId]) -> Result<u64, LibraryError> {
        let sql = "INSERT INTO journal(time, what, went, came, undone) VALUES(?1, ?2, ?3, ?4, 0)";
        self.step(|writer| {
            let db = writer.db()?;
            db.execute_batch(TABLE)?;
            db.prepare_cached(sql)?.execute(params![now(), what, listed(went), listed(came)])?;
            Ok(db.last_insert_rowid().unsigned_abs())
        })
    }

    /// Brings back the removed entry with this number, its name and all that was said of it included.
    ///
    /// # Errors
    /// [`LibraryError::Field`] when gc has forgotten it; [`LibraryError::Exists`] when its name is taken; disk and catalog
    /// failures.
    pub fn restore_entry(&mut self, id: EntryId) -> Result<Entry, LibraryError> {
        let entry = self.entry(id)?;
        let entry = entry.ok_or_else(|| limits::refuse("undo", "gc has forgotten what is to be brought back"))?;
        if entry.removed.is_none() {
            return Ok(entry);
        }
        self.restore_exactly(&entry)
    }
}

impl Library {
    /// What was done, the last first, at most `limit`.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn journal(&self, limit: usize) -> Result<Vec<Deed>, LibraryError> {
        self.readers.read(|db| {
            if !there(db, "journal")? {
                return Ok(Vec::new());
            }
            let mut query = db.prepare_cached(&format!("{SELECT} ORDER BY id DESC LIMIT ?1"))?;
            let rows = query.query_map([sql_number(limit as u64)], read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Undoes one thing that was done: what came is removed, what went is there again, bytes and words alike.
    ///
    /// # Errors
    /// [`LibraryError::Field`]: there is no such number, it was undone before, or gc has
    /// forgotten what went; [`LibraryError::Exists`]; disk and catalog failures. Nothing is changed then.
    pub fn undo(&self, id: u64) -> Result<Deed, LibraryError> {
        let mut writer = self.writer()?;
        let deed = find(writer.db()?, id)?.ok_or_else(|| limits::refuse("undo", format!("there is no number {id}")))?;
        if deed.undone {
            return Err(limits::refuse("undo", format!("number {id} was undone before")));
        }
        for came in &deed.came {
            match writer.entry(*came)? {
                Some(entry) if entry.removed.is_none() => drop(writer.remove(&entry.name)?),
                // Someone removed it already: the end is the same.
                Some(_) | None => (),
            }
        }
        for went in &deed.went {
            writer.restore_entry(*went)?;
        }
        writer.step(|writer| {
            writer.db()?.execute("UPDATE journal SET undone = 1 WHERE id = ?1", [sql_number(id)])?;
            Ok(())
        })?;
        writer.commit()?;
        Ok(Deed { undone: true, ..deed })
    }
}

impl Writer<'_> {
    fn entry(&self, id: EntryId) -> Result<Option<Entry>, LibraryError> {
        rows::one(self.db()?, "a.id = ?1", [id.0])
    }
}

const SELECT: &str = "SELECT id, time, what, went, came, undone FROM journal";

fn find(db: &Connection, id: u64) -> Result<Option<Deed>, LibraryError> {
    if !there(db, "journal")? {
        return Ok(None);
    }
    let mut query = db.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    Ok(query.query_row([sql_number(id)], read).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Deed> {
    let ids = |column| row.get::<_, String>(column).map(|text| unlisted(&text));
    Ok(Deed {
        id: row.get::<_, i64>(0)?.unsigned_abs(),
        time: row.get::<_, i64>(1)?.unsigned_abs(),
        what: row.get(2)?,
        went: ids(3)?,
        came: ids(4)?,
        undone: row.get(5)?,
    })
}

/// Numbers of entries as a text: `3 5 8`.
fn listed(ids: &[EntryId]) -> String {
    ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ")
}

fn unlisted(text: &str) -> Vec<EntryId> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).map(EntryId).collect()
}
