//! `smoa route`: what the router would choose, and why; no model is loaded.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::args::{LibraryArgs, pairs, read_text};
use super::exit::Outcome;
use super::jsonl::{LineText, MAX_LINE, read_line};
use super::summary;
use crate::error::{Code, Failure};
use crate::request::Routing;
use crate::router::index::Gate;
use crate::router::{Route, Strategy};
use crate::routing::{Ask, Labelled, Router};
use crate::shelf::routing_failure;
use crate::wire;

/// Tell which adapters a request would get, and why, without loading a model
///
/// Strategies: keyword (words alone), semantic (meaning alone), task (by tags), hybrid (words and meaning, weighed by
/// how much text an adapter has), hierarchical (domain, then specialty, then adapter), mixture (several with weights),
/// learned (after `smoa adapter train-router`).
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct RouteCommand {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Subcommand, Debug)]
enum Action {
    Eval(EvalArgs),
}

#[derive(Args, Debug)]
struct AskArgs {
    /// The request
    #[arg(required_unless_present = "jsonl")]
    text: Option<String>,
    /// Route each line of standard input: {"id", "text" or "prompt", "metadata"}; one result per line
    #[arg(long, conflicts_with = "text")]
    jsonl: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Show the candidates with what spoke for each
    #[arg(long)]
    explain: bool,
    /// What must hold of an adapter, as region=eu; may be repeated; a key given twice allows either value
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Leave out adapters that say nothing of a key in the metadata
    #[arg(long)]
    strict: bool,
    /// How to choose [default: learned where it was trained, else hybrid]
    #[arg(long, value_name = "NAME")]
    strategy: Option<Strategy>,
    /// Most adapters, 1 to 5 [default: 1; 3 for mixture]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Least confidence, 0 to 1; below it the plain base answers [default: the probability that no adapter is
    /// for the request]
    #[arg(long, value_name = "P")]
    threshold: Option<f32>,
    #[command(flatten)]
    library: LibraryArgs,
}

/// Route labelled requests by every strategy and tell how many were right
#[derive(Args, Debug)]
struct EvalArgs {
    /// Lines of {"text": .., "label": NAME}; the label `oos` is for requests that no adapter is for
    file: PathBuf,
    /// Only this strategy; may be repeated
    #[arg(long, value_name = "NAME")]
    strategy: Vec<Strategy>,
    /// One JSON object with every figure
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    library: LibraryArgs,
}

/// Runs `smoa route`.
///
/// # Errors
/// With the documented exit code: 3 without a library, 9 when lines failed.
pub fn run(command: RouteCommand, context: &Context) -> Result<(), Outcome> {
    match command.action {
        Some(Action::Eval(args)) => eval(&args, context),
        None if command.ask.jsonl => lines(&command.ask, context),
        None => one(&command.ask, context),
    }
}

fn open(library: &LibraryArgs, context: &Context) -> Result<Router, Failure> {
    let mut notice = |text: String| context.printer.note(&text);
    Router::open(&library.folder()?, library.embedders()?, &mut notice).map_err(|e| routing_failure(&e))
}

impl AskArgs {
    fn ask(&self, text: String, metadata: Vec<(String, String)>) -> Result<Ask, Failure> {
        let routing = Routing { metadata, strategy: self.strategy, top_k: self.top_k, threshold: self.threshold };
        routing.validate()?;
        let Routing { metadata, strategy, top_k, threshold } = routing;
        Ok(Ask { text, metadata, strict: self.strict, strategy, top_k, threshold })
    }
}

fn one(args: &AskArgs, context: &Context) -> Result<(), Outcome> {
    let ask = args.ask(args.text.clone().unwrap_or_default(), pairs("--metadata", &args.metadata)?)?;
    let router = open(&args.library, context)?;
    let route = router.route(&ask).map_err(|e| routing_failure(&e))?;
    if args.json {
        return Ok(context.printer.line(&wire::route_value(&route).to_string())?);
    }
    for line in summary::route_lines(&route).iter().take(if args.explain { usize::MAX } else { 2 }) {
        context.printer.line(&crate::error::printable(line))?;
    }
    Ok(())
}

