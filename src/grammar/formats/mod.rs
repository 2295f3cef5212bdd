//! The ready formats: GBNF files of `grammars/`, embedded in the binary, and formats that take parameters.
//!
//! A format is asked for by a *spelling*: its name (`json`), its name with arguments (`choice(positive, negative)`), or
//! JSON (`{"name": "choice", "params": {"labels": ["positive", "negative"]}}`). `spelling` reads these, `build` makes
//! grammars with the crate `gbnf`, `shapes` has the formats with parameters.

pub(super) mod build;
mod shapes;
mod spelling;

use std::borrow::Cow;

use super::error::GrammarError;
pub use shapes::{Parameterised, parameterised};
use spelling::Spelling;

/// One ready format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The name a request gives.
    pub name: &'static str,
    /// The GBNF text, comments included.
    pub gbnf: &'static str,
}

impl Format {
    /// What the format accepts, in one line: the first comment line of its file.
    pub fn description(&self) -> &'static str {
        let first = self.gbnf.lines().next().unwrap_or_default();
        first.trim_start_matches('#').trim()
    }
}

macro_rules! formats {
    ($($name:literal),* $(,)?) => {
        const FORMATS: &[Format] = &[$(Format {
            name: $name,
            gbnf: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/grammars/", $name, ".gbnf")),
        }),*];
        const NAMES: &[&str] = &[$($name),*];
    };
}

// In the order of listings: by name.
formats!(
    "csv-row",
    "cypher-query",
    "email",
    "integer",
    "iso-date",
    "json",
    "json-array",
    "json-object",
    "markdown-list",
    "ndjson-record",
    "number",
    "sentiment",
    "sql-select",
    "tool-call",
    "typescript-function",
    "yes-no",
);

/// The names of all ready formats without parameters, sorted.
pub fn names() -> &'static [&'static str] {
    NAMES
}

/// The ready format called `name`.
pub fn get(name: &str) -> Option<&'static Format> {
    let index = NAMES.binary_search(&name).ok()?;
    FORMATS.get(index)
}

/// The GBNF text of the format that `spelling` asks for.
///
/// # Errors
/// [`GrammarError::UnknownFormat`]; [`GrammarError::Format`] if the spelling is malformed or a parameter is missing,
/// unknown or of the wrong kind.
pub fn format_text(spelling: &str) -> Result<Cow<'static, str>, GrammarError> {
    let Spelling { name, params } = spelling::read(spelling)?;
    if let Some(shape) = parameterised().iter().find(|shape| shape.name == name) {
        return shape.build(params).map(Cow::Owned);
    }
    match get(&name) {
        Some(format) if params.is_empty() => Ok(Cow::Borrowed(format.gbnf)),
        Some(_) => Err(GrammarError::Format { name, message: "takes no parameters".to_owned() }),
        None => Err(GrammarError::UnknownFormat { nearest: nearest(&name).map(str::to_owned), name }),
    }
}

/// The name most like `name`, if one is near enough to be a slip of the pen.
fn nearest(name: &str) -> Option<&'static str> {
    let all = NAMES.iter().copied().chain(parameterised().iter().map(|shape| shape.name));
    super::error::nearest(name, all)
}
