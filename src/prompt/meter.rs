//! Puts meters into a template's source before it is compiled.
//!
//! Steps are counted by the template engine, memory is not: `{% set s = s + s %}` forty times is
//! 160 steps and a terabyte. The engine has no hook for its operators, but filters are ours. So
//! every operand of `+`, `~` and `*` is sent through a filter that returns it unchanged and
//! charges what the operator is about to build:
//!
//! ```text
//! {% set s = s + x.y %}     {% set s = s|smoa_part + x.y|smoa_part %}
//! {{ 'ab' * n }}            {{ 'ab'|smoa_factor(true, false, true) * n|smoa_factor(..) }}
//! ```
//!
//! Values that share parts are small and print, compare and hash as if they did not: `[v, v]` forty
//! times has 2^40 elements. So has a slice of a slice. What goes into brackets or into a variable is
//! therefore charged for all it holds, and made a list where it was a promise of one. And a
//! namespace stays out of namespaces, where it could come to hold itself.
//!
//! A filter binds tighter than every operator and is put behind the last `.name`, `[..]`, `(..)`
//! and `|filter` of an operand, so that the expression keeps its meaning; no line is added, so
//! that line numbers stay true. Text between tags is charged where it is long.
//!
//! Knows the lexical rules of the language, not its grammar: a template that does not parse
//! stays one.

/// Charges an operand of `+`.
pub(super) const PART: &str = "smoa_part";
/// Charges what a list or a map holds, and makes it a list where it is lazy.
pub(super) const ITEM: &str = "smoa_item";
/// The same, for what goes into a namespace: holds no namespace.
pub(super) const KEPT: &str = "smoa_kept";
/// Charges an operand of `~` and turns it into the text Python would.
pub(super) const TEXT: &str = "smoa_text";
/// Charges an operand of `*`; its arguments say whether it is the first and the last of its
/// product, and whether its value is the whole operand.
pub(super) const FACTOR: &str = "smoa_factor";
/// A function: charges text between two tags.
pub(super) const DATA: &str = "smoa_data";

/// Text between two tags is metered from this many bytes on.
const METERED_DATA_BYTES: usize = 1024;

/// Tokens in one tag. The compiler folds constants in time quadratic in an expression's length, and
/// recurses once for every operator. Expressions in use stay below a hundred.
const MAX_TAG_TOKENS: usize = 5_000;

/// Slices in one tag: each doubles the work of those inside it.
const MAX_TAG_SLICES: usize = 8;

/// Words that are not values: an operand cannot end with one.
const KEYWORDS: [&str; 12] = ["if", "elif", "else", "and", "or", "not", "in", "is", "set", "for", "call", "filter"];

/// A template's source with meters, and what it says in quotes.
#[derive(Debug)]
pub(super) struct Metered {
    /// The source to compile.
    pub source: String,
    /// Its string literals, but for those with escapes.
    pub literals: Vec<String>,
}

/// A stretch of source that cannot be bounded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unmeterable {
    /// Line of the template it begins on, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Puts meters into `source`.
pub(super) fn meter(source: &str) -> Result<Metered, Unmeterable> {
    let mut scan =
        Scan { source, at: 0, copied: 0, out: String::with_capacity(source.len() * 2), literals: Vec::new() };
    while scan.data()? {
        scan.tag()?;
    }
    scan.copy_to(source.len());
    Ok(Metered { source: scan.out, literals: scan.literals })
}

/// Where the scan is in the source, and what it has written.
struct Scan<'a> {
    source: &'a str,
    at: usize,
    copied: usize,
    out: String,
    literals: Vec<String>,
}

/// What a tag does with the values in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Prints or tests them: only what goes into brackets is charged.
    Read,
    /// Gives them a name.
    Named,
    /// Puts them into a namespace.
    Kept,
}

