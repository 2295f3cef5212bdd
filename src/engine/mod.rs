//! What a decode loop needs from an inference engine, and nothing else.
//!
//! No llama.cpp type appears here. Two engines implement the traits: [`llama`] (the only place with `unsafe`) and
//! [`fake`] (scripted and deterministic, for tests, benches and documentation). An engine is owned by one thread;
//! the [`Tokenizer`] it gives out is shared with every front end.

pub mod encoder;
pub mod fake;
pub mod lanes;
pub mod llama;
pub mod options;
pub mod saved;
pub mod second;

use std::collections::HashSet;
use std::sync::Arc;

use self::encoder::Encoder;
use self::lanes::Residents;
use self::saved::Stamp;
use crate::adapter::{AdapterDigest, AdapterFile, AdapterSet};
use crate::grammar::Vocabulary;
use crate::prompt::Prompt;
use crate::sampling::Sampling;

/// A token id of the loaded model.
pub type Token = u32;

/// Ids from here on stand for rows of soft prompts: `VIRTUAL + i` is row `i` of those in the row's set, one after the
/// other in the order of the set. They stand at the beginning of a sequence only, and never ask for logits.
pub const VIRTUAL: Token = 1 << 31;

/// A sequence of the context: an index below [`EngineFacts::sequences`].
pub type Sequence = usize;

/// One row of a decode step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The token to evaluate.
    pub token: Token,
    /// Its position in the sequence: always the number of tokens already there.
    pub position: usize,
    /// The sequence it belongs to.
    pub sequence: Sequence,
    /// Whether logits of this row are wanted.
    pub logits: bool,
    /// Its adapter set: an index into the sets of the step.
    pub set: usize,
}

/// Fixed properties of a loaded model and context.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineFacts {
    /// A name for people: the model's, or its file's.
    pub model: String,
    /// Cells of the unified key-value cache: the most tokens all sequences hold together.
    pub context: usize,
    /// The most tokens that one sequence may hold; at most `context`.
    pub sequence_context: usize,
    /// Context the model was trained with.
    pub context_trained: usize,
    /// Most rows of one step.
    pub batch: usize,
    /// Rows evaluated at once inside a step.
    pub micro_batch: usize,
    /// Number of sequences.
    pub sequences: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Whether a suffix of a sequence can be removed and a prefix shared with another sequence.
    /// False for recurrent, hybrid and sliding-window models, where a prefix is not kept.
    pub prefix_reuse: bool,
    /// Whether positions can be moved (context shift).
    pub shift: bool,
    /// Whether the model generates text; false for sentence encoders, which only make vectors.
    pub generates: bool,
    /// How requests with different adapter sets share the engine.
    pub batching: Batching,
}

/// How requests with different adapter sets share the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batching {
    /// In one step, each row under its own set.
    Lanes,
    /// In turns, a set at a time.
    Grouped {
        /// Why not in one step, when that was wanted.
        why: Option<String>,
    },
}

/// An engine's refusal.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The key-value cache has no room for the step; nothing was evaluated.
    #[error("the context is full")]
    ContextFull,
    /// A step that llama.cpp would assert on.
    #[error("engine misuse: {0}")]
    Misuse(String),
    /// The adapter could not be loaded.
    #[error("adapter '{name}' could not be loaded: {reason}")]
    Adapter {
        /// Its label.
        name: String,
        /// What the engine said.
        reason: String,
    },
    /// Memory ran out.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// A sampler or matcher left no token to choose.
    #[error("no token is left to choose")]
    NoCandidate,
    /// A sequence's state cannot be saved, or a saved one is not taken.
    #[error("saved state: {0}")]
    State(String),
    /// The engine failed while computing.
    #[error("decoding failed: {0}")]
    Compute(String),
}

/// Evaluates tokens under adapter sets. Owned by one thread.
pub trait Engine {
    /// Fixed properties.
    fn facts(&self) -> &EngineFacts;

    /// Text to tokens and back; shared with front ends.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// Makes a sampler for one request. `sampling` has been validated; ids in it are below the vocabulary's size.
    ///
    /// # Errors
    /// The engine cannot build the chain.
    fn sampler(&self, sampling: &Sampling) -> Result<Box<dyn Sampler>, EngineError>;

    /// Makes the adapters of `files` usable; those already loaded cost nothing. To make room, others may be
    /// unloaded, but never one of `in_use`.
    ///
    /// # Errors
    /// One of them cannot be loaded; the others stay usable.
    fn load_adapters(&mut self, files: &[Arc<AdapterFile>], in_use: &HashSet<AdapterDigest>)
    -> Result<(), EngineError>;

