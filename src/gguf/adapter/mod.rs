//! What an adapter file is, and the check of it against its base model.
//!
//! Kinds, by `adapter.type` (control vectors by `general.architecture`, as llama.cpp has them):
//!
//! ```text
//! lora         LoRA: W x + s (alpha / rank) B A x.                           tensors T.lora_a, T.lora_b
//!              aLoRA when adapter.alora.invocation_tokens is there
//! lora_gain    W x + s ((g - 1) * W x + (alpha / rank) B A x): DoRA, IA3     the same, and T.gain = g - 1
//! soft_prompt  embeddings in front of the prompt                             prompt_embeddings
//! prefix       example messages; perhaps their tokens and key-value state    tokens, state
//! (control vector) directions added to the residual stream                   direction.N
//! ```
//!
//! `T` is the name of the base tensor, `s` the scale of the request, `*` the product by rows. `lora` and control vectors
//! are llama.cpp's own formats; it refuses the others by the name of their type.

mod control;
mod pairs;
mod prefix;
mod soft_prompt;

pub use control::control_directions;
pub use pairs::{GainVector, LoraPair, gains};
pub use prefix::{PrefixMessage, PrefixState};
pub use soft_prompt::{SoftPrompt, soft_prompt_rows};

use super::error::{GgufError, GgufErrorKind};
use super::header::Gguf;
use super::model::ModelFacts;

use GgufErrorKind::{Mismatch, Missing, Unsupported, WrongKind};

const GENERAL_TYPE: &str = "general.type";
const ARCHITECTURE: &str = "general.architecture";
const ADAPTER_TYPE: &str = "adapter.type";

/// What an adapter file is: all that an engine must know to choose how to apply it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// Low-rank pairs: [`AdapterFacts::pairs`].
    Lora,
    /// Low-rank pairs that act from [`AdapterFacts::invocation_tokens`] on.
    Alora,
    /// Gains of outputs, [`AdapterFacts::gains`], with low-rank pairs beside or without: DoRA, IA3.
    Gain,
    /// Embeddings to stand in front of the prompt; see [`soft_prompt_rows`].
    SoftPrompt {
        /// Rows: positions that they take.
        tokens: u32,
    },
    /// Directions to be added to the residual stream after layers; see [`control_directions`].
    ControlVector {
        /// The layers that have one, sorted; from 1.
        layers: Vec<u32>,
    },
    /// Messages that begin a conversation, perhaps with the state they leave behind; see [`PrefixState`].
    PrefixState {
        /// Example messages.
        messages: u32,
        /// Tokens that the state is of; 0 without a state.
        tokens: u32,
        /// Bytes of the state; 0 without one.
        state_bytes: u64,
    },
}

impl AdapterKind {
    /// The name for people: `soft prompt`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lora => "LoRA",
            Self::Alora => "activated LoRA",
            Self::Gain => "gain (DoRA, IA3)",
            Self::SoftPrompt { .. } => "soft prompt",
            Self::ControlVector { .. } => "control vector",
            Self::PrefixState { .. } => "prefix",
        }
    }
}

/// What an adapter file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFacts {
    /// What it is.
    pub kind: AdapterKind,
    /// The architecture, equal to that of the base model.
    pub architecture: String,
    /// `general.name`, if the file has one.
    pub name: Option<String>,
    /// `adapter.lora.task_name`, if the file has one.
    pub task_name: Option<String>,
    /// `adapter.lora.prompt_prefix`, if the file has one.
    pub prompt_prefix: Option<String>,
    /// LoRA alpha, finite and above 0. The strength of a pair is alpha / rank. 1 where there are no pairs.
    pub alpha: f32,
    /// Smallest rank of any pair; 0 where there are none.
    pub rank_min: u32,
    /// Largest rank of any pair; 0 where there are none.
    pub rank_max: u32,
    /// The kinds of linears adapted, sorted, each once: `attn_q`, `ffn_down`, `output`, ...
    pub targets: Vec<String>,
    /// The pairs, sorted by the name of the base tensor.
    pub pairs: Vec<LoraPair>,
    /// The gains, sorted by the name of the base tensor.
    pub gains: Vec<GainVector>,
    /// Trained numbers: elements in all tensors, those of a prefix aside.
    pub parameter_count: u64,
    /// Bytes of tensor data.
    pub weight_bytes: u64,
    /// The adapter changes nothing: every pair has an A or a B of zeros, every gain and direction is zero. Worth a
    /// warning.
    pub all_zero: bool,
    /// The invocation sequence of an activated LoRA (aLoRA), all within the vocabulary; empty for other kinds.
    pub invocation_tokens: Vec<u32>,
}

