//! The adapter library through the program: import, listing, removal, and requests that name its adapters.

use serde_json::json;

use crate::support::{App, Run, model, random_lora, random_lora_for};

impl App {
    /// `smoa adapter ...` on a library of this test.
    fn adapter(&self, args: &[&str]) -> Run {
        let library = self.path("library").display().to_string();
        let mut all = vec!["adapter"];
        all.extend(args);
        all.extend(["--library", library.as_str()]);
        self.run(&all, "")
    }

    fn add(&self, args: &[&str]) -> Run {
        let model = model().display().to_string();
        let mut all = vec!["add", "-m", model.as_str()];
        all.extend(args);
        self.adapter(&all)
    }

    fn library_flag(&self) -> [String; 2] {
        ["--library".to_string(), self.path("library").display().to_string()]
    }
}

#[test]
fn an_adapter_is_added_listed_used_removed_and_restored() {
    let app = App::new();
    let file = app.write("style.gguf", random_lora(31, 8, 0.04)).display().to_string();
    let added = app.add(&[&file, "--tag", "demo", "--description", "A random style", "--attribute", "region=eu"]).ok();
    assert!(added.text().starts_with("style "), "{added:?}");
    assert!(app.adapter(&["ls", "--tag", "demo"]).ok().text().contains("A random style"));
    assert_eq!(app.adapter(&["ls", "--attribute", "region=us"]).ok().text(), "");
    let shown = app.adapter(&["show", "style", "--json"]).ok().json();
    assert_eq!((shown["rank_max"].as_u64(), shown["granularity"].as_str()), (Some(8), Some("small")));

    let [flag, folder] = app.library_flag();
    let ask = |how: &[&str]| {
        let mut args = vec!["-n", "10", "--ignore-eos", flag.as_str(), folder.as_str()];
        args.extend(how);
        args.push("A day at the sea");
        app.answer(&args, "")
    };
    let by_name = ask(&["--adapter", "style=0.7"]).ok();
    assert_eq!(by_name.stdout, ask(&["--lora", &format!("{file}=0.7")]).ok().stdout, "the same bytes, the same answer");
    assert_ne!(by_name.stdout, ask(&["--adapter", "none"]).ok().stdout);
    let lines = [json!({"id": 1, "prompt": "A", "n_predict": 2, "adapters": [{"name": "style", "scale": 0.5}]})];
    let result = app.lines(&[&flag, &folder], &lines).ok().json_lines().remove(0);
    assert_eq!(
        (result["adapters"][0]["name"].as_str(), result["adapters"][0]["digest"].clone()),
        (Some("style"), shown["digest"].clone())
    );

    app.adapter(&["rename", "style", "mood"]).ok();
    let unknown = ask(&["--adapter", "moot"]);
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    assert!(unknown.stderr.contains("mood"), "the nearest name is told: {unknown:?}");
    app.adapter(&["rm", "mood"]).ok();
    assert_eq!(ask(&["--adapter", "mood"]).code, Some(3));
    app.adapter(&["restore", "mood"]).ok();
    let exported = app.path("out.gguf");
    app.adapter(&["export", "mood", "-o", exported.to_str().expect("UTF-8")]).ok();
    assert_eq!(std::fs::read(exported).expect("read"), std::fs::read(&file).expect("read"), "byte for byte");
    assert!(app.adapter(&["verify"]).ok().text().contains("0 problems"));
    app.adapter(&["rm", "mood"]).ok();
    app.adapter(&["gc"]).ok();
    assert_eq!(app.adapter(&["restore", "mood"]).code, Some(3), "gc forgets");
}

