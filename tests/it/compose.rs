//! Compositions end to end: mixes, mixes of mixes, chains; what is refused.

use serde_json::{Value, json};

use crate::support::{App, Run, model, random_lora};

impl App {
    fn composing(&self, args: &[&str]) -> Run {
        let (model, library) = (model().display().to_string(), self.path("library").display().to_string());
        let mut all = vec!["adapter"];
        all.extend(args);
        all.extend(["--library", library.as_str()]);
        if args[0] == "add" {
            all.extend(["-m", model.as_str()]);
        }
        self.run(&all, "")
    }

    fn said(&self, prompt: &str, adapters: &[&str], more: &[&str]) -> Run {
        let library = self.path("library").display().to_string();
        let mut args = vec!["-n", "12", "--library", library.as_str()];
        adapters.iter().for_each(|adapter| args.extend(["--adapter", adapter]));
        args.extend(more);
        args.push(prompt);
        self.answer(&args, "")
    }
}

#[test]
fn compositions_say_what_their_parts_say() {
    let app = App::new();
    for (seed, name) in [(11, "a"), (12, "b"), (13, "c")] {
        let file = app.write(&format!("{name}.gguf"), random_lora(seed, 4, 0.04)).display().to_string();
        app.composing(&["add", &file, "--name", name]).ok();
    }
    let made = app.composing(&["compose", "mix", "a=0.5+b=0.25", "--tag", "demo"]).ok();
    assert!(made.text().contains("a=0.5+b=0.25"), "{made:?}");
    let deep = app.composing(&["compose", "deep", "mix+c=0.5"]).ok();
    assert!(deep.text().contains("a=0.5+b=0.25+c=0.5"), "{deep:?}");
    let prompt = "A day at the sea";
    let mixed = app.said(prompt, &["a=0.5", "b=0.25"], &[]).ok();
    assert_eq!(app.said(prompt, &["mix"], &[]).ok().stdout, mixed.stdout);
    assert_eq!(
        app.said(prompt, &["deep=0.5"], &[]).ok().stdout,
        app.said(prompt, &["a=0.25", "b=0.125", "c=0.25"], &[]).ok().stdout
    );
    let json = app.said(prompt, &["mix"], &["--output", "json"]).ok().json();
    assert_eq!(json["adapters"].as_array().map(Vec::len), Some(2), "{json}");
    let stats = app.composing(&["stats", "mix", "a", "--json"]).ok().json_lines();
    assert!(stats.iter().all(|row| row["uses"].as_u64() >= Some(2)), "{stats:?}");

    // A chain: the second stage is given the answer of the first.
    app.composing(&["compose", "chain", "a", "mix", "--instruction", "2=Repeat:"]).ok();
    let first = app.said(prompt, &["a"], &[]).ok();
    let second = app.said(&format!("Repeat:\n\n{}", first.text()), &["mix"], &[]).ok();
    assert_eq!(app.said(prompt, &["chain"], &[]).ok().stdout, second.stdout);
    let strict = app.composing(&["compose", "strict", "none", "b", "--stage-format", "2=yes-no"]);
    let strict = match strict.code {
        Some(0) => app.said(prompt, &["strict"], &[]).ok(),
        _ => panic!("{strict:?}"),
    };
    assert!(["yes", "no"].contains(&strict.text().trim().to_lowercase().as_str()), "{strict:?}");

    // A part that is replaced is replaced in the composition.
    let other = app.write("other.gguf", random_lora(99, 4, 0.06)).display().to_string();
    app.composing(&["add", &other, "--name", "a", "--on-conflict", "replace"]).ok();
    assert_ne!(app.said(prompt, &["mix"], &[]).ok().stdout, mixed.stdout);
}

