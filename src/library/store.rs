//! The library: opening, looking up, pinning.

use std::fs;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::catalog::{self, Readers, facets, query, rows, schema};
use super::disk::{Disk, RealDisk};
use super::pin::{Maps, PinError};
use super::usage::Uses;
use super::{AdapterName, Changes, Cursor, Entry, Filter, LibraryError, Page, Pinned, suggest};
use crate::adapter::AdapterDigest;

/// The file that says what the directory is.
pub(super) const FORMAT_FILE: &str = "FORMAT";
/// Where segments are.
pub(super) const SEGMENTS: &str = "segments";
/// What other parts of the program derive from the library and can make again.
const DERIVED: &str = "derived";

/// What a library is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looking up and pinning.
    Read,
    /// That, and changing. Opening locks nothing: any number of processes may open for writing; one writes at a time.
    Write,
}

/// Settings of an open library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long to wait for another writer. Default: 5 s.
    pub busy_timeout: Duration,
    /// Segments kept mapped while nobody pins them. Costs address space, no memory. Default: 64.
    pub mapped_segments: usize,
    /// Bytes at which a segment is sealed and the next begun. Default: 256 MiB.
    pub segment_bytes: u64,
    /// Memory in KiB for the catalog's pages in each of at most four reading connections. Default: 1024.
    pub cache_kib: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), mapped_segments: 64, segment_bytes: 256 << 20, cache_kib: 1024 }
    }
}

/// Reading connections kept.
const READERS: usize = 4;
/// Look-ups that are forgiven for naming a segment that was swept away between a look-up and a mapping.
const ATTEMPTS: usize = 4;

/// An adapter library on disk. To be shared between threads as it is.
#[derive(Debug)]
pub struct Library {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) access: Access,
    pub(super) disk: Box<dyn Disk>,
    pub(super) readers: Readers,
    pub(super) maps: Maps,
    /// The one connection that writes, made at the first write.
    pub(super) writing: Mutex<Option<rusqlite::Connection>>,
    /// The failure after which nothing is written any more.
    pub(super) poison: Mutex<Option<String>>,
    pub(super) uses: Uses,
}

impl Library {
    /// Makes an empty library in `dir`, which must be empty or not there, and opens it for writing. Finishes what an
    /// interrupted creation began; a library that is there already is opened.
    ///
    /// # Errors
    /// Other things are in the directory; the disk refuses.
    pub fn create(dir: &Path) -> Result<Self, LibraryError> {
        Self::create_with(dir, Options::default())
    }

    /// [`Library::create`] with settings.
    ///
    /// # Errors
    /// As [`Library::create`].
    pub fn create_with(dir: &Path, options: Options) -> Result<Self, LibraryError> {
        create_on(&RealDisk, dir)?;
        Self::open_with(dir, Access::Write, options)
    }

    /// Opens the library in `dir`, in a time that does not depend on how many adapters it has. For writing, what
    /// interrupted writers left behind is swept away.
    ///
    /// # Errors
    /// Not a library, a newer one, a damaged one, one with things in it that do not belong there.
    pub fn open(dir: &Path, access: Access) -> Result<Self, LibraryError> {
        Self::open_with(dir, access, Options::default())
    }

    /// [`Library::open`] with settings.
    ///
    /// # Errors
    /// As [`Library::open`].
    pub fn open_with(dir: &Path, access: Access, options: Options) -> Result<Self, LibraryError> {
        Self::open_on(Box::new(RealDisk), dir, access, options)
    }

    pub(super) fn open_on(
        disk: Box<dyn Disk>,
        dir: &Path,
        access: Access,
        options: Options,
    ) -> Result<Self, LibraryError> {
        check_directory(dir)?;
        let library = Self {
            readers: Readers::open(dir, options.busy_timeout, options.cache_kib, READERS)?,
            maps: Maps::new(dir.join(SEGMENTS), options.mapped_segments),
            dir: dir.to_owned(),
            options,
            access,
            disk,
            writing: Mutex::new(None),
            poison: Mutex::new(None),
            uses: Uses::default(),
        };
        if access == Access::Write {
            library.sweep()?;
        }
        Ok(library)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where others keep what they derive from the library and can make again.
    pub fn derived(&self) -> PathBuf {
        self.dir.join(DERIVED)
    }

    /// What it was opened for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Counts the commits that changed adapters (statistics do not count): as long as it is the same, so is every
    /// answer of this library. Costs a few microseconds; sees other processes.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn generation(&self) -> Result<u64, LibraryError> {
        self.readers.read(|db| rows::meta(db, "generation"))
    }

