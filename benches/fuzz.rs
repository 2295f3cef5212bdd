//! Random damage for as long as one likes: `cargo bench --bench fuzz -- [safetensors|gguf|segment|catalog|index|state|all] [--seconds N]
//! [--seed S] [--from N]`. Ten minutes over all six by default; nothing is done by a plain `cargo bench`.
//!
//! Every input is made from the seed and its number, so `--seed S --from N` makes it again. A panic, an input that takes
//! more than two seconds, an error of more than one line and content other than its digest says are failures: exit code 1,
//! with the number. `scripts/test.sh` runs the same mutators for a moment as unit tests, with debug checks on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use smoa::adapter::{AdapterDigest, AdapterSet, Scale, Timeline};
use smoa::engine::saved::{Saved, Stamp};
use smoa::gguf::{self, AdapterKind, Gguf, GgufWriter, ModelFacts, SoftPrompt, TensorType};
use smoa::import::{self, GgufWeights, Options, PeftFolder, Storage};
use smoa::library::{Access, AdapterName, Filter, Library, LibraryError, Metadata, OnConflict, synthetic::Numbers};
use smoa::router::index::{Change, Gate, Index, Profile, Query};

const TARGETS: [&str; 6] = ["safetensors", "gguf", "segment", "catalog", "index", "state"];
const FOLDERS: [&str; 10] =
    ["lora", "rslora", "alora", "patterns", "embedding", "dora", "ia3", "loha", "lokr_both", "vera"];
/// Numbers that readers trip over.
const TRAPS: [u64; 12] =
    [0, 1, 31, 255, 513, 65_537, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 40, i64::MAX as u64, u64::MAX];

