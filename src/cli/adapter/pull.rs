//! `smoa adapter pull` and `index`: bundles of a catalogue, which is a folder with an `index.json`, here or behind a server.

use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::super::Context;
use super::super::args::{LibraryArgs, ModelArgs};
use super::super::exit::Outcome;
use super::super::fetch::Place;
use super::super::start::model_path;
use super::add::Conflict;
use super::bundles::{self, EXTENSION, Wanted};
use crate::bundle::{self, INDEX, Index, ListedBundle, MAX_INDEX};
use crate::error::{Code, Failure, printable};
use crate::library::{Kind, Library, base_fingerprint};
use crate::mapped::Mapped;
use crate::model_file;
use crate::shelf::library_failure;

/// Take adapters from a catalogue: a folder with an index.json, or one behind a web server or an object store
///
/// Without names, tells what it has. A fetched bundle must be what the index says, by its BLAKE3, and is then checked as
/// by `smoa adapter add`; of each bundle all wanted adapters are added or none. URLs need a program built with the feature
/// `remote`; s3:// takes its settings from AWS_* of the environment.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// A folder, file:///.., http(s)://.. or s3://BUCKET/..
    source: String,
    /// The adapters to take
    names: Vec<String>,
    /// Take all that are for this base model
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Accept only bundles that are signed with this public key; may be repeated
    #[arg(long, value_name = "KEY")]
    signer: Vec<String>,
    /// What to do when a name is taken
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    on_conflict: Conflict,
    /// The list as one JSON object per line
    #[arg(long, conflicts_with_all = ["names", "all"])]
    json: bool,
    #[command(flatten)]
    library: LibraryArgs,
    /// The base model the adapters are for: a file, or a name of `smoa model ls`
    #[arg(short = 'm', long, value_name = "FILE", env = "LLAMA_ARG_MODEL")]
    model: Option<PathBuf>,
}

/// Write the index.json of a folder of bundles, which makes it a catalogue
#[derive(Args, Debug)]
pub struct IndexArgs {
    /// The folder
    folder: PathBuf,
}

/// Runs `smoa adapter index`.
///
/// # Errors
/// A bundle is refused; the index cannot be written.
pub fn index(args: &IndexArgs, context: &Context) -> Result<(), Outcome> {
    let failed = |path: &std::path::Path, e: std::io::Error| {
        Failure::new(model_file::open_code(&e), format!("'{}': {e}", path.display()))
    };
    let listed = std::fs::read_dir(&args.folder).map_err(|e| failed(&args.folder, e))?;
    let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == EXTENSION));
    files.sort();
    let mut index = Index::default();
    for path in &files {
        let map = Mapped::open(path).map_err(|e| failed(path, e))?;
        let mut bundle = bundle::read(std::io::Cursor::new(map.bytes())).map_err(|e| bundles::failure(path, &e))?;
        for packed in bundle.adapters.clone() {
            bundle.bytes(&packed).map_err(|e| bundles::failure(path, &e))?;
        }
        let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let whole = (map.bytes().len() as u64, crate::adapter::AdapterDigest::of(map.bytes()));
        index.list(&file, whole, &bundle);
    }
    let text = serde_json::to_string_pretty(&index).unwrap_or_default() + "\n";
    // What cannot be read again is not written.
    Index::read(text.as_bytes()).map_err(|e| Failure::new(Code::InvalidFile, e.to_string()))?;
    let (path, part) = (args.folder.join(INDEX), args.folder.join(format!("{INDEX}.part")));
    std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &path)).map_err(|e| failed(&path, e))?;
    let adapters: usize = index.bundles.iter().map(|bundle| bundle.adapters.len()).sum();
    Ok(context.printer.line(&format!("{} bundles, {adapters} adapters", index.bundles.len()))?)
}

