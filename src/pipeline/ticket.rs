//! What a caller holds while its request runs, and what it gets in the end.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::adapter::AdapterDigest;
use crate::engine::Token;
use crate::error::{Code, Failure};
use crate::event::{Event, Finished, TokenProbability};
use crate::router::Route;
use crate::scheduler::CancelToken;
use crate::shelf::UseNote;

/// A request under way.
pub struct Ticket {
    /// What happens; ends with `Finished` or `Failed`.
    pub events: Receiver<Event>,
    /// Ends it.
    pub cancel: CancelToken,
    /// The adapters it runs under.
    pub adapters: Vec<Applied>,
    /// How they were chosen, when the router chose them.
    pub route: Option<Arc<Route>>,
    /// How long that took.
    pub routed: Duration,
    /// What its compositions came to.
    pub compositions: Compositions,
    /// What the user should know about them, one line each.
    pub warnings: Vec<String>,
    /// Counts their use when the ticket is dropped; [`Ticket::wait`] tells it how the answer ended.
    pub uses: UseNote,
    /// What is kept if the answer is judged, where that was asked for.
    pub question: Option<Question>,
}

/// A request that one adapter of the library answers, for its judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The adapter, or the composition.
    pub adapter: AdapterDigest,
    /// What the router reads of the request.
    pub text: String,
}

/// What the compositions of a request came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compositions {
    /// Stages whose weights the router made for this request.
    pub weighed: Vec<Weighed>,
    /// What the answer runs under, one after the other; none where that does not change.
    pub stages: Vec<AnswerStage>,
}

/// A part of an answer that runs under adapters of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerStage {
    /// The text with which it begins to apply; none for the first.
    pub marker: Option<String>,
    /// Its adapters; none for the plain base.
    pub adapters: Vec<Applied>,
}

/// The shares of the parts of a composition's stage, as the router made them for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The composition.
    pub composition: String,
    /// Each part with its share; the shares add up to 1, and 0 leaves the part out.
    pub parts: Vec<(String, f32)>,
    /// Why all have the same share, where the router could not tell.
    pub equally: Option<String>,
}

/// An adapter that a request runs under.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// For people.
    pub name: String,
    /// Identity of the content.
    pub digest: AdapterDigest,
    /// Its weight.
    pub scale: f32,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Its tokens, the end token included.
    pub tokens: Vec<Token>,
    /// Probabilities, when asked for.
    pub probabilities: Vec<TokenProbability>,
    /// How it ended.
    pub finished: Finished,
}

impl Ticket {
    /// Waits for the whole answer; `on_text` sees the text as it comes.
    ///
    /// # Errors
    /// The request failed, or the engine stopped.
    pub fn wait(mut self, mut on_text: impl FnMut(&str)) -> Result<Answer, Failure> {
        let mut text = String::new();
        let mut tokens = Vec::new();
        let mut probabilities = Vec::new();
        loop {
            match self.events.recv() {
                Ok(Event::Prefilled { .. }) => (),
                Ok(Event::Token(event)) => {
                    if !event.text.is_empty() {
                        on_text(&event.text);
                    }
                    text += &event.text;
                    tokens.extend(event.tokens);
                    probabilities.extend(event.probabilities);
                }
                Ok(Event::Finished(finished)) => {
                    self.uses.succeeded();
                    return Ok(Answer { text, tokens, probabilities, finished });
                }
                Ok(Event::Failed(failure)) => return Err(failure),
                Err(_) => {
                    return Err(Failure::new(Code::Other, "the engine stopped before the answer was complete"));
                }
            }
        }
    }
}
