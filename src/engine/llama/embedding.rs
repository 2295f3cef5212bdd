//! Sentence vectors by a BERT-like model in llama.cpp: one text, one pass, the model's own pooling, unit length.

use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;
use llama_cpp_sys_2 as sys;

use super::backend::Backend;
use super::log;
use super::model::Model;
use crate::engine::options::{EngineOptions, GpuLayers};
use crate::error::{Code, Failure};
use crate::gguf::{ModelFacts, ModelKind};
use crate::router::embed::{Embedder, bounded, normalize};

/// Tokens of a text that are read, special ones included: what all-MiniLM-L6-v2 was made for.
const MAX_TOKENS: usize = 256;

/// A sentence encoder in llama.cpp, on the CPU. Texts take turns: one context, one text at a time.
pub struct LlamaEmbedder {
    context: Mutex<Encoder>,
    model: Arc<Model>,
    fingerprint: [u8; 32],
    dim: usize,
    /// Tokens of a text that are read.
    limit: usize,
}

impl std::fmt::Debug for LlamaEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LlamaEmbedder").field("dim", &self.dim).finish_non_exhaustive()
    }
}

impl LlamaEmbedder {
    /// Loads a sentence encoder. `facts` are what [`crate::gguf::check_model`] found in the file at `path`.
    ///
    /// # Errors
    /// [`Code::InvalidFile`] for a model that is no sentence encoder or that llama.cpp refuses, [`Code::OutOfMemory`].
    pub fn load(path: &Path, facts: &ModelFacts, threads: u32) -> Result<Self, Failure> {
        let shown = path.display();
        let refused = |what: String| Failure::new(Code::InvalidFile, format!("embedder '{shown}': {what}"));
        if facts.kind != ModelKind::Embedding {
            return Err(refused(format!("general.architecture: is {}, not a sentence encoder", facts.kind.describe())));
        }
        let mut hasher =
            blake3::Hasher::new_derive_key("smoa llama.cpp embedder: model file, own pooling, unit length");
        hasher.update(&(MAX_TOKENS as u64).to_le_bytes());
        let read = std::fs::File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ()));
        read.map_err(|e| refused(e.to_string()))?;
        let options = EngineOptions { gpu_layers: GpuLayers::Count(0), ..EngineOptions::new(path) };
        let model = Model::load(Backend::get(), &options, &mut |_| true).map_err(|e| refused(e.to_string()))?;
        let limit = MAX_TOKENS.min(facts.n_ctx_train as usize);
        let context = Encoder::new(model.clone(), limit, threads).map_err(|said| {
            let code =
                if said.contains("alloc") || said.contains("memory") { Code::OutOfMemory } else { Code::InvalidFile };
            Failure::new(code, format!("embedder '{shown}': {said}"))
        })?;
        let fingerprint = *hasher.finalize().as_bytes();
        Ok(Self { dim: context.dim, context: Mutex::new(context), model, fingerprint, limit })
    }

    /// The tokens of a text with the special ones around them; none when there is no known one between.
    fn tokens(&self, text: &str) -> Vec<LlamaToken> {
        let vocab = self.model.safe().vocab();
        let mut tokens = vocab.tokenize(bounded(text).as_bytes(), true, false);
        if let Some(last) = tokens.last().copied().filter(|_| tokens.len() > self.limit) {
            tokens.truncate(self.limit);
            if let Some(end) = tokens.last_mut() {
                *end = last;
            }
        }
        let known = |token: &LlamaToken| {
            let attrs = vocab.attr(*token);
            !attrs.contains(LlamaTokenAttr::Control) && !attrs.contains(LlamaTokenAttr::Unknown)
        };
        if tokens.iter().any(known) { tokens } else { Vec::new() }
    }
}

impl Embedder for LlamaEmbedder {
    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let tokens = self.tokens(text);
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        let mut vector = context.encode(&tokens).unwrap_or_else(|| vec![0.0; self.dim]);
        normalize(&mut vector);
        vector
    }
}

