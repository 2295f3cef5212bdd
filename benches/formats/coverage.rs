//! Schemas with instances: which compile, which instances are accepted, and how long it takes.
//!
//! A row is `{id?, subset?, description?, schema, tests: [{valid, data, check?}]}`, the form of MaskBench and of the
//! official test suite. Instances are written as Python's `json.dumps` writes them. `"check": "disputed"` is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use smoa::grammar::{Compiled, Compiler, GrammarError, KeyOrder, MatchResult, SchemaMode, Source};

use crate::table::{Spread, print};
use crate::tokens::Tokens;
use crate::{Options, rows};

#[derive(Default, Clone)]
struct Count {
    schemas: usize,
    right: usize,
    refused: usize,
    over: usize,
    under: usize,
    valid: usize,
    valid_rejected: usize,
    order: usize,
    told: usize,
    invalid: usize,
    invalid_accepted: usize,
    noted: usize,
}

/// Runs the file. The first of the pair: no invalid instance was accepted.
pub fn run(path: &Path, options: &Options) -> Result<(bool, Value), String> {
    let tokens = Tokens::load(options.model.as_deref())?;
    let compiler = Compiler::new(tokens.vocabulary.clone());
    // The vocabulary's index is made once per model, not per schema.
    let begun = Instant::now();
    let first = compiler.compile(&Source::JsonSchema("{}".into())).map_err(|error| error.to_string())?;
    first.matches(b"1").map_err(|error| error.to_string())?;
    let index_ms = begun.elapsed().as_secs_f64() * 1e3;

    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let (mut compiles, mut cached, mut masks) = (Vec::new(), Vec::new(), Vec::new());
    let mut wrong = Vec::new();
    for (index, row) in rows(path)?.iter().enumerate() {
        let text = |key: &str| row[key].as_str().map(str::to_owned);
        let id = text("id").or(text("description")).unwrap_or_else(|| format!("row {}", index + 1));
        let subset = text("subset").unwrap_or_else(|| "all".into());
        if !counts.contains_key(&subset) {
            order.push(subset.clone());
        }
        let count = counts.entry(subset).or_default();
        count.schemas += 1;
        // Groups of older drafts do not say so themselves.
        let mut schema = row["schema"].clone();
        if let (Value::Object(object), true) = (&mut schema, order.last().is_some_and(|s| s.contains("draft7"))) {
            object.entry("$schema").or_insert_with(|| "http://json-schema.org/draft-07/schema#".into());
        }
        let source = Source::Schema { text: schema.to_string(), mode: SchemaMode::Strict, order: options.order };
        let begun = Instant::now();
        let compiled = compiler.compile(&source);
        let took = begun.elapsed().as_secs_f64() * 1e6;
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                count.refused += 1;
                *reasons.entry(reason(&error)).or_default() += 1;
                if options.show {
                    println!("refused {id}: {error}");
                }
                wrong.push(json!({"id": id, "refused": error.to_string()}));
                continue;
            }
        };
        compiles.push(took);
        let begun = Instant::now();
        let again = compiler.compile(&source);
        cached.push(begun.elapsed().as_secs_f64() * 1e6);
        drop(again);
        count.noted += usize::from(compiled.schema().is_some_and(|report| !report.notes().is_empty()));
        let (mut over, mut under) = (0, 0);
        for test in row["tests"].as_array().into_iter().flatten() {
            if test["check"] == "disputed" {
                continue;
            }
            let text = dumps(&test["data"]);
            let accepted = accepts(&compiled, &text)?;
            if test["valid"] == true {
                count.valid += 1;
                if !accepted {
                    over += 1;
                    // Keys in another order than the schema's, and nothing else.
                    let orderly = reordered(&row["schema"], &test["data"])
                        .iter()
                        .any(|text| accepts(&compiled, text) == Ok(true));
                    count.order += usize::from(orderly);
                    let told = told(&row["schema"], &test["data"]);
                    count.told += usize::from(told && !orderly);
                    if options.show {
                        let why = if orderly {
                            " (order of keys)"
                        } else if told {
                            " (type told by keywords)"
                        } else {
                            ""
                        };
                        let at = match compiled.matches(text.as_bytes()) {
                            Ok(MatchResult::Rejected { at }) => at,
                            _ => text.len(),
                        };
                        let (before, after) = text.split_at(at);
                        println!("valid rejected{why} {id}: {before} <HERE> {after} by {}", shown(&row["schema"]));
                    }
                    wrong.push(json!({"id": id, "valid_rejected": test["data"]}));
                } else if let Some(tokens) = tokens.cut(&text) {
                    time(&compiled, &tokens, &mut masks)?;
                }
            } else {
                count.invalid += 1;
                if accepted {
                    under += 1;
                    println!("INVALID ACCEPTED {id}: {text} by {}", shown(&row["schema"]));
                    wrong.push(json!({"id": id, "invalid_accepted": test["data"]}));
                }
            }
        }
        count.valid_rejected += over;
        count.invalid_accepted += under;
        count.over += usize::from(over > 0);
        count.under += usize::from(under > 0);
        count.right += usize::from(over == 0 && under == 0);
    }
    let mut all = Count::default();
    for count in counts.values() {
        add(&mut all, count);
    }
    let mut table: Vec<Vec<String>> = order.iter().map(|subset| line(subset, &counts[subset])).collect();
    table.push(line("all", &all));
    let head = [
        "subset",
        "schemas",
        "all right",
        "refused",
        "valid rejected (schemas)",
        "invalid accepted (schemas)",
        "valid rejected (instances)",
        "of these by order / told type",
        "invalid accepted (instances)",
    ];
    print(&head, &table);
    println!("\n{} of the schemas that compile are enforced more strictly than they say (notes)", all.noted);
    println!("\nrefusals by reason:");
    let mut sorted: Vec<(&String, &usize)> = reasons.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (reason, count) in &sorted {
        println!("{count:5}  {reason}");
    }
    let (compiles, cached, masks) = (Spread::of(compiles), Spread::of(cached), Spread::of(masks));
    println!("\nkeys in {} order", if options.order == KeyOrder::Any { "any" } else { "the schema's" });
    println!("\ntokens: {}; index made in {index_ms:.0} ms", tokens.what);
    println!("compile: {compiles}\ncached:  {cached}\nmask:    {masks}");
    let subsets: serde_json::Map<String, Value> =
        order.iter().map(|subset| (subset.clone(), as_json(&counts[subset]))).collect();
    let result = json!({
        "file": path.file_name().unwrap_or_default().to_string_lossy(), "tokens": tokens.what,
        "all": as_json(&all), "subsets": subsets, "refusals": reasons, "index_ms": index_ms,
        "compile": compiles.json(), "cached": cached.json(), "mask": masks.json(), "wrong": wrong,
    });
    Ok((all.invalid_accepted == 0, result))
}

