//! `smoa grammar`: the ready formats, and checks of a format or a text without a model.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::args::FormatArgs;
use super::exit::Outcome;
use super::{Context, args};
use crate::error::{Code, Failure};
use crate::grammar::{
    Compiled, Compiler, Limits, MatchResult, Vocabulary, format, format_names, format_text, gbnf_from_schema,
    parameterised,
};
use crate::pipeline::format_failure;

/// List, show and check formats; needs no model
#[derive(Args, Debug)]
pub struct GrammarCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the ready formats
    Ls,
    /// Print the grammar of a ready format, with its parameters filled in
    Show {
        /// Its name, with parameters where it takes some: 'choice(yes, no)'
        name: String,
    },
    /// Check a format; exit code 5 with line and column when it is refused
    Check(FormatArgs),
    /// Tell whether a text has a format: exit code 0 when it does, 1 when not
    Test {
        #[command(flatten)]
        format: FormatArgs,
        /// File with the text, instead of standard input
        #[arg(short = 'f', long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write a JSON Schema as GBNF text, to read it and go on from there; exit code 5 with the place that GBNF cannot say
    FromSchema {
        /// File with the schema; standard input if none is given
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// Runs `smoa grammar`.
///
/// # Errors
/// A format is refused or unknown; a text does not have it.
pub fn run(command: GrammarCommand, context: &Context) -> Result<(), Outcome> {
    let printer = &context.printer;
    match command.action {
        Action::Ls => {
            for name in format_names() {
                let description = format(name).map_or("", |f| f.description());
                printer.line(&format!("{name:<22} {description}"))?;
            }
            for shape in parameterised() {
                printer.line(&format!("{:<22} {}", format!("{}(...)", shape.name), shape.description))?;
                for (name, meaning) in shape.params {
                    printer.line(&format!("{:<22}   {name}: {meaning}", ""))?;
                }
                printer.line(&format!("{:<22}   example: {}", "", shape.example))?;
            }
            Ok(())
        }
        Action::Show { name } => {
            let text = format_text(&name).map_err(format_failure)?;
            Ok(printer.answer(&text)?)
        }
        Action::Check(args) => {
            let compiled = compile(&args)?;
            printer.line("ok")?;
            // What the author of a schema would not guess.
            for note in compiled.schema().into_iter().flat_map(|report| report.notes().iter().chain(report.unchecked()))
            {
                printer.line(&format!("note: '{}': {}", note.pointer, note.message))?;
            }
            Ok(())
        }
        Action::Test { format, file } => {
            let compiled = compile(&format)?;
            let text = match &file {
                Some(path) => args::read_text(path, "--file")?.into_bytes(),
                None => stdin_bytes()?,
            };
            let result = compiled.matches(&text).map_err(|e| Failure::new(Code::FormatRejected, e.to_string()))?;
            let (line, code) = match result {
                MatchResult::Complete => {
                    match compiled.schema().map(|report| report.check(&String::from_utf8_lossy(&text))) {
                        Some(Err(violation)) => (violation.to_string(), Some(Code::Other)),
                        _ => ("complete".to_string(), None),
                    }
                }
                MatchResult::Prefix => ("incomplete: more must follow".to_string(), Some(Code::Other)),
                MatchResult::Rejected { at } => (format!("refused at byte {at}"), Some(Code::Other)),
            };
            printer.line(&line)?;
            code.map_or(Ok(()), |code| Err(Outcome::Silent(code)))
        }
        Action::FromSchema { file } => {
            let text = match &file {
                Some(path) => args::read_text(path, "FILE")?,
                None => String::from_utf8(stdin_bytes()?).map_err(|_| {
                    Failure::new(Code::FormatRejected, "schema: standard input is not UTF-8".to_string())
                })?,
            };
            Ok(printer.answer(&gbnf_from_schema(&text, &Limits::default()).map_err(format_failure)?)?)
        }
    }
}

/// Compiles against the plainest vocabulary there is, the 256 bytes: enough to check any format.
fn compile(args: &FormatArgs) -> Result<Arc<Compiled>, Failure> {
    let source = args.source()?;
    let source =
        source.ok_or_else(|| Failure::usage("give a format: --format, --grammar, --json-schema or --regex"))?;
    let pieces = (0..=255u8).map(|b| vec![b]).chain([Vec::new()]).collect();
    let control = (0..257).map(|id| id == 256).collect();
    let vocabulary = Arc::new(Vocabulary::new(pieces, control, vec![256]));
    Compiler::new(vocabulary).compile(&source).map_err(format_failure)
}

fn stdin_bytes() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limit = 64 << 20;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::new(Code::Other, format!("standard input: {e}")))?;
    // One line ending at the end belongs to the pipe.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}
