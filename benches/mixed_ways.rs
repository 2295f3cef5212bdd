//! Three ways to mix adapters in one step, side by side: the kernels that rows call for themselves, one wide adapter with a
//! mask, and `MUL_MAT_ID`. Decode and prompt, by the number of resident adapters and by rank. Prints a table; `--json OUT`
//! keeps the numbers.
//!
//!   cargo bench --bench mixed_ways -- [--model FILE] [--sequences N] [--rounds N] [--threads N] [--json OUT]
//!
//! Cases run in turns inside every round; printed is the median over the rounds of the ratio to the step without adapters of
//! the same round. First the logits of the three ways are compared.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use half::f16;
use smoa::adapter::{AdapterDigest, AdapterFile, AdapterSet, HeldBytes, Scale};
use smoa::engine::lanes::Sites;
use smoa::engine::llama::{InsideGgml, LlamaEngine, Way};
use smoa::engine::options::{AdapterBatching, EngineOptions};
use smoa::engine::{Engine, Row};
use smoa::gguf::{GgufWriter, ModelFacts, TensorType};

struct Held(Vec<u8>);

impl HeldBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

struct Args {
    model: PathBuf,
    sequences: usize,
    rounds: usize,
    threads: u32,
    json: Option<PathBuf>,
}

fn args() -> Result<Args, String> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let mut args = Args {
        model: std::env::var_os("SMOA_TEST_MODEL").map_or_else(default, PathBuf::from),
        sequences: 8,
        rounds: 3,
        threads: 2,
        json: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{flag} wants a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{flag}: '{text}' is no number"));
        match flag.as_str() {
            "--bench" => (),
            "--model" => args.model = value()?.into(),
            "--sequences" => args.sequences = number(value()?)?,
            "--rounds" => args.rounds = number(value()?)?,
            "--threads" => args.threads = value()?.parse().map_err(|_| "--threads wants a number".to_string())?,
            "--json" => args.json = Some(value()?.into()),
            other => return Err(format!("{other} is not an option here")),
        }
    }
    Ok(args)
}

/// A random adapter of half floats on every linear.
fn adapter(base: &ModelFacts, seed: u64, rank: u64) -> Arc<AdapterFile> {
    let mut writer = GgufWriter::new();
    writer.set("general.type", "adapter").expect("set").set("adapter.type", "lora").expect("set");
    writer.set("general.architecture", base.architecture.as_str()).expect("set");
    writer.set("adapter.lora.alpha", rank as f32).expect("set");
    let mut state = seed;
    let mut numbers = |n: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f16::from_f32(((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * 0.05)
        };
        (0..n).flat_map(|_| next().to_le_bytes()).collect()
    };
    for (name, n_in, n_out) in Sites::of(base).iter() {
        let (a, b) = (numbers(n_in * rank as usize), numbers(n_out * rank as usize));
        writer.tensor(&format!("{name}.lora_a"), TensorType::F16, &[n_in as u64, rank], a).expect("added");
        writer.tensor(&format!("{name}.lora_b"), TensorType::F16, &[rank, n_out as u64], b).expect("added");
    }
    let bytes = writer.to_bytes();
    let digest = AdapterDigest::of(&bytes);
    Arc::new(AdapterFile::new(Path::new("bench"), Box::new(Held(bytes)), digest, base).expect("sound"))
}

fn fail(why: &str) -> ! {
    eprintln!("mixed_ways: {why}");
    std::process::exit(2)
}

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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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
    let args = args().unwrap_or_else(|e| fail(&e));
    let base = smoa::model_file::check(&args.model).unwrap_or_else(|e| fail(&e.message));
    let n = args.sequences;
    let mut options = EngineOptions::new(&args.model);
    options.context = (n * 128) as u32;
    (options.batch, options.micro_batch) = (1024, 512.max(n * PROMPT) as u32);
    options.sequences = n as u32;
    (options.threads, options.threads_batch) = (args.threads, args.threads);
    options.adapter_batching = AdapterBatching::Lanes;

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
        // The same logits, up to the noise of activations rounded to 8 bits.
        let check = rows(n, 0, 5, &set);
        let last: Vec<usize> = (0..n).map(|s| s * 5 + 4).collect();
        kernels.decode(&check, &sets).unwrap_or_else(|e| fail(&e.to_string()));
        for way in &mut ways {
            way.decode(&check).unwrap_or_else(|e| fail(&e.to_string()));
            let apart =
                last.iter().map(|i| distance(way.logits(*i).expect("logits"), kernels.logits(*i).expect("logits")));
            let apart = apart.fold(0.0, f64::max);
            if apart > 5e-2 {
                fail(&format!("{}: logits are {apart:.1e} apart", case.name));
            }
            (0..n).for_each(|s| way.clear(s));
        }
        (0..n).for_each(|s| _ = kernels.truncate(s, 0));

        let mut ratios: [Vec<(f64, f64)>; 3] = Default::default();
        for round in 0..=args.rounds {
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
    if let Some(path) = args.json {
        std::fs::write(path, serde_json::Value::from(json).to_string()).unwrap_or_else(|e| fail(&e.to_string()));
    }
}
