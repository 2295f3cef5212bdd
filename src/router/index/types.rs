//! What goes into the index and what comes out.

use super::Gate;
use crate::adapter::AdapterDigest;

/// What one adapter gives to the index.
#[derive(Clone, Copy, Debug)]
pub struct Profile<'a> {
    /// Which adapter.
    pub digest: AdapterDigest,
    /// Name, description, keywords, tags and, if wanted, example prompts: the words it is found by.
    pub text: &'a str,
    /// Unit vectors: `[0]` of name and description, `[1]` the centroid of the example prompts if there are any, the
    /// rest example prompts. At least one, at most [`MAX_VECTORS`](super::MAX_VECTORS).
    pub vectors: &'a [Vec<f32>],
    /// Region, season, segment, language, tenant: what a [`Gate`] looks at. A key may come more than once.
    pub attributes: &'a [(String, String)],
    /// `domain/specialty/task`, a part of it, or nothing. It and what stands before each `/` of it become values of
    /// the attribute `path`, so `path=law` lets through `law/contracts/review`.
    pub path: &'a str,
}

/// One change of the index.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Adds an adapter, or puts it in place of what was known about it.
    Put(Profile<'a>),
    /// Takes an adapter out; nothing happens if it is not there.
    Remove(AdapterDigest),
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The request's unit vector. If it has another length than the index's, or is all zeros, only words count.
    pub vector: &'a [f32],
    /// The request's text, for the keywords. Its first 8 KiB are read.
    pub text: &'a str,
    /// Who may be found at all.
    pub gate: &'a Gate,
    /// How many are wanted: the best so many by meaning and the best so many by words, together at most twice that.
    pub limit: usize,
}

/// An adapter found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which adapter.
    pub digest: AdapterDigest,
    /// The best cosine over all its vectors, from -1 to 1.
    pub semantic: f32,
    /// The cosine with its centroid; with its name vector where it has no example prompts.
    pub centroid: f32,
    /// The cosine with the vector of its name and description.
    pub name_similarity: f32,
    /// BM25 over the words of its text, divided by the most that any text could get for this query: from 0 to 1, the
    /// share of the query's information that the text holds. Words no adapter has count towards the most.
    pub keyword: f32,
    /// How many vectors it has.
    pub vectors: usize,
    /// The cosines with its nearest example prompts, best first, -1 where it has no more; with its name where it has
    /// none.
    pub close: [f32; CLOSE],
}

/// Example prompts of a candidate whose cosines are told.
pub const CLOSE: usize = 5;

/// How large the index is and where its bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Adapters.
    pub entries: usize,
    /// Vectors of them.
    pub vectors: usize,
    /// Sealed segments.
    pub segments: usize,
    /// Adapters added or replaced since the last sealing.
    pub tail_entries: usize,
    /// Adapters in sealed segments that were removed or replaced.
    pub dead_entries: usize,
    /// Mapped bytes of quantized vectors and their scales.
    pub vector_bytes: u64,
    /// Mapped bytes of graphs.
    pub graph_bytes: u64,
    /// Mapped bytes of words, postings and texts.
    pub keyword_bytes: u64,
    /// Mapped bytes of attribute bitmaps.
    pub gate_bytes: u64,
    /// Mapped bytes of digests and tables.
    pub table_bytes: u64,
    /// Bytes of all files, the log included.
    pub file_bytes: u64,
    /// Anonymous memory in bytes: what was added since the last sealing, removal marks, search buffers, rotations.
    pub anonymous_bytes: u64,
}
