//! The llama.cpp engine. All `unsafe` of the program is in this folder, one wrapper per C object.
//!
//! `llama-cpp-2` is used where it is enough (backend, vocabulary, samplers); contexts, batches and adapters go
//! through `llama-cpp-sys-2` directly, because a weighted set of adapters, loading from memory and tensor splits
//! have no safe counterpart. Nothing outside this folder sees a C type.
//!
//! Ownership: the engine thread owns [`LlamaEngine`]. Its fields drop in order: the context first, then what its
//! callback knows and the adapters, then the model (shared with the tokenizer by `Arc`, freed with the last holder).
#![allow(unsafe_code)]

mod adapter;
mod backend;
mod context;
mod embedding;
mod encoder;
mod encoding;
mod extras;
mod inside;
mod lanes;
mod lanes_check;
mod load;
mod log;
mod model;
mod sampler;
mod state;
mod tokenizer;

use std::collections::HashSet;
use std::sync::Arc;

pub use backend::{Backend, Device, devices, system_info};
pub use embedding::LlamaEmbedder;
pub use encoding::EncodingEngine;
pub use inside::{InsideGgml, Way};
pub use log::set_verbosity;
pub use model::Progress;

use self::adapter::Adapters;
use self::context::{Context, MAX_SEQUENCES};
use self::encoder::LlamaEncoder;
use self::extras::Extras;
use self::lanes::Lanes;
use self::model::{LoadError, Model};
use super::encoder::Encoder;
use super::lanes::{Residents, Sites};
use super::options::{AdapterBatching, CacheType, EngineOptions, FlashAttention};
use super::saved::Stamp;
use super::{Batching, Engine, EngineError, EngineFacts, Row, Sampler, Sequence, Tokenizer, VIRTUAL};
use crate::adapter::{AdapterDigest, AdapterFile, AdapterSet};
use crate::error::{Code, Failure};
use crate::gguf::ModelFacts;
use crate::sampling::Sampling;

/// A model, a context and adapters in llama.cpp.
pub struct LlamaEngine {
    context: Context,
    lanes: Option<Lanes>,
    adapters: Adapters,
    model: Arc<Model>,
    tokenizer: Arc<dyn Tokenizer>,
    facts: EngineFacts,
    /// Positions evaluated in each sequence: what the next row's position must be.
    lengths: Vec<usize>,
    /// Rows of soft prompts and control vectors.
    extras: Extras,
    /// What is active in the context.
    active: Active,
    /// The set whose control vectors are active in the context.
    steered: Option<AdapterSet>,
    /// What the lanes' check needs, should they start late.
    base: ModelFacts,
    options: EngineOptions,
    /// For each row of the last step its place in llama.cpp's last batch, when they differ.
    places: Vec<usize>,
    /// Steps without any adapter since the stub was last needed.
    plain_steps: u32,
    /// What saved states depend on, once it was asked for.
    stamp: Option<Stamp>,
    encoder: Option<Arc<LlamaEncoder>>,
    second: Option<Box<LlamaEngine>>,
}

/// What llama.cpp's own adapter mechanism is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Active {
    /// This set, for every row.
    Set(AdapterSet),
    /// The stub of [`Lanes`]: each row has its own set.
    Lanes,
}

/// Steps without adapters after which llama.cpp's plain graph comes back: it is a little faster, but building it again
/// costs a few milliseconds.
const PLAIN_STEPS: u32 = 32;

