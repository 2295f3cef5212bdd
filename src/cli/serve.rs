//! `smoa serve`: the HTTP server, in place of llama-server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::adapter::improve::Rules;
use super::args::{AdapterArgs, FormatArgs, ModelArgs, SamplingArgs, read_text};
use super::compat_args::CompatArgs;
use super::exit::Outcome;
use super::optimizing::Optimizing;
use super::signals::Signals;
use super::start::{self, model_path};
use super::{Context, flags, logs, meta, running};
use crate::engine::encoder::Pooling;
use crate::error::{Code, Failure};
use crate::request::{AdapterChoice, Input, Request};
use crate::serve::{self, Bounds, Cors, Keys, Listen, LooseAdapter, Options, Stop, TlsFiles};

/// llama-server's port.
const PORT: u16 = 8080;
/// Sequences side by side when nothing says otherwise, as in llama-server.
const SEQUENCES: u32 = 4;

/// Serve HTTP: llama-server's routes and flags, OpenAI's, Anthropic's and Ollama's APIs, adapters by name
///
/// A link or copy of the program named llama-server behaves as this command. Flags of llama-server that are not here
/// are refused by name; `smoa doctor --flags` lists all.
#[derive(Args, Debug)]
#[command(args_override_self = true)]
pub struct ServeArgs {
    /// Addresses to listen on, separated by commas; a path that ends in .sock is a Unix socket [default: 127.0.0.1]
    #[arg(long, value_name = "HOST", env = "LLAMA_ARG_HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port; 0 takes a free one
    #[arg(long, value_name = "PORT", env = "LLAMA_ARG_PORT", default_value_t = PORT)]
    port: u16,
    /// A key that clients must send; several separated by commas
    #[arg(long, value_name = "KEY", env = "LLAMA_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// File with keys, one per line; names of adapters after a key limit it to them
    #[arg(long, value_name = "FILE", env = "LLAMA_ARG_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// A key for adding and removing adapters of the library; without one nobody can
    #[arg(long, value_name = "KEY", env = "SMOA_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<String>,
    /// The folder that /v1/load_lora_adapter may load from
    #[arg(long, value_name = "DIR", env = "SMOA_ADAPTER_ROOT")]
    adapter_root: Option<PathBuf>,
    /// TLS: private key, PEM
    #[arg(long, value_name = "FILE", env = "LLAMA_ARG_SSL_KEY_FILE", requires = "ssl_cert_file")]
    ssl_key_file: Option<PathBuf>,
    /// TLS: certificate chain, PEM
    #[arg(long, value_name = "FILE", env = "LLAMA_ARG_SSL_CERT_FILE", requires = "ssl_key_file")]
    ssl_cert_file: Option<PathBuf>,
    /// Origins of web pages that may ask, separated by commas, besides those of this machine
    #[arg(long, value_name = "ORIGINS", env = "LLAMA_ARG_CORS_ORIGINS", value_delimiter = ',')]
    cors_origins: Vec<String>,
    /// Path before all routes, for example /llm
    #[arg(long, value_name = "PATH", env = "LLAMA_ARG_API_PREFIX", default_value = "")]
    api_prefix: String,
    /// Names of the model, separated by commas; the first one leads [default: the file's]
    #[arg(short = 'a', long, value_name = "NAMES", env = "LLAMA_ARG_ALIAS", value_delimiter = ',')]
    alias: Vec<String>,
    /// Tags of the model, told in /v1/models
    #[arg(long, value_name = "TAGS", env = "LLAMA_ARG_TAGS", value_delimiter = ',')]
    tags: Vec<String>,
    /// Switch /metrics on
    #[arg(long, env = "LLAMA_ARG_ENDPOINT_METRICS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    metrics: bool,
    /// Metrics also with the names of another server, for gateways that know those
    #[arg(long, value_name = "SERVER")]
    metrics_compat: Option<MetricsCompat>,
    /// Switch POST /props on
    #[arg(long, env = "LLAMA_ARG_ENDPOINT_PROPS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    props: bool,
    /// Keep /slots on (it is)
    #[arg(long, overrides_with = "no_slots")]
    slots: bool,
    /// Switch /slots off
    #[arg(long, env = "LLAMA_ARG_NO_ENDPOINT_SLOTS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    no_slots: bool,
    /// Keep the web page on (it is)
    #[arg(long, alias = "webui", overrides_with = "no_ui")]
    ui: bool,
    /// Switch the web page off
    #[arg(long, alias = "no-webui", env = "LLAMA_ARG_NO_UI", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    no_ui: bool,
    /// Seconds a reader may take nothing before its answer is given up [short: -to]
    #[arg(long, value_name = "N", env = "LLAMA_ARG_TIMEOUT", default_value_t = 60)]
    timeout: u64,
    /// Seconds after which a silent stream shows that it lives; -1 never
    #[arg(
        long,
        value_name = "N",
        env = "LLAMA_ARG_SSE_PING_INTERVAL",
        default_value_t = 30,
        allow_negative_numbers = true
    )]
    sse_ping_interval: i64,
    /// Seconds that running answers get when the server is asked to stop
    #[arg(long, value_name = "N", default_value_t = 30)]
    drain_seconds: u64,
    /// HTTP threads; they only move bytes [default: 2]
    #[arg(long, value_name = "N", env = "LLAMA_ARG_THREADS_HTTP", allow_negative_numbers = true)]
    threads_http: Option<i64>,
    /// Keep prefixes for later requests (they are)
    #[arg(long, overrides_with = "no_cache_prompt")]
    cache_prompt: bool,
    /// Do not reuse prefixes, unless a request asks for it
    #[arg(long, env = "LLAMA_ARG_NO_CACHE_PROMPT", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    no_cache_prompt: bool,
    /// End answers when the context is full (they do)
    #[arg(long, overrides_with = "context_shift")]
    no_context_shift: bool,
    /// Make vectors of texts too (/v1/embeddings); models that cannot generate always do
    #[arg(long, alias = "embedding", env = "LLAMA_ARG_EMBEDDINGS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    embeddings: bool,
    /// How a text's vector comes about: none, mean, cls, last or rank [default: the model's own]
    #[arg(long, value_name = "TYPE", env = "LLAMA_ARG_POOLING", value_parser = pooling)]
    pooling: Option<Pooling>,
    /// How vectors are brought to one length: -1 not, 0 largest number, 1 sum, 2 Euclidean, higher p-norm
    #[arg(long, value_name = "N", default_value_t = 2, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..))]
    embd_normalize: i32,
    /// Rank documents (/rerank) by the model's own scores
    #[arg(long, alias = "reranking", env = "LLAMA_ARG_RERANKING", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    rerank: bool,
    /// A second model, which makes the vectors: a GGUF file, or a name of `smoa model ls`
    #[arg(long, value_name = "FILE", env = "SMOA_EMBEDDING_MODEL")]
    embedding_model: Option<PathBuf>,
    /// LoRA files with weights: FILE:SCALE, separated by commas
    #[arg(long, value_name = "FILE:SCALE,..", value_delimiter = ',')]
    lora_scaled: Vec<String>,
    /// Start with all weights of --lora at 0; set them later with POST /lora-adapters
    #[arg(long)]
    lora_init_without_apply: bool,
    /// Variables of the chat template, as a JSON object
    #[arg(long, value_name = "JSON", env = "LLAMA_ARG_CHAT_TEMPLATE_KWARGS")]
    chat_template_kwargs: Option<String>,
    /// Take thoughts out of answers: auto, deepseek or none
    #[arg(long, value_name = "FORMAT", env = "LLAMA_ARG_THINK")]
    reasoning_format: Option<String>,
    /// Let the model think, where its template has a switch: on, off or auto [short: -rea]
    #[arg(long, value_name = "WHEN", env = "LLAMA_ARG_REASONING")]
    reasoning: Option<Thinking>,
    /// How hard to think, where the template knows efforts
    #[arg(long, value_name = "LEVEL", env = "LLAMA_ARG_REASONING_EFFORT")]
    reasoning_effort: Option<String>,
    /// Most tokens of thoughts: 0 switches them off, -1 leaves them free
    #[arg(long, value_name = "N", env = "LLAMA_ARG_THINK_BUDGET", allow_negative_numbers = true)]
    reasoning_budget: Option<i64>,
    /// What is written before thoughts that have come to their budget are ended
    #[arg(long, value_name = "TEXT", env = "LLAMA_ARG_THINK_BUDGET_MESSAGE")]
    reasoning_budget_message: Option<String>,
    /// Tell earlier thoughts to templates that keep them (they decide otherwise)
    #[arg(long, env = "LLAMA_ARG_REASONING_PRESERVE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), overrides_with = "no_reasoning_preserve")]
    reasoning_preserve: bool,
    /// Do not
    #[arg(long)]
    no_reasoning_preserve: bool,
    /// Give answers as they are: thoughts and tool calls stay in the text
    #[arg(long, env = "LLAMA_ARG_SKIP_CHAT_PARSING", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    skip_chat_parsing: bool,
    /// Take them out (they are)
    #[arg(long, overrides_with = "skip_chat_parsing")]
    no_skip_chat_parsing: bool,
    /// Let other servers listen at the same port; the system spreads connections
    #[arg(long, env = "LLAMA_ARG_REUSE_PORT", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    reuse_port: bool,
    /// Write every prompt to a file of its own in this folder, for finding faults (no log holds them)
    #[arg(long, value_name = "DIR")]
    log_prompts_dir: Option<PathBuf>,
    /// Infill with the suffix before the prefix
    #[arg(long)]
    spm_infill: bool,
    /// Control vectors for every answer, separated by commas
    #[arg(long, value_name = "FILE,..", value_delimiter = ',')]
    control_vector: Vec<PathBuf>,
    /// The same with weights
    #[arg(long, value_name = "FILE:SCALE,..", value_delimiter = ',')]
    control_vector_scaled: Vec<String>,
    /// The folder that POST /slots saves to and restores from
    #[arg(long, value_name = "DIR")]
    slot_save_path: Option<PathBuf>,
    /// A folder of files to serve at / instead of the page
    #[arg(long, value_name = "DIR", env = "LLAMA_ARG_STATIC_PATH")]
    path: Option<PathBuf>,
    /// Methods that pages of other origins may use
    #[arg(long, value_name = "METHODS", env = "LLAMA_ARG_CORS_METHODS")]
    cors_methods: Option<String>,
    /// Headers that they may send
    #[arg(long, value_name = "HEADERS", env = "LLAMA_ARG_CORS_HEADERS")]
    cors_headers: Option<String>,
    /// Whether they may send credentials (they may)
    #[arg(long, env = "LLAMA_ARG_CORS_CREDENTIALS", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        require_equals = true, default_missing_value = "true", overrides_with = "no_cors_credentials")]
    cors_credentials: Option<bool>,
    /// They may not
    #[arg(long)]
    no_cors_credentials: bool,
    /// Look for near duplicates and dead adapters of the library every so many hours, as `smoa adapter optimize` does, and
    /// keep what was found in its derived/optimize.jsonl
    #[arg(long, value_name = "HOURS", value_parser = hours)]
    optimize_every: Option<Duration>,
    /// With --optimize-every: do it, too; `smoa adapter optimize --undo N` undoes it
    #[arg(long, requires = "optimize_every")]
    optimize_apply: bool,
    #[command(flatten)]
    compat: CompatArgs,
    #[command(flatten)]
    logs: logs::LogArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Values of --metrics-compat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MetricsCompat {
    Vllm,
}

