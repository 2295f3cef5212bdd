//! What a request's format does to its answer beyond the grammar: thinking is left free before it, and what no grammar
//! can enforce is checked when the answer is whole, and asked again.
//!
//! Knows jobs and events; no engine, no flags, no JSON of requests.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::{Code, Failure};
use crate::event::{Event, Finished, TokenEvent};
use crate::grammar::{Compiled, Matcher, MatcherError, SchemaViolation, Trigger, Vocabulary};
use crate::scheduler::{Job, Submitter};

/// How often an answer that fails its check is asked again.
pub const RETRIES: u32 = 3;
/// The temperature of asking again where the first answer was the most probable one, which would only come again.
const RETRY_TEMPERATURE: f32 = 0.7;

const THINK: &str = "<think>";
const UNTHINK: &str = "</think>";

/// A format of one request.
#[derive(Clone)]
pub struct Format {
    compiled: Arc<Compiled>,
    /// When it begins to hold, from within to without.
    triggers: Vec<Trigger>,
}

impl Format {
    /// `trigger`: when the grammar begins to hold, if not at once.
    pub fn new(compiled: Arc<Compiled>, trigger: Option<Trigger>) -> Self {
        Self { compiled, triggers: trigger.into_iter().collect() }
    }

    /// The same after markers, the last of which it holds after. What the request itself has said of one of them counts.
    #[must_use]
    pub fn after_markers<'m>(mut self, markers: impl DoubleEndedIterator<Item = &'m str>) -> Self {
        let mut own = std::mem::take(&mut self.triggers);
        let mut triggers: Vec<Trigger> = Vec::new();
        for marker in markers.rev() {
            let said = own.iter().position(|trigger| trigger.marker == marker.as_bytes()).map(|at| own.remove(at));
            triggers.push(said.unwrap_or_else(|| Trigger::answer_after(marker)));
        }
        self.triggers = own.into_iter().chain(triggers).collect();
        self
    }

    /// The same after thoughts, if the model thinks: its prompt ends with the opening mark, or `wanted` says that it is
    /// to think and the mark is still to come.
    #[must_use]
    pub fn after_thoughts(mut self, prompt: &[u32], vocabulary: &Vocabulary, wanted: bool) -> Self {
        if !self.triggers.is_empty() {
            return self; // the request has said when it begins
        }
        let tail = prompt.len().saturating_sub(16);
        let bytes: Vec<u8> = prompt[tail..].iter().flat_map(|token| vocabulary.piece(*token)).copied().collect();
        let tail = bytes.trim_ascii_end();
        let opened = tail.ends_with(THINK.as_bytes());
        let closed = tail.ends_with(UNTHINK.as_bytes());
        if opened || (wanted && !closed) {
            self.triggers.push(Trigger::answer_after(UNTHINK));
        }
        if !opened && wanted && !closed {
            self.triggers.push(Trigger { free: false, ..Trigger::answer_after(THINK) });
        }
        self
    }

    /// A matcher at the beginning of the answer.
    ///
    /// # Errors
    /// As [`Matcher::after`].
    pub fn matcher(&self, vocabulary: &Arc<Vocabulary>) -> Result<Matcher, MatcherError> {
        let inner = self.compiled.matcher();
        self.triggers.iter().try_fold(inner, |inner, trigger| inner.after(trigger.clone(), vocabulary))
    }

    /// Whether the grammar leaves something to the check of the whole answer.
    pub fn is_checked(&self) -> bool {
        self.compiled.schema().is_some_and(|report| !report.unchecked().is_empty())
    }

    fn check(&self, text: &str) -> Result<(), SchemaViolation> {
        self.compiled.schema().map_or(Ok(()), |report| report.check(after(text, &self.triggers)))
    }
}

/// What stands after the markers of an answer, the outer ones first.
fn after<'t>(text: &'t str, triggers: &[Trigger]) -> &'t str {
    let outside = triggers.iter().rev().filter(|trigger| trigger.must && !trigger.inside);
    let markers = outside.filter_map(|trigger| std::str::from_utf8(&trigger.marker).ok());
    markers.fold(text, |text, marker| text.split_once(marker).map_or(text, |(_, answer)| answer))
}

/// That an answer to a schema can be whole within `most` tokens, as far as that is known ahead.
///
/// # Errors
/// Even the shortest answer that is known takes more; or the matcher failed.
pub fn enough(matcher: &mut Matcher, most: usize) -> Result<(), Failure> {
    let refused = |message: String| Failure::new(Code::FormatRejected, message);
    match matcher.least_tokens().map_err(|e| refused(e.to_string()))? {
        // None at all: only the cache is to be filled.
        Some(least) if least > most && most > 0 => Err(refused(format!(
            "the shortest answer to this JSON Schema takes {least} tokens, and the limit is {most}: raise the limit \
             (-n, n_predict, max_tokens)"
        ))),
        _ => Ok(()),
    }
}

