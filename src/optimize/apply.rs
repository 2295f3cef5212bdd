//! Carrying out what was found: all of a group in one transaction, with its note in the journal.

use super::OptimizeError;
use crate::gguf::AdapterFacts;
use crate::library::{Entry, Library, Measured, Metadata, OnConflict, limits};

/// Has all names of these entries stand for one content. Names and cards stay; what the names stood for before can be
/// brought back until gc. The number of the note.
///
/// # Errors
/// An entry was changed since it was read; the library refuses. Nothing is changed then.
pub fn apply_merge(
    library: &Library,
    entries: &[&Entry],
    bytes: &[u8],
    (facts, error): (&AdapterFacts, f64),
    what: &str,
) -> Result<u64, OptimizeError> {
    let mut writer = library.writer()?;
    let (mut went, mut came) = (Vec::new(), Vec::new());
    for entry in entries {
        let mut card = entry.metadata.card.clone();
        card.parents = entries.iter().map(|e| format!("{} {}", e.name, e.digest)).take(limits::TAGS).collect();
        let mut measured = Measured::of(facts, entry.metadata.measured.base.clone());
        measured.relative_error = Some(error);
        let metadata = Metadata { card, measured };
        let added = writer.add(&entry.name, bytes, &metadata, OnConflict::ReplaceIf(entry.digest))?;
        went.push(entry.id);
        came.push(added.id);
    }
    let number = writer.note(what, &went, &came)?;
    writer.commit()?;
    Ok(number)
}

/// Removes entries; they can be brought back until gc. The number of the note.
///
/// # Errors
/// The library refuses; nothing is changed then.
pub fn apply_prune(library: &Library, entries: &[&Entry], what: &str) -> Result<u64, OptimizeError> {
    let mut writer = library.writer()?;
    let mut went = Vec::new();
    for entry in entries {
        went.push(writer.remove(&entry.name)?.id);
    }
    let number = writer.note(what, &went, &[])?;
    writer.commit()?;
    Ok(number)
}