impl LlamaEngine {
    /// Loads a model and makes a context. The model file has passed [`crate::gguf::check_model`].
    ///
    /// # Errors
    /// With the code and the flag or file at fault: a device that is not there, a model llama.cpp refuses, a
    /// context that does not fit into memory.
    pub fn load(options: &EngineOptions, base: &ModelFacts, progress: &mut Progress<'_>) -> Result<Self, Failure> {
        check(options)?;
        let backend = Backend::get();
        let model = Model::load(backend, options, progress).map_err(|e| load_failure(options, e))?;
        let (lanes, batching) = lanes(&model, base, options)?;
        let context =
            Context::new(model.clone(), options, lanes.as_ref().map(Lanes::callback)).map_err(|e| match e {
                EngineError::OutOfMemory(said) => {
                    Failure::new(Code::OutOfMemory, format!("no memory for a context: {said}; try a smaller -c or -np"))
                }
                other => Failure::new(Code::Other, format!("no context could be made: {other}")),
            })?;
        let encoding = options.embeddings.map(|pooling| LlamaEncoder::new(model.clone(), base, options, pooling));
        let encoder = encoding.transpose()?;
        let safe = model.safe();
        let prefix_reuse = !safe.is_recurrent() && !safe.is_hybrid() && model.sliding_window() == 0;
        let facts = EngineFacts {
            model: options.model.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
            context: context.cells(),
            sequence_context: options.most_of_one(context.cells()),
            context_trained: safe.n_ctx_train() as usize,
            batch: context.batch_rows(),
            micro_batch: context.micro_batch_rows(),
            sequences: options.sequences as usize,
            vocabulary: usize::try_from(safe.n_vocab()).unwrap_or(0),
            prefix_reuse,
            shift: prefix_reuse && context.can_shift(),
            generates: true,
            batching,
        };
        let mut engine = Self {
            tokenizer: Arc::new(tokenizer::LlamaTokenizer::new(model.clone())),
            adapters: Adapters::new(model.clone(), options.adapter_device_bytes),
            lengths: vec![0; facts.sequences],
            active: Active::Set(AdapterSet::base()),
            extras: Extras::new(options.details.steered_layers),
            steered: None,
            base: base.clone(),
            options: options.clone(),
            places: Vec::new(),
            plain_steps: 0,
            stamp: None,
            encoder,
            second: None,
            lanes,
            context,
            model,
            facts,
        };
        if options.details.warm_up {
            engine.warm_up().map_err(|e| Failure::new(Code::Other, format!("--warmup: {e}")))?;
        }
        Ok(engine)
    }

    /// Lets a second model guess what this one will choose; see [`Engine::take_second`].
    #[must_use]
    pub fn guessed_by(self, second: LlamaEngine) -> Self {
        Self { second: Some(Box::new(second)), ..self }
    }

    /// Computes one row and forgets it: weights come into memory, buffers are made.
    fn warm_up(&mut self) -> Result<(), EngineError> {
        let token = self.base.tokenizer.bos.unwrap_or(0);
        let row = Row { token, position: 0, sequence: 0, logits: true, set: 0 };
        self.decode(&[row], &[AdapterSet::base()])?;
        self.truncate(0, 0);
        Ok(())
    }

