//! THE flow, in one screen: validate, pin the adapters, render the prompt, compile the format, submit, events.
//!
//! Every front end (chat, pipe, server) goes through [`Pipeline::submit`]. Knows no terminal, no HTTP, no flags.

mod composed;
mod prefixes;
mod slots;

pub use slots::SlotState;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::composed::{choices, side_by_side};
use self::prefixes::Prefixes;
use crate::adapter::{AdapterDigest, AdapterFile};
use crate::engine::encoder::Encoder;
use crate::engine::lanes::ResidentStats;
use crate::engine::{Engine, EngineFacts, Token, Tokenizer};
use crate::error::{Code, Failure};
use crate::event::{Event, Finished, TokenProbability};
use crate::formats::{self, Check, Format};
use crate::gguf::ModelFacts;
use crate::grammar::{Compiled, Compiler, GrammarError, Source};
use crate::lease::{self, Chosen};
use crate::prompt::{ChatTemplate, CivilTime, Message, Prompt, RenderOptions, Role};
use crate::request::{AdapterChoice, AdapterSource, Input, Request, ValidRequest};
use crate::router::Route;
use crate::routing::Ask;
use crate::scheduler::counts::Reading;
use crate::scheduler::parked::ParkedStats;
use crate::scheduler::{CancelToken, Job, Lease, Limits, Ready, Worker};
use crate::shelf::{Shelf, UseNote};

/// The name that asks for no format where an adapter brings one.
pub const NO_FORMAT: &str = "none";

/// A loaded model, ready for requests from any thread.
pub struct Pipeline {
    worker: Worker,
    /// After the worker, which must have stopped before these go.
    prefixes: Prefixes,
    ready: Ready,
    base: ModelFacts,
    template: ChatTemplate,
    shelf: Arc<Shelf>,
    compiler: OnceLock<Compiler>,
}

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

/// A request that is ready to be queued.
struct Prepared {
    job: Job,
    ticket: Ticket,
    /// The answer is checked as a whole.
    check: Option<Check>,
    /// Adapters whose use is counted once it is queued.
    from_library: Vec<AdapterDigest>,
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

/// A request with its adapters held.
struct Choice {
    request: ValidRequest,
    chosen: Vec<Chosen>,
    /// How they were chosen, when the router chose them.
    route: Option<Arc<Route>>,
    /// The prompt without what prefixes put before it, where it was read while the adapters' bytes were fetched.
    tokens: Option<Vec<Token>>,
    /// How long the router took.
    routed: Duration,
    /// The compositions that it used.
    composed: Vec<AdapterDigest>,
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

impl Pipeline {
    /// Starts the engine thread. `template` makes the chat template once the tokenizer is known.
    ///
    /// # Errors
    /// The engine could not be made, or the template is refused.
    pub fn start<E, F>(
        base: ModelFacts,
        limits: impl Into<Limits>,
        shelf: Shelf,
        make: F,
        template: impl FnOnce(&dyn Tokenizer, &ModelFacts) -> Result<ChatTemplate, Failure>,
    ) -> Result<Self, Failure>
    where
        E: Engine,
        F: FnOnce() -> Result<E, Failure> + Send + 'static,
    {
        let (worker, ready) = Worker::spawn(limits, make)?;
        let template = template(&*ready.tokenizer, &base)?;
        let (prefixes, shelf) = (Prefixes::default(), Arc::new(shelf));
        Ok(Self { worker, prefixes, ready, base, template, shelf, compiler: OnceLock::new() })
    }

    /// Lets another model make the vectors.
    pub fn with_encoder(mut self, encoder: Arc<dyn Encoder>) -> Self {
        self.ready.encoder = Some(encoder);
        self
    }

    /// Where texts become vectors, when this was asked for.
    pub fn encoder(&self) -> Option<&Arc<dyn Encoder>> {
        self.ready.encoder.as_ref()
    }

    /// Checks a request and queues it; waits while the queue is full.
    ///
    /// # Errors
    /// The request, an adapter or the format is refused: nothing has been generated then.
    pub fn submit(&self, request: Request) -> Result<Ticket, Failure> {
        let prepared = self.prepare(request)?;
        self.worker.submit(prepared.job)?;
        self.begin(prepared.check)?;
        Ok(Ticket { uses: self.shelf.note(prepared.from_library), ..prepared.ticket })
    }

