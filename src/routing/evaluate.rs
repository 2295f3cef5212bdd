//! Figures of a router on labelled requests, for each strategy.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Ask, Labelled, OUT_OF_SCOPE, Router, RoutingError, gather, margin};
use crate::adapter::AdapterDigest;
use crate::library::{AdapterName, LibraryError};
use crate::router::embed::Cascade;
use crate::router::index::Gate;
use crate::router::measure::{self, Abstention, Outcome, Selective};
use crate::router::{Evidence, Judgement, Policy, Route, Strategy, decide, rank};

/// The name an adapter for `label` has: the label, with `-` for what a name may not hold.
///
/// # Errors
/// Nothing is left of it.
pub fn name_of(label: &str) -> Result<AdapterName, LibraryError> {
    if let Ok(name) = AdapterName::new(label) {
        return Ok(name);
    }
    let kept: String = label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .collect();
    let kept: String = kept.trim_start_matches(['.', '_', '-']).chars().take(AdapterName::MAX - 2).collect();
    let reserved = AdapterName::RESERVED.iter().any(|word| kept.eq_ignore_ascii_case(word));
    Ok(AdapterName::new(if reserved { format!("{kept}-1") } else { kept })?)
}

/// What one strategy did.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Which one.
    pub strategy: Strategy,
    /// Each request, in the order of the file.
    pub outcomes: Vec<Outcome>,
    /// Milliseconds of each request from text to decision.
    pub milliseconds: Vec<f64>,
    /// The threshold chosen beforehand for 98 % right, if one was.
    pub threshold: Option<f32>,
}

impl Figures {
    /// The figures of some of the requests.
    pub fn part(&self, rows: std::ops::Range<usize>) -> Self {
        Self {
            strategy: self.strategy,
            outcomes: self.outcomes.get(rows.clone()).unwrap_or_default().to_vec(),
            milliseconds: self.milliseconds.get(rows).unwrap_or_default().to_vec(),
            threshold: self.threshold,
        }
    }

    /// All figures as JSON. Rates are percentages.
    pub fn to_json(&self) -> Value {
        let o = &self.outcomes;
        let percent = |x: f64| (x * 1e4).round() / 1e2;
        let selective = |s: Selective| json!({"threshold": s.threshold, "coverage": percent(s.coverage), "accuracy": percent(s.accuracy)});
        let abstention = |a: Abstention| {
            json!({
                "in_scope_accuracy": percent(a.in_scope), "oos_recall": percent(a.recall),
                "oos_precision": percent(a.precision), "oos_f1": percent(a.f1), "all_way_accuracy": percent(a.all),
            })
        };
        let mut times = self.milliseconds.clone();
        let outside = o.iter().filter(|o| !o.in_scope).count();
        let round = |ms: f64| (ms * 1e4).round() / 1e4;
        json!({
            "strategy": self.strategy.name(),
            "requests": o.len(),
            "out_of_scope": outside,
            "top1": percent(measure::top(o, 1)),
            "top5": percent(measure::top(o, 5)),
            "auroc": measure::auroc(o).map(percent),
            "fpr95": measure::fpr_at_95(o).map(percent),
            "selective_98": self.threshold.map(|t| selective(measure::selective_at(o, t))),
            "selective_98_best": selective(measure::selective_best(o, 0.98)),
            "abstention": abstention(measure::abstention(o, None)),
            "ms": {
                "p50": round(measure::percentile(&mut times, 0.5)),
                "p95": round(measure::percentile(&mut times, 0.95)),
                "p99": round(measure::percentile(&mut times, 0.99)),
            },
        })
    }
}

