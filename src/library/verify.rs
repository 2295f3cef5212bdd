//! Looking at every byte of a library.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::catalog::{self, rows};
use super::segment::{self, ALIGNMENT, Layout, RECORD, ROW, Row, SEAL};
use super::store::SEGMENTS;
use super::{Library, LibraryError};
use crate::adapter::AdapterDigest;

/// Problems told one by one; any more are counted.
const TOLD: usize = 100;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// What is in a library, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Adapters that are there.
    pub adapters: u64,
    /// Adapters that can be restored.
    pub removed: u64,
    /// Segments.
    pub segments: u64,
    /// Contents read and hashed, dead ones included.
    pub blobs: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// Files of an interrupted writer, or of one at work. Harmless; the next opening for writing sweeps them away.
    pub leftovers: u64,
    /// What is wrong, at most 100.
    pub problems: Vec<Problem>,
    /// What is wrong beyond that.
    pub more_problems: u64,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The place in it, and what is wrong there.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl VerifyReport {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    fn note(&mut self, file: &Path, what: impl Into<String>) {
        if self.problems.len() < TOLD {
            self.problems.push(Problem { file: file.to_owned(), what: what.into() });
        } else {
            self.more_problems += 1;
        }
    }
}

impl Library {
    /// Reads every row of the catalog and every byte of every segment, hashes all content, and compares. Takes as long
    /// as reading the files does, and next to no memory. Others may write meanwhile.
    ///
    /// # Errors
    /// Only what keeps it from looking at all; what is found damaged is in the report.
    pub fn verify(&self) -> Result<VerifyReport, LibraryError> {
        let mut report = VerifyReport::default();
        let file = self.dir.join(catalog::FILE);
        let looked = self.readers.snapshot(|db| {
            check_catalog(db, &file, &mut report)?;
            check_adapters(db, &file, &mut report)?;
            for (id, length, entries) in segments(db)? {
                self.check_segment(db, id, length, entries, &mut report)?;
            }
            check_strangers(db, &self.dir.join(SEGMENTS), &mut report)
        });
        match looked {
            Err(LibraryError::Catalog(error)) => report.note(&file, error.to_string()),
            other => other?,
        }
        Ok(report)
    }

    fn check_segment(
        &self,
        db: &Connection,
        id: u64,
        length: u64,
        entries: u64,
        report: &mut VerifyReport,
    ) -> Result<(), LibraryError> {
        let path = self.dir.join(SEGMENTS).join(segment::file_name(id));
        let table = match read_segment(&path, id, length, entries, report) {
            Ok(table) => table,
            Err(Unread::Gone) if self.was_swept(id)? => return Ok(()),
            Err(unread) => {
                let missing = "the file is missing".to_owned();
                report.note(&path, if let Unread::Wrong(what) = unread { what } else { missing });
                return Ok(());
            }
        };
        report.segments += 1;
        report.bytes += length;
        let mut query = db.prepare_cached("SELECT offset, length, digest FROM blob WHERE segment = ?1")?;
        let mut rows = query.query([rows::sql_number(id)])?;
        while let Some(row) = rows.next()? {
            let offset = row.get::<_, i64>(0)?.unsigned_abs();
            let length = row.get::<_, i64>(1)?.unsigned_abs();
            let digest: Vec<u8> = row.get(2)?;
            let there = table.binary_search_by_key(&offset, |row| row.offset).ok().and_then(|at| table.get(at));
            if !there.is_some_and(|there| there.length == length && there.digest.as_bytes()[..] == digest[..]) {
                report.note(&path, format!("record at byte {offset}: the catalog has other content there"));
            }
        }
        Ok(())
    }

    /// Whether the segment left the catalog while we were looking.
    fn was_swept(&self, id: u64) -> Result<bool, LibraryError> {
        let sql = "SELECT 1 FROM segment WHERE id = ?1";
        self.readers.read(|db| Ok(!db.prepare_cached(sql)?.exists([rows::sql_number(id)])?))
    }
}

