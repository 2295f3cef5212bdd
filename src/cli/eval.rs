//! `smoa eval`: a task file through the engine, once for each choice of adapters, and what the answers are worth.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use super::args::{FormatArgs, LibraryArgs, ModelArgs, adapter_choice, named_choice};
use super::exit::Outcome;
use super::jsonl::{LineText, MAX_LINE, read_line};
use super::signals::Signals;
use super::{Context, start};
use crate::error::{Code, Failure, printable};
use crate::eval::{Metric, Row, Scores, Speaker, read_row};
use crate::event::FinishReason;
use crate::pipeline::{Pipeline, Ticket};
use crate::prompt::{Message, Role};
use crate::request::{AdapterChoice, Input, Request, Routing};
use crate::router::Strategy;
use crate::sampling::Sampling;
use crate::scheduler::{CancelToken, JobLimits};
use crate::wire;

/// Answer a task file with chosen adapters and score the answers
///
/// Each line of the file is {"messages": [.., {"role": "assistant", "content": ANSWER WANTED}], "meta": {..}}. The most
/// likely token is always taken. One row of the table for each --adapter; shares are in percent. Metrics: json (objects
/// and fields), sql (rows found in SQLite; needs meta.setup), exact, label, number, chrf, rouge, slots, sari, cypher.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// The task file
    #[arg(long, value_name = "FILE")]
    task: PathBuf,
    /// How answers are scored: json, sql, exact, label, number, chrf, rouge, slots, sari, cypher
    #[arg(long, value_name = "NAME")]
    metric: Metric,
    /// Adapters of a run: NAME[=SCALE] of the library or FILE.gguf[=SCALE], several joined by +, as sql+json=0.5; `auto`
    /// has the router choose, `none` is the plain base; repeat it for further runs [default: none]
    #[arg(long, value_name = "A[+B..]")]
    adapter: Vec<String>,
    /// With `auto`: how to choose; see `smoa route --help`
    #[arg(long, value_name = "NAME")]
    route_strategy: Option<Strategy>,
    /// With `auto`: most adapters, 1 to 5
    #[arg(long, value_name = "N")]
    route_top_k: Option<usize>,
    /// With `auto`: least confidence, 0 to 1
    #[arg(long, value_name = "P")]
    route_threshold: Option<f32>,
    /// With `auto`: a field of each row's meta that the router is told as metadata; may be repeated
    #[arg(long, value_name = "KEY")]
    route_meta: Vec<String>,
    /// Only the first N rows
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Show K solved rows of --shots-from before each question
    #[arg(long, value_name = "K", requires = "shots_from", default_value_t = 0)]
    shots: usize,
    /// The task file that --shots are taken from: its first rows
    #[arg(long, value_name = "FILE", requires = "shots")]
    shots_from: Option<PathBuf>,
    /// Most tokens of an answer
    #[arg(short = 'n', long, alias = "n-predict", value_name = "N", default_value_t = 256)]
    predict: u32,
    /// Write the figures and every answer to this file, as one JSON object; - for standard output instead of the table
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    library: LibraryArgs,
}

/// Most rows of a task file.
const MOST_ROWS: usize = 1_000_000;

/// Rows that may be prepared beyond the sequences that run.
const AHEAD: usize = 32;

/// A choice of adapters, as given.
struct Plan {
    name: String,
    adapters: Vec<AdapterChoice>,
    auto: bool,
}

/// What came of one row.
struct Answered {
    text: String,
    tokens: usize,
    cut: bool,
    adapters: String,
    failure: Option<Failure>,
}

/// A run of all rows.
struct Ran {
    name: String,
    answers: Vec<Answered>,
    scores: Scores,
    seconds: f64,
}

