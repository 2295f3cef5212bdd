//! The format of a segment file: a header, adapters one after the other, a table of them, a seal.
//!
//! ```text
//! 0            header   SMOAPACK, version, number of the segment, check        64 bytes, then zeros to 4096
//! k * 4096     record   BLOB, version, length, digest, check                    64 bytes
//!   + 64       the adapter's bytes, then zeros to the next multiple of 4096
//! t * 4096     table    offset, length, digest of every record                  48 bytes each
//! end - 96     seal     SMOASEAL, version, number of rows, offset of the table,
//!                       length of the file, number of the segment, digest of the table, check
//! ```
//!
//! Numbers are little endian. Each part carries its own check (BLAKE3), so a flipped byte is found where it is. A file
//! without a seal was never part of a library. Nothing is ever changed in a sealed file.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::LibraryError;
use super::disk::{Disk, DiskFile};
use crate::adapter::AdapterDigest;

/// Records and the table start at multiples of this, in bytes: no two adapters share a page of memory.
pub(super) const ALIGNMENT: u64 = 4096;
/// Bytes in front of an adapter. GGUF aligns tensors to 32 within a file, and so they stay aligned.
pub(super) const RECORD: u64 = 64;
/// Bytes of a row of the table.
pub(super) const ROW: u64 = 48;
/// Bytes of the seal.
pub(super) const SEAL: u64 = 96;
/// The only version so far.
const VERSION: u32 = 1;
/// Bytes gathered before they go to the file.
const BUFFER: usize = 1 << 20;

/// The file name of a segment.
pub(super) fn file_name(id: u64) -> String {
    format!("{id:08}.pack")
}

/// The number in a segment's file name.
pub(super) fn id_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".pack")?;
    let id = digits.parse().ok()?;
    (self::file_name(id) == file_name).then_some(id)
}

/// Whether a file name is that of an unfinished segment.
pub(super) fn is_temporary(file_name: &str) -> bool {
    file_name.strip_suffix(".tmp").is_some_and(|name| id_of(name).is_some())
}

/// Bytes that an adapter of `length` bytes takes in a segment, its row included.
pub(super) fn space(length: u64) -> u64 {
    RECORD.saturating_add(length).next_multiple_of(ALIGNMENT).saturating_add(ROW)
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub offset: u64,
    pub length: u64,
    pub digest: AdapterDigest,
}

/// A sealed segment that the catalog does not know yet.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub id: u64,
    pub path: PathBuf,
    /// Bytes of the file.
    pub length: u64,
    pub entries: u64,
}

/// A segment being written under a temporary name.
pub(super) struct SegmentWriter {
    id: u64,
    dir: PathBuf,
    temporary: PathBuf,
    file: BufWriter<Box<dyn DiskFile>>,
    position: u64,
    rows: Vec<Row>,
}

impl SegmentWriter {
    /// Starts segment `id` in `dir`.
    pub(super) fn start(disk: &dyn Disk, dir: &Path, id: u64) -> Result<Self, LibraryError> {
        let temporary = dir.join(format!("{}.tmp", file_name(id)));
        let file = disk.create(&temporary).map_err(LibraryError::disk("create", &temporary))?;
        let file = BufWriter::with_capacity(BUFFER, file);
        let mut writer = Self { id, dir: dir.to_owned(), temporary, file, position: 0, rows: Vec::new() };
        writer.put(&header(id))?;
        writer.pad()?;
        Ok(writer)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Bytes of the file if it were sealed now.
    pub(super) fn length(&self) -> u64 {
        self.position + self.rows.len() as u64 * ROW + SEAL
    }

    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Adds an adapter; its record's offset.
    pub(super) fn append(&mut self, digest: AdapterDigest, bytes: &[u8]) -> Result<u64, LibraryError> {
        let row = Row { offset: self.position, length: bytes.len() as u64, digest };
        self.put(&record(row.length, digest))?;
        self.put(bytes)?;
        self.pad()?;
        self.rows.push(row);
        Ok(row.offset)
    }

    /// Writes table and seal, makes the file last and gives it its name. The name lasts when the directory is synced.
    pub(super) fn seal(mut self, disk: &dyn Disk) -> Result<Sealed, LibraryError> {
        let rows = std::mem::take(&mut self.rows);
        let table: Vec<u8> = rows.iter().flat_map(row).collect();
        let (start, entries) = (self.position, rows.len() as u64);
        let length = start + table.len() as u64 + SEAL;
        self.put(&table)?;
        self.put(&seal(self.id, entries, start, length, &table))?;
        self.file.flush().map_err(LibraryError::disk("write", &self.temporary))?;
        self.file.get_mut().sync().map_err(LibraryError::disk("fsync", &self.temporary))?;
        let path = self.dir.join(file_name(self.id));
        disk.rename(&self.temporary, &path).map_err(LibraryError::disk("rename", &self.temporary))?;
        Ok(Sealed { id: self.id, path, length, entries })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), LibraryError> {
        self.file.write_all(bytes).map_err(LibraryError::disk("write", &self.temporary))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<(), LibraryError> {
        const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
        let short = self.position.next_multiple_of(ALIGNMENT) - self.position;
        let zeros = usize::try_from(short).ok().and_then(|short| ZEROS.get(..short));
        self.put(zeros.unwrap_or(&ZEROS))
    }
}

/// The first bytes of BLAKE3, as a check of a small part.
fn check<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut check = [0; N];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut check);
    check
}

