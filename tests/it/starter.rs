//! The starter library of models/adapters: its files fit the default model, the router finds them, and they do their work.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{App, model};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/adapters")
}

/// A library of all of them, with a trained router.
fn library(app: &App) -> String {
    let library = app.path("starter").display().to_string();
    let (from, model) = (folder().display().to_string(), model().display().to_string());
    let general = folder().join("general.train.jsonl").display().to_string();
    app.run(&["adapter", "add", &from, "-m", &model, "--library", &library], "").ok();
    app.run(&["adapter", "train-router", &general, "--library", &library], "").ok();
    library
}

/// Requests that are in no card, and the adapter that is for them.
const REQUESTS: [(&str, &str, &str); 2] = [
    (
        "json-extract",
        "Extract the intent and its slots from the request. Answer with one line of JSON. Intents: AddToPlaylist, \
         BookRestaurant, GetWeather, PlayMusic, RateBook, SearchCreativeWork, SearchScreeningEvent.",
        "will it snow in Oslo tomorrow",
    ),
    (
        "classify",
        "Classify the request. Labels: auto_and_commute, banking, credit_cards, home, kitchen_and_dining, meta, \
         small_talk, travel, utility, work, out_of_scope.",
        "how much should I put into the tyres of my car",
    ),
];

#[test]
fn the_starter_library_is_routed_to_and_works() {
    let app = App::new();
    let library = library(&app);
    let line = |system: &str, user: &str| {
        json!({"messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
               "adapters": "auto", "temperature": 0, "n_predict": 64})
    };
    let mut lines: Vec<Value> = REQUESTS.iter().map(|(_, system, user)| line(system, user)).collect();
    lines.push(line("You are a helpful assistant.", "Why do leaves fall in autumn?"));
    if let Some(last) = lines.last_mut() {
        last["n_predict"] = json!(4);
    }
    let results = app.lines(&["--library", &library], &lines).ok().json_lines();
    for (result, (name, ..)) in results.iter().zip(REQUESTS) {
        assert_eq!(result["adapters"][0]["name"], name, "{result:#}");
    }
    assert_eq!(results[2]["adapters"], json!([]), "a question for nobody in particular: {:#}", results[2]);
    let text = |at: usize| results[at]["content"].as_str().unwrap_or_default().trim().to_owned();
    let extracted: Value = serde_json::from_str(&text(0)).expect("JSON");
    assert_eq!(extracted["intent"], "GetWeather", "{extracted}");
    assert_eq!(text(1), "auto_and_commute");
}

#[test]
fn every_starter_adapter_is_small_and_says_what_it_is() {
    let mut whole = 0;
    for file in std::fs::read_dir(folder()).expect("models/adapters").flatten().map(|e| e.path()) {
        if file.extension().is_none_or(|e| e != "gguf") {
            continue;
        }
        let size = std::fs::metadata(&file).expect("size").len();
        assert!(size < 1_500_000, "{}: {size} bytes", file.display());
        whole += size;
        let card = std::fs::read_to_string(file.with_extension("toml")).expect("a card");
        let card: toml::Table = toml::from_str(&card).expect("TOML");
        for key in ["title", "description", "licence", "origin", "keywords", "examples", "evaluation"] {
            assert!(card.contains_key(key), "{}: its card has no {key}", file.display());
        }
        let shared = card["origin"].as_str().is_some_and(|origin| origin.contains("CC-BY-SA"));
        assert_eq!(shared, card["licence"].as_str().is_some_and(|l| l.contains("CC-BY-SA")), "{}", file.display());
    }
    assert!(whole < 16_000_000, "{whole} bytes");
}
