//! When the fast embedder's answer is close enough to call to ask the slow one too.
//!
//! Each embedder has an index of its own; their scores are never mixed. The fast one ranks first, and the margin between
//! its best and second best decides whether its answer stands.

/// A request that both embedders answered, for calibration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// The fast embedder's best score less its second best.
    pub margin: f32,
    /// The fast embedder's best was right.
    pub fast_right: bool,
    /// The slow embedder's best was right.
    pub slow_right: bool,
}

/// Two embedders, the second asked only when the first is unsure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cascade {
    threshold: f32,
}

impl Default for Cascade {
    /// For margins between cosines to centroids, where nothing was calibrated; see docs/embedders.md.
    fn default() -> Self {
        Self::new(0.06)
    }
}

impl Cascade {
    /// A cascade that trusts margins of at least `threshold`. Not a number is taken as infinity: always ask.
    pub fn new(threshold: f32) -> Self {
        Self { threshold: if threshold.is_nan() { f32::INFINITY } else { threshold } }
    }

    /// The smallest threshold at which the cascade is right on at most `tolerance` (a share of the trials) fewer than
    /// the slow embedder alone. Without trials it always asks.
    pub fn calibrate(trials: &[Trial], tolerance: f32) -> Self {
        let mut trials: Vec<Trial> = trials.iter().copied().filter(|t| !t.margin.is_nan()).collect();
        trials.sort_by(|left, right| left.margin.total_cmp(&right.margin));
        if trials.is_empty() {
            return Self::new(f32::INFINITY);
        }
        let count = |right: &dyn Fn(&Trial) -> bool| trials.iter().filter(|t| right(t)).count() as i64;
        let slow = count(&|t| t.slow_right);
        let least = slow as f64 - f64::from(tolerance) * trials.len() as f64;
        // Nothing is asked below the first margin; every trial passed moves to the slow embedder.
        let mut right = count(&|t| t.fast_right);
        let mut at = 0;
        loop {
            if right as f64 >= least {
                return Self::new(trials.get(at).map_or(f32::INFINITY, |t| t.margin));
            }
            let Some(margin) = trials.get(at).map(|t| t.margin) else { return Self::new(f32::INFINITY) };
            // Equal margins move together.
            while let Some(trial) = trials.get(at).filter(|t| t.margin == margin) {
                right += i64::from(trial.slow_right) - i64::from(trial.fast_right);
                at += 1;
            }
        }
    }

    /// The margin from which the fast answer stands.
    pub fn threshold(self) -> f32 {
        self.threshold
    }

    /// Whether the slow embedder should be asked too. A margin that is not a number asks.
    pub fn needs_second_opinion(self, margin: f32) -> bool {
        margin.is_nan() || margin < self.threshold
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trial((margin, fast_right, slow_right): (f32, bool, bool)) -> Trial {
        Trial { margin, fast_right, slow_right }
    }

    fn right(cascade: Cascade, trials: &[Trial]) -> usize {
        let of = |t: &Trial| if cascade.needs_second_opinion(t.margin) { t.slow_right } else { t.fast_right };
        trials.iter().filter(|t| of(t)).count()
    }

    #[test]
    fn margins_and_opinions() {
        let cascade = Cascade::new(0.2);
        for (margin, asks) in [(0.0, true), (0.19, true), (0.2, false), (1.0, false), (f32::NAN, true)] {
            assert_eq!(cascade.needs_second_opinion(margin), asks, "{margin}");
        }
        assert!(Cascade::new(f32::NAN).needs_second_opinion(1e30));
        assert!(Cascade::calibrate(&[], 0.0).needs_second_opinion(1e30));
    }

    #[test]
    fn the_least_threshold_that_keeps_the_accuracy() {
        let trials = [(0.1, false, true), (0.2, false, true), (0.3, true, true), (0.4, true, false)].map(trial);
        assert_eq!(Cascade::calibrate(&trials, 0.0).threshold(), 0.2);
        assert_eq!(Cascade::calibrate(&trials, 0.25).threshold(), 0.1);
        // The fast embedder is better alone.
        let trials = [(0.1, true, false), (0.2, true, true)].map(trial);
        assert_eq!(Cascade::calibrate(&trials, 0.0).threshold(), 0.1);
    }

    proptest! {
        #[test]
        fn accuracy_holds(raw in prop::collection::vec((0.0_f32..1.0, any::<bool>(), any::<bool>()), 1..60), loss in 0.0_f32..0.3) {
            let trials: Vec<Trial> = raw.into_iter().map(trial).collect();
            let cascade = Cascade::calibrate(&trials, loss);
            let slow = trials.iter().filter(|t| t.slow_right).count() as f64;
            prop_assert!(right(cascade, &trials) as f64 >= slow - f64::from(loss) * trials.len() as f64 - 1e-9);
        }
    }
}
