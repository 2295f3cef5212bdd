//! Changing the index: appending to the log, sealing what is too much for it, merging segments.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::PoisonError;

use super::draft::{Draft, Labels};
use super::log::{self, Log};
use super::manifest::{Manifest, Part};
use super::rotation::Rotation;
use super::seal::{GRAPH_FROM, Searching, name_segment, write_segment};
use super::segment::{self, Section, Segment};
use super::state::{Open, State};
use super::{Change, Index, IndexError, MAX_VECTORS, Profile, bytes::Reader, quant};

/// Vectors the tail may hold before it is sealed.
const TAIL_VECTORS: usize = 4096;
/// Vectors from which principal axes are worth finding.
const AXES_FROM: usize = 4096;
/// The most vectors in an index.
const MOST_VECTORS: usize = 1 << 30;
/// Bytes of attributes and path of an adapter.
const MAX_LABELS: usize = 64 << 10;

/// Held while files change: `WRITE` for changes, `MERGE` for merging.
pub(super) struct Locked {
    _file: File,
}

/// Waits for a lock, which ends with the process at the latest.
pub(super) fn lock(dir: &Path, name: &str) -> Result<Locked, IndexError> {
    let path = dir.join(name);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(IndexError::disk("open", &path))?;
    file.lock().map_err(IndexError::disk("lock", &path))?;
    Ok(Locked { _file: file })
}

/// Makes an empty index, if there is none.
pub(super) fn create(dir: &Path, embedder: [u8; 32], dim: usize) -> Result<(), IndexError> {
    fs::create_dir_all(dir).map_err(IndexError::disk("create", dir))?;
    if Manifest::read(dir)?.is_none() {
        let _writing = lock(dir, "WRITE")?;
        if Manifest::read(dir)?.is_none() {
            Log::create(dir, 1, &[])?;
            let dim = dim as u32;
            Manifest { embedder, dim, generation: 0, log: 1, next: 2, segments: Vec::new() }.write(dir)?;
        }
    }
    Ok(())
}

