//! What a base model is, for adapters: a fingerprint of its shape.

use super::{Entry, LibraryError};
use crate::gguf::ModelFacts;

/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 16;

/// The fingerprint of a base model's structure: BLAKE3 over its architecture, the size of its vocabulary and the
/// names and shapes of its tensors, shortened to 16 hexadecimal digits.
///
/// No weight is read, so it costs nothing, and every quantization and every fine-tune of one network has the same
/// fingerprint: an adapter fits them all in shape. Networks of another shape, where an adapter cannot work, differ.
pub fn base_fingerprint(facts: &ModelFacts) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("smoa base fingerprint 1");
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    text(&facts.architecture);
    text(&facts.n_vocab.to_string());
    let mut tensors: Vec<_> = facts.tensors.iter().collect();
    tensors.sort_unstable();
    for (name, shape) in tensors {
        text(name);
        text(&format!("{shape:?}"));
    }
    hasher.finalize().to_hex().as_str().chars().take(DIGITS).collect()
}

/// Refuses an adapter that says it was made for another base model than the one with `fingerprint`. One that says
/// nothing passes: its tensors are checked by [`crate::gguf::check_adapter`] anyway.
///
/// # Errors
/// [`LibraryError::WrongBase`] with both fingerprints.
pub fn check_base(entry: &Entry, fingerprint: &str) -> Result<(), LibraryError> {
    match &entry.metadata.measured.base {
        Some(base) if base != fingerprint => Err(LibraryError::WrongBase {
            name: entry.name.clone(),
            adapter: base.clone(),
            model: fingerprint.to_owned(),
        }),
        _ => Ok(()),
    }
}
