//! Wrong files, flags, formats and pipes: the documented exit code, one clear line, no signal, soon.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use smoa::gguf::{GgufWriter, TensorType};

use crate::support::{App, Run, facts, finish, model, random_lora, random_lora_for};

/// The law of every row: exit code, one line on stderr with these words, nothing on stdout, no hang.
#[track_caller]
fn refused(run: &Run, code: i32, words: &str) {
    assert_eq!(run.code, Some(code), "{words}: {run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{words}: {}", run.stderr);
    assert!(run.stderr.contains(words), "{words:?} not in {}", run.stderr);
    assert!(run.stderr.starts_with("smoa: ") && !run.stderr.contains('\x1b'), "{}", run.stderr);
    assert!(run.stdout.is_empty(), "{words}: {run:?}");
    // A bound against hangs, not a measurement: the machine may be busy.
    assert!(run.took < Duration::from_secs(30), "{words}: {:?}", run.took);
}

#[test]
fn m_damaged_model_files() {
    let app = App::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/gguf");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let name = path.display().to_string();
        if name.ends_with(".model.gguf") {
            refused(&app.run(&["run", "-m", &name, "hi"], ""), 4, &name);
            seen += 1;
        } else if name.ends_with(".adapter.gguf") {
            refused(&app.answer(&["--lora", &name, "hi"], ""), 4, &name);
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} corpus files");
}

#[test]
fn m05_a_model_cut_anywhere() {
    let app = App::new();
    let whole = std::fs::read(model()).expect("read");
    for per_mille in [10, 500, 999] {
        let path = app.write("cut.gguf", &whole[..whole.len() / 1000 * per_mille]);
        refused(&app.run(&["run", "-m", path.to_str().expect("UTF-8"), "hi"], ""), 4, "cut.gguf");
    }
}

#[test]
fn m20_paths_that_are_no_model_files() {
    let app = App::new();
    let fifo = app.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    std::os::unix::fs::symlink(app.path("nowhere"), app.path("dangling")).expect("linked");
    let at = |name: &str| app.path(name).display().to_string();
    for (path, code, words) in [
        (at(""), 4, "is a directory"),
        (at("fifo"), 4, "is not a regular file"),
        ("/dev/zero".to_string(), 4, "is not a regular file"),
        (at("dangling"), 3, "dangling"),
        (at("missing.gguf"), 3, "missing.gguf"),
        ("no-such-name".to_string(), 3, "no-such-name"),
    ] {
        refused(&app.run(&["run", "-m", &path, "hi"], ""), code, words);
        if path.starts_with('/') {
            refused(&app.answer(&["--lora", &path, "hi"], ""), code, words);
        }
    }
}

#[test]
fn m21_a_file_of_another_kind_is_named() {
    let app = App::new();
    let adapter = app.write("lora.gguf", random_lora(1, 4, 0.02));
    refused(&app.run(&["run", "-m", adapter.to_str().expect("UTF-8"), "hi"], ""), 4, "LoRA adapter");
    let model = model();
    refused(&app.answer(&["--lora", model.to_str().expect("UTF-8"), "hi"], ""), 4, "general.type");
}

