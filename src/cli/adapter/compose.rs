//! `smoa adapter compose`: a named mix or chain of adapters, stored beside them.

use clap::Args;

use super::super::Context;
use super::super::exit::Outcome;
use super::parsed;
use super::store::StoreArgs;
use crate::compose::{Composition, Part, Stage, equally, from_gguf, resolve, to_gguf};
use crate::error::{Code, Failure, printable};
use crate::library::{AdapterName, Card, Kind, Library, LibraryError, Measured, limits};
use crate::shelf::library_failure;

/// Store a mix or a chain of adapters under a name, to be used wherever a name is
///
/// A stage is a mix, as sql=0.7+json=0.3; `none` is the plain base. Several stages are a chain: each is given the answer of the one
/// before as its message; or, with --at, they share one answer, in which the adapters change at a marker. Parts may be compositions themselves; weights multiply, and a composition that contains itself
/// is refused. Parts are names: replace one, and it is replaced here too.
#[derive(Args, Debug)]
pub struct ComposeArgs {
    /// The name of the composition
    name: String,
    /// The stages, in order
    #[arg(required = true, value_name = "A[=W]+B[=W]")]
    stages: Vec<String>,
    /// Put TEXT before what stage N (from 1) is given; may be repeated
    #[arg(long, value_name = "N=TEXT")]
    instruction: Vec<String>,
    /// The ready format of stage N's answer; may be repeated
    #[arg(long, value_name = "N=NAME")]
    stage_format: Vec<String>,
    /// Let the next stage take over inside the same answer where TEXT is complete; give one for each stage but the last
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    at: Vec<String>,
    /// Weigh the parts of each stage by this figure of their cards' evaluations, to add up to 1; or, with `route`, for each
    /// request anew by how well they fit it
    #[arg(long, value_name = "FIGURE|route")]
    by: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

/// The value of --by that leaves the weights to the router.
const BY_ROUTE: &str = "route";

/// Runs `smoa adapter compose`.
///
/// # Errors
/// A part is not there, a weight is out of bounds, a cycle, a name that is taken.
pub fn run(args: &ComposeArgs, context: &Context) -> Result<(), Outcome> {
    let name = parsed(&args.name)?;
    let library = args.store.open()?;
    let mut composition = Composition { stages: args.stages.iter().map(|s| stage(s)).collect::<Result<_, _>>()? };
    match args.by.as_deref() {
        Some(BY_ROUTE) => composition.stages.iter_mut().for_each(|stage| stage.by_route = stage.parts.len() > 1),
        Some(figure) => weigh(&mut composition, figure, &library)?,
        None => (),
    }
    for (at, text) in numbered("--instruction", &args.instruction, composition.stages.len())? {
        composition.stages[at].instruction = Some(text);
    }
    for (at, text) in numbered("--stage-format", &args.stage_format, composition.stages.len())? {
        crate::grammar::format_text(&text).map_err(|e| Failure::usage(format!("--stage-format: {e}")))?;
        composition.stages[at].format = Some(text);
    }
    let borders = composition.stages.len() - 1;
    if !args.at.is_empty() && args.at.len() != borders {
        let message = format!("--at: {} given, {borders} needed: one for each stage but the last", args.at.len());
        return Err(Failure::usage(message).into());
    }
    for (stage, marker) in composition.stages.iter_mut().zip(&args.at) {
        stage.until = Some(marker.clone());
    }
    // What stands under the name now does not count: it is what the new one replaces.
    let look_up = |part: &str| match part == name.as_str() {
        true => Ok(Some(composition.clone())),
        false => composition_of(&library, part),
    };
    let refused = |e: crate::compose::ComposeError| {
        let missing = matches!(e, crate::compose::ComposeError::Lookup(_));
        Failure::new(if missing { Code::NotFound } else { Code::Usage }, format!("composition '{name}': {e}"))
    };
    composition.check(name.as_str()).map_err(refused)?;
    let flat = resolve(name.as_str(), &composition, &look_up, &equally).map_err(refused)?;
    let bytes = to_gguf(&composition, name.as_str()).map_err(|e| Failure::usage(format!("composition: {e}")))?;
    let card = Card {
        parents: composition.names().map(str::to_owned).take(limits::TAGS).collect(),
        origin: Some("composition".to_owned()),
        ..Card::default()
    };
    let measured = Measured { kind: Some(Kind::Composition), ..Measured::default() };
    let added = args.store.keep(&library, &name, &bytes, card, measured)?;
    let by = if args.by.as_deref() == Some(BY_ROUTE) { " by route" } else { "" };
    let line = format!("{name} {} = {}{by} ({:?})", added.digest, shown(&flat), added.outcome);
    context.printer.line(&printable(&line))?;
    super::follow(&args.store.library, context);
    Ok(())
}

/// The composition that a name of the library stands for; none for an adapter.
fn composition_of(library: &Library, name: &str) -> Result<Option<Composition>, String> {
    let name = AdapterName::new(name).map_err(|e| e.to_string())?;
    let pinned = library.pin(&name).map_err(|e: LibraryError| e.to_string())?;
    match pinned.entry().metadata.measured.kind {
        Some(Kind::Composition) => from_gguf(pinned.bytes(), name.as_str()).map_err(|e| e.to_string()),
        _ => Ok(None),
    }
}

fn stage(text: &str) -> Result<Stage, Failure> {
    if text == "none" {
        return Ok(Stage::default());
    }
    let part = |part: &str| {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        let wrong = |what: String| Failure::usage(format!("stage '{text}': {what}"));
        let weight =
            weight.parse().map_err(|_| wrong(format!("the weight after '=' must be a number, not '{weight}'")))?;
        let name = AdapterName::new(name).map_err(|e| wrong(e.to_string()))?;
        Ok(Part { name: name.to_string(), weight })
    };
    Ok(Stage { parts: text.split('+').map(part).collect::<Result<_, Failure>>()?, ..Stage::default() })
}

/// Texts `N=TEXT` for stages from 1.
fn numbered(flag: &str, texts: &[String], stages: usize) -> Result<Vec<(usize, String)>, Failure> {
    let one = |text: &String| {
        let found = text.split_once('=').and_then(|(n, text)| Some((n.parse::<usize>().ok()?, text.to_owned())));
        match found {
            Some((n, text)) if (1..=stages).contains(&n) => Ok((n - 1, text)),
            _ => Err(Failure::usage(format!("{flag} {text}: give N=TEXT with a stage N from 1 to {stages}"))),
        }
    };
    texts.iter().map(one).collect()
}

/// Weights by a figure of the parts' cards.
fn weigh(composition: &mut Composition, figure: &str, library: &Library) -> Result<(), Failure> {
    for stage in &mut composition.stages {
        let mut figures = Vec::new();
        for part in &stage.parts {
            let entry = library.find(&parsed(&part.name)?).map_err(|e| library_failure(&e))?;
            let value = entry.metadata.card.evaluation.get(figure).copied().filter(|v| *v >= 0.0);
            figures.push(value.ok_or_else(|| {
                Failure::usage(format!("--by {figure}: the card of '{}' has no such figure from 0 up", part.name))
            })?);
        }
        let sum: f64 = figures.iter().sum();
        if sum <= 0.0 && !figures.is_empty() {
            return Err(Failure::usage(format!("--by {figure}: all figures are 0")));
        }
        stage.parts.iter_mut().zip(figures).for_each(|(part, value)| part.weight = (value / sum) as f32);
    }
    Ok(())
}

/// Stages for people.
fn shown(stages: &[Stage]) -> String {
    let part = |p: &Part| if p.weight == 1.0 { p.name.clone() } else { format!("{}={}", p.name, p.weight) };
    let mut text = String::new();
    for (at, stage) in stages.iter().enumerate() {
        match stages[..at].last().map(|before| &before.until) {
            None => (),
            Some(None) => text += " -> ",
            Some(Some(marker)) => text += &format!(" -'{}'-> ", marker.escape_debug()),
        }
        text += &match stage.parts.as_slice() {
            [] => "none".to_owned(),
            parts => parts.iter().map(part).collect::<Vec<_>>().join("+"),
        };
    }
    text
}
