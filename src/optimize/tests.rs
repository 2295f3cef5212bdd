//! Groups, verdicts, scores as tables; a made-up library with planted twins.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::library::{
    AdapterName, Card, Feedback, Filter, Kind, Library, Measured, Metadata, OnConflict, Page, Usage, synthetic,
};
use crate::merge::Deltas;

#[test]
fn groups_have_the_most_used_in_their_middle_and_no_chains() {
    let twin = |one, other| Twin { one, other, cosine: 0.95 };
    let uses = |at: usize| [5, 1, 9, 0, 0, 7][at];
    // 0-1, 1-2, 3-4: 2 is most used and takes 1; 0 is left alone.
    let groups = group(&[twin(0, 1), twin(1, 2), twin(3, 4)], uses);
    let members: Vec<Vec<usize>> = groups.iter().map(|g| g.members().collect()).collect();
    assert_eq!(members, [vec![2, 1], vec![3, 4]]);
    assert!(group(&[], uses).is_empty());
}

fn distribution(pairs: &[(u32, f64)]) -> Distribution {
    pairs.iter().copied().collect::<BTreeMap<_, _>>()
}

#[test]
fn divergence_is_jensen_and_shannons() {
    let (a, b) = (distribution(&[(1, 0.5), (2, 0.5)]), distribution(&[(3, 1.0)]));
    let half = distribution(&[(1, 0.25), (2, 0.75)]);
    let by_hand = {
        let kl = |p: [f64; 2], m: [f64; 2]| p[0] * (p[0] / m[0]).ln() + p[1] * (p[1] / m[1]).ln();
        let m = [0.375, 0.625];
        (kl([0.5, 0.5], m) + kl([0.25, 0.75], m)) / 2.0
    };
    for (one, other, wanted) in [(&a, &a, 0.0), (&a, &half, by_hand), (&half, &a, by_hand)] {
        assert!((divergence(one, other) - wanted).abs() < 1e-12, "{one:?} {other:?}");
    }
    assert!((divergence(&a, &b) - 2f64.ln()).abs() < 1e-12, "nothing in common");
    let listed = distribution(&[(1, 0.9), (2, 0.05), (9, 0.01)]);
    let moved = distribution(&[(1, 0.1), (2, 0.85), (8, 0.01)]);
    assert!(divergence(&listed, &moved) > 0.3);
}

#[test]
fn merges_are_accepted_only_when_everything_holds() {
    let sure = |p: f64| vec![distribution(&[(1, p), (2, 1.0 - p)]); 5];
    let limits = Limits::default();
    let table = [
        (sure(0.9), sure(0.89), sure(0.2), sure(0.3), None),
        (sure(0.9), sure(0.5), sure(0.2), sure(0.3), Some("is above")),
        (sure(0.9), sure(0.8), sure(0.7), sure(0.3), Some("of the base")),
        (sure(0.9), sure(0.8), sure(0.3), sure(0.75), Some("random")),
        (sure(0.9)[..2].to_vec(), sure(0.9), sure(0.2), sure(0.3), Some("2 positions")),
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Some("0 positions")),
    ];
    for (unmerged, merged, base, random, words) in table {
        let judged = judge(&unmerged, &merged, &base, &random, limits);
        match words {
            None => assert_eq!(judged.refused, None, "{judged:?}"),
            Some(words) => assert!(judged.refused.as_ref().is_some_and(|r| r.contains(words)), "{words}: {judged:?}"),
        }
    }
}

#[test]
fn the_dead_are_named_and_the_living_stay() {
    let day = 86_400;
    let standing = |name: &str, uses: u64, good: u64, bad: u64, age: u64, idle: u64| Standing {
        name: name.into(),
        usage: Usage { uses, successes: uses, latency: Duration::ZERO, last_used: 0 },
        feedback: Feedback { good, bad },
        age: age * day,
        idle: idle * day,
        kept: false,
    };
    let all = [
        standing("used", 500, 0, 0, 90, 1),
        standing("never", 0, 0, 0, 90, 90),
        standing("young", 0, 0, 0, 2, 2),
        standing("hated", 100, 2, 20, 90, 1),
        standing("once", 3, 0, 0, 90, 60),
        standing("lately", 3, 0, 0, 90, 5),
        Standing { kept: true, ..standing("parent", 0, 0, 0, 90, 90) },
        standing("few-votes", 100, 0, 2, 90, 1),
    ];
    let rules = PruneRules::default();
    let found = prune(&all, &rules);
    let names: Vec<&str> = found.iter().map(|(at, ..)| all[*at].name.as_str()).collect();
    assert_eq!(names, ["never", "once", "hated"]);
    assert!(all[0].score(&rules) > 0.95 && all[1].score(&rules) < 0.1);
    assert!(found[2].2.contains("9 %"), "{found:?}");
}

