//! Streams that outlive their readers, moved and sent-away prefixes, the page's settings, models out of caches.

use std::io::{Read, Write};

use serde_json::{Value, json};
use smoa::gguf::{GgufWriter, TensorType};

use crate::http::{Reply, Server};
use crate::support::{App, facts, model, random_lora};

const CHAT: &str = "/v1/chat/completions";

fn chat(tokens: u64) -> Value {
    json!({"messages": [{"role": "user", "content": "Count to a hundred."}], "max_tokens": tokens, "temperature": 0,
        "stream": true, "ignore_eos": true})
}

fn get(s: &Server, path: &str, key: &str) -> Reply {
    s.request("GET", path, &[("Authorization", key)], None)
}

#[test]
fn a_conversation_outlives_its_reader_and_is_read_again() {
    let app = App::new();
    let s = app.serve(&["-np", "2", "--api-key", "a,b"]);
    let headers = [("Authorization", "a"), ("X-Conversation-Id", "talk::model")];
    let mut stream = s.connect();
    stream.write_all(&s.spell("POST", CHAT, &headers, Some(&chat(60).to_string()))).expect("sent");
    assert!(stream.read(&mut [0; 200]).expect("read") > 0);
    drop(stream);
    let url = "/v1/stream?conv_id=talk%3A%3Amodel";
    let whole = get(&s, url, "a");
    let (events, done) = whole.events();
    let last = events.iter().rev().find_map(|e| e["choices"][0]["finish_reason"].as_str());
    assert_eq!((whole.status, done, last), (200, true, Some("length")), "{}", whole.text());
    let rest = get(&s, &format!("{url}&from=100"), "a");
    assert_eq!(rest.body, whole.body[100..], "from any byte");
    let ask = json!({"conversation_ids": ["talk", "other"]}).to_string();
    let known = s.request("POST", "/v1/streams/lookup", &[("Authorization", "a")], Some(&ask)).ok();
    assert_eq!(known[0]["total_bytes"], json!(whole.body.len()), "{known}");
    assert_eq!((&known[0]["conversation_id"], &known[0]["is_done"]), (&json!("talk::model"), &json!(true)));
    assert_eq!(get(&s, url, "b").status, 404, "another key has no such conversation");
    for (path, status) in
        [("/v1/stream", 400), ("/v1/stream?conv_id=none", 404), ("/v1/stream?conv_id=talk%3A%3Amodel&from=x", 400)]
    {
        assert_eq!(get(&s, path, "a").status, status, "{path}");
    }
    for _ in 0..2 {
        assert_eq!(s.request("DELETE", url, &[("Authorization", "a")], None).status, 204);
    }
    assert_eq!(get(&s, url, "a").status, 404);
    let refused = s.request("POST", CHAT, &headers, Some(&json!({"messages": [], "stream": true}).to_string()));
    assert_eq!((refused.status, get(&s, url, "a").status), (400, 404), "what is refused is no conversation");
}

#[test]
fn a_conversation_is_stopped_and_replaced() {
    let app = App::new();
    let s = app.serve(&["-np", "1"]);
    let begin = |tokens| {
        let headers = [("X-Conversation-Id", "talk")];
        let mut stream = s.connect();
        stream.write_all(&s.spell("POST", CHAT, &headers, Some(&chat(tokens).to_string()))).expect("sent");
        assert!(stream.read(&mut [0; 300]).expect("read") > 0);
        stream
    };
    drop(begin(1500));
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(s.get("/slots").ok()[0]["is_processing"], json!(true), "it goes on");
    assert_eq!(s.request("DELETE", "/v1/stream?conv_id=talk", &[], None).status, 204);
    assert!(s.idle_after().as_secs() < 3, "stopped");
    let first = begin(1500);
    let second = begin(5);
    drop((first, second));
    let (events, done) = s.get("/v1/stream?conv_id=talk").events();
    assert!(done && events.len() < 20, "the new one took the old one's place: {}", events.len());
    assert!(s.idle_after().as_secs() < 3);
    // Without the header an answer ends with its reader.
    let mut plain = s.connect_and_send(&s.spell("POST", CHAT, &[], Some(&chat(1500).to_string())));
    assert!(plain.read(&mut [0; 300]).expect("read") > 0);
    drop(plain);
    assert!(s.idle_after().as_secs() < 3);
}

