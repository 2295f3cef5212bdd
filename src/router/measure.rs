//! Figures of a router's decisions: accuracy, abstention, answers at a given rate of right ones. Pure.

use super::Judgement;

/// One decision of which the right answer is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Where the right adapter stood in the ranking, from 0; `None` if nowhere. Without meaning when out of scope.
    pub rank: Option<usize>,
    /// Whether any adapter was right; if not, the base should answer.
    pub in_scope: bool,
    /// What was thought of it.
    pub judged: Judgement,
}

impl Outcome {
    fn right(&self) -> bool {
        self.in_scope && self.rank == Some(0)
    }
}

/// The share of requests in scope whose right adapter is among the first `k`; 0 without any.
pub fn top(outcomes: &[Outcome], k: usize) -> f64 {
    let in_scope = outcomes.iter().filter(|o| o.in_scope);
    let found = in_scope.clone().filter(|o| o.rank.is_some_and(|rank| rank < k)).count();
    ratio(found, in_scope.count())
}

/// The area under the ROC curve of telling requests in scope from others; `None` without both.
pub fn auroc(outcomes: &[Outcome]) -> Option<f64> {
    let mut sorted: Vec<(f32, bool)> = outcomes.iter().map(|o| (o.judged.scope, o.in_scope)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (inside, outside) = (sorted.iter().filter(|o| o.1).count(), sorted.iter().filter(|o| !o.1).count());
    if inside == 0 || outside == 0 {
        return None;
    }
    // Ranks from 1, equal confidences share theirs.
    let mut sum = 0.0;
    let mut at = 0;
    while let Some((value, _)) = sorted.get(at) {
        let same = sorted.iter().skip(at).take_while(|o| o.0 == *value).count();
        let rank = at as f64 + (same as f64 + 1.0) / 2.0;
        sum += rank * sorted.iter().skip(at).take(same).filter(|o| o.1).count() as f64;
        at += same;
    }
    let inside = inside as f64;
    Some((sum - inside * (inside + 1.0) / 2.0) / (inside * outside as f64))
}

/// The share of requests out of scope that get an adapter when 95 % of those in scope do; `None` without both.
pub fn fpr_at_95(outcomes: &[Outcome]) -> Option<f64> {
    let mut inside: Vec<f32> = outcomes.iter().filter(|o| o.in_scope).map(|o| o.judged.scope).collect();
    let outside: Vec<f32> = outcomes.iter().filter(|o| !o.in_scope).map(|o| o.judged.scope).collect();
    if inside.is_empty() || outside.is_empty() {
        return None;
    }
    inside.sort_by(f32::total_cmp);
    let threshold = *inside.get((inside.len() as f64 * 0.05).floor() as usize)?;
    Some(ratio(outside.iter().filter(|c| **c >= threshold).count(), outside.len()))
}

/// What a threshold does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Selective {
    /// The threshold.
    pub threshold: f32,
    /// The share of all requests that get an adapter.
    pub coverage: f64,
    /// The share of those whose adapter is right.
    pub accuracy: f64,
}

/// What `threshold` does.
pub fn selective_at(outcomes: &[Outcome], threshold: f32) -> Selective {
    let answered = outcomes.iter().filter(|o| o.judged.confidence >= threshold);
    let right = answered.clone().filter(|o| o.right()).count();
    let answered = answered.count();
    Selective { threshold, coverage: ratio(answered, outcomes.len()), accuracy: ratio(right, answered) }
}

/// The lowest threshold at which at least `accuracy` of the answered requests are right: the most coverage. Each
/// outcome counts with its weight, which is how the expected share of requests out of scope comes in.
pub fn threshold_for(outcomes: &[(Outcome, f64)], accuracy: f64) -> Option<f32> {
    let mut sorted: Vec<&(Outcome, f64)> = outcomes.iter().collect();
    sorted.sort_by(|a, b| b.0.judged.confidence.total_cmp(&a.0.judged.confidence));
    let (mut right, mut answered, mut best) = (0.0, 0.0, None);
    for (at, (outcome, weight)) in sorted.iter().enumerate() {
        answered += weight;
        right += if outcome.right() { *weight } else { 0.0 };
        let last = sorted.get(at + 1).is_none_or(|next| next.0.judged.confidence < outcome.judged.confidence);
        if last && right >= accuracy * answered {
            best = Some(outcome.judged.confidence);
        }
    }
    best
}

