//! Drafts: guesses at the next tokens of an answer, which one step checks together. Pure.
//!
//! A guess costs rows of a step and never changes an answer: each token is chosen as it would be without, and a guess
//! that is not what was chosen is forgotten. Here the guesses come from text that was there before, in ways that
//! llama-server has: [`simple`] looks the last tokens up, [`map`] keeps books on what followed them, [`pool`] is a table
//! that all sequences fill. Where none of them knows anything, a second model may guess (`scheduler/batch/second.rs`). The names and defaults of the numbers are llama-server's.

pub mod map;
pub mod pool;
pub mod simple;

use self::map::Map;
use self::pool::Pool;
use crate::engine::{Token, VIRTUAL};

/// Numbers of a way that looks up the last tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Tokens that are looked up, 1 or more.
    pub n: usize,
    /// Most tokens that are guessed, 1 or more.
    pub m: usize,
    /// How often they must have been there before, 1 or more.
    pub hits: usize,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { n: 12, m: 48, hits: 1 }
    }
}

/// Numbers of the table that all sequences fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooled {
    /// Tokens that are looked up, 1 or more.
    pub n: usize,
    /// A shorter guess is not used.
    pub least: usize,
    /// Most tokens that are guessed.
    pub most: usize,
}

impl Default for Pooled {
    fn default() -> Self {
        Self { n: 24, least: 48, most: 64 }
    }
}

/// Numbers of guesses by a second model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByModel {
    /// Most tokens that are guessed.
    pub most: usize,
    /// A shorter guess is not used.
    pub least: usize,
    /// A token that the model gives less than this ends the guess, 0 to 1.
    pub p_min: f32,
}

impl Default for ByModel {
    fn default() -> Self {
        Self { most: 3, least: 0, p_min: 0.0 }
    }
}

/// The ways in use; the first one that has a guess gives it, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ways {
    /// `ngram-simple`.
    pub simple: Option<Lookup>,
    /// `ngram-map-k`.
    pub map_k: Option<Lookup>,
    /// `ngram-map-k4v`.
    pub map_k4v: Option<Lookup>,
    /// `ngram-mod`.
    pub pool: Option<Pooled>,
    /// `draft-simple`, where the engine has a second model.
    pub model: Option<ByModel>,
}

impl Ways {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// llama-server's names of those in use, separated by commas; `none` for none.
    pub fn names(&self) -> String {
        let all = [
            ("ngram-simple", self.simple.is_some()),
            ("ngram-map-k", self.map_k.is_some()),
            ("ngram-map-k4v", self.map_k4v.is_some()),
            ("ngram-mod", self.pool.is_some()),
            ("draft-simple", self.model.is_some()),
        ];
        let used: Vec<&str> = all.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect();
        if used.is_empty() { "none".into() } else { used.join(",") }
    }
}

/// How one answer is drafted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drafting {
    /// Where guesses come from.
    pub ways: Ways,
    /// Most tokens of a draft; 0 for no drafts.
    pub most: Option<usize>,
    /// A shorter draft is not used.
    pub least: usize,
}

/// Which way a guess came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Simple,
    MapK,
    MapK4v,
    Pool,
}

/// The drafts of one sequence.
#[derive(Debug, Default)]
pub struct Drafter {
    map_k: Option<Map>,
    map_k4v: Option<Map>,
    /// Tokens whose successors the pool has been told.
    told: usize,
    /// Guesses in a row of which the pool had little right.
    poor: usize,
    /// Where the last guess came from.
    last: Option<Way>,
}

/// Guesses in a row with little right after which the pool is emptied, as in llama-server.
const POOR: usize = 5;

impl Drafter {
    /// Guesses what follows `tokens`, at most `most` of them. `owner`: whose text it is; the pool never gives one
    /// owner's text to another.
    pub fn propose(&mut self, ways: &Ways, pool: &mut Pool, owner: u64, tokens: &[Token], most: usize) -> Vec<Token> {
        self.last = None;
        // Rows of soft prompts are no text. They stand in front.
        let text = tokens.iter().rposition(|t| *t >= VIRTUAL).map_or(tokens, |at| &tokens[at + 1..]);
        let mut found = self.first(ways, pool, owner, text);
        if let Some((_, guess)) = &mut found {
            guess.truncate(most);
        }
        let Some((way, guess)) = found.filter(|(_, guess)| !guess.is_empty()) else { return Vec::new() };
        self.last = Some(way);
        guess
    }