impl Router {
    /// Routes every row by every strategy past a gate, without the decision cache. A strategy that needs a trained head is left out
    /// where there is none.
    ///
    /// # Errors
    /// The library cannot be read; a label is neither an adapter nor [`OUT_OF_SCOPE`].
    pub fn evaluate(
        &self,
        rows: &[Labelled],
        strategies: &[Strategy],
        thresholds: &HashMap<Strategy, f32>,
        gate: &Gate,
    ) -> Result<Vec<Figures>, RoutingError> {
        self.update(&mut |_| ())?;
        let rights = self.rights(rows)?;
        let usable = |strategy: &&Strategy| **strategy != Strategy::Learned || self.is_trained();
        let figures = |strategy: &Strategy| Figures {
            strategy: *strategy,
            outcomes: Vec::with_capacity(rows.len()),
            milliseconds: Vec::with_capacity(rows.len()),
            threshold: thresholds.get(strategy).copied(),
        };
        let mut all: Vec<Figures> = strategies.iter().filter(usable).map(figures).collect();
        for (row, right) in rows.iter().zip(&rights) {
            // Embedded once; every strategy's time has its part.
            let timed = |router: &Self| {
                let start = Instant::now();
                (router.embedder.embed(&row.text), start.elapsed())
            };
            let (vector, mut second_vector) = (timed(self), None);
            for figures in &mut all {
                let strategy = figures.strategy;
                let start = Instant::now();
                let (mut route, mut evidence) = self.weigh(&vector.0, &row.text, strategy, gate);
                let mut took = vector.1 + start.elapsed();
                let unsure = self.second.as_ref().filter(|_| Cascade::default().needs_second_opinion(margin(&route)));
                if let Some(second) = unsure {
                    let (vector, time) = second_vector.get_or_insert_with(|| timed(second));
                    let start = Instant::now();
                    (route, evidence) = second.weigh(vector, &row.text, strategy, gate);
                    took += *time + start.elapsed();
                }
                figures.milliseconds.push(took.as_secs_f64() * 1e3);
                let judge = unsure.map_or(self, |second| &**second);
                let tuned = judge.tuned();
                let (ranking, _) = rank(&Policy::of(strategy), &tuned.tuning, &row.text, &evidence, judge);
                let rank = right.and_then(|digest| ranking.iter().position(|(_, e)| e.digest == digest));
                figures.outcomes.push(Outcome {
                    rank,
                    in_scope: right.is_some(),
                    judged: Judgement { confidence: route.confidence, scope: route.scope },
                });
            }
        }
        Ok(all)
    }

    /// A decision by one strategy, with its evidence.
    fn weigh(&self, vector: &[f32], text: &str, strategy: Strategy, gate: &Gate) -> (Route, Vec<Evidence>) {
        let tuned = self.tuned();
        let head = tuned.head.as_deref().filter(|_| strategy == Strategy::Learned);
        let evidence = self.with_index(|index| gather(index, vector, text, gate, head));
        (decide(&Policy::of(strategy), &tuned.tuning, text, &evidence, self), evidence)
    }

    /// The right adapter of each row; `None` out of scope.
    fn rights(&self, rows: &[Labelled]) -> Result<Vec<Option<AdapterDigest>>, RoutingError> {
        let mut known: HashMap<&str, Option<AdapterDigest>> = HashMap::from([(OUT_OF_SCOPE, None)]);
        for row in rows {
            if !known.contains_key(row.label.as_str()) {
                let entry = self.library().find(&name_of(&row.label)?)?;
                known.insert(&row.label, Some(entry.digest));
            }
        }
        Ok(rows.iter().map(|row| known.get(row.label.as_str()).copied().flatten()).collect())
    }

    /// Milliseconds of the stages for each text, with the strategy that is usual here: embedding, searching, deciding;
    /// then the whole way from text to decision, and the same with a warm decision cache.
    pub fn stages(&self, texts: &[&str]) -> Result<[Vec<f64>; 5], RoutingError> {
        let tuned = self.tuned();
        let policy = Policy::of(if tuned.head.is_some() { Strategy::Learned } else { Strategy::Hybrid });
        let mut times: [Vec<f64>; 5] = Default::default();
        for text in texts {
            let mut last = Instant::now();
            let mut lap = || {
                let now = Instant::now();
                let took = now.duration_since(std::mem::replace(&mut last, now));
                took.as_secs_f64() * 1e3
            };
            let vector = self.embedder.embed(text);
            let embedded = lap();
            let evidence = self.with_index(|index| gather(index, &vector, text, &Gate::open(), tuned.head.as_deref()));
            let searched = lap();
            let _ = decide(&policy, &tuned.tuning, text, &evidence, self);
            let decided = lap();
            let ask = Ask::text(*text);
            let _ = lap();
            let _ = self.decide(&ask);
            let whole = lap();
            self.route(&ask)?;
            let _ = lap();
            self.route(&ask)?;
            let cached = lap();
            times.iter_mut().zip([embedded, searched, decided, whole, cached]).for_each(|(list, ms)| list.push(ms));
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn labels_become_names() {
        for (label, name) in [
            ("reverted_card_payment?", "reverted_card_payment-"),
            ("GetWeather", "GetWeather"),
            ("none", "none-1"),
            ("a b/c", "a-b-c"),
        ] {
            assert_eq!(name_of(label).expect("a name").as_str(), name);
        }
        assert!(name_of("??").is_err());
    }
}