    /// As [`Pipeline::submit`], but does not wait for the queue.
    ///
    /// # Errors
    /// Also [`Code::Busy`] when the queue is full.
    pub fn try_submit(&self, request: Request) -> Result<Ticket, Failure> {
        let prepared = self.prepare(request)?;
        self.worker.try_submit(prepared.job)?;
        self.begin(prepared.check)?;
        Ok(Ticket { uses: self.shelf.note(prepared.from_library), ..prepared.ticket })
    }

    fn begin(&self, check: Option<Check>) -> Result<(), Failure> {
        check.map_or(Ok(()), |check| check.start(self.worker.submitter()?))
    }

    /// Everything that can be refused before a request is queued.
    fn prepare(&self, request: Request) -> Result<Prepared, Failure> {
        let submitted = Instant::now();
        if !self.ready.facts.generates {
            return Err(Failure::usage("the model makes vectors of texts; it cannot generate"));
        }
        let slots = self.ready.facts.sequences;
        if request.slot.is_some_and(|slot| slot >= slots) {
            return Err(Failure::usage(format!("id_slot: must be -1 or below {slots}")));
        }
        let Choice { request, chosen, route, tokens, routed, composed } = self.choose(request)?;
        let idle = chosen.iter().filter(|(f, _)| f.facts().all_zero);
        let mut warnings: Vec<String> =
            idle.map(|(f, _)| format!("adapter '{}': all weights are zero; it changes nothing", f.label())).collect();
        let request = request.into_inner();
        let asked = if self.shelf.keeps_judged() { read_by_router(&request.input) } else { None };
        let compiled = self.format(&request, &chosen)?;
        let thinks = match &request.input {
            Input::Chat { kwargs, .. } => Some(kwargs.get("enable_thinking").is_some_and(|wanted| *wanted == true)),
            Input::Raw(_) | Input::Tokens(_) => None,
        };
        let mut prompt = match tokens.filter(|_| !lease::have_prefixes(&chosen)) {
            Some(tokens) => tokens,
            None => self.prompt_tokens(lease::with_prefixes(request.input, &chosen)?)?,
        };
        self.check_length(prompt.len())?;
        let vocabulary = self.ready.tokenizer.vocabulary();
        let format = compiled.map(|compiled| {
            let format = Format::new(compiled, request.after);
            match thinks {
                Some(wanted) => format.after_thoughts(&prompt, &vocabulary, wanted),
                None => format,
            }
        });
        let matcher = format.as_ref().map(|format| format.matcher(&vocabulary)).transpose();
        let mut matcher = matcher.map_err(|e| Failure::new(Code::FormatRejected, e.to_string()))?;
        if let (Some(matcher), Some(most)) = (&mut matcher, request.limits.max_tokens) {
            formats::enough(matcher, most)?;
        }
        let (sets, about) = lease::timeline(&chosen, &mut prompt)?;
        let sets = sets.owned(request.owner);
        self.check_length(prompt.len())?;
        warnings.extend(about);
        let adapters = applied(&chosen);
        let saved = if request.cache_prompt { self.prefix_state(&chosen, &prompt, &sets) } else { None };
        let files: Vec<Arc<AdapterFile>> = chosen.into_iter().map(|(file, _)| file).collect();
        // Laid out here, so that the engine's thread need not do it. One that has no lanes takes its own path there.
        let ready = self.ready.residents.iter().flat_map(|r| files.iter().filter_map(|f| r.ready(f).ok())).collect();
        let lease = Lease { sets, files, ready };
        let (sender, events) = channel();
        let cancel = CancelToken::default();
        let mut job = Job {
            prompt,
            lease,
            matcher,
            sampling: request.sampling,
            limits: request.limits,
            cache_prompt: request.cache_prompt,
            slot: request.slot,
            saved,
            keep: None,
            n_probs: request.n_probs,
            events: sender,
            cancel: cancel.clone(),
            submitted,
        };
        let checked = format.filter(Format::is_checked);
        let check = checked.map(|format| Check::new(format, vocabulary, &mut job));
        let named = |choice: &AdapterChoice| matches!(choice.source, AdapterSource::Name(_));
        let from_library = request.adapters.iter().zip(&adapters).filter(|(choice, _)| named(choice));
        let single: Vec<AdapterDigest> = from_library.map(|(_, applied)| applied.digest).collect();
        let question = asked.zip(match (composed.as_slice(), single.as_slice()) {
            ([one], _) => Some(*one),
            ([], [one]) if adapters.len() == 1 => Some(*one),
            _ => None,
        });
        let question = question.map(|(text, adapter)| Question { adapter, text });
        let from_library = single.into_iter().chain(composed).collect();
        let uses = self.shelf.note(Vec::new());
        let ticket = Ticket { events, cancel, adapters, route, routed, warnings, uses, question };
        Ok(Prepared { job, ticket, check, from_library })
    }

