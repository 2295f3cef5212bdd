//! An engine that makes vectors and nothing else, for models that cannot generate.

use std::collections::HashSet;
use std::sync::Arc;

use super::backend::Backend;
use super::encoder::LlamaEncoder;
use super::model::{Model, Progress};
use super::{check, load_failure, tokenizer};
use crate::adapter::{AdapterDigest, AdapterFile, AdapterSet};
use crate::engine::encoder::{Encoder, Pooling};
use crate::engine::options::EngineOptions;
use crate::engine::saved::Stamp;
use crate::engine::{Batching, Engine, EngineError, EngineFacts, Row, Sampler, Sequence, Tokenizer};
use crate::error::Failure;
use crate::gguf::ModelFacts;
use crate::sampling::Sampling;

/// A sentence encoder or reranker in llama.cpp. Its facts say that it does not generate.
pub struct EncodingEngine {
    facts: EngineFacts,
    tokenizer: Arc<dyn Tokenizer>,
    encoder: Arc<LlamaEncoder>,
}

impl EncodingEngine {
    /// Loads a model for its vectors. The file has passed [`crate::gguf::check_model`].
    ///
    /// # Errors
    /// As [`LlamaEngine::load`](super::LlamaEngine::load).
    pub fn load(
        options: &EngineOptions,
        base: &ModelFacts,
        pooling: Option<Pooling>,
        progress: &mut Progress<'_>,
    ) -> Result<Self, Failure> {
        check(options)?;
        let model = Model::load(Backend::get(), options, progress).map_err(|e| load_failure(options, e))?;
        let encoder = LlamaEncoder::new(model.clone(), base, options, pooling)?;
        let of = encoder.facts();
        let facts = EngineFacts {
            model: of.model.clone(),
            context: of.limit,
            sequence_context: of.limit,
            context_trained: base.n_ctx_train as usize,
            batch: of.rows,
            micro_batch: of.rows,
            sequences: of.texts,
            vocabulary: base.n_vocab as usize,
            prefix_reuse: false,
            shift: false,
            generates: false,
            batching: Batching::Grouped { why: None },
        };
        Ok(Self { facts, tokenizer: Arc::new(tokenizer::LlamaTokenizer::new(model)), encoder })
    }

    /// Its vectors alone, for a model beside the one that answers.
    pub fn into_encoder(self) -> Arc<dyn Encoder> {
        self.encoder
    }
}

fn refused<T>() -> Result<T, EngineError> {
    Err(EngineError::Misuse("the model makes vectors; it does not generate".into()))
}

impl Engine for EncodingEngine {
    fn facts(&self) -> &EngineFacts {
        &self.facts
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.tokenizer.clone()
    }

    fn encoder(&self) -> Option<Arc<dyn Encoder>> {
        Some(self.encoder.clone())
    }

    fn sampler(&self, _: &Sampling) -> Result<Box<dyn Sampler>, EngineError> {
        refused()
    }

    fn load_adapters(&mut self, _: &[Arc<AdapterFile>], _: &HashSet<AdapterDigest>) -> Result<(), EngineError> {
        refused()
    }

    fn mixes(&self, _: &AdapterSet) -> bool {
        false
    }

    fn decode(&mut self, _: &[Row], _: &[AdapterSet]) -> Result<(), EngineError> {
        refused()
    }

    fn logits(&self, _: usize) -> Result<&[f32], EngineError> {
        refused()
    }

    fn truncate(&mut self, _: Sequence, _: usize) -> bool {
        false
    }

    fn share(&mut self, _: Sequence, _: Sequence, _: usize) {}

    fn shift(&mut self, _: Sequence, _: usize, _: usize) {}

    fn stamp(&mut self) -> Result<Stamp, EngineError> {
        refused()
    }

    fn save(&mut self, _: Sequence) -> Result<Vec<u8>, EngineError> {
        refused()
    }

    fn restore(&mut self, _: Sequence, _: usize, _: &[u8]) -> Result<(), EngineError> {
        refused()
    }
}
