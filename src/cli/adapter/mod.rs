//! `smoa adapter`: the adapter library. Imports what people have, lists, describes, checks, gives back.

mod add;
mod bundles;
mod compose;
mod examples;
pub(super) mod improve;
mod merge;
mod optimize;
pub(super) mod probe;
mod pull;
mod stats;
mod store;
mod train;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::args::LibraryArgs;
use super::exit::Outcome;
use crate::error::{Code, Failure, printable};
use crate::library::{
    Access, AdapterName, Card, Entry, Filter, Granularity, Kind, Library, LibraryError, Page, Specialization,
};
use crate::shelf::library_failure;

/// Add, list, describe and check adapters of the library
#[derive(Args, Debug)]
pub struct AdapterCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Add(Box<add::AddArgs>),
    FromExamples(Box<examples::ExampleArgs>),
    Compose(Box<compose::ComposeArgs>),
    Pack(bundles::PackArgs),
    Key(bundles::KeyArgs),
    Pull(Box<pull::PullArgs>),
    Index(pull::IndexArgs),
    Merge(Box<merge::MergeArgs>),
    Ls(LsArgs),
    /// Tell all about an adapter
    Show {
        /// Its name
        name: String,
        /// As one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        library: LibraryArgs,
    },
    /// Remove an adapter; `smoa adapter restore` brings it back until gc
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        library: LibraryArgs,
    },
    /// Bring a removed adapter back
    Restore {
        /// Its name
        name: String,
        #[command(flatten)]
        library: LibraryArgs,
    },
    /// Give an adapter another name
    Rename {
        /// The name now
        from: String,
        /// The new name
        to: String,
        #[command(flatten)]
        library: LibraryArgs,
    },
    /// Change what is said of an adapter
    Tag {
        /// Its name
        name: String,
        #[command(flatten)]
        card: CardArgs,
        /// Tags to take away
        #[arg(long, value_name = "TAG")]
        remove_tag: Vec<String>,
        #[command(flatten)]
        library: LibraryArgs,
    },
    Stats(stats::StatsArgs),
    Optimize(Box<optimize::OptimizeArgs>),
    TrainRouter(train::TrainArgs),
    /// Check every byte and every row of the library; exit code 4 when something is wrong
    Verify {
        #[command(flatten)]
        library: LibraryArgs,
    },
    /// Give back the space of removed adapters
    Gc {
        #[command(flatten)]
        library: LibraryArgs,
    },
    /// Write an adapter as a GGUF file, byte for byte as it was stored
    Export {
        /// Its name
        name: String,
        /// The file to write; it must not exist
        #[arg(short = 'o', long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        library: LibraryArgs,
    },
}

/// What is said of an adapter.
#[derive(Args, Debug, Default)]
struct CardArgs {
    /// What it does
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What it is for: domain, task, language, style, persona, skill, temporal, safety, efficiency, custom
    #[arg(long, value_name = "KIND")]
    specialization: Option<Specialization>,
    /// Place in a tree: domain/specialty/task
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// A tag; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// A word that calls for it; may be repeated
    #[arg(long, value_name = "WORD")]
    keyword: Vec<String>,
    /// A prompt it is for; may be repeated
    #[arg(long, value_name = "PROMPT")]
    example: Vec<String>,
    /// A fact to filter by, as region=eu; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    attribute: Vec<String>,
    /// The ready format of its answers
    #[arg(long, value_name = "NAME")]
    default_format: Option<String>,
    /// Its licence
    #[arg(long, value_name = "TEXT")]
    licence: Option<String>,
}

/// List adapters
#[derive(Args, Debug)]
struct LsArgs {
    /// Only names that begin so
    prefix: Option<String>,
    /// Only with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only for this
    #[arg(long, value_name = "KIND")]
    specialization: Option<Specialization>,
    /// Only of this size: nano, micro, mini, small, medium
    #[arg(long, value_name = "SIZE")]
    granularity: Option<Granularity>,
    /// Only with this fact, as region=eu; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    attribute: Vec<String>,
    /// Only with all these words in name, description, tags, keywords or examples
    #[arg(long, value_name = "WORDS")]
    text: Option<String>,
    /// The removed ones instead
    #[arg(long)]
    removed: bool,
    /// Only after this name (for paging)
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    library: LibraryArgs,
}

