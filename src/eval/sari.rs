//! SARI (Xu et al. 2016): words and word n-grams rightly kept, dropped and added, against the source and the references.
//!
//! The average over n-grams of 1 to 4 of the F-score of what is kept, the precision of what is dropped and the F-score of
//! what is added; a part without any n-gram counts 0, as in the authors' program. `copy` is the score of the source
//! itself, the least that an answer should reach.

use std::collections::HashMap;

use super::{Row, Scores, chrf, mean};

/// Whether there is a source to compare with.
pub fn check(row: &Row) -> Result<(), String> {
    if row.user().trim().is_empty() { Err("the user's text is empty".to_owned()) } else { Ok(()) }
}

/// `sari`, `copy`, `chrf`.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let each: Vec<f64> = rows.iter().zip(answers).map(|(row, answer)| sari(row, answer)).collect();
    let copy: Vec<f64> = rows.iter().take(answers.len()).map(|row| sari(row, row.user())).collect();
    let main = mean(&each);
    let chrf = chrf::score(rows, answers).figure("chrf").unwrap_or(0.0);
    Scores::new(each).with("sari", main).with("copy", mean(&copy)).with("chrf", chrf)
}

/// Runs of letters and digits, and every other sign, in lower case.
fn words(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for c in text.to_lowercase().chars() {
        let inside = c.is_alphanumeric();
        match found.last_mut().filter(|_| open && inside) {
            Some(word) => word.push(c),
            None if !c.is_whitespace() => found.push(c.to_string()),
            None => (),
        }
        open = inside;
    }
    found
}

type Bag<'a> = HashMap<&'a [String], f64>;

fn bag(words: &[String], n: usize, times: f64) -> Bag<'_> {
    let mut bag = Bag::new();
    words.windows(n).for_each(|gram| *bag.entry(gram).or_default() += times);
    bag
}

/// What two bags share, as often as the one that has it less often.
fn common<'a>(a: &Bag<'a>, b: &Bag<'a>) -> Bag<'a> {
    a.iter().filter_map(|(gram, n)| Some((*gram, n.min(*b.get(gram)?)))).collect()
}

/// What is left of `a` when `b` is taken away.
fn without<'a>(a: &Bag<'a>, b: &Bag<'a>) -> Bag<'a> {
    a.iter().map(|(gram, n)| (*gram, n - b.get(gram).copied().unwrap_or(0.0))).filter(|(_, n)| *n > 0.0).collect()
}

/// The average over the n-grams of `of` of how much of each is in `good`.
fn part(good: &Bag<'_>, of: &Bag<'_>) -> f64 {
    let sum: f64 = of.iter().map(|(gram, n)| good.get(gram).copied().unwrap_or(0.0) / n).sum();
    if of.is_empty() { 0.0 } else { sum / of.len() as f64 }
}

fn harmonic(a: f64, b: f64) -> f64 {
    if a + b == 0.0 { 0.0 } else { 2.0 * a * b / (a + b) }
}

fn sari(row: &Row, answer: &str) -> f64 {
    let (source, answer) = (words(row.user()), words(answer));
    let references: Vec<Vec<String>> = row.references().into_iter().map(words).collect();
    let times = references.len() as f64;
    let one = |n: usize| {
        let (source, answer) = (bag(&source, n, times), bag(&answer, n, times));
        let mut wanted = Bag::new();
        for reference in &references {
            bag(reference, n, 1.0).into_iter().for_each(|(gram, count)| *wanted.entry(gram).or_default() += count);
        }
        let kept = common(&source, &answer);
        let rightly = common(&kept, &wanted);
        let keep = harmonic(part(&rightly, &kept), part(&rightly, &common(&source, &wanted)));
        let dropped = without(&source, &answer);
        let drop = part(&without(&dropped, &wanted), &dropped);
        let new = |bag: &Bag<'_>| bag.keys().filter(|gram| !source.contains_key(*gram)).count() as f64;
        let (added, missing) = (new(&answer), new(&wanted));
        let right = answer.keys().filter(|g| !source.contains_key(*g) && wanted.contains_key(*g)).count() as f64;
        let ratio = |of: f64| if of == 0.0 { 0.0 } else { right / of };
        (keep + drop + harmonic(ratio(added), ratio(missing))) / 3.0
    };
    (1..=4).map(one).sum::<f64>() / 4.0
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    /// The example that the authors publish with their program.
    #[test]
    fn values_are_those_of_the_authors() {
        let meta = r#"{"refs": ["About 95 species are currently known .", "About 95 species are now accepted .",
            "95 species are now accepted ."]}"#;
        let rows = [row("About 95 species are currently accepted .", "", meta)];
        for (answer, wanted) in [
            ("About 95 you now get in .", 0.2682782411698074),
            ("About 95 species are now agreed .", 0.5889995423074248),
            ("About 95 species are currently agreed .", 0.5071608864657479),
        ] {
            let scores = score(&rows, &[answer.to_owned()]);
            assert!((scores.figure("sari").expect("there") - wanted).abs() < 1e-9, "{answer}: {scores:?}");
        }
    }

    #[test]
    fn words_and_signs_are_told_apart() {
        assert_eq!(words("It's 9 km."), ["it", "'", "s", "9", "km", "."]);
    }
}
