//! `smoa adapter stats`: how often each adapter was used, with what success, and with which others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use super::super::Context;
use super::super::args::LibraryArgs;
use super::super::exit::Outcome;
use super::{open, parsed};
use crate::error::printable;
use crate::library::{Access, Entry, Feedback, Library, LibraryError, Usage};
use crate::shelf::library_failure;

/// Tell how often adapters were used, and with what success
///
/// An answer that came to its end is `ended`; `good` and `bad` come from people (`/good` and `/bad` in the chat, the server's
/// /v1/feedback). Statistics belong to the content: they stay through renames.
#[derive(Args, Debug)]
pub struct StatsArgs {
    /// Only these [default: the most used]
    names: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Forget the requests that --keep-judged kept
    #[arg(long, conflicts_with_all = ["names", "json"])]
    forget_judged: bool,
    #[command(flatten)]
    library: LibraryArgs,
}

/// Others named beside an adapter.
const OTHERS: usize = 3;

struct Row {
    entry: Entry,
    usage: Usage,
    feedback: Feedback,
    /// Names, with the number of common answers.
    with: Vec<(String, u64)>,
}

/// Runs `smoa adapter stats`.
///
/// # Errors
/// A name is not there; the catalog cannot be read.
pub fn run(args: &StatsArgs, context: &Context) -> Result<(), Outcome> {
    let failed = |e: LibraryError| Outcome::Failed(library_failure(&e));
    if args.forget_judged {
        open(&args.library, Access::Write)?.forget_judged().map_err(failed)?;
        context.printer.note("the judged requests are forgotten; counts stay");
        return Ok(());
    }
    let library = open(&args.library, Access::Read)?;
    let mut rows = Vec::new();
    if args.names.is_empty() {
        for (digest, usage) in library.most_used(args.limit).map_err(failed)? {
            // Content that gc has forgotten keeps its counts; it has no name to show.
            if let Ok(entry) = library.find_digest(digest) {
                rows.push(row(&library, entry, usage).map_err(failed)?);
            }
        }
    }
    for name in &args.names {
        let entry = library.find(&parsed(name)?).map_err(failed)?;
        let usage = library.usage(entry.digest).map_err(failed)?;
        rows.push(row(&library, entry, usage).map_err(failed)?);
    }
    if args.json {
        for row in &rows {
            context.printer.line(&value(row).to_string())?;
        }
        return Ok(());
    }
    if rows.is_empty() {
        context.printer.note("no adapter was used yet");
        return Ok(());
    }
    context.printer.line(&format!(
        "{:<32} {:>8} {:>7} {:>6} {:>6} {:>9} {:>9}  used with",
        "adapter", "uses", "ended", "good", "bad", "mean ms", "last"
    ))?;
    for row in &rows {
        let removed = if row.entry.removed.is_some() { " (removed)" } else { "" };
        let with = row.with.iter().map(|(name, uses)| format!("{name} {uses}")).collect::<Vec<_>>().join(", ");
        context.printer.line(&printable(&format!(
            "{:<32} {:>8} {:>6.1}% {:>6} {:>6} {:>9.1} {:>9}  {with}",
            format!("{}{removed}", row.entry.name),
            row.usage.uses,
            percent(&row.usage),
            row.feedback.good,
            row.feedback.bad,
            mean_ms(&row.usage),
            ago(row.usage.last_used),
        )))?;
    }
    Ok(())
}

fn row(library: &Library, entry: Entry, usage: Usage) -> Result<Row, LibraryError> {
    let feedback = library.feedback(entry.digest)?;
    let named = |(digest, uses): (crate::adapter::AdapterDigest, u64)| {
        let name = library.find_digest(digest).map_or_else(|_| digest.to_string(), |e| e.name.to_string());
        (name, uses)
    };
    let with = library.used_with(entry.digest, OTHERS)?.into_iter().map(named).collect();
    Ok(Row { entry, usage, feedback, with })
}

fn percent(usage: &Usage) -> f64 {
    if usage.uses == 0 { 0.0 } else { usage.successes as f64 * 100.0 / usage.uses as f64 }
}

fn mean_ms(usage: &Usage) -> f64 {
    if usage.uses == 0 { 0.0 } else { usage.latency.as_secs_f64() * 1e3 / usage.uses as f64 }
}

/// How long ago, in the largest unit that fits.
fn ago(seconds: u64) -> String {
    if seconds == 0 {
        return "never".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = now.saturating_sub(Duration::from_secs(seconds)).as_secs();
    match ago {
        0..=59 => format!("{ago} s"),
        60..=3_599 => format!("{} min", ago / 60),
        3_600..=86_399 => format!("{} h", ago / 3_600),
        _ => format!("{} d", ago / 86_400),
    }
}

fn value(row: &Row) -> serde_json::Value {
    json!({
        "name": row.entry.name.as_str(),
        "digest": row.entry.digest.to_hex(),
        "removed": row.entry.removed.is_some(),
        "uses": row.usage.uses,
        "ended": row.usage.successes,
        "good": row.feedback.good,
        "bad": row.feedback.bad,
        "latency_ms": row.usage.latency.as_secs_f64() * 1e3,
        "last_used": row.usage.last_used,
        "used_with": row.with.iter().map(|(name, uses)| json!({"name": name, "uses": uses})).collect::<Vec<_>>(),
    })
}
