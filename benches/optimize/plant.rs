//! Made-up libraries with planted twins.

use std::collections::BTreeSet;

use smoa::library::{AdapterName, Card, Library, Metadata, OnConflict, synthetic};
use smoa::merge::{Deltas, Method, cosine, merge};

/// The base model that made-up adapters are for.
pub const BASE: &str = "5a1e71c000000000";
/// Of every draw.
pub const SEED: u64 = 11;
/// Least cosine of twins.
pub const BOUND: f64 = 0.9;

/// Adds twins of one adapter in a hundred: rescaled, with other factors, noised to a cosine above the bound.
pub fn plant(library: &Library, size: u64) -> BTreeSet<(String, String)> {
    let mut planted = BTreeSet::new();
    let mut writer = library.writer().expect("a writer");
    for at in 0..(size / 100).clamp(10, 1_000) {
        let original = synthetic::name(at * 97 % size, SEED).expect("a name");
        let pinned = library.pin(&original).expect("there");
        let deltas = Deltas::read_alone(pinned.bytes()).expect("read");
        let twin = match at % 3 {
            0 => deltas.scaled(0.6 + (at % 7) as f32 * 0.2),
            1 => merge(&[(&deltas, 1.0)], Method::Svd, Some(1.max(deltas.rank()))).expect("merged").deltas,
            _ => {
                let noise = deltas.random_like(at).scaled(0.35);
                merge(&[(&deltas, 1.0), (&noise, 1.0)], Method::Concat, None).expect("merged").deltas
            }
        };
        if cosine(&deltas, &twin) < BOUND {
            continue;
        }
        // Names of synthetic adapters begin with a to t: the twin comes after its original.
        let name = AdapterName::new(format!("twin-{at:05}")).expect("a name");
        let bytes = twin.to_gguf(name.as_str()).expect("written");
        let metadata = Metadata { card: Card::default(), measured: pinned.entry().metadata.measured.clone() };
        writer.add(&name, &bytes, &metadata, OnConflict::KeepExisting).expect("added");
        planted.insert((original.to_string(), name.to_string()));
    }
    writer.commit().expect("committed");
    planted
}
