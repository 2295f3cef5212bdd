//! A context: the key-value cache, the batch buffer, and one forward pass at a time.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::log;
use super::model::Model;
use crate::engine::options::{CacheType, EngineOptions, FlashAttention, RopeScaling};
use crate::engine::{EngineError, Row};

/// Most sequences llama.cpp has room for (`LLAMA_MAX_SEQ`).
pub(super) const MAX_SEQUENCES: u32 = 256;

/// An inference context. Used by one thread.
pub(super) struct Context {
    raw: NonNull<sys::llama_context>,
    batch: sys::llama_batch,
    /// For rows of embeddings; made at first use.
    embedded: Option<sys::llama_batch>,
    n_embd: usize,
    /// Rows the batch buffer holds.
    capacity: usize,
    /// Which rows of the last step have logits.
    outputs: Vec<bool>,
    n_vocab: usize,
    /// Keeps the model alive; dropped after `raw` is freed.
    _model: Arc<Model>,
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: both were made by `Context::new` and are freed once; the model is still alive (field).
        unsafe {
            sys::llama_batch_free(self.batch);
            if let Some(batch) = self.embedded {
                sys::llama_batch_free(batch);
            }
            sys::llama_free(self.raw.as_ptr());
        }
    }
}

impl Context {
    /// Makes a context with a unified key-value cache. What `callback` points to must outlive it.
    pub(super) fn new(
        model: Arc<Model>,
        options: &EngineOptions,
        callback: Option<(sys::ggml_backend_sched_eval_callback, *mut c_void)>,
    ) -> Result<Self, EngineError> {
        log::take_errors();
        let mut params = params(options);
        if let Some((function, user)) = callback {
            (params.cb_eval, params.cb_eval_user_data) = (function, user);
        }
        // SAFETY: the model is loaded and outlives the context (field).
        let raw = unsafe { sys::llama_init_from_model(model.raw(), params) };
        let Some(raw) = NonNull::new(raw) else {
            let said = log::take_errors();
            let memory = said.contains("alloc") || said.contains("memory");
            let said = if said.is_empty() { "llama.cpp made no context".to_string() } else { said };
            return Err(if memory { EngineError::OutOfMemory(said) } else { EngineError::Compute(said) });
        };
        // SAFETY: the context exists.
        let capacity = unsafe { sys::llama_n_batch(raw.as_ptr()) };
        // SAFETY: allocates arrays for `capacity` rows of one sequence each; freed in `drop`.
        let batch = unsafe { sys::llama_batch_init(i32::try_from(capacity).unwrap_or(512), 0, 1) };
        let n_vocab = usize::try_from(model.safe().n_vocab()).unwrap_or(0);
        let n_embd = usize::try_from(model.safe().n_embd()).unwrap_or(0);
        let capacity = capacity as usize;
        Ok(Self { raw, batch, embedded: None, n_embd, capacity, outputs: Vec::new(), n_vocab, _model: model })
    }

    /// Cells of the key-value cache.
    pub(super) fn cells(&self) -> usize {
        // SAFETY: the context exists.
        unsafe { sys::llama_n_ctx(self.raw.as_ptr()) as usize }
    }

    /// Rows of one step.
    pub(super) fn batch_rows(&self) -> usize {
        self.capacity
    }

    /// Rows computed at once.
    pub(super) fn micro_batch_rows(&self) -> usize {
        // SAFETY: the context exists.
        unsafe { sys::llama_n_ubatch(self.raw.as_ptr()) as usize }
    }

    /// Whether positions can be moved.
    pub(super) fn can_shift(&self) -> bool {
        // SAFETY: the context exists, so does its memory (a null memory is handled by llama.cpp).
        unsafe { sys::llama_memory_can_shift(self.memory()) }
    }

    /// Makes `adapters` the whole active set. llama.cpp does nothing when it is the active set already.
    pub(super) fn set_adapters(&mut self, adapters: &mut [*mut sys::llama_adapter_lora], scales: &mut [f32]) {
        debug_assert_eq!(adapters.len(), scales.len());
        let (adapters_ptr, scales_ptr) = match adapters.is_empty() {
            true => (ptr::null_mut(), ptr::null_mut()),
            false => (adapters.as_mut_ptr(), scales.as_mut_ptr()),
        };
        // SAFETY: the arrays hold `adapters.len()` elements each and are only read; every adapter is loaded for this
        // context's model and stays loaded while it is active (`Adapters` is told to free only others).
        unsafe { sys::llama_set_adapters_lora(self.raw.as_ptr(), adapters_ptr, adapters.len(), scales_ptr) };
    }

