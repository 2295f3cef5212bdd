//! chrF (Popović 2015): F-score over character n-grams of 1 to 6, recall weighing twice, white space left out.
//!
//! Over a corpus: counts are summed, then precision and recall averaged over the orders, as sacreBLEU does by default. Of
//! several references the one with the best score counts.

use std::collections::HashMap;

use super::{Row, Scores};

const ORDER: usize = 6;
const BETA_SQUARED: f64 = 4.0;

/// n-grams given, wanted and common, for each order.
type Counts = [[usize; 3]; ORDER];

/// `chrf` over all answers.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let mut sum = Counts::default();
    let mut each = Vec::new();
    for (row, answer) in rows.iter().zip(answers) {
        let counted = row.references().into_iter().map(|wanted| counts(answer, wanted)).map(|c| (value(&c), c));
        let best = counted.reduce(|best, other| if other.0 > best.0 { other } else { best });
        let (score, counts) = best.unwrap_or((0.0, Counts::default()));
        for (total, order) in sum.iter_mut().zip(counts) {
            total.iter_mut().zip(order).for_each(|(total, n)| *total += n);
        }
        each.push(score);
    }
    Scores::new(each).with("chrf", value(&sum))
}

fn counts(given: &str, wanted: &str) -> Counts {
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
    let (given, wanted) = (letters(given), letters(wanted));
    std::array::from_fn(|order| {
        let mut bag: HashMap<&[char], usize> = HashMap::new();
        wanted.windows(order + 1).for_each(|gram| *bag.entry(gram).or_default() += 1);
        let mut both = 0;
        for gram in given.windows(order + 1) {
            if let Some(left) = bag.get_mut(gram).filter(|left| **left > 0) {
                *left -= 1;
                both += 1;
            }
        }
        [given.len().saturating_sub(order), wanted.len().saturating_sub(order), both]
    })
}

fn value(counts: &Counts) -> f64 {
    let orders: Vec<_> = counts.iter().filter(|[given, wanted, _]| *given > 0 && *wanted > 0).collect();
    if orders.is_empty() {
        return 0.0;
    }
    let average = |of: fn(&[usize; 3]) -> f64| orders.iter().map(|order| of(order)).sum::<f64>() / orders.len() as f64;
    let precision = average(|[given, _, both]| *both as f64 / *given as f64);
    let recall = average(|[_, wanted, both]| *both as f64 / *wanted as f64);
    if precision + recall == 0.0 {
        0.0
    } else {
        (1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    /// Values of sacreBLEU 2: `CHRF().corpus_score` and `sentence_score`.
    #[test]
    fn values_are_those_of_sacrebleu() {
        let table: [(&str, &[&str], f64); 6] = [
            ("the cat sat on the mat", &["the cat is on the mat"], 0.645779420625287),
            ("O homem está aqui.", &["O homem que está dirigindo o ônibus é meu melhor amigo."], 0.1679956892760972),
            ("", &["abc"], 0.0),
            ("ab", &["ab"], 1.0),
            ("xyz", &["abc"], 0.0),
            ("the small cat", &["the cat", "a small cat", "dogs"], 0.7838498157172722),
        ];
        let mut rows = Vec::new();
        let mut answers = Vec::new();
        for (given, references, _) in table {
            rows.push(row("q", "", &serde_json::json!({"refs": references}).to_string()));
            answers.push(given.to_owned());
        }
        let scores = score(&rows, &answers);
        for ((given, _, wanted), got) in table.iter().zip(&scores.rows) {
            assert!((wanted - got).abs() < 1e-12, "{given}: {got}");
        }
        assert!((scores.figure("chrf").expect("there") - 0.34482146942013353).abs() < 1e-12, "{scores:?}");
    }
}
