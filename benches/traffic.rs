//! A month of made-up traffic over a made-up library with planted twins: what the caches keep, what is merged and what is
//! pruned, and what that does to storage and caches.
//!
//! `cargo bench --bench traffic [-- ADAPTERS] [TRAIN.jsonl FRESH.jsonl]` (5,000; with files of `{"text", "label"}` also a
//! month of a router that learns from judgements, see `optimize/routed.rs`). Requests follow Zipf's law over a ranking that drifts: each day one rank
//! in fifty is swapped with another. One adapter in twenty answers badly. The clock is made up too; seeds are fixed. There is
//! no model here, so merges are accepted by their cosine alone; `tests/it/optimize.rs` has the check with the model.

#[path = "optimize/plant.rs"]
mod plant;
#[path = "optimize/routed.rs"]
mod routed;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use plant::{BASE, BOUND, SEED, plant};
use smoa::adapter::{AdapterDigest, ByteLru};
use smoa::library::{AdapterName, Entry, Filter, Library, OnConflict, synthetic, synthetic::Numbers};
use smoa::merge::{Deltas, Method, merge};
use smoa::optimize::{PruneRules, Standing, apply_prune, group, prune, scan, twins};

const DAYS: usize = 30;
const REQUESTS: usize = 20_000;
const EXPONENT: f64 = 1.05;

/// The requests of the month: for each day the names asked for.
struct Month {
    names: Vec<AdapterName>,
    days: Vec<Vec<usize>>,
}

fn main() {
    let size = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(5_000);
    let home = tempfile::tempdir().expect("a folder");
    let library = Library::create(&home.path().join("library")).expect("created");
    synthetic::fill(&library, size, SEED, |_| ()).expect("filled");
    let planted = plant(&library, size);
    let entries: Vec<Entry> = library.walk(&Filter::default()).map(|e| e.expect("sound")).collect();
    let month = month(entries.iter().map(|e| e.name.clone()).collect());
    let bytes: u64 = entries.iter().map(|e| e.bytes).sum();

    println!("{} adapters, {} of them planted twins, {bytes} bytes\n", entries.len(), planted.len());
    println!("| week | requests | adapters asked for | hit rate, cache of 1 % | of 5 % | of 20 % of all bytes |");
    println!("|---:|---:|---:|---:|---:|---:|");
    let before = play(&month, &entries, bytes, Some(&library));
    for (week, row) in before.iter().enumerate() {
        println!("| {} | {} | {} | {:.3} | {:.3} | {:.3} |", week + 1, row.0, row.1, row.2[0], row.2[1], row.2[2]);
    }
    library.flush_uses().expect("written");

    let merged = merge_all(&library);
    let pruned = prune_all(&library, &month);
    let report = library.gc().expect("collected");
    let after: Vec<Entry> = library.walk(&Filter::default()).map(|e| e.expect("sound")).collect();
    let replayed = play(&month, &after, bytes, None);
    let contents: HashSet<AdapterDigest> = after.iter().map(|e| e.digest).collect();
    println!("\n| figure | before | after |\n|---|---:|---:|");
    println!("| names | {} | {} |", entries.len(), after.len());
    println!("| contents | {} | {} |", entries.iter().map(|e| e.digest).collect::<HashSet<_>>().len(), contents.len());
    println!("| groups merged (planted {}) | - | {merged} |", planted.len());
    println!("| removed for use or success | - | {} |", pruned.0);
    println!("| of those, asked for in the last week | - | {} |", pruned.1);
    println!("| bytes on disk, before and after gc | {} | {} |", report.bytes_before, report.bytes_after);
    let last = |all: &[(usize, usize, [f64; 3])]| all.last().map_or(0.0, |row| row.2[1]);
    println!("| hit rate of the last whole week, cache of 5 % | {:.3} | {:.3} |", last(&before), last(&replayed));
    assert!(library.verify().expect("looked").is_clean());
    let files: Vec<String> = std::env::args().filter(|word| word.ends_with(".jsonl")).collect();
    if let [train, fresh] = files.as_slice() {
        routed::month(train.as_ref(), fresh.as_ref());
    }
}

fn month(names: Vec<AdapterName>) -> Month {
    let mut numbers = Numbers::new(SEED);
    let mut ranking: Vec<usize> = (0..names.len()).collect();
    for at in (1..ranking.len()).rev() {
        ranking.swap(at, numbers.below(at as u64 + 1) as usize);
    }
    let mut sums: Vec<f64> = Vec::with_capacity(names.len());
    for rank in 1..=names.len() {
        sums.push(sums.last().copied().unwrap_or(0.0) + (rank as f64).powf(-EXPONENT));
    }
    let total = sums.last().copied().unwrap_or(1.0);
    let mut days = Vec::new();
    for _ in 0..DAYS {
        let draw = |numbers: &mut Numbers| {
            let at = (numbers.draw() >> 11) as f64 / (1u64 << 53) as f64 * total;
            ranking[sums.partition_point(|sum| *sum < at).min(ranking.len() - 1)]
        };
        days.push((0..REQUESTS).map(|_| draw(&mut numbers)).collect());
        for _ in 0..ranking.len() / 50 {
            let (one, other) = (numbers.below(names.len() as u64), numbers.below(names.len() as u64));
            ranking.swap(one as usize, other as usize);
        }
    }
    Month { names, days }
}

