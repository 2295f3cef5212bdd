//! What engines keep beside adapters: the states that prefixes leave. Derived, so never counted, verified or backed up
//! with the adapters; whoever finds none, or one that does not fit, makes it again.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Library, LibraryError};
use crate::adapter::AdapterDigest;

/// The folder among what is derived.
const STATES: &str = "states";
const ENDING: &str = ".state";
/// Digits of a digest in a file's name.
const DIGITS: usize = 64;

impl Library {
    /// Where the state is that the adapter with this digest leaves in engines with this stamp's key; it may not be there.
    pub fn state_file(&self, digest: AdapterDigest, key: &str) -> PathBuf {
        self.states().join(format!("{}-{key}{ENDING}", digest.to_hex()))
    }

    /// Keeps such a state, in place of one that is there. Readers see the old one or the new one, whole.
    ///
    /// # Errors
    /// The disk refuses; the old one is still there then.
    pub fn keep_state(&self, digest: AdapterDigest, key: &str, bytes: &[u8]) -> Result<PathBuf, LibraryError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (dir, file) = (self.states(), self.state_file(digest, key));
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = file.with_extension(format!("{}-{count}.tmp", std::process::id()));
        let write = || {
            fs::create_dir_all(&dir)?;
            let mut out = self.disk.create(&temporary)?;
            out.write_all(bytes)?;
            out.sync()?;
            self.disk.rename(&temporary, &file)?;
            self.disk.sync_dir(&dir)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&temporary);
            LibraryError::disk("write", &file)(e)
        })?;
        Ok(file)
    }

    /// Takes away the states of adapters that are not there any more, and what killed writers left.
    pub(super) fn sweep_states(&self) {
        // Nothing depends on them, so nothing here can fail.
        for file in fs::read_dir(self.states()).into_iter().flatten().flatten().map(|item| item.path()) {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let digest = name.get(..DIGITS).and_then(|digits| blake3::Hash::from_hex(digits).ok());
            let lives = digest.is_some_and(|digest| {
                !matches!(
                    self.find_digest(AdapterDigest::from_bytes(*digest.as_bytes())),
                    Err(LibraryError::NoDigest(_))
                )
            });
            let abandoned = name.ends_with(".tmp") && age(&file).is_some_and(|seconds| seconds > 3600);
            if !lives || abandoned {
                let _ = self.disk.remove(&file);
            }
        }
    }

    fn states(&self) -> PathBuf {
        self.derived().join(STATES)
    }
}

/// Seconds since a file was changed.
fn age(file: &std::path::Path) -> Option<u64> {
    Some(fs::metadata(file).ok()?.modified().ok()?.elapsed().ok()?.as_secs())
}