#[test]
fn compositions_that_cannot_be_are_refused() {
    let app = App::new();
    let file = app.write("a.gguf", random_lora(11, 2, 0.04)).display().to_string();
    app.composing(&["add", &file, "--name", "a"]).ok();
    app.composing(&["compose", "one", "a=0.5"]).ok();
    app.composing(&["compose", "two", "one+a=0.1"]).ok();
    app.composing(&["compose", "chain", "one", "two"]).ok();
    let table: [(&[&str], i32, &str); 9] = [
        (&["compose", "x", "nobody"], 3, "nobody"),
        (&["compose", "x", "x"], 2, "a cycle: x -> x"),
        (&["compose", "one", "two", "--on-conflict", "replace"], 2, "a cycle: one -> two -> one"),
        (&["compose", "x", "chain+a"], 2, "several stages"),
        (&["compose", "x", "a=9"], 2, "the weight of 'a' is 9"),
        (&["compose", "x", "a=b"], 2, "must be a number"),
        (&["compose", "x", "a", "--instruction", "2=Hi"], 2, "from 1 to 1"),
        (&["compose", "x", "a", "--by", "accuracy"], 2, "no such figure"),
        (&["compose", "one", "a"], 2, "is there already"),
    ];
    for (args, code, words) in table {
        let run = app.composing(args);
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
        assert!(run.stderr.contains(words) && run.stderr.lines().count() == 1, "{args:?}: {run:?}");
    }
    let mixed = app.said("Hi", &["chain", "a"], &[]);
    assert!(mixed.code == Some(2) && mixed.stderr.contains("several stages"), "{mixed:?}");
    app.composing(&["rm", "a"]).ok();
    let gone = app.said("Hi", &["two"], &[]);
    assert!(gone.code == Some(3) && gone.stderr.contains("'a'"), "{gone:?}");
}

#[test]
fn weights_by_route_follow_the_request() {
    let app = App::new();
    let starter = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/adapters").display().to_string();
    app.composing(&["add", &starter]).ok();
    let made = app.composing(&["compose", "support", "sql+json-extract", "--by", "route"]).ok();
    assert!(made.text().contains("by route"), "{made:?}");
    let shares = |told: &Value| -> Vec<(String, f64)> {
        let parts = told["weights"][0]["parts"].as_array().unwrap_or_else(|| panic!("{told:#}"));
        parts
            .iter()
            .map(|p| (p["name"].as_str().expect("a name").to_owned(), p["share"].as_f64().expect("a share")))
            .collect()
    };
    let question = "SELECT the names of all singers older than 40 from the table singer; write the SQL query";
    let told = app.said(question, &["support"], &["--output", "json"]).ok().json();
    let found = shares(&told);
    assert!(found[0].0 == "sql" && found[0].1 > 0.6 && (found[0].1 + found[1].1 - 1.0).abs() < 1e-6, "{told:#}");
    assert_eq!(told["weights"][0]["equal_because"], Value::Null);
    // The answer is that of the same adapters with these weights, and each time the same.
    let given: Vec<String> = found.iter().filter(|(_, s)| *s > 0.0).map(|(name, s)| format!("{name}={s}")).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let plain = app.said(question, &given, &[]).ok();
    assert_eq!(app.said(question, &["support"], &[]).ok().stdout, plain.stdout);
    assert_eq!(shares(&app.said(question, &["support"], &["--output", "json"]).ok().json()), found);

    // Other requests, other weights; without a text they are equal, and that is told.
    let library = app.path("library").display().to_string();
    let lines = [
        json!({"id": 1, "prompt": "Extract the intent and its slots as JSON: play some jazz", "n_predict": 2, "format": "none", "adapters": [{"name": "support"}]}),
        json!({"id": 2, "prompt": [1, 2, 3], "n_predict": 2, "format": "none", "adapters": [{"name": "support"}]}),
        json!({"id": 3, "prompt": [1, 2, 3], "n_predict": 2, "format": "none", "adapters": [{"name": "json-extract", "scale": 0.5}, {"name": "sql", "scale": 0.5}]}),
    ];
    let told = app.lines(&["--library", &library], &lines).ok().json_lines();
    assert!(shares(&told[0])[1].1 > shares(&told[0])[0].1, "{:#}", told[0]);
    assert_eq!(shares(&told[1]).iter().map(|(_, share)| *share).collect::<Vec<_>>(), [0.5, 0.5]);
    assert!(
        told[1]["weights"][0]["equal_because"].as_str().is_some_and(|why| why.contains("token ids")),
        "{}",
        told[1]
    );
    assert_eq!(told[1]["adapters"], told[2]["adapters"]);
    assert_eq!(told[1]["content"], told[2]["content"]);

    // The server tells them in each API's answers, and a task file is answered with the weights of each row.
    let s = app.serve(&["--library", &library]);
    let ask = json!({"messages": [{"role": "user", "content": question}], "model": "support", "max_tokens": 2});
    for path in ["/v1/chat/completions", "/v1/messages", "/v1/responses"] {
        let mut ask = ask.clone();
        if path.ends_with("responses") {
            ask["input"] = ask["messages"].take();
        }
        assert_eq!(shares(&s.post(path, &ask).ok()), found, "{path}");
    }
    let task = app.task("task.jsonl", &[(question, "?", json!({})), ("play some jazz", "?", json!({}))]);
    let args = ["--task", &task, "--metric", "exact", "--adapter", "support", "-n", "2", "--json", "-"];
    let told = app.eval(&args).ok().json();
    let rows = told["runs"][0]["rows"].as_array().unwrap_or_else(|| panic!("{told:#}"));
    assert!(
        rows[0]["adapters"].as_str().is_some_and(|a| a.contains("sql")) && rows[0]["adapters"] != rows[1]["adapters"]
    );

    // A fixed weight multiplies; inside another mix too.
    app.composing(&["compose", "outer", "support=0.5+classify=0.1"]).ok();
    let told = app.said(question, &["outer"], &["--output", "json"]).ok().json();
    assert_eq!(shares(&told), found);
    let scales = told["adapters"].as_array().expect("adapters").iter();
    let sum: f64 = scales.filter(|a| a["name"] != "classify").map(|a| a["scale"].as_f64().expect("a scale")).sum();
    assert!((sum - 0.5).abs() < 1e-5, "{told:#}");
}

