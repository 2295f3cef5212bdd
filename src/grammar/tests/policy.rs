//! The decode loop's policy: exact distributions, and forced text in the tokenizer's own cuts.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::policy::{ChooseError, Forward, Order, advance, choose, forward};
use super::super::{Compiler, Matcher, MatcherError, Source, Vocabulary};
use super::Random;

/// Twenty letters as tokens, and an end.
fn letters() -> Arc<Vocabulary> {
    let mut pieces: Vec<Vec<u8>> = (b'a'..b'u').map(|byte| vec![byte]).collect();
    pieces.push(Vec::new());
    let control = (0..21).map(|id| id == 20).collect();
    Arc::new(Vocabulary::new(pieces, control, vec![20]))
}

/// How a sampler cuts a distribution before it draws.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Best,
    None,
    TopK(usize),
    TopP(f64),
}

/// The probabilities after `allowed` and `cut`, over `weights`.
fn probabilities(weights: &[f64], allowed: &dyn Fn(u32) -> bool, cut: Cut) -> Vec<f64> {
    let mut ids: Vec<usize> = (0..weights.len()).filter(|&id| allowed(id as u32)).collect();
    ids.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let total: f64 = ids.iter().map(|&id| weights[id]).sum();
    match cut {
        Cut::Best => ids.truncate(1),
        Cut::None => {}
        Cut::TopK(k) => ids.truncate(k),
        Cut::TopP(p) => {
            let mut sum = 0.0;
            let keep = ids.iter().position(|&id| {
                sum += weights[id] / total;
                sum >= p
            });
            ids.truncate(keep.map_or(ids.len(), |last| last + 1));
        }
    }
    let kept: f64 = ids.iter().map(|&id| weights[id]).sum();
    let mut result = vec![0.0; weights.len()];
    ids.iter().for_each(|&id| result[id] = weights[id] / kept);
    result
}

fn pick(probabilities: &[f64], random: &mut Random) -> Result<u32, ()> {
    let point = random.below(1 << 30) as f64 / (1u64 << 30) as f64;
    let mut sum = 0.0;
    let found = probabilities.iter().position(|p| {
        sum += p;
        point < sum
    });
    found.or(probabilities.iter().rposition(|p| *p > 0.0)).map(|id| id as u32).ok_or(())
}

fn matcher(grammar: &str) -> Matcher {
    Compiler::new(letters()).compile(&Source::Gbnf(grammar.to_owned())).unwrap().matcher()
}

#[test]
fn choices_follow_exactly_the_masked_distribution() {
    const DRAWS: usize = 200_000;
    let weights: Vec<f64> = (0..21).map(|id| 1.0 / (1.0 + f64::from(id * 7 % 21))).collect();
    // A few likely tokens are forbidden, and the end.
    let mut matcher = matcher("root ::= [bcfgjkmnpqst] [a-t]");
    let mask = matcher.mask().unwrap().clone();
    for (cut, order) in [
        (Cut::Best, Order::CandidateFirst),
        (Cut::Best, Order::MaskFirst),
        (Cut::None, Order::CandidateFirst),
        (Cut::None, Order::MaskFirst),
        (Cut::TopK(4), Order::MaskFirst),
        (Cut::TopP(0.7), Order::MaskFirst),
    ] {
        let expected = probabilities(&weights, &|token| mask.allows(token), cut);
        let mut random = Random(0x5EED_0021);
        let mut counts = [0usize; 21];
        for _ in 0..DRAWS {
            let chosen = choose(&mut matcher, order, None, |allowed| {
                let all = |_: u32| true;
                pick(&probabilities(&weights, allowed.unwrap_or(&all), cut), &mut random)
            });
            counts[chosen.unwrap().token as usize] += 1;
        }
        let mut square = 0.0;
        let mut kinds = 0;
        for (count, p) in counts.iter().zip(&expected) {
            if *p == 0.0 {
                assert_eq!(*count, 0, "{cut:?} {order:?}");
                continue;
            }
            let mean = p * DRAWS as f64;
            square += (*count as f64 - mean).powi(2) / mean;
            kinds += 1;
        }
        // The 99.9 % points of chi-square with 0, 3, and 11 degrees of freedom are 0, 16.3 and 31.3.
        let bound = [0.001, 10.8, 13.8, 16.3, 18.5, 20.5, 22.5, 24.3, 26.1, 27.9, 29.6, 31.3][kinds - 1];
        assert!(square <= bound, "{cut:?} {order:?}: chi-square {square} with {kinds} kinds");
    }
}