impl Index {
    pub(super) fn change(&self, changes: &[Change<'_>]) -> Result<(), IndexError> {
        for change in changes {
            if let Change::Put(profile) = change {
                self.check(profile)?;
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let _writing = lock(&self.dir, "WRITE")?;
        self.renew()?;
        let added: usize = changes.iter().map(|c| if let Change::Put(p) = c { p.vectors.len() } else { 0 }).sum();
        let (tail, end, id) = self.reading(|state| (state.tail.vectors(), state.log.end, state.manifest.log));
        if tail + added > TAIL_VECTORS || changes.len() > TAIL_VECTORS {
            return self.seal_tail(changes);
        }
        let mut log = Log::open(&self.dir, id)?;
        log.end = end;
        log.append(&log::encode(changes))?;
        self.renew()
    }

    fn check(&self, profile: &Profile<'_>) -> Result<(), IndexError> {
        let wrong = |reason: String| IndexError::Profile { digest: profile.digest.to_string(), reason };
        if profile.vectors.is_empty() || profile.vectors.len() > MAX_VECTORS {
            return Err(wrong(format!("has {} vectors; 1 to {MAX_VECTORS} are possible", profile.vectors.len())));
        }
        if let Some(vector) = profile.vectors.iter().find(|vector| vector.len() != self.dim) {
            return Err(wrong(format!("has a vector of {} dimensions; the index holds {}", vector.len(), self.dim)));
        }
        if !profile.vectors.iter().flatten().all(|x| x.is_finite() && x.abs() <= 2.0) {
            return Err(wrong("has a vector that is not a unit vector".into()));
        }
        let labels = profile.attributes.iter().flat_map(|(key, value)| [key, value]);
        let (mut bytes, mut zero) = (profile.path.len(), profile.path.contains('\0'));
        for label in labels {
            bytes += label.len();
            zero |= label.contains('\0');
        }
        if zero || bytes > MAX_LABELS {
            return Err(wrong(format!("its attributes hold a zero byte or more than {MAX_LABELS} bytes")));
        }
        Ok(())
    }

    /// Seals the tail together with these changes into a segment that is scanned. The write lock is held.
    fn seal_tail(&self, changes: &[Change<'_>]) -> Result<(), IndexError> {
        let touched: HashSet<_> = changes
            .iter()
            .map(|change| match change {
                Change::Put(profile) => profile.digest,
                Change::Remove(digest) => *digest,
            })
            .collect();
        // Of an adapter that comes more than once, the last change counts.
        let mut last = HashSet::new();
        let puts: Vec<&Profile<'_>> = changes
            .iter()
            .rev()
            .filter_map(|change| match change {
                Change::Remove(digest) => {
                    last.insert(*digest);
                    None
                }
                Change::Put(profile) => last.insert(profile.digest).then_some(profile),
            })
            .collect();
        let (draft, sampled) = self.reading(|state| {
            let added = puts.iter().map(|profile| profile.vectors.len()).sum::<usize>();
            let vectors: Vec<&Vec<f32>> = puts.iter().flat_map(|profile| profile.vectors).collect();
            let axes = state.axes().or_else(|| {
                let read = |at: usize, out: &mut Vec<f32>| out.extend(vectors.get(at).copied().into_iter().flatten());
                (added >= AXES_FROM).then(|| (Rotation::principal(self.dim, added, read).into(), added))
            });
            let sampled = axes.as_ref().map_or(0, |(_, sampled)| *sampled);
            let mut draft = Draft::new(self.dim, axes.map(|(axes, _)| axes));
            let kept = state.tail_entries().into_iter();
            draft.push_from(&state.tail, kept.filter(|entry| !touched.contains(&state.tail.digests[*entry as usize])));
            (draft, sampled)
        });
        let mut draft = draft;
        puts.iter().rev().for_each(|profile| draft.push(profile));
        let manifest = self.reading(|state| {
            let dead = |open: &Open| {
                let mut open = open.clone();
                touched.iter().filter_map(|digest| open.segment.find(digest)).for_each(|entry| open.dead.put(entry));
                open.part()
            };
            let mut manifest = state.manifest.clone();
            manifest.segments = state.segments.iter().map(dead).collect();
            manifest.generation = state.generation() + u64::from(!changes.is_empty());
            manifest
        });
        let mut manifest = manifest;
        if draft.len() > 0 {
            let id = manifest.next;
            let written = self.dir.join("sealing.tmp");
            write_segment(&written, &draft, Searching::Scan, sampled)?;
            name_segment(&self.dir, &written, id)?;
            manifest.segments.push(Part { id, dead: Vec::new() });
            manifest.next += 1;
        }
        self.commit(manifest, &[])
    }

    /// Makes a manifest the current one, with a new log. The write lock is held.
    fn commit(&self, mut manifest: Manifest, records: &[u8]) -> Result<(), IndexError> {
        let old = std::mem::replace(&mut manifest.log, manifest.next);
        manifest.next += 1;
        Log::create(&self.dir, manifest.log, records)?;
        manifest.write(&self.dir)?;
        let _ = fs::remove_file(self.dir.join(log::file_name(old)));
        let fresh = State::load(&self.dir)?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub(super) fn merge(&self) -> Result<(), IndexError> {
        let _merging = lock(&self.dir, "MERGE")?;
        {
            let _writing = lock(&self.dir, "WRITE")?;
            self.renew()?;
            if self.reading(|state| state.tail.len() > 0) {
                self.seal_tail(&[])?;
            }
            self.sweep();
        }
        let segments = self.reading(|state| state.segments.clone());
        let chosen = choose(&segments);
        if chosen.is_empty() {
            return Ok(());
        }
        let sources: Vec<&Open> = segments.iter().filter(|open| chosen.contains(&open.segment.id)).collect();
        let written = self.dir.join("merging.tmp");
        let some = write_merged(&written, &sources, self.dim)?;
        let _writing = lock(&self.dir, "WRITE")?;
        self.renew()?;
        let (mut manifest, records) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let mut manifest = state.manifest.clone();
            manifest.generation = state.manifest.generation;
            let kept = state.segments.iter().filter(|open| !chosen.contains(&open.segment.id));
            manifest.segments = kept.map(Open::part).collect();
            (manifest, state.log.raw_since(log::START)?)
        };
        if some {
            let id = manifest.next;
            manifest.next += 1;
            name_segment(&self.dir, &written, id)?;
            let merged = Segment::open(&self.dir, id, self.dim)?;
            // What died while the merging went on.
            let mut dead: Vec<u32> = self.reading(|state| {
                let now = |before: &Open| state.segments.iter().find(|open| open.segment.id == before.segment.id);
                let died =
                    sources.iter().filter_map(|before| Some((before, now(before)?))).flat_map(|(before, now)| {
                        let mut died = now.dead.clone();
                        died.and_not(&before.dead);
                        died.iter().filter_map(|entry| merged.find(&before.segment.digest(entry)?)).collect::<Vec<_>>()
                    });
                died.collect()
            });
            dead.sort_unstable();
            manifest.segments.push(Part { id, dead });
        }
        self.commit(manifest, &records)?;
        self.sweep();
        Ok(())
    }

    /// Removes files that belong to no manifest. Both locks are held, or nothing is being merged.
    fn sweep(&self) {
        let (log, segments) = self.reading(|state| {
            let names: HashSet<String> =
                state.segments.iter().map(|open| segment::file_name(open.segment.id)).collect();
            (log::file_name(state.manifest.log), names)
        });
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = [".seg", ".log", ".tmp"].iter().any(|end| name.ends_with(end));
            if ours && name != log && !segments.contains(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The segments to be merged: the smallest ones, up to the last that is not much larger than those before it together,
/// or that must be made anew for its own sake.
pub(super) fn choose(segments: &[Open]) -> HashSet<u64> {
    let mut sorted: Vec<&Open> = segments.iter().collect();
    sorted.sort_by_key(|open| (open.segment.shape.vectors, open.segment.id));
    let (mut smaller, mut count) = (0, 0);
    for (at, open) in sorted.iter().enumerate() {
        let shape = open.segment.shape;
        let needs = (shape.vectors >= GRAPH_FROM && shape.degree == 0) || open.dead_count * 4 > shape.entries;
        if needs || (at > 0 && shape.vectors <= 3 * smaller) {
            count = at + 1;
        }
        smaller += shape.vectors;
    }
    sorted.iter().take(count).map(|open| open.segment.id).collect()
}

/// Writes the living adapters of some segments into one; whether there was any.
fn write_merged(path: &Path, sources: &[&Open], dim: usize) -> Result<bool, IndexError> {
    let alive = |open: &Open| open.segment.shape.entries - open.dead_count;
    let total: usize = sources.iter().map(|open| open.segment.shape.vectors).sum();
    if total > MOST_VECTORS {
        return Err(IndexError::TooMany { what: "vectors", most: MOST_VECTORS, count: total });
    }
    let known = sources.iter().filter_map(|open| Some((open.segment.axes.clone()?, open.segment.shape.sampled)));
    let known = known.max_by_key(|(_, sampled)| *sampled);
    // Axes of too small a sample are chosen again.
    let (axes, sampled) = match known {
        Some((axes, sampled)) if total < 8 * sampled || sampled >= 16_384 => (Some(axes), sampled),
        _ if total >= AXES_FROM => (Some(principal(sources, dim, total).into()), total),
        Some((axes, sampled)) => (Some(axes), sampled),
        None => (None, 0),
    };
    let mut draft = Draft::new(dim, axes);
    for open in sources {
        add_segment(&mut draft, open);
    }
    if sources.iter().all(|open| alive(open) == 0) {
        return Ok(false);
    }
    write_segment(path, &draft, Searching::Graph, sampled)?;
    Ok(true)
}

fn principal(sources: &[&Open], dim: usize, total: usize) -> Rotation {
    Rotation::principal(dim, total, |mut at, out| {
        for open in sources {
            let rows = open.segment.rows();
            if at < rows.len() {
                let (node, mut codes) = (at as u32, Vec::with_capacity(dim));
                quant::unpack(rows.head(node), rows.body(node), &mut codes);
                let turned: Vec<f32> = codes.iter().map(|code| f32::from(*code) * rows.scale(node)).collect();
                out.extend(open.segment.axes.as_ref().map_or_else(|| turned.clone(), |axes| axes.turn_back(&turned)));
                return;
            }
            at -= rows.len();
        }
    })
}

/// Adds the living adapters of a segment to a draft.
fn add_segment(draft: &mut Draft, open: &Open) {
    let segment = &*open.segment;
    let text = |bytes: &'_ [u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = |ends, items| -> Vec<String> {
        (0..segment.count(ends) as u32).map(|at| text(segment.item(ends, items, at))).collect()
    };
    let (words, facets) = (all(Section::WordEnds, Section::Words), all(Section::FacetEnds, Section::Facets));
    let mut having: Vec<Vec<u32>> = vec![Vec::new(); segment.shape.entries];
    for facet in 0..facets.len() as u32 {
        let mut bits = super::bits::Bits::none(segment.shape.entries);
        segment.add_facet(facet, &mut bits);
        bits.iter().for_each(|entry| having.get_mut(entry as usize).into_iter().for_each(|list| list.push(facet)));
    }
    let rows = segment.rows();
    let mut codes = Vec::new();
    for entry in (0..segment.shape.entries as u32).filter(|entry| !open.dead.has(*entry)) {
        let Some(digest) = segment.digest(entry) else { continue };
        codes.clear();
        let vectors = segment.vectors_of(entry);
        vectors.clone().for_each(|node| quant::unpack(rows.head(node), rows.body(node), &mut codes));
        let scales: Vec<f32> = vectors.map(|node| rows.scale(node)).collect();
        let mut reader = Reader(segment.item(Section::TextEnds, Section::Texts, entry));
        let (mut terms, mut word) = (Vec::new(), 0_u32);
        while let (Some(step), Some(weight)) = (reader.varint(), reader.u8()) {
            word = word.wrapping_add(step);
            terms.extend(words.get(word as usize).map(|word| (word.as_str(), weight)));
        }
        let facets =
            having[entry as usize].iter().filter_map(|facet| facets.get(*facet as usize)).map(String::as_str).collect();
        draft.push_codes(Labels { digest, terms, facets }, &codes, &scales, segment.axes.as_ref());
    }
}
