//! How sure a decision is: a few signals of a ranking, and logistic curves over them.
//!
//! A cosine is no probability (measured: with raw cosines 21 % of requests can be answered at 98 % right, with a
//! calibrated curve over 60 %). The signals of being right are differences and levels that keep their meaning when a
//! library grows: the crowd is what adapters that do not fit get in this very request. Whether any adapter is for a
//! request at all is another question: two adapters may be equally near because both fit. It has a curve of its own,
//! over levels alone (the nearest prompts, the nearest centroid, the head's best word), and what that says is one more
//! signal of being right.

use super::Evidence;
use super::index::CLOSE;

/// Numbers in [`Signals`].
pub const SIGNALS: usize = 9;

/// The least log probability of a head that counts.
const LEAST: f32 = -12.0;
/// Where in the signals of being right stands what the curve of the scope says, and how far its logit goes.
const OF_SCOPE: usize = 8;
const FARTHEST: f32 = 8.0;

/// What a ranking looks like, apart from who is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals(pub [f32; SIGNALS]);

impl Signals {
    /// Looks at a ranking as a whole: is anything near?
    pub fn of_scope(ranking: &[(f32, Evidence)]) -> Self {
        let evidence = || ranking.iter().map(|(_, e)| e);
        let mut close: Vec<f32> = evidence().flat_map(|e| e.close).filter(|cosine| *cosine > -1.0).collect();
        close.sort_unstable_by(|a, b| b.total_cmp(a));
        close.truncate(CLOSE);
        let nearest = close.first().copied().unwrap_or(0.0);
        let five = close.iter().sum::<f32>() / close.len().max(1) as f32;
        let most = |of: fn(&Evidence) -> f32, least: f32| evidence().map(of).fold(least, f32::max);
        let log = most(|e| e.learned.unwrap_or(f32::NEG_INFINITY), f32::NEG_INFINITY);
        let log = if log == f32::NEG_INFINITY { 0.0 } else { log.max(LEAST) };
        let mut signals = [0.0; SIGNALS];
        signals.iter_mut().zip([nearest, five, most(|e| e.centroid, 0.0), log]).for_each(|(to, from)| *to = from);
        Self(signals)
    }

    /// The same signals with what the curve of the scope says beside them.
    #[must_use]
    pub fn beside(mut self, scope: f32) -> Self {
        self.0[OF_SCOPE] = (scope / (1.0 - scope)).ln().clamp(-FARTHEST, FARTHEST);
        self
    }

    /// Looks at a ranking, best first: does the best one stand out?
    pub fn of(ranking: &[(f32, Evidence)]) -> Self {
        let Some((score, best)) = ranking.first() else { return Self::default() };
        let second = ranking.get(1).map_or(0.0, |(score, _)| *score);
        let crowd = ranking.get(4..).unwrap_or_default();
        let crowd = crowd.get(..crowd.len().min(16)).unwrap_or_default();
        let level = crowd.iter().map(|(_, e)| e.semantic).sum::<f32>() / crowd.len().max(1) as f32;
        let rival = ranking.iter().skip(1).map(|(_, e)| e.semantic).fold(0.0, f32::max);
        Self([
            *score,
            (score - second).max(0.0),
            best.semantic,
            best.centroid,
            best.keyword,
            best.semantic - rival,
            level,
            best.learned.map_or(0.0, |log| log.max(LEAST)),
            0.0,
        ])
    }
}

/// A logistic curve over [`Signals`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// One weight for each signal.
    pub weights: [f32; SIGNALS],
    /// What is added.
    pub bias: f32,
}

impl Calibration {
    /// The probability of what the curve was fitted to.
    pub fn confidence(&self, signals: &Signals) -> f32 {
        let sum: f32 = self.weights.iter().zip(signals.0).map(|(w, x)| w * x).sum();
        let p = 1.0 / (1.0 + (-(sum + self.bias)).exp());
        if p.is_finite() { p } else { 0.0 }
    }

