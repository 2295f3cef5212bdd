//! Patterns of `pattern`, `patternProperties` and `format`: ECMA-262 in, the engine's syntax out, and sets of texts
//! as automata in between, for what needs "and not".
//!
//! What no automaton can follow is refused by name; look-ahead right behind a leading `^` becomes a condition of
//! its own.

mod automaton;
mod classes;
mod print;
mod translate;
mod words;

use std::cell::OnceCell;
use std::rc::Rc;

use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};

use super::super::error::GrammarError;
use super::refuse;
pub(super) use automaton::Automaton;
pub(super) use words::Words;

/// Bytes of one pattern, and of one that is worked out.
const LONGEST: usize = 16 << 10;

/// A set of texts: those in which the expression is found. In the syntax of `regex-syntax`, without groups that
/// capture, without flags, with every class spelled out.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    source: String,
    /// The texts, if the pattern is a list of them.
    texts: Option<Vec<String>>,
    regex: OnceCell<Result<Regex, String>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// What must be found, and what must not be found.
type Sides = (Vec<Rc<Pattern>>, Vec<Rc<Pattern>>);

impl Pattern {
    fn of(source: String) -> Self {
        Pattern { source, texts: None, regex: OnceCell::new() }
    }

    /// A pattern of a schema: what must be found and what must not be found.
    pub fn read(text: &str) -> Result<Sides, String> {
        if text.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes"));
        }
        let (like, unlike) = translate::translate(text)?;
        let build = |sources: Vec<String>| -> Result<Vec<Rc<Pattern>>, String> {
            sources.iter().map(|source| Ok(Rc::new(Pattern::of(normal(source)?)))).collect()
        };
        Ok((build(like)?, build(unlike)?))
    }

    /// A pattern of ours that the whole text must match.
    pub fn whole(source: &str) -> Result<Pattern, String> {
        Ok(Pattern::of(normal(&format!("^(?:{source})$"))?))
    }

    /// A pattern out of [`Pattern::source`].
    pub fn printed(source: &str) -> Pattern {
        Pattern::of(source.to_owned())
    }

    /// These texts and no others.
    pub fn literals(texts: &[&str]) -> Pattern {
        let list: Vec<String> = texts.iter().map(|text| regex_syntax::escape(text)).collect();
        let texts = Some(texts.iter().map(|&text| text.to_owned()).collect());
        Pattern { source: format!("^(?:{})$", list.join("|")), texts, regex: OnceCell::new() }
    }

    /// In the engine's syntax.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the pattern is found in the text.
    pub fn found_in(&self, text: &str) -> Result<bool, GrammarError> {
        if let Some(texts) = &self.texts {
            return Ok(texts.iter().any(|known| known == text));
        }
        let compile = || {
            let builder = regex::RegexBuilder::new(&self.source).size_limit(4 << 20).dfa_size_limit(4 << 20).build();
            builder.map_err(|_| "the pattern is too large".to_owned())
        };
        match self.regex.get_or_init(compile) {
            Ok(regex) => Ok(regex.is_match(text)),
            Err(message) => Err(refuse("", Some("pattern"), message.clone())),
        }
    }

    /// As an automaton.
    pub fn automaton(&self) -> Result<Automaton, GrammarError> {
        Automaton::of(&self.source).ok_or_else(|| refuse("", Some("pattern"), "the pattern is too large to work out"))
    }

    /// Texts with this pattern and without any of `others`; none if there are no such texts.
    pub fn without(this: &Rc<Pattern>, others: &[Rc<Pattern>]) -> Result<Option<Pattern>, GrammarError> {
        Pattern::combined(std::slice::from_ref(this), others)
    }

    /// Texts with all of `like` and none of `unlike`.
    pub fn combined(like: &[Rc<Pattern>], unlike: &[Rc<Pattern>]) -> Result<Option<Pattern>, GrammarError> {
        if like.is_empty()
            && let [unlike] = unlike
            && let Some(texts) = &unlike.texts
        {
            return Ok(Some(Pattern::of(print::all_but(texts))));
        }
        let too_large = || refuse("", Some("pattern"), "the patterns are too large to work out together");
        let automaton = Automaton::combined(like, unlike)?.ok_or_else(too_large)?;
        Pattern::from_automaton(&automaton)
    }

    /// The texts of an automaton; none if there are none.
    pub fn from_automaton(automaton: &Automaton) -> Result<Option<Pattern>, GrammarError> {
        if automaton.is_empty() {
            return Ok(None);
        }
        let source = print::expression(automaton)
            .filter(|source| source.len() <= 4 * LONGEST)
            .ok_or_else(|| refuse("", Some("pattern"), "the patterns are too large to write out together"))?;
        Ok(Some(Pattern::of(source)))
    }
}

/// Parses and prints: checks the syntax, drops captures.
fn normal(source: &str) -> Result<String, String> {
    let hir = parse(source).map_err(|error| match *error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        _ => "not a regular expression".to_owned(),
    })?;
    if size(&hir) > 100_000 {
        return Err("repeats too much".to_owned());
    }
    print::source(&hir)
}

fn parse(source: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    regex_syntax::ParserBuilder::new().nest_limit(60).build().parse(source).map_err(Box::new)
}

/// Characters of the expression with repetitions written out.
fn size(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.max(1));
            u64::from(times.max(1)).saturating_mul(size(&repetition.sub))
        }
        HirKind::Capture(capture) => size(&capture.sub),
        HirKind::Concat(subs) | HirKind::Alternation(subs) => subs.iter().map(size).fold(1, u64::saturating_add),
        HirKind::Literal(literal) => literal.0.len() as u64,
        _ => 1,
    }
}
