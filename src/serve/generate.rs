//! From a parsed request to a response: submitted on a thread of its own, its events turned into frames, and ended
//! when its client goes.
//!
//! A request occupies one blocking thread while it runs. Parsing, templates, grammars and formatting happen there, so
//! the few threads of the HTTP side only move bytes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, wrappers::ReceiverStream};

use super::abort::{Abort, AbortOnDrop};
use super::conversations::{Conversation, Speaking};
use super::reply::{self, Refusal, Reply};
use super::routes::spelled;
use super::seats::{Facts, Place};
use super::state::{Answered, State};
use super::thoughts::Listed;
use crate::error::{Code, Failure};
use crate::event::{Event, FinishReason, Finished};
use crate::pipeline::{Answer, Pipeline, Question};
use crate::request::{Input, Request};
use crate::shelf::UseNote;
use crate::wire::{Head, Problem, Shape, Telling, context_error, settings};

/// Chunks of a stream that may wait for their reader.
const CHUNKS: usize = 64;
/// Frames are joined up to this size while more events are at hand.
const CHUNK_BYTES: usize = 16 << 10;

/// What is to be answered, and how.
pub struct Plan {
    /// The requests, one per answer.
    pub requests: Vec<Request>,
    /// The API's way of telling.
    pub shape: Box<dyn Shape>,
    /// How it is to be told.
    pub telling: Telling,
    /// `text/event-stream` or newline-delimited JSON.
    pub content_type: &'static str,
    /// The model as the response names it.
    pub model: String,
}

/// Server-sent events.
pub const SSE: &str = "text/event-stream";
/// Newline-delimited JSON.
pub const NDJSON: &str = "application/x-ndjson";

/// Runs what `plan` makes of the request.
///
/// # Errors
/// Everything that is refused before the first token, streamed or not.
pub async fn run(
    state: Arc<State>,
    plan: impl FnOnce(&State, &Pipeline) -> Result<Plan, Refusal> + Send + 'static,
) -> Reply {
    run_kept(state, None, plan).await
}

/// As [`run`]; where a key and the id of a conversation are given, its stream outlives its client and can be read again.
///
/// # Errors
/// As there.
pub async fn run_kept(
    state: Arc<State>,
    kept: Option<(u64, String)>,
    plan: impl FnOnce(&State, &Pipeline) -> Result<Plan, Refusal> + Send + 'static,
) -> Reply {
    let pipeline = state.pipeline()?.clone();
    if !pipeline.facts().generates {
        let message = "This server does not support completions: its model makes vectors";
        return Err(Problem::not_supported(message).into());
    }
    let kept = kept.map(|(owner, id)| state.conversations.begin(owner, &id));
    let abort = kept.as_ref().map_or_else(Abort::default, |c| c.abort().clone());
    // Nobody need listen to a conversation.
    let listening = AbortOnDrop(if kept.is_some() { Abort::default() } else { abort.clone() });
    let (first, begun) = oneshot::channel();
    let work = Work { state, pipeline, abort, kept: kept.clone().map(Speaking) };
    tokio::task::spawn_blocking(move || work.run(plan, first));
    match begun.await {
        Ok(Ok(Begun::Whole(value))) => reply::ok(&value),
        Ok(Ok(Begun::Stream(chunks, kind))) => Ok(stream(chunks, kind, listening)),
        Ok(Ok(Begun::Kept(kind))) => {
            let chunks = kept.and_then(|c| c.read(0)).ok_or_else(stopped)?;
            Ok(stream(chunks, kind, listening))
        }
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Failure::new(Code::Other, "the answer broke off inside the server").into()),
    }
}

