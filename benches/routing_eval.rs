//! A library with one nano adapter for each label, its exemplars as example prompts; trained, then asked about every
//! line of a test file. `scripts/bench/routing.sh` runs it and tells the flags.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use smoa::engine::llama::LlamaEmbedder;
use smoa::library::{Card, Library, Measured, Metadata, OnConflict, synthetic};
use smoa::model_file;
use smoa::router::Strategy;
use smoa::router::embed::{Embedder, StaticEmbedder};
use smoa::router::index::Gate;
use smoa::router::index::synthetic::Generator;
use smoa::router::measure::percentile;
use smoa::routing::evaluate::{Figures, name_of};
use smoa::routing::{Ask, Embedders, Labelled, OUT_OF_SCOPE, Router, TrainOptions};

#[path = "routing/memo.rs"]
mod memo;
#[path = "routing/pin.rs"]
mod pin;

use memo::Memo;
use pin::pinned;

/// The attribute of every adapter that stands for a label, and of no distractor.
const COLLECTION: (&str, &str) = ("collection", "labels");

struct Options {
    train: Vec<PathBuf>,
    test: Vec<PathBuf>,
    exemplars: Option<usize>,
    seed: u32,
    distractors: u64,
    embedder: String,
    encoder: Option<PathBuf>,
    held_out: Option<PathBuf>,
    domains: Option<PathBuf>,
    oos_share: f64,
    names_only: bool,
    dir: Option<PathBuf>,
    memo: Option<PathBuf>,
    json: Option<PathBuf>,
    /// Only open what is in `dir`, as a process of its own; see [`reopened`].
    reopen: bool,
}

fn options() -> Options {
    let mut o = Options {
        train: Vec::new(),
        test: Vec::new(),
        exemplars: None,
        seed: 0,
        distractors: 0,
        embedder: "static".into(),
        encoder: None,
        held_out: None,
        domains: None,
        oos_share: TrainOptions::default().out_of_scope,
        names_only: false,
        dir: None,
        memo: None,
        json: None,
        reopen: false,
    };
    // `--bench` is what `cargo bench` itself passes.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| fail(&format!("{arg} takes a value")));
        let number = |text: String| text.parse::<f64>().unwrap_or_else(|_| fail(&format!("{text} is no number")));
        match arg.as_str() {
            "--train" => o.train.push(value().into()),
            "--test" => o.test.push(value().into()),
            "--exemplars" => o.exemplars = Some(number(value()) as usize),
            "--seed" => o.seed = number(value()) as u32,
            "--distractors" => o.distractors = number(value()) as u64,
            "--embedder" => o.embedder = value(),
            "--encoder" => o.encoder = Some(value().into()),
            "--held-out" => o.held_out = Some(value().into()),
            "--domains" => o.domains = Some(value().into()),
            "--oos-share" => o.oos_share = number(value()),
            "--dir" => o.dir = Some(value().into()),
            "--memo" => o.memo = Some(value().into()),
            "--json" => o.json = Some(value().into()),
            "--reopen" => o.reopen = value() == "yes",
            other => fail(&format!("{other} is not known; see scripts/bench/routing.sh --help")),
        }
    }
    o.names_only = o.exemplars == Some(0);
    if o.train.is_empty() || o.test.is_empty() {
        fail("give --train FILE.jsonl and --test FILE.jsonl");
    }
    o
}

fn fail(message: &str) -> ! {
    eprintln!("routing: {message}");
    std::process::exit(2)
}

/// The lines of each file. A label that several training files have stands for an adapter of each: from the second file
/// on it is `label~2`, in the test file with the same place too.
fn read(paths: &[PathBuf], taken: &mut Vec<BTreeSet<String>>) -> Vec<Vec<Labelled>> {
    let mut files: Vec<Vec<Labelled>> = Vec::new();
    let fresh = taken.is_empty();
    for (at, path) in paths.iter().enumerate() {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
        let mut rows = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
            let field = |name: &str| {
                value[name]
                    .as_str()
                    .map(str::to_owned)
                    .unwrap_or_else(|| fail(&format!("{}: no {name}", path.display())))
            };
            rows.push(Labelled { text: field("text"), label: field("label") });
        }
        if fresh {
            taken.push(rows.iter().map(|row| row.label.clone()).collect());
        }
        let before = taken.get(..at.min(taken.len())).unwrap_or_default();
        for row in rows.iter_mut().filter(|row| row.label != OUT_OF_SCOPE) {
            let same = before.iter().filter(|labels| labels.contains(&row.label)).count();
            let own = taken.get(at).is_none_or(|labels| labels.contains(&row.label));
            if same > 0 && own {
                row.label = format!("{}~{}", row.label, same + 1);
            }
        }
        files.push(rows);
    }
    files
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
    serde_json::from_str(&text).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())))
}

