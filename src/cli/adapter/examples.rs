//! `smoa adapter from-examples`: an adapter with no training, made of a few examples that stand before the prompt.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::Context;
use super::super::args::{LibraryArgs, ModelArgs, read_text};
use super::super::exit::Outcome;
use super::super::start::model_path;
use super::add::Conflict;
use super::{CardArgs, parsed, write_new};
use crate::error::{Code, Failure};
use crate::gguf::{self, ModelFacts, PrefixMessage, PrefixState};
use crate::import;
use crate::library::{AdapterName, Card, Library, Measured, Metadata, base_fingerprint, limits};
use crate::model_file;
use crate::shelf::library_failure;

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
    /// What to do when the name is taken
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    on_conflict: Conflict,
    /// Write the adapter to this file, which must not exist, and not to the library
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    card: CardArgs,
    #[command(flatten)]
    library: LibraryArgs,
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
    let (bytes, measured) = build(messages, &name, &base).map_err(|e| refuse(e.to_string()))?;
    if let Some(output) = &args.output {
        write_new(output, &bytes)?;
        context.printer.note(&format!("wrote {} bytes to {}", bytes.len(), output.display()));
        return Ok(());
    }
    let library = Library::create(&args.library.folder()?).map_err(|e| library_failure(&e))?;
    let metadata = Metadata { card: args.card.card()?.over(card), measured };
    let added = library.add(&name, &bytes, &metadata, args.on_conflict.rule()).map_err(|e| library_failure(&e))?;
    let line = format!("{name} {} ({} bytes, {:?})", added.digest, bytes.len(), added.outcome);
    Ok(context.printer.line(&line)?)
}

fn name_of(args: &ExampleArgs, path: &Path) -> Result<AdapterName, Failure> {
    let Some(name) = &args.name else {
        let stem = path.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        return AdapterName::from_label(&stem)
            .map_err(|e| Failure::usage(format!("{}: {e}; give --name", path.display())));
    };
    parsed(name)
}

/// The file, checked against the base model, and its measures. The messages alone: an engine that has read them may add
/// the state they leave ([`PrefixState::state`]).
fn build(
    messages: Vec<PrefixMessage>,
    name: &AdapterName,
    base: &ModelFacts,
) -> Result<(Vec<u8>, Measured), gguf::GgufError> {
    let fingerprint = base_fingerprint(base);
    let prefix = PrefixState {
        architecture: base.architecture.as_str().into(),
        name: Some(name.as_str().into()),
        base: Some(fingerprint.as_str().into()),
        messages,
        stamp: None,
        tokens: Vec::new(),
        state: Vec::new().into(),
    };
    let bytes = prefix.to_gguf()?;
    let facts = gguf::check_adapter(&bytes, base)?;
    Ok((bytes, Measured::of(&facts, Some(fingerprint))))
}

fn inputs(messages: &[PrefixMessage]) -> Vec<String> {
    let asked = messages.iter().filter(|message| message.role == "user").map(|message| &message.content);
    let fits = |text: &&String| text.len() <= limits::TEXT_BYTES && !text.contains('\0');
    asked.filter(fits).take(CARD_EXAMPLES).cloned().collect()
}
