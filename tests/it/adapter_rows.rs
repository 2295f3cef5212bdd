//! Rows A8 to A13 and L1 to L7 of the table of bad inputs, through the program: exit code, one line, in time. What each
//! byte does is in the unit tests of `import`, `gguf` and `library`; here it is what a user sees.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use smoa::gguf::{Gguf, GgufWriter, OwnedValue, TensorType};
use smoa::library::{Access, Library, synthetic};

use crate::support::{App, Run, random_lora, random_lora_for};

fn corpus(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/peft").join(path)
}

/// `smoa adapter ...` on a library of this test.
fn adapter(app: &App, args: &[&str]) -> Run {
    let library = app.path("library").display().to_string();
    let mut all = vec!["adapter"];
    all.extend(args);
    all.extend(["--library", library.as_str()]);
    app.run(&all, "")
}

/// Adds for the tiny llama that the PEFT folders belong to.
fn add(app: &App, args: &[&str]) -> Run {
    let base = corpus("base.gguf").display().to_string();
    let mut all = vec!["add", "-m", base.as_str()];
    all.extend(args);
    adapter(app, &all)
}

/// Adds for the default model, whose library of this test then holds `name`.
fn add_lora(app: &App, name: &str, seed: u64) {
    let file = app.write(&format!("{name}.gguf"), random_lora(seed, 4, 0.03)).display().to_string();
    let model = crate::support::model().display().to_string();
    adapter(app, &["add", "-m", &model, &file]).ok();
}

/// Refused: the exit code, one line that says `words`, within two seconds.
#[track_caller]
fn refused(run: &Run, code: i32, words: &str) {
    assert_eq!(run.code, Some(code), "{words}: {run:?}");
    assert!(run.stderr.contains(words) && run.stderr.lines().count() == 1, "{words}: {}", run.stderr);
    assert!(!run.stderr.trim_end().chars().any(char::is_control), "{:?}", run.stderr);
    assert!(run.took < Duration::from_secs(2), "{words}: took {:?}", run.took);
}

/// A PEFT folder with these two files.
fn folder(app: &App, name: &str, config: &[u8], weights: (&str, &[u8])) -> String {
    let path = app.path(name);
    std::fs::create_dir_all(&path).expect("made");
    std::fs::write(path.join("adapter_config.json"), config).expect("written");
    std::fs::write(path.join(weights.0), weights.1).expect("written");
    path.display().to_string()
}

fn lora_config() -> Vec<u8> {
    std::fs::read(corpus("lora/adapter_config.json")).expect("read")
}

fn headed(length: u64, rest: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], rest].concat()
}

#[test]
fn a8_damaged_safetensors() {
    let app = App::new();
    let good = std::fs::read(corpus("lora/adapter_model.safetensors")).expect("read");
    let header = |text: &str, data: usize| [headed(text.len() as u64, text.as_bytes()), vec![0; data]].concat();
    let many: Vec<String> =
        (0..100_000).map(|n| format!("\"t{n}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}")).collect();
    let entry = |name: &str, dtype: &str, shape: &str, start: usize, end: usize| {
        format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}")
    };
    let overlap = format!("{{{},{}}}", entry("a", "F32", "[2]", 0, 8), entry("b", "F32", "[2]", 4, 12));
    let gap = format!("{{{},{}}}", entry("a", "F32", "[2]", 0, 8), entry("b", "F32", "[2]", 12, 20));
    let odd = format!("{{{}}}", entry("a", "BF16", "[2]", 0, 3));
    for (name, weights) in [
        ("empty", Vec::new()),
        ("length-0", headed(0, b"{}")),
        ("length-2-63", headed(1 << 63, b"{}")),
        ("length-200-mb", headed(200 << 20, b"{}")),
        ("entries-100k", header(&format!("{{{}}}", many.join(",")), 0)),
        ("overlap", header(&overlap, 12)),
        ("gap", header(&gap, 20)),
        ("odd-bf16", header(&odd, 3)),
        ("cut", good[..good.len() - 1].to_vec()),
        ("longer", [&good[..], b"x"].concat()),
    ] {
        let path = folder(&app, name, &lora_config(), ("adapter_model.safetensors", &weights));
        refused(&add(&app, &[&path]), 4, "adapter_model.safetensors");
    }
}

