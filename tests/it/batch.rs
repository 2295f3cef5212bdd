//! Many lines at once: order, isolation between adapters, errors in their place, flat memory.

use crate::support::{App, random_lora};
use serde_json::{Value, json};

/// Answers by line number.
fn contents(results: &[Value]) -> Vec<String> {
    results.iter().map(|r| r["content"].as_str().unwrap_or_else(|| panic!("{r}")).to_string()).collect()
}

/// Eight adapters over eight lines with a common prompt, then each line alone in a fresh process.
#[test]
fn eight_adapters_in_one_run_answer_as_in_cold_runs() {
    let app = App::new();
    let files: Vec<String> =
        (0..8).map(|i| app.write(&format!("r{i}.gguf"), random_lora(100 + i, 8, 0.05)).display().to_string()).collect();
    let line = |i: usize| {
        json!({"id": i, "prompt": "Once upon a time there was a", "n_predict": 16, "ignore_eos": true, "return_tokens": true,
               "lora": [{"path": files[i], "scale": 1.0}]})
    };
    let lines: Vec<Value> = (0..8).map(line).collect();
    let together = app.lines(&["-np", "8"], &lines).ok().json_lines();
    for (i, result) in together.iter().enumerate() {
        assert_eq!(result["id"], i, "results come in the order of the lines");
        let alone = app.lines(&["-np", "1"], &lines[i..=i]).ok().json_lines();
        assert_eq!(result["tokens"], alone[0]["tokens"], "line {i} under its adapter");
    }
    let distinct: std::collections::HashSet<String> = contents(&together).into_iter().collect();
    assert!(distinct.len() >= 7, "the adapters differ visibly: {distinct:?}");
}

/// One sequence, one prompt, changing adapters and scales: a cache keyed by less than the whole set would answer
/// with the adapter before.
#[test]
fn a_cached_prefix_of_another_adapter_or_scale_is_never_used() {
    let app = App::new();
    let a = app.write("a.gguf", random_lora(11, 8, 0.03)).display().to_string();
    let b = app.write("b.gguf", random_lora(12, 8, 0.03)).display().to_string();
    let plans: Vec<(Vec<(&String, f32)>, bool)> = vec![
        (vec![(&a, 1.0)], false),
        (vec![(&b, 1.0)], false),
        (vec![(&b, 1.0)], true),
        (vec![(&a, 1.0)], false),
        (vec![(&a, 0.5)], false),
        (vec![], false),
        (vec![(&a, 1.0), (&b, 1.0)], false),
        (vec![(&b, 1.0), (&a, 1.0)], true),
        (vec![], false),
    ];
    let line = |i: usize, set: &[(&String, f32)]| {
        let lora: Vec<Value> = set.iter().map(|(path, scale)| json!({"path": path, "scale": scale})).collect();
        json!({"id": i, "prompt": "The secret of a good soup is", "n_predict": 12, "ignore_eos": true, "return_tokens": true, "lora": lora})
    };
    let lines: Vec<Value> = plans.iter().enumerate().map(|(i, (set, _))| line(i, set)).collect();
    let warm = app.lines(&["-np", "1"], &lines).ok().json_lines();
    for (i, (_, reused)) in plans.iter().enumerate() {
        let cached = warm[i]["timings"]["cache_n"].as_u64().expect("count");
        assert_eq!(cached > 0, *reused, "line {i}: {cached} cached");
        let cold = app.lines(&["-np", "1"], &lines[i..=i]).ok().json_lines();
        assert_eq!(warm[i]["tokens"], cold[0]["tokens"], "line {i}");
    }
}

/// The same file name with other content is another adapter.
#[test]
fn a_replaced_adapter_file_is_another_adapter() {
    let app = App::new();
    let path = app.write("x.gguf", random_lora(21, 8, 0.03)).display().to_string();
    let ask = || {
        let line = json!({"id": 0, "prompt": "A", "n_predict": 2, "lora": [{"path": path}]});
        app.lines(&[], &[line]).ok().json_lines()[0]["adapters"][0]["digest"].clone()
    };
    let first = ask();
    app.write("x.gguf", random_lora(22, 8, 0.03));
    assert_ne!(first, ask());
}

