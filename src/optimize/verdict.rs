//! Whether a merged adapter may stand for another: by the distributions of the next token that both give.

use std::collections::{BTreeMap, BTreeSet};

/// Probabilities of the next token: the most probable ones; the rest is one further event.
pub type Distribution = BTreeMap<u32, f64>;

/// The Jensen-Shannon divergence of two distributions, in nats: 0 for equal ones, at most ln 2. A token that one of them
/// does not list counts as impossible there, which can only make the divergence larger, never smaller.
pub fn divergence(one: &Distribution, other: &Distribution) -> f64 {
    let all: BTreeSet<u32> = one.keys().chain(other.keys()).copied().collect();
    let part = |of: &Distribution| {
        let mut listed: Vec<f64> = all.iter().map(|token| of.get(token).copied().unwrap_or(0.0)).collect();
        listed.push((1.0 - of.values().sum::<f64>()).max(0.0));
        listed
    };
    let term = |p: f64, middle: f64| if p > 0.0 && middle > 0.0 { p * (p / middle).ln() } else { 0.0 };
    let sum = part(one).into_iter().zip(part(other)).map(|(p, q)| {
        let middle = (p + q) / 2.0;
        (term(p, middle) + term(q, middle)) / 2.0
    });
    sum.sum::<f64>().max(0.0)
}

/// What a merge must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Largest mean divergence from the unmerged adapter, in nats.
    pub divergence: f64,
    /// Largest share of the divergence that the base, and a random adapter of the same norm, have from it.
    pub share: f64,
    /// Fewest positions compared.
    pub positions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { divergence: 0.02, share: 0.25, positions: 4 }
    }
}

/// Mean divergences from one unmerged adapter, and what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Of the merged one.
    pub merged: f64,
    /// Of the base without adapters.
    pub base: f64,
    /// Of a random adapter of the same norm.
    pub random: f64,
    /// Positions compared.
    pub positions: usize,
    /// Why it is not accepted; none when it is.
    pub refused: Option<String>,
}

/// Compares distributions at the same positions under the unmerged adapter, the merged one, the base and a random adapter.
pub fn judge(
    unmerged: &[Distribution],
    merged: &[Distribution],
    base: &[Distribution],
    random: &[Distribution],
    limits: Limits,
) -> Judged {
    let mean = |of: &[Distribution]| {
        let all: Vec<f64> = unmerged.iter().zip(of).map(|(one, other)| divergence(one, other)).collect();
        if all.is_empty() { 0.0 } else { all.iter().sum::<f64>() / all.len() as f64 }
    };
    let positions = unmerged.len().min(merged.len()).min(base.len()).min(random.len());
    let (of_merged, of_base, of_random) = (mean(merged), mean(base), mean(random));
    let refused = if positions < limits.positions {
        Some(format!("{positions} positions to compare, {} are needed: give example prompts", limits.positions))
    } else if of_merged > limits.divergence {
        Some(format!("divergence {of_merged:.4} is above {}", limits.divergence))
    } else if of_merged > of_base.min(of_random) * limits.share {
        Some(format!(
            "divergence {of_merged:.4} is more than {} of that of the base ({of_base:.4}) or of a random adapter ({of_random:.4})",
            limits.share
        ))
    } else {
        None
    };
    Judged { merged: of_merged, base: of_base, random: of_random, positions, refused }
}
