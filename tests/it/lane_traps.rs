//! Where rows under adapters of their own could go wrong: each is computed right, or refused by name. On the default model
//! and on variants of a tiny one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use smoa::adapter::{AdapterDigest, AdapterFile, AdapterSet, HeldBytes, Scale};
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::{AdapterBatching, EngineOptions};
use smoa::engine::{Batching, Engine, EngineError, Row};
use smoa::gguf::{Gguf, GgufWriter, ModelFacts, OwnedValue, TensorType};

use crate::support::{App, facts, model, random_lora};

struct Held(Vec<u8>);

impl HeldBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A model with what its header says.
struct Base {
    path: PathBuf,
    facts: ModelFacts,
    _app: Option<App>,
}

impl Base {
    fn default_model() -> Self {
        Self { path: model(), facts: facts().clone(), _app: None }
    }

    /// The tiny llama of the PEFT corpus, its tensors changed: what `change` gives for a tensor takes its place.
    fn tiny(keys: &[(&str, u32)], change: impl Fn(&str, &[u64], &[u8]) -> Vec<Tensor>) -> Self {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/peft/base.gguf"));
        let bytes = bytes.expect("read");
        let gguf = Gguf::read(&bytes).expect("sound");
        let mut writer = GgufWriter::new();
        for (key, value) in gguf.keys() {
            writer.set(key, OwnedValue::from(*value)).expect("set");
        }
        for (key, value) in keys {
            writer.set(key, *value).expect("set");
        }
        for tensor in gguf.tensors() {
            let dims: Vec<u64> = tensor.dims[..if tensor.is_vector() { 1 } else { 2 }].to_vec();
            let data = gguf.tensor_bytes(tensor);
            let changed = change(tensor.name, &dims, data);
            if changed.is_empty() {
                writer.tensor(tensor.name, tensor.kind, &dims, data).expect("added");
            }
            for (name, kind, dims, data) in changed {
                writer.tensor(&name, kind, &dims, data).expect("added");
            }
        }
        let app = App::new();
        let path = app.write("tiny.gguf", writer.to_bytes());
        let facts = smoa::model_file::check(&path).expect("a sound model");
        Self { path, facts, _app: Some(app) }
    }

    fn engine(&self, batching: AdapterBatching, sequences: u32) -> LlamaEngine {
        self.load(batching, sequences, 128).unwrap_or_else(|f| panic!("{}", f.message))
    }

    fn load(&self, batching: AdapterBatching, sequences: u32, rows: u32) -> Result<LlamaEngine, smoa::error::Failure> {
        let mut options = EngineOptions::new(&self.path);
        (options.context, options.batch, options.micro_batch) = (512, rows.max(32), rows);
        (options.sequences, options.threads, options.threads_batch) = (sequences, 2, 2);
        options.adapter_batching = batching;
        LlamaEngine::load(&options, &self.facts, &mut |_| true)
    }

    /// A random adapter of half floats on the tensors that `on` takes.
    fn adapter(&self, seed: u64, rank: u64, on: impl Fn(&str) -> bool) -> Arc<AdapterFile> {
        let mut writer = GgufWriter::new();
        writer.set("general.type", "adapter").expect("set").set("adapter.type", "lora").expect("set");
        writer.set("general.architecture", self.facts.architecture.as_str()).expect("set");
        writer.set("adapter.lora.alpha", rank as f32).expect("set");
        let mut state = seed;
        let mut halves = |n: u64| -> Vec<u8> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                half::f16::from_f32(((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * 0.3)
            };
            (0..n).flat_map(|_| next().to_le_bytes()).collect()
        };
        let mut names: Vec<_> = self.facts.tensors.iter().filter(|(name, shape)| shape[1] > 1 && on(name)).collect();
        names.sort();
        assert!(!names.is_empty(), "no tensor to change");
        for (name, shape) in names {
            let mut a = vec![shape[0], rank];
            let mut b = vec![rank, shape[1]];
            // llama.cpp wants the table's A and B the other way round.
            if name.starts_with("token_embd") {
                (a, b) = (vec![rank, shape[1]], vec![rank, shape[0]]);
            }
            if shape[2] > 1 {
                a.push(shape[2]);
                b.push(shape[2]);
            }
            let (data_a, data_b) = (halves(a.iter().product()), halves(b.iter().product()));
            writer.tensor(&format!("{name}.lora_a"), TensorType::F16, &a, data_a).expect("added");
            writer.tensor(&format!("{name}.lora_b"), TensorType::F16, &b, data_b).expect("added");
        }
        self.file(writer.to_bytes())
    }

