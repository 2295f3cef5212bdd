//! What goes on the screen: the prompt with its meter, and text that cannot speak to the terminal. Pure.

use crate::error::printable;

/// A model's text made safe for a terminal: control characters but line breaks and tabs are escaped.
pub fn shown(text: &str) -> String {
    let pieces = text.split_inclusive(['\n', '\t']).map(|piece| match piece.char_indices().next_back() {
        Some((at, end @ ('\n' | '\t'))) => format!("{}{end}", printable(&piece[..at])),
        _ => printable(piece),
    });
    pieces.collect()
}

/// The prompt, plain and with colors: `1.2k/8.2k > `.
pub fn prompt(used: usize, context: usize) -> (String, String) {
    let meter = format!("{}/{}", short(used), short(context));
    (format!("{meter} > "), format!("\x1b[2m{meter}\x1b[0m > "))
}

/// A count in few characters: 999, 1.2k, 131k, 1.0M.
pub fn short(n: usize) -> String {
    let f = n as f64;
    match n {
        0..=999 => n.to_string(),
        1_000..=9_949 => format!("{:.1}k", f / 1e3),
        9_950..=999_499 => format!("{:.0}k", f / 1e3),
        _ => format!("{:.1}M", f / 1e6),
    }
}

/// The beginning of a text, in one line of at most `width` characters.
pub fn excerpt(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(width) {
        None => line,
        Some((at, _)) => format!("{}..", &line[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_send_escape_sequences() {
        let table = [
            ("plain\n\ttext é\n", "plain\n\ttext é\n"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("a\x07b\u{9b}31m\n", "a\\u{7}b\\u{9b}31m\n"),
            ("over\rwritten", "over\\rwritten"),
            ("\u{202e}abc", "\\u{202e}abc"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn counts_are_short() {
        let table = [(0, "0"), (999, "999"), (1_200, "1.2k"), (8_192, "8.2k"), (9_960, "10k"), (131_072, "131k"), (1_000_000, "1.0M")];
        for (n, expected) in table {
            assert_eq!(short(n), expected);
        }
        assert_eq!(prompt(1200, 8192).0, "1.2k/8.2k > ");
    }

    #[test]
    fn excerpts_are_one_short_line() {
        assert_eq!(excerpt("a\n b", 10), "a b");
        assert_eq!(excerpt("ééééé", 3), "ééé..");
    }
}
