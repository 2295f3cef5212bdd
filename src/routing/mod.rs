//! The router at work on an adapter library: index kept up to date, decisions remembered, a trained head when it earned
//! its place.
//!
//! What it derives lies in the library's `derived/routing`, a folder for each embedder, and can be made again at any
//! time. It knows the library and the router; no engine, no requests, no command line.
//!
//! ```text
//! derived/routing/EMBEDDER/index/       the mapped index                     router::index
//! derived/routing/EMBEDDER/cursor       how far the library was followed     upkeep
//! derived/routing/EMBEDDER/head         the trained head                     train
//! derived/routing/EMBEDDER/tuning.json  weights and curves of this library   tuned
//! ```

mod error;
pub mod evaluate;
mod mix;
mod profile;
mod rerank;
#[cfg(test)]
mod tests;
mod train;
mod tuned;
mod twins;
mod upkeep;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crate::adapter::{AdapterDigest, AdapterSet};
use crate::library::{Access, Judged, Library};
use crate::router::embed::{Cascade, Embedder};
use crate::router::head::Head;
use crate::router::index::{CLOSE, Gate, Index, IndexStats, Query};
use crate::router::{
    CacheStats, Catalogue, DecisionCache, Evidence, Facts, Policy, Route, Strategy, Tuning, decide, rank,
};

pub use error::RoutingError;
pub use train::{Labelled, OUT_OF_SCOPE, Report, TrainOptions};
pub use upkeep::Followed;

/// What to route, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// The request's text.
    pub text: String,
    /// What must hold of an adapter: `region=eu`. A key given twice allows either value. `tag`, `domain`, `skill`
    /// and `task` also are what [`Strategy::Task`] looks for.
    pub metadata: Vec<(String, String)>,
    /// Adapters that say nothing of a key in the metadata are left out. Else they pass.
    pub strict: bool,
    /// The way to choose; [`Strategy::Learned`] where a trained head is there, else [`Strategy::Hybrid`].
    pub strategy: Option<Strategy>,
    /// Most adapters.
    pub top_k: Option<usize>,
    /// Least confidence; see [`Policy::threshold`].
    pub threshold: Option<f32>,
}

impl Ask {
    /// A text, to be routed as is usual.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Leaves out adapters that were added for another base model.
    #[must_use]
    pub fn for_base(mut self, fingerprint: impl Into<String>) -> Self {
        self.metadata.push((profile::BASE.to_owned(), fingerprint.into()));
        self
    }

    fn gate(&self) -> Gate {
        let mut keys: Vec<&String> = self.metadata.iter().map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        let gate = keys.into_iter().fold(Gate::open(), |gate, key| {
            gate.any_of(key.clone(), self.metadata.iter().filter(|(k, _)| k == key).map(|(_, value)| value.clone()))
        });
        if self.strict { gate.strict() } else { gate }
    }

    fn policy(&self, usual: Strategy) -> Policy {
        let plain = Policy::of(self.strategy.unwrap_or(usual));
        let wanted = self.metadata.iter().filter(|(key, _)| TAG_KEYS.contains(&key.as_str()));
        Policy {
            top_k: self.top_k.unwrap_or(plain.top_k).clamp(1, AdapterSet::MAX),
            threshold: self.threshold,
            wanted: wanted.map(|(_, value)| value.clone()).collect(),
            ..plain
        }
    }