#[test]
fn adapters_change_at_a_marker_inside_one_answer() {
    let app = App::new();
    for (seed, name) in [(11, "a"), (12, "b")] {
        let file = app.write(&format!("{name}.gguf"), random_lora(seed, 4, 0.04)).display().to_string();
        app.composing(&["add", &file, "--name", name]).ok();
    }
    let prompt = "A day at the sea";
    let long = ["-n", "32", "--output", "json"];
    let plain = app.said(prompt, &["a"], &long).ok().json();
    let plain = plain["content"].as_str().expect("text");
    // Some text that the answer has.
    let from = plain.char_indices().nth(plain.chars().count() / 3).expect("a long answer").0;
    let marker: String = plain[from..].chars().take(6).collect();
    let border = plain.find(&marker).expect("there") + marker.len();

    let made = app.composing(&["compose", "both", "a", "b", "--at", &marker]).ok();
    assert!(made.text().contains("-> b"), "{made:?}");
    let told = app.said(prompt, &["both"], &long).ok().json();
    let text = told["content"].as_str().expect("text");
    assert!(text.starts_with(&plain[..border]) && text != plain, "{text:?} after {plain:?}");
    let stages = told["stages"].as_array().expect("stages");
    assert_eq!((&stages[0]["adapters"][0]["name"], &stages[1]["adapters"][0]["name"]), (&json!("a"), &json!("b")));
    assert_eq!((&stages[0]["from_token"], &stages[1]["marker"]), (&json!(0), &json!(marker)));
    assert!(stages[1]["from_token"].as_u64().is_some_and(|n| n > 0 && n < 32), "{told:#}");
    assert_eq!(told["adapters"].as_array().map(Vec::len), Some(2), "{told:#}");
    let streamed = app.said(prompt, &["both"], &["-n", "32"]).ok();
    assert_eq!(streamed.text().trim_end(), text.trim_end());

    // A marker that never comes: all of it is the first one's.
    app.composing(&["compose", "never", "a", "b", "--at", "\u{2603}\u{2603}"]).ok();
    let told = app.said(prompt, &["never"], &long).ok().json();
    assert_eq!((&told["content"], &told["stages"][1]["from_token"]), (&json!(plain), &Value::Null));

    // A format holds after the marker, which comes in time.
    app.composing(&["compose", "formed", "a", "b", "--at", "\nANSWER:", "--stage-format", "2=yes-no"]).ok();
    let told = app.said(prompt, &["formed"], &long).ok().json();
    let (_, answer) = told["content"].as_str().and_then(|text| text.split_once("\nANSWER:")).expect("the marker");
    assert!(["yes", "no"].contains(&answer.trim().to_lowercase().as_str()), "{told:#}");
    assert!(told["format_complete"] == true && told["stages"][1]["from_token"].is_u64(), "{told:#}");

    // As a stage of a chain; and in a batch with others, each line with its own.
    app.composing(&["compose", "chained", "both", "none", "--instruction", "2=Repeat:"]).ok();
    let chained = app.said(prompt, &["chained"], &["-n", "32"]).ok();
    assert_eq!(chained.stdout, app.said(&format!("Repeat:\n\n{text}"), &[], &["-n", "32"]).ok().stdout);
    let library = app.path("library").display().to_string();
    let line = |id: u64, name: &str| json!({"id": id, "prompt": prompt, "n_predict": 32, "adapters": [{"name": name}]});
    let lines = [line(1, "both"), line(2, "a"), line(3, "formed"), line(4, "b"), line(5, "never")];
    let told = app.lines(&["--library", &library], &lines).ok().json_lines();
    for (told, stages) in told.iter().zip([2, 0, 2, 0, 2]) {
        assert_eq!(told["stages"].as_array().map_or(0, Vec::len), stages, "{told:#}");
    }

    // The server tells it in the last event of a stream.
    let s = app.serve(&["-np", "2", "--library", &library]);
    let ask =
        json!({"messages": [{"role": "user", "content": prompt}], "model": "both", "max_tokens": 32, "temperature": 0});
    let whole = s.post("/v1/chat/completions", &ask).ok();
    assert_eq!(whole["choices"][0]["message"]["content"].as_str(), Some(text));
    let mut streaming = ask.clone();
    streaming["stream"] = true.into();
    let (events, _) = s.post("/v1/chat/completions", &streaming).events();
    let joined: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    let last = events.iter().rev().find(|e| e["stages"].is_array()).unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!((joined.as_str(), &last["stages"]), (text, &whole["stages"]));
    assert_eq!(whole["stages"][1]["from_token"], stages[1]["from_token"]);

    for (args, words) in [
        (&["compose", "x", "a", "b", "--at", "!", "--at", "?"][..], "2 given, 1 needed"),
        (&["compose", "x", "a", "--at", "!"], "1 given, 0 needed"),
        (&["compose", "x", "a", "b", "--at", ""], "1 to 256 bytes"),
        (&["compose", "x", "a", "b", "--at", "!", "--instruction", "2=Hi"], "stage 2 goes on"),
        (&["compose", "x", "a", "b", "--at", "!", "--stage-format", "1=yes-no"], "stage 1 ends at a marker"),
        (&["compose", "x", "both=0.5+a"], "several stages"),
    ] {
        let run = app.composing(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:?}");
        assert!(run.stderr.contains(words) && run.stderr.lines().count() == 1, "{args:?}: {run:?}");
    }
}