    /// Where threads that submit requests make adapters ready, away from the engine's thread; `None` when there is
    /// nothing to make ready.
    fn residents(&self) -> Option<Arc<Residents>> {
        None
    }

    /// Where texts become vectors, when the engine was asked to have that.
    fn encoder(&self) -> Option<Arc<dyn Encoder>> {
        None
    }

    /// The engine of a second model of the same vocabulary, which guesses what this one will choose; given away once.
    fn take_second(&mut self) -> Option<Box<dyn Engine>> {
        None
    }

    /// Whether rows under `set`, whose adapters are loaded, can share a step with rows under other sets that can.
    fn mixes(&self, set: &AdapterSet) -> bool;

    /// Evaluates `rows`, each under exactly its own set of `sets`. Different sets may be in one step when
    /// [`Engine::mixes`] says so of each.
    ///
    /// # Errors
    /// [`EngineError::ContextFull`] when the cache has no room (nothing changed), [`EngineError::Misuse`] for rows
    /// llama.cpp would assert on, sets that do not mix or an adapter that is not loaded, [`EngineError::Compute`]
    /// otherwise.
    fn decode(&mut self, rows: &[Row], sets: &[AdapterSet]) -> Result<(), EngineError>;

    /// Logits of row `index` of the last step, one per token of the vocabulary.
    ///
    /// # Errors
    /// The row asked for none.
    fn logits(&self, index: usize) -> Result<&[f32], EngineError>;

    /// Removes positions `from..` of a sequence. False when only all of it could be removed, and was.
    fn truncate(&mut self, sequence: Sequence, from: usize) -> bool;

    /// Makes `to` hold the first `length` positions of `from`. `to` must be empty. Cells are shared, not copied.
    fn share(&mut self, from: Sequence, to: Sequence, length: usize);

    /// Removes positions `from..to` of a sequence and moves the rest down by their number. No cell of the sequence
    /// may be shared with another one: a cell has one position for all its sequences.
    fn shift(&mut self, sequence: Sequence, from: usize, to: usize);

    /// What states of this engine depend on. Worked out at the first call, which may read parts of the model's file.
    ///
    /// # Errors
    /// States of this model cannot be saved.
    fn stamp(&mut self) -> Result<Stamp, EngineError>;

    /// The state of a sequence's positions, as bytes that [`Engine::restore`] takes under an equal stamp.
    ///
    /// # Errors
    /// The sequence is empty, or states of this model cannot be saved; nothing changed.
    fn save(&mut self, sequence: Sequence) -> Result<Vec<u8>, EngineError>;

    /// Makes a sequence, which must be empty, hold a saved state of `length` positions. The bytes are checked before
    /// the engine sees them.
    ///
    /// # Errors
    /// [`EngineError::ContextFull`] when the cache has no room, [`EngineError::State`] when the bytes are refused: the
    /// sequence is empty then.
    fn restore(&mut self, sequence: Sequence, length: usize, state: &[u8]) -> Result<(), EngineError>;
}

/// Text to tokens and back. Immutable and shared.
pub trait Tokenizer: Send + Sync {
    /// Tokens of a prompt. Control tokens are recognised in its template pieces only.
    /// `add_special` adds the model's leading BOS where the model wants one and the text does not begin with it.
    fn tokenize(&self, prompt: &Prompt, add_special: bool) -> Vec<Token>;

    /// The bytes a token stands for; empty for control tokens.
    fn piece(&self, token: Token) -> Vec<u8>;

    /// The token as the vocabulary spells it, control tokens included; empty for an id outside the vocabulary.
    fn spelling(&self, token: Token) -> String;

    /// Whether the token ends generation.
    fn is_end(&self, token: Token) -> bool;

    /// All tokens as bytes, for grammars. Built at first use.
    fn vocabulary(&self) -> Arc<Vocabulary>;

    /// Spellings that a tokenizer would take for control tokens.
    fn control_texts(&self) -> &[String];
}

/// Chooses tokens for one request.
pub trait Sampler {
    /// Chooses a token. `allowed`, when given, says which tokens may be chosen at all; it is applied before
    /// anything that truncates, so the result follows exactly the masked distribution.
    ///
    /// # Errors
    /// [`EngineError::NoCandidate`] when nothing is left.
    fn choose(&mut self, logits: &[f32], allowed: Option<&dyn Fn(Token) -> bool>) -> Result<Token, EngineError>;

    /// Tells the sampler what was chosen, or what the prompt held (for penalties).
    fn accept(&mut self, token: Token);
}
