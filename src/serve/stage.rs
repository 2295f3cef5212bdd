//! Whether the model is loading, loaded or asleep; who is at work, and when the server may go to sleep.
//!
//! A server that is told to (`--sleep-idle-seconds`) frees model, context and caches after a while without work, and loads
//! them again for the next request that needs them. What it says of itself does not need them: [`Known`] stays.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use crate::engine::EngineFacts;
use crate::error::Failure;
use crate::gguf::ModelFacts;
use crate::pipeline::Pipeline;
use crate::scheduler::counts::Reading;

/// What is known of the model once it has been loaded, asleep or not.
#[derive(Debug)]
pub struct Known {
    /// What its file says.
    pub base: ModelFacts,
    /// What the engine says.
    pub facts: EngineFacts,
}

/// What is told of a pipeline that is gone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// GET `/props`.
    pub props: Value,
    /// Lines of `/metrics`.
    pub numbers: String,
    /// What the engine's threads have done, all so far.
    pub counts: Reading,
}

/// How far the model is.
#[derive(Clone)]
pub enum Stage {
    /// Being loaded for the first time.
    Loading,
    /// Ready.
    Awake(Arc<Pipeline>),
    /// Freed.
    Asleep(Arc<Snapshot>),
}

/// See the module.
pub struct Stages {
    now: RwLock<Stage>,
    known: OnceLock<Known>,
    /// Requests that need the model and have not been answered, or not begun to be.
    working: AtomicUsize,
    /// When one was last seen.
    worked: Mutex<Instant>,
    /// Counts what has been wished for and come about, so that nobody waits for what has happened.
    wishes: watch::Sender<u64>,
    wakings: watch::Sender<(u64, Option<Failure>)>,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            now: RwLock::new(Stage::Loading),
            known: OnceLock::new(),
            working: AtomicUsize::new(0),
            worked: Mutex::new(Instant::now()),
            wishes: watch::Sender::new(0),
            wakings: watch::Sender::new((0, None)),
        }
    }
}

/// A request that needs the model, until it is dropped.
pub struct AtWork<'s>(&'s Stages);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.touch();
        self.0.working.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Stages {
    /// Where it stands.
    pub fn now(&self) -> Stage {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of the model; nothing before it was loaded for the first time.
    pub fn known(&self) -> Option<&Known> {
        self.known.get()
    }

    /// The model is loaded, again or for the first time.
    pub fn awake(&self, pipeline: Arc<Pipeline>) {
        self.known.get_or_init(|| Known { base: pipeline.base().clone(), facts: pipeline.facts().clone() });
        self.touch();
        self.set(Stage::Awake(pipeline));
        self.wakings.send_modify(|(n, failure)| (*n, *failure) = (*n + 1, None));
    }

    /// It could not be loaded again: those who wait are told why.
    pub fn stays_asleep(&self, failure: Failure) {
        self.wakings.send_modify(|(n, why)| (*n, *why) = (*n + 1, Some(failure)));
    }

    /// Notes a request that needs the model.
    pub fn begin(&self) -> AtWork<'_> {
        self.working.fetch_add(1, Ordering::SeqCst);
        self.touch();
        AtWork(self)
    }

    /// Waits, where the server is asleep, until it is not.
    ///
    /// # Errors
    /// The model cannot be loaded again.
    pub async fn wake(&self) -> Result<(), Failure> {
        let mut wakings = self.wakings.subscribe();
        wakings.borrow_and_update();
        if !matches!(self.now(), Stage::Asleep(_)) {
            return Ok(());
        }
        self.wishes.send_modify(|n| *n += 1);
        // The sender is ours.
        let _ = wakings.changed().await;
        let failure = wakings.borrow().1.clone();
        failure.map_or(Ok(()), Err)
    }

    /// Waits until someone wants the server awake.
    pub async fn wanted(&self, wishes: &mut watch::Receiver<u64>) {
        let _ = wishes.changed().await;
    }

    /// For [`Stages::wanted`]; wishes from now on count.
    pub fn wishes(&self) -> watch::Receiver<u64> {
        let mut wishes = self.wishes.subscribe();
        wishes.mark_unchanged();
        wishes
    }

    /// Frees the model if nothing has needed it for `idle`, and nothing does now. `answering`: answers are under way.
    /// `snapshot` makes what is told meanwhile. Whether it was freed.
    pub fn rest(&self, idle: Duration, answering: bool, snapshot: impl FnOnce(&Pipeline) -> Snapshot) -> bool {
        if answering || self.working.load(Ordering::SeqCst) > 0 {
            self.touch();
            return false;
        }
        if self.worked.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < idle {
            return false;
        }
        let Stage::Awake(pipeline) = self.now() else { return false };
        let told = Arc::new(snapshot(&pipeline));
        drop(pipeline);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        // A request counts before it looks: under this lock none can slip in between.
        let alone = matches!(&*now, Stage::Awake(pipeline) if Arc::strong_count(pipeline) == 1);
        if !alone || self.working.load(Ordering::SeqCst) > 0 {
            return false;
        }
        let before = std::mem::replace(&mut *now, Stage::Asleep(told));
        drop(now);
        // Ends the engine's thread and frees what it holds; takes a while.
        drop(before);
        true
    }

    fn touch(&self) {
        *self.worked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn set(&self, stage: Stage) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}