    /// Adds a control vector to the residual stream after layers, `[n_layer - 1][n_embd]` from layer 1; an empty one
    /// takes the last away.
    pub(super) fn steer(&mut self, direction: &[f32]) -> Result<(), EngineError> {
        let (data, layers) = match direction.is_empty() {
            true => (ptr::null(), 0),
            false => (direction.as_ptr(), direction.len() / self.n_embd.max(1)),
        };
        let (n_embd, last) = (self.n_embd as i32, layers as i32);
        // SAFETY: reads `direction.len()` numbers; the width is the model's.
        match unsafe { sys::llama_set_adapter_cvec(self.raw.as_ptr(), data, direction.len(), n_embd, 1, last) } {
            0 => Ok(()),
            _ => Err(EngineError::Compute(format!("the control vector was refused: {}", log::take_errors()))),
        }
    }

    /// Evaluates rows of embeddings, `data` being `[rows][n_embd]`. Checked as in [`Context::decode`]; no logits.
    pub(super) fn decode_embeddings(&mut self, rows: &[Row], data: &[f32]) -> Result<(), EngineError> {
        if data.len() != rows.len() * self.n_embd {
            return Err(EngineError::Misuse("rows of embeddings of another width".into()));
        }
        let capacity = i32::try_from(self.capacity).unwrap_or(512);
        // SAFETY: allocates arrays for `capacity` rows; freed in `drop`.
        let make = || unsafe { sys::llama_batch_init(capacity, self.n_embd as i32, 1) };
        let batch = *self.embedded.get_or_insert_with(make);
        if rows.len() <= self.capacity {
            // SAFETY: the batch has room for `capacity` rows of `n_embd` numbers.
            unsafe { ptr::copy_nonoverlapping(data.as_ptr(), batch.embd, data.len()) };
        }
        self.evaluate(batch, rows)
    }

    /// Evaluates rows. They have been checked: ids, positions, sequences and number are in range.
    pub(super) fn decode(&mut self, rows: &[Row]) -> Result<(), EngineError> {
        self.evaluate(self.batch, rows)
    }

    fn evaluate(&mut self, mut batch: sys::llama_batch, rows: &[Row]) -> Result<(), EngineError> {
        if rows.is_empty() || rows.len() > self.capacity {
            return Err(EngineError::Misuse(format!("{} rows in a batch of {}", rows.len(), self.capacity)));
        }
        for (i, row) in rows.iter().enumerate() {
            // SAFETY: `i < capacity`, and every array of the batch has `capacity` elements (`llama_batch_init`), each
            // `seq_id[i]` room for one id.
            unsafe {
                if !batch.token.is_null() {
                    *batch.token.add(i) = row.token as i32;
                }
                *batch.pos.add(i) = row.position as i32;
                *batch.n_seq_id.add(i) = 1;
                **batch.seq_id.add(i) = row.sequence as i32;
                *batch.logits.add(i) = i8::from(row.logits);
            }
        }
        batch.n_tokens = rows.len() as i32;
        self.outputs.clear();
        log::take_errors();
        // SAFETY: the batch is filled for `n_tokens` rows with values checked by the caller.
        let status = unsafe { sys::llama_decode(self.raw.as_ptr(), batch) };
        match status {
            0 => {
                self.outputs.extend(rows.iter().map(|r| r.logits));
                Ok(())
            }
            1 => Err(EngineError::ContextFull),
            -2 => Err(EngineError::OutOfMemory(log::take_errors())),
            other => Err(EngineError::Compute(format!("llama_decode gave {other}: {}", log::take_errors()))),
        }
    }

    /// Logits of row `index` of the last step.
    pub(super) fn logits(&self, index: usize) -> Result<&[f32], EngineError> {
        if self.outputs.get(index) != Some(&true) {
            return Err(EngineError::Misuse(format!("row {index} of the last step has no logits")));
        }
        // SAFETY: row `index` asked for logits in the last successful step, so the pointer is valid for `n_vocab`
        // numbers until the next step, which needs `&mut self`.
        let logits = unsafe { sys::llama_get_logits_ith(self.raw.as_ptr(), index as i32) };
        if logits.is_null() {
            return Err(EngineError::Compute("llama.cpp gave no logits".into()));
        }
        // SAFETY: as above.
        Ok(unsafe { std::slice::from_raw_parts(logits, self.n_vocab) })
    }

