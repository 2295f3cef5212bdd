//! The parser: recursive descent over characters, one function per construct.
//!
//! Names are resolved here too: a rule gets its index when it is first seen, defined or not.

use std::collections::HashMap;

use super::super::error::{GrammarError, nearest};
use super::super::limits::Limits;
use super::text::{Span, Text};
use super::{Expr, Rule, TokenName};

/// Largest code point.
const LAST: u32 = 0x10_FFFF;

/// The rules of `text`, in order of first mention. `root` is not yet known to be there.
pub(super) fn parse(text: &Text, limits: &Limits) -> Result<Vec<Rule>, GrammarError> {
    let mut parser = Parser { text, limits, pos: 0, depth: 0, rule: None, names: HashMap::new(), entries: Vec::new() };
    parser.grammar()?;
    parser.finish()
}

struct Parser<'a> {
    text: &'a Text,
    limits: &'a Limits,
    /// Byte offset of the next character.
    pos: usize,
    /// Open parentheses and stacked repetition marks: how deep the tree is here.
    depth: usize,
    /// Name of the rule being read, for messages.
    rule: Option<String>,
    names: HashMap<String, usize>,
    entries: Vec<Entry>,
}

/// A rule name that was seen.
struct Entry {
    name: String,
    /// First place where it was used or defined.
    seen: Span,
    /// Rule in which it was first used.
    user: Option<String>,
    defined: Option<(Span, Expr)>,
}

/// Whether a newline may stand before the next symbol: inside parentheses and after `::=` or `|`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Newline {
    Skips,
    Ends,
}

impl<'a> Parser<'a> {
    fn grammar(&mut self) -> Result<(), GrammarError> {
        if self.peek() == Some('\u{FEFF}') {
            self.bump();
        }
        self.space(Newline::Skips);
        while self.peek().is_some() {
            self.rule()?;
            self.space(Newline::Skips);
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Rule>, GrammarError> {
        let mut rules = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let Some((span, _)) = entry.defined else {
                let defined = self.entries.iter().filter(|e| e.defined.is_some());
                let near = nearest(&entry.name, defined.map(|e| e.name.as_str()));
                return Err(self.text.error(
                    entry.seen,
                    entry.user.as_deref(),
                    format!("rule '{}' is not defined", entry.name),
                    near.map(|name| format!("did you mean '{name}'?")),
                ));
            };
            rules.push(span);
        }
        Ok(self
            .entries
            .into_iter()
            .filter_map(|entry| {
                let (span, body) = entry.defined?;
                Some(Rule { name: entry.name, span, body })
            })
            .collect())
    }

    /// `name ::= choice`, up to the end of its last line.
    fn rule(&mut self) -> Result<(), GrammarError> {
        let start = self.pos;
        let Some(name) = self.name() else {
            let found = self.describe();
            let hint = match self.peek() {
                Some('|') => "a rule ends with its line, unless the line ends with '|'",
                _ => "a rule is written: name ::= ...",
            };
            return Err(self.error(self.here(), format!("expected a rule name, found {found}"), Some(hint.to_owned())));
        };
        let span = self.since(start);
        self.rule = Some(name.clone());
        self.space(Newline::Ends);
        if !self.eat("::=") {
            let found = self.describe();
            return Err(self.error(
                self.here(),
                format!("expected '::=' after rule name '{name}', found {found}"),
                None,
            ));
        }
        let index = self.intern(&name, span)?;
        if let Some((first, _)) = self.entries[index].defined {
            let first = self.text.place(first);
            return Err(self.error(
                span,
                format!("rule '{name}' is defined twice"),
                Some(format!("it is first defined at {first}")),
            ));
        }
        self.space(Newline::Skips);
        let body = self.choice(Newline::Ends)?;
        match self.peek() {
            None | Some('\n' | '\r') => {}
            Some(')') => {
                return Err(self.error(self.here(), "')' without '('", None));
            }
            Some(':') => {
                // `a ::= b |` and a new rule on the next line: the name was taken as part of this rule.
                return Err(self.error(
                    self.here(),
                    "unexpected '::='",
                    Some("does the rule before it end with '|'?".to_owned()),
                ));
            }
            Some(c) => {
                let message = format!("unexpected {}", quoted(c));
                return Err(self.error(self.here(), message, hint_for(c)));
            }
        }
        self.entries[index].defined = Some((span, body));
        self.rule = None;
        Ok(())
    }

    fn choice(&mut self, newline: Newline) -> Result<Expr, GrammarError> {
        let mut options = vec![self.sequence(newline)?];
        while self.eat("|") {
            self.space(Newline::Skips);
            options.push(self.sequence(newline)?);
        }
        Ok(match options.len() {
            1 => options.remove(0),
            _ => Expr::Choice(options),
        })
    }

    fn sequence(&mut self, newline: Newline) -> Result<Expr, GrammarError> {
        let mut items = Vec::new();
        while let Some(item) = self.item()? {
            self.space(newline);
            let item = self.repetitions(item, newline)?;
            items.push(item);
        }
        if let Some(c @ ('*' | '+' | '?' | '{')) = self.peek() {
            let message = format!("{} has nothing before it to repeat", quoted(c));
            return Err(self.error(self.here(), message, None));
        }
        Ok(match items.len() {
            1 => items.remove(0),
            _ => Expr::Sequence(items),
        })
    }

    /// One symbol without its repetition marks; `None` where no symbol begins.
    fn item(&mut self) -> Result<Option<Expr>, GrammarError> {
        Ok(Some(match self.peek() {
            Some('"') => self.literal()?,
            Some('[') => self.class()?,
            Some('<' | '!') => self.token()?,
            Some('.') => {
                self.bump();
                Expr::Class(vec![(0, 0xD7FF), (0xE000, LAST)])
            }
            Some('(') => self.group()?,
            Some(c) if is_name(c) => {
                let start = self.pos;
                let name = self.name().unwrap_or_default();
                Expr::Rule(self.intern(&name, self.since(start))?)
            }
            _ => return Ok(None),
        }))
    }

    fn group(&mut self) -> Result<Expr, GrammarError> {
        let open = self.here();
        self.deeper(open)?;
        self.bump();
        self.space(Newline::Skips);
        let body = self.choice(Newline::Skips)?;
        if !self.eat(")") {
            return Err(match self.peek() {
                None => self.error(open, "'(' is never closed", None),
                Some(c) => {
                    let message = format!("expected ')', found {}", quoted(c));
                    self.error(self.here(), message, hint_for(c))
                }
            });
        }
        self.depth -= 1;
        Ok(body)
    }

    /// The marks after a symbol; several may be stacked: `"a"{2}*`.
    fn repetitions(&mut self, mut item: Expr, newline: Newline) -> Result<Expr, GrammarError> {
        let depth = self.depth;
        loop {
            let start = self.pos;
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.bounds(newline)?,
                _ => break,
            };
            if self.pos == start {
                self.bump();
            }
            self.deeper(self.since(start))?;
            self.space(newline);
            item = Expr::Repeat { body: Box::new(item), min, max };
        }
        self.depth = depth;
        Ok(item)
    }

