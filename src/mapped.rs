//! A file mapped into memory, read-only: the one `unsafe` outside the llama folder.
//!
//! Knows nothing of what is in the file. Adapters and models are checked in mapped bytes before
//! llama.cpp sees them, so that the check costs no copy.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// A whole regular file, mapped read-only.
#[derive(Debug)]
pub struct Mapped {
    map: Option<memmap2::Mmap>,
    identity: Identity,
}

/// Which bytes a path stood for when it was opened: two equal identities are the same unmodified file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// Bytes.
    size: u64,
    /// Nanoseconds of the last change to the content, and to the inode.
    modified: i128,
    changed: i128,
}

impl Identity {
    /// The identity of what `path` points to now.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(&std::fs::metadata(path)?))
    }

    #[cfg(unix)]
    fn from_metadata(m: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let nanos = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
        Self {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            modified: nanos(m.mtime(), m.mtime_nsec()),
            changed: nanos(m.ctime(), m.ctime_nsec()),
        }
    }

    #[cfg(not(unix))]
    fn from_metadata(m: &Metadata) -> Self {
        let modified = m.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |d| d.as_nanos() as i128);
        Self { device: 0, inode: 0, size: m.len(), modified, changed: modified }
    }
}

impl Mapped {
    /// Maps the regular file at `path`.
    ///
    /// # Errors
    /// What opening gives; a directory, a FIFO or a device is `InvalidInput` and is never read
    /// (opening a FIFO would wait for a writer, so the kind is looked up first).
    pub fn open(path: &Path) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?;
        if !kind.is_file() {
            let what = if kind.is_dir() { "is a directory, not a file" } else { "is not a regular file" };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let identity = Identity::from_metadata(&metadata);
        if metadata.len() == 0 {
            return Ok(Self { map: None, identity });
        }
        Ok(Self { map: Some(map(&file)?), identity })
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// Tells the system that these bytes are about to be read, so that it fetches them in one go. A hint: nothing waits
    /// for it, and nothing fails.
    pub fn will_need(&self, range: std::ops::Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            let end = range.end.min(map.len());
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start.min(end), end.saturating_sub(range.start));
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Tells the system that reading one place does not mean that its neighbours come next, so that it fetches no more
    /// than is touched. A hint.
    pub fn expect_random_access(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            let _ = map.advise(memmap2::Advice::Random);
        }
    }

    /// Which file this was when it was opened.
    pub fn identity(&self) -> Identity {
        self.identity
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: the map is read-only and private to this process. Its bytes are only ever read as `u8`, any value
    // of which is valid, so a concurrent writer can make a check stale but not break memory safety of Rust types;
    // a concurrent truncation ends the process with SIGBUS, which the documentation says (replace adapter files by
    // rename, as every package manager does).
    unsafe { memmap2::Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_another_identity_and_the_old_bytes_stay() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        std::fs::write(&path, b"old").expect("written");
        let old = Mapped::open(&path).expect("mapped");
        std::fs::write(dir.path().join("b"), b"new").expect("written");
        std::fs::rename(dir.path().join("b"), &path).expect("renamed");
        assert_ne!(Identity::of(&path).expect("there"), old.identity());
        assert_eq!(old.bytes(), b"old");
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_without_reading() {
        for path in ["/", "/dev/zero"] {
            let error = Mapped::open(Path::new(path)).expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn hints_about_any_range_are_harmless() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), [7; 10_000]).expect("written");
        let map = Mapped::open(file.path()).expect("mapped");
        map.expect_random_access();
        for range in [0..10_000, 4_097..9_000, 0..0, 9_999..usize::MAX, 20_000..30_000] {
            map.will_need(range);
        }
        assert!(map.bytes().iter().all(|byte| *byte == 7));
    }

    #[test]
    fn an_empty_file_is_empty_bytes() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert_eq!(Mapped::open(file.path()).expect("opened").bytes(), b"");
    }
}
