//! Flags that several commands share, with llama.cpp's spelling, meaning and environment variables.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::cache_args::CacheArgs;
use super::draft_args::DraftArgs;
use super::engine_args::EngineArgs;
use crate::engine::options::{
    AdapterBatching, CacheType, EngineOptions, FlashAttention, GpuLayers, Rope, RopeScaling, SplitMode,
};
use crate::error::{Code, Failure};
use crate::grammar::{KeyOrder, SchemaMode, Source};
use crate::request::{AdapterChoice, Routing};
use crate::router::Strategy;
use crate::router::embed::{Embedder, StaticEmbedder};
use crate::routing::Embedders;
use crate::sampling::{BiasTarget, LogitBias, Mirostat, SamplerKind, Sampling};
use crate::scheduler::{JobLimits, Shift};
use crate::shelf::{MakeEmbedders, Shelf};

/// Model, hardware and context.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Model and context (names as in llama.cpp)")]
pub struct ModelArgs {
    /// GGUF model file, or the name of one that `smoa model ls` lists
    #[arg(short = 'm', long, value_name = "FILE", env = "LLAMA_ARG_MODEL")]
    pub model: Option<PathBuf>,
    /// Layers kept on the GPU: a number, `auto` or `all` [short: -ngl]
    #[arg(long, alias = "gpu-layers", value_name = "N", env = "LLAMA_ARG_N_GPU_LAYERS", value_parser = gpu_layers)]
    pub n_gpu_layers: Option<GpuLayers>,
    /// How to split the model over several GPUs [short: -sm]
    #[arg(long, value_name = "MODE", env = "LLAMA_ARG_SPLIT_MODE")]
    pub split_mode: Option<SplitModeArg>,
    /// Share of each GPU, for example 3,1 [short: -ts]
    #[arg(long, value_name = "N0,N1,..", env = "LLAMA_ARG_TENSOR_SPLIT", value_delimiter = ',')]
    pub tensor_split: Vec<f32>,
    /// The GPU for everything when the model is not split [short: -mg]
    #[arg(long, value_name = "INDEX", env = "LLAMA_ARG_MAIN_GPU")]
    pub main_gpu: Option<usize>,
    /// Devices to use, as --list-devices names them [short: -dev]
    #[arg(long, value_name = "DEV1,DEV2,..", env = "LLAMA_ARG_DEVICE", value_delimiter = ',')]
    pub device: Vec<String>,
    /// List the devices of this machine and exit
    #[arg(long)]
    pub list_devices: bool,
    /// Context in tokens, shared by all sequences; 0 takes the model's own
    #[arg(short = 'c', long, value_name = "N", env = "LLAMA_ARG_CTX_SIZE")]
    pub ctx_size: Option<u32>,
    /// Most tokens of one sequence; without -c the context holds so many for each
    #[arg(long, value_name = "N", env = "LLAMA_ARG_KV_UNIFIED_PER_SLOT", value_parser = clap::value_parser!(u32).range(16..))]
    pub kv_unified_per_slot: Option<u32>,
    /// Most tokens handed to the engine at once
    #[arg(short = 'b', long, value_name = "N", env = "LLAMA_ARG_BATCH")]
    pub batch_size: Option<u32>,
    /// Most tokens computed in one step [short: -ub]
    #[arg(long, value_name = "N", env = "LLAMA_ARG_UBATCH")]
    pub ubatch_size: Option<u32>,
    /// Sequences computed side by side [short: -np]
    #[arg(long, value_name = "N", env = "LLAMA_ARG_N_PARALLEL")]
    pub parallel: Option<u32>,
    /// Threads for generation [default: physical cores]
    #[arg(short = 't', long, value_name = "N", env = "LLAMA_ARG_THREADS")]
    pub threads: Option<u32>,
    /// Threads for reading prompts [short: -tb; default: as --threads]
    #[arg(long, value_name = "N", env = "LLAMA_ARG_THREADS_BATCH")]
    pub threads_batch: Option<u32>,
    /// Flash attention [short: -fa]
    #[arg(long, value_name = "WHEN", env = "LLAMA_ARG_FLASH_ATTN", num_args = 0..=1, default_missing_value = "on")]
    pub flash_attn: Option<FlashArg>,
    /// Number format of the key cache: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1 [short: -ctk]
    #[arg(long, value_name = "TYPE", env = "LLAMA_ARG_CACHE_TYPE_K", value_parser = cache_type)]
    pub cache_type_k: Option<CacheType>,
    /// Number format of the value cache [short: -ctv]
    #[arg(long, value_name = "TYPE", env = "LLAMA_ARG_CACHE_TYPE_V", value_parser = cache_type)]
    pub cache_type_v: Option<CacheType>,
    /// Read the model into memory instead of mapping it
    #[arg(long, env = "LLAMA_ARG_NO_MMAP", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub no_mmap: bool,
    /// Keep the model in RAM
    #[arg(long, env = "LLAMA_ARG_MLOCK", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub mlock: bool,
    /// RoPE scaling method
    #[arg(long, value_name = "METHOD", env = "LLAMA_ARG_ROPE_SCALING_TYPE")]
    pub rope_scaling: Option<RopeArg>,
    /// RoPE context scaling factor
    #[arg(long, value_name = "N", env = "LLAMA_ARG_ROPE_SCALE")]
    pub rope_scale: Option<f32>,
    /// RoPE base frequency
    #[arg(long, value_name = "N", env = "LLAMA_ARG_ROPE_FREQ_BASE")]
    pub rope_freq_base: Option<f32>,
    /// RoPE frequency scaling factor
    #[arg(long, value_name = "N", env = "LLAMA_ARG_ROPE_FREQ_SCALE")]
    pub rope_freq_scale: Option<f32>,
    /// YaRN: context the model was trained with
    #[arg(long, value_name = "N", env = "LLAMA_ARG_YARN_ORIG_CTX")]
    pub yarn_orig_ctx: Option<u32>,
    /// YaRN: extrapolation mix factor
    #[arg(long, value_name = "N", env = "LLAMA_ARG_YARN_EXT_FACTOR", allow_negative_numbers = true)]
    pub yarn_ext_factor: Option<f32>,
    /// YaRN: attention magnitude factor
    #[arg(long, value_name = "N", env = "LLAMA_ARG_YARN_ATTN_FACTOR", allow_negative_numbers = true)]
    pub yarn_attn_factor: Option<f32>,
    /// YaRN: high correction dim
    #[arg(long, value_name = "N", env = "LLAMA_ARG_YARN_BETA_SLOW", allow_negative_numbers = true)]
    pub yarn_beta_slow: Option<f32>,
    /// YaRN: low correction dim
    #[arg(long, value_name = "N", env = "LLAMA_ARG_YARN_BETA_FAST", allow_negative_numbers = true)]
    pub yarn_beta_fast: Option<f32>,
    /// Chat template: a name (chatml, llama3, ..) or template text, instead of the model's own
    #[arg(long, value_name = "TEMPLATE", env = "LLAMA_ARG_CHAT_TEMPLATE")]
    pub chat_template: Option<String>,
    /// File with a chat template
    #[arg(long, value_name = "FILE", env = "LLAMA_ARG_CHAT_TEMPLATE_FILE", conflicts_with = "chat_template")]
    pub chat_template_file: Option<PathBuf>,
    /// Most bytes of adapter files held open (mapped, checked and hashed; those in use always stay)
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub adapter_cache_bytes: u64,
    /// Most adapters laid out for the engine and kept so (those in use always stay)
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub adapter_slots: u32,
    /// Most bytes of them; a larger adapter is laid out for the requests that use it, and forgotten with them
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub adapter_device_bytes: u64,
    /// How requests with different adapters share the engine: in one batch, in turns, or whichever is right
    #[arg(long, value_enum, value_name = "HOW", default_value_t = AdapterBatchingArg::Auto)]
    pub adapter_batching: AdapterBatchingArg,
    /// Open an adapter of the library at the start and keep it open; may be repeated
    #[arg(long, value_name = "NAME")]
    pub pin_adapter: Vec<String>,
    /// Keep requests in the library when their answers are judged (/good, /bad, /v1/feedback), for train-router to learn from
    #[arg(long, env = "SMOA_KEEP_JUDGED", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub keep_judged: bool,
    /// Cached prefixes.
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Drafts.
    #[command(flatten)]
    pub drafts: DraftArgs,
    /// Details.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Values of --adapter-batching.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
#[allow(missing_docs)]
pub enum AdapterBatchingArg {
    #[default]
    Auto,
    Lanes,
    Grouped,
}

/// Values of --split-mode.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum SplitModeArg {
    None,
    Layer,
    Row,
}