#[test]
fn adapters_can_be_stored_smaller() {
    let app = App::new();
    let file = app.write("a.gguf", random_lora(61, 32, 0.03)).display().to_string();
    app.add(&[&file, "--name", "whole"]).ok();
    app.add(&[&file, "--name", "small", "--quantize", "q8_0"]).ok();
    let bytes = |name: &str| app.adapter(&["show", name, "--json"]).ok().json()["bytes"].as_u64().expect("a size");
    assert!(bytes("small") * 10 < bytes("whole") * 6, "{} of {}", bytes("small"), bytes("whole"));
    let [flag, folder] = app.library_flag();
    let ask = |name: &str| {
        app.answer(&["-n", "4", "--ignore-eos", &flag, &folder, "--adapter", name, "The sea is"], "").ok().stdout
    };
    assert_eq!(ask("small"), ask("whole"), "a rounding of half a percent does not change the first words");
}

#[test]
fn names_are_taken_once_unless_asked_otherwise() {
    let app = App::new();
    let a = app.write("a.gguf", random_lora(41, 4, 0.03)).display().to_string();
    let b = app.write("b.gguf", random_lora(42, 4, 0.03)).display().to_string();
    app.add(&[&a, "--name", "x"]).ok();
    assert_eq!(app.add(&[&b, "--name", "x"]).code, Some(2));
    app.add(&[&b, "--name", "x", "--on-conflict", "keep"]).ok();
    app.add(&[&a, "--name", "x", "--on-conflict", "compare-digest"]).ok();
    assert_eq!(app.add(&[&b, "--name", "x", "--on-conflict", "compare-digest"]).code, Some(2));
    app.add(&[&b, "--name", "x", "--on-conflict", "replace"]).ok();
}

#[test]
fn what_is_no_adapter_is_refused_by_name() {
    let app = App::new();
    let base = crate::support::facts();
    let good = app.write("good.gguf", random_lora(51, 4, 0.03)).display().to_string();
    let mut other = random_lora_for(base, 52, 4, 0.03);
    other.set("general.architecture", "qwen2").expect("set");
    let other = app.write("other.gguf", other.to_bytes()).display().to_string();
    let pickle = app.write("adapter_model.bin", b"\x80\x02}q\x00.").display().to_string();
    let empty = app.path("empty");
    std::fs::create_dir(&empty).expect("made");
    let peft = app.path("peft");
    std::fs::create_dir(&peft).expect("made");
    std::fs::write(peft.join("adapter_config.json"), "{\"peft_type\": \"LORA\"}").expect("written");
    std::fs::write(peft.join("adapter_model.bin"), b"PK\x03\x04").expect("written");
    for (args, code, words) in [
        (vec![other.as_str()], 4, "general.architecture"),
        (vec![pickle.as_str()], 4, "pickle refused"),
        (vec![empty.to_str().expect("UTF-8")], 3, "holds neither"),
        (vec![peft.to_str().expect("UTF-8")], 4, "pickle refused"),
        (vec!["missing.gguf"], 3, "missing.gguf"),
        (vec![good.as_str(), "--name", "../x"], 2, "../x"),
        (vec![good.as_str(), "--name", "auto"], 2, "auto"),
        (vec![good.as_str(), "--name", "none"], 2, "none"),
        (vec![good.as_str(), "--default-format", "jsn"], 2, "jsn"),
        (vec![good.as_str(), "--attribute", "x"], 2, "KEY=VALUE"),
    ] {
        let run = app.add(&args);
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
        assert!(run.stderr.contains(words) && run.stderr.lines().count() == 1, "{words:?}: {}", run.stderr);
    }
    // No library there: said so.
    let nowhere = app.run(&["adapter", "ls", "--library", "nowhere"], "");
    assert_eq!(nowhere.code, Some(3), "{nowhere:?}");
}