    fn file(&self, bytes: Vec<u8>) -> Arc<AdapterFile> {
        let digest = AdapterDigest::of(&bytes);
        Arc::new(AdapterFile::new(Path::new("a.gguf"), Box::new(Held(bytes)), digest, &self.facts).expect("sound"))
    }

    fn token(&self, i: usize) -> u32 {
        (17 + 29 * i as u32) % self.facts.n_vocab
    }
}

/// Name, format, shape, data.
type Tensor = (String, TensorType, Vec<u64>, Vec<u8>);

fn set(members: &[(&Arc<AdapterFile>, f32)]) -> AdapterSet {
    let member = |(file, scale): &(&Arc<AdapterFile>, f32)| (file.digest(), Scale::new(*scale).expect("in range"));
    AdapterSet::new(members.iter().map(member).collect()).expect("a set")
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// Rows of one sequence; `wanted` says of which positions the logits are.
fn rows(base: &Base, sequence: usize, set: usize, positions: std::ops::Range<usize>, wanted: &[usize]) -> Vec<Row> {
    let row = |position| Row {
        token: base.token(position + 3 * sequence),
        position,
        sequence,
        logits: wanted.contains(&position),
        set,
    };
    positions.map(row).collect()
}

/// Evaluates rows, and gives the logits of those that want them.
fn decode(engine: &mut LlamaEngine, rows: &[Row], sets: &[AdapterSet]) -> Vec<Vec<f32>> {
    engine.decode(rows, sets).expect("decoded");
    let wanted = rows.iter().enumerate().filter(|(_, row)| row.logits);
    wanted.map(|(i, _)| engine.logits(i).expect("logits").to_vec()).collect()
}

/// The last layer and the output are computed for rows with logits only: fewer than all, several of a sequence, none.
#[test]
fn rows_without_logits_drop_out_of_the_last_layer() {
    let base = Base::default_model();
    let files: Vec<_> = (0..3).map(|i| base.file(random_lora(60 + i, 8, 0.06))).collect();
    let sets = [set(&[(&files[0], 1.0)]), set(&[(&files[1], 1.0)]), AdapterSet::base(), set(&[(&files[2], 0.5)])];
    let wanted: [&[usize]; 4] = [&[0, 3, 5], &[], &[2], &[4, 5]];
    let mut mixed = base.engine(AdapterBatching::Lanes, 4);
    mixed.load_adapters(&files, &HashSet::new()).expect("loaded");
    let all: Vec<Row> = (0..4).flat_map(|s| rows(&base, s, s, 0..6, wanted[s])).collect();
    let found = decode(&mut mixed, &all, &sets);
    let mut expected = Vec::new();
    for (s, set) in sets.iter().enumerate() {
        let mut alone = base.engine(AdapterBatching::Grouped, 4);
        alone.load_adapters(&files, &HashSet::new()).expect("loaded");
        expected.extend(decode(&mut alone, &rows(&base, s, 0, 0..6, wanted[s]), std::slice::from_ref(set)));
    }
    assert_eq!(found.len(), 6);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let error = distance(found, expected);
        assert!(error < 2e-2, "row {i}: {error:.1e}");
    }
    // A step of which nobody wants logits, then one that goes on from it.
    let none: Vec<Row> = (0..4).flat_map(|s| rows(&base, s, s, 6..8, &[])).collect();
    mixed.decode(&none, &sets).expect("decoded");
    let last: Vec<Row> = (0..4).flat_map(|s| rows(&base, s, s, 8..9, &[8])).collect();
    let found = decode(&mut mixed, &last, &sets);
    for (s, set) in sets.iter().enumerate() {
        let mut alone = base.engine(AdapterBatching::Grouped, 4);
        alone.load_adapters(&files, &HashSet::new()).expect("loaded");
        let expected = decode(&mut alone, &rows(&base, s, 0, 0..9, &[8]), std::slice::from_ref(set));
        let error = distance(&found[s], &expected[0]);
        assert!(error < 2e-2, "sequence {s}: {error:.1e}");
    }
}

