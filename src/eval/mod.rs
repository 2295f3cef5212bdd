//! How good answers are: task files, and the metrics that their answers are scored by. Pure but for `sql`, which runs
//! queries in a database of its own in memory.
//!
//! A task is a list of [`Row`]s; [`Metric::score`] takes the rows and one answer each and gives [`Scores`]: figures over
//! all answers, the main one first, and one score for each row. Figures of corpora (micro F1, chrF) are made of summed
//! counts, not of averages of rows.

mod chrf;
mod cypher;
mod json;
mod label;
mod number;
mod rouge;
mod sari;
mod slots;
mod sql;
mod task;
mod text;

use std::collections::BTreeMap;
use std::str::FromStr;

pub use task::{Row, Speaker, TaskError, read_row};

/// A way to score the answers of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// JSON objects: equal, by field, valid.
    Json,
    /// SQL queries, by the rows that they find.
    Sql,
    /// Equal text.
    Exact,
    /// One label of several.
    Label,
    /// A number at the end.
    Number,
    /// Character n-grams.
    ChrF,
    /// Words and their order, as in summaries.
    Rouge,
    /// Values of a record that the text tells.
    Slots,
    /// Words rightly kept, dropped and added, as in simpler sentences.
    Sari,
    /// Cypher queries, by their text and the names that they use.
    Cypher,
}

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 10] = [
        Metric::Json,
        Metric::Sql,
        Metric::Exact,
        Metric::Label,
        Metric::Number,
        Metric::ChrF,
        Metric::Rouge,
        Metric::Slots,
        Metric::Sari,
        Metric::Cypher,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Json => "json",
            Metric::Sql => "sql",
            Metric::Exact => "exact",
            Metric::Label => "label",
            Metric::Number => "number",
            Metric::ChrF => "chrf",
            Metric::Rouge => "rouge",
            Metric::Slots => "slots",
            Metric::Sari => "sari",
            Metric::Cypher => "cypher",
        }
    }

    /// Checks that rows hold what this metric needs.
    ///
    /// # Errors
    /// The first row that does not, from 0, and what it lacks.
    pub fn check(self, rows: &[Row]) -> Result<(), (usize, String)> {
        let all = |check: fn(&Row) -> Result<(), String>| {
            rows.iter().enumerate().try_for_each(|(at, row)| check(row).map_err(|what| (at, what)))
        };
        match self {
            Metric::Json => all(json::check),
            Metric::Sql => all(sql::check),
            Metric::Number => all(number::check),
            Metric::Slots => all(slots::check),
            Metric::Sari => all(sari::check),
            Metric::Exact | Metric::Label | Metric::ChrF | Metric::Rouge | Metric::Cypher => Ok(()),
        }
    }

    /// Scores the answers of the first rows of a task, one each. The rows beyond them still say which labels and which
    /// fields the task has.
    ///
    /// # Panics
    /// There are more answers than rows.
    pub fn score(self, rows: &[Row], answers: &[String]) -> Scores {
        assert!(answers.len() <= rows.len(), "an answer without a row");
        match self {
            Metric::Json => json::score(rows, answers),
            Metric::Sql => sql::score(rows, answers),
            Metric::Exact => text::score(rows, answers),
            Metric::Label => label::score(rows, answers),
            Metric::Number => number::score(rows, answers),
            Metric::ChrF => chrf::score(rows, answers),
            Metric::Rouge => rouge::score(rows, answers),
            Metric::Slots => slots::score(rows, answers),
            Metric::Sari => sari::score(rows, answers),
            Metric::Cypher => cypher::score(rows, answers),
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Metric::ALL.into_iter().find(|m| m.name() == text);
        found.ok_or_else(|| format!("known are {}", Metric::ALL.map(Metric::name).join(", ")))
    }
}

/// A figure over all answers of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is: `exact`, `f1`, `valid`, ..
    pub name: String,
    /// Its value: from 0 to 1, but for errors (names that begin with `mae`), which are in the field's own unit.
    pub value: f64,
}

/// What answers are worth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// The figures, the main one first.
    pub figures: Vec<Figure>,
    /// A score of each answer from 0 to 1: what the main figure is made of, or the nearest thing to it.
    pub rows: Vec<f64>,
}

impl Scores {
    fn new(rows: Vec<f64>) -> Self {
        Self { figures: Vec::new(), rows }
    }

    fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.figures.push(Figure { name: name.into(), value });
        self
    }

    /// The figure by this name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|f| f.name == name).map(|f| f.value)
    }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn share<T>(of: &[T], which: impl Fn(&T) -> bool) -> f64 {
    mean(&of.iter().map(|v| f64::from(u8::from(which(v)))).collect::<Vec<_>>())
}

/// What was wanted, what was given, and what is in both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Overlap {
    wanted: usize,
    given: usize,
    both: usize,
}

impl Overlap {
    /// Of two bags of things.
    fn of<T: Ord>(wanted: impl IntoIterator<Item = T>, given: impl IntoIterator<Item = T>) -> Self {
        let mut bag: BTreeMap<T, usize> = BTreeMap::new();
        let mut all = Self::default();
        for thing in wanted {
            all.wanted += 1;
            *bag.entry(thing).or_default() += 1;
        }
        for thing in given {
            all.given += 1;
            if let Some(left) = bag.get_mut(&thing).filter(|left| **left > 0) {
                *left -= 1;
                all.both += 1;
            }
        }
        all
    }

    fn plus(self, other: Self) -> Self {
        Self { wanted: self.wanted + other.wanted, given: self.given + other.given, both: self.both + other.both }
    }

    /// The harmonic mean of precision and recall; 1 where nothing was wanted and nothing given.
    fn f1(self) -> f64 {
        match self.wanted + self.given {
            0 => 1.0,
            all => 2.0 * self.both as f64 / all as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row with this user text, gold answer and meta object.
    pub fn row(user: &str, answer: &str, meta: &str) -> Row {
        let meta = serde_json::from_str(meta).expect("JSON");
        Row { messages: vec![(Speaker::User, user.to_owned())], answer: answer.to_owned(), meta }
    }

    #[test]
    fn metrics_have_names_of_their_own() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(metric));
        }
        assert!("bleu".parse::<Metric>().expect_err("unknown").contains("json, sql"));
    }

    #[test]
    fn no_answers_are_worth_nothing_and_break_nothing() {
        let rows = [row("{\"a\": \"b\"}", "{\"a\": 1}", "{\"answer\": \"1\"}")];
        for metric in Metric::ALL {
            let scores = metric.score(&rows, &[]);
            assert!(scores.rows.is_empty() && scores.figures.iter().all(|f| f.value.is_finite()), "{metric:?}");
            let scores = metric.score(&rows, &[String::new()]);
            assert_eq!(scores.rows.len(), 1, "{metric:?}");
            assert!(scores.figures.iter().all(|f| f.value.is_finite()), "{metric:?}: {scores:?}");
        }
    }

    #[test]
    fn overlaps_count_what_occurs_twice() {
        let o = Overlap::of(["a", "a", "b"], ["a", "c"]);
        assert_eq!(o, Overlap { wanted: 3, given: 2, both: 1 });
        assert_eq!((o.f1(), Overlap::default().f1()), (0.4, 1.0));
    }
}
