//! What mixing and switching adapters costs inside the engine, on a real model: decode steps of several sequences with
//! no adapter, one for all, one each, one to five each, by rank and by number of resident adapters; laying an adapter
//! out; changing the adapter of a sequence. Prints tables; `--json OUT` keeps the numbers.
//!
//!   cargo bench --bench mixed -- --model FILE [--sequences N] [--rounds N] [--threads N] [--json OUT]
//!
//! Cases run in turns inside every round, so that a drift of the machine falls on all of them; what is printed is the
//! median over the rounds of the ratio to the case without adapters of the same round.

mod real;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use real::{adapter, fail, median};
use smoa::adapter::{AdapterFile, AdapterSet, Scale};
use smoa::engine::lanes::{LaneAdapter, Sites};
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::AdapterBatching;
use smoa::engine::{Engine, Row};

fn set(files: &[&Arc<AdapterFile>]) -> AdapterSet {
    let scale = Scale::new(1.0 / files.len().max(1) as f32).expect("in range");
    AdapterSet::new(files.iter().map(|f| (f.digest(), scale)).collect()).expect("a set")
}

const PROMPT: usize = 32;
const STEPS: usize = 24;

/// Tokens per second of prompts and of decoding, one set for each sequence.
fn run(engine: &mut LlamaEngine, sets: &[AdapterSet]) -> (f64, f64) {
    let step = |engine: &mut LlamaEngine, from: usize, to: usize| {
        let mut rows = Vec::new();
        for sequence in 0..sets.len() {
            for position in from..to {
                let token = 1000 + ((position * 37 + sequence * 991) % 20_000) as u32;
                rows.push(Row { token, position, sequence, logits: position + 1 == to, set: sequence });
            }
        }
        engine.decode(&rows, sets).expect("decoded");
    };
    let begin = Instant::now();
    step(engine, 0, PROMPT);
    let prompt = begin.elapsed().as_secs_f64();
    // The graph of decoding is built in its first step.
    step(engine, PROMPT, PROMPT + 1);
    let begin = Instant::now();
    for i in 1..=STEPS {
        step(engine, PROMPT + i, PROMPT + i + 1);
    }
    let decode = begin.elapsed().as_secs_f64();
    for sequence in 0..sets.len() {
        engine.truncate(sequence, 0);
    }
    let n = sets.len() as f64;
    (n * PROMPT as f64 / prompt, n * STEPS as f64 / decode)
}

