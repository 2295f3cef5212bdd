//! Adapters in memory, column by column: what was added since the last sealing, and what a segment is made from.

use std::collections::HashMap;
use std::sync::Arc;

use super::quant;
use super::rotation::Rotation;
use super::words;
use crate::adapter::AdapterDigest;

/// Texts by number.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<Box<str>, u32>,
}

impl Names {
    /// The number of a text, a new one if it has none.
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(text.into(), number);
        number
    }

    /// The number of a text, if it has one.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The texts by their numbers.
    pub fn by_number(&self) -> Vec<&str> {
        let mut texts = vec![""; self.numbers.len()];
        self.numbers.iter().for_each(|(text, number)| texts[*number as usize] = text);
        texts
    }

    /// The texts in alphabetical order, and for every number its place there.
    pub fn sorted(&self) -> (Vec<&str>, Vec<u32>) {
        let mut sorted: Vec<(&str, u32)> = self.numbers.iter().map(|(text, number)| (&**text, *number)).collect();
        sorted.sort_unstable();
        let mut places = vec![0; sorted.len()];
        for (place, (_, number)) in (0..).zip(&sorted) {
            places[*number as usize] = place;
        }
        (sorted.into_iter().map(|(text, _)| text).collect(), places)
    }
}

/// Lists of different lengths, one after the other.
#[derive(Debug)]
pub(super) struct Lists<T> {
    ends: Vec<u32>,
    items: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { ends: Vec::new(), items: Vec::new() }
    }
}

impl<T> Lists<T> {
    /// Adds a list.
    pub fn push(&mut self, list: impl IntoIterator<Item = T>) {
        self.items.extend(list);
        self.ends.push(self.items.len() as u32);
    }

    /// List number `at`.
    pub fn get(&self, at: u32) -> &[T] {
        self.items.get(self.range(at)).unwrap_or(&[])
    }

    /// Where list number `at` is among the items.
    pub fn range(&self, at: u32) -> std::ops::Range<usize> {
        let end = |at: usize| self.ends.get(at).copied().unwrap_or(0) as usize;
        (at as usize).checked_sub(1).map_or(0, end)..end(at as usize)
    }

    /// All items.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    fn bytes(&self) -> usize {
        self.ends.capacity() * 4 + self.items.capacity() * size_of::<T>()
    }
}

/// Adapters, column by column.
#[derive(Debug)]
pub(super) struct Draft {
    pub dim: usize,
    /// The axes of `codes`; those of the embedder if there is none.
    pub rotation: Option<Arc<Rotation>>,
    pub digests: Vec<AdapterDigest>,
    /// A vector is `dim` of `codes` and one of `scales`; adapters have lists of scales.
    pub scales: Lists<f32>,
    pub codes: Vec<i8>,
    pub term_names: Names,
    /// Numbers of words with their weights.
    pub terms: Lists<(u32, u8)>,
    /// How many adapters have each word.
    pub having: Vec<u32>,
    pub facet_names: Names,
    /// Numbers of `key` and of `key\0value`, upwards.
    pub facets: Lists<u32>,
}

/// What of one adapter goes into a draft beside its vectors.
pub(super) struct Labels<'a> {
    pub digest: AdapterDigest,
    pub terms: Vec<(&'a str, u8)>,
    pub facets: Vec<&'a str>,
}

impl Draft {
    /// An empty one.
    pub fn new(dim: usize, rotation: Option<Arc<Rotation>>) -> Self {
        Self {
            dim,
            rotation,
            digests: Vec::new(),
            scales: Lists::default(),
            codes: Vec::new(),
            term_names: Names::default(),
            terms: Lists::default(),
            having: Vec::new(),
            facet_names: Names::default(),
            facets: Lists::default(),
        }
    }

    /// Adapters in it.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Vectors in it.
    pub fn vectors(&self) -> usize {
        self.scales.items().len()
    }

