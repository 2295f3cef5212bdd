//! The shortest texts of an automaton: from its beginning and from the middle of a text.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Automaton;

/// What a byte costs beside what a character is liked less than another.
const BYTE: u32 = 64;
/// No way on.
const NEVER: u32 = u32::MAX;
/// Texts looked at when several are wanted.
const LOOKED: usize = 2_000;

/// An automaton with the way to the nearest accepted text from each state.
#[derive(Debug)]
pub(in super::super) struct Words {
    automaton: Automaton,
    left: Vec<u32>,
    step: Vec<Option<(char, usize)>>,
}

impl Words {
    pub fn of(automaton: Automaton) -> Words {
        let states = automaton.next.len();
        let mut from: Vec<Vec<(usize, u32, char)>> = vec![Vec::new(); states];
        for (state, row) in automaton.next.iter().enumerate() {
            for (group, &to) in row.iter().enumerate() {
                if let Some((c, cost)) = cheapest(automaton.starts[group], automaton.last(group)) {
                    from[to].push((state, cost, c));
                }
            }
        }
        let mut left = vec![NEVER; states];
        let mut step = vec![None; states];
        let mut queue = BinaryHeap::new();
        for (state, _) in automaton.accepts.iter().enumerate().filter(|(_, accepts)| **accepts) {
            left[state] = 0;
            queue.push(Reverse((0, state)));
        }
        while let Some(Reverse((cost, state))) = queue.pop() {
            if cost > left[state] {
                continue;
            }
            for &(before, more, c) in &from[state] {
                let cost = cost.saturating_add(more);
                if cost < left[before] {
                    left[before] = cost;
                    step[before] = Some((c, state));
                    queue.push(Reverse((cost, before)));
                }
            }
        }
        Words { automaton, left, step }
    }

    fn after(&self, text: &str) -> usize {
        text.chars().fold(0, |state, c| self.automaton.next[state][self.automaton.group(u32::from(c))])
    }

    /// Whether the text is accepted.
    pub fn admits(&self, text: &str) -> bool {
        self.automaton.accepts[self.after(text)]
    }

    /// The shortest text that makes `begun` an accepted one.
    pub fn rest(&self, begun: &str) -> Option<String> {
        let mut state = self.after(begun);
        let mut text = String::new();
        while self.left[state] > 0 {
            let (c, to) = self.step[state]?;
            text.push(c);
            state = to;
        }
        Some(text)
    }

    /// Some accepted texts, all different, the shortest first: at most `most`.
    pub fn some(&self, most: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut queue = BinaryHeap::new();
        if self.left[0] < NEVER {
            queue.push(Reverse((self.left[0], String::new(), 0, 0)));
        }
        for _ in 0..LOOKED {
            let Some(Reverse((_, text, state, spent))) = queue.pop() else { break };
            if self.automaton.accepts[state] {
                found.push(text.clone());
                if found.len() >= most {
                    break;
                }
            }
            for (group, &to) in self.automaton.next[state].iter().enumerate() {
                let (first, last) = (self.automaton.starts[group], self.automaton.last(group));
                let Some((liked, cost)) = cheapest(first, last).filter(|_| self.left[to] < NEVER) else { continue };
                let others = (u32::from(liked) + 1..=last).take(9).filter_map(char::from_u32);
                for c in std::iter::once(liked).chain(others.filter(char::is_ascii_alphanumeric)) {
                    let spent = spent + cost + u32::from(c != liked);
                    queue.push(Reverse((spent.saturating_add(self.left[to]), format!("{text}{c}"), to, spent)));
                }
            }
        }
        found
    }
}

/// The character of a range that is spelled shortest in JSON, letters before digits, and what it costs.
fn cheapest(first: u32, last: u32) -> Option<(char, u32)> {
    let within = |low: u32, high: u32| {
        let (low, high) = (first.max(low), last.min(high));
        (low <= high).then(|| char::from_u32(low)).flatten()
    };
    let ascii = |low: char, high: char| within(u32::from(low), u32::from(high));
    let plain = [('a', 'z'), ('0', '9'), ('A', 'Z'), (' ', '!'), ('#', '['), (']', '~')];
    for (dislike, (low, high)) in (0..).zip(plain) {
        if let Some(c) = ascii(low, high) {
            return Some((c, BYTE + dislike));
        }
    }
    let short = |c: &u32| (first..=last).contains(c);
    if let Some(c) = [0x22, 0x5C, 0x0A, 0x09, 0x0D].into_iter().find(short) {
        return char::from_u32(c).map(|c| (c, 2 * BYTE));
    }
    let wide = [(0xA1, 0x7FF, 2), (0x800, 0xD7FF, 3), (0xE000, 0xFFFF, 3), (0x10000, 0x10FFFF, 4), (0x80, 0xA0, 2)];
    for (low, high, bytes) in wide {
        if let Some(c) = within(low, high) {
            return Some((c, bytes * BYTE));
        }
    }
    // Only by `\u`.
    within(0, 0x7F).map(|c| (c, 6 * BYTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pattern: &str) -> Words {
        Words::of(Automaton::of(pattern).unwrap())
    }

    #[test]
    fn the_rest_is_the_shortest_one() {
        for (pattern, begun, rest) in [
            ("^[a-z]{3,5}$", "", Some("aaa")),
            ("^[a-z]{3,5}$", "xyz", Some("")),
            ("^[a-z]{3,5}$", "xyzxyz", None),
            ("^[0-9]{4}-[0-9]{2}$", "19", Some("00-00")),
            ("^(?:long-one|x9)$", "", Some("x9")),
            ("^(?:long-one|x9)$", "lo", Some("ng-one")),
            ("needle", "nee", Some("dle")),
            ("needle", "hay", Some("needle")),
            ("^[0-9A-Fa-f]{4}$", "", Some("aaaa")),
            ("^é$", "", Some("é")),
            ("^\\n$", "", Some("\n")),
        ] {
            assert_eq!(words(pattern).rest(begun).as_deref(), rest, "{pattern} after {begun:?}");
        }
    }

    #[test]
    fn some_are_different_and_accepted() {
        let words = words("^[a-c]{1,2}$");
        let found = words.some(100);
        assert_eq!(found.len(), 12, "{found:?}");
        assert!(found.iter().all(|text| words.admits(text)));
        assert_eq!(found[0].len(), 1);
        assert!(found.iter().enumerate().all(|(at, text)| !found[..at].contains(text)));
    }
}
