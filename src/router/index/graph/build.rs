//! Making the graph: nodes join in batches, each batch against the graph before it (as ParlayANN, Manohar et al.,
//! PPoPP 2024), with the neighbours chosen as in DiskANN (Subramanya et al., NeurIPS 2019).
//!
//! A batch is two steps that need no locks: every node of it searches its neighbours, then every node that was chosen
//! takes its new neighbours in. So the graph does not depend on how many threads made it.

use super::{Links, Ranked, Rows, Scratch, search, starts};
use crate::router::index::quant::{Probe, dot_codes};

/// How a graph is made.
#[derive(Clone, Copy, Debug)]
pub(in crate::router::index) struct BuildOptions {
    /// Neighbours of a node in the end.
    pub degree: usize,
    /// Neighbours a node may have in between: choosing again is the dear part.
    pub slack: usize,
    /// Nodes kept by the search for neighbours.
    pub beam: usize,
    /// A neighbour is not needed where another is nearer to it by this factor (of squared distances).
    pub alpha: f32,
    /// Times that every node is put in.
    pub passes: usize,
    pub threads: usize,
}

impl Default for BuildOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { degree: 30, slack: 50, beam: 128, alpha: 1.1, passes: 1, threads }
    }
}

/// Nodes that search among all before them instead of the graph.
const EXACT: usize = 1024;
/// A batch is at most this part of all nodes.
const BATCH_PART: usize = 50;
/// Nodes a search for neighbours may begin at.
const STARTS: usize = 256;

/// Rows to be joined: their heads for the search, and all their numbers for choosing.
#[derive(Clone, Copy, Debug)]
pub(in crate::router::index) struct Whole<'a> {
    pub rows: Rows<'a>,
    pub codes: &'a [i8],
}

impl Whole<'_> {
    fn codes(&self, node: u32) -> &[i8] {
        let at = node as usize * self.rows.dim;
        self.codes.get(at..at + self.rows.dim).unwrap_or(&[])
    }

    /// The cosine of two rows.
    fn between(&self, a: u32, b: u32) -> f32 {
        dot_codes(self.codes(a), self.codes(b)) as f32 * self.rows.scale(a) * self.rows.scale(b)
    }
}

/// Neighbour lists while the graph is made.
struct Growing {
    places: usize,
    counts: Vec<u8>,
    links: Vec<u32>,
}

impl Growing {
    fn of(&self, node: u32) -> &[u32] {
        let at = node as usize * self.places;
        let count = self.counts.get(node as usize).copied().unwrap_or(0);
        self.links.get(at..at + usize::from(count)).unwrap_or(&[])
    }
}

impl Links for Growing {
    fn neighbours(&self, node: u32, out: &mut Vec<u32>) {
        out.extend_from_slice(self.of(node));
    }
}

/// The graph of these rows: `degree` places for every node, those beyond its neighbours filled with its own number.
/// `joining` has every node once, in the order in which they join: by chance, or the first batches know one corner only.
pub(in crate::router::index) fn build(whole: &Whole<'_>, joining: &[u32], options: &BuildOptions) -> Vec<u32> {
    let nodes = whole.rows.len().min(joining.len());
    let places = options.slack.max(options.degree);
    let mut graph = Growing { places, counts: vec![0; nodes], links: vec![0; nodes * places] };
    for pass in 0..options.passes.max(1) {
        let mut done = usize::from(pass == 0 && nodes > 0);
        while done < nodes {
            let known = if pass == 0 { done } else { nodes };
            let batch = (nodes / BATCH_PART).clamp(1, known).min(nodes - done);
            let (batch_nodes, known) = (&joining[done..done + batch], &joining[..known]);
            let chosen = choose_all(whole, &graph, batch_nodes, known, options);
            join(whole, &mut graph, batch_nodes, &chosen, options);
            done += batch;
        }
    }
    finish(whole, graph, options)
}

/// Neighbours for every node of a batch, out of the `known` ones.
fn choose_all(
    whole: &Whole<'_>,
    graph: &Growing,
    batch: &[u32],
    known: &[u32],
    options: &BuildOptions,
) -> Vec<Vec<u32>> {
    let share = batch.len().div_ceil(options.threads.max(1)).max(1);
    let work = |part: &[u32]| {
        let mut scratch = Scratch::default();
        part.iter().map(|node| choose_one(whole, graph, *node, known, options, &mut scratch)).collect::<Vec<_>>()
    };
    in_parallel(batch.chunks(share).collect(), work).concat()
}

