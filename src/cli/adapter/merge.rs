//! `smoa adapter merge`: several adapters made into one.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::super::Context;
use super::super::args::ModelArgs;
use super::super::exit::Outcome;
use super::super::start::model_path;
use super::add::StorageArg;
use super::parsed;
use super::store::StoreArgs;
use crate::error::{Code, Failure};
use crate::gguf::{self, ModelFacts};
use crate::import::{self, Storage};
use crate::library::{Card, Library, Measured, base_fingerprint, check_base, limits};
use crate::mapped::Mapped;
use crate::merge::{Deltas, MergeError, Method, merge};
use crate::model_file;
use crate::shelf::library_failure;

/// Make one adapter of several: their weighted sum, exactly or cut to a rank
///
/// concat puts the factors side by side and is exact; svd cuts that sum to a rank; ties keeps the largest numbers of each and
/// lets signs vote; dare drops numbers by chance. --federated is the exact average of adapters that clients trained apart,
/// weighed by their amounts of data; with --rank it is cut to a rank afterwards. The error of every cut is told.
#[derive(Args, Debug)]
pub struct MergeArgs {
    /// Names of the library, or GGUF files
    #[arg(required = true, value_name = "NAME")]
    parts: Vec<String>,
    /// The name of the new adapter
    #[arg(long, value_name = "NAME")]
    name: String,
    /// A weight for each [default: equal shares of 1]
    #[arg(long, value_name = "W1,W2,..", value_delimiter = ',', allow_negative_numbers = true)]
    weights: Vec<f32>,
    /// Average the adapters of clients: weights (such as rows of data) are made to add up to 1, factors are stacked
    #[arg(long, conflicts_with = "method")]
    federated: bool,
    /// How [default: svd]
    #[arg(long, value_name = "METHOD")]
    method: Option<MethodArg>,
    /// Largest rank of the result [default: for concat all, else the largest of the adapters]
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// For ties and dare: the share of the numbers that each adapter keeps
    #[arg(long, value_name = "P", default_value_t = 0.5)]
    density: f32,
    /// For dare: of the draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Store the numbers in this format [default: f16]
    #[arg(long, value_name = "TYPE")]
    quantize: Option<StorageArg>,
    #[command(flatten)]
    store: StoreArgs,
    /// The base model the adapters are for: a file, or a name of `smoa model ls`
    #[arg(short = 'm', long, value_name = "FILE", env = "LLAMA_ARG_MODEL")]
    model: Option<PathBuf>,
}

/// Values of --method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    Concat,
    Svd,
    Ties,
    Dare,
}

/// An adapter to be merged.
struct Part {
    /// For the new card: name and digest.
    label: String,
    card: Card,
    deltas: Deltas,
}

/// Runs `smoa adapter merge`.
///
/// # Errors
/// An adapter is not there or cannot be merged, a setting is out of bounds, the name is taken.
pub fn run(args: &MergeArgs, context: &Context) -> Result<(), Outcome> {
    let name = parsed(&args.name)?;
    let weights = weights(args)?;
    let base = model_file::check(&model_path(&ModelArgs { model: args.model.clone(), ..Default::default() })?)?;
    let library = args.store.open()?;
    let parts: Vec<Part> = args.parts.iter().map(|part| read(part, &library, &base)).collect::<Result<_, _>>()?;
    let weighed: Vec<(&Deltas, f32)> = parts.iter().map(|part| &part.deltas).zip(weights.iter().copied()).collect();
    let method = method(args);
    let merged = merge(&weighed, method, args.rank).map_err(|e| merge_failure(&e))?;

    let broken = |e: String| Failure::new(Code::Other, format!("the merged adapter: {e}"));
    let file = merged.deltas.to_gguf(name.as_str()).map_err(|e| broken(e.to_string()))?;
    let storage = args.quantize.map_or(Storage::F16, StorageArg::storage);
    let (bytes, rounding) = import::requantize(&file, storage).map_err(|e| broken(e.to_string()))?;
    let facts = gguf::check_adapter(&bytes, &base).map_err(|e| broken(e.to_string()))?;
    let mut measured = Measured::of(&facts, Some(base_fingerprint(&base)));
    measured.relative_error = Some(merged.error.hypot(f64::from(rounding)));
    let added = args.store.keep(&library, &name, &bytes, joined(&parts, method, &weights), measured)?;
    let line = format!(
        "{name} {} ({} of {} adapters, rank {}, {} bytes, cut error {:.6}, rounding error {rounding:.6}, {:?})",
        added.digest,
        method.name(),
        parts.len(),
        facts.rank_max,
        bytes.len(),
        merged.error,
        added.outcome
    );
    context.printer.line(&line)?;
    super::follow(&args.store.library, context);
    Ok(())
}

fn method(args: &MergeArgs) -> Method {
    match args.method {
        None if args.federated => Method::Concat,
        Some(MethodArg::Concat) => Method::Concat,
        None | Some(MethodArg::Svd) => Method::Svd,
        Some(MethodArg::Ties) => Method::Ties { density: args.density },
        Some(MethodArg::Dare) => Method::Dare { density: args.density, seed: args.seed },
    }
}