fn accepts(compiled: &Compiled, text: &str) -> Result<bool, String> {
    compiled.matches(text.as_bytes()).map(|result| result == MatchResult::Complete).map_err(|error| error.to_string())
}

/// One mask before every token, as where no token is guessed first.
fn time(compiled: &Compiled, tokens: &[u32], masks: &mut Vec<f64>) -> Result<(), String> {
    let mut matcher = compiled.matcher();
    for &token in tokens {
        let begun = Instant::now();
        let mask = matcher.mask().map_err(|error| error.to_string())?;
        masks.push(begun.elapsed().as_secs_f64() * 1e6);
        if !mask.allows(token) {
            return Err(format!("token {token} is accepted byte by byte and not as a token"));
        }
        matcher.accept(token).map_err(|error| error.to_string())?;
    }
    if !matcher.may_stop() {
        return Err("accepted byte by byte, unfinished by tokens".to_owned());
    }
    Ok(())
}

/// The keyword a refusal names, or the beginning of what it says.
fn reason(error: &GrammarError) -> String {
    match error {
        GrammarError::Schema { keyword: Some(keyword), message, .. } => {
            let message: String = message.chars().take(60).collect();
            format!("{keyword}: {message}")
        }
        other => other.to_string().chars().take(80).collect(),
    }
}

