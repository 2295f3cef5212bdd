//! A request as asked, and as checked. A [`ValidRequest`] never fails later for its shape.

use std::path::PathBuf;

use crate::adapter::Scale;
use crate::engine::Token;
use crate::error::{Code, Failure};
use crate::grammar::{Source, Trigger};
use crate::prompt::Message;
use crate::router::Strategy;
use crate::sampling::{BiasTarget, Sampling};
use crate::scheduler::{JobLimits, draft};

/// What the model reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A conversation, put through the chat template.
    Chat {
        /// The messages, oldest first.
        messages: Vec<Message>,
        /// Tools offered, in OpenAI's form.
        tools: Option<serde_json::Value>,
        /// Further variables of the template (`chat_template_kwargs`).
        kwargs: serde_json::Map<String, serde_json::Value>,
    },
    /// Text completed as it is. Spellings of control tokens in it are control tokens, as in llama-server's
    /// `/completion`.
    Raw(String),
    /// Tokens completed as they are.
    Tokens(Vec<Token>),
}

impl Input {
    /// A conversation without tools.
    pub fn chat(messages: Vec<Message>) -> Self {
        Input::Chat { messages, tools: None, kwargs: serde_json::Map::new() }
    }
}

/// Where an adapter comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterSource {
    /// A GGUF LoRA file.
    File(PathBuf),
    /// A name in the adapter library.
    Name(String),
}

/// An adapter and its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterChoice {
    /// Which one.
    pub source: AdapterSource,
    /// Its weight; 1 is what it was trained for.
    pub scale: f32,
}

impl AdapterChoice {
    /// A file.
    pub fn file(path: impl Into<PathBuf>, scale: f32) -> Self {
        Self { source: AdapterSource::File(path.into()), scale }
    }

    /// A name of the library.
    pub fn named(name: impl Into<String>, scale: f32) -> Self {
        Self { source: AdapterSource::Name(name.into()), scale }
    }
}

/// Adapters that take over inside an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Then {
    /// When this text is complete in the answer, counted from the change before.
    pub marker: String,
    /// What applies from the token on that completes it; none for the plain base.
    pub adapters: Vec<AdapterChoice>,
}

/// Adapters are to be chosen by the router.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// What must hold of an adapter: `region=eu`. A key given twice allows either value.
    pub metadata: Vec<(String, String)>,
    /// The way to choose; the best there is when not given.
    pub strategy: Option<Strategy>,
    /// Most adapters, 1 to 5.
    pub top_k: Option<usize>,
    /// Least confidence, 0 to 1, with which an adapter is taken; else the plain base answers.
    pub threshold: Option<f32>,
}

impl Routing {
    /// Most entries of metadata.
    const METADATA: usize = 64;

    /// Checks numbers and sizes.
    ///
    /// # Errors
    /// The field that is wrong, with its value.
    pub fn validate(&self) -> Result<(), ValidationError> {
        use ValidationError as E;
        let most = crate::adapter::AdapterSet::MAX;
        if let Some(k) = self.top_k.filter(|k| !(1..=most).contains(k)) {
            return Err(E::Range { field: "route.top_k", expected: "from 1 to 5", value: k.to_string() });
        }
        if let Some(t) = self.threshold.filter(|t| !(0.0..=1.0).contains(t)) {
            return Err(E::Range { field: "route.threshold", expected: "from 0 to 1", value: t.to_string() });
        }
        if self.metadata.len() > Self::METADATA {
            return Err(E::TooMany("metadata", Self::METADATA));
        }
        if self.metadata.iter().any(|(key, value)| key.len() + value.len() > 1024) {
            return Err(E::TooLong("metadata", 1024));
        }
        Ok(())
    }
}