    /// The adapter that a name stands for.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] with names like it; a damaged catalog.
    pub fn find(&self, name: &AdapterName) -> Result<Entry, LibraryError> {
        self.readers.read(|db| rows::by_name(db, name))?.ok_or_else(|| self.not_found(name))
    }

    /// An adapter with this content: the one added first, or a removed one if no other is left.
    ///
    /// # Errors
    /// [`LibraryError::NoDigest`]; a damaged catalog.
    pub fn find_digest(&self, digest: AdapterDigest) -> Result<Entry, LibraryError> {
        self.readers.read(|db| rows::by_digest(db, digest))?.ok_or(LibraryError::NoDigest(digest))
    }

    /// One page of the adapters that a filter wants, in the order of their names.
    ///
    /// # Errors
    /// A damaged catalog.
    pub fn list(&self, filter: &Filter, page: &Page) -> Result<Vec<Entry>, LibraryError> {
        self.readers.read(|db| query::list(db, filter, page))
    }

    /// All adapters that a filter wants, in the order of their names, read page by page. What others commit meanwhile
    /// may or may not be seen.
    pub fn walk<'l>(&'l self, filter: &Filter) -> impl Iterator<Item = Result<Entry, LibraryError>> + use<'l> {
        const PAGE: usize = 256;
        let filter = filter.clone();
        let mut page = Page::first(PAGE);
        let mut ready = Vec::new().into_iter();
        let mut more = true;
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = ready.next() {
                    return Some(Ok(entry));
                }
                if !more {
                    return None;
                }
                match self.list(&filter, &page) {
                    Ok(entries) => {
                        more = entries.len() == PAGE;
                        page.after = entries.last().map(|entry: &Entry| entry.name.clone());
                        ready = entries.into_iter();
                    }
                    Err(error) => {
                        more = false;
                        return Some(Err(error));
                    }
                }
            }
        })
    }

    /// How many adapters a filter wants.
    ///
    /// # Errors
    /// A damaged catalog.
    pub fn count(&self, filter: &Filter) -> Result<u64, LibraryError> {
        self.readers.read(|db| query::count(db, filter))
    }

    /// All tags in use with the number of adapters that have each, the most frequent first, at most `limit`.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn tags(&self, limit: usize) -> Result<Vec<(String, u64)>, LibraryError> {
        self.readers.read(|db| facets::counts(db, "tag:", limit))
    }

    /// What happened since `since`, oldest first, at most `limit`. From the default cursor: everything there is. So an
    /// index of one's own is built and kept up to date by the same call.
    ///
    /// # Errors
    /// A damaged catalog.
    pub fn changes(&self, since: Cursor, limit: usize) -> Result<Changes, LibraryError> {
        self.readers.snapshot(|db| query::changes(db, since, limit.max(1)))
    }

    /// Up to three names in the library that may have been meant by `name`, nearest first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn suggest(&self, name: &str) -> Result<Vec<AdapterName>, LibraryError> {
        self.readers.read(|db| suggest::near(db, name))
    }

    /// Holds the content that a name stands for now. Rename, replacement, removal and gc do not touch what is held.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`]; a damaged segment or catalog.
    pub fn pin(&self, name: &AdapterName) -> Result<Pinned, LibraryError> {
        self.pin_by(|| self.find(name))
    }

    /// Holds content by its digest, also of a removed adapter, until gc has forgotten it.
    ///
    /// # Errors
    /// [`LibraryError::NoDigest`]; a damaged segment or catalog.
    pub fn pin_digest(&self, digest: AdapterDigest) -> Result<Pinned, LibraryError> {
        self.pin_by(|| self.find_digest(digest))
    }

    /// Tells the system that these contents will be read soon, such as those that a router chose: their bytes come from
    /// the disk while the request is prepared. How many were found; the others are left out.
    pub fn prefetch(&self, digests: &[AdapterDigest]) -> usize {
        let found = digests.iter().filter_map(|digest| self.pin_digest(*digest).ok());
        found.map(|pinned| pinned.will_need()).count()
    }

    fn pin_by(&self, look_up: impl Fn() -> Result<Entry, LibraryError>) -> Result<Pinned, LibraryError> {
        let mut missing = None;
        for _ in 0..ATTEMPTS {
            let entry = look_up()?;
            let place = entry.place;
            match self.maps.pin(entry) {
                Ok(pinned) => return Ok(pinned),
                Err(PinError::Other(error)) => return Err(error),
                Err(PinError::Moved) if missing == Some(place) => break,
                Err(PinError::Moved) => missing = Some(place),
            }
        }
        let name = missing.map_or_else(String::new, |place| super::segment::file_name(place.segment));
        Err(LibraryError::damaged(self.dir.join(SEGMENTS).join(name), "the file is missing"))
    }

    pub(super) fn not_found(&self, name: &AdapterName) -> LibraryError {
        let near = self.suggest(name.as_str()).unwrap_or_default();
        LibraryError::NotFound { name: name.clone(), near }
    }

    /// Stops all later writes because of `error`, which left unknown what is on disk.
    pub(super) fn poison(&self, error: &LibraryError) {
        let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.get_or_insert_with(|| error.to_string());
    }
}