/// Runs `smoa eval`.
///
/// # Errors
/// With the documented exit code: 2 for flags, 3 and 4 for files, 9 when rows had no answer.
pub fn run(args: &EvalArgs, context: &Context) -> Result<(), Outcome> {
    let plans = plans(&args.adapter)?;
    let routing = Routing {
        metadata: Vec::new(),
        strategy: args.route_strategy,
        top_k: args.route_top_k,
        threshold: args.route_threshold,
    };
    routing.validate().map_err(Failure::from)?;
    let rows = read_task(&args.task, "--task")?;
    let asked = args.limit.unwrap_or(rows.len()).min(rows.len());
    if asked == 0 {
        return Err(Failure::usage(format!("--task '{}': no rows to ask", args.task.display())).into());
    }
    args.metric.check(rows.get(..asked).unwrap_or_default()).map_err(|(row, what)| {
        let message =
            format!("--task '{}' row {}: {what} (--metric {})", args.task.display(), row + 1, args.metric.name());
        Failure::new(Code::InvalidFile, message)
    })?;
    let shots = args.shots_from.as_deref().map(|path| shots(path, args.shots)).transpose()?.unwrap_or_default();
    let format = args.format.source()?;

    let running: Arc<Mutex<Vec<CancelToken>>> = Arc::default();
    let to_cancel = running.clone();
    let cancel_all =
        move || to_cancel.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(CancelToken::cancel);
    let signals = Signals::watch(cancel_all).map_err(|e| Failure::new(Code::Other, format!("signals: {e}")))?;
    let pipeline = start::start(&args.model, &args.library, 4, &context.printer, &signals)?;
    if let Some(format) = &format {
        pipeline.check_format(format)?;
    }
    // Every choice is checked before the first run, so that a misspelt name does not end a long one in the middle.
    for plan in &plans {
        pipeline.check_adapters(&plan.adapters)?;
    }
    let mut runs = Vec::new();
    let drafts = args.model.drafts.asked()?;
    for plan in &plans {
        let request = |row: &Row| Request {
            adapters: plan.adapters.clone(),
            route: plan.auto.then(|| Routing { metadata: metadata(row, &args.route_meta), ..routing.clone() }),
            format: format.clone(),
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            limits: JobLimits { max_tokens: usize::try_from(args.predict).ok(), ..JobLimits::default() },
            drafts,
            ..Request::new(Input::chat(messages(row, &shots)))
        };
        let started = Instant::now();
        let bar = progress(context, &plan.name, asked);
        let answers = answer(&pipeline, rows.get(..asked).unwrap_or_default(), &request, &running, &signals, &bar);
        bar.finish_and_clear();
        if let Some(code) = signals.code() {
            return Err(Outcome::Silent(code));
        }
        let texts: Vec<String> = answers.iter().map(|a| a.text.clone()).collect();
        let scores = args.metric.score(&rows, &texts);
        runs.push(Ran { name: plan.name.clone(), answers, scores, seconds: started.elapsed().as_secs_f64() });
    }
    report(args, &rows, &runs, &pipeline, context)
}

/// The runs that the flags ask for.
fn plans(texts: &[String]) -> Result<Vec<Plan>, Failure> {
    let one = |text: &String| {
        let name = text.clone();
        match text.as_str() {
            "none" => Ok(Plan { name, adapters: Vec::new(), auto: false }),
            "auto" => Ok(Plan { name, adapters: Vec::new(), auto: true }),
            text => {
                let part = |part: &str| match part.contains(".gguf") {
                    true => adapter_choice(part),
                    false if ["none", "auto", ""].contains(&part) => Err(Failure::usage(format!(
                        "--adapter {text}: '{part}' cannot be part of a mix; give names or files joined by +"
                    ))),
                    false => named_choice("--adapter", part),
                };
                Ok(Plan { name, adapters: text.split('+').map(part).collect::<Result<_, _>>()?, auto: false })
            }
        }
    };
    match texts {
        [] => Ok(vec![Plan { name: "none".into(), adapters: Vec::new(), auto: false }]),
        some => some.iter().map(one).collect(),
    }
}

