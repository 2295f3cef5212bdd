//! Choosing a token that the format allows, with as few masks as can be.

use super::super::error::MatcherError;
use super::super::matcher::Matcher;

/// When the mask is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Draw from all tokens; only if the token is refused, mask and draw again.
    ///
    /// For the best token the result is the best allowed token either way. For a draw from the whole distribution,
    /// without anything that truncates it, the result follows exactly the masked distribution: a token of weight `p`
    /// is drawn at once with `p`, or after a refusal with `(1 - Z) p / Z`, together `p / Z`, where `Z` is the weight of
    /// all allowed tokens.
    CandidateFirst,
    /// Mask, then draw. With top-k, top-p, min-p, typical or the like, what is left by them depends on what there was,
    /// so only this gives the masked distribution.
    MaskFirst,
}

/// A token, and what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// A mask was computed for it.
    pub masked: bool,
    /// The first choice left too little room to finish, so it was drawn again.
    pub closing: bool,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq)]
pub enum ChooseError<E> {
    /// The matcher failed. The request ends with an error; it never goes on unmasked.
    Matcher(MatcherError),
    /// The draw failed.
    Draw(E),
}

impl<E> From<MatcherError> for ChooseError<E> {
    fn from(error: MatcherError) -> Self {
        ChooseError::Matcher(error)
    }
}

/// Chooses the next token. `budget`: tokens that may still be generated, this one included; `None` if there is no
/// limit. `draw` chooses among the tokens it is told (all, if told nothing).
///
/// Where the model wishes to close an object that lacks a required key, that key comes next, see [`Matcher::urge`].
///
/// With a budget the answer is brought to its end in time: a token after which the text could no longer be completed is
/// not taken, see [`Matcher::allows_closing`].
///
/// # Errors
/// [`ChooseError`] of the matcher or of `draw`. There is no path on which an unmasked token is returned.
pub fn choose<E>(
    matcher: &mut Matcher,
    order: Order,
    budget: Option<usize>,
    mut draw: impl FnMut(Option<&dyn Fn(u32) -> bool>) -> Result<u32, E>,
) -> Result<Chosen, ChooseError<E>> {
    // Free text is left as it is; only what would end it or run past the marker is drawn again.
    let order = if matcher.is_free() { Order::CandidateFirst } else { order };
    let mut masked = false;
    let mut token = None;
    if order == Order::CandidateFirst {
        let candidate = draw(None).map_err(ChooseError::Draw)?;
        token = match matcher.allows(candidate)? {
            true => Some(candidate),
            false => matcher.urge(candidate)?,
        };
    } else if matcher.lacks_key()? {
        let wish = draw(None).map_err(ChooseError::Draw)?;
        token = matcher.urge(wish)?;
    }
    let token = match token {
        Some(token) => token,
        None => {
            masked = true;
            let mask = matcher.mask()?;
            draw(Some(&|token| mask.allows(token))).map_err(ChooseError::Draw)?
        }
    };
    match budget {
        Some(budget) if !matcher.allows_closing(token, budget)? => {
            let mask = matcher.mask_closing(budget)?;
            let token = draw(Some(&|token| mask.allows(token))).map_err(ChooseError::Draw)?;
            Ok(Chosen { token, masked: true, closing: true })
        }
        _ => Ok(Chosen { token, masked, closing: false }),
    }
}
