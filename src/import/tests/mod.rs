//! Tests of the import as a whole, on folders that the real PEFT made (`scripts/train/make_peft_fixtures.py`).

mod bert;
mod fixtures;
mod gains;
mod hostile;
mod refusals;
mod soft_prompts;

use std::fs;
use std::path::PathBuf;

use super::safetensors::SafeTensors;
use super::*;
use crate::gguf::{Gguf, ModelFacts};

/// A file of the corpus.
fn corpus(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/peft").join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tiny llama that most folders belong to.
fn base() -> (Vec<u8>, ModelFacts) {
    let bytes = corpus("base.gguf");
    let facts = gguf::check_model(&bytes).expect("a sound model");
    (bytes, facts)
}

/// Imports a folder for the tiny llama, with its weights.
fn import(name: &str, options: &Options) -> Result<Imported, ImportError> {
    let config = String::from_utf8(corpus(&format!("{name}/adapter_config.json"))).expect("text");
    import_parts(&config, &corpus(&format!("{name}/adapter_model.safetensors")), options)
}

fn import_parts(config: &str, weights: &[u8], options: &Options) -> Result<Imported, ImportError> {
    let (bytes, facts) = base();
    let parts = [Gguf::read(&bytes).expect("a sound model")];
    let base_weights = GgufWeights::new(&parts);
    import_peft(&PeftFolder { config, weights }, &facts, Some(&base_weights), options)
}

/// Options with F32 numbers, so that what is compared is the mathematics.
fn whole() -> Options {
    Options { storage: Storage::F32, ..Options::default() }
}

/// The configuration of the plain LoRA folder with one field replaced.
fn config_with(field: &str, value: &str) -> String {
    let text = String::from_utf8(corpus("lora/adapter_config.json")).expect("text");
    let mut map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).expect("an object");
    map.insert(field.to_owned(), serde_json::from_str(value).expect("a value"));
    serde_json::to_string(&map).expect("text")
}

/// A safetensors file of F32 tensors.
fn weights_of(tensors: &[(&str, &[u64], Vec<f32>)]) -> Vec<u8> {
    let (mut entries, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, numbers) in tensors {
        let start = data.len();
        data.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        entries.insert((*name).to_owned(), entry);
    }
    file_of(&serde_json::to_string(&entries).expect("text"), &data)
}

/// A safetensors file of a header and data.
fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// The plain LoRA folder's weights.
fn lora_weights() -> Vec<u8> {
    corpus("lora/adapter_model.safetensors")
}

/// Reads a reference of PyTorch's.
fn reference(name: &str) -> Vec<u8> {
    corpus(&format!("{name}/reference.safetensors"))
}

fn read(bytes: &[u8]) -> SafeTensors<'_> {
    SafeTensors::read(bytes).expect("a sound file")
}