/// Reads all rows of a task file.
fn read_task(path: &Path, flag: &str) -> Result<Vec<Row>, Failure> {
    let fail = |code, what: String| Failure::new(code, format!("{flag} '{}'{what}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| fail(crate::model_file::open_code(&e), format!(": {e}")))?;
    let mut input = BufReader::new(file);
    let mut rows = Vec::new();
    let mut number = 0;
    loop {
        number += 1;
        let line = read_line(&mut input, MAX_LINE).map_err(|e| fail(Code::Other, format!(": {e}")))?;
        let text = match line {
            None => return Ok(rows),
            Some(LineText::Blank) => continue,
            Some(LineText::Text(text)) => text,
            Some(LineText::Refused(f)) => return Err(fail(Code::InvalidFile, format!(" line {number}: {f}"))),
        };
        rows.push(read_row(&text).map_err(|e| fail(Code::InvalidFile, format!(" line {number}: {e}")))?);
        if rows.len() > MOST_ROWS {
            return Err(fail(Code::InvalidFile, format!(": more than {MOST_ROWS} rows")));
        }
    }
}

/// The first rows of a file as turns of a conversation.
fn shots(path: &Path, count: usize) -> Result<Vec<Message>, Failure> {
    let rows = read_task(path, "--shots-from")?;
    if rows.len() < count {
        let message = format!("--shots-from '{}': has {} rows, --shots asks for {count}", path.display(), rows.len());
        return Err(Failure::usage(message));
    }
    let turns = |row: &Row| [Message::new(Role::User, row.user()), Message::new(Role::Assistant, row.answer.as_str())];
    Ok(rows.iter().take(count).flat_map(turns).collect())
}

/// A row as a conversation: its system messages, the solved rows, its other messages.
fn messages(row: &Row, shots: &[Message]) -> Vec<Message> {
    let role = |speaker: Speaker| match speaker {
        Speaker::System => Role::System,
        Speaker::User => Role::User,
        Speaker::Assistant => Role::Assistant,
    };
    let own: Vec<Message> = row.messages.iter().map(|(s, text)| Message::new(role(*s), text.as_str())).collect();
    let (system, talk): (Vec<_>, Vec<_>) = own.into_iter().partition(|m| m.role == Role::System);
    system.into_iter().chain(shots.iter().cloned()).chain(talk).collect()
}

fn metadata(row: &Row, keys: &[String]) -> Vec<(String, String)> {
    keys.iter().filter_map(|key| Some((key.clone(), row.meta_text(key)?))).collect()
}

fn progress(context: &Context, name: &str, rows: usize) -> ProgressBar {
    let target = match context.printer.shows_progress() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(rows as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(printable(name));
    bar
}

/// Asks all rows, many at once, and gives their answers in order. A row that fails does not end the run.
fn answer(
    pipeline: &Pipeline,
    rows: &[Row],
    request: &(dyn Fn(&Row) -> Request + Sync),
    running: &Mutex<Vec<CancelToken>>,
    signals: &Signals,
    bar: &ProgressBar,
) -> Vec<Answered> {
    let (sender, tickets) = sync_channel::<Result<Ticket, Failure>>(AHEAD);
    running.lock().unwrap_or_else(PoisonError::into_inner).clear();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for row in rows {
                if signals.code().is_some() {
                    return;
                }
                let ticket = pipeline.submit(request(row));
                if let Ok(ticket) = &ticket {
                    running.lock().unwrap_or_else(PoisonError::into_inner).push(ticket.cancel.clone());
                    if signals.code().is_some() {
                        ticket.cancel.cancel();
                    }
                }
                if sender.send(ticket).is_err() {
                    return;
                }
            }
        });
        tickets
            .iter()
            .map(|ticket| {
                let answered = ticket.and_then(|ticket| {
                    let adapters = super::summary::adapters(&ticket.adapters);
                    let answer = ticket.wait(|_| ())?;
                    let cut = wire::cut(&answer).is_some() || answer.finished.reason == FinishReason::Length;
                    let tokens = answer.tokens.len();
                    Ok(Answered { text: answer.text, tokens, cut, adapters, failure: None })
                });
                bar.inc(1);
                answered.unwrap_or_else(|failure| Answered {
                    text: String::new(),
                    tokens: 0,
                    cut: false,
                    adapters: String::new(),
                    failure: Some(failure),
                })
            })
            .collect()
    })
}

fn report(args: &EvalArgs, rows: &[Row], runs: &[Ran], pipeline: &Pipeline, context: &Context) -> Result<(), Outcome> {
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        context.printer.line(&value(args, rows, runs, pipeline).to_string())?;
    } else {
        for line in table(runs) {
            context.printer.line(&printable(&line))?;
        }
        if let Some(path) = &args.json {
            let text = format!("{}\n", value(args, rows, runs, pipeline));
            std::fs::write(path, text)
                .map_err(|e| Failure::new(Code::Other, format!("--json '{}': {e}", path.display())))?;
        }
    }
    let failed = runs.iter().flat_map(|run| &run.answers).filter_map(|a| a.failure.as_ref());
    match (failed.clone().count(), failed.clone().next()) {
        (0, _) | (_, None) => Ok(()),
        (count, Some(first)) => {
            let message = format!("{count} rows have no answer and count as wrong; the first: {first}");
            Err(Failure::new(Code::SomeLinesFailed, message).into())
        }
    }
}