/// The best coverage at `accuracy` that any threshold reaches on these very outcomes: an upper bound.
pub fn selective_best(outcomes: &[Outcome], accuracy: f64) -> Selective {
    let even: Vec<(Outcome, f64)> = outcomes.iter().map(|o| (*o, 1.0)).collect();
    threshold_for(&even, accuracy).map_or(Selective::default(), |threshold| selective_at(outcomes, threshold))
}

/// Figures of abstention.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Abstention {
    /// The share of requests in scope that get the right adapter.
    pub in_scope: f64,
    /// The share of requests out of scope that get none.
    pub recall: f64,
    /// The share of requests without an adapter that were out of scope.
    pub precision: f64,
    /// Harmonic mean of recall and precision.
    pub f1: f64,
    /// The share of all requests that get the right adapter, or rightly none.
    pub all: f64,
}

/// What `threshold`, or none, does to requests in and out of scope; see [`Judgement::takes`].
pub fn abstention(outcomes: &[Outcome], threshold: Option<f32>) -> Abstention {
    let abstains = |o: &&Outcome| !o.judged.takes(threshold);
    let inside = outcomes.iter().filter(|o| o.in_scope).count();
    let outside = outcomes.len() - inside;
    let right = outcomes.iter().filter(|o| !abstains(o) && o.right()).count();
    let none = outcomes.iter().filter(abstains).count();
    let rightly = outcomes.iter().filter(|o| abstains(o) && !o.in_scope).count();
    let (recall, precision) = (ratio(rightly, outside), ratio(rightly, none));
    let f1 = if recall + precision > 0.0 { 2.0 * recall * precision / (recall + precision) } else { 0.0 };
    Abstention { in_scope: ratio(right, inside), recall, precision, f1, all: ratio(right + rightly, outcomes.len()) }
}

/// A percentile of times or other numbers, sorted here; 0 for none. `p` from 0 to 1.
pub fn percentile(numbers: &mut [f64], p: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let at = ((numbers.len() as f64 - 1.0) * p).round().max(0.0) as usize;
    numbers.get(at).copied().unwrap_or(0.0)
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rank: Option<usize>, in_scope: bool, confidence: f32) -> Outcome {
        Outcome { rank, in_scope, judged: Judgement { confidence, scope: confidence } }
    }

    #[test]
    fn figures_of_a_table_done_by_hand() {
        let outcomes = [
            outcome(Some(0), true, 0.9),
            outcome(Some(0), true, 0.8),
            outcome(Some(3), true, 0.7),
            outcome(None, false, 0.6),
            outcome(None, true, 0.5),
            outcome(None, false, 0.1),
        ];
        assert_eq!((top(&outcomes, 1), top(&outcomes, 5)), (0.5, 0.75));
        assert_eq!(auroc(&outcomes), Some(7.0 / 8.0));
        assert_eq!(fpr_at_95(&outcomes), Some(0.5));
        assert_eq!(selective_best(&outcomes, 0.98), Selective { threshold: 0.8, coverage: 2.0 / 6.0, accuracy: 1.0 });
        let a = abstention(&outcomes, Some(0.65));
        assert_eq!((a.in_scope, a.recall, a.precision, a.all), (0.5, 1.0, 2.0 / 3.0, 4.0 / 6.0));
        assert_eq!(auroc(&outcomes[..2]), None);
        assert_eq!(percentile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
    }

    #[test]
    fn equal_confidences_are_one_threshold() {
        let outcomes = [outcome(Some(0), true, 0.5), outcome(None, true, 0.5)];
        assert_eq!(selective_best(&outcomes, 0.98), Selective::default());
        assert_eq!(auroc(&[outcome(None, true, 0.5), outcome(None, false, 0.5)]), Some(0.5));
    }
}
