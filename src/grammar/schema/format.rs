//! The formats of `format`, as patterns that the whole text must match.
//!
//! Each admits only texts that are valid by its specification; some leave out rare valid ones (a comment inside an
//! address, an identifier in another script), never the other way round. Names that no draft defines are notes
//! between people and say nothing about the text, as the specification has it.

use std::rc::Rc;

use super::pattern::Pattern;

const YEAR: &str = "[0-9]{4}";
/// Years divisible by 4 and not by 100, or divisible by 400.
const LEAP: &str = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
const TIME: &str =
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:[Zz]|[+\-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
const LABEL: &str = "[A-Za-z0-9](?:[A-Za-z0-9\\-]{0,61}[A-Za-z0-9])?";
const BYTE: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const LOCAL: &str = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*";
const HEX: &str = "[0-9A-Fa-f]";
/// Characters of paths, queries and fragments.
const PCHAR: &str = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})";
/// The same and characters of other scripts.
const IPCHAR: &str =
    r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@\x{a0}-\x{d7ff}\x{f900}-\x{fdcf}\x{fdf0}-\x{ffef}]|%[0-9A-Fa-f]{2})";

/// The pattern of a format; none for names that say nothing.
pub(super) fn pattern(name: &str) -> Result<Option<Rc<Pattern>>, String> {
    thread_local! {
        static KNOWN: std::cell::RefCell<std::collections::HashMap<String, Rc<Pattern>>> = Default::default();
    }
    if let Some(known) = KNOWN.with_borrow(|known| known.get(name).cloned()) {
        return Ok(Some(known));
    }
    let Some(source) = source(name) else { return Ok(None) };
    let found = Rc::new(Pattern::whole(&source)?);
    KNOWN.with_borrow_mut(|known| known.insert(name.to_owned(), Rc::clone(&found)));
    Ok(Some(found))
}

fn source(name: &str) -> Option<String> {
    Some(match name {
        "date" => date(),
        "time" => TIME.to_owned(),
        "date-time" => format!("(?:{})[Tt]{TIME}", date()),
        "duration" => duration(),
        "email" => format!("{LOCAL}@{LABEL}(?:\\.{LABEL})*"),
        // Addresses in ASCII are valid for both.
        "idn-email" => format!("{LOCAL}@{LABEL}(?:\\.{LABEL})*"),
        "hostname" | "idn-hostname" => hostname(),
        "ipv4" => format!("{BYTE}(?:\\.{BYTE}){{3}}"),
        "ipv6" => ipv6(),
        "uuid" => format!("{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}"),
        "uri" => uri(PCHAR, true),
        "uri-reference" => uri(PCHAR, false),
        "iri" => uri(IPCHAR, true),
        "iri-reference" => uri(IPCHAR, false),
        "uri-template" => {
            let name = "[A-Za-z0-9_]+(?:\\.[A-Za-z0-9_]+)*";
            let variable = format!("{name}(?::[1-9][0-9]{{0,3}}|\\*)?");
            let plain = r"[A-Za-z0-9\-._~!$&()*+,;=:@/?#\[\]]|%[0-9A-Fa-f]{2}";
            format!("(?:{plain}|\\{{[+#./;?&]?{variable}(?:,{variable})*\\}})*")
        }
        "json-pointer" => r"(?:/(?:[^/~]|~[01])*)*".to_owned(),
        "relative-json-pointer" => r"(?:0|[1-9][0-9]*)(?:#|(?:/(?:[^/~]|~[01])*)*)".to_owned(),
        "regex" => regex(),
        _ => return None,
    })
}

fn date() -> String {
    let long = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])";
    let short = "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)";
    let february = "02-(?:0[1-9]|1[0-9]|2[0-8])";
    format!("(?:{YEAR}-(?:{long}|{short}|{february})|{LEAP}-02-29)")
}

fn duration() -> String {
    let time = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)";
    let date = "(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)";
    format!("P(?:{date}(?:{time})?|{time}|[0-9]+W)")
}

/// No label that looks like an encoded one of another script (`xn--...`), which has rules of its own.
fn hostname() -> String {
    let (a, any) = ("[A-Za-z0-9]", "[A-Za-z0-9\\-]");
    let label = format!("(?:{a}(?:{any}?{a})?|{a}{any}(?:-{a}|{a}{a}|(?:-{a}|{a}{any}){any}{{0,58}}{a}))");
    format!("{label}(?:\\.{label}){{0,3}}")
}

fn ipv6() -> String {
    let group = format!("{HEX}{{1,4}}");
    let last = format!("(?:{group}:{group}|{BYTE}(?:\\.{BYTE}){{3}})");
    let mut forms = vec![format!("(?:{group}:){{6}}{last}"), format!("::(?:{group}:){{5}}{last}")];
    for before in 1..=5usize {
        let head = format!("(?:{group}(?::{group}){{0,{}}})?::", before - 1);
        let after = 5 - before;
        let tail = if after == 0 { last.clone() } else { format!("(?:{group}:){{{after}}}{last}") };
        forms.push(format!("{head}{tail}"));
    }
    forms.push(format!("(?:{group}(?::{group}){{0,5}})?::{group}"));
    forms.push(format!("(?:{group}(?::{group}){{0,6}})?::"));
    forms.join("|")
}

