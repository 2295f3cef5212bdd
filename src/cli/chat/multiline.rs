//! When a typed text is a whole message: `"""` holds lines together, a backslash at the end goes on. Pure.

/// How far a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A whole message, with the marks taken off.
    Whole(String),
    /// A `"""` is not closed; this is the text since it.
    Open(String),
    /// The last line ends with a backslash; this is the text without it.
    Continued(String),
}

const MARK: &str = "\"\"\"";

/// How far `text` is. A first line with text on both sides of a closing `"""` is no block: pasted code may begin so.
pub fn state(text: &str) -> State {
    if let Some(inside) = text.trim_start().strip_prefix(MARK) {
        let (first, rest) = inside.split_once('\n').map_or((inside, None), |(f, r)| (f, Some(r)));
        match (first.trim_end().find(MARK), rest) {
            (None, _) => {
                return match inside.trim_end().strip_suffix(MARK) {
                    Some(block) => State::Whole(without_edges(block)),
                    None => State::Open(without_edges(inside)),
                };
            }
            (Some(at), None) if at + MARK.len() == first.trim_end().len() => {
                return State::Whole(first[..at].to_string());
            }
            _ => (),
        }
    }
    let backslashes = text.len() - text.trim_end_matches('\\').len();
    match text.strip_suffix('\\') {
        Some(before) if backslashes % 2 == 1 => State::Continued(before.to_string()),
        _ => State::Whole(text.trim_end_matches(['\n', '\r']).to_string()),
    }
}

/// A block without the line break after its first mark and before its last.
fn without_edges(block: &str) -> String {
    let block = block.strip_prefix('\n').unwrap_or(block);
    block.strip_suffix('\n').unwrap_or(block).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_open_or_continued() {
        let whole = |s: &str| State::Whole(s.into());
        let open = |s: &str| State::Open(s.into());
        let continued = |s: &str| State::Continued(s.into());
        let table = [
            ("hello", whole("hello")),
            ("pasted\ntext\n", whole("pasted\ntext")),
            ("one \\", continued("one ")),
            ("C:\\\\", whole("C:\\\\")),
            ("a \\\nb", whole("a \\\nb")),
            ("\"\"\"", open("")),
            ("\"\"\"a", open("a")),
            ("\"\"\"a\nb\\", open("a\nb\\")),
            ("\"\"\"\na\n\nb\n\"\"\"", whole("a\n\nb")),
            ("\"\"\"a\nb\"\"\" ", whole("a\nb")),
            ("\"\"\"a\"\"\"", whole("a")),
            ("\"\"\"doc\"\"\"\nimport os", whole("\"\"\"doc\"\"\"\nimport os")),
        ];
        for (text, expected) in table {
            assert_eq!(state(text), expected, "{text:?}");
        }
    }
}
