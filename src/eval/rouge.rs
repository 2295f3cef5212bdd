//! ROUGE-1 and ROUGE-L (Lin 2004): F1 over words, and over the longest common subsequence of words.
//!
//! Words are runs of letters and digits in lower case, without stemming. Of several references the best one counts.

use super::{Overlap, Row, Scores, mean};

/// `rouge_l`, `rouge_1`: averages of the answers' F1.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let each = |f1: fn(&[String], &[String]) -> f64| -> Vec<f64> {
        let one = |(row, answer): (&Row, &String)| {
            let given = words(answer);
            row.references().iter().map(|wanted| f1(&words(wanted), &given)).fold(0.0, f64::max)
        };
        rows.iter().zip(answers).map(one).collect()
    };
    let (longest, single) = (each(longest), each(single));
    let (l, one) = (mean(&longest), mean(&single));
    Scores::new(longest).with("rouge_l", l).with("rouge_1", one)
}

/// Runs of letters and digits in lower case.
pub fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(String::from).collect()
}

fn single(wanted: &[String], given: &[String]) -> f64 {
    if wanted.is_empty() || given.is_empty() { 0.0 } else { Overlap::of(wanted, given).f1() }
}

fn longest(wanted: &[String], given: &[String]) -> f64 {
    let mut row = vec![0usize; given.len() + 1];
    for w in wanted {
        let mut diagonal = 0;
        for (at, g) in given.iter().enumerate() {
            let above = row.get(at + 1).copied().unwrap_or(0);
            let left = row.get(at).copied().unwrap_or(0);
            if let Some(cell) = row.get_mut(at + 1) {
                *cell = if w == g { diagonal + 1 } else { above.max(left) };
            }
            diagonal = above;
        }
    }
    let both = row.last().copied().unwrap_or(0);
    if both == 0 { 0.0 } else { Overlap { wanted: wanted.len(), given: given.len(), both }.f1() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    /// Values of the package rouge-score 0.1.2 without stemming.
    #[test]
    fn values_are_those_of_rouge_score() {
        let table = [
            ("The cat sat on the mat.", "A cat is on the mat", 2.0 / 3.0, 2.0 / 3.0),
            ("police killed the gunman", "police kill the gunman", 0.75, 0.75),
            ("the gunman kill police", "police kill the gunman", 0.5, 1.0),
            (
                "We introduce Deep SAD, a new deep method for anomaly detection",
                "A new method to find anomaly data, when some labeled anomalies are given",
                1.0 / 3.0,
                1.0 / 3.0,
            ),
            ("", "a", 0.0, 0.0),
        ];
        for (given, wanted, l, one) in table {
            let scores = score(&[row("q", wanted, "{}")], &[given.to_owned()]);
            for (name, value) in [("rouge_l", l), ("rouge_1", one)] {
                assert!((scores.figure(name).expect("there") - value).abs() < 1e-12, "{given}: {scores:?}");
            }
        }
        let best = row("q", "x", r#"{"refs": ["a b", "c d"]}"#);
        assert_eq!(score(&[best], &["d c".into()]).figure("rouge_1"), Some(1.0));
    }
}