fn corpus(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/peft").join(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Damages bytes in one to six places, three times of four within the first `head` bytes.
fn mutate(n: &mut Numbers, bytes: &mut Vec<u8>, head: usize, others: &[Vec<u8>]) {
    let below = |n: &mut Numbers, limit: usize| n.below(limit.max(1) as u64) as usize;
    for _ in 0..=n.below(6) {
        if bytes.is_empty() {
            return;
        }
        let reach = if n.below(4) == 0 { bytes.len() } else { bytes.len().min(head) };
        let at = below(n, reach);
        match n.below(10) {
            0 | 1 => bytes[at] ^= 1 << n.below(8),
            2 => bytes[at] = n.draw() as u8,
            3 | 4 => {
                let trap = TRAPS[below(n, TRAPS.len())].to_le_bytes();
                let size = [1, 2, 4, 8][below(n, 4)].min(bytes.len() - at);
                bytes[at..at + size].copy_from_slice(&trap[..size]);
            }
            5 => drop(bytes.drain(at..at + below(n, 64).min(bytes.len() - at))),
            6 => {
                let other = &others[below(n, others.len())];
                let from = below(n, other.len());
                let piece: Vec<u8> = other[from..].iter().copied().take(below(n, 256)).collect();
                bytes.splice(at..at, piece);
            }
            7 => {
                // A digit for a digit reaches past parsers of text.
                if let Some(digit) = bytes[at..].iter().position(u8::is_ascii_digit) {
                    bytes[at + digit] = b'0' + n.below(10) as u8;
                }
            }
            8 => {
                let other = &others[below(n, others.len())];
                let from = below(n, other.len());
                let size = below(n, 64).min(bytes.len() - at).min(other.len() - from);
                bytes[at..at + size].copy_from_slice(&other[from..from + size]);
            }
            _ if n.below(4) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
}

/// What the inputs are made from.
struct Samples {
    base: Vec<u8>,
    facts: ModelFacts,
    folders: Vec<(Vec<u8>, Vec<u8>)>,
    weights: Vec<Vec<u8>>,
    adapters: Vec<Vec<u8>>,
    dir: tempfile::TempDir,
    segment: (PathBuf, Vec<u8>),
    catalog: Vec<u8>,
    /// The files of a routing index.
    index: Vec<(PathBuf, Vec<u8>)>,
    stamp: Stamp,
    state: Vec<u8>,
}

/// Dimensions of the index's vectors, and its embedder.
const DIM: usize = 16;
const EMBEDDER: [u8; 32] = [7; 32];

fn vector(n: &mut Numbers) -> Vec<f32> {
    let raw: Vec<f32> = (0..DIM).map(|_| n.below(2_001) as f32 - 1_000.0).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(1.0);
    raw.iter().map(|x| x / length).collect()
}

fn profile(index: &Index, number: u64) {
    let mut n = Numbers::new(number);
    let vectors: Vec<Vec<f32>> = (0..3).map(|_| vector(&mut n)).collect();
    let attributes = [("region".to_owned(), ["eu", "us"][n.below(2) as usize].to_owned())];
    let text = format!("word{} topic{} unique{number}", n.below(5), n.below(9));
    let digest = AdapterDigest::of(&number.to_le_bytes());
    let path = "law/contracts";
    // What does not fit is an error, as anywhere.
    let _ =
        index.apply(&[Change::Put(Profile { digest, text: &text, vectors: &vectors, attributes: &attributes, path })]);
}

/// An index with a merged segment and a log; its files.
fn index_files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let index = Index::open(dir, EMBEDDER, DIM).expect("made");
    (0..60).for_each(|number| profile(&index, number));
    index.compact().expect("compacted");
    (50..70).for_each(|number| profile(&index, number));
    drop(index);
    let files = std::fs::read_dir(dir).expect("a folder").map(|item| item.expect("a file").path());
    files.map(|path| (path.clone(), std::fs::read(&path).expect("read"))).collect()
}

fn adapters(facts: &ModelFacts, folders: &[(Vec<u8>, Vec<u8>)], base: &[u8]) -> Vec<Vec<u8>> {
    let parts = [Gguf::read(base).expect("sound")];
    let weights = GgufWeights::new(&parts);
    let made = folders.iter().map(|(config, weights_of)| {
        let config = std::str::from_utf8(config).expect("text");
        let folder = PeftFolder { config, weights: weights_of };
        import::import_peft(&folder, facts, Some(&weights), &Options::default()).expect("imported").gguf
    });
    let mut all: Vec<Vec<u8>> = made.collect();
    let rows = vec![0.25; 4 * facts.n_embd as usize];
    let soft =
        SoftPrompt { architecture: &facts.architecture, name: None, n_embd: facts.n_embd, rows: &rows, halves: true };
    all.push(soft.to_gguf().expect("written").to_bytes());
    let mut control = GgufWriter::new();
    control.set("general.architecture", "controlvector").expect("set");
    control.tensor("direction.1", TensorType::F32, &[64], vec![0; 256]).expect("tensor");
    all.push(control.to_bytes());
    let messages = import::examples("[\"a\", \"b\"]\n[\"c\", \"d\"]", Some("S")).expect("examples");
    let prefix = gguf::PrefixState {
        architecture: facts.architecture.as_str().into(),
        name: None,
        base: None,
        messages,
        stamp: Some("build".into()),
        tokens: vec![1, 2, 3],
        state: vec![7; 300].into(),
    };
    all.push(prefix.to_gguf().expect("written"));
    all
}

impl Samples {
    fn new() -> Self {
        let base = corpus("base.gguf");
        let facts = gguf::check_model(&base).expect("sound");
        let file = |folder: &str, name: &str| corpus(&format!("{folder}/{name}"));
        let folders: Vec<_> = FOLDERS
            .iter()
            .map(|name| (file(name, "adapter_config.json"), file(name, "adapter_model.safetensors")))
            .collect();
        let adapters = adapters(&facts, &folders, &base);
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let home = dir.path().join("library");
        let library = Library::create(&home).expect("created");
        for (number, bytes) in adapters.iter().enumerate() {
            let name = AdapterName::new(format!("a{number}")).expect("a name");
            library.add(&name, bytes, &Metadata::default(), OnConflict::Refuse).expect("added");
        }
        drop(library);
        let segment = std::fs::read_dir(home.join("segments")).expect("a folder").flatten().next().expect("one").path();
        // Everything into the one file.
        let catalog = home.join("catalog.sqlite");
        rusqlite::Connection::open(&catalog)
            .and_then(|db| db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"))
            .expect("emptied the log");
        let stamp = Stamp { model: "m".into(), build: "b".into(), cache: "c".into(), positions: "p".into() };
        let member = (AdapterDigest::of(b"a"), Scale::ONE);
        let sets = Timeline::switching(AdapterSet::base(), 5, AdapterSet::new(vec![member]).expect("a set"));
        let state = Saved::new((0..40).collect(), sets, vec![3; 500]).to_file(&stamp);
        Self {
            index: index_files(&dir.path().join("index")),
            stamp,
            state,
            weights: folders.iter().map(|(_, weights)| weights.clone()).collect(),
            segment: (segment.clone(), std::fs::read(&segment).expect("read")),
            catalog: std::fs::read(&catalog).expect("read"),
            base,
            facts,
            folders,
            adapters,
            dir,
        }
    }

    fn run(&self, target: &str, n: &mut Numbers) {
        match target {
            "safetensors" => self.safetensors(n),
            "gguf" => self.gguf(n),
            "index" => self.index(n),
            "state" => self.state(n),
            "segment" => {
                let (path, sound) = &self.segment;
                let mut bytes = sound.clone();
                let head = if n.below(2) == 0 { 4_096 } else { sound.len() };
                mutate(n, &mut bytes, head, &self.adapters);
                self.replace(path, &bytes);
                self.library();
                self.replace(path, sound);
            }
            _ => {
                let mut bytes = self.catalog.clone();
                let all = bytes.len();
                mutate(n, &mut bytes, all, &self.adapters);
                let path = self.dir.path().join("library/catalog.sqlite");
                for log in ["catalog.sqlite-wal", "catalog.sqlite-shm"] {
                    let _ = std::fs::remove_file(self.dir.path().join("library").join(log));
                }
                self.replace(&path, &bytes);
                self.library();
            }
        }
    }

    fn safetensors(&self, n: &mut Numbers) {
        let (config, weights) = &self.folders[n.below(self.folders.len() as u64) as usize];
        let (mut config, mut weights) = (config.clone(), weights.clone());
        let header = weights.first_chunk().map_or(64, |length| u64::from_le_bytes(*length) as usize + 8);
        if n.below(3) == 0 {
            let configs: Vec<Vec<u8>> = self.folders.iter().map(|(config, _)| config.clone()).collect();
            let all = config.len();
            mutate(n, &mut config, all, &configs);
        } else {
            mutate(n, &mut weights, header, &self.weights);
        }
        let config = String::from_utf8_lossy(&config);
        let parts = [Gguf::read(&self.base).expect("sound")];
        let base = GgufWeights::new(&parts);
        let as_lora = n.below(4) == 0;
        let options = Options { max_relative_error: None, rank: Some(4), threads: 1, as_lora, ..Options::default() };
        let folder = PeftFolder { config: &config, weights: &weights };
        match import::import_peft(&folder, &self.facts, Some(&base), &options) {
            Ok(imported) => drop(gguf::check_adapter(&imported.gguf, &self.facts).expect("what is imported is sound")),
            Err(error) => one_line(&error.to_string()),
        }
    }

    fn gguf(&self, n: &mut Numbers) {
        let mut bytes = self.adapters[n.below(self.adapters.len() as u64) as usize].clone();
        mutate(n, &mut bytes, 2_000, &self.adapters);
        match gguf::check_adapter(&bytes, &self.facts) {
            Err(error) => one_line(&error.to_string()),
            Ok(found) => match found.kind {
                AdapterKind::SoftPrompt { tokens } => {
                    let rows = gguf::soft_prompt_rows(&bytes).expect("checked");
                    assert_eq!(rows.len(), (tokens * self.facts.n_embd) as usize);
                    assert!(rows.iter().all(|number| number.is_finite()));
                }
                AdapterKind::ControlVector { .. } => {
                    drop(gguf::control_directions(&bytes, &self.facts).expect("checked"));
                }
                AdapterKind::PrefixState { .. } => drop(gguf::PrefixState::read(&bytes).expect("checked")),
                AdapterKind::Lora | AdapterKind::Alora | AdapterKind::Gain => {
                    assert_eq!(gguf::gains(&bytes).expect("checked").len(), found.gains.len());
                    if let Err(error) = import::requantize(&bytes, Storage::Q8_0) {
                        one_line(&error.to_string());
                    }
                }
            },
        }
    }

    /// Damage in one file of the index, then everything one can ask of it and do to it.
    fn index(&self, n: &mut Numbers) {
        let dir = self.dir.path().join("index");
        std::fs::remove_dir_all(&dir).expect("removed");
        std::fs::create_dir(&dir).expect("made");
        let hit = n.below(self.index.len() as u64) as usize;
        for (at, (path, sound)) in self.index.iter().enumerate() {
            let mut bytes = sound.clone();
            if at == hit {
                let head = if n.below(2) == 0 { 256 } else { sound.len() };
                mutate(n, &mut bytes, head, &self.adapters);
            }
            std::fs::write(path, &bytes).expect("written");
        }
        let index = match Index::open(&dir, EMBEDDER, DIM) {
            Ok(index) => index,
            Err(error) => return one_line(&error.to_string()),
        };
        let gates = [Gate::open(), Gate::open().require("region", "eu")];
        for gate in &gates {
            let found = index.search(&Query { vector: &vector(n), text: "word1 topic2 unique7", gate, limit: 9 });
            assert!(found.len() <= 18);
            assert!(found.iter().all(|c| c.semantic.is_finite() && c.keyword.is_finite()));
        }
        let _ = index.stats();
        profile(&index, n.below(100));
        if let Err(error) = index.compact() {
            one_line(&error.to_string());
        }
    }

    /// Damage in a saved state whose checksum is right again, as a stranger would make it.
    fn state(&self, n: &mut Numbers) {
        let mut bytes = self.state.clone();
        bytes.truncate(bytes.len() - 32);
        mutate(n, &mut bytes, 700, &self.adapters);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        match Saved::from_file(Box::new(bytes.clone()), &self.stamp, 64) {
            Err(error) => one_line(&error.to_string()),
            Ok(saved) => {
                assert!((1..=64).contains(&saved.tokens.len()) && saved.state().len() < bytes.len());
                let again = saved.to_file(&self.stamp);
                let back = Saved::from_file(Box::new(again), &self.stamp, 64).expect("what is written is read");
                assert_eq!((back.tokens, back.sets), (saved.tokens, saved.sets));
            }
        }
    }

    /// As package managers do, so that no mapping is cut short.
    fn replace(&self, path: &Path, bytes: &[u8]) {
        let part = self.dir.path().join("part");
        std::fs::write(&part, bytes).expect("written");
        std::fs::rename(&part, path).expect("renamed");
    }

    /// Everything one can ask of a library.
    fn library(&self) {
        let asked = || -> Result<(), LibraryError> {
            let library = Library::open(&self.dir.path().join("library"), Access::Read)?;
            let report = library.verify()?;
            report.problems.iter().for_each(|problem| one_line(&problem.to_string()));
            for number in 0..self.adapters.len() {
                match library.pin(&AdapterName::new(format!("a{number}"))?) {
                    Err(error) => one_line(&error.to_string()),
                    Ok(pinned) => {
                        let whole = pinned.check().is_ok();
                        let own = AdapterDigest::of(pinned.bytes()) == pinned.digest();
                        assert_eq!(whole, own);
                    }
                }
            }
            for entry in library.walk(&Filter::default()).take(100) {
                drop(entry?);
            }
            drop(
                library
                    .list(&Filter { text: Some("a".into()), ..Filter::default() }, &smoa::library::Page::first(9))?,
            );
            drop(library.tags(9)?);
            Ok(())
        };
        if let Err(error) = asked() {
            one_line(&error.to_string());
        }
    }
}

fn one_line(text: &str) {
    assert!(!text.contains('\n') && text.len() < 8_192, "not one line: {text:?}");
}

/// One target for so long. Inputs tried, and the failures.
fn fuzz(samples: &Samples, target: &str, seed: u64, from: u64, time: Duration) -> (u64, u64) {
    let (start, mut told) = (Instant::now(), Instant::now());
    let (mut number, mut failures) = (from, 0);
    while start.elapsed() < time {
        let began = Instant::now();
        let mut n = Numbers::new(seed ^ number.rotate_left(32) ^ target.len() as u64);
        let run = catch_unwind(AssertUnwindSafe(|| samples.run(target, &mut n)));
        let slow = began.elapsed() > Duration::from_secs(2);
        if run.is_err() || slow {
            failures += 1;
            let what = if slow { "took more than 2 s" } else { "failed" };
            println!("{target}: input {number} {what}: --seed {seed} --from {number}");
        }
        number += 1;
        if told.elapsed() > Duration::from_secs(30) {
            println!("{target}: {} inputs, {failures} failures", number - from);
            told = Instant::now();
        }
    }
    println!("{target}: {} inputs in {:.0} s, {failures} failures", number - from, start.elapsed().as_secs_f64());
    (number - from, failures)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let value = |flag: &str, default: u64| {
        let at = args.iter().position(|arg| arg == flag);
        at.and_then(|at| args.get(at + 1)).map_or(default, |text| text.parse().expect("a number"))
    };
    let wanted: Vec<&str> = TARGETS.into_iter().filter(|t| args.iter().any(|arg| arg == t || arg == "all")).collect();
    if wanted.is_empty() {
        println!("usage: fuzz -- all | {} [--seconds 600] [--seed S] [--from N]; nothing done", TARGETS.join(" | "));
        return;
    }
    let (seed, from) = (value("--seed", 1), value("--from", 0));
    let time = Duration::from_secs(value("--seconds", 600)) / wanted.len() as u32;
    let samples = Samples::new();
    let failures: u64 = wanted.iter().map(|target| fuzz(&samples, target, seed, from, time).1).sum();
    std::process::exit(i32::from(failures > 0));
}