#[test]
fn adapters_of_clients_become_one_exactly() {
    let app = App::new();
    let [a, b] = [(71, "a.gguf"), (72, "b.gguf")]
        .map(|(seed, name)| app.write(name, random_lora(seed, 4, 0.05)).display().to_string());
    app.add(&[&a, "--name", "a", "--tag", "x"]).ok();
    app.add(&[&b, "--name", "b", "--tag", "y"]).ok();
    let model = model().display().to_string();
    let merge = |args: &[&str]| {
        let mut all = vec!["merge", "-m", model.as_str()];
        all.extend(args);
        app.adapter(&all)
    };
    let whole = merge(&["--federated", "a", "b", "--weights", "300,100", "--name", "both", "--quantize", "f32"]).ok();
    assert!(whole.text().contains("rank 8") && whole.text().contains("cut error 0.000000"), "{whole:?}");
    let shown = app.adapter(&["show", "both", "--json"]).ok().json();
    assert_eq!(
        (shown["tags"].to_string(), shown["parents"].as_array().map(Vec::len)),
        ("[\"x\",\"y\"]".into(), Some(2))
    );
    let [flag, folder] = app.library_flag();
    let ask = |adapters: &[&str]| {
        let mut args = vec!["-n", "12", "--ignore-eos", flag.as_str(), folder.as_str()];
        adapters.iter().for_each(|name| args.extend(["--adapter", name]));
        args.push("A day at the sea");
        app.answer(&args, "").ok().stdout
    };
    assert_eq!(ask(&["both"]), ask(&["a=0.75", "b=0.25"]), "the sum says what the mix says");
    assert_ne!(ask(&["both"]), ask(&["none"]));
    let cut = merge(&["a", "b", "--name", "cut", "--rank", "2"]).ok();
    assert!(cut.text().contains("svd of 2 adapters, rank 2"), "{cut:?}");
    for method in ["ties", "dare"] {
        merge(&["a", "b", "--name", method, "--method", method, "--density", "0.3"]).ok();
    }
    for (args, code, words) in [
        (&["a", "--name", "both"][..], 2, "both"),
        (&["a", "nobody", "--name", "z"], 3, "nobody"),
        (&["a", "b", "--name", "z", "--weights", "1"], 2, "1 weights for 2"),
        (&["a", "b", "--name", "z", "--federated", "--weights", "0,-1"], 2, "amounts of data"),
        (&["a", "b", "--name", "z", "--method", "ties", "--density", "2"], 2, "density"),
        (&["a", "none.gguf", "--name", "z"], 3, "none.gguf"),
        (&["a", "b", "--name", "z", "--rank", "0"], 2, "--rank"),
    ] {
        let run = merge(args);
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
        assert!(run.stderr.contains(words) && run.stderr.lines().count() == 1, "{args:?}: {run:?}");
    }
}

#[test]
fn uses_and_what_people_say_are_counted() {
    let app = App::new();
    for (seed, name) in [(81, "a"), (82, "b")] {
        let file = app.write(&format!("{name}.gguf"), random_lora(seed, 2, 0.02)).display().to_string();
        app.add(&[&file, "--name", name]).ok();
    }
    assert_eq!(app.adapter(&["stats"]).ok().text(), "");
    let [flag, folder] = app.library_flag();
    let model = model().display().to_string();
    let chat = [
        "chat",
        "-m",
        &model,
        "-t",
        "2",
        "-c",
        "1024",
        "-n",
        "3",
        &flag,
        &folder,
        "--adapter",
        "a",
        "--adapter",
        "b=0.5",
    ];
    let run = app.run(&chat, "Hello\n/good\n/good\nAgain\n/bad\n/adapter none\nOnce more\n/bad\n");
    assert!(run.stderr.contains("judged already"), "an answer is judged once: {run:?}");
    let rows = app.adapter(&["stats", "--json"]).ok().json_lines();
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in &rows {
        assert_eq!(
            [&row["uses"], &row["ended"], &row["good"], &row["bad"]].map(|n| n.as_u64()),
            [2, 2, 1, 1].map(Some),
            "{row}"
        );
        assert_eq!(row["used_with"][0]["uses"], 2, "{row}");
    }
    let table = app.adapter(&["stats", "b"]).ok();
    assert!(table.text().lines().count() == 2 && table.text().contains("100.0%"), "{table:?}");
    assert_eq!(app.adapter(&["stats", "nobody"]).code, Some(3));
}