/// What is known inside one pair of brackets.
#[derive(Default)]
struct Level {
    /// What stands here are names being given to values, up to the next `=` or `in`.
    targets: bool,
    /// The brackets are a subscript.
    subscript: bool,
    /// The last operand is followed by `+` or `~`.
    join: Option<&'static str>,
    /// The last operand is followed by `*`.
    times: bool,
    /// The operand is part of a chain of `*`, `/`, `//`, `%`, `**`.
    chained: bool,
    /// The operand is the right side of `/`, `//`, `%` or `**`: more is multiplied than it.
    partial: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Number,
    Text,
    Sign(&'a str),
    End,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn copy_to(&mut self, end: usize) {
        self.out.push_str(&self.source[self.copied..end]);
        self.copied = end;
    }

    fn insert(&mut self, at: usize, text: &str) {
        self.copy_to(at);
        self.out.push_str(text);
    }

    /// Passes text up to the next tag; false at the end of the source.
    fn data(&mut self) -> Result<bool, Unmeterable> {
        let start = self.at;
        let tag = ["{{", "{%", "{#"].iter().filter_map(|open| self.rest().find(open)).min();
        self.at = tag.map_or(self.source.len(), |offset| start + offset);
        if self.at - start >= METERED_DATA_BYTES {
            let text = &self.source.as_bytes()[start..self.at];
            // Between two letters no rule about white space around tags applies.
            let Some(gap) = text.windows(2).position(|pair| pair.iter().all(u8::is_ascii_alphanumeric)) else {
                return Err(self.unmeterable(start, "too much text without a word"));
            };
            let call = format!("{{{{ {DATA}({}) }}}}", text.len());
            self.insert(start + gap + 1, &call);
        }
        Ok(tag.is_some())
    }

    fn unmeterable(&self, at: usize, reason: &'static str) -> Unmeterable {
        Unmeterable { reason, line: self.source[..at].matches('\n').count() + 1 }
    }

    /// Passes one tag.
    fn tag(&mut self) -> Result<(), Unmeterable> {
        let open = &self.rest()[..2];
        if open == "{#" {
            self.at += self.rest().find("#}").map_or(self.rest().len(), |at| at + 2);
            return Ok(());
        }
        let close = if open == "{{" { "}}" } else { "%}" };
        self.at += 2;
        if self.rest().starts_with(['-', '+']) {
            self.at += 1;
        }
        let mut statement = "";
        if close == "%}" {
            statement = self.statement();
            match statement {
                "raw" => return self.raw(),
                // Marks what the model said, for training: everything else stays as it is.
                name @ ("generation" | "endgeneration") => {
                    let start = self.at;
                    let stand_in = if name == "generation" { "if true" } else { "endif" };
                    self.insert(start, stand_in);
                    self.copied += name.len();
                    self.at += name.len();
                }
                _ => {}
            }
        }
        self.expression(close, statement)
    }

    /// The name of the statement, with the white space before it passed.
    fn statement(&mut self) -> &'a str {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let rest = self.rest();
        &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
    }

    /// Passes `{% raw %}`, its text and its end.
    fn raw(&mut self) -> Result<(), Unmeterable> {
        let start = self.at;
        let end = self.rest().find("endraw").map_or(self.source.len(), |offset| start + offset);
        if end - start >= METERED_DATA_BYTES {
            return Err(self.unmeterable(start, "too much raw text"));
        }
        self.at = end;
        self.at += self.rest().find("%}").map_or(self.rest().len(), |at| at + 2);
        Ok(())
    }

    /// Passes the inside of a tag up to and including `close`.
    fn expression(&mut self, close: &str, statement: &str) -> Result<(), Unmeterable> {
        let start = self.at;
        let mut usage = match statement {
            "set" | "with" => Use::Named,
            _ => Use::Read,
        };
        // The first brackets hold parameters.
        let mut parameters = statement == "macro" || self.calls_with_parameters(statement);
        let mut levels = vec![Level { targets: matches!(statement, "set" | "with" | "for"), ..Level::default() }];
        let mut previous = Token::Sign("");
        let mut previous_end = self.at;
        // Whether `previous` may be the last token of an operand.
        let mut is_operand = false;
        let mut slices = 0;
        for _ in 0..MAX_TAG_TOKENS {
            let token = self.token(close, levels.len() == 1);
            let continues = match token {
                Token::Sign("." | "(" | "[" | "|") => true,
                Token::Text => previous == Token::Text,
                _ => false,
            };
            let depth = levels.len();
            let level = levels.last_mut().expect("the outermost level is not closed");
            if is_operand && !continues {
                let named = level.targets || token == Token::Sign("=");
                let literal = matches!(previous, Token::Number | Token::Text);
                let holds = match usage {
                    _ if named || literal => None,
                    Use::Kept => Some(KEPT),
                    Use::Named => Some(ITEM),
                    Use::Read => (depth > 1).then_some(ITEM),
                };
                let meters = level.end_operand(token, holds);
                if !meters.is_empty() {
                    self.insert(previous_end, &meters);
                }
            }
            match token {
                Token::Sign(".") if statement == "set" && level.targets => {
                    usage = Use::Kept;
                }
                Token::Sign("=") if depth == 1 || parameters => level.targets = false,
                Token::Word("in") if depth == 1 => level.targets = false,
                // After a default value comes the next parameter.
                Token::Sign(",") if parameters && depth == 2 => level.targets = true,
                Token::Sign(":") if level.subscript => slices += 1,
                _ => {}
            }
            if slices > MAX_TAG_SLICES {
                return Err(self.unmeterable(start, "too many slices"));
            }
            is_operand = match token {
                Token::End => return Ok(()),
                Token::Word(word) => matches!(previous, Token::Sign("." | "|")) || !KEYWORDS.contains(&word),
                Token::Number | Token::Text => true,
                Token::Sign(open @ ("(" | "[" | "{")) => {
                    let targets = level.targets || (parameters && depth == 1);
                    levels.push(Level { targets, subscript: open == "[" && is_operand, ..Level::default() });
                    false
                }
                Token::Sign(")" | "]" | "}") => {
                    if levels.len() > 1 {
                        levels.pop();
                    }
                    parameters &= levels.len() > 1;
                    true
                }
                Token::Sign(_) => false,
            };
            previous = token;
            previous_end = self.at;
        }
        Err(self.unmeterable(start, "too long an expression"))
    }