    /// The same with a curve that no signal lowers: one that would is left out, the worst first. For signals that are
    /// nearly the same thing (the nearest prompt, the mean of the nearest five), of which an unbound fit weighs one
    /// against the other; how far they lie apart is another thing in use than on held-back prompts.
    pub fn fit_rising(samples: &[(Signals, bool, f32)]) -> Option<Self> {
        let mut samples = samples.to_vec();
        loop {
            let curve = Self::fit(&samples)?;
            let least = (0..SIGNALS).min_by(|a, b| curve.weights[*a].total_cmp(&curve.weights[*b]))?;
            if curve.weights[least] >= 0.0 {
                return Some(curve);
            }
            samples.iter_mut().for_each(|(signals, ..)| signals.0[least] = 0.0);
        }
    }

    /// Fits the curve to what was right and what was not, each with its weight (Newton's method with a small pull
    /// towards zero, which keeps it unique). `None` without examples of both kinds.
    pub fn fit(samples: &[(Signals, bool, f32)]) -> Option<Self> {
        const N: usize = SIGNALS + 1;
        let both = samples.iter().any(|s| s.1) && samples.iter().any(|s| !s.1);
        if !both {
            return None;
        }
        let mut w = [0.0f64; N];
        for _ in 0..50 {
            let (mut gradient, mut hessian) = ([0.0f64; N], [[0.0f64; N]; N]);
            for (at, (g, h)) in gradient.iter_mut().zip(hessian.iter_mut()).enumerate() {
                let pull = if at + 1 == N { 1e-6 } else { 1e-2 };
                *g = pull * w[at];
                h[at] = pull;
            }
            for (signals, right, weight) in samples {
                let mut x = [1.0f64; N];
                x.iter_mut().zip(signals.0).for_each(|(x, s)| *x = f64::from(s));
                let z: f64 = w.iter().zip(x).map(|(w, x)| w * x).sum();
                let p = 1.0 / (1.0 + (-z).exp());
                let weight = f64::from(*weight);
                for i in 0..N {
                    gradient[i] += weight * (p - f64::from(u8::from(*right))) * x[i];
                    for j in 0..N {
                        hessian[i][j] += weight * p * (1.0 - p) * x[i] * x[j];
                    }
                }
            }
            let Some(step) = solve(hessian, gradient) else { break };
            let size: f64 = step.iter().map(|s| s * s).sum::<f64>().sqrt();
            // A long step may overshoot: it is cut.
            let cut = if size > 5.0 { 5.0 / size } else { 1.0 };
            w.iter_mut().zip(step).for_each(|(w, s)| *w -= cut * s);
            if size < 1e-6 {
                break;
            }
        }
        let mut weights = [0.0; SIGNALS];
        weights.iter_mut().zip(w).for_each(|(to, from)| *to = from as f32);
        let bias = w[SIGNALS] as f32;
        (weights.iter().all(|w| w.is_finite()) && bias.is_finite()).then_some(Self { weights, bias })
    }
}

/// What curves say of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Judgement {
    /// The probability that the best candidate is right.
    pub confidence: f32,
    /// The probability that any adapter is for the request.
    pub scope: f32,
}

impl Judgement {
    /// Whether the best candidate is taken: with at least the confidence asked for; where none is asked for, if it is
    /// likelier right than that no adapter is for the request.
    pub fn takes(&self, threshold: Option<f32>) -> bool {
        self.confidence >= threshold.unwrap_or(1.0 - self.scope)
    }
}

