//! The conversation: reads a message or a command, carries it out, goes on after every failure.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::command::{self, Change, Command, Line};
use super::complete::expand;
use super::lines::{Lines, Typed, read_message};
use super::screen::{excerpt, prompt};
use super::session::Session;
use super::stats::Totals;
use super::{Outcome, Printer, Signals, adapter_choice, named_choice, read_text, settings, store, summary};
use crate::adapter::AdapterDigest;
use crate::error::{Code, Failure};
use crate::event::FinishReason;
use crate::grammar::Source;
use crate::pipeline::{Answer, Applied, Compositions, Pipeline, Question};
use crate::request::{AdapterChoice, AdapterSource, Input, Request, Routing};
use crate::router::Route;
use crate::scheduler::CancelToken;

/// Two Ctrl-C on an empty line within this time leave.
const TWICE: Duration = Duration::from_secs(1);

/// The answer under way, for whoever must stop it.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Mutex<Option<CancelToken>>>);

impl Running {
    /// Stops it; false when nothing runs.
    pub fn cancel(&self) -> bool {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(CancelToken::cancel).is_some()
    }

    fn set(&self, cancel: Option<CancelToken>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cancel;
    }
}

/// A conversation with a loaded model.
pub struct Talk<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) printer: Printer,
    pub(super) signals: Signals,
    pub(super) running: Running,
    /// Adapters, format, sampling and limits of the next answer; its input is never used.
    pub(super) request: Request,
    /// The settings as the command line gave them.
    pub(super) defaults: Request,
    pub(super) session: Session,
    pub(super) totals: Totals,
    /// Tokens of the context that the conversation takes.
    pub(super) used: usize,
    /// Files this session has written or read: saving to them again asks for no permission.
    pub(super) files: HashSet<PathBuf>,
    /// Warnings given; each is given once.
    pub(super) warned: HashSet<String>,
    pub(super) interrupted: Option<Instant>,
    /// How the adapters of the last answer were chosen.
    pub(super) last_route: Option<Arc<Route>>,
    /// The adapters of the last answer and what is kept of its request, until something was said of it.
    pub(super) unjudged: Option<(Vec<AdapterDigest>, Option<Question>)>,
    /// The first failure of a session that nobody watches.
    pub(super) failed: Option<Code>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    GoOn,
    Leave,
}

impl<'a> Talk<'a> {
    /// A conversation that has not begun. `request` holds what the command line asked for.
    ///
    /// # Errors
    /// Its adapters, its format or its numbers are refused.
    pub fn new(
        pipeline: &'a Pipeline,
        printer: Printer,
        (signals, running): (Signals, Running),
        request: Request,
        system: Option<String>,
    ) -> Result<Self, Failure> {
        request.clone().validate(pipeline.facts().vocabulary)?;
        pipeline.check_adapters(&request.adapters)?;
        request.format.as_ref().map(|source| pipeline.check_format(source)).transpose()?;
        let mut talk = Self {
            pipeline,
            printer,
            signals,
            running,
            defaults: request.clone(),
            request,
            session: Session::of(system, Vec::new()),
            totals: Totals::default(),
            used: 0,
            files: HashSet::new(),
            warned: HashSet::new(),
            interrupted: None,
            last_route: None,
            unjudged: None,
            failed: None,
        };
        talk.measure();
        Ok(talk)
    }

    /// Says `first`, then talks until the lines end.
    ///
    /// # Errors
    /// A signal, an output that takes no more, or, where nobody watches, the code of the first failure.
    pub fn converse(&mut self, first: Option<&str>, lines: &mut dyn Lines) -> Result<(), Outcome> {
        let mut flow = first.map_or(Ok(Flow::GoOn), |text| self.ask(text).map(|()| Flow::GoOn));
        loop {
            match flow {
                Ok(Flow::GoOn) => (),
                Ok(Flow::Leave) => break,
                Err(Outcome::Failed(failure)) => {
                    self.printer.failure(&failure);
                    self.failed.get_or_insert(failure.code);
                }
                Err(other) => return Err(other),
            }
            self.obey_signals(lines)?;
            let (plain, colored) = prompt(self.used, self.pipeline.facts().context);
            flow = match read_message(lines, (&plain, &colored)) {
                Ok(Typed::End) => Ok(Flow::Leave),
                Ok(Typed::Interrupted { had_text }) => self.interrupt(had_text),
                Ok(Typed::Text(text)) if text.trim().is_empty() => Ok(Flow::GoOn),
                Ok(Typed::Text(text)) => self.take(&text, lines),
                Err(failure) => Err(failure.into()),
            };
        }
        self.obey_signals(lines)?;
        match self.failed {
            Some(code) if !lines.interactive() => Err(Outcome::Silent(code)),
            _ => Ok(()),
        }
    }

