//! `smoa adapter`: the adapter library. Imports what people have, lists, describes, checks, gives back.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Context;
use super::args::{LibraryArgs, ModelArgs, read_text};
use super::exit::Outcome;
use super::start::model_path;
use crate::error::{Code, Failure, printable};
use crate::gguf::{self, ModelFacts};
use crate::import::{self, PeftFolder, Storage};
use crate::library::{
    Access, AdapterName, Card, Entry, Filter, Granularity, Library, LibraryError, Measured, Metadata, OnConflict, Page,
    Specialization, base_fingerprint,
};
use crate::mapped::Mapped;
use crate::model_file;
use crate::shelf::library_failure;

/// Add, list, describe and check adapters of the library
#[derive(Args, Debug)]
pub struct AdapterCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Add(Box<AddArgs>),
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

/// Import GGUF LoRA files and PEFT folders (adapter_config.json + adapter_model.safetensors)
#[derive(Args, Debug)]
struct AddArgs {
    /// GGUF files, PEFT folders, or folders with several of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The name [default: the file's or folder's]; with one path only
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What to do when the name is taken
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    on_conflict: Conflict,
    /// TOML file with what is to be said of it [default: PATH with .toml, where there is one]
    #[arg(long, value_name = "FILE")]
    sidecar: Option<PathBuf>,
    #[command(flatten)]
    card: CardArgs,
    /// Rank of adapters that must be converted to LoRA (DoRA, IA3)
    #[arg(long, value_name = "N")]
    rank: Option<u32>,
    /// Accept a conversion whatever its relative error
    #[arg(long)]
    accept_error: bool,
    /// Store the numbers in this format, and tell the relative error [default: f16 for PEFT folders, GGUF as it is]
    #[arg(long, value_name = "TYPE")]
    quantize: Option<StorageArg>,
    #[command(flatten)]
    library: LibraryArgs,
    /// The base model the adapters are for: a file, or a name of `smoa model ls`
    #[arg(short = 'm', long, value_name = "FILE", env = "LLAMA_ARG_MODEL")]
    model: Option<PathBuf>,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Conflict {
    Refuse,
    Keep,
    Replace,
    CompareDigest,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum StorageArg {
    F16,
    F32,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_0")]
    Q4,
}

impl StorageArg {
    fn storage(self) -> Storage {
        match self {
            StorageArg::F16 => Storage::F16,
            StorageArg::F32 => Storage::F32,
            StorageArg::Q8 => Storage::Q8_0,
            StorageArg::Q4 => Storage::Q4_0,
        }
    }
}

/// Runs `smoa adapter`.
///
/// # Errors
/// With the documented exit code: 3 for what is not there, 4 for what is refused, 8 when another writer is busy.
pub fn run(command: AdapterCommand, context: &Context) -> Result<(), Outcome> {
    let failed = |e: LibraryError| Outcome::Failed(library_failure(&e));
    match command.action {
        Action::Add(args) => add(&args, context),
        Action::Ls(args) => ls(&args, context),
        Action::Show { name, json, library } => {
            let entry = open(&library, Access::Read)?.find(&parsed(&name)?).map_err(failed)?;
            show(&entry, json, context)
        }
        Action::Rm { names, library } => {
            let library = open(&library, Access::Write)?;
            for name in &names {
                library.remove(&parsed(name)?).map_err(failed)?;
                context.printer.note(&format!("removed {name}; `smoa adapter restore {name}` brings it back until gc"));
            }
            Ok(())
        }
        Action::Restore { name, library } => {
            open(&library, Access::Write)?.restore(&parsed(&name)?).map_err(failed)?;
            context.printer.note(&format!("restored {name}"));
            Ok(())
        }
        Action::Rename { from, to, library } => {
            open(&library, Access::Write)?.rename(&parsed(&from)?, &parsed(&to)?).map_err(failed)?;
            context.printer.note(&format!("{from} is now {to}"));
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
            show(&entry, false, context)
        }
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

fn parsed(name: &str) -> Result<AdapterName, Failure> {
    AdapterName::new(name).map_err(|e| Failure::usage(e.to_string()))
}

/// Something to import.
#[derive(Debug)]
enum Found {
    Gguf(PathBuf),
    Peft(PathBuf),
}

fn add(args: &AddArgs, context: &Context) -> Result<(), Outcome> {
    let model = model_path(&ModelArgs { model: args.model.clone(), ..Default::default() })?;
    let base = model_file::check(&model)?;
    let mut found = Vec::new();
    for path in &args.paths {
        collect(path, &mut found)?;
    }
    if args.name.is_some() && found.len() > 1 {
        return Err(Failure::usage(format!("--name: {} adapters were found; a name fits one", found.len())).into());
    }
    let folder = args.library.folder()?;
    let library = match Library::open(&folder, Access::Write) {
        Err(LibraryError::NotALibrary { .. }) => Library::create(&folder),
        other => other,
    };
    let library = library.map_err(|e| library_failure(&e))?;
    let on_conflict = match args.on_conflict {
        Conflict::Refuse => OnConflict::Refuse,
        Conflict::Keep => OnConflict::KeepExisting,
        Conflict::Replace => OnConflict::Replace,
        Conflict::CompareDigest => OnConflict::CompareDigest,
    };
    let said = args.card.card()?;
    for one in &found {
        let started = Instant::now();
        let path = match one {
            Found::Gguf(path) | Found::Peft(path) => path,
        };
        let label = path.with_extension("");
        let label = label.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let name = match &args.name {
            Some(name) => parsed(name)?,
            None => AdapterName::from_label(&label)
                .map_err(|e| Failure::usage(format!("{}: {e}; give --name", path.display())))?,
        };
        let read = match one {
            Found::Gguf(path) => read_gguf(path, &base, args.quantize)?,
            Found::Peft(path) => read_peft(path, &model, &base, args)?,
        };
        let sidecar = sidecar(args, path)?;
        let card = said.clone().over(sidecar).over(read.card);
        let metadata = Metadata { card, measured: read.measured };
        let added = library.add(&name, &read.bytes, &metadata, on_conflict).map_err(|e| library_failure(&e))?;
        for note in &read.notes {
            context.printer.note(note);
        }
        let ms = started.elapsed().as_millis();
        let line = format!("{name} {} ({} bytes, {:?}, {ms} ms)", added.digest, read.bytes.len(), added.outcome);
        context.printer.line(&line)?;
    }
    Ok(())
}

/// The adapters at a path: a GGUF file, a PEFT folder, or those directly inside a folder.
fn collect(path: &Path, found: &mut Vec<Found>) -> Result<(), Failure> {
    let refuse = |code, what: &str| Failure::new(code, format!("'{}': {what}", path.display()));
    let meta = std::fs::metadata(path).map_err(|e| refuse(model_file::open_code(&e), &e.to_string()))?;
    if meta.is_file() {
        let pickle = path.extension().is_some_and(|e| ["bin", "pt", "pth", "ckpt"].iter().any(|x| e == *x));
        if pickle {
            return Err(refuse(
                Code::InvalidFile,
                "pickle refused: such a file can run code; convert it to safetensors",
            ));
        }
        if path.extension().is_some_and(|e| e == "safetensors") {
            return Err(refuse(Code::InvalidFile, "give the folder that holds it with adapter_config.json"));
        }
        found.push(Found::Gguf(path.to_owned()));
        return Ok(());
    }
    if !meta.is_dir() {
        return Err(refuse(Code::InvalidFile, "is neither a file nor a folder"));
    }
    if path.join("adapter_config.json").is_file() {
        found.push(Found::Peft(path.to_owned()));
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(|e| refuse(Code::InvalidFile, &e.to_string()))?;
    let mut inside: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    inside.sort();
    let before = found.len();
    for entry in inside {
        if entry.join("adapter_config.json").is_file() {
            found.push(Found::Peft(entry));
        } else if entry.extension().is_some_and(|e| e == "gguf") && entry.is_file() {
            found.push(Found::Gguf(entry));
        }
    }
    if found.len() == before {
        return Err(refuse(Code::NotFound, "holds neither GGUF adapters nor PEFT folders"));
    }
    Ok(())
}

/// An adapter ready to be stored.
struct Read {
    bytes: Vec<u8>,
    card: Card,
    measured: Measured,
    notes: Vec<String>,
}

fn read_gguf(path: &Path, base: &ModelFacts, quantize: Option<StorageArg>) -> Result<Read, Failure> {
    let refuse = |what: String| Failure::new(Code::InvalidFile, format!("'{}': {what}", path.display()));
    let map = Mapped::open(path).map_err(|e| refuse(e.to_string()))?;
    let facts = gguf::check_adapter(map.bytes(), base).map_err(|e| refuse(e.to_string()))?;
    let header = gguf::Gguf::read(map.bytes()).map_err(|e| refuse(e.to_string()))?;
    let card = Card::from_gguf(&header).map_err(|e| refuse(e.to_string()))?;
    let measured = Measured::of(&facts, Some(base_fingerprint(base)));
    let Some(kind) = quantize else {
        return Ok(Read { bytes: map.bytes().to_vec(), card, measured, notes: Vec::new() });
    };
    let (bytes, error) = import::requantize(map.bytes(), kind.storage()).map_err(|e| refuse(e.to_string()))?;
    gguf::check_adapter(&bytes, base).map_err(|e| refuse(e.to_string()))?;
    Ok(Read { bytes, card, measured, notes: vec![rounding_note(path, error)] })
}

fn rounding_note(path: &Path, error: f32) -> String {
    format!("{}: stored with relative error {error:.4}", path.display())
}

fn read_peft(folder: &Path, model: &Path, base: &ModelFacts, args: &AddArgs) -> Result<Read, Failure> {
    let refuse = |what: String| Failure::new(Code::InvalidFile, format!("'{}': {what}", folder.display()));
    let config = read_text(&folder.join("adapter_config.json"), "PEFT")?;
    let weights = folder.join("adapter_model.safetensors");
    if !weights.is_file() {
        let pickle = folder.join("adapter_model.bin").is_file();
        return Err(refuse(match pickle {
            true => "adapter_model.bin: pickle refused: such a file can run code; save it as safetensors".into(),
            false => "has no adapter_model.safetensors".into(),
        }));
    }
    let weights = Mapped::open(&weights).map_err(|e| refuse(e.to_string()))?;
    let base_map = Mapped::open(model).map_err(|e| refuse(e.to_string()))?;
    let base_gguf = gguf::Gguf::read(base_map.bytes()).map_err(|e| refuse(e.to_string()))?;
    let base_weights = import::GgufWeights::new(std::slice::from_ref(&base_gguf));
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned());
    let options = import::Options {
        name,
        rank: args.rank,
        max_relative_error: if args.accept_error { None } else { import::Options::default().max_relative_error },
        storage: args.quantize.map_or(Storage::F16, StorageArg::storage),
        ..Default::default()
    };
    let peft = PeftFolder { config: &config, weights: weights.bytes() };
    let imported =
        import::import_peft(&peft, base, Some(&base_weights), &options).map_err(|e| refuse(e.to_string()))?;
    let facts = gguf::check_adapter(&imported.gguf, base).map_err(|e| refuse(e.to_string()))?;
    let mut measured = Measured::of(&facts, Some(base_fingerprint(base)));
    measured.relative_error = imported.relative_error.map(f64::from);
    let mut notes: Vec<String> = imported.notes.iter().map(|n| format!("{}: {n}", folder.display())).collect();
    if let Some(error) = imported.relative_error {
        notes.push(format!("{}: converted to LoRA, relative error {error:.4}", folder.display()));
    }
    if args.quantize.is_some() {
        notes.push(rounding_note(folder, imported.storage_error));
    }
    let card = Card { origin: Some(format!("PEFT {:?}", imported.kind)), ..Card::default() };
    Ok(Read { bytes: imported.gguf, card, measured, notes })
}

fn sidecar(args: &AddArgs, path: &Path) -> Result<Card, Failure> {
    let file = match &args.sidecar {
        Some(file) => file.clone(),
        None => {
            let beside = path.with_extension("toml");
            if !beside.is_file() {
                return Ok(Card::default());
            }
            beside
        }
    };
    let text = read_text(&file, "--sidecar")?;
    Card::from_toml(&text).map_err(|e| Failure::new(Code::InvalidFile, format!("'{}': {e}", file.display())))
}

impl CardArgs {
    fn card(&self) -> Result<Card, Failure> {
        if let Some(format) = &self.default_format
            && crate::grammar::format(format).is_none()
        {
            return Err(Failure::usage(format!("--default-format: there is no ready format '{format}'")));
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
    let pair = |text: &String| {
        let (key, value) =
            text.split_once('=').ok_or_else(|| Failure::usage(format!("--attribute {text}: give KEY=VALUE")))?;
        Ok((key.to_string(), value.to_string()))
    };
    texts.iter().map(pair).collect()
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
                    "{:<32} {:<6} {:>9} B  rank {:<3} {}  {}",
                    entry.name.as_str(),
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
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(Code::Other, format!("'{}': {e}", path.display()));
    if path.exists() {
        return Err(Failure::usage(format!("'{}' exists; choose another file", path.display())));
    }
    let part = path.with_extension("part");
    std::fs::write(&part, bytes).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}
