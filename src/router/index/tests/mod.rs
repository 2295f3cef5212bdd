//! Laws of the index, against a model that is a map and a loop.

mod crash;
mod model;

use std::collections::HashSet;

use proptest::prelude::*;
use tempfile::tempdir;

use super::*;
use crate::adapter::AdapterDigest;
use model::{DIM, EMBEDDER, Fact, Model, fact, vector};

/// Puts facts in.
fn put(index: &Index, facts: &[Fact]) {
    let changes: Vec<Change<'_>> = facts.iter().map(|fact| Change::Put(fact.profile())).collect();
    index.apply(&changes).expect("applied");
}

fn open(dir: &Path) -> Index {
    Index::open(dir, EMBEDDER, DIM).expect("opened")
}

/// Compares searches with the model: the same digests with scores as near as quantization lets them be.
fn agrees(index: &Index, model: &Model, gate: &Gate, seed: u64) {
    let (vector, text) = (vector(seed), format!("word{} word{} topic{}", seed % 17, seed % 5, seed % 3));
    let limit = 8;
    let query = Query { vector: &vector, text: &text, gate, limit };
    let found = index.search(&query);
    assert_eq!(found, index.search(&query), "the same again");
    assert!(found.len() <= 2 * limit);
    assert!(found.windows(2).all(|w| w[0].semantic > w[1].semantic || w[0].digest < w[1].digest), "sorted");
    let expected = model.scores(&vector, gate);
    for candidate in &found {
        let fact = model.get(&candidate.digest).expect("only what is in it");
        assert!(gate.allows(&fact.attributes), "behind the gate");
        let (exact, name, centroid) = expected[&candidate.digest];
        assert!((candidate.semantic - exact).abs() < 0.03, "{} {exact}", candidate.semantic);
        assert!((candidate.name_similarity - name).abs() < 0.03 && (candidate.centroid - centroid).abs() < 0.03);
        assert!((0.0..=1.0).contains(&candidate.keyword));
        assert_eq!(candidate.vectors, fact.vectors.len());
        let examples = fact.vectors.iter().skip(if fact.vectors.len() > 2 { 2 } else { 0 });
        let mut close: Vec<f32> = examples.map(|v| v.iter().zip(&vector).map(|(a, b)| a * b).sum()).collect();
        close.sort_by(|a, b| b.total_cmp(a));
        close.truncate(if fact.vectors.len() > 2 { CLOSE } else { 1 });
        close.resize(CLOSE, -1.0);
        assert!(candidate.close.iter().zip(&close).all(|(a, b)| (a - b).abs() < 0.03), "{candidate:?} {close:?}");
    }
    let mut best: Vec<f32> = expected.values().map(|(semantic, ..)| *semantic).collect();
    best.sort_by(|a, b| b.total_cmp(a));
    let worst = best.get(limit.min(best.len()).wrapping_sub(1)).copied().unwrap_or(-1.0);
    let digests: HashSet<AdapterDigest> = found.iter().map(|c| c.digest).collect();
    for (digest, (semantic, ..)) in &expected {
        assert!(*semantic < worst + 0.06 || digests.contains(digest), "a near one is missing: {semantic} {worst}");
    }
    assert!(found.len() >= limit.min(expected.len()));
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u64>),
    Remove(u64),
    Both(u64, u64),
    Bulk(u64),
    Compact,
    Reopen,
    Search(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(0..60_u64, 1..6).prop_map(Step::Put),
        3 => (0..60_u64).prop_map(Step::Remove),
        2 => (0..60_u64, 0..60_u64).prop_map(|(a, b)| Step::Both(a, b)),
        1 => (0..60_u64).prop_map(Step::Bulk),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        4 => any::<u64>().prop_map(Step::Search),
    ];
    prop::collection::vec(step, 1..25)
}