/// Values of --flash-attn.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum FlashArg {
    #[value(alias = "1", alias = "true", alias = "enabled")]
    On,
    #[value(alias = "0", alias = "false", alias = "disabled")]
    Off,
    #[value(alias = "-1")]
    Auto,
}

/// Values of --rope-scaling.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum RopeArg {
    None,
    Linear,
    Yarn,
}

pub(super) fn gpu_layers(text: &str) -> Result<GpuLayers, String> {
    match text {
        "auto" | "all" | "-1" => Ok(GpuLayers::All),
        n => n.parse().map(GpuLayers::Count).map_err(|_| "give a number, `auto` or `all`".to_string()),
    }
}

pub(super) fn cache_type(text: &str) -> Result<CacheType, String> {
    let found = CacheType::NAMES.iter().find(|(name, _)| *name == text).map(|(_, t)| *t);
    found.ok_or_else(|| format!("known are {}", CacheType::NAMES.map(|(name, _)| name).join(", ")))
}

impl ModelArgs {
    /// The engine's options for the model at `path`, with `sequences` where no flag says otherwise.
    pub fn options(&self, path: &Path, sequences: u32) -> EngineOptions {
        let d = EngineOptions::new(path);
        let threads = self.threads.unwrap_or(d.threads);
        EngineOptions {
            gpu_layers: self.n_gpu_layers.unwrap_or(d.gpu_layers),
            split_mode: match self.split_mode {
                Some(SplitModeArg::None) => SplitMode::None,
                Some(SplitModeArg::Row) => SplitMode::Row,
                Some(SplitModeArg::Layer) | None => SplitMode::Layer,
            },
            tensor_split: self.tensor_split.clone(),
            main_gpu: self.main_gpu.unwrap_or(d.main_gpu),
            devices: self.device.clone(),
            load_mode: self.engine.load_mode(self.no_mmap, self.mlock),
            context: self.ctx_size.unwrap_or_else(|| {
                let sequences = self.parallel.unwrap_or(sequences);
                self.kv_unified_per_slot.map_or(d.context, |n| n.saturating_mul(sequences))
            }),
            sequence_context: self.kv_unified_per_slot,
            equal_parts: self.cache.equal_parts(),
            batch: self.batch_size.unwrap_or(d.batch),
            micro_batch: self.ubatch_size.unwrap_or(d.micro_batch),
            sequences: self.parallel.unwrap_or(sequences),
            threads,
            threads_batch: self.threads_batch.unwrap_or(threads),
            flash_attention: match self.flash_attn {
                Some(FlashArg::On) => FlashAttention::On,
                Some(FlashArg::Off) => FlashAttention::Off,
                Some(FlashArg::Auto) | None => FlashAttention::Auto,
            },
            cache_type_k: self.cache_type_k.unwrap_or(d.cache_type_k),
            cache_type_v: self.cache_type_v.unwrap_or(d.cache_type_v),
            rope: Rope {
                scaling: self.rope_scaling.map(|s| match s {
                    RopeArg::None => RopeScaling::None,
                    RopeArg::Linear => RopeScaling::Linear,
                    RopeArg::Yarn => RopeScaling::Yarn,
                }),
                scale: self.rope_scale,
                freq_base: self.rope_freq_base,
                freq_scale: self.rope_freq_scale,
                yarn_orig_ctx: self.yarn_orig_ctx,
                yarn_ext_factor: self.yarn_ext_factor,
                yarn_attn_factor: self.yarn_attn_factor,
                yarn_beta_slow: self.yarn_beta_slow,
                yarn_beta_fast: self.yarn_beta_fast,
            },
            adapter_slots: self.adapter_slots,
            adapter_device_bytes: self.adapter_device_bytes,
            adapter_batching: match self.adapter_batching {
                AdapterBatchingArg::Auto => AdapterBatching::Auto,
                AdapterBatchingArg::Lanes => AdapterBatching::Lanes,
                AdapterBatchingArg::Grouped => AdapterBatching::Grouped,
            },
            ..d
        }
    }
}

