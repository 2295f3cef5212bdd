//! Adapter files that a request names by path: mapped, checked against the base, identified by content.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::AdapterDigest;
use crate::gguf::{self, AdapterFacts, GgufError, ModelFacts};
use crate::mapped::{Identity, Mapped};

/// A GGUF LoRA adapter whose bytes have been checked against the base model.
#[derive(Debug)]
pub struct AdapterFile {
    path: PathBuf,
    map: Mapped,
    digest: AdapterDigest,
    facts: AdapterFacts,
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
    /// It is an activated LoRA, which must be switched on at its invocation tokens.
    #[error("adapter '{}': adapter.alora.invocation_tokens: activated LoRA is not supported yet", path.display())]
    Activated {
        /// As the request named it.
        path: PathBuf,
    },
}

impl AdapterFile {
    /// Maps and checks the adapter at `path` against the model described by `base`.
    ///
    /// # Errors
    /// The file cannot be read, or [`gguf::check_adapter`] refuses it.
    pub fn open(path: &Path, base: &ModelFacts) -> Result<Self, AdapterError> {
        let open = |source| AdapterError::Open {
            path: path.to_owned(),
            source,
        };
        let map = Mapped::open(path).map_err(open)?;
        let facts = gguf::check_adapter(map.bytes(), base).map_err(|source| AdapterError::Invalid {
            path: path.to_owned(),
            source,
        })?;
        if !facts.invocation_tokens.is_empty() {
            return Err(AdapterError::Activated { path: path.to_owned() });
        }
        Ok(Self {
            path: path.to_owned(),
            digest: AdapterDigest::of(map.bytes()),
            map,
            facts,
        })
    }

    /// Identity of the content.
    pub fn digest(&self) -> AdapterDigest {
        self.digest
    }

    /// The whole checked file.
    pub fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    /// What the header says.
    pub fn facts(&self) -> &AdapterFacts {
        &self.facts
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A short name for people: the file name without its extension.
    pub fn label(&self) -> String {
        self.path
            .file_stem()
            .map_or_else(|| self.digest.to_string(), |s| s.to_string_lossy().into_owned())
    }
}

/// The adapter files seen so far. A file is checked and hashed once for as long as it does not change.
#[derive(Debug, Default)]
pub struct LooseAdapters {
    by_path: Mutex<HashMap<PathBuf, Arc<AdapterFile>>>,
}

impl LooseAdapters {
    /// Most files remembered; beyond it all are forgotten and checked again when next named.
    const CAPACITY: usize = 4096;

    /// The adapter at `path`, as its content is now. A file that was replaced is opened anew; requests that
    /// already hold the old one keep it.
    ///
    /// # Errors
    /// As [`AdapterFile::open`].
    pub fn get(&self, path: &Path, base: &ModelFacts) -> Result<Arc<AdapterFile>, AdapterError> {
        let now = Identity::of(path).map_err(|source| AdapterError::Open {
            path: path.to_owned(),
            source,
        })?;
        if let Some(known) = self.lock().get(path)
            && known.map.identity() == now
        {
            return Ok(known.clone());
        }
        let file = Arc::new(AdapterFile::open(path, base)?);
        let mut by_path = self.lock();
        if by_path.len() >= Self::CAPACITY {
            by_path.clear();
        }
        by_path.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<AdapterFile>>> {
        self.by_path.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
