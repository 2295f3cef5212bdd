//! Adapters that read the same, of which a gate lets only some in: one for each segment of customers, say.
//!
//! A trained head gives all of them together what one of them would have. Where the metadata has said which of them is
//! meant, the others' part is that one's.

use crate::router::Evidence;

/// Cosines that differ by less are equal; vectors in the index are rounded.
const EQUAL: f32 = 1e-3;

/// Whether the example prompts of two adapters read the same to a request. Their names are others always, and the centroids have a part of them.
fn alike(a: &Evidence, b: &Evidence) -> bool {
    a.vectors == b.vectors && a.close.iter().zip(b.close).all(|(a, b)| (a - b).abs() < EQUAL)
}

/// Gives what the head says of `outside`, whom the gate keeps out, to those inside that read the same, in equal parts.
pub fn hand_over(inside: &mut [Evidence], outside: &[Evidence]) {
    for (kept_out, log) in outside.iter().filter_map(|e| Some((e, e.learned?))) {
        let mut twins: Vec<&mut Evidence> =
            inside.iter_mut().filter(|e| e.learned.is_some() && alike(e, kept_out)).collect();
        let part = log.exp() / twins.len().max(1) as f32;
        for learned in twins.iter_mut().filter_map(|twin| twin.learned.as_mut()) {
            *learned = (learned.exp() + part).ln().min(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::AdapterDigest;
    use crate::router::index::CLOSE;

    fn evidence(close: f32, probability: Option<f32>) -> Evidence {
        Evidence {
            digest: AdapterDigest::of(b"x"),
            semantic: close,
            centroid: 0.5,
            name: 0.4,
            keyword: 0.1,
            vectors: 4,
            close: [close; CLOSE],
            learned: probability.map(f32::ln),
        }
    }

    #[test]
    fn what_a_twin_outside_has_goes_to_those_inside() {
        let probabilities = |inside: &[(f32, Option<f32>)], outside: &[(f32, Option<f32>)]| -> Vec<Option<f32>> {
            let all = |of: &[(f32, Option<f32>)]| of.iter().map(|(s, p)| evidence(*s, *p)).collect::<Vec<_>>();
            let mut inside = all(inside);
            hand_over(&mut inside, &all(outside));
            inside.iter().map(|e| e.learned.map(|log| (log.exp() * 1e4).round() / 1e4)).collect()
        };
        for (inside, outside, expected) in [
            (&[(0.8, Some(0.3)), (0.2, Some(0.05))][..], &[(0.8, Some(0.6))][..], &[Some(0.9), Some(0.05)][..]),
            (&[(0.8, Some(0.2)), (0.8, Some(0.2))], &[(0.8, Some(0.5))], &[Some(0.45), Some(0.45)]),
            (&[(0.7, Some(0.3))], &[(0.8, Some(0.6))], &[Some(0.3)]),
            (&[(0.8, None)], &[(0.8, Some(0.6))], &[None]),
            (&[(0.8, Some(0.3))], &[(0.8, Some(0.3)), (0.8, Some(0.39))], &[Some(0.99)]),
            (&[(0.8, Some(0.6))], &[(0.8, Some(0.6))], &[Some(1.0)]),
        ] {
            assert_eq!(probabilities(inside, outside), expected, "{inside:?} {outside:?}");
        }
    }
}
