//! Where a request's adapters come from: files, and names of the library. Checked, and held open.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::adapter::{AdapterDigest, AdapterError, AdapterFile, HeldBytes, OpenAdapters, TierStatistics};
use crate::compose::{self, ComposeError, Composition};
use crate::error::{Code, Failure};
use crate::gguf::ModelFacts;
use crate::library::{
    Access, AdapterName, ErrorKind, Judged, Kind, Library, LibraryError, Pinned, UseRecorder, base_fingerprint,
    check_base,
};
use crate::mapped::Mapped;
use crate::model_file::open_code;
use crate::request::AdapterSource;
use crate::router::Route;
use crate::routing::{Ask, Embedders, Router, RoutingError};

/// Makes the router's embedders.
pub type MakeEmbedders = Box<dyn Fn() -> Result<Embedders, Failure> + Send + Sync>;

/// The adapters within reach. The library is opened when the first name is asked for; another process may change it
/// meanwhile, and each request sees what is committed when it begins.
#[derive(Default)]
pub struct Shelf {
    folder: Option<PathBuf>,
    library: OnceLock<Library>,
    open: OpenAdapters,
    uses: Option<Arc<UseRecorder>>,
    embedders: Option<MakeEmbedders>,
    router: Mutex<Option<Arc<Router>>>,
    keeps_judged: bool,
}

impl Shelf {
    /// Files, and the library in this folder if there is one.
    pub fn with_library(folder: PathBuf) -> Self {
        let uses = Some(Arc::new(UseRecorder::new(&folder)));
        Self { folder: Some(folder), uses, ..Self::default() }
    }

    /// Keeps up to so many bytes of adapters open beyond those in use, checked and hashed. For an empty shelf.
    pub fn with_cache_bytes(self, bytes: u64) -> Self {
        Self { open: OpenAdapters::with_capacity(bytes), ..self }
    }

    /// Keeps the requests whose answers are judged, for the router to learn from.
    #[must_use]
    pub fn keeping_judged(self, keeps_judged: bool) -> Self {
        Self { keeps_judged, ..self }
    }

    /// Whether requests are kept when their answers are judged.
    pub fn keeps_judged(&self) -> bool {
        self.keeps_judged
    }

    /// Opens adapters of the library by name and keeps them open, whatever else is used; gives them. The names are looked
    /// up once: one that is moved to other content later is opened as any other.
    ///
    /// # Errors
    /// As [`Shelf::open`], for the first that is refused.
    pub fn keep(&self, names: &[String], base: &ModelFacts) -> Result<Vec<Arc<AdapterFile>>, Failure> {
        let keep = |name: &String| {
            let file = self.open(&AdapterSource::Name(name.clone()), base)?;
            self.open.pin(&file);
            Ok(file)
        };
        names.iter().map(keep).collect()
    }

    /// Tells the system that these contents of the library will be read soon. How many there are.
    pub fn prefetch(&self, digests: &[AdapterDigest]) -> usize {
        self.library().map_or(0, |library| library.prefetch(digests))
    }

    /// The state kept for an adapter in engines with this stamp's key, mapped; `None` without one. Not checked.
    pub fn state(&self, digest: AdapterDigest, key: &str) -> Option<Box<dyn HeldBytes>> {
        let file = self.library().ok()?.state_file(digest, key);
        Mapped::open(&file).ok().map(|map| Box::new(map) as Box<dyn HeldBytes>)
    }

    /// Whether states are kept for this adapter: it is in the library.
    pub fn keeps_states(&self, digest: AdapterDigest) -> bool {
        self.library().is_ok_and(|library| library.find_digest(digest).is_ok())
    }

    /// Keeps a state for an adapter of the library.
    ///
    /// # Errors
    /// There is no library, or its disk refuses.
    pub fn keep_state(&self, digest: AdapterDigest, key: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.library()?.keep_state(digest, key, bytes).map(drop).map_err(|e| library_failure(&e))
    }

    /// What is held open.
    pub fn statistics(&self) -> TierStatistics {
        self.open.statistics()
    }

    /// Notes that a request uses these adapters of the library; what is returned counts the use when it is dropped.
    pub fn note(&self, digests: Vec<AdapterDigest>) -> UseNote {
        UseNote { uses: self.uses.clone(), digests, since: Instant::now(), success: false }
    }

