//! The decision: evidence in, route out. No engine, no disk, no clock; the same in, the same out.

use std::collections::BTreeMap;

use crate::adapter::{AdapterDigest, AdapterSet};

use super::confidence::{Calibration, Judgement, SIGNALS, Signals};
use super::score::{Weights, descend, tag_fit};
use super::{Catalogue, Chosen, Evidence, Facts, Policy, Ranked, Route, Strategy};

/// The numbers that decisions are made with: weights, and for each strategy what its rankings say about being right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuning {
    /// Of the scores.
    pub weights: Weights,
    /// Measured for this library; strategies that have none take [`default_calibration`].
    pub calibrations: BTreeMap<Strategy, Calibration>,
    /// Likewise, what they say about any adapter being right. Without it, that is as likely as that the best one is.
    pub scopes: BTreeMap<Strategy, Calibration>,
    /// What people said of the answers of adapters: `ln((good + 1) / (bad + 1))`. For [`Strategy::Learned`].
    pub standing: BTreeMap<AdapterDigest, f32>,
}

impl Tuning {
    /// The curve of a strategy.
    pub fn calibration(&self, strategy: Strategy) -> Calibration {
        self.calibrations.get(&strategy).copied().unwrap_or_else(|| default_calibration(strategy))
    }

    /// What an adapter gets by a strategy that looks at one adapter at a time.
    pub fn score(&self, strategy: Strategy, e: &Evidence) -> f32 {
        let standing = match strategy {
            Strategy::Learned => self.standing.get(&e.digest).map_or(0.0, |said| self.weights.rerank.standing * said),
            _ => 0.0,
        };
        self.weights.score(strategy, e) + standing
    }

    /// What the curves of a strategy say of its ranking, best first.
    pub fn judge(&self, strategy: Strategy, ranking: &[(f32, Evidence)]) -> Judgement {
        let (curve, signals) = (self.calibration(strategy), Signals::of(ranking));
        match self.scopes.get(&strategy) {
            Some(of_scope) => {
                let scope = of_scope.confidence(&Signals::of_scope(ranking));
                Judgement { confidence: curve.confidence(&signals.beside(scope)), scope }
            }
            None => {
                let confidence = curve.confidence(&signals);
                Judgement { confidence, scope: confidence }
            }
        }
    }
}

/// The curve of a strategy in a library that nothing was measured for; fitted on the developer parts of CLINC150 and
/// BANKING77 with five and with twenty example prompts an adapter, 15 % of requests out of scope; see docs/routing.md.
pub fn default_calibration(strategy: Strategy) -> Calibration {
    let (weights, bias): ([f32; SIGNALS], f32) = match strategy {
        Strategy::Keyword => ([-0.6, 6.1, -1.6, 8.4, -0.6, 9.2, -3.7, 0.0, 0.0], -2.9),
        Strategy::Semantic => ([1.4, 11.2, -2.0, 4.8, 1.5, 3.9, -2.5, 0.0, 0.0], -2.65),
        Strategy::Learned => ([0.0, 0.2, 0.1, 3.8, -1.2, 1.9, -3.1, 0.8, 0.0], 0.6),
        _ => ([3.2, 13.2, 0.1, 3.8, -1.2, 1.9, -3.1, 0.0, 0.0], -3.2),
    };
    Calibration { weights, bias }
}

/// Decides. `text` is the request's; `evidence` holds each adapter once, in any order.
pub fn decide(policy: &Policy, tuning: &Tuning, text: &str, evidence: &[Evidence], catalogue: &dyn Catalogue) -> Route {
    let strategy = policy.strategy;
    let (ranking, facts) = rank(policy, tuning, text, evidence, catalogue);
    let Some((best, _)) = ranking.first().zip(facts.first()) else {
        let reason = match evidence.is_empty() {
            true => "no adapter fits the request's metadata, or the library has none: the base model answers",
            false => "no adapter has the tags asked for: the base model answers",
        };
        return Route::base(strategy, reason);
    };
    let judgement = tuning.judge(strategy, &ranking);
    let shares = shares(&ranking, tuning.weights.sharpness(strategy));
    let candidates: Vec<Ranked> = ranking
        .iter()
        .zip(&facts)
        .zip(&shares)
        .map(|(((score, evidence), facts), share)| Ranked {
            name: facts.name.clone(),
            score: *score,
            share: *share,
            evidence: *evidence,
        })
        .collect();
    let sure = judgement.takes(policy.threshold);
    let adapters = if sure { choose(policy, &candidates) } else { Vec::new() };
    let reason = reason(policy, judgement, best, &candidates, adapters.len());
    let format = if sure { facts.into_iter().next().and_then(|facts| facts.format) } else { None };
    let Judgement { confidence, scope } = judgement;
    Route { strategy, adapters, confidence, scope, format, reason, candidates }
}