    /// SIGTERM ends the session, and so does SIGINT where nobody watches; else SIGINT has done its work.
    fn obey_signals(&self, lines: &dyn Lines) -> Result<(), Outcome> {
        match self.signals.code() {
            Some(code) if code == Code::Terminated || !lines.interactive() => return Err(Outcome::Silent(code)),
            _ => self.signals.forget_interrupt(),
        }
        Ok(())
    }

    /// Ctrl-C at the prompt.
    fn interrupt(&mut self, had_text: bool) -> Result<Flow, Outcome> {
        let now = Instant::now();
        if self.signals.code() == Some(Code::Terminated) || had_text {
            return Ok(Flow::GoOn);
        }
        if self.interrupted.is_some_and(|before| now.duration_since(before) < TWICE) {
            return Err(Outcome::Silent(Code::Interrupted));
        }
        self.interrupted = Some(now);
        self.printer.note("(Ctrl-C again within one second, or /exit, leaves)");
        Ok(Flow::GoOn)
    }

    fn take(&mut self, text: &str, lines: &mut dyn Lines) -> Result<Flow, Outcome> {
        if let Some(warning) = lines.remember(text) {
            self.printer.warning(&warning);
        }
        match command::parse(text)? {
            Line::Message(text) => self.ask(&text)?,
            Line::Command(Command::Exit) => return Ok(Flow::Leave),
            Line::Command(command) => self.obey(command, lines)?,
        }
        Ok(Flow::GoOn)
    }

    /// Says `text` to the model and shows its answer.
    ///
    /// # Errors
    /// The message or the answer failed; the conversation is then as before.
    pub fn ask(&mut self, text: &str) -> Result<(), Outcome> {
        self.session.ask(text);
        let said = self.answer();
        if !matches!(said, Ok(Said::Kept)) {
            self.session.undo();
        }
        if let Said::Nothing = said? {
            self.printer.note("(stopped before the answer began; the message is not kept)");
        }
        Ok(())
    }

    /// Answers the last question again; the old answer comes back when there is no new one.
    fn regenerate(&mut self) -> Result<(), Outcome> {
        let old = self.session.reopen().ok_or_else(|| Failure::usage("there is nothing to answer again"))?;
        let said = self.answer();
        if !matches!(said, Ok(Said::Kept)) {
            self.session.restore(old);
        }
        if let Said::Nothing = said? {
            self.printer.note("(stopped before the answer began; the old one is kept)");
        }
        Ok(())
    }

    /// Lets the model answer what was said last, and keeps the answer.
    fn answer(&mut self) -> Result<Said, Outcome> {
        let input = Input::chat(self.session.messages());
        let submitted = self.pipeline.submit(Request { input, ..self.request.clone() });
        let ticket = submitted.map_err(|failure| self.explain(failure))?;
        self.running.set(Some(ticket.cancel.clone()));
        if self.signals.code().is_some() {
            ticket.cancel.cancel();
        }
        ticket.warnings.iter().for_each(|warning| self.warn_once(warning));
        self.last_route = ticket.route.clone();
        let (question, compositions) = (ticket.question.clone(), ticket.compositions.clone());
        let (adapters, cancel, printer) = (ticket.adapters.clone(), ticket.cancel.clone(), self.printer);
        let mut broken = None;
        let mut printed = false;
        let answer = ticket.wait(|text| {
            if broken.is_some() {
                return;
            }
            printed = true;
            if let Err(e) = printer.answer(text) {
                broken = Some(e);
                cancel.cancel();
            }
        });
        self.running.set(None);
        if let Some(output) = broken {
            return Err(output.into());
        }
        if printed && !answer.as_ref().is_ok_and(|a| a.text.ends_with('\n'))
            || !printed && !printer.answers_on_terminal()
        {
            printer.line("")?;
        }
        let answer = answer?;
        self.remark(&answer, &adapters, &compositions);
        if answer.text.is_empty() && answer.finished.reason == FinishReason::Cancelled {
            return Ok(Said::Nothing);
        }
        self.session.answer(&answer.text, &adapters);
        self.unjudged = Some((adapters.iter().map(|adapter| adapter.digest).collect(), question));
        let t = &answer.finished.timings;
        self.used = t.cache_n + t.prompt_n + t.predicted_n;
        Ok(Said::Kept)
    }

