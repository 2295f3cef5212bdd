//! A search: near vectors by graph or scan, adapters by their words, both together scored exactly.

use std::sync::Arc;

use super::admission::{self, DraftGate};
use super::bits::Bits;
use super::draft::Draft;
use super::graph::{self, Ranked};
use super::keywords::{self, Asked, Sums};
use super::quant::Probe;
use super::rotation::Rotation;
use super::segment::Segment;
use super::state::{Open, State};
use super::{CLOSE, Candidate, Query};
use crate::adapter::AdapterDigest;

/// Vectors kept by the search in a graph, and scored again: at least so many, and so many times the limit. Measured in
/// docs/routing-index.md.
const BEAM: usize = 128;
const BEAM_OF_LIMIT: usize = 3;
/// As many vectors or fewer behind a gate are scanned rather than searched for.
const SCAN_TO: usize = 49_152;
/// The widest search in a graph behind a gate.
const WIDEST: usize = 2048;
/// Nodes a search may begin at.
const STARTS: usize = 1024;

/// Buffers of a search, kept between searches.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    graph: graph::Scratch,
    sums: Sums,
}

impl Scratch {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.graph.bytes() + self.sums.bytes()
    }
}

/// The query's vector in the axes of one segment after the other.
struct Probes<'a> {
    vector: &'a [f32],
    made: Vec<(Option<Arc<Rotation>>, Probe)>,
}

impl Probes<'_> {
    fn in_axes(&mut self, axes: Option<&Arc<Rotation>>) -> &Probe {
        let same = |made: &Option<Arc<Rotation>>| match (made, axes) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let at = self.made.iter().position(|(made, _)| same(made)).unwrap_or_else(|| {
            let probe = axes.map_or_else(|| Probe::new(self.vector), |axes| Probe::new(&axes.turn(self.vector)));
            self.made.push((axes.cloned(), probe));
            self.made.len() - 1
        });
        &self.made[at].1
    }
}

/// The best candidates, as [`super::Index::search`] promises.
pub(super) fn search(state: &State, query: &Query<'_>, scratch: &mut Scratch) -> Vec<Candidate> {
    let asked = asked(state, query);
    let fits = fits(state, query);
    let zeros = vec![0.0; if fits { 0 } else { state.tail.dim }];
    let mut probes = Probes { vector: if fits { query.vector } else { &zeros }, made: Vec::new() };
    let mut found = Vec::new();
    for open in &state.segments {
        let probe = probes.in_axes(open.segment.axes.as_ref());
        in_segment(open, query, &asked, fits.then_some(probe), scratch, probe, &mut found);
    }
    in_tail(state, query, &asked, probes.in_axes(state.tail.rotation.as_ref()), &mut found);
    best_of_both(found, if fits { query.limit } else { 0 }, query.limit)
}

/// What is known of adapters, as [`super::Index::look_up`] promises.
pub(super) fn look_up(state: &State, query: &Query<'_>, digests: &[AdapterDigest]) -> Vec<Option<Candidate>> {
    let asked = asked(state, query);
    let zeros = vec![0.0; if fits(state, query) { 0 } else { state.tail.dim }];
    let mut probes = Probes { vector: if zeros.is_empty() { query.vector } else { &zeros }, made: Vec::new() };
    let numbers = keywords::draft_numbers(&state.tail, &asked);
    let mut one = |digest: &AdapterDigest| {
        if let Some(entry) = state.latest.get(digest) {
            return Some(of_tail(&state.tail, *entry, &numbers, probes.in_axes(state.tail.rotation.as_ref())));
        }
        let here = |open: &Open| open.segment.find(digest).filter(|entry| !open.dead.has(*entry));
        let (segment, entry) = state.segments.iter().find_map(|open| Some((&*open.segment, here(open)?)))?;
        let mut words = keywords::numbers(segment, &asked);
        words.sort_unstable_by_key(|(number, _)| *number);
        of_segment(segment, entry, &words, probes.in_axes(segment.axes.as_ref()))
    };
    digests.iter().map(&mut one).collect()
}