enum Begun {
    Whole(serde_json::Value),
    Stream(mpsc::Receiver<Bytes>, &'static str),
    /// To be read out of the conversation.
    Kept(&'static str),
}

/// The body of a stream: ends its answer when it is dropped.
struct Chunks {
    inner: ReceiverStream<Bytes>,
    _listening: AbortOnDrop,
}

impl Stream for Chunks {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::pin::Pin::new(&mut self.inner).poll_next(context).map(|chunk| chunk.map(Ok))
    }
}

/// What a conversation has said; its reader may go without ending it.
pub fn replayed(chunks: mpsc::Receiver<Bytes>, kind: &'static str) -> Response {
    stream(chunks, kind, AbortOnDrop::default())
}

fn stream(chunks: mpsc::Receiver<Bytes>, kind: &'static str, listening: AbortOnDrop) -> Response {
    let body = Body::from_stream(Chunks { inner: ReceiverStream::new(chunks), _listening: listening });
    let mut response = reply::typed(200, kind, body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One request on its thread.
struct Work {
    state: Arc<State>,
    pipeline: Arc<Pipeline>,
    abort: Abort,
    /// The conversation that it speaks in.
    kept: Option<Speaking>,
}

/// Why a stream ended early.
enum Broken {
    /// Nobody listens.
    Gone,
    Failed(Failure),
}

impl Work {
    fn run(
        self,
        plan: impl FnOnce(&State, &Pipeline) -> Result<Plan, Refusal>,
        first: oneshot::Sender<Result<Begun, Refusal>>,
    ) {
        let begun = plan(&self.state, &self.pipeline).and_then(|mut plan| {
            let running = self.submit(&mut plan)?;
            Ok((plan, running))
        });
        let (plan, running) = match begun {
            Ok(begun) => begun,
            Err(refusal) => return self.refuse(first, refusal),
        };
        if plan.telling.stream {
            self.stream(plan, running, first);
        } else {
            let mut running = running;
            let _ = first.send(self.whole(plan, &mut running).map(Begun::Whole));
        }
    }

    /// Nothing is said: there is no conversation then.
    fn refuse(&self, first: oneshot::Sender<Result<Begun, Refusal>>, refusal: Refusal) {
        let mut refusal = refusal;
        if let Some(Speaking(conversation)) = &self.kept {
            self.state.conversations.forget(conversation);
            if conversation.is_stopped() {
                refusal = Problem::invalid("the request was cancelled").into();
            }
        }
        let _ = first.send(Err(refusal));
    }

    /// Queues the requests of a plan, all of them or none.
    fn submit(&self, plan: &mut Plan) -> Result<Running, Refusal> {
        let context = self.pipeline.facts().sequence_context;
        let mut tickets = Vec::new();
        let mut places = Vec::new();
        let started = Instant::now();
        let hurry = plan.requests.first().and_then(|r| r.after.as_ref()?.hurry.clone());
        for request in std::mem::take(&mut plan.requests) {
            let input = request.input.clone();
            let facts = Facts { params: settings(&request), limit: request.limits.max_tokens, ..Facts::default() };
            self.note_prompt(&input);
            let ticket = match self.pipeline.try_submit(request) {
                Ok(ticket) => ticket,
                Err(failure) => {
                    self.abort.abort();
                    if failure.code == Code::Usage
                        && let Ok(tokens) = self.pipeline.prompt_tokens(input)
                        && tokens.len() >= context
                    {
                        return Err(Refusal { status: 400, body: context_error(tokens.len(), context) });
                    }
                    return Err(failure.into());
                }
            };
            if ticket.route.is_some() {
                self.state.metrics.routed(ticket.routed);
            }
            self.abort.add(ticket.cancel.clone());
            let adapters = ticket.adapters.iter().map(|a| a.name.clone()).collect();
            places.push(self.state.seats.enter(self.abort.clone(), Facts { adapters, ..facts }));
            tickets.push(ticket);
        }
        let Some(leading) = tickets.first() else {
            return Err(Problem::invalid("there is nothing to answer").into());
        };
        let nonce = self.state.nonce();
        let thoughts = hurry.map(|hurry| self.state.thoughts.list(nonce.clone(), hurry));
        plan.shape.accept(Head {
            nonce: nonce.clone(),
            created: self.state.metrics.now(),
            model: plan.model.clone(),
            fingerprint: self.state.fingerprint(),
            adapters: leading.adapters.clone(),
            route: leading.route.clone(),
            compositions: leading.compositions.clone(),
            warnings: leading.warnings.clone(),
        });
        let names = leading.adapters.iter().map(|a| a.name.clone()).collect();
        let adapters = leading.adapters.iter().map(|a| a.digest).collect();
        let question = leading.question.clone();
        let count = tickets.len();
        let (events, uses) = tickets.into_iter().map(|t| (t.events, t.uses)).unzip();
        Ok(Running {
            events: Events::of(events),
            uses,
            places,
            count,
            names,
            nonce,
            adapters,
            question,
            started,
            _thoughts: thoughts,
        })
    }

    /// Writes the prompt as the model reads it (what adapters put before it aside) to a file of its own, where this was
    /// asked for.
    fn note_prompt(&self, input: &Input) {
        let Some(folder) = &self.state.options.prompt_files else { return };
        let Ok(tokens) = self.pipeline.prompt_tokens(input.clone()) else { return };
        let file = folder.join(format!("{}-{}.txt", self.state.metrics.now(), self.state.nonce()));
        if let Err(e) = write_private(&file, &spelled(&self.pipeline, &tokens)) {
            tracing::warn!(error = %e, "--log-prompts-dir");
        }
    }

    fn whole(&self, mut plan: Plan, running: &mut Running) -> Result<serde_json::Value, Refusal> {
        let mut answers: Vec<(String, Vec<u32>, Vec<_>)> = vec![Default::default(); running.count];
        let mut finished: Vec<Option<Finished>> = vec![None; running.count];
        while finished.iter().any(Option::is_none) {
            let (index, event) = match running.events.next(Duration::MAX) {
                Ok(next) => next,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Err(stopped().into()),
            };
            running.note(index, &event);
            match event {
                Event::Prefilled { .. } => (),
                Event::Token(token) => {
                    let (text, tokens, probabilities) = &mut answers[index];
                    *text += &token.text;
                    tokens.extend(token.tokens);
                    probabilities.extend(token.probabilities);
                }
                Event::Finished(f) => {
                    self.check(&f)?;
                    self.count(running, &f);
                    finished[index] = Some(f);
                }
                Event::Failed(failure) => {
                    self.abort.abort();
                    return Err(failure.into());
                }
            }
        }
        let whole = |((text, tokens, probabilities), finished): ((String, _, _), Option<Finished>)| {
            finished.map(|finished| Answer { text, tokens, probabilities, finished })
        };
        let answers: Vec<Answer> = answers.into_iter().zip(finished).filter_map(whole).collect();
        self.remember(running);
        plan.shape.whole(&answers).map_err(Refusal::from)
    }

    /// Waits for the first event, so that what fails before it is an HTTP error; then streams.
    fn stream(&self, mut plan: Plan, mut running: Running, first: oneshot::Sender<Result<Begun, Refusal>>) {
        let next = loop {
            match running.events.next(Duration::MAX) {
                Ok((_, Event::Failed(failure))) => return self.refuse(first, failure.into()),
                Ok(_) if self.kept.as_ref().is_some_and(|k| k.0.is_stopped()) => {
                    return self.refuse(first, stopped().into());
                }
                Ok(next) => break next,
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return self.refuse(first, stopped().into()),
            }
        };
        let out = match &self.kept {
            Some(Speaking(conversation)) => {
                // Its client may have gone already.
                let _ = first.send(Ok(Begun::Kept(plan.content_type)));
                Out::Kept(conversation.clone())
            }
            None => {
                let (sender, chunks) = mpsc::channel(CHUNKS);
                if first.send(Ok(Begun::Stream(chunks, plan.content_type))).is_err() {
                    return self.abort.abort();
                }
                Out::Reader { sender, patience: self.state.options.bounds.reader }
            }
        };
        if let Err(broken) = self.tell(&mut plan, &mut running, next, &out) {
            self.abort.abort();
            if let Broken::Failed(failure) = broken {
                let body = Problem::from(failure).body();
                let text: String = plan.shape.failed(body).iter().map(crate::wire::Frame::to_text).collect();
                let _ = out.send(text);
            }
        }
    }

    fn tell(&self, plan: &mut Plan, running: &mut Running, next: (usize, Event), out: &Out) -> Result<(), Broken> {
        let ping = plan.telling.ping.unwrap_or(self.state.options.ping).filter(|_| plan.content_type == SSE);
        let mut next = Some(next);
        let mut left = running.count;
        let mut text = String::new();
        loop {
            let (index, event) = match next.take().map_or_else(|| running.events.try_next(), Ok) {
                Ok(next) if text.len() < CHUNK_BYTES => next,
                Ok(later) => {
                    out.send(std::mem::take(&mut text))?;
                    next = Some(later);
                    continue;
                }
                Err(TryRecvError::Disconnected) => return Err(Broken::Failed(stopped())),
                Err(TryRecvError::Empty) => {
                    if !text.is_empty() {
                        out.send(std::mem::take(&mut text))?;
                    }
                    match running.events.next(ping.unwrap_or(Duration::MAX)) {
                        Ok(later) => next = Some(later),
                        Err(RecvTimeoutError::Timeout) if ping.is_some() => out.send(":\n\n".into())?,
                        Err(RecvTimeoutError::Timeout) => (),
                        Err(RecvTimeoutError::Disconnected) => return Err(Broken::Failed(stopped())),
                    }
                    continue;
                }
            };
            running.note(index, &event);
            let shape = &mut plan.shape;
            let frames = match event {
                Event::Prefilled { prompt, cached } if index == 0 => shape.begin(prompt, cached),
                Event::Prefilled { .. } => Vec::new(),
                Event::Token(token) => shape.token(index, &token),
                Event::Finished(f) => {
                    self.check(&f).map_err(Broken::Failed)?;
                    self.count(running, &f);
                    left -= 1;
                    let mut frames = shape.finished(index, &f);
                    if left == 0 {
                        frames.extend(shape.end());
                    }
                    frames
                }
                Event::Failed(failure) => return Err(Broken::Failed(failure)),
            };
            frames.iter().for_each(|f| text += &f.to_text());
            if left == 0 {
                self.remember(running);
                return out.send(text);
            }
        }
    }

    /// An answer that was cancelled while someone listens: the server is stopping.
    fn check(&self, finished: &Finished) -> Result<(), Failure> {
        match finished.reason {
            FinishReason::Cancelled => Err(Failure::new(Code::Terminated, "the server is stopping; the answer is cut")),
            _ => Ok(()),
        }
    }

    fn count(&self, running: &Running, finished: &Finished) {
        let t = &finished.timings;
        tracing::info!(
            reason = finished.reason.name(),
            adapters = running.adapters.len(),
            cached = t.cache_n,
            prompt = t.prompt_n,
            predicted = t.predicted_n,
            queued_ms = t.queued.as_millis(),
            ms = running.started.elapsed().as_millis(),
            "answer"
        );
        self.state.metrics.answered(&finished.timings, finished.reason.name(), &running.names);
    }

    /// All answers are complete: their adapters' use counts as a good one.
    fn remember(&self, running: &mut Running) {
        running.uses.iter_mut().for_each(UseNote::succeeded);
        let answered = Answered { adapters: running.adapters.clone(), question: running.question.take() };
        self.state.remember(running.nonce.clone(), answered);
    }
}

/// Writes a new file that only its owner reads.
fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

fn stopped() -> Failure {
    Failure::new(Code::Other, "the engine stopped before the answer was complete")
}

/// The way to the reader.
enum Out {
    Reader {
        sender: mpsc::Sender<Bytes>,
        patience: Duration,
    },
    /// To the conversation, which keeps it for whoever reads.
    Kept(Arc<Conversation>),
}

impl Out {
    /// Hands a chunk over; gives up when the reader takes nothing for too long.
    fn send(&self, text: String) -> Result<(), Broken> {
        let (sender, patience) = match self {
            Out::Reader { sender, patience } => (sender, *patience),
            Out::Kept(conversation) if conversation.say(text.as_bytes()) => return Ok(()),
            Out::Kept(_) => return Err(Broken::Gone),
        };
        let mut chunk = Bytes::from(text);
        let started = Instant::now();
        loop {
            chunk = match sender.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(Broken::Gone),
                Err(mpsc::error::TrySendError::Full(_)) if started.elapsed() > patience => {
                    return Err(Broken::Gone);
                }
                Err(mpsc::error::TrySendError::Full(chunk)) => chunk,
            };
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Answers under way.
struct Running {
    events: Events,
    places: Vec<Place>,
    count: usize,
    names: Vec<String>,
    nonce: String,
    /// Counted when this is dropped.
    uses: Vec<UseNote>,
    adapters: Vec<crate::adapter::AdapterDigest>,
    question: Option<Question>,
    started: Instant,
    _thoughts: Option<Listed>,
}

impl Running {
    fn note(&self, index: usize, event: &Event) {
        let Some(place) = self.places.get(index) else { return };
        match event {
            Event::Prefilled { prompt, cached } => place.note(|f| (f.prompt, f.cached) = (*prompt, *cached)),
            Event::Token(t) => place.note(|f| f.decoded += t.tokens.len()),
            Event::Finished(_) | Event::Failed(_) => (),
        }
    }
}

/// The events of all answers, each with the answer's index.
enum Events {
    One(Receiver<Event>),
    Many(Receiver<(usize, Event)>),
}

impl Events {
    fn of(mut events: Vec<Receiver<Event>>) -> Self {
        if events.len() == 1 {
            return Events::One(events.remove(0));
        }
        let (sender, merged) = channel();
        for (index, one) in events.into_iter().enumerate() {
            let sender = sender.clone();
            // Ends with the last event of its answer, or when nobody takes them any more.
            std::thread::spawn(move || one.iter().try_for_each(|e| sender.send((index, e)).ok()));
        }
        Events::Many(merged)
    }

    fn next(&self, patience: Duration) -> Result<(usize, Event), RecvTimeoutError> {
        // A deadline that lies too far ahead to be a time overflows inside the standard library.
        let patience = patience.min(Duration::from_secs(3600));
        match self {
            Events::One(events) => events.recv_timeout(patience).map(|e| (0, e)),
            Events::Many(events) => events.recv_timeout(patience),
        }
    }

    fn try_next(&self) -> Result<(usize, Event), TryRecvError> {
        match self {
            Events::One(events) => events.try_recv().map(|e| (0, e)),
            Events::Many(events) => events.try_recv(),
        }
    }
}