    /// Whether this is `{% call(item) list(items) %}`.
    fn calls_with_parameters(&self, statement: &str) -> bool {
        let Some(rest) = self.rest().strip_prefix("call") else {
            return false;
        };
        statement == "call" && rest.trim_start().starts_with('(')
    }

    /// Passes white space and one token.
    fn token(&mut self, close: &str, outermost: bool) -> Token<'a> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let rest = self.rest();
        if outermost {
            for signed in [0, 1] {
                if (signed == 0 || rest.starts_with(['-', '+']))
                    && rest.get(signed..).is_some_and(|rest| rest.starts_with(close))
                {
                    self.at += signed + close.len();
                    return Token::End;
                }
            }
        }
        let Some(first) = rest.chars().next() else {
            return Token::End;
        };
        let (token, length) = match first {
            '"' | '\'' => (Token::Text, self.text(first)),
            '0'..='9' => (Token::Number, number(rest)),
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (Token::Word(&rest[..length]), length)
            }
            c => {
                let double = ["**", "//", "==", "!=", "<=", ">="].iter().any(|sign| rest.starts_with(sign));
                let length = if double { 2 } else { c.len_utf8() };
                (Token::Sign(&rest[..length]), length)
            }
        };
        self.at += length;
        token
    }

    /// Length of the string literal here; remembers what it says.
    fn text(&mut self, quote: char) -> usize {
        let rest = self.rest();
        let mut escaped = false;
        let mut end = None;
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let Some(end) = end else {
            return rest.len();
        };
        let literal = &rest[1..end];
        if !literal.is_empty() && !literal.contains('\\') {
            self.literals.push(literal.to_owned());
        }
        end + 1
    }
}

