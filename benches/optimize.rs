//! Near duplicates at scale: made-up libraries with planted twins (noised, rescaled, other factors), the time and memory of
//! sketches, candidates and statistics, and whether all twins and nothing else is found.
//!
//! `cargo bench --bench optimize [-- SIZE ..]`; without sizes: 1,000, 10,000 and 100,000. Prints a table in Markdown.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use smoa::library::{AdapterName, Card, Filter, Library, Metadata, OnConflict, synthetic, synthetic::Numbers};
use smoa::merge::{Deltas, Method, cosine, merge};
use smoa::optimize::{PruneRules, Standing, prune, scan, twins};

const BASE: &str = "5a1e71c000000000";
const SEED: u64 = 11;
const BOUND: f64 = 0.9;

fn main() {
    let sizes: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 10_000, 100_000] } else { sizes };
    println!(
        "| adapters | twins planted | found | false | pairs compared | of all pairs | sketches made | sketches read | twins sought | 100,000 uses noted and written | all judged | memory |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for size in sizes {
        println!("{}", row(size));
    }
}

fn row(size: u64) -> String {
    let home = tempfile::tempdir().expect("a folder");
    let library = Library::create(&home.path().join("library")).expect("created");
    synthetic::fill(&library, size, SEED, |_| ()).expect("filled");
    let planted = plant(&library, size);

    let timed = |act: &mut dyn FnMut()| {
        let start = Instant::now();
        act();
        start.elapsed()
    };
    let made = timed(&mut || drop(scan(&library, BASE, |_| ()).expect("scanned")));
    let mut found = None;
    let read = timed(&mut || found = Some(scan(&library, BASE, |_| ()).expect("scanned")));
    let found = found.expect("scanned");
    let mut result = None;
    let sought = timed(&mut || result = Some(twins(&library, &found, BOUND).expect("compared")));
    let (pairs, compared) = result.expect("compared");
    let names: BTreeSet<(String, String)> = pairs
        .iter()
        .map(|t| (found.entries[t.one].name.to_string(), found.entries[t.other].name.to_string()))
        .collect();
    let right = names.intersection(&planted).count();
    let all = found.entries.len() as f64 * (found.entries.len() as f64 - 1.0) / 2.0;

    let mut numbers = Numbers::new(5);
    let uses = timed(&mut || {
        for _ in 0..100_000 {
            let entry = &found.entries[numbers.below(found.entries.len() as u64) as usize];
            library.record_use(entry.digest, true, Duration::from_millis(3));
        }
        library.flush_uses().expect("written");
    });
    let judged = timed(&mut || {
        let mut all = Vec::new();
        for entry in library.walk(&Filter::default()) {
            let entry = entry.expect("sound");
            all.push(Standing {
                name: entry.name.to_string(),
                usage: library.usage(entry.digest).expect("read"),
                feedback: library.feedback(entry.digest).expect("read"),
                age: 90 * 86_400,
                idle: 90 * 86_400,
                kept: false,
            });
        }
        drop(prune(&all, &PruneRules::default()));
    });
    let ms = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    format!(
        "| {} | {} | {right} | {} | {compared} | {:.1e} | {} | {} | {} | {} | {} | {} MiB |",
        found.entries.len(),
        planted.len(),
        names.len() - right,
        compared as f64 / all,
        ms(made),
        ms(read),
        ms(sought),
        ms(uses),
        ms(judged),
        anonymous_mib(),
    )
}

/// Adds twins of one adapter in a hundred: rescaled, with other factors, noised to a cosine above the bound.
fn plant(library: &Library, size: u64) -> BTreeSet<(String, String)> {
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

/// Anonymous resident memory of this process, MiB; 0 where it cannot be read.
fn anonymous_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}
