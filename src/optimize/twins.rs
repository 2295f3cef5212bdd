//! Near duplicates: candidates by their sketches, then the exact cosine, then groups.

use std::collections::HashMap;

use super::{OptimizeError, Scan};
use crate::library::Library;
use crate::merge::{Deltas, candidates, cosine};

/// Two adapters of a [`Scan`], by their places, and the cosine of their changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Twin {
    /// The first.
    pub one: usize,
    /// The second, which comes after it.
    pub other: usize,
    /// The exact cosine.
    pub cosine: f64,
}

/// Adapters that may become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The most used one, by its place.
    pub centre: usize,
    /// The others, each a twin of the centre, with the cosine.
    pub others: Vec<(usize, f64)>,
}

impl Group {
    /// All places, the centre first.
    pub fn members(&self) -> impl Iterator<Item = usize> + '_ {
        std::iter::once(self.centre).chain(self.others.iter().map(|(at, _)| *at))
    }
}

/// Adapters read at once while pairs are compared.
const HELD: usize = 64;

/// Pairs whose cosine is at least `bound`, in order, and how many pairs had to be compared.
///
/// # Errors
/// An adapter cannot be read.
pub fn twins(library: &Library, scan: &Scan, bound: f64) -> Result<(Vec<Twin>, usize), OptimizeError> {
    let pairs = candidates(&scan.sketches, bound as f32);
    let compared = pairs.len();
    let mut held: HashMap<usize, Deltas> = HashMap::new();
    let mut found = Vec::new();
    for (one, other) in pairs {
        if held.len() > HELD {
            held.clear();
        }
        for at in [one, other] {
            if let (false, Some(entry)) = (held.contains_key(&at), scan.entries.get(at)) {
                let pinned = library.pin_digest(entry.digest)?;
                let deltas = Deltas::read_alone(pinned.bytes())
                    .map_err(|source| OptimizeError::Merge { name: entry.name.to_string(), source })?;
                held.insert(at, deltas);
            }
        }
        if let (Some(a), Some(b)) = (held.get(&one), held.get(&other)) {
            let cosine = cosine(a, b);
            if cosine >= bound {
                found.push(Twin { one, other, cosine });
            }
        }
    }
    Ok((found, compared))
}

/// Puts twins into groups: the most used adapter with all its twins, then the next of those that are left. A twin of a
/// twin is not pulled along: each member is near the centre itself.
pub fn group(twins: &[Twin], uses: impl Fn(usize) -> u64) -> Vec<Group> {
    let mut near: HashMap<usize, Vec<(usize, f64)>> = HashMap::new();
    for twin in twins {
        near.entry(twin.one).or_default().push((twin.other, twin.cosine));
        near.entry(twin.other).or_default().push((twin.one, twin.cosine));
    }
    let mut centres: Vec<usize> = near.keys().copied().collect();
    centres.sort_by_key(|at| (std::cmp::Reverse(uses(*at)), *at));
    let mut taken = std::collections::HashSet::new();
    let mut groups = Vec::new();
    for centre in centres {
        if taken.contains(&centre) {
            continue;
        }
        let mut others: Vec<(usize, f64)> =
            near.get(&centre).into_iter().flatten().copied().filter(|(at, _)| !taken.contains(at)).collect();
        if others.is_empty() {
            continue;
        }
        others.sort_by_key(|(at, _)| *at);
        taken.insert(centre);
        taken.extend(others.iter().map(|(at, _)| *at));
        groups.push(Group { centre, others });
    }
    groups
}