/// Values of --reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Thinking {
    On,
    Off,
    Auto,
}

/// Runs `smoa serve`.
///
/// # Errors
/// With the flag or file at fault; [`Code::Busy`] when the port is taken.
pub fn run(args: ServeArgs, context: &Context) -> Result<(), Outcome> {
    if args.compat.completion_bash {
        return meta::bash(context);
    }
    if args.model.list_devices {
        return super::doctor::list_devices(context);
    }
    if args.model.engine.cache_list {
        for path in super::hub::list() {
            context.printer.line(&crate::error::printable(&path.display().to_string()))?;
        }
        return Ok(());
    }
    refuse_variables()?;
    args.logs.start()?;
    let options = options(&args)?;
    let sockets = serve::bind(&options)?;
    let stop = Stop::default();
    let signals = {
        let stop = stop.clone();
        Signals::watch(move || stop.stop()).map_err(|e| Failure::new(Code::Other, format!("signals: {e}")))?
    };
    let urls: Vec<String> = sockets.iter().map(|s| s.url(options.tls.is_some())).collect();
    let _running = running::RunFile::write(&urls, &options.model);
    for url in &urls {
        context.printer.told(&format!("listening on {url}{}", options.prefix));
        tracing::info!(%url, "listening");
    }
    let printer = context.printer;
    let library = &args.adapters.library;
    let vectors = start::Vectors {
        wanted: args.embeddings || args.rerank || args.pooling.is_some(),
        pooling: if args.rerank { Some(Pooling::Rank) } else { args.pooling },
        model: args.embedding_model.clone(),
    };
    let load = || start::serving(&args.model, library, SEQUENCES, &vectors, &printer, &signals);
    let mut optimizing = None;
    let rules = Rules { apply: args.optimize_apply, ..Rules::default() };
    let every = args.optimize_every.map(|every| Ok::<_, Failure>((every, library.folder()?))).transpose()?;
    serve::run(options, sockets, &stop, load, |pipeline| {
        if let Some(Ok(running)) = &optimizing {
            Optimizing::renew(running, pipeline);
            tracing::info!("awake");
            return;
        }
        optimizing = every.clone().map(|(every, folder)| Optimizing::start(every, rules.clone(), folder, pipeline));
        let facts = pipeline.facts();
        let what = format!("{}: {} sequences, context {}", facts.model, facts.sequences, facts.context);
        printer.told(&format!("ready: {what}"));
        tracing::info!(model = %facts.model, sequences = facts.sequences, context = facts.context, "ready");
        if let Some(Err(e)) = &optimizing {
            printer.warning(&e.message);
        }
    })?;
    drop(optimizing);
    tracing::info!("stopped");
    Ok(())
}