/// numpy's `RandomState`: MT19937 with its own seeding, and its permutation, so that draws are those of the baselines.
struct RandomState {
    state: [u32; 624],
    at: usize,
}

impl RandomState {
    fn new(seed: u32) -> Self {
        let mut state = [0u32; 624];
        state[0] = seed;
        for i in 1..624 {
            state[i] = 1_812_433_253u32.wrapping_mul(state[i - 1] ^ (state[i - 1] >> 30)).wrapping_add(i as u32);
        }
        Self { state, at: 624 }
    }

    fn draw(&mut self) -> u32 {
        if self.at == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut list: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let mask = u32::MAX >> (i as u32).leading_zeros();
            let j = loop {
                let j = (self.draw() & mask) as usize;
                if j <= i {
                    break j;
                }
            };
            list.swap(i, j);
        }
        list
    }
}

/// Exemplars by label: `k` of each, or all.
fn draw(rows: &[Labelled], exemplars: Option<usize>, seed: u32) -> BTreeMap<String, Vec<String>> {
    let mut by_label: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        by_label.entry(row.label.clone()).or_default().push(row.text.clone());
    }
    let mut random = RandomState::new(seed);
    for (label, texts) in &mut by_label {
        if label == OUT_OF_SCOPE {
            continue;
        }
        let order = random.permutation(texts.len());
        let kept = exemplars.unwrap_or(texts.len()).min(texts.len());
        *texts = order.into_iter().take(kept).map(|at| texts[at].clone()).collect();
    }
    by_label
}

fn embedders(o: &Options, train: &[Vec<Labelled>]) -> Embedders {
    let table = || Arc::new(StaticEmbedder::builtin()) as Arc<dyn Embedder>;
    let encoder = || {
        let path = o.encoder.as_deref().unwrap_or(Path::new("models/all-MiniLM-L6-v2.Q8_0.gguf"));
        let facts = model_file::check(path).unwrap_or_else(|e| fail(&e.message));
        let encoder = LlamaEmbedder::load(path, &facts, 1).unwrap_or_else(|e| fail(&e.message));
        let encoder = Arc::new(encoder) as Arc<dyn Embedder>;
        let texts = train.iter().flatten().map(|row| row.text.clone());
        match &o.memo {
            Some(path) => Arc::new(Memo::new(encoder, path, texts)) as Arc<dyn Embedder>,
            None => encoder,
        }
    };
    match o.embedder.as_str() {
        "static" => table().into(),
        "minilm" => encoder().into(),
        "cascade" => Embedders { first: table(), second: Some(encoder()) },
        other => fail(&format!("there is no embedder '{other}'; known are static, minilm and cascade")),
    }
}

/// What a process finds that only opens the library: milliseconds, anonymous memory more than before, after 200
/// requests too.
fn reopen(o: &Options, dir: &Path) -> Value {
    let embedders = embedders(o, &[]);
    embedders.first.embed("warm");
    let before = anonymous();
    let start = Instant::now();
    let router = Router::open(dir, embedders, &mut |_| ()).unwrap_or_else(|e| fail(&e.to_string()));
    let open_ms = start.elapsed().as_secs_f64() * 1e3;
    let opened = anonymous().saturating_sub(before);
    let mut taken = Vec::new();
    for row in read(&o.test, &mut taken).concat().iter().take(200) {
        let _ = router.decide(&Ask::text(row.text.as_str()));
    }
    let growth = anonymous().saturating_sub(before);
    json!({"open_ms": open_ms, "opened_kib": opened, "anonymous_growth_kib": growth, "adapters": router.len()})
}