fn uri(pchar: &str, absolute: bool) -> String {
    let host_char = pchar.replace(":@", "");
    let user = format!("(?:{}*@)?", pchar.replace(":@", ":"));
    let authority = format!("{user}(?:\\[(?:{})\\]|{host_char}*)(?::[0-9]*)?", ipv6());
    let segments = format!("(?:/{pchar}*)*");
    let tail = format!("(?:\\?(?:{pchar}|[/?])*)?(?:#(?:{pchar}|[/?])*)?");
    let rooted = format!("/(?:{pchar}+{segments})?");
    let full = format!("[A-Za-z][A-Za-z0-9+\\-.]*:(?://{authority}{segments}|{rooted}|{pchar}+{segments}|)");
    let first = format!("{}+", pchar.replace(":@", "@"));
    match absolute {
        true => format!("{full}{tail}"),
        false => format!("(?:{full}|//{authority}{segments}|{rooted}|{first}{segments}|){tail}"),
    }
}

/// Regular expressions of the plain kind: groups at most two deep, classes without ranges of one's own making.
fn regex() -> String {
    let escape = r"\\[dDwWsStnrfv./\\^$*+?()\[\]{}|\-]";
    let member = format!("(?:[A-Za-z0-9_ .,:;!@#%&=/'\"<>()$+*?]|{escape}|a-z|A-Z|0-9|a-f|A-F)");
    let class = format!("\\[\\^?{member}+\\]");
    let simple = format!("(?:[A-Za-z0-9_ ,:;!@#%&=/'\"<>~`\\-.^$]|{escape}|{class})");
    let times = r"(?:[*+?]\??|\{[1-9][0-9]?(?:,)?\})?";
    let mut level = format!("(?:(?:[\\^$]|(?:{}){times})*)", simple.replace(".^$]", ".]"));
    for _ in 0..2 {
        let group = format!("\\((?:\\?:)?{level}(?:\\|{level})*\\)");
        level = format!("(?:(?:[\\^$]|(?:{}|{group}){times})*)", simple.replace(".^$]", ".]"));
    }
    format!("{level}(?:\\|{level})*")
}

#[cfg(test)]
mod tests {
    #[test]
    fn formats_admit_only_what_is_valid() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "date",
                &["2024-02-29", "2000-02-29", "1999-12-31"],
                &["2023-02-29", "1900-02-29", "2024-13-01", "24-1-1"],
            ),
            ("time", &["12:00:00Z", "23:59:59.5+01:00"], &["24:00:00Z", "12:00:00", "1:00:00Z"]),
            ("date-time", &["2024-02-29T12:00:00Z"], &["2024-02-29 12:00:00Z", "2023-02-29T12:00:00Z"]),
            ("duration", &["P1Y2M3D", "PT1H", "P2W", "P1DT5S"], &["P", "PT", "P1S", "1Y", "P1W2D"]),
            ("email", &["a.b+c@example.com"], &["a", "a@", "@b", "a..b@c", ".a@b", "a@-b"]),
            (
                "hostname",
                &["a", "example.com", "a-b.c1", "ab", "abc", "a1-b"],
                &["", "-a", "a-", "a..b", "a_b", "xn--a", "ab-"],
            ),
            ("ipv4", &["1.2.3.4", "255.255.255.255"], &["256.1.1.1", "1.2.3", "01.2.3.4"]),
            (
                "ipv6",
                &["::", "::1", "1:2:3:4:5:6:7:8", "1::8", "::ffff:1.2.3.4", "1:2:3:4:5:6:7::", "1::4:5:6:7:8"],
                &["1:2:3:4:5:6:7", "1::2::3", ":1", "1:2:3:4:5:6:7:8:9", "12345::", "1:2:3:4:5:6:7:8::"],
            ),
            ("uuid", &["01234567-89ab-cdef-0123-456789ABCDEF"], &["0123456789abcdef0123456789abcdef", "g"]),
            (
                "uri",
                &["http://a.b/c?d#e", "urn:x:y", "mailto:a@b.c", "http://[::1]:80/", "file:///x"],
                &["a/b", "//a", "http://a b", "http://[1]/", "1a:b", "http://a/#a#b", "a:\\b"],
            ),
            ("uri-reference", &["a/b", "", "#x", "../c?d", "/a", "//h/p"], &["\\a", "a b", "#a#b", "%zz"]),
            ("iri", &["http://é.b/ü"], &["é/b"]),
            ("uri-template", &["http://a/{b}{?c,d*}", "x"], &["{", "{a", "a}", "{}"]),
            ("json-pointer", &["", "/a/b~0c", "/"], &["a", "/~", "/~2"]),
            ("relative-json-pointer", &["0", "1/a", "2#"], &["", "/a", "01", "-1", "0##"]),
            (
                "regex",
                &["^a+$", "(ab|c)*\\d{3}", "[a-z0-9_]+", "(?:a(b)?)", "['\"]([^'\"]+)", ""],
                &["(", "a)", "[", "*a", "a**", "\\"],
            ),
        ];
        for (format, valid, invalid) in cases {
            let pattern = super::pattern(format).unwrap().unwrap();
            for text in *valid {
                assert!(pattern.found_in(text).unwrap(), "{format}: {text:?}");
            }
            for text in *invalid {
                assert!(!pattern.found_in(text).unwrap(), "{format}: {text:?}");
            }
        }
        assert!(super::pattern("int32").unwrap().is_none());
    }
}
