//! The routing index at any size: time, recall, memory, file, gate, additions; a table and JSON.
//!
//! ```text
//! cargo bench --bench routing_scale -- --entries 1000,10000,100000,1000000 [--utterances FILE.jsonl].. [--queries 1000]
//!     [--seed 1] [--embedder static|words] [--dim 256] [--limit 64] [--leaks 1000000] [--dir DIR] [--json OUT]
//!     [--vectors FILE --probes wish=FILE --probes utterance=FILE [--texts utterance=FILE]]
//! ```
//!
//! Adapters and wishes are made up by `smoa::router::index::synthetic`; utterances are the `text` of lines of JSON, as
//! people write them. Vectors are those of the program's static table, or one made up for each word (`words`), or come
//! from files of little-endian 32-bit floats, one unit vector of `--dim` numbers after the other, in the order of the
//! adapters (`--vectors`) and of the queries (`--probes`), as an embedder made them of the texts that `--print` writes.
//! The full scan that times are compared with reads every `i8` row of the same vectors in the same run.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use smoa::router::embed::{Embedder, StaticEmbedder};
use smoa::router::index::synthetic::{Distractor, Generator, vector};
use smoa::router::index::{Candidate, Change, Gate, Index, Profile, Query};

#[path = "routing/pin.rs"]
mod pin;

use pin::pinned;

/// Queries that are also answered by exact search.
const RECALLED: usize = 400;
/// As many adapters are put in at once.
const PART: usize = 100_000;

struct Flags {
    entries: Vec<usize>,
    dim: usize,
    queries: usize,
    seed: u64,
    /// Vectors of the program's table, not of words.
    table: bool,
    utterances: Vec<PathBuf>,
    vectors: Option<PathBuf>,
    probes: Vec<(String, PathBuf)>,
    texts: HashMap<String, PathBuf>,
    dir: Option<PathBuf>,
    json: Option<PathBuf>,
    limit: usize,
    leaks: usize,
    /// Queries of each kind whose ten best by words are also looked for exactly, which takes seconds each.
    words: usize,
    print: Option<PathBuf>,
}

fn flags() -> Flags {
    let mut flags = Flags {
        entries: vec![1_000, 10_000, 100_000],
        dim: 256,
        queries: 1000,
        seed: 1,
        table: true,
        utterances: Vec::new(),
        vectors: None,
        probes: Vec::new(),
        texts: HashMap::new(),
        dir: None,
        json: None,
        limit: 64,
        leaks: 1_000_000,
        words: 0,
        print: None,
    };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(flag) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{flag} needs a value"));
        let number = || value.parse().unwrap_or_else(|_| panic!("{flag} needs a number, not {value}"));
        let pair = || {
            value
                .split_once('=')
                .map_or_else(|| panic!("{flag} needs NAME=FILE"), |(n, f)| (n.to_owned(), PathBuf::from(f)))
        };
        match flag.as_str() {
            "--entries" => flags.entries = value.split(',').map(|n| n.parse().expect("a number of adapters")).collect(),
            "--dim" => flags.dim = number(),
            "--queries" => flags.queries = number(),
            "--limit" => flags.limit = number(),
            "--words" => flags.words = number(),
            "--leaks" => flags.leaks = number(),
            "--seed" => flags.seed = number() as u64,
            "--embedder" => flags.table = value == "static",
            "--utterances" => flags.utterances.push(value.into()),
            "--vectors" => flags.vectors = Some(value.into()),
            "--probes" => flags.probes.push(pair()),
            "--texts" => flags.texts.extend([pair()]),
            "--dir" => flags.dir = Some(value.into()),
            "--json" => flags.json = Some(value.into()),
            "--print" => flags.print = Some(value.into()),
            _ => panic!("{flag} is not known"),
        }
    }
    if flags.table && flags.vectors.is_none() {
        flags.dim = StaticEmbedder::builtin().dim();
    }
    flags
}

