//! Three ways to mix adapters in one step, side by side: the kernels that rows call for themselves, one wide adapter with a
//! mask, and `MUL_MAT_ID`. Decode and prompt, by the number of resident adapters and by rank. Prints a table; `--json OUT`
//! keeps the numbers.
//!
//!   cargo bench --bench mixed_ways -- [--model FILE] [--sequences N] [--rounds N] [--threads N] [--json OUT]
//!
//! Cases run in turns inside every round; printed is the median over the rounds of the ratio to the step without adapters of
//! the same round. First the logits of the three ways are compared.

mod real;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use real::{adapter, fail, median};
use smoa::adapter::{AdapterFile, AdapterSet, Scale};
use smoa::engine::llama::{InsideGgml, LlamaEngine, Way};
use smoa::engine::options::AdapterBatching;
use smoa::engine::{Engine, Row};

const PROMPT: usize = 32;
const STEPS: usize = 16;

/// Rows of all sequences; `set` says which adapter each has.
fn rows(sequences: usize, from: usize, to: usize, set: &dyn Fn(usize) -> usize) -> Vec<Row> {
    let row = |sequence: usize, position: usize| Row {
        token: 1000 + ((position * 37 + sequence * 991) % 20_000) as u32,
        position,
        sequence,
        logits: position + 1 == to,
        set: set(sequence),
    };
    (0..sequences).flat_map(|s| (from..to).map(move |p| row(s, p))).collect()
}

/// Tokens per second of prompts and of decoding.
fn time(sequences: usize, set: &dyn Fn(usize) -> usize, mut decode: impl FnMut(&[Row])) -> (f64, f64) {
    let begin = Instant::now();
    decode(&rows(sequences, 0, PROMPT, set));
    let prompt = begin.elapsed().as_secs_f64();
    // The graph of decoding is built in its first step.
    decode(&rows(sequences, PROMPT, PROMPT + 1, set));
    let begin = Instant::now();
    for i in 1..=STEPS {
        decode(&rows(sequences, PROMPT + i, PROMPT + i + 1, set));
    }
    let n = sequences as f64;
    (n * PROMPT as f64 / prompt, n * STEPS as f64 / begin.elapsed().as_secs_f64())
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// What is measured: adapters that are resident, and which of them each sequence uses.
struct Case {
    name: String,
    files: Vec<Arc<AdapterFile>>,
}

impl Case {
    fn of(&self, sequence: usize, sequences: usize) -> usize {
        sequence * self.files.len() / sequences
    }
}

fn main() {
    let args = real::args([("--sequences", 8), ("--rounds", 3)]).unwrap_or_else(|e| fail(&e));
    let base = smoa::model_file::check(&args.model).unwrap_or_else(|e| fail(&e.message));
    let [n, rounds] = args.counts;
    let options = real::options(&args, n, PROMPT, AdapterBatching::Lanes);

    let eights: Vec<_> = (0..64).map(|i| adapter(&base, i + 1, 8)).collect();
    let mut cases: Vec<Case> = [1, 4, 8, 16, 32, 64]
        .map(|k| Case { name: format!("rank 8, {k} resident"), files: eights[..k].to_vec() })
        .into();
    for rank in [4u64, 16, 32] {
        let files = (0..8).map(|i| adapter(&base, 100 * rank + i, rank)).collect();
        cases.push(Case { name: format!("rank {rank}, 8 resident"), files });
    }
    let files = (0..8).map(|i| adapter(&base, 9000 + i, [4, 8, 16, 32][i as usize % 4])).collect();
    cases.push(Case { name: "ranks 4 to 32, 8 resident".into(), files });

    let mut kernels = LlamaEngine::load(&options, &base, &mut |_| true).unwrap_or_else(|e| fail(&e.message));
    println!("| {n} sequences, {} threads | kernels prompt / decode | packed | gathered |", args.threads);
    println!("| --- | ---: | ---: | ---: |");
    let mut json = Vec::new();
    for case in &cases {
        let set = |sequence: usize| case.of(sequence, n);
        let one = Scale::new(1.0).expect("in range");
        let member = |file: &Arc<AdapterFile>| AdapterSet::new(vec![(file.digest(), one)]).expect("a set");
        let mut sets: Vec<AdapterSet> = case.files.iter().map(member).collect();
        sets.push(AdapterSet::base());
        let none = |_: usize| case.files.len();
        kernels.load_adapters(&case.files, &HashSet::new()).unwrap_or_else(|e| fail(&e.to_string()));
        let inside = |way| {
            InsideGgml::load(&options, &base, way, &case.files).unwrap_or_else(|e| fail(&format!("{way:?}: {e}")))
        };
        let mut ways = [inside(Way::Packed), inside(Way::Gathered)];
        // The same logits, up to the noise of activations rounded to 8 bits (up to 5.1e-2 seen).
        let check = rows(n, 0, 5, &set);
        let last: Vec<usize> = (0..n).map(|s| s * 5 + 4).collect();
        kernels.decode(&check, &sets).unwrap_or_else(|e| fail(&e.to_string()));
        for way in &mut ways {
            way.decode(&check).unwrap_or_else(|e| fail(&e.to_string()));
            let apart =
                last.iter().map(|i| distance(way.logits(*i).expect("logits"), kernels.logits(*i).expect("logits")));
            let apart = apart.fold(0.0, f64::max);
            if apart > 0.1 {
                fail(&format!("{}: logits are {apart:.1e} apart", case.name));
            }
            (0..n).for_each(|s| way.clear(s));
        }
        (0..n).for_each(|s| _ = kernels.truncate(s, 0));

        let mut ratios: [Vec<(f64, f64)>; 3] = Default::default();
        for round in 0..=rounds {
            let mut kernel_run = |set: &dyn Fn(usize) -> usize| {
                let measured =
                    time(n, set, |rows| kernels.decode(rows, &sets).unwrap_or_else(|e| fail(&e.to_string())));
                (0..n).for_each(|s| _ = kernels.truncate(s, 0));
                measured
            };
            let plain = kernel_run(&none);
            let mut measured = vec![kernel_run(&set)];
            for way in &mut ways {
                measured.push(time(n, &set, |rows| way.decode(rows).unwrap_or_else(|e| fail(&e.to_string()))));
                (0..n).for_each(|s| way.clear(s));
            }
            if round > 0 {
                let pairs = ratios.iter_mut().zip(measured);
                pairs.for_each(|(ratios, m)| ratios.push((m.0 / plain.0, m.1 / plain.1)));
            }
        }
        let cell = |ratios: &[(f64, f64)]| {
            let of = |pick: fn(&(f64, f64)) -> f64| median(ratios.iter().map(pick).collect());
            (of(|r| r.0), of(|r| r.1))
        };
        let cells = ratios.each_ref().map(|r| cell(r));
        let text = cells.map(|(prompt, decode)| format!("{prompt:.2} / {decode:.2}"));
        println!("| {} | {} |", case.name, text.join(" | "));
        json.push(
            serde_json::json!({"case": case.name, "kernels": cells[0], "packed": cells[1], "gathered": cells[2]}),
        );
    }
    real::keep(&args, &json.into());
}
