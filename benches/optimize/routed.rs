//! A month of requests to a library that learns from what people say: labelled requests of people, each label an adapter.
//!
//! Every adapter begins with five example prompts; the other requests of the file come over the month, by Zipf's law over a
//! ranking that drifts. One answer in twenty is judged: good if it came from the right adapter. At the end of each week the
//! router is trained. Beside it the router of the first day goes on as it was. One adapter in ten has a twin with
//! other examples; either is right; at the end twins are merged.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smoa::library::{AdapterName, Card, Judged, Library, Metadata, OnConflict, synthetic, synthetic::Numbers};
use smoa::merge::{Deltas, Method, merge};
use smoa::router::embed::{Embedder, StaticEmbedder};
use smoa::routing::evaluate::name_of;
use smoa::routing::{Ask, OUT_OF_SCOPE, Router, TrainOptions};

use super::SEED;

const EXAMPLES: usize = 5;
const REQUESTS: usize = 1_000;
const EXPONENT: f64 = 0.8;

/// Requests by label.
fn read(path: &Path) -> BTreeMap<String, Vec<String>> {
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(path).expect("a file of requests").lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let field = |name: &str| value[name].as_str().expect("text and label").to_owned();
        if field("label") != OUT_OF_SCOPE {
            rows.entry(field("label")).or_default().push(field("text"));
        }
    }
    rows
}

fn twin_of(name: &AdapterName) -> AdapterName {
    AdapterName::new(format!("twin-{name}")).expect("a name")
}

fn add(library: &Library, name: &AdapterName, bytes: &[u8], metadata: &Metadata, examples: &[String]) {
    let card = Card { examples: examples.to_vec(), ..Card::default() };
    let metadata = Metadata { card, ..metadata.clone() };
    library.add(name, bytes, &metadata, OnConflict::Replace).expect("added");
}

/// Whether a router finds the right adapter; the one it finds.
fn found(router: &Router, text: &str, right: &AdapterName) -> (bool, Option<AdapterName>) {
    let route = router.decide(&Ask { threshold: Some(0.0), top_k: Some(1), ..Ask::text(text) });
    let first = route.adapters.first().map(|chosen| AdapterName::new(chosen.name.as_str()).expect("a name"));
    (first.as_ref().is_some_and(|name| name == right || *name == twin_of(right)), first)
}

fn accuracy(router: &Router, rows: &BTreeMap<String, Vec<String>>) -> f64 {
    let all = || rows.iter().flat_map(|(label, texts)| texts.iter().map(move |text| (label, text)));
    let right = all().filter(|(label, text)| found(router, text, &name_of(label).expect("a name")).0).count();
    100.0 * right as f64 / all().count() as f64
}

