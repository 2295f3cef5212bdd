//! JSON objects: equal to the one wanted, by field, and whether there is one at all.
//!
//! The first object of an answer counts. Texts are compared without case and with single spaces; the order of keys is
//! free. Nested objects count as pairs of path and value. A field of the top level that has a plain value in every
//! answer of the task gets an accuracy of its own (`intent`), and a mean error where it is a number; `f1` is over the
//! pairs of all other fields, or of all where there are no others.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::text::squeezed;
use super::{Overlap, Row, Scores, mean, share};

/// Whether the answer wanted is an object.
pub fn check(row: &Row) -> Result<(), String> {
    first_object(&row.answer).map(drop).ok_or_else(|| "the answer wanted holds no JSON object".to_owned())
}

/// The first JSON object in a text.
pub fn first_object(text: &str) -> Option<Map<String, Value>> {
    let from = text.get(text.find('{')?..)?;
    match serde_json::Deserializer::from_str(from).into_iter::<Value>().next()? {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// `exact`, `f1`, `valid`, then an accuracy for each fixed field.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let all: Vec<Map<String, Value>> = rows.iter().map(|r| first_object(&r.answer).unwrap_or_default()).collect();
    let fixed = fixed(&all);
    let given: Vec<Option<Map<String, Value>>> = answers.iter().map(|answer| first_object(answer)).collect();
    let wanted = all.get(..answers.len()).unwrap_or_default();
    let pairs: Vec<_> = wanted.iter().zip(&given).collect();

    let equal = |w: &Map<String, Value>, g: &Option<Map<String, Value>>| {
        g.as_ref().is_some_and(|g| flat(w, &BTreeSet::new()) == flat(g, &BTreeSet::new()))
    };
    let exact: Vec<f64> = pairs.iter().map(|(w, g)| f64::from(u8::from(equal(w, g)))).collect();
    let skipped: BTreeSet<&str> = match all.iter().all(|w| w.keys().all(|k| fixed.contains(k.as_str()))) {
        true => BTreeSet::new(),
        false => fixed.clone(),
    };
    let overlap = pairs.iter().fold(Overlap::default(), |sum, (w, g)| {
        let given = g.as_ref().map(|g| flat(g, &skipped)).unwrap_or_default();
        sum.plus(Overlap::of(flat(w, &skipped), given))
    });
    let main = mean(&exact);
    let f1 = if pairs.is_empty() { 0.0 } else { overlap.f1() };
    let mut scores =
        Scores::new(exact).with("exact", main).with("f1", f1).with("valid", share(&given, Option::is_some));
    for key in fixed {
        let of = |object: &Map<String, Value>| object.get(key).map(folded);
        scores = scores.with(key, share(&pairs, |(w, g)| of(w) == g.as_ref().and_then(of)));
        if wanted.iter().all(|w| w.get(key).is_some_and(Value::is_number)) && !wanted.is_empty() {
            let number = |object: &Map<String, Value>| object.get(key).and_then(Value::as_f64);
            let values: Vec<(f64, f64)> =
                pairs.iter().filter_map(|(w, g)| Some((number(w)?, number(g.as_ref()?)?))).collect();
            let errors: Vec<f64> = values.iter().map(|(w, g)| (w - g).abs()).collect();
            if !errors.is_empty() {
                scores = scores.with(format!("mae {key}"), mean(&errors));
            }
        }
    }
    scores
}

/// Fields with a plain value in every object.
fn fixed(all: &[Map<String, Value>]) -> BTreeSet<&str> {
    let plain =
        |object: &'_ Map<String, Value>, key: &str| object.get(key).is_some_and(|v| !v.is_object() && !v.is_array());
    let first = all.first().into_iter().flat_map(Map::keys);
    first.filter(|key| all.iter().all(|object| plain(object, key))).map(String::as_str).collect()
}

/// Pairs of path and value, in order, without these fields of the top level.
fn flat(object: &Map<String, Value>, without: &BTreeSet<&str>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (key, value) in object.iter().filter(|(key, _)| !without.contains(key.as_str())) {
        add(key.clone(), value, &mut pairs);
    }
    pairs.sort();
    pairs
}

fn add(path: String, value: &Value, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Object(inner) if !inner.is_empty() => {
            inner.iter().for_each(|(key, value)| add(format!("{path}\u{1}{key}"), value, pairs));
        }
        value => pairs.push((path, folded(value))),
    }
}

/// A value as texts are compared: without case, single spaces; numbers by value.
fn folded(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}", squeezed(text).to_lowercase()),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |n| n.to_string()),
        Value::Array(items) => format!("[{}]", items.iter().map(folded).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    #[test]
    fn objects_are_found_in_answers() {
        let found = |text: &str| first_object(text).map(|o| Value::Object(o).to_string());
        assert_eq!(found("Here: {\"a\": 1} {\"b\": 2}").as_deref(), Some("{\"a\":1}"));
        for none in ["", "[1]", "{\"a\": ", "a } b"] {
            assert_eq!(found(none), None, "{none}");
        }
    }

    #[test]
    fn slots_fields_and_validity_are_counted() {
        let rows = [
            row("q", r#"{"intent": "Play", "song": "Blue", "artist": "Joni"}"#, "{}"),
            row("q", r#"{"intent": "Book", "city": "Rome"}"#, "{}"),
            row("q", r#"{"intent": "Book"}"#, "{}"),
        ];
        let answers = [
            r#"{"song": "blue", "intent": "play", "artist": "Joni"}"#,
            r#"{"intent": "Book", "city": "Oslo"}"#,
            "none",
        ];
        let scores = score(&rows, &answers.map(String::from));
        assert_eq!(scores.rows, [1.0, 0.0, 0.0]);
        // Three slots wanted, three given, two of them right.
        let figures = [("exact", 1.0 / 3.0), ("f1", 2.0 / 3.0), ("valid", 2.0 / 3.0), ("intent", 2.0 / 3.0)];
        assert_eq!(scores.figures.len(), figures.len(), "{scores:?}");
        for (name, value) in figures {
            assert!((scores.figure(name).expect(name) - value).abs() < 1e-12, "{name}: {scores:?}");
        }
    }

    #[test]
    fn numbers_get_a_mean_error_and_nested_arguments_count() {
        let rows = [row("q", r#"{"up": true, "rating": 4}"#, "{}"), row("q", r#"{"up": false, "rating": 1}"#, "{}")];
        let scores = score(&rows, &[r#"{"up": true, "rating": 2}"#.into(), r#"{"up": false, "rating": 1.0}"#.into()]);
        assert_eq!(
            (scores.figure("mae rating"), scores.figure("up"), scores.figure("f1")),
            (Some(1.0), Some(1.0), Some(0.75))
        );
        let rows = [row("q", r#"{"name": "f", "arguments": {"a": "1", "b": "2"}}"#, "{}")];
        let scores = score(&rows, &[r#"{"name": "f", "arguments": {"a": "1", "c": "2"}}"#.into()]);
        assert_eq!(
            (scores.figure("name"), scores.figure("f1"), scores.figure("exact")),
            (Some(1.0), Some(0.5), Some(0.0))
        );
        assert!(check(&row("q", "no object", "{}")).is_err());
    }
}