    fn check_rows(&self, rows: &[Row]) -> Result<(), EngineError> {
        let misuse = |what: String| Err(EngineError::Misuse(what));
        if rows.is_empty() || rows.len() > self.facts.batch {
            return misuse(format!("{} rows; a step takes 1 to {}", rows.len(), self.facts.batch));
        }
        let mut next = self.lengths.clone();
        for row in rows {
            if row.token >= VIRTUAL {
                if row.logits {
                    return misuse("logits of a soft prompt's row".into());
                }
            } else if row.token as usize >= self.facts.vocabulary {
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

    /// Makes `set` llama.cpp's own set, for every row.
    fn activate(&mut self, set: &AdapterSet) -> Result<(), EngineError> {
        if matches!(&self.active, Active::Set(active) if active == set) {
            return Ok(());
        }
        let mut adapters = Vec::new();
        let mut scales = Vec::new();
        for (digest, scale) in set.members().iter().filter(|(digest, _)| !self.extras.has(digest)) {
            let missing = || EngineError::Misuse(format!("adapter {digest} is not loaded"));
            adapters.push(self.adapters.get(*digest).ok_or_else(missing)?);
            scales.push(scale.get());
        }
        if let Some(lanes) = &mut self.lanes {
            lanes.switch(false);
        }
        self.context.set_adapters(&mut adapters, &mut scales);
        self.active = Active::Set(set.clone());
        Ok(())
    }

    /// Makes the control vectors of `set` the active ones.
    fn steer(&mut self, set: &AdapterSet) -> Result<(), EngineError> {
        let wanted = self.extras.steers(set).then(|| set.clone());
        if self.steered != wanted {
            self.context.steer(&self.extras.direction(set))?;
            self.steered = wanted;
        }
        Ok(())
    }

    /// Whether lanes carry every adapter of a set that changes linears.
    fn in_lanes(&self, set: &AdapterSet) -> bool {
        let carried = |lanes: &Lanes| set.members().iter().all(|(d, _)| lanes.has(d) || self.extras.has(d));
        self.lanes.as_ref().is_some_and(|lanes| lanes.started() && carried(lanes))
    }

    /// Evaluates the rows of soft prompts, which are batches of their own in llama.cpp.
    fn decode_embedded(&mut self, rows: &[Row], sets: &[AdapterSet]) -> Result<(), EngineError> {
        let width = self.base.n_embd as usize;
        let mut data = Vec::with_capacity(rows.len() * width);
        for row in rows {
            let index = (row.token - VIRTUAL) as usize;
            let numbers = self.extras.row(&sets[row.set], index, width);
            data.extend(numbers.ok_or_else(|| EngineError::Misuse(format!("row {index} of no soft prompt")))?);
        }
        self.apply(rows, sets)?;
        let done = self.context.decode_embeddings(rows, &data);
        self.finish_step(done)
    }

    /// Makes the sets of `rows` active, in whichever way they can be.
    fn apply(&mut self, rows: &[Row], sets: &[AdapterSet]) -> Result<(), EngineError> {
        let Some(set) = sets.get(rows[0].set) else { return Err(EngineError::Misuse("a row without a set".into())) };
        let alike = rows.iter().all(|r| sets.get(r.set) == Some(set));
        if !alike && rows.iter().any(|r| sets.get(r.set).is_none_or(|set| !self.mixes(set))) {
            return Err(EngineError::Misuse("a set that must be alone shares a step".into()));
        }
        self.steer(set)?;
        self.plain_steps = if alike && set.is_base() { self.plain_steps.saturating_add(1) } else { 0 };
        let plain = self.plain_steps > if self.active == Active::Lanes { PLAIN_STEPS } else { 0 };
        if plain || (alike && !self.in_lanes(set)) {
            return self.activate(set);
        }
        self.activate_lanes(rows, sets)
    }

    /// What a step leaves to be looked at.
    fn finish_step(&mut self, done: Result<(), EngineError>) -> Result<(), EngineError> {
        let broken = self.active == Active::Lanes && self.lanes.as_mut().is_some_and(Lanes::was_broken);
        match done {
            Ok(()) if broken => Err(EngineError::Compute("the adapters' part of the graph was not as expected".into())),
            done => done,
        }
    }

    /// Lays out rows under sets of their own.
    fn activate_lanes(&mut self, rows: &[Row], sets: &[AdapterSet]) -> Result<(), EngineError> {
        let Some(lanes) = &mut self.lanes else {
            return Err(EngineError::Misuse("rows of one step with different adapter sets".into()));
        };
        if rows.len() > self.facts.micro_batch {
            let most = self.facts.micro_batch;
            return Err(EngineError::Misuse(format!("{} rows of different sets; a step takes {most}", rows.len())));
        }
        lanes.plan(rows, sets)?;
        if self.active != Active::Lanes {
            let stub = lanes.stub()?;
            lanes.switch(true);
            self.context.set_adapters(&mut [stub], &mut [1.0]);
            self.active = Active::Lanes;
        }
        Ok(())
    }
}

/// Lanes for a model, started and checked where sequences can mix, or why adapter sets take turns.
fn lanes(model: &Arc<Model>, base: &ModelFacts, options: &EngineOptions) -> Result<(Option<Lanes>, Batching), Failure> {
    let wanted = options.adapter_batching;
    if wanted == AdapterBatching::Grouped {
        return Ok((None, Batching::Grouped { why: None }));
    }
    let accelerator = devices(Backend::get()).iter().any(|d| d.accelerator);
    let bytes = usize::try_from(options.adapter_device_bytes).unwrap_or(usize::MAX);
    let make = || Lanes::new(Arc::new(Residents::new(Sites::of(base), options.adapter_slots as usize, bytes)));
    let made = match lanes::refusal(base, model, accelerator) {
        Some(why) => Err(why),
        // One sequence never mixes; llama.cpp's own path serves it without a check at the start.
        None if wanted == AdapterBatching::Auto && options.sequences == 1 => {
            return Ok((Some(make()), Batching::Grouped { why: None }));
        }
        None => lanes_check::check(model, base, options).and_then(|reached| {
            let mut lanes = make();
            lanes.start(model, base, reached)?;
            Ok(lanes)
        }),
    };
    match made {
        Ok(lanes) => Ok((Some(lanes), Batching::Lanes)),
        Err(why) if wanted == AdapterBatching::Lanes => {
            Err(Failure::new(Code::Other, format!("--adapter-batching lanes: {why}; use auto or grouped")))
        }
        Err(why) => Ok((None, Batching::Grouped { why: Some(why) })),
    }
}

/// Why a model could not be loaded, with the flag or file at fault.
fn load_failure(options: &EngineOptions, e: LoadError) -> Failure {
    let shown = options.model.display();
    match e {
        LoadError::Path => Failure::usage(format!("-m: {e}")),
        LoadError::Device { .. } => Failure::usage(format!("-dev: {e}")),
        LoadError::Buffer { .. } => Failure::usage(format!("--override-tensor: {e}")),
        LoadError::Interrupted => Failure::new(Code::Interrupted, e.to_string()),
        LoadError::Refused(said) if said.contains("alloc") => {
            Failure::new(Code::OutOfMemory, format!("model '{shown}': {said}"))
        }
        LoadError::Refused(said) => Failure::new(Code::InvalidFile, format!("model '{shown}': {said}")),
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

    fn encoder(&self) -> Option<Arc<dyn Encoder>> {
        self.encoder.clone().map(|e| e as Arc<dyn Encoder>)
    }

    fn residents(&self) -> Option<Arc<Residents>> {
        self.lanes.as_ref().filter(|l| l.started()).map(|l| l.residents().clone())
    }

    fn load_adapters(
        &mut self,
        files: &[Arc<AdapterFile>],
        in_use: &HashSet<AdapterDigest>,
    ) -> Result<(), EngineError> {
        self.load_all(files, in_use)
    }

    fn take_second(&mut self) -> Option<Box<dyn Engine>> {
        self.second.take().map(|second| second as Box<dyn Engine>)
    }

    fn mixes(&self, set: &AdapterSet) -> bool {
        self.in_lanes(set) && !self.extras.steers(set)
    }

    fn decode(&mut self, rows: &[Row], sets: &[AdapterSet]) -> Result<(), EngineError> {
        self.check_rows(rows)?;
        let (embedded, tokens): (Vec<Row>, Vec<Row>) = rows.iter().partition(|r| r.token >= VIRTUAL);
        self.places.clear();
        if embedded.is_empty() {
            self.apply(rows, sets)?;
            let done = self.context.decode(rows);
            self.finish_step(done)?;
        } else {
            // The rows of a soft prompt stand before all others of their sequence, so they can go first.
            self.decode_embedded(&embedded, sets)?;
            if !tokens.is_empty() {
                let done = self.apply(&tokens, sets).and_then(|()| {
                    let done = self.context.decode(&tokens);
                    self.finish_step(done)
                });
                if let Err(e) = done {
                    for row in &embedded {
                        self.context.truncate(row.sequence, self.lengths[row.sequence]);
                    }
                    return Err(e);
                }
            }
            let mut place = 0;
            self.places.extend(rows.iter().map(|row| {
                let here = if row.token >= VIRTUAL { usize::MAX } else { place };
                place += usize::from(row.token < VIRTUAL);
                here
            }));
        }
        for row in rows {
            self.lengths[row.sequence] += 1;
        }
        Ok(())
    }

    fn logits(&self, index: usize) -> Result<&[f32], EngineError> {
        self.context.logits(self.places.get(index).copied().unwrap_or(index))
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

    fn stamp(&mut self) -> Result<Stamp, EngineError> {
        self.make_stamp()
    }

    fn save(&mut self, sequence: Sequence) -> Result<Vec<u8>, EngineError> {
        self.save_state(sequence)
    }

    fn restore(&mut self, sequence: Sequence, length: usize, state: &[u8]) -> Result<(), EngineError> {
        self.restore_state(sequence, length, state)
    }
}
