//! Model families whose graphs treat adapters in ways of their own, as tiny models made of the tiny llama of the corpus.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use smoa::adapter::{AdapterDigest, AdapterFile, AdapterSet, Scale};
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::{AdapterBatching, EngineOptions};
use smoa::engine::{Engine, Row, VIRTUAL};
use smoa::gguf::{self, Gguf, GgufWriter, ModelFacts, TensorType};
use smoa::import::{self, GgufWeights, Options, PeftFolder, Storage};

use crate::support::App;

fn corpus(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/peft").join(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The tiny llama as a model of another architecture: its keys renamed, its tensors through `change`.
fn disguised(
    architecture: &str,
    more: impl FnOnce(&mut GgufWriter<'_>),
    keep: impl Fn(&str) -> bool,
) -> (Vec<u8>, ModelFacts) {
    let bytes = corpus("base.gguf");
    let llama = Gguf::read(&bytes).expect("sound");
    let mut model = GgufWriter::new();
    for (key, value) in llama.keys().iter().filter(|(key, _)| *key != "general.alignment") {
        let key = key.strip_prefix("llama.").map_or_else(|| (*key).to_owned(), |rest| format!("{architecture}.{rest}"));
        model.set(&key, *value).expect("set");
    }
    model.set("general.architecture", architecture).expect("set");
    for tensor in llama.tensors().iter().filter(|tensor| keep(tensor.name)) {
        let used = tensor.dims.iter().rposition(|n| *n > 1).map_or(1, |at| at + 1);
        model
            .tensor(tensor.name, tensor.kind, &tensor.dims[..used], llama.tensor_bytes(tensor).to_vec())
            .expect("added");
    }
    more(&mut model);
    let made = model.to_bytes();
    let facts = gguf::check_model(&made).expect("a sound model");
    (made, facts)
}

fn engine(path: &Path, facts: &ModelFacts) -> LlamaEngine {
    let mut options = EngineOptions::new(path);
    (options.context, options.batch, options.micro_batch) = (64, 32, 32);
    (options.threads, options.threads_batch, options.adapter_batching) = (1, 1, AdapterBatching::Auto);
    LlamaEngine::load(&options, facts, &mut |_| true).expect("loaded")
}

fn logits(engine: &mut LlamaEngine, tokens: &[u32], set: AdapterSet) -> Vec<f32> {
    engine.truncate(0, 0);
    let last = tokens.len() - 1;
    let row = |position| Row { token: tokens[position], position, sequence: 0, logits: position == last, set: 0 };
    engine.decode(&(0..=last).map(row).collect::<Vec<_>>(), &[set]).expect("decoded");
    engine.logits(last).expect("logits").to_vec()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A safetensors file of F32 tensors.
fn safetensors(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, numbers) in tensors {
        let from = data.len();
        numbers.iter().for_each(|number| data.extend_from_slice(&number.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Imports a folder as F32; the adapter and the set of it alone.
fn imported(config: &str, weights: &[u8], model: &[u8], facts: &ModelFacts) -> (Arc<AdapterFile>, AdapterSet) {
    let parts = [Gguf::read(model).expect("sound")];
    let options = Options { storage: Storage::F32, ..Options::default() };
    let folder = PeftFolder { config, weights };
    let made = import::import_peft(&folder, facts, Some(&GgufWeights::new(&parts)), &options).expect("imported");
    let digest = AdapterDigest::of(&made.gguf);
    let file = AdapterFile::new(Path::new("a"), Box::new(made.gguf), digest, facts).expect("sound");
    (Arc::new(file), AdapterSet::new(vec![(digest, Scale::ONE)]).expect("a set"))
}

#[test]
fn a_soft_prompt_for_gemma_is_fed_as_its_scaled_embeddings() {
    let app = App::new();
    // The output is the embedding there.
    let (model, facts) = disguised("gemma", |_| (), |name| name != "output.weight");
    let path = app.write("gemma.gguf", &model);
    let mut engine = engine(&path, &facts);
    let width = facts.n_embd as usize;
    let parts = [Gguf::read(&model).expect("sound")];
    let table = smoa::import::BaseWeights::dequantized(&GgufWeights::new(&parts), "token_embd.weight").expect("read");
    // What the embedding of transformers gives for two tokens, and so what a trained prompt stands beside.
    let tokens = [9_u32, 11];
    let scale = (width as f32).sqrt();
    let rows: Vec<f32> = tokens.iter().flat_map(|t| table.row(*t as usize).to_vec()).map(|x| x * scale).collect();
    let weights = safetensors(&[("prompt_embeddings".to_owned(), vec![2, width], rows)]);
    let config = r#"{"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2}"#;
    let (soft, set) = imported(config, &weights, &model, &facts);
    engine.load_adapters(&[soft], &HashSet::new()).expect("loaded");
    let expected = logits(&mut engine, &[9, 11, 5, 6], AdapterSet::base());
    let found = logits(&mut engine, &[VIRTUAL, VIRTUAL + 1, 5, 6], set);
    assert!(distance(&found, &expected) < 1e-4, "{:e}", distance(&found, &expected));
    let other = logits(&mut engine, &[5, 6], AdapterSet::base());
    assert!(distance(&other, &expected) > 1e-3, "the prompt does something");
}

/// Numbers that look random.
fn numbers(seed: usize, count: usize, size: f32) -> Vec<f32> {
    (0..count).map(|at| ((at * 37 + seed * 101) as f32 * 0.73).sin() * size).collect()
}

/// `b a` times `strength`, `[rows, columns]` in row-major order.
fn product(a: &[f32], b: &[f32], rank: usize, strength: f32) -> Vec<f32> {
    let (rows, columns) = (b.len() / rank, a.len() / rank);
    let cell = |at: usize| (0..rank).map(|r| b[at / columns * rank + r] * a[r * columns + at % columns]).sum::<f32>();
    (0..rows * columns).map(|at| cell(at) * strength).collect()
}

#[test]
fn loras_of_experts_act_as_the_merged_weights_do() {
    const EXPERTS: usize = 4;
    let app = App::new();
    let llama = corpus("base.gguf");
    let shapes = gguf::check_model(&llama).expect("sound");
    let (width, hidden) = (shapes.n_embd as usize, 32);
    let layers = shapes.n_layer as usize;
    // (tensor, module, inputs, outputs)
    let linears = [("gate", "w1", width, hidden), ("down", "w2", hidden, width), ("up", "w3", width, hidden)];
    let config = r#"{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 6, "target_modules": ["w1", "w2", "w3"],
        "rank_pattern": {"layers.0.block_sparse_moe.experts.2.w1": 3}}"#;
    let seed_of =
        |layer: usize, expert: usize, module: &str| layer * 1000 + expert * 100 + usize::from(module.as_bytes()[1]) * 7;
    let (mut folder, mut merged) = (Vec::new(), Vec::new());
    for layer in 0..layers {
        for (tensor, module, inputs, outputs) in linears {
            let mut whole = Vec::new();
            for expert in 0..EXPERTS {
                let seed = seed_of(layer, expert, module);
                whole.extend(numbers(seed, inputs * outputs, 0.2));
                // The last expert has no adapter, and one has another rank.
                if expert + 1 == EXPERTS {
                    continue;
                }
                let rank = if (layer, expert, module) == (0, 2, "w1") { 3 } else { 2 };
                let (a, b) = (numbers(seed + 1, rank * inputs, 0.3), numbers(seed + 2, rank * outputs, 0.3));
                let change = product(&a, &b, rank, 6.0 / rank as f32);
                let start = expert * inputs * outputs;
                whole[start..].iter_mut().zip(change).for_each(|(w, c)| *w += c);
                let name = format!("base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{module}");
                folder.push((format!("{name}.lora_A.weight"), vec![rank, inputs], a));
                folder.push((format!("{name}.lora_B.weight"), vec![outputs, rank], b));
            }
            merged.push((format!("blk.{layer}.ffn_{tensor}_exps.weight"), [inputs, outputs], whole));
        }
    }
    let model = |with_change: bool| {
        let experts = |model: &mut GgufWriter<'_>| {
            model.set("llama.expert_count", EXPERTS as u32).expect("set");
            model.set("llama.expert_used_count", 2_u32).expect("set");
            model.set("llama.feed_forward_length", hidden as u32).expect("set");
            let mut add = |name: &str, dims: &[u64], numbers: &[f32]| {
                let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
                model.tensor(name, TensorType::F32, dims, bytes).expect("added");
            };
            for layer in 0..layers {
                let router = numbers(layer + 7, width * EXPERTS, 1.0);
                add(&format!("blk.{layer}.ffn_gate_inp.weight"), &[width as u64, EXPERTS as u64], &router);
                for (tensor, module, inputs, outputs) in linears {
                    let name = format!("blk.{layer}.ffn_{tensor}_exps.weight");
                    let plain: Vec<f32> =
                        (0..EXPERTS).flat_map(|e| numbers(seed_of(layer, e, module), inputs * outputs, 0.2)).collect();
                    let changed = &merged.iter().find(|(known, ..)| *known == name).expect("made").2;
                    let dims = [inputs as u64, outputs as u64, EXPERTS as u64];
                    add(&name, &dims, if with_change { changed } else { &plain });
                }
            }
        };
        disguised("llama", experts, |name| !name.contains(".ffn_") || name.contains("ffn_norm"))
    };
    let ((plain, facts), (changed, _)) = (model(false), model(true));
    let paths = (app.write("plain.gguf", &plain), app.write("merged.gguf", &changed));
    let (lora, set) = imported(config, &safetensors(&folder), &plain, &facts);
    let pair = lora.facts().pairs.iter().find(|pair| pair.tensor == "blk.0.ffn_gate_exps.weight").expect("there");
    assert_eq!((pair.experts, pair.rank), (EXPERTS as u32, 3));
    let tokens = [9, 11, 5, 6, 30];
    let mut adapted = engine(&paths.0, &facts);
    let base = logits(&mut adapted, &tokens, AdapterSet::base());
    adapted.load_adapters(&[lora], &HashSet::new()).expect("loaded");
    let found = logits(&mut adapted, &tokens, set);
    let expected = logits(&mut engine(&paths.1, &facts), &tokens, AdapterSet::base());
    assert!(distance(&found, &expected) < 1e-3, "{:e}", distance(&found, &expected));
    assert!(distance(&base, &expected) > 1e-2, "the adapter does something");
}
