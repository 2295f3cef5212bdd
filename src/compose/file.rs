//! The file of a composition: GGUF keys, no tensors.

use super::{ComposeError, Composition};
use crate::gguf::{Gguf, GgufError, GgufWriter};

/// The value of `adapter.type`.
const TYPE: &str = "composition";
/// The key with the stages as JSON.
const KEY: &str = "smoa.composition";

/// The file.
///
/// # Errors
/// A text that GGUF cannot hold.
pub fn to_gguf(composition: &Composition, name: &str) -> Result<Vec<u8>, GgufError> {
    let text = serde_json::to_string(composition).unwrap_or_default();
    let mut file = GgufWriter::new();
    file.set("general.type", "adapter")?.set("adapter.type", TYPE)?;
    file.set("general.name", name)?.set(KEY, text.as_str())?;
    Ok(file.to_bytes())
}

/// Reads a composition; none for a file of another kind.
///
/// # Errors
/// It says that it is one, and is damaged or out of bounds.
pub fn from_gguf(bytes: &[u8], name: &str) -> Result<Option<Composition>, ComposeError> {
    let broken = |e: GgufError| ComposeError::File(e.to_string());
    let gguf = Gguf::read(bytes).map_err(broken)?;
    if gguf.str("adapter.type").map_err(broken)? != Some(TYPE) {
        return Ok(None);
    }
    let text = gguf.str(KEY).map_err(broken)?.ok_or_else(|| ComposeError::File(format!("{KEY} is missing")))?;
    let composition: Composition = serde_json::from_str(text).map_err(|e| ComposeError::File(format!("{KEY}: {e}")))?;
    composition.check(name)?;
    Ok(Some(composition))
}