/// A graph that llama.cpp uses again keeps its rewritten nodes: they must follow the sets of each step.
#[test]
fn a_reused_graph_follows_the_sets_of_each_step() {
    let base = Base::default_model();
    let files: Vec<_> = (0..3).map(|i| base.file(random_lora(70 + i, [8, 4, 16][i as usize], 0.06))).collect();
    let mut sets: Vec<AdapterSet> = files.iter().map(|f| set(&[(f, 1.0)])).collect();
    sets.push(AdapterSet::base());
    let which = |sequence: usize, step: usize| (sequence + step) % 4;
    let mut mixed = base.engine(AdapterBatching::Lanes, 3);
    mixed.load_adapters(&files, &HashSet::new()).expect("loaded");
    let mut found = vec![Vec::new(); 3];
    for step in 0..6 {
        let all: Vec<Row> = (0..3).flat_map(|s| rows(&base, s, which(s, step), step..step + 1, &[step])).collect();
        let logits = decode(&mut mixed, &all, &sets);
        logits.into_iter().zip(&mut found).for_each(|(logits, found)| found.push(logits));
    }
    for (s, found) in found.iter().enumerate() {
        let mut alone = base.engine(AdapterBatching::Grouped, 1);
        alone.load_adapters(&files, &HashSet::new()).expect("loaded");
        for (step, found) in found.iter().enumerate() {
            let row: Vec<Row> = rows(&base, s, which(s, step), step..step + 1, &[step]);
            let row: Vec<Row> = row.into_iter().map(|row| Row { sequence: 0, ..row }).collect();
            let expected = decode(&mut alone, &row, &sets);
            let error = distance(found, &expected[0]);
            assert!(error < 2e-2, "sequence {s} step {step}: {error:.1e}");
        }
    }
}

/// llama.cpp computes a batch above its micro batch in several graphs, of which the callback cannot tell which rows they
/// hold: such a step is refused, and the scheduler makes none.
#[test]
fn a_step_above_the_micro_batch_is_refused() {
    let base = Base::tiny(&[], |_, _, _| Vec::new());
    let file = base.adapter(1, 4, |name| name.contains("attn_"));
    let mut options = EngineOptions::new(&base.path);
    (options.context, options.batch, options.micro_batch, options.sequences) = (512, 64, 8, 2);
    options.adapter_batching = AdapterBatching::Lanes;
    let mut engine = LlamaEngine::load(&options, &base.facts, &mut |_| true).expect("loaded");
    engine.load_adapters(std::slice::from_ref(&file), &HashSet::new()).expect("loaded");
    let sets = [set(&[(&file, 1.0)]), AdapterSet::base()];
    let of = |n: usize| -> Vec<Row> { (0..2).flat_map(|s| rows(&base, s, s, 0..n, &[])).collect() };
    match engine.decode(&of(5), &sets) {
        Err(EngineError::Misuse(why)) => assert!(why.contains("a step takes 8"), "{why}"),
        other => panic!("{other:?}"),
    }
    engine.decode(&of(4), &sets).expect("as many as the micro batch");
}

#[test]
fn a_scale_of_zero_is_the_plain_base() {
    let base = Base::default_model();
    let file = base.file(random_lora(80, 8, 0.06));
    assert!(set(&[(&file, 0.0)]).is_base(), "it has left the set");
    let other = base.file(random_lora(81, 8, 0.06));
    let sets = [set(&[(&file, 0.0), (&other, 0.0)]), set(&[(&file, 1.0), (&other, 0.0)]), set(&[(&file, 1.0)])];
    assert_eq!(sets[1], sets[2]);
    let mut mixed = base.engine(AdapterBatching::Lanes, 2);
    mixed.load_adapters(&[file, other], &HashSet::new()).expect("loaded");
    let all: Vec<Row> = (0..2).flat_map(|s| rows(&base, s, s, 0..5, &[4])).collect();
    let found = decode(&mut mixed, &all, &sets);
    let mut plain = base.engine(AdapterBatching::Grouped, 1);
    let expected = decode(&mut plain, &rows(&base, 0, 0, 0..5, &[4]), &[AdapterSet::base()]);
    let error = distance(&found[0], &expected[0]);
    assert!(error < 2e-2 && distance(&found[1], &expected[0]) > 0.05, "{error:.1e}");
}

