//! A navigable graph over quantized rows: the beam search, and the rows it looks at.
//!
//! One layer. The search starts at the best of some evenly taken nodes, then always looks at the neighbours of the best
//! node it has not been at. It compares with the head of each row, one cache line; the lines of a whole neighbourhood
//! are touched before the first is looked at, so that their reads are under way at once. The caller scores the best
//! again with whole rows. How the graph is made is in [`build`], where its rows stand in [`order`].

pub(super) mod build;
pub(super) mod order;

use super::quant::{Probe, body_bytes, head_bytes};

/// Quantized vectors: the heads of all, and the bodies of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub dim: usize,
    pub heads: &'a [u8],
    pub bodies: &'a [u8],
    pub scales: &'a [f32],
}

impl<'a> Rows<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// The upper bits of a row.
    #[inline]
    pub fn head(&self, node: u32) -> &'a [u8] {
        let size = head_bytes(self.dim);
        self.heads.get(node as usize * size..(node as usize + 1) * size).unwrap_or(&[])
    }

    /// The rest of a row.
    #[inline]
    pub fn body(&self, node: u32) -> &'a [u8] {
        let size = body_bytes(self.dim);
        self.bodies.get(node as usize * size..(node as usize + 1) * size).unwrap_or(&[])
    }

    /// What a unit of a row's numbers is worth.
    #[inline]
    pub fn scale(&self, node: u32) -> f32 {
        self.scales.get(node as usize).copied().unwrap_or(0.0)
    }

    /// Has the heads of some nodes read into the processor's cache, all at once.
    #[inline]
    pub fn touch(&self, nodes: &[u32]) {
        let size = head_bytes(self.dim);
        let first = |node: &u32| self.heads.get(*node as usize * size).copied().unwrap_or(0);
        std::hint::black_box(nodes.iter().fold(0, |all, node| all ^ first(node)));
    }

    /// The same with the whole rows.
    #[inline]
    pub fn touch_whole(&self, nodes: impl Iterator<Item = u32>) {
        let (head, body) = (head_bytes(self.dim), body_bytes(self.dim));
        let byte = |of: &[u8], at: usize| of.get(at).copied().unwrap_or(0);
        let row = |node: u32| {
            let from = node as usize * body;
            let bodies = (from..from + body).step_by(LINE).fold(0, |all, at| all ^ byte(self.bodies, at));
            bodies ^ byte(self.heads, node as usize * head)
        };
        std::hint::black_box(nodes.fold(0, |all, node| all ^ row(node)));
    }

    /// What the head alone says of the cosine, in units of the probe's scale.
    #[inline]
    pub fn rough(&self, probe: &Probe, node: u32) -> f32 {
        probe.rough(self.head(node)) as f32 * self.scale(node)
    }

    /// The cosine.
    #[inline]
    pub fn cosine(&self, probe: &Probe, node: u32) -> f32 {
        probe.exact(self.head(node), self.body(node)) as f32 * self.scale(node) * probe.scale()
    }
}

/// Bytes of a line of the processor's cache.
const LINE: usize = 64;

/// Where the neighbours of nodes are found.
pub(super) trait Links {
    /// Appends the neighbours of a node.
    fn neighbours(&self, node: u32, out: &mut Vec<u32>);
}

/// The stored form: as many places for every node, of three bytes each while that is enough. A place that repeats the
/// node itself is empty; the search was there already.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedLinks<'a> {
    pub degree: usize,
    pub width: usize,
    pub bytes: &'a [u8],
}

impl Links for PackedLinks<'_> {
    #[inline]
    fn neighbours(&self, node: u32, out: &mut Vec<u32>) {
        let size = self.degree * self.width;
        let at = node as usize * size;
        let links = self.bytes.get(at..at + size).unwrap_or(&[]);
        if self.width == 3 {
            let number = |b: &[u8]| u32::from(b[0]) | u32::from(b[1]) << 8 | u32::from(b[2]) << 16;
            out.extend(links.chunks_exact(3).map(number));
        } else {
            let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            out.extend(links.chunks_exact(4).map(number));
        }
    }
}

/// A node with its score, best first when sorted downwards; equal scores by number, the lower first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ranked(u64);

/// The bit that says a node's neighbours were not looked at yet.
const FRESH: u64 = 1;

impl Ranked {
    pub fn new(score: f32, node: u32) -> Self {
        let bits = score.to_bits();
        let ordered = if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits };
        Self(u64::from(ordered) << 32 | (u64::from(!node) & 0x7fff_ffff) << 1)
    }

    pub fn node(self) -> u32 {
        !(self.0 >> 1) as u32 & 0x7fff_ffff
    }

    pub fn score(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & 0x7fff_ffff } else { !ordered })
    }
}

