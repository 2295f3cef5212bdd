//! `ngram-map-k` and `ngram-map-k4v`: books on what followed runs of tokens in one sequence, and how much of it was right
//! when it was guessed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Lookup;
use crate::engine::Token;

/// What followed the runs of `n` tokens of one text.
///
/// With one value, the guess is what followed a run where it last stood. With several, each continuation is counted, and
/// one is guessed that came at least twice as often as all others together. Where a guess was tried before, only as much is
/// guessed again as was right then.
#[derive(Debug)]
pub struct Map {
    size: Lookup,
    /// Continuations that are told apart.
    values: usize,
    /// Places up to this one are in the books.
    noted: usize,
    keys: HashMap<u64, Key>,
    /// The run and the continuation of the last guess.
    last: Option<(u64, usize)>,
}

#[derive(Debug)]
struct Key {
    /// Where the run was last.
    place: usize,
    hits: usize,
    values: Vec<Value>,
}

#[derive(Debug)]
struct Value {
    /// Where it begins.
    from: usize,
    count: usize,
    /// How much of it was right when it was last guessed.
    right: usize,
}

impl Map {
    /// Empty books that tell so many continuations of a run apart.
    pub fn new(size: Lookup, values: usize) -> Self {
        Self { size, values, noted: 0, keys: HashMap::new(), last: None }
    }

    /// Notes what is new in `text`, which is the text of the last call and more, and guesses what follows.
    pub fn propose(&mut self, text: &[Token]) -> Vec<Token> {
        self.last = None;
        let Lookup { n, m, hits } = self.size;
        // A run is noted when all of its continuation is there.
        while self.noted + n + m <= text.len() {
            self.note(text, self.noted);
            self.noted += 1;
        }
        let Some(run) = text.len().checked_sub(n).map(|from| &text[from..]) else { return Vec::new() };
        let hash = hash(run);
        let Some(key) = self.keys.get(&hash).filter(|key| text[key.place..].starts_with(run)) else {
            return Vec::new();
        };
        if key.hits < hits {
            return Vec::new();
        }
        let all: usize = key.values.iter().map(|v| v.count).sum();
        let Some((at, best)) = key.values.iter().enumerate().max_by_key(|(_, v)| v.count) else { return Vec::new() };
        if self.values > 1 && best.count < 2 * (all - best.count) {
            return Vec::new();
        }
        self.last = Some((hash, at));
        text[best.from..best.from + m.min(best.right)].to_vec()
    }

    fn note(&mut self, text: &[Token], place: usize) {
        let Lookup { n, m, .. } = self.size;
        let run = &text[place..place + n];
        let from = place + n;
        let new = Key { place, hits: 0, values: Vec::new() };
        let key = self.keys.entry(hash(run)).or_insert(new);
        if !text[key.place..].starts_with(run) {
            // Another run with the same hash: the newer one counts.
            *key = Key { place, hits: 0, values: Vec::new() };
        }
        key.place = place;
        key.hits += 1;
        if self.values == 1 {
            // The newest continuation takes the place of the one before, and of how it fared only if it is another one.
            match key.values.first_mut() {
                Some(value) if text[value.from..value.from + m] == text[from..from + m] => value.from = from,
                _ => key.values = vec![Value { from, count: 1, right: m }],
            }
            return;
        }
        let known = key.values.iter_mut().find(|v| text[v.from..v.from + m] == text[from..from + m]);
        if let Some(value) = known {
            value.count += 1;
        } else if key.values.len() < self.values {
            key.values.push(Value { from, count: 1, right: m });
        }
    }

    /// So much of the last guess was right.
    pub fn judge(&mut self, right: usize) {
        if let Some((hash, at)) = self.last.take()
            && let Some(value) = self.keys.get_mut(&hash).and_then(|key| key.values.get_mut(at))
        {
            value.right = right;
        }
    }
}

fn hash(run: &[Token]) -> u64 {
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<Token> {
        text.bytes().map(Token::from).collect()
    }

    fn guess(map: &mut Map, said: &str) -> String {
        map.propose(&text(said)).iter().map(|t| char::from(*t as u8)).collect()
    }

    #[test]
    fn keys_alone_give_what_came_last() {
        for (hits, said, expected) in [
            (1, "abcdef abc", "def"),
            (1, "abcdef abc123 abc", "123"),
            (1, "abcde", ""),
            (1, "ab", ""),
            (2, "abcdef abc", ""),
            (2, "abcdef abc123 abc", "123"),
        ] {
            let mut map = Map::new(Lookup { n: 3, m: 3, hits }, 1);
            assert_eq!(guess(&mut map, said), expected, "{said}");
        }
    }

    #[test]
    fn a_guess_is_as_long_as_it_was_right() {
        let mut map = Map::new(Lookup { n: 3, m: 3, hits: 1 }, 1);
        assert_eq!(guess(&mut map, "abcdef abc"), "def");
        map.judge(2);
        assert_eq!(guess(&mut map, "abcdef abcde. abc"), "de.", "another continuation is tried");
        map.judge(0);
        assert_eq!(guess(&mut map, "abcdef abcde. abc"), "");
        map.judge(0);
    }

    #[test]
    fn of_several_values_one_must_be_much_more_frequent() {
        let size = Lookup { n: 2, m: 2, hits: 1 };
        for (said, expected) in [
            ("ab12 ab", "12"),
            ("ab12 ab34 ab", ""),
            ("ab12 ab34 ab12 ab", "12"),
            ("ab12 ab34 ab56 ab12 ab", ""),
            ("ab12 ab34 ab56 ab12 ab12 ab12 ab", "12"),
            // A fifth one is not counted.
            ("ab1. ab2. ab3. ab4. ab5. ab5. ab5. ab5. ab5. ab5. ab5. ab", ""),
        ] {
            assert_eq!(guess(&mut Map::new(size, 4), said), expected, "{said}");
        }
    }
}
