//! Between tenants: no answer that is another adapter's, no key that sees what another asked, and thoughts that only
//! the client of an answer ends.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Server;
use crate::support::{App, random_lora};

/// I3. Eight adapters, many streams side by side, prefixes kept and shared: every answer begins as its own adapter's, as it
/// says it alone in a server that keeps nothing. `SMOA_CANARIES` is how many requests (10,000 in the long run).
#[test]
fn i3_no_answer_is_another_adapters() {
    const ADAPTERS: usize = 8;
    const STREAMS: usize = 32;
    let requests = std::env::var("SMOA_CANARIES").ok().and_then(|n| n.parse().ok()).unwrap_or(640);
    let app = App::new();
    let names: Vec<String> = (0..ADAPTERS).map(|n| format!("canary-{n}.gguf")).collect();
    for (n, name) in names.iter().enumerate() {
        app.write(name, random_lora(610 + n as u64, 8, 0.2));
    }
    let mut args = vec!["-np", "8", "--cache-ram", "64"];
    names.iter().for_each(|name| args.extend(["--lora", name.as_str()]));
    args.push("--lora-init-without-apply");
    let s = app.serve(&args);
    let prompts: Vec<String> = ["sea", "hill", "king", "bread", "night", "law"]
        .iter()
        .map(|w| format!("Tell me a few words about the {w}"))
        .collect();
    let ask = |adapter: usize, prompt: &str, cache: bool| -> Vec<Value> {
        let body = json!({"prompt": prompt, "n_predict": 2, "temperature": 0, "ignore_eos": true, "n_probs": 20,
            "cache_prompt": cache, "lora": [{"id": adapter, "scale": 1.0}]});
        let reply = s.post("/completion", &body).ok();
        reply["completion_probabilities"].as_array().expect("probabilities").clone()
    };
    let cold: Vec<Vec<Vec<Value>>> =
        (0..ADAPTERS).map(|adapter| prompts.iter().map(|prompt| ask(adapter, prompt, false)).collect()).collect();
    // So clear are they that a mix-up would be seen.
    let (mut pairs, mut alike) = (0, 0);
    for (a, one) in cold.iter().enumerate() {
        for other in &cold[a + 1..] {
            let same = one.iter().zip(other).filter(|(one, other)| is_said(one, other)).count();
            (pairs, alike) = (pairs + prompts.len(), alike + same);
        }
    }
    assert!(alike * 10 < pairs, "{alike} of {pairs} answers are those of another adapter too");
    let (foreign, most) = (Mutex::new(Vec::new()), Mutex::new(0.0_f64));
    std::thread::scope(|scope| {
        for stream in 0..STREAMS {
            let (ask, prompts, cold, foreign, most) = (&ask, &prompts, &cold, &foreign, &most);
            scope.spawn(move || {
                for n in 0..requests / STREAMS {
                    let (adapter, at) = ((stream * 5 + n * 3) % ADAPTERS, (stream + n * 7) % prompts.len());
                    let answer = ask(adapter, &prompts[at], true);
                    let mut most = most.lock().expect("held");
                    *most = most.max(apart(&answer, &cold[adapter][at]));
                    drop(most);
                    if !is_said(&answer, &cold[adapter][at]) {
                        foreign.lock().expect("held").push((adapter, at, answer));
                    }
                }
            });
        }
    });
    let most = most.into_inner().expect("held");
    println!(
        "{alike} of {pairs} cold answers are alike; {requests} answers at most {most:.2} nats from their cold ones"
    );
    let foreign = foreign.into_inner().expect("held");
    assert!(foreign.is_empty(), "{} of {requests}, for example {:?}", foreign.len(), foreign.first());
}

/// Whether an answer begins as expected: the likelihoods of the first token. Where keys and values lie in the cache decides in
/// which order llama.cpp's attention sums half floats, and roundings of activations to 8 bits make more of it; another
/// adapter moves likelihoods by whole nats (the exact comparison is `isolation`).
fn is_said(answer: &[Value], expected: &[Value]) -> bool {
    apart(answer, expected) < 1.0
}

