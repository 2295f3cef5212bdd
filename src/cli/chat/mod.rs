//! `smoa chat`: a conversation in the terminal.
//!
//! [`talk`] carries messages and commands out; what it works on is pure: [`command`] reads a line, [`session`] is the
//! conversation, [`store`] its saved form, [`settings`] are the numbers. Text comes through [`lines`], from the
//! [`editor`] or from [`plain`] standard input.

mod command;
mod complete;
mod editor;
mod lines;
mod multiline;
mod plain;
mod screen;
mod session;
mod settings;
mod stats;
mod store;
mod talk;
#[cfg(test)]
mod tests;
mod words;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::{AdapterArgs, FormatArgs, ModelArgs, SamplingArgs, adapter_choice, named_choice, read_text};
use super::exit::Outcome;
use super::jsonl::{LineText, MAX_LINE, read_line};
use super::printer::Printer;
use super::signals::Signals;
use super::{Context, doctor, start, summary};
use crate::error::{Code, Failure};
use crate::request::{Input, Request};
use editor::Editor;
use lines::Lines;
use plain::{Plain, Wake, wakes};
use talk::{Running, Talk};

/// Chat in the terminal
///
/// Answers go to standard output, everything else to standard error. /help lists the commands. Without a terminal at
/// standard input, every line of it is a message.
#[derive(Args, Debug)]
pub struct ChatArgs {
    /// The first message
    pub prompt: Option<String>,
    /// Answer the first message and leave [short: -st]
    #[arg(long, requires = "prompt")]
    pub single_turn: bool,
    /// System message [short: -sys]
    #[arg(long, value_name = "TEXT")]
    pub system_prompt: Option<String>,
    /// File with the system message [short: -sysf]
    #[arg(long, value_name = "FILE", conflicts_with = "system_prompt")]
    pub system_prompt_file: Option<PathBuf>,
    /// Keep no messages for the next session
    #[arg(long)]
    pub no_history: bool,
    /// When to use colors [short: -co]; NO_COLOR and TERM=dumb mean never
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: When,
    #[command(flatten)]
    pub adapters: AdapterArgs,
    #[command(flatten)]
    pub format: FormatArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// Values of --color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum When {
    Auto,
    Always,
    Never,
}

/// Runs `smoa chat`.
///
/// # Errors
/// With the documented exit code. A failure inside the conversation is told and does not end it.
pub fn run(args: ChatArgs, context: &Context) -> Result<(), Outcome> {
    if args.model.list_devices {
        return doctor::list_devices(context);
    }
    let printer = match args.color {
        When::Auto => context.printer,
        When::Always => context.printer.with_color(true),
        When::Never => context.printer.with_color(false),
    };
    let request = request(&args)?;
    let system = system(&args)?;
    let running = Running::default();
    let (wake, woken) = wakes();
    let (to_cancel, to_wake) = (running.clone(), wake.clone());
    let signals = Signals::watch_each(move || {
        if !to_cancel.cancel() {
            let _ = to_wake.try_send(Wake::Signal);
        }
    })
    .map_err(|e| Failure::new(Code::Other, format!("signals: {e}")))?;
    let pipeline = start::start(&args.model, &args.adapters.library, 1, &printer, &signals)?;
    let mut talk = Talk::new(&pipeline, printer, (signals.clone(), running), request, system)?;
    if args.single_turn {
        return single_turn(&mut talk, args.prompt.as_deref().unwrap_or_default());
    }
    let mut lines = open_lines(&args, printer, (wake, woken))?;
    if lines.interactive() {
        let facts = pipeline.facts();
        printer.note(&format!(
            "{}, context {} tokens; /help lists the commands, Ctrl-D leaves",
            facts.model, facts.context
        ));
    }
    talk.converse(args.prompt.as_deref(), &mut *lines)
}

/// Answers one message; a format cut short and a signal have their exit codes, as in `smoa run`.
fn single_turn(talk: &mut Talk, prompt: &str) -> Result<(), Outcome> {
    talk.ask(prompt)?;
    match talk.signals.code().or(talk.failed) {
        Some(code) => Err(Outcome::Silent(code)),
        None => Ok(()),
    }
}

/// An editor where there is a terminal that can do it, else plain lines.
fn open_lines(
    args: &ChatArgs,
    printer: Printer,
    (wake, woken): (std::sync::mpsc::SyncSender<Wake>, std::sync::mpsc::Receiver<Wake>),
) -> Result<Box<dyn Lines>, Failure> {
    let terminal = io::stdin().is_terminal();
    let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    if !terminal || dumb {
        return Ok(Box::new(Plain::start((wake, woken), terminal, printer)?));
    }
    let history = if args.no_history { None } else { editor::history_path() };
    let (editor, warning) = Editor::open(history, printer.color())?;
    if let Some(warning) = warning {
        printer.warning(&warning);
    }
    Ok(Box::new(editor))
}

/// What the flags ask of every answer.
fn request(args: &ChatArgs) -> Result<Request, Failure> {
    Ok(Request {
        adapters: args.adapters.choices()?,
        route: args.adapters.routing()?,
        format: args.format.source()?,
        sampling: args.sampling.sampling()?,
        limits: args.sampling.limits()?,
        drafts: args.model.drafts.asked()?,
        ..Request::new(Input::Raw(String::new()))
    })
}

fn system(args: &ChatArgs) -> Result<Option<String>, Failure> {
    match &args.system_prompt_file {
        Some(path) => read_text(path, "--system-prompt-file").map(Some),
        None => Ok(args.system_prompt.clone()),
    }
}
