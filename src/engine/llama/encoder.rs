//! Vectors of texts in llama.cpp: a context without answers, several texts in one pass, the model's pooling or the
//! one asked for.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use llama_cpp_2::token::LlamaToken;
use llama_cpp_sys_2 as sys;

use super::log;
use super::model::Model;
use crate::engine::encoder::{Encoder, EncoderFacts, Pooling};
use crate::engine::options::EngineOptions;
use crate::engine::{EngineError, Token};
use crate::error::{Code, Failure};
use crate::gguf::ModelFacts;

/// Most texts of one batch.
const TEXTS: usize = 32;

/// How an encoding context is made.
pub(super) struct Shape {
    /// Most tokens of a batch.
    pub(super) rows: usize,
    /// Most texts of a batch.
    pub(super) texts: usize,
    pub(super) threads: u32,
    /// `None` takes the model's own.
    pub(super) pooling: Option<Pooling>,
    /// Whether work may go to an accelerator.
    pub(super) offload: bool,
}

/// A context for encoding. Used by one thread at a time.
pub(super) struct EncodingContext {
    raw: NonNull<sys::llama_context>,
    batch: sys::llama_batch,
    rows: usize,
    texts: usize,
    vocabulary: usize,
    /// Numbers of a vector.
    pub(super) dim: usize,
    /// How vectors come about.
    pub(super) pooling: Pooling,
    /// Keeps the model alive; dropped after `raw` is freed.
    _model: Arc<Model>,
}

// SAFETY: context and batch belong to this value alone and are used through `&mut self`, by one thread at a time.
unsafe impl Send for EncodingContext {}

impl Drop for EncodingContext {
    fn drop(&mut self) {
        // SAFETY: both were made by `EncodingContext::new` and are freed once; the model is still alive (field).
        unsafe {
            sys::llama_batch_free(self.batch);
            sys::llama_free(self.raw.as_ptr());
        }
    }
}

impl EncodingContext {
    /// A context, or what llama.cpp said.
    pub(super) fn new(model: Arc<Model>, shape: &Shape) -> Result<Self, String> {
        let rows = u32::try_from(shape.rows).unwrap_or(512);
        log::take_errors();
        // SAFETY: returns plain defaults.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = rows;
        // Attention may look both ways, and pooling looks at all of a text: a text must be in one micro batch.
        params.n_batch = rows;
        params.n_ubatch = rows;
        params.n_seq_max = u32::try_from(shape.texts).unwrap_or(1);
        // One cache for all texts, so that one of them may fill it.
        params.kv_unified = true;
        params.n_threads = shape.threads as i32;
        params.n_threads_batch = shape.threads as i32;
        params.embeddings = true;
        params.no_perf = true;
        params.offload_kqv = shape.offload;
        params.op_offload = shape.offload;
        params.pooling_type = match shape.pooling {
            None => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
            Some(Pooling::None) => sys::LLAMA_POOLING_TYPE_NONE,
            Some(Pooling::Mean) => sys::LLAMA_POOLING_TYPE_MEAN,
            Some(Pooling::Cls) => sys::LLAMA_POOLING_TYPE_CLS,
            Some(Pooling::Last) => sys::LLAMA_POOLING_TYPE_LAST,
            Some(Pooling::Rank) => sys::LLAMA_POOLING_TYPE_RANK,
        };
        // SAFETY: the model is loaded and outlives the context (field).
        let raw = unsafe { sys::llama_init_from_model(model.raw(), params) };
        let Some(raw) = NonNull::new(raw) else {
            let said = log::take_errors();
            return Err(if said.is_empty() { "llama.cpp made no context".into() } else { said });
        };
        // SAFETY: allocates arrays for `rows` rows of one sequence each; freed in `drop`.
        let batch = unsafe { sys::llama_batch_init(rows as i32, 0, 1) };
        // SAFETY: the context exists.
        let pooling = match unsafe { sys::llama_pooling_type(raw.as_ptr()) } {
            sys::LLAMA_POOLING_TYPE_MEAN => Pooling::Mean,
            sys::LLAMA_POOLING_TYPE_CLS => Pooling::Cls,
            sys::LLAMA_POOLING_TYPE_LAST => Pooling::Last,
            sys::LLAMA_POOLING_TYPE_RANK => Pooling::Rank,
            _ => Pooling::None,
        };
        let dim = match pooling {
            // SAFETY: the model is loaded.
            Pooling::Rank => unsafe { sys::llama_model_n_cls_out(model.raw()) as usize },
            // SAFETY: as above.
            _ => usize::try_from(unsafe { sys::llama_model_n_embd_out(model.raw()) }).unwrap_or(0),
        };
        let vocabulary = usize::try_from(model.safe().n_vocab()).unwrap_or(0);
        let (rows, texts) = (shape.rows, shape.texts);
        let context = Self { raw, batch, rows, texts, vocabulary, dim, pooling, _model: model };
        match dim {
            0 => Err("the model gives vectors without numbers".into()),
            _ => Ok(context),
        }
    }

