//! `smoa adapter optimize`: near duplicates merged where a check on the model allows it, dead adapters removed, all of it
//! undone on request.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use super::super::args::{LibraryArgs, ModelArgs, read_text};
use super::super::exit::Outcome;
use super::super::signals::Signals;
use super::super::{Context, start};
use super::probe::{Candidate, Prober};
use crate::error::{Code, Failure, printable};
use crate::gguf::{self, AdapterFacts, ModelFacts};
use crate::import::{self, Storage};
use crate::library::{Access, Entry, Library, LibraryError, base_fingerprint};
use crate::merge::{Deltas, Method, merge};
use crate::model_file;
use crate::optimize::{
    Judged, Limits, OptimizeError, PruneRules, Standing, apply_merge, apply_prune, group, prune, scan, twins,
};
use crate::shelf::library_failure;

/// Find near duplicates and dead adapters, and tell what could be done; --apply does it, --undo undoes it
///
/// Near duplicates are found by what they change, not by their names. A merge is accepted only if, on the example prompts of
/// the adapters and those of --prompts, the distributions of the next token stay close to each unmerged adapter, far
/// closer than the base and a random adapter of the same norm are. All names and cards stay; they stand for the
/// merged content afterwards. What goes can be brought back by --undo until `smoa adapter gc`.
#[derive(Args, Debug)]
pub struct OptimizeArgs {
    /// Tell what could be done, and do nothing (as without --apply)
    #[arg(long, conflicts_with_all = ["apply", "undo"])]
    dry_run: bool,
    /// Do it
    #[arg(long, conflicts_with = "undo")]
    apply: bool,
    /// Undo what was done under this number
    #[arg(long, value_name = "N")]
    undo: Option<u64>,
    /// List what was done, the last first
    #[arg(long, conflicts_with_all = ["apply", "undo", "dry_run"])]
    journal: bool,
    /// Least cosine of two adapters' changes to be near duplicates
    #[arg(long, value_name = "C", default_value_t = 0.9)]
    cosine: f64,
    /// Largest rank of a merged adapter [default: the largest of its parts]
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// Largest mean divergence of a merged adapter from each of its parts, in nats
    #[arg(long, value_name = "D", default_value_t = Limits::default().divergence)]
    max_divergence: f64,
    /// File with further prompts for the check, one a line
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Find and merge no duplicates
    #[arg(long)]
    no_merge: bool,
    /// Remove nothing for its use or success
    #[arg(long)]
    no_prune: bool,
    /// Adapters with fewer uses may go
    #[arg(long, value_name = "N", default_value_t = PruneRules::default().uses)]
    min_uses: u64,
    /// Adapters with a smaller share of good answers may go
    #[arg(long, value_name = "P", default_value_t = PruneRules::default().success)]
    min_success: f64,
    /// No adapter goes before this age in days
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    min_age: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    library: LibraryArgs,
}

/// Prompts of an adapter's card that the check uses.
const EXAMPLES: usize = 4;

/// A group that was looked at.
struct Tried {
    names: Vec<String>,
    cosine: f64,
    error: f64,
    judged: Vec<Judged>,
    refused: Option<String>,
    saved: u64,
    number: Option<u64>,
}

/// Runs `smoa adapter optimize`.
///
/// # Errors
/// With the documented exit code; what was done before a failure is in the journal.
pub fn run(args: &OptimizeArgs, context: &Context) -> Result<(), Outcome> {
    let failed = |e: LibraryError| Outcome::Failed(library_failure(&e));
    if !(0.0..=1.0).contains(&args.cosine) || args.cosine < 0.5 {
        return Err(Failure::usage(format!("--cosine {}: give a number from 0.5 to 1", args.cosine)).into());
    }
    if args.journal {
        for deed in super::open(&args.library, Access::Read)?.journal(1000).map_err(failed)? {
            let undone = if deed.undone { " (undone)" } else { "" };
            context.printer.line(&printable(&format!("{:>5}  {}{undone}", deed.id, deed.what)))?;
        }
        return Ok(());
    }
    let access = if args.apply || args.undo.is_some() { Access::Write } else { Access::Read };
    let library = super::open(&args.library, access)?;
    if let Some(number) = args.undo {
        let deed = library.undo(number).map_err(failed)?;
        context.printer.line(&printable(&format!("undone: {}", deed.what)))?;
        super::follow(&args.library, context);
        return Ok(());
    }
    let base = model_file::check(&start::model_path(&args.model)?)?;
    let tried = if args.no_merge { Vec::new() } else { merges(args, &library, &base, context)? };
    let pruned = if args.no_prune { Vec::new() } else { prunes(args, &library)? };
    let number = match args.apply && !pruned.is_empty() {
        true => {
            let entries: Vec<&Entry> = pruned.iter().map(|(entry, ..)| entry).collect();
            let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
            Some(apply_prune(&library, &entries, &format!("removed {}", shortened(&names))).map_err(|e| failure(&e))?)
        }
        false => None,
    };
    if args.apply {
        super::follow(&args.library, context);
    }
    report(args, &tried, &pruned, number, context)
}

