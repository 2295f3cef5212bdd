//! JSON Schemas, enforced by the crate `llguidance`.
//!
//! Strict: what it does not support is an error at compile time. White space between the parts of a value is optional
//! and bounded, see [`WHITESPACE`]. Object keys come in the order of the schema, as the engine demands.
//!
//! Once a matcher of `llguidance` has failed it stays failed, and so does ours.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::compiled::MatchResult;
use super::error::{GrammarError, MatcherError, one_line};
use super::limits::Limits;
use super::mask::TokenMask;
use super::plan::Plan;
use super::report::SchemaReport;
use super::schema::{self, SchemaMode};
use super::tools::{self, ToolCalls};
use super::unique::{Follower, UniqueArrays};
use super::vocabulary::Vocabulary;

/// White space that may stand between two parts of a JSON value: none, one blank, or a new line with indentation.
///
/// The language of llama.cpp's schema converter, for the same reason: a small model that may write white space
/// without end does, and never finishes. One blank covers `{"a": 1, "b": 2}`, a new line covers pretty printing.
const WHITESPACE: &str = r" |\n{1,2}[ \t]{0,20}";

/// Letters that may stand behind `\\` in a string. Without `u`: the engine compares keys as they are spelled, so with it
/// a key spelled `"\\u0061"` would pass for another one than `"a"`.
const ESCAPES: &str = "nrbtf\\\"";

/// Stack of the thread that compiles, for a schema without references.
const STACK: usize = 8 << 20;
/// More stack per reference: the engine follows chains of them by recursion.
const STACK_PER_REFERENCE: usize = 32 << 10;
/// No more stack than this. Only touched pages count.
const STACK_MOST: usize = 256 << 20;

/// After this many tokens or bytes without a mask, one is worked out for its side effect.
///
/// The engine's work limit is renewed only by a mask. Without this a long text checked token by token would use the
/// limit of one step for all of it, and then every token would be refused.
const RENEW: usize = 4;

/// A compiled schema.
pub(super) struct Template {
    vocabulary: Arc<Vocabulary>,
    grammar: TopLevelGrammar,
    /// Never advanced; every sequence gets a copy with caches of its own.
    matcher: Matcher,
    /// The same over single bytes, for [`Template::matches`].
    bytes: OnceLock<Matcher>,
    /// Bytes of the rewritten schema.
    size: usize,
    references: usize,
    /// Arrays whose items must differ, if there are any.
    unique: Option<Arc<UniqueArrays>>,
}

/// Rewrites and compiles a schema.
pub(super) fn from_schema(
    text: &str,
    mode: SchemaMode,
    limits: &Limits,
    vocabulary: &Arc<Vocabulary>,
) -> Result<(Template, SchemaReport), GrammarError> {
    let factory = vocabulary.factory()?;
    let references = text.matches("$ref").count() + text.matches("allOf").count();
    let compiled = on_a_large_stack(references, || {
        let rewritten = schema::rewrite(text, mode, limits)?;
        let size = rewritten.value.to_string().len();
        let grammar = grammar(rewritten.value);
        let matcher = parser(factory, &grammar).map_err(|error| at_origin(error, &rewritten.origins))?;
        let report = SchemaReport::new(rewritten.notes, rewritten.unchecked, rewritten.original)?;
        let unique = (!rewritten.unique.is_empty()).then(|| Arc::new(rewritten.unique));
        Ok((grammar, matcher, size, report, unique))
    })?;
    let (grammar, matcher, size, report, unique) = compiled;
    let vocabulary = Arc::clone(vocabulary);
    Ok((Template { vocabulary, grammar, matcher, bytes: OnceLock::new(), size, references, unique }, report))
}

