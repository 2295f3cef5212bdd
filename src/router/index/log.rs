//! The log: changes since the last sealing, one record for each call of `apply`.
//!
//! ```text
//! 0      SMOAILOG, version, number of the log                                  20 bytes
//! ...    length, check (first 8 bytes of BLAKE3 of the body), body             12 bytes + length
//! ```
//!
//! A record that is cut short or does not fit its check ends the log: whoever wrote it did not finish. The next writer
//! cuts it off.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::bytes::{Reader, put_text};
use super::{Change, IndexError, Profile};
use crate::adapter::AdapterDigest;

const MAGIC: &[u8; 8] = b"SMOAILOG";
const VERSION: u32 = 1;
/// Bytes in front of the records.
pub(super) const START: u64 = 20;

/// The file name of a log.
pub(super) fn file_name(id: u64) -> String {
    format!("{id:08}.log")
}

/// One change, as it was logged.
#[derive(Debug)]
pub(super) enum Logged {
    Put(Owned),
    Remove(AdapterDigest),
}

/// A profile that owns what it holds.
#[derive(Debug)]
pub(super) struct Owned {
    pub digest: AdapterDigest,
    text: String,
    vectors: Vec<Vec<f32>>,
    attributes: Vec<(String, String)>,
    path: String,
}

impl Owned {
    pub fn profile(&self) -> Profile<'_> {
        let Self { digest, text, vectors, attributes, path } = self;
        Profile { digest: *digest, text, vectors, attributes, path }
    }
}

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Bytes up to the end of the last record read or written.
    pub end: u64,
    /// Length and time of the file when it was last looked at.
    looked: Option<(u64, SystemTime)>,
}

impl Log {
    /// Makes log `id` with these bodies in it, and makes them last.
    pub fn create(dir: &Path, id: u64, bodies: &[u8]) -> Result<(), IndexError> {
        let path = dir.join(file_name(id));
        let write = || {
            let mut file = File::create(&path)?;
            let mut all = MAGIC.to_vec();
            all.extend_from_slice(&VERSION.to_le_bytes());
            all.extend_from_slice(&id.to_le_bytes());
            all.extend_from_slice(bodies);
            file.write_all(&all)?;
            file.sync_all()
        };
        write().map_err(IndexError::disk("write", &path))
    }

    /// Opens log `id`.
    pub fn open(dir: &Path, id: u64) -> Result<Self, IndexError> {
        let path = dir.join(file_name(id));
        let writable = OpenOptions::new().read(true).write(true).open(&path);
        let file = writable.or_else(|_| File::open(&path)).map_err(IndexError::disk("open", &path))?;
        let mut log = Self { path, file, end: 0, looked: None };
        let front = log.read(START)?;
        let mut reader = Reader(&front);
        let sound = reader.take(8) == Some(MAGIC) && reader.u32() == Some(VERSION) && reader.u64() == Some(id);
        if !sound {
            return Err(IndexError::damaged(&log.path, "is not the log of this index, or of a later version"));
        }
        log.end = START;
        Ok(log)
    }

    /// What stands between [`end`](Self::end) and `until`.
    fn read(&mut self, until: u64) -> Result<Vec<u8>, IndexError> {
        let mut bytes = Vec::new();
        let seek = self.file.seek(SeekFrom::Start(self.end));
        let read = seek.and_then(|_| (&self.file).take(until.saturating_sub(self.end)).read_to_end(&mut bytes));
        read.map_err(IndexError::disk("read", &self.path))?;
        Ok(bytes)
    }

    /// Whether the file changed since it was last looked at, and whether the log still has a name: one that was replaced
    /// has none.
    pub fn news(&self) -> (bool, bool) {
        #[cfg(unix)]
        let named = |m: &std::fs::Metadata| std::os::unix::fs::MetadataExt::nlink(m) > 0;
        #[cfg(not(unix))]
        let named = |_: &std::fs::Metadata| self.path.exists();
        self.file.metadata().map_or((false, true), |m| (look(&m) != self.looked, named(&m)))
    }

