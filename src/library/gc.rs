//! Giving back what removed adapters took, and sweeping up after writers that were killed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::params;

use super::catalog::rows;
use super::segment::{self, RECORD};
use super::writer::Writer;
use super::{Library, LibraryError};
use crate::adapter::AdapterDigest;

/// A segment is small below this part of [`Options::segment_bytes`](super::Options); small ones are joined.
const SMALL: u64 = 4;

/// What a gc did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Removed adapters that cannot be restored any more.
    pub adapters: u64,
    /// Contents that nobody named any more.
    pub blobs: u64,
    /// Segments taken away; what lived in them was written anew.
    pub segments: u64,
    /// Bytes of segments before.
    pub bytes_before: u64,
    /// Bytes of segments after.
    pub bytes_after: u64,
}

/// Content that moves.
struct Blob {
    id: i64,
    digest: AdapterDigest,
    offset: u64,
    length: u64,
}

impl Library {
    /// Forgets removed adapters, writes what is left of half-empty and small segments anew, and takes the old ones
    /// away. Everything pinned stays readable; readers are not disturbed. What is moved is hashed, so damage is not
    /// copied. Wholly dead segments go first, in a commit of their own, so that a full disk gets room.
    ///
    /// # Errors
    /// As a [`Writer`]; [`LibraryError::Damaged`] naming the segment. What is not removed is as it was.
    pub fn gc(&self) -> Result<GcReport, LibraryError> {
        let mut report = GcReport { bytes_before: self.segment_bytes()?, ..GcReport::default() };
        self.collect(&mut report, |writer, report| {
            forget(writer, report)?;
            drop_dead(writer)
        })?;
        self.collect(&mut report, |writer, _| compact(writer))?;
        report.bytes_after = self.segment_bytes()?;
        self.sweep_states();
        Ok(report)
    }