/// The engine's form of a rewritten schema.
fn grammar(schema: Value) -> TopLevelGrammar {
    let mut schema = match schema {
        Value::Object(object) => object,
        // Options can only be attached to an object.
        other => serde_json::Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    schema.insert("x-guidance".to_owned(), options());
    TopLevelGrammar::from_json_schema(Value::Object(schema))
}

/// How the engine is to read schemas.
fn options() -> Value {
    json!({
        "whitespace_flexible": true,
        "whitespace_pattern": WHITESPACE,
        "lenient": false,
        "coerce_one_of": false,
        "json_allowed_escapes": ESCAPES,
    })
}

/// Compiles the envelope of tool calls around the schemas of their arguments.
pub(super) fn from_calls(
    calls: &ToolCalls,
    vocabulary: &Arc<Vocabulary>,
    limits: &Limits,
) -> Result<Template, GrammarError> {
    let factory = vocabulary.factory()?;
    let count = |text: &str| text.matches("$ref").count() + text.matches("allOf").count();
    let references = calls.tools.iter().map(|tool| count(&tool.parameters)).sum();
    let (grammar, matcher, size) = on_a_large_stack(references, || {
        let mut schemas = Vec::with_capacity(calls.tools.len());
        for (index, tool) in calls.tools.iter().enumerate() {
            let schema = schema::rewrite(&tool.parameters, SchemaMode::Strict, limits);
            let schema = schema.map_err(|error| of_tool(error, index, &tool.name))?;
            if !schema.unique.is_empty() {
                let error = GrammarError::Schema {
                    pointer: String::new(),
                    keyword: Some("uniqueItems".to_owned()),
                    message: "cannot be enforced inside a tool call".to_owned(),
                };
                return Err(of_tool(error, index, &tool.name));
            }
            schemas.push(schema.value);
        }
        let text = tools::grammar(calls, schemas, &options());
        let size = text.len();
        let grammar = TopLevelGrammar::from_lark(text);
        let matcher = parser(factory, &grammar)?;
        Ok((grammar, matcher, size))
    })?;
    let vocabulary = Arc::clone(vocabulary);
    Ok(Template { vocabulary, grammar, matcher, bytes: OnceLock::new(), size, references, unique: None })
}

/// An error in the schema of one tool, with the tool's place and name.
fn of_tool(error: GrammarError, index: usize, name: &str) -> GrammarError {
    match error {
        GrammarError::Schema { pointer, keyword, message } => GrammarError::Schema {
            pointer: format!("/tools/{index}/function/parameters{pointer}"),
            keyword,
            message: format!("tool '{name}': {message}"),
        },
        other => other,
    }
}

/// Runs `work` on a thread with room for its recursion.
fn on_a_large_stack<T: Send>(
    references: usize,
    work: impl FnOnce() -> Result<T, GrammarError> + Send,
) -> Result<T, GrammarError> {
    let stack = (STACK + references * STACK_PER_REFERENCE).min(STACK_MOST);
    let failed = |message: &str| GrammarError::Engine { message: message.to_owned() };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(stack)
            .spawn_scoped(scope, work)
            .map_err(|_| failed("no memory for the compiler's stack"))?;
        thread.join().map_err(|_| failed("the schema compiler gave up"))?
    })
}

fn parser(factory: &ParserFactory, grammar: &TopLevelGrammar) -> Result<Matcher, GrammarError> {
    let parser = factory.create_parser(grammar.clone()).map_err(|error| refusal(&format!("{error:#}")))?;
    let matcher = Matcher::new(Ok(parser));
    match matcher.get_error() {
        Some(error) => Err(refusal(&error)),
        None => Ok(matcher),
    }
}

/// The same refusal with the place in the schema as it was before it was rewritten.
fn at_origin(error: GrammarError, origins: &HashMap<String, String>) -> GrammarError {
    match error {
        GrammarError::Schema { pointer, keyword, message } => {
            let name = pointer.strip_prefix("/$defs/").and_then(|rest| rest.split('/').next());
            let origin = name.and_then(|name| origins.get(name)).cloned();
            GrammarError::Schema { pointer: origin.unwrap_or_default(), keyword, message }
        }
        other => other,
    }
}

/// A compile error of the engine, with the place it names if it names one.
fn refusal(message: &str) -> GrammarError {
    let mut pointer = String::new();
    let mut lines: Vec<&str> = Vec::new();
    let text = message.split("\n<backtrace>").next().unwrap_or_default();
    for line in text.lines() {
        match line.trim().strip_prefix("while processing ") {
            Some(place) => {
                // `#/definitions/x: what is wrong there`
                let place = place.split(": ").next().unwrap_or_default();
                pointer = place.trim_start_matches('#').to_owned();
            }
            // The engine repeats the message for each level it passes.
            None if lines.contains(&line) => {}
            None => lines.push(line),
        }
    }
    let mut message = one_line(&lines.join("\n"));
    if message.contains("oneOf constraints are not supported") {
        message = "the branches of 'oneOf' may overlap, which cannot be enforced; use 'anyOf'".to_owned();
    } else if message.starts_with("regex parse error")
        && let Some((_, error)) = message.split_once("; error: ")
    {
        // The lines between show the pattern with a caret.
        message = format!("in 'pattern': {error}");
    }
    let keyword = ["oneOf", "patternProperties", "pattern", "format", "multipleOf"]
        .into_iter()
        .find(|keyword| message.contains(keyword));
    GrammarError::Schema { pointer, keyword: keyword.map(str::to_owned), message }
}

