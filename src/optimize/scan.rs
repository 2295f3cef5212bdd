//! The adapters that can be compared, each with a sketch. Sketches are kept by content, so that each is made once.
//!
//! `derived/sketches`: `smoask01`, then for each content its digest and 128 little-endian 32-bit floats, then the BLAKE3 of
//! all that. A damaged file is made anew.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::OptimizeError;
use crate::adapter::AdapterDigest;
use crate::library::{Entry, Filter, Kind, Library};
use crate::merge::{Deltas, SKETCH_WIDTH, Sketch, Sketcher};

const MAGIC: &[u8; 8] = b"smoask01";
const FILE: &str = "sketches";
const RECORD: usize = 32 + SKETCH_WIDTH * 4;

/// What was looked at.
#[derive(Debug, Default)]
pub struct Scan {
    /// Low-rank adapters for the base model, in the order of their names; of one content the first name.
    pub entries: Vec<Entry>,
    /// A sketch of each.
    pub sketches: Vec<Sketch>,
    /// Sketches that had to be made.
    pub made: usize,
    /// Adapters that are of other kinds or cannot be read.
    pub left_out: usize,
}

/// Sketches the low-rank adapters of a library that are for this base model. `progress` hears how many were looked at.
///
/// # Errors
/// The catalog cannot be read; new sketches cannot be kept.
pub fn scan(library: &Library, base: &str, mut progress: impl FnMut(u64)) -> Result<Scan, OptimizeError> {
    let file = library.derived().join(FILE);
    let mut known = read(&file);
    let mut sketcher = Sketcher::default();
    let mut found = Scan::default();
    let mut seen = std::collections::HashSet::new();
    for (at, entry) in library.walk(&Filter::default()).enumerate() {
        let entry = entry?;
        progress(at as u64 + 1);
        let measured = &entry.metadata.measured;
        let fits = measured.kind == Some(Kind::Lora) && measured.base.as_deref().is_none_or(|of| of == base);
        if !fits {
            found.left_out += 1;
            continue;
        }
        if !seen.insert(entry.digest) {
            continue;
        }
        let sketch = match known.remove(&entry.digest) {
            Some(sketch) => sketch,
            None => {
                let pinned = library.pin_digest(entry.digest)?;
                let Ok(deltas) = Deltas::read_alone(pinned.bytes()) else {
                    found.left_out += 1;
                    continue;
                };
                found.made += 1;
                sketcher.sketch(&deltas)
            }
        };
        found.entries.push(entry);
        found.sketches.push(sketch);
    }
    // What is left in `known` is of adapters that went.
    if found.made > 0 || !known.is_empty() {
        write(&file, &found).map_err(|source| OptimizeError::Disk { file: file.display().to_string(), source })?;
    }
    Ok(found)
}

fn read(file: &Path) -> HashMap<AdapterDigest, Sketch> {
    let Ok(bytes) = fs::read(file) else { return HashMap::new() };
    let Some((body, hash)) = bytes.split_last_chunk::<32>() else { return HashMap::new() };
    let Some(records) = body.strip_prefix(MAGIC).filter(|_| blake3::hash(body).as_bytes() == hash) else {
        return HashMap::new();
    };
    let record = |record: &[u8]| {
        let (digest, numbers) = record.split_first_chunk::<32>()?;
        let numbers = numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Some((AdapterDigest::from_bytes(*digest), Sketch { numbers }))
    };
    records.chunks_exact(RECORD).filter_map(record).collect()
}

/// Whole or not at all.
fn write(file: &Path, found: &Scan) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + found.entries.len() * RECORD + 32);
    bytes.extend_from_slice(MAGIC);
    for (entry, sketch) in found.entries.iter().zip(&found.sketches) {
        bytes.extend_from_slice(entry.digest.as_bytes());
        sketch.numbers.iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
    }
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let part = file.with_extension(format!("{}.part", std::process::id()));
    fs::write(&part, bytes)?;
    fs::rename(&part, file)
}
