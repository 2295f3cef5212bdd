//! Flags of llama-server that change what the server does: each at work.

use serde_json::{Value, json};

use crate::http::Server;
use crate::support::{App, model};

fn complete(s: &Server, prompt: &str, more: &Value) -> Value {
    let mut body = json!({"prompt": prompt, "n_predict": 4, "temperature": 0});
    more.as_object().into_iter().flatten().for_each(|(k, v)| body[k] = v.clone());
    s.post("/completion", &body).ok()
}

#[test]
fn a_sequence_has_its_own_limit() {
    let app = App::new();
    let s = app.serve(&["-np", "2", "--kv-unified-per-slot", "64"]);
    let props = s.get("/props").ok();
    assert_eq!((&props["default_generation_settings"]["n_ctx"], &props["total_slots"]), (&json!(64), &json!(2)));
    let long = s.post("/completion", &json!({"prompt": "word ".repeat(80), "n_predict": 2}));
    assert_eq!((long.status, long.json()["error"]["n_ctx"].as_u64()), (400, Some(64)), "{}", long.text());
    let full = complete(&s, "Once upon a time", &json!({"n_predict": -1, "ignore_eos": true}));
    let tokens = full["tokens_evaluated"].as_u64().zip(full["tokens_predicted"].as_u64());
    assert_eq!(tokens.map(|(read, made)| read + made), Some(64), "{full}");
}