impl AdapterFacts {
    /// What every kind has: names, sizes.
    fn common(gguf: &Gguf<'_>, kind: AdapterKind, base: &ModelFacts) -> Result<Self, GgufError> {
        let tensors = gguf.tensors().iter();
        Ok(Self {
            kind,
            architecture: base.architecture.clone(),
            name: gguf.str("general.name")?.map(str::to_owned),
            task_name: gguf.str("adapter.lora.task_name")?.map(str::to_owned),
            prompt_prefix: gguf.str("adapter.lora.prompt_prefix")?.map(str::to_owned),
            alpha: 1.0,
            rank_min: 0,
            rank_max: 0,
            targets: Vec::new(),
            pairs: Vec::new(),
            gains: Vec::new(),
            parameter_count: tensors.clone().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.elements())),
            weight_bytes: tensors.fold(0, |sum: u64, tensor| sum.saturating_add(tensor.size)),
            all_zero: false,
            invocation_tokens: Vec::new(),
        })
    }
}

/// Reads and checks an adapter of any kind against the facts of its base model. Reads all weights once.
///
/// Stricter than llama.cpp, which skips norms, reads a mistyped alpha with an assertion, leaves the sizes of stacked
/// experts and of embedding pairs to the first decode, and reads directions of layers that are not there. What is
/// accepted is applied in full.
pub fn check_adapter(bytes: &[u8], base: &ModelFacts) -> Result<AdapterFacts, GgufError> {
    let gguf = Gguf::read(bytes)?;
    let form = form_of(&gguf)?;
    if form == Form::Control {
        return control::check(&gguf, base);
    }
    match gguf.str(ARCHITECTURE)? {
        None => return Err(GgufError::new(Missing, ARCHITECTURE, "is missing")),
        Some(architecture) if architecture != base.architecture => {
            let reason = format!("the adapter is for '{architecture}', the model is '{}'", base.architecture);
            return Err(GgufError::new(Mismatch, ARCHITECTURE, reason));
        }
        Some(_) => {}
    }
    match form {
        Form::Lora => pairs::check(&gguf, base, false),
        Form::Gain => pairs::check(&gguf, base, true),
        Form::SoftPrompt => soft_prompt::check(&gguf, base),
        Form::Prefix => prefix::check(&gguf, base),
        Form::Control => control::check(&gguf, base),
    }
}

/// The forms of adapter files, before anything in them is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Lora,
    Gain,
    SoftPrompt,
    Prefix,
    Control,
}

/// The value of `adapter.type` for each form.
const TYPES: [(&str, Form); 4] =
    [("lora", Form::Lora), ("lora_gain", Form::Gain), ("soft_prompt", Form::SoftPrompt), ("prefix", Form::Prefix)];

/// Refuses files that are not adapters, saying what they are where it can be told.
fn form_of(gguf: &Gguf<'_>) -> Result<Form, GgufError> {
    if gguf.str(ARCHITECTURE)? == Some(control::ARCHITECTURE) && gguf.get(ADAPTER_TYPE).is_none() {
        return Ok(Form::Control);
    }
    let model = gguf.get("tokenizer.ggml.tokens").is_some() || gguf.tensor("token_embd.weight").is_some();
    match gguf.str(GENERAL_TYPE)? {
        Some("adapter") => {}
        other if model || other == Some("model") => {
            return Err(GgufError::new(WrongKind, GENERAL_TYPE, "is a model, not an adapter; pass it with -m"));
        }
        None => return Err(GgufError::new(Missing, GENERAL_TYPE, "is missing, expected 'adapter'")),
        Some(other) => {
            let reason = format!("is '{other}', expected 'adapter'");
            return Err(GgufError::new(WrongKind, GENERAL_TYPE, reason));
        }
    }
    let known = TYPES.map(|(name, _)| format!("'{name}'")).join(", ");
    match gguf.str(ADAPTER_TYPE)? {
        None => Err(GgufError::new(Missing, ADAPTER_TYPE, format!("is missing, expected one of {known}"))),
        Some(found) => TYPES.iter().find(|(name, _)| *name == found).map(|(_, form)| *form).ok_or_else(|| {
            let reason = format!("is '{found}'; supported are {known}");
            GgufError::new(Unsupported, ADAPTER_TYPE, reason)
        }),
    }
}
