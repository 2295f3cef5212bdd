//! Texts as the strings of JSON that mean them, in the syntax of the rules.

/// A character of a text whose spelling is not looked at: itself, a short escape, or `\u` with what it stands for,
/// paired surrogates for one character.
const CHARACTER: &str = r#"[^"\\\x00-\x1F\x7F]|\\[nrbtf\\"\/]|\\u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"#;

/// A character of a key. ASCII has one spelling only, so that no key passes for another one.
const KEY_CHARACTER: &str = r#"[^"\\\x00-\x1F\x7F]|\\[nrbtf\\"]|\\u(?:00[89a-fA-F][0-9a-fA-F]|0[1-9a-fA-F][0-9a-fA-F]{2}|[1-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"#;

/// Any string with so many characters.
pub(super) fn any(min: u64, max: Option<u64>) -> String {
    let times = match (min, max) {
        (0, None) => "*".to_owned(),
        (min, None) => format!("{{{min},}}"),
        (min, Some(max)) => format!("{{{min},{max}}}"),
    };
    format!("/\"({CHARACTER}){times}\"/")
}

/// Any key.
pub(super) fn any_key() -> String {
    format!("/\"({KEY_CHARACTER})*\"/")
}

/// This string: ASCII as it is usually spelled, all else as it is or by `\u`.
pub(super) fn exactly(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut plain = String::from("\"");
    for c in text.chars() {
        if c.is_ascii() {
            let spelled = serde_json::Value::from(c.to_string()).to_string();
            plain += &spelled[1..spelled.len() - 1];
            continue;
        }
        if !plain.is_empty() {
            parts.push(literal(&std::mem::take(&mut plain)));
        }
        let escaped: String = c.encode_utf16(&mut [0; 2]).iter().map(|unit| unit_pattern(*unit)).collect();
        parts.push(format!("({} | /{escaped}/)", literal(&c.to_string())));
    }
    plain.push('"');
    parts.push(literal(&plain));
    parts.join(" ")
}

/// `\u` and the number, its letters in either case.
fn unit_pattern(unit: u16) -> String {
    let digit = |c: char| match c.is_ascii_alphabetic() {
        true => format!("[{c}{}]", c.to_ascii_uppercase()),
        false => c.to_string(),
    };
    format!("\\\\u{}", format!("{unit:04x}").chars().map(digit).collect::<String>())
}

/// A literal of the rules.
pub(super) fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\x7f', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_scripts_have_two_spellings() {
        assert_eq!(exactly("a\"b"), r#""\"a\\\"b\"""#);
        assert_eq!(exactly("é"), r#""\"" ("é" | /\\u00[eE]9/) "\"""#);
        assert_eq!(exactly("😀"), r#""\"" ("😀" | /\\u[dD]83[dD]\\u[dD][eE]00/) "\"""#);
    }
}
