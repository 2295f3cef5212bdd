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
        model.set(&key, value.clone()).expect("set");
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
