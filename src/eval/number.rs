//! The number at the end of a solution, and what its equation really gives.

use super::{Row, Scores, mean, share};

/// Whether there is a number to compare with.
pub fn check(row: &Row) -> Result<(), String> {
    wanted(row).map(drop).ok_or_else(|| "neither meta.answer nor the answer wanted holds a number".to_owned())
}

fn wanted(row: &Row) -> Option<f64> {
    row.meta_text("answer").map_or_else(|| last_number(&row.answer), |text| last_number(&text))
}

/// `accuracy` of the number after the last `####`, else after the last `=`, else of the last one; `computed`, where the
/// answers wanted are equations: accuracy of the left side worked out; `given`: answers with a number.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let pairs: Vec<(&Row, &String)> = rows.iter().zip(answers).collect();
    let same = |a: Option<f64>, b: Option<f64>| matches!((a, b), (Some(a), Some(b)) if (a - b).abs() <= 1e-6 * a.abs().max(1.0));
    let right: Vec<f64> =
        pairs.iter().map(|(row, answer)| f64::from(u8::from(same(wanted(row), final_number(answer))))).collect();
    let accuracy = mean(&right);
    let scores = Scores::new(right).with("accuracy", accuracy);
    let equations = rows.iter().all(|row| equation(&row.answer).is_some());
    let scores = match equations {
        true => scores.with("computed", share(&pairs, |(row, answer)| same(wanted(row), equation(answer)))),
        false => scores,
    };
    scores.with("given", share(&pairs, |(_, answer)| final_number(answer).is_some()))
}

fn final_number(answer: &str) -> Option<f64> {
    for mark in ["####", "="] {
        if let Some((_, after)) = answer.rsplit_once(mark) {
            return numbers(after).next();
        }
    }
    last_number(answer)
}

fn last_number(text: &str) -> Option<f64> {
    numbers(text).last()
}

/// The numbers of a text; commas between digits are left out of them.
fn numbers(text: &str) -> impl Iterator<Item = f64> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    let mut at = 0;
    while at < chars.len() {
        let begins = digit(at) || (chars.get(at) == Some(&'.') && digit(at + 1));
        if !begins {
            at += 1;
            continue;
        }
        let before = at.checked_sub(1).and_then(|b| chars.get(b).copied());
        let further = at.checked_sub(2).and_then(|b| chars.get(b).copied());
        // A dash between words or numbers is no sign.
        let negative = before == Some('-') && !further.is_some_and(|c| c.is_alphanumeric() || c == ')');
        let mut digits = String::new();
        let mut point = false;
        while let Some(c) = chars.get(at) {
            match c {
                '.' if !point && digit(at + 1) => {
                    point = true;
                    digits.push('.');
                }
                ',' if digit(at + 1) && !point => (),
                c if c.is_ascii_digit() => digits.push(*c),
                _ => break,
            }
            at += 1;
        }
        if let Ok(value) = digits.parse::<f64>() {
            found.push(if negative { -value } else { value });
        }
    }
    found.into_iter()
}

/// The left side of the last line with a `=`, worked out.
fn equation(text: &str) -> Option<f64> {
    let line = text.lines().rev().find(|line| line.contains('='))?;
    let left = line.split('=').next()?;
    let mut sum =
        Sum { chars: left.chars().filter(|c| !c.is_whitespace() && *c != '$' && *c != ',').collect(), at: 0, depth: 0 };
    let value = sum.terms()?;
    (sum.at == sum.chars.len() && value.is_finite()).then_some(value)
}

/// A reader of sums: `+ - * /`, brackets, numbers.
struct Sum {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Sum {
    fn take(&mut self, which: &[char]) -> Option<char> {
        let c = self.chars.get(self.at).copied().filter(|c| which.contains(c))?;
        self.at += 1;
        Some(c)
    }

    fn terms(&mut self) -> Option<f64> {
        let mut value = self.factors()?;
        while let Some(sign) = self.take(&['+', '-', '−']) {
            let next = self.factors()?;
            value = if sign == '+' { value + next } else { value - next };
        }
        Some(value)
    }

    fn factors(&mut self) -> Option<f64> {
        let mut value = self.atom()?;
        while let Some(sign) = self.take(&['*', 'x', '×', '/', '÷']) {
            let next = self.atom()?;
            value = if ['/', '÷'].contains(&sign) { value / next } else { value * next };
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<f64> {
        if self.take(&['-']).is_some() {
            self.depth += 1;
            return if self.depth > 64 { None } else { self.atom().map(|value| -value) };
        }
        if self.take(&['(']).is_some() {
            self.depth += 1;
            if self.depth > 64 {
                return None;
            }
            let value = self.terms()?;
            self.take(&[')'])?;
            return Some(value);
        }
        let from = self.at;
        while self.chars.get(self.at).is_some_and(|c| c.is_ascii_digit() || *c == '.') {
            self.at += 1;
        }
        self.chars.get(from..self.at)?.iter().collect::<String>().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    #[test]
    fn the_last_number_is_found() {
        let table = [
            ("so 3 + 4 = 7.\n#### 1,234", Some(1234.0)),
            ("#### $18.50 each", Some(18.5)),
            ("(9 - (3 * 2)) = 3", Some(3.0)),
            ("x = -2", Some(-2.0)),
            ("The answer is 12 apples, not 7-5.", Some(5.0)),
            ("half: .5", Some(0.5)),
            ("none", None),
            ("#### ", None),
        ];
        for (text, wanted) in table {
            assert_eq!(final_number(text), wanted, "{text}");
        }
    }

    #[test]
    fn equations_are_worked_out() {
        let table = [
            ("(9 - (3 * 2)) = 4", Some(3.0)),
            ("2 + 3 * 4 = 1", Some(14.0)),
            ("-(1,000 / 4) = 0", Some(-250.0)),
            ("1 / 0 = 3", None),
            ("x + 1 = 3", None),
            ("1 + = 3", None),
            ("7", None),
        ];
        for (text, wanted) in table {
            assert_eq!(equation(text), wanted, "{text}");
        }
        assert_eq!(equation(&format!("{}1 = 1", "(".repeat(100_000))), None, "depth is bounded");
    }

    #[test]
    fn accuracy_is_over_final_numbers() {
        let rows = [row("q", "(4 + 1) = 5", r#"{"answer": "5"}"#), row("q", "(2 * 3) = 6", r#"{"answer": 6}"#)];
        let scores = score(&rows, &["(4 + 1) = 6".into(), "(3 * 2) = 6.0".into()]);
        assert_eq!(
            (scores.figure("accuracy"), scores.figure("computed"), scores.figure("given")),
            (Some(0.5), Some(1.0), Some(1.0))
        );
        assert!(check(&row("q", "none", "{}")).is_err());
    }
}