/// A request as asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the model reads.
    pub input: Input,
    /// Adapters to apply; none for the plain base.
    pub adapters: Vec<AdapterChoice>,
    /// Adapters that take over inside the answer, in order.
    pub then: Vec<Then>,
    /// Have the router choose the adapters instead.
    pub route: Option<Routing>,
    /// The form the answer must have.
    pub format: Option<Source>,
    /// When that form begins to hold; at once when not given.
    pub after: Option<Trigger>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// When to end.
    pub limits: JobLimits,
    /// Reuse and keep a cached prefix. Default true.
    pub cache_prompt: bool,
    /// The slot it must run in; whichever fits best when not given.
    pub slot: Option<usize>,
    /// Alternatives reported for each token.
    pub n_probs: usize,
    /// Show control tokens in the text, as the vocabulary spells them.
    pub special: bool,
    /// How its answer is drafted. Default not at all.
    pub drafts: draft::Drafting,
    /// Whose cached prefixes it may go on from, and leaves; 0 for a cache that all share.
    pub owner: u64,
}

impl Request {
    /// A request with default sampling, no adapters and no format.
    pub fn new(input: Input) -> Self {
        Self {
            input,
            adapters: Vec::new(),
            then: Vec::new(),
            route: None,
            format: None,
            after: None,
            sampling: Sampling::default(),
            limits: JobLimits::default(),
            cache_prompt: true,
            slot: None,
            n_probs: 0,
            special: false,
            drafts: draft::Drafting::default(),
            owner: 0,
        }
    }

    /// The adapters at the beginning, then those of each change.
    pub fn stages(&self) -> impl Iterator<Item = &[AdapterChoice]> {
        std::iter::once(self.adapters.as_slice()).chain(self.then.iter().map(|then| then.adapters.as_slice()))
    }

    /// Checks everything that can be checked without a file. `vocabulary` is the number of tokens of the model.
    ///
    /// # Errors
    /// The first field that is wrong, with its value.
    pub fn validate(self, vocabulary: usize) -> Result<ValidRequest, ValidationError> {
        use ValidationError as E;
        match &self.input {
            Input::Chat { messages, .. } if messages.is_empty() => return Err(E::Empty("messages")),
            Input::Raw(text) if text.contains('\0') => return Err(E::Nul("prompt")),
            Input::Tokens(tokens) => {
                if tokens.is_empty() {
                    return Err(E::Empty("prompt"));
                }
                if let Some(id) = tokens.iter().find(|t| **t as usize >= vocabulary) {
                    return Err(E::Token { field: "prompt", id: *id, vocabulary });
                }
            }
            _ => (),
        }
        self.sampling.validate()?;
        for bias in &self.sampling.logit_bias {
            match &bias.target {
                BiasTarget::Token(id) if *id as usize >= vocabulary => {
                    return Err(E::Token { field: "logit_bias", id: *id, vocabulary });
                }
                BiasTarget::Text(text) if text.len() > 4096 => return Err(E::TooLong("logit_bias", 4096)),
                _ => (),
            }
        }
        let stops = &self.limits.stop;
        if stops.len() > 64 {
            return Err(E::TooMany("stop", 64));
        }
        if stops.iter().any(|s| s.len() > 4096) {
            return Err(E::TooLong("stop", 4096));
        }
        if self.n_probs > MAX_PROBS {
            return Err(E::Range { field: "n_probs", expected: "from 0 to 1000", value: self.n_probs.to_string() });
        }
        if let Some(route) = &self.route {
            route.validate()?;
            if !self.adapters.is_empty() || !self.then.is_empty() {
                return Err(E::AutoAndNamed);
            }
        }
        if self.then.len() > MAX_THEN {
            return Err(E::TooMany("then", MAX_THEN));
        }
        if self.then.iter().any(|then| then.marker.is_empty()) {
            return Err(E::Empty("then.marker"));
        }
        if self.then.iter().any(|then| then.marker.len() > 4096) {
            return Err(E::TooLong("then.marker", 4096));
        }
        let of =
            |adapters: &[AdapterChoice]| adapters.iter().map(|a| Scale::new(a.scale)).collect::<Result<Vec<_>, _>>();
        let scales = self.stages().map(of).collect::<Result<_, _>>();
        Ok(ValidRequest { scales: scales?, request: self })
    }
}

/// Most alternatives reported for each token.
pub const MAX_PROBS: usize = 1000;
/// Most changes of adapters inside an answer.
const MAX_THEN: usize = 7;

/// A request whose numbers, ids and sizes are all in range.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidRequest {
    request: Request,
    /// Of the adapters at the beginning, then of those of each change.
    scales: Vec<Vec<Scale>>,
}

impl ValidRequest {
    /// The request.
    pub fn get(&self) -> &Request {
        &self.request
    }

