//! Regular expressions.

use super::super::Source;
use super::{check, compile};

#[test]
fn the_whole_text_must_match() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("a|bc", &["a", "bc"], &["ab", "b", ""]),
        ("^a|b$", &["a", "b"], &["ab"]),
        ("^(?:a|b)$", &["a", "b"], &[""]),
        ("(^a$)", &["a"], &["aa"]),
        (r"\d{4}-\d{2}", &["2024-01"], &["2024-1", "２０２４-01"]),
        (r"[\w.-]+@\w+", &["a.b-c@d"], &["@d", "a@"]),
        (r"\s\S\D\W", &[" ax!"], &["aax!", " a1!"]),
        ("a*?b+?c??", &["b", "aabbc"], &["a", "bcc"]),
        ("(?<year>[0-9]{2,})(?P<x>y)", &["12y", "123y"], &["1y"]),
        (r"\x41\u00e9\u{1F600}\.\/", &["Aé😀./"], &["A"]),
        ("[^a-c]", &["d", "é", "\n"], &["a"]),
        (r"[\]a\-]", &["]", "a", "-"], &["b"]),
        ("[a-]", &["a", "-"], &["b"]),
        (".", &["a", "é"], &["\n", ""]),
        ("", &[""], &["a"]),
        ("a{0,300}b", &["b", "aab"], &["a"]),
        ("x}", &["x}"], &["x"]),
    ];
    for (pattern, accepts, rejects) in cases {
        let compiled = compile(Source::Regex((*pattern).to_owned()));
        check(&compiled.unwrap_or_else(|error| panic!("{error}")), accepts, rejects);
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name_and_place() {
    let cases = [
        ("a(?=b)", 2, "look-around"),
        ("(?<!a)b", 1, "look-around"),
        (r"(a)\1", 4, "back-reference '\\1'"),
        (r"\bword", 1, "word boundary"),
        (r"\p{L}", 1, "Unicode class"),
        ("(?i)a", 1, "kind of group"),
        ("a^b", 2, "'^' is not at the edge"),
        ("a$b", 2, "'$' is not at the edge"),
        ("(a$)b", 3, "'$' is not at the edge"),
        ("(^a)+", 2, "'^' is not at the edge"),
        ("*a", 1, "nothing before it to repeat"),
        ("(a", 1, "never closed"),
        ("a)", 2, "')' without '('"),
        ("[a", 1, "never closed"),
        ("[]", 1, "is empty"),
        ("[z-a]", 2, "wrong way round"),
        ("a{5,2}", 2, "5 > 2"),
        ("a{1000000}", 3, "repetition bound"),
        ("a*+", 3, "possessive"),
        (r"\q", 1, "unknown escape"),
        ("[[:alpha:]]", 2, "named classes"),
        ("[a&&b]", 3, "set operations"),
    ];
    for (pattern, column, part) in cases {
        let error = compile(Source::Regex(pattern.to_owned())).expect_err(pattern);
        let place = error.place().unwrap();
        assert_eq!(place.column, column, "{pattern}: {error}");
        assert!(error.to_string().contains(part), "{pattern}: {error}");
        assert!(error.to_string().starts_with("regex line 1, column "), "{error}");
    }
    let deep = "(".repeat(10_000);
    let error = compile(Source::Regex(deep)).unwrap_err();
    assert!(error.to_string().contains("depth of nesting"), "{error}");
}