/// Refuses directories that are not a library of a format that this program reads.
fn check_directory(dir: &Path) -> Result<(), LibraryError> {
    let not = |reason: String| LibraryError::NotALibrary { dir: dir.to_owned(), reason };
    let text = match fs::read(dir.join(FORMAT_FILE)) {
        Ok(text) => String::from_utf8_lossy(text.get(..text.len().min(80)).unwrap_or_default()).into_owned(),
        Err(error) if error.kind() == Io::NotFound && !dir.exists() => return Err(not("it does not exist".into())),
        Err(error) => return Err(not(format!("{FORMAT_FILE}: {error}"))),
    };
    match text.trim_end().strip_prefix("smoa library ").map(str::parse::<u32>) {
        Some(Ok(format)) if format > schema::FORMAT => {
            let found = format.to_string();
            return Err(LibraryError::Newer { dir: dir.to_owned(), found, known: schema::FORMAT });
        }
        Some(Ok(schema::FORMAT)) => {}
        _ => return Err(not(format!("{FORMAT_FILE} does not say 'smoa library {}'", schema::FORMAT))),
    }
    if let Some(stranger) = strangers(dir)?.first() {
        return Err(not(format!("'{}' does not belong into it; move it elsewhere", stranger.escape_debug())));
    }
    if !dir.join(catalog::FILE).is_file() {
        return Err(not(format!("{} is missing", catalog::FILE)));
    }
    Ok(())
}

/// What lies in the directory and is not of a library. Names that start with a dot belong to the system.
fn strangers(dir: &Path) -> Result<Vec<String>, LibraryError> {
    let known = |name: &str| {
        let of_catalog = name.strip_prefix(catalog::FILE);
        matches!(of_catalog, Some("" | "-wal" | "-shm" | "-journal"))
            || [FORMAT_FILE, "FORMAT.tmp", SEGMENTS, DERIVED].contains(&name)
            || name.starts_with('.')
            || name == "lost+found"
    };
    let mut strangers = Vec::new();
    for item in fs::read_dir(dir).map_err(LibraryError::disk("read", dir))? {
        let name = item.map_err(LibraryError::disk("read", dir))?.file_name();
        let name = name.to_string_lossy();
        if !known(&name) {
            strangers.push(name.into_owned());
        }
    }
    strangers.sort_unstable();
    Ok(strangers)
}

/// Makes what is missing of an empty library. The file `FORMAT` comes last: without it, it is not one yet.
pub(super) fn create_on(disk: &dyn Disk, dir: &Path) -> Result<(), LibraryError> {
    let segments = dir.join(SEGMENTS);
    fs::create_dir_all(dir).map_err(LibraryError::disk("create", dir))?;
    if let Some(stranger) = strangers(dir)?.first() {
        let reason = format!("it holds '{}' already; name an empty directory", stranger.escape_debug());
        return Err(LibraryError::NotALibrary { dir: dir.to_owned(), reason });
    }
    if dir.join(FORMAT_FILE).exists() {
        return check_directory(dir);
    }
    match fs::create_dir(&segments) {
        Err(error) if error.kind() != Io::AlreadyExists => {
            return Err(LibraryError::disk("create", segments)(error));
        }
        _ => {}
    }
    schema::create(&dir.join(catalog::FILE))?;
    let (temporary, file) = (dir.join("FORMAT.tmp"), dir.join(FORMAT_FILE));
    let write = || {
        let mut out = disk.create(&temporary)?;
        std::io::Write::write_all(&mut out, format!("smoa library {}\n", schema::FORMAT).as_bytes())?;
        out.sync()?;
        disk.rename(&temporary, &file)?;
        disk.sync_dir(dir)?;
        // The directory's own name.
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => disk.sync_dir(parent),
            _ => Ok(()),
        }
    };
    write().map_err(LibraryError::disk("write", &file))
}
