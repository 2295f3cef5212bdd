//! Compositions of compositions made flat: only adapters are left, with their weights multiplied.

use std::collections::BTreeMap;

use super::{ComposeError, Composition, MAX_DEPTH, MAX_PARTS, MAX_STAGES, Part, Stage};

/// Looks up a name: its composition, or none for an adapter.
pub type Lookup<'l> = &'l dyn Fn(&str) -> Result<Option<Composition>, String>;

/// The shares of a stage's parts in the stage, for one request: as many as parts. The name is the composition's.
pub type Shares<'s> = &'s dyn Fn(&str, &[Part]) -> Vec<f32>;

/// The shares where nothing speaks for any part.
pub fn equally(_: &str, parts: &[Part]) -> Vec<f32> {
    vec![1.0 / parts.len().max(1) as f32; parts.len()]
}

/// Stages by the answers they are in: those that go on after a marker are in the answer of the one before.
pub fn answers(stages: &[Stage]) -> impl Iterator<Item = &[Stage]> {
    stages.chunk_by(|stage, _| stage.until.is_some())
}

/// A stage that goes on in an answer is given no text, and only the end of an answer can have a form.
fn check_inside(stages: &[Stage]) -> Result<(), ComposeError> {
    for (at, pair) in stages.windows(2).enumerate().filter(|(_, pair)| pair[0].until.is_some()) {
        if pair[0].format.is_some() {
            let what = "ends at a marker and cannot have a format: only the last stage of an answer can";
            return Err(ComposeError::Inside { stage: at + 1, what });
        }
        if pair[1].instruction.is_some() {
            let what = "goes on after a marker and is given no text that an instruction could stand before";
            return Err(ComposeError::Inside { stage: at + 2, what });
        }
    }
    Ok(())
}

/// What flattening needs to know.
struct Known<'k> {
    lookup: Lookup<'k>,
    shares: Shares<'k>,
}

/// The flat stages of a composition: only adapters are left, each once in a stage, in the order of their names.
///
/// # Errors
/// A cycle, a part that cannot be looked up, more than [`MAX_PARTS`] adapters or [`MAX_STAGES`] stages, stages inside a mix.
pub fn resolve(
    name: &str,
    composition: &Composition,
    lookup: Lookup<'_>,
    shares: Shares<'_>,
) -> Result<Vec<Stage>, ComposeError> {
    let mut path = vec![name.to_owned()];
    let flat = stages(composition, &Known { lookup, shares }, &mut path)?;
    check_inside(&flat)?;
    match flat.len() {
        found if found > MAX_STAGES => {
            Err(ComposeError::TooMany { name: name.to_owned(), what: "stages", found, most: MAX_STAGES })
        }
        _ => Ok(flat),
    }
}

impl Known<'_> {
    /// The parts of a stage of the last composition of the path, each with its share.
    fn parts<'s>(&self, stage: &'s Stage, path: &[String]) -> impl Iterator<Item = (&'s Part, f32)> + use<'s> {
        let shares = match stage.by_route {
            true => (self.shares)(path.last().map_or("", String::as_str), &stage.parts),
            false => vec![1.0; stage.parts.len()],
        };
        stage.parts.iter().zip(shares)
    }
}

fn stages(composition: &Composition, known: &Known<'_>, path: &mut Vec<String>) -> Result<Vec<Stage>, ComposeError> {
    composition.check(path.last().map_or("", String::as_str))?;
    let mut flat = Vec::new();
    for stage in &composition.stages {
        // A stage that is one chain as it is takes its stages over.
        if let [Part { name, weight: 1.0 }] = stage.parts.as_slice()
            && let Some(inner) = (known.lookup)(name).map_err(ComposeError::Lookup)?
            && inner.stages.len() > 1
        {
            enter(name, path)?;
            let mut inner = stages(&inner, known, path)?;
            path.pop();
            if let Some(first) = inner.first_mut() {
                first.instruction = stage.instruction.clone().or(first.instruction.take());
            }
            if let Some(last) = inner.last_mut() {
                last.format = stage.format.clone().or(last.format.take());
                last.until = stage.until.clone();
            }
            flat.extend(inner);
            continue;
        }
        let mut weights = BTreeMap::new();
        let mut format = stage.format.clone();
        let mut instruction = stage.instruction.clone();
        for (part, by) in known.parts(stage, path) {
            let inner = leaves(part, by, known, path, &mut weights)?;
            if let (Some(inner), 1) = (inner, stage.parts.len()) {
                format = format.or(inner.format);
                instruction = instruction.or(inner.instruction);
            }
        }
        weights.retain(|_, weight| *weight != 0.0);
        if weights.len() > MAX_PARTS {
            let name = path.last().cloned().unwrap_or_default();
            let found = weights.len();
            return Err(ComposeError::TooMany { name, what: "adapters in one stage", found, most: MAX_PARTS });
        }
        let parts = weights.into_iter().map(|(name, weight)| Part { name, weight }).collect();
        flat.push(Stage { parts, instruction, format, by_route: false, until: stage.until.clone() });
    }
    Ok(flat)
}

/// Adds the adapters under a part; the part's own stage, where it is a composition.
fn leaves(
    part: &Part,
    by: f32,
    known: &Known<'_>,
    path: &mut Vec<String>,
    weights: &mut BTreeMap<String, f32>,
) -> Result<Option<Stage>, ComposeError> {
    let Some(inner) = (known.lookup)(&part.name).map_err(ComposeError::Lookup)? else {
        *weights.entry(part.name.clone()).or_default() += part.weight * by;
        return Ok(None);
    };
    enter(&part.name, path)?;
    inner.check(&part.name)?;
    let [stage] = inner.stages.as_slice() else {
        return Err(ComposeError::Staged(part.name.clone()));
    };
    for (below, share) in known.parts(stage, path) {
        leaves(below, by * part.weight * share, known, path, weights)?;
    }
    path.pop();
    Ok(Some(stage.clone()))
}

/// Goes one composition deeper.
fn enter(name: &str, path: &mut Vec<String>) -> Result<(), ComposeError> {
    let cycle = path.iter().any(|above| above == name);
    path.push(name.to_owned());
    match path.len() {
        _ if cycle => Err(ComposeError::Cycle(std::mem::take(path))),
        found if found > MAX_DEPTH => {
            let name = path.first().cloned().unwrap_or_default();
            Err(ComposeError::TooMany { name, what: "compositions inside each other", found, most: MAX_DEPTH })
        }
        _ => Ok(()),
    }
}
