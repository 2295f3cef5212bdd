//! `smoa eval`: task files through the engine, and what their answers are worth.

use serde_json::{Value, json};

use crate::support::{App, Run, model, random_lora};

impl App {
    pub fn eval(&self, args: &[&str]) -> Run {
        let model = model();
        let library = self.path("library").display().to_string();
        let mut all = vec!["eval", "-m", model.to_str().expect("UTF-8 path"), "-t", "2", "-c", "2048"];
        all.extend(["--library", library.as_str()]);
        all.extend(args);
        self.run(&all, "")
    }

    pub fn task(&self, name: &str, rows: &[(&str, &str, Value)]) -> String {
        let line = |(user, answer, meta): &(&str, &str, Value)| {
            let messages = [json!({"role": "user", "content": user}), json!({"role": "assistant", "content": answer})];
            format!("{}\n", json!({"messages": messages, "meta": meta}))
        };
        self.write(name, rows.iter().map(line).collect::<String>()).display().to_string()
    }
}

#[test]
fn a_task_is_scored_for_each_choice_of_adapters() {
    let app = App::new();
    let lora = app.write("a.gguf", random_lora(7, 4, 0.05)).display().to_string();
    let colours = ["grass", "snow", "blood", "coal", "the sky", "a lemon"];
    let answers = ["green", "white", "red", "black", "blue", "yellow"];
    let rows: Vec<_> = colours.iter().zip(answers).map(|(c, a)| (*c, a, json!({}))).collect();
    let task = app.task("task.jsonl", &rows);
    let schema = r#"{"enum": ["green", "white", "red", "black", "blue", "yellow"]}"#;
    let mix = format!("{lora}=0.2+{lora}=0.1");
    let args = ["--task", &task, "--metric", "label", "--regex", "green|white|red|black|blue|yellow"];
    let mut all = args.to_vec();
    all.extend(["--adapter", "none", "--adapter", &lora, "--shots", "2", "--shots-from", &task, "--json", "out.json"]);
    let run = app.eval(&all).ok();
    let lines: Vec<&str> = run.text().lines().collect();
    assert_eq!(lines.len(), 3, "{run:?}");
    assert!(
        lines[0].starts_with("adapter") && lines[0].contains("accuracy") && lines[1].starts_with("none"),
        "{run:?}"
    );
    let out: Value = serde_json::from_slice(&std::fs::read(app.path("out.json")).expect("written")).expect("JSON");
    assert_eq!(out["runs"].as_array().map(Vec::len), Some(2), "{out}");
    for run in out["runs"].as_array().expect("runs") {
        assert_eq!((run["figures"]["known"].as_f64(), run["failed"].as_u64()), (Some(1.0), Some(0)), "{run}");
        let right = run["rows"].as_array().expect("rows").iter().filter(|r| r["answer"] == r["wanted"]).count();
        assert_eq!(run["figures"]["accuracy"].as_f64(), Some(right as f64 / 6.0), "{run}");
    }
    assert_eq!(app.eval(&all).ok().stdout.len(), run.stdout.len());

    // Two uses of one file in a mix are refused as in any request.
    let refused = app.eval(&["--task", &task, "--metric", "label", "--adapter", &mix]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let limited =
        app.eval(&["--task", &task, "--metric", "exact", "-j", schema, "--limit", "1", "--json", "-"]).ok().json();
    assert_eq!((limited["rows"].as_u64(), limited["runs"][0]["adapter"].as_str()), (Some(1), Some("none")));
}

#[test]
fn what_cannot_be_scored_is_refused_in_one_line() {
    let app = App::new();
    let good = app.task("good.jsonl", &[("q", "a", json!({}))]);
    let bad = app.write("bad.jsonl", "{\"messages\": []}\n").display().to_string();
    let empty = app.write("empty.jsonl", "\n\n").display().to_string();
    let table: [(&[&str], i32, &str); 10] = [
        (&["--task", "none.jsonl", "--metric", "exact"], 3, "none.jsonl"),
        (&["--task", &bad, "--metric", "exact"], 4, "line 1: messages"),
        (&["--task", &empty, "--metric", "exact"], 2, "no rows"),
        (&["--task", &good, "--metric", "bleu"], 2, "known are json, sql"),
        (&["--task", &good, "--metric", "sql"], 4, "row 1: meta.setup is missing"),
        (&["--task", &good, "--metric", "json"], 4, "no JSON object"),
        (&["--task", &good, "--metric", "exact", "--shots", "2"], 2, "--shots-from"),
        (&["--task", &good, "--metric", "exact", "--shots", "2", "--shots-from", &good], 2, "has 1 rows"),
        (&["--task", &good, "--metric", "exact", "--adapter", "a+none"], 2, "cannot be part of a mix"),
        (&["--task", &good, "--metric", "exact", "--adapter", "nobody"], 3, "not an adapter library"),
    ];
    for (args, code, words) in table {
        let run = app.eval(args);
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
        assert!(run.stderr.contains(words) && run.stderr.lines().count() == 1, "{args:?}: {run:?}");
    }
    let long = app.task("long.jsonl", &[("word ".repeat(4000).as_str(), "a", json!({})), ("q", "a", json!({}))]);
    let run = app.eval(&["--task", &long, "--metric", "exact", "-n", "4"]);
    assert_eq!(run.code, Some(9), "{run:?}");
    assert!(run.stderr.contains("1 rows have no answer"), "{run:?}");
}
