//! From automata back to expressions.

use std::collections::BTreeMap;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::automaton::Automaton;
use super::classes::{self, character};

/// States of an automaton that is written as an expression.
const STATES: usize = 60;
/// Bytes of one piece of it.
const PIECE: usize = 40_000;

/// An expression for the texts of the automaton. `None`: too large.
pub(super) fn expression(automaton: &Automaton) -> Option<String> {
    let alive = automaton.alive();
    if alive.iter().filter(|alive| **alive).count() > STATES {
        return None;
    }
    // States 0..n are the automaton's, n is a fresh beginning, n + 1 the end. States leave one by one.
    let count = automaton.next.len();
    let (begin, end) = (count, count + 1);
    let mut edges: BTreeMap<(usize, usize), String> = BTreeMap::new();
    for state in (0..count).filter(|&state| alive[state]) {
        let mut sets: BTreeMap<usize, Vec<(char, char)>> = BTreeMap::new();
        for (group, &to) in automaton.next[state].iter().enumerate() {
            let range = (char::from_u32(automaton.starts[group]), char::from_u32(automaton.last(group)));
            if let ((Some(first), Some(last)), true) = (range, alive[to]) {
                let set = sets.entry(to).or_default();
                match set.last_mut() {
                    Some(known) if next_to(known.1, first) => known.1 = last,
                    _ => set.push((first, last)),
                }
            }
        }
        for (to, set) in sets {
            edges.insert((state, to), class(&set));
        }
        if automaton.accepts[state] {
            edges.insert((state, end), String::new());
        }
    }
    edges.insert((begin, 0), String::new());
    let mut left: Vec<usize> = (0..count).filter(|&state| alive[state]).collect();
    while !left.is_empty() {
        let cost = |state: usize| -> usize {
            let into = edges.iter().filter(|((from, to), _)| *to == state && *from != state);
            let out = edges.iter().filter(|((from, to), _)| *from == state && *to != state);
            let (a, b) = (into.map(|(_, t)| t.len() + 1), out.map(|(_, t)| t.len() + 1));
            let (a, b): (Vec<usize>, Vec<usize>) = (a.collect(), b.collect());
            a.iter().sum::<usize>() * b.len() + b.iter().sum::<usize>() * a.len()
        };
        let (index, _) = left.iter().enumerate().min_by_key(|(_, state)| cost(**state))?;
        let state = left.swap_remove(index);
        let turn = edges.remove(&(state, state)).map(|text| repeat(&text)).unwrap_or_default();
        let into: Vec<(usize, String)> =
            edges.iter().filter(|((_, to), _)| *to == state).map(|((from, _), text)| (*from, text.clone())).collect();
        let out: Vec<(usize, String)> =
            edges.iter().filter(|((from, _), _)| *from == state).map(|((_, to), text)| (*to, text.clone())).collect();
        edges.retain(|(from, to), _| *from != state && *to != state);
        for (from, first) in &into {
            for (to, last) in &out {
                let path = format!("{}{turn}{}", group(first), group(last));
                if path.len() > PIECE {
                    return None;
                }
                let known = edges.remove(&(*from, *to));
                let text = match known {
                    Some(known) => choice(&known, &path),
                    None => path,
                };
                edges.insert((*from, *to), text);
            }
        }
    }
    let body = edges.remove(&(begin, end))?;
    (body.len() <= PIECE).then(|| format!("^(?:{body})$"))
}

/// A parsed expression as text: no captures, every class and every repetition spelled out.
pub(super) fn source(hir: &Hir) -> Result<String, String> {
    let all = |subs: &[Hir]| subs.iter().map(source).collect::<Result<Vec<String>, String>>();
    Ok(match hir.kind() {
        HirKind::Empty => "(?:)".to_owned(),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).map_err(|_| "not text")?;
            text.chars().map(character).collect()
        }
        HirKind::Class(Class::Unicode(class)) => {
            let ranges: Vec<(char, char)> = class.ranges().iter().map(|range| (range.start(), range.end())).collect();
            match ranges.is_empty() {
                true => "[^\\x{0}-\\x{10ffff}]".to_owned(),
                false => classes::print(&ranges, false),
            }
        }
        HirKind::Class(Class::Bytes(class)) => {
            let ranges: Vec<(char, char)> =
                class.ranges().iter().map(|range| (char::from(range.start()), char::from(range.end()))).collect();
            classes::print(&ranges, false)
        }
        HirKind::Look(Look::Start) => "^".to_owned(),
        HirKind::Look(Look::End) => "$".to_owned(),
        HirKind::Look(_) => return Err("an assertion in 'pattern' cannot be enforced".to_owned()),
        HirKind::Repetition(repetition) => {
            let max = repetition.max.map(|max| max.to_string()).unwrap_or_default();
            format!("(?:{}){{{},{max}}}", source(&repetition.sub)?, repetition.min)
        }
        HirKind::Capture(capture) => source(&capture.sub)?,
        HirKind::Concat(subs) => all(subs)?.concat(),
        HirKind::Alternation(subs) => format!("(?:{})", all(subs)?.join("|")),
    })
}

