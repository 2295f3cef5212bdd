//! Lists of texts that a grammar must accept and must refuse.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use smoa::grammar::{Compiler, MatchResult, Source};

use super::tokens::Tokens;

/// Rows `{id, kind, text, pass, fail}`; those of another kind than `grammar` are left out and counted.
pub fn run(path: &Path) -> Result<(bool, Value), String> {
    let compiler = Compiler::new(Tokens::load(None)?.vocabulary);
    let (mut lists, mut right, mut texts, mut other) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    let mut slowest = 0.0f64;
    for row in super::rows(path)? {
        if row["kind"] != "grammar" {
            other += 1;
            continue;
        }
        lists += 1;
        let text = row["text"].as_str().unwrap_or_default();
        let before = wrong.len();
        let start = Instant::now();
        match compiler.compile(&Source::Gbnf(text.to_owned())) {
            Err(error) => wrong.push(json!({"id": row["id"], "error": error.to_string()})),
            Ok(compiled) => {
                for (field, expected) in [("pass", true), ("fail", false)] {
                    for text in row[field].as_array().into_iter().flatten().filter_map(Value::as_str) {
                        texts += 1;
                        let got = compiled.matches(text.as_bytes());
                        if (got == Ok(MatchResult::Complete)) != expected {
                            wrong
                                .push(json!({"id": row["id"], "text": text, "must": field, "got": format!("{got:?}")}));
                        }
                    }
                }
            }
        }
        slowest = slowest.max(start.elapsed().as_secs_f64());
        right += usize::from(wrong.len() == before);
    }
    println!(
        "gbnf: {right} of {lists} lists right, {texts} texts, slowest list {:.1} ms; {other} rows of another kind",
        slowest * 1e3
    );
    wrong.iter().for_each(|row| println!("  wrong: {row}"));
    let result = json!({"lists": lists, "right": right, "texts": texts, "other_kinds": other, "wrong": wrong});
    Ok((right == lists, result))
}
