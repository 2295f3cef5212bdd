//! Values of a record that a text tells: name, place, food, whether children are welcome.
//!
//! For tasks that turn a JSON record (the user's text) into sentences. A value counts as told when it stands in the answer,
//! but for case; `familyFriendly` when a word of families or children does. Ratings, prices and kinds, which good sentences
//! put into other words, are left out. An answer with a `{` tells nothing: copying the record is not the task.

use serde_json::{Map, Value};

use super::json::first_object;
use super::text::squeezed;
use super::{Row, Scores, chrf};

const OTHER_WORDS: [&str; 3] = ["customer rating", "priceRange", "eatType"];

/// Whether the user's text holds a record.
pub fn check(row: &Row) -> Result<(), String> {
    first_object(row.user()).map(drop).ok_or_else(|| "the user's text holds no JSON object".to_owned())
}

/// `coverage`, the share of values told; `chrf` against the references.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let (mut told, mut all) = (0, 0);
    let mut each = Vec::new();
    for (row, answer) in rows.iter().zip(answers) {
        let (mine, of) = covered(&first_object(row.user()).unwrap_or_default(), answer);
        told += mine;
        all += of;
        each.push(if of == 0 { 1.0 } else { mine as f64 / of as f64 });
    }
    let coverage = if all == 0 { 0.0 } else { told as f64 / all as f64 };
    let chrf = chrf::score(rows, answers).figure("chrf").unwrap_or(0.0);
    Scores::new(each).with("coverage", coverage).with("chrf", chrf)
}

fn covered(record: &Map<String, Value>, answer: &str) -> (usize, usize) {
    let fold = |text: &str| squeezed(text).to_lowercase();
    let answer = fold(answer);
    let values = record.iter().filter(|(key, _)| !OTHER_WORDS.contains(&key.as_str()));
    let values: Vec<_> = values.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
    let tells = |(key, value): &&(&str, &str)| match *key {
        "familyFriendly" => ["famil", "child", "kid"].iter().any(|word| answer.contains(word)),
        _ => answer.contains(&fold(value)),
    };
    let told = if answer.contains('{') { 0 } else { values.iter().filter(tells).count() };
    (told, values.len())
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    #[test]
    fn values_told_are_counted() {
        let record =
            r#"{"name": "Aromi", "eatType": "pub", "food": "English", "area": "city centre", "familyFriendly": "yes"}"#;
        let rows = [row(record, "Aromi.", "{}"), row(record, "Aromi.", "{}")];
        let scores =
            score(&rows, &["aromi serves english food in the City  centre, kids welcome".into(), record.into()]);
        assert_eq!((scores.rows, scores.figures.first().map(|f| f.value)), (vec![1.0, 0.0], Some(0.5)));
        let some = score(&rows, &["Aromi is nice".into()]);
        assert_eq!(some.figure("coverage"), Some(0.25));
        assert!(check(&row("no record", "", "{}")).is_err());
    }
}
