//! `smoa completions`, `smoa man`, `smoa version`: the program about itself.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use super::exit::Outcome;
use super::{Cli, Context};
use crate::engine::llama::{Backend, system_info};
use crate::error::{Code, Failure};

/// Version of the program and of the llama.cpp it is built on.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (llama-cpp-sys-2 0.1.161, ",
    env!("SMOA_CPU"),
    " build for ",
    env!("SMOA_TARGET"),
    ")"
);

/// Print a shell's completion script
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands into a folder
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Folder for one page per command
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Print the version
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// As one JSON object, with llama.cpp's own description of the build
    #[arg(long)]
    json: bool,
}

/// Runs `smoa completions`.
///
/// # Errors
/// Standard output takes no more.
pub fn completions(args: &CompletionsArgs, context: &Context) -> Result<(), Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "smoa", &mut script);
    Ok(context.printer.answer(&String::from_utf8_lossy(&script))?)
}

/// Prints what `llama-server --completion-bash` prints: bash's script, for this program and for its other name.
///
/// # Errors
/// Standard output takes no more.
pub fn bash(context: &Context) -> Result<(), Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(Shell::Bash, &mut Cli::command(), "smoa", &mut script);
    let mut cli = Cli::command();
    if let Some(serve) = cli.find_subcommand_mut("serve") {
        let mut server = serve.clone().name("llama-server").bin_name("llama-server");
        clap_complete::generate(Shell::Bash, &mut server, "llama-server", &mut script);
    }
    Ok(context.printer.answer(&String::from_utf8_lossy(&script))?)
}

/// Runs `smoa man`.
///
/// # Errors
/// Standard output or the folder takes no more.
pub fn man(args: &ManArgs, context: &Context) -> Result<(), Outcome> {
    let failed = |e: std::io::Error| Failure::new(Code::Other, format!("manual page: {e}"));
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder).map_err(failed)?;
        return Ok(clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failed)?;
    Ok(context.printer.answer(&String::from_utf8_lossy(&page))?)
}

/// Runs `smoa version`.
///
/// # Errors
/// Standard output takes no more.
pub fn version(args: &VersionArgs, context: &Context) -> Result<(), Outcome> {
    if !args.json {
        return Ok(context.printer.line(&format!("smoa {VERSION}"))?);
    }
    let backends: Vec<&str> =
        [("cuda", cfg!(feature = "cuda")), ("vulkan", cfg!(feature = "vulkan")), ("metal", cfg!(feature = "metal"))]
            .into_iter()
            .filter_map(|(name, on)| on.then_some(name))
            .collect();
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "llama_cpp_sys_2": "0.1.161",
        "cpu": env!("SMOA_CPU"),
        "target": env!("SMOA_TARGET"),
        "backends": backends,
        "system": system_info(Backend::get()),
    });
    Ok(context.printer.line(&value.to_string())?)
}
