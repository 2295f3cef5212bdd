//! Which characters of a rendered prompt a user wrote.
//!
//! A template is a program: it may trim, split, slice, join and compare the text it is given, so
//! marks around a message do not survive. Instead the conversation is rendered twice, once as it
//! is and once with the user's text painted (see `paint`). Where the two outputs agree but for
//! paint, the paint says which characters came from a user. A control-token spelling counts as
//! the template's only if no character of it is painted, so `<|im_` of a message does not become
//! a control token by what stands next to it.
//!
//! A template that looks into its text may take another way when it is painted. Then less is
//! painted, in the order of [`COATS`]: first the text that the template has in quotes is spared
//! (`</think>`, `function`), then all but control-token spellings. If even that changes the way
//! (a template that looks for a control token inside a message), the painted output itself is
//! what is used, paint off: the template was told that there is no such control token, and that
//! is the truth.
//!
//! Rejected: marks around messages (trimming, `startswith`, `split` see them); a mark inside each
//! spelling only (blind to spellings that form by joining); looking for spellings in the messages
//! and in the output (which of the two is the user's?).

use super::paint::{Coat, Palette};
use super::pieces::{Piece, Prompt};
use super::spellings::Spellings;

/// How the conversation is painted, one after the other.
pub(super) const COATS: [Coat; 3] = [Coat::Full, Coat::SparingLiterals, Coat::SpellingsOnly];

/// A rendered text, with what is known of each of its bytes.
pub(super) struct Attributed {
    text: String,
    /// For each byte, whether a user wrote it.
    user: Vec<bool>,
}

impl Attributed {
    /// Reads the paint: `plain` with the attribution of `painted`, or none if they differ in more
    /// than paint.
    pub(super) fn compare(plain: &str, painted: &str, palette: &Palette<'_>) -> Option<Self> {
        let mut user = Vec::with_capacity(plain.len());
        let mut rest = painted.chars();
        for c in plain.chars() {
            let other = rest.next()?;
            let is_users = match palette.original(other) {
                // Paint has no case: `upper` and `title` leave it as it was.
                Some(below) => {
                    if below != c && !below.to_lowercase().eq(c.to_lowercase()) {
                        return None;
                    }
                    true
                }
                None if other == c => false,
                None => return None,
            };
            user.resize(user.len() + c.len_utf8(), is_users);
        }
        rest.next().is_none().then(|| Self { text: plain.to_owned(), user })
    }

    /// Takes the paint off.
    pub(super) fn clean(painted: &str, palette: &Palette<'_>) -> Self {
        let mut text = String::with_capacity(painted.len());
        let mut user = Vec::with_capacity(painted.len());
        for c in painted.chars() {
            let below = palette.original(c);
            text.push(below.unwrap_or(c));
            user.resize(text.len(), below.is_some());
        }
        Self { text, user }
    }

    /// Cuts the text where its trust changes.
    pub(super) fn into_prompt(self, spellings: &Spellings) -> Prompt {
        // What the template wrote stays whole, even where a user's spelling reaches into it: cut
        // anywhere, that one is no spelling any more.
        let mut literal = vec![false; self.text.len()];
        let mut control = vec![false; self.text.len()];
        for range in spellings.find(&self.text) {
            let is_users = self.user[range.clone()].contains(&true);
            let marks = if is_users { &mut literal } else { &mut control };
            marks[range].fill(true);
        }
        let mut prompt = Prompt::default();
        let mut start = 0;
        while start < self.text.len() {
            let is_literal = |at: usize| literal[at] && !control[at];
            let end =
                (start..self.text.len()).find(|&at| is_literal(at) != is_literal(start)).unwrap_or(self.text.len());
            let text = self.text[start..end].to_owned();
            prompt.push(if is_literal(start) { Piece::Literal(text) } else { Piece::Template(text) });
            start = end;
        }
        prompt
    }
}
