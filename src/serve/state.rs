//! What the routes share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, json};

use super::conversations::Conversations;
use super::metrics::Metrics;
use super::options::Options;
use super::seats::Seats;
use super::stage::{Known, Stage, Stages};
use super::thoughts::Thoughts;
use crate::adapter::AdapterDigest;
use crate::engine::Token;
use crate::error::Failure;
use crate::grammar::tools::Envelope;
use crate::library::{Access, Library};
use crate::pipeline::{Pipeline, Question};
use crate::prompt::{Message, Role};
use crate::scheduler::counts::Reading;
use crate::shelf::library_failure;
use crate::wire::{Problem, TemplateCaps};

/// Requests for vectors at the same time.
const ENCODING: usize = 64;
/// Answers that feedback can still be given to.
const REMEMBERED: usize = 4096;

/// The server's state. One per process.
pub struct State {
    /// As started.
    pub options: Options,
    /// Counters.
    pub metrics: Metrics,
    /// Who is being answered.
    pub seats: Arc<Seats>,
    /// Answers whose thoughts can be ended.
    pub thoughts: Arc<Thoughts>,
    /// Streams that outlive their readers.
    pub conversations: Conversations,
    /// The weights of the loose adapters, as they are now.
    scales: Mutex<Vec<f32>>,
    /// How far the model is.
    pub stages: Stages,
    caps: OnceLock<TemplateCaps>,
    special: OnceLock<HashMap<String, Token>>,
    library: Mutex<Option<Arc<Library>>>,
    draining: AtomicBool,
    /// Requests for vectors that may run or wait at the same time.
    pub encoding: Arc<tokio::sync::Semaphore>,
    nonce: AtomicU64,
    seed: [u8; 32],
    answered: Mutex<std::collections::VecDeque<(String, Answered)>>,
    /// What engines have done that are gone.
    slept: Mutex<Reading>,
}

fn loading() -> Problem {
    Problem::new(503, "unavailable_error", "Loading model")
}

/// An answer that feedback may come for.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its adapters.
    pub adapters: Vec<AdapterDigest>,
    /// What is kept of its request if it is judged.
    pub question: Option<Question>,
}

impl State {
    /// For a server that has not loaded its model yet.
    pub fn new(options: Options) -> Self {
        let scales = options.loras.iter().map(|l| l.scale).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        // Ids must differ, not be secret; hashed with the process so that two servers do not give the same.
        let seed = *blake3::hash(format!("{now} {}", std::process::id()).as_bytes()).as_bytes();
        Self {
            options,
            metrics: Metrics::default(),
            seats: Arc::default(),
            thoughts: Arc::default(),
            conversations: Conversations::default(),
            scales: Mutex::new(scales),
            stages: Stages::default(),
            caps: OnceLock::new(),
            special: OnceLock::new(),
            library: Mutex::new(None),
            draining: AtomicBool::new(false),
            encoding: Arc::new(tokio::sync::Semaphore::new(ENCODING)),
            nonce: AtomicU64::new(0),
            seed,
            answered: Mutex::default(),
            slept: Mutex::default(),
        }
    }

    /// The model is loaded.
    pub fn ready(&self, pipeline: Arc<Pipeline>) {
        self.seats.resize(pipeline.facts().sequences);
        self.stages.awake(pipeline);
    }

    /// The pipeline. Where the server was asleep, the guard has woken it for requests that come here.
    ///
    /// # Errors
    /// llama-server's answer while the model is loading, or that the server is stopping.
    pub fn pipeline(&self) -> Result<Arc<Pipeline>, Problem> {
        self.known()?;
        match self.stages.now() {
            Stage::Awake(pipeline) => Ok(pipeline),
            Stage::Loading | Stage::Asleep(_) => Err(loading()),
        }
    }