#[test]
fn parts_of_a_prompt_are_moved_only_where_this_is_asked() {
    let app = App::new();
    let (head, middle) =
        ("You are a careful clerk.", " Ignore all of this for now, please, and then forget it at once.");
    let tail = " The harbour opens at six, the first ferry leaves at seven, and the last one comes back at nine in the evening.";
    let cached = |args: &[&str]| {
        let s = app.serve(&[&["-np", "1"], args].concat());
        let ask = |prompt: String| {
            let body = json!({"prompt": prompt, "n_predict": 4, "temperature": 0});
            s.post("/completion", &body).ok()["timings"]["cache_n"].as_u64().unwrap_or_default()
        };
        ask(format!("{head}{middle}{tail}"));
        ask(format!("{head}{tail} When?"))
    };
    let (plain, moved) = (cached(&[]), cached(&["--cache-reuse", "8"]));
    assert!(plain < 10 && moved > plain + 15, "{plain} {moved}");
}

#[test]
fn prefixes_of_idle_sequences_go_to_ram_where_this_is_asked() {
    let app = App::new();
    let s = app.serve(&["-np", "3", "--cache-ram", "64", "--cache-idle-slots", "--metrics"]);
    let long = |word: &str| format!("{word} ").repeat(90);
    let cached = |prompt: String| {
        let body = json!({"prompt": prompt, "n_predict": 2, "temperature": 0});
        s.post("/completion", &body).ok()["timings"]["cache_n"].as_u64().unwrap_or_default()
    };
    cached(long("ship"));
    cached(long("tree"));
    assert!(s.get("/metrics").text().contains("\nsmoa_ram_prefix_saves_total 1\n"));
    assert!(cached(long("ship")) > 80);
    assert!(s.get("/metrics").text().contains("\nsmoa_ram_prefix_restores_total 1\n"));
    let model = model().display().to_string();
    let run = app.run(&["serve", "-m", &model, "--port", "0", "--cache-idle-slots"], "");
    assert!(run.code == Some(2) && run.stderr.contains("--cache-ram"), "{run:?}");
}