    /// `{m}`, `{m,}` or `{m,n}`.
    fn bounds(&mut self, newline: Newline) -> Result<(u32, Option<u32>), GrammarError> {
        let start = self.pos;
        self.bump();
        self.space(newline);
        let min = self.number()?;
        self.space(newline);
        let mut max = Some(min);
        if self.eat(",") {
            self.space(newline);
            max = match self.peek() {
                Some('0'..='9') => Some(self.number()?),
                _ => None,
            };
            self.space(newline);
        }
        if !self.eat("}") {
            let found = self.describe();
            return Err(self.error(
                self.here(),
                format!("expected '}}' after the repetition bounds, found {found}"),
                Some("write {2}, {2,} or {2,5}".to_owned()),
            ));
        }
        if let Some(max) = max
            && min > max
        {
            return Err(self.error(
                self.since(start),
                format!("repetition bounds are the wrong way round: {min} > {max}"),
                None,
            ));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<u32, GrammarError> {
        let start = self.pos;
        while let Some('0'..='9') = self.peek() {
            self.bump();
        }
        let span = self.since(start);
        let digits = &self.text.text[span.start..span.end];
        if digits.is_empty() {
            let found = self.describe();
            return Err(self.error(
                self.here(),
                format!("expected a number, found {found}"),
                Some("write {2}, {2,} or {2,5}".to_owned()),
            ));
        }
        match digits.parse::<u64>() {
            Ok(value) if value <= u64::from(self.limits.repetition) => Ok(value as u32),
            value => Err(self.text.limit(
                Some(span),
                "repetition bound",
                value.unwrap_or(u64::MAX),
                u64::from(self.limits.repetition),
            )),
        }
    }

    fn literal(&mut self) -> Result<Expr, GrammarError> {
        let open = self.here();
        self.bump();
        let mut text = String::new();
        loop {
            match self.peek() {
                None => {
                    return Err(self.error(open, "string is never closed", None));
                }
                Some('"') => break,
                Some(_) => {
                    let start = self.pos;
                    let code = self.character()?;
                    match char::from_u32(code) {
                        Some(c) => text.push(c),
                        None => return Err(self.not_a_character(start, code)),
                    }
                }
            }
        }
        self.bump();
        Ok(Expr::Literal(text))
    }

    fn class(&mut self) -> Result<Expr, GrammarError> {
        let open = self.here();
        self.bump();
        let negated = self.eat("^");
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                None => {
                    return Err(self.error(open, "character class is never closed", None));
                }
                Some(']') => break,
                Some(_) => ranges.push(self.range()?),
            }
        }
        self.bump();
        let span = self.since(open.start);
        if ranges.is_empty() {
            let hint = match negated {
                true => "'.' stands for any character",
                false => "'[]' would match nothing; '\\]' is the bracket itself",
            };
            return Err(self.error(span, "character class is empty", Some(hint.to_owned())));
        }
        let ranges = normalize(ranges, negated);
        if ranges.is_empty() {
            return Err(self.error(span, "character class excludes every character", None));
        }
        Ok(Expr::Class(ranges))
    }