    /// All that a decision depends on, apart from the library.
    fn key(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        part(self.text.as_bytes());
        part(self.strategy.map_or("", Strategy::name).as_bytes());
        part(&[u8::from(self.strict), self.top_k.map_or(0, |k| k.min(255) as u8)]);
        part(&self.threshold.map_or(u32::MAX, f32::to_bits).to_le_bytes());
        for (key, value) in &self.metadata {
            part(key.as_bytes());
            part(value.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// Metadata that names tags.
const TAG_KEYS: [&str; 4] = ["tag", "domain", "skill", "task"];
/// Candidates asked of the index by meaning, and as many by words.
const LIMIT: usize = 64;
/// Classes of the head that become candidates whether the index found them or not.
const HEAD_CANDIDATES: usize = 8;
/// The number of vectors of a candidate that only the head knows of.
const FAVOURITE: usize = usize::MAX;
/// Judged requests held back from which on a new router must not do worse on them than the old one.
const COMPARED: usize = 10;
/// Adapters whose facts are kept in memory.
const FACTS: usize = 16_384;

/// A router over one library. To be shared between threads.
pub struct Router {
    library: Library,
    folder: PathBuf,
    embedder: Arc<dyn Embedder>,
    index: RwLock<Index>,
    /// The generation of the library that the index has.
    seen: AtomicU64,
    tuned: RwLock<Arc<Tuned>>,
    cache: Mutex<DecisionCache>,
    facts: Mutex<(u64, HashMap<AdapterDigest, Option<Facts>>)>,
    started: Instant,
    /// The same library seen through a slower embedder.
    second: Option<Box<Router>>,
}

/// What turns texts into vectors: one embedder, and perhaps a slower one for requests that the first is unsure of.
#[derive(Clone)]
pub struct Embedders {
    /// Asked first.
    pub first: Arc<dyn Embedder>,
    /// Asked where the first one's margin is small.
    pub second: Option<Arc<dyn Embedder>>,
}

impl From<Arc<dyn Embedder>> for Embedders {
    fn from(first: Arc<dyn Embedder>) -> Self {
        Self { first, second: None }
    }
}

/// What was measured for this library.
#[derive(Clone, Debug, Default)]
struct Tuned {
    tuning: Tuning,
    /// For each strategy the confidence at which 98 % were right when it was measured.
    thresholds: HashMap<Strategy, f32>,
    /// A head that beat the hybrid on held-back prompts.
    head: Option<Arc<Head>>,
}

impl Router {
    /// Opens the library in `dir` for routing and brings its index up to date: milliseconds after few changes, the
    /// time to embed everything when there is none yet. `notice` hears of what takes long or is made anew.
    ///
    /// # Errors
    /// The library or its `derived` folder cannot be used.
    pub fn open(
        dir: &Path,
        embedders: impl Into<Embedders>,
        notice: &mut dyn FnMut(String),
    ) -> Result<Self, RoutingError> {
        let Embedders { first, second } = embedders.into();
        let open = || Library::open(dir, Access::Read);
        let mut router = Self::over(open()?, first, notice)?;
        if let Some(second) = second {
            router.second = Some(Box::new(Self::over(open()?, second, notice)?));
        }
        Ok(router)
    }

    /// The same over a library that is open.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub fn over(
        library: Library,
        embedder: Arc<dyn Embedder>,
        notice: &mut dyn FnMut(String),
    ) -> Result<Self, RoutingError> {
        let folder = upkeep::folder(&library, &*embedder);
        let index = upkeep::open(&folder, &*embedder, notice)?;
        let tuned = tuned::load(&folder, &*embedder).unwrap_or_else(|error| {
            notice(format!("{error}; the strategy hybrid is used"));
            Tuned::default()
        });
        let router = Self {
            library,
            folder,
            embedder,
            index: RwLock::new(index),
            seen: AtomicU64::new(u64::MAX),
            tuned: RwLock::new(Arc::new(tuned)),
            cache: Mutex::default(),
            facts: Mutex::new((u64::MAX, HashMap::new())),
            started: Instant::now(),
            second: None,
        };
        router.update(notice)?;
        Ok(router)
    }

    /// Brings the index up to date with the library. Costs a few microseconds where nothing has changed; called by
    /// every [`Router::route`].
    ///
    /// # Errors
    /// The library or the index cannot be read or written.
    pub fn update(&self, notice: &mut dyn FnMut(String)) -> Result<Followed, RoutingError> {
        let generation = self.library.generation()?;
        if self.seen.load(Ordering::Acquire) == generation {
            return Ok(Followed::default());
        }
        let mut told = 0;
        let mut progress = |done: u64| {
            if done >= told + 50_000 {
                told = done;
                notice(format!("routing index: {done} adapters"));
            }
        };
        let mut followed = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            upkeep::follow(&self.library, &index, &self.folder, &*self.embedder, &mut progress)?
        };
        if followed.start_again {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            *index = upkeep::clear(&self.folder, &*self.embedder)?;
            followed = upkeep::follow(&self.library, &index, &self.folder, &*self.embedder, &mut progress)?;
        }
        self.seen.store(generation, Ordering::Release);
        Ok(followed)
    }

    /// Seals what was added to the index, if it is worth the time. To be called after many additions.
    ///
    /// # Errors
    /// The disk refuses; the index stays as it was.
    pub fn compact(&self) -> Result<bool, RoutingError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = index.wants_compaction();
        if wanted {
            index.compact()?;
        }
        Ok(wanted)
    }

    /// Decides for a request: from memory where the same was asked in the last five minutes and the library is as it
    /// was.
    ///
    /// # Errors
    /// The library or the index cannot be read.
    pub fn route(&self, ask: &Ask) -> Result<Arc<Route>, RoutingError> {
        self.update(&mut |_| ())?;
        let state = self.seen.load(Ordering::Acquire);
        let key = ask.key();
        if let Some(route) = lock(&self.cache).get(&key, state, self.started.elapsed()) {
            return Ok(route);
        }
        if let Some(second) = &self.second {
            second.update(&mut |_| ())?;
        }
        let route = Arc::new(self.decide(ask));
        lock(&self.cache).put(key, state, self.started.elapsed(), route.clone());
        Ok(route)
    }

    /// Decides without looking at what was decided before. With two embedders, the second decides where the best
    /// candidate of the first is hardly nearer than another.
    pub fn decide(&self, ask: &Ask) -> Route {
        let route = self.decide_alone(ask);
        match &self.second {
            Some(second) if Cascade::default().needs_second_opinion(margin(&route)) => second.decide_alone(ask),
            _ => route,
        }
    }

    fn decide_alone(&self, ask: &Ask) -> Route {
        let tuned = self.tuned();
        let policy = ask.policy(self.usual());
        let gate = ask.gate();
        let head = tuned.head.as_deref().filter(|_| policy.strategy == Strategy::Learned);
        let vector = self.embedder.embed(&ask.text);
        let evidence = self.with_index(|index| gather(index, &vector, &ask.text, &gate, head));
        let mut route = decide(&policy, &tuned.tuning, &ask.text, &evidence, self);
        if policy.strategy == Strategy::Learned && tuned.head.is_none() {
            route = decide(&Policy { strategy: Strategy::Hybrid, ..policy }, &tuned.tuning, &ask.text, &evidence, self);
            route.reason.push_str("; no trained router is loaded, see `smoa adapter train-router`");
        }
        route
    }

    /// Reads the index.
    fn with_index<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn tuned(&self) -> Arc<Tuned> {
        self.tuned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adapters in the index.
    pub fn len(&self) -> usize {
        self.with_index(Index::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sizes of the index.
    pub fn index_stats(&self) -> IndexStats {
        self.with_index(Index::stats)
    }

    /// What the decision cache did.
    pub fn cache_stats(&self) -> CacheStats {
        lock(&self.cache).stats()
    }

    /// For each strategy the confidence at which 98 % of the answered requests were right in training.
    pub fn thresholds(&self) -> HashMap<Strategy, f32> {
        self.tuned().thresholds.clone()
    }

    /// Whether a trained head is in use.
    pub fn is_trained(&self) -> bool {
        self.tuned().head.is_some()
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Trains a head and curves for this library and keeps what is worth keeping; see [`TrainOptions`].
    ///
    /// # Errors
    /// Too few example prompts; the disk refuses.
    pub fn train(
        &self,
        data: &[Labelled],
        options: &TrainOptions,
        notice: &mut dyn FnMut(String),
    ) -> Result<Report, RoutingError> {
        if let Some(second) = &self.second {
            second.train(data, options, notice)?;
        }
        self.update(notice)?;
        let (tuned, mut report) = {
            let live = self.index.read().unwrap_or_else(PoisonError::into_inner);
            train::train(&self.library, &live, &self.folder, &*self.embedder, data, options, notice)?
        };
        let held = train::Judgements::of(&self.library)?.held;
        let old = self.tuned();
        report.judged_held = held.len();
        report.judged_right = [&*old, &tuned].map(|tuned| self.agreement(&held, tuned));
        let [before, after] = report.judged_right;
        // With hardly any judgements held back, one of them must not decide.
        report.replaced = options.force || held.len() < COMPARED || after >= before;
        if !report.replaced {
            return Ok(report);
        }
        tuned::save(&self.folder, &*self.embedder, &tuned, &report)?;
        *self.tuned.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tuned);
        *lock(&self.cache) = DecisionCache::default();
        Ok(report)
    }
}

impl Router {
    /// The share of judged requests that would be decided as people judged them: to the adapter whose answer was good, or
    /// not to the one whose answer was bad.
    fn agreement(&self, judged: &[Judged], tuned: &Tuned) -> f64 {
        let policy = Policy::of(if tuned.head.is_some() { Strategy::Learned } else { Strategy::Hybrid });
        let right = judged.iter().filter(|judged| {
            let vector = self.embedder.embed(&judged.text);
            let head = tuned.head.as_deref();
            let evidence = self.with_index(|index| gather(index, &vector, &judged.text, &Gate::open(), head));
            let (ranking, _) = rank(&policy, &tuned.tuning, &judged.text, &evidence, self);
            ranking.first().is_some_and(|(_, best)| best.digest == judged.digest) == judged.good
        });
        right.count() as f64 / judged.len().max(1) as f64
    }
}

/// Brings the indexes of a library up to date if requests were ever routed over it with these embedders, which are
/// made only then.
///
/// # Errors
/// As [`Router::open`].
pub fn follow_if_used(dir: &Path, embedders: impl FnOnce() -> Option<Embedders>) -> Result<(), RoutingError> {
    let used = Library::open(dir, Access::Read)?.derived().join("routing").is_dir();
    let Some(Embedders { first, second }) = used.then(embedders).flatten() else { return Ok(()) };
    for embedder in [Some(first), second].into_iter().flatten() {
        let library = Library::open(dir, Access::Read)?;
        if upkeep::folder(&library, &*embedder).is_dir() {
            Router::over(library, embedder, &mut |_| ())?.compact()?;
        }
    }
    Ok(())
}

/// How much nearer the best candidate's centroid is than any other's.
fn margin(route: &Route) -> f32 {
    margin_of(route.candidates.iter().map(|c| c.evidence.centroid))
}

/// How much greater the first of some numbers is than any other.
fn margin_of(mut numbers: impl Iterator<Item = f32>) -> f32 {
    let best = numbers.next();
    best.map_or(f32::INFINITY, |best| best - numbers.fold(f32::NEG_INFINITY, f32::max))
}

/// Whether a head gives an adapter more than next to nothing.
fn likely((_, log): &(AdapterDigest, f32)) -> bool {
    *log > -4.0
}

/// Candidates of the index, with what a head says of them; and the head's own favourites.
fn gather(index: &Index, vector: &[f32], text: &str, gate: &Gate, head: Option<&Head>) -> Vec<Evidence> {
    let mut logs = head.map(|head| head.by_digest(vector, text)).unwrap_or_default();
    let query = Query { vector, text, gate, limit: LIMIT };
    let found = index.search(&query);
    let mut evidence: Vec<Evidence> = found.into_iter().map(|c| Evidence::of(c, logs.remove(&c.digest))).collect();
    if !gate.is_open() && evidence.iter().any(|e| e.learned.is_some()) {
        let mut others: Vec<(AdapterDigest, f32)> = logs.iter().map(|(d, log)| (*d, *log)).filter(likely).collect();
        others.sort_by_key(|(digest, _)| *digest);
        let digests: Vec<AdapterDigest> = others.iter().map(|(digest, _)| *digest).collect();
        let known = index.look_up(&query, &digests).into_iter().zip(&others);
        let outside: Vec<Evidence> = known.filter_map(|(c, (_, log))| Some(Evidence::of(c?, Some(*log)))).collect();
        twins::hand_over(&mut evidence, &outside);
    }
    // The least of what was found stands for what was not.
    let least = |of: fn(&Evidence) -> f32| evidence.iter().map(of).fold(f32::INFINITY, f32::min);
    let (semantic, centroid, name) = (least(|e| e.semantic), least(|e| e.centroid), least(|e| e.name));
    // What the index did not find may not pass the gate.
    if semantic.is_finite() && gate.is_open() {
        let mut rest: Vec<(AdapterDigest, f32)> = logs.into_iter().collect();
        rest.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let favourites = rest.into_iter().take(HEAD_CANDIDATES).filter(likely);
        evidence.extend(favourites.map(|(digest, log)| Evidence {
            digest,
            semantic,
            centroid,
            name,
            keyword: 0.0,
            vectors: FAVOURITE,
            close: [-1.0; CLOSE],
            learned: Some(log),
        }));
    }
    evidence
}

impl Catalogue for Router {
    fn facts(&self, digest: AdapterDigest) -> Option<Facts> {
        let generation = self.seen.load(Ordering::Acquire);
        {
            let mut facts = lock(&self.facts);
            if facts.0 != generation || facts.1.len() >= FACTS {
                *facts = (generation, HashMap::new());
            }
            if let Some(known) = facts.1.get(&digest) {
                return known.clone();
            }
        }
        let entry = self.library.find_digest(digest).ok().filter(|entry| entry.removed.is_none());
        let found = entry.map(|entry| {
            let card = entry.metadata.card;
            Facts {
                name: entry.name.to_string(),
                path: card.path.unwrap_or_default(),
                tags: [card.tags, card.domains, card.skills, card.tasks].concat(),
                format: card.default_format,
            }
        });
        lock(&self.facts).1.insert(digest, found.clone());
        found
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