/// The table: a row for each run; shares in percent.
fn table(runs: &[Ran]) -> Vec<String> {
    let names: Vec<&str> = runs.first().into_iter().flat_map(|r| &r.scores.figures).map(|f| f.name.as_str()).collect();
    let head: Vec<String> = ["adapter", "rows"]
        .into_iter()
        .chain(names.iter().copied())
        .chain(["cut", "tokens", "s"])
        .map(String::from)
        .collect();
    let mut lines = vec![head];
    for run in runs {
        let mut line = vec![run.name.clone(), run.answers.len().to_string()];
        for name in &names {
            let shown = |v: f64| if name.starts_with("mae") { format!("{v:.2}") } else { format!("{:.1}", v * 100.0) };
            line.push(run.scores.figure(name).map_or_else(|| "-".to_owned(), shown));
        }
        line.push(run.answers.iter().filter(|a| a.cut).count().to_string());
        line.push(run.answers.iter().map(|a| a.tokens).sum::<usize>().to_string());
        line.push(format!("{:.1}", run.seconds));
        lines.push(line);
    }
    let width = |at: usize| lines.iter().filter_map(|l| l.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).map(width).collect();
    let padded = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    lines.iter().map(padded).collect()
}

/// Everything as one JSON object.
fn value(args: &EvalArgs, rows: &[Row], runs: &[Ran], pipeline: &Pipeline) -> Value {
    let figures = |run: &Ran| -> Map<String, Value> {
        run.scores.figures.iter().map(|f| (f.name.clone(), json!(f.value))).collect()
    };
    let one = |run: &Ran| {
        let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
        run.answers.iter().for_each(|a| *chosen.entry(&a.adapters).or_default() += 1);
        let answers = run.answers.iter().zip(&run.scores.rows).zip(rows).map(|((a, score), row)| {
            let mut object = json!({"answer": a.text, "wanted": row.answer, "score": score, "adapters": a.adapters, "tokens": a.tokens});
            if a.cut {
                object["cut"] = json!(true);
            }
            if let Some(failure) = &a.failure {
                object["error"] = json!(failure.message);
            }
            object
        });
        json!({
            "adapter": run.name,
            "figures": figures(run),
            "adapters_used": chosen,
            "failed": run.answers.iter().filter(|a| a.failure.is_some()).count(),
            "cut": run.answers.iter().filter(|a| a.cut).count(),
            "tokens": run.answers.iter().map(|a| a.tokens).sum::<usize>(),
            "seconds": run.seconds,
            "rows": answers.collect::<Vec<_>>(),
        })
    };
    json!({
        "task": args.task.display().to_string(),
        "metric": args.metric.name(),
        "rows": runs.first().map_or(0, |run| run.answers.len()),
        "shots": args.shots,
        "format": args.format.format,
        "model": pipeline.base().name,
        "runs": runs.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_from_flags() {
        let read = |texts: &[&str]| plans(&texts.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        let all = read(&["none", "auto", "sql=0.5+json", "dir/a=b.gguf=0.5"]).expect("read");
        assert_eq!(
            all.iter().map(|p| (p.adapters.len(), p.auto)).collect::<Vec<_>>(),
            [(0, false), (0, true), (2, false), (1, false)]
        );
        assert_eq!(all[2].adapters, [AdapterChoice::named("sql", 0.5), AdapterChoice::named("json", 1.0)]);
        assert_eq!(read(&[]).expect("read").len(), 1);
        for bad in ["sql+auto", "none+sql", "sql+", "sql=high"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn solved_rows_stand_between_system_and_question() {
        let row = read_row(
            r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}"#,
        );
        let shots = [Message::new(Role::User, "q"), Message::new(Role::Assistant, "a")];
        let all: Vec<String> = messages(&row.expect("read"), &shots).into_iter().map(|m| m.content).collect();
        assert_eq!(all, ["S", "q", "a", "Q"]);
    }
}
