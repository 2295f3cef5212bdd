//! A disk that fails, fills up or loses power at the operation of one's choice.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::disk::{Disk, DiskFile, RealDisk};

/// What the chosen operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full: half of a write is done.
    Full,
    /// An error of the device.
    Io,
    /// Power is lost: this and all later operations fail, and what was not synced is lost at [`Faulty::lose`].
    Crash,
}

/// What became of the data that was not synced when power was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost: names too.
    Everything,
    /// Names are there, data is not: the files have their length, but hold zeros.
    Zeros,
    /// Names are there; of the data, all but the last 512 bytes.
    Torn,
    /// Nothing is lost: the program alone was killed.
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    /// Operations so far.
    done: u64,
    fault: Option<(u64, Fault)>,
    crashed: bool,
    /// Files written in this life: bytes synced.
    synced: BTreeMap<PathBuf, u64>,
    /// Names given or taken since the directory was synced, oldest first.
    names: Vec<Name>,
}

#[derive(Debug)]
enum Name {
    Created(PathBuf),
    Renamed(PathBuf, PathBuf),
    /// The content, to bring it back.
    Removed(PathBuf, Vec<u8>),
}

/// The file system, with faults.
#[derive(Clone, Debug, Default)]
pub struct Faulty(Arc<Mutex<State>>);

impl Faulty {
    /// A disk whose operation number `at` (from 0) has a fault.
    pub fn at(at: u64, fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(State { fault: Some((at, fault)), ..State::default() })))
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().expect("not poisoned").done
    }

    /// Whether power was lost.
    pub fn crashed(&self) -> bool {
        self.0.lock().expect("not poisoned").crashed
    }

    /// Counts an operation; its fault, if it is the chosen one.
    fn operate(&self) -> Result<(), (Fault, io::Error)> {
        let mut state = self.0.lock().expect("not poisoned");
        if state.crashed {
            return Err((Fault::Crash, io::Error::other("power is lost")));
        }
        let number = state.done;
        state.done += 1;
        match state.fault {
            Some((at, fault)) if at == number => Err((
                fault,
                match fault {
                    Fault::Full => io::Error::from(io::ErrorKind::StorageFull),
                    Fault::Io => io::Error::other("input/output error"),
                    Fault::Crash => {
                        state.crashed = true;
                        io::Error::other("power is lost")
                    }
                },
            )),
            _ => Ok(()),
        }
    }

    /// Does to the files what the loss of power does.
    pub fn lose(&self, loss: Loss) {
        let state = self.0.lock().expect("not poisoned");
        if loss == Loss::Nothing {
            return;
        }
        for (path, synced) in &state.synced {
            let Ok(bytes) = fs::read(path) else { continue };
            let synced = (*synced).min(bytes.len() as u64) as usize;
            let mut kept = bytes.clone();
            match loss {
                Loss::Everything => kept.truncate(synced),
                Loss::Zeros => kept[synced..].fill(0),
                Loss::Torn => kept.truncate(synced.max(bytes.len().saturating_sub(512))),
                Loss::Nothing => {}
            }
            fs::write(path, kept).expect("written");
        }
        if loss != Loss::Everything {
            return;
        }
        for name in state.names.iter().rev() {
            match name {
                Name::Created(path) => drop(fs::remove_file(path)),
                Name::Renamed(from, to) => drop(fs::rename(to, from)),
                Name::Removed(path, bytes) => fs::write(path, bytes).expect("written"),
            }
        }
    }
}

fn plain<T>(failed: (Fault, io::Error)) -> io::Result<T> {
    Err(failed.1)
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.operate().or_else(plain)?;
        let file = RealDisk.create(path)?;
        let mut state = self.0.lock().expect("not poisoned");
        state.synced.insert(path.to_owned(), 0);
        state.names.push(Name::Created(path.to_owned()));
        Ok(Box::new(FaultyFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate().or_else(plain)?;
        RealDisk.rename(from, to)?;
        let mut state = self.0.lock().expect("not poisoned");
        let synced = state.synced.remove(from).unwrap_or(0);
        state.synced.insert(to.to_owned(), synced);
        state.names.push(Name::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate().or_else(plain)?;
        let mut state = self.0.lock().expect("not poisoned");
        state.names.retain(|name| {
            let (Name::Created(path) | Name::Renamed(path, _) | Name::Removed(path, _)) = name;
            path.parent() != Some(dir)
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate().or_else(plain)?;
        let bytes = fs::read(path).unwrap_or_default();
        RealDisk.remove(path)?;
        let mut state = self.0.lock().expect("not poisoned");
        state.synced.remove(path);
        state.names.push(Name::Removed(path.to_owned(), bytes));
        Ok(())
    }

    fn committing(&self) -> io::Result<()> {
        self.operate().or_else(plain)
    }
}

struct FaultyFile {
    disk: Faulty,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not much at a time, so that there are many operations to fail.
        let bytes = &bytes[..bytes.len().min(8192)];
        match self.disk.operate() {
            Ok(()) => self.file.write(bytes),
            Err((Fault::Full | Fault::Crash, error)) => {
                let _ = self.file.write(&bytes[..bytes.len() / 2]);
                Err(error)
            }
            Err((Fault::Io, error)) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl DiskFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.operate().or_else(plain)?;
        let length = fs::metadata(&self.path)?.len();
        self.disk.0.lock().expect("not poisoned").synced.insert(self.path.clone(), length);
        Ok(())
    }
}