fn choose_one(
    whole: &Whole<'_>,
    graph: &Growing,
    node: u32,
    known: &[u32],
    options: &BuildOptions,
    scratch: &mut Scratch,
) -> Vec<u32> {
    if known.len() <= EXACT {
        let others = known.iter().copied().filter(|other| *other != node);
        let mut all: Vec<Ranked> = others.map(|other| Ranked::new(whole.between(node, other), other)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(options.beam);
        return prune(whole, &all, options);
    }
    let probe = Probe::of_row(whole.codes(node));
    let begin = starts(known.len(), STARTS).filter_map(|at| known.get(at as usize).copied());
    search(&whole.rows, graph, &probe, begin, options.beam, scratch);
    let old = graph.of(node).iter().copied();
    let pool = scratch.pool.iter().map(|ranked| ranked.node()).chain(old).filter(|other| *other != node);
    let mut found: Vec<Ranked> = pool.map(|other| Ranked::new(whole.between(node, other), other)).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    prune(whole, &found, options)
}

/// Of candidates sorted by nearness, those that are not better reached through another; then the nearest of the
/// others, up to the degree.
fn prune(whole: &Whole<'_>, sorted: &[Ranked], options: &BuildOptions) -> Vec<u32> {
    let mut kept: Vec<u32> = Vec::with_capacity(options.degree);
    let mut passed: Vec<u32> = Vec::new();
    for ranked in sorted {
        if kept.len() >= options.degree {
            break;
        }
        let (node, distance) = (ranked.node(), 1.0 - ranked.score());
        let reached = kept.iter().any(|other| options.alpha * (1.0 - whole.between(*other, node)) < distance);
        if reached { passed.push(node) } else { kept.push(node) }
    }
    let missing = options.degree.saturating_sub(kept.len());
    kept.extend(passed.into_iter().take(missing));
    kept
}

/// Puts a batch into the graph: its own lists, and itself into the lists of those it chose.
fn join(whole: &Whole<'_>, graph: &mut Growing, batch: &[u32], chosen: &[Vec<u32>], options: &BuildOptions) {
    let mut wanted: Vec<(u32, u32)> = Vec::new();
    for (node, list) in batch.iter().zip(chosen) {
        let at = *node as usize * graph.places;
        graph.links[at..at + list.len()].copy_from_slice(list);
        graph.counts[*node as usize] = list.len() as u8;
        wanted.extend(list.iter().map(|to| (*to, *node)));
    }
    wanted.sort_unstable();
    let share = wanted.len().div_ceil(options.threads.max(1)).max(1);
    let mut parts = Vec::new();
    let (mut pairs, mut links, mut counts, mut offset) =
        (&wanted[..], &mut graph.links[..], &mut graph.counts[..], 0_usize);
    while !pairs.is_empty() {
        let border = pairs.get(share).map_or(u32::MAX, |(to, _)| *to + 1);
        let (now, later) = pairs.split_at(pairs.partition_point(|(to, _)| *to < border));
        let ends = (border as usize).min(offset + counts.len()) - offset;
        let (my_links, other_links) = links.split_at_mut(ends * graph.places);
        let (my_counts, other_counts) = counts.split_at_mut(ends);
        parts.push((now, my_links, my_counts, offset as u32));
        (pairs, links, counts, offset) = (later, other_links, other_counts, offset + ends);
    }
    let places = graph.places;
    in_parallel(parts, |(pairs, links, counts, offset)| {
        for group in pairs.chunk_by(|a, b| a.0 == b.0) {
            let node = group[0].0;
            let mine = (node - offset) as usize;
            let list = &mut links[mine * places..(mine + 1) * places];
            for (_, from) in group {
                let count = usize::from(counts[mine]);
                if list[..count].contains(from) {
                    continue;
                }
                let count = if count < places { count } else { shrink(whole, node, list, options) };
                list[count] = *from;
                counts[mine] = count as u8 + 1;
            }
        }
    });
}

/// Chooses again among the neighbours of a node; how many stay.
fn shrink(whole: &Whole<'_>, node: u32, list: &mut [u32], options: &BuildOptions) -> usize {
    let mut sorted: Vec<Ranked> = list.iter().map(|other| Ranked::new(whole.between(node, *other), *other)).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let kept = prune(whole, &sorted, options);
    list[..kept.len()].copy_from_slice(&kept);
    kept.len().min(list.len() - 1)
}

fn finish(whole: &Whole<'_>, graph: Growing, options: &BuildOptions) -> Vec<u32> {
    let share = whole.rows.len().div_ceil(options.threads.max(1)).max(1);
    let parts: Vec<_> =
        (0..whole.rows.len()).step_by(share).map(|from| from..(from + share).min(whole.rows.len())).collect();
    let work = |part: std::ops::Range<usize>| {
        let mut packed = Vec::with_capacity(part.len() * options.degree);
        for node in part {
            let node = node as u32;
            let mut list = graph.of(node).to_vec();
            if list.len() > options.degree {
                let kept = shrink(whole, node, &mut list, options);
                list.truncate(kept);
            }
            list.resize(options.degree, node);
            packed.extend_from_slice(&list);
        }
        packed
    };
    in_parallel(parts, work).concat()
}

/// Runs `work` on each part, every part on a thread of its own; the results in order.
fn in_parallel<T: Send, R: Send>(parts: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || work(part))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
