//! What goes on the screen beside answers: the prompt with its meter, short counts and excerpts. Pure.

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
    fn counts_are_short() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1_200, "1.2k"),
            (8_192, "8.2k"),
            (9_960, "10k"),
            (131_072, "131k"),
            (1_000_000, "1.0M"),
        ];
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