#[test]
fn starter_adapters_share_an_answer() {
    let app = App::new();
    let starter = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/adapters").display().to_string();
    app.composing(&["add", &starter]).ok();
    app.composing(&["compose", "both", "json-extract", "classify", "--at", "}\n"]).ok();
    let ask = "Extract the intent and its slots from the request. Answer with one line of JSON. Intents: \
        BookRestaurant, GetWeather, PlayMusic.\n\nwill it snow in Oslo tomorrow";
    // The format of the one that has the last word would hold after the marker; here the text is free.
    let told = app.said(ask, &["both"], &["-n", "48", "--output", "json", "--format", "none"]).ok().json();
    assert!(told["content"].as_str().is_some_and(|text| text.contains("GetWeather")), "{told:#}");
    assert_eq!(told["stages"].as_array().map(Vec::len), Some(2), "{told:#}");
}

#[test]
fn bundles_are_packed_signed_checked_and_taken_in() {
    let app = App::new();
    for (seed, name) in [(21, "a"), (22, "b")] {
        let file = app.write(&format!("{name}.gguf"), random_lora(seed, 2, 0.03)).display().to_string();
        app.composing(&["add", &file, "--name", name, "--licence", "MIT", "--tag", "t"]).ok();
    }
    app.composing(&["compose", "mix", "a+b=0.5", "--licence", "MIT"]).ok();
    let key = app.run(&["adapter", "key", "-o", "key"], "").ok().text().trim().to_owned();
    let other = app.run(&["adapter", "key", "-o", "other"], "").ok().text().trim().to_owned();
    assert!(key.len() == 64 && key != other);
    let packed = app.composing(&["pack", "a", "b", "mix", "-o", "all.smoa", "--sign", "key"]).ok();
    assert!(packed.text().contains("3 adapters") && packed.text().contains(&key), "{packed:?}");
    let model = model().display().to_string();
    let take = |file: &str, library: &str, more: &[&str]| {
        let library = app.path(library).display().to_string();
        app.run(&[&["adapter", "add", file, "-m", &model, "--library", &library][..], more].concat(), "")
    };
    let taken = take("all.smoa", "mine", &["--signer", &other, "--signer", &key]).ok();
    assert!(taken.text().lines().count() == 3 && taken.text().contains("MIT"), "{taken:?}");
    let show = |library: &str, name: &str| {
        let library = app.path(library).display().to_string();
        let mut shown = app.run(&["adapter", "show", name, "--json", "--library", &library], "").ok().json();
        shown["added"] = 0.into();
        shown
    };
    for name in ["a", "b", "mix"] {
        assert_eq!(show("mine", name), show("library", name), "bytes and words");
    }

    let whole = std::fs::read(app.path("all.smoa")).expect("read");
    let mut broken = whole.clone();
    let at = whole.len() / 2;
    broken[at] ^= 1;
    app.write("broken.smoa", &broken);
    app.write("cut.smoa", &whole[..whole.len() - 40]);
    app.composing(&["pack", "a", "-o", "plain.smoa"]).ok();
    app.composing(&["add", &app.path("a.gguf").display().to_string(), "--name", "bare"]).ok();
    for (run, code, words) in [
        (take("all.smoa", "mine", &[]), 2, "is there already"),
        (take("all.smoa", "new", &["--signer", &other]), 4, "which is no --signer"),
        (take("plain.smoa", "new", &["--signer", &key]), 4, "is not signed"),
        (take("plain.smoa", "new", &["--signer", "zz"]), 2, "--signer zz"),
        (take("plain.smoa", "new", &["--name", "x"]), 2, "names its adapters"),
        (take("broken.smoa", "new", &[]), 4, "broken.smoa"),
        (take("cut.smoa", "new", &[]), 4, "cut.smoa"),
        (app.composing(&["pack", "bare", "-o", "x.smoa"]), 2, "has no licence"),
        (app.composing(&["pack", "a", "-o", "x.zip"]), 2, ".smoa"),
        (app.composing(&["pack", "a", "-o", "all.smoa"]), 2, "exists"),
        (app.composing(&["pack", "nobody", "-o", "y.smoa"]), 3, "nobody"),
        (app.composing(&["pack", "a", "-o", "y.smoa", "--sign", "all.smoa"]), 4, "all.smoa"),
    ] {
        assert_eq!(run.code, Some(code), "{words}: {run:?}");
        assert!(run.stderr.contains(words) && run.stderr.lines().count() == 1, "{words}: {run:?}");
    }
    let nothing = app.run(&["adapter", "ls", "--library", &app.path("new").display().to_string()], "");
    assert_eq!(nothing.text(), "", "all or none");
}

