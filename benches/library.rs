//! A made-up library of N nano adapters: how long it takes to build, to open, to pin by name, to verify, and what it
//! costs in memory. `scripts/bench/library.sh --count N [--json OUT] [--dir DIR]` runs it.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};
use smoa::library::{Access, Filter, Library, Page, synthetic};

const SEED: u64 = 1;

fn main() {
    let mut count = 10_000u64;
    let (mut out, mut dir) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} takes a value"));
        match arg.as_str() {
            "--count" => count = value().parse().expect("--count takes a number"),
            "--json" => out = Some(PathBuf::from(value())),
            "--dir" => dir = Some(PathBuf::from(value())),
            // What `cargo bench` itself passes.
            _ => (),
        }
    }
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.unwrap_or_else(|| scratch.path().join("library"));
    let measured = measure(&dir, count);
    for (name, value) in measured.as_object().into_iter().flatten() {
        println!("{name:<28} {value}");
    }
    if let Some(path) = out {
        std::fs::write(path, measured.to_string()).expect("written");
    }
}

fn measure(dir: &std::path::Path, count: u64) -> Value {
    let seconds = |start: Instant| (start.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    let start = Instant::now();
    let library = Library::create(dir).expect("created");
    synthetic::fill(&library, count, SEED, |done| eprintln!("{done} adapters, {:.1} s", start.elapsed().as_secs_f64()))
        .expect("filled");
    let build = seconds(start);
    drop(library);

    let opens: Vec<f64> = (0..20).map(|_| timed(|| drop(Library::open(dir, Access::Read).expect("opened")))).collect();
    let library = Library::open(dir, Access::Read).expect("opened");
    let mut numbers = synthetic::Numbers::new(99);
    let mut pins = Vec::new();
    for _ in 0..20_000.min(count * 20) {
        let name = synthetic::name(numbers.below(count), SEED).expect("a name");
        pins.push(timed(|| assert!(!library.pin(&name).expect("pinned").bytes().is_empty())));
    }
    let resident = memory("Anonymous:");
    let mapped = memory("Rss:").saturating_sub(memory("Anonymous:"));
    let list = timed(|| assert!(!library.list(&Filter::default(), &Page::first(50)).expect("listed").is_empty()));
    let start = Instant::now();
    let report = library.verify().expect("verified");
    json!({
        "adapters": count,
        "build_s": build,
        "open_ms_p50": percentile(&opens, 0.5) * 1e3,
        "open_ms_max": percentile(&opens, 1.0) * 1e3,
        "pin_us_p50": percentile(&pins, 0.5) * 1e6,
        "pin_us_p99": percentile(&pins, 0.99) * 1e6,
        "list_50_ms": list * 1e3,
        "verify_s": seconds(start),
        "verify_problems": report.problems.len(),
        "anonymous_kib": resident,
        "mapped_kib": mapped,
    })
}

fn timed(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64()
}

fn percentile(times: &[f64], at: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}

/// A line of `/proc/self/smaps_rollup`, KiB; 0 where there is none.
fn memory(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    found.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}