    /// Notes what someone said of an answer, for those of its adapters that the library has, and keeps its question where one
    /// is given. How many adapters those are.
    ///
    /// # Errors
    /// There is no library, or it cannot be written.
    pub fn feedback(
        &self,
        digests: &[AdapterDigest],
        question: Option<(AdapterDigest, &str)>,
        good: bool,
    ) -> Result<usize, Failure> {
        let folder = self.folder.as_ref().ok_or_else(no_library)?;
        let library = Library::open(folder, Access::Write).map_err(|e| library_failure(&e))?;
        let known: Vec<AdapterDigest> =
            digests.iter().copied().filter(|digest| library.find_digest(*digest).is_ok()).collect();
        library.record_feedback(&known, good).map_err(|e| library_failure(&e))?;
        if let Some((digest, text)) = question.filter(|(digest, _)| library.find_digest(*digest).is_ok()) {
            let judged = Judged { digest, good, text: text.to_owned() };
            library.keep_judged(&judged).map_err(|e| library_failure(&e))?;
        }
        Ok(known.len())
    }

    /// The same shelf, able to choose adapters by itself. The embedders are made for the first request that needs them.
    #[must_use]
    pub fn with_embedders(self, make: MakeEmbedders) -> Self {
        Self { embedders: Some(make), ..self }
    }

    /// Chooses adapters of the library for a request to the model described by `base`: never one that was added for
    /// another model. The first call opens the routing index and brings it up to
    /// date.
    ///
    /// # Errors
    /// There is no library, or it cannot be routed over.
    pub fn route(&self, ask: Ask, base: &ModelFacts) -> Result<Arc<Route>, Failure> {
        let ask = ask.for_base(base_fingerprint(base));
        self.router()?.route(&ask).map_err(|e| routing_failure(&e))
    }

    /// The shares of adapters (and compositions) of the library in a mix that is to answer a text; `None` when the router
    /// knows none of them.
    ///
    /// # Errors
    /// As [`Shelf::route`]; a name is not there.
    pub fn shares(&self, text: &str, names: &[&str]) -> Result<Option<Vec<f32>>, Failure> {
        let library = self.library()?;
        let digest = |name: &&str| {
            let name = AdapterName::new(*name).map_err(|e| Failure::usage(e.to_string()))?;
            library.find(&name).map(|entry| entry.digest).map_err(|e| library_failure(&e))
        };
        let digests: Vec<AdapterDigest> = names.iter().map(digest).collect::<Result<_, Failure>>()?;
        self.router()?.shares(text, &digests).map_err(|e| routing_failure(&e))
    }

    /// The router over the library.
    ///
    /// # Errors
    /// As [`Shelf::route`].
    pub fn router(&self) -> Result<Arc<Router>, Failure> {
        let mut router = self.router.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(router) = &*router {
            return Ok(router.clone());
        }
        let folder = self.folder.as_ref().ok_or_else(no_library)?;
        let none = || Failure::usage("adapters auto: no embedder is set up for routing");
        let embedders = self.embedders.as_ref().ok_or_else(none)?()?;
        let made = Arc::new(Router::open(folder, embedders, &mut |_| ()).map_err(|e| routing_failure(&e))?);
        Ok(router.insert(made).clone())
    }

    /// Opens and checks an adapter for the model described by `base`, or finds it open. What is returned keeps its
    /// bytes, whatever happens to the file or the name.
    ///
    /// # Errors
    /// [`Code::NotFound`] with the nearest names, or [`Code::InvalidFile`] with the field and the reason.
    pub fn open(&self, source: &AdapterSource, base: &ModelFacts) -> Result<Arc<AdapterFile>, Failure> {
        let name = match source {
            AdapterSource::File(path) => return Ok(self.open.file(path, base)?),
            AdapterSource::Name(name) => name,
        };
        let library = self.library()?;
        let parsed = AdapterName::new(name.as_str()).map_err(|e| Failure::usage(e.to_string()))?;
        let pinned = library.pin(&parsed).map_err(|e| library_failure(&e))?;
        let digest = pinned.digest();
        // Once for as long as it is held open, not for every request. Hashed again before llama.cpp reads it: a disk
        // may have damaged what was sound when it was added.
        let hold = || -> Result<Box<dyn HeldBytes>, Failure> {
            if pinned.entry().metadata.measured.base.is_some() {
                check_base(pinned.entry(), &base_fingerprint(base)).map_err(|e| library_failure(&e))?;
            }
            pinned.check().map_err(|e| library_failure(&e))?;
            Ok(Box::new(pinned))
        };
        self.open.content(&PathBuf::from(name), digest, hold, base)
    }

