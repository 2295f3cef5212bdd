//! How tests run the program: own HOME, no environment of the caller, one model.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use smoa::gguf::{GgufWriter, ModelFacts, TensorType};

/// The default model. Tests that need it fail without it: `scripts/test.sh` fetches it.
pub fn model() -> PathBuf {
    let path = std::env::var_os("SMOA_TEST_MODEL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is missing; run scripts/test.sh, which fetches it", path.display());
    path
}

/// What the model's header says.
pub fn facts() -> &'static ModelFacts {
    static FACTS: OnceLock<ModelFacts> = OnceLock::new();
    FACTS.get_or_init(|| smoa::model_file::check(&model()).expect("the default model passes the checker"))
}

/// A sealed place to run the program in.
pub struct App {
    pub dir: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub took: Duration,
    /// Peak of anonymous resident memory seen while it ran, KiB; mapped files are not counted.
    pub peak_kib: u64,
}

impl Run {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("output is UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn json_lines(&self) -> Vec<Value> {
        self.text().lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

impl App {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smoa"));
        command.args(args).current_dir(self.dir.path()).env_clear();
        command.env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin");
        if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", path);
        }
        command
    }

    /// Runs the program with `stdin` as its input.
    pub fn run(&self, args: &[&str], stdin: impl AsRef<[u8]>) -> Run {
        let mut command = self.command(args);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        finish(child.expect("started"), stdin.as_ref().to_vec())
    }

    /// `smoa run -m MODEL ...` with greedy choice, two threads and a small context.
    pub fn answer(&self, args: &[&str], stdin: impl AsRef<[u8]>) -> Run {
        let model = model();
        let mut all = vec!["run", "-m", model.to_str().expect("UTF-8 path"), "-t", "2", "-c", "2048", "--temp", "0"];
        all.extend(args);
        self.run(&all, stdin)
    }

    /// Runs JSON lines through `smoa run --jsonl`.
    pub fn lines(&self, args: &[&str], lines: &[Value]) -> Run {
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        let mut all = vec!["--jsonl"];
        all.extend(args);
        self.answer(&all, text)
    }
}

/// Feeds a child and collects what it says; no test hangs longer than two minutes.
pub fn finish(mut child: Child, stdin: Vec<u8>) -> Run {
    let started = Instant::now();
    let mut input = child.stdin.take().expect("piped");
    let feeder = std::thread::spawn(move || {
        // The program may leave before it has read everything.
        let _ = input.write_all(&stdin);
    });
    let reader = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = from.read_to_end(&mut all);
            all
        })
    };
    let out = child.stdout.take().map(|o| reader(Box::new(o)));
    let err = child.stderr.take().map(|e| reader(Box::new(e)));
    let mut peak_kib = 0;
    let status = loop {
        peak_kib = peak_kib.max(anonymous_kib(child.id()));
        if let Some(status) = child.try_wait().expect("waited") {
            break status;
        }
        if started.elapsed() > Duration::from_secs(120) {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let took = started.elapsed();
    feeder.join().expect("fed");
    let collect = |t: Option<std::thread::JoinHandle<Vec<u8>>>| t.map_or_else(Vec::new, |t| t.join().expect("read"));
    let (stdout, stderr) = (collect(out), String::from_utf8_lossy(&collect(err)).into_owned());
    Run { code: status.code(), stdout, stderr, took, peak_kib }
}

/// `RssAnon` of a running process; 0 when it cannot be read.
fn anonymous_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A LoRA adapter of random weights for the default model: visible in the logits, without meaning.
pub fn random_lora(seed: u64, rank: u64, strength: f32) -> Vec<u8> {
    random_lora_for(facts(), seed, rank, strength).to_bytes()
}

/// The same, still to be changed by a test.
pub fn random_lora_for(base: &ModelFacts, seed: u64, rank: u64, strength: f32) -> GgufWriter<'static> {
    let linears = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let mut names: Vec<&String> = base.tensors.keys().collect();
    names.sort();
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", base.architecture.as_str()).expect("set");
    writer.set("general.type", "adapter").expect("set");
    writer.set("adapter.type", "lora").expect("set");
    writer.set("adapter.lora.alpha", rank as f32).expect("set");
    let mut random = SplitMix(seed);
    for name in names {
        if !linears.iter().any(|l| name.ends_with(&format!(".{l}.weight"))) {
            continue;
        }
        let shape = base.tensors[name];
        let a = random.halves((shape[0] * rank) as usize, strength);
        let b = random.halves((rank * shape[1]) as usize, strength);
        writer.tensor(&format!("{name}.lora_a"), TensorType::F16, &[shape[0], rank], a).expect("added");
        writer.tensor(&format!("{name}.lora_b"), TensorType::F16, &[rank, shape[1]], b).expect("added");
    }
    writer
}

/// The SplitMix64 generator: tests must not depend on a crate's stream of numbers.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Half-precision numbers of roughly normal distribution.
    fn halves(&mut self, n: usize, deviation: f32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n * 2);
        for _ in 0..n {
            let bits = self.next();
            let sum: f32 = (0..4).map(|i| ((bits >> (16 * i)) & 0xFFFF) as f32 / 65535.0).sum();
            let value = half::f16::from_f32((sum - 2.0) * 1.73 * deviation);
            bytes.extend(value.to_le_bytes());
        }
        bytes
    }
}