/// Adapters of every request that names none of its own.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Adapters")]
pub struct AdapterArgs {
    /// Apply an adapter of the library, with a weight from 0 to 8; may be repeated; `auto` has the router choose,
    /// `none` is the plain base
    #[arg(long, value_name = "NAME[=SCALE]")]
    pub adapter: Vec<String>,
    /// With --adapter auto: what must hold of an adapter, as region=eu; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub metadata: Vec<String>,
    /// With --adapter auto: how to choose; see `smoa route --help`
    #[arg(long, value_name = "NAME")]
    pub route_strategy: Option<Strategy>,
    /// With --adapter auto: most adapters, 1 to 5
    #[arg(long, value_name = "N")]
    pub route_top_k: Option<usize>,
    /// With --adapter auto: least confidence, 0 to 1; below it the plain base answers [default: the probability that no adapter is
    /// for the request]
    #[arg(long, value_name = "P")]
    pub route_threshold: Option<f32>,
    /// Apply a GGUF LoRA file, with a weight from 0 to 8; may be repeated
    #[arg(long, value_name = "FILE[=SCALE]")]
    pub lora: Vec<String>,
    /// Where names are looked up.
    #[command(flatten)]
    pub library: LibraryArgs,
}

/// Which adapter library.
#[derive(Args, Clone, Debug, Default)]
pub struct LibraryArgs {
    /// The adapter library [default: smoa/library in the data folder]
    #[arg(long, value_name = "DIR", env = "SMOA_LIBRARY")]
    pub library: Option<PathBuf>,
    /// What turns texts into vectors for routing: `static` (in the program), a GGUF sentence encoder (a file, or a name
    /// of `smoa model ls`), or `cascade:ENCODER`, which asks the encoder where `static` is unsure [default: static]
    #[arg(long, value_name = "KIND", env = "SMOA_EMBEDDER")]
    pub embedder: Option<String>,
}

