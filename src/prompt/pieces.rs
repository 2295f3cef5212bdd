//! The rendered prompt: text for the tokenizer, with its trust.

/// Text for the tokenizer, cut where its trust changes.
///
/// The tokenizer takes the pieces in order, each on its own, so that no control token can form
/// across two of them. Nearly every prompt is one [`Piece::Template`]: only control-token
/// spellings that came in with a message are cut out, not messages as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    pieces: Vec<Piece>,
}

/// A stretch of a [`Prompt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Control-token spellings in this text are control tokens.
    Template(String),
    /// Never parsed for control tokens.
    Literal(String),
}

impl Piece {
    /// The text, whatever its trust.
    pub fn text(&self) -> &str {
        match self {
            Piece::Template(text) | Piece::Literal(text) => text,
        }
    }
}

impl Prompt {
    /// Text to complete as it is, control tokens parsed: no template, no protection.
    pub fn raw(text: String) -> Self {
        let mut prompt = Self::default();
        prompt.push(Piece::Template(text));
        prompt
    }

    /// Text in which no control token is recognised.
    pub fn literal(text: impl Into<String>) -> Self {
        let mut prompt = Self::default();
        prompt.push(Piece::Literal(text.into()));
        prompt
    }

    /// The pieces in order, none of them empty.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The whole text, without the marks.
    pub fn text(&self) -> String {
        self.pieces.iter().map(Piece::text).collect()
    }

    /// The prompt with text after it that is never parsed for control tokens: an answer already begun.
    #[must_use]
    pub fn followed_by(mut self, text: String) -> Self {
        self.push(Piece::Literal(text));
        self
    }

    /// Adds a piece at the end; an empty one is left out, and one of the same trust as the last
    /// is joined to it.
    pub(super) fn push(&mut self, piece: Piece) {
        if piece.text().is_empty() {
            return;
        }
        match (self.pieces.last_mut(), piece) {
            (Some(Piece::Template(last)), Piece::Template(more))
            | (Some(Piece::Literal(last)), Piece::Literal(more)) => last.push_str(&more),
            (_, piece) => self.pieces.push(piece),
        }
    }
}
