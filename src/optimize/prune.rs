//! Which adapters are dead weight: seldom used, or seldom good, and old enough to be judged.

use crate::library::{Feedback, Usage};

/// What an adapter is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its name, for the order of equals.
    pub name: String,
    /// Counts of its answers.
    pub usage: Usage,
    /// What people said of them.
    pub feedback: Feedback,
    /// Seconds since it was added.
    pub age: u64,
    /// Seconds since it was used last; its age when never.
    pub idle: u64,
    /// Other adapters name it as their parent, or it is tagged `keep`.
    pub kept: bool,
}

/// When an adapter may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PruneRules {
    /// With fewer uses than this.
    pub uses: u64,
    /// Or with a smaller share of good answers than this, once as many were judged as `uses`.
    pub success: f64,
    /// But not before so many seconds.
    pub age: u64,
}

impl Default for PruneRules {
    fn default() -> Self {
        Self { uses: 10, success: 0.3, age: 30 * 86_400 }
    }
}

impl Standing {
    /// The share of good answers: as people said, else of those that came to their end; 1 without any.
    pub fn success(&self) -> f64 {
        let ended = (self.usage.uses > 0).then(|| self.usage.successes as f64 / self.usage.uses as f64);
        self.feedback.rate().or(ended).unwrap_or(1.0)
    }

    /// From 0, dead, to 1: half by uses (as many as the rules want is full), three tenths by success, two tenths by how
    /// lately it was used (half of it is lost each 30 days).
    pub fn score(&self, rules: &PruneRules) -> f64 {
        let used = (self.usage.uses as f64 / rules.uses.max(1) as f64).min(1.0);
        let lately = 0.5f64.powf(self.idle as f64 / (30.0 * 86_400.0));
        0.5 * used + 0.3 * self.success() * used.max(0.1) + 0.2 * lately
    }

    /// Why it may go; none when it stays.
    pub fn reason(&self, rules: &PruneRules) -> Option<String> {
        if self.kept || self.age < rules.age {
            return None;
        }
        let judged = self.feedback.good + self.feedback.bad;
        let enough = judged.max(if judged == 0 { self.usage.uses } else { 0 }) >= rules.uses;
        if enough && self.success() < rules.success {
            return Some(format!("{:.0} % of its answers were good", self.success() * 100.0));
        }
        (self.usage.uses < rules.uses && self.idle >= rules.age).then(|| format!("{} uses", self.usage.uses))
    }
}

/// The places of those that may go, lowest score first, with score and reason.
pub fn prune(all: &[Standing], rules: &PruneRules) -> Vec<(usize, f64, String)> {
    let mut found: Vec<(usize, f64, String)> = all
        .iter()
        .enumerate()
        .filter_map(|(at, standing)| Some((at, standing.score(rules), standing.reason(rules)?)))
        .collect();
    let name = |at: usize| all.get(at).map(|s| s.name.as_str());
    found.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| name(a.0).cmp(&name(b.0))));
    found
}
