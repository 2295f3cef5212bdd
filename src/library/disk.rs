//! The few operations that change files, behind a trait, so that tests can make each of them fail or crash.
//!
//! Reading is not here: it changes nothing. The catalog's own writes are SQLite's; the two hooks around its commit let
//! a simulation stop the world there too.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// A disk, or a simulation of one.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// An empty file for writing, in place of any that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Makes `to` stand for what `from` stood for, atomically. Lasts once the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory last.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes a file's name away. Whoever has it mapped keeps the bytes.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The catalog is about to commit; an error makes it roll back.
    fn committing(&self) -> io::Result<()>;
}

/// A file being written. `write` may take less than it is given.
pub(super) trait DiskFile: Write + Send {
    /// Makes what was written last. After an error nobody knows what is on disk: do not try again.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Elsewhere directories cannot be opened; the file system orders names itself.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn committing(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
