//! Prefixes: messages that stand before a request's own, such as examples. An adapter without training.
//!
//! `adapter.type` is `prefix`. The messages alone are a whole adapter. Beside them a file may hold the state that a
//! model has after reading them, which saves reading them again and changes no answer: the tokens they became, the
//! bytes of the state, and a stamp that says of which build, model and cache format these are. Whoever loads a state
//! compares the stamp and the tokens, and reads the messages as usual when either differs.
//!
//! ```text
//! adapter.prefix.messages   JSON: [{"role": "user", "content": ".."}, ..]
//! adapter.prefix.base       fingerprint of the base model it was made with (optional)
//! adapter.prefix.stamp      text; there when a state is
//! tokens                    I32 [n]; there when a state is
//! state                     I8 [bytes]
//! ```

use std::borrow::Cow;

use serde_json::Value as Json;

use super::super::error::{GgufError, GgufErrorKind};
use super::super::header::Gguf;
use super::super::limits::{MAX_PREFIX_BYTES, MAX_PREFIX_MESSAGES, MAX_PREFIX_TOKENS, MAX_STAMP_BYTES};
use super::super::model::ModelFacts;
use super::super::tensor::TensorType;
use super::super::write::GgufWriter;
use super::{ADAPTER_TYPE, ARCHITECTURE, AdapterFacts, AdapterKind, GENERAL_TYPE};

use GgufErrorKind::{Invalid, Malformed, Mismatch, Missing, TooLarge, Unsupported};

const MESSAGES: &str = "adapter.prefix.messages";
const BASE: &str = "adapter.prefix.base";
const STAMP: &str = "adapter.prefix.stamp";
const TOKENS: &str = "tokens";
const STATE: &str = "state";

/// Roles that messages of a prefix may have.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// One message of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixMessage {
    /// `system` (the first one only), `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A prefix, read or to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixState<'a> {
    /// The architecture of the base model.
    pub architecture: Cow<'a, str>,
    /// `general.name`.
    pub name: Option<Cow<'a, str>>,
    /// The fingerprint of the base model that it was made with.
    pub base: Option<Cow<'a, str>>,
    /// The messages, in order; never empty in a file.
    pub messages: Vec<PrefixMessage>,
    /// Of which build, model and cache format the state is; there when a state is.
    pub stamp: Option<Cow<'a, str>>,
    /// The tokens that the state is of; empty without a state.
    pub tokens: Vec<u32>,
    /// The state; empty when there is none.
    pub state: Cow<'a, [u8]>,
}

impl<'a> PrefixState<'a> {
    /// Reads a prefix file. The messages are owned, the state stays where it is.
    ///
    /// # Errors
    /// What [`check_adapter`](super::check_adapter) refuses, what depends on the base model aside.
    pub fn read(bytes: &'a [u8]) -> Result<Self, GgufError> {
        Self::of(&Gguf::read(bytes)?)
    }

    fn of(gguf: &Gguf<'a>) -> Result<Self, GgufError> {
        match gguf.str(ADAPTER_TYPE)? {
            Some("prefix") => {}
            _ => return Err(GgufError::new(Unsupported, ADAPTER_TYPE, "is not 'prefix'")),
        }
        let Some(messages) = gguf.str(MESSAGES)? else {
            return Err(GgufError::new(Missing, MESSAGES, "is missing"));
        };
        let messages = parse(messages)?;
        let stamp = gguf.str(STAMP)?;
        if let Some(stamp) = stamp.filter(|stamp| stamp.is_empty() || stamp.len() > MAX_STAMP_BYTES) {
            let reason = format!("has {} bytes, expected 1 to {MAX_STAMP_BYTES}", stamp.len());
            return Err(GgufError::new(Invalid, STAMP, reason));
        }
        if let Some(other) = gguf.tensors().iter().find(|tensor| ![TOKENS, STATE].contains(&tensor.name)) {
            return Err(GgufError::new(Unsupported, other.name, "does not belong into a prefix"));
        }
        let (tokens, state) = state_of(gguf)?;
        if stamp.is_some() == state.is_empty() {
            let reason = "must be there exactly when a state is";
            return Err(GgufError::new(Malformed, STAMP, reason));
        }
        Ok(Self {
            architecture: gguf.str(ARCHITECTURE)?.unwrap_or_default().into(),
            name: gguf.str("general.name")?.map(Cow::from),
            base: gguf.str(BASE)?.map(Cow::from),
            messages,
            stamp: stamp.map(Cow::from),
            tokens,
            state: Cow::Borrowed(state),
        })
    }

