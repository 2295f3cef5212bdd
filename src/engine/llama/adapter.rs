//! LoRA adapters in llama.cpp's memory, by content.

use std::collections::{HashMap, HashSet};
use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::log;
use super::model::Model;
use crate::adapter::{AdapterDigest, AdapterFile};
use crate::engine::EngineError;

/// One loaded adapter.
pub(super) struct Loaded {
    raw: NonNull<sys::llama_adapter_lora>,
    /// Keeps the model alive: an adapter is valid only as long as it.
    _model: Arc<Model>,
}

impl Loaded {
    /// Loads a checked adapter out of memory.
    pub(super) fn new(model: &Arc<Model>, bytes: &[u8]) -> Result<Self, String> {
        Ok(Self { raw: init(model, bytes)?, _model: model.clone() })
    }

    /// For a context's adapter set, while this is not dropped.
    pub(super) fn raw(&self) -> *mut sys::llama_adapter_lora {
        self.raw.as_ptr()
    }
}

/// A loaded adapter among others.
struct Kept {
    loaded: Loaded,
    bytes: u64,
    used: u64,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `llama_adapter_lora_init_from_file_ptr` and is freed once; its model is alive (field),
        // and `Adapters` only drops one that is in no context's active set (see `Adapters::make_room`).
        unsafe { sys::llama_adapter_lora_free(self.raw.as_ptr()) }
    }
}

/// The loaded adapters, by digest, bounded in bytes.
pub(super) struct Adapters {
    model: Arc<Model>,
    by_digest: HashMap<AdapterDigest, Kept>,
    capacity: u64,
    clock: u64,
}

impl Adapters {
    pub(super) fn new(model: Arc<Model>, capacity: u64) -> Self {
        Self { model, by_digest: HashMap::new(), capacity, clock: 0 }
    }

    /// The raw pointer of a loaded adapter, valid until the next [`Adapters::load`].
    pub(super) fn get(&mut self, digest: AdapterDigest) -> Option<*mut sys::llama_adapter_lora> {
        self.clock += 1;
        let kept = self.by_digest.get_mut(&digest)?;
        kept.used = self.clock;
        Some(kept.loaded.raw())
    }

    /// Loads `file` unless it is loaded, and forgets the least recently used ones that are not in `in_use` when
    /// the bytes exceed the capacity.
    pub(super) fn load(&mut self, file: &AdapterFile, in_use: &HashSet<AdapterDigest>) -> Result<(), EngineError> {
        self.clock += 1;
        if let Some(kept) = self.by_digest.get_mut(&file.digest()) {
            kept.used = self.clock;
            return Ok(());
        }
        let bytes = file.bytes().len() as u64;
        self.make_room(bytes, in_use);
        let loaded = Loaded::new(&self.model, file.bytes())
            .map_err(|reason| EngineError::Adapter { name: file.label(), reason })?;
        self.by_digest.insert(file.digest(), Kept { loaded, bytes, used: self.clock });
        Ok(())
    }

    /// Whether loading `file` would forget adapters, so that the caller must take them out of its context first.
    pub(super) fn would_evict(&self, file: &AdapterFile) -> bool {
        !self.by_digest.contains_key(&file.digest()) && self.total() + file.bytes().len() as u64 > self.capacity
    }

    fn total(&self) -> u64 {
        self.by_digest.values().map(|l| l.bytes).sum()
    }

    fn make_room(&mut self, bytes: u64, in_use: &HashSet<AdapterDigest>) {
        while self.total() + bytes > self.capacity {
            let idle = self.by_digest.iter().filter(|(digest, _)| !in_use.contains(digest));
            let Some(oldest) = idle.min_by_key(|(_, l)| l.used).map(|(digest, _)| *digest) else {
                return;
            };
            self.by_digest.remove(&oldest);
        }
    }
}

/// Loads an adapter out of memory, through a `FILE*` over the mapped bytes: no temporary file, no second read.
#[cfg(unix)]
fn init(model: &Model, bytes: &[u8]) -> Result<NonNull<sys::llama_adapter_lora>, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    log::take_errors();
    // SAFETY: the buffer is readable for `bytes.len()` bytes and outlives the stream, which is closed below; mode "rb"
    // never writes through the pointer.
    let file = unsafe { libc::fmemopen(bytes.as_ptr().cast_mut().cast(), bytes.len(), c"rb".as_ptr()) };
    let Some(file) = NonNull::new(file) else {
        return Err(format!("fmemopen failed: {}", std::io::Error::last_os_error()));
    };
    // SAFETY: the model is loaded; `file` is an open stream at its start. llama.cpp reads it and keeps no reference.
    let raw = unsafe { sys::llama_adapter_lora_init_from_file_ptr(model.raw(), file.as_ptr().cast()) };
    // SAFETY: the stream was opened above and is closed once.
    unsafe { libc::fclose(file.as_ptr()) };
    NonNull::new(raw).ok_or_else(|| {
        let said = log::take_errors();
        if said.is_empty() { "llama.cpp refused it".to_string() } else { said }
    })
}

#[cfg(not(unix))]
fn init(_model: &Model, _bytes: &[u8]) -> Result<NonNull<sys::llama_adapter_lora>, String> {
    Err("loading adapters out of memory needs fmemopen, which this system lacks".into())
}
