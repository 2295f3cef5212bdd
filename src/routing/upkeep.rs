//! Keeps a routing index at the state of its library: what changed since the last time is read from the library's
//! change feed and taken in. Interrupted anywhere, it goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};

use super::RoutingError;
use super::profile;
use crate::library::{Change, Cursor, Entry, Library, LibraryError};
use crate::router::embed::Embedder;
use crate::router::index::{self, Index, IndexError, Profile};

/// Changes read and applied at once.
const BATCH: usize = 2048;
/// Where the cursor is kept, beside the index.
const CURSOR: &str = "cursor";
/// The index itself.
const INDEX: &str = "index";

/// Where routing keeps what it derives for one embedder. Vectors of two embedders never meet in one folder.
pub fn folder(library: &Library, embedder: &dyn Embedder) -> PathBuf {
    let digits: String = embedder.fingerprint().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    library.derived().join("routing").join(digits)
}

/// Opens the index of a folder; one that cannot be used is thrown away and built again. `notice` hears of it.
pub fn open(folder: &Path, embedder: &dyn Embedder, notice: &mut dyn FnMut(String)) -> Result<Index, RoutingError> {
    let dir = folder.join(INDEX);
    if !dir.exists() {
        let others = folder.parent().and_then(|parent| fs::read_dir(parent).ok());
        if others.is_some_and(|mut others| others.next().is_some()) {
            notice("the embedder is another one than before: the routing index is built anew".into());
        }
        forget_cursor(folder)?;
    }
    fs::create_dir_all(&dir).map_err(RoutingError::disk("create", &dir))?;
    match Index::open(&dir, embedder.fingerprint(), embedder.dim()) {
        Err(error @ (IndexError::EmbedderChanged { .. } | IndexError::Damaged { .. })) => {
            notice(format!("{error}; doing so"));
            clear(folder, embedder)
        }
        other => Ok(other?),
    }
}

/// An empty index where there was one.
pub fn clear(folder: &Path, embedder: &dyn Embedder) -> Result<Index, RoutingError> {
    let dir = folder.join(INDEX);
    forget_cursor(folder)?;
    fs::remove_dir_all(&dir).map_err(RoutingError::disk("remove", &dir))?;
    fs::create_dir_all(&dir).map_err(RoutingError::disk("create", &dir))?;
    Ok(Index::open(&dir, embedder.fingerprint(), embedder.dim())?)
}

/// What a call of [`follow`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Adapters put in.
    pub put: u64,
    /// Adapters taken out.
    pub removed: u64,
    /// The library has forgotten too much: the index must be cleared and built from the beginning.
    pub start_again: bool,
}

/// Takes in what changed in the library. `progress` hears how many changes are done.
pub fn follow(
    library: &Library,
    index: &Index,
    folder: &Path,
    embedder: &dyn Embedder,
    progress: &mut dyn FnMut(u64),
) -> Result<Followed, RoutingError> {
    let mut followed = Followed::default();
    let mut cursor = read_cursor(folder);
    loop {
        let changes = library.changes(cursor, BATCH)?;
        if changes.start_again {
            followed.start_again = true;
            return Ok(followed);
        }
        let last = changes.changes.len() < BATCH;
        let mut made = Vec::new();
        for change in changes.changes {
            let (entry, digest) = match change {
                Change::Present(entry) => {
                    let digest = entry.digest;
                    (first_with(library, *entry)?, digest)
                }
                Change::Gone(_, digest) => (still_there(library, digest)?, digest),
            };
            made.push((digest, entry.map(|entry| profile::make(&entry, embedder))));
        }
        let put = made.iter().filter(|(_, made)| made.is_some()).count() as u64;
        let batch: Vec<index::Change<'_>> = made
            .iter()
            .map(|(digest, made)| match made {
                None => index::Change::Remove(*digest),
                Some(made) => index::Change::Put(Profile {
                    digest: *digest,
                    text: &made.text,
                    vectors: &made.vectors,
                    attributes: &made.attributes,
                    path: &made.path,
                }),
            })
            .collect();
        if !batch.is_empty() {
            index.apply(&batch)?;
        }
        followed.put += put;
        followed.removed += made.len() as u64 - put;
        if changes.next != cursor {
            cursor = changes.next;
            write_cursor(folder, cursor)?;
        }
        progress(followed.put + followed.removed);
        if last {
            return Ok(followed);
        }
    }
}

/// Of several names for one content, the one added first speaks for it.
fn first_with(library: &Library, entry: Entry) -> Result<Option<Entry>, LibraryError> {
    match library.find_digest(entry.digest) {
        Ok(first) if first.removed.is_none() => Ok(Some(first)),
        // Removed since the change was read; that change will come, too.
        Ok(_) | Err(LibraryError::NoDigest(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn still_there(library: &Library, digest: crate::adapter::AdapterDigest) -> Result<Option<Entry>, LibraryError> {
    match library.find_digest(digest) {
        Ok(entry) => Ok(entry.removed.is_none().then_some(entry)),
        Err(LibraryError::NoDigest(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_cursor(folder: &Path) -> Cursor {
    let bytes = fs::read(folder.join(CURSOR)).ok();
    // Anything else than a cursor: from the beginning, which gives the same index.
    bytes.and_then(|bytes| bytes.try_into().ok()).map(Cursor::from_bytes).unwrap_or_default()
}

/// Written after the index has the changes: a crash in between only means that they are taken in twice.
fn write_cursor(folder: &Path, cursor: Cursor) -> Result<(), RoutingError> {
    write_whole(&folder.join(CURSOR), &cursor.to_bytes())
}

fn forget_cursor(folder: &Path) -> Result<(), RoutingError> {
    let path = folder.join(CURSOR);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(RoutingError::disk("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file so that it is there whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RoutingError> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let write = || {
        use std::io::Write;
        let mut file = fs::File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&part);
        RoutingError::disk("write", path)(error)
    })
}