/// A library of made-up adapters in which some are twins of others.
fn planted() -> (tempfile::TempDir, Library, Vec<(String, String)>) {
    let home = tempfile::tempdir().expect("a folder");
    let library = Library::create(&home.path().join("library")).expect("created");
    synthetic::fill(&library, 400, 7, |_| ()).expect("filled");
    let mut pairs = Vec::new();
    for index in 0..20 {
        let original = synthetic::name(index * 19, 7).expect("a name");
        let pinned = library.pin(&original).expect("there");
        let deltas = Deltas::read_alone(pinned.bytes()).expect("read");
        let twin = AdapterName::new(format!("twin-{index:02}")).expect("a name");
        let bytes = deltas.scaled(1.0 + index as f32 * 0.05).to_gguf(twin.as_str()).expect("written");
        let measured = Measured { kind: Some(Kind::Lora), ..pinned.entry().metadata.measured.clone() };
        library.add(&twin, &bytes, &Metadata { card: Card::default(), measured }, OnConflict::Refuse).expect("added");
        pairs.push((original.to_string(), twin.to_string()));
    }
    (home, library, pairs)
}

#[test]
fn planted_twins_are_found_merged_and_undone() {
    let (_home, library, planted) = planted();
    let base = "5a1e71c000000000";
    let first = scan(&library, base, |_| ()).expect("scanned");
    assert_eq!((first.entries.len(), first.made, first.left_out), (420, 420, 0));
    let again = scan(&library, base, |_| ()).expect("scanned");
    assert_eq!((again.made, again.sketches == first.sketches), (0, true), "sketches are kept");
    let (found, compared) = twins(&library, &again, 0.9).expect("compared");
    let mut names: Vec<(String, String)> = found
        .iter()
        .map(|t| (again.entries[t.one].name.to_string(), again.entries[t.other].name.to_string()))
        .collect();
    let mut planted = planted;
    names.sort();
    planted.sort();
    assert_eq!(names, planted, "all of them and no others");
    assert!(compared < 60, "{compared} of 87,990 pairs were looked at");

    let groups = group(&found, |_| 0);
    let entries: Vec<_> = groups[0].members().map(|at| &again.entries[at]).collect();
    let parts: Vec<Deltas> = entries
        .iter()
        .map(|e| Deltas::read_alone(library.pin_digest(e.digest).expect("there").bytes()).expect("read"))
        .collect();
    let weighed: Vec<_> = parts.iter().map(|d| (d, 0.5)).collect();
    let merged = crate::merge::merge(&weighed, crate::merge::Method::Svd, None).expect("merged");
    let bytes = merged.deltas.to_gguf("merged").expect("written");
    let names: Vec<AdapterName> = entries.iter().map(|e| e.name.clone()).collect();
    let before: Vec<Vec<u8>> = names.iter().map(|n| library.pin(n).expect("there").bytes().to_vec()).collect();
    let facts = synthetic::facts(Deltas::read_alone(&bytes).expect("read").rank() as u32);
    let number = apply_merge(&library, &entries, &bytes, (&facts, merged.error), "a test").expect("applied");
    for name in &names {
        let pinned = library.pin(name).expect("there");
        assert_eq!(pinned.bytes(), bytes, "both names stand for the merged content");
        assert_eq!(pinned.entry().metadata.card.parents.len(), 2);
    }
    assert!(apply_merge(&library, &entries, &bytes, (&facts, 0.0), "stale").is_err(), "what was read is old by now");
    let after = scan(&library, base, |_| ()).expect("scanned");
    assert_eq!(after.entries.len(), 419, "one content less");
    library.undo(number).expect("undone");
    let back: Vec<Vec<u8>> = names.iter().map(|n| library.pin(n).expect("there").bytes().to_vec()).collect();
    assert_eq!(back, before, "bit for bit");

    let gone = library.find(&names[0]).expect("there");
    let number = apply_prune(&library, &[&gone], "not used").expect("removed");
    assert!(library.find(&names[0]).is_err());
    library.undo(number).expect("undone");
    assert_eq!(library.find(&names[0]).expect("back").digest, gone.digest);
    assert!(library.verify().expect("looked").is_clean());
    assert_eq!(library.list(&Filter::default(), &Page::first(1000)).expect("listed").len(), 420);
}