    /// Checks a request and pins its adapters, which the router chooses first where it is asked to.
    fn choose(&self, asked: Request) -> Result<Choice, Failure> {
        let vocabulary = self.ready.facts.vocabulary;
        if asked.route.is_none() {
            // Numbers first: no stage of a chain runs for a request that is refused afterwards.
            asked.clone().validate(vocabulary)?;
            let (flat, composed) = self.compose(asked)?;
            let request = flat.validate(vocabulary)?;
            let chosen = self.pin(&request)?;
            return Ok(Choice { request, chosen, route: None, tokens: None, routed: Duration::ZERO, composed });
        }
        asked.clone().validate(vocabulary)?;
        let mut tokens = None;
        // A name may be moved between the decision and the pinning; then it is decided again.
        for _ in 0..3 {
            let began = Instant::now();
            let route = self.route(&asked)?;
            let routed = began.elapsed();
            self.shelf.prefetch(&route.adapters.iter().map(|chosen| chosen.digest).collect::<Vec<_>>());
            let named = |c: &crate::router::Chosen| AdapterChoice::named(c.name.as_str(), c.weight);
            let adapters = route.adapters.iter().map(named).collect();
            let format = asked.format.clone().or_else(|| route.format.clone().map(Source::Named));
            let (flat, composed) = self.compose(Request { adapters, route: None, format, ..asked.clone() })?;
            // While the system reads the adapters' bytes. A composition may have changed what is asked.
            if tokens.is_none() && composed.is_empty() {
                tokens = Some(self.prompt_tokens(asked.input.clone())?);
            }
            let request = flat.validate(vocabulary)?;
            let chosen = self.pin(&request)?;
            let held = |digest| composed.contains(&digest) || chosen.iter().any(|(file, _)| file.digest() == digest);
            if route.adapters.iter().all(|routed| held(routed.digest)) {
                let tokens = tokens.filter(|_| composed.is_empty());
                return Ok(Choice { request, chosen, route: Some(route), tokens, routed, composed });
            }
        }
        Err(Failure::new(
            Code::Busy,
            "the adapter library is being changed faster than it can be routed over; try again",
        ))
    }

    /// What the router would choose for a request: by its system and last user message, or its raw text.
    ///
    /// # Errors
    /// There is no library, it cannot be routed over, or the request has no text.
    pub fn route(&self, request: &Request) -> Result<Arc<Route>, Failure> {
        let none = || Failure::usage("adapters auto needs a text; a prompt of token ids has none");
        let text = read_by_router(&request.input).ok_or_else(none)?;
        let routing = request.route.clone().unwrap_or_default();
        let ask = Ask {
            text,
            metadata: routing.metadata,
            strict: false,
            strategy: routing.strategy,
            top_k: routing.top_k,
            threshold: routing.threshold,
        };
        self.shelf.route(ask, &self.base)
    }

    /// Opens and checks adapters as [`Pipeline::submit`] does, without a request.
    ///
    /// # Errors
    /// One of them, or their set, is refused.
    pub fn check_adapters(&self, adapters: &[AdapterChoice]) -> Result<Vec<Applied>, Failure> {
        if let Some(composed) = self.composed(adapters)? {
            // Each stage of a chain by itself; the parts of mixes together with what stands beside them.
            let stages: Vec<Vec<AdapterChoice>> = match composed.digests.len() == 1 && composed.plain.is_empty() {
                true => composed.stages.iter().map(|stage| choices(stage).collect()).collect(),
                false => vec![side_by_side(&composed.plain, &composed.stages)],
            };
            let all: Vec<Vec<Applied>> =
                stages.iter().map(|stage| self.check_adapters(stage)).collect::<Result<_, _>>()?;
            return Ok(all.into_iter().flatten().collect());
        }
        let request = Request { adapters: adapters.to_vec(), ..Request::new(Input::Raw(String::new())) };
        let chosen = self.pin(&request.validate(self.ready.facts.vocabulary)?)?;
        lease::timeline(&chosen, &mut Vec::new())?;
        Ok(applied(&chosen))
    }