    /// Counts what was said of the last answer, once.
    fn judge(&mut self, good: bool) -> Result<(), Failure> {
        let none = || Failure::usage("there is no answer to judge, or it was judged already");
        let (adapters, question) = self.unjudged.take().ok_or_else(none)?;
        let counted = match adapters.as_slice() {
            [] => 0,
            some => self.pipeline.feedback(some, question.as_ref(), good)?,
        };
        self.printer.note(&match counted {
            0 => "the last answer was of the base model or of loose files; nothing is counted".to_owned(),
            n => format!("counted for {n} adapters; `smoa adapter stats` shows them"),
        });
        Ok(())
    }

    /// The dim lines after an answer.
    fn remark(&mut self, answer: &Answer, adapters: &[Applied], compositions: &Compositions) {
        let finished = &answer.finished;
        self.totals.add(&finished.timings);
        if let Some(route) = &self.last_route {
            self.printer.note(&summary::route(route));
        }
        summary::compositions(compositions, finished).iter().for_each(|line| self.printer.note(line));
        self.printer.note(&summary::line(answer, adapters));
        let ended = match finished.reason {
            FinishReason::Stop | FinishReason::StopString => None,
            FinishReason::Cancelled => Some("stopped"),
            FinishReason::Length => Some("ended at the limit; /set n_predict -1 lets answers end by themselves"),
            FinishReason::TimeLimit => Some("ended at the time limit"),
            FinishReason::ContextFull => {
                Some("ended because the context is full; /undo or /clear makes room, or start with a larger -c")
            }
        };
        if let Some(ended) = ended {
            self.printer.note(&format!("({ended})"));
        }
        if finished.format_complete == Some(false) {
            self.printer.note("(the format is NOT complete: the answer ended before its end)");
            self.failed.get_or_insert(Code::FormatCut);
        }
    }

    /// What a refused conversation should say: where its last message alone is fine, the conversation is too long.
    fn explain(&self, failure: Failure) -> Failure {
        let earlier = self.session.questions() > 1;
        let alone = || self.pipeline.tokens(Input::chat(self.session.last_alone()));
        if earlier && failure.code == Code::Usage && alone().is_ok() {
            let message = format!("the conversation no longer fits: {}; /undo or /clear makes room", failure.message);
            return Failure::new(failure.code, message);
        }
        failure
    }

    fn warn_once(&mut self, warning: &str) {
        if self.warned.insert(warning.to_string()) {
            self.printer.warning(warning);
        }
    }

    /// Counts the context anew after a change that was not an answer.
    fn measure(&mut self) {
        let talked = !self.session.turns().is_empty();
        let tokens = || self.pipeline.tokens(Input::chat(self.session.messages()));
        // A conversation that cannot be counted is one that does not fit.
        self.used = if talked { tokens().map_or(self.pipeline.facts().context, |t| t.len()) } else { 0 };
    }

    fn obey(&mut self, command: Command, lines: &mut dyn Lines) -> Result<(), Outcome> {
        match command {
            Command::Help => command::help().iter().for_each(|line| self.printer.told(line)),
            Command::Exit => (),
            Command::Clear => {
                self.session.clear();
                self.measure();
                self.printer.note("the conversation is forgotten");
            }
            Command::Regenerate => self.regenerate()?,
            Command::Judge(good) => self.judge(good)?,
            Command::Undo => drop(self.undo()?),
            Command::Edit => {
                if !lines.offer("") {
                    return Err(Failure::usage("/edit needs a terminal with a line editor").into());
                }
                let text = self.undo()?;
                lines.offer(&text);
            }
            Command::System(change) => self.system(change),
            Command::Lora(change) => self.adapters(change, file_choice)?,
            Command::Adapter(Change::To(words)) if words == ["auto"] => self.auto()?,
            Command::Route(text) => self.route(&text)?,
            Command::Adapter(change) => self.adapters(change, |word| named_choice("/adapter", word))?,
            Command::Format(change) => self.format(change, |name| Ok(Source::Named(name)))?,
            Command::Grammar(change) => self.format(change, |file| read("/grammar", &file).map(Source::Gbnf))?,
            Command::Schema(change) => self.format(change, |file| read("/schema", &file).map(Source::JsonSchema))?,
            Command::Regex(change) => self.format(change, |text| Ok(Source::Regex(text)))?,
            Command::Settings => {
                settings::list(&self.request, &self.defaults).iter().for_each(|line| self.printer.told(line));
            }
            Command::Set(name, value) => {
                let (request, line) = settings::assign(&self.request, &self.defaults, &name, &value)?;
                request.clone().validate(self.pipeline.facts().vocabulary).map_err(Failure::from)?;
                self.request = request;
                self.printer.note(&line);
            }
            Command::Save { file, replace } => self.save(&file, replace)?,
            Command::Load(file) => self.load(&file)?,
            Command::Read(files) => self.attach(&files)?,
            Command::Stats => self.stats(),
        }
        Ok(())
    }

