//! The beginning of a tool call, and where its arguments end, read while they come.

/// What the beginning of a call is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Head {
    /// More text is needed.
    More,
    /// Not the usual form.
    Odd,
    /// The tool's name; what follows begins with its arguments.
    Found { name: String, rest: String },
}

/// Reads `{"name": NAME, "arguments": ` (or `parameters`) of a tool among `tools`, up to the brace that opens the
/// arguments. The answer for a text does not change when more of it comes, but for [`Head::More`].
pub(super) fn head(text: &str, tools: &[String]) -> Head {
    match read_head(text, tools) {
        Ok((name, rest)) => Head::Found { name, rest: rest.to_string() },
        Err(head) => head,
    }
}

fn read_head<'t>(text: &'t str, tools: &[String]) -> Result<(String, &'t str), Head> {
    let text = literal(text, &["{"])?;
    let text = literal(text, &["\"name\""])?;
    let text = literal(text, &[":"])?;
    let text = literal(text, &["\""])?;
    let end = string_end(text).ok_or(Head::More)?;
    let name: String = serde_json::from_str(&format!("\"{}\"", &text[..end])).map_err(|_| Head::Odd)?;
    if !tools.contains(&name) {
        return Err(Head::Odd);
    }
    let text = literal(&text[end + 1..], &[","])?;
    let text = literal(text, &["\"arguments\"", "\"parameters\""])?;
    let text = literal(text, &[":"])?.trim_start();
    match text.as_bytes().first() {
        None => Err(Head::More),
        Some(b'{') => Ok((name, text)),
        Some(_) => Err(Head::Odd),
    }
}

/// What follows one of `wanted`, white space before it aside.
fn literal<'t>(text: &'t str, wanted: &[&str]) -> Result<&'t str, Head> {
    let text = text.trim_start();
    match wanted.iter().find_map(|w| text.strip_prefix(w)) {
        Some(rest) => Ok(rest),
        None if wanted.iter().any(|w| w.starts_with(text)) => Err(Head::More),
        None => Err(Head::Odd),
    }
}

/// Where the quote is that ends a string which has begun.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| match b {
        b'"' if !escaped => true,
        _ => {
            escaped = b == b'\\' && !escaped;
            false
        }
    })
}

/// Inside a JSON object: how deep, and whether in a string.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    depth: usize,
    string: bool,
    escaped: bool,
}

impl Reading {
    /// Behind an object's first brace.
    pub(super) fn inside() -> Self {
        Self { depth: 1, ..Self::default() }
    }

    /// Reads on; where the object ends, if it does in `text`.
    pub(super) fn read(&mut self, text: &str) -> Option<usize> {
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.string => self.escaped = true,
                b'"' => self.string = !self.string,
                b'{' | b'[' if !self.string => self.depth += 1,
                b'}' | b']' if !self.string => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => (),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_or_refused_as_soon_as_they_can_be() {
        let tools = ["get".to_string(), "a\"b".to_string()];
        let found = |name: &str, rest: &str| Head::Found { name: name.into(), rest: rest.into() };
        let table = [
            ("", Head::More),
            (" { ", Head::More),
            ("{\"na", Head::More),
            ("{\"name\": \"ge", Head::More),
            ("{\"name\": \"get\", \"arg", Head::More),
            ("{\"name\": \"get\", \"arguments\": ", Head::More),
            ("{\"name\": \"get\", \"arguments\": {\"a", found("get", "{\"a")),
            ("{\"name\":\"a\\\"b\",\"parameters\":{}}", found("a\"b", "{}}")),
            ("{\"name\": \"put\"", Head::Odd),
            ("{\"type\"", Head::Odd),
            ("{\"name\": 1", Head::Odd),
            ("{\"name\": \"get\"}", Head::Odd),
            ("{\"name\": \"get\", \"arguments\": \"{}\"", Head::Odd),
        ];
        for (text, expected) in table {
            assert_eq!(head(text, &tools), expected, "{text}");
        }
    }

    #[test]
    fn an_object_ends_at_its_own_brace() {
        let text = r#"{"a": "}\"}", "b": [{"c": 1}]}, x"#;
        let mut reading = Reading::default();
        assert_eq!(reading.read(text), text.find(", x"));
        let mut reading = Reading::default();
        assert_eq!((reading.read("{\"a\\"), reading.read("\"}\"}")), (None, Some(4)));
        assert_eq!(Reading::inside().read(" } "), Some(2));
    }
}
