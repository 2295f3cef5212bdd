//! Many requests, one engine: the thread that owns the engine, its queue, and the handle front ends hold.
//!
//! Policy is in [`plan`] (which rows next, under which adapters) and [`prefix`] (where a request goes and what it
//! may reuse), both pure, as are [`borders`] (where the adapters of an answer change) and [`draft`] (guesses at what comes next); [`batch`] carries decisions out; [`sequence`] is one request's way to its last token.

mod batch;
pub mod borders;
mod command;
pub mod counts;
pub mod draft;
pub mod parked;
pub mod plan;
pub mod prefix;
mod sequence;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::borders::Border;
use self::command::Command;
use self::counts::Counts;
use self::parked::{Parked, ParkedCounters};
use crate::adapter::{AdapterFile, AdapterSet, Timeline};
use crate::engine::encoder::Encoder;
use crate::engine::lanes::{LaneAdapter, Residents};
use crate::engine::saved::Saved;
use crate::engine::{Engine, EngineFacts, Token, Tokenizer};
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::grammar::Matcher;
use crate::sampling::Sampling;

/// Stack of the engine thread. llama.cpp's kernels expect the 8 MiB of a main thread; those for AMX overrun the 2 MiB
/// that Rust gives to others.
const STACK_BYTES: usize = 16 << 20;

/// The adapters of one request: the sets are the key, the files keep the bytes alive until the request ends.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// The weighted set of each position.
    pub sets: Timeline,
    /// Where the set changes inside the answer, in order.
    pub borders: Vec<Border>,
    /// The files of the members of all sets.
    pub files: Vec<Arc<AdapterFile>>,
    /// Those that were laid out for mixed batches when the request was submitted: held, so that none has to be laid out
    /// again on the engine's thread.
    pub ready: Vec<Arc<LaneAdapter>>,
}

impl Lease {
    /// All sets that may apply.
    pub fn all_sets(&self) -> impl Iterator<Item = &AdapterSet> {
        self.sets.sets().chain(self.borders.iter().map(|border| &border.set))
    }
}

/// A request as the decode loop sees it: nothing left to check but the engine's own limits.
pub struct Job {
    /// At least one token, fewer than the context holds.
    pub prompt: Vec<Token>,
    /// Adapters to apply.
    pub lease: Lease,
    /// Format to enforce.
    pub matcher: Option<Matcher>,
    /// How tokens are chosen; validated, ids below the vocabulary's size.
    pub sampling: Sampling,
    /// When to end.
    pub limits: JobLimits,
    /// Reuse and keep a cached prefix.
    pub cache_prompt: bool,
    /// The slot it must run in; `None` for whichever fits best.
    pub slot: Option<usize>,
    /// A state that holds the beginning of its prompt, read for this engine's stamp. It is used when no slot holds more.
    pub saved: Option<Arc<Saved>>,
    /// Where the state of its sequence goes when it has ended with all its tokens evaluated, as one that generates
    /// nothing does.
    pub keep: Option<Sender<Saved>>,
    /// How many alternatives to report for each token; 0 for none.
    pub n_probs: usize,
    /// Show control tokens in the text, as the vocabulary spells them.
    pub special: bool,
    /// How its answer is drafted.
    pub drafts: draft::Drafting,
    /// Where events go. A receiver that is gone cancels the request.
    pub events: Sender<Event>,
    /// Cancels the request.
    pub cancel: CancelToken,
    /// When it was submitted.
    pub submitted: Instant,
}

impl Job {
    /// The same request once more, with a matcher and a channel of its own.
    pub fn again(&self, matcher: Option<Matcher>, events: Sender<Event>) -> Job {
        Job {
            prompt: self.prompt.clone(),
            lease: self.lease.clone(),
            matcher,
            sampling: self.sampling.clone(),
            limits: self.limits.clone(),
            cache_prompt: self.cache_prompt,
            slot: self.slot,
            saved: self.saved.clone(),
            keep: None,
            n_probs: self.n_probs,
            special: self.special,
            drafts: self.drafts,
            events,
            cancel: self.cancel.clone(),
            submitted: Instant::now(),
        }
    }
}