impl LibraryArgs {
    /// Files, and the library of the flag or the default one.
    pub fn shelf(&self) -> Shelf {
        self.folder().map_or_else(|_| Shelf::default(), Shelf::with_library).with_embedders(self.make_embedders())
    }

    fn make_embedders(&self) -> MakeEmbedders {
        let args = self.clone();
        Box::new(move || args.embedders())
    }

    /// The embedders of the flag.
    ///
    /// # Errors
    /// The encoder is missing or refused.
    pub fn embedders(&self) -> Result<Embedders, Failure> {
        let table = || Arc::new(StaticEmbedder::builtin()) as Arc<dyn Embedder>;
        let encoder = |name: &str| -> Result<Arc<dyn Embedder>, Failure> {
            let model = ModelArgs { model: Some(name.into()), ..ModelArgs::default() };
            Ok(Arc::new(super::embedder::load(&super::start::model_path(&model)?, 1)?))
        };
        Ok(match self.embedder.as_deref() {
            None | Some("static") => table().into(),
            Some(text) => match text.strip_prefix("cascade:") {
                Some(name) => Embedders { first: table(), second: Some(encoder(name)?) },
                None => encoder(text)?.into(),
            },
        })
    }

    /// The library's folder: the flag's, else `$XDG_DATA_HOME/smoa/library`.
    ///
    /// # Errors
    /// No flag, and no home folder to find the default in.
    pub fn folder(&self) -> Result<PathBuf, Failure> {
        use etcetera::BaseStrategy;
        if let Some(folder) = &self.library {
            return Ok(folder.clone());
        }
        let base = etcetera::choose_base_strategy()
            .map_err(|_| Failure::usage("no home folder to look for a library in: give --library DIR"))?;
        Ok(base.data_dir().join("smoa").join("library"))
    }
}

impl AdapterArgs {
    /// The chosen adapters.
    ///
    /// # Errors
    /// A weight is not a number.
    pub fn choices(&self) -> Result<Vec<AdapterChoice>, Failure> {
        let named = self
            .adapter
            .iter()
            .filter(|text| !["none", "auto"].contains(&text.as_str()))
            .map(|text| named_choice("--adapter", text));
        named.chain(self.lora.iter().map(|text| adapter_choice(text))).collect()
    }
}

impl AdapterArgs {
    /// How the router is to choose, where `--adapter auto` asks it to.
    ///
    /// # Errors
    /// Metadata that is no `KEY=VALUE`, or flags for the router without `auto`.
    pub fn routing(&self) -> Result<Option<Routing>, Failure> {
        let routing = Routing {
            metadata: pairs("--metadata", &self.metadata)?,
            strategy: self.route_strategy,
            top_k: self.route_top_k,
            threshold: self.route_threshold,
        };
        routing.validate().map_err(Failure::from)?;
        Ok(self.adapter.iter().any(|text| text == "auto").then_some(routing))
    }
}

/// Parses texts as `KEY=VALUE`.
///
/// # Errors
/// One has no `=`.
pub fn pairs(flag: &str, texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| {
        let found = text.split_once('=').map(|(key, value)| (key.to_string(), value.to_string()));
        found.ok_or_else(|| Failure::usage(format!("{flag} {text}: give KEY=VALUE")))
    };
    texts.iter().map(pair).collect()
}