/// The mean distance in nats of the tokens that are likeliest in either; one that the other does not list is 3 nats off.
fn apart(a: &[Value], b: &[Value]) -> f64 {
    let list = |steps: &[Value]| -> Vec<(u64, f64)> {
        let top = steps[0]["top_logprobs"].as_array().expect("a list");
        top.iter().map(|t| (t["id"].as_u64().expect("an id"), t["logprob"].as_f64().expect("a number"))).collect()
    };
    let (a, b) = (list(a), list(b));
    let one_way = |a: &[(u64, f64)], b: &[(u64, f64)]| -> f64 {
        let of = |id: u64| b.iter().find(|(other, _)| *other == id).map(|(_, logprob)| *logprob);
        a.iter().take(5).map(|(id, logprob)| of(*id).map_or(3.0, |other| (other - logprob).abs())).sum::<f64>() / 5.0
    };
    one_way(&a, &b).max(one_way(&b, &a))
}

/// I7. What one key has asked is of no use to another: neither the count of cached tokens nor the time tells.
#[test]
fn i7_keys_share_no_prefixes() {
    let app = App::new();
    let keys = app.write("keys", "key-x\nkey-y\n").display().to_string();
    let folder = app.path("slots");
    std::fs::create_dir(&folder).expect("made");
    let folder = folder.display().to_string();
    let s = app.serve(&["-np", "2", "--cache-ram", "64", "--api-key-file", &keys, "--slot-save-path", &folder]);
    let send = |key: &str, path: &str, body: &Value| {
        let key = format!("Bearer {key}");
        s.request("POST", path, &[("Authorization", key.as_str())], Some(&body.to_string()))
    };
    let ask = |key: &str, prompt: &str| {
        let body = json!({"prompt": prompt, "n_predict": 1, "temperature": 0});
        let timings = send(key, "/completion", &body).ok()["timings"].clone();
        (timings["cache_n"].as_u64().expect("a count"), timings["prompt_ms"].as_f64().expect("a time"))
    };
    let secret = |n: usize| {
        // Differs from its first letter on.
        let words = ["river", "stone", "cloud", "ember", "field", "glass", "thorn"];
        (0..90).fold(format!("{} is the secret:", char::from(b'A' + n as u8)), |text, i| {
            format!("{text} {}", words[(n * 31 + i * i + i / 7) % 7])
        })
    };
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..24 {
        let prompt = secret(n);
        if n % 2 == 0 {
            ask("key-x", &prompt);
            assert!(ask("key-x", &prompt).0 > 50, "its own key goes on from it");
        }
        let (cached, ms) = ask("key-y", &prompt);
        assert_eq!(cached, 0, "{n}");
        if n % 2 == 0 { &mut known } else { &mut unknown }.push(ms);
    }
    let middle = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (known, unknown) = (middle(&mut known), middle(&mut unknown));
    // A prefix that is there takes less than a tenth.
    assert!(known > unknown * 0.5, "{known} ms for what another key has sent, {unknown} ms for what none has");
    assert!(ask("key-y", &secret(23)).0 > 50, "its own is there");

    // A slot that was saved under one key is not for the other (I11).
    let slot = |key: &str, action: &str| {
        let body = json!({"filename": "x.bin"});
        send(key, &format!("/slots/0?action={action}"), &body).status
    };
    let body = json!({"prompt": secret(50), "n_predict": 1, "id_slot": 0});
    assert_eq!((send("key-x", "/completion", &body).status, slot("key-x", "save")), (200, 200));
    assert_eq!((slot("key-y", "restore"), slot("key-x", "restore")), (422, 200));
}