#[test]
fn a_candidate_first_draw_after_top_k_would_be_wrong() {
    // Why the order matters: all of the top three are forbidden, so mask-last would have nothing to draw from.
    let weights: Vec<f64> = (0..21).map(|id| 1.0 / (1.0 + f64::from(id))).collect();
    let mut matcher = matcher("root ::= [i-t]");
    let mask = matcher.mask().unwrap().clone();
    let first = probabilities(&weights, &|token| mask.allows(token), Cut::TopK(3));
    let all = probabilities(&weights, &|_| true, Cut::TopK(3));
    assert!(first.iter().zip(&all).all(|(a, b)| a * b == 0.0));
}

#[test]
fn an_error_is_an_error_and_never_a_free_token() {
    let mut failing = matcher("root ::= \"a\"");
    failing.accept(0).unwrap();
    failing.accept(20).unwrap();
    for order in [Order::CandidateFirst, Order::MaskFirst] {
        let chosen = choose(&mut failing, order, Some(5), |_| Ok::<_, ()>(3));
        assert_eq!(chosen, Err(ChooseError::Matcher(MatcherError::Finished)));
    }
    let mut matcher = matcher("root ::= \"ab\"");
    let chosen = choose(&mut matcher, Order::MaskFirst, None, |_| Err::<u32, _>("empty"));
    assert_eq!(chosen, Err(ChooseError::Draw("empty")));
}

#[test]
fn a_budget_brings_the_answer_to_its_end() {
    let mut random = Random(0x5EED_0022);
    for budget in 3..40usize {
        let mut matcher = matcher("root ::= \"a\" v \"b\"\nv ::= [c-f]* | \"g\" v \"h\" | \"i\" [j-t]{2} v");
        let mut closed = false;
        for left in (1..=budget).rev() {
            if matcher.must_stop() {
                break;
            }
            let draw = |allowed: Option<&dyn Fn(u32) -> bool>| {
                let ids: Vec<u32> = (0..20).filter(|&id| allowed.is_none_or(|allowed| allowed(id))).collect();
                ids.get(random.below(ids.len().max(1))).copied().ok_or(())
            };
            let chosen = choose(&mut matcher, Order::CandidateFirst, Some(left), draw).unwrap();
            closed |= chosen.closing;
            matcher.accept(chosen.token).unwrap();
        }
        assert!(matcher.may_stop(), "{budget} {closed}");
    }
}

/// Byte-pair tokens over a few words, with a tokenizer that takes the longest piece, word by word.
struct Words {
    vocabulary: Vocabulary,
    ids: HashMap<Vec<u8>, u32>,
}

impl Words {
    fn new() -> Self {
        let mut pieces: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        let words = ["{\"", "name", "\":", " \"", "\"}", "na", "me", "ab", "abc", "abcd", "cd", " name", ": ", "bc"];
        pieces.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        let ids = pieces.iter().cloned().zip(0..).collect();
        let control = vec![false; pieces.len()];
        Words { vocabulary: Vocabulary::new(pieces, control, vec![]), ids }
    }

    fn tokenize(&self, text: &str) -> Vec<u32> {
        let mut rest = text.as_bytes();
        let mut tokens = Vec::new();
        while !rest.is_empty() {
            let longest = (1..=rest.len()).rev().find(|&length| self.ids.contains_key(&rest[..length])).unwrap();
            tokens.push(self.ids[&rest[..longest]]);
            rest = &rest[longest..];
        }
        tokens
    }

    fn id(&self, piece: &str) -> u32 {
        self.ids[piece.as_bytes()]
    }

    fn forward(&self, answer: &[&str], forced: &str, ends: bool, most: usize) -> Option<(usize, Vec<String>)> {
        let answer: Vec<u32> = answer.iter().map(|piece| self.id(piece)).collect();
        let made = forward(&answer, forced.as_bytes(), ends, most, &self.vocabulary, &|text| self.tokenize(text));
        let Forward { replace, tokens, text } = made?;
        // What they all must satisfy: the bytes are those of the answer and the forced text.
        let bytes = |tokens: &[u32]| -> Vec<u8> {
            tokens.iter().flat_map(|&token| self.vocabulary.piece(token).to_vec()).collect()
        };
        let replaced = bytes(&answer[answer.len() - replace..]);
        assert_eq!([replaced.as_slice(), &text].concat(), bytes(&tokens));
        assert!(forced.as_bytes().starts_with(&text));
        // And the cut is the tokenizer's own.
        let all = [&answer[..answer.len() - replace], &tokens].concat();
        let canonical = self.tokenize(std::str::from_utf8(&bytes(&all)).unwrap());
        assert_eq!(all, canonical);
        let pieces = tokens.iter().map(|&token| String::from_utf8(self.vocabulary.piece(token).to_vec()).unwrap());
        Some((replace, pieces.collect()))
    }
}