    /// The request, to be taken apart.
    pub fn into_inner(self) -> Request {
        self.request
    }

    /// The adapters with their checked weights: those at the beginning, then those of each change.
    pub fn stages(&self) -> impl Iterator<Item = impl Iterator<Item = (&AdapterChoice, Scale)>> {
        let stages = self.request.stages().zip(&self.scales);
        stages.map(|(adapters, scales)| adapters.iter().zip(scales.iter().copied()))
    }
}

/// Why a request was refused. Names the field and the value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValidationError {
    /// Nothing to read.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A NUL byte where text is expected.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
    /// A token id that the model does not have.
    #[error("{field}: token {id} is outside the vocabulary of {vocabulary} tokens")]
    Token {
        /// The field.
        field: &'static str,
        /// The id.
        id: Token,
        /// Tokens the model has.
        vocabulary: usize,
    },
    /// A number out of range.
    #[error("{field} must be {expected}, not {value}")]
    Range {
        /// The field.
        field: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What was given.
        value: String,
    },
    /// Too many entries.
    #[error("{0} may have at most {1} entries")]
    TooMany(&'static str, usize),
    /// A text too long.
    #[error("{0} may have at most {1} bytes an entry")]
    TooLong(&'static str, usize),
    /// Both chosen by the router and named.
    #[error("adapters: give auto or name adapters, not both")]
    AutoAndNamed,
    /// A sampling number.
    #[error(transparent)]
    Sampling(#[from] crate::sampling::SamplingError),
    /// An adapter's weight.
    #[error(transparent)]
    Set(#[from] crate::adapter::SetError),
}

impl From<ValidationError> for Failure {
    fn from(e: ValidationError) -> Self {
        Failure::new(Code::Usage, e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::LogitBias;

    fn raw() -> Request {
        Request::new(Input::Raw("hello".into()))
    }

    #[test]
    fn bad_requests_name_their_field() {
        let bias = |target| Sampling { logit_bias: vec![LogitBias { target, bias: 1.0 }], ..Sampling::default() };
        let stop = |stop: Vec<String>| JobLimits { stop, ..JobLimits::default() };
        let adapter = |scale| vec![AdapterChoice::file("a.gguf", scale)];
        let then = |marker: &str, scale| Then { marker: marker.into(), adapters: adapter(scale) };
        let table: Vec<(Request, &str)> = vec![
            (Request { input: Input::chat(vec![]), ..raw() }, "messages is empty"),
            (Request { input: Input::Raw("a\0b".into()), ..raw() }, "prompt holds a NUL byte"),
            (Request { input: Input::Tokens(vec![]), ..raw() }, "prompt is empty"),
            (Request { input: Input::Tokens(vec![1, 100]), ..raw() }, "prompt: token 100 is outside"),
            (Request { sampling: bias(BiasTarget::Token(100)), ..raw() }, "logit_bias: token 100 is outside"),
            (Request { limits: stop(vec!["x".into(); 65]), ..raw() }, "stop may have at most 64 entries"),
            (Request { limits: stop(vec!["x".repeat(5000)]), ..raw() }, "stop may have at most 4096 bytes"),
            (Request { then: vec![then("", 1.0)], ..raw() }, "then.marker is empty"),
            (Request { then: vec![then("!", 9.0)], ..raw() }, "adapter scale must be a number from 0 to 8, not 9"),
            (Request { then: vec![then("!", 1.0); 8], ..raw() }, "then may have at most 7 entries"),
            (Request { n_probs: 1001, ..raw() }, "n_probs must be from 0 to 1000, not 1001"),
            (Request { adapters: adapter(-1.0), ..raw() }, "adapter scale must be a number from 0 to 8, not -1"),
            (Request { adapters: adapter(f32::NAN), ..raw() }, "adapter scale must be a number from 0 to 8, not NaN"),
            (
                Request { sampling: Sampling { top_p: 2.0, ..Sampling::default() }, ..raw() },
                "top_p must be from 0 to 1, not 2",
            ),
        ];
        for (request, expected) in table {
            let error = request.validate(100).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error:?} should start with {expected:?}");
        }
        assert!(raw().validate(100).is_ok());
    }
}
