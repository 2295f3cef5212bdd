//! Sentence encoders: a tiny one made here, and what is refused.

use super::super::bert::wanted_for_tests as wanted;
use super::super::safetensors::SafeTensors;
use super::super::{BertError, BertFiles, Storage, import_bert};
use crate::gguf::{Gguf, ModelKind, TensorType};

const CONFIG: &str = r#"{"model_type": "bert", "hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 16, "vocab_size": 9,
    "type_vocab_size": 2, "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"}"#;
const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##lo\n##\n!\n";

/// A safetensors file of these tensors, all numbers different.
fn safetensors(tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        for i in 0..shape.iter().product::<u64>() {
            data.extend(((i as f32 + start as f32).sin() / 8.0).to_le_bytes());
        }
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn files(change: impl FnOnce(&mut Vec<(String, Vec<u64>)>)) -> BertFiles {
    let mut tensors = wanted(CONFIG);
    tensors.push(("pooler.dense.weight".into(), vec![32, 32]));
    change(&mut tensors);
    BertFiles {
        config: CONFIG.into(),
        weights: safetensors(&tensors),
        vocabulary: VOCABULARY.into(),
        pooling: Some(r#"{"pooling_mode_mean_tokens": true}"#.into()),
        tokenizer: Some(r#"{"do_lower_case": true}"#.into()),
    }
}

#[test]
fn an_encoder_is_carried_over() {
    let files = files(|_| ());
    let (bytes, facts) = import_bert(&files, "tiny", Storage::Q8_0).expect("imported");
    assert_eq!((facts.kind, facts.n_embd, facts.n_layer, facts.n_vocab), (ModelKind::Embedding, 32, 2, 9));
    assert_eq!((facts.pooling_type, facts.file_type.as_str()), (Some(1), "Q8_0"));
    let gguf = Gguf::read(&bytes).expect("read");
    let kind = |name: &str| gguf.tensor(name).map(|tensor| tensor.kind);
    assert_eq!(kind("blk.1.ffn_down.weight"), Some(TensorType::Q8_0));
    assert_eq!(kind("token_embd.weight"), Some(TensorType::Q8_0));
    assert_eq!(kind("position_embd.weight"), Some(TensorType::F32));
    assert_eq!(kind("blk.0.attn_q.bias"), Some(TensorType::F32));
    assert_eq!(gguf.tensor("blk.0.ffn_up.weight").expect("there").dims[..2], [32, 64]);
    // Every tensor of the file but the pooler.
    assert_eq!(gguf.tensors().len(), wanted(CONFIG).len());
    let tokens = gguf.array("tokenizer.ggml.tokens", &[crate::gguf::ValueType::Str]).expect("typed").expect("there");
    let texts: Vec<String> = tokens.strings().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    assert_eq!(texts, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u{2581}hello", "lo", "\u{2581}##", "\u{2581}!"]);
    assert_eq!(import_bert(&files, "tiny", Storage::Q8_0).expect("again").0, bytes);

    let (bytes, facts) = import_bert(&files, "tiny", Storage::F32).expect("imported");
    assert_eq!(facts.file_type, "F32");
    let gguf = Gguf::read(&bytes).expect("read");
    let tensor = gguf.tensor("blk.1.attn_v.weight").expect("there");
    let source = SafeTensors::read(&files.weights).expect("read");
    let original = source.get("encoder.layer.1.attention.self.value.weight").expect("there");
    assert_eq!(gguf.tensor_bytes(tensor), original.bytes);
}

#[test]
fn names_may_begin_with_bert() {
    let prefixed = files(|tensors| tensors.iter_mut().for_each(|(name, _)| *name = format!("bert.{name}")));
    let plain = import_bert(&files(|_| ()), "tiny", Storage::F16).expect("imported");
    assert_eq!(import_bert(&prefixed, "tiny", Storage::F16).expect("imported").0, plain.0);
}

#[test]
fn others_are_refused_by_name() {
    let config = |from: &str, to: &str| BertFiles { config: CONFIG.replace(from, to), ..files(|_| ()) };
    let pooling = |text: &str| BertFiles { pooling: Some(text.into()), ..files(|_| ()) };
    let cases = [
        (config("\"bert\"", "\"roberta\""), "config.json: 'model_type'"),
        (config("gelu", "relu"), "config.json: 'hidden_act'"),
        (config("absolute", "relative_key"), "config.json: 'position_embedding_type'"),
        (config("\"hidden_size\": 32", "\"hidden_size\": 0"), "config.json: 'hidden_size'"),
        (config("\"num_attention_heads\": 4", "\"num_attention_heads\": 5"), "config.json: 'num_attention_heads'"),
        (config("1e-12", "-1"), "config.json: 'layer_norm_eps'"),
        (config("\"vocab_size\": 9", "\"vocab_size\": 10"), "vocab.txt: holds 9 tokens"),
        (config("{", ""), "config.json: "),
        (pooling(r#"{"pooling_mode_max_tokens": true}"#), "1_Pooling/config.json: "),
        (pooling("{}"), "1_Pooling/config.json: "),
        (BertFiles { vocabulary: VOCABULARY.replace("[SEP]", "sep"), ..files(|_| ()) }, "vocab.txt: has no [SEP]"),
        (BertFiles { weights: b"PK\x03\x04".to_vec(), ..files(|_| ()) }, "model.safetensors: a zip archive"),
        (files(|tensors| drop(tensors.remove(0))), "model.safetensors: 'embeddings.word_embeddings.weight' is missing"),
        (files(|tensors| tensors[5].1 = vec![32, 31]), "model.safetensors: '"),
        (
            files(|tensors| tensors.push(("encoder.layer.2.x".into(), vec![1]))),
            "model.safetensors: 'encoder.layer.2.x'",
        ),
    ];
    for (files, said) in cases {
        let error = import_bert(&files, "tiny", Storage::Q8_0).expect_err(said).to_string();
        assert!(error.starts_with(said), "{error}");
        assert!(!error.contains('\n'));
    }
    let cut = BertFiles { weights: files(|_| ()).weights[..5000].to_vec(), ..files(|_| ()) };
    assert!(matches!(import_bert(&cut, "tiny", Storage::F16), Err(BertError::File { file: "model.safetensors", .. })));
}
