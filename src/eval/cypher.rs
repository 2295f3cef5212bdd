//! Cypher queries by their text: equal, alike, and the labels, relationships and properties that they use.
//!
//! There is no graph to run them on; a right answer has many forms, so that `names` is the steadier figure.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::text::{query, unfenced};
use super::{Overlap, Row, Scores, chrf, mean, share};

static TOKENS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"'[^']*'|"[^"]*"|[A-Za-z_]\w*|\d[\w.]*|\S"#).expect("a regex"));
static WORDS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[A-Za-z_]\w*").expect("a regex"));
/// `names`, F1 over labels, relationships and properties; `exact`, equal but for white space and quotes; `chrf`; `in_schema`,
/// answers all of whose names stand in the user's text.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let texts: Vec<String> = answers.iter().map(|answer| unfenced(answer).to_owned()).collect();
    let pairs: Vec<(&Row, &String)> = rows.iter().zip(&texts).collect();
    let overlap = |(row, answer): &(&Row, &String)| Overlap::of(names(&row.answer), names(answer));
    let each: Vec<f64> = pairs.iter().map(|pair| overlap(pair).f1()).collect();
    let sum = pairs.iter().fold(Overlap::default(), |sum, pair| sum.plus(overlap(pair)));
    let f1 = if pairs.is_empty() { 0.0 } else { sum.f1() };
    let plain = |text: &str| query(text).replace('"', "'");
    let equal: Vec<f64> =
        pairs.iter().map(|(row, answer)| f64::from(u8::from(plain(&row.answer) == plain(answer)))).collect();
    let known = |(row, answer): &(&Row, &String)| {
        let schema: BTreeSet<&str> = WORDS.find_iter(row.user()).map(|m| m.as_str()).collect();
        let used = names(answer);
        !used.is_empty() && used.iter().all(|name| schema.contains(name.as_str()))
    };
    let chrf = chrf::score(rows, &texts).figure("chrf").unwrap_or(0.0);
    Scores::new(each)
        .with("names", f1)
        .with("exact", mean(&equal))
        .with("chrf", chrf)
        .with("in_schema", share(&pairs, known))
}

/// The labels, relationships and properties of a query, once each: a name after `:`, `|` or `.`, or before the `:` of a
/// map.
fn names(text: &str) -> BTreeSet<String> {
    let text = text.replace('`', "");
    let tokens: Vec<&str> = TOKENS.find_iter(&text).map(|m| m.as_str()).collect();
    let back = |at: usize, by: usize| at.checked_sub(by).and_then(|at| tokens.get(at)).copied().unwrap_or("");
    let mut braces = 0usize;
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => braces += 1,
            "}" => braces = braces.saturating_sub(1),
            _ => (),
        }
        if !token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            continue;
        }
        let begins = |before: &str| braces > 0 && matches!(before, "{" | ",");
        let key = begins(back(at, 1)) && tokens.get(at + 1) == Some(&":");
        let named = match back(at, 1) {
            "." | "|" => true,
            // What follows a map's key is its value.
            ":" => !begins(back(at, 3)),
            _ => key,
        };
        if named {
            found.insert((*token).to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    #[test]
    fn names_are_labels_relationships_and_properties() {
        let table: [(&str, &[&str]); 4] = [
            (
                "MATCH (p:Person {name: 'A:b'})-[r:ACTED_IN]->(m:Movie) RETURN p.name, m.title",
                &["ACTED_IN", "Movie", "Person", "name", "title"],
            ),
            ("MATCH (:A)-[:X|Y]->() RETURN count(*)", &["A", "X", "Y"]),
            ("MATCH (n {a: n.b, c: 1}) RETURN n", &["a", "b", "c"]),
            ("RETURN 1", &[]),
        ];
        for (text, wanted) in table {
            assert_eq!(names(text).into_iter().collect::<Vec<_>>(), wanted, "{text}");
        }
    }

    #[test]
    fn queries_are_compared() {
        let rows = [row("Schema: Movie(title)", "MATCH (m:Movie) RETURN m.title", "{}")];
        let same = score(&rows, &["MATCH (m:Movie)  RETURN m.title;".into()]);
        assert_eq!(["names", "exact", "in_schema"].map(|f| same.figure(f)), [Some(1.0); 3]);
        let other = score(&rows, &["MATCH (m:Film) RETURN m.title".into()]);
        assert_eq!(["names", "exact", "in_schema"].map(|f| other.figure(f)), [Some(0.5), Some(0.0), Some(0.0)]);
    }
}