    /// Removes positions `from..` of a sequence; false when only all of it could be removed, and was.
    pub(super) fn truncate(&mut self, sequence: usize, from: usize) -> bool {
        let sequence = sequence as i32;
        // SAFETY: the sequence is below `n_seq_max` (checked by the caller); removing is valid for any range.
        let partly = unsafe { sys::llama_memory_seq_rm(self.memory(), sequence, from as i32, -1) };
        if !partly {
            // SAFETY: as above; removing a whole sequence never fails.
            unsafe { sys::llama_memory_seq_rm(self.memory(), sequence, -1, -1) };
        }
        partly
    }

    /// Lets `to` share the first `length` cells of `from`.
    pub(super) fn share(&mut self, from: usize, to: usize, length: usize) {
        // SAFETY: both sequences are below `n_seq_max`; the cache is unified, where any range may be shared.
        unsafe { sys::llama_memory_seq_cp(self.memory(), from as i32, to as i32, 0, length as i32) }
    }

    /// Removes positions `from..to` and moves later ones down.
    pub(super) fn shift(&mut self, sequence: usize, from: usize, to: usize) {
        let (sequence, from, to) = (sequence as i32, from as i32, to as i32);
        // SAFETY: `can_shift` holds (checked by the caller), the sequence is below `n_seq_max`, and its cells are
        // shared with no other sequence (the scheduler clears those first).
        unsafe {
            sys::llama_memory_seq_rm(self.memory(), sequence, from, to);
            sys::llama_memory_seq_add(self.memory(), sequence, to, -1, from - to);
        }
    }

    /// The context, for calls of other files of this folder.
    pub(super) fn raw(&mut self) -> *mut sys::llama_context {
        self.raw.as_ptr()
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context exists.
        unsafe { sys::llama_get_memory(self.raw.as_ptr()) }
    }
}

fn params(options: &EngineOptions) -> sys::llama_context_params {
    // SAFETY: returns plain defaults.
    let mut p = unsafe { sys::llama_context_default_params() };
    p.n_ctx = options.context;
    p.n_batch = options.batch;
    p.n_ubatch = options.micro_batch.min(options.batch);
    p.n_seq_max = options.sequences;
    p.n_threads = options.threads as i32;
    p.n_threads_batch = options.threads_batch as i32;
    p.kv_unified = true;
    p.no_perf = true;
    p.offload_kqv = !options.details.no_kv_offload;
    p.op_offload = !options.details.no_op_offload;
    p.swa_full = options.details.swa_full;
    p.flash_attn_type = match options.flash_attention {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    p.type_k = ggml_type(options.cache_type_k);
    p.type_v = ggml_type(options.cache_type_v);
    let rope = options.rope;
    if let Some(scaling) = rope.scaling {
        p.rope_scaling_type = match scaling {
            RopeScaling::None => sys::LLAMA_ROPE_SCALING_TYPE_NONE,
            RopeScaling::Linear => sys::LLAMA_ROPE_SCALING_TYPE_LINEAR,
            RopeScaling::Yarn => sys::LLAMA_ROPE_SCALING_TYPE_YARN,
        };
    }
    if let Some(base) = rope.freq_base {
        p.rope_freq_base = base;
    }
    if let Some(scale) = rope.freq_scale.or(rope.scale.map(|s| 1.0 / s)) {
        p.rope_freq_scale = scale;
    }
    if let Some(n) = rope.yarn_orig_ctx {
        p.yarn_orig_ctx = n;
    }
    if let Some(v) = rope.yarn_ext_factor {
        p.yarn_ext_factor = v;
    }
    if let Some(v) = rope.yarn_attn_factor {
        p.yarn_attn_factor = v;
    }
    if let Some(v) = rope.yarn_beta_slow {
        p.yarn_beta_slow = v;
    }
    if let Some(v) = rope.yarn_beta_fast {
        p.yarn_beta_fast = v;
    }
    p
}

fn ggml_type(kind: CacheType) -> sys::ggml_type {
    match kind {
        CacheType::F32 => sys::GGML_TYPE_F32,
        CacheType::F16 => sys::GGML_TYPE_F16,
        CacheType::Bf16 => sys::GGML_TYPE_BF16,
        CacheType::Q8_0 => sys::GGML_TYPE_Q8_0,
        CacheType::Q4_0 => sys::GGML_TYPE_Q4_0,
        CacheType::Q4_1 => sys::GGML_TYPE_Q4_1,
        CacheType::Iq4Nl => sys::GGML_TYPE_IQ4_NL,
        CacheType::Q5_0 => sys::GGML_TYPE_Q5_0,
        CacheType::Q5_1 => sys::GGML_TYPE_Q5_1,
    }
}
