//! The manifest: which segments and which log make up the index. Swapped by rename, with a check over all of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::IndexError;
use super::bytes::Reader;
use super::seal::sync_dir;

const FILE: &str = "MANIFEST";
const MAGIC: &[u8; 8] = b"SMOAIMAN";
const VERSION: u32 = 1;

/// What the index is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub embedder: [u8; 32],
    pub dim: u32,
    /// Changes before the log.
    pub generation: u64,
    pub log: u64,
    /// The number of the next file.
    pub next: u64,
    pub segments: Vec<Part>,
}

/// A segment, and the numbers of its adapters that were removed or replaced since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub id: u64,
    pub dead: Vec<u32>,
}

impl Manifest {
    /// Reads that of the index in `dir`; nothing if there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, IndexError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IndexError::disk("read", &path)(error)),
        };
        let (body, check) = bytes.split_at_checked(bytes.len().saturating_sub(32)).unwrap_or((&[], &[]));
        if blake3::hash(body).as_bytes() != check {
            return Err(IndexError::damaged(&path, "is damaged"));
        }
        Self::decode(body)
            .map(Some)
            .ok_or_else(|| IndexError::damaged(&path, "is of another version than this program reads"))
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.take(8)? != MAGIC || reader.u32()? != VERSION {
            return None;
        }
        let embedder = reader.array()?;
        let (dim, generation, log, next) = (reader.u32()?, reader.u64()?, reader.u64()?, reader.u64()?);
        let count = reader.u32()?;
        let mut part = || {
            let (id, count) = (reader.u64()?, reader.u32()?);
            Some(Part { id, dead: (0..count).map(|_| reader.u32()).collect::<Option<_>>()? })
        };
        let segments = (0..count).map(|_| part()).collect::<Option<_>>()?;
        Some(Self { embedder, dim, generation, log, next, segments })
    }

    /// Puts this in the place of what is there, and makes it last.
    pub fn write(&self, dir: &Path) -> Result<(), IndexError> {
        let mut out = MAGIC.to_vec();
        let number = |out: &mut Vec<u8>, n: usize| out.extend_from_slice(&(n as u32).to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.embedder);
        out.extend_from_slice(&self.dim.to_le_bytes());
        for long in [self.generation, self.log, self.next] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        number(&mut out, self.segments.len());
        for part in &self.segments {
            out.extend_from_slice(&part.id.to_le_bytes());
            number(&mut out, part.dead.len());
            out.extend(part.dead.iter().flat_map(|entry| entry.to_le_bytes()));
        }
        let check = blake3::hash(&out);
        out.extend_from_slice(check.as_bytes());
        let temporary = dir.join("MANIFEST.tmp");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&out)?;
            file.sync_all()?;
            fs::rename(&temporary, dir.join(FILE))
        };
        write().map_err(IndexError::disk("write", &temporary))?;
        sync_dir(dir)
    }
}
