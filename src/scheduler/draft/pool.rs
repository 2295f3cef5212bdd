//! `ngram-mod`: a table from the hash of a run of tokens to the token after it, filled by all sequences.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::Pooled;
use crate::engine::Token;

/// Places of the table, as many as in llama-server.
const PLACES: usize = 4 << 20;
/// New tokens after which a sequence tells what it has, as in llama-server.
const CHUNK: usize = 32;

/// The table. Unlike llama-server's, it knows whether a place holds the run that is asked for (by 31 further bits of its
/// hash), and the owner of a text is part of the hash: nobody is given what another one's requests wrote.
#[derive(Debug, Default)]
pub struct Pool {
    /// Empty until something is learnt: 0, or `1 << 63`, the check and the token.
    places: Vec<u64>,
    used: usize,
}

impl Pool {
    /// Learns the successors of the runs of `n` tokens of `text`, of which it was told up to `told`. Up to where it was told
    /// now.
    pub fn learn(&mut self, n: usize, owner: u64, text: &[Token], told: usize) -> usize {
        let all = text.len().saturating_sub(n);
        let little = told > 0 && all < told + CHUNK;
        if little || all <= told {
            return told;
        }
        if self.used > PLACES / 4 {
            self.clear();
        }
        if self.places.is_empty() {
            self.places = vec![0; PLACES];
        }
        for at in told..all {
            let (place, check) = look(owner, &text[at..at + n]);
            self.used += usize::from(self.places[place] == 0);
            self.places[place] = (1 << 63) | (check << 32) | u64::from(text[at + n]);
        }
        all
    }

    /// What follows the last `n` tokens, token after token; nothing where less than `least` are known.
    pub fn propose(&self, size: Pooled, owner: u64, text: &[Token]) -> Vec<Token> {
        let Some(from) = text.len().checked_sub(size.n).filter(|_| !self.places.is_empty()) else { return Vec::new() };
        let mut run = text[from..].to_vec();
        while run.len() < size.n + size.most {
            let (place, check) = look(owner, &run[run.len() - size.n..]);
            let entry = self.places[place];
            if entry >> 32 != (1 << 31) | check {
                break;
            }
            run.push(entry as Token);
        }
        let guess = run.split_off(size.n);
        if guess.len() < size.least { Vec::new() } else { guess }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Places in use.
    pub fn used(&self) -> usize {
        self.used
    }
}

/// The place of a run, and 31 bits to know it by.
fn look(owner: u64, run: &[Token]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    (owner, run).hash(&mut hasher);
    let hash = hasher.finish();
    (hash as usize % PLACES, hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<Token> {
        text.bytes().map(Token::from).collect()
    }

    #[test]
    fn what_one_sequence_wrote_is_guessed_in_another_of_the_same_owner() {
        let (mut pool, size) = (Pool::default(), Pooled { n: 3, least: 2, most: 5 });
        assert_eq!(pool.propose(size, 1, &text("abc")), text(""));
        let long = text("abcdefghijklmnopqrstuvwxyz");
        assert_eq!(pool.learn(3, 1, &long, 0), 23);
        assert_eq!(pool.used(), 23);
        assert_eq!(pool.propose(size, 1, &text("..def")), text("ghijk"));
        assert_eq!(pool.propose(size, 1, &text("vwx")), text("yz"));
        assert_eq!(pool.propose(size, 1, &text("wxy")), text(""), "one token is too few");
        assert_eq!(pool.propose(size, 2, &text("..def")), text(""), "another owner's");
        pool.clear();
        assert_eq!(pool.propose(size, 1, &text("..def")), text(""));
    }

    #[test]
    fn a_sequence_tells_what_is_new_in_chunks() {
        let (mut pool, mut long) = (Pool::default(), text(&"x".repeat(10)));
        let told = pool.learn(3, 0, &long, 0);
        assert_eq!((told, pool.used()), (7, 1));
        long.extend(text("abcdefghijklmnopqrstuvwxyz"));
        assert_eq!(pool.learn(3, 0, &long, told), told, "not yet");
        long.extend(text("0123456789"));
        assert_eq!(pool.learn(3, 0, &long, told), 43);
        assert_eq!(pool.propose(Pooled { n: 3, least: 1, most: 2 }, 0, &text("xyz")), text("01"));
        assert_eq!(pool.learn(3, 0, &text("ab"), 0), 0, "too short");
    }
}
