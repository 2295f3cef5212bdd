//! Faults and isolation, row by row: clients that come and go, readers that do not read, adapters that change while
//! they are used, and what the log must not hold.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::Server;
use crate::support::{App, random_lora};

fn ask(s: &Server, more: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Tell me about the sea."}], "max_tokens": 12,
        "temperature": 0});
    more.as_object().into_iter().flatten().for_each(|(k, v)| body[k] = v.clone());
    s.post("/v1/chat/completions", &body).ok()
}

fn said(body: &Value) -> String {
    body["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_string()
}

fn threads(s: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", s.pid())).map_or(0, Iterator::count)
}

/// A stream that has begun.
fn begun(s: &Server, body: &Value) -> std::net::TcpStream {
    let mut stream = s.connect();
    stream.write_all(&s.spell("POST", "/v1/chat/completions", &[], Some(&body.to_string()))).expect("sent");
    let mut first = [0; 300];
    assert!(stream.read(&mut first).expect("read") > 0);
    stream
}

#[test]
fn f9_a_thousand_clients_that_come_and_go_leave_nothing() {
    let app = App::new();
    let s = app.serve(&["-np", "2"]);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200, "stream": true}).to_string();
    let request = s.spell("POST", "/v1/chat/completions", &[], Some(&body));
    drop(s.connect_and_send(&request));
    s.idle_after();
    let (files, tasks) = (s.descriptors(), threads(&s));
    for n in 0..1000 {
        let mut stream = s.connect();
        // In the head, in the body, or behind it, before anything is read.
        let part = [0, 20, request.len() - 5, request.len()][n % 4];
        let _ = stream.write_all(&request[..part]);
    }
    assert!(s.idle_after() < Duration::from_secs(5));
    let end = Instant::now() + Duration::from_secs(15);
    while (s.descriptors() > files + 4 || threads(&s) > tasks + 70) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(s.descriptors() <= files + 4, "{files} files before, {} after", s.descriptors());
    assert_eq!(s.get("/health").status, 200);
    assert!(!said(&ask(&s, &json!({}))).is_empty());
}

#[test]
fn f10_a_reader_that_does_not_read_holds_up_nobody() {
    let app = App::new();
    let s = app.serve(&["-np", "2", "--timeout", "2"]);
    // A thousand alternatives per token fill every buffer on the way.
    let heavy = json!({"prompt": "Once", "n_predict": 1800, "ignore_eos": true, "n_probs": 1000, "stream": true});
    let mut lazy = s.connect();
    lazy.write_all(&s.spell("POST", "/completion", &[], Some(&heavy.to_string()))).expect("sent");
    let others: Vec<String> = (0..3).map(|_| said(&ask(&s, &json!({"cache_prompt": false})))).collect();
    assert!(others.windows(2).all(|w| w[0] == w[1]) && !others[0].is_empty());
    assert!(s.idle_after() < Duration::from_secs(20), "given up");
    drop(lazy);
}

