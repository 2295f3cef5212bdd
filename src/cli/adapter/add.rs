//! `smoa adapter add`: GGUF adapters and PEFT folders into the library.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::super::Context;
use super::super::args::{LibraryArgs, ModelArgs, read_text};
use super::super::exit::Outcome;
use super::super::start::model_path;
use super::{CardArgs, parsed};
use crate::error::{Code, Failure};
use crate::gguf::{self, Gguf, ModelFacts};
use crate::import::{self, PeftFolder, Storage};
use crate::library::{AdapterName, Card, Library, Measured, Metadata, OnConflict, base_fingerprint};
use crate::mapped::Mapped;
use crate::model_file;
use crate::shelf::library_failure;

/// Import GGUF adapters, control vectors, PEFT folders (adapter_config.json + adapter_model.safetensors) and bundles (.smoa)
#[derive(Args, Debug)]
pub struct AddArgs {
    /// GGUF files, PEFT folders, bundles, or folders with several of them
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
    /// Make plain LoRA of DoRA and IA3 too, by conversion; without it they are kept exactly, as gains
    #[arg(long)]
    as_lora: bool,
    /// Largest rank of the pairs: what is larger is cut to it, and what is converted gets it [default: 64 when converted]
    #[arg(long, value_name = "N")]
    rank: Option<u32>,
    /// Accept a conversion whatever its relative error
    #[arg(long)]
    accept_error: bool,
    /// Accept only bundles that are signed with this public key; may be repeated
    #[arg(long, value_name = "KEY")]
    signer: Vec<String>,
    /// Store the numbers in this format, and tell the relative error [default: f16 for PEFT folders, GGUF as it is]
    #[arg(long, value_name = "TYPE")]
    quantize: Option<StorageArg>,
    #[command(flatten)]
    library: LibraryArgs,
    /// The base model the adapters are for: a file, or a name of `smoa model ls`
    #[arg(short = 'm', long, value_name = "FILE", env = "LLAMA_ARG_MODEL")]
    model: Option<PathBuf>,
}

/// Values of --on-conflict.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Conflict {
    Refuse,
    Keep,
    Replace,
    CompareDigest,
}

impl Conflict {
    /// The library's rule.
    pub(super) fn rule(self) -> OnConflict {
        match self {
            Conflict::Refuse => OnConflict::Refuse,
            Conflict::Keep => OnConflict::KeepExisting,
            Conflict::Replace => OnConflict::Replace,
            Conflict::CompareDigest => OnConflict::CompareDigest,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum StorageArg {
    F16,
    F32,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_0")]
    Q4,
}

impl StorageArg {
    /// The importer's form.
    pub(super) fn storage(self) -> Storage {
        match self {
            StorageArg::F16 => Storage::F16,
            StorageArg::F32 => Storage::F32,
            StorageArg::Q8 => Storage::Q8_0,
            StorageArg::Q4 => Storage::Q4_0,
        }
    }
}

/// Something to import.
#[derive(Debug)]
enum Found {
    Gguf(PathBuf),
    Peft(PathBuf),
    Bundle(PathBuf),
}

/// Runs `smoa adapter add`.
///
/// # Errors
/// A path holds no adapter, an adapter is refused, a name is taken. What was added before stays.
pub fn run(args: &AddArgs, context: &Context) -> Result<(), Outcome> {
    let model = model_path(&ModelArgs { model: args.model.clone(), ..Default::default() })?;
    let base = model_file::check(&model)?;
    let mut found = Vec::new();
    for path in &args.paths {
        collect(path, &mut found)?;
    }
    if let (Some(_), Some(Found::Bundle(path))) = (&args.name, found.iter().find(|one| matches!(one, Found::Bundle(_))))
    {
        return Err(
            Failure::usage(format!("--name: '{}' is a bundle, which names its adapters", path.display())).into()
        );
    }
    if args.name.is_some() && found.len() > 1 {
        return Err(Failure::usage(format!("--name: {} adapters were found; a name fits one", found.len())).into());
    }
    let folder = args.library.folder()?;
    // Opens the library that is there, or makes an empty one.
    let library = Library::create(&folder).map_err(|e| library_failure(&e))?;
    let on_conflict = args.on_conflict.rule();
    let said = args.card.card()?;
    // The base model's weights, mapped and their header read once: DoRA needs the lengths of its rows.
    let weighed = found.iter().any(|one| matches!(one, Found::Peft(_)));
    let maps = if weighed { model_file::open_parts(&model, &base)? } else { Vec::new() };
    let broken = |e: gguf::GgufError| Failure::new(Code::InvalidFile, format!("model '{}': {e}", model.display()));
    let parts: Vec<Gguf<'_>> =
        maps.iter().map(|map| Gguf::read(map.bytes())).collect::<Result<_, _>>().map_err(broken)?;
    for one in &found {
        let started = Instant::now();
        let path = match one {
            Found::Gguf(path) | Found::Peft(path) => path,
            Found::Bundle(path) => {
                let wanted = super::bundles::Wanted { signers: &args.signer, names: None, on_conflict };
                super::bundles::add(path, &wanted, (&library, &base), context)?;
                continue;
            }
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
            Found::Peft(path) => read_peft(path, &parts, &base, args)?,
            Found::Bundle(_) => continue,
        };
        let sidecar = sidecar(args, path)?;
        let card = said.clone().over(sidecar).over(read.card);
        let metadata = Metadata { card, measured: read.measured };
        let added = library.add(&name, &read.bytes, &metadata, on_conflict).map_err(|e| library_failure(&e))?;
        for note in &read.notes {
            context.printer.note(note);
        }
        let ms = started.elapsed().as_millis();
        let lost = metadata.measured.relative_error.map_or(String::new(), |e| format!(", relative error {e:.4}"));
        let line = format!("{name} {} ({} bytes{lost}, {:?}, {ms} ms)", added.digest, read.bytes.len(), added.outcome);
        context.printer.line(&line)?;
    }
    super::follow(&args.library, context);
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
        found.push(match path.extension().is_some_and(|e| e == super::bundles::EXTENSION) {
            true => Found::Bundle(path.to_owned()),
            false => Found::Gguf(path.to_owned()),
        });
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
    let header = Gguf::read(map.bytes()).map_err(|e| refuse(e.to_string()))?;
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

fn read_peft(folder: &Path, parts: &[Gguf<'_>], base: &ModelFacts, args: &AddArgs) -> Result<Read, Failure> {
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
    let base_weights = import::GgufWeights::new(parts);
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned());
    let options = import::Options {
        name,
        rank: args.rank,
        max_relative_error: if args.accept_error { None } else { import::Options::default().max_relative_error },
        as_lora: args.as_lora,
        storage: args.quantize.map_or(Storage::F16, StorageArg::storage),
        ..Default::default()
    };
    let peft = PeftFolder { config: &config, weights: weights.bytes() };
    let imported =
        import::import_peft(&peft, base, Some(&base_weights), &options).map_err(|e| refuse(e.to_string()))?;
    let mut measured = Measured::of(&imported.facts, Some(base_fingerprint(base)));
    measured.relative_error = imported.relative_error.map(f64::from);
    let mut notes: Vec<String> = imported.notes.iter().map(|n| format!("{}: {n}", folder.display())).collect();
    if args.quantize.is_some() {
        notes.push(rounding_note(folder, imported.storage_error));
    }
    let card = Card { origin: Some(format!("PEFT {}", imported.kind)), ..Card::default() };
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