    /// One transaction of a gc, after which the files that it names are taken away.
    fn collect(
        &self,
        report: &mut GcReport,
        act: impl FnOnce(&mut Writer<'_>, &mut GcReport) -> Result<Vec<PathBuf>, LibraryError>,
    ) -> Result<(), LibraryError> {
        let before = *report;
        let mut writer = self.writer()?;
        let old = writer.step(|writer| act(writer, report))?;
        if old.is_empty() && *report == before {
            return Ok(());
        }
        writer.commit()?;
        report.segments += old.len() as u64;
        for segment in old {
            // What cannot be taken away now is at the next opening.
            let _ = self.disk.remove(&segment);
        }
        Ok(())
    }

    /// Bytes of all segments.
    fn segment_bytes(&self) -> Result<u64, LibraryError> {
        self.readers.read(|db| {
            let sum: i64 = db.query_row("SELECT coalesce(sum(length), 0) FROM segment", [], |row| row.get(0))?;
            Ok(sum.unsigned_abs())
        })
    }

    /// Takes away files of writers that were killed, unless a writer is at work.
    pub(super) fn sweep(&self) -> Result<(), LibraryError> {
        let mut writer = match self.writer_within(Duration::ZERO) {
            Err(LibraryError::Busy { .. }) => return Ok(()),
            other => other?,
        };
        let leftovers = leftovers(&writer)?;
        let Some(highest) = leftovers.iter().map(|(id, _)| *id).max() else { return Ok(()) };
        // Their numbers are never given again, and this commit takes the place of any that may still lie, failed, in
        // SQLite's log and name them: only then they go.
        writer.last_segment = writer.last_segment.max(highest);
        writer.step(|_| Ok(()))?;
        writer.commit()?;
        for (_, file) in leftovers {
            let _ = self.disk.remove(&file);
        }
        Ok(())
    }
}

/// Files of segments that the catalog does not know, with their numbers. Only the holder of the lock may judge.
fn leftovers(writer: &Writer<'_>) -> Result<Vec<(u64, PathBuf)>, LibraryError> {
    let dir = writer.segments();
    let mut known = writer.db()?.prepare_cached("SELECT 1 FROM segment WHERE id = ?1")?;
    let mut found = Vec::new();
    for item in fs::read_dir(&dir).map_err(LibraryError::disk("read", &dir))? {
        let file = item.map_err(LibraryError::disk("read", &dir))?.path();
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if segment::is_temporary(&name) {
            let id = segment::id_of(name.trim_end_matches(".tmp"));
            found.extend(id.map(|id| (id, file)));
        } else if let Some(id) = segment::id_of(&name)
            && !known.exists([rows::sql_number(id)])?
        {
            found.push((id, file));
        }
    }
    Ok(found)
}

/// Removed adapters and content without an adapter leave the catalog.
fn forget(writer: &mut Writer<'_>, report: &mut GcReport) -> Result<(), LibraryError> {
    let db = writer.db()?;
    report.adapters = db.execute("DELETE FROM adapter WHERE removed IS NOT NULL", [])? as u64;
    if report.adapters > 0 {
        rows::set_meta(db, "purged", writer.generation.saturating_sub(1))?;
    }
    let unnamed = "DELETE FROM blob WHERE NOT EXISTS(SELECT 1 FROM adapter WHERE adapter.blob = blob.id)";
    report.blobs = db.execute(unnamed, [])? as u64;
    db.execute("DELETE FROM facet WHERE adapters <= 0", [])?;
    Ok(())
}

/// Segments without any content leave the catalog; their files.
fn drop_dead(writer: &mut Writer<'_>) -> Result<Vec<PathBuf>, LibraryError> {
    let sql = "DELETE FROM segment WHERE NOT EXISTS(SELECT 1 FROM blob WHERE blob.segment = segment.id) RETURNING id";
    let mut query = writer.db()?.prepare(sql)?;
    let dead = query.query_map([], |row| row.get::<_, i64>(0))?;
    let path = |id: i64| writer.segments().join(segment::file_name(id.unsigned_abs()));
    Ok(dead.map(|id| id.map(path)).collect::<Result<_, _>>()?)
}

/// Moves what lives in segments with dead or little content into new ones. The old files, to be taken away after the
/// commit.
fn compact(writer: &mut Writer<'_>) -> Result<Vec<PathBuf>, LibraryError> {
    let dir = writer.segments();
    let mut old = Vec::new();
    for id in worn(writer)? {
        let path = dir.join(segment::file_name(id));
        for blob in blobs(writer, id)? {
            let bytes = read(&path, &blob)?;
            let (segment, offset) = writer.append(blob.digest, &bytes)?;
            let sql = "UPDATE blob SET segment = ?2, offset = ?3 WHERE id = ?1";
            let place = params![blob.id, rows::sql_number(segment), rows::sql_number(offset)];
            writer.db()?.prepare_cached(sql)?.execute(place)?;
        }
        writer.db()?.execute("DELETE FROM segment WHERE id = ?1", [rows::sql_number(id)])?;
        old.push(path);
    }
    Ok(old)
}

/// The segments to be rewritten.
fn worn(writer: &Writer<'_>) -> Result<Vec<u64>, LibraryError> {
    let small = rows::sql_number(writer.library.options.segment_bytes / SMALL);
    let sql = "SELECT s.id, s.length < ?1, count(b.id) < s.entries FROM segment s \
        LEFT JOIN blob b ON b.segment = s.id GROUP BY s.id ORDER BY s.id";
    let mut query = writer.db()?.prepare(sql)?;
    let rows = query.query_map([small], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?)))?;
    let all: Vec<(i64, bool, bool)> = rows.collect::<Result<_, _>>()?;
    // One small segment alone gains nothing from being written again.
    let join = all.iter().filter(|(_, small, dead)| *small || *dead).count() > 1;
    let worn = all.into_iter().filter(|(_, small, dead)| *dead || (*small && join));
    Ok(worn.map(|(id, ..)| id.unsigned_abs()).collect())
}

fn blobs(writer: &Writer<'_>, segment: u64) -> Result<Vec<Blob>, LibraryError> {
    let sql = "SELECT id, digest, offset, length FROM blob WHERE segment = ?1 ORDER BY offset";
    let mut query = writer.db()?.prepare_cached(sql)?;
    let rows = query.query_map([rows::sql_number(segment)], |row| {
        Ok(Blob {
            id: row.get(0)?,
            digest: AdapterDigest::from_bytes(row.get(1)?),
            offset: row.get::<_, i64>(2)?.unsigned_abs(),
            length: row.get::<_, i64>(3)?.unsigned_abs(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Content read from a segment's file, hashed.
fn read(path: &Path, blob: &Blob) -> Result<Vec<u8>, LibraryError> {
    let failed = |source| LibraryError::disk("read", path)(source);
    let broken = |what: &str| LibraryError::damaged(path, format!("record at byte {}: {what}", blob.offset));
    let mut file = File::open(path).map_err(failed)?;
    let start = blob.offset.saturating_add(RECORD);
    let length = file.metadata().map_err(failed)?.len();
    if start.checked_add(blob.length).is_none_or(|end| end > length) {
        return Err(broken("lies outside the file"));
    }
    let mut bytes = vec![0; usize::try_from(blob.length).map_err(|_| broken("is too long for this machine"))?];
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    file.read_exact(&mut bytes).map_err(failed)?;
    match AdapterDigest::of(&bytes) {
        found if found == blob.digest => Ok(bytes),
        found => Err(broken(&format!("its content is {found}, not {}", blob.digest))),
    }
}
