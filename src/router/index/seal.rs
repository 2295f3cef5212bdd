//! Making a segment out of a draft: sorting, graph, postings, bitmaps, and the file.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::IndexError;
use super::bytes::put_varint;
use super::draft::{Draft, Names};
use super::graph::Rows;
use super::graph::build::{BuildOptions, Whole, build};
use super::graph::order::near_order;
use super::quant;
use super::segment::{self, ALIGNMENT, HEADER, SECTIONS, Section, Shape};

/// Segments with fewer vectors are scanned: that takes no longer than a search in a graph.
pub(super) const GRAPH_FROM: usize = 8192;

/// Whether a segment gets a graph, whose making is the dear part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Searching {
    /// Heads are scanned.
    Scan,
    /// A graph, from [`GRAPH_FROM`] vectors on.
    Graph,
}

/// Writes the adapters of a draft to a file without a number yet, and makes it last.
///
/// Of adapters that come twice the later is taken. `sampled` is the number of vectors that the draft's axes were chosen by.
pub(super) fn write_segment(
    path: &Path,
    draft: &Draft,
    searching: Searching,
    sampled: usize,
) -> Result<(), IndexError> {
    let mut order: Vec<u32> = (0..draft.len() as u32).collect();
    order.sort_by_key(|entry| (draft.digests[*entry as usize], u32::MAX - entry));
    order.dedup_by_key(|entry| draft.digests[*entry as usize]);
    let sections = sections(draft, &order, searching, sampled);
    write(path, &sections).map_err(IndexError::disk("write", path))
}

/// Gives a written segment its number.
pub(super) fn name_segment(dir: &Path, written: &Path, id: u64) -> Result<(), IndexError> {
    fs::rename(written, dir.join(segment::file_name(id))).map_err(IndexError::disk("rename", written))?;
    sync_dir(dir)
}

/// Makes the names in a directory last.
pub(super) fn sync_dir(dir: &Path) -> Result<(), IndexError> {
    // Elsewhere directories cannot be opened; the file system orders names itself.
    if cfg!(unix) { File::open(dir).and_then(|d| d.sync_all()).map_err(IndexError::disk("fsync", dir)) } else { Ok(()) }
}

struct Sections {
    shape: Shape,
    parts: [Vec<u8>; SECTIONS.len()],
}

impl Sections {
    fn of(&mut self, section: Section) -> &mut Vec<u8> {
        &mut self.parts[section as usize]
    }

    fn number(&mut self, section: Section, number: usize) {
        self.of(section).extend_from_slice(&(number as u32).to_le_bytes());
    }
}

fn sections(draft: &Draft, order: &[u32], searching: Searching, sampled: usize) -> Sections {
    let vectors = order.iter().map(|entry| draft.scales.get(*entry).len()).sum();
    let shape = Shape { dim: draft.dim, entries: order.len(), vectors, degree: 0, sampled };
    let mut sections = Sections { shape, parts: Default::default() };
    let graph = searching == Searching::Graph && vectors >= GRAPH_FROM;
    let places = if graph { places(draft, order) } else { (0..order.len() as u32).collect() };
    let codes = put_rows(draft, order, &places, &mut sections);
    if let Some(axes) = &draft.rotation {
        sections.of(Section::Axes).extend(axes.rows().iter().flat_map(|x| x.to_le_bytes()));
    }
    if graph {
        put_graph(&codes, &mut sections);
    }
    drop(codes);
    put_words(draft, order, &mut sections);
    put_facets(draft, order, &mut sections);
    sections
}

/// The adapters' numbers in the order in which their vectors stand: near ones near each other, by their first vectors.
fn places(draft: &Draft, order: &[u32]) -> Vec<u32> {
    let firsts: Vec<u32> = order.iter().map(|entry| draft.scales.range(*entry).start as u32).collect();
    near_order(draft.dim, &draft.codes, &firsts)
}

/// Digests, rows, scales and who owns what; the rows' numbers in their new order.
fn put_rows(draft: &Draft, order: &[u32], places: &[u32], sections: &mut Sections) -> Vec<i8> {
    let mut codes = Vec::with_capacity(sections.shape.vectors * draft.dim);
    let mut firsts = vec![0_u32; order.len()];
    let mut next = 0;
    for entry in order {
        sections.of(Section::Digests).extend_from_slice(draft.digests[*entry as usize].as_bytes());
    }
    for at in places {
        let entry = order[*at as usize];
        firsts[*at as usize] = next;
        for vector in draft.scales.range(entry) {
            let row = draft.row(vector);
            quant::pack_head(row, sections.of(Section::Heads));
            quant::pack_body(row, sections.of(Section::Bodies));
            sections.of(Section::Scales).extend_from_slice(&draft.scales.items()[vector].to_le_bytes());
            sections.number(Section::Owners, *at as usize);
            codes.extend_from_slice(row);
            next += 1;
        }
    }
    firsts.push(next);
    sections.of(Section::Firsts).extend(firsts.iter().flat_map(|first| first.to_le_bytes()));
    codes
}

