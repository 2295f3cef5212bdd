//! How a server is set up, as plain values.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::keys::Keys;
use crate::request::{AdapterChoice, Request};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A host name or address, and a port; 0 takes a free one.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Certificate and key for TLS, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Bounds on what a client can make the server hold or wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of a request's body.
    pub body: usize,
    /// Most time for it to arrive.
    pub body_time: Duration,
    /// Most time for the head of a request to arrive.
    pub head_time: Duration,
    /// Most bytes of a head.
    pub head: usize,
    /// Most headers.
    pub headers: usize,
    /// Arrays and objects inside each other.
    pub depth: usize,
    /// Connections at the same time; more wait to be accepted.
    pub connections: usize,
    /// Most prompts, or prompts times answers, in one request.
    pub answers: usize,
    /// How long a reader may take nothing before its answer is given up.
    pub reader: Duration,
    /// How long answers may go on after the server was asked to stop.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body: 8 << 20,
            body_time: Duration::from_secs(30),
            head_time: Duration::from_secs(10),
            head: 64 << 10,
            headers: 64,
            depth: 64,
            connections: 512,
            answers: 64,
            reader: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

/// A loose adapter file of the start (`--lora`), known to requests by its place in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct LooseAdapter {
    /// The file.
    pub path: PathBuf,
    /// Its weight for requests that do not say.
    pub scale: f32,
}

/// What pages of other origins may do, those that may ask at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// `Access-Control-Allow-Methods`.
    pub methods: String,
    /// `Access-Control-Allow-Headers`.
    pub headers: String,
    /// `Access-Control-Allow-Credentials`.
    pub credentials: bool,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            methods: "GET, POST, DELETE, OPTIONS".into(),
            headers: "*, Authorization, Content-Type, X-Api-Key".into(),
            credentials: true,
        }
    }
}

/// Everything a server is told at its start.
#[derive(Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Keys of clients; none lets everyone in.
    pub keys: Keys,
    /// Keys for changing the library; none switches those routes off.
    pub admin_keys: Keys,
    /// Names of the model, the first one leading.
    pub alias: Vec<String>,
    /// Tags of the model.
    pub tags: Vec<String>,
    /// Before every route.
    pub prefix: String,
    /// `/metrics`.
    pub metrics: bool,
    /// Also with vLLM's names.
    pub metrics_vllm: bool,
    /// `/slots`.
    pub slots: bool,
    /// POST `/props`.
    pub props: bool,
    /// The web page.
    pub page: bool,
    /// What the page begins with (`--ui-config`), told in `/props`.
    pub page_settings: Map<String, Value>,
    /// TLS.
    pub tls: Option<TlsFiles>,
    /// Origins of web pages that may ask, besides those of this machine.
    pub origins: Vec<String>,
    /// How often a silent stream shows that it lives; `None` never.
    pub ping: Option<Duration>,
    /// What a request that is silent means.
    pub defaults: Request,
    /// Fields that a chat request gets when it has none of its own.
    pub chat_defaults: Map<String, Value>,
    /// Loose adapters.
    pub loras: Vec<LooseAdapter>,
    /// The adapter library.
    pub library: Option<PathBuf>,
    /// The folder that adapters may be loaded from by path; `None` for no loading by path.
    pub adapter_root: Option<PathBuf>,
    /// The model's file.
    pub model: PathBuf,
    /// This build.
    pub version: String,
    /// HTTP threads; they only move bytes.
    pub threads: usize,
    /// Control vectors that act on every answer (`--control-vector`).
    pub steering: Vec<AdapterChoice>,
    /// Continue a last message of the assistant where a request does not say (`--prefill-assistant`).
    pub prefill: bool,
    /// Give answers as they are: no thoughts and no calls are taken out (`--skip-chat-parsing`).
    pub plain_answers: bool,
    /// Infilling with the suffix first (`--spm-infill`).
    pub suffix_first: bool,
    /// The folder that slots are saved to (`--slot-save-path`).
    pub slot_files: Option<PathBuf>,
    /// A folder of files to serve instead of the page (`--path`).
    pub files: Option<PathBuf>,
    /// Methods and headers that pages of other origins may use, and whether with credentials (`--cors-*`).
    pub cors: Cors,
    /// How vectors are brought to one length when a request does not say (`--embd-normalize`).
    pub normalise: i32,
    /// Other servers may listen at the same port (`--reuse-port`).
    pub shared_port: bool,
    /// The folder that every prompt is written to, for finding faults (`--log-prompts-dir`).
    pub prompt_files: Option<PathBuf>,
    /// Without work for so long, model, context and caches are freed until they are needed (`--sleep-idle-seconds`).
    pub sleep: Option<Duration>,
    /// Bounds.
    pub bounds: Bounds,
}