/// Plays the month: for each whole week the requests, the adapters asked for, and the hit rates of caches of three sizes.
/// Names that are gone are answered by the base. With a library, uses are recorded.
fn play(month: &Month, entries: &[Entry], bytes: u64, library: Option<&Library>) -> Vec<(usize, usize, [f64; 3])> {
    let by_name: HashMap<&AdapterName, &Entry> = entries.iter().map(|e| (&e.name, e)).collect();
    let mut caches = [0.01, 0.05, 0.20].map(|share| ByteLru::<AdapterDigest>::new((bytes as f64 * share) as u64));
    let mut quality = Numbers::new(3);
    let mut weeks = Vec::new();
    for week in month.days.chunks_exact(7) {
        let (mut asked, mut requests, mut hits) = (HashSet::new(), 0, [0usize; 3]);
        for name in week.iter().flatten() {
            let Some(entry) = by_name.get(&month.names[*name]) else { continue };
            requests += 1;
            asked.insert(entry.digest);
            for (cache, hits) in caches.iter_mut().zip(&mut hits) {
                match cache.touch(&entry.digest) {
                    true => *hits += 1,
                    false => drop(cache.insert(entry.digest, entry.bytes)),
                }
            }
            if let Some(library) = library {
                let good = if bad(*name) { quality.below(100) < 20 } else { quality.below(100) < 95 };
                library.record_use(entry.digest, good, Duration::from_millis(40));
            }
        }
        weeks.push((requests, asked.len(), hits.map(|h| h as f64 / requests.max(1) as f64)));
    }
    weeks
}

/// One adapter in twenty answers badly.
fn bad(name: usize) -> bool {
    name % 20 == 7
}

fn merge_all(library: &Library) -> usize {
    let found = scan(library, BASE, |_| ()).expect("scanned");
    let (pairs, _) = twins(library, &found, BOUND).expect("compared");
    let uses = |at: usize| library.usage(found.entries[at].digest).expect("read").uses;
    let groups = group(&pairs, uses);
    let mut writer = library.writer().expect("a writer");
    for group in &groups {
        let members: Vec<&Entry> = group.members().map(|at| &found.entries[at]).collect();
        let parts: Vec<Deltas> = members
            .iter()
            .map(|e| Deltas::read_alone(library.pin_digest(e.digest).expect("there").bytes()).expect("read"))
            .collect();
        let weighed: Vec<(&Deltas, f32)> = parts.iter().map(|d| (d, 1.0 / parts.len() as f32)).collect();
        let merged = merge(&weighed, Method::Svd, None).expect("merged").deltas;
        let bytes = merged.to_gguf(members[0].name.as_str()).expect("written");
        for member in members {
            writer.add(&member.name, &bytes, &member.metadata, OnConflict::Replace).expect("replaced");
        }
    }
    writer.commit().expect("committed");
    groups.len()
}

/// Prunes by the standing that the month left; how many went, and how many of them were asked for in the last week.
fn prune_all(library: &Library, month: &Month) -> (usize, usize) {
    let mut last: HashMap<&AdapterName, usize> = HashMap::new();
    let mut counts: HashMap<&AdapterName, u64> = HashMap::new();
    for (day, names) in month.days.iter().enumerate() {
        for name in names {
            last.insert(&month.names[*name], day);
            *counts.entry(&month.names[*name]).or_default() += 1;
        }
    }
    let day = |days: usize| days as u64 * 86_400;
    let mut entries = Vec::new();
    let mut standings = Vec::new();
    for (index, name) in month.names.iter().enumerate() {
        let Ok(entry) = library.find(name) else { continue };
        // Contents that were merged are new; what the name was asked for stands for them.
        let uses = counts.get(name).copied().unwrap_or(0);
        let successes = if bad(index) { uses / 5 } else { uses * 95 / 100 };
        let usage = smoa::library::Usage { uses, successes, latency: Duration::ZERO, last_used: 0 };
        let idle = last.get(name).map_or(day(90), |last| day(DAYS - last));
        let feedback = smoa::library::Feedback::default();
        standings.push(Standing { name: name.to_string(), usage, feedback, age: day(90), idle, kept: false });
        entries.push(entry);
    }
    // Seldom used within a month is enough here: the month is all there is.
    let rules = PruneRules { age: day(14), ..PruneRules::default() };
    let found = prune(&standings, &rules);
    let gone: Vec<&Entry> = found.iter().map(|(at, ..)| &entries[*at]).collect();
    let lately = gone.iter().filter(|e| last.get(&e.name).is_some_and(|last| *last + 7 >= DAYS)).count();
    apply_prune(library, &gone, "a month's dead").expect("removed");
    (gone.len(), lately)
}