    /// The file. It passes [`PrefixState::read`].
    ///
    /// # Errors
    /// No messages, too long ones, roles out of order; a state without tokens or stamp.
    pub fn to_gguf(&self) -> Result<Vec<u8>, GgufError> {
        let list = self.messages.iter().map(|message| {
            let mut object = serde_json::Map::new();
            object.insert("role".to_owned(), Json::String(message.role.clone()));
            object.insert("content".to_owned(), Json::String(message.content.clone()));
            Json::Object(object)
        });
        let text = Json::Array(list.collect()).to_string();
        let mut file = GgufWriter::new();
        file.set(ARCHITECTURE, &*self.architecture)?.set(GENERAL_TYPE, "adapter")?.set(ADAPTER_TYPE, "prefix")?;
        if let Some(name) = &self.name {
            file.set("general.name", &**name)?;
        }
        file.set(MESSAGES, text)?;
        if let Some(base) = &self.base {
            file.set(BASE, &**base)?;
        }
        if let Some(stamp) = &self.stamp {
            file.set(STAMP, &**stamp)?;
        }
        if !self.state.is_empty() || !self.tokens.is_empty() {
            let tokens: Vec<u8> = self.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
            file.tensor(TOKENS, TensorType::I32, &[self.tokens.len() as u64], tokens)?;
            file.tensor(STATE, TensorType::I8, &[self.state.len() as u64], self.state.to_vec())?;
        }
        let bytes = file.to_bytes();
        PrefixState::read(&bytes)?;
        Ok(bytes)
    }
}

/// The tokens and the bytes of a state; both empty without one.
fn state_of<'a>(gguf: &Gguf<'a>) -> Result<(Vec<u32>, &'a [u8]), GgufError> {
    let (tokens, state) = match (gguf.tensor(TOKENS), gguf.tensor(STATE)) {
        (None, None) => return Ok((Vec::new(), &[])),
        (Some(tokens), Some(state)) => (tokens, state),
        (Some(_), None) => return Err(GgufError::new(Malformed, TOKENS, "has no state beside it")),
        (None, Some(_)) => return Err(GgufError::new(Malformed, STATE, "has no tokens beside it")),
    };
    for (tensor, kind) in [(tokens, TensorType::I32), (state, TensorType::I8)] {
        if tensor.kind != kind || tensor.dims[1..] != [1, 1, 1] {
            let reason = format!("is {} of shape {:?}, expected a vector of {kind}", tensor.kind, tensor.dims);
            return Err(GgufError::new(Malformed, tensor.name, reason));
        }
    }
    if tokens.dims[0] > MAX_PREFIX_TOKENS {
        let reason = format!("{} tokens, the limit is {MAX_PREFIX_TOKENS}", tokens.dims[0]);
        return Err(GgufError::new(TooLarge, TOKENS, reason));
    }
    let words = gguf.tensor_bytes(tokens).as_chunks::<4>().0;
    Ok((words.iter().map(|word| u32::from_le_bytes(*word)).collect(), gguf.tensor_bytes(state)))
}

/// The messages of the JSON text.
fn parse(text: &str) -> Result<Vec<PrefixMessage>, GgufError> {
    let refuse = |reason: String| GgufError::new(Malformed, MESSAGES, reason);
    if text.len() > MAX_PREFIX_BYTES {
        let reason = format!("{} bytes, the limit is {MAX_PREFIX_BYTES}", text.len());
        return Err(GgufError::new(TooLarge, MESSAGES, reason));
    }
    let json: Json = serde_json::from_str(text).map_err(|error| refuse(format!("is not JSON: {error}")))?;
    let Json::Array(items) = json else { return Err(refuse("is not a list".to_owned())) };
    if items.is_empty() || items.len() > MAX_PREFIX_MESSAGES {
        return Err(refuse(format!("has {} messages, expected 1 to {MAX_PREFIX_MESSAGES}", items.len())));
    }
    let mut messages = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let Json::Object(mut fields) = item else { return Err(refuse(format!("message {at} is not an object"))) };
        let (Some(Json::String(role)), Some(Json::String(content)), true) =
            (fields.remove("role"), fields.remove("content"), fields.is_empty())
        else {
            return Err(refuse(format!("message {at} is not a role and a content, both texts")));
        };
        if !ROLES.contains(&role.as_str()) || (role == "system" && at > 0) {
            return Err(refuse(format!("message {at} has role '{role}'; expected user or assistant, or system first")));
        }
        messages.push(PrefixMessage { role, content });
    }
    Ok(messages)
}

/// Checks a prefix against its base model.
pub(super) fn check(gguf: &Gguf<'_>, base: &ModelFacts) -> Result<AdapterFacts, GgufError> {
    let prefix = PrefixState::of(gguf)?;
    if let Some(token) = prefix.tokens.iter().find(|token| **token >= base.n_vocab) {
        let reason = format!("token {token} of a vocabulary of {}", base.n_vocab);
        return Err(GgufError::new(Mismatch, TOKENS, reason));
    }
    let kind = AdapterKind::PrefixState {
        // Both are at most their limits.
        messages: prefix.messages.len() as u32,
        tokens: prefix.tokens.len() as u32,
        state_bytes: prefix.state.len() as u64,
    };
    Ok(AdapterFacts { parameter_count: 0, ..AdapterFacts::common(gguf, kind, base)? })
}