#[test]
fn a9_configurations_are_honoured_or_refused() {
    let app = App::new();
    let weights = std::fs::read(corpus("lora/adapter_model.safetensors")).expect("read");
    for (name, field) in [
        ("refused_modules_to_save", "modules_to_save"),
        ("refused_pissa", "init_lora_weights"),
        ("refused_tokens", "trainable_token_indices"),
        ("refused_prefix_tuning", "peft_type"),
    ] {
        let config = std::fs::read(corpus(&format!("{name}/adapter_config.json"))).expect("read");
        let path = folder(&app, name, &config, ("adapter_model.safetensors", &weights));
        refused(&add(&app, &[&path]), 4, field);
    }
    // Honoured: each as what it is.
    for (name, kind, rank) in [
        ("lora", "lora", 2),
        ("rslora", "lora", 3),
        ("patterns", "lora", 4),
        ("alora", "alora", 2),
        ("dora", "gain", 2),
        ("ia3", "gain", 0),
    ] {
        add(&app, &[corpus(name).to_str().expect("UTF-8")]).ok();
        let shown = adapter(&app, &["show", name, "--json"]).ok().json();
        assert_eq!((shown["kind"].as_str(), shown["rank_max"].as_u64()), (Some(kind), Some(rank)), "{name}: {shown}");
        assert!(shown.get("relative_error").is_none(), "{name} is exact: {shown}");
    }
    let listed = adapter(&app, &["ls"]).ok();
    assert!(listed.text().lines().any(|line| line.starts_with("dora ") && line.contains(" gain ")), "{listed:?}");
    // As plain LoRA only by conversion, whose loss is told and bounded.
    let dora = corpus("dora").display().to_string();
    refused(&add(&app, &[&dora, "--name", "thin", "--as-lora", "--rank", "4"]), 4, "misses");
    let thin = add(&app, &[&dora, "--name", "thin", "--as-lora", "--rank", "4", "--accept-error"]).ok();
    assert!(thin.text().contains("relative error"), "{thin:?}");
    let shown = adapter(&app, &["show", "thin", "--json"]).ok().json();
    assert_eq!((shown["kind"].as_str(), shown["rank_max"].as_u64()), (Some("lora"), Some(4)));
    assert!(shown["relative_error"].as_f64().is_some_and(|error| error > 0.05), "{shown}");
}

#[test]
fn a10_pickles_are_refused_unread() {
    let app = App::new();
    let pickle: &[u8] = b"\x80\x02}q\x00.";
    let archive: &[u8] = b"PK\x03\x04\x14\x00\x00\x00archive/data.pkl";
    // A length, then an archive: both a safetensors file and a zip to whoever looks at the end.
    let polyglot = [headed(2, b"{}"), archive.to_vec()].concat();
    for name in ["adapter.bin", "adapter.pt", "adapter.pth", "adapter.ckpt"] {
        refused(&add(&app, &[app.write(name, pickle).to_str().expect("UTF-8")]), 4, "pickle refused");
    }
    for (name, weights) in [("pickle", pickle), ("archive", archive)] {
        let path = folder(&app, name, &lora_config(), ("adapter_model.safetensors", weights));
        refused(&add(&app, &[&path]), 4, "refused unread");
    }
    let path = folder(&app, "polyglot", &lora_config(), ("adapter_model.safetensors", &polyglot));
    refused(&add(&app, &[&path]), 4, "adapter_model.safetensors");
    let renamed = app.write("renamed.gguf", archive);
    refused(&add(&app, &[renamed.to_str().expect("UTF-8")]), 4, "zip");
}

#[test]
fn a11_names() {
    let app = App::new();
    let lora = corpus("lora").display().to_string();
    let long = "x".repeat(300);
    for name in ["../x", "a/b", "", &long, "auto", "none", "BASE", "default", "-x", "a b", "é", "a\u{202e}b", "a\nb"] {
        let run = add(&app, &[&lora, &format!("--name={name}")]);
        assert_eq!(run.code, Some(2), "{name:?}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{name:?}: {}", run.stderr);
        assert!(!run.stderr.contains('\u{202e}'), "{name:?}: {}", run.stderr);
    }
    // Names in requests reach no path either.
    add_lora(&app, "there", 71);
    let library = app.path("library").display().to_string();
    let names = ["../x", "a/b", "", "a\u{0}b", "none", "gone"];
    let lines: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(id, name)| json!({"id": id, "prompt": "A", "n_predict": 1, "adapters": [{"name": name, "scale": 1.0}]}))
        .collect();
    let run = app.lines(&["--library", &library], &lines);
    assert_eq!(run.code, Some(9), "{run:?}");
    for (line, name) in run.json_lines().iter().zip(names) {
        assert!(line["error"]["message"].is_string(), "{name:?}: {line}");
    }
}

