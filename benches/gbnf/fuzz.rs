//! Grammars made by chance and by damage: each is refused, or compiled and run for some tokens. A crash ends the run
//! and shows its grammar.

use std::time::Instant;

use serde_json::{Value, json};
use smoa::grammar::{Compiler, MatcherError, Source, Vocabulary, format, format_names};

use super::random::Random;

/// Shows the grammar at fault if the run is unwinding.
struct Shown<'a>(&'a str);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("fuzz: the grammar was\n{}", self.0);
        }
    }
}

pub fn run(count: u64, seed: u64) -> (bool, Value) {
    let mut pieces: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    pieces.extend([b"ab".to_vec(), b"aaaa".to_vec(), b"\": ".to_vec(), "日本".into(), Vec::new()]);
    let end = pieces.len() as u32 - 1;
    let control = (0..=end).map(|id| id == end).collect();
    let compiler = Compiler::new(std::sync::Arc::new(Vocabulary::new(pieces, control, vec![end])));
    let mut random = Random(0x5EED_2001 + (seed << 32));
    let (mut refused, mut limited) = (0u64, 0u64);
    let mut slowest = (0.0f64, String::new());
    for _ in 0..count {
        let text = grammar(&mut random);
        let shown = Shown(&text);
        let start = Instant::now();
        match compiler.compile(&Source::Gbnf(text.clone())) {
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().contains('\n') && !error.explain().is_empty());
            }
            Ok(compiled) => limited += u64::from(!walk(&compiled, end, &mut random)),
        }
        let time = start.elapsed().as_secs_f64();
        if time > slowest.0 {
            slowest = (time, text.clone());
        }
        drop(shown);
    }
    println!(
        "fuzz: {count} grammars, {refused} refused, {limited} stopped by a limit, slowest {:.1} ms",
        slowest.0 * 1e3
    );
    let result = json!({"grammars": count, "refused": refused, "limited": limited, "slowest_s": slowest.0, "slowest": slowest.1});
    (slowest.0 < 1.0, result)
}

/// Some tokens along the masks; `false` if a limit ended it.
fn walk(compiled: &smoa::grammar::Compiled, end: u32, random: &mut Random) -> bool {
    let mut matcher = compiled.matcher();
    for left in (0..8usize).rev() {
        let mask = if left < 3 { matcher.mask_closing(left + 1) } else { matcher.mask() };
        let tokens: Vec<u32> = match mask {
            Ok(mask) => mask.iter().collect(),
            Err(MatcherError::Work { .. } | MatcherError::Memory { .. }) => return false,
            Err(error) => panic!("{error}"),
        };
        let token = tokens[random.below(tokens.len())];
        if token == end {
            return true;
        }
        match matcher.accept(token).and_then(|()| matcher.forced_bytes()) {
            Ok(_) => {}
            Err(MatcherError::Work { .. } | MatcherError::Memory { .. }) => return false,
            Err(error) => panic!("{error}"),
        }
    }
    true
}

const PARTS: &[&str] = &[
    "root",
    "root ::= ",
    "::=",
    "\n",
    " ",
    "\"a\"",
    "\"",
    "[",
    "]",
    "[a-z]",
    "^",
    "-",
    "(",
    ")",
    "|",
    "*",
    "+",
    "?",
    "{",
    "}",
    "{2}",
    "{0,3}",
    "{3,1000}",
    "{5,2}",
    ",",
    "9",
    "x",
    "x ::= ",
    "y",
    "y ::= ",
    "\\",
    "\\x41",
    "\\u00e9",
    "\\U0010FFFF",
    "<",
    ">",
    "<[97]>",
    "!<[97]>",
    "!",
    "#",
    ".",
    "é",
    "\"\"",
    "\u{0}",
    "\t",
    "root root",
    "x y",
    "(x | y)*",
];

fn grammar(random: &mut Random) -> String {
    match random.below(4) {
        // Parts in any order.
        0 => (0..random.below(40)).map(|_| random.of(PARTS)).collect(),
        // Rules of parts.
        1 => {
            let mut text = String::new();
            for name in ["root", "x", "y"] {
                let body: String = (0..1 + random.below(10)).map(|_| format!("{} ", random.of(PARTS))).collect();
                text.push_str(&format!("{name} ::= {}\n", body.replace("::=", "").replace('\n', " ")));
            }
            text
        }
        2 => super::random::safe_grammar(random),
        // A ready format with something cut, doubled or put in.
        _ => {
            let names = format_names();
            let text = format(names[random.below(names.len())]).map_or("", |format| format.gbnf);
            let mut chars: Vec<char> = text.chars().collect();
            for _ in 0..1 + random.below(4) {
                let at = random.below(chars.len());
                let length = random.below(12).min(chars.len() - at);
                match random.below(3) {
                    0 => drop(chars.drain(at..at + length)),
                    1 => {
                        let part: Vec<char> = chars[at..at + length].to_vec();
                        let to = random.below(chars.len());
                        drop(chars.splice(to..to, part));
                    }
                    _ => drop(chars.splice(at..at, random.of(PARTS).chars())),
                }
            }
            chars.into_iter().collect()
        }
    }
}
