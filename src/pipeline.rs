//! THE flow, in one screen: validate, pin the adapters, render the prompt, compile the format, submit, events.
//!
//! Every front end (chat, pipe, server) goes through [`Pipeline::submit`]. Knows no terminal, no HTTP, no flags.

mod choose;
mod composed;
mod prefixes;
mod slots;
mod text;
mod ticket;

pub use slots::SlotState;
pub use ticket::{Answer, AnswerStage, Applied, Compositions, Question, Ticket, Weighed};

use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use self::choose::{Choice, applied};
use self::prefixes::Prefixes;
use self::text::read_by_router;
use crate::adapter::{AdapterDigest, AdapterFile};
use crate::engine::encoder::Encoder;
use crate::engine::lanes::ResidentStats;
use crate::engine::{Engine, EngineFacts, Tokenizer};
use crate::error::{Code, Failure};
use crate::formats::{self, Check, Format};
use crate::gguf::ModelFacts;
use crate::grammar::{Compiled, Compiler, GrammarError, Marker, Source};
use crate::lease::{self, Chosen};
use crate::prompt::ChatTemplate;
use crate::request::{AdapterChoice, AdapterSource, Input, Request, Then};
use crate::scheduler::borders::Border;
use crate::scheduler::counts::Reading;
use crate::scheduler::parked::ParkedStats;
use crate::scheduler::{CancelToken, Job, Lease, Limits, Ready, Worker};
use crate::shelf::Shelf;

/// The name that asks for no format where an adapter brings one.
pub const NO_FORMAT: &str = "none";

/// The variable of a conversation that says whether an assistant's last words are continued.
pub const CONTINUE: &str = "continue_final_message";

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

/// A request that is ready to be queued.
struct Prepared {
    job: Job,
    ticket: Ticket,
    /// The answer is checked as a whole.
    check: Option<Check>,
    /// Adapters whose use is counted once it is queued.
    from_library: Vec<AdapterDigest>,
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
        let Choice { request, stages, route, tokens, routed, composed, weighed } = self.choose(request)?;
        let idle = stages.iter().flatten().filter(|(f, _)| f.facts().all_zero);
        let mut warnings: Vec<String> =
            idle.map(|(f, _)| format!("adapter '{}': all weights are zero; it changes nothing", f.label())).collect();
        let told = |w: &Weighed| {
            let why = w.equally.as_ref()?;
            Some(format!("composition '{}': its parts have equal weights: {why}", w.composition))
        };
        warnings.extend(weighed.iter().filter_map(told));
        let request = request.into_inner();
        let asked = if self.shelf.keeps_judged() { read_by_router(&request.input) } else { None };
        let single = of_library(&request, &stages);
        let compiled = self.format(&request, &stages)?;
        let chosen = &stages[0];
        let thinks = match &request.input {
            Input::Chat { kwargs, .. } => Some(kwargs.get("enable_thinking").is_some_and(|wanted| *wanted == true)),
            Input::Raw(_) | Input::Tokens(_) => None,
        };
        let mut prompt = match tokens.filter(|_| !lease::have_prefixes(chosen)) {
            Some(tokens) => tokens,
            None => self.prompt_tokens(lease::with_prefixes(request.input, chosen)?)?,
        };
        self.check_length(prompt.len())?;
        let vocabulary = self.ready.tokenizer.vocabulary();
        let format = compiled.map(|compiled| {
            let markers = request.then.iter().map(|then| then.marker.as_str());
            let format = Format::new(compiled, request.after).after_markers(markers);
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
        let (sets, about) = lease::timeline(chosen, &mut prompt)?;
        let sets = sets.owned(request.owner);
        self.check_length(prompt.len())?;
        warnings.extend(about);
        let border = |(then, stage): (&Then, &Vec<Chosen>)| {
            Ok(Border { marker: Marker::new(then.marker.as_str()), set: lease::later(stage)? })
        };
        let borders = request.then.iter().zip(&stages[1..]).map(border).collect::<Result<Vec<_>, Failure>>()?;
        let adapters = applied(stages.iter().flatten());
        let saved = if request.cache_prompt { self.prefix_state(chosen, &prompt, &sets) } else { None };
        // Of all stages: what is to come is held from the beginning, so that no answer breaks off where its adapters change.
        let mut files: Vec<Arc<AdapterFile>> = Vec::new();
        for (file, _) in stages.iter().flatten() {
            if !files.iter().any(|known| known.digest() == file.digest()) {
                files.push(file.clone());
            }
        }
        // Laid out here, so that the engine's thread need not do it. One that has no lanes takes its own path there.
        let ready = self.ready.residents.iter().flat_map(|r| files.iter().filter_map(|f| r.ready(f).ok())).collect();
        let lease = Lease { sets, borders, files, ready };
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
            special: request.special,
            drafts: request.drafts,
            events: sender,
            cancel: cancel.clone(),
            submitted,
        };
        let checked = format.filter(Format::is_checked);
        let check = checked.map(|format| Check::new(format, vocabulary, &mut job));
        let question = asked.zip(match (composed.as_slice(), single.as_slice()) {
            ([one], _) => Some(*one),
            ([], [one]) if adapters.len() == 1 => Some(*one),
            _ => None,
        });
        let question = question.map(|(text, adapter)| Question { adapter, text });
        let from_library = single.into_iter().chain(composed).collect();
        let uses = self.shelf.note(Vec::new());
        let compositions = Compositions { weighed, stages: answer_stages(&request.then, &stages) };
        let ticket = Ticket { events, cancel, adapters, route, routed, compositions, warnings, uses, question };
        Ok(Prepared { job, ticket, check, from_library })
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

    /// The format of an answer: the request's own, else that of the heaviest of its adapters that has one.
    /// Where they change inside the answer, of the last ones.
    fn format(&self, request: &Request, stages: &[Vec<Chosen>]) -> Result<Option<Arc<Compiled>>, Failure> {
        match &request.format {
            Some(Source::Named(name)) if name == NO_FORMAT => Ok(None),
            Some(source) => self.compile(source).map(Some),
            None => {
                let last = request.stages().zip(stages).last();
                let mut named: Vec<_> =
                    last.into_iter().flat_map(|(choices, chosen)| choices.iter().zip(chosen)).collect();
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

/// The adapters that were asked for by names of the library, each once.
fn of_library(request: &Request, stages: &[Vec<Chosen>]) -> Vec<AdapterDigest> {
    let named = |choice: &AdapterChoice| matches!(choice.source, AdapterSource::Name(_));
    let all = request.stages().zip(stages).flat_map(|(choices, chosen)| choices.iter().zip(chosen));
    let mut digests = Vec::new();
    for (_, (file, _)) in all.filter(|(choice, _)| named(choice)) {
        if !digests.contains(&file.digest()) {
            digests.push(file.digest());
        }
    }
    digests
}

/// What an answer runs under, one after the other; nothing where that does not change.
fn answer_stages(then: &[Then], stages: &[Vec<Chosen>]) -> Vec<AnswerStage> {
    if then.is_empty() {
        return Vec::new();
    }
    let markers = std::iter::once(None).chain(then.iter().map(|then| Some(then.marker.clone())));
    markers.zip(stages).map(|(marker, stage)| AnswerStage { marker, adapters: applied(stage) }).collect()
}

/// The failure that a refused format becomes.
pub fn format_failure(e: GrammarError) -> Failure {
    let code = match &e {
        GrammarError::UnknownFormat { .. } => Code::NotFound,
        _ => Code::FormatRejected,
    };
    Failure::new(code, e.to_string())
}

/// Kept so that a pipeline can be shared between threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<Pipeline>>();
};