fn main() {
    let args = real::args([("--sequences", 8), ("--rounds", 5)]).unwrap_or_else(|e| fail(&e));
    let base = smoa::model_file::check(&args.model).unwrap_or_else(|e| fail(&e.message));
    let [n, rounds] = args.counts;
    let eights: Vec<_> = (0..64).map(|i| adapter(&base, i + 1, 8)).collect();
    let ranked: Vec<(u64, Vec<_>)> =
        [4u64, 16, 32].map(|r| (r, (0..n as u64).map(|i| adapter(&base, 1000 * r + i, r)).collect())).into();
    let mixed_ranks: Vec<_> = (0..n).map(|i| [4u64, 8, 16, 32][i % 4]).enumerate().collect();
    let mixed_ranks: Vec<_> = mixed_ranks.iter().map(|(i, r)| adapter(&base, 9000 + *i as u64, *r)).collect();

    let engine = |batching| {
        let options = real::options(&args, n, PROMPT, batching);
        LlamaEngine::load(&options, &base, &mut |_| true).unwrap_or_else(|e| fail(&e.message))
    };
    let (mut lanes, mut own) = (engine(AdapterBatching::Lanes), engine(AdapterBatching::Grouped));
    let each = |files: &[Arc<AdapterFile>]| -> Vec<AdapterSet> { (0..n).map(|i| set(&[&files[i]])).collect() };
    let several = |k: usize| -> Vec<AdapterSet> {
        (0..n).map(|i| set(&(0..k).map(|j| &eights[(i * 5 + j) % 64]).collect::<Vec<_>>())).collect()
    };
    // Name, sets, files that are resident while it runs.
    type Case<'a> = (String, Vec<AdapterSet>, Vec<&'a Arc<AdapterFile>>);
    let mut cases: Vec<Case<'_>> = vec![
        ("no adapter".into(), vec![AdapterSet::base(); n], vec![]),
        ("one adapter for all, rank 8".into(), vec![set(&[&eights[0]]); n], eights.iter().take(n).collect()),
    ];
    for resident in [n, 16, 32, 64] {
        cases.push((
            format!("one each, rank 8, {resident} resident"),
            each(&eights),
            eights.iter().take(resident).collect(),
        ));
    }
    for (rank, files) in &ranked {
        cases.push((format!("one each, rank {rank}"), each(files), files.iter().collect()));
    }
    cases.push(("one each, ranks 4 to 32".into(), each(&mixed_ranks), mixed_ranks.iter().collect()));
    for k in 2..=5 {
        cases.push((format!("{k} each, rank 8"), several(k), eights.iter().collect()));
    }
    let grouped = "one adapter for all, llama.cpp's own path";

    let mut results: Vec<(String, Vec<(f64, f64)>)> =
        cases.iter().map(|(name, ..)| (name.clone(), Vec::new())).collect();
    results.push((grouped.into(), Vec::new()));
    own.load_adapters(&[eights[0].clone()], &HashSet::new()).expect("loaded");
    for round in 0..=rounds {
        for (i, (_, sets, files)) in cases.iter().enumerate() {
            let files: Vec<_> = files.iter().map(|f| (*f).clone()).collect();
            lanes.load_adapters(&files, &HashSet::new()).expect("loaded");
            let measured = run(&mut lanes, sets);
            if round > 0 {
                results[i].1.push(measured);
            }
        }
        let measured = run(&mut own, &vec![set(&[&eights[0]]); n]);
        if round > 0 {
            results.last_mut().expect("there").1.push(measured);
        }
    }
    println!(
        "| {n} sequences, {} threads | prompt tok/s | of no adapter | decode tok/s | of no adapter |",
        args.threads
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    let plain = results[0].1.clone();
    let mut json = Vec::new();
    for (name, values) in &results {
        let ratio =
            |pick: fn(&(f64, f64)) -> f64| median(values.iter().zip(&plain).map(|(v, p)| pick(v) / pick(p)).collect());
        let rate = |pick: fn(&(f64, f64)) -> f64| median(values.iter().map(pick).collect());
        let (prompt, decode) = (ratio(|v| v.0), ratio(|v| v.1));
        println!("| {name} | {:.0} | {prompt:.2} | {:.1} | {decode:.2} |", rate(|v| v.0), rate(|v| v.1));
        json.push(serde_json::json!({"case": name, "prompt_tps": rate(|v| v.0), "prompt_ratio": prompt,
                                     "decode_tps": rate(|v| v.1), "decode_ratio": decode}));
    }

    // Laying out, as a submitting thread does it, and the bytes that stay.
    let sites = Sites::of(&base);
    let five = adapter(&base, 77, 8);
    let mut times: Vec<f64> = (0..200)
        .map(|_| {
            let begin = Instant::now();
            let packed = LaneAdapter::pack(&five, &sites).expect("for lanes");
            let took = begin.elapsed().as_secs_f64() * 1e3;
            drop(packed);
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let weights = five.facts().weight_bytes as f64;
    let over = LaneAdapter::pack(&five, &sites).expect("for lanes").bytes() as f64 / weights - 1.0;
    println!(
        "\nlaying out an adapter of {:.1} MB: p50 {:.2} ms, p99 {:.2} ms; {:+.2} % over its own bytes",
        weights / 1e6,
        times[100],
        times[198],
        over * 100.0
    );
    // The same steps with the sets handed round by one place each step, against sets that stay.
    let sets = each(&eights);
    lanes.load_adapters(&eights[..n], &HashSet::new()).expect("loaded");
    let mut switching = Vec::new();
    for round in 0..4 * rounds {
        let mut took = [0.0; 2];
        // Who goes first changes from round to round.
        for which in [round % 2, 1 - round % 2] {
            for position in 0..STEPS {
                let row = |sequence| {
                    let set = (sequence + which * position) % n;
                    Row { token: 1000, position, sequence, logits: true, set }
                };
                let rows: Vec<Row> = (0..n).map(row).collect();
                let begin = Instant::now();
                lanes.decode(&rows, &sets).expect("decoded");
                took[which] += begin.elapsed().as_secs_f64() * 1e3 / STEPS as f64;
            }
            (0..n).for_each(|s| _ = lanes.truncate(s, 0));
        }
        switching.push(took[1] - took[0]);
    }
    let switch = median(switching) / n as f64;
    println!("changing the adapter of a sequence between two steps: {switch:+.3} ms (median of {})", 4 * rounds);
    real::keep(
        &args,
        &serde_json::json!({"cases": json, "layout_ms": {"p50": times[100], "p99": times[198]},
                            "bytes_over_own": over, "switch_ms": switch}),
    );
}
