//! `smoa doctor`: what this build and this machine have, and whether model and adapters fit together.

use clap::Args;
use serde_json::json;

use super::args::{AdapterArgs, ModelArgs};
use super::exit::Outcome;
use super::printer::Output;
use super::start::model_path;
use super::{Context, meta};
use crate::engine::llama::{Backend, devices, system_info};
use crate::engine::options::default_threads;
use crate::error::Code;
use crate::gguf::ModelFacts;
use crate::model_file;
use crate::request::AdapterChoice;

/// Check build, devices, model and adapters; exit code 0 when all is well, 1 with warnings, 4 with errors
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// One JSON object per finding
    #[arg(long)]
    json: bool,
    /// List llama-server's flags and what each means to `smoa serve`
    #[arg(long)]
    flags: bool,
    /// With --flags: as a table in Markdown, with a summary
    #[arg(long, requires = "flags", conflicts_with = "json")]
    markdown: bool,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warning,
    Error,
}

struct Finding {
    level: Level,
    subject: &'static str,
    text: String,
}

/// Runs `smoa doctor`.
///
/// # Errors
/// [`Code::Other`] when something deserves a look, [`Code::InvalidFile`] when something is wrong.
pub fn run(args: DoctorArgs, context: &Context) -> Result<(), Outcome> {
    if args.flags {
        return Ok(list_flags(args.json, args.markdown, context)?);
    }
    let mut findings = build_findings();
    let (model, facts) = model_findings(&args.model);
    findings.extend(model);
    if let Some(facts) = &facts {
        findings.extend(adapter_findings(&args.adapters, facts)?);
    }
    for f in &findings {
        let level = match f.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        let line = match args.json {
            true => json!({"level": level, "subject": f.subject, "text": f.text}).to_string(),
            false => format!("{level:<8} {:<9} {}", f.subject, crate::error::printable(&f.text)),
        };
        context.printer.line(&line)?;
    }
    match findings.iter().map(|f| f.level).max() {
        Some(Level::Error) => Err(Outcome::Silent(Code::InvalidFile)),
        Some(Level::Warning) => Err(Outcome::Silent(Code::Other)),
        _ => Ok(()),
    }
}

fn list_flags(json: bool, markdown: bool, context: &Context) -> Result<(), Output> {
    if markdown {
        return context.printer.line(&flags_table());
    }
    for (names, variable, meaning) in super::flags::FLAGS {
        let (word, why) = meaning.words();
        let line = match json {
            true => json!({"flags": names, "variable": variable, "meaning": word, "note": why}).to_string(),
            false => format!("{word:<8} {:<44} {why}", names.join(", ")),
        };
        context.printer.line(line.trim_end())?;
    }
    Ok(())
}

/// The table of `docs/serve-flags.md`.
fn flags_table() -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    let mut rows = String::new();
    for (names, variable, meaning) in super::flags::FLAGS {
        let (word, why) = meaning.words();
        *counts.entry(word).or_default() += 1;
        let variable = if variable.is_empty() { String::new() } else { format!("`{variable}`") };
        rows += &format!("| `{}` | {variable} | {word} | {} |\n", names.join("` `"), why.replace('|', "\\|"));
    }
    let all = super::flags::FLAGS.len();
    let used = || super::flags::FLAGS.iter().filter(|(names, ..)| super::flags::is_used(names));
    let good = used().filter(|(.., meaning)| ["same", "better", "always"].contains(&meaning.words().0)).count();
    let partly = used().filter(|(.., meaning)| meaning.words().0 == "partly").count();
    let people = format!(
        "Of {} rows that people use (all but those for placing threads, for testing, for the shell, for models that a flag \
         names,\nand those that llama-server has no more), {good} are same, better or always so ({} %), {partly} are taken \
         in part.",
        used().count(),
        100 * good / used().count().max(1)
    );
    let counts: Vec<String> = counts.iter().map(|(word, n)| format!("{n} {word}")).collect();
    format!(
        "# Flags of llama-server\n\nMade by `smoa doctor --flags --markdown`. {all} rows, a row for the spellings of one \
         flag: {}.\n*same*: the same meaning; *better*: that and more; *always*: it is so without the flag; *partly*: the \
         values that ask for\nwhat is so are taken; *refused*: an error that names the flag, on the command line and in the \
         environment.\n\n{people}\n\n| flag | variable | here | |\n|---|---|---|---|\n{}",
        counts.join(", "),
        rows.trim_end()
    )
}

