//! Laws of decisions.

use std::collections::HashMap;

use proptest::prelude::*;

use super::Strategy;
use super::*;
use crate::adapter::AdapterDigest;

/// A catalogue in memory.
#[derive(Default)]
struct Known(HashMap<AdapterDigest, Facts>);

impl Catalogue for Known {
    fn facts(&self, digest: AdapterDigest) -> Option<Facts> {
        self.0.get(&digest).cloned()
    }
}

fn digest(n: u64) -> AdapterDigest {
    AdapterDigest::of(&n.to_le_bytes())
}

fn evidence(n: u64, semantic: f32, keyword: f32) -> Evidence {
    Evidence {
        digest: digest(n),
        semantic,
        centroid: semantic,
        name: semantic,
        keyword,
        vectors: 22,
        learned: None,
        close: [semantic; 5],
    }
}

fn catalogue(rows: &[(u64, &str, &str, &[&str])]) -> Known {
    let facts = |(n, name, path, tags): &(u64, &str, &str, &[&str])| {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        (digest(*n), Facts { name: (*name).into(), path: (*path).into(), tags, format: Some(format!("{name}-form")) })
    };
    Known(rows.iter().map(facts).collect())
}

fn three() -> (Vec<Evidence>, Known) {
    let all = vec![evidence(1, 0.9, 0.8), evidence(2, 0.5, 0.1), evidence(3, 0.3, 0.9)];
    let known = catalogue(&[
        (1, "sql", "data/query", &["code"]),
        (2, "law", "office/law", &["law"]),
        (3, "tax", "office/tax", &["law", "tax"]),
    ]);
    (all, known)
}

fn names(route: &Route) -> Vec<&str> {
    route.adapters.iter().map(|chosen| chosen.name.as_str()).collect()
}

#[test]
fn each_strategy_chooses_by_its_own_light() {
    let (all, known) = three();
    let open = |strategy| Policy { threshold: Some(0.0), ..Policy::of(strategy) };
    let first = |policy: &Policy| {
        let route = decide(policy, &Tuning::default(), "a question", &all, &known);
        route.candidates.first().map(|c| c.name.clone()).unwrap_or_default()
    };
    assert_eq!(first(&open(Strategy::Keyword)), "tax");
    assert_eq!(first(&open(Strategy::Semantic)), "sql");
    assert_eq!(first(&open(Strategy::Hybrid)), "sql");
    let wanted = Policy { wanted: vec!["law".into()], ..open(Strategy::Task) };
    assert_eq!(first(&wanted), "tax", "both have the tag, words and meaning decide");
    let route = decide(&wanted, &Tuning::default(), "", &all, &known);
    assert!(route.candidates.iter().all(|c| c.name != "sql"), "who lacks the tag is out");
}

#[test]
fn below_the_threshold_the_base_answers_and_says_why() {
    let (all, known) = three();
    let strict = Policy { threshold: Some(1.1), ..Policy::of(Strategy::Hybrid) };
    let route = decide(&strict, &Tuning::default(), "", &all, &known);
    assert!(route.adapters.is_empty() && route.format.is_none());
    assert!(route.reason.contains("'sql'") && route.reason.contains("threshold"), "{}", route.reason);
    assert_eq!(route.candidates.len(), 3, "what was looked at is told all the same");
    let open = Policy { threshold: Some(0.0), ..strict };
    let route = decide(&open, &Tuning::default(), "", &all, &known);
    assert_eq!((names(&route), route.format.as_deref()), (vec!["sql"], Some("sql-form")));
    let nothing = decide(&open, &Tuning::default(), "", &[], &known);
    assert!(nothing.adapters.is_empty() && nothing.confidence == 0.0, "{nothing:?}");
}