    /// The vectors of texts, as [`Encoder::encode`] says.
    pub(super) fn encode(&mut self, texts: &[&[Token]]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.check(texts)?;
        let mut row = 0;
        for (sequence, text) in texts.iter().enumerate() {
            for (position, token) in text.iter().enumerate() {
                // SAFETY: `row < rows` and every token is below the vocabulary's size (`check`); every array of the
                // batch has `rows` elements (`llama_batch_init`), each `seq_id[row]` room for one id.
                unsafe {
                    *self.batch.token.add(row) = *token as i32;
                    *self.batch.pos.add(row) = position as i32;
                    *self.batch.n_seq_id.add(row) = 1;
                    **self.batch.seq_id.add(row) = sequence as i32;
                    *self.batch.logits.add(row) = 1;
                }
                row += 1;
            }
        }
        self.batch.n_tokens = row as i32;
        log::take_errors();
        // SAFETY: the context exists; a null memory (encoders have none) is not cleared. The batch is filled for
        // `n_tokens` rows; without a memory, llama_decode encodes.
        let status = unsafe {
            let memory = sys::llama_get_memory(self.raw.as_ptr());
            if !memory.is_null() {
                sys::llama_memory_clear(memory, true);
            }
            sys::llama_decode(self.raw.as_ptr(), self.batch)
        };
        if status != 0 {
            return Err(EngineError::Compute(format!("encoding failed with {status}: {}", log::take_errors())));
        }
        if self.pooling != Pooling::None {
            return (0..texts.len()).map(|sequence| self.pooled(sequence)).collect();
        }
        let mut at = 0;
        let mut vectors = Vec::with_capacity(texts.len());
        for text in texts {
            let mut all = Vec::with_capacity(text.len() * self.dim);
            for row in at..at + text.len() {
                // SAFETY: the context exists and `row` is a row of the last batch, all of which are outputs.
                all.extend(self.copied(unsafe { sys::llama_get_embeddings_ith(self.raw.as_ptr(), row as i32) })?);
            }
            at += text.len();
            vectors.push(all);
        }
        Ok(vectors)
    }

    fn pooled(&self, sequence: usize) -> Result<Vec<f32>, EngineError> {
        // SAFETY: the context exists, the pooling type is not NONE, and the sequence was in the last batch.
        self.copied(unsafe { sys::llama_get_embeddings_seq(self.raw.as_ptr(), sequence as i32) })
    }

    /// `vector` is null or points to `dim` numbers of the last batch.
    fn copied(&self, vector: *const f32) -> Result<Vec<f32>, EngineError> {
        if vector.is_null() {
            return Err(EngineError::Compute("llama.cpp gave no vector".into()));
        }
        // SAFETY: valid for `dim` numbers until the next call: the model's output width, or the head's for a score.
        Ok(unsafe { std::slice::from_raw_parts(vector, self.dim) }.to_vec())
    }

    fn check(&self, texts: &[&[Token]]) -> Result<(), EngineError> {
        let misuse = |what: String| Err(EngineError::Misuse(what));
        let rows: usize = texts.iter().map(|text| text.len()).sum();
        if texts.is_empty() || texts.len() > self.texts || rows > self.rows {
            let (most, texts_most) = (self.rows, self.texts);
            return misuse(format!("{} texts of {rows} tokens; a batch takes {texts_most} of {most}", texts.len()));
        }
        if texts.iter().any(|text| text.is_empty()) {
            return misuse("a text without tokens".into());
        }
        match texts.iter().flat_map(|text| text.iter()).find(|token| **token as usize >= self.vocabulary) {
            Some(token) => misuse(format!("token {token} is outside the vocabulary of {}", self.vocabulary)),
            None => Ok(()),
        }
    }
}

