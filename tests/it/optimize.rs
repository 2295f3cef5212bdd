//! The library that looks after itself: near duplicates merged, dead adapters removed, everything undone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smoa::merge::Deltas;

use crate::support::{App, Run, model, random_lora};

impl App {
    fn looked_after(&self, args: &[&str]) -> Run {
        let (model, library) = (model().display().to_string(), self.path("library").display().to_string());
        let mut all = vec!["adapter"];
        all.extend(args);
        all.extend(["--library", library.as_str()]);
        if ["add", "optimize"].contains(&args[0]) {
            all.extend(["-m", model.as_str()]);
        }
        self.run(&all, "")
    }

    fn digest_of(&self, name: &str) -> String {
        let shown = self.looked_after(&["show", name, "--json"]).ok().json();
        shown["digest"].as_str().expect("a digest").to_owned()
    }
}

#[test]
fn near_duplicates_become_one_when_the_check_allows_it_and_undo_brings_them_back() {
    let app = App::new();
    let first = random_lora(91, 4, 0.05);
    let deltas = Deltas::read_alone(&first).expect("read");
    let files = [
        ("first", first.clone()),
        ("twin", deltas.scaled(1.01).to_gguf("twin").expect("written")),
        ("loud", Deltas::read_alone(&random_lora(92, 4, 0.05)).expect("read").to_gguf("loud").expect("written")),
        (
            "louder",
            Deltas::read_alone(&random_lora(92, 4, 0.05)).expect("read").scaled(3.0).to_gguf("l").expect("written"),
        ),
        ("other", random_lora(93, 4, 0.05)),
    ];
    for (name, bytes) in &files {
        let file = app.write(&format!("{name}.gguf"), bytes).display().to_string();
        let examples =
            ["--example", "Tell me of the sea", "--example", "What is a lemon?", "--example", "Count to ten"];
        app.looked_after(&[&["add", &file, "--name", name][..], &examples].concat()).ok();
    }
    let before: Vec<String> = files.iter().map(|(name, _)| app.digest_of(name)).collect();
    let flags = ["--no-prune", "-t", "2", "-c", "2048"];
    let optimize = |more: &[&str]| app.looked_after(&[&["optimize"][..], &flags, more].concat());

    let dry = optimize(&["--json"]).ok().json();
    let merges = dry["merges"].as_array().expect("merges").clone();
    assert_eq!((merges.len(), dry["applied"].as_bool()), (2, Some(false)), "{dry}");
    let of = |name: &str| merges.iter().find(|m| m["names"][0] == name).unwrap_or_else(|| panic!("{name}: {dry}"));
    assert!(of("first")["refused"].is_null() && of("first")["cosine"].as_f64() > Some(0.99), "{dry}");
    assert!(of("loud")["refused"].is_string(), "three times as strong is another adapter: {dry}");
    let now: Vec<String> = files.iter().map(|(name, _)| app.digest_of(name)).collect();
    assert_eq!(now, before, "a dry run changes nothing");

    let applied = optimize(&["--apply"]).ok();
    assert!(applied.text().contains("--undo 1 undoes it") && applied.text().contains("not merged"), "{applied:?}");
    assert_eq!(app.digest_of("first"), app.digest_of("twin"), "one content under both names");
    assert_ne!(app.digest_of("first"), before[0]);
    assert_eq!(app.digest_of("louder"), before[3]);
    assert!(app.looked_after(&["optimize", "--journal"]).ok().text().contains("merged first, twin"));
    app.looked_after(&["optimize", "--undo", "1"]).ok();
    let now: Vec<String> = files.iter().map(|(name, _)| app.digest_of(name)).collect();
    assert_eq!(now, before, "every bit is back");
    assert_eq!(app.looked_after(&["optimize", "--undo", "1"]).code, Some(2));
}

#[test]
fn dead_adapters_go_and_come_back() {
    let app = App::new();
    for (seed, name, tag) in [(95, "dead", "x"), (96, "kept", "keep")] {
        let file = app.write(&format!("{name}.gguf"), random_lora(seed, 2, 0.02)).display().to_string();
        app.looked_after(&["add", &file, "--name", name, "--tag", tag]).ok();
    }
    let young = app.looked_after(&["optimize", "--no-merge"]).ok();
    assert_eq!(young.text(), "nothing to do\n");
    let listed = app.looked_after(&["optimize", "--no-merge", "--min-age", "0"]).ok();
    assert!(listed.text().contains("dead: 0 uses") && !listed.text().contains("kept"), "{listed:?}");
    app.looked_after(&["optimize", "--no-merge", "--min-age", "0", "--apply"]).ok();
    assert!(!app.looked_after(&["ls"]).ok().text().contains("dead"));
    app.looked_after(&["optimize", "--undo", "1"]).ok();
    assert!(app.looked_after(&["ls"]).ok().text().contains("dead"));
    for (args, code) in [(&["--undo", "7"][..], 2), (&["--cosine", "0.2"], 2), (&["--apply", "--undo", "1"], 2)] {
        let run = app.looked_after(&[&["optimize"][..], args].concat());
        assert_eq!((run.code, run.stderr.lines().count()), (Some(code), 1), "{args:?}: {run:?}");
    }
}

#[test]
fn a_server_looks_after_its_library_when_asked() {
    let app = App::new();
    let first = random_lora(91, 4, 0.05);
    let twin = Deltas::read_alone(&first).expect("read").scaled(1.01).to_gguf("twin").expect("written");
    for (name, bytes) in [("first", first), ("twin", twin)] {
        let file = app.write(&format!("{name}.gguf"), bytes).display().to_string();
        app.looked_after(&[
            "add",
            &file,
            "--name",
            name,
            "--example",
            "Tell me of the sea",
            "--example",
            "Count to ten",
        ])
        .ok();
    }
    let digests = || ["first", "twin"].map(|name| app.digest_of(name));
    let before = digests();
    let library = app.path("library").display().to_string();
    let question = json!({"model": "twin", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]});
    let wait = |until: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !until() {
            assert!(started.elapsed() < Duration::from_secs(60), "nothing was found");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let found = || -> Vec<Value> {
        let text = std::fs::read_to_string(app.path("library/derived/optimize.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let every = ["--library", library.as_str(), "--optimize-every", "0.0003"];
    {
        let server = app.serve(&every);
        wait(&|| !found().is_empty());
        server.post("/v1/chat/completions", &question).ok();
    }
    let line = &found()[0];
    assert_eq!((&line["applied"], &line["merges"][0]["refused"]), (&json!(false), &Value::Null), "{line}");
    assert_eq!(line["merges"][0]["names"], json!(["first", "twin"]), "{line}");
    assert_eq!(digests(), before, "told, not done");
    let server = app.serve(&[&every[..], &["--optimize-apply"]].concat());
    wait(&|| digests()[0] == digests()[1]);
    server.post("/v1/chat/completions", &question).ok();
    drop(server);
    app.looked_after(&["optimize", "--undo", "1"]).ok();
    assert_eq!(digests(), before, "every bit is back");
    let stats = app.looked_after(&["stats", "first", "twin", "--json"]).ok().json_lines();
    assert!(stats.iter().all(|row| row["uses"].as_u64() <= Some(1)), "a check is no use: {stats:?}");
    let refused = app.run(&["serve", "--optimize-every", "0", "-m", &model().display().to_string()], "");
    assert!(refused.code == Some(2) && refused.stderr.contains("--optimize-every"), "{refused:?}");
}