    /// Reads the whole records behind [`end`](Self::end), each a list of changes, and moves there.
    pub fn read_on(&mut self) -> Result<Vec<Vec<Logged>>, IndexError> {
        self.looked = self.file.metadata().ok().as_ref().and_then(look);
        let bytes = self.read(u64::MAX)?;
        let (records, used) = parse(&bytes);
        self.end += used as u64;
        Ok(records)
    }

    /// The raw records from `from` to [`end`](Self::end).
    pub fn raw_since(&mut self, from: u64) -> Result<Vec<u8>, IndexError> {
        let end = std::mem::replace(&mut self.end, from);
        let bytes = self.read(end);
        self.end = end;
        bytes
    }

    /// Appends a record and makes it last. What an interrupted writer left behind [`end`](Self::end) is cut off first.
    pub fn append(&mut self, body: &[u8]) -> Result<(), IndexError> {
        let write = |file: &mut File| {
            file.set_len(self.end)?;
            file.seek(SeekFrom::Start(self.end))?;
            let record = record(body);
            let written = file.write_all(&record).and_then(|()| file.sync_data());
            if written.is_err() {
                let _ = file.set_len(self.end); // nobody may see a change that was not promised to last
            }
            written.map(|()| record.len() as u64)
        };
        let length = write(&mut self.file).map_err(IndexError::disk("append to", &self.path))?;
        self.end += length;
        self.looked = self.file.metadata().ok().as_ref().and_then(look);
        Ok(())
    }
}

fn look(metadata: &std::fs::Metadata) -> Option<(u64, SystemTime)> {
    Some((metadata.len(), metadata.modified().ok()?))
}

fn check(body: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    blake3::Hasher::new().update(body).finalize_xof().fill(&mut check);
    check
}

/// A record with this body.
fn record(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], &check(body), body].concat()
}

/// The whole records at the front, and how many bytes they are.
fn parse(bytes: &[u8]) -> (Vec<Vec<Logged>>, usize) {
    let (mut records, mut reader) = (Vec::new(), Reader(bytes));
    loop {
        let rest = reader.0.len();
        let body = (|| {
            let (length, sum) = (reader.u32()?, reader.array::<8>()?);
            let body = reader.take(length as usize)?;
            (check(body) == sum).then_some(body)
        })();
        match body.and_then(decode) {
            Some(changes) => records.push(changes),
            None => return (records, bytes.len() - rest),
        }
    }
}

/// The body of a record of these changes.
pub(super) fn encode(changes: &[Change<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, n: usize| out.extend_from_slice(&(n as u32).to_le_bytes());
    number(&mut out, changes.len());
    for change in changes {
        match change {
            Change::Remove(digest) => {
                out.push(0);
                out.extend_from_slice(digest.as_bytes());
            }
            Change::Put(profile) => {
                out.push(1);
                out.extend_from_slice(profile.digest.as_bytes());
                put_text(&mut out, profile.text);
                put_text(&mut out, profile.path);
                number(&mut out, profile.attributes.len());
                for (key, value) in profile.attributes {
                    put_text(&mut out, key);
                    put_text(&mut out, value);
                }
                number(&mut out, profile.vectors.len());
                for vector in profile.vectors {
                    number(&mut out, vector.len());
                    out.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
    }
    out
}

fn decode(body: &[u8]) -> Option<Vec<Logged>> {
    let mut reader = Reader(body);
    let count = reader.u32()?;
    (0..count).map(|_| decode_one(&mut reader)).collect()
}

fn decode_one(reader: &mut Reader<'_>) -> Option<Logged> {
    let kind = reader.u8()?;
    let digest = AdapterDigest::from_bytes(reader.array()?);
    if kind == 0 {
        return Some(Logged::Remove(digest));
    }
    let (text, path) = (reader.text()?.to_owned(), reader.text()?.to_owned());
    let count = reader.u32()?;
    let attributes =
        (0..count).map(|_| Some((reader.text()?.to_owned(), reader.text()?.to_owned()))).collect::<Option<_>>()?;
    let count = reader.u32()?;
    let mut vector = || (0..reader.u32()?).map(|_| reader.f32()).collect::<Option<Vec<f32>>>();
    let vectors = (0..count).map(|_| vector()).collect::<Option<_>>()?;
    Some(Logged::Put(Owned { digest, text, vectors, attributes, path }))
}