/// The graph of all rows. They join in the order of their adapters' digests, which is as good as chance.
fn put_graph(codes: &[i8], sections: &mut Sections) {
    let numbers = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect::<Vec<_>>();
    let scales: Vec<f32> = numbers(sections.of(Section::Scales)).into_iter().map(f32::from_le_bytes).collect();
    let owners: Vec<u32> = numbers(sections.of(Section::Owners)).into_iter().map(u32::from_le_bytes).collect();
    let mut joining: Vec<u32> = (0..owners.len() as u32).collect();
    joining.sort_by_key(|node| owners[*node as usize]);
    let options = BuildOptions::default();
    let rows = Rows { dim: sections.shape.dim, heads: sections.of(Section::Heads), bodies: &[], scales: &scales };
    let links = build(&Whole { rows, codes }, &joining, &options);
    let width = segment::link_width(scales.len());
    sections.shape.degree = options.degree;
    let packed = sections.of(Section::Links);
    packed.reserve_exact(links.len() * width);
    packed.extend(links.iter().flat_map(|link| link.to_le_bytes().into_iter().take(width)));
}

fn put_names(names: &[&str], ends: Section, items: Section, sections: &mut Sections) {
    for name in names {
        sections.of(items).extend_from_slice(name.as_bytes());
        let end = sections.of(items).len();
        sections.number(ends, end);
    }
}

fn put_words(draft: &Draft, order: &[u32], sections: &mut Sections) {
    let (words, places) = draft.term_names.sorted();
    put_names(&words, Section::WordEnds, Section::Words, sections);
    // One number for word, weight (greatest first) and adapter: sorting them sorts the postings.
    let mut postings: Vec<(u32, u32, u32)> = Vec::new();
    for (entry, at) in order.iter().zip(0_u32..) {
        let mut terms: Vec<(u32, u8)> =
            draft.terms.get(*entry).iter().map(|(word, weight)| (places[*word as usize], *weight)).collect();
        terms.sort_unstable();
        let mut before = 0;
        for (word, weight) in terms {
            put_varint(sections.of(Section::Texts), word - before);
            sections.of(Section::Texts).push(weight);
            postings.push((word, u32::from(255 - weight), at));
            before = word;
        }
        let end = sections.of(Section::Texts).len();
        sections.number(Section::TextEnds, end);
    }
    postings.sort_unstable();
    let mut of_word = postings.chunk_by(|a, b| a.0 == b.0).peekable();
    for word in 0..words.len() as u32 {
        if let Some(list) = of_word.next_if(|list| list[0].0 == word) {
            let out = sections.of(Section::Postings);
            put_varint(out, list.len() as u32);
            for group in list.chunk_by(|a, b| a.1 == b.1) {
                out.push((255 - group[0].1) as u8);
                put_varint(out, group.len() as u32);
                let mut before = 0;
                for (_, _, entry) in group {
                    put_varint(out, entry - before);
                    before = *entry;
                }
            }
        }
        let end = sections.of(Section::Postings).len();
        sections.number(Section::PostingEnds, end);
    }
}

fn put_facets(draft: &Draft, order: &[u32], sections: &mut Sections) {
    let (facets, places) = Names::sorted(&draft.facet_names);
    put_names(&facets, Section::FacetEnds, Section::Facets, sections);
    let pairs = order.iter().zip(0_u32..).flat_map(|(entry, at)| {
        let places = &places;
        draft.facets.get(*entry).iter().map(move |facet| (places[*facet as usize], at))
    });
    let mut pairs: Vec<(u32, u32)> = pairs.collect();
    pairs.sort_unstable();
    let mut of_facet = pairs.chunk_by(|a, b| a.0 == b.0).peekable();
    for facet in 0..facets.len() as u32 {
        let list = of_facet.next_if(|list| list[0].0 == facet).unwrap_or(&[]);
        let from = sections.of(Section::FacetBits).len() / 4;
        sections.number(Section::FacetLists, list.len());
        sections.number(Section::FacetLists, from);
        if segment::is_list(list.len(), order.len()) {
            list.iter().for_each(|(_, entry)| sections.number(Section::FacetBits, *entry as usize));
        } else {
            let mut bits = super::bits::Bits::none(order.len());
            list.iter().for_each(|(_, entry)| bits.put(*entry));
            let words = bits.words_mut().iter().flat_map(|word| word.to_le_bytes());
            sections.of(Section::FacetBits).extend(words);
        }
    }
}

fn write(path: &Path, sections: &Sections) -> std::io::Result<()> {
    let mut at = HEADER;
    let places = std::array::from_fn(|i| {
        let start = at;
        at = (at + sections.parts[i].len()).next_multiple_of(ALIGNMENT);
        (start, sections.parts[i].len())
    });
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&segment::header(&sections.shape, &places, at))?;
    for part in &sections.parts {
        file.write_all(part)?;
        let zeros = part.len().next_multiple_of(ALIGNMENT) - part.len();
        file.write_all(&[0; ALIGNMENT][..zeros])?;
    }
    file.flush()?;
    file.get_ref().sync_all()
}
