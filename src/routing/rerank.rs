//! How much a head's word counts beside the evidence: a conditional logit over candidates (McFadden, 1973), fitted on
//! held-back prompts by Newton's method.

use std::collections::BTreeMap;

use crate::adapter::AdapterDigest;
use crate::router::{Evidence, Rerank};

/// Numbers in [`Rerank`].
const N: usize = 8;
/// Log probabilities below this count as this.
const FLOOR: f32 = -12.0;

/// One request: its candidates and the right one.
pub struct Question<'q> {
    /// Candidates.
    pub evidence: &'q [Evidence],
    /// The right adapter.
    pub right: AdapterDigest,
    /// What people said of adapters.
    pub standing: &'q BTreeMap<AdapterDigest, f32>,
    /// As if the head did not know the right adapter: what it is to be added after the training.
    pub as_new: bool,
}

fn features(e: &Evidence, question: &Question<'_>) -> [f64; N] {
    let unknown = e.learned.is_none() || (question.as_new && e.digest == question.right);
    let learned = if unknown { 0.0 } else { e.learned.unwrap_or(FLOOR).max(FLOOR) };
    let standing = question.standing.get(&e.digest).copied().unwrap_or(0.0);
    let unknown = f32::from(u8::from(unknown));
    [learned, e.semantic, e.centroid, e.name, e.keyword, unknown, e.nearest(), standing].map(f64::from)
}

/// The weights under which the right candidates are likeliest. Questions whose right adapter is no candidate say
/// nothing. New adapters count for a tenth.
pub fn fit(questions: &[Question<'_>]) -> Option<Rerank> {
    let mut w = [1.0, 3.0, 0.0, 0.0, 2.0, -3.0, 0.0, 0.0];
    // Towards these weights everything is pulled a little.
    let prior = w;
    let pull = [1e-2, 0.2, 0.2, 0.2, 0.2, 1e-2, 0.2, 0.2];
    let prepared: Vec<(Vec<[f64; N]>, usize, f64)> = questions
        .iter()
        .filter_map(|question| {
            let at = question.evidence.iter().position(|e| e.digest == question.right)?;
            let rows = question.evidence.iter().map(|e| features(e, question)).collect();
            Some((rows, at, if question.as_new { 0.1 } else { 1.0 }))
        })
        .collect();
    if prepared.is_empty() {
        return None;
    }
    for _ in 0..40 {
        let (mut gradient, mut hessian) = ([0.0; N], [[0.0; N]; N]);
        for i in 0..N {
            gradient[i] = pull[i] * (w[i] - prior[i]);
            hessian[i][i] = pull[i];
        }
        for (rows, right, weight) in &prepared {
            let scores: Vec<f64> = rows.iter().map(|x| dot(&w, x)).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut p: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let sum: f64 = p.iter().sum();
            p.iter_mut().for_each(|p| *p /= sum);
            let mut mean = [0.0; N];
            for (x, p) in rows.iter().zip(&p) {
                (0..N).for_each(|i| mean[i] += p * x[i]);
            }
            for i in 0..N {
                gradient[i] += weight * (mean[i] - rows[*right][i]);
            }
            for (x, p) in rows.iter().zip(&p) {
                for i in 0..N {
                    for j in 0..N {
                        hessian[i][j] += weight * p * (x[i] - mean[i]) * (x[j] - mean[j]);
                    }
                }
            }
        }
        let step = crate::router::solve(hessian, gradient)?;
        let size = step.iter().map(|s| s * s).sum::<f64>().sqrt();
        let cut = if size > 4.0 { 4.0 / size } else { 1.0 };
        (0..N).for_each(|i| w[i] -= cut * step[i]);
        if size < 1e-6 {
            break;
        }
    }
    let [learned, semantic, centroid, name, keyword, unknown, close, standing] = w.map(|w| w as f32);
    let fitted = Rerank { learned, semantic, centroid, name, keyword, unknown, close, standing };
    w.iter().all(|w| w.is_finite()).then_some(fitted)
}

fn dot(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_the_right_ones_gets_the_weight() {
        let digest = |n: u8| AdapterDigest::of(&[n]);
        let e = |n: u8, semantic, keyword| Evidence {
            digest: digest(n),
            semantic,
            centroid: 0.0,
            name: 0.0,
            keyword,
            vectors: 9,
            learned: Some(-1.0),
            close: [-1.0; 5],
        };
        // The words are right, the meaning is noise.
        let all: Vec<[Evidence; 2]> =
            (0..40).map(|n| [e(0, f32::from(n % 2 == 0), 0.9), e(1, f32::from(n % 2 == 1), 0.1)]).collect();
        let fitted = |said: &BTreeMap<AdapterDigest, f32>| {
            let question = |evidence| Question { evidence, right: digest(0), standing: said, as_new: false };
            fit(&all.iter().map(|evidence| question(evidence.as_slice())).collect::<Vec<_>>()).expect("fitted")
        };
        let words = fitted(&BTreeMap::new());
        assert!(words.keyword > 2.0 * words.semantic.abs() && words.standing == 0.0, "{words:?}");
        let liked = fitted(&BTreeMap::from([(digest(0), 1.5)]));
        assert!(liked.standing > 0.0, "the right ones are also those that people like: {liked:?}");
        assert_eq!(fit(&[]), None);
    }
}