fn hours(text: &str) -> Result<Duration, String> {
    let hours = text.parse::<f64>().ok().filter(|hours| *hours > 0.0 && *hours <= 24.0 * 365.0);
    hours.map(|hours| Duration::from_secs_f64(hours * 3600.0)).ok_or_else(|| "give hours, above 0".to_owned())
}

fn pooling(text: &str) -> Result<Pooling, String> {
    let found = Pooling::NAMES.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    found.ok_or_else(|| format!("known are {}", Pooling::NAMES.map(|(name, _)| name).join(", ")))
}

/// Variables of the environment that stand for flags we do not have.
fn refuse_variables() -> Result<(), Failure> {
    let on = |name: &str| {
        let off = ["", "0", "false", "off", "disabled"];
        std::env::var(name).is_ok_and(|v| !off.contains(&v.to_ascii_lowercase().as_str()))
    };
    if let Some((variable, flag, why)) = flags::refused_variable(on) {
        return Err(Failure::usage(format!("{variable} ({flag}): {why}; unset it")));
    }
    // What is always so cannot be switched off by its variable.
    let off = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty()) && !on(name);
    match flags::always_variable(off) {
        None => Ok(()),
        Some((variable, flag, why)) => {
            Err(Failure::usage(format!("{variable} switches {flag} off, which cannot be here: {why}; unset it")))
        }
    }
}

