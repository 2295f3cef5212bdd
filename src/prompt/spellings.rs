//! The spellings of control tokens, and where they occur in a text.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// A set of strings to look for.
#[derive(Clone, Debug, Default)]
pub(super) struct Spellings {
    all: HashSet<String>,
    /// For each first character, the lengths in bytes of the spellings it begins.
    lengths: HashMap<char, Vec<usize>>,
    alphabet: HashSet<char>,
}

impl Spellings {
    /// The spellings in `all` that are not empty.
    pub(super) fn new<'a>(all: impl IntoIterator<Item = &'a str>) -> Self {
        let mut spellings = Self::default();
        for spelling in all {
            let Some(first) = spelling.chars().next() else {
                continue;
            };
            spellings.alphabet.extend(spelling.chars());
            if spellings.all.insert(spelling.to_owned()) {
                let lengths = spellings.lengths.entry(first).or_default();
                if let Err(place) = lengths.binary_search(&spelling.len()) {
                    lengths.insert(place, spelling.len());
                }
            }
        }
        spellings
    }

    /// Every character of every spelling.
    pub(super) fn alphabet(&self) -> &HashSet<char> {
        &self.alphabet
    }

    /// Where spellings occur in `text`, in the order they begin; they may overlap.
    pub(super) fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        text.char_indices().flat_map(move |(start, first)| {
            self.lengths
                .get(&first)
                .into_iter()
                .flatten()
                .map(move |length| start..start + length)
                .filter(|range| text.get(range.clone()).is_some_and(|part| self.all.contains(part)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Spellings;

    #[test]
    fn finds_all_of_them_overlapping() {
        let spellings = Spellings::new(["<a>", "<a><b>", "><", "", "é|"]);
        let found: Vec<_> = spellings.find("é<a><b>é|<a").collect();
        assert_eq!(found, [2..5, 2..8, 4..6, 8..11]);
    }
}
