//! Tokenizing and embedding with the table that is part of the program.

use std::hint::black_box;

use criterion::Criterion;
use smoa::router::embed::{Embedder, StaticEmbedder, bounded};

/// Texts of growing length.
pub fn bench(c: &mut Criterion) {
    let embedder = StaticEmbedder::builtin();
    let short = "how do i transfer money from my savings to my checking account";
    let long = "The quick brown fox jumps over the lazy dog, then asks for its café bill. ".repeat(20);
    let hostile = "a\u{301}#中\u{1}".repeat(200_000);
    let mut group = c.benchmark_group("embed");
    group.bench_function("12 words", |b| b.iter(|| embedder.embed(black_box(short))));
    group.bench_function("300 words", |b| b.iter(|| embedder.embed(black_box(&long))));
    group.bench_function("1.6 MB, hostile", |b| b.iter(|| embedder.embed(black_box(&hostile))));
    group.bench_function("worst words", |b| {
        let worst = format!("{} ", "z".repeat(100)).repeat(100);
        b.iter(|| embedder.embed(black_box(bounded(&worst))))
    });
    group.finish();
}
