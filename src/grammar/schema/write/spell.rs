//! Texts as the strings of JSON that mean them, as terminals.

use super::words::Word;

/// A character of a text whose spelling is not looked at: itself, a short escape, or `\u` with what it stands for,
/// paired surrogates for one character.
pub(in super::super::super) const CHARACTER: &str = r#"[^"\\\x00-\x1F\x7F]|\\[nrbtf\\"\/]|\\u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"#;

/// A character of a key. ASCII has one spelling only, so that no key passes for another one.
pub(in super::super::super) const KEY_CHARACTER: &str = r#"[^"\\\x00-\x1F\x7F]|\\[nrbtf\\"]|\\u(?:00[89a-fA-F][0-9a-fA-F]|0[1-9a-fA-F][0-9a-fA-F]{2}|[1-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"#;

fn quoted(character: &str, min: u32, max: Option<u32>) -> Word {
    let quote = || Word::Text("\"".to_owned());
    Word::Row(vec![quote(), Word::Times(character.to_owned(), min, max), quote()])
}

/// Any string with so many characters.
pub(super) fn any(min: u32, max: Option<u32>) -> Word {
    quoted(CHARACTER, min, max)
}

/// Any key.
pub(super) fn any_key() -> Word {
    quoted(KEY_CHARACTER, 0, None)
}

/// This string: ASCII as it is usually spelled, all else as it is or by `\u`.
pub(super) fn exactly(text: &str) -> Word {
    let mut parts: Vec<Word> = Vec::new();
    let mut plain = String::from("\"");
    for c in text.chars() {
        if c.is_ascii() {
            let spelled = serde_json::Value::from(c.to_string()).to_string();
            plain += &spelled[1..spelled.len() - 1];
            continue;
        }
        if !plain.is_empty() {
            parts.push(Word::Text(std::mem::take(&mut plain)));
        }
        let escaped: String = c.encode_utf16(&mut [0; 2]).iter().map(|unit| unit_pattern(*unit)).collect();
        parts.push(Word::Either(vec![Word::Text(c.to_string()), Word::Pattern(escaped)]));
    }
    plain.push('"');
    parts.push(Word::Text(plain));
    match parts.len() {
        1 => parts.remove(0),
        _ => Word::Row(parts),
    }
}

/// `\u` and the number, its letters in either case.
fn unit_pattern(unit: u16) -> String {
    let digit = |c: char| match c.is_ascii_alphabetic() {
        true => format!("[{c}{}]", c.to_ascii_uppercase()),
        false => c.to_string(),
    };
    format!("\\\\u{}", format!("{unit:04x}").chars().map(digit).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_scripts_have_two_spellings() {
        let text = |text: &str| Word::Text(text.to_owned());
        let either = |c: &str, pattern: &str| Word::Either(vec![text(c), Word::Pattern(pattern.to_owned())]);
        assert_eq!(exactly("a\"b"), text(r#""a\"b""#));
        assert_eq!(exactly("é"), Word::Row(vec![text("\""), either("é", r"\\u00[eE]9"), text("\"")]));
        let smile = either("😀", r"\\u[dD]83[dD]\\u[dD][eE]00");
        assert_eq!(exactly("x😀"), Word::Row(vec![text("\"x"), smile, text("\"")]));
    }
}
