//! smoa, a sparse mixture of adapters: one quantized base model in memory, LoRA adapters chosen per request,
//! applied in continuous batches, with the form of the answer guaranteed.
//!
//! The flow of one request, and the type at each arrow, is in [`pipeline`]:
//!
//! ```text
//! cli            bytes, JSON, flags -> Request          (serde, clap and printing live only here)
//! request        Request -> ValidRequest                every number in range
//! adapter        paths -> Lease { AdapterSet, files }   mapped, checked, identified by content
//! grammar        Source -> Matcher                      or an error before the first token
//! prompt         messages -> Prompt                     user text never becomes a control token
//! scheduler      Job -> Event, Event, Finished          one thread owns the engine
//! ```
//!
//! Run it with the scripted engine, no model needed:
//!
//! ```
//! use smoa::engine::{Engine, fake::FakeEngine};
//! use smoa::event::Event;
//! use smoa::scheduler::{CancelToken, Job, JobLimits, Lease, Worker};
//!
//! let (worker, ready) = Worker::spawn(8, || Ok(FakeEngine::new(256, 2).scripted([("2+2=", "4")])))?;
//! let (events, answer) = std::sync::mpsc::channel();
//! let prompt = smoa::prompt::Prompt::raw("2+2=".into());
//! worker.submit(Job {
//!     prompt: ready.tokenizer.tokenize(&prompt, true),
//!     lease: Lease::default(),
//!     matcher: None,
//!     sampling: Default::default(),
//!     limits: JobLimits::default(),
//!     cache_prompt: true,
//!     slot: None,
//!     saved: None,
//!     keep: None,
//!     n_probs: 0,
//!     special: false,
//!     drafts: Default::default(),
//!     events,
//!     cancel: CancelToken::default(),
//!     submitted: std::time::Instant::now(),
//! })?;
//! let text: String = answer.iter().filter_map(|e| if let Event::Token(t) = e { Some(t.text) } else { None }).collect();
//! assert_eq!(text, "4");
//! # Ok::<(), smoa::error::Failure>(())
//! ```

#[cfg(all(feature = "cuda", feature = "metal"))]
compile_error!("choose one GPU backend: `cuda` or `metal`");

pub mod adapter;
pub mod bundle;
pub mod cli;
pub mod compose;
pub mod decode;
pub mod engine;
pub mod error;
pub mod eval;
pub mod event;
pub mod formats;
pub mod gguf;
pub mod grammar;
pub mod import;
pub mod lease;
pub mod library;
pub mod mapped;
pub mod merge;
pub mod model_file;
pub mod optimize;
pub mod pipeline;
pub mod prompt;
pub mod request;
pub mod router;
pub mod routing;
pub mod sampling;
pub mod scheduler;
pub mod serve;
pub mod shelf;
pub mod wire;
