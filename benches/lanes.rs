//! Slots, lanes and eviction, without an engine: looking a ready adapter up, laying one out, making room for one, planning
//! a step, and the arithmetic of one linear.

use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use half::f16;
use smoa::adapter::{AdapterDigest, AdapterFile, HeldBytes};
use smoa::engine::lanes::kernel::{self, OutputRows, Share};
use smoa::engine::lanes::{Columns, LaneAdapter, Numerics, Residents, Sites, Step};
use smoa::gguf::{GgufWriter, ModelFacts, TensorType};

struct Held(Vec<u8>);

impl HeldBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn adapter(base: &ModelFacts, seed: u8, rank: u64) -> Arc<AdapterFile> {
    let mut writer = GgufWriter::new();
    writer.set("general.type", "adapter").expect("set").set("adapter.type", "lora").expect("set");
    writer.set("general.architecture", base.architecture.as_str()).expect("set");
    writer.set("adapter.lora.alpha", rank as f32).expect("set");
    let numbers = |n: u64| f16::from_f32(0.001 * f32::from(seed)).to_le_bytes().repeat(n as usize);
    for (name, n_in, n_out) in Sites::of(base).iter() {
        let (n_in, n_out) = (n_in as u64, n_out as u64);
        let (a, b) = (numbers(n_in * rank), numbers(n_out * rank));
        writer.tensor(&format!("{name}.lora_a"), TensorType::F16, &[n_in, rank], a).expect("added");
        writer.tensor(&format!("{name}.lora_b"), TensorType::F16, &[rank, n_out], b).expect("added");
    }
    let bytes = writer.to_bytes();
    let digest = AdapterDigest::of(&bytes);
    Arc::new(AdapterFile::new(Path::new("bench"), Box::new(Held(bytes)), digest, base).expect("sound"))
}

/// Rows of several tokens do not need the engine's dot product.
struct None;

impl Numerics for None {
    fn convert(&self, _: TensorType, _: &[f32], _: &mut Vec<u8>) {}

    fn dot(&self, _: TensorType, _: &[u8], _: &[u8], _: usize) -> f32 {
        0.0
    }
}

struct Rows(Vec<Vec<f32>>);

impl OutputRows for Rows {
    fn part(&mut self, column: usize, range: std::ops::Range<usize>) -> &mut [f32] {
        &mut self.0[column][range]
    }
}

fn lanes(c: &mut Criterion) {
    let model = std::env::var_os("SMOA_TEST_MODEL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        Into::into,
    );
    let base = smoa::model_file::check(&model).expect("the default model; scripts/run.sh fetches it");
    let sites = Sites::of(&base);
    let files: Vec<_> = (1..=8).map(|seed| adapter(&base, seed, 8)).collect();

    let residents = Residents::new(sites.clone(), 64, usize::MAX);
    files.iter().for_each(|f| drop(residents.ready(f).expect("for lanes")));
    c.bench_function("slots/a ready adapter is looked up", |b| b.iter(|| residents.get(files[3].digest())));
    c.bench_function("slots/a 5 MB adapter is laid out", |b| b.iter(|| LaneAdapter::pack(&files[0], &sites)));
    let small = Residents::new(sites.clone(), 1, usize::MAX);
    let mut turn = 0;
    c.bench_function("slots/a 5 MB adapter takes the place of another", |b| {
        b.iter(|| {
            turn = (turn + 1) % 2;
            small.ready(&files[turn]).map(drop)
        });
    });

    let ready: Vec<_> = files.iter().map(|f| residents.ready(f).expect("for lanes")).collect();
    let mut step = Step::default();
    c.bench_function("lanes/a step of eight sequences is planned", |b| {
        b.iter(|| {
            step.clear();
            ready.iter().for_each(|r| step.push(&[(r.clone(), 1.0)], &[true]));
        });
    });

    let (site, (_, n_in, n_out)) = sites.iter().enumerate().next().expect("linears");
    for adapters in 1..=5 {
        let set: Vec<_> = ready.iter().take(adapters).map(|r| (r.clone(), 0.5)).collect();
        let mut step = Step::default();
        step.push(&set, &[false; 32]);
        let x = vec![vec![0.5f32; n_in]; 32];
        let share = Share { thread: 0, threads: 1 };
        c.bench_function(&format!("lanes/one linear, 32 rows, {adapters} adapters of rank 8"), |b| {
            b.iter_batched_ref(
                || Rows(vec![vec![0.0; n_out]; 32]),
                |y| {
                    kernel::project(&step, Columns::All, (site, n_out), &None, share, |column| x[column].as_slice());
                    kernel::expand(&step, Columns::All, site, 0..n_out, &None, y);
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, lanes);
criterion_main!(benches);
