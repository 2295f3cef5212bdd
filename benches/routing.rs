//! Benches of the router's stages, no model needed. One file per stage in `routing/`.

use criterion::{criterion_group, criterion_main};

#[path = "routing/embed.rs"]
mod embed;

criterion_group!(routing, embed::bench);
criterion_main!(routing);
