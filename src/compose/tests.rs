//! Flat weights, chains, cycles, bounds.

use std::collections::BTreeMap;

use super::*;

/// `a=0.5+b` as a stage.
fn stage(text: &str) -> Stage {
    let part = |part: &str| {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        Part { name: name.to_owned(), weight: weight.parse().expect("a number") }
    };
    Stage { parts: text.split('+').filter(|p| !p.is_empty()).map(part).collect(), ..Stage::default() }
}

fn composition(stages: &[&str]) -> Composition {
    Composition { stages: stages.iter().map(|text| stage(text)).collect() }
}

/// Resolves `name` among these compositions; every other name is an adapter, but for `gone`.
fn flat(all: &[(&str, &[&str])], name: &str) -> Result<Vec<String>, String> {
    let known: BTreeMap<&str, Composition> = all.iter().map(|(name, stages)| (*name, composition(stages))).collect();
    let lookup = |name: &str| match name {
        "gone" => Err("no adapter 'gone'".to_owned()),
        name => Ok(known.get(name).cloned()),
    };
    let stages = resolve(name, &known[name], &lookup, &equally).map_err(|e| e.to_string())?;
    let shown =
        |stage: &Stage| stage.parts.iter().map(|p| format!("{}={:.3}", p.name, p.weight)).collect::<Vec<_>>().join("+");
    Ok(stages.iter().map(shown).collect())
}

#[test]
fn nested_weights_multiply_and_equal_adapters_add_up() {
    let all: &[(&str, &[&str])] = &[
        ("mix", &["a=0.5+b=0.25"]),
        ("deep", &["mix=0.5+b=0.5+c"]),
        ("deeper", &["deep=2+a=1"]),
        ("base", &[""]),
        ("off", &["a=0+b"]),
    ];
    for (name, wanted) in [
        ("mix", "a=0.500+b=0.250"),
        ("deep", "a=0.250+b=0.625+c=1.000"),
        ("deeper", "a=1.500+b=1.250+c=2.000"),
        ("base", ""),
        ("off", "b=1.000"),
    ] {
        assert_eq!(flat(all, name), Ok(vec![wanted.to_owned()]), "{name}");
    }
}

#[test]
fn shares_of_the_request_multiply_the_weights_that_are_given() {
    let mut chosen = composition(&["a=0.5+b+c"]);
    chosen.stages[0].by_route = true;
    let outer = composition(&["chosen=2+a=0.1"]);
    let lookup = |name: &str| Ok((name == "chosen").then(|| chosen.clone()));
    let shares = |name: &str, parts: &[Part]| {
        assert_eq!((name, parts.len()), ("chosen", 3));
        vec![0.75, 0.25, 0.0]
    };
    let weights = |stages: Vec<Stage>| -> Vec<(String, f32)> {
        stages[0].parts.iter().map(|part| (part.name.clone(), part.weight)).collect()
    };
    let named =
        |all: &[(&str, f32)]| all.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect::<Vec<_>>();
    let alone = resolve("chosen", &chosen, &lookup, &shares).expect("flat");
    assert_eq!(weights(alone), named(&[("a", 0.375), ("b", 0.25)]), "a part without a share is not there");
    let inside = resolve("outer", &outer, &lookup, &shares).expect("flat");
    assert_eq!(weights(inside), named(&[("a", 0.85), ("b", 0.5)]));
    let plain = resolve("chosen", &composition(&["a+b"]), &lookup, &shares).expect("flat");
    assert_eq!(weights(plain), named(&[("a", 1.0), ("b", 1.0)]), "only where it was asked for");
}

#[test]
fn chains_go_into_chains_but_not_into_mixes() {
    let all: &[(&str, &[&str])] = &[
        ("mix", &["a+b=0.5"]),
        ("chain", &["mix", "c"]),
        ("longer", &["d", "chain", "e"]),
        ("wrong", &["chain=0.5"]),
        ("wrong-too", &["chain+a"]),
    ];
    let [ab, c, d, e] = ["a=1.000+b=0.500", "c=1.000", "d=1.000", "e=1.000"].map(String::from);
    assert_eq!(flat(all, "chain"), Ok(vec![ab.clone(), c.clone()]));
    assert_eq!(flat(all, "longer"), Ok(vec![d, ab, c, e]));
    for name in ["wrong", "wrong-too"] {
        assert!(flat(all, name).expect_err(name).contains("'chain' has several stages"));
    }
}

