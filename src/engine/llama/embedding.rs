//! Sentence vectors by a BERT-like model in llama.cpp: one text, one pass, the model's own pooling, unit length.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;

use super::backend::Backend;
use super::encoder::{EncodingContext, Shape};
use super::model::Model;
use crate::engine::Token;
use crate::engine::encoder::Pooling;
use crate::engine::options::{EngineOptions, GpuLayers};
use crate::error::{Code, Failure};
use crate::gguf::{ModelFacts, ModelKind};
use crate::router::embed::{Embedder, bounded, normalize};

/// Tokens of a text that are read, special ones included: what all-MiniLM-L6-v2 was made for.
const MAX_TOKENS: usize = 256;

/// A sentence encoder in llama.cpp, on the CPU. Texts take turns: one context, one text at a time.
pub struct LlamaEmbedder {
    context: Mutex<EncodingContext>,
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
        let shape = Shape { rows: limit, texts: 1, threads, pooling: None, offload: false };
        let context = EncodingContext::new(model.clone(), &shape).and_then(|context| match context.pooling {
            Pooling::None | Pooling::Rank => {
                Err("pooling_type: the model gives no vector for a whole text".to_string())
            }
            _ => Ok(context),
        });
        let context = context.map_err(|said| {
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
        let tokens: Vec<Token> = self.tokens(text).into_iter().map(|t| t.0 as Token).collect();
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        let found = context.encode(&[&tokens]).ok().and_then(|mut all| all.pop());
        let mut vector = found.unwrap_or_else(|| vec![0.0; self.dim]);
        normalize(&mut vector);
        vector
    }
}