/// Each of `sets` in one step against a step of its own on llama.cpp's path.
fn mixed_as_alone(base: &Base, files: &[Arc<AdapterFile>], sets: &[AdapterSet], bound: f64) {
    let mut mixed = base.engine(AdapterBatching::Lanes, sets.len() as u32);
    assert_eq!(mixed.facts().batching, Batching::Lanes);
    mixed.load_adapters(files, &HashSet::new()).expect("loaded");
    assert!(sets.iter().all(|set| mixed.mixes(set)));
    let all: Vec<Row> = (0..sets.len()).flat_map(|s| rows(base, s, s, 0..5, &[4])).collect();
    let found = decode(&mut mixed, &all, sets);
    for (s, set) in sets.iter().enumerate() {
        let mut alone = base.engine(AdapterBatching::Grouped, sets.len() as u32);
        let plain = decode(&mut alone, &rows(base, s, 0, 0..5, &[4]), &[AdapterSet::base()]);
        alone.truncate(s, 0);
        alone.load_adapters(files, &HashSet::new()).expect("loaded");
        let expected = decode(&mut alone, &rows(base, s, 0, 0..5, &[4]), std::slice::from_ref(set));
        let error = distance(&found[s], &expected[0]);
        assert!(error < bound, "sequence {s}: {error:.1e}");
        assert!(
            set.is_base() || distance(&expected[0], &plain[0]) > 3.0 * bound,
            "sequence {s}: the adapter does nothing"
        );
    }
}

#[test]
fn an_adapter_on_an_untied_output_has_a_lane() {
    let base = Base::tiny(&[], |_, _, _| Vec::new());
    let output = base.adapter(3, 4, |name| name == "output.weight");
    let all = base.adapter(4, 4, |name| name == "output.weight" || name.starts_with("blk.") && !name.contains("norm"));
    let sets = [set(&[(&output, 1.0)]), AdapterSet::base(), set(&[(&all, 0.5)]), set(&[(&all, 1.0), (&output, 0.5)])];
    mixed_as_alone(&base, &[output, all], &sets, 1e-2);
}

/// The embedding table is looked up, not multiplied with: an adapter on it runs by llama.cpp's own path, in steps of its
/// own, and says so by not mixing.
#[test]
fn an_adapter_on_the_embedding_table_takes_turns() {
    let base = Base::tiny(&[], |_, _, _| Vec::new());
    let table = base.adapter(5, 4, |name| name == "token_embd.weight");
    let linear = base.adapter(6, 4, |name| name.contains("ffn_"));
    let files = [table.clone(), linear.clone()];
    let sets = [set(&[(&table, 1.0)]), set(&[(&linear, 1.0)]), set(&[(&table, 1.0), (&linear, 1.0)])];
    let mut engine = base.engine(AdapterBatching::Lanes, 3);
    engine.load_adapters(&files, &HashSet::new()).expect("loaded");
    assert_eq!(sets.each_ref().map(|set| engine.mixes(set)), [false, true, false]);
    let all: Vec<Row> = (0..2).flat_map(|s| rows(&base, s, s, 0..5, &[4])).collect();
    assert!(matches!(engine.decode(&all, &sets), Err(EngineError::Misuse(_))), "never silently without it");
    let plain =
        decode(&mut base.engine(AdapterBatching::Grouped, 1), &rows(&base, 0, 0, 0..5, &[4]), &[AdapterSet::base()]);
    for set in &sets {
        let rows = rows(&base, 0, 0, 0..5, &[4]);
        let found = decode(&mut engine, &rows, std::slice::from_ref(set));
        engine.truncate(0, 0);
        let mut alone = base.engine(AdapterBatching::Grouped, 1);
        alone.load_adapters(&files, &HashSet::new()).expect("loaded");
        let expected = decode(&mut alone, &rows, std::slice::from_ref(set));
        let error = distance(&found[0], &expected[0]);
        assert!(error < 1e-2 && distance(&found[0], &plain[0]) > 3e-2, "{error:.1e}");
    }
}

