//! The llama.cpp engine. All `unsafe` of the program is in this folder, one wrapper per C object.
//!
//! `llama-cpp-2` is used where it is enough (backend, vocabulary, samplers); contexts, batches and adapters go
//! through `llama-cpp-sys-2` directly, because a weighted set of adapters, loading from memory and tensor splits
//! have no safe counterpart. Nothing outside this folder sees a C type.
//!
//! Ownership: the engine thread owns [`LlamaEngine`]. Its fields drop in order: the context first, then the
//! adapters, then the model (shared with the tokenizer by `Arc`, freed with the last holder).
#![allow(unsafe_code)]

mod adapter;
mod backend;
mod context;
mod embedding;
mod log;
mod model;
mod sampler;
mod tokenizer;

use std::collections::HashSet;
use std::sync::Arc;

pub use backend::{Backend, Device, devices, system_info};
pub use embedding::LlamaEmbedder;
pub use log::set_verbosity;
pub use model::Progress;

use self::adapter::Adapters;
use self::context::{Context, MAX_SEQUENCES};
use self::model::{LoadError, Model};
use super::options::{CacheType, EngineOptions, FlashAttention};
use super::{Engine, EngineError, EngineFacts, Row, Sampler, Sequence, Tokenizer};
use crate::adapter::{AdapterDigest, AdapterFile, AdapterSet};
use crate::error::{Code, Failure};
use crate::sampling::Sampling;

/// A model, a context and adapters in llama.cpp.
pub struct LlamaEngine {
    context: Context,
    adapters: Adapters,
    model: Arc<Model>,
    tokenizer: Arc<dyn Tokenizer>,
    facts: EngineFacts,
    /// Positions evaluated in each sequence: what the next row's position must be.
    lengths: Vec<usize>,
    /// The set that is active in the context.
    active: AdapterSet,
}

impl LlamaEngine {
    /// Loads a model and makes a context. The model file has passed [`crate::gguf::check_model`].
    ///
    /// # Errors
    /// With the code and the flag or file at fault: a device that is not there, a model llama.cpp refuses, a
    /// context that does not fit into memory.
    pub fn load(options: &EngineOptions, progress: &mut Progress<'_>) -> Result<Self, Failure> {
        check(options)?;
        let backend = Backend::get();
        let shown = options.model.display();
        let model = Model::load(backend, options, progress).map_err(|e| match e {
            LoadError::Path => Failure::usage(format!("-m: {e}")),
            LoadError::Device { .. } => Failure::usage(format!("-dev: {e}")),
            LoadError::Interrupted => Failure::new(Code::Interrupted, e.to_string()),
            LoadError::Refused(said) if said.contains("alloc") => {
                Failure::new(Code::OutOfMemory, format!("model '{shown}': {said}"))
            }
            LoadError::Refused(said) => Failure::new(Code::InvalidFile, format!("model '{shown}': {said}")),
        })?;
        let context = Context::new(model.clone(), options).map_err(|e| match e {
            EngineError::OutOfMemory(said) => {
                Failure::new(Code::OutOfMemory, format!("no memory for a context: {said}; try a smaller -c or -np"))
            }
            other => Failure::new(Code::Other, format!("no context could be made: {other}")),
        })?;
        let safe = model.safe();
        let prefix_reuse = !safe.is_recurrent() && !safe.is_hybrid() && model.sliding_window() == 0;
        let facts = EngineFacts {
            model: options.model.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
            context: context.cells(),
            context_trained: safe.n_ctx_train() as usize,
            batch: context.batch_rows(),
            micro_batch: context.micro_batch_rows(),
            sequences: options.sequences as usize,
            vocabulary: usize::try_from(safe.n_vocab()).unwrap_or(0),
            prefix_reuse,
            shift: prefix_reuse && context.can_shift(),
        };
        Ok(Self {
            tokenizer: Arc::new(tokenizer::LlamaTokenizer::new(model.clone())),
            adapters: Adapters::new(model.clone(), options.adapter_cache_bytes),
            lengths: vec![0; facts.sequences],
            active: AdapterSet::base(),
            context,
            model,
            facts,
        })
    }

    fn check_rows(&self, rows: &[Row]) -> Result<(), EngineError> {
        let misuse = |what: String| Err(EngineError::Misuse(what));
        if rows.is_empty() || rows.len() > self.facts.batch {
            return misuse(format!("{} rows; a step takes 1 to {}", rows.len(), self.facts.batch));
        }
        let mut next = self.lengths.clone();
        for row in rows {
            if row.token as usize >= self.facts.vocabulary {
                return misuse(format!("token {} is outside the vocabulary of {}", row.token, self.facts.vocabulary));
            }
            let Some(length) = next.get_mut(row.sequence) else {
                return misuse(format!("sequence {} of {}", row.sequence, self.facts.sequences));
            };
            if row.position != *length || row.position >= self.facts.context {
                return misuse(format!("position {} after {} in sequence {}", row.position, length, row.sequence));
            }
            *length += 1;
        }
        Ok(())
    }