/// When a request ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobLimits {
    /// Most tokens to generate; `None` until the model ends or the context is full.
    pub max_tokens: Option<usize>,
    /// Most time for generating, counted from the first token.
    pub max_time: Option<Duration>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// What to do when the context is full: `None` ends the answer.
    pub shift: Option<Shift>,
}

/// Context shift: forget old tokens and go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// Leading tokens that are never forgotten.
    pub keep: usize,
    /// Tokens forgotten at once; `None` for half of what is not kept.
    pub discard: Option<usize>,
}

/// Cancels a request from any thread. Takes effect within one step.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the request to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is known once the engine is up.
#[derive(Clone)]
pub struct Ready {
    /// Fixed properties of the engine.
    pub facts: EngineFacts,
    /// Shared tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Where adapters are made ready before a job is submitted.
    pub residents: Option<Arc<Residents>>,
    /// Where texts become vectors.
    pub encoder: Option<Arc<dyn Encoder>>,
    /// What the engine's thread has done.
    pub counts: Arc<Counts>,
    /// Prefixes kept in RAM.
    pub parked: Arc<ParkedCounters>,
}

/// What comes in through the bounded queue.
enum Message {
    Job(Box<Job>),
    /// There is a command; it has a way of its own, so that a full queue does not hold it up.
    Wake,
}

/// What the engine thread may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that wait; more are refused.
    pub queue: usize,
    /// Bytes of prefixes that are kept in RAM when they have to leave the context; 0 for none.
    pub cache_ram: u64,
    /// A cached prefix that is a smaller part of a prompt is not used.
    pub least_share: Share,
    /// Whether prompts are read while answers are generated.
    pub continuous: bool,
    /// Prefixes of idle slots go to RAM when a request begins, so that the context is free.
    pub idle_to_ram: bool,
    /// Parts of a cached prompt that stand elsewhere in a new one are moved there, if they have so many tokens; 0 for none.
    pub least_chunk: usize,
}

/// A part of a prompt, from nothing to all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u16);

impl Share {
    /// `None` for what is not from 0 to 1.
    pub fn new(part: f32) -> Option<Self> {
        (0.0..=1.0).contains(&part).then(|| Self((part * 10_000.0).round() as u16))
    }

    /// So many of `n` tokens, rounded up.
    fn of(self, n: usize) -> usize {
        n.saturating_mul(self.0.into()).div_ceil(10_000)
    }
}

impl From<usize> for Limits {
    /// A queue, and nothing in RAM.
    fn from(queue: usize) -> Self {
        Self {
            queue,
            cache_ram: 0,
            least_share: Share::default(),
            continuous: true,
            idle_to_ram: false,
            least_chunk: 0,
        }
    }
}

