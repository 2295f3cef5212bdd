//! The two kinds of failure: a grammar that is refused, and a matcher that must stop.

use std::fmt;

/// Where in a text something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// Characters to underline, at least 1.
    pub width: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One mistake in GBNF text or a regular expression, with all that is needed to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// What the text is, for the start of the message: `grammar`, `regex`, or `format 'json'` for a ready format.
    pub origin: String,
    /// Where the mistake is.
    pub place: Place,
    /// What is wrong, without place and without a trailing dot.
    pub message: String,
    /// What to do about it, if something can be said.
    pub hint: Option<String>,
    /// The rule in which the mistake is, if one had begun.
    pub rule: Option<String>,
    /// The text of the line, cut to a printable width.
    pub excerpt: String,
    /// Column of the first character of `excerpt`, counted from 1 (above 1 for very long lines).
    pub excerpt_column: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.origin, self.place, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Why a grammar is refused. `Display` is one line; [`GrammarError::explain`] has the longer view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// The GBNF text or regular expression has a mistake, in form or in meaning.
    #[error("{0}")]
    Syntax(Box<SyntaxError>),
    /// Something is larger than [`Limits`](super::Limits) allows.
    #[error("{origin}{}: {what}: {found}, the limit is {limit}", display_place(.place))]
    Limit {
        /// What the text is: `grammar`, `schema`, `regex`.
        origin: String,
        /// Where the limit was passed, if it has a place.
        place: Option<Place>,
        /// What was measured, with its unit.
        what: &'static str,
        /// What was found.
        found: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The JSON Schema is not valid, asks for something impossible, or uses what cannot be enforced.
    #[error("schema{}: {message}", display_pointer(.pointer))]
    Schema {
        /// JSON pointer into the schema; empty for the whole document or where no place is known.
        pointer: String,
        /// The keyword at fault, if it is one keyword.
        keyword: Option<String>,
        /// What is wrong, on one line.
        message: String,
    },
    /// There is no ready format of this name.
    #[error("there is no format '{name}'{}", display_nearest(.nearest))]
    UnknownFormat {
        /// The name that was asked for.
        name: String,
        /// The name most like it, if one is near.
        nearest: Option<String>,
    },
    /// A format's parameters, or the way it is spelled, are wrong.
    #[error("format{}: {message}", display_name(.name))]
    Format {
        /// Its name; empty where the spelling is too broken to tell.
        name: String,
        /// What is wrong, on one line, with an example.
        message: String,
    },
    /// The engine behind the grammar failed in a way that is not the author's mistake.
    #[error("grammar engine: {message}")]
    Engine {
        /// What happened, on one line.
        message: String,
    },
}

impl GrammarError {
    /// Several lines for a terminal: the message, the line of text with a caret under the mistake, the rule, a hint.
    pub fn explain(&self) -> String {
        let GrammarError::Syntax(error) = self else {
            return self.to_string();
        };
        let SyntaxError { origin, place, .. } = error.as_ref();
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        let offset = place.column.saturating_sub(error.excerpt_column);
        // Tabs are kept before the caret so that it stays under its character.
        let pad: String = error
            .excerpt
            .chars()
            .chain(std::iter::repeat(' '))
            .take(offset)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let room = error.excerpt.chars().count().saturating_sub(offset).max(1);
        let carets = "^".repeat(place.width.clamp(1, room));
        let mut text = format!(
            "{origin} {place}: {}\n{gutter} |\n{number} | {}\n{gutter} | {pad}{carets}",
            error.message, error.excerpt
        );
        if let Some(rule) = &error.rule {
            text.push_str(&format!("\n{gutter} = in rule '{rule}'"));
        }
        if let Some(hint) = &error.hint {
            text.push_str(&format!("\n{gutter} = hint: {hint}"));
        }
        text
    }

    /// Where in the text the mistake is, if it has a place.
    pub fn place(&self) -> Option<Place> {
        match self {
            GrammarError::Syntax(error) => Some(error.place),
            GrammarError::Limit { place, .. } => *place,
            _ => None,
        }
    }
}

fn display_place(place: &Option<Place>) -> String {
    place.map(|place| format!(" {place}")).unwrap_or_default()
}

fn display_pointer(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" at '{pointer}'") }
}

fn display_name(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" '{name}'") }
}

fn display_nearest(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (did you mean '{name}'?)")).unwrap_or_default()
}

/// Why a matcher cannot go on. Every one of these ends the request; none may be answered by dropping the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatcherError {
    /// The token is not allowed here. The matcher is unchanged.
    #[error("token {token} is not allowed by the grammar here")]
    Refused {
        /// The refused token.
        token: u32,
    },
    /// A text is not allowed, see [`Matcher::accept_bytes`](super::Matcher::accept_bytes). The matcher is unchanged.
    #[error("the text is not allowed by the grammar here, from its byte {at} on")]
    RefusedText {
        /// Index of the first byte that cannot be.
        at: usize,
    },
    /// The text has been ended; nothing may follow.
    #[error("the text is finished, no token may follow")]
    Finished,
    /// The grammar can go on but no token of this vocabulary spells what it wants.
    #[error("no token of this model can continue the text as the grammar demands")]
    DeadEnd,
    /// One step would take more work than [`Limits::step_work`](super::Limits::step_work).
    #[error("the grammar is too ambiguous: one step needs more than {limit} units of work")]
    Work {
        /// The limit, in work units.
        limit: u64,
    },
    /// The matcher would hold more than [`Limits::matcher_bytes`](super::Limits::matcher_bytes).
    #[error("the grammar is too ambiguous: its state needs more than {limit} bytes")]
    Memory {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The library behind schemas and regular expressions failed. The matcher stays failed.
    #[error("grammar engine: {message}")]
    Engine {
        /// What it said, on one line.
        message: String,
    },
}

/// The candidate most like `word`, if it is near enough to be a slip of the pen.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = 1 + word.chars().count() / 4;
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The first line of a library's message, without a trailing dot, cut to a readable length.
pub(super) fn one_line(message: &str) -> String {
    let line = message
        .split("\n<backtrace>")
        .next()
        .unwrap_or_default()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    let cut: String = line.chars().take(300).collect();
    cut.trim_end_matches('.').to_owned()
}
