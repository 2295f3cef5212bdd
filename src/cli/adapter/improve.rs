//! An optimization, step by step: what is alike, what a merge of it is worth, what is dead. For `smoa adapter optimize` and
//! for a server that does it now and then.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::probe::{Candidate, Prober};
use crate::error::{Code, Failure};
use crate::gguf::{self, AdapterFacts, ModelFacts};
use crate::import::{self, Storage};
use crate::library::{Entry, Library, LibraryError, base_fingerprint};
use crate::merge::{Deltas, Method, merge};
use crate::optimize::{
    Group, Judged, Limits, OptimizeError, PruneRules, Scan, Standing, apply_merge, apply_prune, group, prune, scan,
    twins,
};
use crate::shelf::library_failure;

/// Prompts of an adapter's card that the check uses.
const EXAMPLES: usize = 4;

/// What to look for, and whether to do it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Least cosine of near duplicates; none merges nothing.
    pub cosine: Option<f64>,
    /// Largest rank of a merged adapter; none is that of its parts.
    pub rank: Option<usize>,
    /// What a merge must keep to.
    pub limits: Limits,
    /// Further prompts for the check.
    pub prompts: Vec<String>,
    /// What may go; none removes nothing.
    pub prune: Option<PruneRules>,
    /// Do it.
    pub apply: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let prune = Some(PruneRules::default());
        Self { cosine: Some(0.9), rank: None, limits: Limits::default(), prompts: Vec::new(), prune, apply: false }
    }
}

/// Groups of near duplicates.
#[derive(Debug, Default)]
pub struct Alike {
    scan: Scan,
    /// The groups.
    pub groups: Vec<Group>,
}

/// A group that was looked at.
pub struct Tried {
    /// Of its adapters.
    pub names: Vec<String>,
    /// The least of the others with the first.
    pub cosine: f64,
    /// Of the merge, relative.
    pub error: f64,
    /// For each adapter.
    pub judged: Vec<Judged>,
    /// Why it is not merged; none when it is or may be.
    pub refused: Option<String>,
    /// Bytes.
    pub saved: u64,
    /// In the journal, when it was done.
    pub number: Option<u64>,
}

/// What may go, or went.
#[derive(Default)]
pub struct Pruned {
    /// With score and reason.
    pub entries: Vec<(Entry, f64, String)>,
    /// In the journal, when it was done.
    pub number: Option<u64>,
}

/// Finds groups of near duplicates. `note` hears what was looked at.
///
/// # Errors
/// The library cannot be read.
pub fn alike(rules: &Rules, library: &Library, base: &ModelFacts, note: impl Fn(&str)) -> Result<Alike, Failure> {
    let wrong = |e: OptimizeError| failure(&e);
    let Some(cosine) = rules.cosine else { return Ok(Alike::default()) };
    let scan = scan(library, &base_fingerprint(base), |_| ()).map_err(wrong)?;
    let (pairs, compared) = twins(library, &scan, cosine).map_err(wrong)?;
    note(&format!(
        "{} adapters, {} sketches made, {compared} pairs compared, {} near duplicates",
        scan.entries.len(),
        scan.made,
        pairs.len()
    ));
    let uses = |at: usize| scan.entries.get(at).and_then(|e| library.usage(e.digest).ok()).map_or(0, |u| u.uses);
    let groups = group(&pairs, uses);
    Ok(Alike { scan, groups })
}

/// Merges each group, has it judged, and where the rules say so puts it in place. Ends early once `stop` says so.
///
/// # Errors
/// The library or the engine refuses.
pub fn merges(
    rules: &Rules,
    library: &Library,
    base: &ModelFacts,
    alike: &Alike,
    prober: &Prober<'_>,
    stop: impl Fn() -> bool,
) -> Result<Vec<Tried>, Failure> {
    let mut tried = Vec::new();
    for group in alike.groups.iter().take_while(|_| !stop()) {
        let entries: Vec<&Entry> = group.members().filter_map(|at| alike.scan.entries.get(at)).collect();
        let cosine = group.others.iter().map(|(_, cosine)| *cosine).fold(1.0, f64::min);
        tried.push(one(rules, library, base, prober, (&entries, cosine))?);
    }
    Ok(tried)
}

