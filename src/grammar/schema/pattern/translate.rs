//! From ECMA-262 to the syntax of `regex-syntax`: the same texts, every class spelled out.

use super::classes::{DIGIT, LINE_END, SPACE, WORD, character, print};

/// What must be found and what must not be found.
pub(super) fn translate(text: &str) -> Result<(Vec<String>, Vec<String>), String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut like, mut unlike) = (Vec::new(), Vec::new());
    let mut rest = 0;
    // `^(?=a)(?!b)c`: each look-ahead starts at the beginning of the text, like the rest.
    if chars.first() == Some(&'^') && !has_top_level_choice(&chars) {
        let mut at = 1;
        while let Some(negative) = look_ahead(&chars[at..]) {
            let end = at + closing(&chars[at..]).ok_or("unclosed group")?;
            let inner: String = chars[at + 3..end].iter().collect();
            let source = format!("^(?:{})", Translator::new(&inner).run()?);
            if negative {
                unlike.push(source)
            } else {
                like.push(source)
            }
            at = end + 1;
        }
        if at > 1 {
            rest = at;
        }
    }
    let remaining: String = chars[rest..].iter().collect();
    let body = Translator::new(&remaining).run()?;
    match rest {
        0 => like.push(body),
        _ => like.push(format!("^(?:{body})")),
    }
    Ok((like, unlike))
}

fn look_ahead(chars: &[char]) -> Option<bool> {
    match chars {
        ['(', '?', '=', ..] => Some(false),
        ['(', '?', '!', ..] => Some(true),
        _ => None,
    }
}

/// Index of the parenthesis that closes the one at index 0.
fn closing(chars: &[char]) -> Option<usize> {
    walk(chars).find(|(_, c, depth)| *c == ')' && *depth == 0).map(|(index, _, _)| index)
}

fn has_top_level_choice(chars: &[char]) -> bool {
    walk(chars).any(|(_, c, depth)| c == '|' && depth == 0)
}

/// Characters outside of classes and escapes, each with the depth of parentheses after it.
fn walk(chars: &[char]) -> impl Iterator<Item = (usize, char, usize)> + '_ {
    let (mut depth, mut class, mut escaped) = (0usize, false, false);
    chars.iter().enumerate().filter_map(move |(index, &c)| {
        if std::mem::take(&mut escaped) {
            return None;
        }
        match c {
            '\\' => escaped = true,
            '[' if !class => class = true,
            ']' => class = false,
            '(' if !class => depth += 1,
            ')' if !class => depth = depth.saturating_sub(1),
            _ => {}
        }
        (!class && !escaped).then_some((index, c, depth))
    })
}

struct Translator {
    chars: Vec<char>,
    at: usize,
    out: String,
}

/// A member of a class, or an escape outside of one.
enum Member {
    One(char),
    Set(&'static [(char, char)], bool),
    /// A Unicode property, in the syntax that both share.
    Property(String),
}

impl Translator {
    fn new(text: &str) -> Self {
        Translator { chars: text.chars().collect(), at: 0, out: String::new() }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    fn ahead(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(index, c)| self.chars.get(self.at + index) == Some(&c))
    }

    fn run(mut self) -> Result<String, String> {
        while let Some(c) = self.next() {
            match c {
                '\\' => match self.escape(false)? {
                    Member::One(c) => self.out.push_str(&character(c)),
                    Member::Set(ranges, negated) => self.out.push_str(&print(ranges, negated)),
                    Member::Property(text) => self.out.push_str(&text),
                },
                '.' => self.out.push_str(&print(LINE_END, true)),
                '[' => self.class()?,
                '(' => self.group()?,
                '{' if self.counts() => {
                    self.out.push('{');
                    while let Some(c) = self.next() {
                        self.out.push(c);
                        if c == '}' {
                            break;
                        }
                    }
                }
                '^' | '$' | ')' | '|' | '*' | '+' | '?' => self.out.push(c),
                c => self.out.push_str(&character(c)),
            }
        }
        Ok(self.out)
    }

