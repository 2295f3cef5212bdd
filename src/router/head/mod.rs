//! The learned part: a linear head over embeddings and words, one class for each adapter it was trained on.
//!
//! A head is bound to the embedder it was trained with. It is bytes in, bytes out; where they lie is not its business.

mod features;
mod train;
mod vector;

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView1};

use super::embed::{Embedder, StaticEmbedder};
use crate::adapter::AdapterDigest;

pub use train::{Course, Plan, Row, Shuffle, Weights, softmax, train};
pub use vector::{Sparse, Vectorizer};

/// What a file of a head begins with.
const MAGIC: &[u8; 8] = b"smoahd01";
/// Most classes of a head.
pub const CLASSES: usize = 4096;
/// Most buckets of a head.
const BUCKETS: usize = 1 << 21;
/// Most dimensions.
const DIMENSIONS: usize = 4096;

/// A trained head.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// What it is bound to; see [`identity`].
    pub embedder: [u8; 32],
    /// Length of each word part.
    pub words: f32,
    /// One adapter for each class.
    pub classes: Vec<AdapterDigest>,
    vectorizer: Vectorizer,
    dense: Array2<f32>,
    bias: Array1<f32>,
    /// Buckets by classes, each row to be multiplied by its scale.
    sparse: Vec<i8>,
    scales: Vec<f32>,
}

/// Length of the table's vector beside another embedder's.
const TABLE: f32 = 0.7;

/// A text's vector for a head: the embedder's, and unless that is the program's own table, the table's after it. What
/// an encoder's sentence vector blurs, single words still say.
pub fn dense(vector: &[f32], text: &str, embedder: &dyn Embedder) -> Vec<f32> {
    if embedder.fingerprint() == StaticEmbedder::builtin().fingerprint() {
        vector.to_vec()
    } else {
        with_table(vector, text)
    }
}

fn with_table(vector: &[f32], text: &str) -> Vec<f32> {
    let table = StaticEmbedder::builtin().embed(text);
    vector.iter().copied().chain(table.into_iter().map(|x| TABLE * x)).collect()
}

/// What a head is bound to: the embedder, and the table where it takes part.
pub fn identity(embedder: &dyn Embedder) -> [u8; 32] {
    let (own, table) = (embedder.fingerprint(), StaticEmbedder::builtin().fingerprint());
    if own == table { own } else { *blake3::Hasher::new().update(&own).update(&table).finalize().as_bytes() }
}

