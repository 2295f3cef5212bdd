//! Finding a byte string in text that comes in pieces.

/// A byte string to be found wherever it stands, across pieces and inside them (Knuth, Morris, Pratt).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    bytes: Vec<u8>,
    /// Per matched length less one, the longest proper prefix of the marker that the matched part ends with.
    shorter: Vec<usize>,
}

impl Marker {
    /// A marker of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let mut shorter = vec![0; bytes.len()];
        let mut matched = 0;
        for at in 1..bytes.len() {
            while matched > 0 && bytes[matched] != bytes[at] {
                matched = shorter[matched - 1];
            }
            if bytes[matched] == bytes[at] {
                matched += 1;
            }
            shorter[at] = matched;
        }
        Self { bytes, shorter }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How much of the marker the text ends with after one more byte, when it ended with less than all of it before.
    pub fn step(&self, matched: usize, byte: u8) -> usize {
        let mut matched = matched;
        while matched > 0 && self.bytes[matched] != byte {
            matched = self.shorter[matched - 1];
        }
        matched + usize::from(self.bytes.get(matched) == Some(&byte))
    }

    /// Reads on in a text that ends with `matched` bytes of the marker: how many of `bytes` it takes until the marker is
    /// complete, or how much of it the text ends with after all of them.
    ///
    /// # Errors
    /// The marker is not complete.
    pub fn find(&self, matched: usize, bytes: &[u8]) -> Result<usize, usize> {
        let mut matched = matched;
        for (at, byte) in bytes.iter().enumerate() {
            matched = self.step(matched, *byte);
            if matched == self.bytes.len() {
                return Ok(at + 1);
            }
        }
        Err(matched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_across_pieces_and_inside_them() {
        for (marker, pieces, found) in [
            ("</t>", &["a", "b</t", "> c"][..], Some((2, 1))),
            ("</t>", &["<</t>x"], Some((0, 5))),
            ("aab", &["aa", "aab"], Some((1, 3))),
            ("abab", &["aba", "cab", "abc", "ab"], Some((2, 2))),
            ("xx", &["x", "y", "x"], None),
            ("\u{e9}", &["e\u{301}", "\u{e9}"], Some((1, 2))),
        ] {
            let marker = Marker::new(marker);
            let mut matched = 0;
            let at = pieces.iter().enumerate().find_map(|(n, piece)| match marker.find(matched, piece.as_bytes()) {
                Ok(taken) => Some((n, taken)),
                Err(so_far) => {
                    matched = so_far;
                    None
                }
            });
            assert_eq!(at, found, "{marker:?} in {pieces:?}");
        }
    }
}
