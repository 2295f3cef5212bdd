//! Turns token bytes into text that is safe to show: whole UTF-8 characters, never a part of a stop string.

/// Collects bytes and gives out text.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    pending: Vec<u8>,
    stops: Vec<Vec<u8>>,
}

/// What became certain after some bytes came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// Text to show; may be empty.
    pub text: String,
    /// Index of the stop string that was met. Nothing of it, and nothing after it, is in `text`.
    pub stopped: Option<usize>,
}

impl TextStream {
    /// A stream that ends at the first of `stops`. Empty stop strings are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self { pending: Vec::new(), stops: stops.iter().map(|s| s.clone().into_bytes()).collect() }
    }

    /// Takes the bytes of a token.
    pub fn push(&mut self, bytes: &[u8]) -> Emitted {
        self.pending.extend_from_slice(bytes);
        if let Some((at, stop)) = self.first_stop() {
            let text = lossy(&self.pending[..at]);
            self.pending.clear();
            return Emitted { text, stopped: Some(stop) };
        }
        let held = self.possible_stop_at().min(complete_utf8(&self.pending));
        let text = lossy(&self.pending[..held]);
        self.pending.drain(..held);
        Emitted { text, stopped: None }
    }

    /// Ends the stream: text held back as a possible stop string is given out; bytes of an unfinished
    /// character are dropped, so that the answer never ends inside one.
    pub fn finish(&mut self) -> String {
        let end = complete_utf8(&self.pending);
        let text = lossy(&self.pending[..end]);
        self.pending.clear();
        text
    }

    /// Earliest full match of a stop string: position and index; the longer one when two begin together.
    fn first_stop(&self) -> Option<(usize, usize)> {
        (0..self.pending.len()).find_map(|at| {
            self.stops
                .iter()
                .enumerate()
                .filter(|(_, stop)| !stop.is_empty() && self.pending[at..].starts_with(stop))
                .max_by_key(|(_, stop)| stop.len())
                .map(|(index, _)| (at, index))
        })
    }

    /// The first position from which the rest could still become a stop string.
    fn possible_stop_at(&self) -> usize {
        (0..self.pending.len())
            .find(|at| self.stops.iter().any(|stop| stop.starts_with(&self.pending[*at..])))
            .unwrap_or(self.pending.len())
    }
}

/// How many leading bytes do not end inside a UTF-8 character. Bytes that can never be valid count as complete.
fn complete_utf8(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let needed = match bytes[at] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => 1,
        };
        let unfinished = needed > back && std::str::from_utf8(&bytes[at..]).is_err_and(|e| e.error_len().is_none());
        return if unfinished { at } else { bytes.len() };
    }
    bytes.len()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `pieces` and gives the shown text and the stop string met.
    fn run(stops: &[&str], pieces: &[&[u8]]) -> (String, Option<usize>) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_string()).collect();
        let mut stream = TextStream::new(&stops);
        let mut shown = String::new();
        for piece in pieces {
            let out = stream.push(piece);
            shown += &out.text;
            if out.stopped.is_some() {
                return (shown, out.stopped);
            }
        }
        (shown + &stream.finish(), None)
    }

    #[test]
    fn stop_strings_are_found_across_token_borders() {
        /// Stop strings, pieces, text shown, stop string met.
        type Row = (&'static [&'static str], &'static [&'static [u8]], &'static str, Option<usize>);
        let table: &[Row] = &[
            (&["END"], &[b"one E", b"N", b"D two"], "one ", Some(0)),
            (&["END"], &[b"one E", b"N", b"Z two"], "one ENZ two", None),
            (&["\n\n"], &[b"a\n", b"b\n", b"\nc"], "a\nb", Some(0)),
            (&["ab", "abc"], &[b"xabc"], "x", Some(1)),
            (&["aab"], &[b"aa", b"ab"], "a", Some(0)),
            (&["", "q"], &[b"a", b"q"], "a", Some(1)),
            (&["stop"], &[b"no", b" sto"], "no sto", None),
            (&["é"], &[b"caf\xC3", b"\xA9!"], "caf", Some(0)),
        ];
        for (stops, pieces, text, stopped) in table {
            assert_eq!(run(stops, pieces), ((*text).to_string(), *stopped), "{stops:?} {pieces:?}");
        }
    }

    #[test]
    fn characters_are_never_cut() {
        let mut stream = TextStream::new(&[]);
        assert_eq!(stream.push(b"\xF0\x9F").text, "");
        assert_eq!(stream.push(b"\x98\x80!").text, "😀!");
        assert_eq!(stream.push(b"\xE2\x82").text, "");
        assert_eq!(stream.finish(), "", "an unfinished character is dropped");
    }

    #[test]
    fn bytes_that_are_no_utf8_do_not_block_the_stream() {
        assert_eq!(run(&[], &[b"a\xFFb", b"\x80", b"c"]).0, "a\u{FFFD}b\u{FFFD}c");
        assert_eq!(run(&[], &[b"\xE0\x41"]).0, "\u{FFFD}A");
    }

    proptest! {
        #[test]
        fn cutting_equals_naive_cutting(
            text in "[abé😀]{0,24}", stops in proptest::collection::vec("[abé]{1,3}", 0..3), cuts in proptest::collection::vec(0usize..100, 0..12)
        ) {
            let bytes = text.as_bytes();
            let mut edges: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
            edges.extend([0, bytes.len()]);
            edges.sort_unstable();
            let pieces: Vec<&[u8]> = edges.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let stop_refs: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (shown, stopped) = run(&stop_refs, &pieces);
            let naive = stops.iter().filter_map(|s| text.find(s.as_str())).min();
            // A stop met early in a piece-wise feed is the earliest ending one; it is never later than the naive cut's end.
            prop_assert_eq!(stopped.is_some(), naive.is_some());
            prop_assert!(text.starts_with(&shown));
            if naive.is_none() {
                prop_assert_eq!(shown, text);
            } else {
                let stop = &stops[stopped.expect("stopped")];
                prop_assert!(text[shown.len()..].starts_with(stop.as_str()));
            }
        }
    }
}