/// Runs `smoa adapter pull`.
///
/// # Errors
/// The catalogue or a bundle cannot be had or is refused, a name is not there, a name is taken.
pub fn pull(args: &PullArgs, context: &Context) -> Result<(), Outcome> {
    let place = Place::of(&args.source)?;
    let mut text = Vec::new();
    place.copy(INDEX, MAX_INDEX, &mut text)?;
    let refuse = |what: String| Failure::new(Code::InvalidFile, printable(&format!("'{}': {what}", args.source)));
    let index = Index::read(&text).map_err(|e| refuse(e.to_string()))?;
    if args.names.is_empty() && !args.all {
        return list(&index, args.json, context);
    }
    let model = model_path(&ModelArgs { model: args.model.clone(), ..Default::default() })?;
    let base = model_file::check(&model)?;
    let fingerprint = base_fingerprint(&base);
    let missing = |what: String| Failure::new(Code::NotFound, printable(&format!("'{}': {what}", args.source)));
    let names = if args.all { all(&index, &fingerprint) } else { args.names.clone() };
    let wanted = index.wanted(&names, &fingerprint).map_err(missing)?;
    let library = Library::create(&args.library.folder()?).map_err(|e| library_failure(&e))?;
    for (listed, names) in wanted {
        let (path, _scratch) = fetched(&place, listed, &refuse)?;
        let wanted = Wanted { signers: &args.signer, names: Some(&names), on_conflict: args.on_conflict.rule() };
        bundles::add(&path, &wanted, (&library, &base), context)?;
    }
    super::follow(&args.library, context);
    Ok(())
}

/// Every name that there is something for.
fn all(index: &Index, base: &str) -> Vec<String> {
    let adapters = index.bundles.iter().flat_map(|bundle| &bundle.adapters);
    let fitting = adapters.filter(|adapter| adapter.base.as_ref().is_none_or(|of| of == base));
    let mut names: Vec<String> = fitting.map(|adapter| adapter.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Fetches a bundle into a file of its own, and checks it against the index.
fn fetched(
    place: &Place,
    listed: &ListedBundle,
    refuse: &dyn Fn(String) -> Failure,
) -> Result<(PathBuf, Scratch), Failure> {
    let folder = std::env::temp_dir().join(format!("smoa-pull-{}", std::process::id()));
    let scratch = Scratch(folder.clone());
    let path = folder.join(&listed.file);
    let failed = |e: std::io::Error| Failure::new(Code::Other, format!("'{}': {e}", path.display()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).map_err(failed)?;
    let mut hashing = Hashing { file: &mut file, hasher: blake3::Hasher::new() };
    let bytes = place.copy(&listed.file, listed.bytes, &mut hashing)?;
    let digest = hashing.hasher.finalize().to_hex().to_string();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if bytes != listed.bytes || digest != listed.digest {
        return Err(refuse(format!(
            "{} has {bytes} bytes with BLAKE3 {digest}, {INDEX} says {} with {}; it is damaged, or the index is old",
            listed.file, listed.bytes, listed.digest
        )));
    }
    Ok((path, scratch))
}

struct Hashing<'f> {
    file: &'f mut std::fs::File,
    hasher: blake3::Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn list(index: &Index, as_json: bool, context: &Context) -> Result<(), Outcome> {
    for bundle in &index.bundles {
        for adapter in &bundle.adapters {
            let line = match as_json {
                true => {
                    let mut value = serde_json::to_value(adapter).unwrap_or_default();
                    if let Value::Object(fields) = &mut value {
                        fields.insert("file".into(), json!(bundle.file));
                        fields.insert("signer".into(), json!(bundle.signer));
                    }
                    value.to_string()
                }
                false => format!(
                    "{:<32} {:<12} {:>9} B  {:<16} {}  {}",
                    adapter.name,
                    adapter.kind.map_or("?", Kind::name),
                    adapter.bytes,
                    adapter.licence.as_deref().unwrap_or("no licence"),
                    bundle.file,
                    adapter.description.as_deref().unwrap_or("")
                ),
            };
            context.printer.line(&printable(&line))?;
        }
    }
    Ok(())
}