#[test]
fn a12_invocation_tokens() {
    let app = App::new();
    let base = smoa::model_file::check(&corpus("base.gguf")).expect("sound");
    for (name, tokens, words) in [
        ("beyond", vec![base.n_vocab], "vocabulary"),
        ("million", vec![1; 1_000_000], "the limit is"),
        ("nothing", Vec::new(), "is empty"),
    ] {
        let mut file = random_lora_for(&base, 81, 2, 0.1);
        file.set("adapter.alora.invocation_tokens", tokens.as_slice()).expect("set");
        let path = app.write(&format!("{name}.gguf"), file.to_bytes()).display().to_string();
        refused(&add(&app, &[&path]), 4, words);
    }
}

#[test]
fn a13_crowds_of_adapters_in_one_request() {
    let app = App::new();
    add_lora(&app, "a", 91);
    let library = app.path("library").display().to_string();
    let choice = |scale: serde_json::Value| json!({"name": "a", "scale": scale});
    let line = |id: u32, adapters: Vec<serde_json::Value>| json!({"id": id, "prompt": "A", "n_predict": 1, "adapters": adapters});
    let lines = [
        line(0, vec![choice(json!(1e30))]),
        line(1, vec![choice(json!(-1))]),
        line(2, vec![choice(json!("NaN"))]),
        line(3, vec![choice(json!(1)), choice(json!(0.5))]),
        line(4, vec![choice(json!(1)); 200]),
        line(5, vec![choice(json!(1))]),
    ];
    let run = app.lines(&["--library", &library], &lines);
    assert_eq!(run.code, Some(9), "{run:?}");
    let results = run.json_lines();
    assert!(
        results[..5].iter().all(|result| result["error"]["code"].is_number() || result["error"]["code"].is_string()),
        "{results:?}"
    );
    assert!(results[5]["error"].is_null(), "the sound one is answered: {}", results[5]);
}

/// The one segment of a test's library.
fn segment(app: &App) -> PathBuf {
    let mut found = std::fs::read_dir(app.path("library/segments")).expect("a folder");
    found.next().expect("a segment").expect("read").path()
}

#[test]
fn l1_l3_damaged_libraries_are_named_and_never_a_signal() {
    let app = App::new();
    add_lora(&app, "a", 101);
    let file = segment(&app);
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let sound = std::fs::read(&file).expect("read");
    let swap = |bytes: &[u8]| {
        let other = app.write("other", bytes);
        std::fs::rename(other, &file).expect("renamed");
    };
    let out = app.path("out.gguf").display().to_string();
    // Header, seal, one byte of content.
    for at in [3, 9, 40, sound.len() - 1, sound.len() - 40, sound.len() / 2] {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x40;
        swap(&bytes);
        let verify = adapter(&app, &["verify"]);
        assert_eq!(verify.code, Some(4), "byte {at}: {verify:?}");
        assert!(verify.text().contains(&name), "byte {at}: the segment is named: {verify:?}");
        refused(&adapter(&app, &["export", "a", "-o", &out]), 4, &name);
    }
    let page = 4096;
    for length in [0, 1, page, page * 2, sound.len() / 2 / page * page, sound.len() - 1] {
        swap(&sound[..length]);
        refused(&adapter(&app, &["export", "a", "-o", &out]), 4, &name);
        assert_eq!(adapter(&app, &["verify"]).code, Some(4), "cut to {length}");
    }
    std::fs::remove_file(&file).expect("removed");
    refused(&adapter(&app, &["export", "a", "-o", &out]), 4, &name);
    swap(&sound);
    adapter(&app, &["export", "a", "-o", &out]).ok();
    let format = app.path("library/FORMAT");
    std::fs::write(&format, "smoa library 2\n").expect("written");
    refused(&adapter(&app, &["ls"]), 4, "use a newer smoa");
    std::fs::write(&format, "something else\n").expect("written");
    refused(&adapter(&app, &["ls"]), 3, "is not an adapter library");
}

