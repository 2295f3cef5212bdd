//! A sealed file of adapters, mapped: what is where in it, and how it is read.
//!
//! ```text
//! 0      header   SMOAINDX, version, dimensions, adapters, vectors, neighbours, vectors the axes were chosen by,
//!                 length of the file, offset and length of every section, check (BLAKE3)         4096 bytes
//! ...    sections, each at a multiple of 64, in the order of [`Section`]
//! ```
//!
//! Numbers are little endian. Adapters are sorted by digest. The vectors of one stand together; beside a graph those of
//! near adapters stand near each other (version 1: in the order of the adapters, too). The header is checked
//! when a file is opened. Sections are not read then (a million adapters are 400 MB); whatever they hold, reading them
//! ends in wrong scores at worst.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::IndexError;
use super::bits::Bits;
use super::bytes::Reader;
use super::graph::{PackedLinks, Rows};
use super::quant;
use super::rotation::Rotation;
use crate::adapter::AdapterDigest;
use crate::mapped::Mapped;

/// Bytes of the header.
pub(super) const HEADER: usize = 4096;
/// The version that is written; 1, of which this is a freer form, is read as well.
pub(super) const VERSION: u32 = 2;
pub(super) const MAGIC: &[u8; 8] = b"SMOAINDX";
/// Sections start at multiples of this.
pub(super) const ALIGNMENT: usize = 64;

/// The parts of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Heads of rows.
    Heads,
    /// Bodies of rows.
    Bodies,
    /// A scale for each row.
    Scales,
    /// The graph, or nothing.
    Links,
    /// The axes, or nothing.
    Axes,
    /// Digests of the adapters, upwards.
    Digests,
    /// The first vector of each adapter, and the number of vectors. Its others, if any, follow: they have the same owner.
    Firsts,
    /// The adapter of each vector.
    Owners,
    /// End of each word.
    WordEnds,
    /// Words, alphabetically.
    Words,
    /// End of each word's postings.
    PostingEnds,
    /// Of each word: how many adapters have it; then, greatest weight first, weight, how many, differences of numbers.
    Postings,
    /// End of each adapter's words.
    TextEnds,
    /// Of each adapter: differences of the numbers of its words, with weights.
    Texts,
    /// End of each facet.
    FacetEnds,
    /// Facets, alphabetically.
    Facets,
    /// Of each facet: how many adapters have it, and where the list is.
    FacetLists,
    /// Lists of adapters, or a bit for every adapter where that is shorter.
    FacetBits,
}

/// All sections, in the order of the file.
pub(super) const SECTIONS: [Section; 18] = {
    use Section::*;
    [
        Heads,
        Bodies,
        Scales,
        Links,
        Axes,
        Digests,
        Firsts,
        Owners,
        WordEnds,
        Words,
        PostingEnds,
        Postings,
        TextEnds,
        Texts,
        FacetEnds,
        Facets,
        FacetLists,
        FacetBits,
    ]
};

/// The numbers of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub dim: usize,
    pub entries: usize,
    pub vectors: usize,
    /// Neighbours of a vector; 0 without a graph.
    pub degree: usize,
    /// Vectors that the axes were chosen by; 0 with the embedder's.
    pub sampled: usize,
}

/// A mapped segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub id: u64,
    pub shape: Shape,
    pub axes: Option<Arc<Rotation>>,
    path: PathBuf,
    map: Mapped,
    places: [(usize, usize); SECTIONS.len()],
}

/// The file name of a segment.
pub(super) fn file_name(id: u64) -> String {
    format!("{id:08}.seg")
}

/// Bytes of a link between this many vectors.
pub(super) fn link_width(vectors: usize) -> usize {
    if vectors <= 1 << 24 { 3 } else { 4 }
}