    /// Forgets the last exchange; gives its message.
    fn undo(&mut self) -> Result<String, Failure> {
        let text = self.session.undo().ok_or_else(|| Failure::usage("there is nothing to undo"))?;
        self.measure();
        self.printer.note(&format!("forgotten: \"{}\" and its answer", excerpt(&text, 60)));
        Ok(text)
    }

    fn system(&mut self, change: Change<String>) {
        match change {
            Change::Show => match &self.session.system {
                Some(text) => self.printer.told(text),
                None => self.printer.told("no system message"),
            },
            Change::Off => {
                self.session.system = None;
                self.printer.note("system message: none");
            }
            Change::To(text) => {
                self.printer.note(&format!("system message: \"{}\"", excerpt(&text, 60)));
                self.session.system = Some(text);
            }
        }
        self.measure();
    }

    /// `/lora` with files, `/adapter` with names of the library: either replaces all adapters.
    fn adapters(
        &mut self,
        change: Change<Vec<String>>,
        choice: impl Fn(&str) -> Result<AdapterChoice, Failure>,
    ) -> Result<(), Failure> {
        let choices = match change {
            Change::Show => {
                let applied = self.pipeline.check_adapters(&self.request.adapters)?;
                applied_lines(&applied).iter().for_each(|line| self.printer.told(line));
                return Ok(());
            }
            Change::Off => Vec::new(),
            Change::To(words) => words.iter().map(|word| choice(word)).collect::<Result<Vec<_>, _>>()?,
        };
        let applied = self.pipeline.check_adapters(&choices)?;
        self.request.adapters = choices;
        self.request.route = None;
        applied_lines(&applied).iter().for_each(|line| self.printer.note(line));
        Ok(())
    }

    /// `/adapter auto`: from now on the router chooses.
    fn auto(&mut self) -> Result<(), Failure> {
        let routing = self.defaults.route.clone().unwrap_or_default();
        let probe = Request { route: Some(routing.clone()), ..Request::new(Input::Raw(String::new())) };
        self.pipeline.route(&probe)?;
        self.request.adapters.clear();
        self.request.route = Some(routing);
        self.printer.note("adapters: chosen for each message; /route shows how");
        Ok(())
    }

    /// `/route`: how the last answer's adapters were chosen, or what would be chosen for a text.
    fn route(&self, text: &str) -> Result<(), Failure> {
        let route = match (text, &self.last_route) {
            ("", Some(route)) => route.clone(),
            ("", None) => return Err(Failure::usage("nothing was routed yet; /adapter auto has the router choose")),
            (text, _) => {
                let route = self.request.route.clone().or_else(|| Some(Routing::default()));
                self.pipeline.route(&Request { route, ..Request::new(Input::Raw(text.to_owned())) })?
            }
        };
        summary::route_lines(&route).iter().for_each(|line| self.printer.told(line));
        Ok(())
    }

    fn format(
        &mut self,
        change: Change<String>,
        source: impl FnOnce(String) -> Result<Source, Failure>,
    ) -> Result<(), Failure> {
        match change {
            Change::Show => self.printer.told(&format!("format: {}", describe(self.request.format.as_ref()))),
            Change::Off => {
                self.request.format = None;
                self.printer.note("format: none");
            }
            Change::To(text) => {
                let source = source(text)?;
                self.pipeline.check_format(&source)?;
                self.printer.note(&format!("format: {}", describe(Some(&source))));
                self.request.format = Some(source);
            }
        }
        Ok(())
    }