/// Parses `NAME[=SCALE]`.
///
/// # Errors
/// What follows the `=` is not a number, or the name is `auto`.
pub fn named_choice(flag: &str, text: &str) -> Result<AdapterChoice, Failure> {
    let (name, scale) = text.split_once('=').unwrap_or((text, "1"));
    if name == "auto" {
        return Err(Failure::usage(format!("{flag} auto stands alone: it cannot be mixed with names")));
    }
    let scale = scale.parse().map_err(|_| scale_problem(flag, text, scale))?;
    Ok(AdapterChoice::named(name, scale))
}

/// Parses `FILE[=SCALE]`. A file whose name holds a `=` is meant when it exists.
///
/// # Errors
/// What follows the last `=` is not a number and no such file exists.
pub fn adapter_choice(text: &str) -> Result<AdapterChoice, Failure> {
    match text.rsplit_once('=') {
        None => Ok(AdapterChoice::file(text, 1.0)),
        Some(_) if Path::new(text).exists() => Ok(AdapterChoice::file(text, 1.0)),
        Some((path, scale)) => {
            let scale = scale.parse().map_err(|_| scale_problem("--lora", text, scale))?;
            Ok(AdapterChoice::file(path, scale))
        }
    }
}

fn scale_problem(flag: &str, text: &str, scale: &str) -> Failure {
    Failure::usage(format!("{flag} {text}: the scale after '=' must be a number, not '{scale}'"))
}

/// Flags of which at most one may be given. (A `group` attribute would not reach past the flattened flags.)
const ONE_FORMAT: [&str; 6] = ["format", "grammar", "grammar_file", "json_schema", "json_schema_file", "regex"];

/// The form of the answer. At most one may be given.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Format of the answer (at most one)")]
#[command(group(clap::ArgGroup::new("one_format").multiple(false).args(ONE_FORMAT)))]
pub struct FormatArgs {
    /// A ready format by name; `smoa grammar ls` lists them
    #[arg(long, value_name = "NAME")]
    pub format: Option<String>,
    /// GBNF grammar text
    #[arg(long, value_name = "GBNF")]
    pub grammar: Option<String>,
    /// File with a GBNF grammar
    #[arg(long, value_name = "FILE")]
    pub grammar_file: Option<PathBuf>,
    /// JSON Schema text; {} for any JSON
    #[arg(short = 'j', long, value_name = "SCHEMA")]
    pub json_schema: Option<String>,
    /// File with a JSON Schema [short: -jf]
    #[arg(long, value_name = "FILE")]
    pub json_schema_file: Option<PathBuf>,
    /// Regular expression the whole answer must match
    #[arg(long, value_name = "REGEX")]
    pub regex: Option<String>,
    #[command(flatten)]
    schema: SchemaArgs,
}

/// How a JSON Schema is enforced.
#[derive(Args, Clone, Debug, Default)]
struct SchemaArgs {
    /// Take a JSON Schema that cannot be enforced token by token: the rest is checked when the answer is complete, which
    /// is held back until then and asked again, up to three times
    #[arg(long)]
    schema_check: bool,
    /// In which order the keys of objects come: any, or the order of the JSON Schema
    #[arg(long, value_name = "any|schema", value_parser = key_order)]
    key_order: Option<KeyOrder>,
}

fn key_order(text: &str) -> Result<KeyOrder, String> {
    match text {
        "any" => Ok(KeyOrder::Any),
        "schema" => Ok(KeyOrder::Schema),
        _ => Err("must be 'any' or 'schema'".to_owned()),
    }
}

impl FormatArgs {
    /// The chosen format, with files read.
    ///
    /// # Errors
    /// A file cannot be read or is not text.
    pub fn source(&self) -> Result<Option<Source>, Failure> {
        let file = |path: &Option<PathBuf>, flag| path.as_deref().map(|p| read_text(p, flag)).transpose();
        let named = self.format.clone().map(Source::Named);
        let grammar = self.grammar.clone().or(file(&self.grammar_file, "--grammar-file")?).map(Source::Gbnf);
        let schema = self.json_schema.clone().or(file(&self.json_schema_file, "--json-schema-file")?);
        let regex = self.regex.clone().map(Source::Regex);
        let format = named.or(grammar).or(schema.map(Source::JsonSchema)).or(regex);
        let (mode, order) = (self.schema.schema_check.then_some(SchemaMode::Check), self.schema.key_order);
        if mode.is_none() && order.is_none() {
            return Ok(format);
        }
        let flag = if mode.is_some() { "--schema-check" } else { "--key-order" };
        let needs = || Failure::usage(format!("{flag} needs --json-schema or --json-schema-file"));
        format.and_then(|source| source.with_schema_options(mode, order)).map(Some).ok_or_else(needs)
    }
}