/// One group.
fn one(
    rules: &Rules,
    library: &Library,
    base: &ModelFacts,
    prober: &Prober<'_>,
    (entries, cosine): (&[&Entry], f64),
) -> Result<Tried, Failure> {
    let wrong = |e: OptimizeError| failure(&e);
    let (mut parts, mut files) = (Vec::new(), Vec::new());
    for entry in entries {
        let pinned = library.pin_digest(entry.digest).map_err(|e| library_failure(&e))?;
        let deltas = Deltas::read_alone(pinned.bytes());
        files.push(pinned);
        parts.push(deltas.map_err(|source| wrong(OptimizeError::Merge { name: entry.name.to_string(), source }))?);
    }
    let weighed: Vec<(&Deltas, f32)> = parts.iter().map(|deltas| (deltas, 1.0 / parts.len() as f32)).collect();
    let name = entries.first().map_or_else(String::new, |e| e.name.to_string());
    let merged = merge(&weighed, Method::Svd, rules.rank)
        .map_err(|source| wrong(OptimizeError::Merge { name: name.clone(), source }))?;
    let (bytes, facts, rounding) = stored(&merged.deltas, &name, base)?;
    let error = merged.error.hypot(rounding);
    let (mut judged, mut refused) = (Vec::new(), None);
    for ((entry, deltas), file) in entries.iter().zip(&parts).zip(&files) {
        let examples = entry.metadata.card.examples.iter().take(EXAMPLES);
        let prompts: Vec<String> = examples.chain(&rules.prompts).cloned().collect();
        let random = deltas.random_like(0x736d_6f61);
        let (random, ..) = stored(&random, "random", base)?;
        let candidate = Candidate { own: file.bytes(), merged: &bytes, random: &random };
        let verdict = prober.judge(&candidate, &prompts, rules.limits)?;
        if let (None, Some(why)) = (&refused, &verdict.refused) {
            refused = Some(format!("{}: {why}", entry.name));
        }
        judged.push(verdict);
    }
    let names: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
    let before: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let number = match rules.apply && refused.is_none() {
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

/// Names what is dead, and where the rules say so removes it.
///
/// # Errors
/// The library refuses.
pub fn removals(rules: &Rules, library: &Library) -> Result<Pruned, Failure> {
    let Some(prune) = &rules.prune else { return Ok(Pruned::default()) };
    let entries = dead(prune, library)?;
    if !rules.apply || entries.is_empty() {
        return Ok(Pruned { entries, number: None });
    }
    let going: Vec<&Entry> = entries.iter().map(|(entry, ..)| entry).collect();
    let names: Vec<&str> = going.iter().map(|entry| entry.name.as_str()).collect();
    let number = apply_prune(library, &going, &format!("removed {}", shortened(&names))).map_err(|e| failure(&e))?;
    Ok(Pruned { number: Some(number), entries })
}

/// The entries that may go, with score and reason.
fn dead(rules: &PruneRules, library: &Library) -> Result<Vec<(Entry, f64, String)>, Failure> {
    let failed = |e: LibraryError| library_failure(&e);
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
    let found = prune(&standings, rules);
    Ok(found.into_iter().filter_map(|(at, score, why)| Some((entries.get(at)?.clone(), score, why))).collect())
}

/// All of it as one JSON object.
pub fn to_json(applied: bool, tried: &[Tried], pruned: &Pruned) -> Value {
    let judged = |j: &Judged| json!({"merged": j.merged, "base": j.base, "random": j.random, "positions": j.positions, "refused": j.refused});
    let merges = tried.iter().map(|t| {
        json!({"names": t.names, "cosine": t.cosine, "relative_error": t.error, "refused": t.refused,
            "bytes_saved": t.saved, "journal": t.number, "checks": t.judged.iter().map(judged).collect::<Vec<_>>()})
    });
    let removals = pruned.entries.iter().map(
        |(entry, score, why)| json!({"name": entry.name.as_str(), "score": score, "why": why, "bytes": entry.bytes}),
    );
    json!({"applied": applied, "merges": merges.collect::<Vec<Value>>(),
        "removals": removals.collect::<Vec<Value>>(), "removals_journal": pruned.number})
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

/// The failure that a refused optimization becomes.
fn failure(e: &OptimizeError) -> Failure {
    match e {
        OptimizeError::Library(e) => library_failure(e),
        OptimizeError::Merge { .. } => Failure::new(Code::InvalidFile, e.to_string()),
        OptimizeError::File(_) | OptimizeError::Disk { .. } => Failure::new(Code::Other, e.to_string()),
    }
}
