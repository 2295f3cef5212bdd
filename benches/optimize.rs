//! Near duplicates at scale: made-up libraries with planted twins (noised, rescaled, other factors), the time and memory of
//! sketches, candidates and statistics, and whether all twins and nothing else is found.
//!
//! `cargo bench --bench optimize [-- SIZE ..]`; without sizes: 1,000, 10,000 and 100,000. Prints a table in Markdown.

#[path = "optimize/plant.rs"]
mod plant;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plant::{BASE, BOUND, SEED, plant};
use smoa::library::{Filter, Library, synthetic, synthetic::Numbers};
use smoa::optimize::{PruneRules, Standing, prune, scan, twins};

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

/// Anonymous resident memory of this process, MiB; 0 where it cannot be read.
fn anonymous_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}