/// A request whose answers are held back until one passes its check.
pub struct Check {
    format: Format,
    vocabulary: Arc<Vocabulary>,
    /// What is asked again; its matcher and its channel are new each time.
    again: Job,
    first: Receiver<Event>,
    out: Sender<Event>,
}

impl Check {
    /// Puts the check between `job` and those who listen to it.
    pub fn new(format: Format, vocabulary: Arc<Vocabulary>, job: &mut Job) -> Self {
        let (events, first) = channel();
        let again = job.again(None, job.events.clone());
        let out = std::mem::replace(&mut job.events, events);
        Self { format, vocabulary, again, first, out }
    }

    /// Listens to the job, which has been queued, on a thread of its own; asks again through `submitter`.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(self, submitter: Submitter) -> Result<(), Failure> {
        let thread = std::thread::Builder::new().name("check".into()).spawn(move || self.run(&submitter));
        thread.map(drop).map_err(|e| Failure::new(Code::Other, format!("no thread for the check of the answer: {e}")))
    }

    fn run(mut self, submitter: &Submitter) {
        let mut violation = None;
        for attempt in 0..=RETRIES {
            if attempt > 0
                && let Err(failure) = self.ask_again(attempt, submitter)
            {
                let _ = self.out.send(Event::Failed(failure));
                return;
            }
            match self.attempt(attempt == 0) {
                Some(Err(found)) => violation = Some(found),
                _ => return,
            }
        }
        let why = violation.map_or_else(String::new, |violation| violation.to_string());
        let message = format!("{} answers in turn were not valid: {why}", RETRIES + 1);
        let _ = self.out.send(Event::Failed(Failure::new(Code::FormatRejected, message)));
    }

    fn ask_again(&mut self, attempt: u32, submitter: &Submitter) -> Result<(), Failure> {
        let matcher = self.format.matcher(&self.vocabulary);
        let matcher = matcher.map_err(|e| Failure::new(Code::FormatRejected, e.to_string()))?;
        let (events, next) = channel();
        let mut job = self.again.again(Some(matcher), events);
        job.sampling.seed = job.sampling.seed.map(|seed| seed.wrapping_add(attempt));
        if job.sampling.temperature <= 0.0 {
            job.sampling.temperature = RETRY_TEMPERATURE;
        }
        self.first = next;
        submitter.submit(job)
    }

    /// Listens to one answer. `None`: it was passed on, or the request has ended otherwise.
    fn attempt(&self, first: bool) -> Option<Result<(), SchemaViolation>> {
        let mut held: Vec<TokenEvent> = Vec::new();
        loop {
            match self.first.recv().ok()? {
                event @ Event::Prefilled { .. } => {
                    if first {
                        self.out.send(event).ok()?;
                    }
                }
                Event::Token(event) => {
                    held.push(event);
                    // Tells whether anybody listens still; dropping our end cancels the job then.
                    self.out.send(Event::Token(TokenEvent::default())).ok()?;
                }
                Event::Finished(finished) => return self.judge(held, finished),
                event @ Event::Failed(_) => {
                    let _ = self.out.send(event);
                    return None;
                }
            }
        }
    }

    /// An answer that is cut says so itself; a whole one must be valid.
    fn judge(&self, held: Vec<TokenEvent>, finished: Finished) -> Option<Result<(), SchemaViolation>> {
        if finished.format_complete == Some(true) {
            let text: String = held.iter().map(|event| event.text.as_str()).collect();
            if let Err(violation) = self.format.check(&text) {
                return Some(Err(violation));
            }
        }
        for event in held {
            self.out.send(Event::Token(event)).ok()?;
        }
        let _ = self.out.send(Event::Finished(finished));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked_stands_after_the_markers() {
        let triggers = |markers: &[&str]| -> Vec<Trigger> {
            markers.iter().rev().map(|marker| Trigger::answer_after(*marker)).collect()
        };
        for (text, markers, answer) in [
            ("{}", &[][..], "{}"),
            ("so</think>{}", &[UNTHINK], "{}"),
            ("so</think>and!{}", &[UNTHINK, "!"], "{}"),
            ("so!</think>{}", &[UNTHINK], "{}"),
            ("never", &["!"], "never"),
        ] {
            assert_eq!(after(text, &triggers(markers)), answer, "{text}");
        }
        let inside = Trigger { inside: true, ..Trigger::answer_after("<call>") };
        assert_eq!(after("a<call>{}", &[inside]), "a<call>{}");
    }
}
