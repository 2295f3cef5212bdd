//! Words of a command line: quotes and backslashes as in a shell, without anything else of one. Pure.

/// One word, and where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Byte at which it begins, a quote included.
    pub start: usize,
    /// What it says, without quotes and backslashes.
    pub text: String,
    /// The quote that was not closed.
    pub open: Option<char>,
}

/// Splits at blanks. `"..."` and `'...'` hold a word together; a backslash keeps the next blank, quote or backslash.
pub fn split(line: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut inside = false;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let quote = words.last().filter(|_| inside).and_then(|w| w.open);
        if quote.is_none() && c.is_whitespace() {
            inside = false;
            continue;
        }
        if !inside {
            words.push(Word { start: at, text: String::new(), open: None });
            inside = true;
        }
        let Some(word) = words.last_mut() else { continue };
        match (quote, c) {
            (Some(q), c) if c == q => word.open = None,
            (None, '"' | '\'') => word.open = Some(c),
            (None | Some('"'), '\\') => match chars.next_if(|(_, n)| is_special(*n)) {
                Some((_, escaped)) => word.text.push(escaped),
                None => word.text.push('\\'),
            },
            (_, c) => word.text.push(c),
        }
    }
    words
}

/// The text as one word of a line.
pub fn escape(text: &str) -> String {
    text.chars().flat_map(|c| is_special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn is_special(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_in_a_shell() {
        let table: [(&str, &[&str]); 8] = [
            ("", &[]),
            ("  a  b ", &["a", "b"]),
            ("'a b' c", &["a b", "c"]),
            (r#"a\ b "c d"=0.5"#, &["a b", "c d=0.5"]),
            (r"c:\dir\file", &[r"c:\dir\file"]),
            (r#""un closed"#, &["un closed"]),
            (r"'it\s'", &[r"it\s"]),
            ("''", &[""]),
        ];
        for (line, expected) in table {
            let texts: Vec<String> = split(line).into_iter().map(|w| w.text).collect();
            assert_eq!(texts, expected, "{line}");
        }
    }

    #[test]
    fn an_escaped_text_is_one_word_again() {
        for text in ["a b", "it's", r#"x"y\z"#, "tab\there"] {
            let words = split(&escape(text));
            assert_eq!(words.len(), 1, "{text}");
            assert_eq!(words[0].text, text);
        }
    }
}
