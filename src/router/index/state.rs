//! What is in the index now: open segments with their dead, and the tail that the log holds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::IndexError;
use super::bits::Bits;
use super::draft::Draft;
use super::log::{Log, Logged};
use super::manifest::{Manifest, Part};
use super::rotation::Rotation;
use super::segment::Segment;
use crate::adapter::AdapterDigest;

/// An open segment.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub segment: Arc<Segment>,
    /// Adapters removed or replaced since it was sealed.
    pub dead: Bits,
    pub dead_count: usize,
}

impl Open {
    /// Marks an adapter dead, if it is here.
    fn kill(&mut self, digest: &AdapterDigest) {
        if let Some(entry) = self.segment.find(digest).filter(|entry| !self.dead.has(*entry)) {
            self.dead.put(entry);
            self.dead_count += 1;
        }
    }

    /// This, as a manifest says it.
    pub fn part(&self) -> Part {
        Part { id: self.segment.id, dead: self.dead.iter().collect() }
    }
}

/// The content of the index.
#[derive(Debug)]
pub(super) struct State {
    pub manifest: Manifest,
    pub segments: Vec<Open>,
    pub tail: Draft,
    /// Where in the tail each adapter stands that was put last and not removed since.
    pub latest: HashMap<AdapterDigest, u32>,
    pub log: Log,
    /// Records of the log that are in.
    records: u64,
}

/// How often a manifest is read again whose files were gone already: another process merged them.
const ATTEMPTS: usize = 8;

impl State {
    /// Opens what the manifest in `dir` names.
    pub fn load(dir: &Path) -> Result<Self, IndexError> {
        let mut attempt = 1;
        loop {
            match Self::load_once(dir) {
                Err(IndexError::Disk { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    fn load_once(dir: &Path) -> Result<Self, IndexError> {
        let missing = || IndexError::damaged(dir, "has no manifest");
        let manifest = Manifest::read(dir)?.ok_or_else(missing)?;
        let dim = manifest.dim as usize;
        let open = |part: &Part| {
            let segment = Segment::open(dir, part.id, dim)?;
            let mut dead = Bits::none(segment.shape.entries);
            part.dead.iter().for_each(|entry| dead.put(*entry));
            Ok(Open { dead_count: dead.count(), dead, segment: Arc::new(segment) })
        };
        let segments = manifest.segments.iter().map(open).collect::<Result<Vec<_>, IndexError>>()?;
        let log = Log::open(dir, manifest.log)?;
        let axes = axes(&segments).map(|(axes, _)| axes);
        let mut state =
            Self { tail: Draft::new(dim, axes), manifest, segments, latest: HashMap::new(), log, records: 0 };
        state.read_on()?;
        Ok(state)
    }

    /// Takes in what was logged since. A log that was replaced means another manifest: everything is opened again.
    pub fn refresh(&mut self, dir: &Path) -> Result<(), IndexError> {
        match self.log.news() {
            (_, false) => *self = Self::load(dir)?,
            (true, true) => self.read_on()?,
            (false, true) => {}
        }
        Ok(())
    }

    fn read_on(&mut self) -> Result<(), IndexError> {
        for record in self.log.read_on()? {
            self.records += 1;
            for change in record {
                let digest = match &change {
                    Logged::Put(owned) => owned.digest,
                    Logged::Remove(digest) => *digest,
                };
                self.segments.iter_mut().for_each(|open| open.kill(&digest));
                self.latest.remove(&digest);
                if let Logged::Put(owned) = change
                    && owned.profile().vectors.iter().all(|vector| vector.len() == self.tail.dim)
                {
                    self.latest.insert(digest, self.tail.len() as u32);
                    self.tail.push(&owned.profile());
                }
            }
        }
        Ok(())
    }

    /// Adapters of the tail that count, in the order they came.
    pub fn tail_entries(&self) -> Vec<u32> {
        let mut entries: Vec<u32> = self.latest.values().copied().collect();
        entries.sort_unstable();
        entries
    }

    /// The axes to be used for what is added, and the number of vectors they were chosen by.
    pub fn axes(&self) -> Option<(Arc<Rotation>, usize)> {
        axes(&self.segments)
    }

    /// Adapters.
    pub fn len(&self) -> usize {
        self.latest.len() + self.segments.iter().map(|open| open.segment.shape.entries - open.dead_count).sum::<usize>()
    }

    /// Counts the changes.
    pub fn generation(&self) -> u64 {
        self.manifest.generation + self.records
    }
}

fn axes(segments: &[Open]) -> Option<(Arc<Rotation>, usize)> {
    let with = segments.iter().filter_map(|open| Some((open.segment.axes.clone()?, open.segment.shape)));
    with.max_by_key(|(_, shape)| (shape.sampled, shape.vectors)).map(|(axes, shape)| (axes, shape.sampled))
}
