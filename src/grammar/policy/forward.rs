//! Forced text as tokens: what a grammar leaves no choice about needs no sampling.
//!
//! A model expects texts cut as its tokenizer cuts them. So the joint between the answer and the forced text is
//! tokenized anew, which may replace the last tokens of the answer, and the last forced token is held back where it
//! could have been part of a longer one with what the model writes next: its bytes stay forced, and the model chooses
//! the token.

use super::super::error::MatcherError;
use super::super::matcher::Matcher;
use super::super::vocabulary::Vocabulary;

/// Cuts text as the model's tokenizer does, without control tokens and without anything added in front.
pub type Tokenize<'a> = dyn Fn(&str) -> Vec<u32> + 'a;

/// Tokens to take without asking the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// How many of the answer's last tokens these replace.
    pub replace: usize,
    /// The tokens. The bytes of the replaced ones are the beginning of theirs.
    pub tokens: Vec<u32>,
    /// The text that is new: what of the forced bytes the tokens cover. For the matcher's `accept_bytes`.
    pub text: Vec<u8>,
}

/// Takes what `matcher` forces after `answer`, as tokens; the matcher has accepted their text when it returns. `None`
/// where nothing is forced or nothing can be gained. `most` as in [`forward`].
///
/// # Errors
/// As in [`Matcher::mask`].
pub fn advance(
    matcher: &mut Matcher,
    answer: &[u32],
    most: usize,
    vocabulary: &Vocabulary,
    tokenize: &Tokenize<'_>,
) -> Result<Option<Forward>, MatcherError> {
    let forced = matcher.forced_bytes()?;
    if forced.is_empty() {
        return Ok(None);
    }
    let ends = matcher.ends_with(&forced)?;
    let Some(forward) = forward(answer, &forced, ends, most, vocabulary, tokenize) else {
        return Ok(None);
    };
    matcher.accept_bytes(&forward.text)?;
    Ok(Some(forward))
}

/// The tokens of `forced` after `answer`. `ends`: whether the answer is complete with the forced text, so that no
/// further text can join its last token. `most`: how many tokens of the answer may be replaced at most; the last one
/// is usually not evaluated yet, so that replacing it costs nothing.
///
/// `None` where there is nothing to gain: no forced token is certain, or the joint would need more replacements.
pub fn forward(
    answer: &[u32],
    forced: &[u8],
    ends: bool,
    most: usize,
    vocabulary: &Vocabulary,
    tokenize: &Tokenize<'_>,
) -> Option<Forward> {
    // A cut character belongs to what comes next.
    let forced = match std::str::from_utf8(forced) {
        Ok(_) => forced,
        Err(error) => &forced[..error.valid_up_to()],
    };
    if forced.is_empty() {
        return None;
    }
    // The shortest context whose first token stays as it is: then nothing to its left changes either.
    for context in 0..=answer.len().min(most + 1) {
        let last = &answer[answer.len() - context..];
        let mut text: Vec<u8> = last.iter().flat_map(|&token| vocabulary.piece(token)).copied().collect();
        let old = text.len();
        text.extend_from_slice(forced);
        let Ok(text) = std::str::from_utf8(&text) else {
            continue; // a character is cut between two tokens
        };
        let mut tokens = tokenize(text);
        let spelled: Vec<u8> = tokens.iter().flat_map(|&token| vocabulary.piece(token)).copied().collect();
        if spelled != text.as_bytes() || tokens.iter().any(|&token| !vocabulary.is_text(token)) {
            return None; // the tokenizer adds or changes something
        }
        let whole = context == answer.len();
        if !whole && (context == 0 || tokens.first() != last.first()) {
            continue;
        }
        let kept = tokens.iter().zip(last).take_while(|(new, old)| new == old).count();
        if context - kept > most {
            continue;
        }
        if !ends {
            tokens.pop();
        }
        let length: usize = tokens.iter().map(|&token| vocabulary.piece(token).len()).sum();
        if length <= old || tokens.len() <= kept {
            return None;
        }
        return Some(Forward {
            replace: context - kept,
            tokens: tokens.split_off(kept),
            text: text.as_bytes()[old..length].to_vec(),
        });
    }
    None
}