/// The words of a query, weighed by how many adapters have them.
fn asked(state: &State, query: &Query<'_>) -> Asked {
    let having = |word: &str| {
        let sealed: usize = state.segments.iter().map(|open| keywords::having(&open.segment, word)).sum();
        sealed + keywords::draft_having(&state.tail, word)
    };
    Asked::new(query.text, state.len(), having)
}

/// Whether a query's vector says anything here.
fn fits(state: &State, query: &Query<'_>) -> bool {
    let vector = query.vector;
    vector.len() == state.tail.dim && vector.iter().all(|x| x.is_finite()) && vector.iter().any(|x| *x != 0.0)
}

/// The best `near` by meaning and the best `worded` by words.
fn best_of_both(mut found: Vec<Candidate>, near: usize, worded: usize) -> Vec<Candidate> {
    let by_digest = |a: &Candidate, b: &Candidate| a.digest.cmp(&b.digest);
    let by_meaning = |a: &Candidate, b: &Candidate| b.semantic.total_cmp(&a.semantic).then_with(|| by_digest(a, b));
    found.sort_unstable_by(|a, b| b.keyword.total_cmp(&a.keyword).then_with(|| by_meaning(a, b)));
    let words: Vec<Candidate> = found.iter().take(worded).filter(|c| c.keyword > 0.0).copied().collect();
    found.sort_unstable_by(by_meaning);
    found.truncate(near);
    found.extend(words);
    found.sort_unstable_by(by_meaning);
    found.dedup_by_key(|candidate| candidate.digest);
    found
}

fn in_segment(
    open: &Open,
    query: &Query<'_>,
    asked: &Asked,
    near: Option<&Probe>,
    scratch: &mut Scratch,
    probe: &Probe,
    found: &mut Vec<Candidate>,
) {
    let segment = &*open.segment;
    let allowed = admission::of_segment(segment, query.gate, &open.dead, open.dead_count > 0);
    let mut entries: Vec<u32> = Vec::with_capacity(4 * query.limit);
    if let Some(probe) = near {
        nearest(segment, probe, allowed.as_ref(), query.limit, &mut scratch.graph, &mut entries);
    }
    let mut words = keywords::numbers(segment, asked);
    let by_words = keywords::best(segment, &words, allowed.as_ref(), 2 * query.limit, &mut scratch.sums);
    entries.extend(by_words.iter().map(|ranked| ranked.node()));
    entries.sort_unstable();
    entries.dedup();
    words.sort_unstable_by_key(|(number, _)| *number);
    let rows = segment.rows();
    rows.touch_whole(entries.iter().filter_map(|entry| segment.vectors_of(*entry).next()));
    keywords::touch(segment, &entries);
    found.extend(entries.into_iter().filter_map(|entry| of_segment(segment, entry, &words, probe)));
}

/// An adapter of a segment. The words are sorted by their numbers.
fn of_segment(segment: &Segment, entry: u32, words: &[(u32, f32)], probe: &Probe) -> Option<Candidate> {
    let (digest, rows) = (segment.digest(entry)?, segment.rows());
    let cosines = segment.vectors_of(entry).map(|node| rows.cosine(probe, node));
    Some(candidate(digest, cosines, keywords::score(segment, entry, words)))
}

/// An adapter of the tail.
fn of_tail(tail: &Draft, entry: u32, words: &[(u32, f32)], probe: &Probe) -> Candidate {
    let vectors = tail.scales.range(entry).zip(tail.scales.get(entry));
    let cosines = vectors.map(|(vector, scale)| probe.with_codes(tail.row(vector)) as f32 * scale * probe.scale());
    candidate(tail.digests[entry as usize], cosines, keywords::draft_score(tail, entry, words))
}

