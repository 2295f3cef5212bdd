//! Automatic routing through the real program: what `smoa route` says is what `smoa run` does.

use serde_json::{Value, json};

use crate::support::{App, Run, model, random_lora};

impl App {
    fn with_library(&self, args: &[&str], stdin: &str) -> Run {
        let library = self.path("library").display().to_string();
        let mut all = args.to_vec();
        all.extend(["--library", library.as_str()]);
        self.run(&all, stdin)
    }

    /// Three adapters with example prompts; `alarm` has a format of its own.
    fn routed(self) -> Self {
        let model = model().display().to_string();
        let adapters: [(&str, &[&str], &[&str]); 3] = [
            (
                "alarm",
                &["wake me up at seven", "set an alarm for six thirty", "alarm in ten minutes please"],
                &["--default-format", "yes-no", "--path", "home/alarm", "--attribute", "region=eu"],
            ),
            (
                "weather",
                &["will it rain tomorrow", "what is the weather like in Paris", "is it sunny outside"],
                &["--path", "home/weather"],
            ),
            (
                "card",
                &["my credit card was stolen", "freeze my bank card", "I lost my debit card"],
                &["--path", "bank/card", "--tag", "money", "--attribute", "region=us"],
            ),
        ];
        for (seed, (name, examples, more)) in adapters.into_iter().enumerate() {
            let file =
                self.write(&format!("{name}.gguf"), random_lora(seed as u64 + 70, 4, 0.01)).display().to_string();
            let mut args = vec!["adapter", "add", "-m", &model, &file];
            examples.iter().for_each(|example| args.extend(["--example", *example]));
            args.extend(more);
            self.with_library(&args, "").ok();
        }
        self
    }

    fn routes(&self, args: &[&str]) -> serde_json::Value {
        let mut all = vec!["route", "--json"];
        all.extend(args);
        self.with_library(&all, "").ok().json()
    }
}