/// Runs `smoa adapter`.
///
/// # Errors
/// With the documented exit code: 3 for what is not there, 4 for what is refused, 8 when another writer is busy.
pub fn run(command: AdapterCommand, context: &Context) -> Result<(), Outcome> {
    let failed = |e: LibraryError| Outcome::Failed(library_failure(&e));
    match command.action {
        Action::Add(args) => add::run(&args, context),
        Action::FromExamples(args) => examples::run(&args, context),
        Action::Compose(args) => compose::run(&args, context),
        Action::Pack(args) => bundles::pack(&args, context),
        Action::Key(args) => bundles::key(&args, context),
        Action::Pull(args) => pull::pull(&args, context),
        Action::Index(args) => pull::index(&args, context),
        Action::Merge(args) => merge::run(&args, context),
        Action::Ls(args) => ls(&args, context),
        Action::Show { name, json, library } => {
            let entry = open(&library, Access::Read)?.find(&parsed(&name)?).map_err(failed)?;
            show(&entry, json, context)
        }
        Action::Rm { names, library: folder } => {
            let library = open(&folder, Access::Write)?;
            for name in &names {
                library.remove(&parsed(name)?).map_err(failed)?;
                context.printer.note(&format!("removed {name}; `smoa adapter restore {name}` brings it back until gc"));
            }
            follow(&folder, context);
            Ok(())
        }
        Action::Restore { name, library } => {
            open(&library, Access::Write)?.restore(&parsed(&name)?).map_err(failed)?;
            context.printer.note(&format!("restored {name}"));
            follow(&library, context);
            Ok(())
        }
        Action::Rename { from, to, library } => {
            open(&library, Access::Write)?.rename(&parsed(&from)?, &parsed(&to)?).map_err(failed)?;
            context.printer.note(&format!("{from} is now {to}"));
            follow(&library, context);
            Ok(())
        }
        Action::Tag { name, card, remove_tag, library } => {
            let change = card.card()?;
            let entry = open(&library, Access::Write)?
                .edit(&parsed(&name)?, |known| {
                    let mut change = change;
                    change.tags.extend(known.tags.iter().filter(|t| !remove_tag.contains(t)).cloned());
                    change.tags.dedup();
                    known.tags.clear();
                    *known = change.over(std::mem::take(known));
                })
                .map_err(failed)?;
            follow(&library, context);
            show(&entry, false, context)
        }
        Action::Optimize(args) => optimize::run(&args, context),
        Action::Stats(args) => stats::run(&args, context),
        Action::TrainRouter(args) => train::run(&args, context),
        Action::Verify { library } => {
            let report = open(&library, Access::Read)?.verify().map_err(failed)?;
            for problem in &report.problems {
                context.printer.line(&printable(&problem.to_string()))?;
            }
            context.printer.line(&format!(
                "{} adapters checked, {} problems",
                report.adapters,
                report.problems.len()
            ))?;
            if report.problems.is_empty() { Ok(()) } else { Err(Outcome::Silent(Code::InvalidFile)) }
        }
        Action::Gc { library } => {
            let report = open(&library, Access::Write)?.gc().map_err(failed)?;
            Ok(context.printer.line(&format!(
                "{} adapters forgotten, {} bytes given back",
                report.adapters,
                report.bytes_before.saturating_sub(report.bytes_after)
            ))?)
        }
        Action::Export { name, output, library } => {
            let pinned = open(&library, Access::Read)?.pin(&parsed(&name)?).map_err(failed)?;
            pinned.check().map_err(failed)?;
            write_new(&output, pinned.bytes())?;
            context.printer.note(&format!("wrote {} bytes to {}", pinned.bytes().len(), output.display()));
            Ok(())
        }
    }
}