/// A head that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trained router is damaged ({0}); train it again with `smoa adapter train-router`")]
pub struct HeadError(&'static str);

impl Head {
    /// A head with these weights. Weights of words are rounded to eight bits a bucket.
    pub fn new(
        embedder: [u8; 32],
        classes: Vec<AdapterDigest>,
        vectorizer: Vectorizer,
        weights: &Weights,
        words: f32,
    ) -> Self {
        let mut sparse = Vec::with_capacity(weights.sparse.len());
        let mut scales = Vec::with_capacity(weights.sparse.nrows());
        for row in weights.sparse.rows() {
            let most = row.iter().fold(0.0f32, |most, w| most.max(w.abs()));
            let scale = if most > 0.0 { most / 127.0 } else { 1.0 };
            scales.push(scale);
            sparse.extend(row.iter().map(|w| (w / scale).round() as i8));
        }
        Self {
            embedder,
            words,
            classes,
            vectorizer,
            dense: weights.dense.clone(),
            bias: weights.bias.clone(),
            sparse,
            scales,
        }
    }

    /// Natural logarithms of the probability of each class, for a text and its embedder's vector. A vector of another
    /// length counts as none.
    pub fn log_probabilities(&self, vector: &[f32], text: &str) -> Array1<f32> {
        let mut logits = self.bias.clone();
        let dense = if vector.len() < self.dense.nrows() { with_table(vector, text) } else { vector.to_vec() };
        if dense.len() == self.dense.nrows() {
            logits += &ArrayView1::from(&dense).dot(&self.dense);
        }
        let classes = self.classes.len();
        for (row, value) in self.vectorizer.transform(text, self.words) {
            let at = row as usize;
            let Some(weights) = self.sparse.get(at * classes..(at + 1) * classes) else { continue };
            let value = value * self.scales.get(at).copied().unwrap_or(0.0);
            logits.iter_mut().zip(weights).for_each(|(logit, weight)| *logit += value * f32::from(*weight));
        }
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
        logits.mapv_inplace(|logit| logit - most - sum.ln());
        logits
    }

    /// The same by adapter.
    pub fn by_digest(&self, vector: &[f32], text: &str) -> HashMap<AdapterDigest, f32> {
        self.classes.iter().copied().zip(self.log_probabilities(vector, text)).collect()
    }

    /// As bytes, little-endian, with a BLAKE3 at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.embedder);
        out.extend(self.words.to_le_bytes());
        for number in [self.classes.len(), self.vectorizer.buckets.len(), self.dense.nrows()] {
            out.extend((number as u32).to_le_bytes());
        }
        self.classes.iter().for_each(|digest| out.extend(digest.as_bytes()));
        self.vectorizer.buckets.iter().for_each(|bucket| out.extend(bucket.to_le_bytes()));
        let numbers = [&self.vectorizer.idf[..], &self.scales[..]].into_iter().flatten();
        numbers.chain(&self.bias).chain(&self.dense).for_each(|number| out.extend(number.to_le_bytes()));
        out.extend(self.sparse.iter().map(|weight| weight.to_le_bytes()[0]));
        out.extend(blake3::hash(&out).as_bytes());
        out
    }

    /// Reads what [`Head::to_bytes`] wrote.
    ///
    /// # Errors
    /// It is something else, cut short, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeadError> {
        let (body, seal) = bytes.split_last_chunk::<32>().ok_or(HeadError("too short"))?;
        if blake3::hash(body).as_bytes() != seal {
            return Err(HeadError("its check does not fit"));
        }
        let mut input = Input(body);
        if input.take(MAGIC.len())? != MAGIC {
            return Err(HeadError("not a trained router"));
        }
        let embedder = input.array::<32>()?;
        let words = f32::from_le_bytes(input.array()?);
        let mut count = |most: usize| -> Result<usize, HeadError> {
            let number = u32::from_le_bytes(input.array()?) as usize;
            if number > most { Err(HeadError("a count is out of bounds")) } else { Ok(number) }
        };
        let (classes, buckets, dim) = (count(CLASSES)?, count(BUCKETS)?, count(DIMENSIONS)?);
        let digests = input.take(32 * classes)?.as_chunks::<32>().0;
        let digests = digests.iter().map(|digest| AdapterDigest::from_bytes(*digest)).collect();
        let buckets_read = input.take(4 * buckets)?.as_chunks::<4>().0;
        let vectorizer = Vectorizer {
            buckets: buckets_read.iter().map(|bucket| u32::from_le_bytes(*bucket)).collect(),
            idf: input.floats(buckets)?,
        };
        if !vectorizer.buckets.is_sorted_by(|a, b| a < b) {
            return Err(HeadError("its words are not sorted"));
        }
        let scales = input.floats(buckets)?;
        let bias = Array1::from(input.floats(classes)?);
        let shape = |_| HeadError("a shape is wrong");
        let dense = Array2::from_shape_vec((dim, classes), input.floats(dim * classes)?).map_err(shape)?;
        let sparse = input.take(buckets * classes)?.iter().map(|byte| i8::from_le_bytes([*byte])).collect();
        if !input.0.is_empty() {
            return Err(HeadError("something follows its end"));
        }
        Ok(Self { embedder, words, classes: digests, vectorizer, dense, bias, sparse, scales })
    }
}

/// Bytes still to be read.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], HeadError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HeadError("cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HeadError> {
        self.take(N)?.try_into().map_err(|_| HeadError("cut short"))
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, HeadError> {
        let numbers: Vec<f32> =
            self.take(4 * count)?.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if numbers.iter().all(|number| number.is_finite()) {
            Ok(numbers)
        } else {
            Err(HeadError("a weight is no number"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head that tells texts about money from texts about weather by their words alone.
    fn small() -> (Head, Vec<&'static str>) {
        let texts = ["send money", "pay the bill", "money transfer", "will it rain", "sunny weather", "rain today"];
        let vectorizer = Vectorizer::fit(texts.into_iter(), 1);
        let rows: Vec<Row> = texts
            .iter()
            .enumerate()
            .map(|(at, text)| Row {
                dense: Array1::from(vec![if at < 3 { 1.0 } else { -1.0 }, 0.5]),
                sparse: vectorizer.transform(text, 0.5),
                class: at / 3,
            })
            .collect();
        let (weights, course) = train(&rows, &[], &vectorizer, 2, &Plan::default());
        assert!(course.train_loss < 0.2, "{course:?}");
        let classes = vec![AdapterDigest::of(b"money"), AdapterDigest::of(b"weather")];
        (Head::new([7; 32], classes, vectorizer, &weights, 0.5), texts.to_vec())
    }

    #[test]
    fn it_learns_and_comes_back_from_bytes() {
        let (head, texts) = small();
        for (at, text) in texts.iter().enumerate() {
            let log = head.log_probabilities(&[], text);
            assert_eq!(log[0] > log[1], at < 3, "{text}: {log}");
            assert!((log.mapv(f32::exp).sum() - 1.0).abs() < 1e-5);
        }
        assert_eq!(Head::from_bytes(&head.to_bytes()), Ok(head.clone()));
        assert_eq!(small().0, head, "the same seed, the same head");
    }

    #[test]
    fn no_damage_goes_unseen() {
        let bytes = small().0.to_bytes();
        for at in (0..bytes.len()).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Head::from_bytes(&damaged).is_err(), "byte {at}");
            assert!(Head::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
