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
    /// As if the head did not know the adapters of one group: what it is to be added after the training.
    pub new: Option<u8>,
}

/// Groups of adapters that are taken for new together.
const GROUPS: u8 = 8;

/// The group of an adapter.
fn group(digest: &AdapterDigest) -> u8 {
    digest.as_bytes()[0] % GROUPS
}

/// A request as it is, with the right adapter's group taken for new, and with another group taken for new: a new adapter
/// is to win where it is right, and not elsewhere.
pub fn variants<'q>(
    evidence: &'q [Evidence],
    right: AdapterDigest,
    standing: &'q BTreeMap<AdapterDigest, f32>,
) -> [Question<'q>; 3] {
    let own = group(&right);
    // Any group but its own, by a byte that the group was not taken from.
    let other = (own + 1 + right.as_bytes()[1] % (GROUPS - 1)) % GROUPS;
    [None, Some(own), Some(other)].map(|new| Question { evidence, right, standing, new })
}

fn features(e: &Evidence, question: &Question<'_>) -> [f64; N] {
    let unknown = e.learned.is_none() || question.new == Some(group(&e.digest));
    let learned = if unknown { 0.0 } else { e.learned.unwrap_or(FLOOR).max(FLOOR) };
    let standing = question.standing.get(&e.digest).copied().unwrap_or(0.0);
    let unknown = f32::from(u8::from(unknown));
    [learned, e.semantic, e.centroid, e.name, e.keyword, unknown, e.nearest(), standing].map(f64::from)
}

/// The weights under which the right candidates are likeliest. Questions whose right adapter is no candidate say
/// nothing. Questions with adapters taken for new count for a tenth.
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
            Some((rows, at, if question.new.is_some() { 0.1 } else { 1.0 }))
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
            let question = |evidence| Question { evidence, right: digest(0), standing: said, new: None };
            fit(&all.iter().map(|evidence| question(evidence.as_slice())).collect::<Vec<_>>()).expect("fitted")
        };
        let words = fitted(&BTreeMap::new());
        assert!(words.keyword > 2.0 * words.semantic.abs() && words.standing == 0.0, "{words:?}");
        let liked = fitted(&BTreeMap::from([(digest(0), 1.5)]));
        assert!(liked.standing > 0.0, "the right ones are also those that people like: {liked:?}");
        assert_eq!(fit(&[]), None);
    }

    /// The head and the meaning are nearly always right. An adapter that the head does not know must not win for that alone.
    #[test]
    fn a_new_adapter_does_not_win_everywhere() {
        let digests: Vec<AdapterDigest> = (0..40_u8).map(|n| AdapterDigest::of(&[n])).collect();
        let e = |at: usize, right: bool, noise: f32| Evidence {
            digest: digests[at],
            semantic: if right { 0.7 } else { 0.4 } + noise,
            centroid: 0.0,
            name: 0.0,
            keyword: 0.0,
            vectors: 9,
            learned: Some(if right { -0.2 } else { -5.0 }),
            close: [-1.0; 5],
        };
        let noise = |a: usize, b: usize| ((a * 31 + b * 17) % 23) as f32 / 100.0;
        let asked: Vec<Vec<Evidence>> =
            (0..40).map(|right| (0..40).map(|at| e(at, at == right, noise(at, right))).collect()).collect();
        let none = BTreeMap::new();
        let questions: Vec<Question<'_>> =
            asked.iter().zip(&digests).flat_map(|(evidence, right)| variants(evidence, *right, &none)).collect();
        let weights = crate::router::Weights { rerank: fit(&questions).expect("fitted"), ..Default::default() };
        let best = |evidence: &[Evidence], new: usize| {
            let seen = |at: usize, e: &Evidence| Evidence { learned: e.learned.filter(|_| at != new), ..*e };
            let scores = evidence.iter().enumerate().map(|(at, e)| weights.learned(&seen(at, e)));
            scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).expect("one").0
        };
        let right = (0..40).filter(|right| (0..40).all(|new| best(&asked[*right], new) == *right)).count();
        assert!(right >= 38, "{right} of 40 right whichever adapter is new");
    }
}
