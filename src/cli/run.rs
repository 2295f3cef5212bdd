//! `smoa run`: one request, or one request per line.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use clap::{Args, ValueEnum};

use super::args::{AdapterArgs, FormatArgs, ModelArgs, SamplingArgs, read_text};
use super::exit::Outcome;
use super::signals::Signals;
use super::{Context, jsonl, start};
use crate::error::{Code, Failure};
use crate::event::FinishReason;
use crate::prompt::{Message, Role};
use crate::request::{Input, Request};
use crate::scheduler::CancelToken;
use crate::wire;

/// Answer one request: standard input is the content, the argument is the instruction
///
/// The answer alone goes to standard output, byte for byte; remarks go to standard error, and only when that is a
/// terminal. With --jsonl, every line of standard input is a request and every line of output a result, in order.
#[derive(Args, Debug)]
#[command(args_override_self = true)]
pub struct RunArgs {
    /// The instruction. Content piped to standard input follows it in the same message
    pub prompt: Option<String>,
    /// File whose text is the content, instead of standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// System message [short: -sys]
    #[arg(long, value_name = "TEXT")]
    pub system_prompt: Option<String>,
    /// File with the system message [short: -sysf]
    #[arg(long, value_name = "FILE", conflicts_with = "system_prompt")]
    pub system_prompt_file: Option<PathBuf>,
    /// Complete the text as it is, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// Read one JSON request per line and write one JSON result per line
    #[arg(long, conflicts_with_all = ["prompt", "file", "raw"])]
    pub jsonl: bool,
    /// The answer's text, or one JSON object with adapters, usage and timings
    #[arg(long, value_name = "KIND", default_value = "text")]
    pub output: OutputKind,
    /// Write the answer at once when it is complete
    #[arg(long)]
    pub no_stream: bool,
    #[command(flatten)]
    pub adapters: AdapterArgs,
    #[command(flatten)]
    pub format: FormatArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// Values of --output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum OutputKind {
    Text,
    Json,
}

/// Most bytes of content. Far more than any context holds; it bounds the memory that a wrong pipe can take.
const MAX_CONTENT: u64 = 64 << 20;

/// Runs `smoa run`.
///
/// # Errors
/// With the documented exit code.
pub fn run(args: RunArgs, context: &Context) -> Result<(), Outcome> {
    if args.model.list_devices {
        return super::doctor::list_devices(context);
    }
    let defaults = request_defaults(&args)?;
    if args.jsonl {
        return jsonl::run(&args, defaults, context);
    }
    let input = read_input(&args)?;
    let running: Arc<Mutex<Option<CancelToken>>> = Arc::default();
    let cancel_running = running.clone();
    let signals = Signals::watch(move || {
        if let Some(cancel) = &*cancel_running.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            cancel.cancel();
        }
    })
    .map_err(|e| Failure::new(Code::Other, format!("signals: {e}")))?;
    let pipeline = start::start(&args.model, &args.adapters.library, 1, &context.printer, &signals)?;
    let ticket = pipeline.submit(Request { input, ..defaults })?;
    *running.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(ticket.cancel.clone());
    if signals.code().is_some() {
        ticket.cancel.cancel();
    }
    ticket.warnings.iter().for_each(|w| context.printer.warning(w));
    let (adapters, route) = (ticket.adapters.clone(), ticket.route.clone());
    let compositions = ticket.compositions.clone();
    let stream = args.output == OutputKind::Text && !args.no_stream;
    let cancel = ticket.cancel.clone();
    let mut broken = None;
    let answer = ticket.wait(|text| {
        if stream
            && broken.is_none()
            && let Err(e) = context.printer.answer(text)
        {
            broken = Some(e);
            cancel.cancel();
        }
    });
    if let Some(output) = broken {
        return Err(output.into());
    }
    let answer = answer?;
    match args.output {
        OutputKind::Json => {
            let value = wire::result_value(None, &answer, &adapters, false);
            let value =
                wire::with_compositions(wire::with_route(value, route.as_deref()), &compositions, &answer.finished);
            context.printer.line(&value.to_string())?;
        }
        OutputKind::Text => {
            if !stream {
                context.printer.answer(&answer.text)?;
            }
            if context.printer.answers_on_terminal() && !answer.text.ends_with('\n') {
                context.printer.line("")?;
            }
        }
    }
    if let Some(code) = signals.code() {
        return Err(Outcome::Silent(code));
    }
    if let Some(route) = &route {
        context.printer.note(&super::summary::route(route));
    }
    super::summary::compositions(&compositions, &answer.finished).iter().for_each(|line| context.printer.note(line));
    context.printer.note(&super::summary::line(&answer, &adapters));
    if let Some(failure) = wire::cut(&answer) {
        return Err(failure.into());
    }
    if answer.finished.reason == FinishReason::ContextFull {
        context.printer.warning("the answer ended because the context is full; give a larger -c or --context-shift");
    }
    Ok(())
}

/// The request that flags describe, without its input.
pub fn request_defaults(args: &RunArgs) -> Result<Request, Failure> {
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

fn read_input(args: &RunArgs) -> Result<Input, Failure> {
    let content = match &args.file {
        Some(path) => Some(read_text(path, "--file")?),
        None => read_stdin()?,
    };
    let instruction = args.prompt.clone().filter(|p| !p.is_empty());
    if args.raw {
        let text = format!("{}{}", instruction.unwrap_or_default(), content.unwrap_or_default());
        return match text.is_empty() {
            true => Err(nothing_asked()),
            false => Ok(Input::Raw(text)),
        };
    }
    // One line ending at the end belongs to the pipe, not to the content.
    let content = content.map(|c| c.strip_suffix('\n').map_or(c.clone(), String::from)).filter(|c| !c.is_empty());
    let user = match (instruction, content) {
        (Some(i), Some(c)) => format!("{i}\n\n{c}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => return Err(nothing_asked()),
    };
    let system = match &args.system_prompt_file {
        Some(path) => Some(read_text(path, "--system-prompt-file")?),
        None => args.system_prompt.clone(),
    };
    let system = system.map(|text| Message::new(Role::System, text));
    Ok(Input::chat(system.into_iter().chain([Message::new(Role::User, user)]).collect()))
}

fn nothing_asked() -> Failure {
    Failure::usage("nothing to answer: give a prompt as argument, or pipe text to standard input")
}

/// All of standard input; `None` when it is a terminal, so that nothing ever waits there silently.
fn read_stdin() -> Result<Option<String>, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    match stdin.lock().take(MAX_CONTENT + 1).read_to_end(&mut bytes) {
        Ok(_) => (),
        // A closed standard input (`<&-`) is an empty one.
        Err(e) if e.raw_os_error() == Some(libc::EBADF) => return Ok(None),
        Err(e) => return Err(Failure::new(Code::Other, format!("standard input: {e}"))),
    }
    if bytes.len() as u64 > MAX_CONTENT {
        return Err(Failure::usage(format!(
            "standard input is larger than {} MiB, more than any context holds",
            MAX_CONTENT >> 20
        )));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        Failure::usage(format!("standard input is not UTF-8 text (byte {})", e.utf8_error().valid_up_to()))
    })?;
    if let Some(at) = text.find('\0') {
        return Err(Failure::usage(format!("standard input is not text: NUL at byte {at}")));
    }
    Ok(Some(text))
}
