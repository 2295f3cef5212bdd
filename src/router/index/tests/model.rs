//! The index as a map, and adapters made up for tests.

use std::collections::HashMap;

use crate::adapter::AdapterDigest;
use crate::router::index::{Gate, Profile};

/// Odd, and more than a head holds.
pub const DIM: usize = 141;
pub const EMBEDDER: [u8; 32] = [7; 32];

/// A profile that owns what it holds. Its attributes hold the path's too.
#[derive(Clone, Debug)]
pub struct Fact {
    pub digest: AdapterDigest,
    pub text: String,
    pub vectors: Vec<Vec<f32>>,
    pub attributes: Vec<(String, String)>,
}

impl Fact {
    pub fn profile(&self) -> Profile<'_> {
        Profile {
            digest: self.digest,
            text: &self.text,
            vectors: &self.vectors,
            attributes: &self.attributes,
            path: "",
        }
    }
}

/// A unit vector: a centre that many share, and something of its own.
pub fn vector(seed: u64) -> Vec<f32> {
    let numbers = |seed: u64| {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
        }
    };
    let (mut centre, mut own) = (numbers(seed % 23), numbers(seed.wrapping_add(1000)));
    let mut vector: Vec<f32> = (0..DIM).map(|_| 0.7 * centre() + own()).collect();
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

/// Adapter `number` in its `version`-th form.
pub fn fact(number: u64, version: u64) -> Fact {
    let seed = number * 31 + version;
    let text = format!("unique{number} word{} word{} topic{} version{version}", seed % 17, seed % 7, seed % 3);
    let vectors = (0..1 + seed % 4).map(|i| vector(seed * 7 + i)).collect();
    let mut attributes = vec![("tenant".to_owned(), format!("t{}", seed % 5))];
    if !seed.is_multiple_of(3) {
        attributes.push(("region".to_owned(), ["eu", "us"][seed as usize % 2].to_owned()));
    }
    if seed.is_multiple_of(4) {
        attributes.push(("region".to_owned(), "mars".to_owned()));
    }
    if seed.is_multiple_of(2) {
        attributes.push(("path".to_owned(), ["law", "medicine"][seed as usize / 2 % 2].to_owned()));
    }
    Fact { digest: AdapterDigest::of(&number.to_le_bytes()), text, vectors, attributes }
}

/// What the index must agree with.
#[derive(Debug, Default)]
pub struct Model(HashMap<AdapterDigest, Fact>);

impl Model {
    pub fn put(&mut self, fact: Fact) {
        self.0.insert(fact.digest, fact);
    }

    pub fn remove(&mut self, digest: &AdapterDigest) {
        self.0.remove(digest);
    }

    pub fn get(&self, digest: &AdapterDigest) -> Option<&Fact> {
        self.0.get(digest)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Of every adapter that passes: best cosine, that of its name, that of its centroid.
    pub fn scores(&self, vector: &[f32], gate: &Gate) -> HashMap<AdapterDigest, (f32, f32, f32)> {
        let cosine = |other: &Vec<f32>| vector.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let passing = self.0.values().filter(|fact| gate.allows(&fact.attributes));
        let score = |fact: &Fact| {
            let cosines: Vec<f32> = fact.vectors.iter().map(cosine).collect();
            let best = cosines.iter().copied().fold(-1.0, f32::max);
            (fact.digest, (best, cosines[0], cosines[1.min(cosines.len() - 1)]))
        };
        passing.map(score).collect()
    }
}