fn gates(seed: u64) -> Vec<Gate> {
    let region = ["eu", "us", "mars"][seed as usize % 3];
    vec![
        Gate::open(),
        Gate::open().require("region", region),
        Gate::open().require("region", region).strict(),
        Gate::open().any_of("region", ["eu", "us"]).require("tenant", format!("t{}", seed % 5)).strict(),
        Gate::open().require("path", "law").any_of("nothing", Vec::<String>::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_agrees_with_a_map(steps in steps()) {
        let dir = tempdir().expect("a temporary directory");
        let (mut index, other) = (open(dir.path()), open(dir.path()));
        let mut model = Model::default();
        let mut version = 0;
        let mut generation = 0;
        for step in steps {
            match step {
                Step::Put(numbers) => {
                    version += 1;
                    let facts: Vec<Fact> = numbers.iter().map(|n| fact(*n, version)).collect();
                    put(&index, &facts);
                    facts.into_iter().for_each(|fact| model.put(fact));
                }
                Step::Remove(number) => {
                    let digest = fact(number, 0).digest;
                    index.apply(&[Change::Remove(digest)]).expect("applied");
                    model.remove(&digest);
                }
                Step::Both(a, b) => {
                    version += 1;
                    let (a, b) = (fact(a, version), fact(b, version));
                    index.apply(&[Change::Put(a.profile()), Change::Remove(a.digest), Change::Put(b.profile())]).expect("applied");
                    model.remove(&a.digest);
                    model.put(b);
                }
                Step::Bulk(from) => {
                    version += 1;
                    // The same few, so often that they are sealed at once.
                    let facts: Vec<Fact> = (0..4200).map(|n| fact(from + n % 4, version)).collect();
                    put(&index, &facts);
                    facts.into_iter().rev().take(4).for_each(|fact| model.put(fact));
                }
                Step::Compact => index.compact().expect("compacted"),
                Step::Reopen => index = open(dir.path()),
                Step::Search(seed) => gates(seed).iter().for_each(|gate| agrees(&index, &model, gate, seed)),
            }
            prop_assert_eq!(index.len(), model.len());
            prop_assert!(index.generation() >= generation);
            generation = index.generation();
        }
        gates(7).iter().for_each(|gate| agrees(&index, &model, gate, 7));
        // Another process would see the same; so does another handle.
        gates(8).iter().for_each(|gate| agrees(&other, &model, gate, 8));
        prop_assert_eq!(other.generation(), index.generation());
        let again = open(dir.path());
        let (vector, gate) = (vector(3), Gate::open());
        let query = Query { vector: &vector, text: "word3", gate: &gate, limit: 5 };
        prop_assert_eq!(again.search(&query), index.search(&query));
    }
}

/// Enough vectors for a graph.
#[test]
fn a_graph_finds_what_a_scan_finds_and_no_gate_leaks() {
    let dir = tempdir().expect("a temporary directory");
    let index = open(dir.path());
    let facts: Vec<Fact> = (0..6000).map(|n| fact(n, 1)).collect();
    facts.chunks(2500).for_each(|part| put(&index, part));
    assert!(index.wants_compaction());
    let mut model = Model::default();
    facts.into_iter().for_each(|fact| model.put(fact));
    let scanned: Vec<Vec<Candidate>> = (0..20).map(|seed| near(&index, seed)).collect();
    index.compact().expect("compacted");
    assert!(!index.wants_compaction());
    let stats = index.stats();
    assert!(stats.segments == 1 && stats.graph_bytes > 0 && stats.entries == 6000, "{stats:?}");
    let graphed: Vec<Vec<Candidate>> = (0..20).map(|seed| near(&index, seed)).collect();
    let same = scanned.iter().zip(&graphed).map(|(a, b)| {
        let b: HashSet<AdapterDigest> = b.iter().map(|c| c.digest).collect();
        a.iter().filter(|c| b.contains(&c.digest)).count()
    });
    assert!(same.sum::<usize>() >= 190, "at least 95 of 100");
    for seed in 0..10 {
        gates(seed).iter().for_each(|gate| agrees(&index, &model, gate, seed));
    }
    // Added, replaced and removed beside the sealed ones.
    let more: Vec<Fact> = (5990..6010).map(|n| fact(n, 2)).collect();
    put(&index, &more);
    more.into_iter().for_each(|fact| model.put(fact));
    for n in 0..100 {
        let digest = fact(n, 1).digest;
        index.apply(&[Change::Remove(digest)]).expect("applied");
        model.remove(&digest);
        assert!(!index.contains(&digest));
    }
    for seed in 0..10 {
        gates(seed).iter().for_each(|gate| agrees(&index, &model, gate, seed));
    }
    assert_eq!(index.len(), model.len());
}

fn near(index: &Index, seed: u64) -> Vec<Candidate> {
    index.search(&Query { vector: &vector(seed), text: "", gate: &Gate::open(), limit: 10 })
}

#[test]
fn words_find_adapters_whatever_the_vector() {
    let dir = tempdir().expect("a temporary directory");
    let index = open(dir.path());
    put(&index, &(0..50).map(|n| fact(n, 1)).collect::<Vec<_>>());
    for compacted in [false, true] {
        if compacted {
            index.compact().expect("compacted");
        }
        let gate = Gate::open();
        fn query<'a>(vector: &'a [f32], text: &'a str, gate: &'a Gate) -> Query<'a> {
            Query { vector, text, gate, limit: 1 }
        }
        let found = index.search(&query(&[], "the unique33 of all", &gate));
        assert_eq!(found.iter().map(|c| c.digest).collect::<Vec<_>>(), [fact(33, 1).digest]);
        assert!(found[0].keyword > 0.2);
        assert!(index.search(&query(&[], "", &gate)).is_empty());
        for hostile in
            [String::new(), "\0\u{7}\u{1b}".into(), "天 ü ß 🦀".into(), "word1 ".repeat(200_000), "x".repeat(1 << 20)]
        {
            assert!(index.search(&query(&vector(1), &hostile, &gate)).len() <= 2);
        }
        let bad = [vec![f32::NAN; DIM], vec![f32::INFINITY; DIM], vec![0.0; DIM], vec![1.0; DIM + 1]];
        assert!(bad.iter().all(|bad| index.search(&query(bad, "word1", &gate)).iter().all(|c| c.semantic.is_finite())));
    }
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let dir = tempdir().expect("a temporary directory");
    let index = open(dir.path());
    let good = fact(1, 1);
    let refuse = |change: fn(&mut Fact)| {
        let mut bad = fact(2, 1);
        change(&mut bad);
        let error = index.apply(&[Change::Put(good.profile()), Change::Put(bad.profile())]).expect_err("refused");
        assert!(matches!(error, IndexError::Profile { .. }), "{error}");
        assert!(index.is_empty());
    };
    refuse(|fact| fact.vectors.clear());
    refuse(|fact| fact.vectors = vec![fact.vectors[0].clone(); MAX_VECTORS + 1]);
    refuse(|fact| fact.vectors[0].truncate(3));
    refuse(|fact| fact.vectors[0][0] = f32::NAN);
    refuse(|fact| fact.attributes.push(("a\0b".into(), "c".into())));
    for (embedder, dim) in [([9; 32], DIM), (EMBEDDER, DIM + 1)] {
        let error = Index::open(dir.path(), embedder, dim).expect_err("another embedder");
        assert!(matches!(error, IndexError::EmbedderChanged { .. }), "{error}");
    }
    assert!(matches!(Index::open(dir.path(), EMBEDDER, 0), Err(IndexError::Dimension { .. })));
}