impl Segment {
    /// Maps segment `id` of the index in `dir`.
    pub fn open(dir: &Path, id: u64, dim: usize) -> Result<Self, IndexError> {
        let path = dir.join(file_name(id));
        let map = Mapped::open(&path).map_err(IndexError::disk("open", &path))?;
        let (shape, places) = read_header(map.bytes()).map_err(|reason| IndexError::damaged(&path, reason))?;
        if shape.dim != dim {
            return Err(IndexError::damaged(&path, format!("holds vectors of {} dimensions, not {dim}", shape.dim)));
        }
        let mut segment = Self { id, shape, axes: None, path, map, places };
        segment.check_lengths().map_err(|reason| IndexError::damaged(&segment.path, reason))?;
        let axes = segment.numbers::<f32>(Section::Axes);
        segment.axes = Rotation::from_rows(dim, axes.to_vec()).map(Arc::new);
        Ok(segment)
    }

    fn check_lengths(&self) -> Result<(), String> {
        let Shape { dim, entries, vectors, degree, .. } = self.shape;
        let wanted = [
            (Section::Heads, vectors * quant::head_bytes(dim)),
            (Section::Bodies, vectors * quant::body_bytes(dim)),
            (Section::Scales, vectors * 4),
            (Section::Links, vectors * degree * link_width(vectors)),
            (Section::Digests, entries * 32),
            (Section::Firsts, (entries + 1) * 4),
            (Section::Owners, vectors * 4),
            (Section::TextEnds, entries * 4),
        ];
        let wrong = wanted.iter().find(|(section, length)| self.bytes(*section).len() != *length);
        wrong.map_or(Ok(()), |(section, _)| Err(format!("section {section:?} has the wrong length")))
    }

    /// The bytes of a section.
    pub fn bytes(&self, section: Section) -> &[u8] {
        let (at, length) = self.places[section as usize];
        self.map.bytes().get(at..at + length).unwrap_or(&[])
    }

    /// A section of numbers.
    pub fn numbers<T: bytemuck::AnyBitPattern>(&self, section: Section) -> &[T] {
        bytemuck::try_cast_slice(self.bytes(section)).unwrap_or(&[])
    }

    /// The quantized vectors.
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            dim: self.shape.dim,
            heads: self.bytes(Section::Heads),
            bodies: self.bytes(Section::Bodies),
            scales: self.numbers(Section::Scales),
        }
    }

    /// The graph, if there is one.
    pub fn links(&self) -> Option<PackedLinks<'_>> {
        let width = link_width(self.shape.vectors);
        (self.shape.degree > 0).then(|| PackedLinks {
            degree: self.shape.degree,
            width,
            bytes: self.bytes(Section::Links),
        })
    }

    /// The adapter with this number.
    pub fn digest(&self, entry: u32) -> Option<AdapterDigest> {
        let digests: &[[u8; 32]] = self.numbers(Section::Digests);
        digests.get(entry as usize).copied().map(AdapterDigest::from_bytes)
    }

    /// The number of an adapter.
    pub fn find(&self, digest: &AdapterDigest) -> Option<u32> {
        let digests: &[[u8; 32]] = self.numbers(Section::Digests);
        digests.binary_search(digest.as_bytes()).ok().map(|entry| entry as u32)
    }

    /// The vectors of an adapter.
    pub fn vectors_of(&self, entry: u32) -> std::ops::Range<u32> {
        let firsts: &[u32] = self.numbers(Section::Firsts);
        let first = firsts.get(entry as usize).copied().unwrap_or(0).min(self.shape.vectors as u32);
        if self.shape.vectors == self.shape.entries {
            return first..(first + 1).min(self.shape.vectors as u32);
        }
        let after = self.owners().get(first as usize..).unwrap_or(&[]);
        first..first + after.iter().take_while(|owner| **owner == entry).count() as u32
    }

    /// The adapters of the vectors.
    pub fn owners(&self) -> &[u32] {
        self.numbers(Section::Owners)
    }

    /// The part of a section that is item `at`, given the ends of the items.
    pub fn item(&self, ends: Section, items: Section, at: u32) -> &[u8] {
        let ends: &[u32] = self.numbers(ends);
        let end = |at: usize| ends.get(at).copied().unwrap_or(0) as usize;
        let start = (at as usize).checked_sub(1).map_or(0, end);
        self.bytes(items).get(start..end(at as usize)).unwrap_or(&[])
    }

    /// How many items there are.
    pub fn count(&self, ends: Section) -> usize {
        self.bytes(ends).len() / 4
    }

    /// The number of a text among sorted ones.
    pub fn find_text(&self, ends: Section, items: Section, text: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.count(ends) as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.item(ends, items, middle).cmp(text.as_bytes()) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Adds to `bits` the adapters that have facet number `at`.
    pub fn add_facet(&self, at: u32, bits: &mut Bits) {
        let lists: &[[u32; 2]] = self.numbers(Section::FacetLists);
        let numbers: &[u32] = self.numbers(Section::FacetBits);
        let Some([count, from]) = lists.get(at as usize).copied() else { return };
        let from = numbers.get(from as usize..).unwrap_or(&[]);
        if is_list(count as usize, self.shape.entries) {
            from.iter().take(count as usize).for_each(|entry| bits.put(*entry));
        } else {
            let words = from.chunks_exact(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32);
            bits.words_mut().iter_mut().zip(words).for_each(|(word, more)| *word |= more);
        }
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.map.bytes().len() as u64
    }
}

