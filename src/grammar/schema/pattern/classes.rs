//! Sets of characters as sorted ranges.

/// The escape classes of ECMA-262, in the order of their letters.
pub(super) const DIGIT: &[(char, char)] = &[('0', '9')];
pub(super) const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
pub(super) const SPACE: &[(char, char)] = &[
    ('\t', '\r'),
    (' ', ' '),
    ('\u{a0}', '\u{a0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{2000}', '\u{200a}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202f}', '\u{202f}'),
    ('\u{205f}', '\u{205f}'),
    ('\u{3000}', '\u{3000}'),
    ('\u{feff}', '\u{feff}'),
];
/// What `.` leaves out.
pub(super) const LINE_END: &[(char, char)] = &[('\n', '\n'), ('\r', '\r'), ('\u{2028}', '\u{2029}')];

/// A class in the syntax of `regex-syntax`.
pub(super) fn print(ranges: &[(char, char)], negated: bool) -> String {
    let mut text = String::from(if negated { "[^" } else { "[" });
    for &(first, last) in ranges {
        text.push_str(&character(first));
        if first != last {
            text.push('-');
            text.push_str(&character(last));
        }
    }
    text.push(']');
    text
}

/// A character, safe inside and outside of classes.
pub(super) fn character(c: char) -> String {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => c.to_string(),
        c => format!("\\x{{{:x}}}", u32::from(c)),
    }
}