/// Weights of 4 bits, which llama.cpp lays out anew for the CPU's vectors; adapters then lie in other buffers.
#[test]
fn repacked_weights_have_lanes() {
    let base = Base::tiny(&[], |name, dims, data| {
        if !name.starts_with("blk.") || dims.len() == 1 {
            return Vec::new();
        }
        let values: Vec<f32> = data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        vec![(name.to_string(), TensorType::Q4_0, dims.to_vec(), q4_0(&values))]
    });
    let files: Vec<_> =
        (0..2).map(|i| base.adapter(7 + i, 4, |n| n.starts_with("blk.") && !n.contains("norm"))).collect();
    let sets = [set(&[(&files[0], 1.0)]), AdapterSet::base(), set(&[(&files[1], 1.0)])];
    mixed_as_alone(&base, &files, &sets, 3e-2);
}

/// Blocks of 32: a half float, then sixteen bytes with a number of the first half below and one of the second above.
fn q4_0(values: &[f32]) -> Vec<u8> {
    let block = |block: &[f32]| {
        let extreme = block.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
        let scale = half::f16::from_f32(extreme / -8.0);
        let inverse = if scale.to_f32() == 0.0 { 0.0 } else { 1.0 / scale.to_f32() };
        let nibble = |v: f32| (v * inverse + 8.5).clamp(0.0, 15.0) as u8;
        let pairs = (0..16).map(|i| nibble(block[i]) | nibble(block[i + 16]) << 4);
        scale.to_le_bytes().into_iter().chain(pairs).collect::<Vec<u8>>()
    };
    values.chunks_exact(32).flat_map(block).collect()
}

/// Adapters on stacked experts are computed by llama.cpp's own path: lanes are refused by name, turns are taken.
#[test]
fn a_mixture_of_experts_takes_turns_by_name() {
    let experts = [("llama.expert_count", 2), ("llama.expert_used_count", 1)];
    let base = Base::tiny(&experts, |name, dims, data| {
        let Some(at) = name.find(".ffn_").filter(|_| dims.len() == 2) else { return Vec::new() };
        let (block, which) = (&name[..at], &name[at + 1..name.len() - ".weight".len()]);
        let stacked = [data, data].concat();
        let shape = vec![dims[0], dims[1], 2];
        let mut tensors = vec![(format!("{block}.{which}_exps.weight"), TensorType::F16, shape, stacked)];
        if which == "ffn_gate" {
            let gate: Vec<u8> = (0..dims[0] * 2).flat_map(|i| ((i % 5) as f32 * 0.1 - 0.2).to_le_bytes()).collect();
            tensors.push((format!("{block}.ffn_gate_inp.weight"), TensorType::F32, vec![dims[0], 2], gate));
        }
        tensors
    });
    let refused = base.load(AdapterBatching::Lanes, 2, 128).err().expect("refused");
    assert!(refused.message.contains("experts"), "{}", refused.message);
    let mut engine = base.engine(AdapterBatching::Auto, 2);
    match &engine.facts().batching {
        Batching::Grouped { why: Some(why) } => assert!(why.contains("experts"), "{why}"),
        other => panic!("{other:?}"),
    }
    let file = base.adapter(9, 4, |name| name.contains("_exps"));
    engine.load_adapters(std::slice::from_ref(&file), &HashSet::new()).expect("loaded");
    let sets = [set(&[(&file, 1.0)]), AdapterSet::base()];
    assert!(!engine.mixes(&sets[0]));
    let with = decode(&mut engine, &rows(&base, 0, 0, 0..5, &[4]), &sets);
    let without = decode(&mut engine, &rows(&base, 1, 1, 0..5, &[4]), &sets);
    let mut alone = base.engine(AdapterBatching::Grouped, 2);
    let expected = decode(&mut alone, &rows(&base, 1, 1, 0..5, &[4]), &sets);
    assert!(distance(&without[0], &expected[0]) < 1e-6, "a base sequence beside it is not touched");
    let plain = decode(&mut alone, &rows(&base, 0, 1, 0..5, &[4]), &sets);
    assert!(distance(&with[0], &plain[0]) > 3e-2, "the adapter acts on the experts");
}