    fn save(&mut self, file: &str, replace: bool) -> Result<(), Failure> {
        let path = expand(file);
        let failed = |e: std::io::Error| Failure::new(Code::Other, format!("/save '{}': {e}", path.display()));
        let known = replace || path.canonicalize().is_ok_and(|p| self.files.contains(&p));
        if path.exists() && !known {
            let message = format!("/save: '{}' is there already; /save -f replaces it", path.display());
            return Err(Failure::usage(message));
        }
        let text = match path.extension().is_some_and(|e| e == "md") {
            true => store::to_markdown(&self.session),
            false => store::to_jsonl(&self.session),
        };
        write_whole(&path, &text).map_err(failed)?;
        self.files.extend(path.canonicalize());
        self.printer.note(&format!("saved: {} messages in '{}'", self.session.messages().len(), path.display()));
        Ok(())
    }

    fn load(&mut self, file: &str) -> Result<(), Failure> {
        let path = expand(file);
        let text = read("/load", file)?;
        let session = store::from_jsonl(&text).map_err(|e| {
            Failure::new(
                Code::InvalidFile,
                format!("/load '{}': {e}; only conversations saved as JSONL can be loaded", path.display()),
            )
        })?;
        self.session = session;
        self.files.extend(path.canonicalize());
        self.measure();
        self.printer
            .note(&format!("loaded: {} messages; adapters and settings are as before", self.session.messages().len()));
        if let Some(turn) = self.session.turns().last() {
            self.printer.note(&format!("last, {}: \"{}\"", turn.message.role, excerpt(&turn.message.content, 60)));
        }
        Ok(())
    }

    fn attach(&mut self, files: &[String]) -> Result<(), Failure> {
        let texts = files.iter().map(|file| read("/read", file)).collect::<Result<Vec<_>, _>>()?;
        if let Some((file, _)) = files.iter().zip(&texts).find(|(_, text)| text.contains('\0')) {
            return Err(Failure::new(Code::InvalidFile, format!("/read '{file}': is not text: it holds a NUL byte")));
        }
        for (file, text) in files.iter().zip(texts) {
            self.printer.note(&format!("'{file}': {} characters go with the next message", text.chars().count()));
            self.session.attach(text);
        }
        Ok(())
    }

    fn stats(&self) {
        let facts = self.pipeline.facts();
        let context =
            format!("{} of {} tokens (the model was trained with {})", self.used, facts.context, facts.context_trained);
        let adapters = match self.request.adapters.len() {
            0 if self.request.route.is_some() => "chosen by the router".to_string(),
            0 => "none (plain base)".to_string(),
            n => format!("{n}; /lora shows them"),
        };
        let mut rows = vec![
            ("model", facts.model.clone()),
            ("adapters", adapters),
            ("format", describe(self.request.format.as_ref())),
            ("messages", self.session.messages().len().to_string()),
            ("context", context),
        ];
        rows.extend(self.totals.lines());
        rows.iter().for_each(|(name, value)| self.printer.told(&format!("{name:<10} {value}")));
    }
}

/// What came of asking for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// An answer, whole or stopped; it is part of the conversation.
    Kept,
    /// It was stopped before it began.
    Nothing,
}

fn file_choice(word: &str) -> Result<AdapterChoice, Failure> {
    let choice = adapter_choice(word)?;
    Ok(match &choice.source {
        AdapterSource::File(path) => AdapterChoice::file(expand(&path.to_string_lossy()), choice.scale),
        AdapterSource::Name(_) => choice,
    })
}

fn applied_lines(applied: &[Applied]) -> Vec<String> {
    match applied {
        [] => vec!["adapters: none (plain base)".into()],
        some => some.iter().map(|a| format!("adapter: {}={} ({})", a.name, a.scale, a.digest)).collect(),
    }
}

fn describe(format: Option<&Source>) -> String {
    match format {
        None => "none".into(),
        Some(Source::Named(name)) => name.clone(),
        Some(Source::Gbnf(text)) => format!("GBNF: {}", excerpt(text, 50)),
        Some(Source::JsonSchema(text) | Source::CheckedSchema(text) | Source::Schema { text, .. }) => {
            format!("JSON Schema: {}", excerpt(text, 50))
        }
        Some(Source::Regex(text)) => format!("regular expression: {}", excerpt(text, 50)),
        Some(Source::ToolCalls(_)) => "tool calls".into(),
    }
}

fn read(command: &str, file: &str) -> Result<String, Failure> {
    read_text(&expand(file), command)
}

/// Writes a file so that it is there whole or not at all, readable to its owner alone.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let name = path.file_name().ok_or_else(|| std::io::Error::other("names no file"))?.to_string_lossy().into_owned();
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written =
        options.open(&part).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    let done = written.and_then(|()| std::fs::rename(&part, path));
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    done
}