impl Template {
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    pub fn start(&self) -> Guided {
        Guided {
            vocabulary: Arc::clone(&self.vocabulary),
            matcher: self.matcher.deep_clone(),
            follower: self.unique.clone().map(Follower::new),
            mask: None,
            unmasked: 0,
            finished: false,
            plan: Plan::default(),
            closing: TokenMask::default(),
        }
    }

    /// See [`Compiled::matches`](super::Compiled::matches).
    pub fn matches(&self, text: &[u8]) -> Result<MatchResult, MatcherError> {
        let matcher = match self.bytes.get() {
            Some(matcher) => matcher,
            None => {
                let factory = byte_factory()?;
                let matcher = on_a_large_stack(self.references, || parser(factory, &self.grammar));
                let matcher = matcher.map_err(|error| engine(&error))?;
                self.bytes.get_or_init(|| matcher)
            }
        };
        let result = match_bytes(matcher.deep_clone(), text, RENEW)
            // The work limit was for too many bytes at once.
            .or_else(|_| match_bytes(matcher.deep_clone(), text, 1))?;
        if let Some(arrays) = &self.unique {
            let taken = if let MatchResult::Rejected { at } = result { at } else { text.len() };
            let mut follower = Follower::new(Arc::clone(arrays));
            for (at, byte) in text[..taken].iter().enumerate() {
                if follower.feed(&[*byte]).is_err() {
                    return Ok(MatchResult::Rejected { at });
                }
            }
        }
        Ok(result)
    }

    /// Bytes held, roughly: the engine does not tell. Its automata take some hundred times the text.
    pub fn bytes(&self) -> usize {
        (256 << 10) + self.size * 200
    }
}

/// Follows `text` from its beginning, `step` bytes at a time.
fn match_bytes(mut matcher: Matcher, text: &[u8], step: usize) -> Result<MatchResult, MatcherError> {
    // Byte 0xFF is in no text, and is no token of the byte vocabulary.
    let plain = text.split(|&byte| byte == 0xFF).next().unwrap_or_default();
    let tokens: Vec<u32> = plain.iter().map(|&byte| u32::from(byte)).collect();
    let mut taken = 0;
    for part in tokens.chunks(step) {
        let count = matcher.try_consume_tokens(part).map_err(|error| engine(&error))?;
        taken += count;
        if matcher.is_stopped() {
            break;
        }
        // Also tells a refusal by the work limit from one by the schema.
        matcher.compute_mask().map_err(|error| engine(&error))?;
        if count < part.len() {
            break;
        }
    }
    if taken < text.len() {
        return Ok(MatchResult::Rejected { at: taken });
    }
    Ok(match complete(&mut matcher)? {
        true => MatchResult::Complete,
        false => MatchResult::Prefix,
    })
}

/// One sequence.
pub(super) struct Guided {
    pub(super) vocabulary: Arc<Vocabulary>,
    pub(super) matcher: Matcher,
    pub(super) follower: Option<Follower>,
    /// The mask here, if it is known.
    pub(super) mask: Option<TokenMask>,
    /// Tokens accepted since the last mask.
    unmasked: usize,
    /// An end token was accepted.
    finished: bool,
    /// How the text can be brought to its end, see `plan`.
    pub(super) plan: Plan,
    /// The last closing mask.
    pub(super) closing: TokenMask,
}

impl Guided {
    pub fn allows(&mut self, token: u32) -> Result<bool, MatcherError> {
        self.check()?;
        if self.vocabulary.is_end(token) {
            return complete(&mut self.matcher);
        }
        if !self.vocabulary.is_text(token) || self.matcher.is_stopped() {
            return Ok(false);
        }
        let piece = self.vocabulary.piece(token);
        let follows = self.follower.as_ref().is_none_or(|follower| follower.allows(piece));
        Ok(follows && self.matcher.validate_tokens(&[token]).map_err(|error| engine(&error))? == 1)
    }