fn next_to(last: char, first: char) -> bool {
    u32::from(last) + 1 == u32::from(first) || (last == '\u{d7ff}' && first == '\u{e000}')
}

fn class(set: &[(char, char)]) -> String {
    match set {
        [(first, last)] if first == last => character(*first),
        set => classes::print(set, false),
    }
}

/// A choice that is part of a sequence needs parentheses.
fn group(text: &str) -> String {
    match text.contains('|') {
        true => format!("(?:{text})"),
        false => text.to_owned(),
    }
}

fn choice(a: &str, b: &str) -> String {
    match (a, b) {
        ("", b) => format!("(?:{b})?"),
        (a, "") => format!("(?:{a})?"),
        (a, b) => format!("{a}|{b}"),
    }
}

fn repeat(text: &str) -> String {
    format!("(?:{text})*")
}

/// An expression for every text but these: a tree of their beginnings, left somewhere.
pub(super) fn all_but(texts: &[String]) -> String {
    #[derive(Default)]
    struct Node {
        ends: bool,
        next: BTreeMap<char, Node>,
    }
    fn write(node: &Node, out: &mut String) {
        out.push_str("(?:");
        let firsts: Vec<(char, char)> = node.next.keys().map(|&c| (c, c)).collect();
        out.push_str(&match firsts.is_empty() {
            true => any(),
            false => classes::print(&firsts, true),
        });
        out.push_str(&any());
        out.push('*');
        for (c, next) in &node.next {
            out.push('|');
            out.push_str(&character(*c));
            write(next, out);
        }
        out.push(')');
        if !node.ends {
            out.push('?');
        }
    }
    let mut root = Node::default();
    for text in texts {
        let mut node = &mut root;
        for c in text.chars() {
            node = node.next.entry(c).or_default();
        }
        node.ends = true;
    }
    let mut out = String::from("^");
    write(&root, &mut out);
    out.push('$');
    out
}

fn any() -> String {
    "[\\x{0}-\\x{10ffff}]".to_owned()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::Pattern;

    fn pattern(text: &str) -> Rc<Pattern> {
        Rc::clone(&Pattern::read(text).unwrap().0[0])
    }

    #[test]
    fn combinations_admit_exactly_what_they_should() {
        let cases: &[(&[&str], &[&str])] = &[
            (&[], &["^x-"]),
            (&["^[a-z]+$"], &["foo"]),
            (&["a", "b"], &["^ab"]),
            (&["^.{1,3}$"], &["a", "b$"]),
            (&[r"^\d{2,4}$"], &["^0", "9$"]),
            (&["^(a|bc)*$"], &["cb"]),
            (&["é"], &["[^é]$"]),
        ];
        let texts = [
            "", "a", "b", "x-", "x-a", "ax-", "foo", "xfoox", "fo", "ab", "ba", "bab", "abc", "12", "012", "129",
            "1234", "bcbc", "abcbca", "é", "éa", "aé", "\n", "a\nb", "zz", "abcd", "2", "22", "cb", "日本",
        ];
        for (like, unlike) in cases {
            let like: Vec<_> = like.iter().map(|text| pattern(text)).collect();
            let unlike: Vec<_> = unlike.iter().map(|text| pattern(text)).collect();
            let combined = Pattern::combined(&like, &unlike).unwrap().unwrap();
            for text in texts {
                let wanted =
                    like.iter().all(|p| p.found_in(text).unwrap()) && !unlike.iter().any(|p| p.found_in(text).unwrap());
                assert_eq!(combined.found_in(text).unwrap(), wanted, "{text:?} in {}", combined.source());
            }
        }
        assert!(Pattern::combined(&[pattern("^a$")], &[pattern("a")]).unwrap().is_none());
    }

    #[test]
    fn every_text_but_some() {
        let texts = ["", "red", "reed", "rot", "é"];
        let not = Pattern::combined(&[], &[Rc::new(Pattern::literals(&texts))]).unwrap().unwrap();
        for text in texts {
            assert!(!not.found_in(text).unwrap(), "{text:?}");
        }
        for text in ["r", "re", "redd", "x", "rotx", "éé", "e", "\n"] {
            assert!(not.found_in(text).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn short_lists_can_be_read_off() {
        let list = |text: &str| pattern(text).automaton().unwrap().list(10);
        assert_eq!(list("^(a|bc?)$"), Some(vec!["a".into(), "b".into(), "bc".into()]));
        assert_eq!(list("^[0-9]{2}$"), None);
        assert_eq!(list("a"), None);
    }
}