/// A text's vector.
fn embed(flags: &Flags, text: &str) -> Vec<f32> {
    if flags.table { StaticEmbedder::builtin().embed(text) } else { vector(text, flags.dim) }
}

fn floats(path: &PathBuf, most: usize) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.chunks_exact(4).take(most).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Anonymous memory of this process in KiB.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Microseconds at a share of sorted times.
fn at(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

struct Probes {
    name: String,
    vectors: Vec<Vec<f32>>,
    texts: Vec<String>,
}

fn probes(flags: &Flags, generator: &Generator) -> Vec<Probes> {
    let wishes: Vec<String> = (0..flags.queries as u64).map(|i| generator.wish(i)).collect();
    if flags.probes.is_empty() {
        let probes = |name: &str, texts: Vec<String>| {
            let vectors = texts.iter().map(|text| embed(flags, text)).collect();
            Probes { name: name.into(), vectors, texts }
        };
        let mut all = vec![probes("wish", wishes)];
        if !flags.utterances.is_empty() {
            all.push(probes("utterance", utterances(&flags.utterances, flags.queries)));
        }
        return all;
    }
    let read = |(name, path): &(String, PathBuf)| {
        let vectors: Vec<Vec<f32>> =
            floats(path, flags.queries * flags.dim).chunks_exact(flags.dim).map(<[f32]>::to_vec).collect();
        let file = flags.texts.get(name).map(|path| std::fs::read_to_string(path).expect("texts of the queries"));
        let texts = file.map_or(wishes.clone(), |file| file.lines().map(String::from).collect());
        Probes { name: name.clone(), vectors, texts }
    };
    flags.probes.iter().map(read).collect()
}

/// As many texts of these files, evenly taken from all of them.
fn utterances(files: &[PathBuf], most: usize) -> Vec<String> {
    let mut all = Vec::new();
    for path in files {
        let lines = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let values = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        all.extend(values.filter_map(|value| value["text"].as_str().map(str::to_owned)));
    }
    let taken = all.len().min(most);
    (0..taken).map(|at| all[at * all.len() / taken].clone()).collect()
}

fn main() {
    let flags = flags();
    let generator = Generator::new(flags.seed);
    if let Some(path) = &flags.print {
        let mut out = std::io::BufWriter::new(std::fs::File::create(path).expect("created"));
        for number in 0..flags.entries.iter().copied().max().unwrap_or(0) as u64 {
            let made = generator.distractor(number);
            writeln!(out, "{}: {}", made.name, made.description).expect("written");
        }
        return;
    }
    let most = flags.entries.iter().copied().max().unwrap_or(0);
    let given = flags.vectors.as_ref().map(|path| floats(path, most * flags.dim));
    let probes = probes(&flags, &generator);
    let mut rows = Vec::new();
    for entries in flags.entries.iter().copied() {
        rows.push(measure(&flags, &generator, entries, given.as_deref(), &probes));
    }
    if let Some(path) = &flags.json {
        std::fs::write(path, format!("[\n{}\n]\n", rows.join(",\n"))).expect("written");
    }
}

fn measure(flags: &Flags, generator: &Generator, entries: usize, given: Option<&[f32]>, probes: &[Probes]) -> String {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = flags.dir.as_ref().map_or_else(|| folder.path().join("index"), |dir| dir.join(entries.to_string()));
    let index = Index::open(&dir, [1; 32], flags.dim).expect("opened");
    let embed = |number: usize, made: &Distractor| match given {
        Some(given) => given[number * flags.dim..(number + 1) * flags.dim].to_vec(),
        None => self::embed(flags, &format!("{} {}", made.name, made.description)),
    };
    let fresh = index.is_empty();
    let mut all: Vec<f32> = Vec::with_capacity(entries * flags.dim);
    let (mut putting, mut facts) = (Duration::ZERO, HashMap::new());
    for from in (0..entries).step_by(PART) {
        let made: Vec<(Distractor, String, Vec<Vec<f32>>)> = (from..entries.min(from + PART))
            .map(|number| {
                let made = generator.distractor(number as u64);
                let (text, vectors) = (format!("{} {}", made.name, made.description), vec![embed(number, &made)]);
                (made, text, vectors)
            })
            .collect();
        made.iter().for_each(|(_, _, vectors)| all.extend_from_slice(&vectors[0]));
        facts.extend(made.iter().zip(from as u32..).map(|((made, ..), number)| (made.digest, number)));
        if fresh {
            let changes: Vec<Change<'_>> =
                made.iter().map(|(made, text, vectors)| Change::Put(profile(made, text, vectors))).collect();
            let start = Instant::now();
            index.apply(&changes).expect("applied");
            putting += start.elapsed();
        }
    }
    let start = Instant::now();
    index.compact().expect("compacted");
    let compacting = start.elapsed();
    drop(index);
    let start = Instant::now();
    let index = Index::open(&dir, [1; 32], flags.dim).expect("opened");
    let opening = start.elapsed();
    let stats = index.stats();
    println!(
        "\n{entries} adapters, {} dimensions; put in {putting:.1?}, compacted in {compacting:.1?}, opened in {opening:.2?}",
        flags.dim
    );
    println!("  {stats:?}");
    let before = anonymous();
    pinned(true);
    let scan = full_scan(&all, flags.dim, &probes[0].vectors);
    println!("  full i8 scan: p50 {scan:.0} us");
    let mut lines = vec![format!(
        "\"entries\": {entries}, \"dim\": {}, \"put_s\": {:.2}, \"compact_s\": {:.2}, \"open_ms\": {:.3}, \"file_bytes\": {}, \"scan_us\": {scan:.1}",
        flags.dim,
        putting.as_secs_f64(),
        compacting.as_secs_f64(),
        opening.as_secs_f64() * 1e3,
        stats.file_bytes,
    )];
    let (open, tenant) = (Gate::open(), Gate::open().require("tenant", "t07").strict());
    for probes in probes {
        let start = anonymous();
        for (kind, gate, words) in [("vectors", &open, false), ("both", &open, true), ("one-percent", &tenant, true)] {
            let mut times = Vec::new();
            let mut found = Vec::new();
            for pass in 0..2 {
                times.clear();
                found.clear();
                for (vector, text) in probes.vectors.iter().zip(&probes.texts) {
                    let text = if words { text.as_str() } else { "" };
                    let now = Instant::now();
                    let candidates = index.search(&Query { vector, text, gate, limit: flags.limit });
                    times.push(now.elapsed());
                    found.extend((pass == 1).then_some(candidates));
                }
            }
            let recall = if kind == "vectors" { Some(recall(&all, flags.dim, probes, &found, &facts)) } else { None };
            let (p50, p95, p99) = (at(&mut times, 0.5), at(&mut times, 0.95), at(&mut times, 0.99));
            let recall = recall.map_or(String::new(), |recall| format!(", recall@10 {recall:.4}"));
            let by_words =
                (kind == "both" && flags.words > 0).then(|| words_recall(&index, &facts, probes, &found, flags.words));
            let recall = by_words.map_or(recall, |by_words| format!(", recall@10 of words {by_words:.4}"));
            println!(
                "  {:10} {kind:12} p50 {p50:7.1} p95 {p95:7.1} p99 {p99:7.1} us, {:.4} of a scan{recall}",
                probes.name,
                p50 / scan
            );
            lines.push(format!("\"{}/{kind}\": \"p50 {p50:.1} p95 {p95:.1} p99 {p99:.1}{recall}\"", probes.name));
        }
        println!("  {:10} anonymous memory grew by {} KiB", probes.name, anonymous().saturating_sub(start));
    }
    lines.push(format!("\"anonymous_kib\": {}", anonymous().saturating_sub(before)));
    pinned(false);
    lines.push(leaks(flags, generator, &index, &facts, probes));
    lines.push(additions(flags, generator, &index, entries));
    format!("{{{}}}", lines.join(", "))
}

fn profile<'a>(made: &'a Distractor, text: &'a str, vectors: &'a [Vec<f32>]) -> Profile<'a> {
    Profile { digest: made.digest, text, vectors, attributes: &made.attributes, path: &made.path }
}