#[test]
fn i5_i6_i9_adapters_change_under_requests_and_no_answer_is_mixed() {
    let app = App::new();
    for (name, seed) in [("one", 31), ("two", 32)] {
        app.write(&format!("{name}.gguf"), random_lora(seed, 8, 0.08));
    }
    let (root, library) = (app.dir.path().display().to_string(), app.path("library").display().to_string());
    let s = app.serve(&[
        "-np",
        "2",
        "--library",
        &library,
        "--admin-key",
        "boss",
        "--adapter-root",
        &root,
        "--lora",
        "two.gguf",
    ]);
    let admin = [("Authorization", "Bearer boss")];
    let load = |file: &str| {
        let body = json!({"name": "style", "path": file, "load_inplace": true}).to_string();
        s.request("POST", "/v1/adapters", &admin, Some(&body)).ok()
    };
    load("one.gguf");
    let style = json!({"model": "style"});
    let first = ask(&s, &style);
    let half = ask(&s, &json!({"adapters": [{"name": "style", "scale": 0.5}]}));
    // I5: the same name with other weights is another adapter, whatever is cached.
    load("two.gguf");
    let second = ask(&s, &style);
    assert_ne!(first["adapters"][0]["digest"], second["adapters"][0]["digest"]);
    assert_ne!(said(&first), said(&second));
    let cold = |more: &Value| {
        let mut body = more.clone();
        body["cache_prompt"] = json!(false);
        said(&ask(&s, &body))
    };
    assert_eq!(said(&second), cold(&style));
    load("one.gguf");
    assert_eq!((said(&ask(&s, &style)), cold(&style)), (said(&first), said(&first)), "and back again");
    assert_eq!(
        said(&ask(&s, &json!({"adapters": [{"name": "style", "scale": 0.5}]}))),
        said(&half),
        "at another weight"
    );

    // I6: new weights of the server's own adapters are for later requests; one under way keeps what it has.
    let long = json!({"messages": [{"role": "user", "content": "Tell me about the sea."}], "max_tokens": 400,
        "temperature": 0, "ignore_eos": true, "stream": true});
    let undisturbed = {
        let mut text = String::new();
        begun(&s, &long).read_to_string(&mut text).expect("read");
        text.matches("\"content\":").count()
    };
    let stream = begun(&s, &long);
    assert_eq!(
        s.request("POST", "/lora-adapters", &[], Some("[{\"id\": 0, \"scale\": 0}]")).ok(),
        json!({"success": true})
    );
    let mut text = String::new();
    let mut stream = stream;
    stream.read_to_string(&mut text).expect("read");
    assert!(text.contains("data: [DONE]") && text.matches("\"content\":").count().abs_diff(undisturbed) < 40);
    assert!(text.contains("two"), "its last chunk tells the adapter it ran under");
    assert_eq!(ask(&s, &json!({}))["adapters"], json!([]));

    // I9: an adapter that is removed under a stream ends it as it began; the next request does not find it.
    let mut named = long.clone();
    named["model"] = json!("style");
    let mut stream = begun(&s, &named);
    assert_eq!(s.request("DELETE", "/v1/adapters/style", &admin, None).status, 200);
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    assert!(text.contains("data: [DONE]") && text.contains("\"style\"") && !text.contains("\"error\""));
    let gone =
        s.post("/v1/chat/completions", &json!({"model": "style", "messages": [{"role": "user", "content": "?"}]}));
    assert_eq!(gone.status, 404);
}

#[test]
fn i4_what_went_wrong_before_changes_no_answer() {
    let app = App::new();
    let s = app.serve(&["-np", "1"]);
    let fresh = said(&ask(&s, &json!({"cache_prompt": false})));
    let wrong = [
        json!({"grammar": "root ::= missing"}),
        json!({"max_tokens": 1, "grammar": "root ::= \"a\" root | \"b\""}),
        json!({"t_max_predict_ms": 1, "max_tokens": 300}),
        json!({"stop": ["e"]}),
        json!({"logit_bias": [[5, 100]], "max_tokens": 3}),
    ];
    for more in wrong {
        let mut body = json!({"messages": [{"role": "user", "content": "Tell me about the sea."}], "max_tokens": 12});
        more.as_object().into_iter().flatten().for_each(|(k, v)| body[k] = v.clone());
        let _ = s.post("/v1/chat/completions", &body);
        let again = said(&ask(&s, &json!({})));
        // A prefix that is read in other parts gives the last bits of other logits; the text is the same here.
        assert_eq!(again, fresh, "after {more}");
    }
    let long = json!({"messages": [{"role": "user", "content": "Tell me about the sea."}], "max_tokens": 900,
        "ignore_eos": true, "stream": true});
    drop(begun(&s, &long));
    assert_eq!(said(&ask(&s, &json!({}))), fresh, "after one whose client has gone");
}