/// Finds groups of near duplicates, merges each, has it judged, and with `--apply` puts it in place.
fn merges(args: &OptimizeArgs, library: &Library, base: &ModelFacts, context: &Context) -> Result<Vec<Tried>, Outcome> {
    let wrong = |e: OptimizeError| Outcome::Failed(failure(&e));
    let found = scan(library, &base_fingerprint(base), |_| ()).map_err(wrong)?;
    let (pairs, compared) = twins(library, &found, args.cosine).map_err(wrong)?;
    context.printer.note(&format!(
        "{} adapters, {} sketches made, {compared} pairs compared, {} near duplicates",
        found.entries.len(),
        found.made,
        pairs.len()
    ));
    let uses = |at: usize| found.entries.get(at).and_then(|e| library.usage(e.digest).ok()).map_or(0, |u| u.uses);
    let groups = group(&pairs, uses);
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let extra: Vec<String> = match &args.prompts {
        Some(path) => {
            read_text(path, "--prompts")?.lines().filter(|l| !l.trim().is_empty()).map(String::from).collect()
        }
        None => Vec::new(),
    };
    let signals = Signals::watch(|| ()).map_err(|e| Failure::new(Code::Other, format!("signals: {e}")))?;
    let pipeline = start::start(&args.model, &args.library, 4, &context.printer, &signals)?;
    let prober = Prober::new(&pipeline)?;
    let mut tried = Vec::new();
    for group in &groups {
        if let Some(code) = signals.code() {
            return Err(Outcome::Silent(code));
        }
        let entries: Vec<&Entry> = group.members().filter_map(|at| found.entries.get(at)).collect();
        let cosine = group.others.iter().map(|(_, cosine)| *cosine).fold(1.0, f64::min);
        tried.push(one(args, library, base, &prober, (&entries, cosine), &extra)?);
    }
    Ok(tried)
}

/// One group.
fn one(
    args: &OptimizeArgs,
    library: &Library,
    base: &ModelFacts,
    prober: &Prober<'_>,
    (entries, cosine): (&[&Entry], f64),
    extra: &[String],
) -> Result<Tried, Failure> {
    let wrong = |e: OptimizeError| failure(&e);
    let mut parts = Vec::new();
    for entry in entries {
        let pinned = library.pin_digest(entry.digest).map_err(|e| library_failure(&e))?;
        let deltas = Deltas::read_alone(pinned.bytes());
        parts.push(deltas.map_err(|source| wrong(OptimizeError::Merge { name: entry.name.to_string(), source }))?);
    }
    let weighed: Vec<(&Deltas, f32)> = parts.iter().map(|deltas| (deltas, 1.0 / parts.len() as f32)).collect();
    let name = entries.first().map_or_else(String::new, |e| e.name.to_string());
    let merged = merge(&weighed, Method::Svd, args.rank)
        .map_err(|source| wrong(OptimizeError::Merge { name: name.clone(), source }))?;
    let (bytes, facts, rounding) = stored(&merged.deltas, &name, base)?;
    let error = merged.error.hypot(rounding);
    let (mut judged, mut refused) = (Vec::new(), None);
    for (entry, deltas) in entries.iter().zip(&parts) {
        let examples = entry.metadata.card.examples.iter().take(EXAMPLES);
        let prompts: Vec<String> = examples.chain(extra).cloned().collect();
        let random = deltas.random_like(0x736d_6f61);
        let (random, ..) = stored(&random, "random", base)?;
        let candidate = Candidate { name: entry.name.as_str(), merged: &bytes, random: &random };
        let limits = Limits { divergence: args.max_divergence, ..Limits::default() };
        let verdict = prober.judge(&candidate, &prompts, limits)?;
        if let (None, Some(why)) = (&refused, &verdict.refused) {
            refused = Some(format!("{}: {why}", entry.name));
        }
        judged.push(verdict);
    }
    let names: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
    let before: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let number = match args.apply && refused.is_none() {
        true => {
            let what = format!("merged {}", shortened(&names));
            Some(apply_merge(library, entries, &bytes, (&facts, error), &what).map_err(wrong)?)
        }
        false => None,
    };
    Ok(Tried { names, cosine, error, judged, refused, saved: before.saturating_sub(bytes.len() as u64), number })
}