/// The middle time of a scan of all rows as bytes, in microseconds.
fn full_scan(all: &[f32], dim: usize, probes: &[Vec<f32>]) -> f64 {
    let bytes = |v: &[f32]| -> Vec<i8> {
        let most = v.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
        v.iter().map(|x| (x / most * 127.0).round() as i8).collect()
    };
    let rows: Vec<i8> = all.chunks_exact(dim).flat_map(bytes).collect();
    let mut times: Vec<Duration> = Vec::new();
    for probe in probes.iter().take(12) {
        let probe: Vec<i16> = bytes(probe).into_iter().map(i16::from).collect();
        let start = Instant::now();
        let mut best = [i32::MIN; 10];
        for row in rows.chunks_exact(dim) {
            let sum = row.iter().zip(&probe).map(|(r, p)| i32::from(*r) * i32::from(*p)).sum::<i32>();
            if sum > best[9] {
                let place = best.partition_point(|other| *other > sum);
                best[place..].rotate_right(1);
                best[place] = sum;
            }
        }
        std::hint::black_box(best);
        times.push(start.elapsed());
    }
    at(&mut times, 0.5)
}

/// The share of the ten nearest, by exact search, that were found; one as near as the tenth counts.
fn recall(
    all: &[f32],
    dim: usize,
    probes: &Probes,
    found: &[Vec<Candidate>],
    facts: &HashMap<smoa::adapter::AdapterDigest, u32>,
) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        let mut sums = [0.0_f32; 32];
        a.chunks_exact(32)
            .zip(b.chunks_exact(32))
            .for_each(|(a, b)| sums.iter_mut().zip(a).zip(b).for_each(|((s, a), b)| *s += a * b));
        let rest = a.len() / 32 * 32;
        sums.iter().sum::<f32>() + a[rest..].iter().zip(&b[rest..]).map(|(a, b)| a * b).sum::<f32>()
    };
    // Evenly taken, so that all files of queries have their part.
    let looked = probes.vectors.len().min(RECALLED);
    let taken: Vec<usize> = (0..looked).map(|at| at * probes.vectors.len() / looked).collect();
    let asked: Vec<(&Vec<f32>, &Vec<Candidate>)> =
        taken.iter().filter_map(|at| Some((probes.vectors.get(*at)?, found.get(*at)?))).collect();
    let mut nearest = vec![vec![f32::MIN; 10]; looked];
    for rows in all.chunks(dim * 512) {
        for ((probe, _), best) in asked.iter().zip(&mut nearest) {
            for row in rows.chunks_exact(dim) {
                let cosine = dot(row, probe);
                if cosine > best[9] {
                    let place = best.partition_point(|other| *other > cosine);
                    best[place..].rotate_right(1);
                    best[place] = cosine;
                }
            }
        }
    }
    let mut hits = 0;
    for ((probe, found), best) in asked.iter().zip(&nearest) {
        let rows = found.iter().filter_map(|c| facts.get(&c.digest)).map(|n| *n as usize * dim);
        let near = rows.filter(|from| dot(&all[*from..from + dim], probe) >= best[9] - 1e-5);
        hits += near.count().min(10);
    }
    hits as f64 / (10 * looked) as f64
}

