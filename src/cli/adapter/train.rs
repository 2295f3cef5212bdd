//! `smoa adapter train-router`: learns from the library's example prompts which adapter a request is for.

use std::path::PathBuf;

use clap::Args;

use super::super::Context;
use super::super::args::LibraryArgs;
use super::super::exit::Outcome;
use super::super::route::read_labelled;
use crate::routing::{Router, TrainOptions};
use crate::shelf::routing_failure;

/// Train the router on the example prompts of the library, and on labelled requests
///
/// Each adapter's prompts are parted into fifths; each is held back once and asked about (of more than 4,000 prompts one
/// fifth is). What was learned is used from then on (strategy `learned`) if it chooses better than the hybrid on those;
/// in any case, confidences are calibrated for this library. Requests kept by `--keep-judged` are learned from as well,
/// and so is what people said of each adapter; one request in five is never learned from, and on those a new router
/// must agree with people at least as often as the one in use, or it is dropped.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// Lines of {"text": .., "label": NAME}; the label `oos` is for requests that no adapter is for
    #[arg(value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Random seed of every draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Parts of the prompts, each held back once
    #[arg(long, value_name = "N", default_value_t = 5)]
    parts: usize,
    /// Share of requests that no adapter is for, as expected in use
    #[arg(long, value_name = "P", default_value_t = 0.15)]
    oos_share: f64,
    /// Use what was learned even if the hybrid chooses better
    #[arg(long)]
    force: bool,
    /// The report as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    library: LibraryArgs,
}

/// Runs `smoa adapter train-router`.
///
/// # Errors
/// With the documented exit code: 2 when there is too little to learn from.
pub fn run(args: &TrainArgs, context: &Context) -> Result<(), Outcome> {
    let mut data = Vec::new();
    for path in &args.data {
        data.extend(read_labelled(path)?);
    }
    let options = TrainOptions { seed: args.seed, parts: args.parts, out_of_scope: args.oos_share, force: args.force };
    let mut notice = |text: String| context.printer.note(&text);
    let router = Router::open(&args.library.folder()?, args.library.embedders()?, &mut notice)
        .map_err(|e| routing_failure(&e))?;
    let report = router.train(&data, &options, &mut notice).map_err(|e| routing_failure(&e))?;
    for (label, rows) in &report.unknown {
        context
            .printer
            .warning(&format!("{rows} lines have the label '{label}', which is no adapter; they are left out"));
    }
    if args.json {
        return Ok(context.printer.line(&report.to_json().to_string())?);
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let lines = [
        format!(
            "{} adapters, {} prompts, {} held back, {} passes, {:.1} s",
            report.classes, report.prompts, report.held, report.epochs, report.seconds
        ),
        format!(
            "right on the held-back prompts: learned {}, hybrid {}",
            percent(report.learned),
            percent(report.hybrid)
        ),
        match report.replaced && report.kept {
            _ if !report.replaced => "people agree less with the new router; the one in use stays".to_owned(),
            true => "what was learned is used from now on".to_owned(),
            false => "the hybrid chooses better; what was learned is not used".to_owned(),
        },
    ];
    for line in lines {
        context.printer.line(&line)?;
    }
    if report.judged + report.judged_held > 0 {
        let [before, after] = report.judged_right.map(percent);
        context.printer.line(&format!(
            "{} judged requests learned from, {} held back: as people judged them {after}, before {before}",
            report.judged, report.judged_held
        ))?;
    }
    Ok(())
}