fn options(args: &ServeArgs) -> Result<Options, Failure> {
    let mut keys = Keys::default();
    for key in args.api_key.iter().flat_map(|k| k.split(',')).filter(|k| !k.is_empty()) {
        keys.add(key, None);
    }
    if let Some(path) = &args.api_key_file {
        keys.read(&read_text(path, "--api-key-file")?);
    }
    let mut admin_keys = Keys::default();
    args.admin_key.iter().filter(|k| !k.is_empty()).for_each(|key| admin_keys.add(key, None));
    let prefix = args.api_prefix.trim_end_matches('/').to_string();
    let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b));
    if !prefix.is_empty() && (!prefix.starts_with('/') || !plain) {
        return Err(Failure::usage(format!("--api-prefix {prefix}: must begin with / and hold plain characters")));
    }
    let tls = args.ssl_cert_file.clone().zip(args.ssl_key_file.clone());
    Ok(Options {
        listen: args.host.split(',').map(|host| listen(host.trim(), args.port)).collect(),
        keys,
        admin_keys,
        alias: args.alias.iter().map(|a| a.trim().to_string()).filter(|a| !a.is_empty()).collect(),
        tags: args.tags.clone(),
        prefix,
        metrics: args.metrics || args.metrics_compat.is_some(),
        metrics_vllm: args.metrics_compat == Some(MetricsCompat::Vllm),
        slots: !args.no_slots,
        props: args.props,
        page: !args.no_ui,
        page_settings: args.compat.page_settings()?,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        origins: args.cors_origins.clone(),
        ping: u64::try_from(args.sse_ping_interval).ok().filter(|n| *n > 0).map(Duration::from_secs),
        defaults: Request {
            adapters: AdapterArgs { lora: Vec::new(), ..args.adapters.clone() }.choices()?,
            route: args.adapters.routing()?,
            format: args.format.source()?,
            sampling: args.sampling.sampling()?,
            limits: args.sampling.limits()?,
            cache_prompt: !args.no_cache_prompt,
            special: args.compat.special,
            drafts: args.model.drafts.asked()?,
            ..Request::new(Input::Raw(String::new()))
        },
        chat_defaults: chat_defaults(args)?,
        loras: loras(args)?,
        library: args.adapters.library.folder().ok(),
        adapter_root: args.adapter_root.clone(),
        model: model_path(&args.model)?,
        version: meta::VERSION.to_string(),
        steering: steering(args)?,
        prefill: args.compat.prefill(),
        plain_answers: args.skip_chat_parsing && !args.no_skip_chat_parsing,
        suffix_first: args.spm_infill,
        slot_files: args.slot_save_path.clone().map(|path| folder("--slot-save-path", path)).transpose()?,
        files: args.path.clone().map(|path| folder("--path", path)).transpose()?,
        cors: Cors {
            methods: args.cors_methods.clone().unwrap_or(Cors::default().methods),
            headers: args.cors_headers.clone().unwrap_or(Cors::default().headers),
            credentials: !args.no_cors_credentials && args.cors_credentials != Some(false),
        },
        normalise: args.embd_normalize,
        threads: args.threads_http.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(2),
        shared_port: args.reuse_port,
        prompt_files: args.log_prompts_dir.clone().map(made).transpose()?,
        sleep: args.compat.sleep(),
        bounds: Bounds {
            reader: Duration::from_secs(args.timeout.max(1)),
            drain: Duration::from_secs(args.drain_seconds),
            ..Bounds::default()
        },
    })
}

