//! A model file on disk: found, checked, described. llama.cpp reads it only after this.

use std::path::{Path, PathBuf};

use crate::error::{Code, Failure};
use crate::gguf::{self, ModelFacts, Override, ShardFacts};
use crate::mapped::Mapped;

/// Maps and checks the model at `path`, with all its parts when it is split.
///
/// # Errors
/// [`Code::NotFound`] when a file is missing, [`Code::InvalidFile`] with file, field and reason when one is refused.
pub fn check(path: &Path) -> Result<ModelFacts, Failure> {
    check_with(path, &[])
}

/// The same with metadata put in place of the file's.
///
/// # Errors
/// As [`check`].
pub fn check_with(path: &Path, overrides: &[Override]) -> Result<ModelFacts, Failure> {
    let map = open(path)?;
    let refused =
        |file: &Path, e: gguf::GgufError| Failure::new(Code::InvalidFile, format!("model '{}': {e}", file.display()));
    let facts = gguf::check_model_with(map.bytes(), overrides).map_err(|e| refused(path, e))?;
    let Some(split) = facts.split else { return Ok(facts) };
    let name = path.to_string_lossy();
    let Some(paths) = gguf::shard_paths(&name, split.count) else {
        let message = format!(
            "model '{name}': is part 1 of {}, but its name does not end in -00001-of-{:05}.gguf, so the others cannot be found",
            split.count, split.count
        );
        return Err(Failure::new(Code::InvalidFile, message));
    };
    let mut shards: Vec<(String, ShardFacts)> = Vec::new();
    for shard in &paths[1..] {
        let shard_path = PathBuf::from(shard);
        let map = open(&shard_path)?;
        let facts = gguf::check_shard(map.bytes()).map_err(|e| refused(&shard_path, e))?;
        shards.push((shard.clone(), facts));
    }
    gguf::check_shards(facts, shards).map_err(|e| refused(path, e))
}

/// Maps the model at `path` and, when it is split, all its parts, in their order; for whoever reads weights. The files
/// are those that [`check`] accepted.
///
/// # Errors
/// As [`check`], for files that are missing or cannot be read.
pub fn open_parts(path: &Path, facts: &ModelFacts) -> Result<Vec<Mapped>, Failure> {
    let name = path.to_string_lossy();
    let parts = facts.split.as_ref().and_then(|split| gguf::shard_paths(&name, split.count));
    match parts {
        Some(parts) => parts.iter().map(|part| open(Path::new(part))).collect(),
        None => Ok(vec![open(path)?]),
    }
}

/// Bytes of a tensor's beginning and end that a fingerprint reads.
const SAMPLE: usize = 4096;

/// A digest of a model's content, 32 hexadecimal digits: BLAKE3 over the headers and sizes of its files and over the
/// first and last 4 KiB of every tensor. Two models that anyone trained apart differ in it; a change of a few weights
/// in the middle of a tensor would not show. Reading whole files of many gigabytes would take longer than what saved
/// states save.
///
/// # Errors
/// As [`check`], for files that are missing or have changed meanwhile.
pub fn fingerprint(path: &Path, facts: &ModelFacts) -> Result<String, Failure> {
    let mut hasher = blake3::Hasher::new_derive_key("smoa model content 1");
    for part in open_parts(path, facts)? {
        let bytes = part.bytes();
        let invalid = |e: gguf::GgufError| Failure::new(Code::InvalidFile, format!("model '{}': {e}", path.display()));
        let gguf = gguf::Gguf::read(bytes).map_err(invalid)?;
        let header = usize::try_from(gguf.data_offset).unwrap_or(usize::MAX).min(bytes.len());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes[..header]);
        for tensor in gguf.tensors() {
            let data = gguf.tensor_bytes(tensor);
            hasher.update(&data[..data.len().min(SAMPLE)]);
            hasher.update(&data[data.len().saturating_sub(SAMPLE)..]);
        }
    }
    Ok(hasher.finalize().to_hex().as_str()[..32].to_owned())
}

fn open(path: &Path) -> Result<Mapped, Failure> {
    Mapped::open(path).map_err(|e| Failure::new(open_code(&e), format!("model '{}': {e}", path.display())))
}

/// A file that is not there is "not found"; one that cannot be read or is no file is "invalid".
pub fn open_code(e: &std::io::Error) -> Code {
    if e.kind() == std::io::ErrorKind::NotFound { Code::NotFound } else { Code::InvalidFile }
}
