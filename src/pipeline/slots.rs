//! Slots to files and back: what a sequence of the engine holds, with its adapter sets and the stamp of the engine.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::Pipeline;
use crate::engine::saved::Saved;
use crate::error::{Code, Failure};

/// What was saved or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Tokens of the sequence.
    pub tokens: usize,
    /// Bytes of the file.
    pub bytes: usize,
}

impl Pipeline {
    /// Writes what a slot holds to a file, in place of one that is there. Waits for its request to end.
    ///
    /// # Errors
    /// There is no such slot, it holds nothing, states of this model cannot be saved, or the disk refuses: the old file
    /// is as it was.
    pub fn save_slot(&self, slot: usize, file: &Path) -> Result<SlotState, Failure> {
        let stamp = self.worker.stamp()?;
        let saved = self.worker.save(slot)?;
        let bytes = saved.to_file(&stamp);
        write_whole(file, &bytes)
            .map_err(|e| Failure::new(Code::Other, format!("saved state '{}': {e}", file.display())))?;
        Ok(SlotState { tokens: saved.tokens.len(), bytes: bytes.len() })
    }

    /// Makes a slot hold what a file says. The file's stamp must be this engine's; later requests go on from it as far as
    /// their tokens and adapter sets, which the file holds by digest and weight, are equal; a file of another `owner` than
    /// this one (and nobody, 0) is refused.
    ///
    /// # Errors
    /// [`Code::NotFound`] without such a file or slot; [`Code::InvalidFile`] for one that is damaged or does not fit,
    /// naming what differs; [`Code::Busy`] when running requests leave no room. A file that is refused leaves the slot
    /// as it was; no room, or a refusal of the engine itself, leaves it empty.
    pub fn restore_slot(&self, slot: usize, file: &Path, owner: u64) -> Result<SlotState, Failure> {
        let named = |code: Code, what: &dyn std::fmt::Display| {
            Failure::new(code, format!("saved state '{}': {what}", file.display()))
        };
        let stamp = self.worker.stamp()?;
        let held = std::fs::read(file).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => named(Code::NotFound, &"no such file"),
            _ => named(Code::InvalidFile, &e),
        })?;
        let bytes = held.len();
        let saved = Saved::from_file(Box::new(held), &stamp, self.ready.facts.sequence_context)
            .map_err(|e| named(Code::InvalidFile, &e))?;
        if ![0, owner].contains(&saved.sets.owner()) {
            return Err(named(Code::InvalidFile, &"another key saved it; its cache is not for this one"));
        }
        let tokens = saved.tokens.len();
        self.worker.restore(slot, Arc::new(saved))?;
        Ok(SlotState { tokens, bytes })
    }

    /// Forgets what a slot holds: how many tokens. Waits for its request to end.
    ///
    /// # Errors
    /// There is no such slot.
    pub fn erase_slot(&self, slot: usize) -> Result<usize, Failure> {
        self.worker.erase(slot)
    }
}

/// Writes beside the file, syncs, and renames: the old file or the new one is there, whole.
fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = file.with_file_name(name);
    let write = || {
        let mut out = std::fs::File::create(&temporary)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        std::fs::rename(&temporary, file)
    };
    write().inspect_err(|_| _ = std::fs::remove_file(&temporary))
}