#[test]
fn a_mixture_shares_the_weight() {
    let known = catalogue(&[(1, "a", "", &[]), (2, "b", "", &[]), (3, "c", "", &[])]);
    let all = [evidence(1, 0.80, 0.5), evidence(2, 0.79, 0.5), evidence(3, 0.10, 0.0)];
    let policy = Policy { threshold: Some(0.0), ..Policy::of(Strategy::Mixture) };
    let route = decide(&policy, &Tuning::default(), "", &all, &known);
    assert_eq!(names(&route), ["a", "b"], "c would add noise only");
    let sum: f32 = route.adapters.iter().map(|c| c.weight).sum();
    assert!((sum - 1.0).abs() < 2e-3 && route.adapters[0].weight > route.adapters[1].weight);
}

#[test]
fn an_adapter_that_is_gone_is_not_chosen() {
    let (all, mut known) = three();
    known.0.remove(&digest(1));
    let policy = Policy { threshold: Some(0.0), ..Policy::of(Strategy::Hybrid) };
    for strategy in Strategy::ALL {
        let route = decide(&Policy { strategy, ..policy.clone() }, &Tuning::default(), "tax law", &all, &known);
        assert!(route.candidates.iter().all(|c| c.evidence.digest != digest(1)), "{strategy}");
        assert!(!route.adapters.is_empty(), "{strategy}");
    }
}

#[test]
fn equal_evidence_is_ordered_by_digest() {
    let known = catalogue(&[(1, "a", "", &[]), (2, "b", "", &[])]);
    let pair = [evidence(1, 0.7, 0.4), evidence(2, 0.7, 0.4)];
    let expected = if digest(1) < digest(2) { "a" } else { "b" };
    for strategy in Strategy::ALL {
        let policy = Policy { threshold: Some(0.0), top_k: 1, ..Policy::of(strategy) };
        for all in [pair, [pair[1], pair[0]]] {
            let route = decide(&policy, &Tuning::default(), "", &all, &known);
            assert_eq!(names(&route), [expected], "{strategy}");
        }
    }
}

#[test]
fn names_of_strategies_are_read_back() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.name().parse(), Ok(strategy));
    }
    assert!("best".parse::<Strategy>().is_err());
}

proptest! {
    #[test]
    fn a_route_is_sound_whatever_the_evidence(
        numbers in prop::collection::vec((any::<f32>(), any::<f32>(), any::<f32>(), any::<f32>(), 0usize..70, prop::option::of(any::<f32>())), 0..40),
        strategy in 0usize..7, top_k in 0usize..9, threshold in any::<f32>(), order in any::<u64>(),
    ) {
        let mut all: Vec<Evidence> = numbers.iter().enumerate().map(|(n, (semantic, centroid, name, keyword, vectors, learned))| Evidence {
            digest: digest(n as u64), semantic: *semantic, centroid: *centroid, name: *name, keyword: *keyword, vectors: *vectors, learned: *learned, close: [*semantic, *centroid, *name, *keyword, -1.0],
        }).collect();
        let known = Known(all.iter().enumerate().map(|(n, e)| (e.digest, Facts { name: n.to_string(), path: ["", "x", "x/y", "z"][n % 4].into(), ..Facts::default() })).collect());
        let policy = Policy { strategy: Strategy::ALL[strategy], top_k, threshold: threshold.is_finite().then_some(threshold), wanted: Vec::new() };
        let route = decide(&policy, &Tuning::default(), "some text", &all, &known);
        prop_assert!(route.adapters.len() <= crate::adapter::AdapterSet::MAX);
        prop_assert!(route.candidates.len() <= Route::CANDIDATES);
        prop_assert!((0.0..=1.0).contains(&route.confidence));
        prop_assert!(!route.reason.is_empty());
        let weights: f32 = route.adapters.iter().map(|c| c.weight).sum();
        prop_assert!(route.adapters.is_empty() || (0.9..=1.1).contains(&weights), "{weights}");
        head::Shuffle(order).shuffle(&mut all);
        let again = decide(&policy, &Tuning::default(), "some text", &all, &known);
        prop_assert_eq!(format!("{route:?}"), format!("{again:?}"), "the order of the evidence says nothing");
    }
}
