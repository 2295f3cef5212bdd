//! The language of GBNF: what its constructs mean, and how mistakes are shown.

use super::super::{GrammarError, Source};
use super::{check, compile, gbnf};

#[test]
fn constructs_mean_what_they_mean_in_llama_cpp() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        // Literals and escapes.
        (r#"root ::= "a\"b\\c\n\t\r""#, &["a\"b\\c\n\t\r"], &["a\"b\\c"]),
        (r#"root ::= "\x41\u00e9\U0001F600""#, &["Aé😀"], &["A"]),
        (r#"root ::= "\[\]\-""#, &["[]-"], &["[]"]),
        (r#"root ::= """#, &[""], &["a"]),
        // A mark repeats the whole string before it.
        (r#"root ::= "ab"+"#, &["ab", "abab"], &["", "abb", "aba"]),
        // Classes.
        (r"root ::= [a-c]", &["a", "b", "c"], &["d", "A", ""]),
        (r"root ::= [^a-c]", &["d", "é", "日", "😀", "\n"], &["a", "dd"]),
        (r"root ::= [a-]", &["a", "-"], &["b"]),
        (r"root ::= [-a]", &["a", "-"], &["b"]),
        (r"root ::= [a\-c]", &["a", "-", "c"], &["b"]),
        (r"root ::= [\]\\]", &["]", "\\"], &["["]),
        (r#"root ::= ["[(]"#, &["\"", "[", "("], &["]"]),
        (r"root ::= [ぁ-ゟ]+", &["ぁ", "ひらがな"], &["カ", "a"]),
        (r"root ::= [\x80-\U0010FFFF]", &["\u{80}", "é", "\u{FFFF}", "\u{10FFFF}"], &["\u{7F}"]),
        (r"root ::= .", &["a", "\n", "😀"], &["", "ab"]),
        // Repetition.
        (r#"root ::= "a"?"#, &["", "a"], &["aa"]),
        (r#"root ::= "a"*"#, &["", "a", "aaaa"], &["b"]),
        (r#"root ::= "a"{2}"#, &["aa"], &["a", "aaa"]),
        (r#"root ::= "a"{2,}"#, &["aa", "aaaaa"], &["a"]),
        (r#"root ::= "a"{1,3}"#, &["a", "aa", "aaa"], &["", "aaaa"]),
        (r#"root ::= "a"{0}"#, &[""], &["a"]),
        (r#"root ::= "a"{ 1 , 2 }"#, &["a", "aa"], &["aaa"]),
        (r#"root ::= "a"{2}{2}"#, &["aaaa"], &["aa", "aaa", "aaaaa"]),
        (r#"root ::= ("a" | "bb"){2,3}"#, &["aa", "abb", "bbbbbb"], &["a", "b", "aaaa"]),
        // Alternatives, groups, lines, comments.
        ("root ::= \"a\" | \"b\" |\n  \"c\" # three\n", &["a", "b", "c"], &["ab"]),
        ("root ::= (\n  \"a\"\n  \"b\"\n)\n", &["ab"], &["a"]),
        ("# head\nroot ::=\n  x y\r\nx ::= \"x\"\r\n\r\ny ::= \"y\"", &["xy"], &["x"]),
        ("root ::= \"a\" |", &["a", ""], &["b"]),
        ("root ::= my_rule2\nmy_rule2 ::= \"a\"", &["a"], &[]),
        // Left recursion: direct, through others, and hidden behind what may be empty.
        ("root ::= root \"a\" | \"b\"", &["b", "ba", "baaa"], &["a", "bb", ""]),
        ("root ::= x \"a\"\nx ::= y \"b\"\ny ::= root | \"c\"", &["cba", "cbaba"], &["ca", "cb"]),
        (
            "root ::= b root \"z\" | \"x\"\nb ::= c\nc ::= \"\" | \"y\"",
            &["x", "xz", "yxz", "yyxzz", "xzz"],
            &["yx", "z"],
        ),
        ("root ::= root root | \"a\"", &["a", "aaa"], &["", "b"]),
        (
            "root ::= e\ne ::= e \"+\" t | t\nt ::= t \"*\" f | f\nf ::= \"(\" e \")\" | [0-9]",
            &["1+2*(3+4)*5"],
            &["1+", "(1", "1 2"],
        ),
        // Loops over what may be empty.
        (r#"root ::= (("a"*)*)*"#, &["", "aaa"], &["b"]),
        (r#"root ::= ""*"#, &[""], &["a"]),
        (r#"root ::= ("a"?){40,80} "b""#, &["b", "aaab"], &["a", ""]),
        // Grammars that a greedy lexer gets wrong.
        ("root ::= x y\nx ::= [a-z]+\ny ::= [a-c]+", &["xyzabc", "aa"], &["xyz", "a"]),
        ("root ::= t \".\" t\nt ::= [a-z.]+", &["a.b.c", "a.b"], &["ab", "a."]),
    ];
    for (text, accepts, rejects) in cases {
        check(&gbnf(text), accepts, rejects);
    }
}

#[test]
fn mistakes_are_shown_where_they_are() {
    // (text, line, column, part of the message)
    let cases = [
        ("root ::= \"a\" | <<<", 1, 16, "a token is written"),
        ("root ::= \"abc", 1, 10, "string is never closed"),
        ("root ::= [a-z", 1, 10, "class is never closed"),
        ("root ::= \"a\" (\"b\"", 1, 14, "'(' is never closed"),
        ("root ::= \"a\")", 1, 13, "')' without '('"),
        ("root ::= foo \"x\"\nfooo ::= \"a\"", 1, 10, "rule 'foo' is not defined (did you mean 'fooo'?)"),
        ("root ::= \"x\"\na ::=\n  b\n  | nowhere", 4, 3, "a rule ends with its line, unless the line ends with '|'"),
        ("main ::= \"x\"", 1, 1, "no rule 'root'"),
        ("rot ::= \"x\"", 1, 1, "is 'rot' meant to be 'root'?"),
        ("", 1, 1, "no rules"),
        ("# only words\n", 2, 1, "no rules"),
        (
            "root ::= \"a\"\n\nroot ::= \"b\"",
            3,
            1,
            "rule 'root' is defined twice (it is first defined at line 1, column 1)",
        ),
        ("root ::= [z-a]", 1, 11, "wrong way round"),
        ("root ::= []", 1, 10, "class is empty"),
        ("root ::= [^]", 1, 10, "class is empty"),
        ("root ::= [^\\x00-\\U0010FFFF]", 1, 10, "excludes every character"),
        ("root ::= \"a\"{5,2}", 1, 13, "5 > 2"),
        ("root ::= \"a\"{,2}", 1, 14, "expected a number"),
        ("root ::= \"a\"{2", 1, 15, "expected '}'"),
        ("root ::= * \"a\"", 1, 10, "'*' has nothing before it to repeat"),
        ("root ::= (+)", 1, 11, "'+' has nothing before it to repeat"),
        ("root ::= \"\\q\"", 1, 11, "unknown escape '\\q'"),
        ("root ::= \"\\x4\"", 1, 11, "escape needs 2 hex digits"),
        ("root ::= \"\\uD800\"", 1, 11, "surrogate"),
        ("root ::= [\\U00110000]", 1, 11, "past the last character"),
        ("root = \"a\"", 1, 6, "expected '::='"),
        ("root ::= 'a'", 1, 10, "strings take double quotes"),
        ("root ::= \"é\" é", 1, 14, "unexpected 'é'"),
        ("\"a\" ::= root", 1, 1, "expected a rule name"),
        ("root ::= \"a\" |\nb ::= \"b\"", 2, 3, "unexpected '::='"),
        ("root ::= \"a\" root", 1, 1, "rule 'root' can never finish"),
        ("root ::= x | \"a\"\nx ::= \"b\" y\ny ::= x", 2, 1, "rule 'x' can never finish"),
        ("root ::= <[99999]>", 1, 10, "token 99999 is not in the vocabulary"),
        ("root ::= \"a\"\nb ::= <nothing>", 2, 7, "<nothing> is not one token"),
        ("root ::= <eos>", 1, 10, "ends the answer"),
        ("root ::= <[12a]>", 1, 10, "a token id is a number"),
        (
            "root ::= x{2,99}\nx ::= root \"a\" | \"b\"",
            1,
            1,
            "left recursion through a counted repetition: root -> x -> root",
        ),
    ];
    for (text, line, column, part) in cases {
        let error = compile(Source::Gbnf(text.to_owned())).expect_err(text);
        let place = error.place().unwrap_or_else(|| panic!("{text:?}: {error}"));
        let message = error.to_string();
        assert_eq!((place.line, place.column), (line, column), "{text:?}: {message}");
        assert!(message.contains(part), "{text:?}: {message}");
        assert!(message.starts_with(&format!("grammar line {line}, column {column}: ")));
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn the_long_view_has_a_caret_under_the_mistake() {
    let error = compile(Source::Gbnf("root ::= \"a\"\n  foo".to_owned())).unwrap_err();
    assert!(matches!(error, GrammarError::Syntax(_)));
    let error = compile(Source::Gbnf("word ::= \"w\"\nroot ::= \"é\" wrod \"x\"".to_owned())).unwrap_err();
    let expected = "\
grammar line 2, column 14: rule 'wrod' is not defined
  |
2 | root ::= \"é\" wrod \"x\"
  |              ^^^^
  = in rule 'root'
  = hint: did you mean 'word'?";
    assert_eq!(error.explain(), expected);
}

#[test]
fn bytes_that_are_no_text_are_shown_where_they_are() {
    let error = Source::gbnf(b"root ::= \"a\"\nb ::= \"\xFF\xFE\"".to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "grammar line 2, column 8: byte 0xFF is not UTF-8");
}