fn segments(db: &Connection) -> Result<Vec<(u64, u64, u64)>, LibraryError> {
    let mut query = db.prepare("SELECT id, length, entries FROM segment ORDER BY id")?;
    let number = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    let rows = query.query_map([], |row| Ok((number(row, 0)?, number(row, 1)?, number(row, 2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// SQLite's own check, and the facts that tables tell twice.
fn check_catalog(db: &Connection, file: &Path, report: &mut VerifyReport) -> Result<(), LibraryError> {
    let checks = [
        "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
        "SELECT 'facet ' || text || ' is not that of ' || adapters || ' adapters' FROM facet f \
            WHERE adapters <> (SELECT count(*) FROM facet_of WHERE facet = f.id) LIMIT 20",
        "SELECT 'content at byte ' || offset || ' is in segment ' || segment || ', which is none' FROM blob b \
            WHERE NOT EXISTS(SELECT 1 FROM segment WHERE id = b.segment) LIMIT 20",
    ];
    for sql in checks {
        let mut query = db.prepare(sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            // SQLite tells all it found in one text of many lines, under a heading.
            let told = row.get::<_, String>(0)?;
            told.lines().filter(|line| !line.starts_with("***")).for_each(|line| report.note(file, line));
        }
    }
    Ok(())
}

/// Every row of an adapter against its check.
fn check_adapters(db: &Connection, file: &Path, report: &mut VerifyReport) -> Result<(), LibraryError> {
    let mut query = db.prepare(&format!("SELECT {} FROM adapter a {} ORDER BY a.id", rows::COLUMNS, rows::JOINED))?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        match rows::Raw::read(row).map_err(LibraryError::from).and_then(rows::Raw::check) {
            Ok(entry) if entry.removed.is_some() => report.removed += 1,
            Ok(_) => report.adapters += 1,
            Err(LibraryError::Damaged { what, .. }) => report.note(file, what),
            Err(error) => report.note(file, error.to_string()),
        }
    }
    Ok(())
}

/// Files in the folder of segments that are none.
fn check_strangers(db: &Connection, dir: &Path, report: &mut VerifyReport) -> Result<(), LibraryError> {
    let mut known = db.prepare_cached("SELECT 1 FROM segment WHERE id = ?1")?;
    for item in fs::read_dir(dir).map_err(LibraryError::disk("read", dir))? {
        let path = item.map_err(LibraryError::disk("read", dir))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match segment::id_of(&name) {
            Some(id) if known.exists([rows::sql_number(id)])? => {}
            Some(_) => report.leftovers += 1,
            None if segment::is_temporary(&name) => report.leftovers += 1,
            None if name.starts_with('.') => {}
            None => report.note(&path, "does not belong into a library"),
        }
    }
    Ok(())
}

/// Why a segment could not be read to its end.
enum Unread {
    Gone,
    Wrong(String),
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Gone,
            _ => Self::Wrong(error.to_string()),
        }
    }
}

impl From<String> for Unread {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

/// Reads a whole segment (not mapped, so that a file which shrinks is an error); its table.
fn read_segment(
    path: &Path,
    id: u64,
    length: u64,
    entries: u64,
    report: &mut VerifyReport,
) -> Result<Vec<Row>, Unread> {
    let mut file = File::open(path)?;
    let found = file.metadata()?.len();
    if found != length || length < ALIGNMENT + SEAL {
        return Err(Unread::Wrong(format!("it has {found} bytes, the catalog says {length}")));
    }
    let mut first = vec![0; ALIGNMENT as usize];
    let mut last = vec![0; SEAL as usize];
    file.read_exact(&mut first)?;
    file.seek(SeekFrom::Start(length - SEAL))?;
    file.read_exact(&mut last)?;
    let (header, zeros) = first.split_at(RECORD as usize);
    let layout = segment::check_ends(id, length, header, &last)?;
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(Unread::Wrong("header: is followed by other bytes than zeros".into()));
    }
    if layout.entries != entries {
        return Err(Unread::Wrong(format!("seal: {} records, the catalog says {entries}", layout.entries)));
    }
    // The table fits the file: checked with the seal. So this takes no more memory than the file has bytes.
    let mut table = vec![0; usize::try_from(layout.entries * ROW).map_err(|_| "table: is too long".to_owned())?];
    file.seek(SeekFrom::Start(layout.table))?;
    file.read_exact(&mut table)?;
    let rows = segment::read_table(&table, &layout)?;
    file.seek(SeekFrom::Start(ALIGNMENT))?;
    let mut reader = Reader { file: BufReader::with_capacity(CHUNK, file), position: ALIGNMENT, chunk: vec![0; CHUNK] };
    for row in &rows {
        // One damaged record does not hide the others, as long as the table tells where they are.
        if let Some(what) = reader.check_record(row, &layout)? {
            report.note(path, what);
        }
        report.blobs += 1;
    }
    if reader.position != layout.table {
        return Err(Unread::Wrong("table: the records do not fill the file".into()));
    }
    Ok(rows)
}

/// A segment read from front to back.
struct Reader {
    file: BufReader<File>,
    position: u64,
    chunk: Vec<u8>,
}

impl Reader {
    /// Reads one record, its content and the zeros after it. What is wrong with it, if anything; an error if the
    /// rest cannot be read.
    fn check_record(&mut self, row: &Row, layout: &Layout) -> Result<Option<String>, Unread> {
        let at = self.position;
        if row.offset != at {
            return Err(Unread::Wrong(format!("table: a record is at byte {}, not {at}", row.offset)));
        }
        let mut first = [0; RECORD as usize];
        self.file.read_exact(&mut first)?;
        let range = match segment::check_record(row, layout, &first) {
            Ok(range) => range,
            Err(what) => {
                let end = row.length.checked_add(at + RECORD).filter(|end| *end <= layout.table);
                let end = end.ok_or(what.clone())?.next_multiple_of(ALIGNMENT);
                self.file.seek(SeekFrom::Start(end))?;
                self.position = end;
                return Ok(Some(what));
            }
        };
        let mut hasher = blake3::Hasher::new();
        let mut left = range.end - range.start;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let part = self.chunk.get_mut(..step).unwrap_or_default();
            self.file.read_exact(part)?;
            hasher.update(part);
            left -= step as u64;
        }
        let end = range.end.next_multiple_of(ALIGNMENT);
        let padding = usize::try_from(end - range.end).unwrap_or(0);
        let zeros = self.chunk.get_mut(..padding).unwrap_or_default();
        self.file.read_exact(zeros)?;
        self.position = end;
        let found = AdapterDigest::from_bytes(*hasher.finalize().as_bytes());
        Ok(if found != row.digest {
            Some(format!("record at byte {at}: its content is {found}, not {}", row.digest))
        } else if zeros.iter().any(|byte| *byte != 0) {
            Some(format!("record at byte {at}: is followed by other bytes than zeros"))
        } else {
            None
        })
    }
}
