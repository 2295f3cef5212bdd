//! skeleton
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::adapter::AdapterDigest;

/// What a library is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looking up and pinning.
    Read,
    /// That, and changing. Opening locks nothing: any number of processes may open for writing, one writes at a time.
    Write,
}

/// What an addition does when the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Refuse.
    Refuse,
    /// Keep what is there and add nothing.
    KeepExisting,
    /// Remove what is there (it can be restored until gc) and add.
    Replace,
    /// Keep what is there if it has the same content, refuse otherwise.
    CompareDigest,
    /// Replace, if the name stands for this content now.
    ReplaceIf(AdapterDigest),
}

/// What an addition did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The adapter that the name stands for now.
    pub id: EntryId,
    /// Its content.
    pub digest: AdapterDigest,
    /// What happened.
    pub outcome: Outcome,
}

/// What became of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The name is new.
    New,
    /// What was there stayed.
    Kept,
    /// The name stood for this content before.
    Replaced(AdapterDigest),
}

/// An adapter library on disk.
pub struct Library;

impl Library {
    /// x
    pub fn create(dir: &Path) -> Result<Self, LibraryError> { let _ = dir; todo!() }
    /// x
    pub fn open(dir: &Path, access: Access) -> Result<Self, LibraryError> { let _ = (dir, access); todo!() }
    /// x
    pub fn open_or_create(dir: &Path) -> Result<Self, LibraryError> { let _ = dir; todo!() }
    /// x
    pub fn dir(&self) -> &Path { todo!() }
    /// x
    pub fn generation(&self) -> Result<u64, LibraryError> { todo!() }
    /// x
    pub fn find(&self, name: &AdapterName) -> Result<Entry, LibraryError> { let _ = name; todo!() }
    /// x
    pub fn find_digest(&self, digest: AdapterDigest) -> Result<Entry, LibraryError> { let _ = digest; todo!() }
    /// x
    pub fn list(&self, filter: &Filter, page: &Page) -> Result<Vec<Entry>, LibraryError> { let _ = (filter, page); todo!() }
    /// x
    pub fn count(&self, filter: &Filter) -> Result<u64, LibraryError> { let _ = filter; todo!() }
    /// x
    pub fn changes(&self, since: Cursor, limit: usize) -> Result<Changes, LibraryError> { let _ = (since, limit); todo!() }
    /// x
    pub fn suggest(&self, name: &str) -> Result<Vec<AdapterName>, LibraryError> { let _ = name; todo!() }
    /// x
    pub fn pin(&self, name: &AdapterName) -> Result<Pinned, LibraryError> { let _ = name; todo!() }
    /// x
    pub fn pin_digest(&self, digest: AdapterDigest) -> Result<Pinned, LibraryError> { let _ = digest; todo!() }
    /// x
    pub fn add(&self, name: &AdapterName, bytes: &[u8], metadata: &Metadata, on_conflict: OnConflict) -> Result<Added, LibraryError> { let _ = (name, bytes, metadata, on_conflict); todo!() }
    /// x
    pub fn writer(&self) -> Result<Writer<'_>, LibraryError> { todo!() }
    /// x
    pub fn rename(&self, from: &AdapterName, to: &AdapterName) -> Result<(), LibraryError> { let _ = (from, to); todo!() }
    /// x
    pub fn edit(&self, name: &AdapterName, change: impl FnOnce(&mut Card)) -> Result<Entry, LibraryError> { let _ = (name, change); todo!() }
    /// x
    pub fn remove(&self, name: &AdapterName) -> Result<(), LibraryError> { let _ = name; todo!() }
    /// x
    pub fn restore(&self, name: &AdapterName) -> Result<Entry, LibraryError> { let _ = name; todo!() }
    /// x
    pub fn gc(&self) -> Result<GcReport, LibraryError> { todo!() }
    /// x
    pub fn verify(&self) -> Result<VerifyReport, LibraryError> { todo!() }
    /// x
    pub fn record_use(&self, digest: AdapterDigest, success: bool, latency: Duration) { let _ = (digest, success, latency); }
    /// x
    pub fn flush_uses(&self) -> Result<(), LibraryError> { todo!() }
    /// x
    pub fn usage(&self, digest: AdapterDigest) -> Result<Usage, LibraryError> { let _ = digest; todo!() }
}

/// x
pub struct Writer<'l>(&'l Library);
impl Writer<'_> {
    /// x
    pub fn add(&mut self, name: &AdapterName, bytes: &[u8], metadata: &Metadata, on_conflict: OnConflict) -> Result<Added, LibraryError> { let _ = (name, bytes, metadata, on_conflict, self.0); todo!() }
    /// x
    pub fn remove(&mut self, name: &AdapterName) -> Result<(), LibraryError> { let _ = name; todo!() }
    /// x
    pub fn commit(self) -> Result<u64, LibraryError> { todo!() }
}

/// x
#[derive(Clone, Debug)]
pub struct Pinned;
impl Pinned {
    /// x
    pub fn digest(&self) -> AdapterDigest { todo!() }
    /// x
    pub fn entry(&self) -> &Entry { todo!() }
    /// x
    pub fn bytes(&self) -> &[u8] { todo!() }
}
/// x
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Removed adapters forgotten.
    pub adapters: u64,
    /// Bytes of segments given back.
    pub bytes_freed: u64,
}
/// x
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Adapters.
    pub adapters: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}
/// x
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Answers.
    pub uses: u64,
    /// Good ones.
    pub successes: u64,
    /// Summed time of answers.
    pub latency: Duration,
    /// Seconds since 1970.
    pub last_used: Option<u64>,
}