/// A model that makes vectors, with its tokenizer.
pub(super) struct LlamaEncoder {
    context: Mutex<EncodingContext>,
    model: Arc<Model>,
    facts: EncoderFacts,
    /// The model's own way to put question and document together, with `{query}` and `{document}` in it.
    pair: Option<String>,
}

impl LlamaEncoder {
    /// An encoding context of `model`; `base` is what its file says.
    ///
    /// # Errors
    /// [`Code::InvalidFile`] when the model cannot do it, [`Code::OutOfMemory`].
    pub(super) fn new(
        model: Arc<Model>,
        base: &ModelFacts,
        options: &EngineOptions,
        pooling: Option<Pooling>,
    ) -> Result<Arc<Self>, Failure> {
        let shown = options.model.display();
        let head = ["cls.weight", "cls.output.weight"].iter().any(|name| base.tensors.contains_key(*name));
        if pooling == Some(Pooling::Rank) && !head {
            let message = format!("--reranking: model '{shown}' has no classification head (cls.output.weight)");
            return Err(Failure::new(Code::InvalidFile, message));
        }
        let rows = options.micro_batch as usize;
        let shape = Shape { rows, texts: TEXTS.min(rows), threads: options.threads_batch, pooling, offload: true };
        let context = EncodingContext::new(model.clone(), &shape).map_err(|said| {
            let memory = said.contains("alloc") || said.contains("memory");
            let code = if memory { Code::OutOfMemory } else { Code::InvalidFile };
            Failure::new(code, format!("--embeddings: model '{shown}': {said}"))
        })?;
        let facts = EncoderFacts {
            model: options.model.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
            dim: context.dim,
            limit: rows.min(base.n_ctx_train as usize),
            rows,
            texts: shape.texts,
            pooling: context.pooling,
        };
        // SAFETY: the model is loaded; the name is NUL-terminated; the text is null or lives as long as the model.
        let pair = unsafe {
            let text = sys::llama_model_chat_template(model.raw(), c"rerank".as_ptr());
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        Ok(Arc::new(Self { context: Mutex::new(context), model, facts, pair }))
    }

    fn tokenize(&self, text: &str, special: bool, parse: bool) -> Vec<Token> {
        let tokens = self.model.safe().vocab().tokenize(text.as_bytes(), special, parse);
        tokens.into_iter().map(|t| t.0 as Token).collect()
    }
}

impl Encoder for LlamaEncoder {
    fn facts(&self) -> &EncoderFacts {
        &self.facts
    }

    fn tokens(&self, text: &str) -> Vec<Token> {
        self.tokenize(text, true, true)
    }

    fn pair(&self, query: &str, document: &str) -> Vec<Token> {
        if let Some(pair) = &self.pair {
            // Texts are put in one after the other, so that one of them cannot hold the other's place.
            let filled = |text: &str| text.replace("{document}", document);
            let text = match pair.split_once("{query}") {
                Some((before, after)) => format!("{}{query}{}", filled(before), filled(after)),
                None => filled(pair),
            };
            return self.tokenize(&text, false, true);
        }
        let vocab = self.model.safe().vocab();
        let known = |token: LlamaToken, wanted: bool| (wanted && token.0 >= 0).then_some(token.0 as Token);
        // Models without an end token have one that separates.
        let end = if vocab.eos().0 >= 0 { vocab.eos() } else { vocab.sep() };
        let mut all = Vec::new();
        all.extend(known(vocab.bos(), vocab.should_add_bos()));
        all.extend(self.tokenize(query, false, false));
        all.extend(known(end, vocab.should_add_eos()));
        all.extend(known(vocab.sep(), vocab.should_add_sep()));
        all.extend(self.tokenize(document, false, false));
        all.extend(known(end, vocab.should_add_eos()));
        all
    }

    fn encode(&self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, EngineError> {
        let texts: Vec<&[Token]> = texts.iter().map(Vec::as_slice).collect();
        self.context.lock().unwrap_or_else(PoisonError::into_inner).encode(&texts)
    }
}