    fn activate(&mut self, set: &AdapterSet) -> Result<(), EngineError> {
        if self.active == *set {
            return Ok(());
        }
        let mut adapters = Vec::new();
        let mut scales = Vec::new();
        for (digest, scale) in set.members() {
            let missing = || EngineError::Misuse(format!("adapter {digest} is not loaded"));
            adapters.push(self.adapters.get(*digest).ok_or_else(missing)?);
            scales.push(scale.get());
        }
        self.context.set_adapters(&mut adapters, &mut scales);
        self.active = set.clone();
        Ok(())
    }
}

/// What llama.cpp would assert on, or silently change.
fn check(o: &EngineOptions) -> Result<(), Failure> {
    if !(1..=MAX_SEQUENCES).contains(&o.sequences) {
        return Err(Failure::usage(format!("-np must be from 1 to {MAX_SEQUENCES}, not {}", o.sequences)));
    }
    if o.batch == 0 || o.micro_batch == 0 || o.batch > 1 << 20 {
        return Err(Failure::usage("-b and -ub must be from 1 to 1048576"));
    }
    if o.batch < o.sequences || o.micro_batch < o.sequences {
        let np = o.sequences;
        return Err(Failure::usage(format!(
            "-b and -ub must be at least -np ({np}), so that every sequence has a row"
        )));
    }
    if o.context != 0 && !(16..=1 << 28).contains(&o.context) {
        return Err(Failure::usage(format!("-c must be 0 or from 16 to 268435456, not {}", o.context)));
    }
    let threads = 1..=512;
    if !threads.contains(&o.threads) || !threads.contains(&o.threads_batch) {
        return Err(Failure::usage("-t and -tb must be from 1 to 512"));
    }
    if o.cache_type_v.is_quantized() && o.flash_attention == FlashAttention::Off {
        return Err(Failure::usage(
            "-ctv: a quantized value cache needs flash attention; drop -fa off or use -ctv f16",
        ));
    }
    if o.cache_type_k == CacheType::F32 && o.flash_attention == FlashAttention::On && o.cache_type_v != CacheType::F32 {
        return Err(Failure::usage("-ctk f32 with -fa on needs -ctv f32"));
    }
    if o.tensor_split.iter().any(|s| !s.is_finite() || *s < 0.0) {
        return Err(Failure::usage("-ts takes numbers of 0 or more"));
    }
    // SAFETY: no preconditions.
    let devices = unsafe { llama_cpp_sys_2::llama_max_devices() };
    if o.tensor_split.len() > devices {
        return Err(Failure::usage(format!("-ts names {} shares; this build knows {devices}", o.tensor_split.len())));
    }
    let positive = |v: Option<f32>| v.is_none_or(|v| v.is_finite() && v > 0.0);
    if !positive(o.rope.scale) || !positive(o.rope.freq_base) || !positive(o.rope.freq_scale) {
        return Err(Failure::usage("--rope-scale, --rope-freq-base and --rope-freq-scale take numbers above 0"));
    }
    let yarn = [o.rope.yarn_ext_factor, o.rope.yarn_attn_factor, o.rope.yarn_beta_fast, o.rope.yarn_beta_slow];
    if yarn.into_iter().flatten().any(|v| !v.is_finite()) {
        return Err(Failure::usage("--yarn-* take finite numbers"));
    }
    Ok(())
}

impl Engine for LlamaEngine {
    fn facts(&self) -> &EngineFacts {
        &self.facts
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.tokenizer.clone()
    }

    fn sampler(&self, sampling: &Sampling) -> Result<Box<dyn Sampler>, EngineError> {
        Ok(Box::new(sampler::Chain::new(&self.model, &self.tokenizer, sampling, self.facts.context)))
    }

    fn load_adapters(
        &mut self,
        files: &[Arc<AdapterFile>],
        in_use: &HashSet<AdapterDigest>,
    ) -> Result<(), EngineError> {
        let mut in_use = in_use.clone();
        in_use.extend(files.iter().map(|f| f.digest()));
        for file in files {
            if self.adapters.would_evict(file) {
                // An adapter in the context's active set must not be freed under it.
                self.context.set_adapters(&mut [], &mut []);
                self.active = AdapterSet::base();
            }
            self.adapters.load(file, &in_use)?;
        }
        Ok(())
    }

    fn decode(&mut self, rows: &[Row], set: &AdapterSet) -> Result<(), EngineError> {
        self.check_rows(rows)?;
        self.activate(set)?;
        self.context.decode(rows)?;
        for row in rows {
            self.lengths[row.sequence] += 1;
        }
        Ok(())
    }

    fn logits(&self, index: usize) -> Result<&[f32], EngineError> {
        self.context.logits(index)
    }

    fn truncate(&mut self, sequence: Sequence, from: usize) -> bool {
        let partly = self.context.truncate(sequence, from);
        self.lengths[sequence] = if partly { self.lengths[sequence].min(from) } else { 0 };
        partly
    }

    fn share(&mut self, from: Sequence, to: Sequence, length: usize) {
        let length = length.min(self.lengths[from]);
        self.context.share(from, to, length);
        self.lengths[to] = length;
    }

    fn shift(&mut self, sequence: Sequence, from: usize, to: usize) {
        if self.facts.shift && from < to && to <= self.lengths[sequence] {
            self.context.shift(sequence, from, to);
            self.lengths[sequence] -= to - from;
        }
    }
}
