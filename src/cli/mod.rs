//! The command line: parses, runs a command, sets the exit code. A command is a file; its doc comment is its help.

mod adapter;
mod args;
mod cache_args;
mod chat;
mod compat_args;
mod config;
mod doctor;
mod draft_args;
mod embedder;
mod engine_args;
mod escapes;
mod eval;
mod exit;
mod fetch;
mod flags;
mod grammar;
mod hub;
mod jsonl;
mod logs;
mod meta;
mod models;
mod optimizing;
mod printer;
mod route;
mod run;
mod running;
mod serve;
mod signals;
mod spelling;
mod start;
mod summary;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use args::{AdapterArgs, FormatArgs, ModelArgs, SamplingArgs};
use exit::{Outcome, finish};
use printer::Printer;

use crate::error::Failure;

/// Sparse mixture of adapters: one GGUF model in memory, LoRA adapters per request, guaranteed formats
///
/// Without a command: `smoa PROMPT`, or text piped in, is `smoa run`; on a terminal it is `smoa chat`.
#[derive(Parser, Debug)]
#[command(name = "smoa", version = meta::VERSION, disable_version_flag = false, propagate_version = false)]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

/// Flags of every command.
#[derive(Args, Debug)]
struct GlobalArgs {
    /// No remarks and no progress on standard error; failures are still told
    #[arg(short = 'q', long, global = true)]
    quiet: bool,
    /// Show remarks off a terminal too, and llama.cpp's warnings; twice: llama.cpp's whole log
    #[arg(short = 'v', long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(Box<run::RunArgs>),
    #[command(alias = "cli")]
    Chat(Box<chat::ChatArgs>),
    Route(route::RouteCommand),
    Eval(Box<eval::EvalArgs>),
    #[command(alias = "server")]
    Serve(Box<serve::ServeArgs>),
    Ps(running::PsArgs),
    Stop(running::StopArgs),
    Adapter(adapter::AdapterCommand),
    Grammar(grammar::GrammarCommand),
    Model(models::ModelCommand),
    Config(config::ConfigCommand),
    Doctor(Box<doctor::DoctorArgs>),
    Completions(meta::CompletionsArgs),
    Man(meta::ManArgs),
    Version(meta::VersionArgs),
}

/// What every command is given.
pub struct Context {
    /// The only way to print.
    printer: Printer,
}

/// Runs the program with the arguments of the process and gives its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match config::apply(with_command(spelling::expand(args))) {
        Ok(args) => args,
        Err(failure) => return finish(Err(failure.into()), &Printer::new(false, false)),
    };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => return report_usage(&e),
    };
    start::set_verbosity(cli.global.verbose);
    let printer = Printer::new(cli.global.quiet, cli.global.verbose > 0);
    let context = Context { printer };
    let result = match cli.command {
        Command::Run(args) => run::run(*args, &context),
        Command::Chat(args) => chat::run(*args, &context),
        Command::Route(command) => route::run(command, &context),
        Command::Eval(args) => eval::run(&args, &context),
        Command::Serve(args) => serve::run(*args, &context),
        Command::Ps(args) => running::ps(&args, &context),
        Command::Stop(args) => running::stop(&args, &context),
        Command::Adapter(command) => adapter::run(command, &context),
        Command::Grammar(command) => grammar::run(command, &context),
        Command::Model(command) => models::run(command, &context),
        Command::Config(command) => config::run(&command, &context),
        Command::Doctor(args) => doctor::run(*args, &context),
        Command::Completions(args) => meta::completions(&args, &context),
        Command::Man(args) => meta::man(&args, &context),
        Command::Version(args) => meta::version(&args, &context),
    };
    finish(result, &printer)
}

/// Puts the command in where none is named: `run` when there is something to answer or a pipe at either end, `chat`
/// when both ends are a terminal.
fn with_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let known = |name: &str| {
        use clap::CommandFactory;
        let cli = Cli::command();
        name == "help" || cli.get_subcommands().any(|c| c.get_name() == name || c.get_all_aliases().any(|a| a == name))
    };
    if named_llama_server(&args) {
        args.insert(1, "serve".into());
    }
    if args.get(1).is_some_and(|a| a == "serve" || a == "server") {
        // What is always so here needs no flag.
        let mut verbatim = false;
        args.retain(|a| {
            verbatim |= a == "--";
            verbatim || !a.to_str().is_some_and(flags::is_always)
        });
    }
    match args.get(1).map(|a| a.to_string_lossy().into_owned()) {
        Some(first) if known(&first) || ["-h", "--help", "-V", "--version"].contains(&first.as_str()) => return args,
        _ => (),
    }
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut as_run = args.clone();
    as_run.insert(args.len().min(1), "run".into());
    let asks = matches!(
        Cli::try_parse_from(&as_run),
        Ok(Cli { command: Command::Run(run), .. }) if run.prompt.is_some() || run.file.is_some() || run.jsonl
    );
    if !terminal || asks {
        return as_run;
    }
    args.insert(args.len().min(1), "chat".into());
    args
}

/// Whether the program was started under llama-server's name, and not with one of our commands.
fn named_llama_server(args: &[OsString]) -> bool {
    let name = args.first().map(|a| std::path::Path::new(a).file_stem().unwrap_or_default().to_owned());
    name.is_some_and(|n| n == "llama-server") && args.get(1).is_none_or(|a| a.to_string_lossy().starts_with('-'))
}

/// Help and version as clap writes them; every other parse error as one line and exit code 2.
fn report_usage(e: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind as Kind;
    match e.kind() {
        Kind::DisplayHelp | Kind::DisplayVersion => {
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
        Kind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = e.print();
            return ExitCode::from(2);
        }
        _ => (),
    }
    if e.kind() == Kind::UnknownArgument
        && let Some(clap::error::ContextValue::String(flag)) = e.get(clap::error::ContextKind::InvalidArg)
        && let Some(why) = flags::refused(flag)
    {
        let message =
            format!("{flag} is a flag of llama-server that smoa does not have: {why}; see smoa doctor --flags");
        return finish(Err(Outcome::Failed(Failure::usage(message))), &Printer::new(false, false));
    }
    let text = e.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more"));
    let line = lines.filter(|l| !l.is_empty()).map(|l| l.trim_start_matches("error: ").trim_start_matches("tip: "));
    let message = line.collect::<Vec<_>>().join("; ");
    finish(Err(Outcome::Failed(Failure::usage(format!("{message}; see --help")))), &Printer::new(false, false))
}