fn shown(schema: &Value) -> String {
    let text = schema.to_string();
    match text.char_indices().nth(400) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// Whether the schema names no type and its keywords speak of another one than the instance has.
fn told(schema: &Value, data: &Value) -> bool {
    let tell = |keys: &[&str]| keys.iter().any(|key| schema.get(key).is_some());
    schema.get("type").is_none()
        && ((tell(&["properties", "patternProperties"]) && !data.is_object())
            || (tell(&["items", "prefixItems"]) && !data.is_array())
            || (tell(&["pattern"]) && !data.is_string()))
}

/// The same value with the keys of its objects in the order in which the schema first names them, others last or first.
fn reordered(schema: &Value, value: &Value) -> Vec<String> {
    fn names(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                for (key, value) in object {
                    if let ("properties", Value::Object(properties)) = (key.as_str(), value) {
                        found.extend(
                            properties.keys().filter(|name| !found.contains(name)).cloned().collect::<Vec<_>>(),
                        );
                    }
                    names(value, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }
    fn sorted(schema: &Value, value: &Value, order: &[String]) -> Value {
        match value {
            Value::Object(object) => {
                // The order of the schema that names most of these keys.
                let mut best: Vec<String> = Vec::new();
                best_order(schema, object, &mut best);
                let rank = |key: &str| {
                    let near = best.iter().position(|name| name == key);
                    near.or_else(|| order.iter().position(|name| name == key).map(|at| at + 1000)).unwrap_or(usize::MAX)
                };
                let mut entries: Vec<_> = object.iter().map(|(k, v)| (k.clone(), sorted(schema, v, order))).collect();
                entries
                    .sort_by_key(|(key, _)| if best.is_empty() || best.contains(key) { rank(key) } else { usize::MAX });
                Value::Object(entries.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| sorted(schema, item, order)).collect()),
            other => other.clone(),
        }
    }
    fn best_order(schema: &Value, object: &serde_json::Map<String, Value>, best: &mut Vec<String>) {
        let score = |names: &[String]| names.iter().filter(|name| object.contains_key(*name)).count();
        match schema {
            Value::Object(entries) => {
                if let Some(Value::Object(properties)) = entries.get("properties") {
                    let names: Vec<String> = properties.keys().cloned().collect();
                    if score(&names) > score(best) {
                        *best = names;
                    }
                }
                entries.values().for_each(|value| best_order(value, object, best));
            }
            Value::Array(items) => items.iter().for_each(|item| best_order(item, object, best)),
            _ => {}
        }
    }
    let mut order = Vec::new();
    names(schema, &mut order);
    vec![dumps(&sorted(schema, value, &order))]
}

/// As Python's `json.dumps` writes it: blanks after `,` and `:`, other scripts escaped.
pub fn dumps(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(dumps).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| format!("{}: {}", quoted(key), dumps(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut found = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            ' '..='~' => found.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| found.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    found
}

fn add(all: &mut Count, count: &Count) {
    all.schemas += count.schemas;
    all.right += count.right;
    all.refused += count.refused;
    all.over += count.over;
    all.under += count.under;
    all.valid += count.valid;
    all.valid_rejected += count.valid_rejected;
    all.order += count.order;
    all.told += count.told;
    all.invalid += count.invalid;
    all.invalid_accepted += count.invalid_accepted;
    all.noted += count.noted;
}

fn line(subset: &str, count: &Count) -> Vec<String> {
    let part = |a: usize, b: usize| format!("{a}/{b}");
    vec![
        subset.to_owned(),
        count.schemas.to_string(),
        format!("{} ({:.0} %)", count.right, 100.0 * count.right as f64 / count.schemas.max(1) as f64),
        count.refused.to_string(),
        count.over.to_string(),
        count.under.to_string(),
        part(count.valid_rejected, count.valid),
        part(count.order, count.told),
        part(count.invalid_accepted, count.invalid),
    ]
}

fn as_json(count: &Count) -> Value {
    json!({
        "schemas": count.schemas, "right": count.right, "refused": count.refused, "schemas_valid_rejected": count.over,
        "schemas_invalid_accepted": count.under, "valid": count.valid, "valid_rejected": count.valid_rejected,
        "valid_rejected_by_order": count.order, "valid_rejected_by_told_type": count.told, "invalid": count.invalid,
        "invalid_accepted": count.invalid_accepted, "stricter_with_note": count.noted,
    })
}
