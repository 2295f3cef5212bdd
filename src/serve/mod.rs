//! The HTTP server: llama-server's routes and OpenAI's, Anthropic's and Ollama's over one pipeline.
//!
//! Mechanism only. What JSON means, and how an answer is spelled in each API, is `wire`'s; what happens to a request
//! is `pipeline`'s. Knows no flags, no terminal and no llama.cpp. The few HTTP threads move bytes; a request runs on a
//! blocking thread of its own (`generate`), the engine on its own.
//!
//! The order at the start: bind (so that a taken port is told before a model is read), listen (every route but the
//! page says 503 `Loading model`), load, serve. At the end: no new connections, running answers go on for a while,
//! then their streams end with an error.

mod abort;
mod body;
mod conversations;
mod engine_numbers;
mod generate;
mod guard;
mod keys;
mod listen;
mod metrics;
mod naming;
mod options;
mod reply;
mod routes;
mod seats;
mod stage;
mod state;
mod thoughts;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use keys::Keys;
pub use listen::Socket;
pub use options::{Bounds, Cors, Listen, LooseAdapter, Options, TlsFiles};

use crate::error::{Code, Failure};
use crate::pipeline::Pipeline;
use stage::Snapshot;
use state::State;

/// Asks a server to stop, from any thread.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    /// No new requests; the server ends when the running ones have.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Requests at the same time, running and waiting, over all connections.
const MOST_BLOCKING: usize = 1024;

/// How often it is looked whether the server is idle.
const LOOK: Duration = Duration::from_millis(250);

/// Binds all addresses.
///
/// # Errors
/// TLS files are refused; an address is none or is taken; or one can be reached from other machines while there is no key.
pub fn bind(options: &Options) -> Result<Vec<Socket>, Failure> {
    options.tls.as_ref().map(listen::tls).transpose()?;
    let mut sockets = Vec::new();
    for listen in &options.listen {
        sockets.extend(Socket::bind(listen, options.shared_port)?);
    }
    if let Some(open) = sockets.iter().find(|s| !s.is_local() && options.keys.is_empty()) {
        let url = open.url(options.tls.is_some());
        return Err(Failure::usage(format!(
            "{url} can be reached from other machines: give --api-key or --api-key-file, or listen on 127.0.0.1"
        )));
    }
    Ok(sockets)
}

/// Serves until `stop`. `load` makes the pipeline while the server says that it is loading, and again where the server has
/// slept; `ready` is called then.
///
/// # Errors
/// The model cannot be loaded, or TLS or threads cannot be set up.
pub fn run(
    options: Options,
    sockets: Vec<Socket>,
    stop: &Stop,
    mut load: impl FnMut() -> Result<Pipeline, Failure>,
    mut ready: impl FnMut(&Arc<Pipeline>),
) -> Result<(), Failure> {
    let tls = options.tls.as_ref().map(listen::tls).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .max_blocking_threads(MOST_BLOCKING)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Code::Other, format!("the HTTP threads could not be started: {e}")))?;
    let bounds = options.bounds.clone();
    let state = Arc::new(State::new(options));
    let late = {
        let state = state.clone();
        move || state.seats.abort_all()
    };
    let app = routes::app(state.clone());
    let stopping = stop.0.subscribe();
    let draining = {
        let (state, mut stopping) = (state.clone(), stop.0.subscribe());
        async move {
            let _ = stopping.wait_for(|s| *s).await;
            state.drain();
        }
    };
    runtime.spawn(draining);
    let mut serving = runtime.spawn(listen::accept(sockets, app, tls, bounds, stopping, late));
    let mut load = || load().map(Arc::new).inspect(&mut ready);
    let result = match load() {
        Ok(pipeline) => {
            state.ready(pipeline);
            match state.options.sleep {
                None => drop(runtime.block_on(serving)),
                Some(idle) => while !sleep(&state, &runtime, &mut serving, idle, &mut load) {},
            }
            Ok(())
        }
        Err(failure) => {
            stop.stop();
            Err(failure)
        }
    };
    state.seats.abort_all();
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

/// Waits until the model has been idle for long enough, frees it, waits until it is wanted and loads it again. Whether the
/// server has ended.
fn sleep(
    state: &State,
    runtime: &tokio::runtime::Runtime,
    serving: &mut tokio::task::JoinHandle<()>,
    idle: Duration,
    load: &mut dyn FnMut() -> Result<Arc<Pipeline>, Failure>,
) -> bool {
    let mut wishes = state.stages.wishes();
    loop {
        let ended = async { tokio::time::timeout(idle.min(LOOK), &mut *serving).await.is_ok() };
        if runtime.block_on(ended) {
            return true;
        }
        let answering = state.seats.counts() != (0, 0);
        let slept = state.stages.rest(idle, answering, |pipeline| Snapshot {
            props: routes::properties(state, pipeline, true),
            numbers: engine_numbers::text(pipeline),
            counts: state.counts(),
        });
        if slept {
            break;
        }
    }
    tracing::info!("asleep: model, context and caches are freed");
    state.sleeps(state.counts());
    loop {
        let woken = async {
            tokio::select! {
                _ = &mut *serving => false,
                () = state.stages.wanted(&mut wishes) => true,
            }
        };
        if !runtime.block_on(woken) {
            return true;
        }
        match load() {
            Ok(pipeline) if state.stages.known().is_some_and(|k| k.base != *pipeline.base()) => {
                let message = format!("'{}' is another model than before; restart", state.options.model.display());
                state.stages.stays_asleep(Failure::new(Code::InvalidFile, message));
            }
            Ok(pipeline) => {
                state.stages.awake(pipeline);
                return false;
            }
            Err(failure) => {
                tracing::error!(error = %failure.message, "the model could not be loaded again");
                state.stages.stays_asleep(failure);
            }
        }
    }
}