/// A context without a cache, for encoding.
struct Encoder {
    raw: NonNull<sys::llama_context>,
    batch: sys::llama_batch,
    capacity: usize,
    dim: usize,
    /// Keeps the model alive; dropped after `raw` is freed.
    _model: Arc<Model>,
}

// SAFETY: context and batch belong to this value alone and are used through `&mut self`, by one thread at a time.
unsafe impl Send for Encoder {}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: both were made by `Encoder::new` and are freed once; the model is still alive (field).
        unsafe {
            sys::llama_batch_free(self.batch);
            sys::llama_free(self.raw.as_ptr());
        }
    }
}

impl Encoder {
    /// A context for texts of up to `limit` tokens, or what llama.cpp said.
    fn new(model: Arc<Model>, limit: usize, threads: u32) -> Result<Self, String> {
        let rows = u32::try_from(limit).unwrap_or(512);
        log::take_errors();
        // SAFETY: returns plain defaults.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = rows;
        // Attention looks both ways: a text must be one micro batch.
        params.n_batch = rows;
        params.n_ubatch = rows;
        params.n_seq_max = 1;
        params.n_threads = threads as i32;
        params.n_threads_batch = threads as i32;
        params.embeddings = true;
        params.no_perf = true;
        params.offload_kqv = false;
        params.op_offload = false;
        // SAFETY: the model is loaded and outlives the context (field).
        let raw = unsafe { sys::llama_init_from_model(model.raw(), params) };
        let Some(raw) = NonNull::new(raw) else {
            let said = log::take_errors();
            return Err(if said.is_empty() { "llama.cpp made no context".into() } else { said });
        };
        // SAFETY: allocates arrays for `rows` rows of one sequence each; freed in `drop`.
        let batch = unsafe { sys::llama_batch_init(rows as i32, 0, 1) };
        // SAFETY: the model is loaded.
        let dim = usize::try_from(unsafe { sys::llama_model_n_embd_out(model.raw()) }).unwrap_or(0);
        let encoder = Self { raw, batch, capacity: limit, dim, _model: model };
        // SAFETY: the context exists.
        let pooling = unsafe { sys::llama_pooling_type(raw.as_ptr()) };
        let pooled = [sys::LLAMA_POOLING_TYPE_MEAN, sys::LLAMA_POOLING_TYPE_CLS, sys::LLAMA_POOLING_TYPE_LAST];
        if !pooled.contains(&pooling) || dim == 0 {
            return Err("pooling_type: the model gives no vector for a whole text".into());
        }
        Ok(encoder)
    }

    /// The vector of a text's tokens, of the length that pooling gives it; none when llama.cpp fails.
    fn encode(&mut self, tokens: &[LlamaToken]) -> Option<Vec<f32>> {
        if tokens.is_empty() || tokens.len() > self.capacity {
            return None;
        }
        for (i, token) in tokens.iter().enumerate() {
            // SAFETY: `i < capacity`, and every array of the batch has `capacity` elements (`llama_batch_init`), each
            // `seq_id[i]` room for one id.
            unsafe {
                *self.batch.token.add(i) = token.0;
                *self.batch.pos.add(i) = i as i32;
                *self.batch.n_seq_id.add(i) = 1;
                **self.batch.seq_id.add(i) = 0;
                *self.batch.logits.add(i) = 1;
            }
        }
        self.batch.n_tokens = tokens.len() as i32;
        // SAFETY: the batch is filled for `n_tokens` rows with tokens of the model's own tokenizer.
        let status = unsafe { sys::llama_encode(self.raw.as_ptr(), self.batch) };
        if status != 0 {
            return None;
        }
        // SAFETY: the context exists; the pointer is null or valid for `dim` numbers until the next call, since the
        // pooling type is none of NONE and RANK (checked in `new`).
        let vector = unsafe { sys::llama_get_embeddings_seq(self.raw.as_ptr(), 0) };
        if vector.is_null() {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { std::slice::from_raw_parts(vector, self.dim) }.to_vec())
    }
}