#[test]
fn i10_no_prompt_no_answer_and_no_key_is_in_the_log() {
    let app = App::new();
    let log = app.path("log").display().to_string();
    let keys = app.write("keys", "canary-key-5d1f\n").display().to_string();
    let s = app.serve(&["--log-file", &log, "--log-verbosity", "5", "--api-key-file", &keys]);
    let headers = [("Authorization", "Bearer canary-key-5d1f")];
    let body = json!({"messages": [{"role": "user", "content": "canary-prompt-77ab"}], "max_tokens": 8,
        "grammar": "root ::= \"canary-answer-90\""});
    let answer = s.request("POST", "/v1/chat/completions", &headers, Some(&body.to_string())).ok();
    assert_eq!(said(&answer), "canary-answer-90");
    for (headers, body) in [
        (
            &headers[..],
            json!({"messages": [{"role": "user", "content": "canary-prompt-77ab"}], "grammar": "root ::= canary-grammar-11"}),
        ),
        (&[("Authorization", "Bearer canary-wrong-key-3")][..], json!({"prompt": "canary-prompt-77ab"})),
        (&headers[..], json!({"model": "canary-adapter-42", "messages": []})),
    ] {
        assert_ne!(s.request("POST", "/v1/chat/completions", headers, Some(&body.to_string())).status, 200);
    }
    s.signal("TERM");
    assert_eq!(s.ended(Duration::from_secs(30)), Some(0));
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(log.contains("request") && log.contains("answer"), "{log}");
    assert!(!log.contains("canary"), "{}", log.lines().find(|l| l.contains("canary")).unwrap_or_default());
}

#[test]
fn i11_saved_slots_belong_to_their_tokens_adapters_and_model() {
    let app = App::new();
    app.write("style.gguf", random_lora(41, 8, 0.08));
    let folder = app.path("slots");
    std::fs::create_dir(&folder).expect("made");
    let folder = folder.display().to_string();
    let s = app.serve(&["-np", "2", "--slot-save-path", &folder, "--lora", "style.gguf", "--lora-init-without-apply"]);
    let prompt = "The capital of France is a city on the river Seine, and its name is";
    let complete = |s: &Server, slot: usize, scale: f64| {
        s.post(
            "/completion",
            &json!({"prompt": prompt, "n_predict": 8, "temperature": 0, "id_slot": slot,
            "lora": [{"id": 0, "scale": scale}]}),
        )
        .ok()
    };
    let act = |s: &Server, slot: usize, action: &str, name: &str| {
        s.post(&format!("/slots/{slot}?action={action}"), &json!({"filename": name}))
    };
    let first = complete(&s, 1, 1.0);
    let saved = act(&s, 1, "save", "style.bin").ok();
    assert_eq!(saved["n_saved"].as_u64(), first["tokens_evaluated"].as_u64().map(|n| n + 7), "{saved}");
    assert!(act(&s, 1, "erase", "").ok()["n_erased"].as_u64().is_some_and(|n| n > 0));
    assert_eq!(complete(&s, 1, 1.0)["timings"]["cache_n"], 0, "forgotten");
    assert!(act(&s, 1, "erase", "").ok()["n_erased"].as_u64().is_some_and(|n| n > 0));
    let restored = act(&s, 0, "restore", "style.bin").ok();
    assert_eq!((&restored["n_restored"], &restored["n_read"]), (&saved["n_saved"], &saved["n_written"]));
    // Under other adapters nothing of it is used.
    assert_eq!(complete(&s, 0, 0.5)["timings"]["cache_n"], 0);
    act(&s, 0, "restore", "style.bin").ok();
    let again = complete(&s, 0, 1.0);
    assert!(
        again["timings"]["cache_n"].as_u64().is_some_and(|n| n + 1 >= first["tokens_evaluated"].as_u64().unwrap_or(99))
    );
    assert_eq!(again["content"], first["content"]);
    for (name, status) in [("../x", 400), ("", 400), (".hidden", 400), ("a/b", 400), ("missing.bin", 404)] {
        assert_eq!(act(&s, 0, "restore", name).status, status, "{name}");
    }
    std::fs::write(app.path("slots/cut.bin"), &std::fs::read(app.path("slots/style.bin")).expect("read")[..200])
        .expect("written");
    assert_eq!(act(&s, 0, "restore", "cut.bin").status, 422);
    assert_eq!((act(&s, 9, "save", "x").status, act(&s, 0, "x", "x").status), (400, 400));
    drop(s);
    // Another start with other settings of the cache is another engine.
    let other = app.serve(&["-np", "2", "--slot-save-path", &folder, "-ctk", "q8_0"]);
    assert_eq!(act(&other, 0, "restore", "style.bin").status, 422);
    let plain = app.serve(&[]);
    assert_eq!(act(&plain, 0, "save", "x").status, 501);
}
