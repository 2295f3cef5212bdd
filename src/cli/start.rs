//! From flags to a loaded model: found, checked, loaded with a progress bar, ready for requests.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{LibraryArgs, ModelArgs, read_text};
use super::draft_args::DraftArgs;
use super::models;
use super::printer::Printer;
use super::signals::Signals;
use crate::engine::encoder::Pooling;
use crate::engine::llama::{self, EncodingEngine, LlamaEngine};
use crate::engine::options::EngineOptions;
use crate::engine::second::misfit;
use crate::engine::{Batching, Engine, Tokenizer};
use crate::error::{Code, Failure};
use crate::gguf::{ModelFacts, ModelKind};
use crate::model_file;
use crate::pipeline::Pipeline;
use crate::prompt::{ChatTemplate, SpecialTokens};

/// Jobs that may wait for the engine.
const QUEUE: usize = 64;

/// Loads the model that the flags name. `sequences` is used where `--parallel` is not given.
///
/// # Errors
/// With the flag or file at fault.
pub fn start(
    args: &ModelArgs,
    library: &LibraryArgs,
    sequences: u32,
    printer: &Printer,
    signals: &Signals,
) -> Result<Pipeline, Failure> {
    start_checked(args, library, sequences, None, printer, signals)
}

/// Whether a server makes vectors of texts, and how.
#[derive(Clone, Debug, Default)]
pub struct Vectors {
    /// The model is to make them beside its answers.
    pub wanted: bool,
    /// `None` takes the model's own.
    pub pooling: Option<Pooling>,
    /// Another model makes them.
    pub model: Option<PathBuf>,
}

/// As [`start`], for a server: also loads models that only make vectors.
///
/// # Errors
/// As there.
pub fn serving(
    args: &ModelArgs,
    library: &LibraryArgs,
    sequences: u32,
    vectors: &Vectors,
    printer: &Printer,
    signals: &Signals,
) -> Result<Pipeline, Failure> {
    let Some(second) = &vectors.model else {
        return start_checked(args, library, sequences, Some(vectors), printer, signals);
    };
    let named = ModelArgs { model: Some(second.clone()), ..args.clone() };
    let path = model_path(&named)?;
    let facts = model_file::check(&path)?;
    let mut watch = |_: f32| signals.code().is_none();
    let encoder = EncodingEngine::load(&named.options(&path, 1), &facts, vectors.pooling, &mut watch)?.into_encoder();
    if encoder.facts().pooling == Pooling::None {
        let message = format!("--embedding-model '{}': its own pooling is none; give --pooling", path.display());
        return Err(Failure::usage(message));
    }
    let pipeline = start_checked(args, library, sequences, None, printer, signals)?;
    Ok(pipeline.with_encoder(encoder))
}

fn start_checked(
    args: &ModelArgs,
    library: &LibraryArgs,
    sequences: u32,
    vectors: Option<&Vectors>,
    printer: &Printer,
    signals: &Signals,
) -> Result<Pipeline, Failure> {
    let path = model_path(args)?;
    let facts = model_file::check_with(&path, &args.engine.overrides()?)?;
    let pooling = vectors.and_then(|v| v.pooling);
    let only_vectors = vectors.is_some() && facts.kind == ModelKind::Embedding;
    if !only_vectors {
        facts
            .require_generation()
            .map_err(|e| Failure::new(Code::InvalidFile, format!("model '{}': {e}", path.display())))?;
    }
    let mut options = args.options(&path, sequences);
    options.details = args.engine.details()?;
    options.embeddings = vectors.filter(|v| v.wanted).map(|v| v.pooling);
    let bar = progress_bar(printer, &path);
    let interrupted = signals.clone();
    let base = facts.clone();
    let mut on_progress = {
        let bar = bar.clone();
        move |done: f32| {
            bar.set_position((done.clamp(0.0, 1.0) * 1000.0) as u64);
            interrupted.code().is_none()
        }
    };
    let shelf = library.shelf().with_cache_bytes(args.adapter_cache_bytes).keeping_judged(args.keep_judged);
    let pinned = shelf.keep(&args.pin_adapter, &facts)?;
    let template = |tokenizer: &dyn Tokenizer, facts: &ModelFacts| chat_template(args, tokenizer, facts, printer);
    let limits = args.cache.limits(QUEUE)?;
    let second = if only_vectors { None } else { SecondModel::named(&args.drafts)? };
    let started = match only_vectors {
        true => {
            let make = move || EncodingEngine::load(&options, &base, pooling, &mut on_progress);
            Pipeline::start(facts, limits, shelf, make, template)
        }
        false => {
            let make = move || {
                let engine = LlamaEngine::load(&options, &base, &mut on_progress)?;
                match second {
                    Some(second) => second.join(engine, &options, &base),
                    None => Ok(engine),
                }
            };
            Pipeline::start(facts, limits, shelf, make, template)
        }
    };
    bar.finish_and_clear();
    let pipeline = started.map_err(|f| match signals.code() {
        Some(code) => Failure::new(code, f.message),
        None => f,
    })?;
    pipeline.keep_ready(&pinned);
    if let Batching::Grouped { why: Some(why) } = &pipeline.facts().batching {
        printer.note(&format!("requests with different adapters take turns: {why}"));
    }
    Ok(pipeline)
}

