//! `smoa adapter optimize`: near duplicates merged where a check on the model allows it, dead adapters removed, all of it
//! undone on request.

use std::path::PathBuf;

use clap::Args;

use super::super::args::{LibraryArgs, ModelArgs, read_text};
use super::super::exit::Outcome;
use super::super::signals::Signals;
use super::super::{Context, start};
use super::improve::{self, Alike, Pruned, Rules, Tried};
use super::probe::Prober;
use crate::error::{Code, Failure, printable};
use crate::gguf::ModelFacts;
use crate::library::{Access, Library, LibraryError};
use crate::model_file;
use crate::optimize::{Limits, PruneRules};
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
    let rules = args.rules()?;
    let alike = improve::alike(&rules, &library, &base, |text| context.printer.note(text))?;
    let tried = merges(args, &rules, &library, &base, &alike, context)?;
    let pruned = improve::removals(&rules, &library)?;
    if args.apply {
        super::follow(&args.library, context);
    }
    report(args, &tried, &pruned, context)
}

impl OptimizeArgs {
    fn rules(&self) -> Result<Rules, Failure> {
        let prompts = match &self.prompts {
            Some(path) => {
                read_text(path, "--prompts")?.lines().filter(|l| !l.trim().is_empty()).map(String::from).collect()
            }
            None => Vec::new(),
        };
        let prune =
            PruneRules { uses: self.min_uses, success: self.min_success, age: self.min_age.saturating_mul(86_400) };
        Ok(Rules {
            cosine: (!self.no_merge).then_some(self.cosine),
            rank: self.rank,
            limits: Limits { divergence: self.max_divergence, ..Limits::default() },
            prompts,
            prune: (!self.no_prune).then_some(prune),
            apply: self.apply,
        })
    }
}

/// Has the groups judged, on a model that is loaded only if there are any.
fn merges(
    args: &OptimizeArgs,
    rules: &Rules,
    library: &Library,
    base: &ModelFacts,
    alike: &Alike,
    context: &Context,
) -> Result<Vec<Tried>, Outcome> {
    if alike.groups.is_empty() {
        return Ok(Vec::new());
    }
    let signals = Signals::watch(|| ()).map_err(|e| Failure::new(Code::Other, format!("signals: {e}")))?;
    let pipeline = start::start(&args.model, &args.library, 4, &context.printer, &signals)?;
    let prober = Prober::new(&pipeline)?;
    let tried = improve::merges(rules, library, base, alike, &prober, || signals.code().is_some())?;
    match signals.code() {
        Some(code) => Err(Outcome::Silent(code)),
        None => Ok(tried),
    }
}

fn report(args: &OptimizeArgs, tried: &[Tried], pruned: &Pruned, context: &Context) -> Result<(), Outcome> {
    if args.json {
        let value = improve::to_json(args.apply, tried, pruned);
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
    for (entry, score, why) in &pruned.entries {
        let done = if args.apply { "removed" } else { "may go" };
        context.printer.line(&printable(&format!("{}: {why}, score {score:.2}: {done}", entry.name)))?;
    }
    match pruned.number {
        Some(number) => context.printer.line(&format!("--undo {number} brings the removed ones back until gc"))?,
        None if tried.is_empty() && pruned.entries.is_empty() => context.printer.line("nothing to do")?,
        None => (),
    }
    Ok(())
}