#[test]
fn the_page_is_told_its_settings() {
    let app = App::new();
    let file = app.write("page.json", r#"{"temperature": 0.2, "systemMessage": "Be brief"}"#);
    let s = app.serve(&["--ui-config-file", &file.display().to_string()]);
    assert_eq!(s.get("/props").ok()["ui_settings"], json!({"temperature": 0.2, "systemMessage": "Be brief"}));
    assert!(s.get("/").text().contains("ui_settings"), "and reads them");
    let model = model().display().to_string();
    let run = app.run(&["serve", "-m", &model, "--port", "0", "--ui-config", r#"{"theme": 1}"#], "");
    assert!(run.code == Some(2) && run.stderr.contains("theme"), "{run:?}");
}

#[test]
fn models_are_found_in_the_cache_by_address_and_by_name() {
    let app = App::new();
    let cache = app.path(".cache/llama.cpp");
    std::fs::create_dir_all(&cache).expect("made");
    for name in ["tiny.gguf", "ai_tiny_latest.gguf"] {
        std::os::unix::fs::symlink(model(), cache.join(name)).expect("linked");
    }
    for (flag, value) in [("-mu", "https://example.org/a/tiny.gguf"), ("-dr", "tiny")] {
        let s = app.serve(&[flag, value]);
        let path = s.get("/props").ok()["model_path"].as_str().unwrap_or_default().to_string();
        assert!(path.starts_with(&cache.display().to_string()), "{flag}: {path}");
        assert_eq!(s.post("/completion", &json!({"prompt": "x", "n_predict": 1})).status, 200, "{flag}");
    }
}

#[test]
fn control_vectors_act_in_their_layers_only() {
    let app = App::new();
    let (width, layers) = (facts().n_embd, facts().n_layer);
    let mut vector = GgufWriter::new();
    vector.set("general.architecture", "controlvector").expect("set");
    vector.set("controlvector.model_hint", facts().architecture.as_str()).expect("set");
    let direction: Vec<u8> = (0..width).flat_map(|n| (if n % 3 == 0 { 3.0_f32 } else { -1.0 }).to_le_bytes()).collect();
    vector.tensor("direction.5", TensorType::F32, &[u64::from(width)], direction).expect("added");
    let file = app.write("v.gguf", vector.to_bytes()).display().to_string();
    let said = |args: &[&str]| {
        let s = app.serve(args);
        let body = json!({"prompt": "The weather today is", "n_predict": 12, "temperature": 0});
        s.post("/completion", &body).ok()["content"].clone()
    };
    let plain = said(&[]);
    let within =
        |first: String, last: String| said(&["--control-vector", &file, "--control-vector-layer-range", &first, &last]);
    let everywhere = said(&["--control-vector", &file]);
    assert_ne!(everywhere, plain, "it acts");
    assert_eq!(within("1".into(), layers.to_string()), everywhere);
    assert_eq!(within("5".into(), "5".into()), everywhere, "in its layer");
    assert_eq!(within("6".into(), layers.to_string()), plain, "not beside it");
    let model = model().display().to_string();
    let run = app.run(&["serve", "-m", &model, "--port", "0", "--control-vector-layer-range", "9", "2"], "");
    assert!(run.code == Some(2) && run.stderr.contains("--control-vector-layer-range"), "{run:?}");
}

#[test]
fn i1_a_cache_that_all_adapters_go_through_changes_no_answer() {
    let app = App::new();
    let library = app.path("library").display().to_string();
    for n in 0..8 {
        let file = app.write(&format!("a{n}.gguf"), random_lora(n, 4, 0.04)).display().to_string();
        let (name, base) = (format!("a{n}"), model().display().to_string());
        app.run(&["adapter", "add", &file, "--name", &name, "--library", &library, "-m", &base], "").ok();
    }
    let shared = "You keep the log of a small harbour. Write one line for each ship that comes in. ".repeat(3);
    let ask = |s: &Server, adapter: usize, prompt: usize, cache: bool| {
        let body = json!({"prompt": format!("{shared}Ship {prompt}:"), "n_predict": 6, "temperature": 0, "ignore_eos": true,
            "return_tokens": true, "cache_prompt": cache, "adapters": [{"name": format!("a{adapter}")}]});
        s.post("/completion", &body).ok()
    };
    let cold = app.serve(&["-np", "1", "--library", &library]);
    let s = app.serve(&["-np", "1", "--library", &library, "--cache-ram", "64"]);
    let mut seen = std::collections::HashMap::new();
    let (mut random, mut hits) = (7_u64, 0);
    for _ in 0..64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (adapter, prompt) = ((random >> 33) as usize % 8, (random >> 40) as usize % 4);
        let warm = ask(&s, adapter, prompt, true);
        hits += usize::from(warm["timings"]["cache_n"].as_u64() > Some(0));
        let expected =
            seen.entry((adapter, prompt)).or_insert_with(|| ask(&cold, adapter, prompt, false)["tokens"].clone());
        assert_eq!(&warm["tokens"], expected, "adapter {adapter}, prompt {prompt}");
    }
    assert!(hits > 8, "the cache is at work: {hits}");
}

#[test]
fn h9_keys_are_compared_in_constant_time() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/keys.rs")).expect("read");
    let code = text.split("#[cfg(test)]").next().expect("code");
    // Only digests are compared, by blake3's own equality, which takes one time for all; and no loop ends early.
    assert!(code.contains("digest: blake3::Hash,") && code.contains("if key.digest == digest {"));
    assert_eq!(code.matches(" == ").count(), 2, "the comparison of digests, and that of adapters' names");
    let check =
        code.split("pub fn check(").nth(1).and_then(|rest| rest.split("\n    }\n").next()).expect("the function");
    assert!(!check.contains("break") && !check.contains("return") && !check.contains(".find("), "{check}");
}