    /// Notes that an answer with these adapters was good, or bad, and keeps its question where there is one. How many of the
    /// adapters the library has.
    ///
    /// # Errors
    /// There is no library, or it cannot be written.
    pub fn feedback(
        &self,
        digests: &[AdapterDigest],
        question: Option<&Question>,
        good: bool,
    ) -> Result<usize, Failure> {
        self.shelf.feedback(digests, question.map(|q| (q.adapter, q.text.as_str())), good)
    }

    /// Lays adapters out for the engine and keeps them so, whatever else is used. Those that cannot share a batch are left
    /// to llama.cpp's own path.
    pub fn keep_ready(&self, files: &[Arc<AdapterFile>]) {
        if let Some(residents) = &self.ready.residents {
            files.iter().for_each(|file| drop(residents.pin(file)));
        }
    }

    /// What is laid out for the engine, and what became of it so far; `None` where nothing need be.
    pub fn resident_adapters(&self) -> Option<ResidentStats> {
        self.ready.residents.as_ref().map(|r| r.stats())
    }

    /// What is kept of prefixes that had to leave the context.
    pub fn parked_prefixes(&self) -> ParkedStats {
        self.ready.parked.read()
    }

    /// Compiles a format; a later request with it finds it ready.
    ///
    /// # Errors
    /// It is refused.
    pub fn check_format(&self, source: &Source) -> Result<(), Failure> {
        match source {
            Source::Named(name) if name == NO_FORMAT => Ok(()),
            source => self.compile(source).map(drop),
        }
    }

    /// What the model file says.
    pub fn base(&self) -> &ModelFacts {
        &self.base
    }

    /// Fixed properties of the engine.
    pub fn facts(&self) -> &EngineFacts {
        &self.ready.facts
    }