fn lines(args: &AskArgs, context: &Context) -> Result<(), Outcome> {
    let given = pairs("--metadata", &args.metadata)?;
    let router = open(&args.library, context)?;
    let mut input = BufReader::with_capacity(1 << 16, std::io::stdin().lock());
    let mut failed = false;
    loop {
        let read = read_line(&mut input, MAX_LINE);
        let text = match read.map_err(|e| Failure::new(Code::Other, format!("standard input: {e}")))? {
            None => break,
            Some(LineText::Blank) => continue,
            Some(LineText::Refused(failure)) => Err(failure),
            Some(LineText::Text(text)) => Ok(text),
        };
        let mut id = Value::Null;
        let routed = text.and_then(|text| {
            let (found, asked, mut metadata) = line(&text)?;
            id = found;
            metadata.extend(given.iter().cloned());
            let ask = args.ask(asked, metadata)?;
            router.route(&ask).map_err(|e| routing_failure(&e))
        });
        let value = match &routed {
            Ok(route) => with_id(&id, route),
            Err(failure) => wire::error_value(&id, failure),
        };
        failed |= routed.is_err();
        context.printer.line(&value.to_string())?;
    }
    if failed { Err(Outcome::Silent(Code::SomeLinesFailed)) } else { Ok(()) }
}

fn with_id(id: &Value, route: &Route) -> Value {
    let mut value = json!({"id": id});
    if let (Value::Object(all), Value::Object(more)) = (&mut value, wire::route_value(route)) {
        all.extend(more);
    }
    value
}

type Line = (Value, String, Vec<(String, String)>);

/// Reads a line to route; a bare JSON text is one, too.
fn line(text: &str) -> Result<Line, Failure> {
    let wrong = |what: &str| Failure::usage(what.to_owned());
    let value: Value = serde_json::from_str(text).map_err(|e| Failure::usage(format!("not valid JSON: {e}")))?;
    if let Value::String(text) = value {
        return Ok((Value::Null, text, Vec::new()));
    }
    let object = value.as_object().ok_or_else(|| wrong("a line must hold a JSON object or a text"))?;
    let text = object.get("text").or_else(|| object.get("prompt")).and_then(Value::as_str);
    let text = text.ok_or_else(|| wrong("text: must be a string"))?.to_owned();
    let metadata = object.get("metadata").map(wire::metadata).transpose();
    let metadata = metadata.map_err(|e| Failure::usage(e.to_string()))?.unwrap_or_default();
    Ok((object.get("id").cloned().unwrap_or(Value::Null), text, metadata))
}

/// Reads lines of `{"text", "label"}`.
///
/// # Errors
/// The file cannot be read; a line is something else, by its number.
pub fn read_labelled(path: &Path) -> Result<Vec<Labelled>, Failure> {
    let text = read_text(path, "FILE")?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value: Option<Value> = serde_json::from_str(line).ok();
        let field = |name: &str| value.as_ref().and_then(|v| v.get(name)).and_then(Value::as_str).map(str::to_owned);
        let (Some(text), Some(label)) = (field("text"), field("label")) else {
            let message = format!("'{}', line {}: not {{\"text\": .., \"label\": ..}}", path.display(), number + 1);
            return Err(Failure::new(Code::InvalidFile, message));
        };
        rows.push(Labelled { text, label });
    }
    Ok(rows)
}

fn eval(args: &EvalArgs, context: &Context) -> Result<(), Outcome> {
    let rows = read_labelled(&args.file)?;
    let router = open(&args.library, context)?;
    let strategies = if args.strategy.is_empty() { Strategy::ALL.to_vec() } else { args.strategy.clone() };
    let thresholds = router.thresholds();
    let all = router.evaluate(&rows, &strategies, &thresholds, &Gate::open()).map_err(|e| routing_failure(&e))?;
    if args.json {
        let strategies: Vec<Value> = all.iter().map(|figures| figures.to_json()).collect();
        let value = json!({"adapters": router.len(), "requests": rows.len(), "strategies": strategies});
        return Ok(context.printer.line(&value.to_string())?);
    }
    context.printer.line(&format!(
        "{:<13} {:>6} {:>6} {:>6} {:>6}  {:>15}  {:>8} {:>8}",
        "strategy", "top-1", "top-5", "AUROC", "FPR@95", "98 %: cover/acc", "p50 ms", "p95 ms"
    ))?;
    let number = |value: &Value| value.as_f64().map_or_else(|| "-".into(), |n| format!("{n:.1}"));
    for figures in &all {
        let v = figures.to_json();
        let best = if v["selective_98"].is_null() { &v["selective_98_best"] } else { &v["selective_98"] };
        let ms = |name: &str| v["ms"][name].as_f64().unwrap_or_default();
        context.printer.line(&format!(
            "{:<13} {:>6} {:>6} {:>6} {:>6}  {:>8}/{:<6}  {:>8.3} {:>8.3}",
            figures.strategy.name(),
            number(&v["top1"]),
            number(&v["top5"]),
            number(&v["auroc"]),
            number(&v["fpr95"]),
            number(&best["coverage"]),
            number(&best["accuracy"]),
            ms("p50"),
            ms("p95")
        ))?;
    }
    Ok(())
}
