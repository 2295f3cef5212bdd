//! The ready formats: GBNF files of `grammars/`, embedded in the binary.

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

/// The names of all ready formats, sorted.
pub fn names() -> &'static [&'static str] {
    NAMES
}

/// The ready format called `name`.
pub fn get(name: &str) -> Option<&'static Format> {
    let index = NAMES.binary_search(&name).ok()?;
    FORMATS.get(index)
}

/// The name most like `name`, if one is near enough to be a slip of the pen.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    super::error::nearest(name, NAMES.iter().copied())
}