/// Buffers of a search, kept between searches.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The best nodes seen, best first.
    pub pool: Vec<Ranked>,
    seen: Vec<u64>,
    touched: Vec<u32>,
    around: Vec<u32>,
    scored: Vec<Ranked>,
}

impl Scratch {
    fn begin(&mut self, nodes: usize) {
        for word in self.touched.drain(..) {
            if let Some(word) = self.seen.get_mut(word as usize) {
                *word = 0;
            }
        }
        if self.seen.len() < nodes.div_ceil(64) {
            self.seen.resize(nodes.div_ceil(64), 0);
        }
        self.pool.clear();
    }

    /// Marks a node; whether it was not marked before. A number that is no node counts as marked.
    #[inline]
    fn mark(&mut self, node: u32) -> bool {
        let bit = 1 << (node % 64);
        let Some(word) = self.seen.get_mut(node as usize / 64) else { return false };
        if *word == 0 {
            self.touched.push(node / 64);
        }
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.pool.capacity() * 8
            + self.seen.capacity() * 8
            + (self.touched.capacity() + self.around.capacity()) * 4
            + self.scored.capacity() * 8
    }

    /// Puts a node into the pool of at most `most`; its place, if it got one.
    #[inline]
    fn offer(&mut self, ranked: Ranked, most: usize) -> Option<usize> {
        if self.pool.len() >= most {
            if self.pool.last().is_none_or(|last| ranked < *last) {
                return None;
            }
            self.pool.pop();
        }
        let place = self.pool.partition_point(|other| *other > ranked);
        self.pool.insert(place, ranked);
        Some(place)
    }
}

/// Nodes the search begins with, out of those it may begin at.
const BEGIN: usize = 8;

/// Fills the pool with about the best `beam` nodes by the head of their rows.
pub(super) fn search(
    rows: &Rows<'_>,
    links: &impl Links,
    probe: &Probe,
    starts: impl Iterator<Item = u32>,
    beam: usize,
    scratch: &mut Scratch,
) {
    scratch.begin(rows.len());
    for node in starts {
        scratch.offer(Ranked::new(rows.rough(probe, node), node), BEGIN.min(beam));
    }
    for i in 0..scratch.pool.len() {
        let node = scratch.pool[i].node();
        scratch.mark(node);
        scratch.pool[i].0 |= FRESH;
    }
    let mut next = 0;
    let mut around = std::mem::take(&mut scratch.around);
    let mut scored = std::mem::take(&mut scratch.scored);
    while let Some(ranked) = scratch.pool.get_mut(next) {
        if ranked.0 & FRESH == 0 {
            next += 1;
            continue;
        }
        ranked.0 &= !FRESH;
        let node = ranked.node();
        around.clear();
        links.neighbours(node, &mut around);
        around.retain(|node| scratch.mark(*node));
        rows.touch(&around);
        scored.clear();
        scored.extend(around.iter().map(|node| Ranked(Ranked::new(rows.rough(probe, *node), *node).0 | FRESH)));
        for ranked in &scored {
            if let Some(place) = scratch.offer(*ranked, beam) {
                next = next.min(place);
            }
        }
    }
    (scratch.around, scratch.scored) = (around, scored);
}

/// Nodes a search may begin at: up to `most` of the first `nodes`, evenly taken.
pub(super) fn starts(nodes: usize, most: usize) -> impl Iterator<Item = u32> {
    let taken = nodes.min(most);
    (0..taken).map(move |i| (i as u64 * nodes as u64 / taken as u64) as u32)
}

/// Nodes of a scan whose rows are read at once.
const PART: usize = 32;

/// Scores every given node by the head of its row and keeps the best `keep` in the pool.
pub(super) fn scan(
    rows: &Rows<'_>,
    probe: &Probe,
    nodes: impl Iterator<Item = u32>,
    keep: usize,
    scratch: &mut Scratch,
) {
    scratch.pool.clear();
    let (mut nodes, mut part) = (nodes, std::mem::take(&mut scratch.around));
    loop {
        part.clear();
        part.extend(nodes.by_ref().take(PART));
        if part.is_empty() {
            break;
        }
        rows.touch(&part);
        for node in &part {
            scratch.offer(Ranked::new(rows.rough(probe, *node), *node), keep);
        }
    }
    scratch.around = part;
}