/// [`reopen`] in a fresh process, three times; the middle one by the time it takes.
fn reopened(o: &Options, dir: &Path) -> Value {
    let program = std::env::current_exe().unwrap_or_else(|e| fail(&e.to_string()));
    let mut all: Vec<Value> = (0..3)
        .map(|_| {
            let mut command = std::process::Command::new(&program);
            command.args(["--reopen", "yes", "--embedder", &o.embedder, "--dir"]).arg(dir);
            command.args(o.test.iter().flat_map(|path| [Path::new("--test"), path]));
            command.args(o.train.iter().flat_map(|path| [Path::new("--train"), path]));
            command.args(o.encoder.iter().flat_map(|path| [Path::new("--encoder"), path]));
            let done = command.output().unwrap_or_else(|e| fail(&e.to_string()));
            let last = String::from_utf8_lossy(&done.stdout).lines().last().map(str::to_owned);
            last.and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_else(|| fail("reopening failed"))
        })
        .collect();
    all.sort_by(|a, b| a["open_ms"].as_f64().unwrap_or(0.0).total_cmp(&b["open_ms"].as_f64().unwrap_or(0.0)));
    all.swap_remove(1)
}

/// Anonymous resident memory in KiB.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn main() {
    let o = options();
    if let (true, Some(dir)) = (o.reopen, &o.dir) {
        println!("{}", reopen(&o, dir));
        return;
    }
    let scratch = tempfile::tempdir().unwrap_or_else(|e| fail(&e.to_string()));
    let dir = o.dir.clone().unwrap_or_else(|| scratch.path().join("library"));
    let held_out: BTreeSet<String> = o.held_out.as_deref().map(read_json).map_or_else(BTreeSet::new, |value| {
        let list = value.get("out_of_scope_in_domain").cloned().unwrap_or(value);
        list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    });
    let domains = o.domains.as_deref().map(read_json).unwrap_or_default();
    let mut taken = Vec::new();
    let mut train = read(&o.train, &mut taken);
    train.iter_mut().for_each(|rows| rows.retain(|row| !held_out.contains(&row.label)));
    let mut sets = read(&o.test, &mut taken);
    for row in sets.iter_mut().flatten().filter(|row| held_out.contains(&row.label)) {
        row.label = OUT_OF_SCOPE.into();
    }
    let test = sets.concat();
    // Each file's draws are those it would have alone.
    let exemplars: BTreeMap<String, Vec<String>> =
        train.iter().flat_map(|rows| draw(rows, o.exemplars, o.seed)).collect();
    let strangers: Vec<Labelled> = train.iter().flatten().filter(|row| row.label == OUT_OF_SCOPE).cloned().collect();

    let start = Instant::now();
    let library = Library::create(&dir).unwrap_or_else(|e| fail(&e.to_string()));
    fill(&library, &exemplars, &domains, o.names_only, o.distractors);
    let filled = start.elapsed().as_secs_f64();
    drop(library);

    let embedders = embedders(&o, &train);
    embedders.first.embed("warm");
    let before = anonymous();
    let start = Instant::now();
    let mut notice = |text: String| eprintln!("{text}");
    let open = || Router::open(&dir, embedders.clone(), &mut |_| ()).unwrap_or_else(|e| fail(&e.to_string()));
    let router = Router::open(&dir, embedders.clone(), &mut notice).unwrap_or_else(|e| fail(&e.to_string()));
    let built = start.elapsed().as_secs_f64();
    while router.compact().unwrap_or_else(|e| fail(&e.to_string())) {}
    let compacted = start.elapsed().as_secs_f64();
    drop(router);
    let start = Instant::now();
    let router = open();
    let opened = start.elapsed().as_secs_f64() * 1e3;
    for row in test.iter().take(200) {
        let _ = router.decide(&Ask::text(row.text.as_str()));
    }
    let memory = anonymous().saturating_sub(before);

    let report = (!o.names_only).then(|| {
        let options = TrainOptions { seed: u64::from(o.seed), out_of_scope: o.oos_share, ..TrainOptions::default() };
        router.train(&strangers, &options, &mut notice).unwrap_or_else(|e| fail(&e.to_string()))
    });
    let mut strategies = Strategy::ALL.to_vec();
    if domains.is_null() {
        // Without paths or tags these two are the hybrid.
        strategies.retain(|s| ![Strategy::Hierarchical, Strategy::Task].contains(s));
    }
    let evaluate = |strategies: &[Strategy], gate: &Gate| {
        let done = router.evaluate(&test, strategies, &router.thresholds(), gate);
        done.unwrap_or_else(|e| fail(&e.to_string()))
    };
    let figures = evaluate(&strategies, &Gate::open());
    let gated = Gate::open().require(COLLECTION.0, COLLECTION.1).strict();
    let behind = (o.distractors > 0).then(|| evaluate(&[Strategy::Hybrid, Strategy::Learned], &gated));
    let by_set = |figures: &[Figures]| -> Vec<Value> {
        let mut from = 0;
        let of_set = |(path, rows): (&PathBuf, &Vec<Labelled>)| {
            let part = from..from + rows.len();
            from = part.end;
            let strategies: Vec<Value> = figures.iter().map(|f| f.part(part.clone()).to_json()).collect();
            json!({"test": path, "strategies": strategies})
        };
        o.test.iter().zip(&sets).map(of_set).collect()
    };
    // A slow encoder's times need fewer texts.
    let most = if o.embedder == "static" { 1000 } else { 300 };
    let texts: Vec<&str> = test.iter().take(most).map(|row| row.text.as_str()).collect();
    // One warm pass, then one pinned thread.
    pinned(true);
    let _ = router.stages(&texts);
    let mut stages = router.stages(&texts).unwrap_or_else(|e| fail(&e.to_string()));
    pinned(false);
    let mut ms = |at: usize| {
        let list = &mut stages[at];
        json!({"p50": percentile(list, 0.5), "p95": percentile(list, 0.95), "p99": percentile(list, 0.99)})
    };
    let stages =
        json!({"embed": ms(0), "search": ms(1), "decide": ms(2), "text_to_decision": ms(3), "cache_hit": ms(4)});
    let stats = router.index_stats();
    let visible = change(&dir, &router);
    let reopened = reopened(&o, &dir);
    let all: Vec<Value> = figures.iter().map(|f| f.to_json()).collect();
    let value = json!({
        "train": o.train, "test": o.test, "exemplars": o.exemplars, "seed": o.seed, "embedder": o.embedder,
        "labels": exemplars.keys().filter(|label| *label != OUT_OF_SCOPE).count(), "distractors": o.distractors,
        "strategies": all,
        "by_set": if sets.len() > 1 { by_set(&figures) } else { Vec::new() },
        "gated": behind.map(|figures| by_set(&figures)),
        "training": report.map(|report| report.to_json()),
        "stages_ms": stages,
        "library_fill_s": filled, "index_build_s": built, "index_compacted_s": compacted, "open_ms": opened,
        "anonymous_growth_kib": memory, "index_file_bytes": stats.file_bytes, "index_vectors": stats.vectors,
        "index_segments": stats.segments,
        "add_visible_ms": visible.0, "remove_visible_ms": visible.1, "reopened": reopened,
    });
    print(&value);
    if let Some(path) = &o.json {
        std::fs::write(path, format!("{value:#}\n")).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
    }
}