/// The catalog, changed behind the program's back.
fn catalog(app: &App) -> rusqlite::Connection {
    rusqlite::Connection::open(app.path("library/catalog.sqlite")).expect("opened")
}

#[test]
fn l2_a_catalog_that_lies() {
    for (change, what) in [
        ("UPDATE blob SET offset = 1 << 40", "a place outside"),
        ("UPDATE blob SET offset = offset + 64", "a place between records"),
        ("UPDATE blob SET length = length - 1", "another length"),
        ("UPDATE blob SET digest = zeroblob(32)", "another content"),
        ("UPDATE segment SET entries = 7", "another number of records"),
        ("UPDATE segment SET length = length + 1", "another file"),
        ("UPDATE adapter SET metadata = '{\"format\": 1}'", "other metadata"),
        ("UPDATE adapter SET name = 'b'", "another name"),
    ] {
        let app = App::new();
        add_lora(&app, "a", 111);
        catalog(&app).execute_batch(change).expect("changed");
        let verify = adapter(&app, &["verify"]);
        assert_eq!(verify.code, Some(4), "{what}: {verify:?}");
        let out = app.path("out.gguf").display().to_string();
        let export = adapter(&app, &["export", "a", "-o", &out]);
        assert!(matches!(export.code, Some(0 | 3 | 4)), "{what}: {export:?}");
        if export.code == Some(0) {
            let same = std::fs::read(&out).expect("read") == std::fs::read(app.path("a.gguf")).expect("read");
            assert!(same, "{what}: never a wrong content");
        }
    }
}

