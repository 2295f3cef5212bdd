//! What a base model is, for adapters: a fingerprint of its shape.

use super::{Entry, LibraryError};
use crate::gguf::ModelFacts;

/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 16;

/// The fingerprint of a base model's structure: BLAKE3 over its architecture, the size of its vocabulary and the
/// names and shapes of its tensors, shortened to 16 hexadecimal digits.
///
/// No weight is read, so it costs nothing, and every quantization and every fine-tune of one network has the same
/// fingerprint: an adapter fits them all in shape. Networks of another shape, where an adapter cannot work, differ.
pub fn base_fingerprint(facts: &ModelFacts) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("smoa base fingerprint 1");
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    text(&facts.architecture);
    text(&facts.n_vocab.to_string());
    let mut tensors: Vec<_> = facts.tensors.iter().collect();
    tensors.sort_unstable();
    for (name, shape) in tensors {
        text(name);
        text(&format!("{shape:?}"));
    }
    hasher.finalize().to_hex().as_str().chars().take(DIGITS).collect()
}

/// Refuses an adapter that says it was made for another base model than the one with `fingerprint`. One that says
/// nothing passes: its tensors are checked by [`crate::gguf::check_adapter`] anyway.
///
/// # Errors
/// [`LibraryError::WrongBase`] with both fingerprints.
pub fn check_base(entry: &Entry, fingerprint: &str) -> Result<(), LibraryError> {
    match &entry.metadata.measured.base {
        Some(base) if base != fingerprint => Err(LibraryError::WrongBase {
            name: entry.name.clone(),
            adapter: base.clone(),
            model: fingerprint.to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgufWriter, TensorType, check_model};

    /// The facts of a tiny network with so many layers, its weights all `weight`.
    fn facts(layers: u32, weight: f32) -> ModelFacts {
        let mut file = GgufWriter::new();
        let mut text = |key: &str, value: &str| file.set(key, value).map(|_| ()).expect("set");
        text("general.architecture", "llama");
        text("tokenizer.ggml.model", "gpt2");
        for (key, value) in [("context_length", 64), ("embedding_length", 8), ("block_count", layers)] {
            file.set(&format!("llama.{key}"), value).expect("set");
        }
        file.set("llama.attention.head_count", 2_u32).expect("set");
        file.set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32).expect("set");
        file.set("llama.rope.dimension_count", 4_u32).expect("set");
        file.set("tokenizer.ggml.tokens", &["<s>", "a", "b", "ab"][..]).expect("set");
        file.set("tokenizer.ggml.token_type", &[3_i32, 1, 1, 1][..]).expect("set");
        file.set("tokenizer.ggml.merges", &["a b"][..]).expect("set");
        file.set("tokenizer.ggml.bos_token_id", 0_u32).expect("set");
        file.set("tokenizer.ggml.eos_token_id", 0_u32).expect("set");
        let mut tensor = |name: &str, dims: &[u64]| {
            let data = weight.to_le_bytes().repeat(dims.iter().product::<u64>() as usize);
            file.tensor(name, TensorType::F32, dims, data).map(drop).expect("tensor");
        };
        tensor("token_embd.weight", &[8, 4]);
        tensor("output_norm.weight", &[8]);
        for layer in 0..layers {
            for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
                tensor(&format!("blk.{layer}.{name}.weight"), &[8, 8]);
            }
            tensor(&format!("blk.{layer}.attn_norm.weight"), &[8]);
            tensor(&format!("blk.{layer}.ffn_norm.weight"), &[8]);
        }
        check_model(&file.to_bytes()).expect("a sound model")
    }

    #[test]
    fn a_fingerprint_is_of_the_shape_and_not_of_the_weights() {
        let one = base_fingerprint(&facts(1, 0.5));
        assert_eq!(one.len(), DIGITS);
        assert_eq!(one, base_fingerprint(&facts(1, 0.25)));
        assert_ne!(one, base_fingerprint(&facts(2, 0.5)));
        let more_words = ModelFacts { n_vocab: 5, ..facts(1, 0.5) };
        assert_ne!(one, base_fingerprint(&more_words));
    }
}
