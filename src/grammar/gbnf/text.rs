//! A grammar's text, and errors that point into it.

use super::super::error::{GrammarError, Place, SyntaxError};

/// Bytes `start..end` of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Span {
    pub start: usize,
    pub end: usize,
}

/// A text with the name under which messages speak of it.
#[derive(Debug, Clone)]
pub(in super::super) struct Text {
    pub origin: String,
    pub text: String,
}

/// Longest excerpt of a line in an error, in characters.
const EXCERPT: usize = 160;

impl Text {
    /// Line and column of a span. The width ends with the line.
    pub fn place(&self, span: Span) -> Place {
        let start = floor(&self.text, span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |index| index + 1);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = self.text[line_start..start].chars().count() + 1;
        let covered = &self.text[start..floor(&self.text, span.end.max(start))];
        let width = covered.split(['\n', '\r']).next().map_or(0, |part| part.chars().count()).max(1);
        Place { line, column, width }
    }

    /// An error at `span`.
    pub fn error(
        &self,
        span: Span,
        rule: Option<&str>,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> GrammarError {
        let place = self.place(span);
        let line = self.text.lines().nth(place.line - 1).unwrap_or_default();
        // Very long lines are cut to a window around the mistake.
        let skip = match place.column > EXCERPT {
            true => place.column - EXCERPT / 2,
            false => 0,
        };
        GrammarError::Syntax(Box::new(SyntaxError {
            origin: self.origin.clone(),
            place,
            message: message.into(),
            hint,
            rule: rule.map(str::to_owned),
            excerpt: line.chars().skip(skip).take(EXCERPT).collect(),
            excerpt_column: skip + 1,
        }))
    }

    /// A limit that was passed at `span`.
    pub fn limit(&self, span: Option<Span>, what: &'static str, found: u64, limit: u64) -> GrammarError {
        GrammarError::Limit {
            origin: self.origin.clone(),
            place: span.map(|span| self.place(span)),
            what,
            found,
            limit,
        }
    }
}

/// The nearest character boundary at or before `index`.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}