#[test]
fn l4_a_second_writer_is_told_and_readers_go_on() {
    let app = App::new();
    add_lora(&app, "a", 121);
    let other = catalog(&app);
    other.execute_batch("BEGIN IMMEDIATE").expect("the writer's lock");
    let run = adapter(&app, &["rm", "a"]);
    assert_eq!(run.code, Some(8), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(adapter(&app, &["ls"]).ok().text().starts_with("a "), "readers go on");
    drop(other);
    adapter(&app, &["rm", "a"]).ok();
}

#[test]
fn l5_none_one_and_thousands() {
    let app = App::new();
    let library = Library::create(&app.path("library")).expect("created");
    let quick = |args: &[&str], words: &str| {
        let run = adapter(&app, args).ok();
        assert!(run.text().contains(words), "{args:?}: {run:?}");
        // The row asks for 200 ms; a machine at work on other tests gets a second. Benches measure it.
        assert!(run.took < Duration::from_secs(1), "{args:?} took {:?}", run.took);
    };
    assert_eq!(adapter(&app, &["ls"]).ok().text(), "");
    quick(&["verify"], "0 adapters checked, 0 problems");
    for count in [1, 5_000] {
        synthetic::fill(&library, count, 7, |_| ()).expect("filled");
        let name = synthetic::name(count - 1, 7).expect("a name");
        quick(&["show", name.as_str()], name.as_str());
        quick(&["ls", "--limit", "1"], "nano");
    }
    assert!(Library::open(&app.path("library"), Access::Read).expect("opened").verify().expect("looked").is_clean());
}

#[test]
fn l6_embedding_tables_and_vectors_of_nonsense() {
    use smoa::router::embed::{Embedder, StaticEmbedder};
    use smoa::router::index::{Change, Gate, Index, Profile, Query};
    let table = |scale: f32, dim: u32, rows: &[i8]| {
        let mut bytes = b"SMOAEMB1".to_vec();
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend(dim.to_le_bytes());
        bytes.extend(scale.to_le_bytes().repeat(2));
        bytes.extend(rows.iter().map(|number| *number as u8));
        StaticEmbedder::read(bytes.into(), "[UNK]\nlaw")
    };
    for (scale, dim, rows) in
        [(f32::NAN, 2, [1, 2, 3, 4]), (f32::INFINITY, 2, [1; 4]), (1.0, 3, [1; 4]), (1.0, 0, [1; 4]), (1.0, 1, [1; 4])]
    {
        assert!(table(scale, dim, &rows).is_err(), "scale {scale}, {dim} numbers in a row");
    }
    // Rows of zeros give the zero vector, which is near to nothing: only words find such an adapter.
    let zeros = table(1.0, 2, &[0; 4]).expect("a table").embed("law");
    assert_eq!(zeros, [0.0, 0.0]);

    let app = App::new();
    let index = Index::open(&app.path("index"), [1; 32], 4).expect("made");
    let put = |n: u8, vector: Vec<f32>| {
        let (digest, vectors) = (smoa::adapter::AdapterDigest::of(&[n]), [vector]);
        let text = format!("adapter{n} law");
        index.apply(&[Change::Put(Profile { digest, text: &text, vectors: &vectors, attributes: &[], path: "" })])
    };
    for bad in [vec![f32::NAN; 4], vec![f32::INFINITY, 0.0, 0.0, 0.0], vec![1e9; 4], vec![1.0; 3], vec![1.0; 5]] {
        let error = put(1, bad.clone()).expect_err("refused").to_string();
        assert!(error.contains("vector") && !error.contains('\n'), "{bad:?}: {error}");
    }
    assert!(index.is_empty(), "nothing half taken in");
    put(2, vec![0.0; 4]).expect("taken in");
    put(3, vec![1.0, 0.0, 0.0, 0.0]).expect("taken in");
    let gate = Gate::open();
    for vector in [vec![1.0, 0.0, 0.0, 0.0], vec![0.0; 4], vec![f32::NAN; 4], vec![1.0; 9], Vec::new()] {
        let found = index.search(&Query { vector: &vector, text: "law adapter2", gate: &gate, limit: 5 });
        assert!(found.iter().all(|c| c.semantic.is_finite() && c.keyword.is_finite()), "{vector:?}: {found:?}");
    }
}

#[test]
fn l7_words_of_a_card() {
    let app = App::new();
    let lora = corpus("lora").display().to_string();
    let many: Vec<String> = (0..10_000).map(|n| format!("\"word{n}\"")).collect();
    let sidecar = |name: &str, text: &str| app.write(name, format!("format = 1\n{text}")).display().to_string();
    for (file, words) in [
        (sidecar("many.toml", &format!("keywords = [{}]", many.join(", "))), "keywords"),
        (sidecar("empty.toml", "keywords = ['']"), "keywords"),
        (sidecar("long.toml", &format!("tags = ['{}']", "x".repeat(65))), "tags"),
        (sidecar("unknown.toml", "keyword = ['a']"), "did you mean 'keywords'?"),
        (sidecar("broken.toml", "keywords = ["), "sidecar"),
    ] {
        let run = add(&app, &[&lora, "--sidecar", &file]);
        assert!(matches!(run.code, Some(2 | 4)), "{file}: {run:?}");
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    // A word is text, never a pattern: this finds itself, and takes no time.
    let bomb = "(a+)+$(a|aa)*b";
    add(&app, &[&lora, "--name", "bomb", "--keyword", bomb]).ok();
    let found = adapter(&app, &["ls", "--text", bomb]).ok();
    assert!(found.text().starts_with("bomb "), "{found:?}");
    let long = "a".repeat(5_000);
    let nothing = adapter(&app, &["ls", "--text", &long]).ok();
    assert!(nothing.text().is_empty() && nothing.took < Duration::from_secs(2), "{nothing:?}");
}

#[test]
fn adapters_that_are_no_lora_are_kept_as_what_they_are() {
    let app = App::new();
    let examples = app
        .write("mood.jsonl", "[\"I love it\", \"positive\"]\n{\"input\": \"I hate it\", \"output\": \"negative\"}\n");
    let base = corpus("base.gguf").display().to_string();
    let made = ["from-examples", examples.to_str().expect("UTF-8"), "-m", &base, "--system", "One word."];
    adapter(&app, &made).ok();
    let shown = adapter(&app, &["show", "mood", "--json"]).ok().json();
    assert_eq!((shown["kind"].as_str(), shown["examples"][1].as_str()), (Some("prefix"), Some("I hate it")));
    let out = app.path("mood.gguf");
    adapter(&app, &["export", "mood", "-o", out.to_str().expect("UTF-8")]).ok();
    let bytes = std::fs::read(&out).expect("read");
    let prefix = smoa::gguf::PrefixState::read(&bytes).expect("a prefix");
    let told: Vec<_> = prefix.messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    assert_eq!(told[..3], [("system", "One word."), ("user", "I love it"), ("assistant", "positive")]);
    assert_eq!(prefix.base.as_deref(), shown["base"].as_str());
    let broken = app.write("broken.jsonl", "[\"a\", \"b\"]\n[\"c\"]\n");
    refused(&adapter(&app, &["from-examples", broken.to_str().expect("UTF-8"), "-m", &base]), 4, "line 2");

    let mut control = GgufWriter::new();
    control.set("general.architecture", "controlvector").expect("set");
    control.set("controlvector.model_hint", "llama").expect("set");
    control.tensor("direction.1", TensorType::F32, &[64], 0.5_f32.to_le_bytes().repeat(64)).expect("tensor");
    let control = app.write("calm.gguf", control.to_bytes()).display().to_string();
    add(&app, &[&control]).ok();
    let embeddings: Vec<f32> = (0..4 * 64).map(|at| at as f32 / 256.0).collect();
    let data: Vec<u8> = embeddings.iter().flat_map(|number| number.to_le_bytes()).collect();
    let header = "{\"prompt_embeddings\":{\"dtype\":\"F32\",\"shape\":[4,64],\"data_offsets\":[0,1024]}}";
    let weights = [headed(header.len() as u64, header.as_bytes()), data].concat();
    let config = br#"{"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4}"#;
    let soft = folder(&app, "soft", config, ("adapter_model.safetensors", &weights));
    add(&app, &[&soft]).ok();
    for (name, kind) in [("calm", "control-vector"), ("soft", "soft-prompt")] {
        assert_eq!(adapter(&app, &["show", name, "--json"]).ok().json()["kind"].as_str(), Some(kind), "{name}");
    }
    assert!(adapter(&app, &["verify"]).ok().text().contains("3 adapters checked, 0 problems"));
}

/// The tiny llama in two parts; the path of the first.
fn split_base(app: &App) -> String {
    let bytes = std::fs::read(corpus("base.gguf")).expect("read");
    let whole = Gguf::read(&bytes).expect("sound");
    let (first, second) = whole.tensors().split_at(whole.tensors().len() / 2);
    for (number, tensors) in [first, second].into_iter().enumerate() {
        let mut part = GgufWriter::new();
        if number == 0 {
            for (key, value) in whole.keys() {
                part.set(key, OwnedValue::from(*value)).expect("set");
            }
        }
        part.set("split.no", number as u16).expect("set").set("split.count", 2_u16).expect("set");
        part.set("split.tensors.count", whole.tensors().len() as i32).expect("set");
        for tensor in tensors {
            part.tensor(tensor.name, tensor.kind, &tensor.dims, whole.tensor_bytes(tensor)).expect("tensor");
        }
        app.write(&format!("base-0000{}-of-00002.gguf", number + 1), part.to_bytes());
    }
    app.path("base-00001-of-00002.gguf").display().to_string()
}

#[test]
fn dora_reads_all_parts_of_a_split_base() {
    let app = App::new();
    let (base, dora) = (split_base(&app), corpus("dora").display().to_string());
    add(&app, &[&dora]).ok();
    adapter(&app, &["add", "-m", &base, &dora, "--name", "split"]).ok();
    let digest = |name: &str| adapter(&app, &["show", name, "--json"]).ok().json()["digest"].clone();
    assert_eq!(digest("split"), digest("dora"), "the same bytes");
}

#[test]
fn uses_of_named_adapters_are_counted() {
    let app = App::new();
    add_lora(&app, "a", 131);
    let library = app.path("library").display().to_string();
    app.answer(&["-n", "2", "--library", &library, "--adapter", "a", "--pin-adapter", "a", "hi"], "").ok();
    let open = Library::open(&app.path("library"), Access::Read).expect("opened");
    let used = open.most_used(3).expect("read");
    assert_eq!(used.iter().map(|(_, usage)| (usage.uses, usage.successes)).collect::<Vec<_>>(), [(1, 1)]);
    let run = app.answer(&["-n", "2", "--library", &library, "--pin-adapter", "gone", "hi"], "");
    assert_eq!(run.code, Some(3), "{run:?}");
}
