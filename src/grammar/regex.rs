//! Regular expressions, as grammars of one rule.
//!
//! The whole text must match; `^` at the beginning and `$` at the end are allowed and say nothing new. The syntax is
//! what Rust, Python and JavaScript have in common: alternatives, groups (named ones too), classes, `* + ? {m,n}` and
//! their lazy forms (which accept the same texts). `\d`, `\w` and `\s` are ASCII. `.` is any character but a line
//! feed. What no automaton can follow (look-around, back-references, word boundaries) is refused by name, and so are
//! inline flags, `\p{..}`, possessive repetition, and set operations in classes.

use super::error::GrammarError;
use super::gbnf::{self, Expr, Grammar, Span, Text, normalize};
use super::limits::Limits;

/// Parses `pattern`.
pub(super) fn parse(pattern: &str, limits: &Limits) -> Result<Grammar, GrammarError> {
    let text = Text { origin: "regex".to_owned(), text: pattern.to_owned() };
    let length = pattern.len() as u64;
    if length > limits.regex_bytes as u64 {
        return Err(text.limit(None, "bytes of text", length, limits.regex_bytes as u64));
    }
    let mut parser = Parser { text: &text, limits, pos: 0, depth: 0 };
    let (body, _) = parser.choice()?;
    if parser.peek().is_some() {
        return Err(parser.error(parser.here(), "')' without '('", Some("write '\\)'")));
    }
    gbnf::single(text, body, limits)
}

struct Parser<'a> {
    text: &'a Text,
    limits: &'a Limits,
    /// Byte offset of the next character.
    pos: usize,
    /// Open groups and stacked repetition marks.
    depth: usize,
}

/// What an escape, or a member of a class, stands for.
enum Escape {
    Character(u32),
    Class(Vec<(u32, u32)>),
}

const BOUNDS_HINT: &str = "write {2}, {2,} or {2,5}; '\\{' is the character";

/// Anchors at the edges of a part. They say nothing new as long as the part stays at that edge of the pattern.
#[derive(Clone, Copy, Default)]
struct Edges {
    caret: Option<Span>,
    dollar: Option<Span>,
}

