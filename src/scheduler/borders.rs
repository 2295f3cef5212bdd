//! Where the adapter set of a sequence changes inside its answer. Pure.
//!
//! A border is crossed by the token in whose text its marker completes: that token is the first one that is evaluated
//! under the next set, so that the token after it is that set's choice. What stands before keeps the keys and values it has.

use std::collections::VecDeque;

use crate::adapter::AdapterSet;
use crate::grammar::Marker;

/// A change to come: when the marker's text is complete in the answer, the set applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Border {
    /// Not empty.
    pub marker: Marker,
    /// What applies then.
    pub set: AdapterSet,
}

/// The borders of one answer.
#[derive(Clone, Debug, Default)]
pub struct Borders {
    left: VecDeque<Border>,
    /// How much of the next marker the answer ends with.
    matched: usize,
    /// For each border that was crossed, which token of the answer crossed it.
    crossed: Vec<usize>,
}

impl Borders {
    /// In the order in which they are crossed.
    pub fn new(borders: &[Border]) -> Self {
        Self { left: borders.to_vec().into(), matched: 0, crossed: Vec::new() }
    }

    /// Whether nothing changes any more.
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Takes the text of token number `token` of the answer: the set that applies from it on, where that is another one.
    pub fn cross(&mut self, token: usize, text: &[u8]) -> Option<AdapterSet> {
        let (mut set, mut text) = (None, text);
        while let Some(next) = self.left.front() {
            match next.marker.find(self.matched, text) {
                Ok(taken) => {
                    text = &text[taken..];
                    self.matched = 0;
                    self.crossed.push(token);
                    set = self.left.pop_front().map(|border| border.set);
                }
                Err(matched) => {
                    self.matched = matched;
                    break;
                }
            }
        }
        set
    }

    /// For each border in order, the number of the token that crossed it; `None` where its marker did not come.
    pub fn crossed(&self) -> Vec<Option<usize>> {
        self.crossed.iter().copied().map(Some).chain(self.left.iter().map(|_| None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{AdapterDigest, Scale};

    fn set(n: u8) -> AdapterSet {
        AdapterSet::new(vec![(AdapterDigest::of(&[n]), Scale::ONE)]).expect("valid")
    }

    #[test]
    fn each_marker_is_looked_for_after_the_one_before() {
        let border = |(at, marker): (usize, &&str)| Border { marker: Marker::new(*marker), set: set(at as u8) };
        for (markers, tokens, expected) in [
            (&["|"][..], &["a", "b|c", "d|"][..], vec![(1, 0)]),
            (&["</t>"], &["x<", "/t", ">", "y"], vec![(2, 0)]),
            (&["|", "!"], &["a!", "|", "b", "c!", "|!"], vec![(1, 0), (3, 1)]),
            (&["|", "|"], &["||"], vec![(0, 1)]),
            (&["ab", "ba"], &["aba", "a", "ba"], vec![(0, 0), (2, 1)]),
            (&["|"], &["", "a", ""], vec![]),
        ] {
            let all: Vec<Border> = markers.iter().enumerate().map(border).collect();
            let mut borders = Borders::new(&all);
            let found: Vec<(usize, AdapterSet)> = tokens
                .iter()
                .enumerate()
                .filter_map(|(n, text)| borders.cross(n, text.as_bytes()).map(|set| (n, set)))
                .collect();
            let expected: Vec<(usize, AdapterSet)> = expected.into_iter().map(|(n, at)| (n, set(at))).collect();
            assert_eq!(found, expected, "{markers:?} in {tokens:?}");
            assert_eq!(borders.crossed().len(), markers.len());
        }
        let mut borders = Borders::new(&[border((1, &"|")), border((2, &"!"))]);
        borders.cross(7, b"|");
        assert_eq!(borders.crossed(), [Some(7), None]);
        assert!(!borders.is_done() && Borders::default().is_done() && Borders::default().crossed().is_empty());
    }
}