#[test]
fn m17_m18_templates_that_do_not_end() {
    let app = App::new();
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000));
    let table = [
        ("deep", deep.as_str()),
        ("self", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        ("range", "{% for i in range(10**9) %}x{% endfor %}"),
        (
            "doubling",
            "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        ),
        ("syntax", "{% for %}"),
    ];
    for (name, text) in table {
        let file = app.write(name, text);
        let run = app.answer(&["--chat-template-file", file.to_str().expect("UTF-8"), "hi"], "");
        refused(&run, 2, "template");
    }
    refused(&app.answer(&["--chat-template", "nonsense", "hi"], ""), 2, "there is no template 'nonsense'");
}

#[test]
fn a_damaged_adapters() {
    let app = App::new();
    let base = facts();
    let good = || random_lora_for(base, 1, 4, 0.02);
    let layer = "blk.0.attn_q.weight";
    let zeros = |n: u64| vec![0u8; (n * 2) as usize];
    let mut table: Vec<(&str, Vec<u8>, &str)> = Vec::new();
    type Changed<'a> = Result<&'a mut GgufWriter<'static>, smoa::gguf::GgufError>;
    let mut add = |name, change: &dyn for<'a> Fn(&'a mut GgufWriter<'static>) -> Changed<'a>, words| {
        let mut writer = good();
        change(&mut writer).expect("changed");
        table.push((name, writer.to_bytes(), words));
    };
    add("a1-type-missing", &|w| Ok(w.remove("general.type")), "general.type");
    add("a1-adapter-type", &|w| w.set("adapter.type", "x"), "adapter.type");
    add("a2-architecture", &|w| w.set("general.architecture", "qwen2"), "general.architecture");
    add("a4-alpha-missing", &|w| Ok(w.remove("adapter.lora.alpha")), "adapter.lora.alpha");
    add("a4-alpha-zero", &|w| w.set("adapter.lora.alpha", 0f32), "adapter.lora.alpha");
    add("a4-alpha-nan", &|w| w.set("adapter.lora.alpha", f32::NAN), "adapter.lora.alpha");
    add("a4-alpha-negative", &|w| w.set("adapter.lora.alpha", -1f32), "adapter.lora.alpha");
    add("a4-alpha-text", &|w| w.set("adapter.lora.alpha", "8"), "adapter.lora.alpha");
    let n = base.n_embd as u64;
    add("a5-layer", &|w| w.tensor("blk.999.attn_q.weight.lora_a", TensorType::F16, &[n, 4], zeros(n * 4)), "blk.999");
    add("a5-norm", &|w| w.tensor("blk.0.attn_norm.weight", TensorType::F16, &[n], zeros(n)), "attn_norm");
    add(
        "a3-a-without-b",
        &|w| w.tensor("output_norm.weight.lora_a", TensorType::F16, &[n, 4], zeros(n * 4)),
        "output_norm",
    );
    add(
        "a12-invocation",
        &|w| w.set("adapter.alora.invocation_tokens", vec![u32::MAX].as_slice()),
        "adapter.alora.invocation_tokens",
    );
    for (name, bytes, words) in table {
        let path = app.write(&format!("{name}.gguf"), bytes);
        refused(&app.answer(&["--lora", path.to_str().expect("UTF-8"), "hi"], ""), 4, words);
    }
    // A2, A3, A7: shapes and weights.
    let single = |a: (&[u64], Vec<u8>), b: (&[u64], Vec<u8>)| {
        let mut w = GgufWriter::new();
        w.set("general.architecture", base.architecture.as_str()).expect("set");
        w.set("general.type", "adapter").expect("set");
        w.set("adapter.type", "lora").expect("set");
        w.set("adapter.lora.alpha", 4f32).expect("set");
        w.tensor(&format!("{layer}.lora_a"), TensorType::F16, a.0, a.1).expect("added");
        w.tensor(&format!("{layer}.lora_b"), TensorType::F16, b.0, b.1).expect("added");
        w.to_bytes()
    };
    let infinite = [0x00u8, 0x7C].repeat((n * 4) as usize);
    for (name, bytes, code) in [
        ("a2-width", single((&[n + 32, 4], zeros((n + 32) * 4)), (&[4, n], zeros(4 * n))), 4),
        ("a3-ranks", single((&[n, 4], zeros(n * 4)), (&[8, n], zeros(8 * n))), 4),
        ("a3-rank-4096", single((&[n, 4096], zeros(n * 4096)), (&[4096, n], zeros(4096 * n))), 4),
        ("a7-infinite", single((&[n, 4], infinite), (&[4, n], zeros(4 * n))), 4),
    ] {
        let path = app.write(&format!("{name}.gguf"), bytes);
        refused(&app.answer(&["--lora", path.to_str().expect("UTF-8"), "hi"], ""), code, layer);
    }
    let zero = app.write("zero.gguf", single((&[n, 4], zeros(n * 4)), (&[4, n], zeros(4 * n))));
    let run = app.answer(&["-n", "2", "--lora", zero.to_str().expect("UTF-8"), "hi"], "").ok();
    assert!(run.stderr.contains("all weights are zero"), "{run:?}");
}

#[test]
fn a13_scales_and_sets() {
    let app = App::new();
    let path = app.write("a.gguf", random_lora(1, 4, 0.02)).display().to_string();
    for scale in ["nan", "inf", "1e30", "-1"] {
        refused(&app.answer(&["--lora", &format!("{path}={scale}"), "hi"], ""), 2, "adapter scale");
    }
    refused(&app.answer(&["--lora", &format!("{path}=high"), "hi"], ""), 2, "must be a number");
    refused(&app.answer(&["--lora", &path, "--lora", &path, "hi"], ""), 2, "named twice");
    let copies: Vec<String> =
        (0..6).map(|i| app.write(&format!("c{i}.gguf"), random_lora(i, 4, 0.02)).display().to_string()).collect();
    let mut args: Vec<&str> = copies.iter().flat_map(|c| ["--lora", c.as_str()]).collect();
    args.push("hi");
    refused(&app.answer(&args, ""), 2, "at most 5");
}

#[test]
fn c1_wrong_command_lines() {
    let app = App::new();
    let model = model();
    let m = model.to_str().expect("UTF-8");
    for (args, words) in [
        (vec!["run", "--no-such-flag", "hi"], "--no-such-flag"),
        (vec!["run", "--formt", "json", "hi"], "--format"),
        (vec!["run", "-ngl", "abc", "hi"], "--n-gpu-layers"),
        (vec!["run", "-c", "-1", "hi"], "-1"),
        (vec!["run", "-m", m, "-c", "5", "hi"], "-c must be 0 or from 16"),
        (vec!["run", "-m", m, "-np", "0", "hi"], "-np must be from 1 to 256"),
        (vec!["run", "-m", m, "-np", "1000", "hi"], "-np must be from 1 to 256"),
        (vec!["run", "-m", m, "-b", "0", "hi"], "-b and -ub"),
        (vec!["run", "-m", m, "-t", "0", "hi"], "-t and -tb"),
        (vec!["run", "-m", m, "-ctv", "q8_0", "-fa", "off", "hi"], "-ctv"),
        (vec!["run", "-m", m, "-ctk", "q9", "hi"], "--cache-type-k"),
        (vec!["run", "-m", m, "-dev", "GPU7", "hi"], "no device 'GPU7'"),
        (vec!["run", "-m", m, "-ts", "nan", "hi"], "-ts"),
        (vec!["run", "-m", m, "--rope-scale", "0", "hi"], "--rope-scale"),
        (vec!["run", "-m", m, "--temp", "nan", "hi"], "temperature"),
        (vec!["run", "-m", m, "--top-p", "3", "hi"], "top_p"),
        (vec!["run", "-m", m, "-s", "99999999999", "hi"], "--seed"),
        (vec!["run", "-m", m, "--samplers", "top_q", "hi"], "top_q"),
        (vec!["run", "-m", m, "-l", "x", "hi"], "--logit-bias"),
        (vec!["run", "-m", m, "-l", "999999+1", "hi"], "outside the vocabulary"),
        (vec!["run", "-m", m, "--format", "json", "-j", "{}", "hi"], "cannot be used with"),
        (vec!["run", "-m", m, "--schema-check", "hi"], "--schema-check needs --json-schema"),
        (vec!["run", "-m", m, "--key-order", "sorted", "-j", "{}", "hi"], "must be 'any' or 'schema'"),
        (vec!["run", "-m", m], "nothing to answer"),
        (vec!["nonsense-command", "--model"], "--model"),
    ] {
        refused(&app.run(&args, ""), 2, words);
    }
    // A copy of the program elsewhere finds no default model.
    let copy = app.path("smoa-copy");
    std::fs::copy(env!("CARGO_BIN_EXE_smoa"), &copy).expect("copied");
    let mut command = std::process::Command::new(&copy);
    command.args(["run", "hi"]).current_dir(app.dir.path()).env_clear().env("HOME", app.dir.path());
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    refused(&finish(child, Vec::new()), 2, "no model");
}

#[test]
fn c1_wrong_environment() {
    let app = App::new();
    let mut command = app.command(&["run", "hi"]);
    command.env("LLAMA_ARG_CTX_SIZE", "many").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    refused(&finish(command.spawn().expect("started"), Vec::new()), 2, "--ctx-size");
}

#[test]
fn c2_wrong_standard_input() {
    let app = App::new();
    refused(&app.answer(&[], ""), 2, "nothing to answer");
    refused(&app.answer(&[], "\n"), 2, "nothing to answer");
    refused(&app.answer(&["Summarise"], b"abc\xFF\xFEdef"), 2, "byte 3");
    refused(&app.answer(&["Summarise"], b"ab\0cd"), 2, "NUL at byte 2");
    refused(&app.answer(&["Summarise"], vec![b'a'; 65 << 20]), 2, "larger than 64 MiB");
    refused(&app.answer(&["Summarise"], "many words ".repeat(3000)), 2, "the context holds 2048");
    let mut command = app.command(&["run", "-m", model().to_str().expect("UTF-8")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let out = command.output().expect("ran");
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn c3_standard_output_that_takes_nothing() {
    let app = App::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opened");
    let model = model();
    let mut command = app.command(&["run", "-m", model.to_str().expect("UTF-8"), "-c", "512", "-n", "4", "hi"]);
    command.stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped());
    let run = finish(command.spawn().expect("started"), Vec::new());
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("standard output"), "{run:?}");
}

#[test]
fn c6_names_are_escaped() {
    let app = App::new();
    let evil = "/tmp/\u{1b}]0;evil\u{7}.gguf";
    refused(&app.answer(&["--lora", evil, "hi"], ""), 3, "\\u{1b}]0;evil");
}

#[test]
fn formats_that_cannot_be_enforced() {
    let app = App::new();
    let ask = |flags: &[&str]| {
        let mut args: Vec<&str> = flags.to_vec();
        args.push("hi");
        app.answer(&args, "")
    };
    for (grammar, words) in [
        ("", "line 1, column 1"),
        ("start ::= \"a\"", "root"),
        ("root ::= foo\nfooo ::= \"a\"", "line 1, column 10"),
        ("root ::= \"a", "line 1, column 10"),
        ("root ::= \"\\q\"", "column"),
        ("root ::= [z-a]", "column"),
        ("root ::= \"a\"{5,2}", "column"),
        ("root ::= \"a\" root", "root"),
    ] {
        refused(&ask(&["--grammar", grammar]), 5, words);
    }
    let nested = format!("root ::= {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000));
    let file = app.write("nested.gbnf", nested);
    refused(&ask(&["--grammar-file", file.to_str().expect("UTF-8")]), 5, "grammar");
    refused(&ask(&["-j", "{\"type\": \"nonsense\"}"]), 5, "schema");
    refused(&ask(&["-j", "{"]), 5, "schema");
    refused(&ask(&["--regex", "(a"]), 5, "regex");
    refused(&ask(&["--format", "jsn"]), 3, "json");
    refused(&ask(&["--grammar-file", "missing.gbnf"]), 3, "missing.gbnf");
    refused(&app.run(&["grammar", "check", "--grammar", "root ::= x"], ""), 5, "line 1");
    refused(&app.run(&["grammar", "show", "jsn"], ""), 3, "json");
    assert_eq!(app.run(&["grammar", "test", "--format", "yes-no"], "maybe").code, Some(1));
}

#[test]
fn jsonl_lines_may_not_name_what_is_not_there() {
    let app = App::new();
    let lines = [
        json!({"id": "name", "prompt": "hi", "adapters": [{"name": "sql"}]}),
        json!({"id": "auto", "prompt": "hi", "adapters": "auto", "route": {"strategy": "best"}}),
    ];
    let run = app.lines(&[], &lines);
    assert_eq!(run.code, Some(9));
    let results = run.json_lines();
    assert_eq!(results[0]["error"]["code"], "not_found", "{}", run.text());
    assert!(run.text().contains("there is no strategy 'best'"), "{}", run.text());
}
