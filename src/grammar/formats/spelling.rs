//! How a format with parameters is written: `name(arguments)` or JSON.
//!
//! Arguments are separated by commas; blanks around them do not count. `key=value` names a parameter. A value is a word,
//! a text in double quotes (with `\"` and `\\`), or a list in square brackets. What stands without a key is added to the
//! format's first parameter: `choice(a, b)` is `choice(labels=[a, b])`.

use serde_json::{Map, Value};

use super::super::error::{GrammarError, one_line};

/// The key of arguments without one.
pub(super) const FIRST: &str = "";

/// Bytes of a spelling, at most.
const LENGTH: usize = 64 << 10;

/// A format with its parameters.
#[derive(Debug, PartialEq)]
pub(super) struct Spelling {
    pub name: String,
    /// Under [`FIRST`] the list of arguments without a key.
    pub params: Map<String, Value>,
}

pub(super) fn read(text: &str) -> Result<Spelling, GrammarError> {
    let text = text.trim();
    if text.len() > LENGTH {
        return Err(refuse("", format!("the format is spelled in {} bytes, the limit is {LENGTH}", text.len())));
    }
    if text.starts_with('{') {
        return from_json(text);
    }
    let Some((name, rest)) = text.split_once('(') else {
        return Ok(Spelling { name: text.to_owned(), params: Map::new() });
    };
    let name = name.trim();
    let mut reader = Reader { name, rest };
    let params = reader.arguments()?;
    match reader.rest.trim() {
        "" => Ok(Spelling { name: name.to_owned(), params }),
        rest => Err(refuse(name, format!("unexpected '{}' after ')'", head(rest)))),
    }
}

fn from_json(text: &str) -> Result<Spelling, GrammarError> {
    let value: Value = serde_json::from_str(text).map_err(|error| refuse("", one_line(&error.to_string())))?;
    let Value::Object(mut object) = value else {
        return Err(refuse("", "expected an object with 'name' and 'params'"));
    };
    let Some(Value::String(name)) = object.remove("name") else {
        return Err(refuse("", "'name' must be the name of a format"));
    };
    let params = match object.remove("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(refuse(&name, "'params' must be an object")),
    };
    if params.contains_key(FIRST) {
        return Err(refuse(&name, "a parameter has no name"));
    }
    match object.keys().next() {
        None => Ok(Spelling { name, params }),
        Some(key) => Err(refuse(&name, format!("'{}' is neither 'name' nor 'params'", head(key)))),
    }
}

fn refuse(name: &str, message: impl Into<String>) -> GrammarError {
    GrammarError::Format { name: name.to_owned(), message: message.into() }
}

fn head(text: &str) -> String {
    text.chars().take(20).collect()
}

struct Reader<'a> {
    name: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    /// What stands between the parentheses; the opening one is taken already.
    fn arguments(&mut self) -> Result<Map<String, Value>, GrammarError> {
        let mut params = Map::new();
        let mut first = Vec::new();
        if self.eat(')') {
            return Ok(params);
        }
        loop {
            let value = self.value(")=")?;
            match value {
                Value::String(key) if self.eat('=') => {
                    let value = self.value(")")?;
                    if key == FIRST || params.insert(key.clone(), value).is_some() {
                        return Err(refuse(self.name, format!("parameter '{}' is given twice", head(&key))));
                    }
                }
                value => first.push(value),
            }
            if self.eat(')') {
                break;
            }
            if !self.eat(',') {
                return Err(refuse(self.name, "expected ',' or ')'"));
            }
        }
        if !first.is_empty() {
            params.insert(FIRST.to_owned(), Value::Array(first));
        }
        Ok(params)
    }

    /// A word, a quoted text, or a list. A word ends at a comma or one of `ends`.
    fn value(&mut self, ends: &str) -> Result<Value, GrammarError> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('"') {
            return self.quoted().map(Value::String);
        }
        if self.eat('[') {
            let mut items = Vec::new();
            while !self.eat(']') {
                if self.rest.trim_start().starts_with('[') {
                    return Err(refuse(self.name, "lists hold no lists"));
                }
                items.push(self.value("]")?);
                if !self.eat(',') && !self.rest.trim_start().starts_with(']') {
                    return Err(refuse(self.name, "expected ',' or ']'"));
                }
            }
            return Ok(Value::Array(items));
        }
        let end = self.rest.find(|c| c == ',' || ends.contains(c)).unwrap_or(self.rest.len());
        let word = self.rest[..end].trim_end();
        if word.is_empty() {
            return Err(refuse(self.name, "a value is missing; an empty text is written \"\""));
        }
        if let Some(c) = word.chars().find(|c| "()[]\"".contains(*c)) {
            return Err(refuse(self.name, format!("'{c}' in a value: write the value in double quotes")));
        }
        self.rest = &self.rest[end..];
        Ok(Value::String(word.to_owned()))
    }

    fn quoted(&mut self) -> Result<String, GrammarError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    _ => {
                        return Err(refuse(self.name, "unknown escape in a quoted value; \\\" \\\\ \\n \\t are known"));
                    }
                },
                c => text.push(c),
            }
        }
        Err(refuse(self.name, "a quoted value has no end"))
    }

    fn eat(&mut self, c: char) -> bool {
        match self.rest.trim_start().strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}
