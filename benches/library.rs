//! A made-up library of N nano adapters: how long it takes to build, to open, to pin by name, to verify, and what it
//! costs in memory. `scripts/bench/library.sh --count N [--json OUT] [--dir DIR]` runs it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use smoa::adapter::{AdapterFile, HeldBytes};
use smoa::engine::Engine;
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::EngineOptions;
use smoa::gguf::{GgufWriter, ModelFacts, TensorType};
use smoa::library::{Access, AdapterName, Filter, Library, Metadata, OnConflict, Page, Pinned, synthetic};

const SEED: u64 = 1;

fn main() {
    let mut count = 10_000u64;
    let (mut out, mut dir) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--opened" {
            let (dir, count) = (args.next().expect("a folder"), args.next().expect("a count"));
            println!("{}", opened(Path::new(&dir), count.parse().expect("a number")));
            return;
        }
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
    let mut measured = measure(&dir, count);
    if let (Some(all), Some(Value::Object(more))) = (measured.as_object_mut(), usable(scratch.path())) {
        all.extend(more);
    }
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

    // In a process of its own, so that what building left in memory is not counted.
    let child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args([std::ffi::OsStr::new("--opened"), dir.as_os_str(), std::ffi::OsStr::new(&count.to_string())])
        .output()
        .expect("ran");
    let mut figures: Value = serde_json::from_slice(&child.stdout).expect("figures");
    let library = Library::open(dir, Access::Read).expect("opened");
    let list = timed(|| assert!(!library.list(&Filter::default(), &Page::first(50)).expect("listed").is_empty()));
    let start = Instant::now();
    let report = library.verify().expect("verified");
    let more = json!({
        "adapters": count,
        "build_s": build,
        "list_50_ms": list * 1e3,
        "verify_s": seconds(start),
        "verify_problems": report.problems.len(),
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut figures, more) {
        all.extend(more);
    }
    figures
}

/// Opening and pinning, and what they cost in memory.
fn opened(dir: &Path, count: u64) -> Value {
    let before = memory("Anonymous:");
    let opens: Vec<f64> = (0..20).map(|_| timed(|| drop(Library::open(dir, Access::Read).expect("opened")))).collect();
    let library = Library::open(dir, Access::Read).expect("opened");
    let open = memory("Anonymous:").saturating_sub(before);
    let pin = |numbers: &mut synthetic::Numbers| {
        let name = synthetic::name(numbers.below(count), SEED).expect("a name");
        timed(|| assert!(!library.pin(&name).expect("pinned").bytes().is_empty()))
    };
    let n = 20_000.min(count * 20);
    // The same names twice: the first time the catalog's and the segments' pages come from the disk.
    let first: Vec<f64> = (0..n).scan(synthetic::Numbers::new(99), |numbers, _| Some(pin(numbers))).collect();
    let pins: Vec<f64> = (0..n).scan(synthetic::Numbers::new(99), |numbers, _| Some(pin(numbers))).collect();
    json!({
        "pin_first_us_p50": percentile(&first, 0.5) * 1e6,
        "pin_first_us_p99": percentile(&first, 0.99) * 1e6,
        "open_ms_p50": percentile(&opens, 0.5) * 1e3,
        "open_ms_max": percentile(&opens, 1.0) * 1e3,
        "pin_us_p50": percentile(&pins, 0.5) * 1e6,
        "pin_us_p99": percentile(&pins, 0.99) * 1e6,
        "anonymous_kib_open": open,
        "anonymous_kib_after_pins": memory("Anonymous:").saturating_sub(before),
        "mapped_kib": memory("Rss:").saturating_sub(memory("Anonymous:")),
    })
}

/// From a name to an adapter llama.cpp can use, page cache warm, against llama.cpp's own load by path. Needs the
/// default model; `None` without it.
fn usable(dir: &Path) -> Option<Value> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let model = std::env::var_os("SMOA_TEST_MODEL").map_or_else(default, PathBuf::from);
    if !model.is_file() {
        eprintln!("{} is not there; scripts/run.sh fetches it; usable_* left out", model.display());
        return None;
    }
    const ROUNDS: u64 = 50;
    let base = smoa::model_file::check(&model).expect("sound");
    let library = Library::create(&dir.join("usable")).expect("created");
    let mut files = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>| {
        let path = dir.join(format!("{name}.gguf"));
        std::fs::write(&path, &bytes).expect("written");
        let name = AdapterName::new(name).expect("a name");
        library.add(&name, &bytes, &Metadata::default(), OnConflict::Refuse).expect("added");
        files.push((name, path));
    };
    for i in 0..ROUNDS {
        add(format!("nano-{i}"), synthetic::adapter(i, SEED).expect("made").0);
        add(format!("five-{i}"), five_megabytes(&base, i));
    }
    let mut options = EngineOptions::new(&model);
    options.context = 256;
    let mut engine = LlamaEngine::load(&options, &base, &mut |_| true).expect("loaded");
    // The engine has started llama.cpp; this stands for that, and must not shut it down.
    let backend = std::mem::ManuallyDrop::new(llama_cpp_2::llama_backend::LlamaBackend {});
    let params = llama_cpp_2::model::params::LlamaModelParams::default();
    let mut peer = llama_cpp_2::model::LlamaModel::load_from_file(&backend, &model, &params).expect("loaded");
    let mut times = [const { Vec::new() }; 4];
    for (i, (name, path)) in files.iter().enumerate() {
        times[i % 2].push(timed(|| {
            let pinned = library.pin(name).expect("pinned");
            pinned.check().expect("sound");
            let file = AdapterFile::new(Path::new("x"), Box::new(Held(pinned.clone())), pinned.digest(), &base);
            engine.load_adapters(&[Arc::new(file.expect("checked"))], &HashSet::new()).expect("loaded");
        }));
        times[2 + i % 2].push(timed(|| assert!(peer.lora_adapter_init(path).is_ok())));
    }
    let ms = |times: &[f64], at| (percentile(times, at) * 1e5).round() / 1e2;
    let [cold, unasked, plain] = cold(&dir.join("cold"), &base, &mut engine);
    Some(json!({
        "cold_usable_5mb_ms_p50": ms(&cold, 0.5),
        "cold_usable_5mb_ms_max": ms(&cold, 1.0),
        "cold_touch_5mb_random_advice_ms_p50": ms(&unasked, 0.5),
        "cold_touch_5mb_no_advice_ms_p50": ms(&plain, 0.5),
        "usable_nano_ms_p50": ms(&times[0], 0.5),
        "usable_nano_ms_p99": ms(&times[0], 0.99),
        "usable_5mb_ms_p50": ms(&times[1], 0.5),
        "usable_5mb_ms_p99": ms(&times[1], 0.99),
        "llama_by_path_nano_ms_p50": ms(&times[2], 0.5),
        "llama_by_path_5mb_ms_p50": ms(&times[3], 0.5),
    }))
}

