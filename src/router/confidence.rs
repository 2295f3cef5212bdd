//! How sure a decision is: a few signals of a ranking, and a logistic curve over them.
//!
//! A cosine is no probability (measured: with raw cosines 21 % of requests can be answered at 98 % right, with a
//! calibrated curve over 60 %). The signals are differences and levels that keep their meaning when a library grows:
//! the crowd is what adapters that do not fit get in this very request.

use super::Evidence;

/// Numbers in [`Signals`].
pub const SIGNALS: usize = 8;

/// The least log probability of a head that counts.
const LEAST: f32 = -12.0;

/// What a ranking looks like, apart from who is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals(pub [f32; SIGNALS]);

impl Signals {
    /// Looks at a ranking, best first.
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
    /// The probability that the best candidate is right.
    pub fn confidence(&self, signals: &Signals) -> f32 {
        let sum: f32 = self.weights.iter().zip(signals.0).map(|(w, x)| w * x).sum();
        let p = 1.0 / (1.0 + (-(sum + self.bias)).exp());
        if p.is_finite() { p } else { 0.0 }
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
    fn numbers_that_are_none_give_no_confidence() {
        let curve = Calibration { weights: [1.0; SIGNALS], bias: 0.0 };
        assert_eq!(curve.confidence(&Signals([f32::NAN; SIGNALS])), 0.0);
    }
}
