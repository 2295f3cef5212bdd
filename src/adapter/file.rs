//! Adapters that a request names: checked against the base, identified by content, their bytes held.

use std::io;
use std::path::{Path, PathBuf};

use super::AdapterDigest;
use crate::gguf::{self, AdapterFacts, GgufError, ModelFacts};
use crate::mapped::Mapped;

/// Bytes that stay where they are for as long as they are held: a mapped file, or a pinned entry of a library.
pub trait HeldBytes: Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

impl HeldBytes for Mapped {
    fn bytes(&self) -> &[u8] {
        Mapped::bytes(self)
    }
}

impl HeldBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A GGUF adapter whose bytes have been checked against the base model.
pub struct AdapterFile {
    name: PathBuf,
    held: Box<dyn HeldBytes>,
    digest: AdapterDigest,
    facts: AdapterFacts,
}

impl std::fmt::Debug for AdapterFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdapterFile({}, {})", self.name.display(), self.digest)
    }
}

/// Why an adapter file was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// It could not be opened.
    #[error("adapter '{}': {source}", path.display())]
    Open {
        /// As the request named it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its content is refused.
    #[error("adapter '{}': {source}", path.display())]
    Invalid {
        /// As the request named it.
        path: PathBuf,
        /// The field and the reason.
        source: GgufError,
    },
}

impl AdapterFile {
    /// Maps and checks the adapter at `path` against the model described by `base`.
    ///
    /// # Errors
    /// The file cannot be read, or [`gguf::check_adapter`] refuses it.
    pub fn open(path: &Path, base: &ModelFacts) -> Result<Self, AdapterError> {
        let map = Mapped::open(path).map_err(|source| AdapterError::Open { path: path.to_owned(), source })?;
        let digest = AdapterDigest::of(map.bytes());
        Self::new(path, Box::new(map), digest, base)
    }

    /// Checks held bytes with a known digest. `name` is a path or a library's name, for messages.
    ///
    /// # Errors
    /// [`gguf::check_adapter`] refuses them.
    pub fn new(
        name: &Path,
        held: Box<dyn HeldBytes>,
        digest: AdapterDigest,
        base: &ModelFacts,
    ) -> Result<Self, AdapterError> {
        let facts = gguf::check_adapter(held.bytes(), base)
            .map_err(|source| AdapterError::Invalid { path: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), held, digest, facts })
    }

    /// The name it was opened by, and its content.
    pub(super) fn key(&self) -> (PathBuf, AdapterDigest) {
        (self.name.clone(), self.digest)
    }

    /// Identity of the content.
    pub fn digest(&self) -> AdapterDigest {
        self.digest
    }

    /// The whole checked adapter, a GGUF file.
    pub fn bytes(&self) -> &[u8] {
        self.held.bytes()
    }

    /// What the header says.
    pub fn facts(&self) -> &AdapterFacts {
        &self.facts
    }

    /// A short name for people: the name, or the file name without its extension.
    pub fn label(&self) -> String {
        let gguf = self.name.extension().is_some_and(|e| e == "gguf");
        let short = if gguf { self.name.file_stem() } else { self.name.file_name() };
        short.map_or_else(|| self.digest.to_string(), |s| s.to_string_lossy().into_owned())
    }
}