fn build_findings() -> Vec<Finding> {
    let backend = Backend::get();
    let ok = |subject, text| Finding { level: Level::Ok, subject, text };
    let mut findings = vec![ok("build", format!("smoa {}", meta::VERSION)), ok("system", system_info(backend))];
    if env!("SMOA_CPU") != "native" {
        let text = "built for any CPU of this kind; -C target-cpu=native is faster here (scripts/run.sh sets it)";
        findings.push(Finding { level: Level::Warning, subject: "build", text: text.into() });
    }
    findings.push(ok("threads", format!("{} by default", default_threads())));
    for d in devices(backend) {
        let text =
            format!("{}: {}, {} MiB free of {}", d.name, d.description, d.memory_free >> 20, d.memory_total >> 20);
        findings.push(ok("device", text));
    }
    findings
}

fn model_findings(args: &ModelArgs) -> (Vec<Finding>, Option<ModelFacts>) {
    let error = |text| Finding { level: Level::Error, subject: "model", text };
    let path = match model_path(args) {
        Ok(path) => path,
        Err(failure) => {
            return (vec![Finding { level: Level::Warning, subject: "model", text: failure.message }], None);
        }
    };
    let facts = match model_file::check(&path) {
        Ok(facts) => facts,
        Err(failure) => return (vec![error(failure.message)], None),
    };
    if let Err(e) = facts.require_generation() {
        return (vec![error(format!("{}: {e}", path.display()))], None);
    }
    let text = format!(
        "{}: {} {}, {} parameters, context {}",
        path.display(),
        facts.architecture,
        facts.file_type,
        facts.parameter_count,
        facts.n_ctx_train
    );
    let mut findings = vec![Finding { level: Level::Ok, subject: "model", text }];
    if facts.chat_template.is_none() {
        let text = "no chat template in the file; chatml is used unless --chat-template says otherwise".into();
        findings.push(Finding { level: Level::Warning, subject: "model", text });
    }
    (findings, Some(facts))
}

fn adapter_findings(args: &AdapterArgs, base: &ModelFacts) -> Result<Vec<Finding>, Outcome> {
    let shelf = args.library.shelf();
    let of = |choice: &AdapterChoice| match shelf.open(&choice.source, base) {
        Ok(file) => {
            let f = file.facts();
            let level = if f.all_zero { Level::Warning } else { Level::Ok };
            let zero = if f.all_zero { ", all weights are zero" } else { "" };
            let (name, digest) = (file.label(), file.digest());
            let text = format!("{name}: rank {}, {} parameters, digest {digest}{zero}", f.rank_max, f.parameter_count);
            Finding { level, subject: "adapter", text }
        }
        Err(e) => Finding { level: Level::Error, subject: "adapter", text: e.to_string() },
    };
    Ok(args.choices()?.iter().map(of).collect())
}

/// Runs `--list-devices`.
///
/// # Errors
/// Standard output takes no more.
pub fn list_devices(context: &Context) -> Result<(), Outcome> {
    context.printer.line("Available devices:")?;
    for d in devices(Backend::get()).into_iter().filter(|d| d.accelerator) {
        let line =
            format!("  {}: {} ({} MiB, {} MiB free)", d.name, d.description, d.memory_total >> 20, d.memory_free >> 20);
        context.printer.line(&line)?;
    }
    Ok(())
}