/// The ranking of a strategy, best first, equal ones by digest; with the facts of the first [`Route::CANDIDATES`].
/// Adapters that the catalogue does not know any more are left out as far as the facts go.
pub fn rank(
    policy: &Policy,
    tuning: &Tuning,
    text: &str,
    evidence: &[Evidence],
    catalogue: &dyn Catalogue,
) -> (Vec<(f32, Evidence)>, Vec<Facts>) {
    let score = |e: &Evidence| (tuning.score(policy.strategy, e), *e);
    let mut ranking: Vec<(f32, Evidence)> = evidence.iter().map(score).collect();
    sort(&mut ranking);
    let ranking = match policy.strategy {
        Strategy::Task => {
            let mut known = with_facts(ranking, catalogue, usize::MAX);
            let fit = |facts: &Facts| tag_fit(facts, &policy.wanted, text);
            if !policy.wanted.is_empty() {
                known.retain(|(_, facts)| fit(facts) > 0.0);
            }
            known.iter_mut().for_each(|((score, _), facts)| *score = fit(facts) + 0.5 * *score);
            return split(known);
        }
        Strategy::Hierarchical => {
            let mut known = with_facts(ranking, catalogue, usize::MAX);
            let paths: Vec<(f32, &str)> =
                known.iter().map(|((score, _), facts)| (*score, facts.path.as_str())).collect();
            let stayed = descend(&paths);
            // One for each level would drown the scores in the signals; a little keeps the order.
            known.iter_mut().zip(stayed).for_each(|(((score, _), _), levels)| *score += 0.05 * levels as f32);
            return split(known);
        }
        _ => ranking,
    };
    let (first, facts) = split(with_facts(ranking.clone(), catalogue, Route::CANDIDATES));
    let rest = ranking.into_iter().filter(|(score, e)| {
        let last = first.last().map_or(f32::MAX, |(score, _)| *score);
        *score <= last && !first.iter().any(|(_, f)| f.digest == e.digest)
    });
    let rest: Vec<(f32, Evidence)> = rest.collect();
    (first.into_iter().chain(rest).collect(), facts)
}

fn sort(ranking: &mut [(f32, Evidence)]) {
    ranking.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.digest.cmp(&b.1.digest)));
}

fn with_facts(ranking: Vec<(f32, Evidence)>, catalogue: &dyn Catalogue, most: usize) -> Vec<((f32, Evidence), Facts)> {
    let known = ranking.into_iter().filter_map(|one| catalogue.facts(one.1.digest).map(|facts| (one, facts)));
    known.take(most).collect()
}

fn split(mut known: Vec<((f32, Evidence), Facts)>) -> (Vec<(f32, Evidence)>, Vec<Facts>) {
    known.sort_by(|a, b| b.0.0.total_cmp(&a.0.0).then_with(|| a.0.1.digest.cmp(&b.0.1.digest)));
    let (ranking, mut facts): (Vec<_>, Vec<_>) = known.into_iter().unzip();
    facts.truncate(Route::CANDIDATES);
    (ranking, facts)
}

/// Each candidate's part of the whole: a softmax over all scores.
fn shares(ranking: &[(f32, Evidence)], sharpness: f32) -> Vec<f32> {
    let most = ranking.first().map_or(0.0, |(score, _)| *score);
    let weights: Vec<f32> = ranking.iter().map(|(score, _)| ((score - most) * sharpness).exp()).collect();
    let sum: f32 = weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
    weights.iter().map(|weight| weight / sum).collect()
}

/// The best few. Alone, an adapter has its full weight; several have their shares, none below a tenth of the best.
fn choose(policy: &Policy, candidates: &[Ranked]) -> Vec<Chosen> {
    let top_k = policy.top_k.clamp(1, AdapterSet::MAX);
    let best = candidates.first().map_or(0.0, |candidate| candidate.share);
    let few: Vec<&Ranked> = candidates.iter().take(top_k).filter(|c| c.share >= 0.1 * best).collect();
    let sum: f32 = few.iter().map(|candidate| candidate.share).sum::<f32>().max(f32::MIN_POSITIVE);
    // Thousandths: a weight is part of cache keys, and noise in the last bit must not make another set of it.
    let weight = |share: f32| ((share / sum) * 1000.0).round() / 1000.0;
    let chosen = |c: &&Ranked| Chosen { digest: c.evidence.digest, name: c.name.clone(), weight: weight(c.share) };
    few.iter().map(chosen).collect()
}

fn reason(policy: &Policy, judged: Judgement, best: &(f32, Evidence), candidates: &[Ranked], chosen: usize) -> String {
    let name = candidates.first().map_or("", |candidate| candidate.name.as_str());
    if chosen == 0 {
        let least = match policy.threshold {
            Some(threshold) => format!("the threshold is {threshold:.2}"),
            None => format!("that no adapter fits has {:.2}", 1.0 - judged.scope),
        };
        return format!(
            "no adapter is sure enough: the best is '{name}' with confidence {:.2}, {least}; the base model answers",
            judged.confidence
        );
    }
    let e = best.1;
    let mut parts = match policy.strategy {
        Strategy::Keyword => format!("words {:.2}", e.keyword),
        Strategy::Semantic => format!("meaning {:.2}", e.semantic),
        _ => format!("meaning {:.2}, words {:.2}", e.semantic, e.keyword),
    };
    if let Some(log) = e.learned.filter(|_| policy.strategy == Strategy::Learned) {
        parts = format!("learned {:.2}, {parts}", log.exp());
    }
    let next =
        candidates.get(1).map_or(String::new(), |c| format!("; next '{}' with a share of {:.2}", c.name, c.share));
    let mixed = if chosen > 1 { format!(" in a mix of {chosen}") } else { String::new() };
    format!("'{name}' fits best{mixed} ({parts}){next}")
}