    /// Adds an adapter with vectors in the embedder's axes.
    pub fn push(&mut self, profile: &super::Profile<'_>) {
        let turn = |vector: &Vec<f32>| match &self.rotation {
            Some(rotation) => quant::quantize(&rotation.turn(vector), &mut self.codes),
            None => quant::quantize(vector, &mut self.codes),
        };
        self.scales.push(profile.vectors.iter().map(turn).collect::<Vec<_>>());
        let (terms, facets) = (words::weighed(profile.text), facets(profile.attributes, profile.path));
        let terms = terms.iter().map(|(word, weight)| (word.as_str(), *weight)).collect();
        self.label(Labels { digest: profile.digest, terms, facets: facets.iter().map(String::as_str).collect() });
    }

    /// Adds an adapter whose vectors are codes already, in these axes or others.
    pub fn push_codes(&mut self, labels: Labels<'_>, codes: &[i8], scales: &[f32], axes: Option<&Arc<Rotation>>) {
        let same = match (&self.rotation, axes) {
            (None, None) => true,
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs) || mine == theirs,
            _ => false,
        };
        if same {
            self.codes.extend_from_slice(codes);
            self.scales.push(scales.iter().copied());
        } else {
            let turned = codes.chunks_exact(self.dim).zip(scales).map(|(row, scale)| {
                let plain: Vec<f32> = row.iter().map(|code| f32::from(*code) * scale).collect();
                let plain = axes.map_or_else(|| plain.clone(), |axes| axes.turn_back(&plain));
                let turned = self.rotation.as_ref().map_or_else(|| plain.clone(), |mine| mine.turn(&plain));
                quant::quantize(&turned, &mut self.codes)
            });
            self.scales.push(turned.collect::<Vec<_>>());
        }
        self.label(labels);
    }

    fn label(&mut self, labels: Labels<'_>) {
        self.digests.push(labels.digest);
        let names = &mut self.term_names;
        let terms: Vec<(u32, u8)> =
            labels.terms.into_iter().map(|(word, weight)| (names.number(word), weight)).collect();
        self.having.resize(names.numbers.len(), 0);
        terms.iter().for_each(|(word, _)| self.having[*word as usize] += 1);
        self.terms.push(terms);
        let names = &mut self.facet_names;
        let mut facets: Vec<u32> = labels.facets.into_iter().map(|facet| names.number(facet)).collect();
        facets.sort_unstable();
        facets.dedup();
        self.facets.push(facets);
    }

    /// The codes of one vector.
    pub fn row(&self, vector: usize) -> &[i8] {
        self.codes.get(vector * self.dim..(vector + 1) * self.dim).unwrap_or(&[])
    }

    /// Adds some adapters of another draft.
    pub fn push_from(&mut self, other: &Draft, entries: impl Iterator<Item = u32>) {
        let (words, facets) = (other.term_names.by_number(), other.facet_names.by_number());
        for entry in entries {
            let terms = other.terms.get(entry).iter().map(|(word, weight)| (words[*word as usize], *weight)).collect();
            let facets = other.facets.get(entry).iter().map(|facet| facets[*facet as usize]).collect();
            let labels = Labels { digest: other.digests[entry as usize], terms, facets };
            let vectors = other.scales.range(entry);
            let codes = &other.codes[vectors.start * other.dim..vectors.end * other.dim];
            self.push_codes(labels, codes, other.scales.get(entry), other.rotation.as_ref());
        }
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        let names = (self.term_names.numbers.capacity() + self.facet_names.numbers.capacity()) * 40;
        self.digests.capacity() * 32
            + self.codes.capacity()
            + self.scales.bytes()
            + self.terms.bytes()
            + self.facets.bytes()
            + names
    }
}

/// What a gate can ask for: every key, every `key\0value`, and the path with what stands before each of its slashes.
pub(super) fn facets(attributes: &[(String, String)], path: &str) -> Vec<String> {
    let pairs = attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let paths = ends.filter(|end| *end > 0).map(|end| ("path", &path[..end]));
    pairs.chain(paths).flat_map(|(key, value)| [key.to_owned(), format!("{key}\0{value}")]).collect()
}
