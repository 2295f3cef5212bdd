//! Drafts on the real model: answers stay what they are, and what is copied is guessed.

use serde_json::{Value, json};

use crate::support::{App, model, random_lora};

#[rustfmt::skip]
const FLAGS: [&str; 10] = [
    "--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "3", "--spec-ngram-simple-size-m", "8", "-np", "4", "-t", "1",
];

/// Something that the model goes on with by heart.
fn counting() -> Value {
    let list = [" red, green, blue, white, black,"; 6].concat();
    json!({"prompt": format!("Colours again and again:{list}"), "n_predict": 40, "temperature": 0, "return_tokens": true,
        "cache_prompt": false})
}

fn with(mut body: Value, key: &str, value: impl Into<Value>) -> Value {
    body[key] = value.into();
    body
}

#[test]
fn what_is_copied_is_guessed_and_answers_stay_the_same() {
    let app = App::new();
    let s = app.serve(&[&FLAGS[..], &["--metrics"]].concat());
    let slots = s.get("/slots").ok();
    assert_eq!(slots[0]["speculative"], true);
    let plain = s.post("/completion", &with(counting(), "speculative.types", "none")).ok();
    assert!(plain["timings"].get("draft_n").is_none(), "{plain}");
    assert_eq!(plain["generation_settings"]["speculative.types"], "none");
    let drafted = s.post("/completion", &counting()).ok();
    assert_eq!((&drafted["tokens"], &drafted["content"]), (&plain["tokens"], &plain["content"]));
    assert_eq!(drafted["generation_settings"]["speculative.types"], "ngram-simple");
    let number = |body: &Value, name: &str| body["timings"][name].as_u64().unwrap_or_default();
    let (guessed, right) = (number(&drafted, "draft_n"), number(&drafted, "draft_n_accepted"));
    assert!(right > 15 && guessed >= right, "{}", drafted["timings"]);
    assert_eq!(number(&drafted, "predicted_n"), 40);
    // Short drafts, none, and a form: all tell the same list.
    for (key, value) in
        [("speculative.n_max", json!(2)), ("speculative.n_max", json!(0)), ("grammar", json!("root ::= [a-z, ]+"))]
    {
        let other = s.post("/completion", &with(counting(), key, value.clone())).ok();
        assert_eq!(other["content"], plain["content"], "{key} {value}");
        assert_eq!(number(&other, "draft_n") > 0, value != json!(0), "{key} {value}");
    }
    let probable = s.post("/completion", &with(counting(), "n_probs", 3)).ok();
    assert_eq!((&probable["content"], number(&probable, "draft_n") > 0), (&plain["content"], true));
    assert_eq!(probable["completion_probabilities"].as_array().map(Vec::len), Some(40));
    let wrong = s.post("/completion", &with(counting(), "speculative.types", "draft-mtp"));
    assert!(wrong.status == 400 && wrong.text().contains("speculative.types"), "{}", wrong.text());

    let metrics = s.get("/metrics");
    let metrics = metrics.text();
    let counted = |name: &str| {
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(&format!("llamacpp:spec_decode_num_{name}_total ")));
        line.and_then(|n| n.parse::<u64>().ok()).expect("counted")
    };
    assert!(counted("draft_tokens") > guessed && counted("accepted_tokens") > right && counted("drafts") > 3);
    assert!(metrics.contains("llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position=\"7\"} "), "{metrics}");
}

#[test]
fn lines_with_adapters_are_drafted_side_by_side() {
    let app = App::new();
    let lora = app.write("a.gguf", random_lora(5, 4, 0.02));
    let line = |id: usize| {
        let mut body = with(with(counting(), "id", id), "n_predict", 24);
        if id % 2 == 1 {
            body["lora"] = json!([{"path": lora, "scale": 1}]);
        }
        if id < 2 {
            body["speculative.types"] = "none".into();
        }
        body
    };
    let lines: Vec<Value> = (0..4).map(line).collect();
    let answers = app.lines(&FLAGS, &lines).ok().json_lines();
    assert_eq!(answers.len(), 4);
    for (plain, drafted) in answers[..2].iter().zip(&answers[2..]) {
        assert_eq!(drafted["content"], plain["content"]);
        assert!(drafted["timings"]["draft_n_accepted"].as_u64() > Some(10), "{drafted}");
    }
}

#[test]
fn a_model_that_guesses_for_itself_is_nearly_always_right() {
    let app = App::new();
    let file = model().display().to_string();
    let s = app.serve(&["-md", &file, "--spec-draft-n-max", "4", "-np", "2", "-t", "1"]);
    let story = json!({"prompt": "Once upon a time", "n_predict": 24, "temperature": 0, "cache_prompt": false});
    let plain = s.post("/completion", &with(story.clone(), "speculative.types", "none")).ok();
    let drafted = s.post("/completion", &story).ok();
    assert_eq!(drafted["content"], plain["content"]);
    assert_eq!(drafted["generation_settings"]["speculative.types"], "draft-simple");
    let number = |name: &str| drafted["timings"][name].as_u64().unwrap_or_default();
    let (guessed, right) = (number("draft_n"), number("draft_n_accepted"));
    assert!(guessed >= 15 && 10 * right >= 9 * guessed, "{}", drafted["timings"]);
}
