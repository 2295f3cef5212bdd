//! Prompt tuning and P-tuning.

use super::*;
use crate::gguf::AdapterKind;

fn rows(tokens: usize) -> Vec<f32> {
    (0..tokens * 64).map(|at| (at as f32 * 0.37).sin()).collect()
}

fn soft(kind: &str, more: &str, tensors: &[(&str, &[u64], Vec<f32>)]) -> Result<Imported, ImportError> {
    let config = format!(r#"{{"peft_type": "{kind}", "task_type": "CAUSAL_LM"{more}}}"#);
    import_parts(&config, &weights_of(tensors), &whole())
}

const TENSOR: &str = "prompt_embeddings";

#[test]
fn embeddings_come_through_as_they_are() {
    for kind in ["PROMPT_TUNING", "P_TUNING"] {
        let imported = soft(kind, r#", "num_virtual_tokens": 4"#, &[(TENSOR, &[4, 64], rows(4))]).expect("imported");
        assert_eq!(imported.facts.kind, AdapterKind::SoftPrompt { tokens: 4 });
        assert_eq!((imported.exact, imported.storage_error, imported.facts.parameter_count), (true, 0.0, 256));
        assert_eq!(gguf::soft_prompt_rows(&imported.gguf).expect("read"), rows(4), "{kind}");
    }
    let config = r#"{"peft_type": "PROMPT_TUNING"}"#;
    let halves = import_parts(config, &weights_of(&[(TENSOR, &[2, 64], rows(2))]), &Options::default());
    let error = halves.expect("imported").storage_error;
    assert!(error > 0.0 && error < 1e-3, "{error}");
}

#[test]
fn folders_that_peft_made_are_read() {
    for (name, kind) in [("prompt_tuning", PeftKind::PromptTuning), ("p_tuning", PeftKind::PTuning)] {
        let imported = import(name, &whole()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((imported.kind, imported.notes.len()), (kind, 0), "{:?}", imported.notes);
        let bytes = corpus(&format!("{name}/adapter_model.safetensors"));
        let theirs = read(&bytes).get(TENSOR).expect("there").numbers().expect("numbers");
        assert_eq!(gguf::soft_prompt_rows(&imported.gguf).expect("read"), theirs, "{name}");
    }
}

#[test]
fn other_shapes_and_strangers_are_refused() {
    for (more, tensors, words) in [
        (r#", "num_virtual_tokens": 5"#, vec![(TENSOR, &[4_u64, 64][..], rows(4))], "other than num_virtual_tokens"),
        (r#", "num_virtual_tokens": 0"#, vec![(TENSOR, &[4, 64][..], rows(4))], "expected 1 to"),
        (r#", "num_transformer_submodules": 2"#, vec![(TENSOR, &[4, 64][..], rows(4))], "encoder-decoder"),
        ("", vec![(TENSOR, &[8, 32][..], rows(4))], "another base model"),
        ("", vec![(TENSOR, &[256][..], rows(4))], "expected a matrix"),
        ("", vec![("prompt", &[4, 64][..], rows(4))], "is missing"),
        ("", vec![(TENSOR, &[4, 64][..], rows(4)), ("x.lora_A.weight", &[1, 64][..], rows(1))], "does not belong"),
    ] {
        let error = soft("PROMPT_TUNING", more, &tensors).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}