    /// Whether a count like `2}`, `2,}` or `2,5}` follows.
    fn counts(&self) -> bool {
        let mut rest = self.chars[self.at..].iter().copied();
        let (mut digits, mut commas) = (0, 0);
        loop {
            match rest.next() {
                Some('0'..='9') => digits += 1,
                Some(',') if digits > 0 && commas == 0 => commas += 1,
                Some('}') => return digits > 0,
                _ => return false,
            }
        }
    }

    fn group(&mut self) -> Result<(), String> {
        for look in ["?=", "?!", "?<=", "?<!"] {
            if self.ahead(look) {
                return Err(format!("look-around '({look}' in 'pattern' cannot be enforced"));
            }
        }
        self.out.push_str("(?:");
        if self.ahead("?:") {
            self.at += 2;
        } else if self.ahead("?<") || self.ahead("?P<") {
            while self.next().ok_or("unclosed group name")? != '>' {}
        } else if self.ahead("?") {
            return Err("flags and unknown groups in 'pattern' cannot be enforced".to_owned());
        }
        Ok(())
    }

    fn escape(&mut self, in_class: bool) -> Result<Member, String> {
        let c = self.next().ok_or("a lone '\\' at the end")?;
        Ok(Member::One(match c {
            'd' => return Ok(Member::Set(DIGIT, false)),
            'D' => return Ok(Member::Set(DIGIT, true)),
            'w' => return Ok(Member::Set(WORD, false)),
            'W' => return Ok(Member::Set(WORD, true)),
            's' => return Ok(Member::Set(SPACE, false)),
            'S' => return Ok(Member::Set(SPACE, true)),
            'p' | 'P' if self.ahead("{") => {
                let mut text = format!("\\{c}");
                loop {
                    let next = self.next().ok_or("unclosed '\\p{'")?;
                    text.push(next);
                    if next == '}' {
                        return Ok(Member::Property(text.replace("Script=", "").replace("gc=", "")));
                    }
                }
            }
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'b' if in_class => '\u{8}',
            'b' | 'B' => return Err(format!("word boundary '\\{c}' in 'pattern' cannot be enforced")),
            '0' => '\0',
            '1'..='9' | 'k' => return Err(format!("back-reference '\\{c}' in 'pattern' cannot be enforced")),
            'c' => match self.next() {
                Some(letter) if letter.is_ascii_alphabetic() => char::from(letter as u8 % 32),
                _ => return Err("'\\c' without a letter".to_owned()),
            },
            'x' => self.hex(2)?,
            'u' if self.ahead("{") => {
                let end = self.chars[self.at..].iter().position(|&c| c == '}').ok_or("unclosed '\\u{'")?;
                let digits: String = self.chars[self.at + 1..self.at + end].iter().collect();
                self.at += end + 1;
                let code = u32::from_str_radix(&digits, 16).map_err(|_| "no number in '\\u{'")?;
                char::from_u32(code).ok_or("'\\u{' is no character")?
            }
            'u' => self.hex(4)?,
            c if c.is_ascii_alphanumeric() => return Err(format!("there is no escape '\\{c}'")),
            c => c,
        }))
    }

    /// `digits` hexadecimal digits, and the second half of a surrogate pair.
    fn hex(&mut self, digits: usize) -> Result<char, String> {
        let mut read = || {
            let text: String = self.chars[self.at..].iter().take(digits).collect();
            self.at += text.chars().count();
            let number = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
            number.ok_or_else(|| format!("{digits} hexadecimal digits are missing"))
        };
        let first = read()?;
        if let 0xD800..=0xDBFF = first
            && self.ahead("\\u")
        {
            self.at += 2;
            let mut read = || {
                let text: String = self.chars[self.at..].iter().take(4).collect();
                self.at += text.chars().count();
                u32::from_str_radix(&text, 16).map_err(|_| "4 hexadecimal digits are missing".to_owned())
            };
            let second = read()?;
            let joined = 0x10000 + ((first - 0xD800) << 10) + (second.wrapping_sub(0xDC00) & 0x3FF);
            return char::from_u32(joined).ok_or_else(|| "a broken pair of surrogates".to_owned());
        }
        char::from_u32(first).ok_or_else(|| "a lone surrogate".to_owned())
    }