/// Plays the month and prints it.
pub fn month(train: &Path, fresh: &Path) {
    let (rows, fresh) = (read(train), read(fresh));
    let home = tempfile::tempdir().expect("a folder");
    let library = Library::create(&home.path().join("library")).expect("created");
    let labels: Vec<(&String, AdapterName)> =
        rows.keys().map(|label| (label, name_of(label).expect("a name"))).collect();
    let mut twins = Vec::new();
    for (index, (label, name)) in labels.iter().enumerate() {
        let (bytes, metadata) = synthetic::adapter(index as u64, SEED).expect("made");
        add(&library, name, &bytes, &metadata, &rows[*label][..EXAMPLES]);
        if index % 10 == 3 {
            let twin = Deltas::read_alone(&bytes).expect("read").scaled(1.05).to_gguf("twin").expect("written");
            add(&library, &twin_of(name), &twin, &metadata, &rows[*label][EXAMPLES..2 * EXAMPLES]);
            twins.push(name);
        }
    }
    let open = || Router::open(library.dir(), Arc::new(StaticEmbedder::builtin()) as Arc<dyn Embedder>, &mut |_| ());
    let router = open().expect("opened");
    let options = TrainOptions { force: false, ..TrainOptions::default() };
    router.train(&[], &options, &mut |_| ()).expect("trained");
    // Reads what was trained once, and never again.
    let frozen = open().expect("opened");
    let at_first = accuracy(&router, &fresh);
    println!(
        "\n{} adapters with {EXAMPLES} examples each, {} of them with a twin; on {} requests never seen {at_first:.1} % go right\n",
        labels.len(),
        twins.len(),
        fresh.values().map(Vec::len).sum::<usize>()
    );
    println!(
        "| week | requests | right, first day's router | right, learning router | judged so far | held back | agreed before | after | replaced | training | right on requests never seen |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|");

    let mut numbers = Numbers::new(SEED);
    let mut ranking: Vec<usize> = (0..labels.len()).collect();
    (1..ranking.len()).rev().for_each(|at| ranking.swap(at, numbers.below(at as u64 + 1) as usize));
    let mut sums: Vec<f64> = Vec::new();
    (1..=labels.len()).for_each(|rank| {
        sums.push(sums.last().copied().unwrap_or(0.0) + (rank as f64).powf(-EXPONENT));
    });
    let digests: HashMap<AdapterName, _> =
        library.walk(&Default::default()).map(|e| e.expect("sound")).map(|e| (e.name, e.digest)).collect();
    for week in 1..=4 {
        let (mut asked, mut right) = (0, [0, 0]);
        for _ in 0..7 {
            for _ in 0..REQUESTS {
                let at = numbers.below(1 << 53) as f64 / (1u64 << 53) as f64 * sums[sums.len() - 1];
                let (label, name) = &labels[ranking[sums.partition_point(|sum| *sum < at).min(labels.len() - 1)]];
                let pool = &rows[*label][2 * EXAMPLES..];
                let text = &pool[numbers.below(pool.len() as u64) as usize];
                let (good, chosen) = found(&router, text, name);
                asked += 1;
                right[0] += usize::from(found(&frozen, text, name).0);
                right[1] += usize::from(good);
                if let (0, Some(chosen)) = (numbers.below(20), chosen) {
                    let digest = digests[&chosen];
                    library.record_use(digest, true, Duration::from_millis(40));
                    library.record_feedback(&[digest], good).expect("counted");
                    library.keep_judged(&Judged { digest, good, text: text.clone() }).expect("kept");
                }
            }
            for _ in 0..ranking.len() / 10 {
                let (one, other) = (numbers.below(labels.len() as u64), numbers.below(labels.len() as u64));
                ranking.swap(one as usize, other as usize);
            }
        }
        let began = Instant::now();
        let report = router.train(&[], &options, &mut |_| ()).expect("trained");
        let [before, after] = report.judged_right.map(|share| share * 100.0);
        let part = |right: usize| 100.0 * right as f64 / asked as f64;
        println!(
            "| {week} | {asked} | {:.1} % | {:.1} % | {} | {} | {before:.1} % | {after:.1} % | {} | {:.1} s | {:.1} % |",
            part(right[0]),
            part(right[1]),
            report.judged + report.judged_held,
            report.judged_held,
            if report.replaced { "yes" } else { "no" },
            began.elapsed().as_secs_f64(),
            accuracy(&router, &fresh),
        );
    }
    for name in &twins {
        let two = [library.find(name).expect("there"), library.find(&twin_of(name)).expect("there")];
        let parts = two
            .clone()
            .map(|e| Deltas::read_alone(library.pin_digest(e.digest).expect("there").bytes()).expect("read"));
        let merged = merge(&[(&parts[0], 0.5), (&parts[1], 0.5)], Method::Svd, None).expect("merged").deltas;
        let bytes = merged.to_gguf(name.as_str()).expect("written");
        let parents: Vec<String> = two.iter().map(|e| format!("{} {}", e.name, e.digest)).collect();
        for entry in two {
            let card = Card { parents: parents.clone(), ..entry.metadata.card };
            let metadata = Metadata { card, ..entry.metadata };
            library.add(&entry.name, &bytes, &metadata, OnConflict::Replace).expect("replaced");
        }
    }
    router.update(&mut |_| ()).expect("updated");
    let merged = accuracy(&router, &fresh);
    router.train(&[], &options, &mut |_| ()).expect("trained");
    println!(
        "\n{} twins merged: {merged:.1} % of the requests never seen go right; trained again {:.1} %; at first {at_first:.1} %",
        twins.len(),
        accuracy(&router, &fresh)
    );
}
