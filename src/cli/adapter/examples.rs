//! `smoa adapter from-examples`: an adapter with no training, made of a few examples that stand before the prompt.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::super::Context;
use super::super::args::{ModelArgs, read_text};
use super::super::exit::Outcome;
use super::super::signals::Signals;
use super::super::start::{self, model_path};
use super::store::StoreArgs;
use super::{parsed, write_new};
use crate::adapter::{AdapterDigest, AdapterFile};
use crate::engine::saved::{Saved, Stamp};
use crate::error::{Code, Failure};
use crate::gguf::{self, ModelFacts, PrefixMessage, PrefixState};
use crate::import;
use crate::library::{AdapterName, Card, Measured, base_fingerprint, limits};
use crate::model_file;

/// Make an adapter of examples, without training: JSON lines of messages, of input and output, or of pairs of texts
#[derive(Args, Debug)]
pub struct ExampleArgs {
    /// One example per line: {"messages": [..]}, {"input", "output"}, {"prompt", "completion"} or ["input", "output"]
    file: PathBuf,
    /// The name [default: the file's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A system message before the examples
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Write the adapter to this file, which must not exist, and not to the library
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep the messages alone, not the state a model has after reading them
    #[arg(long)]
    no_state: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// The base model the adapter is for: a file, or a name of `smoa model ls`
    #[arg(short = 'm', long, value_name = "FILE", env = "LLAMA_ARG_MODEL")]
    model: Option<PathBuf>,
}

/// Inputs of the examples that the card repeats, so that routing finds the adapter by them.
const CARD_EXAMPLES: usize = 8;

/// Runs `smoa adapter from-examples`.
///
/// # Errors
/// The examples are refused, with their line; the name is taken.
pub fn run(args: &ExampleArgs, context: &Context) -> Result<(), Outcome> {
    let path = &args.file;
    let refuse = |what: String| Failure::new(Code::InvalidFile, format!("'{}': {what}", path.display()));
    let text = read_text(path, "examples")?;
    let messages = import::examples(&text, args.system.as_deref()).map_err(|e| refuse(e.to_string()))?;
    let base = model_file::check(&model_path(&ModelArgs { model: args.model.clone(), ..Default::default() })?)?;
    let name = name_of(args, path)?;
    let card = Card { origin: Some("examples".to_owned()), examples: inputs(&messages), ..Card::default() };
    let bytes = build(messages, &name, &base, None).map_err(|e| refuse(e.to_string()))?;
    let read = |bytes: &[u8]| if args.no_state { None } else { state(args, bytes, &path_of(&name), &base, context) };
    if let Some(output) = &args.output {
        let bytes = match read(&bytes) {
            Some(kept) => PrefixState::read(&bytes)
                .and_then(|prefix| build(prefix.messages, &name, &base, Some(kept)))
                .map_err(|e| refuse(e.to_string()))?,
            None => bytes,
        };
        write_new(output, &bytes)?;
        context.printer.note(&format!("wrote {} bytes to {}", bytes.len(), output.display()));
        return Ok(());
    }
    let facts = gguf::check_adapter(&bytes, &base).map_err(|e| refuse(e.to_string()))?;
    let measured = Measured::of(&facts, Some(base_fingerprint(&base)));
    let library = args.store.open()?;
    let added = args.store.keep(&library, &name, &bytes, card, measured)?;
    let line = format!("{name} {} ({} bytes, {:?})", added.digest, bytes.len(), added.outcome);
    context.printer.line(&line)?;
    if let Some((stamp, saved)) = read(&bytes) {
        let file = saved.to_file(&stamp);
        match library.keep_state(added.digest, &stamp.key(), &file) {
            Ok(_) => {
                let (tokens, bytes) = (saved.tokens.len(), file.len());
                context.printer.note(&format!("kept the state of its {tokens} tokens ({bytes} bytes)"));
            }
            Err(e) => context.printer.warning(&format!("its state is not kept, the messages are read instead: {e}")),
        }
    }
    Ok(())
}

/// The state that the examples leave in an engine with default settings. A saving, so whatever stands in its way is
/// only told.
fn state(
    args: &ExampleArgs,
    bytes: &[u8],
    name: &Path,
    base: &ModelFacts,
    context: &Context,
) -> Option<(Stamp, Saved)> {
    let made = || -> Result<Option<(Stamp, Saved)>, Failure> {
        let file = AdapterFile::new(name, Box::new(bytes.to_vec()), AdapterDigest::of(bytes), base)?;
        // No token is shorter than a byte of the JSON the messages are in.
        let tokens = u32::try_from(bytes.len() + 256).unwrap_or(u32::MAX).min(base.n_ctx_train.max(256));
        let model = ModelArgs { model: args.model.clone(), ctx_size: Some(tokens), ..Default::default() };
        let signals = Signals::watch(|| ()).map_err(|e| Failure::new(Code::Other, format!("signals: {e}")))?;
        let pipeline = start::start(&model, &args.store.library, 1, &context.printer, &signals)?;
        pipeline.read_prefix(&Arc::new(file))
    };
    made().unwrap_or_else(|failure| {
        let said = format!("its state is not kept, the messages are read instead: {}", failure.message);
        context.printer.warning(&said);
        None
    })
}

fn path_of(name: &AdapterName) -> PathBuf {
    PathBuf::from(name.as_str())
}

fn name_of(args: &ExampleArgs, path: &Path) -> Result<AdapterName, Failure> {
    let Some(name) = &args.name else {
        let stem = path.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        return AdapterName::from_label(&stem)
            .map_err(|e| Failure::usage(format!("{}: {e}; give --name", path.display())));
    };
    parsed(name)
}

/// The file: the messages, and beside them the state they leave when there is one.
fn build(
    messages: Vec<PrefixMessage>,
    name: &AdapterName,
    base: &ModelFacts,
    kept: Option<(Stamp, Saved)>,
) -> Result<Vec<u8>, gguf::GgufError> {
    let fingerprint = base_fingerprint(base);
    let key = kept.as_ref().map(|(stamp, _)| stamp.key().into());
    let state = kept.as_ref().map(|(stamp, saved)| saved.to_file(stamp)).unwrap_or_default();
    let prefix = PrefixState {
        architecture: base.architecture.as_str().into(),
        name: Some(name.as_str().into()),
        base: Some(fingerprint.as_str().into()),
        messages,
        stamp: key,
        tokens: kept.map(|(_, saved)| saved.tokens).unwrap_or_default(),
        state: state.into(),
    };
    prefix.to_gguf()
}

fn inputs(messages: &[PrefixMessage]) -> Vec<String> {
    let asked = messages.iter().filter(|message| message.role == "user").map(|message| &message.content);
    let fits = |text: &&String| text.len() <= limits::TEXT_BYTES && !text.contains('\0');
    asked.filter(fits).take(CARD_EXAMPLES).cloned().collect()
}