/// The engine thread. Dropping it lets running requests be cancelled and waits for the thread.
pub struct Worker {
    jobs: Option<SyncSender<Message>>,
    commands: Sender<Command>,
    stop: CancelToken,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread, which makes its engine with `make` and then serves jobs until the worker is dropped.
    ///
    /// # Errors
    /// What `make` answers, or that the thread could not be started.
    pub fn spawn<E, F>(limits: impl Into<Limits>, make: F) -> Result<(Self, Ready), Failure>
    where
        E: Engine,
        F: FnOnce() -> Result<E, Failure> + Send + 'static,
    {
        let limits: Limits = limits.into();
        let Limits { queue, cache_ram, .. } = limits;
        let parked = Parked::new(cache_ram);
        let counters = parked.counters().clone();
        let (jobs, inbox) = sync_channel(queue);
        let (commands, orders) = channel();
        let (ready_out, ready_in) = channel();
        let stop = CancelToken::default();
        let stopping = stop.clone();
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let engine = match make() {
                    Ok(engine) => engine,
                    Err(failure) => return drop(ready_out.send(Err(failure))),
                };
                let ready = Ready {
                    facts: engine.facts().clone(),
                    tokenizer: engine.tokenizer(),
                    residents: engine.residents(),
                    encoder: engine.encoder(),
                    counts: Arc::default(),
                    parked: counters,
                };
                let counts = ready.counts.clone();
                if ready_out.send(Ok(ready)).is_ok() {
                    let mut batch = batch::Batch::new(engine).with_parked(parked);
                    batch.counts = counts;
                    batch.limits = limits;
                    serve(batch, &inbox, &orders, &stopping);
                }
            })
            .map_err(|e| Failure::new(Code::Other, format!("the engine thread could not be started: {e}")))?;
        let worker = Self { jobs: Some(jobs), commands, stop, thread: Some(thread) };
        let gone = || Failure::new(Code::Other, "the engine stopped while it was starting");
        let ready = ready_in.recv().map_err(|_| gone())??;
        Ok((worker, ready))
    }

    /// Queues a job and does not wait.
    ///
    /// # Errors
    /// The queue is full, or the engine has stopped.
    pub fn try_submit(&self, job: Job) -> Result<(), Failure> {
        let Some(jobs) = &self.jobs else { return Err(stopped()) };
        jobs.try_send(Message::Job(Box::new(job))).map_err(|e| match e {
            TrySendError::Full(_) => Failure::new(Code::Busy, "the queue is full; try again later"),
            TrySendError::Disconnected(_) => stopped(),
        })
    }

    /// Queues a job; waits while the queue is full.
    ///
    /// # Errors
    /// The engine has stopped.
    pub fn submit(&self, job: Job) -> Result<(), Failure> {
        self.jobs.as_ref().ok_or_else(stopped)?.send(Message::Job(Box::new(job))).map_err(|_| stopped())
    }

    fn send_command(&self, command: Command) -> Result<(), Failure> {
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        self.commands.send(command).map_err(|_| stopped())?;
        // A full queue wakes the thread as well.
        match jobs.try_send(Message::Wake) {
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
            _ => Ok(()),
        }
    }
}

impl Worker {
    /// Queues jobs from another thread. The engine's thread runs for as long as one of these is held.
    ///
    /// # Errors
    /// The engine has stopped.
    pub fn submitter(&self) -> Result<Submitter, Failure> {
        self.jobs.clone().map(Submitter).ok_or_else(stopped)
    }
}

/// Queues jobs.
pub struct Submitter(SyncSender<Message>);

impl Submitter {
    /// Queues a job; waits while the queue is full.
    ///
    /// # Errors
    /// The engine has stopped.
    pub fn submit(&self, job: Job) -> Result<(), Failure> {
        self.0.send(Message::Job(Box::new(job))).map_err(|_| stopped())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has already ended its requests with a disconnected channel.
            let _ = thread.join();
        }
    }
}

fn stopped() -> Failure {
    Failure::new(Code::Other, "the engine has stopped")
}

/// Serves jobs and commands until the sender is gone and nothing runs, or until told to stop.
fn serve<E: Engine>(
    mut batch: batch::Batch<E>,
    inbox: &Receiver<Message>,
    orders: &Receiver<Command>,
    stop: &CancelToken,
) {
    let take = |batch: &mut batch::Batch<E>, message| match message {
        Message::Job(job) => batch.enqueue(*job),
        Message::Wake => (),
    };
    loop {
        if stop.is_cancelled() {
            return batch.cancel_all();
        }
        orders.try_iter().for_each(|command| batch.order(command));
        if batch.is_idle() {
            match inbox.recv() {
                Ok(message) => take(&mut batch, message),
                Err(_) => return,
            }
            orders.try_iter().for_each(|command| batch.order(command));
        }
        while batch.wants_more() {
            match inbox.try_recv() {
                Ok(message) => take(&mut batch, message),
                Err(_) => break,
            }
        }
        batch.step();
        batch.counts.hold(batch.running_tokens());
    }
}

#[cfg(test)]
mod tests;