/// Most bytes of a text file that a flag names.
const MAX_TEXT_FILE: u64 = 16 << 20;

/// Reads a small text file that `flag` names.
///
/// # Errors
/// It is not there, not a regular file, larger than 16 MiB or not UTF-8.
pub fn read_text(path: &Path, flag: &str) -> Result<String, Failure> {
    let fail = |code, what: String| Failure::new(code, format!("{flag} '{}': {what}", path.display()));
    let meta = std::fs::metadata(path).map_err(|e| fail(crate::model_file::open_code(&e), e.to_string()))?;
    if !meta.is_file() {
        return Err(fail(Code::InvalidFile, "is not a regular file".into()));
    }
    if meta.len() > MAX_TEXT_FILE {
        return Err(fail(Code::InvalidFile, format!("has {} bytes, the limit is {MAX_TEXT_FILE}", meta.len())));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(Code::InvalidFile, e.to_string()))?;
    String::from_utf8(bytes)
        .map_err(|e| fail(Code::InvalidFile, format!("is not UTF-8 text (byte {})", e.utf8_error().valid_up_to())))
}

/// How tokens are chosen, and when an answer ends.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sampling (names and defaults as in llama.cpp)")]
pub struct SamplingArgs {
    /// Most tokens to generate; -1 until the model ends
    #[arg(
        short = 'n',
        long,
        alias = "n-predict",
        value_name = "N",
        env = "LLAMA_ARG_N_PREDICT",
        allow_negative_numbers = true
    )]
    pub predict: Option<i64>,
    /// Random seed; -1 draws one
    #[arg(short = 's', long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<i64>,
    /// Temperature; 0 always takes the most likely token [default: 0.8]
    #[arg(long, alias = "temperature", value_name = "N", env = "LLAMA_ARG_TEMPERATURE", allow_negative_numbers = true)]
    pub temp: Option<f32>,
    /// Keep the N most likely tokens; 0 keeps all [default: 40]
    #[arg(long, value_name = "N", env = "LLAMA_ARG_TOP_K", allow_negative_numbers = true)]
    pub top_k: Option<i32>,
    /// Nucleus mass; 1 disables [default: 0.95]
    #[arg(long, value_name = "N")]
    pub top_p: Option<f32>,
    /// Least probability relative to the best; 0 disables [default: 0.05]
    #[arg(long, value_name = "N")]
    pub min_p: Option<f32>,
    /// Locally typical mass; 1 disables
    #[arg(long, alias = "typical-p", value_name = "N")]
    pub typical: Option<f32>,
    /// Keep logits within N standard deviations of the best; below 0 disables
    #[arg(long, alias = "top-nsigma", value_name = "N", allow_negative_numbers = true)]
    pub top_n_sigma: Option<f32>,
    /// XTC: chance to remove top choices
    #[arg(long, value_name = "N")]
    pub xtc_probability: Option<f32>,
    /// XTC: threshold
    #[arg(long, value_name = "N")]
    pub xtc_threshold: Option<f32>,
    /// Tokens the penalties look back at; -1 for the context [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub repeat_last_n: Option<i32>,
    /// Penalty for repeated tokens; 1 disables
    #[arg(long, value_name = "N")]
    pub repeat_penalty: Option<f32>,
    /// Penalty once for each token present
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// Penalty for each occurrence of a token
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// DRY: strength; 0 disables
    #[arg(long, value_name = "N")]
    pub dry_multiplier: Option<f32>,
    /// DRY: base
    #[arg(long, value_name = "N")]
    pub dry_base: Option<f32>,
    /// DRY: repetitions up to this length are free
    #[arg(long, value_name = "N")]
    pub dry_allowed_length: Option<i32>,
    /// DRY: tokens scanned; -1 for the context
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub dry_penalty_last_n: Option<i32>,
    /// DRY: a text that breaks a repetition; may be repeated; `none` for no breakers
    #[arg(long, value_name = "TEXT")]
    pub dry_sequence_breaker: Vec<String>,
    /// Dynamic temperature: range
    #[arg(long, value_name = "N")]
    pub dynatemp_range: Option<f32>,
    /// Dynamic temperature: exponent
    #[arg(long, value_name = "N")]
    pub dynatemp_exp: Option<f32>,
    /// Mirostat version: 0 off, 1 or 2
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub mirostat: Option<u8>,
    /// Mirostat: learning rate
    #[arg(long, value_name = "N")]
    pub mirostat_lr: Option<f32>,
    /// Mirostat: target entropy
    #[arg(long, value_name = "N")]
    pub mirostat_ent: Option<f32>,
    /// Adaptive-p (a step of --samplers): draw tokens near this probability, 0 to 1; below 0 any
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub adaptive_target: Option<f32>,
    /// Adaptive-p: how long what was drawn counts, 0 to 0.99 [default: 0.9]
    #[arg(long, value_name = "N")]
    pub adaptive_decay: Option<f32>,
    /// Change the likelihood of a token: ID+BIAS or ID-BIAS; may be repeated
    #[arg(short = 'l', long, value_name = "ID(+/-)BIAS")]
    pub logit_bias: Vec<String>,
    /// Never choose an end token
    #[arg(long)]
    pub ignore_eos: bool,
    /// Order of the samplers, for example top_k;temperature
    #[arg(long, value_name = "A;B;..")]
    pub samplers: Option<String>,
    /// Order of the samplers as letters, for example edskypmxt
    #[arg(long, alias = "sampling-seq", value_name = "LETTERS", conflicts_with = "samplers")]
    pub sampler_seq: Option<String>,
    /// Least number of tokens the truncating samplers keep
    #[arg(long, value_name = "N")]
    pub min_keep: Option<usize>,
    /// A text that ends the answer; may be repeated
    #[arg(short = 'r', long, alias = "stop", value_name = "TEXT")]
    pub reverse_prompt: Vec<String>,
    /// Read escapes such as \n and \x0A in -r and --dry-sequence-breaker (they are)
    #[arg(short = 'e', long, overrides_with = "no_escape")]
    pub escape: bool,
    /// Take those texts as they are
    #[arg(long)]
    pub no_escape: bool,
    /// When the context is full, forget old tokens and go on
    #[arg(long, env = "LLAMA_ARG_CONTEXT_SHIFT", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub context_shift: bool,
    /// Tokens of the prompt that a context shift keeps; -1 for all
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub keep: Option<i64>,
}