fn fill(library: &Library, exemplars: &BTreeMap<String, Vec<String>>, domains: &Value, bare: bool, distractors: u64) {
    let mut writer = library.writer().unwrap_or_else(|e| fail(&e.to_string()));
    let labels = exemplars.iter().filter(|(label, _)| *label != OUT_OF_SCOPE);
    for (number, (label, texts)) in labels.enumerate() {
        let domain = domains.get(label).and_then(Value::as_str).map(str::to_owned);
        let card = Card {
            examples: if bare { Vec::new() } else { texts.clone() },
            path: domain.as_ref().map(|domain| format!("{domain}/{label}")),
            domains: domain.into_iter().collect(),
            attributes: [(COLLECTION.0.to_owned(), COLLECTION.1.to_owned())].into(),
            ..Card::default()
        };
        let (bytes, Metadata { measured, .. }) = nano((1 << 40) + number as u64);
        let name = name_of(label).unwrap_or_else(|e| fail(&e.to_string()));
        let added = writer.add(&name, &bytes, &Metadata { card, measured }, OnConflict::KeepExisting);
        added.unwrap_or_else(|e| fail(&e.to_string()));
    }
    let generator = Generator::new(7);
    for number in 0..distractors {
        if number % 50_000 == 49_999 {
            writer.commit().unwrap_or_else(|e| fail(&e.to_string()));
            writer = library.writer().unwrap_or_else(|e| fail(&e.to_string()));
            eprintln!("{} distractors", number + 1);
        }
        let made = generator.distractor(number);
        let (bytes, Metadata { measured, .. }) = nano(number);
        let card = Card {
            title: Some(made.name),
            description: Some(made.description),
            attributes: made.attributes.into_iter().collect(),
            ..Card::default()
        };
        let name = name_of(&format!("d{number}")).unwrap_or_else(|e| fail(&e.to_string()));
        let added = writer.add(&name, &bytes, &Metadata { card, measured }, OnConflict::KeepExisting);
        added.unwrap_or_else(|e| fail(&e.to_string()));
    }
    writer.commit().unwrap_or_else(|e| fail(&e.to_string()));
}

