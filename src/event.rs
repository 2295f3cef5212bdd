//! What a request's answer looks like while it comes: the only thing a front end consumes.

use std::time::Duration;

use crate::error::Failure;

/// One step of an answer. The last event is always [`Event::Finished`] or [`Event::Failed`].
#[derive(Clone, Debug)]
pub enum Event {
    /// The prompt has been taken in; the first token follows.
    Prefilled {
        /// Tokens of the prompt.
        prompt: usize,
        /// How many of them were reused from a cached prefix.
        cached: usize,
    },
    /// More text, always whole UTF-8 characters and never part of a stop string.
    Token(TokenEvent),
    /// The answer is complete.
    Finished(Finished),
    /// The request ended with an error; text sent so far is incomplete.
    Failed(Failure),
}

/// Text that became certain, and the tokens it came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenEvent {
    /// May be empty while a character or a possible stop string is incomplete.
    pub text: String,
    /// The tokens decoded since the last event.
    pub tokens: Vec<u32>,
    /// The chosen token and the most probable ones, when asked for.
    pub probabilities: Vec<TokenProbability>,
}

/// A chosen token with its alternatives (`n_probs`).
#[derive(Clone, Debug, PartialEq)]
pub struct TokenProbability {
    /// The chosen token.
    pub chosen: Candidate,
    /// The most probable tokens, best first.
    pub top: Vec<Candidate>,
}

/// A token with its natural-log probability over the whole vocabulary, before sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub token: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of the probability; 0 or less.
    pub logprob: f32,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or its format was complete.
    Stop,
    /// A stop string came.
    StopString,
    /// The token limit was reached.
    Length,
    /// The context is full.
    ContextFull,
    /// The time limit was reached.
    TimeLimit,
    /// The request was cancelled.
    Cancelled,
}

impl FinishReason {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::StopString => "stop_string",
            FinishReason::Length => "length",
            FinishReason::ContextFull => "context_full",
            FinishReason::TimeLimit => "time_limit",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// The stop string that ended it.
    pub stopping_text: Option<String>,
    /// `Some(false)`: a format was asked for and the text is not a complete sentence of it.
    pub format_complete: Option<bool>,
    /// For each place where the adapters were to change inside the answer: the number of its tokens before the first one
    /// that was evaluated under the next adapters; `None` where that place did not come.
    pub crossed: Vec<Option<usize>>,
    /// Counts and times.
    pub timings: Timings,
}

/// Counts and times of one request, with llama-server's meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Prompt tokens reused from the cache.
    pub cache_n: usize,
    /// Prompt tokens evaluated.
    pub prompt_n: usize,
    /// Time of evaluating them, from the first step that held one until the first token was chosen.
    pub prompt: Duration,
    /// Tokens generated.
    pub predicted_n: usize,
    /// Time from the first token to the last.
    pub predicted: Duration,
    /// Time the request waited for a free sequence.
    pub queued: Duration,
    /// Steps that checked a draft.
    pub drafts: usize,
    /// Tokens of all drafts.
    pub draft_n: usize,
    /// Those of them that became part of the answer.
    pub draft_n_accepted: usize,
}

impl Timings {
    /// Prompt tokens per second; 0 when nothing was evaluated.
    pub fn prompt_per_second(&self) -> f64 {
        rate(self.prompt_n, self.prompt)
    }

    /// Generated tokens per second. The first token comes with the prompt, so n - 1 steps count.
    pub fn predicted_per_second(&self) -> f64 {
        rate(self.predicted_n.saturating_sub(1), self.predicted)
    }
}

fn rate(n: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
}