/// The model file: `--hf-repo` out of a cache; `--model`, by path or by a name of `smoa model ls`; else the default model where it is installed.
///
/// # Errors
/// There is no such model.
pub fn model_path(args: &ModelArgs) -> Result<PathBuf, Failure> {
    if let Some(cached) = args.engine.cached_model() {
        return cached;
    }
    match &args.model {
        Some(path) => named_model(path),
        None => models::default_model().ok_or_else(|| {
            Failure::usage("no model: give -m FILE or set LLAMA_ARG_MODEL (scripts/run.sh fetches a small one)")
        }),
    }
}

/// A model by path or by a name of `smoa model ls`.
///
/// # Errors
/// There is no such model.
pub fn named_model(path: &Path) -> Result<PathBuf, Failure> {
    if path.exists() || path.components().count() > 1 {
        return Ok(path.to_owned());
    }
    models::find(&path.to_string_lossy()).ok_or_else(|| {
        let message = format!("model '{}': no such file, and `smoa model ls` lists no such name", path.display());
        Failure::new(Code::NotFound, message)
    })
}

/// The second model, which guesses for the first one.
struct SecondModel {
    args: DraftArgs,
    path: PathBuf,
    facts: ModelFacts,
}

impl SecondModel {
    /// The one that flags name; checked as far as a file can be.
    fn named(args: &DraftArgs) -> Result<Option<Self>, Failure> {
        let Some(path) = args.model()? else { return Ok(None) };
        let facts = model_file::check(&path)?;
        facts
            .require_generation()
            .map_err(|e| Failure::new(Code::InvalidFile, format!("draft model '{}': {e}", path.display())))?;
        Ok(Some(Self { args: args.clone(), path, facts }))
    }

    /// Loads it beside the first one.
    fn join(self, first: LlamaEngine, options: &EngineOptions, base: &ModelFacts) -> Result<LlamaEngine, Failure> {
        let refused = |why: &str| {
            let message =
                format!("draft model '{}' does not fit the model: {why}; give another -md", self.path.display());
            Failure::new(Code::InvalidFile, message)
        };
        if !first.facts().prefix_reuse {
            return Err(Failure::usage("-md: this model's cache cannot forget tokens that were guessed wrong"));
        }
        let options = self.args.options(&self.path, options, first.facts().context);
        let second = LlamaEngine::load(&options, &self.facts, &mut |_| true)?;
        let (a, b) = (first.tokenizer(), second.tokenizer());
        if let Some(why) = misfit((&base.tokenizer, &*a), (&self.facts.tokenizer, &*b)) {
            return Err(refused(&why));
        }
        if !second.facts().prefix_reuse {
            return Err(refused("its cache cannot forget what it guessed wrong"));
        }
        Ok(first.guessed_by(second))
    }
}

fn progress_bar(printer: &Printer, path: &Path) -> ProgressBar {
    let target = match printer.shows_progress() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(1000), target);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {percent}%") {
        bar.set_style(style.progress_chars("=> "));
    }
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    bar.set_message(format!("loading {}", crate::error::printable(&name)));
    bar
}

/// The chat template: the flag's, else the model's, else `chatml` with a note.
fn chat_template(
    args: &ModelArgs,
    tokenizer: &dyn Tokenizer,
    facts: &ModelFacts,
    printer: &Printer,
) -> Result<ChatTemplate, Failure> {
    let text_of = |id: Option<u32>| id.map(|id| tokenizer.spelling(id)).unwrap_or_default();
    let tokens = SpecialTokens {
        bos: text_of(facts.tokenizer.bos),
        eos: text_of(facts.tokenizer.eos),
        control: tokenizer.control_texts().to_vec(),
    };
    if let Some(path) = &args.chat_template_file {
        let text = read_text(path, "--chat-template-file")?;
        return ChatTemplate::parse(&text, tokens)
            .map_err(|e| Failure::usage(format!("--chat-template-file '{}': {e}", path.display())));
    }
    if let Some(text) = &args.chat_template {
        if let Some(named) = ChatTemplate::named(text, tokens.clone()) {
            return Ok(named);
        }
        if !text.contains("{{") && !text.contains("{%") {
            let names: Vec<&str> = ChatTemplate::names().collect();
            let message = format!("--chat-template: there is no template '{text}'; known are {}", names.join(", "));
            return Err(Failure::usage(message));
        }
        return ChatTemplate::parse(text, tokens).map_err(|e| Failure::usage(format!("--chat-template: {e}")));
    }
    let refused = |e: crate::prompt::TemplateError| {
        let message = format!("the model's own template is refused: {e}; give --chat-template");
        Failure::new(Code::InvalidFile, message)
    };
    match &facts.chat_template {
        Some(text) => ChatTemplate::parse(text, tokens).map_err(refused),
        None => {
            if facts.kind.generates() {
                printer.note("the model has no chat template; using chatml");
            }
            ChatTemplate::named("chatml", tokens).ok_or_else(|| Failure::usage("the template chatml is missing"))
        }
    }
}

/// Applies `-v`: 1 shows llama.cpp's warnings, 2 its whole log.
pub fn set_verbosity(level: u8) {
    llama::set_verbosity(level);
}