    /// The format that the answers of an adapter of the library have unless a request says otherwise.
    pub fn default_format(&self, source: &AdapterSource) -> Option<String> {
        let AdapterSource::Name(name) = source else { return None };
        let name = AdapterName::new(name.as_str()).ok()?;
        let pinned = self.library().ok()?.pin(&name).ok()?;
        pinned.entry().metadata.card.default_format.clone()
    }

    /// The composition that a name of the library stands for, and its digest; none for an adapter.
    ///
    /// # Errors
    /// The name is not there; the composition is damaged.
    pub fn composition(&self, name: &str) -> Result<Option<(Composition, AdapterDigest)>, Failure> {
        let name = AdapterName::new(name).map_err(|e| Failure::usage(e.to_string()))?;
        let library = self.library()?;
        let entry = library.find(&name).map_err(|e| library_failure(&e))?;
        if entry.metadata.measured.kind != Some(Kind::Composition) {
            return Ok(None);
        }
        let pinned = library.pin_digest(entry.digest).map_err(|e| library_failure(&e))?;
        let broken = |e: ComposeError| Failure::new(Code::InvalidFile, format!("composition '{name}': {e}"));
        Ok(compose::from_gguf(pinned.bytes(), name.as_str()).map_err(broken)?.map(|c| (c, entry.digest)))
    }

    fn library(&self) -> Result<&Library, Failure> {
        if let Some(library) = self.library.get() {
            return Ok(library);
        }
        let folder = self.folder.as_ref().ok_or_else(no_library)?;
        let library = Library::open(folder, Access::Read).map_err(|e| library_failure(&e))?;
        Ok(self.library.get_or_init(|| library))
    }
}

/// A request's use of adapters, counted in the library's statistics when this is dropped. Never waits for the disk.
pub struct UseNote {
    uses: Option<Arc<UseRecorder>>,
    digests: Vec<AdapterDigest>,
    since: Instant,
    success: bool,
}

impl UseNote {
    /// The answer came to its end.
    pub fn succeeded(&mut self) {
        self.success = true;
    }
}

impl Drop for UseNote {
    fn drop(&mut self) {
        if let Some(uses) = &self.uses {
            uses.record(std::mem::take(&mut self.digests), self.success, self.since.elapsed());
        }
    }
}

impl HeldBytes for Pinned {
    fn bytes(&self) -> &[u8] {
        Pinned::bytes(self)
    }
}

fn no_library() -> Failure {
    Failure::new(Code::NotFound, "there is no adapter library: give --library DIR")
}

/// The failure that a refusal to route becomes.
pub fn routing_failure(e: &RoutingError) -> Failure {
    let code = match e {
        RoutingError::Library(e) => return library_failure(e),
        RoutingError::Training(_) => Code::Usage,
        RoutingError::Index(_) | RoutingError::Head { .. } => Code::InvalidFile,
        _ => Code::Other,
    };
    Failure::new(code, e.to_string())
}

/// The failure that a library's refusal becomes.
pub fn library_failure(e: &LibraryError) -> Failure {
    let code = match e.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Usage => Code::Usage,
        ErrorKind::InvalidFile => Code::InvalidFile,
        ErrorKind::Busy => Code::Busy,
        ErrorKind::Disk => Code::Other,
    };
    Failure::new(code, e.to_string())
}

impl From<AdapterError> for Failure {
    fn from(e: AdapterError) -> Self {
        let code = match &e {
            AdapterError::Open { source, .. } => open_code(source),
            AdapterError::Invalid { .. } => Code::InvalidFile,
        };
        Failure::new(code, e.to_string())
    }
}