/// Solves `matrix * x = vector` by elimination with pivots; `None` if it has no single solution.
pub(crate) fn solve<const N: usize>(mut matrix: [[f64; N]; N], mut vector: [f64; N]) -> Option<[f64; N]> {
    for column in 0..N {
        let pivot = (column..N).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        vector.swap(column, pivot);
        let (above, below) = matrix.split_at_mut(column + 1);
        let row = above.get(column)?;
        for (at, other) in below.iter_mut().enumerate() {
            let factor = other[column] / row[column];
            other.iter_mut().zip(row).skip(column).for_each(|(to, from)| *to -= factor * from);
            vector[column + 1 + at] -= factor * vector[column];
        }
    }
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|column| matrix[row][column] * vector[column]).sum();
        vector[row] = (vector[row] - known) / matrix[row][row];
    }
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(first: f32, right: bool) -> (Signals, bool, f32) {
        let mut signals = Signals::default();
        signals.0[0] = first;
        (signals, right, 1.0)
    }

    #[test]
    fn a_curve_finds_the_odds() {
        // At 0, three of four are right; at 1, one of four.
        let mut samples = Vec::new();
        for n in 0..400 {
            samples.push(sample(0.0, n % 4 != 0));
            samples.push(sample(1.0, n % 4 == 0));
        }
        let curve = Calibration::fit(&samples).expect("both kinds");
        assert!((curve.confidence(&samples[0].0) - 0.75).abs() < 0.01);
        assert!((curve.confidence(&samples[1].0) - 0.25).abs() < 0.01);
    }

    #[test]
    fn separable_samples_give_a_finite_curve() {
        let samples: Vec<_> = (0..100).map(|n| sample(n as f32 / 100.0, n >= 50)).collect();
        let curve = Calibration::fit(&samples).expect("both kinds");
        assert!(curve.confidence(&samples[99].0) > 0.95 && curve.confidence(&samples[0].0) < 0.05);
        assert_eq!(Calibration::fit(&samples[..50]), None, "one kind alone says nothing");
    }

    #[test]
    fn the_scope_looks_at_what_is_nearest_whoever_has_it() {
        let e = |close: [f32; CLOSE], learned| {
            let digest = crate::adapter::AdapterDigest::of(b"x");
            (
                0.0,
                Evidence {
                    digest,
                    semantic: 0.0,
                    centroid: close[0],
                    name: 0.0,
                    keyword: 0.0,
                    vectors: 9,
                    learned,
                    close,
                },
            )
        };
        let ranking =
            [e([0.9, 0.5, 0.4, -1.0, -1.0], Some(-2.0)), e([0.8, 0.7, 0.6, 0.5, 0.4], Some(-0.5)), e([-1.0; 5], None)];
        let signals = Signals::of_scope(&ranking).0;
        assert_eq!(signals[0], 0.9);
        assert!((signals[1] - 0.7).abs() < 1e-6, "0.9, 0.8, 0.7, 0.6, 0.5: {signals:?}");
        assert_eq!(signals[2..4], [0.9, -0.5]);
        assert_eq!(Signals::of_scope(&[]), Signals::default());
        assert_eq!(Signals::default().beside(1.0).0[OF_SCOPE], FARTHEST);
    }

    #[test]
    fn without_a_threshold_the_likelier_way_is_taken() {
        let judge = |confidence, scope| Judgement { confidence, scope };
        assert!(judge(0.4, 0.9).takes(None) && !judge(0.4, 0.5).takes(None));
        assert!(
            judge(0.5, 0.5).takes(None) && !judge(0.49, 0.49).takes(None),
            "one curve for both: more likely than not"
        );
        assert!(!judge(0.4, 0.9).takes(Some(0.5)) && judge(0.5, 0.1).takes(Some(0.5)));
        assert!(!judge(f32::NAN, 0.9).takes(None));
    }

    #[test]
    fn a_rising_curve_leaves_out_what_would_lower_it() {
        let both = |n: usize| {
            let mut one = sample((n % 10) as f32, n % 10 + n % 3 > 5);
            one.0.0[1] = -one.0.0[0] + (n % 7) as f32;
            one
        };
        let curve = Calibration::fit_rising(&(0..210).map(both).collect::<Vec<_>>()).expect("both kinds");
        assert!(curve.weights[0] > 0.5 && curve.weights[1] >= 0.0, "{curve:?}");
        let falling: Vec<_> = (0..100).map(|n| sample(n as f32 / 100.0, n < 50)).collect();
        assert_eq!(Calibration::fit_rising(&falling).expect("both kinds").weights, [0.0; SIGNALS]);
    }

    #[test]
    fn numbers_that_are_none_give_no_confidence() {
        let curve = Calibration { weights: [1.0; SIGNALS], bias: 0.0 };
        assert_eq!(curve.confidence(&Signals([f32::NAN; SIGNALS])), 0.0);
    }
}