/// Whether a list of `count` adapters is shorter than a bit for every adapter.
pub(super) fn is_list(count: usize, entries: usize) -> bool {
    count * 32 < entries
}

type Places = [(usize, usize); SECTIONS.len()];

/// A header, with zeros up to [`HEADER`].
pub(super) fn header(shape: &Shape, places: &Places, length: usize) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    for number in [shape.dim, shape.entries, shape.vectors, shape.degree, shape.sampled, length] {
        out.extend_from_slice(&(number as u64).to_le_bytes());
    }
    for (at, size) in places {
        out.extend_from_slice(&(*at as u64).to_le_bytes());
        out.extend_from_slice(&(*size as u64).to_le_bytes());
    }
    let check = blake3::hash(&out);
    out.extend_from_slice(check.as_bytes());
    out.resize(HEADER, 0);
    out
}

fn read_header(file: &[u8]) -> Result<(Shape, Places), String> {
    let mut reader = Reader(file.get(..HEADER).ok_or("is cut short")?);
    if reader.take(8) != Some(MAGIC) {
        return Err("is not a segment of a routing index".into());
    }
    match reader.u32() {
        Some(1..=VERSION) => {}
        other => {
            return Err(format!("version {} is not known, this program reads up to {VERSION}", other.unwrap_or(0)));
        }
    }
    let mut number = || reader.u64().and_then(|n| usize::try_from(n).ok()).ok_or("is cut short");
    let shape = Shape { dim: number()?, entries: number()?, vectors: number()?, degree: number()?, sampled: number()? };
    let length = number()?;
    let mut places = [(0, 0); SECTIONS.len()];
    for place in &mut places {
        *place = (number()?, number()?);
    }
    let read = HEADER - reader.0.len();
    if reader.array::<32>() != file.get(..read).map(|part| *blake3::hash(part).as_bytes()) {
        return Err("its header is damaged".into());
    }
    let fits =
        |(at, size): &(usize, usize)| at % ALIGNMENT == 0 && at.checked_add(*size).is_some_and(|end| end <= file.len());
    if length != file.len() || !places.iter().all(fits) {
        return Err("is cut short".into());
    }
    let small = shape.dim <= super::MAX_DIM
        && shape.vectors < 1 << 31
        && shape.entries <= shape.vectors
        && shape.degree < 1 << 8;
    if small { Ok((shape, places)) } else { Err("its header is out of range".into()) }
}