#[test]
fn starter_adapters_in_mixes_of_mixes_and_chains() {
    let app = App::new();
    let starter = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/adapters").display().to_string();
    app.composing(&["add", &starter]).ok();
    let said =
        |prompt: &str, adapters: &[&str]| app.said(prompt, adapters, &["-n", "48"]).ok().text().trim().to_owned();
    let extract = "Extract the intent and its slots from the request. Answer with one line of JSON. Intents: \
        BookRestaurant, GetWeather, PlayMusic.";
    let classify = "Classify the request. Labels: banking, home, travel, utility, work, out_of_scope.";
    let request = "will it snow in Oslo tomorrow";
    let asked = format!("{extract}\n\n{request}");

    // Hierarchical: weights multiply down to the adapters.
    app.composing(&["compose", "structured", "json-extract=0.9+sql=0.2"]).ok();
    app.composing(&["compose", "careful", "structured=0.5+json-extract=0.5+classify=0.1"]).ok();
    let flat = said(&asked, &["json-extract=0.95", "sql=0.1", "classify=0.1"]);
    assert_eq!(said(&asked, &["careful"]), flat);
    assert_ne!(said(&asked, &["classify"]), flat);

    // Sequential: the second adapter reads what the first one wrote, and the first stage is a mix of mixes.
    let words = [format!("1={extract}"), format!("2={classify}")];
    let instructions = ["--instruction", &words[0], "--instruction", &words[1]];
    app.composing(&[&["compose", "sorted", "careful", "classify"][..], &instructions].concat()).ok();
    let first = said(&asked, &["careful"]);
    assert!(first.contains("GetWeather"), "{first}");
    let second = said(&format!("{classify}\n\n{first}"), &["classify"]);
    assert_eq!(said(request, &["sorted"]), second);
    assert!(classify.contains(&second), "{second}");

    // A chain in a chain.
    app.composing(&["compose", "longer", "sorted", "none", "--stage-format", "2=yes-no"]).ok();
    let last = said(request, &["longer"]);
    assert!(["yes", "no"].contains(&last.to_lowercase().as_str()), "{last}");
}
