//! From a schema or tools to a matcher of `llguidance`.
//!
//! Strict: what it does not support is an error at compile time. White space between the parts of a value is optional
//! and bounded, see [`WHITESPACE`].

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use llguidance::api::{GrammarInit, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::super::error::{GrammarError, one_line};
use super::super::limits::Limits;
use super::super::path::Required;
use super::super::plan::Endings;
use super::super::report::SchemaReport;
use super::super::schema::{self, KeyOrder, Rewritten, SchemaMode, SchemaNote};
use super::super::tools::{self, ToolCalls};
use super::super::unique::UniqueArrays;
use super::super::vocabulary::Vocabulary;
use super::{Template, direct};

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

/// Rewrites and compiles a schema.
pub(in super::super) fn from_schema(
    text: &str,
    mode: SchemaMode,
    order: KeyOrder,
    limits: &Limits,
    vocabulary: &Arc<Vocabulary>,
) -> Result<(Template, SchemaReport), GrammarError> {
    let factory = vocabulary.factory()?;
    let references = text.matches("$ref").count() + text.matches("allOf").count();
    on_a_large_stack(references, || {
        let Rewritten { mut plan, original } = schema::rewrite(text, mode, limits)?;
        let (grammar, matcher, size) = compile(factory, &mut plan, order)?;
        let required = Arc::new(plan.required());
        let (notes, unchecked) = (std::mem::take(&mut plan.notes), std::mem::take(&mut plan.unchecked));
        let report = SchemaReport::new(notes, unchecked, original)?;
        let unique = std::mem::take(&mut plan.unique);
        let unique = (!unique.is_empty()).then(|| Arc::new(unique));
        let vocabulary = Arc::clone(vocabulary);
        let endings = Some(Arc::new(Endings::new(plan, Arc::clone(&vocabulary))));
        let bytes = OnceLock::new();
        Ok((Template { vocabulary, grammar, matcher, bytes, size, references, unique, required, endings }, report))
    })
}

type Ready = (GrammarInit, Matcher, usize);

/// As rules with keys in any order, if that is wanted and can be; else as a schema with keys in its order.
fn compile(factory: &ParserFactory, plan: &mut schema::Plan, order: KeyOrder) -> Result<Ready, GrammarError> {
    if order == KeyOrder::Any {
        if let Some(rules) = plan.rules(&options()) {
            if let Some(grammar) = direct::build(&rules, ESCAPES, factory.limits())
                && let Ok(matcher) = parser(factory, &grammar)
            {
                return Ok((grammar, matcher, rules.size()));
            }
            let text = rules.text(str::to_owned);
            let size = text.len();
            let grammar = GrammarInit::Serialized(TopLevelGrammar::from_lark(text));
            if let Ok(matcher) = parser(factory, &grammar) {
                return Ok((grammar, matcher, size));
            }
        }
        let message = "keys come in the order of the schema, as rules for any order would be too large".to_owned();
        plan.notes.push(SchemaNote { pointer: String::new(), keyword: "properties".to_owned(), message });
    }
    let (schema, origins) = plan.schema();
    let size = schema.to_string().len();
    let grammar = grammar(schema);
    let matcher = parser(factory, &grammar).map_err(|error| at_origin(error, &origins))?;
    Ok((grammar, matcher, size))
}

/// The engine's form of a rewritten schema.
fn grammar(schema: Value) -> GrammarInit {
    let mut schema = match schema {
        Value::Object(object) => object,
        // Options can only be attached to an object.
        other => serde_json::Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    schema.insert("x-guidance".to_owned(), options());
    GrammarInit::Serialized(TopLevelGrammar::from_json_schema(Value::Object(schema)))
}

/// How the engine is to read schemas.
pub(super) fn options() -> Value {
    json!({
        "whitespace_flexible": true,
        "whitespace_pattern": WHITESPACE,
        "lenient": false,
        "coerce_one_of": false,
        "json_allowed_escapes": ESCAPES,
    })
}

/// Compiles the envelope of tool calls around the schemas of their arguments.
pub(in super::super) fn from_calls(
    calls: &ToolCalls,
    vocabulary: &Arc<Vocabulary>,
    limits: &Limits,
) -> Result<Template, GrammarError> {
    let factory = vocabulary.factory()?;
    let count = |text: &str| text.matches("$ref").count() + text.matches("allOf").count();
    let references = calls.tools.iter().map(|tool| count(&tool.parameters)).sum();
    on_a_large_stack(references, || {
        let mut plans = Vec::with_capacity(calls.tools.len());
        for (index, tool) in calls.tools.iter().enumerate() {
            let schema = schema::rewrite(&tool.parameters, SchemaMode::Strict, limits);
            plans.push(schema.map_err(|error| of_tool(error, index, &tool.name))?.plan);
        }
        let (grammar, matcher, size) = compile_calls(factory, calls, &plans)?;
        let mut required = Required::default();
        plans.iter().for_each(|plan| required.take_in(tools::arguments_key(calls), plan.required()));
        let unique = UniqueArrays::under(tools::arguments_key(calls), plans.into_iter().map(|plan| plan.unique));
        let unique = (!unique.is_empty()).then(|| Arc::new(unique));
        let (vocabulary, required) = (Arc::clone(vocabulary), Arc::new(required));
        let bytes = OnceLock::new();
        Ok(Template { vocabulary, grammar, matcher, bytes, size, references, unique, required, endings: None })
    })
}

/// With arguments in any order if that can be, else in the order of their schemas.
fn compile_calls(factory: &ParserFactory, calls: &ToolCalls, plans: &[schema::Plan]) -> Result<Ready, GrammarError> {
    let rules: Option<Vec<schema::Rules>> = plans.iter().map(|plan| plan.rules(&options())).collect();
    if let Some(rules) = rules {
        let text = tools::grammar_of_rules(calls, &rules);
        let size = text.len();
        let grammar = GrammarInit::Serialized(TopLevelGrammar::from_lark(text));
        if let Ok(matcher) = parser(factory, &grammar) {
            return Ok((grammar, matcher, size));
        }
    }
    let schemas: Vec<Value> = plans.iter().map(|plan| plan.schema().0).collect();
    let text = tools::grammar(calls, &schemas, &options());
    let size = text.len();
    let grammar = GrammarInit::Serialized(TopLevelGrammar::from_lark(text));
    let matcher = parser(factory, &grammar)?;
    Ok((grammar, matcher, size))
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
pub(super) fn on_a_large_stack<T: Send>(
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

pub(super) fn parser(factory: &ParserFactory, grammar: &GrammarInit) -> Result<Matcher, GrammarError> {
    let parser =
        factory.create_parser_from_init_default(grammar.clone()).map_err(|error| refusal(&format!("{error:#}")))?;
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