    fn class(&mut self) -> Result<(), String> {
        let negated = self.ahead("^");
        self.at += usize::from(negated);
        let mut members: Vec<Member> = Vec::new();
        loop {
            let c = self.next().ok_or("unclosed character class")?;
            let member = match c {
                ']' => break,
                '\\' => self.escape(true)?,
                c => Member::One(c),
            };
            let ranges = self.ahead("-") && self.chars.get(self.at + 1).is_some_and(|&c| c != ']');
            if let (Member::One(first), true) = (&member, ranges) {
                self.at += 1;
                let last = match self.next().ok_or("unclosed character class")? {
                    '\\' => self.escape(true)?,
                    c => Member::One(c),
                };
                match last {
                    Member::One(last) if *first <= last => members.push(Member::Property(range(*first, last))),
                    Member::One(last) => return Err(format!("range '{first}-{last}' is the wrong way round")),
                    set => members.extend([Member::One(*first), Member::One('-'), set]),
                }
                continue;
            }
            members.push(member);
        }
        if members.is_empty() {
            // `[]` matches nothing, `[^]` any character.
            self.out.push_str(if negated { "[\\x{0}-\\x{10ffff}]" } else { "[^\\x{0}-\\x{10ffff}]" });
            return Ok(());
        }
        self.out.push_str(if negated { "[^" } else { "[" });
        for member in members {
            match member {
                Member::One(c) => self.out.push_str(&character(c)),
                Member::Set(ranges, negated) => self.out.push_str(&print(ranges, negated)),
                Member::Property(text) => self.out.push_str(&text),
            }
        }
        self.out.push(']');
        Ok(())
    }
}

fn range(first: char, last: char) -> String {
    format!("{}-{}", character(first), character(last))
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;

    fn found(pattern: &str, text: &str) -> bool {
        let (like, unlike) = Pattern::read(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        like.iter().all(|p| p.found_in(text).unwrap()) && !unlike.iter().any(|p| p.found_in(text).unwrap())
    }

    #[test]
    fn patterns_mean_what_they_mean_in_ecma_script() {
        for (pattern, yes, no) in [
            (r"^\d+$", "12", "1\u{664}"),
            (r"a.c", "xabcx", "a\u{2028}c"),
            (r"^[\w-.]+$", "a-b.c", "a/b"),
            (r"^[[a&&b]+$", "[&b", "c"),
            (r"^a{2}$", "aa", "a"),
            (r"^a{$", "a{", "a"),
            (r"^{x}$", "{x}", "x"),
            (r"^(?<year>\d{4})-\d$", "2020-1", "2020"),
            (r"^\/x\-y$", "/x-y", "xy"),
            (r"^[^]$", "\n", ""),
            (r"^\u0041\x42\cJ$", "AB\n", "AB"),
            (r"^\uD83D\uDE00$", "😀", "x"),
            (r"^[\u00e9-\u00eb]$", "ê", "e"),
            (r"^a|b$", "axx", "xa"),
            (r"^(?=.*\d)(?=.*[a-z]).{4,}$", "abc1", "abcd"),
            (r"^(?!foo)[a-z]+$", "bar", "food"),
            (r"^(?!.*(a|b)).*$", "xyz", "xaz"),
            (r"^\p{Lu}", "É", "é"),
            (r"^(a{2})?$", "", "a"),
            (r"^(?:ab){2}$", "abab", "abb"),
            (r"^(a+)*b$", "aab", "a"),
            ("[a-z", "", ""),
        ] {
            if pattern == "[a-z" {
                assert!(Pattern::read(pattern).is_err());
                continue;
            }
            assert!(found(pattern, yes), "{pattern} in {yes:?}");
            assert!(!found(pattern, no), "{pattern} in {no:?}");
        }
        for bad in [r"a(?=b)", r"(a)\1", r"\bx", "(?i)x", "*a", "(", "a{5,2}", "[z-a]", r"\u12"] {
            assert!(Pattern::read(bad).is_err(), "{bad}");
        }
    }
}