#[test]
fn stages_after_a_marker_are_in_the_same_answer() {
    let until = |mut c: Composition, markers: &[(usize, &str)]| {
        markers.iter().for_each(|(at, marker)| c.stages[*at].until = Some((*marker).to_owned()));
        c
    };
    let thinker = until(composition(&["a", "b"]), &[(0, "</think>")]);
    let chain = composition(&["x", "thinker", "y"]);
    let over = until(composition(&["thinker", "c"]), &[(0, "!")]);
    let lookup = |name: &str| Ok((name == "thinker").then(|| thinker.clone()));
    let shown = |c: &Composition| -> Vec<String> {
        let flat = resolve("it", c, &lookup, &equally).expect("flat");
        let name = |s: &Stage| s.parts[0].name.clone() + s.until.as_deref().unwrap_or_default();
        answers(&flat).map(|stages| stages.iter().map(name).collect()).collect()
    };
    assert_eq!(shown(&thinker), ["a</think>b"]);
    assert_eq!(shown(&chain), ["x", "a</think>b", "y"]);
    assert_eq!(shown(&over), ["a</think>b!c"]);
    let bytes = to_gguf(&thinker, "thinker").expect("written");
    assert_eq!(from_gguf(&bytes, "thinker"), Ok(Some(thinker.clone())));

    let long = "x".repeat(MAX_MARKER + 1);
    for marker in ["", "a\0b", &long] {
        let error = until(composition(&["a", "b"]), &[(0, marker)]).check("it").expect_err("no marker");
        assert!(error.to_string().contains("the marker"), "{error}");
    }
    assert!(until(composition(&["a", "b"]), &[(1, "!")]).check("it").is_err(), "nothing after it");
    let refused = |change: &dyn Fn(&mut Composition)| {
        let mut c = thinker.clone();
        change(&mut c);
        resolve("it", &c, &lookup, &equally).expect_err("refused").to_string()
    };
    assert!(refused(&|c| c.stages[1].instruction = Some("Hi".into())).contains("stage 2 goes on"));
    assert!(refused(&|c| c.stages[0].format = Some("yes-no".into())).contains("stage 1 ends at a marker"));
}

#[test]
fn cycles_missing_parts_and_bounds_are_refused() {
    let many = (0..6).map(|n| format!("p{n}")).collect::<Vec<_>>().join("+");
    let three = ["x0+x1+x2", "y0+y1+y2"];
    let nine = ["a"; 9];
    let deep: Vec<(String, String)> = (0..20).map(|n| (format!("n{n}"), format!("n{}", n + 1))).collect();
    let mut all: Vec<(&str, Vec<&str>)> = vec![
        ("self", vec!["self"]),
        ("one", vec!["two=0.5+a"]),
        ("two", vec!["three"]),
        ("three", vec!["b+one"]),
        ("lost", vec!["a+gone"]),
        ("many", vec![&many]),
        ("x", vec![three[0]]),
        ("y", vec![three[1]]),
        ("six", vec!["x+y"]),
        ("nine", nine.to_vec()),
        ("heavy", vec!["a=9"]),
        ("none", vec![]),
    ];
    all.extend(deep.iter().map(|(name, part)| (name.as_str(), vec![part.as_str()])));
    let all: Vec<(&str, &[&str])> = all.iter().map(|(name, stages)| (*name, stages.as_slice())).collect();
    for (name, words) in [
        ("self", "a cycle: self -> self"),
        ("one", "a cycle: one -> two -> three -> one"),
        ("lost", "no adapter 'gone'"),
        ("many", "6 parts in one stage"),
        ("six", "6 adapters in one stage"),
        ("nine", "9 stages"),
        ("heavy", "the weight of 'a' is 9"),
        ("none", "at least one stage"),
        ("n0", "compositions inside each other"),
    ] {
        let error = flat(&all, name).expect_err(name);
        assert!(error.contains(words), "{name}: {error}");
    }
    // Twice the same composition is no cycle.
    assert_eq!(flat(&[("m", &["a=0.5"]), ("twice", &["m+m=0.5"])], "twice"), Ok(vec!["a=0.750".to_owned()]));
}

#[test]
fn files_come_back_or_are_refused() {
    let mut chain = composition(&["a=0.5+b", "c"]);
    chain.stages[1].instruction = Some("Shorter:".into());
    chain.stages[1].format = Some("markdown-list".into());
    let bytes = to_gguf(&chain, "chain").expect("written");
    assert_eq!(from_gguf(&bytes, "chain"), Ok(Some(chain)));
    assert_eq!(from_gguf(&file("lora", None), "x"), Ok(None));
    for (text, words) in [
        (None, "is missing"),
        (Some("{"), "smoa.composition"),
        (Some(r#"{"stages": [{"parts": [], "more": 1}]}"#), "more"),
        (Some(r#"{"stages": []}"#), "at least one stage"),
        (Some(r#"{"stages": [{"parts": [{"name": "a", "weight": -1}]}]}"#), "weight of 'a'"),
    ] {
        let error = from_gguf(&file("composition", text), "x").expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(from_gguf(b"GGUF", "x").is_err());
}

/// A file that says what a test wants.
fn file(kind: &str, text: Option<&str>) -> Vec<u8> {
    let mut file = crate::gguf::GgufWriter::new();
    file.set("general.type", "adapter").expect("set").set("adapter.type", kind).expect("set");
    if let Some(text) = text {
        file.set("smoa.composition", text).expect("set");
    }
    file.to_bytes()
}