/// An adapter as its file, checked, with the error of its rounding.
fn stored(deltas: &Deltas, name: &str, base: &ModelFacts) -> Result<(Vec<u8>, AdapterFacts, f64), Failure> {
    let broken = |e: String| Failure::new(Code::Other, format!("a merged adapter: {e}"));
    let file = deltas.to_gguf(name).map_err(|e| broken(e.to_string()))?;
    let (bytes, rounding) = import::requantize(&file, Storage::F16).map_err(|e| broken(e.to_string()))?;
    let facts = gguf::check_adapter(&bytes, base).map_err(|e| broken(e.to_string()))?;
    Ok((bytes, facts, f64::from(rounding)))
}

/// The entries that may go, with score and reason.
fn prunes(args: &OptimizeArgs, library: &Library) -> Result<Vec<(Entry, f64, String)>, Failure> {
    let failed = |e: LibraryError| library_failure(&e);
    let rules = PruneRules { uses: args.min_uses, success: args.min_success, age: args.min_age.saturating_mul(86_400) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (mut entries, mut parents) = (Vec::new(), std::collections::HashSet::new());
    for entry in library.walk(&crate::library::Filter::default()) {
        let entry = entry.map_err(failed)?;
        parents.extend(entry.metadata.card.parents.iter().filter_map(|p| p.split(' ').next()).map(str::to_owned));
        entries.push(entry);
    }
    let mut standings = Vec::new();
    for entry in &entries {
        let usage = library.usage(entry.digest).map_err(failed)?;
        let age = now.saturating_sub(entry.added);
        standings.push(Standing {
            name: entry.name.to_string(),
            usage,
            feedback: library.feedback(entry.digest).map_err(failed)?,
            age,
            idle: if usage.last_used == 0 { age } else { now.saturating_sub(usage.last_used) },
            kept: parents.contains(entry.name.as_str()) || entry.metadata.card.tags.iter().any(|tag| tag == "keep"),
        });
    }
    let found = prune(&standings, &rules);
    Ok(found.into_iter().filter_map(|(at, score, why)| Some((entries.get(at)?.clone(), score, why))).collect())
}

/// Some names, and how many more.
fn shortened(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn report(
    args: &OptimizeArgs,
    tried: &[Tried],
    pruned: &[(Entry, f64, String)],
    number: Option<u64>,
    context: &Context,
) -> Result<(), Outcome> {
    if args.json {
        let judged = |j: &Judged| json!({"merged": j.merged, "base": j.base, "random": j.random, "positions": j.positions, "refused": j.refused});
        let merges = tried.iter().map(|t| {
            json!({"names": t.names, "cosine": t.cosine, "relative_error": t.error, "refused": t.refused,
                "bytes_saved": t.saved, "journal": t.number, "checks": t.judged.iter().map(judged).collect::<Vec<_>>()})
        });
        let removals = pruned.iter().map(|(entry, score, why)| {
            json!({"name": entry.name.as_str(), "score": score, "why": why, "bytes": entry.bytes})
        });
        let value = json!({"applied": args.apply, "merges": merges.collect::<Vec<Value>>(),
            "removals": removals.collect::<Vec<Value>>(), "removals_journal": number});
        return Ok(context.printer.line(&value.to_string())?);
    }
    for t in tried {
        let state = match (&t.refused, t.number) {
            (Some(why), _) => format!("not merged: {why}"),
            (None, Some(number)) => format!("merged, {} bytes less after gc; --undo {number} undoes it", t.saved),
            (None, None) => format!("can be merged, {} bytes less", t.saved),
        };
        let worst = t.judged.iter().map(|j| j.merged).fold(0.0, f64::max);
        let least = t.judged.iter().map(|j| j.base.min(j.random)).fold(f64::INFINITY, f64::min);
        context.printer.line(&printable(&format!(
            "{}: cosine {:.4}, relative error {:.4}, divergence {worst:.5} (base or random at least {least:.4}): {state}",
            t.names.join(" + "),
            t.cosine,
            t.error
        )))?;
    }
    for (entry, score, why) in pruned {
        let done = if args.apply { "removed" } else { "may go" };
        context.printer.line(&printable(&format!("{}: {why}, score {score:.2}: {done}", entry.name)))?;
    }
    match number {
        Some(number) => context.printer.line(&format!("--undo {number} brings the removed ones back until gc"))?,
        None if tried.is_empty() && pruned.is_empty() => context.printer.line("nothing to do")?,
        None => (),
    }
    Ok(())
}

/// The failure that a refused optimization becomes.
fn failure(e: &OptimizeError) -> Failure {
    match e {
        OptimizeError::Library(e) => library_failure(e),
        OptimizeError::Merge { .. } => Failure::new(Code::InvalidFile, e.to_string()),
        OptimizeError::File(_) | OptimizeError::Disk { .. } => Failure::new(Code::Other, e.to_string()),
    }
}