#[test]
fn thoughts_are_ended_from_outside_and_with_words() {
    let app = App::new();
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
    let file = app.write("thinking.jinja", template).display().to_string();
    let s = app.serve(&["--chat-template-file", &file, "--reasoning-budget-message", " That will do."]);
    let chat = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "Name a colour."}], "temperature": 0,
            "ignore_eos": true});
        more.as_object().into_iter().flatten().for_each(|(k, v)| body[k] = v.clone());
        body
    };
    let control =
        |s: &Server, id: &str| s.post("/v1/chat/completions/control", &json!({"id": id, "action": "reasoning_end"}));

    let body = s.post("/v1/chat/completions", &chat(json!({"thinking_budget_tokens": 6, "max_tokens": 30}))).ok();
    let thought = body["choices"][0]["message"]["reasoning_content"].as_str().unwrap_or_default().to_string();
    assert!(thought.ends_with("That will do."), "{body}");
    let own = json!({"thinking_budget_tokens": 6, "max_tokens": 30, "reasoning_budget_message": " Enough!"});
    let body = s.post("/v1/chat/completions", &chat(own)).ok();
    assert!(
        body["choices"][0]["message"]["reasoning_content"].as_str().unwrap_or_default().ends_with("Enough!"),
        "{body}"
    );

    let endless = chat(json!({"reasoning_control": true, "max_tokens": 1500, "stream": true,
        "logit_bias": [["</think>", -100]], "stop": ["no such text"]}));
    let mut stream = s.connect();
    stream.write_all(&s.spell("POST", "/v1/chat/completions", &[], Some(&endless.to_string()))).expect("sent");
    let mut text = String::new();
    let mut chunk = [0; 4096];
    while text.matches("reasoning_content").count() < 5 {
        let n = stream.read(&mut chunk).expect("read");
        assert!(n > 0, "{text}");
        text += &String::from_utf8_lossy(&chunk[..n]);
    }
    let id = text.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id").to_string();
    assert_eq!(control(&s, &id).ok(), json!({"success": true}));
    while !text.contains("\"content\":\"") {
        let n = stream.read(&mut chunk).expect("read");
        assert!(n > 0, "an answer comes after the thoughts: {}", &text[text.len().saturating_sub(2000)..]);
        text += &String::from_utf8_lossy(&chunk[..n]);
    }
    assert!(text.matches("reasoning_content").count() < 1000, "long before their end");
    assert_eq!(control(&s, &id).ok()["success"], false, "they have ended");
    drop(stream);
    assert!(s.idle_after() < Duration::from_secs(10));
    assert_eq!(control(&s, &id).ok()["success"], false, "the answer is gone");
    for body in [json!({}), json!({"id": id}), json!({"id": id, "action": "stop"}), json!({"action": "reasoning_end"})]
    {
        assert_eq!(s.post("/v1/chat/completions/control", &body).status, 400, "{body}");
    }
    let several = chat(json!({"reasoning_control": true, "n": 2}));
    assert_eq!(s.post("/v1/chat/completions", &several).status, 400);
}

/// F7. Asked to stop while 32 streams run or wait: every one of them ends with an error event or as it would have.
#[test]
fn f7_streams_end_with_their_last_event_when_the_server_stops() {
    let app = App::new();
    let s = app.serve(&["-np", "4", "--drain-seconds", "1"]);
    let body =
        json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400, "ignore_eos": true, "stream": true});
    let request = s.spell("POST", "/v1/chat/completions", &[], Some(&body.to_string()));
    let streams: Vec<_> = (0..32).map(|_| s.connect_and_send(&request)).collect();
    std::thread::sleep(Duration::from_millis(500));
    s.signal("TERM");
    let ends: Vec<String> = std::thread::scope(|scope| {
        let readers: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                scope.spawn(move || {
                    let mut text = Vec::new();
                    let _ = stream.read_to_end(&mut text);
                    String::from_utf8_lossy(&text).into_owned()
                })
            })
            .collect();
        readers.into_iter().map(|r| r.join().expect("read")).collect()
    });
    for end in ends {
        // One that had no place yet is refused as a whole.
        let told = end.contains("data: [DONE]") || end.contains("the server is stopping") || end.contains(" 503 ");
        assert!(told, "{}", &end[end.len().saturating_sub(300)..]);
    }
    assert_eq!(s.ended(Duration::from_secs(30)), Some(0));
}

/// F8. A client that goes while its prompt is read, or right behind its last token.
#[test]
fn f8_a_client_that_goes_early_or_late_frees_its_slot() {
    let app = App::new();
    let s = app.serve(&["-np", "1"]);
    let long = json!({"prompt": "word ".repeat(1500), "n_predict": 300, "ignore_eos": true, "cache_prompt": false});
    let stream = s.connect_and_send(&s.spell("POST", "/completion", &[], Some(&long.to_string())));
    std::thread::sleep(Duration::from_millis(150));
    drop(stream);
    assert!(s.idle_after() < Duration::from_secs(4));
    for _ in 0..20 {
        let short = json!({"prompt": "Hi", "n_predict": 1, "stream": true}).to_string();
        let mut stream = s.connect_and_send(&s.spell("POST", "/completion", &[], Some(&short)));
        let _ = stream.read(&mut [0; 64]);
    }
    assert!(s.idle_after() < Duration::from_secs(2));
    assert_eq!(s.post("/completion", &json!({"prompt": "Hi", "n_predict": 1})).status, 200);
}
