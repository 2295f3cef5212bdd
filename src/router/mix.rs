//! What part of a mix each of its adapters gets for one request. Pure arithmetic.

/// A part with a smaller share than this much of the best one's has none.
const LEAST: f32 = 0.1;
/// Shares are whole numbers of these: a weight is part of cache keys, and noise in the last bit must not make another set
/// of it.
const PARTS: u32 = 1000;

/// The shares of parts with these scores: a softmax, without those that have less than a tenth of the best one's share, in
/// thousandths that add up to 1. A part without a score has no share. `None` when no part has a score.
pub fn mix(scores: &[Option<f32>], sharpness: f32) -> Option<Vec<f32>> {
    let best = scores.iter().flatten().copied().filter(|score| score.is_finite()).max_by(f32::total_cmp)?;
    let exact = |score: &Option<f32>| score.map_or(0.0, |score| ((score - best) * sharpness).exp());
    // The best one has 1 here, so that what is below the least is told at once.
    let exact: Vec<f32> = scores.iter().map(exact).map(|share| if share >= LEAST { share } else { 0.0 }).collect();
    let sum: f32 = exact.iter().sum();
    let exact: Vec<f32> = exact.iter().map(|share| share / sum * PARTS as f32).collect();
    let mut whole: Vec<u32> = exact.iter().map(|share| share.floor() as u32).collect();
    // What rounding down left over goes to those that lost most by it, the first of equals first.
    let mut order: Vec<usize> = (0..exact.len()).filter(|at| exact[*at] > 0.0).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()).then_with(|| a.cmp(b)));
    let left = PARTS.saturating_sub(whole.iter().sum());
    order.iter().take(left as usize).for_each(|at| whole[*at] += 1);
    Some(whole.into_iter().map(|share| share as f32 / PARTS as f32).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_follow_the_scores() {
        let even = |n: usize| vec![Some(0.4); n];
        for (scores, sharpness, expected) in [
            (even(2), 20.0, Some(vec![0.5, 0.5])),
            (even(3), 20.0, Some(vec![0.334, 0.333, 0.333])),
            (vec![Some(0.0), Some(3.0_f32.ln())], 1.0, Some(vec![0.25, 0.75])),
            (vec![Some(0.5), Some(0.2)], 20.0, Some(vec![1.0, 0.0])),
            (vec![None, Some(-5.0), Some(f32::NAN)], 20.0, Some(vec![0.0, 1.0, 0.0])),
            (vec![None, None], 20.0, None),
            (Vec::new(), 20.0, None),
        ] {
            assert_eq!(mix(&scores, sharpness), expected, "{scores:?}");
        }
    }

    proptest! {
        #[test]
        fn shares_add_up_and_keep_the_order(scores in proptest::collection::vec(-1.0f32..1.0, 1..6)) {
            let shares = mix(&scores.iter().copied().map(Some).collect::<Vec<_>>(), 20.0).expect("scores");
            let thousandths: Vec<i64> = shares.iter().map(|share| (f64::from(*share) * 1000.0).round() as i64).collect();
            prop_assert_eq!(thousandths.iter().sum::<i64>(), 1000);
            let most = thousandths.iter().max().copied().unwrap_or(0);
            for (a, x) in scores.iter().zip(&thousandths) {
                prop_assert!(*x == 0 || 10 * x >= most - 10);
                for (b, y) in scores.iter().zip(&thousandths) {
                    prop_assert!(a <= b || x + 1 >= *y, "a better one has no less, rounding aside");
                }
            }
        }
    }
}