    /// One character or `a-z` in a class. A dash before the closing bracket is itself.
    fn range(&mut self) -> Result<(u32, u32), GrammarError> {
        let start = self.pos;
        let low = self.character()?;
        let mut high = low;
        let rest = &self.text.text[self.pos..];
        if rest.starts_with('-') && !rest.starts_with("-]") {
            self.bump();
            if self.peek().is_none() {
                let span = self.since(start);
                return Err(self.error(span, "character class is never closed", None));
            }
            high = self.character()?;
        }
        for code in [low, high] {
            if char::from_u32(code).is_none() {
                return Err(self.not_a_character(start, code));
            }
        }
        if low > high {
            return Err(self.error(
                self.since(start),
                "character range is the wrong way round",
                Some("write '\\-' for a dash".to_owned()),
            ));
        }
        Ok((low, high))
    }

    /// One character of a string or class, escapes resolved. May be a number that is no character.
    fn character(&mut self) -> Result<u32, GrammarError> {
        let start = self.pos;
        let Some(c) = self.bump() else {
            return Err(self.error(self.here(), "unexpected end of the text", None));
        };
        if c != '\\' {
            return Ok(u32::from(c));
        }
        Ok(match self.bump() {
            Some('x') => self.hex(start, 2)?,
            Some('u') => self.hex(start, 4)?,
            Some('U') => self.hex(start, 8)?,
            Some('t') => 0x09,
            Some('n') => 0x0A,
            Some('r') => 0x0D,
            Some(c @ ('\\' | '"' | '[' | ']' | '-')) => u32::from(c),
            other => {
                let message = match other {
                    Some(c) => format!("unknown escape '\\{}'", c.escape_debug()),
                    None => "unfinished escape".to_owned(),
                };
                let hint = r#"known are \n \r \t \\ \" \[ \] \- \xHH \uHHHH \UHHHHHHHH"#;
                return Err(self.error(self.since(start), message, Some(hint.to_owned())));
            }
        })
    }