#[test]
fn forced_text_is_cut_as_the_tokenizer_cuts_it() {
    let words = Words::new();
    let strings = |list: &[&str]| list.iter().map(|piece| (*piece).to_owned()).collect::<Vec<_>>();
    for (answer, forced, ends, most, expected) in [
        // Nothing before: the last token is held back, it might grow.
        (&[][..], "{\"name\": \"", false, 2, Some((0, strings(&["{\"", "name", "\":"])))),
        (&[], "{\"name\": \"", true, 2, Some((0, strings(&["{\"", "name", "\":", " \""])))),
        // The joint is whole already.
        (&["{\""], "name\":", false, 2, Some((0, strings(&["name"])))),
        // The last token becomes part of a longer one.
        (&["{"], "\"name\":", false, 2, Some((1, strings(&["{\"", "name"])))),
        (&["x", "ab"], "cd1", false, 1, Some((1, strings(&["abcd"])))),
        (&["x", "ab"], "cd1", false, 0, None),
        (&["x", "a", "b"], "cd1", false, 1, None),
        (&["x", "a", "b"], "cd1", false, 2, Some((2, strings(&["abcd"])))),
        // One token that might grow is no gain.
        (&[], "name", false, 2, None),
        (&[], "name", true, 2, Some((0, strings(&["name"])))),
        (&["x"], "", true, 2, None),
    ] {
        assert_eq!(words.forward(answer, forced, ends, most), expected, "{answer:?} {forced:?}");
    }
}

#[test]
fn forced_text_after_random_answers_is_canonical_at_the_joint() {
    let words = Words::new();
    let mut random = Random(0x5EED_0023);
    let texts = ["{\"name\": \"ab\"}", "abcdabcd", "name name: name", "{\"abc\": \"bcd\"}", "aabbccdd"];
    for _ in 0..2000 {
        let text = texts[random.below(texts.len())];
        let at = random.below(text.len() + 1);
        let answer: Vec<u32> = words.tokenize(&text[..at]);
        let pieces: Vec<&str> =
            answer.iter().map(|&token| std::str::from_utf8(words.vocabulary.piece(token)).unwrap()).collect();
        words.forward(&pieces, &text[at..], random.below(2) == 0, 3);
    }
}

#[test]
fn forced_text_is_taken_until_there_is_a_choice() {
    let words = Words::new();
    let vocabulary = Arc::new(Words::new().vocabulary);
    let grammar = "root ::= \"{\\\"name\\\": \\\"\" (\"abcd\" | \"abab\") \"\\\"}\"";
    let compiled = Compiler::new(Arc::clone(&vocabulary)).compile(&Source::Gbnf(grammar.to_owned())).unwrap();
    let mut matcher = compiled.matcher();
    let tokenize = |text: &str| words.tokenize(text);
    let taken = advance(&mut matcher, &[], 1, &vocabulary, &tokenize).unwrap().unwrap();
    let ids: Vec<u32> = ["{\"", "name", "\":", " \""].iter().map(|piece| words.id(piece)).collect();
    assert_eq!((taken.replace, taken.tokens.as_slice()), (0, ids.as_slice()));
    // What is held back stays forced: only tokens that spell it are allowed.
    assert_eq!(matcher.forced_bytes().unwrap(), b"ab");
    assert_eq!(advance(&mut matcher, &taken.tokens, 1, &vocabulary, &tokenize), Ok(None));
    matcher.accept(words.id("abcd")).unwrap();
    let answer = [taken.tokens, vec![words.id("abcd")]].concat();
    // The end is known, so nothing is held back.
    let last = advance(&mut matcher, &answer, 1, &vocabulary, &tokenize).unwrap().unwrap();
    assert_eq!(last.tokens, [words.id("\"}")]);
    assert!(matcher.must_stop());
}