impl Parser<'_> {
    fn choice(&mut self) -> Result<(Expr, Edges), GrammarError> {
        let (first, mut edges) = self.sequence()?;
        let mut options = vec![first];
        while self.eat("|") {
            let (option, more) = self.sequence()?;
            options.push(option);
            edges.caret = edges.caret.or(more.caret);
            edges.dollar = edges.dollar.or(more.dollar);
        }
        Ok(match options.len() {
            1 => (options.remove(0), edges),
            _ => (Expr::Choice(options), edges),
        })
    }

    fn sequence(&mut self) -> Result<(Expr, Edges), GrammarError> {
        let mut items = Vec::new();
        let mut edges = Edges::default();
        while let Some(c) = self.peek() {
            let here = self.here();
            match c {
                '|' | ')' => break,
                '^' if items.is_empty() => {
                    edges.caret = Some(here);
                    self.bump();
                    continue;
                }
                '^' => return Err(self.inner_anchor(here)),
                '$' => {
                    edges.dollar = Some(here);
                    self.bump();
                    continue;
                }
                '*' | '+' | '?' | '{' => {
                    let message = format!("'{c}' has nothing before it to repeat");
                    let hint = "a backslash makes it a character";
                    return Err(self.error(here, message, Some(hint)));
                }
                _ => {}
            }
            if let Some(dollar) = edges.dollar {
                return Err(self.inner_anchor(dollar));
            }
            let (item, inner) = self.atom(c)?;
            let marks = self.pos;
            let item = self.repetitions(item)?;
            let repeated = self.pos > marks;
            if let Some(caret) = inner.caret {
                if repeated || !items.is_empty() {
                    return Err(self.inner_anchor(caret));
                }
                edges.caret = Some(caret);
            }
            if let Some(dollar) = inner.dollar {
                if repeated {
                    return Err(self.inner_anchor(dollar));
                }
                edges.dollar = Some(dollar);
            }
            items.push(item);
        }
        Ok(match items.len() {
            1 => (items.remove(0), edges),
            _ => (Expr::Sequence(items), edges),
        })
    }

    fn inner_anchor(&self, span: Span) -> GrammarError {
        let anchor = &self.text.text[span.start..span.end];
        let message = format!("'{anchor}' is not at the edge of the pattern");
        let hint = "the whole text must match anyway; a backslash makes it a character";
        self.error(span, message, Some(hint))
    }

    fn atom(&mut self, c: char) -> Result<(Expr, Edges), GrammarError> {
        let start = self.pos;
        let expr = match c {
            '(' => return self.group(),
            '[' => Expr::Class(self.class()?),
            '.' => {
                self.bump();
                Expr::Class(normalize(vec![(0x0A, 0x0A)], true))
            }
            '\\' => match self.escape()? {
                Escape::Class(ranges) => Expr::Class(ranges),
                Escape::Character(code) => match char::from_u32(code) {
                    Some(c) => Expr::Literal(c.to_string()),
                    None => return Err(self.error(self.since(start), "no character", None)),
                },
            },
            c => {
                self.bump();
                Expr::Literal(c.to_string())
            }
        };
        Ok((expr, Edges::default()))
    }

    fn group(&mut self) -> Result<(Expr, Edges), GrammarError> {
        let open = self.here();
        self.deeper(open)?;
        self.bump();
        if self.eat("?") {
            let rest = &self.text.text[self.pos..];
            let name = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<'));
            let span = Span { start: open.start, end: self.pos + 1 };
            let looks = ["=", "!", "<=", "<!"];
            if looks.iter().any(|look| rest.starts_with(look)) {
                return Err(self.error(span, "look-around cannot be enforced", None));
            } else if rest.starts_with(':') {
                self.bump();
            } else if let Some(name) = name {
                let Some(close) = name.find('>') else {
                    return Err(self.error(span, "group name is never closed", None));
                };
                self.pos += rest.len() - name.len() + close + 1;
            } else {
                let hint = "only (...), (?:...) and (?<name>...) are";
                return Err(self.error(span, "this kind of group is not supported", Some(hint)));
            }
        }
        let body = self.choice()?;
        if !self.eat(")") {
            let hint = "write '\\(' for the character";
            return Err(self.error(open, "'(' is never closed", Some(hint)));
        }
        self.depth -= 1;
        Ok(body)
    }

    fn repetitions(&mut self, mut item: Expr) -> Result<Expr, GrammarError> {
        let depth = self.depth;
        loop {
            let start = self.pos;
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.bounds()?,
                _ => break,
            };
            if self.pos == start {
                self.bump();
            }
            self.deeper(self.since(start))?;
            // Lazy marks prefer shorter texts; which are accepted is the same.
            self.eat("?");
            if self.peek() == Some('+') {
                let message = "possessive repetition is not supported";
                return Err(self.error(self.here(), message, None));
            }
            item = Expr::Repeat { body: Box::new(item), min, max };
        }
        self.depth = depth;
        Ok(item)
    }

    fn bounds(&mut self) -> Result<(u32, Option<u32>), GrammarError> {
        let start = self.pos;
        self.bump();
        let min = self.number()?;
        let max = match self.eat(",") {
            false => Some(min),
            true if self.peek() == Some('}') => None,
            true => Some(self.number()?),
        };
        if !self.eat("}") {
            let message = "repetition bounds are never closed";
            return Err(self.error(self.since(start), message, Some(BOUNDS_HINT)));
        }
        match max {
            Some(max) if min > max => {
                let message = format!("repetition bounds are the wrong way round: {min} > {max}");
                Err(self.error(self.since(start), message, None))
            }
            max => Ok((min, max)),
        }
    }

    fn number(&mut self) -> Result<u32, GrammarError> {
        let start = self.pos;
        while let Some('0'..='9') = self.peek() {
            self.bump();
        }
        let span = self.since(start);
        let digits = &self.text.text[span.start..span.end];
        if digits.is_empty() {
            return Err(self.error(self.here(), "expected a number", Some(BOUNDS_HINT)));
        }
        let limit = u64::from(self.limits.repetition);
        match digits.parse::<u64>() {
            Ok(value) if value <= limit => Ok(value as u32),
            value => {
                let found = value.unwrap_or(u64::MAX);
                Err(self.text.limit(Some(span), "repetition bound", found, limit))
            }
        }
    }

    fn class(&mut self) -> Result<Vec<(u32, u32)>, GrammarError> {
        let open = self.here();
        self.bump();
        let negated = self.eat("^");
        let mut ranges = Vec::new();
        let begin = self.pos;
        loop {
            let rest = &self.text.text[self.pos..];
            match self.peek() {
                None => return Err(self.error(open, "character class is never closed", None)),
                Some(']') if self.pos > begin => break,
                Some(']') => {
                    let hint = "write '\\]' for the bracket itself";
                    return Err(self.error(open, "character class is empty", Some(hint)));
                }
                Some('[') if rest.starts_with("[:") => {
                    let message = "named classes [:..:] are not supported";
                    return Err(self.error(self.here(), message, None));
                }
                Some(_) if ["&&", "--", "~~"].iter().any(|op| rest.starts_with(op)) => {
                    let hint = "a backslash makes them characters";
                    let message = "set operations are not supported";
                    return Err(self.error(self.here(), message, Some(hint)));
                }
                Some(_) => self.range(open, &mut ranges)?,
            }
        }
        self.bump();
        let ranges = normalize(ranges, negated);
        match ranges.is_empty() {
            true => Err(self.error(self.since(open.start), "character class matches nothing", None)),
            false => Ok(ranges),
        }
    }

    /// One member of a class, or a range of two.
    fn range(&mut self, open: Span, ranges: &mut Vec<(u32, u32)>) -> Result<(), GrammarError> {
        let start = self.pos;
        let low = match self.member()? {
            Escape::Character(low) => low,
            Escape::Class(more) => {
                ranges.extend(more);
                return Ok(());
            }
        };
        let mut high = low;
        let rest = &self.text.text[self.pos..];
        if rest.starts_with('-') && !rest.starts_with("-]") {
            self.bump();
            if self.peek().is_none() {
                return Err(self.error(open, "character class is never closed", None));
            }
            high = match self.member()? {
                Escape::Character(high) => high,
                Escape::Class(_) => {
                    return Err(self.error(self.since(start), "a class cannot end a range", None));
                }
            };
        }
        if low > high {
            let message = "character range is the wrong way round";
            let hint = "write '\\-' for a dash";
            return Err(self.error(self.since(start), message, Some(hint)));
        }
        ranges.push((low, high));
        Ok(())
    }

    fn member(&mut self) -> Result<Escape, GrammarError> {
        match self.peek() {
            Some('\\') => self.escape(),
            _ => {
                let c = self.bump().unwrap_or_default();
                Ok(Escape::Character(u32::from(c)))
            }
        }
    }

    fn escape(&mut self) -> Result<Escape, GrammarError> {
        let start = self.pos;
        self.bump();
        let Some(c) = self.bump() else {
            return Err(self.error(self.since(start), "unfinished escape", None));
        };
        let span = self.since(start);
        let refuse = |what: &str| {
            let message = format!("{what} '\\{c}' cannot be enforced");
            Err(self.error(span, message, None))
        };
        let character = |code| Ok(Escape::Character(code));
        match c {
            'd' | 'D' => Ok(Escape::Class(normalize(vec![(0x30, 0x39)], c == 'D'))),
            'w' | 'W' => {
                let word = vec![(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)];
                Ok(Escape::Class(normalize(word, c == 'W')))
            }
            's' | 'S' => {
                let space = vec![(0x09, 0x0D), (0x20, 0x20)];
                Ok(Escape::Class(normalize(space, c == 'S')))
            }
            'n' => character(0x0A),
            't' => character(0x09),
            'r' => character(0x0D),
            'f' => character(0x0C),
            'v' => character(0x0B),
            '0' => character(0),
            'x' => self.hex(start, 2).map(Escape::Character),
            'u' => self.hex(start, 4).map(Escape::Character),
            'U' => self.hex(start, 8).map(Escape::Character),
            '1'..='9' => refuse("back-reference"),
            'b' | 'B' => refuse("word boundary"),
            'A' | 'z' | 'Z' => refuse("anchor"),
            'p' | 'P' => refuse("Unicode class"),
            c if c.is_ascii_alphanumeric() => Err(self.error(span, format!("unknown escape '\\{c}'"), None)),
            c => character(u32::from(c)),
        }
    }

    /// Hex digits: `digits` of them, or any number in braces.
    fn hex(&mut self, start: usize, digits: usize) -> Result<u32, GrammarError> {
        let rest = &self.text.text[self.pos..];
        let (code, length) = match rest.strip_prefix('{') {
            Some(inside) => {
                let end = inside.find('}').unwrap_or(0);
                (&inside[..end], end + 2)
            }
            None => (rest.get(..digits).unwrap_or_default(), digits),
        };
        let value = Some(code)
            .filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|code| u32::from_str_radix(code, 16).ok())
            .filter(|&code| char::from_u32(code).is_some());
        match value {
            Some(value) => {
                self.pos += length;
                Ok(value)
            }
            None => Err(self.error(self.since(start), "the escape names no character", None)),
        }
    }

    fn deeper(&mut self, span: Span) -> Result<(), GrammarError> {
        self.depth += 1;
        let (depth, limit) = (self.depth as u64, self.limits.gbnf_nesting as u64);
        match depth > limit {
            true => Err(self.text.limit(Some(span), "depth of nesting", depth, limit)),
            false => Ok(()),
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

    fn here(&self) -> Span {
        Span { start: self.pos, end: self.pos + self.peek().map_or(0, char::len_utf8) }
    }

    fn error(&self, span: Span, message: impl Into<String>, hint: Option<&str>) -> GrammarError {
        self.text.error(span, None, message, hint.map(str::to_owned))
    }
}