impl Level {
    /// The meters for an operand that ends here, followed by `next`; `holds` is the one that
    /// charges what it holds.
    fn end_operand(&mut self, next: Token<'_>, holds: Option<&str>) -> String {
        let mut meters = String::new();
        let mut add = |meter: &str| {
            meters.push('|');
            meters.push_str(meter);
        };
        let times = next == Token::Sign("*");
        let divides = matches!(next, Token::Sign("/" | "//" | "%"));
        if next == Token::Sign("**") {
            self.partial = true;
            self.chained = true;
            return meters;
        }
        if self.times || times {
            let (first, last, whole) = (!self.times, !times, !self.partial);
            add(&format!("{FACTOR}({first}, {last}, {whole})"));
        }
        self.times = times;
        self.partial = divides;
        self.chained |= times || divides;
        let join = match next {
            _ if times || divides => self.join,
            Token::Sign("+") => Some(PART),
            Token::Sign("~") => Some(TEXT),
            _ => None,
        };
        let ends_chain = !times && !divides;
        if ends_chain && (self.join.is_some() || join.is_some()) {
            // As text, a factor would multiply differently.
            let as_text = !self.chained && (self.join == Some(TEXT) || join == Some(TEXT));
            add(if as_text { TEXT } else { PART });
        }
        if let Some(meter) = holds {
            add(meter);
        }
        self.join = join;
        self.chained &= !ends_chain;
        meters
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the number `rest` begins with.
fn number(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        let part = byte.is_ascii_alphanumeric() || byte == b'_';
        let point = byte == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        let sign = matches!(byte, b'+' | b'-') && matches!(bytes[at - 1], b'e' | b'E') && !rest.starts_with("0x");
        if !(part || point || sign) {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metered(source: &str) -> String {
        meter(source).unwrap().source
    }

    #[test]
    fn operands_get_meters_and_nothing_else_changes() {
        for (source, expected) in [
            ("a + b", "a + b"),
            ("{# a + b #}{{ '{{ a + b }}' }}", "{# a + b #}{{ '{{ a + b }}' }}"),
            ("{% raw %}{{ a + b }}{% endraw %}", "{% raw %}{{ a + b }}{% endraw %}"),
            ("{{ a + b.c(d)[e]|f(g) }}", "{{ a|P + b.c(d|I)[e|I]|f(g|I)|P }}"),
            ("{{- a+b -}}", "{{- a|P+b|P -}}"),
            ("{%- set x = a + '%}' +%}", "{%- set x = a|P|I + '%}'|P +%}"),
            ("{{ a ~ b + c }}", "{{ a|T ~ b|T + c|P }}"),
            ("{{ a ~ b * c }}", "{{ a|T ~ b|F(true, false, true) * c|F(false, true, true)|P }}"),
            (
                "{{ a // b * c * d }}",
                "{{ a // b|F(true, false, false) * c|F(false, false, true) * d|F(false, true, true) }}",
            ),
            ("{{ 'x' * 10 ** 8 }}", "{{ 'x'|F(true, false, true) * 10 ** 8|F(false, true, false) }}"),
            ("{{ f(*a, **b, c=d) }}", "{{ f(*a|I, **b|I, c=d|I) }}"),
            ("{{ (a + b) + {'c': d + e} }}", "{{ (a|P|I + b|P|I)|P + {'c': d|P|I + e|P|I}|P }}"),
            ("{{ a + b if c + d else e }}", "{{ a|P + b|P if c|P + d|P else e }}"),
            ("{% for a in b + c recursive %}", "{% for a in b|P + c|P recursive %}"),
            ("{{ a + -b }}{{ +c }}", "{{ a|P + -b|P }}{{ +c }}"),
            ("{{ 1e+5 + 2 }}", "{{ 1e+5|P + 2|P }}"),
            ("{{ a.is + b }}", "{{ a.is|P + b|P }}"),
            ("{{ a[b + c:d] + e is string }}", "{{ a[b|P|I + c|P|I:d|I]|P + e|P is string }}"),
            ("{% set ns.a = b if c %}", "{% set ns.a = b|K if c|K %}"),
            ("{% set a, (b, c) = d, e[f] %}", "{% set a, (b, c) = d|I, e[f|I]|I %}"),
            ("{% set a %}{% set a | f(b) %}", "{% set a %}{% set a | f(b) %}"),
            ("{% with a = b, c = d %}", "{% with a = b|I, c = d|I %}"),
            ("{% for (a, b) in [c] if d in [e] %}", "{% for (a, b) in [c|I] if d in [e|I] %}"),
            ("{% macro f(a, b=[c], d=e) %}", "{% macro f(a, b=[c|I]|I, d=e|I) %}"),
            ("{% call(a) f(b) %}{% call f(b) %}", "{% call(a) f(b|I) %}{% call f(b|I) %}"),
            ("{%- generation -%}a{% endgeneration %}", "{%- if true -%}a{% endif %}"),
        ] {
            let short = metered(source)
                .replace(PART, "P")
                .replace(TEXT, "T")
                .replace(FACTOR, "F")
                .replace(ITEM, "I")
                .replace(KEPT, "K");
            assert_eq!(short, expected, "{source}");
        }
    }

    #[test]
    fn long_text_is_charged() {
        let text = "some words ".repeat(200);
        let out = metered(&format!("{{{{ a }}}}{text}"));
        assert!(out.contains("{{ smoa_data(2200) }}"), "{out}");
        assert_eq!(meter(&format!("a\n{{{{ a }}}}{}", " ".repeat(2000))).unwrap_err().line, 2);
    }

    #[test]
    fn anything_is_passed_to_its_end() {
        for source in ["{{", "{%", "{#", "{{ 'a", "{{ (", "{{ ) + }}", "{% raw", "{% raw %}{{", "{{ é + ~"] {
            let _ = meter(source);
        }
    }
}
