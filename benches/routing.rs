//! Our own code on the way from a text to adapters: deciding, remembering, the trained head, and all of it together over
//! a small library. The stages before it are in `routing/`, a file each.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ndarray::Array1;
use smoa::adapter::AdapterDigest;
use smoa::library::{Card, Library, Metadata, OnConflict, synthetic};
use smoa::router::embed::{Embedder, StaticEmbedder};
use smoa::router::head::{Head, Plan, Row, Vectorizer, train};
use smoa::router::index::synthetic::Generator;
use smoa::router::{Catalogue, DecisionCache, Evidence, Facts, Policy, Strategy, Tuning, decide};
use smoa::routing::evaluate::name_of;
use smoa::routing::{Ask, Router};

#[path = "routing/embed.rs"]
mod embed;
#[path = "routing/index.rs"]
mod index;

struct Known;

impl Catalogue for Known {
    fn facts(&self, digest: AdapterDigest) -> Option<Facts> {
        Some(Facts { name: digest.to_string(), path: "a/b".into(), ..Facts::default() })
    }
}

fn evidence() -> Vec<Evidence> {
    let one = |n: u32| {
        let x = (n * 37 % 128) as f32 / 128.0;
        let digest = AdapterDigest::of(&n.to_le_bytes());
        Evidence {
            digest,
            semantic: x,
            centroid: x * 0.9,
            name: 0.2,
            keyword: 1.0 - x,
            vectors: 22,
            learned: Some(-x),
            close: [x; 5],
        }
    };
    (0..128).map(one).collect()
}

fn decisions(c: &mut Criterion) {
    let (all, tuning) = (evidence(), Tuning::default());
    for strategy in Strategy::ALL {
        let policy = Policy::of(strategy);
        c.bench_function(&format!("decide/{strategy}/128 candidates"), |b| {
            b.iter(|| decide(&policy, &tuning, "please set an alarm for seven", black_box(&all), &Known));
        });
    }
    let route = Arc::new(decide(&Policy::of(Strategy::Hybrid), &tuning, "", &all, &Known));
    let mut cache = DecisionCache::default();
    let keys: Vec<_> = (0..4096u32).map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
    keys.iter().for_each(|key| cache.put(*key, 1, Duration::ZERO, route.clone()));
    c.bench_function("cache/hit", |b| b.iter(|| cache.get(black_box(&keys[77]), 1, Duration::ZERO)));
    c.bench_function("cache/put into a full one", |b| {
        let mut n = 0u32;
        b.iter(|| {
            n += 1;
            cache.put(*blake3::hash(&n.to_be_bytes()).as_bytes(), 1, Duration::ZERO, route.clone());
        });
    });
}

fn heads(c: &mut Criterion) {
    let generator = Generator::new(3);
    let texts: Vec<String> = (0..3000).map(|n| generator.distractor(n).description).collect();
    let vectorizer = Vectorizer::fit(texts.iter().map(String::as_str), 2);
    let plan = Plan { epochs: 1, ..Plan::default() };
    let row = |(n, text): (usize, &String)| Row {
        dense: Array1::from_elem(256, 0.0625),
        sparse: vectorizer.transform(text, plan.words),
        class: n % 150,
    };
    let rows: Vec<Row> = texts.iter().enumerate().map(row).collect();
    let (weights, _) = train(&rows, &[], &vectorizer, 150, &plan);
    let digests = (0..150u32).map(|n| AdapterDigest::of(&n.to_le_bytes())).collect();
    let head = Head::new([0; 32], digests, vectorizer.clone(), &weights, plan.words);
    let vector = vec![0.0625; 256];
    c.bench_function("head/150 classes, one text", |b| {
        b.iter(|| head.log_probabilities(&vector, black_box(&texts[5])))
    });
    let mut group = c.benchmark_group("head");
    group.sample_size(10);
    group.bench_function("one pass over 3,000 texts", |b| b.iter(|| train(&rows, &[], &vectorizer, 150, &plan)));
}

fn routing(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("library");
    let library = Library::create(&dir).expect("created");
    let mut writer = library.writer().expect("a writer");
    let generator = Generator::new(1);
    for n in 0..2000u64 {
        let made = generator.distractor(n);
        let (bytes, metadata) = synthetic::adapter(n, 1).expect("made");
        let card = Card { description: Some(made.description), title: Some(made.name), ..Card::default() };
        let metadata = Metadata { card, ..metadata };
        writer.add(&name_of(&format!("a{n}")).expect("a name"), &bytes, &metadata, OnConflict::Refuse).expect("added");
    }
    writer.commit().expect("committed");
    let embedder: Arc<dyn Embedder> = Arc::new(StaticEmbedder::builtin());
    let router = Router::open(&dir, embedder, &mut |_| ()).expect("opened");
    let asks: Vec<Ask> = (0..1000).map(|n| Ask::text(generator.wish(n))).collect();
    let mut n = 0;
    c.bench_function("route/2,000 adapters, not cached", |b| {
        b.iter_batched(
            || {
                n = (n + 1) % asks.len();
                &asks[n]
            },
            |ask| router.decide(ask),
            BatchSize::SmallInput,
        );
    });
    router.route(&asks[0]).expect("routed");
    c.bench_function("route/cached", |b| b.iter(|| router.route(black_box(&asks[0])).expect("routed")));
}

criterion_group!(benches, embed::bench, index::benches, decisions, heads, routing);
criterion_main!(benches);