/// The share of the ten best by words alone, by the exact score of every adapter, that were found; one as good as the tenth
/// counts. Of a few queries, evenly taken: each looks at all adapters.
fn words_recall(
    index: &Index,
    facts: &HashMap<smoa::adapter::AdapterDigest, u32>,
    probes: &Probes,
    found: &[Vec<Candidate>],
    looked: usize,
) -> f64 {
    let digests: Vec<smoa::adapter::AdapterDigest> = facts.keys().copied().collect();
    let looked = probes.texts.len().min(looked);
    let (mut hits, mut wanted) = (0, 0);
    for at in (0..looked).map(|at| at * probes.texts.len() / looked) {
        let query = Query { vector: &probes.vectors[at], text: &probes.texts[at], gate: &Gate::open(), limit: 10 };
        let mut scores: Vec<f32> =
            index.look_up(&query, &digests).into_iter().flatten().map(|c| c.keyword).filter(|k| *k > 0.0).collect();
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        scores.truncate(10);
        let Some(last) = scores.last() else { continue };
        wanted += scores.len();
        hits += found[at].iter().filter(|c| c.keyword >= last - 1e-6).count().min(scores.len());
    }
    hits as f64 / wanted.max(1) as f64
}

/// Random gates; every candidate's attributes are looked at.
fn leaks(
    flags: &Flags,
    generator: &Generator,
    index: &Index,
    facts: &HashMap<smoa::adapter::AdapterDigest, u32>,
    probes: &[Probes],
) -> String {
    let (mut checks, mut leaked, mut round) = (0, 0, 0_usize);
    let languages = ["english", "german", "thai", "klingon"];
    while checks < flags.leaks && round < flags.leaks {
        let probes = &probes[round % probes.len()];
        let (vector, text) = (&probes.vectors[round % probes.vectors.len()], &probes.texts[round % probes.texts.len()]);
        let mut gate = Gate::open().require("tenant", format!("t{:02}", round * 7 % 100));
        if round % 3 == 0 {
            gate = gate.any_of("region", ["eu", "us"]);
        }
        if round % 4 == 0 {
            gate = Gate::open().require("language", languages[round / 4 % 4]).require("season", "winter");
        }
        if round % 2 == 0 {
            gate = gate.strict();
        }
        let found = index.search(&Query { vector, text, gate: &gate, limit: flags.limit });
        checks += found.len().max(1);
        let outside = found.iter().filter(|c| {
            facts.get(&c.digest).is_none_or(|number| !gate.allows(&generator.distractor(u64::from(*number)).attributes))
        });
        leaked += outside.count();
        round += 1;
    }
    println!("  {leaked} leaks in {checks} candidates of {round} random gates");
    format!("\"leaks\": {leaked}, \"leak_checks\": {checks}")
}

/// One adapter more, seen; one less, not seen any more.
fn additions(flags: &Flags, generator: &Generator, index: &Index, entries: usize) -> String {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let gate = Gate::open();
    for number in entries..entries + 50 {
        let made = generator.distractor(number as u64);
        let text = format!("{} {}", made.name, made.description);
        let vectors = vec![embed(flags, &text)];
        let query = Query { vector: &vectors[0], text: &text, gate: &gate, limit: flags.limit };
        let start = Instant::now();
        index.apply(&[Change::Put(profile(&made, &text, &vectors))]).expect("applied");
        assert!(index.search(&query).iter().any(|c| c.digest == made.digest), "what was added is seen");
        added.push(start.elapsed());
        let start = Instant::now();
        index.apply(&[Change::Remove(made.digest)]).expect("applied");
        assert!(index.search(&query).iter().all(|c| c.digest != made.digest), "what was removed is not seen");
        removed.push(start.elapsed());
    }
    let text = format!(
        "\"add_us\": {:.0}, \"add_p99_us\": {:.0}, \"remove_us\": {:.0}",
        at(&mut added, 0.5),
        at(&mut added, 0.99),
        at(&mut removed, 0.5)
    );
    println!("  {text}");
    text
}