/// `HOST`, or the path of a Unix socket.
fn listen(host: &str, port: u16) -> Listen {
    let is_address = host.parse::<IpAddr>().is_ok();
    match !is_address && (host.ends_with(".sock") || host.contains('/')) {
        true => Listen::Unix(host.strip_prefix("unix:").unwrap_or(host).into()),
        false => Listen::Tcp(host.to_string(), port),
    }
}

/// `--lora` and `--lora-scaled`; of files separated by commas, each counts.
fn loras(args: &ServeArgs) -> Result<Vec<LooseAdapter>, Failure> {
    let mut all = Vec::new();
    for text in &args.adapters.lora {
        let parts: Vec<&str> = match std::path::Path::new(text).exists() {
            true => vec![text],
            false => text.split(',').collect(),
        };
        for part in parts {
            all.push(super::args::adapter_choice(part)?);
        }
    }
    for text in &args.lora_scaled {
        let (path, scale) = text.rsplit_once(':').unwrap_or((text, "1"));
        let scale = scale.parse().map_err(|_| Failure::usage(format!("--lora-scaled {text}: give FILE:SCALE")))?;
        all.push(crate::request::AdapterChoice::file(path, scale));
    }
    let mut loose = Vec::new();
    for choice in all {
        let crate::request::AdapterSource::File(path) = choice.source else { continue };
        let scale = crate::adapter::Scale::new(choice.scale).map_err(|e| Failure::usage(format!("--lora: {e}")))?.get();
        loose.push(LooseAdapter { path, scale: if args.lora_init_without_apply { 0.0 } else { scale } });
    }
    Ok(loose)
}

