//! Values as text: the way Python prints them, and as JSON.
//!
//! Templates are written against Jinja in Python, and some print a list or `None` as it is.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, Value};
use std::fmt::Write;

/// Lists and maps inside each other.
const MAX_DEPTH: usize = 100;

/// Why a value was not printed.
pub(super) enum Unprintable {
    /// It is longer than allowed.
    TooLarge,
    /// It is nested too deeply.
    TooDeep,
    /// It could not be read.
    Other(Error),
}

impl From<Error> for Unprintable {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// How JSON is laid out.
pub(super) struct Layout {
    indent: Option<usize>,
    between_items: String,
    after_key: String,
    sort_keys: bool,
    ensure_ascii: bool,
}

impl Layout {
    /// The arguments of `tojson` in Hugging Face's transformers, which are those of Python's
    /// `json.dumps`.
    pub(super) fn from_arguments(indent: Option<usize>, named: &Kwargs) -> Result<Self, Error> {
        let indent = match indent {
            Some(indent) => Some(indent),
            None => named.get::<Option<usize>>("indent")?,
        };
        let mut layout = Self {
            indent,
            between_items: if indent.is_some() { "," } else { ", " }.to_owned(),
            after_key: ": ".to_owned(),
            sort_keys: named.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
            ensure_ascii: named.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        };
        if let Some(separators) = named.get::<Option<Value>>("separators")?
            && !separators.is_none()
        {
            let text = |index| -> Result<String, Error> {
                let separator = separators.get_item_by_index(index)?;
                Ok(separator.as_str().unwrap_or_default().to_owned())
            };
            (layout.between_items, layout.after_key) = (text(0)?, text(1)?);
        }
        Ok(layout)
    }
}

/// `str(value)`, at most `limit` bytes of it.
pub(super) fn display(value: &Value, limit: usize) -> Result<String, Unprintable> {
    let mut sink = Sink::new(limit);
    match value.as_str() {
        Some(text) => sink.push(text)?,
        None if value.is_undefined() => {}
        None => repr(value, &mut sink, 0)?,
    }
    Ok(sink.out)
}

/// `json.dumps(value)`, at most `limit` bytes of it.
pub(super) fn json(value: &Value, layout: &Layout, limit: usize) -> Result<String, Unprintable> {
    let mut sink = Sink::new(limit);
    dump(value, layout, &mut sink, 0)?;
    Ok(sink.out)
}

struct Sink {
    out: String,
    limit: usize,
}

impl Sink {
    fn new(limit: usize) -> Self {
        Self { out: String::new(), limit }
    }

    fn push(&mut self, text: &str) -> Result<(), Unprintable> {
        if text.len() > self.limit - self.out.len() {
            return Err(Unprintable::TooLarge);
        }
        self.out.push_str(text);
        Ok(())
    }
}

/// What both notations write alike.
fn scalar(value: &Value, names: [&str; 3], sink: &mut Sink) -> Result<bool, Unprintable> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => sink.push(names[0])?,
        ValueKind::Bool => sink.push(names[if value.is_true() { 1 } else { 2 }])?,
        ValueKind::Number if value.is_integer() => sink.push(&value.to_string())?,
        ValueKind::Number => sink.push(&float(f64::try_from(value.clone())?))?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn repr(value: &Value, sink: &mut Sink, depth: usize) -> Result<(), Unprintable> {
    if depth > MAX_DEPTH {
        return Err(Unprintable::TooDeep);
    }
    if scalar(value, ["None", "True", "False"], sink)? {
        return Ok(());
    }
    if let Some(text) = value.as_str() {
        return sink.push(&quoted(text));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            sink.push(open)?;
            let mut count = 0;
            for item in value.try_iter()? {
                if count > 0 {
                    sink.push(", ")?;
                }
                count += 1;
                repr(&item, sink, depth + 1)?;
            }
            if value.is_tuple() && count == 1 {
                sink.push(",")?;
            }
            sink.push(close)
        }
        ValueKind::Map => {
            sink.push("{")?;
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    sink.push(", ")?;
                }
                repr(&key, sink, depth + 1)?;
                sink.push(": ")?;
                repr(&value.get_item(&key)?, sink, depth + 1)?;
            }
            sink.push("}")
        }
        _ => sink.push(&value.to_string()),
    }
}

/// A string as Python's `repr` writes it, but for characters Python cannot print.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// A float as Python writes it: exponents have a sign and two digits, and begin at 1e16.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    let size = value.abs();
    if value.is_infinite() || size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

fn dump(value: &Value, layout: &Layout, sink: &mut Sink, depth: usize) -> Result<(), Unprintable> {
    if depth > MAX_DEPTH {
        return Err(Unprintable::TooDeep);
    }
    if scalar(value, ["null", "true", "false"], sink)? {
        return Ok(());
    }
    if let Some(text) = value.as_str() {
        return sink.push(&json_string(text, layout.ensure_ascii));
    }
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return sink.push(&json_string(&value.to_string(), layout.ensure_ascii));
    }
    sink.push(if is_map { "{" } else { "[" })?;
    let mut items: Vec<Value> = value.try_iter()?.take(sink.limit + 1).collect();
    if is_map && layout.sort_keys {
        items.sort();
    }
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            sink.push(&layout.between_items)?;
        }
        new_line(layout, sink, depth + 1)?;
        if is_map {
            let key = match item.as_str() {
                Some(key) => key.to_owned(),
                None => display(item, sink.limit)?,
            };
            sink.push(&json_string(&key, layout.ensure_ascii))?;
            sink.push(&layout.after_key)?;
            dump(&value.get_item(item)?, layout, sink, depth + 1)?;
        } else {
            dump(item, layout, sink, depth + 1)?;
        }
    }
    if !items.is_empty() {
        new_line(layout, sink, depth)?;
    }
    sink.push(if is_map { "}" } else { "]" })
}

fn new_line(layout: &Layout, sink: &mut Sink, depth: usize) -> Result<(), Unprintable> {
    let Some(indent) = layout.indent else {
        return Ok(());
    };
    let spaces = indent.saturating_mul(depth);
    if spaces > sink.limit {
        return Err(Unprintable::TooLarge);
    }
    sink.push("\n")?;
    sink.push(&" ".repeat(spaces))
}

fn json_string(text: &str, ensure_ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || (ensure_ascii && u32::from(c) >= 0x7f) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_in_python() {
        for (value, expected) in [
            (1.0, "1.0"),
            (0.7, "0.7"),
            (-0.0, "-0.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (123_456_789.0, "123456789.0"),
            (1e300, "1e+300"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn strings_read_as_in_python() {
        assert_eq!(quoted("it's"), "\"it's\"");
        assert_eq!(quoted("a\n\\'\""), r#"'a\n\\\'"'"#);
        assert_eq!(json_string("<é>\u{1}\"", false), "\"<é>\\u0001\\\"\"");
        assert_eq!(json_string("é", true), "\"\\u00e9\"");
    }
}
