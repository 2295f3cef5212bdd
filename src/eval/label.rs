//! One label of several: accuracy, macro F1, and whether the answer is a label at all.

use std::collections::BTreeSet;

use super::text::squeezed;
use super::{Overlap, Row, Scores, mean, share};

/// `accuracy`, `macro_f1` (over the labels that are wanted), `known` (answers that are a label of the task).
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let fold = |text: &str| squeezed(text).to_lowercase();
    let all: Vec<String> = rows.iter().map(|row| fold(&row.answer)).collect();
    let known: BTreeSet<&String> = all.iter().collect();
    let given: Vec<String> = answers.iter().map(|answer| fold(answer)).collect();
    let pairs: Vec<(&String, &String)> = all.iter().zip(&given).collect();
    let labels: BTreeSet<&String> = pairs.iter().map(|(wanted, _)| *wanted).collect();
    let f1 = |label: &&String| {
        let count = |which: &dyn Fn(&(&String, &String)) -> bool| pairs.iter().filter(|pair| which(pair)).count();
        let wanted = count(&|(wanted, _)| wanted == label);
        let given = count(&|(_, given)| given == label);
        Overlap { wanted, given, both: count(&|(wanted, given)| wanted == label && given == label) }.f1()
    };
    let right: Vec<f64> = pairs.iter().map(|(wanted, given)| f64::from(u8::from(wanted == given))).collect();
    let accuracy = mean(&right);
    Scores::new(right)
        .with("accuracy", accuracy)
        .with("macro_f1", mean(&labels.iter().map(f1).collect::<Vec<_>>()))
        .with("known", share(&given, |label| known.contains(label)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    #[test]
    fn accuracy_and_macro_f1_are_as_by_hand() {
        let rows = ["yes", "yes", "yes", "no", "maybe"].map(|label| row("q", label, "{}"));
        let answers = [" Yes", "yes", "no", "no", "I think so"].map(String::from);
        let scores = score(&rows, &answers);
        // yes: 2 of 3 wanted, 2 given: 0.8; no: 1 of 1 wanted, 2 given: 2/3; maybe: 0.
        assert_eq!(scores.figure("accuracy"), Some(0.6));
        assert!((scores.figure("macro_f1").expect("there") - (0.8 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(scores.figure("known"), Some(0.8));
    }
}