    /// What is known of the model, asleep or not.
    ///
    /// # Errors
    /// As [`State::pipeline`].
    pub fn known(&self) -> Result<&Known, Problem> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Problem::new(503, "unavailable_error", "the server is stopping"));
        }
        self.stages.known().ok_or_else(loading)
    }

    /// What the engine's threads have done so far, sleep or not.
    pub fn counts(&self) -> Reading {
        match self.stages.now() {
            Stage::Awake(pipeline) => {
                let (before, now) = (self.slept.lock().unwrap_or_else(PoisonError::into_inner), pipeline.counts());
                before.and(now)
            }
            Stage::Asleep(snapshot) => snapshot.counts.clone(),
            Stage::Loading => Reading::default(),
        }
    }

    /// Notes what engines that are gone have done.
    pub fn sleeps(&self, counts: Reading) {
        *self.slept.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// No new requests from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A string that no other answer has.
    pub fn nonce(&self) -> String {
        let n = self.nonce.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&n.to_le_bytes());
        hasher.finalize().to_hex()[..24].to_string()
    }

    /// `system_fingerprint`: the version, in llama-server's form.
    pub fn fingerprint(&self) -> String {
        format!("b{}", self.options.version.split_whitespace().next().unwrap_or_default())
    }

    /// The model's leading name.
    pub fn model_name(&self) -> String {
        let file = self.options.model.file_stem().map(|s| s.to_string_lossy().into_owned());
        self.options.alias.first().cloned().or(file).unwrap_or_else(|| "base".into())
    }

    /// Weights of the loose adapters.
    pub fn scales(&self) -> Vec<f32> {
        self.scales.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets them.
    pub fn set_scales(&self, scales: Vec<f32>) {
        *self.scales.lock().unwrap_or_else(PoisonError::into_inner) = scales;
    }

    /// The library, opened when first asked for; `None` when there is none.
    ///
    /// # Errors
    /// It is there and cannot be opened.
    pub fn library(&self) -> Result<Option<Arc<Library>>, Failure> {
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        if library.is_none() {
            let folder = self.options.library.as_ref().filter(|f| f.join("FORMAT").is_file());
            let opened = folder.map(|f| Library::open(f, Access::Write).or_else(|_| Library::open(f, Access::Read)));
            *library = opened.transpose().map_err(|e| library_failure(&e))?.map(Arc::new);
        }
        Ok(library.clone())
    }

    /// The library for adding to, made when it is not there.
    ///
    /// # Errors
    /// No folder is known, or it cannot be opened.
    pub fn writable_library(&self) -> Result<Arc<Library>, Failure> {
        if let Some(library) = self.library()? {
            return Ok(library);
        }
        let folder: &PathBuf = self
            .options
            .library
            .as_ref()
            .ok_or_else(|| Failure::usage("there is no library: start with --library DIR"))?;
        let made = Arc::new(Library::create(folder).map_err(|e| library_failure(&e))?);
        *self.library.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        Ok(made)
    }

    /// What the chat template does with tools; tried once.
    pub fn caps(&self, pipeline: &Pipeline) -> TemplateCaps {
        *self.caps.get_or_init(|| {
            const PROBE: &str = "smoa_probe_tool";
            let user = || Message::new(Role::User, "hi");
            let tool = json!([{"type": "function", "function": {"name": PROBE, "description": "d",
                "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}}]);
            let shown = pipeline.render(vec![user()], Some(tool.clone()), Map::new());
            let call = |arguments: serde_json::Value| {
                let calls = json!([{"id": "call_000000001", "type": "function",
                    "function": {"name": PROBE, "arguments": arguments}}]);
                let said = Message::new(Role::Assistant, "").with("tool_calls", calls);
                let result = Message::new(Role::Tool, "1").with("tool_call_id", json!("call_000000001"));
                pipeline.render(vec![user(), said, result], Some(tool.clone()), Map::new())
            };
            // A template that spells arguments as JSON makes a text of a text: then it wants an object.
            let as_text = call(json!("{\"smoa_key\": 1}")).map(|p| p.text());
            let as_object = call(json!({"smoa_key": 1})).map(|p| p.text());
            let object_arguments = match (as_text, as_object) {
                (Ok(text), Ok(_)) => text.contains("\\\"smoa_key\\\""),
                (Err(_), Ok(_)) => true,
                _ => false,
            };
            let texts = |p: &Result<crate::prompt::Prompt, Failure>| p.as_ref().map(|p| p.text()).unwrap_or_default();
            let written = format!("{}\n{}", texts(&shown), texts(&call(json!({"smoa_key": 1}))));
            let envelope = Envelope::of_template(&written);
            let plain = pipeline.render(vec![user()], None, Map::new());
            let opens_thoughts = plain.is_ok_and(|p| p.text().trim_end().ends_with("<think>"));
            let tools = shown.is_ok_and(|p| p.text().contains(PROBE));
            TemplateCaps { opens_thoughts, tools, object_arguments, envelope }
        })
    }

    /// Tokens spelled like control tokens (`<..>`), by spelling; collected once.
    pub fn special_tokens(&self, pipeline: &Pipeline) -> &HashMap<String, Token> {
        self.special.get_or_init(|| {
            let count = Token::try_from(pipeline.facts().vocabulary).unwrap_or(Token::MAX);
            let spelled = (0..count).map(|t| (pipeline.tokenizer().spelling(t), t));
            spelled.filter(|(text, _)| text.ends_with('>') && text.contains('<')).collect()
        })
    }

    /// Remembers an answer for feedback.
    pub fn remember(&self, id: String, answered: Answered) {
        let mut all = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back((id, answered));
    }

    /// The answer with this id, forgotten afterwards: feedback counts once.
    pub fn recall(&self, id: &str) -> Option<Answered> {
        let mut all = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|(known, _)| known == id)?;
        all.remove(at).map(|(_, answered)| answered)
    }
}