#[test]
fn requests_go_where_route_says() {
    let app = App::new().routed();
    for (text, name) in [
        ("please set an alarm for eight", "alarm"),
        ("what is the weather in London", "weather"),
        ("someone stole my card", "card"),
    ] {
        for strategy in ["hybrid", "keyword", "semantic", "hierarchical", "mixture"] {
            let route = app.routes(&[text, "--strategy", strategy, "--threshold", "0"]);
            assert_eq!(route["adapters"][0]["name"], name, "{strategy}: {route:#}");
        }
    }
    let route = app.routes(&["anything at all", "--threshold", "1"]);
    assert_eq!(route["adapters"], json!([]), "nothing is that certain: {route}");
    let told = app.with_library(&["route", "set an alarm", "--explain", "--threshold", "0"], "").ok();
    assert!(told.text().contains("'alarm' fits best"), "{told:?}");

    let library = app.path("library").display().to_string();
    let lines = [
        json!({"id": 1, "prompt": "set an alarm for nine", "n_predict": 8, "adapters": "auto", "route": {"threshold": 0}}),
        json!({"id": 2, "prompt": "set an alarm for nine", "n_predict": 2, "adapters": "auto", "route": {"threshold": 1}}),
        json!({"id": 3, "prompt": "freeze my card", "n_predict": 2, "adapters": "auto", "route": {"threshold": 0},
               "metadata": {"region": "eu"}}),
        json!({"id": 4, "prompt": [1, 2], "n_predict": 2, "adapters": "auto"}),
    ];
    let run = app.lines(&["--library", &library], &lines);
    assert_eq!(run.code, Some(9), "{run:?}");
    let results = run.json_lines();
    assert_eq!(results[0]["adapters"][0]["name"], "alarm", "{}", results[0]);
    assert_eq!(results[0]["route"]["strategy"], "hybrid");
    assert_eq!(results[0]["route"]["adapters"][0]["digest"], results[0]["adapters"][0]["digest"]);
    assert!(
        ["yes", "no"].contains(&results[0]["content"].as_str().expect("text").to_lowercase().as_str()),
        "its format"
    );
    assert_eq!(results[1]["adapters"], json!([]), "the plain base");
    assert_ne!(results[2]["adapters"][0]["name"], "card", "its region is us");
    assert!(results[3]["error"]["message"].as_str().expect("text").contains("needs a text"), "{}", results[3]);

    let args = ["--library", library.as_str(), "--adapter", "auto", "--route-threshold", "0", "-n", "4", "-v"];
    let said = app.answer(&[&args[..], &["will it rain on Sunday"]].concat(), "").ok();
    assert!(said.stderr.contains("weather") && said.stderr.contains("route ("), "{said:?}");
    let both = app.answer(&[&args[..], &["--adapter", "card", "hi"]].concat(), "");
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[test]
fn routing_follows_the_library_and_learns() {
    let app = App::new().routed();
    let first = |text: &str| {
        let route = app.routes(&[text, "--threshold", "0"]);
        route["adapters"][0]["name"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(first("freeze my bank card"), "card");
    app.with_library(&["adapter", "rm", "card"], "").ok();
    assert_ne!(first("freeze my bank card"), "card");
    app.with_library(&["adapter", "restore", "card"], "").ok();
    assert_eq!(first("freeze my bank card"), "card");
    app.with_library(&["adapter", "tag", "weather", "--keyword", "zeppelin", "--description", "zeppelin flights"], "")
        .ok();
    assert_eq!(first("zeppelin"), "weather");

    let report = app.with_library(&["adapter", "train-router", "--force", "--json"], "").ok().json();
    assert_eq!((report["classes"].as_u64(), report["kept"].as_bool()), (Some(3), Some(true)), "{report}");
    let route = app.routes(&["wake me up at nine", "--threshold", "0"]);
    assert_eq!((route["strategy"].as_str(), route["adapters"][0]["name"].as_str()), (Some("learned"), Some("alarm")));
    let test = app.write(
        "test.jsonl",
        "{\"text\": \"alarm at ten\", \"label\": \"alarm\"}\n{\"text\": \"play chess\", \"label\": \"oos\"}\n",
    );
    let figures = app.with_library(&["route", "eval", test.to_str().expect("UTF-8"), "--json"], "").ok().json();
    assert_eq!(figures["strategies"].as_array().map(Vec::len), Some(7), "{figures}");
    assert_eq!(figures["strategies"][3]["top1"], 100.0, "{figures}");
}

#[test]
fn hostile_texts_are_routed_or_refused_in_one_line() {
    let app = App::new().routed();
    let texts =
        ["".to_string(), "x ".repeat(1 << 19), "\u{1b}[2J\u{0}\u{202e}".into(), "日本語 עברית ελληνικά 🦜".into()];
    let input: String = texts.iter().map(|text| format!("{}\n", json!({"id": 1, "text": text}))).collect();
    let run = app.with_library(&["route", "--jsonl"], &input).ok();
    assert_eq!(run.json_lines().len(), texts.len());
    assert!(run.took.as_secs() < 10, "{:?}", run.took);
    for (args, code, words) in [
        (vec!["route", "hi", "--strategy", "best"], 2, "there is no strategy"),
        (vec!["route", "hi", "--top-k", "6"], 2, "route.top_k"),
        (vec!["route", "hi", "--metadata", "eu"], 2, "KEY=VALUE"),
        (vec!["route", "eval", "missing.jsonl"], 3, "missing.jsonl"),
    ] {
        let run = app.with_library(&args, "");
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
    let empty = App::new();
    assert_eq!(empty.with_library(&["route", "hi"], "").code, Some(3), "no library there");
    let broken = app.write("bad.jsonl", "{\"text\": 1}\n");
    let run = app.with_library(&["route", "eval", broken.to_str().expect("UTF-8")], "");
    assert_eq!((run.code, run.stderr.contains("line 1")), (Some(4), true), "{run:?}");
}

#[test]
fn judged_requests_teach_the_router_where_they_are_kept() {
    let app = App::new();
    let (library, model) = (app.path("library").display().to_string(), model().display().to_string());
    for (seed, name, examples) in [
        (41, "sea", ["Tell me of the sea", "How deep is the sea?", "Waves and tides"]),
        (42, "cook", ["How do I bake bread?", "A recipe for soup", "Boil an egg"]),
    ] {
        let file = app.write(&format!("{name}.gguf"), random_lora(seed, 2, 0.02)).display().to_string();
        let mut args = vec!["adapter", "add", &file, "--name", name, "-m", &model, "--library", &library];
        examples.iter().for_each(|example| args.extend(["--example", example]));
        app.run(&args, "").ok();
    }
    let ask = |flags: &[&str], texts: &[&str]| {
        let server = app.serve(&[&["--library", library.as_str()][..], flags].concat());
        for text in texts {
            let answer = server
                .post(
                    "/v1/chat/completions",
                    &json!({"model": "cook", "max_tokens": 2, "messages": [{"role": "user", "content": text}]}),
                )
                .ok();
            server.post("/v1/feedback", &json!({"id": answer["id"], "success": true})).ok();
        }
    };
    let train = || app.run(&["adapter", "train-router", "--json", "--library", &library], "").ok().json();
    let judged = |report: &Value| report["judged"].as_u64().zip(report["judged_held"].as_u64()).map(|(a, b)| a + b);
    ask(&[], &["flibber the quonk"]);
    assert_eq!(judged(&train()), Some(0), "nothing is kept that nobody asked to keep");
    ask(&["--keep-judged"], &["flibber the quonk", "quonk a zarp", "zarp"]);
    let report = train();
    assert_eq!((judged(&report), report["replaced"].as_bool()), (Some(3), Some(true)), "{report}");
    app.run(&["adapter", "stats", "--forget-judged", "--library", &library], "").ok();
    assert_eq!(judged(&train()), Some(0));
    let stats = app.run(&["adapter", "stats", "cook", "--json", "--library", &library], "").ok().json_lines();
    assert_eq!(stats[0]["good"], 4, "counts stay: {stats:?}");
}
