//! Changing a library: one writer at a time, all or nothing.

use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use super::catalog::facets::{self, Tally};
use super::catalog::schema::{self, Use};
use super::catalog::{self, rows, words};
use super::segment::{self, Sealed, SegmentWriter};
use super::store::SEGMENTS;
use super::{Access, AdapterName, Card, Entry, EntryId, Library, LibraryError, Metadata, limits};
use crate::adapter::AdapterDigest;
use crate::gguf::Gguf;

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
    /// Replace, if the name stands for this content now; refuse otherwise, also if it stands for none.
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

/// Additions after which a writer takes more memory for the catalog's pages, until it ends.
const MANY: u64 = 1_000;
/// That memory in KiB.
const MANY_CACHE_KIB: i64 = 96 << 10;
/// Pages of the log after which a commit is followed by emptying it.
const LONG_LOG: u64 = 16_384;

/// A transaction on a library: what it does is seen by nobody until [`Writer::commit`], then all of it at once, and
/// it lasts. Dropping it undoes everything.
///
/// Other processes and threads wait for it ([`Options::busy_timeout`](super::Options)), then are told
/// [`LibraryError::Busy`]. Readers never wait. An addition that is refused leaves the writer usable; after a failure
/// of the disk it only can be dropped.
#[derive(Debug)]
pub struct Writer<'l> {
    pub(super) library: &'l Library,
    connection: MutexGuard<'l, Option<Connection>>,
    /// The generation that this commit makes.
    pub(super) generation: u64,
    tally: Tally,
    open: Option<SegmentWriter>,
    sealed: Vec<Sealed>,
    pub(super) last_segment: u64,
    changes: u64,
    added: u64,
    failed: Option<String>,
    /// The catalog was told to commit. Should that fail, a crash may still bring it about from SQLite's log, so the
    /// segments must stay.
    attempted: bool,
    finished: bool,
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentWriter({})", self.temporary().display())
    }
}

impl Library {
    /// Begins a transaction.
    ///
    /// # Errors
    /// [`LibraryError::Busy`] if another one does not end in time; [`LibraryError::ReadOnly`];
    /// [`LibraryError::Poisoned`] after a failed sync.
    pub fn writer(&self) -> Result<Writer<'_>, LibraryError> {
        self.writer_within(self.options.busy_timeout)
    }

    pub(super) fn writer_within(&self, busy: Duration) -> Result<Writer<'_>, LibraryError> {
        let connection = self.begin(busy)?;
        let mut writer = Writer {
            library: self,
            connection,
            generation: 0,
            tally: Tally::default(),
            open: None,
            sealed: Vec::new(),
            last_segment: 0,
            changes: 0,
            added: 0,
            failed: None,
            attempted: false,
            finished: false,
        };
        writer.generation = rows::meta(writer.db()?, "generation")?.saturating_add(1);
        writer.last_segment = rows::meta(writer.db()?, "segment")?;
        Ok(writer)
    }

    /// The connection that writes, in a transaction: no other thread and no other process has one.
    pub(super) fn begin(&self, busy: Duration) -> Result<MutexGuard<'_, Option<Connection>>, LibraryError> {
        if self.access == Access::Read {
            return Err(LibraryError::ReadOnly { dir: self.dir.clone() });
        }
        if let Some(cause) = self.poison.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(LibraryError::Poisoned { dir: self.dir.clone(), cause });
        }
        let mut connection = self.lock_writing(busy)?;
        let db = match connection.take() {
            Some(db) => connection.insert(db),
            None => {
                let file = self.dir.join(catalog::FILE);
                let db = schema::connect(&file, Use::Write, busy, self.options.cache_kib);
                connection.insert(db.map_err(|error| match error {
                    LibraryError::Catalog(error) => self.begin_error(error),
                    other => other,
                })?)
            }
        };
        db.busy_timeout(busy)?;
        db.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.begin_error(error))?;
        Ok(connection)
    }

    /// The connection that writes, once no other thread has it.
    fn lock_writing(&self, busy: Duration) -> Result<MutexGuard<'_, Option<Connection>>, LibraryError> {
        let start = Instant::now();
        loop {
            match self.writing.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if start.elapsed() >= busy => {
                    return Err(LibraryError::Busy { dir: self.dir.clone() });
                }
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(1)),
            }
        }
    }

    fn begin_error(&self, error: rusqlite::Error) -> LibraryError {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, ReadOnly};
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => LibraryError::Busy { dir: self.dir.clone() },
            Some(ReadOnly | CannotOpen) => LibraryError::ReadOnly { dir: self.dir.clone() },
            _ => error.into(),
        }
    }

    /// Adds one adapter: `bytes` is a whole GGUF file. A transaction of its own; for many, use [`Library::writer`].
    ///
    /// # Errors
    /// As [`Writer::add`] and [`Writer::commit`].
    pub fn add(
        &self,
        name: &AdapterName,
        bytes: &[u8],
        metadata: &Metadata,
        on_conflict: OnConflict,
    ) -> Result<Added, LibraryError> {
        self.once(|writer| writer.add(name, bytes, metadata, on_conflict))
    }

    /// Gives an adapter another name.
    ///
    /// # Errors
    /// As [`Writer::rename`] and [`Writer::commit`].
    pub fn rename(&self, from: &AdapterName, to: &AdapterName) -> Result<Entry, LibraryError> {
        self.once(|writer| writer.rename(from, to))
    }

    /// Changes what people say of an adapter: tags, description, keywords, attributes.
    ///
    /// # Errors
    /// As [`Writer::edit`] and [`Writer::commit`].
    pub fn edit(&self, name: &AdapterName, change: impl FnOnce(&mut Card)) -> Result<Entry, LibraryError> {
        self.once(|writer| writer.edit(name, change))
    }

    /// Removes an adapter. It can be restored until the next gc.
    ///
    /// # Errors
    /// As [`Writer::remove`] and [`Writer::commit`].
    pub fn remove(&self, name: &AdapterName) -> Result<Entry, LibraryError> {
        self.once(|writer| writer.remove(name))
    }

    /// Brings back the adapter of this name that was removed (or replaced) last.
    ///
    /// # Errors
    /// As [`Writer::restore`] and [`Writer::commit`].
    pub fn restore(&self, name: &AdapterName) -> Result<Entry, LibraryError> {
        self.once(|writer| writer.restore(name))
    }

    fn once<T>(&self, act: impl FnOnce(&mut Writer<'_>) -> Result<T, LibraryError>) -> Result<T, LibraryError> {
        let mut writer = self.writer()?;
        let done = act(&mut writer)?;
        writer.commit()?;
        Ok(done)
    }
}