#[test]
fn a_thousand_lines_with_a_broken_and_a_huge_one() {
    let app = App::new();
    let mut text = String::new();
    for i in 0..1000 {
        match i {
            333 => text += "{\"id\": 333, \"prompt\": \n",
            666 => text += &format!("{{\"id\": 666, \"prompt\": \"{}\"}}\n", "x".repeat(10 << 20)),
            _ => text += &format!("{}\n", json!({"id": i, "prompt": format!("Number {i}:"), "n_predict": 1})),
        }
    }
    let head: String = text.lines().take(100).map(|l| format!("{l}\n")).collect();
    let few = app.answer(&["--jsonl", "-np", "8"], head).ok();
    let run = app.answer(&["--jsonl", "-np", "8"], text);
    assert_eq!(run.code, Some(9), "{}", run.stderr);
    // Ten times the lines and one of 10 MiB: at most a line's worth of memory more.
    assert!(
        run.peak_kib < few.peak_kib + 24 * 1024,
        "{} KiB after 1000 lines, {} after 100",
        run.peak_kib,
        few.peak_kib
    );
    let results = run.json_lines();
    assert_eq!(results.len(), 1000);
    for (i, result) in results.iter().enumerate() {
        if i == 333 || i == 666 {
            assert_eq!(result["error"]["code"], "invalid_request", "line {i}: {result}");
            assert!(result.get("content").is_none());
        } else {
            assert_eq!(result["id"], i);
            assert_eq!(result["usage"]["completion_tokens"], 1, "line {i}: {result}");
        }
    }
}

#[test]
fn one_bad_line_harms_no_other() {
    let app = App::new();
    let missing = app.path("missing.gguf").display().to_string();
    let good = |id: &str| json!({"id": id, "prompt": "Hello", "n_predict": 4, "return_tokens": true});
    let lines = [
        good("a"),
        json!({"id": "lora", "prompt": "Hello", "lora": [{"path": missing}]}),
        json!({"id": "grammar", "prompt": "Hello", "grammar": "root ::= undefined"}),
        json!({"id": "schema", "prompt": "Hello", "json_schema": {"type": "nonsense"}}),
        json!({"id": "token", "prompt": [1, 999_999]}),
        json!({"id": "long", "prompt": "word ".repeat(5000)}),
        json!({"id": "format", "prompt": "Hello", "format": "jsn"}),
        good("b"),
    ];
    let run = app.lines(&["-np", "2"], &lines);
    assert_eq!(run.code, Some(9));
    let results = run.json_lines();
    let codes: Vec<&str> = results.iter().map(|r| r["error"]["code"].as_str().unwrap_or("ok")).collect();
    let expected = [
        "ok",
        "not_found",
        "format_rejected",
        "format_rejected",
        "invalid_request",
        "invalid_request",
        "not_found",
        "ok",
    ];
    assert_eq!(codes, expected, "{results:?}");
    assert_eq!(results[0]["tokens"], results[7]["tokens"]);
}

#[test]
fn a_common_prefix_is_read_once() {
    let app = App::new();
    let common = "You are a careful assistant. ".repeat(20);
    let lines: Vec<Value> =
        (0..6).map(|i| json!({"id": i, "prompt": format!("{common} Question {i}:"), "n_predict": 2})).collect();
    let results = app.lines(&["-np", "3"], &lines).ok().json_lines();
    let read: u64 = results.iter().map(|r| r["timings"]["prompt_n"].as_u64().expect("count")).sum();
    let whole = results[0]["usage"]["prompt_tokens"].as_u64().expect("count");
    assert!(read < whole + 6 * 20, "{read} tokens evaluated, a prompt has {whole}");
}