#[test]
fn metadata_of_the_model_can_be_overridden() {
    let app = App::new();
    let count = |value: &str| {
        let s = app.serve(&["--override-kv", &format!("tokenizer.ggml.add_bos_token=bool:{value}")]);
        let body = json!({"content": "hello", "add_special": true});
        s.post("/tokenize", &body).ok()["tokens"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(count("true"), count("false") + 1);
    let model = model().display().to_string();
    for (text, expected) in [
        ("x", "KEY=TYPE:VALUE"),
        ("llama.context_length=str:many", "llama.context_length"),
        ("llama.context_length=int:-1", "llama.context_length"),
        ("llama.block_count=int:3000", "llama.block_count"),
    ] {
        let run = app.run(&["serve", "-m", &model, "--port", "0", "--override-kv", text], "");
        assert!(matches!(run.code, Some(2 | 4)) && run.stderr.contains(expected), "{text}: {run:?}");
    }
}

#[test]
fn adaptive_sampling_is_a_step_like_others() {
    let app = App::new();
    let s = app.serve(&["--samplers", "min_p;adaptive_p", "--adaptive-target", "0.3", "--seed", "5", "--temp", "1"]);
    let near = |more: Value| {
        complete(
            &s,
            "The weather is",
            &json!({"temperature": 1, "n_predict": 24, "ignore_eos": true, "seed": 5,
        "adaptive_target": more["adaptive_target"].clone(), "adaptive_decay": 0.8, "cache_prompt": false}),
        )
    };
    let (one, again) = (near(json!({"adaptive_target": 0.3})), near(json!({"adaptive_target": 0.3})));
    assert_eq!(one["content"], again["content"], "the seed decides");
    assert!((one["generation_settings"]["adaptive_target"].as_f64().unwrap_or_default() - 0.3).abs() < 1e-6, "{one}");
    assert_ne!(one["content"], near(json!({"adaptive_target": 0.95}))["content"], "the target matters");
    let plain = app.serve(&[]);
    assert_eq!(plain.post("/completion", &json!({"prompt": "x", "adaptive_target": 0.5})).status, 400, "no such step");
    let asked = json!({"samplers": ["adaptive_p"], "adaptive_target": 0.5, "temperature": 1});
    assert!(!complete(&plain, "x", &asked)["content"].as_str().unwrap_or_default().is_empty());
}

#[test]
fn a_small_part_of_a_prompt_is_read_again_when_asked() {
    let app = App::new();
    let s = app.serve(&["-sps", "0.6"]);
    let (half, whole) = ("one two three four five six", "seven eight nine ten eleven twelve thirteen fourteen");
    complete(&s, half, &json!({}));
    let cached = |prompt: &str| complete(&s, prompt, &json!({}))["timings"]["cache_n"].as_u64();
    assert_eq!(cached(&format!("{half} {whole}")), Some(0), "less than the part that was given");
    assert!(cached(&format!("{half} {whole} fifteen")).is_some_and(|n| n > 5), "and more than it");
}

#[test]
fn ports_are_shared_and_prompts_are_written_where_this_is_asked() {
    let app = App::new();
    let folder = app.path("made/prompts");
    let s = app.serve(&["--reuse-port", "--log-prompts-dir", &folder.display().to_string()]);
    let port = s.address.rsplit(':').next().expect("a port").to_string();
    let second = app.serve(&["--reuse-port", "--port", &port]);
    assert_eq!(second.address, s.address);
    drop(second);
    let chat = json!({"messages": [{"role": "user", "content": "canary-prompt"}], "max_tokens": 1});
    assert_eq!(s.post("/v1/chat/completions", &chat).status, 200);
    let files: Vec<_> = std::fs::read_dir(&folder).expect("made").flatten().map(|e| e.path()).collect();
    let text = std::fs::read_to_string(files.first().expect("a prompt")).expect("text");
    assert!(text.contains("canary-prompt") && text.contains("<|im_start|>assistant"), "{text}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&files[0]).expect("there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn variables_cannot_switch_off_what_is_always_so() {
    let app = App::new();
    let model = model().display().to_string();
    for (variable, value, expected) in
        [("LLAMA_ARG_JINJA", "0", "LLAMA_ARG_JINJA"), ("LLAMA_ARG_REPACK", "off", "LLAMA_ARG_REPACK")]
    {
        let mut command = app.command(&["serve", "-m", &model, "--port", "0"]);
        let out = command.env(variable, value).output().expect("ran");
        assert_eq!(out.status.code(), Some(2), "{variable}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(expected), "{variable}: {out:?}");
    }
    let address = ["serve", "-mu", "https://example.org/a/none.gguf", "--port", "0"];
    let run = app.run(&address, "");
    assert!(run.code == Some(3) && run.stderr.contains("nothing is downloaded"), "{run:?}");
}

#[test]
fn control_tokens_stand_in_answers_where_this_is_asked() {
    let app = App::new();
    let chat = json!({"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 60, "temperature": 0});
    let said = |s: &Server| {
        let answer = s.post("/v1/chat/completions", &chat).ok();
        let choice = &answer["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap_or_default().to_string();
        (text, choice["finish_reason"].as_str().unwrap_or_default().to_string())
    };
    let (plain, why) = said(&app.serve(&[]));
    assert_eq!(why, "stop", "the model ends: {plain}");
    let (special, why) = said(&app.serve(&["-sp"]));
    assert_eq!((special, why.as_str()), (format!("{plain}<|im_end|>"), "stop"));
}

#[test]
fn texts_that_end_answers_are_read_with_escapes_or_as_they_are() {
    let app = App::new();
    let stops = |more: &[&str]| {
        let s = app.serve(&[&["-r", r"a\nb", "--dry-sequence-breaker", r"\x0a"], more].concat());
        let params = s.get("/props").ok()["default_generation_settings"]["params"].clone();
        (params["stop"].clone(), params["dry_sequence_breakers"].clone())
    };
    assert_eq!(stops(&[]), (json!(["a\nb"]), json!(["\n"])));
    assert_eq!(stops(&["--no-escape"]), (json!([r"a\nb"]), json!([r"\x0a"])));
    assert_eq!(stops(&["--no-escape", "-e"]).0, json!(["a\nb"]), "the last one counts");
}

#[test]
fn a_last_message_of_the_assistant_is_whole_where_this_is_asked() {
    let app = App::new();
    let prompt = |s: &Server, more: Value| {
        let mut body =
            json!({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "begun"}]});
        more.as_object().into_iter().flatten().for_each(|(k, v)| body[k] = v.clone());
        s.post("/apply-template", &body).ok()["prompt"].as_str().unwrap_or_default().to_string()
    };
    let whole = "begun<|im_end|>\n<|im_start|>assistant\n";
    for (args, by_default) in [(&[][..], false), (&["--no-prefill-assistant"][..], true)] {
        let s = app.serve(args);
        assert_eq!(prompt(&s, json!({})).ends_with(whole), by_default, "{args:?}");
        assert_eq!(prompt(&s, json!({"continue_final_message": false})).ends_with(whole), by_default);
        assert!(prompt(&s, json!({"continue_final_message": true})).ends_with("assistant\nbegun"), "{args:?}");
    }
}

#[test]
fn sequences_have_equal_parts_and_prompts_wait_where_this_is_asked() {
    let app = App::new();
    let s = app.serve(&["-np", "4", "-no-kvu", "--no-cont-batching"]);
    let props = s.get("/props").ok();
    assert_eq!(props["default_generation_settings"]["n_ctx"], json!(512));
    let long = s.post("/completion", &json!({"prompt": "word ".repeat(600), "n_predict": 2}));
    assert_eq!((long.status, long.json()["error"]["n_ctx"].as_u64()), (400, Some(512)), "{}", long.text());
    let ask = |n: u64| json!({"prompt": format!("number {n}"), "n_predict": 24, "temperature": 0, "ignore_eos": true});
    std::thread::scope(|scope| {
        let answers: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn({
                    let s = &s;
                    move || s.post("/completion", &ask(n)).ok()
                })
            })
            .collect();
        for answer in answers {
            assert_eq!(answer.join().expect("answered")["tokens_predicted"], json!(24));
        }
    });
}

#[test]
fn a_script_for_bash_is_printed() {
    let app = App::new();
    let run = app.run(&["serve", "--completion-bash"], "").ok();
    for expected in ["complete -F _smoa", "bashdefault -o default llama-server", "--cont-batching"] {
        assert!(run.text().contains(expected), "{expected}");
    }
    let mut bash = std::process::Command::new("bash");
    let status = bash.args(["-n"]).stdin(std::process::Stdio::piped()).spawn().and_then(|mut child| {
        use std::io::Write;
        child.stdin.take().expect("piped").write_all(&run.stdout)?;
        child.wait()
    });
    assert!(status.expect("bash runs").success(), "the script is bash's");
}

/// Waits until the server says that it sleeps, or that it does not.
fn until_sleeping(s: &Server, sleeping: bool) {
    let started = std::time::Instant::now();
    while s.get("/props").ok()["is_sleeping"] != json!(sleeping) {
        assert!(started.elapsed().as_secs() < 20, "sleeping: {sleeping} does not come");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Resident memory of the server, KiB.
fn resident(s: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", s.pid())).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn an_idle_server_sleeps_and_wakes_with_its_adapters() {
    let app = App::new();
    let lora = app.write("a.gguf", crate::support::random_lora(1, 8, 0.05));
    let library = app.path("library").display().to_string();
    let (lora, base) = (lora.display().to_string(), model().display().to_string());
    app.run(&["adapter", "add", &lora, "--name", "tone", "--library", &library, "-m", &base], "").ok();
    let s = app.serve(&["--sleep-idle-seconds", "1", "--metrics", "--library", &library, "--pin-adapter", "tone"]);
    let ask = json!({"prompt": "The sea is", "n_predict": 8, "temperature": 0, "adapters": [{"name": "tone"}]});
    let (first, awake) = (s.post("/completion", &ask).ok(), resident(&s));
    until_sleeping(&s, true);
    // It says so first; giving the memory back takes a while.
    let started = std::time::Instant::now();
    while resident(&s) >= awake / 2 {
        assert!(started.elapsed().as_secs() < 20, "{} KiB of {awake} are kept", resident(&s));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let told = s.get("/metrics");
    for path in ["/health", "/v1/models", "/metrics", "/slots", "/v1/dashboard", "/api/ps"] {
        assert_eq!(s.get(path).status, 200, "{path}");
    }
    assert_eq!(s.get("/v1/models").ok()["data"].as_array().map(Vec::len), Some(2), "the model and its adapter");
    let number = |text: &str, name: &str| {
        text.lines().find_map(|l| l.strip_prefix(name)).and_then(|n| n.trim().parse::<f64>().ok()).unwrap_or(-1.0)
    };
    assert_eq!(number(told.text(), "llamacpp:tokens_predicted_total "), 8.0);
    let rows = number(told.text(), "smoa_rows_total ");
    until_sleeping(&s, true);
    let again = s.post("/completion", &ask).ok();
    assert_eq!((&again["content"], &again["timings"]["cache_n"]), (&first["content"], &json!(0)), "caches are freed");
    until_sleeping(&s, false);
    assert!(number(s.get("/metrics").text(), "smoa_rows_total ") >= rows + 8.0, "counters go on");
    // What only counts tokens wakes it too; many at once wake it once.
    until_sleeping(&s, true);
    std::thread::scope(|scope| {
        let ask = || s.post("/tokenize", &json!({"content": "hello"})).status;
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        assert!(all.into_iter().all(|t| t.join().expect("answered") == 200));
    });
    until_sleeping(&s, false);
    // A long stream is work: it does not fall asleep under it.
    let long = json!({"prompt": "x", "n_predict": 400, "ignore_eos": true, "stream": true});
    let (events, _) = s.post("/completion", &long).events();
    assert_eq!(events.last().map(|e| &e["tokens_predicted"]), Some(&json!(400)));
}

#[test]
fn a_server_that_cannot_load_its_model_again_says_so_and_lives() {
    let app = App::new();
    let copy = app.path("copy.gguf");
    std::fs::copy(model(), &copy).expect("copied");
    let s = app.serve(&["--sleep-idle-seconds", "1", "-m", &copy.display().to_string()]);
    until_sleeping(&s, true);
    let away = app.path("away.gguf");
    std::fs::rename(&copy, &away).expect("moved");
    let refused = s.post("/tokenize", &json!({"content": "x"}));
    assert!(refused.status == 503 && refused.message().contains("copy.gguf"), "{}", refused.text());
    assert_eq!(s.get("/health").status, 200);
    std::fs::rename(&away, &copy).expect("moved back");
    assert_eq!(s.post("/tokenize", &json!({"content": "x"})).status, 200);
    until_sleeping(&s, true);
    s.signal("TERM");
    assert_eq!(s.ended(std::time::Duration::from_secs(10)), Some(0), "it stops asleep");
}
