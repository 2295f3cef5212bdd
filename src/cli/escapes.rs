//! `\n` and the like in texts of the command line, as llama.cpp reads them.

use crate::error::Failure;

/// The text with `\n`, `\r`, `\t`, `\'`, `\"`, `\\` and `\xHH` read; any other backslash stays as it is.
///
/// # Errors
/// Bytes written as `\xHH` are no UTF-8; the message names `flag`.
pub fn read(flag: &str, text: &str) -> Result<String, Failure> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let Some((escaped, after)) = rest.split_first().filter(|_| *first == b'\\') else {
            out.push(*first);
            continue;
        };
        rest = after;
        match escaped {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'\'' | b'"' | b'\\' => out.push(*escaped),
            b'x' if byte(rest).is_some() => {
                out.extend(byte(rest));
                rest = &rest[2..];
            }
            other => out.extend([b'\\', *other]),
        }
    }
    let wrong = |_| Failure::usage(format!("{flag} {text}: the bytes written as \\x are no UTF-8; see --no-escape"));
    String::from_utf8(out).map_err(wrong)
}

/// The byte that two hexadecimal digits stand for.
fn byte(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..2).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_llama_cpps() {
        for (text, expected) in [
            (r"a\nb", "a\nb"),
            (r#"\r\t\'\"\\"#, "\r\t'\"\\"),
            (r"\x41\x0a", "A\n"),
            (r"\xc3\xa9", "é"),
            (r"\x4", r"\x4"),
            (r"\xzz\q\", r"\xzz\q\"),
            ("é\\n", "é\n"),
            ("", ""),
        ] {
            assert_eq!(read("-r", text).expect("read"), expected, "{text}");
        }
        assert!(read("-r", r"\xff").expect_err("no UTF-8").message.contains("-r \\xff"));
    }
}
