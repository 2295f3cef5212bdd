//! What the benches of the real engine share: their flags, random adapters of the model, medians.

#![allow(dead_code, reason = "every bench uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use smoa::adapter::{AdapterDigest, AdapterFile, HeldBytes};
use smoa::engine::lanes::Sites;
use smoa::engine::options::{AdapterBatching, EngineOptions};
use smoa::gguf::{GgufWriter, ModelFacts, TensorType};

/// The flags: `--model FILE --threads N --json OUT`, and counts that a bench names itself.
pub struct Args<const N: usize> {
    /// The model: `SMOA_TEST_MODEL`, or the default one, unless given.
    pub model: PathBuf,
    /// Threads of the engine.
    pub threads: u32,
    /// Where to keep the numbers.
    pub json: Option<PathBuf>,
    /// Values of the bench's own flags, in their order.
    pub counts: [usize; N],
}

/// Reads the command line. `flags`: the bench's own, each with a number, and what it is unless given.
pub fn args<const N: usize>(flags: [(&str, usize); N]) -> Result<Args<N>, String> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let mut args = Args {
        model: std::env::var_os("SMOA_TEST_MODEL").map_or_else(default, PathBuf::from),
        threads: 2,
        json: None,
        counts: flags.map(|(_, count)| count),
    };
    let mut given = std::env::args().skip(1).filter(|flag| flag != "--bench");
    while let Some(flag) = given.next() {
        let value = given.next().ok_or_else(|| format!("{flag} wants a value"))?;
        let number = || value.parse::<usize>().map_err(|_| format!("{flag}: '{value}' is no number"));
        match flag.as_str() {
            "--model" => args.model = value.into(),
            "--threads" => args.threads = number()? as u32,
            "--json" => args.json = Some(value.into()),
            other => match flags.iter().position(|(name, _)| *name == other) {
                Some(at) => args.counts[at] = number()?,
                None => return Err(format!("{other} is not an option here")),
            },
        }
    }
    Ok(args)
}

/// Ends the bench with exit code 2.
pub fn fail(why: &str) -> ! {
    eprintln!("{}: {why}", env!("CARGO_CRATE_NAME"));
    std::process::exit(2)
}

/// An engine's options for `sequences` prompts of up to `prompt` tokens in one step.
pub fn options<const N: usize>(
    args: &Args<N>,
    sequences: usize,
    prompt: usize,
    batching: AdapterBatching,
) -> EngineOptions {
    let mut options = EngineOptions::new(&args.model);
    options.context = (sequences * 128) as u32;
    (options.batch, options.micro_batch) = (1024, 512.max(sequences * prompt) as u32);
    options.sequences = sequences as u32;
    (options.threads, options.threads_batch) = (args.threads, args.threads);
    options.adapter_batching = batching;
    options
}

/// The GGUF of a random adapter of half floats on every linear.
pub fn adapter_bytes(base: &ModelFacts, seed: u64, rank: u64) -> Vec<u8> {
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
    writer.to_bytes()
}

struct Held(Vec<u8>);

impl HeldBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The same, checked.
pub fn adapter(base: &ModelFacts, seed: u64, rank: u64) -> Arc<AdapterFile> {
    let bytes = adapter_bytes(base, seed, rank);
    let digest = AdapterDigest::of(&bytes);
    Arc::new(AdapterFile::new(Path::new("bench"), Box::new(Held(bytes)), digest, base).expect("sound"))
}

/// The middle one; the upper of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes what was measured, when `--json` asked for it.
pub fn keep<const N: usize>(args: &Args<N>, all: &serde_json::Value) {
    if let Some(path) = &args.json {
        std::fs::write(path, all.to_string()).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
    }
}