    pub fn accept(&mut self, token: u32) -> Result<(), MatcherError> {
        // Asked first, because a token that the engine itself refuses leaves it failed.
        if !self.allows(token)? {
            return Err(MatcherError::Refused { token });
        }
        if self.vocabulary.is_end(token) {
            self.finished = true;
            return Ok(());
        }
        self.mask = None;
        self.matcher.consume_token(token).map_err(|error| engine(&error))?;
        self.plan.follow(token);
        if let Some(follower) = &mut self.follower {
            follower.feed(self.vocabulary.piece(token)).map_err(|_| MatcherError::Refused { token })?;
        }
        self.unmasked += 1;
        if self.unmasked >= RENEW && !self.matcher.is_stopped() {
            self.mask = Some(self.compute_mask()?);
        }
        Ok(())
    }

    pub fn mask(&mut self) -> Result<&TokenMask, MatcherError> {
        self.check()?;
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => self.compute_mask()?,
        };
        if mask.is_empty() {
            return Err(MatcherError::DeadEnd);
        }
        Ok(self.mask.insert(mask))
    }

    fn compute_mask(&mut self) -> Result<TokenMask, MatcherError> {
        let complete = complete(&mut self.matcher)?;
        let tokens = self.vocabulary.len();
        let mut mask = match self.matcher.is_stopped() {
            true => TokenMask::empty(tokens),
            false => {
                let set = self.matcher.compute_mask().map_err(|error| engine(&error))?;
                TokenMask::from_words(set.as_slice(), tokens)
            }
        };
        if let Some(follower) = &self.follower {
            let piece = |token: &u32| self.vocabulary.piece(*token);
            let concerned = mask.iter().filter(|token| follower.concerns(piece(token)));
            let refused: Vec<u32> = concerned.filter(|token| !follower.allows(piece(token))).collect();
            refused.into_iter().for_each(|token| mask.remove(token));
        }
        for &end in self.vocabulary.end_tokens() {
            match complete {
                true => mask.insert(end),
                false => mask.remove(end),
            }
        }
        self.unmasked = 0;
        Ok(mask)
    }

    pub fn may_stop(&mut self) -> bool {
        self.check().is_ok() && complete(&mut self.matcher).unwrap_or(false)
    }

    pub fn must_stop(&mut self) -> bool {
        self.may_stop() && self.matcher.is_stopped()
    }

    pub(super) fn check(&self) -> Result<(), MatcherError> {
        if self.finished {
            return Err(MatcherError::Finished);
        }
        match self.matcher.get_error() {
            Some(message) => Err(MatcherError::Engine { message: one_line(&message) }),
            None => Ok(()),
        }
    }
}

/// Whether the text so far is a whole value.
pub(super) fn complete(matcher: &mut Matcher) -> Result<bool, MatcherError> {
    match matcher.stop_reason() {
        // It stops by itself only where the text is complete and nothing can follow.
        StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence => Ok(true),
        _ => matcher.is_accepting().map_err(|error| engine(&error)),
    }
}

pub(super) fn engine(error: &impl std::fmt::Display) -> MatcherError {
    MatcherError::Engine { message: one_line(&error.to_string()) }
}

/// A parser factory over `environment`. `slices`: sets of tokens whose masks are worked out ahead.
pub(super) fn factory(environment: &TokEnv, slices: &[String]) -> Result<ParserFactory, String> {
    let mut factory = ParserFactory::new(environment, InferenceCapabilities::default(), slices)
        .map_err(|error| one_line(&error.to_string()))?;
    factory.quiet();
    // Messages for users, not dumps of the parser.
    factory.limits_mut().verbose_errors = false;
    // A thousand optional keys are some four thousand items.
    factory.limits_mut().max_items_in_row = 10_000;
    // Some 70 ms for one mask, where the default of 14 ms fails patterns that count words and characters at once.
    factory.limits_mut().step_lexer_fuel = 1_000_000;
    Ok(factory)
}

/// The factory for texts without tokens: every byte is one, 256 ends.
fn byte_factory() -> Result<&'static ParserFactory, MatcherError> {
    static FACTORY: OnceLock<Result<ParserFactory, String>> = OnceLock::new();
    FACTORY
        .get_or_init(|| {
            let words: Vec<Vec<u8>> = (0..=256u32)
                .map(|id| u8::try_from(id).ok().filter(|&byte| byte != 0xFF))
                .map(|byte| byte.into_iter().collect())
                .collect();
            let trie = TokTrie::from(&TokRxInfo::new(257, 256), &words);
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            factory(&environment, &[])
        })
        .as_ref()
        .map_err(|message| MatcherError::Engine { message: message.clone() })
}