    /// What the engine's thread has done so far.
    pub fn counts(&self) -> Reading {
        self.ready.counts.read()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &dyn Tokenizer {
        &*self.ready.tokenizer
    }

    /// The tokens a conversation or text becomes.
    ///
    /// # Errors
    /// The template refuses it, it is empty, or it does not fit into the context.
    pub fn tokens(&self, input: Input) -> Result<Vec<Token>, Failure> {
        let tokens = self.prompt_tokens(input)?;
        self.check_length(tokens.len())?;
        Ok(tokens)
    }

    fn check_length(&self, tokens: usize) -> Result<(), Failure> {
        let context = self.ready.facts.sequence_context;
        match tokens {
            0 => Err(Failure::usage("the prompt is empty and the model has no token to begin with")),
            n if n >= context => Err(Failure::usage(format!(
                "the prompt has {n} tokens, the context holds {context}; shorten it or give a larger -c"
            ))),
            _ => Ok(()),
        }
    }

    /// The tokens a conversation or text becomes, whether or not they fit into the context.
    ///
    /// # Errors
    /// The template refuses it.
    pub fn prompt_tokens(&self, input: Input) -> Result<Vec<Token>, Failure> {
        Ok(match input {
            Input::Tokens(tokens) => tokens,
            Input::Raw(text) => self.ready.tokenizer.tokenize(&Prompt::raw(text), true),
            Input::Chat { messages, tools, kwargs } => {
                self.ready.tokenizer.tokenize(&self.render(messages, tools, kwargs)?, true)
            }
        })
    }

    /// Puts a conversation through the chat template. One that ends with an assistant's words is continued there.
    /// `add_generation_prompt` among the variables says whether the prompt ends with the opening of an answer.
    ///
    /// # Errors
    /// The template refuses it.
    pub fn render(
        &self,
        mut messages: Vec<Message>,
        tools: Option<serde_json::Value>,
        mut kwargs: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Prompt, Failure> {
        let add_generation_prompt = kwargs.remove("add_generation_prompt").and_then(|v| v.as_bool()).unwrap_or(true);
        let begun = |m: &Message| m.role == Role::Assistant && !m.extras.contains_key("tool_calls");
        let begun = match messages.len() > 1 && add_generation_prompt && messages.last().is_some_and(begun) {
            true => messages.pop().map(|m| m.content),
            false => None,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).ok().map(CivilTime::from_unix);
        let options = RenderOptions { add_generation_prompt, tools, kwargs, now };
        let prompt = self.template.render(&messages, &options).map_err(|e| Failure::usage(e.to_string()))?;
        Ok(match begun {
            Some(text) => prompt.followed_by(text),
            None => prompt,
        })
    }

    /// Opens and checks the adapters; what they hold does not change while the request runs.
    fn pin(&self, request: &ValidRequest) -> Result<Vec<Chosen>, Failure> {
        let mut chosen = Vec::new();
        for (choice, scale) in request.adapters() {
            chosen.push((self.shelf.open(&choice.source, &self.base)?, scale));
        }
        Ok(chosen)
    }

    /// The format of an answer: the request's own, else that of the heaviest of its adapters that has one.
    fn format(&self, request: &Request, chosen: &[Chosen]) -> Result<Option<Arc<Compiled>>, Failure> {
        match &request.format {
            Some(Source::Named(name)) if name == NO_FORMAT => Ok(None),
            Some(source) => self.compile(source).map(Some),
            None => {
                let mut named: Vec<_> = request.adapters.iter().zip(chosen).collect();
                named.sort_by(|(_, (_, a)), (_, (_, b))| b.get().total_cmp(&a.get()));
                let format = named.iter().find_map(|(choice, _)| self.shelf.default_format(&choice.source));
                format.map(|name| self.compile(&Source::Named(name))).transpose()
            }
        }
    }

    fn compile(&self, source: &Source) -> Result<Arc<Compiled>, Failure> {
        let compiler = self.compiler.get_or_init(|| Compiler::new(self.ready.tokenizer.vocabulary()));
        compiler.compile(source).map_err(format_failure)
    }
}

/// Most bytes of the system messages that the router looks at: enough for instructions and a list of tools, too few for
/// a manual to drown the question.
const ROUTED_SYSTEM: usize = 2_000;

/// What the router reads of a request; none of token ids.
fn read_by_router(input: &Input) -> Option<String> {
    match input {
        Input::Chat { messages, .. } => Some(routed_text(messages)),
        Input::Raw(text) => Some(text.clone()),
        Input::Tokens(_) => None,
    }
}

/// What the router reads of a conversation: the system messages, which often name the task, and the last question.
fn routed_text(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages.iter().filter(|m| m.role == Role::System) {
        text.push_str(&message.content);
        text.push('\n');
    }
    text.truncate(text.floor_char_boundary(ROUTED_SYSTEM));
    let question = messages.iter().rfind(|m| m.role == Role::User).map(|m| m.content.as_str());
    text + question.unwrap_or_default()
}

fn applied(chosen: &[Chosen]) -> Vec<Applied> {
    let one = |(file, scale): &Chosen| Applied { name: file.label(), digest: file.digest(), scale: scale.get() };
    chosen.iter().map(one).collect()
}

/// The failure that a refused format becomes.
pub fn format_failure(e: GrammarError) -> Failure {
    let code = match &e {
        GrammarError::UnknownFormat { .. } => Code::NotFound,
        _ => Code::FormatRejected,
    };
    Failure::new(code, e.to_string())
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

/// Kept so that a pipeline can be shared between threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<Pipeline>>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_reads_instructions_and_the_last_question() {
        let say = |role, content: &str| Message::new(role, content);
        let (system, user, answer) = (Role::System, Role::User, Role::Assistant);
        let long = "\u{e9}".repeat(ROUTED_SYSTEM);
        let kept = format!("{}Q", "\u{e9}".repeat(ROUTED_SYSTEM / 2));
        for (messages, expected) in [
            (vec![say(user, "Q")], "Q"),
            (vec![say(system, "Write SQL."), say(user, "Q")], "Write SQL.\nQ"),
            (vec![say(system, "S"), say(user, "first"), say(answer, "A"), say(user, "last")], "S\nlast"),
            (vec![say(system, &long), say(user, "Q")], kept.as_str()),
            (vec![say(answer, "A")], ""),
            (Vec::new(), ""),
        ] {
            assert_eq!(routed_text(&messages), expected);
        }
    }
}