/// The folder of --log-prompts-dir, made if it is not there.
fn made(path: PathBuf) -> Result<PathBuf, Failure> {
    let failed = |e| Failure::usage(format!("--log-prompts-dir '{}': {e}", path.display()));
    std::fs::create_dir_all(&path).map_err(failed)?;
    Ok(path)
}

fn folder(flag: &str, path: PathBuf) -> Result<PathBuf, Failure> {
    match path.is_dir() {
        true => Ok(path),
        false => Err(Failure::usage(format!("{flag} '{}': is no folder", path.display()))),
    }
}

/// `--control-vector` and `--control-vector-scaled`.
fn steering(args: &ServeArgs) -> Result<Vec<AdapterChoice>, Failure> {
    let mut all: Vec<AdapterChoice> = args.control_vector.iter().map(|path| AdapterChoice::file(path, 1.0)).collect();
    for text in &args.control_vector_scaled {
        let wrong = || Failure::usage(format!("--control-vector-scaled {text}: give FILE:SCALE"));
        let (path, scale) = text.rsplit_once(':').ok_or_else(wrong)?;
        let scale = crate::adapter::Scale::new(scale.parse().map_err(|_| wrong())?);
        let scale = scale.map_err(|e| Failure::usage(format!("--control-vector-scaled: {e}")))?;
        all.push(AdapterChoice::file(path, scale.get()));
    }
    Ok(all)
}

/// Fields that a chat request gets when it has none of its own.
fn chat_defaults(args: &ServeArgs) -> Result<Map<String, Value>, Failure> {
    let mut defaults = Map::new();
    let mut kwargs = match &args.chat_template_kwargs {
        None => Map::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Failure::usage(format!("--chat-template-kwargs: must be a JSON object: {e}")))?,
    };
    let off = match args.reasoning_budget {
        None | Some(-1) => false,
        Some(0) => true,
        Some(n) if n > 0 => {
            defaults.insert("thinking_budget_tokens".into(), n.into());
            false
        }
        Some(n) => return Err(Failure::usage(format!("--reasoning-budget: must be -1 or more, not {n}"))),
    };
    if args.reasoning_preserve || args.no_reasoning_preserve {
        kwargs.insert("preserve_reasoning".into(), args.reasoning_preserve.into());
    }
    if let Some(message) = &args.reasoning_budget_message {
        defaults.insert("reasoning_budget_message".into(), message.as_str().into());
    }
    match (args.reasoning, off) {
        (Some(Thinking::Off), _) | (_, true) => drop(kwargs.insert("enable_thinking".into(), false.into())),
        (Some(Thinking::On), _) => drop(kwargs.insert("enable_thinking".into(), true.into())),
        _ => (),
    }
    if !kwargs.is_empty() {
        defaults.insert("chat_template_kwargs".into(), kwargs.into());
    }
    if let Some(format) = &args.reasoning_format {
        if !["auto", "deepseek", "none"].contains(&format.as_str()) {
            return Err(Failure::usage(format!("--reasoning-format {format}: must be auto, deepseek or none")));
        }
        defaults.insert("reasoning_format".into(), json!(format));
    }
    if let Some(effort) = args.reasoning_effort.as_deref().filter(|e| *e != "default") {
        defaults.insert("reasoning_effort".into(), json!(effort));
    }
    Ok(defaults)
}