    fn hex(&mut self, start: usize, digits: u32) -> Result<u32, GrammarError> {
        let mut value = 0u32;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                let span = self.since(start);
                return Err(self.error(span, format!("escape needs {digits} hex digits"), None));
            };
            self.bump();
            // Eight digits fill the 32 bits exactly.
            value = value << 4 | digit;
        }
        Ok(value)
    }

    fn not_a_character(&self, start: usize, code: u32) -> GrammarError {
        let message = match code {
            0xD800..=0xDFFF => format!("U+{code:04X} is a surrogate, not a character"),
            _ => format!("U+{code:04X} is past the last character, U+10FFFF"),
        };
        self.error(self.since(start), message, None)
    }

    /// `<[id]>`, `<text>`, and either with `!` before it.
    fn token(&mut self) -> Result<Expr, GrammarError> {
        let start = self.pos;
        let negated = self.eat("!");
        let open = self.pos;
        let close = self.text.text[open..].find(['>', '\n', '\r']);
        let inside = close.map(|close| &self.text.text[open..open + close + 1]);
        let Some(inside) = inside.filter(|i| i.starts_with('<') && i.ends_with('>')) else {
            let span = Span { start, end: start + 1 };
            return Err(self.error(
                span,
                "a token is written <[id]> or <text>",
                Some("characters are written in quotes: \"<\"".to_owned()),
            ));
        };
        self.pos = open + inside.len();
        let span = self.since(start);
        let number = inside.strip_prefix("<[").and_then(|rest| rest.strip_suffix("]>"));
        let token = match number {
            Some(digits) => match digits.parse() {
                Ok(id) => TokenName::Id(id),
                Err(_) => {
                    return Err(self.error(span, "a token id is a number: <[1000]>", None));
                }
            },
            None if inside.len() == 2 => {
                return Err(self.error(span, "token name is empty", None));
            }
            None => TokenName::Text(inside.to_owned()),
        };
        Ok(Expr::Token { token, negated, span })
    }

    /// The index of the rule `name`, new if it was not seen before.
    fn intern(&mut self, name: &str, seen: Span) -> Result<usize, GrammarError> {
        if let Some(&index) = self.names.get(name) {
            return Ok(index);
        }
        let index = self.entries.len();
        if index >= self.limits.gbnf_rules {
            let limit = self.limits.gbnf_rules as u64;
            return Err(self.text.limit(Some(seen), "rules", limit + 1, limit));
        }
        self.names.insert(name.to_owned(), index);
        self.entries.push(Entry { name: name.to_owned(), seen, user: self.rule.clone(), defined: None });
        Ok(index)
    }

    fn deeper(&mut self, span: Span) -> Result<(), GrammarError> {
        self.depth += 1;
        let limit = self.limits.gbnf_nesting;
        match self.depth > limit {
            true => Err(self.text.limit(Some(span), "depth of nesting", self.depth as u64, limit as u64)),
            false => Ok(()),
        }
    }

    fn name(&mut self) -> Option<String> {
        let start = self.pos;
        while self.peek().is_some_and(is_name) {
            self.bump();
        }
        let name = &self.text.text[start..self.pos];
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Skips blanks and comments, and newlines if they do not end the rule here.
    fn space(&mut self, newline: Newline) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => {
                    self.bump();
                }
                '\n' | '\r' if newline == Newline::Skips => {
                    self.bump();
                }
                '#' => {
                    let rest = &self.text.text[self.pos..];
                    self.pos += rest.find(['\n', '\r']).unwrap_or(rest.len());
                }
                _ => break,
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text.text[self.pos..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.text.text[self.pos..].starts_with(text);
        if found {
            self.pos += text.len();
        }
        found
    }

    fn since(&self, start: usize) -> Span {
        Span { start, end: self.pos }
    }

    /// The next character, or the end of the text.
    fn here(&self) -> Span {
        Span { start: self.pos, end: self.pos + self.peek().map_or(0, char::len_utf8) }
    }

    fn describe(&self) -> String {
        match self.peek() {
            None => "the end of the text".to_owned(),
            Some('\n' | '\r') => "the end of the line".to_owned(),
            Some(c) => quoted(c),
        }
    }

    fn error(&self, span: Span, message: impl Into<String>, hint: Option<String>) -> GrammarError {
        self.text.error(span, self.rule.as_deref(), message, hint)
    }
}

/// Characters of rule names. llama.cpp has no `_`; converters write it all the same.
fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn quoted(c: char) -> String {
    format!("'{}'", c.escape_debug())
}

fn hint_for(c: char) -> Option<String> {
    let hint = match c {
        '\'' => "strings take double quotes",
        '/' => "comments begin with '#'",
        ';' | ',' => "rules end with the line, symbols are separated by blanks",
        ']' => "a class begins with '['",
        '}' => "bounds begin with '{'",
        '=' | ':' => "a rule is written: name ::= ...",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Sorts and joins ranges, turns them over if `negated`, and takes the surrogates out.
pub(in super::super) fn normalize(mut ranges: Vec<(u32, u32)>, negated: bool) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match joined.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => joined.push((low, high)),
        }
    }
    if negated {
        let mut next = 0;
        let mut gaps = Vec::with_capacity(joined.len() + 1);
        for (low, high) in joined {
            if low > next {
                gaps.push((next, low - 1));
            }
            next = high + 1;
        }
        if next <= LAST {
            gaps.push((next, LAST));
        }
        joined = gaps;
    }
    let mut clean = Vec::with_capacity(joined.len() + 1);
    for (low, high) in joined {
        for part in [(low, high.min(0xD7FF)), (low.max(0xE000), high)] {
            if part.0 <= part.1 {
                clean.push(part);
            }
        }
    }
    clean
}
