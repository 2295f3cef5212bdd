//! What a library tells of an adapter, and how one asks for many.

use super::catalog::{facets, words};
use super::{AdapterName, Metadata, Specialization, terms::Granularity};
use crate::adapter::AdapterDigest;

/// A number that stays with an adapter while it is renamed or described anew. Not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub(super) i64);

impl EntryId {
    /// The number.
    pub fn get(self) -> u64 {
        self.0.unsigned_abs()
    }
}

/// An adapter of a library, as the catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Stays through renames.
    pub id: EntryId,
    /// The name.
    pub name: AdapterName,
    /// The content.
    pub digest: AdapterDigest,
    /// Bytes of the content.
    pub bytes: u64,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// When it was removed, in seconds since 1970; a removed one can be restored until [`gc`](super::Library::gc).
    pub removed: Option<u64>,
    /// What is known of it.
    pub metadata: Metadata,
    /// Where the bytes were when the catalog was asked; they may move.
    pub(super) place: Place,
}

/// Where bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u64,
    /// Bytes of the whole segment file.
    pub segment_length: u64,
    /// First byte of the record.
    pub offset: u64,
    /// Bytes of the content.
    pub length: u64,
}

/// Which adapters to list. Empty: all that are not removed. Everything given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Has all these tags (free ones, domains, skills or tasks).
    pub tags: Vec<String>,
    /// Is for this.
    pub specialization: Option<Specialization>,
    /// Is of this size class.
    pub granularity: Option<Granularity>,
    /// Has all these attributes.
    pub attributes: Vec<(String, String)>,
    /// Is for the base model with this fingerprint.
    pub base: Option<String>,
    /// Lies at or under this path: `law` finds `law/contracts/summarise`.
    pub path: Option<String>,
    /// The name starts so.
    pub prefix: Option<String>,
    /// Every word of this text occurs (as the start of a word) in its name, title, description, tags, keywords or
    /// examples.
    pub text: Option<String>,
    /// List the removed ones instead, those that [`restore`](super::Library::restore) could bring back.
    pub removed: bool,
}

impl Filter {
    /// Whether an entry is one of those wanted: what a query does, for one entry in memory.
    pub fn accepts(&self, entry: &Entry) -> bool {
        let has = facets::of(&entry.metadata);
        self.removed == entry.removed.is_some()
            && facets::demanded(self).iter().all(|facet| has.contains(facet))
            && self.prefix.as_deref().is_none_or(|prefix| entry.name.as_str().starts_with(prefix))
            && self.text.as_deref().is_none_or(|text| words::occur(text, &entry.name, &entry.metadata))
    }
}

/// A part of a long list, in the order of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Names after this one.
    pub after: Option<AdapterName>,
    /// At most so many.
    pub limit: usize,
}

impl Page {
    /// The first `limit`.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit }
    }
}

/// How far a follower of [`changes`](super::Library::changes) has come. The default is the very beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub(super) generation: u64,
    pub(super) id: i64,
    /// The last generation swept away when it was made.
    pub(super) purged: u64,
}

impl Cursor {
    /// As bytes, for who keeps it on disk.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let words = [self.generation.to_le_bytes(), self.id.to_le_bytes(), self.purged.to_le_bytes()];
        bytes.iter_mut().zip(words.iter().flatten()).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// What [`Cursor::to_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let [generation, id, purged] = [0, 8, 16].map(|at| {
            let mut word = [0; 8];
            word.iter_mut().zip(bytes.iter().skip(at)).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        });
        Self { generation, id: i64::from_le_bytes(id.to_le_bytes()), purged }
    }
}

/// What happened to an adapter since a [`Cursor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is there, new or changed.
    Present(Box<Entry>),
    /// It is not there any more. Another adapter may have the same content.
    Gone(EntryId, AdapterDigest),
}

/// A part of the changes, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// What happened.
    pub changes: Vec<Change>,
    /// Where to go on.
    pub next: Cursor,
    /// Removed adapters that the follower never heard of have been swept away: it must forget everything and start
    /// again at the default cursor.
    pub start_again: bool,
}
