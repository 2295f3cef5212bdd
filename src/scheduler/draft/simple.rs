//! `ngram-simple`: the last tokens are looked for earlier in the text, and what followed them there is the guess.

use super::Lookup;
use crate::engine::Token;

/// What followed the last `n` tokens where they were last followed by at least as many; at most `m` tokens. Nothing where
/// they were there less than `hits` times before.
///
/// A guess shorter than what was looked up is not worth its rows, says llama-server, whose rule this is. It gives up there;
/// here an earlier place with more after it counts.
pub fn propose(text: &[Token], size: Lookup) -> Vec<Token> {
    let Lookup { n, m, hits } = size;
    let Some(last) = text.len().checked_sub(2 * n).filter(|_| n > 0) else { return Vec::new() };
    let wanted = &text[text.len() - n..];
    let mut places = (0..=last).rev().filter(|at| text[*at..].starts_with(wanted));
    let Some(place) = places.next() else { return Vec::new() };
    if places.take(hits.saturating_sub(1)).count() + 1 < hits {
        return Vec::new();
    }
    let from = place + n;
    text[from..text.len().min(from + m)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_is_guessed() {
        for (n, m, hits, said, expected) in [
            (3, 4, 1, "abcdef abc", "def "),
            (3, 99, 1, "abcdef abc", "def abc"),
            (3, 2, 1, "abc12 abc34 abc", "34"),
            (3, 4, 1, "abcdef abd", ""),
            (3, 4, 1, "abcabc", "abc"),
            (3, 4, 1, "ababab", ""),
            (3, 4, 1, "abababa", "baba"),
            (1, 4, 1, "aa", "a"),
            (3, 4, 2, "abcdef abc", ""),
            (3, 4, 2, "abc abcdef abc", "def "),
            (3, 4, 1, "abc", ""),
            (3, 4, 1, "", ""),
        ] {
            let text: Vec<Token> = said.bytes().map(Token::from).collect();
            let guess = propose(&text, Lookup { n, m, hits });
            let guess: String = guess.iter().map(|t| char::from(*t as u8)).collect();
            assert_eq!(guess, expected, "{said} by {n}");
        }
    }
}