fn with_check<const N: usize>(mut part: Vec<u8>) -> Vec<u8> {
    let check: [u8; N] = check(&part);
    part.extend_from_slice(&check);
    part
}

fn header(id: u64) -> Vec<u8> {
    let mut part = b"SMOAPACK".to_vec();
    part.extend_from_slice(&VERSION.to_le_bytes());
    part.extend_from_slice(&0_u32.to_le_bytes());
    part.extend_from_slice(&id.to_le_bytes());
    part.extend_from_slice(&0_u64.to_le_bytes());
    with_check::<32>(part)
}

fn record(length: u64, digest: AdapterDigest) -> Vec<u8> {
    let mut part = b"BLOB".to_vec();
    part.extend_from_slice(&VERSION.to_le_bytes());
    part.extend_from_slice(&length.to_le_bytes());
    part.extend_from_slice(digest.as_bytes());
    with_check::<16>(part)
}

fn row(row: &Row) -> Vec<u8> {
    [&row.offset.to_le_bytes()[..], &row.length.to_le_bytes(), row.digest.as_bytes()].concat()
}

fn seal(id: u64, entries: u64, start: u64, length: u64, table: &[u8]) -> Vec<u8> {
    let mut part = b"SMOASEAL".to_vec();
    part.extend_from_slice(&VERSION.to_le_bytes());
    part.extend_from_slice(&0_u32.to_le_bytes());
    for number in [entries, start, length, id] {
        part.extend_from_slice(&number.to_le_bytes());
    }
    part.extend_from_slice(blake3::hash(table).as_bytes());
    with_check::<16>(part)
}

/// What the seal of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub entries: u64,
    /// Where the table starts.
    pub table: u64,
    pub table_digest: [u8; 32],
}

/// Checks header and seal of segment `id`, given the first [`RECORD`] and the last [`SEAL`] bytes of a file of
/// `length` bytes. The reason if they are not sound.
pub(super) fn check_ends(id: u64, length: u64, first: &[u8], last: &[u8]) -> Result<Layout, String> {
    check_version(first, b"SMOAPACK", "header")?;
    if first != header(id) {
        return Err(format!("header: is damaged, or not that of segment {id}"));
    }
    check_version(last, b"SMOASEAL", "seal")?;
    let (Some(entries), Some(start), Some(table_digest)) = (number(last, 16), number(last, 24), bytes32(last, 48))
    else {
        return Err("seal: is cut short".into());
    };
    let (body, tail) = last.split_at_checked(80).ok_or("seal: is cut short")?;
    if check::<16>(body) != tail {
        return Err("seal: is damaged".into());
    }
    if number(last, 32) != Some(length) || number(last, 40) != Some(id) {
        return Err("seal: belongs to another file".into());
    }
    let end = entries.checked_mul(ROW).and_then(|size| start.checked_add(size)?.checked_add(SEAL));
    if end != Some(length) || start < ALIGNMENT || !start.is_multiple_of(ALIGNMENT) {
        return Err("seal: the table does not fit the file".into());
    }
    Ok(Layout { entries, table: start, table_digest })
}

/// Where the bytes of a record are, given its first [`RECORD`] bytes; the reason if it is not the one expected.
pub(super) fn check_record(row: &Row, layout: &Layout, first: &[u8]) -> Result<Range<u64>, String> {
    let at = row.offset;
    let start = at.checked_add(RECORD).ok_or_else(|| format!("record at byte {at}: lies outside"))?;
    let end = start.checked_add(row.length).filter(|end| *end <= layout.table);
    let Some(end) = end.filter(|_| at >= ALIGNMENT && at.is_multiple_of(ALIGNMENT)) else {
        return Err(format!("record at byte {at}: lies outside the records"));
    };
    if first != record(row.length, row.digest) {
        return Err(format!("record at byte {at}: its header is damaged, or of another adapter than {}", row.digest));
    }
    Ok(start..end)
}

/// The rows of a table, if its digest is the sealed one.
pub(super) fn read_table(table: &[u8], layout: &Layout) -> Result<Vec<Row>, String> {
    if *blake3::hash(table).as_bytes() != layout.table_digest {
        return Err("table: is damaged".into());
    }
    let row = |row: &[u8]| {
        let (offset, length, digest) = (number(row, 0)?, number(row, 8)?, bytes32(row, 16)?);
        Some(Row { offset, length, digest: AdapterDigest::from_bytes(digest) })
    };
    table.chunks_exact(ROW as usize).map(row).collect::<Option<_>>().ok_or_else(|| "table: is cut short".into())
}

fn check_version(part: &[u8], magic: &[u8; 8], what: &str) -> Result<(), String> {
    if part.get(..8) != Some(magic) {
        return Err(format!("{what}: is damaged, or the file is not a segment"));
    }
    match part.get(8..12).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes) {
        Some(VERSION) => Ok(()),
        Some(other) => Err(format!("{what}: version {other} is not known, this program reads {VERSION}")),
        None => Err(format!("{what}: is cut short")),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn bytes32(bytes: &[u8], at: usize) -> Option<[u8; 32]> {
    bytes.get(at..at.checked_add(32)?)?.try_into().ok()
}