impl Writer<'_> {
    /// Adds an adapter: `bytes` is a whole GGUF file, which is kept byte for byte. Content that the library has
    /// already, under whatever name, is not stored twice.
    ///
    /// Whether the adapter fits a base model is for the caller to check (`gguf::check_adapter`); here the file must be
    /// sound GGUF and the card within its [`limits`].
    ///
    /// # Errors
    /// [`LibraryError::NotGguf`], [`LibraryError::Field`], [`LibraryError::Exists`], [`LibraryError::Changed`]: the
    /// writer goes on. Disk and catalog failures: it does not.
    pub fn add(
        &mut self,
        name: &AdapterName,
        bytes: &[u8],
        metadata: &Metadata,
        on_conflict: OnConflict,
    ) -> Result<Added, LibraryError> {
        Gguf::read(bytes).map_err(|source| LibraryError::NotGguf { name: name.clone(), source })?;
        limits::check_card(&metadata.card)?;
        let text = metadata.to_json()?;
        let digest = AdapterDigest::of(bytes);
        self.sound()?;
        let there = rows::by_name(self.db()?, name)?;
        let outcome = match (&there, on_conflict) {
            (None, OnConflict::ReplaceIf(_)) => return Err(self.library.not_found(name)),
            (None, _) => Outcome::New,
            (Some(there), OnConflict::KeepExisting) => return Ok(kept(there)),
            (Some(there), OnConflict::CompareDigest) if there.digest == digest => return Ok(kept(there)),
            (Some(there), OnConflict::Refuse | OnConflict::CompareDigest) => {
                return Err(LibraryError::Exists { name: name.clone(), digest: there.digest });
            }
            (Some(there), OnConflict::ReplaceIf(expected)) if there.digest != expected => {
                return Err(LibraryError::Changed { name: name.clone(), expected, found: there.digest });
            }
            (Some(there), OnConflict::Replace | OnConflict::ReplaceIf(_)) => Outcome::Replaced(there.digest),
        };
        let id = self.step(|writer| {
            writer.expect_many()?;
            if let Some(there) = &there {
                writer.set_removed(there, Some(now()))?;
            }
            let blob = writer.store(digest, bytes)?;
            writer.insert(name, digest, blob, metadata, &text)
        })?;
        Ok(Added { id, digest, outcome })
    }

    /// Gives an adapter another name. Who pinned it keeps it.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`], [`LibraryError::Exists`] for the new name; disk and catalog failures.
    pub fn rename(&mut self, from: &AdapterName, to: &AdapterName) -> Result<Entry, LibraryError> {
        let entry = self.find(from)?;
        if from == to {
            return Ok(entry);
        }
        self.refuse_taken(to)?;
        self.step(|writer| {
            writer.unindex(&entry)?;
            let renamed = Entry { name: to.clone(), ..entry };
            writer.update(&renamed)?;
            writer.index(&renamed)?;
            Ok(renamed)
        })
    }

    /// Changes what people say of an adapter.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`], [`LibraryError::Field`] if the new card is out of bounds; disk and catalog
    /// failures.
    pub fn edit(&mut self, name: &AdapterName, change: impl FnOnce(&mut Card)) -> Result<Entry, LibraryError> {
        let old = self.find(name)?;
        let mut new = old.clone();
        change(&mut new.metadata.card);
        limits::check_card(&new.metadata.card)?;
        self.step(|writer| {
            writer.unindex(&old)?;
            writer.update(&new)?;
            writer.index(&new)?;
            Ok(new)
        })
    }

    /// Removes an adapter: its name is free at once, its content stays until gc.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`]; disk and catalog failures.
    pub fn remove(&mut self, name: &AdapterName) -> Result<Entry, LibraryError> {
        let entry = self.find(name)?;
        self.step(|writer| writer.set_removed(&entry, Some(now())))
    }

    /// Brings back the adapter of this name that was removed (or replaced) last.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] if none was, or gc has been; [`LibraryError::Exists`] if the name is taken again;
    /// disk and catalog failures.
    pub fn restore(&mut self, name: &AdapterName) -> Result<Entry, LibraryError> {
        self.sound()?;
        let removed = rows::removed(self.db()?, name)?;
        let entry = removed.ok_or_else(|| LibraryError::NotFound { name: name.clone(), near: Vec::new() })?;
        self.refuse_taken(name)?;
        self.step(|writer| writer.set_removed(&entry, None))
    }

    /// The adapter that a name stands for, in the state this writer has made.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`]; a damaged catalog.
    pub fn find(&self, name: &AdapterName) -> Result<Entry, LibraryError> {
        self.sound()?;
        rows::by_name(self.db()?, name)?.ok_or_else(|| self.library.not_found(name))
    }

    /// Makes everything last and lets others see it: segments are written, synced and named, then the catalog commits.
    /// The generation that is current then.
    ///
    /// # Errors
    /// The disk refuses: the library is as it was before the writer. After a failed sync, nothing is written through
    /// this [`Library`] any more.
    pub fn commit(mut self) -> Result<u64, LibraryError> {
        self.sound()?;
        if self.changes == 0 {
            return Ok(self.generation.saturating_sub(1));
        }
        let committed = self.commit_all();
        if let Err(error) = &committed
            && unsure(error)
        {
            self.library.poison(error);
        }
        committed?;
        self.finished = true;
        self.tidy();
        Ok(self.generation)
    }

    fn commit_all(&mut self) -> Result<(), LibraryError> {
        self.seal()?;
        let segments = self.segments();
        if !self.sealed.is_empty() {
            self.library.disk.sync_dir(&segments).map_err(LibraryError::disk("fsync", &segments))?;
        }
        let mut tally = std::mem::take(&mut self.tally);
        let db = self.db()?;
        tally.flush(db)?;
        rows::set_meta(db, "generation", self.generation)?;
        rows::set_meta(db, "segment", self.last_segment)?;
        let catalog = self.library.dir.join(catalog::FILE);
        self.library.disk.committing().map_err(LibraryError::disk("commit", catalog))?;
        self.attempted = true;
        self.db()?.execute_batch("COMMIT")?;
        Ok(())
    }

    /// After a commit: memory and disk that only it needed are given back. Nothing here can undo it.
    fn tidy(&mut self) {
        let many = self.added >= MANY;
        let cache = -i64::from(self.library.options.cache_kib);
        if let Ok(db) = self.db() {
            let pages =
                |db: &Connection| db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1));
            if many && pages(db).is_ok_and(|pages| pages.unsigned_abs() > LONG_LOG) {
                // Readers in the middle of a query keep the log; the next commit tries again.
                let _ = db.busy_timeout(Duration::ZERO);
                let _ = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            }
            if many {
                let _ = db.pragma_update(None, "cache_size", cache);
                let _ = db.execute_batch("PRAGMA shrink_memory");
            }
        }
    }

    pub(super) fn db(&self) -> Result<&Connection, LibraryError> {
        // Set when the writer is made, and never taken.
        self.connection.as_ref().ok_or_else(|| LibraryError::ReadOnly { dir: self.library.dir.clone() })
    }

    pub(super) fn segments(&self) -> PathBuf {
        self.library.dir.join(SEGMENTS)
    }

    fn sound(&self) -> Result<(), LibraryError> {
        match &self.failed {
            None => Ok(()),
            Some(cause) => Err(LibraryError::Poisoned { dir: self.library.dir.clone(), cause: cause.clone() }),
        }
    }

    /// Runs a step that changes something. If it fails in the middle, the writer can only be dropped.
    pub(super) fn step<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, LibraryError>,
    ) -> Result<T, LibraryError> {
        self.sound()?;
        self.changes += 1;
        let done = act(self);
        if let Err(error) = &done {
            self.failed = Some(error.to_string());
            if unsure(error) {
                self.library.poison(error);
            }
        }
        done
    }

    fn refuse_taken(&self, name: &AdapterName) -> Result<(), LibraryError> {
        match rows::by_name(self.db()?, name)? {
            None => Ok(()),
            Some(taken) => Err(LibraryError::Exists { name: name.clone(), digest: taken.digest }),
        }
    }

    fn expect_many(&mut self) -> Result<(), LibraryError> {
        self.added += 1;
        if self.added == MANY {
            self.db()?.pragma_update(None, "cache_size", -MANY_CACHE_KIB)?;
        }
        Ok(())
    }

    /// The number of the content in the catalog; it is written to a segment if it is new.
    fn store(&mut self, digest: AdapterDigest, bytes: &[u8]) -> Result<i64, LibraryError> {
        use rusqlite::OptionalExtension;
        let known: Option<i64> = self
            .db()?
            .prepare_cached("SELECT id FROM blob WHERE digest = ?1")?
            .query_row([&digest.as_bytes()[..]], |row| row.get(0))
            .optional()?;
        if let Some(blob) = known {
            return Ok(blob);
        }
        let (segment, offset) = self.append(digest, bytes)?;
        let db = self.db()?;
        let sql = "INSERT INTO blob(digest, segment, offset, length) VALUES(?1, ?2, ?3, ?4)";
        let numbers = [segment, offset, bytes.len() as u64].map(rows::sql_number);
        db.prepare_cached(sql)?.execute(params![&digest.as_bytes()[..], numbers[0], numbers[1], numbers[2]])?;
        Ok(db.last_insert_rowid())
    }

    /// Writes content to the open segment, or to the next one; where it lies.
    pub(super) fn append(&mut self, digest: AdapterDigest, bytes: &[u8]) -> Result<(u64, u64), LibraryError> {
        let needed = segment::space(bytes.len() as u64);
        let full = |open: &SegmentWriter| open.length().saturating_add(needed) > self.library.options.segment_bytes;
        if self.open.as_ref().is_some_and(full) {
            self.seal()?;
        }
        if self.open.is_none() {
            self.begin_segment()?;
        }
        let open = self.open.as_mut().ok_or_else(|| LibraryError::damaged(SEGMENTS, "no segment was begun"))?;
        Ok((open.id(), open.append(digest, bytes)?))
    }

    /// Begins the next segment. This transaction alone sees it, without a length.
    fn begin_segment(&mut self) -> Result<(), LibraryError> {
        self.last_segment = self.last_segment.saturating_add(1);
        let row = [rows::sql_number(self.last_segment)];
        self.db()?.prepare_cached("INSERT INTO segment(id, length, entries) VALUES(?1, 0, 0)")?.execute(row)?;
        self.open = Some(SegmentWriter::start(&*self.library.disk, &self.segments(), self.last_segment)?);
        Ok(())
    }

    /// Ends the open segment.
    fn seal(&mut self) -> Result<(), LibraryError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let (temporary, id) = (open.temporary().to_owned(), open.id());
        // For the drop to throw away, should it not be sealed.
        self.sealed.push(Sealed { id, path: temporary, length: 0, entries: 0 });
        let sealed = open.seal(&*self.library.disk)?;
        let numbers = [sealed.id, sealed.length, sealed.entries].map(rows::sql_number);
        self.sealed.pop();
        self.sealed.push(sealed);
        self.db()?.prepare_cached("UPDATE segment SET length = ?2, entries = ?3 WHERE id = ?1")?.execute(numbers)?;
        Ok(())
    }

    fn insert(
        &mut self,
        name: &AdapterName,
        digest: AdapterDigest,
        blob: i64,
        metadata: &Metadata,
        text: &str,
    ) -> Result<EntryId, LibraryError> {
        let added = now();
        let seal = rows::seal(name.as_str(), digest, added, None, text);
        let sql = "INSERT INTO adapter(name, blob, added, changed, seal, metadata) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
        let changed = rows::sql_number(self.generation);
        let db = self.db()?;
        db.prepare_cached(sql)?.execute(params![name.as_str(), blob, added, changed, seal, text])?;
        let id = db.last_insert_rowid();
        self.make_known(id, name, metadata)?;
        Ok(EntryId(id))
    }

    /// Makes an adapter known to filters and the full-text index.
    fn make_known(&mut self, id: i64, name: &AdapterName, metadata: &Metadata) -> Result<(), LibraryError> {
        let mut tally = std::mem::take(&mut self.tally);
        let db = self.db()?;
        words::insert(db, id, name, metadata)?;
        tally.attach(db, id, name, &facets::of(metadata))?;
        self.tally = tally;
        Ok(())
    }

    fn index(&mut self, entry: &Entry) -> Result<(), LibraryError> {
        self.make_known(entry.id.0, &entry.name, &entry.metadata)
    }

    fn unindex(&mut self, entry: &Entry) -> Result<(), LibraryError> {
        let mut tally = std::mem::take(&mut self.tally);
        let db = self.db()?;
        words::delete(db, entry.id.0)?;
        tally.detach(db, &entry.name, &facets::of(&entry.metadata))?;
        self.tally = tally;
        Ok(())
    }

    /// Removes (with a time) or restores.
    fn set_removed(&mut self, entry: &Entry, removed: Option<i64>) -> Result<Entry, LibraryError> {
        let entry = Entry { removed: removed.map(i64::unsigned_abs), ..entry.clone() };
        if removed.is_some() {
            self.unindex(&entry)?;
        }
        self.update(&entry)?;
        if removed.is_none() {
            self.index(&entry)?;
        }
        Ok(entry)
    }

    /// Restores this very row, where its name is free.
    pub(super) fn restore_exactly(&mut self, entry: &Entry) -> Result<Entry, LibraryError> {
        self.refuse_taken(&entry.name)?;
        self.step(|writer| writer.set_removed(entry, None))
    }

    /// Writes an adapter's row anew.
    fn update(&self, entry: &Entry) -> Result<(), LibraryError> {
        let text = entry.metadata.to_json()?;
        let removed = entry.removed.map(rows::sql_number);
        let name = entry.name.as_str();
        let seal = rows::seal(name, entry.digest, rows::sql_number(entry.added), removed, &text);
        let sql = "UPDATE adapter SET name = ?2, removed = ?3, changed = ?4, seal = ?5, metadata = ?6 WHERE id = ?1";
        let changed = rows::sql_number(self.generation);
        self.db()?.prepare_cached(sql)?.execute(params![entry.id.0, name, removed, changed, seal, text])?;
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Files go while the lock is held: another writer may take the same numbers next. What stays behind is swept
        // away at an opening.
        let locked = self.db().is_ok_and(|db| !db.is_autocommit());
        let unfinished = self.open.take().map(|open| open.temporary().to_owned());
        if locked && !self.attempted {
            for path in self.sealed.drain(..).map(|sealed| sealed.path).chain(unfinished) {
                let _ = self.library.disk.remove(&path);
            }
        }
        if let Ok(db) = self.db()
            && locked
            && db.execute_batch("ROLLBACK").is_err()
        {
            // A connection that cannot roll back is closed; that does.
            *self.connection = None;
        }
        self.tidy();
    }
}

/// Whether an error leaves unknown what is on disk, so that writing must stop.
pub(super) fn unsure(error: &LibraryError) -> bool {
    match error {
        LibraryError::Disk { action, .. } => *action == "fsync",
        LibraryError::Catalog(error) => {
            matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::SystemIoFailure))
        }
        _ => false,
    }
}

fn kept(there: &Entry) -> Added {
    Added { id: there.id, digest: there.digest, outcome: Outcome::Kept }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rows::sql_number(since.as_secs())
}