    fn first(&mut self, ways: &Ways, pool: &mut Pool, owner: u64, text: &[Token]) -> Option<(Way, Vec<Token>)> {
        if let Some(size) = ways.pool {
            self.told = pool.learn(size.n, owner, text, self.told);
        }
        // The books are kept whether or not they are asked.
        let maps = [(Way::MapK, ways.map_k, &mut self.map_k, 1), (Way::MapK4v, ways.map_k4v, &mut self.map_k4v, 4)];
        let mapped = maps.map(|(way, size, map, values)| {
            size.map(|size| (way, map.get_or_insert_with(|| Map::new(size, values)).propose(text)))
        });
        let simple = ways.simple.map(|size| (Way::Simple, simple::propose(text, size)));
        let mut found = std::iter::once(simple).chain(mapped).flatten().find(|(_, guess)| !guess.is_empty());
        if let (None, Some(size)) = (&found, ways.pool) {
            found = Some((Way::Pool, pool.propose(size, owner, text)));
        }
        found
    }

    /// Of the last guess, `checked` tokens were checked and `right` of them were right.
    pub fn judge(&mut self, pool: &mut Pool, checked: usize, right: usize) {
        match self.last.take() {
            // What was not checked may be right.
            Some(Way::MapK | Way::MapK4v) if right == checked => (),
            Some(Way::MapK) => self.map_k.iter_mut().for_each(|map| map.judge(right)),
            Some(Way::MapK4v) => self.map_k4v.iter_mut().for_each(|map| map.judge(right)),
            Some(Way::Pool) if 4 * right < checked => {
                self.poor += 1;
                if self.poor >= POOR {
                    pool.clear();
                    (self.poor, self.told) = (0, 0);
                }
            }
            Some(Way::Pool) => self.poor = 0,
            Some(Way::Simple) | None => (),
        }
    }

    /// Tokens were taken out of the sequence.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<Token> {
        text.bytes().map(Token::from).collect()
    }

    #[test]
    fn the_first_way_that_has_a_guess_gives_it() {
        let size = |n, m| Lookup { n, m, hits: 1 };
        let ways = Ways { simple: Some(size(4, 8)), map_k: Some(size(2, 3)), ..Ways::default() };
        assert_eq!((ways.names().as_str(), ways.is_none()), ("ngram-simple,ngram-map-k", false));
        let (mut pool, mut drafter) = (Pool::default(), Drafter::default());
        let mut guess = |said: &str, most| drafter.propose(&ways, &mut pool, 0, &text(said), most);
        assert_eq!(guess("abcdefgh, abcd", 8), text("efgh, ab"), "by four tokens");
        assert_eq!(guess("abcdefgh, abcd", 3), text("efg"));
        assert_eq!(guess("abcdefgh, xyab", 8), text("cde"), "by two");
        assert_eq!(guess("abcdefgh, xyzw", 8), text(""));
        assert_eq!(Ways::default().names(), "none");
    }

    #[test]
    fn rows_of_soft_prompts_are_never_guessed() {
        let ways = Ways { simple: Some(Lookup { n: 2, m: 4, hits: 1 }), ..Ways::default() };
        let tokens = [vec![VIRTUAL, VIRTUAL + 1], text("ab cd ab")].concat();
        let guess = Drafter::default().propose(&ways, &mut Pool::default(), 0, &tokens, 9);
        assert_eq!(guess, text(" cd "));
    }

    #[test]
    fn a_pool_that_guesses_badly_is_emptied() {
        let ways = Ways { pool: Some(Pooled { n: 2, least: 1, most: 8 }), ..Ways::default() };
        let (mut pool, mut drafter) = (Pool::default(), Drafter::default());
        let said = text(&"abcdefghijklmnopqrstuvwxyz0123456789".repeat(2));
        for round in 0..POOR {
            assert_eq!(drafter.propose(&ways, &mut pool, 0, &said, 8).len(), 8, "round {round}");
            drafter.judge(&mut pool, 8, 1);
        }
        assert_eq!(pool.used(), 0);
        drafter.propose(&ways, &mut pool, 0, &said, 8);
        assert!(pool.used() > 0, "it learns again");
    }
}
