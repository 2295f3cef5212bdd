//! The library that looks after itself: near duplicates merged, dead adapters removed, everything undone.

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