/// One weight for each adapter.
fn weights(args: &MergeArgs) -> Result<Vec<f32>, Failure> {
    let parts = args.parts.len();
    if args.rank == Some(0) {
        return Err(Failure::usage("--rank 0: give at least 1"));
    }
    if args.weights.is_empty() {
        return Ok(vec![1.0 / parts as f32; parts]);
    }
    if args.weights.len() != parts {
        return Err(Failure::usage(format!("--weights: {} weights for {parts} adapters", args.weights.len())));
    }
    if let Some(bad) = args.weights.iter().find(|w| !w.is_finite()) {
        return Err(Failure::usage(format!("--weights: {bad} is not a finite number")));
    }
    if !args.federated {
        return Ok(args.weights.clone());
    }
    let sum: f32 = args.weights.iter().sum();
    match args.weights.iter().all(|w| *w >= 0.0) && sum > 0.0 {
        true => Ok(args.weights.iter().map(|w| w / sum).collect()),
        false => Err(Failure::usage("--weights: with --federated, give amounts of data: none below 0, one above")),
    }
}

fn read(part: &str, library: &Library, base: &ModelFacts) -> Result<Part, Failure> {
    let refuse = |what: String| Failure::new(Code::InvalidFile, format!("'{part}': {what}"));
    if part.ends_with(".gguf") {
        let map = Mapped::open(Path::new(part)).map_err(|e| {
            let code = if Path::new(part).exists() { Code::InvalidFile } else { Code::NotFound };
            Failure::new(code, format!("'{part}': {e}"))
        })?;
        let label = format!("{part} {}", crate::adapter::AdapterDigest::of(map.bytes()));
        let header = gguf::Gguf::read(map.bytes()).map_err(|e| refuse(e.to_string()))?;
        let card = Card::from_gguf(&header).map_err(|e| refuse(e.to_string()))?;
        return Ok(Part { label, card, deltas: deltas(map.bytes(), base, &refuse)? });
    }
    let pinned = library.pin(&parsed(part)?).map_err(|e| library_failure(&e))?;
    pinned.check().map_err(|e| library_failure(&e))?;
    check_base(pinned.entry(), &base_fingerprint(base)).map_err(|e| library_failure(&e))?;
    let label = format!("{part} {}", pinned.digest());
    Ok(Part { label, card: pinned.entry().metadata.card.clone(), deltas: deltas(pinned.bytes(), base, &refuse)? })
}

fn deltas(bytes: &[u8], base: &ModelFacts, refuse: &dyn Fn(String) -> Failure) -> Result<Deltas, Failure> {
    let facts = gguf::check_adapter(bytes, base).map_err(|e| refuse(e.to_string()))?;
    Deltas::read(bytes, &facts).map_err(|e| refuse(e.to_string()))
}

/// What is said of the parts, together.
fn joined(parts: &[Part], method: Method, weights: &[f32]) -> Card {
    let union = |of: fn(&Card) -> &Vec<String>, most: usize| -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        // In turns, so that what does not fit is taken from all alike.
        for at in 0..parts.iter().map(|part| of(&part.card).len()).max().unwrap_or(0) {
            all.extend(parts.iter().filter_map(|part| of(&part.card).get(at)).cloned());
        }
        let mut seen = std::collections::HashSet::new();
        all.retain(|text| seen.insert(text.clone()));
        all.truncate(most);
        all
    };
    let one = |of: fn(&Card) -> Option<&String>| {
        let first = parts.first().and_then(|part| of(&part.card));
        first.filter(|first| parts.iter().all(|part| of(&part.card) == Some(*first))).cloned()
    };
    let weights = weights.iter().map(f32::to_string).collect::<Vec<_>>().join(", ");
    Card {
        tags: union(|card| &card.tags, limits::TAGS),
        domains: union(|card| &card.domains, limits::TAGS),
        skills: union(|card| &card.skills, limits::TAGS),
        tasks: union(|card| &card.tasks, limits::TAGS),
        keywords: union(|card| &card.keywords, limits::KEYWORDS),
        examples: union(|card| &card.examples, limits::EXAMPLES),
        default_format: one(|card| card.default_format.as_ref()),
        licence: one(|card| card.licence.as_ref()),
        parents: parts.iter().map(|part| part.label.clone()).take(limits::TAGS).collect(),
        origin: Some(
            format!("merge {} of {} adapters, weights {weights}", method.name(), parts.len())
                .chars()
                .take(limits::LINE_BYTES / 4)
                .collect(),
        ),
        ..Card::default()
    }
}

/// The failure that a refused merge becomes.
fn merge_failure(e: &MergeError) -> Failure {
    let code = match e {
        MergeError::Nothing | MergeError::Setting { .. } | MergeError::Gains(_) | MergeError::Rank { .. } => {
            Code::Usage
        }
        MergeError::Kind(_) | MergeError::Tensor { .. } => Code::InvalidFile,
    };
    Failure::new(code, format!("merge: {e}"))
}
