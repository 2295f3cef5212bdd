//! Vectors of texts and ranked documents: a sentence encoder and a reranker made here, and the chat model's own.

use std::path::PathBuf;

use serde_json::{Value, json};
use smoa::gguf::{Gguf, GgufWriter, TensorType};
use smoa::import::{BertFiles, Storage, import_bert};

use crate::support::App;

const WIDTH: u64 = 32;
const WORDS: [&str; 14] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "runs", "sleeps", "fast", "sea", "is", "blue"];

/// A BERT of two layers whose numbers are all different, as a sentence encoder with mean pooling.
fn encoder() -> Vec<u8> {
    let words = WORDS.len() as u64;
    let mut tensors: Vec<(String, Vec<u64>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![words, WIDTH]),
        ("embeddings.position_embeddings.weight".into(), vec![64, WIDTH]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, WIDTH]),
        ("embeddings.LayerNorm.weight".into(), vec![WIDTH]),
        ("embeddings.LayerNorm.bias".into(), vec![WIDTH]),
    ];
    for layer in 0..2 {
        let parts = [
            ("attention.self.query", WIDTH, Some(WIDTH)),
            ("attention.self.key", WIDTH, Some(WIDTH)),
            ("attention.self.value", WIDTH, Some(WIDTH)),
            ("attention.output.dense", WIDTH, Some(WIDTH)),
            ("attention.output.LayerNorm", WIDTH, None),
            ("intermediate.dense", 64, Some(WIDTH)),
            ("output.dense", WIDTH, Some(64)),
            ("output.LayerNorm", WIDTH, None),
        ];
        for (name, rows, columns) in parts {
            let shape = columns.map_or(vec![rows], |c| vec![rows, c]);
            tensors.push((format!("encoder.layer.{layer}.{name}.weight"), shape));
            tensors.push((format!("encoder.layer.{layer}.{name}.bias"), vec![rows]));
        }
    }
    let config = json!({"model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "vocab_size": words,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"});
    let files = BertFiles {
        config: config.to_string(),
        weights: safetensors(&tensors),
        vocabulary: WORDS.map(|w| format!("{w}\n")).concat(),
        pooling: Some(r#"{"pooling_mode_mean_tokens": true}"#.into()),
        tokenizer: Some(r#"{"do_lower_case": true}"#.into()),
    };
    import_bert(&files, "tiny", Storage::F32).expect("imported").0
}

fn safetensors(tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        let n = shape.iter().product();
        match name.ends_with("LayerNorm.weight") {
            true => data.extend((0..n).flat_map(|_| 1.0_f32.to_le_bytes())),
            false => data.extend(numbers(n, start as f64)),
        }
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::from(header).to_string();
    [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), &data].concat()
}

/// Numbers from -0.5 to 0.5 without a pattern.
fn numbers(n: u64, phase: f64) -> Vec<u8> {
    let one = |i: u64| ((i as f64 * 12.9898 + phase * 78.233).sin() * 43758.5453).fract() as f32 / 2.0;
    (0..n).flat_map(|i| one(i).to_le_bytes()).collect()
}

/// The same with a classification head: a reranker.
fn reranker() -> Vec<u8> {
    let plain = encoder();
    let plain = Gguf::read(&plain).expect("read");
    let mut writer = GgufWriter::copy_of(&plain);
    writer.set("bert.pooling_type", 4_u32).expect("set");
    writer.tensor("cls.weight", TensorType::F32, &[WIDTH, WIDTH], numbers(WIDTH * WIDTH, 0.3)).expect("added");
    writer.tensor("cls.bias", TensorType::F32, &[WIDTH], numbers(WIDTH, 0.1)).expect("added");
    writer.tensor("cls.output.weight", TensorType::F32, &[WIDTH, 1], numbers(WIDTH, 0.7)).expect("added");
    writer.tensor("cls.output.bias", TensorType::F32, &[1], numbers(1, 0.5)).expect("added");
    writer.to_bytes()
}

fn floats(v: &Value) -> Vec<f32> {
    v.as_array().expect("an array").iter().map(|x| x.as_f64().expect("a number") as f32).collect()
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-3)
}

fn unbase64(text: &str) -> Vec<f32> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let n = four.iter().fold(0_u32, |n, c| n << 6 | u32::from(if *c == b'=' { 0 } else { value(*c) }));
        let padding = four.iter().filter(|c| **c == b'=').count();
        bytes.extend(&n.to_be_bytes()[1..4 - padding]);
    }
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn write(app: &App, name: &str, bytes: Vec<u8>) -> (PathBuf, String) {
    let path = app.write(name, bytes);
    let text = path.display().to_string();
    (path, text)
}