fn nano(number: u64) -> (Vec<u8>, Metadata) {
    let made = synthetic::adapter(number, 1);
    let (bytes, metadata) = made.unwrap_or_else(|e| fail(&e.to_string()));
    (bytes, Metadata { card: Card::default(), measured: Measured { ..metadata.measured } })
}

/// Milliseconds until an added adapter is chosen, and until a removed one is not any more: the middle of nine, after
/// one that warms.
fn change(dir: &Path, router: &Router) -> (f64, f64) {
    let library = Library::open(dir, smoa::library::Access::Write).unwrap_or_else(|e| fail(&e.to_string()));
    let (bytes, Metadata { measured, .. }) = nano(1 << 50);
    let text = "please fold the origami zeppelin for the quokka parade";
    let card = Card { examples: vec![text.into(); 1], ..Card::default() };
    let name = name_of("origami-zeppelin").unwrap_or_else(|e| fail(&e.to_string()));
    let ask = Ask { threshold: Some(0.0), strategy: Some(Strategy::Hybrid), ..Ask::text(text) };
    let first = || {
        let route = router.route(&ask).unwrap_or_else(|e| fail(&e.to_string()));
        route.adapters.first().map(|chosen| chosen.name.clone()).unwrap_or_default()
    };
    let metadata = Metadata { card, measured };
    let (mut adding, mut removing) = (Vec::new(), Vec::new());
    for round in 0..10 {
        let start = Instant::now();
        library.add(&name, &bytes, &metadata, OnConflict::Replace).unwrap_or_else(|e| fail(&e.to_string()));
        let stored = start.elapsed().as_secs_f64() * 1e3;
        assert_eq!(first(), "origami-zeppelin", "an added adapter is chosen at once");
        let added = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        library.remove(&name).unwrap_or_else(|e| fail(&e.to_string()));
        assert_ne!(first(), "origami-zeppelin", "a removed adapter is not");
        let removed = start.elapsed().as_secs_f64() * 1e3;
        eprintln!("add {added:.1} ms ({stored:.1} of it in the library), remove {removed:.1} ms");
        if round > 0 {
            adding.push(added);
            removing.push(removed);
        }
    }
    (percentile(&mut adding, 0.5), percentile(&mut removing, 0.5))
}

fn print(value: &Value) {
    println!(
        "{} labels, {} exemplars, {} distractors, embedder {}",
        value["labels"],
        value["exemplars"].as_u64().map_or("all".into(), |k| k.to_string()),
        value["distractors"],
        value["embedder"]
    );
    table("", &value["strategies"]);
    for set in value["by_set"].as_array().into_iter().flatten() {
        table(&format!("{}: ", set["test"].as_str().unwrap_or("")), &set["strategies"]);
    }
    for set in value["gated"].as_array().into_iter().flatten() {
        table(&format!("{}, behind a gate: ", set["test"].as_str().unwrap_or("")), &set["strategies"]);
    }
    for key in [
        "training",
        "stages_ms",
        "library_fill_s",
        "index_build_s",
        "index_compacted_s",
        "open_ms",
        "anonymous_growth_kib",
        "index_file_bytes",
        "add_visible_ms",
        "remove_visible_ms",
        "reopened",
    ] {
        println!("{key:<22} {}", value[key]);
    }
}

fn table(head: &str, strategies: &Value) {
    println!(
        "{head}\n{:<13} top-1  top-5  AUROC  FPR@95  oosF1  all-way  98%: cover/right (best cover)  p50 ms  p95 ms",
        "strategy"
    );
    let n = |v: &Value| v.as_f64().map_or_else(|| "-".to_owned(), |n| format!("{n:.1}"));
    for s in strategies.as_array().into_iter().flatten() {
        println!(
            "{:<13} {:>5}  {:>5}  {:>5}  {:>6}  {:>5}  {:>7}  {:>10}/{:<6} ({:>5})        {:>6.3}  {:>6.3}",
            s["strategy"].as_str().unwrap_or(""),
            n(&s["top1"]),
            n(&s["top5"]),
            n(&s["auroc"]),
            n(&s["fpr95"]),
            n(&s["abstention"]["oos_f1"]),
            n(&s["abstention"]["all_way_accuracy"]),
            n(&s["selective_98"]["coverage"]),
            n(&s["selective_98"]["accuracy"]),
            n(&s["selective_98_best"]["coverage"]),
            s["ms"]["p50"].as_f64().unwrap_or(0.0),
            s["ms"]["p95"].as_f64().unwrap_or(0.0)
        );
    }
}
