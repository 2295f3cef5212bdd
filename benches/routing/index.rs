//! Benches of the routing index at 20,000 adapters: every stage of it. Larger ones: `routing_scale`.

use std::hint::black_box;

use criterion::Criterion;
use smoa::router::index::synthetic::{Generator, vector};
use smoa::router::index::{Change, Gate, Index, Profile, Query};

const DIM: usize = 256;
const ADAPTERS: u64 = 20_000;

/// Adds the benches of the index.
pub fn benches(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = Index::open(dir.path(), [1; 32], DIM).expect("opened");
    let generator = Generator::new(1);
    let put = |numbers: std::ops::Range<u64>| {
        let made: Vec<_> = numbers
            .map(|number| {
                let made = generator.distractor(number);
                let text = format!("{} {}", made.name, made.description);
                let vectors = vec![vector(&text, DIM)];
                (made, text, vectors)
            })
            .collect();
        let profile = |(made, text, vectors)| Change::Put(profile(made, text, vectors));
        index
            .apply(&made.iter().map(|(made, text, vectors)| profile((made, text, vectors))).collect::<Vec<_>>())
            .expect("applied");
    };
    put(0..ADAPTERS);
    index.compact().expect("compacted");
    let wishes: Vec<(String, Vec<f32>)> =
        (0..64).map(|i| generator.wish(i)).map(|wish| (wish.clone(), vector(&wish, DIM))).collect();
    let mut next = 0;
    let mut search = |gate: &Gate, words: bool, vectors: bool| {
        next = (next + 1) % wishes.len();
        let (text, vector) = &wishes[next];
        let (text, vector) = (if words { text.as_str() } else { "" }, if vectors { vector.as_slice() } else { &[] });
        index.search(&Query { vector, text, gate, limit: 32 })
    };
    let (all, tenant) = (Gate::open(), Gate::open().require("tenant", "t07").strict());
    c.bench_function("index/search", |b| b.iter(|| black_box(search(&all, true, true))));
    c.bench_function("index/search-vectors", |b| b.iter(|| black_box(search(&all, false, true))));
    c.bench_function("index/search-words", |b| b.iter(|| black_box(search(&all, true, false))));
    c.bench_function("index/search-one-percent", |b| b.iter(|| black_box(search(&tenant, true, true))));
    c.bench_function("index/open", |b| b.iter(|| black_box(Index::open(dir.path(), [1; 32], DIM).expect("opened"))));
    let mut number = ADAPTERS;
    c.bench_function("index/add-one", |b| {
        b.iter(|| {
            put(number..number + 1);
            number += 1;
        });
    });
}

fn profile<'a>(
    made: &'a smoa::router::index::synthetic::Distractor,
    text: &'a str,
    vectors: &'a [Vec<f32>],
) -> Profile<'a> {
    Profile { digest: made.digest, text, vectors, attributes: &made.attributes, path: &made.path }
}