#[test]
fn a_sentence_encoder_serves_vectors() {
    let app = App::new();
    let (_, model) = write(&app, "tiny.gguf", encoder());
    let s = app.serve(&["-m", &model, "--metrics"]);
    let one = s.post("/v1/embeddings", &json!({"model": "m", "input": "the cat runs fast"})).ok();
    let first = floats(&one["data"][0]["embedding"]);
    assert_eq!((first.len(), &one["model"], &one["object"]), (WIDTH as usize, &json!("m"), &json!("list")));
    assert!((first.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-3, "unit length");
    // [CLS] the cat runs fast [SEP]
    assert_eq!(one["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}));
    // The same numbers as the encoder that routes requests gives.
    let embedded = app.run(&["model", "embed", "-m", &model], "the cat runs fast\n").ok();
    assert!(near(&first, &floats(&embedded.json_lines()[0])), "{first:?}");

    let texts = ["the sea is blue", "the cat runs fast", "dog", "", "the dog sleeps the dog sleeps the dog sleeps"];
    let many = s.post("/v1/embeddings", &json!({"input": texts})).ok();
    let all: Vec<Vec<f32>> = (0..5).map(|i| floats(&many["data"][i]["embedding"])).collect();
    assert!(near(&all[1], &first) && !near(&all[0], &first), "order and neighbours do not matter");
    assert!((0..5).all(|i| many["data"][i]["index"] == i));
    let spelled = s.post("/v1/embeddings", &json!({"input": texts, "encoding_format": "base64"})).ok();
    assert!((0..5).all(|i| near(&unbase64(spelled["data"][i]["embedding"].as_str().expect("text")), &all[i])));

    for (input, count) in [
        (json!([5, 6, 7]), 1),
        (json!([[5, 6], [7, "cat"]]), 2),
        (json!(["cat", [5, 6]]), 2),
        (json!({"prompt_string": "cat"}), 1),
        (json!({"content": [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]}), 1),
    ] {
        let body = s.post("/v1/embeddings", &json!({"input": input})).ok();
        assert_eq!(body["data"].as_array().map(Vec::len), Some(count), "{input}");
    }
    let native = s.post("/embedding", &json!({"content": "the cat runs fast"})).ok();
    assert!(near(&floats(&native[0]["embedding"][0]), &first), "{native}");
    let plain = s.post("/embedding", &json!({"content": "the cat runs fast", "embd_normalize": -1})).ok();
    assert!(!near(&floats(&plain[0]["embedding"][0]), &first));
    let cut = s.post("/v1/embeddings", &json!({"input": "cat", "dimensions": 8})).ok();
    assert_eq!(floats(&cut["data"][0]["embedding"]).len(), 8);
    let ollama = s.post("/api/embed", &json!({"model": "m", "input": ["the cat runs fast", "dog"]})).ok();
    assert!(near(&floats(&ollama["embeddings"][0]), &first) && ollama["prompt_eval_count"] == 9, "{ollama}");
    let old = s.post("/api/embeddings", &json!({"model": "m", "prompt": "the cat runs fast"})).ok();
    assert!(near(&floats(&old["embedding"]), &first));
    let long = "the cat ".repeat(60);
    assert_eq!(s.post("/api/embed", &json!({"input": long})).ok()["prompt_eval_count"], 64, "cut, as Ollama does");

    let ranked = s.post("/v1/rerank", &json!({"query": "the cat runs fast", "documents": texts, "top_n": 2})).ok();
    assert_eq!((&ranked["results"][0]["index"], &ranked["scored_by"]), (&json!(1), &json!("cosine")), "{ranked}");
    assert_eq!(ranked["results"].as_array().map(Vec::len), Some(2));

    for (body, expected) in [
        (json!({"input": long}), "too large to process"),
        (json!({"input": []}), "empty"),
        (json!({"input": [5, 99]}), "outside the vocabulary"),
        (json!({"input": {"content": "text"}}), "must be an array"),
        (json!({"input": [{"content": [{"type": "image_url", "image_url": {}}]}]}), "image_url"),
        (json!({"input": "cat", "dimensions": 33}), "dimensions: must be from 1 to 32"),
        (json!({"input": "cat", "adapters": [{"name": "x"}]}), "adapters: vectors"),
    ] {
        let reply = s.post("/v1/embeddings", &body);
        assert!(reply.status == 400 && reply.message().contains(expected), "{body}: {}", reply.text());
    }
    assert_eq!(s.post("/v1/chat/completions", &json!({"messages": [{"role": "user", "content": "hi"}]})).status, 501);
    assert_eq!(s.get("/props").ok()["embeddings"]["dimensions"], WIDTH);
    let metrics = s.get("/metrics");
    let read = metrics.text().lines().find_map(|l| l.strip_prefix("llamacpp:prompt_tokens_total "));
    assert!(read.and_then(|n| n.parse::<f64>().ok()).is_some_and(|n| n > 100.0), "{}", metrics.text());
}

#[test]
fn a_reranker_scores_documents() {
    let app = App::new();
    let (_, model) = write(&app, "rank.gguf", reranker());
    let s = app.serve(&["-m", &model, "--rerank"]);
    let texts = ["the sea is blue", "the cat runs fast", "dog"];
    let jina = s.post("/rerank", &json!({"query": "the cat", "documents": texts})).ok();
    let tei = s.post("/rerank", &json!({"query": "the cat", "texts": texts, "return_text": true})).ok();
    let scores: Vec<f32> =
        floats(&jina["results"].as_array().expect("results").iter().map(|r| r["relevance_score"].clone()).collect());
    assert!(scores.windows(2).all(|w| w[0] > w[1]), "best first, none alike: {scores:?}");
    for i in 0..3 {
        assert_eq!(jina["results"][i]["index"], tei[i]["index"]);
        assert_eq!(tei[i]["text"], texts[tei[i]["index"].as_u64().expect("a number") as usize]);
    }
    // [CLS] the cat [SEP] [SEP] ..., as llama-server lays it out, or with one separator: three pairs all the same.
    assert_eq!(jina["usage"]["prompt_tokens"], jina["usage"]["total_tokens"]);
    let alone = s.post("/rerank", &json!({"query": "the cat", "documents": [texts[2]]})).ok();
    let at = (0..3).find(|i| jina["results"][*i]["index"] == 2).expect("there");
    assert!(near(&[scores[at]], &floats(&json!([alone["results"][0]["relevance_score"]]))), "{alone} {jina}");
    for documents in [json!([]), json!(null), json!(123), json!([1, 2, 3])] {
        assert_eq!(s.post("/rerank", &json!({"query": "q", "documents": documents})).status, 400, "{documents}");
    }
    assert_eq!(s.post("/v1/embeddings", &json!({"input": "cat"})).status, 501);
}

#[test]
fn the_chat_model_makes_vectors_when_it_is_asked_to() {
    let app = App::new();
    let s = app.serve(&["--embeddings", "--pooling", "mean"]);
    let body = s.post("/v1/embeddings", &json!({"input": ["A cat sat.", "A cat sat.", "Stocks fell."]})).ok();
    let all: Vec<Vec<f32>> = (0..3).map(|i| floats(&body["data"][i]["embedding"])).collect();
    assert!(all[0].len() == 576 && near(&all[0], &all[1]) && !near(&all[0], &all[2]));
    let said =
        s.post("/v1/chat/completions", &json!({"max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}));
    assert!(said.ok()["usage"]["completion_tokens"].as_u64().is_some_and(|n| n > 0), "and answers");

    let s = app.serve(&["--embeddings"]);
    let none = s.post("/embeddings", &json!({"content": "hello hello hello"})).ok();
    assert_eq!(none[0]["embedding"].as_array().map(Vec::len), Some(3), "a vector for each token");
    let reply = s.post("/v1/embeddings", &json!({"input": "hello"}));
    assert!(reply.status == 400 && reply.message().contains("Pooling type 'none'"), "{}", reply.text());

    let (_, encoder) = write(&app, "tiny.gguf", encoder());
    let s = app.serve(&["--embedding-model", &encoder]);
    assert_eq!(floats(&s.post("/v1/embeddings", &json!({"input": "cat"})).ok()["data"][0]["embedding"]).len(), 32);
    let s = app.serve(&[]);
    assert_eq!(s.post("/v1/embeddings", &json!({"input": "hello"})).status, 501);
    assert_eq!(s.post("/rerank", &json!({"query": "a", "documents": ["b"]})).status, 501);
    let refused =
        app.run(&["serve", "--port", "0", "--rerank", "-m", crate::support::model().to_str().expect("UTF-8")], "");
    assert!(refused.code == Some(4) && refused.stderr.contains("classification head"), "{refused:?}");
}