/// The same with nothing of the library in the page cache: from a name to an adapter llama.cpp can use; then only every
/// page of the content touched, mapped for random access as segments are, without asking for it ahead; then every page of
/// a file of its own, with no advice at all. Before each, the pages of all files of the library are dropped (`posix_fadvise`, by dd).
fn cold(dir: &Path, base: &ModelFacts, engine: &mut LlamaEngine) -> [Vec<f64>; 3] {
    const ROUNDS: u64 = 15;
    let library = Library::create(dir).expect("created");
    let files = dir.with_extension("files");
    std::fs::create_dir(&files).expect("made");
    let name = |kind: usize, i: u64| AdapterName::new(format!("cold-{kind}-{i}")).expect("a name");
    for i in 0..ROUNDS {
        for kind in 0..2 {
            let bytes = five_megabytes(base, 1_000 + i * 2 + kind as u64);
            library.add(&name(kind, i), &bytes, &Metadata::default(), OnConflict::Refuse).expect("added");
        }
        std::fs::write(files.join(format!("{i}.gguf")), five_megabytes(base, i)).expect("written");
    }
    drop(library);
    let touch = |bytes: &[u8]| bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>();
    let mut times = [const { Vec::new() }; 3];
    for i in 0..ROUNDS {
        forget(dir);
        let library = Library::open(dir, Access::Read).expect("opened");
        times[0].push(timed(|| {
            let pinned = library.pin(&name(0, i)).expect("pinned");
            pinned.check().expect("sound");
            let file = AdapterFile::new(Path::new("x"), Box::new(Held(pinned.clone())), pinned.digest(), base);
            engine.load_adapters(&[Arc::new(file.expect("checked"))], &HashSet::new()).expect("loaded");
        }));
        drop(library);
        forget(dir);
        let library = Library::open(dir, Access::Read).expect("opened");
        times[1].push(timed(|| {
            std::hint::black_box(touch(library.pin(&name(1, i)).expect("pinned").bytes()));
        }));
        drop(library);
        let path = files.join(format!("{i}.gguf"));
        forget(&files);
        let map = smoa::mapped::Mapped::open(&path).expect("mapped");
        times[2].push(timed(|| _ = std::hint::black_box(touch(map.bytes()))));
    }
    times
}

/// Drops the pages of all files in a folder from the page cache.
fn forget(dir: &Path) {
    for item in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = item.path();
        if path.is_dir() {
            forget(&path);
            continue;
        }
        let file = std::fs::File::open(&path).expect("opened");
        file.sync_all().expect("synced");
        let input = format!("if={}", path.display());
        let mut dd = std::process::Command::new("dd");
        let done = dd.args([input.as_str(), "iflag=nocache", "count=0", "status=none"]).status();
        assert!(done.expect("dd runs").success());
    }
}

struct Held(Pinned);

impl HeldBytes for Held {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A rank 8 adapter of all linears of the default model: 4.9 MB.
fn five_megabytes(base: &ModelFacts, seed: u64) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", base.architecture.as_str()).expect("set");
    writer.set("general.type", "adapter").expect("set");
    writer.set("adapter.type", "lora").expect("set");
    writer.set("adapter.lora.alpha", 8f32).expect("set");
    let mut numbers = synthetic::Numbers::new(seed);
    let mut names: Vec<&String> =
        base.tensors.keys().filter(|n| n.starts_with("blk.") && !n.contains("norm")).collect();
    names.sort();
    for name in names {
        let shape = base.tensors[name];
        for (part, dims) in [("lora_a", [shape[0], 8]), ("lora_b", [8, shape[1]])] {
            // Half precision numbers between 2^-7 and 2^-6.
            let data: Vec<u8> =
                (0..dims[0] * dims[1]).flat_map(|_| (0x2000 | (numbers.draw() as u16 & 0x3ff)).to_le_bytes()).collect();
            writer.tensor(&format!("{name}.{part}"), TensorType::F16, &dims, data).expect("added");
        }
    }
    writer.to_bytes()
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
