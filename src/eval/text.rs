//! Texts compared as texts, and the small things that other metrics need of texts.

use serde_json::Value;

use super::{Row, Scores, mean};

/// A text with single spaces and none at its ends.
pub fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A query with single spaces and without a final `;`.
pub fn query(text: &str) -> String {
    squeezed(text).trim_end_matches([';', ' ']).to_owned()
}

/// The query in an answer: the inside of its first code fence, if there is one.
pub fn unfenced(answer: &str) -> &str {
    let Some((_, inside)) = answer.split_once("```") else { return answer };
    let inside = inside.split_once("```").map_or(inside, |(inside, _)| inside);
    // The language after the fence ends with its line.
    inside.split_once('\n').map_or(inside, |(_, lines)| lines)
}

/// A scalar as text.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// `exact`: equal to the answer wanted or one of `meta.refs`, but for white space; `folded`: but for case too.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let equal = |fold: fn(&str) -> String| -> Vec<f64> {
        let one = |(row, answer): (&Row, &String)| {
            let answer = fold(answer);
            f64::from(u8::from(row.references().iter().any(|wanted| fold(wanted) == answer)))
        };
        rows.iter().zip(answers).map(one).collect()
    };
    let (exact, folded) = (equal(squeezed), equal(|text| squeezed(text).to_lowercase()));
    let (first, second) = (mean(&exact), mean(&folded));
    Scores::new(exact).with("exact", first).with("folded", second)
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    #[test]
    fn equal_texts_are_told_from_others() {
        let rows = [row("q", "a  b", "{}"), row("q", "a", r#"{"refs": ["x", "Y"]}"#), row("q", "a", "{}")];
        let scores = score(&rows, &[" a b\n".into(), "y".into(), "ab".into()]);
        assert_eq!(scores.rows, [1.0, 0.0, 0.0]);
        assert_eq!((scores.figure("exact"), scores.figure("folded")), (Some(1.0 / 3.0), Some(2.0 / 3.0)));
    }

    #[test]
    fn queries_come_out_of_fences() {
        let table = [
            ("SELECT 1", "SELECT 1"),
            ("Sure:\n```sql\nSELECT 1;\n```\nDone", "SELECT 1;\n"),
            ("```\nSELECT 1", "SELECT 1"),
            ("```SELECT 1```", "SELECT 1"),
        ];
        for (answer, wanted) in table {
            assert_eq!(unfenced(answer), wanted);
        }
        assert_eq!(query(" SELECT  1 ; "), "SELECT 1");
    }
}