fn candidate(digest: AdapterDigest, cosines: impl Iterator<Item = f32>, keyword: f32) -> Candidate {
    let (name_similarity, centroid, close) = (0.0, 0.0, [-1.0; CLOSE]);
    let mut candidate = Candidate { digest, semantic: -1.0, centroid, name_similarity, keyword, vectors: 0, close };
    for cosine in cosines {
        let cosine = cosine.clamp(-1.0, 1.0);
        match candidate.vectors {
            0 => (candidate.name_similarity, candidate.centroid) = (cosine, cosine),
            1 => candidate.centroid = cosine,
            _ => insert(&mut candidate.close, cosine),
        }
        candidate.semantic = candidate.semantic.max(cosine);
        candidate.vectors += 1;
    }
    if candidate.vectors <= 2 {
        candidate.close[0] = candidate.semantic;
    }
    candidate
}

/// Puts a number among the greatest, which are sorted downwards.
fn insert(greatest: &mut [f32], number: f32) {
    let place = greatest.partition_point(|other| *other >= number);
    if let Some(lower) = greatest.get_mut(place..).filter(|lower| !lower.is_empty()) {
        lower.rotate_right(1);
        lower[0] = number;
    }
}

/// The adapters with the nearest vectors, about `limit` of them.
fn nearest(
    segment: &Segment,
    probe: &Probe,
    allowed: Option<&Bits>,
    limit: usize,
    scratch: &mut graph::Scratch,
    entries: &mut Vec<u32>,
) {
    let (rows, owners) = (segment.rows(), segment.owners());
    let owner = |node: u32| owners.get(node as usize).copied().unwrap_or(u32::MAX);
    let passes = |node: u32| allowed.is_none_or(|allowed| allowed.has(owner(node)));
    let count = allowed.map_or(segment.shape.entries, Bits::count);
    if count == 0 || limit == 0 {
        return;
    }
    let beam = BEAM.max(BEAM_OF_LIMIT * limit);
    // Vectors behind the gate, if adapters have about as many each.
    let vectors = (count as u64 * segment.shape.vectors as u64 / segment.shape.entries.max(1) as u64) as usize;
    let widened = (beam as u64 * segment.shape.entries as u64 / count as u64) as usize;
    let mut searched = false;
    if let Some(links) = segment.links().filter(|_| allowed.is_none() || (vectors > SCAN_TO && widened <= WIDEST)) {
        let starts = graph::starts(rows.len(), STARTS);
        graph::search(&rows, &links, probe, starts, widened, scratch);
        scratch.pool.retain(|ranked| passes(ranked.node()));
        searched = scratch.pool.len() >= beam.min(vectors / 2);
    }
    if !searched {
        let keep = beam;
        match allowed {
            None => graph::scan(&rows, probe, 0..rows.len() as u32, keep, scratch),
            Some(allowed) => {
                let nodes = allowed.iter().flat_map(|entry| segment.vectors_of(entry));
                graph::scan(&rows, probe, nodes, keep, scratch);
            }
        }
    }
    rows.touch_whole(scratch.pool.iter().map(|ranked| ranked.node()));
    let exact = scratch.pool.iter().map(|ranked| Ranked::new(rows.cosine(probe, ranked.node()), owner(ranked.node())));
    let mut exact: Vec<Ranked> = exact.collect();
    exact.sort_unstable_by(|a, b| b.cmp(a));
    for entry in exact.iter().map(|ranked| ranked.node()) {
        if entries.len() < limit && !entries.contains(&entry) {
            entries.push(entry);
        }
    }
}

fn in_tail(state: &State, query: &Query<'_>, asked: &Asked, probe: &Probe, found: &mut Vec<Candidate>) {
    let tail: &Draft = &state.tail;
    let (gate, numbers) = (DraftGate::new(tail, query.gate), keywords::draft_numbers(tail, asked));
    for entry in state.latest.values().copied().filter(|entry| gate.allows(tail, *entry)) {
        found.push(of_tail(tail, entry, &numbers, probe));
    }
}
