//! Mapped segments, and adapters held by a request.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::Place;
use super::segment::{self, Layout, RECORD, Row, SEAL};
use super::{Entry, LibraryError};
use crate::adapter::AdapterDigest;
use crate::mapped::Mapped;

/// An adapter held: its bytes stay as they are for as long as this lives, whatever happens to the library. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct Pinned(Arc<Held>);

#[derive(Debug)]
struct Held {
    entry: Entry,
    segment: Arc<Segment>,
    range: Range<usize>,
}

impl Pinned {
    /// What the catalog said of it.
    pub fn entry(&self) -> &Entry {
        &self.0.entry
    }

    /// Its identity.
    pub fn digest(&self) -> AdapterDigest {
        self.0.entry.digest
    }

    /// Its bytes, mapped. They were checked when they were added; a disk may have damaged them since, see
    /// [`Pinned::check`].
    pub fn bytes(&self) -> &[u8] {
        self.0.segment.map.bytes().get(self.0.range.clone()).unwrap_or_default()
    }

    /// Tells the system that all the bytes will be read soon. A hint that costs a few microseconds.
    pub fn will_need(&self) {
        self.0.segment.map.will_need(self.0.range.clone());
    }

    /// Hashes the bytes and compares: about a millisecond for every 2 MB. For whoever is about to copy them.
    ///
    /// # Errors
    /// [`LibraryError::Damaged`], naming the segment.
    pub fn check(&self) -> Result<(), LibraryError> {
        self.will_need();
        let found = AdapterDigest::of(self.bytes());
        if found == self.digest() {
            return Ok(());
        }
        let what =
            format!("record at byte {}: its content is {found}, not {}", self.0.entry.place.offset, self.digest());
        Err(LibraryError::damaged(&self.0.segment.path, what))
    }
}

/// A sealed segment in memory.
#[derive(Debug)]
struct Segment {
    id: u64,
    path: PathBuf,
    map: Mapped,
    layout: Layout,
}

impl Segment {
    /// Maps a segment whose file has exactly `length` bytes.
    fn open(dir: &Path, id: u64, length: u64) -> Result<Self, PinError> {
        let path = dir.join(segment::file_name(id));
        check_length(&path, length)?;
        let map = Mapped::open(&path).map_err(|source| PinError::of(&path, source))?;
        // Adapters are found by name, so neighbours in a segment have nothing to do with each other.
        map.expect_random_access();
        let bytes = map.bytes();
        if bytes.len() as u64 != length {
            return Err(PinError::Other(wrong_length(&path, bytes.len() as u64, length)));
        }
        let first = bytes.first_chunk::<{ RECORD as usize }>().map(|part| &part[..]).unwrap_or_default();
        let last = bytes.last_chunk::<{ SEAL as usize }>().map(|part| &part[..]).unwrap_or_default();
        match segment::check_ends(id, length, first, last) {
            Ok(layout) => Ok(Self { id, path, map, layout }),
            Err(what) => Err(PinError::Other(LibraryError::damaged(path, what))),
        }
    }

    /// Where the bytes of a record are.
    fn range(&self, row: &Row) -> Result<Range<usize>, String> {
        let outside = || format!("record at byte {}: lies outside", row.offset);
        let at = usize::try_from(row.offset).map_err(|_| outside())?;
        let first = self.map.bytes().get(at..).and_then(|rest| rest.get(..RECORD as usize)).ok_or_else(outside)?;
        let range = segment::check_record(row, &self.layout, first)?;
        let narrow = |byte: u64| usize::try_from(byte).map_err(|_| outside());
        Ok(narrow(range.start)?..narrow(range.end)?)
    }
}

/// Why an adapter could not be pinned where the catalog said it was.
pub(super) enum PinError {
    /// The segment is gone: it was swept away after the catalog was asked. Ask again.
    Moved,
    /// Anything else.
    Other(LibraryError),
}

impl PinError {
    fn of(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Moved,
            _ => Self::Other(LibraryError::disk("open", path)(source)),
        }
    }
}

fn wrong_length(path: &Path, found: u64, expected: u64) -> LibraryError {
    LibraryError::damaged(path, format!("it has {found} bytes, the catalog says {expected}"))
}

/// A mapped file that became shorter would end the process when it is read, so the length is looked at first.
fn check_length(path: &Path, expected: u64) -> Result<(), PinError> {
    let found = fs::metadata(path).map_err(|source| PinError::of(path, source))?.len();
    if found == expected { Ok(()) } else { Err(PinError::Other(wrong_length(path, found, expected))) }
}

/// The segments mapped of late, at most so many. A pinned one stays mapped for as long as it is pinned.
#[derive(Debug)]
pub(super) struct Maps {
    dir: PathBuf,
    capacity: usize,
    /// The last used one is last.
    recent: Mutex<Vec<Arc<Segment>>>,
}

impl Maps {
    pub(super) fn new(dir: PathBuf, capacity: usize) -> Self {
        Self { dir, capacity: capacity.max(1), recent: Mutex::new(Vec::new()) }
    }

    /// Pins the adapter where its entry says it is.
    pub(super) fn pin(&self, entry: Entry) -> Result<Pinned, PinError> {
        let Place { segment, segment_length, offset, length } = entry.place;
        let segment = self.segment(segment, segment_length)?;
        let row = Row { offset, length, digest: entry.digest };
        let range = segment.range(&row).map_err(|what| PinError::Other(LibraryError::damaged(&segment.path, what)))?;
        Ok(Pinned(Arc::new(Held { entry, segment, range })))
    }

    fn segment(&self, id: u64, length: u64) -> Result<Arc<Segment>, PinError> {
        let known = {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            let at = recent.iter().rposition(|segment| segment.id == id);
            at.map(|at| {
                let segment = recent.remove(at);
                recent.push(segment.clone());
                segment
            })
        };
        if let Some(segment) = known {
            match check_length(&segment.path, length) {
                // Gone from the directory, but the bytes are still mapped.
                Ok(()) | Err(PinError::Moved) => return Ok(segment),
                Err(error) => {
                    self.forget(id);
                    return Err(error);
                }
            }
        }
        let segment = Arc::new(Segment::open(&self.dir, id, length)?);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push(segment.clone());
        if recent.len() > self.capacity {
            recent.remove(0);
        }
        Ok(segment)
    }

    /// Segments kept mapped.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn forget(&self, id: u64) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).retain(|segment| segment.id != id);
    }
}