impl SamplingArgs {
    /// The sampling numbers. Their ranges are checked with the request.
    ///
    /// # Errors
    /// A seed, bias or sampler name that cannot be read.
    pub fn sampling(&self) -> Result<Sampling, Failure> {
        let d = Sampling::default();
        let breakers = match self.dry_sequence_breaker.as_slice() {
            [] => d.dry_sequence_breakers,
            given => {
                let given = given.iter().filter(|b| *b != "none");
                given.map(|text| self.unescaped("--dry-sequence-breaker", text)).collect::<Result<_, _>>()?
            }
        };
        Ok(Sampling {
            seed: match self.seed {
                None | Some(-1) => None,
                Some(n) => Some(
                    u32::try_from(n)
                        .map_err(|_| Failure::usage(format!("--seed must be -1 to 4294967295, not {n}")))?,
                ),
            },
            temperature: self.temp.unwrap_or(d.temperature),
            dynatemp_range: self.dynatemp_range.unwrap_or(d.dynatemp_range),
            dynatemp_exponent: self.dynatemp_exp.unwrap_or(d.dynatemp_exponent),
            top_k: self.top_k.unwrap_or(d.top_k),
            top_p: self.top_p.unwrap_or(d.top_p),
            min_p: self.min_p.unwrap_or(d.min_p),
            typical_p: self.typical.unwrap_or(d.typical_p),
            top_n_sigma: self.top_n_sigma.unwrap_or(d.top_n_sigma),
            xtc_probability: self.xtc_probability.unwrap_or(d.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(d.xtc_threshold),
            min_keep: self.min_keep.unwrap_or(d.min_keep),
            repeat_last_n: self.repeat_last_n.unwrap_or(d.repeat_last_n),
            repeat_penalty: self.repeat_penalty.unwrap_or(d.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(d.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(d.presence_penalty),
            dry_multiplier: self.dry_multiplier.unwrap_or(d.dry_multiplier),
            dry_base: self.dry_base.unwrap_or(d.dry_base),
            dry_allowed_length: self.dry_allowed_length.unwrap_or(d.dry_allowed_length),
            dry_penalty_last_n: self.dry_penalty_last_n.unwrap_or(d.dry_penalty_last_n),
            dry_sequence_breakers: breakers,
            mirostat: match self.mirostat {
                Some(1) => Mirostat::V1,
                Some(2) => Mirostat::V2,
                _ => Mirostat::Off,
            },
            mirostat_tau: self.mirostat_ent.unwrap_or(d.mirostat_tau),
            mirostat_eta: self.mirostat_lr.unwrap_or(d.mirostat_eta),
            adaptive_target: self.adaptive_target.unwrap_or(d.adaptive_target),
            adaptive_decay: self.adaptive_decay.unwrap_or(d.adaptive_decay),
            logit_bias: self.logit_bias.iter().map(|text| logit_bias(text)).collect::<Result<_, _>>()?,
            ignore_eos: self.ignore_eos,
            order: self.order()?.unwrap_or(d.order),
        })
    }

    /// When an answer ends.
    ///
    /// # Errors
    /// A text that ends it is no text.
    pub fn limits(&self) -> Result<JobLimits, Failure> {
        let keep = self.keep.map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let stop = self.reverse_prompt.iter().map(|text| self.unescaped("--reverse-prompt", text));
        Ok(JobLimits {
            max_tokens: self.predict.and_then(|n| usize::try_from(n).ok()),
            max_time: None::<Duration>,
            stop: stop.collect::<Result<_, _>>()?,
            shift: self.context_shift.then_some(Shift { keep, discard: None }),
        })
    }

    /// A text of the command line with its escapes read, unless they are to stay.
    fn unescaped(&self, flag: &str, text: &str) -> Result<String, Failure> {
        if self.no_escape { Ok(text.to_owned()) } else { super::escapes::read(flag, text) }
    }

    fn order(&self) -> Result<Option<Vec<SamplerKind>>, Failure> {
        let unknown = |what: &str| {
            let known = SamplerKind::DEFAULT_ORDER.map(|k| k.name()).join(";");
            Failure::usage(format!("unknown sampler '{what}'; the default is {known}"))
        };
        if let Some(names) = &self.samplers {
            let names = names.split([';', ',']).filter(|n| !n.trim().is_empty());
            return names
                .map(|n| SamplerKind::by_name(n).ok_or_else(|| unknown(n)))
                .collect::<Result<_, _>>()
                .map(Some);
        }
        let Some(letters) = &self.sampler_seq else {
            return Ok(None);
        };
        letters
            .chars()
            .map(|c| SamplerKind::by_letter(c).ok_or_else(|| unknown(&c.to_string())))
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

fn logit_bias(text: &str) -> Result<LogitBias, Failure> {
    let wrong = || Failure::usage(format!("--logit-bias {text}: give a token id, + or -, and a number, as in 15043+1"));
    let at = text.find(['+', '-']).ok_or_else(wrong)?;
    let target = BiasTarget::Token(text[..at].parse().map_err(|_| wrong())?);
    let bias = match &text[at..] {
        "-inf" => f32::NEG_INFINITY,
        number => number.parse().map_err(|_| wrong())?,
    };
    Ok(LogitBias { target, bias })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapter_choices_take_a_scale_after_the_last_equals_sign() {
        let c = adapter_choice("dir/a=b.gguf=0.5").expect("parsed");
        assert_eq!(c, AdapterChoice::file("dir/a=b.gguf", 0.5));
        assert_eq!(named_choice("--adapter", "sql=0.5").expect("parsed"), AdapterChoice::named("sql", 0.5));
        assert!(named_choice("--adapter", "auto").is_err());
        assert_eq!(adapter_choice("a.gguf").expect("parsed").scale, 1.0);
        assert!(adapter_choice("a.gguf=high").is_err());
    }

    #[test]
    fn logit_biases_are_read_as_llama_cpp_does() {
        assert_eq!(logit_bias("15043+1").expect("read"), LogitBias { target: BiasTarget::Token(15043), bias: 1.0 });
        assert_eq!(logit_bias("7-2.5").expect("read").bias, -2.5);
        assert_eq!(logit_bias("7-inf").expect("read").bias, f32::NEG_INFINITY);
        for bad in ["x+1", "5", "5+", "+1"] {
            assert!(logit_bias(bad).is_err(), "{bad}");
        }
    }
}