fn open(args: &LibraryArgs, access: Access) -> Result<Library, Failure> {
    Library::open(&args.folder()?, access).map_err(|e| library_failure(&e))
}

/// Where requests are routed over this library, takes a change into the index at once. What fails here is done by the
/// next routing.
fn follow(args: &LibraryArgs, context: &Context) {
    let followed = args.folder().map(|folder| crate::routing::follow_if_used(&folder, || args.embedders().ok()));
    if let Ok(Err(e)) = followed {
        context.printer.note(&format!("the routing index is brought up to date later: {e}"));
    }
}

fn parsed(name: &str) -> Result<AdapterName, Failure> {
    AdapterName::new(name).map_err(|e| Failure::usage(e.to_string()))
}

impl CardArgs {
    fn card(&self) -> Result<Card, Failure> {
        if let Some(format) = &self.default_format {
            crate::grammar::format_text(format).map_err(|e| Failure::usage(format!("--default-format: {e}")))?;
        }
        Ok(Card {
            description: self.description.clone(),
            specialization: self.specialization,
            path: self.path.clone(),
            tags: self.tag.clone(),
            keywords: self.keyword.clone(),
            examples: self.example.clone(),
            attributes: attributes(&self.attribute)?.into_iter().collect(),
            default_format: self.default_format.clone(),
            licence: self.licence.clone(),
            ..Card::default()
        })
    }
}

fn attributes(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    super::args::pairs("--attribute", texts)
}

fn ls(args: &LsArgs, context: &Context) -> Result<(), Outcome> {
    let library = open(&args.library, Access::Read)?;
    let filter = Filter {
        tags: args.tag.clone(),
        specialization: args.specialization,
        granularity: args.granularity,
        attributes: attributes(&args.attribute)?,
        prefix: args.prefix.clone(),
        text: args.text.clone(),
        removed: args.removed,
        ..Filter::default()
    };
    let after = args.after.as_deref().map(parsed).transpose()?;
    let page = Page { after, limit: args.limit };
    for entry in library.list(&filter, &page).map_err(|e| library_failure(&e))? {
        let line = match args.json {
            true => value(&entry).to_string(),
            false => {
                let m = &entry.metadata;
                let what = m.card.description.as_deref().unwrap_or("");
                format!(
                    "{:<32} {:<14} {:<6} {:>9} B  rank {:<3} {}  {}",
                    entry.name.as_str(),
                    m.measured.kind.map_or("?", Kind::name),
                    m.measured.granularity(),
                    entry.bytes,
                    m.measured.rank_max,
                    entry.digest,
                    printable(what)
                )
            }
        };
        context.printer.line(&line)?;
    }
    Ok(())
}

fn value(entry: &Entry) -> Value {
    let m = &entry.metadata;
    let mut object = json!({
        "name": entry.name.as_str(),
        "digest": entry.digest.to_hex(),
        "bytes": entry.bytes,
        "added": entry.added,
        "granularity": m.measured.granularity().to_string(),
    });
    let parts = [serde_json::to_value(&m.measured), serde_json::to_value(&m.card)];
    for part in parts.into_iter().flatten() {
        if let (Value::Object(all), Value::Object(more)) = (&mut object, part) {
            all.extend(more);
        }
    }
    object
}

fn show(entry: &Entry, json: bool, context: &Context) -> Result<(), Outcome> {
    let value = value(entry);
    if json {
        return Ok(context.printer.line(&value.to_string())?);
    }
    for (key, v) in value.as_object().into_iter().flatten() {
        let text = v.as_str().map_or_else(|| v.to_string(), printable);
        context.printer.line(&format!("{key:<16} {text}"))?;
    }
    Ok(())
}

/// Writes a file that must not exist yet, whole or not at all.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(Code::Other, format!("'{}': {e}", path.display()));
    if path.exists() {
        return Err(Failure::usage(format!("'{}' exists; choose another file", path.display())));
    }
    let part = path.with_extension("part");
    std::fs::write(&part, bytes).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}
