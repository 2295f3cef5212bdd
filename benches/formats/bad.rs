//! Hostile inputs, each in a process of its own: refused or served, never a signal, never long, never large.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smoa::grammar::{Compiler, Source};

use crate::rows;
use crate::table::print;
use crate::tokens::Tokens;

/// Seconds of the clock after which a process is ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// What one input may take.
const CPU_MS: u64 = 1_000;
const MEMORY_MB: u64 = 200;

/// Runs the file. The first of the pair: all within bounds.
pub fn run(path: &Path) -> Result<(bool, Value), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let scratch = std::env::temp_dir().join(format!("smoa-bad-{}", std::process::id()));
    let mut table = Vec::new();
    let mut results = Vec::new();
    let mut good = true;
    for row in rows(path)? {
        let id = format!("{} {}", row["kind"].as_str().unwrap_or("?"), row["id"].as_str().unwrap_or("?"));
        let bytes = input(&row).ok_or_else(|| format!("{id}: no text, and 'gen' is not known"))?;
        std::fs::write(&scratch, &bytes).map_err(|error| error.to_string())?;
        let kind = row["kind"].as_str().unwrap_or("schema");
        let argument = format!("{kind}:{}", scratch.display());
        let mut child = Command::new(&program)
            .args(["--one", &argument])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break Some(status),
                None if begun.elapsed() > PATIENCE => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let mut output = String::new();
        if let Some(mut pipe) = child.stdout.take() {
            use std::io::Read;
            let _ = pipe.read_to_string(&mut output);
        }
        let report: Value = serde_json::from_str(output.trim()).unwrap_or(Value::Null);
        let outcome = match status {
            None => "HANGS".to_owned(),
            Some(status) if !status.success() || report.is_null() => format!("DIES: {status}"),
            Some(_) => report["outcome"].as_str().unwrap_or("?").to_owned(),
        };
        let (cpu, memory) = (report["cpu_ms"].as_u64().unwrap_or(0), report["peak_mb"].as_u64().unwrap_or(0));
        let fits = status.is_some_and(|s| s.success()) && !report.is_null() && cpu <= CPU_MS && memory <= MEMORY_MB;
        good &= fits;
        let short: String = outcome.chars().take(110).collect();
        let mark = if fits { "" } else { "**" };
        table.push(vec![format!("{mark}{id}{mark}"), cpu.to_string(), memory.to_string(), short]);
        results.push(json!({"id": id, "outcome": outcome, "cpu_ms": cpu, "peak_mb": memory, "within": fits}));
    }
    let _ = std::fs::remove_file(&scratch);
    print(&["input", "CPU ms", "peak MB", "outcome"], &table);
    println!(
        "\n{} of {} within {CPU_MS} ms of CPU and {MEMORY_MB} MB",
        results.iter().filter(|r| r["within"] == true).count(),
        results.len()
    );
    Ok((good, json!({"file": path.file_name().unwrap_or_default().to_string_lossy(), "rows": results})))
}

/// The input of a row: written out, in hexadecimal, or by the description of a large one.
fn input(row: &Value) -> Option<Vec<u8>> {
    if let Some(text) = row["text"].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    if let Some(hex) = row["text_hex"].as_str() {
        return (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()).collect();
    }
    let gbnf = row["kind"] == "gbnf";
    let made = match row["id"].as_str()?.split('_').next()? {
        "17" if gbnf => format!("root ::= {}\"a\"{}", "(".repeat(10_000), ")".repeat(10_000)),
        "17b" if gbnf => format!("root ::= {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000)),
        "18" if gbnf => {
            let rules: String = (0..100_000).map(|i| format!("r{i} ::= r{}\n", i + 1)).collect();
            format!("root ::= r0\n{rules}r100000 ::= \"a\"\n")
        }
        "24" if gbnf => {
            let words: Vec<String> = (0..100_000).map(|i| format!("\"w{i}\"")).collect();
            format!("root ::= {}", words.join(" | "))
        }
        "31" if gbnf => format!("root ::= {}", "\"a\"? ".repeat(200)),
        "32" if gbnf => format!("root ::= {}", "(\"a\"|\"b\")? ".repeat(400)),
        "35" if gbnf => {
            let rules: String =
                (1..250_000).map(|i| format!("x{i} ::= \"abcdefghij\" [a-z]+ | x{}\n", i - 1)).collect();
            format!("root ::= x249999\nx0 ::= \"a\"\n{rules}")
        }
        "12" => format!("{}{{}}{}", "{\"type\":\"array\",\"items\":".repeat(5_000), "}".repeat(5_000)),
        "12b" => format!("{}{{}}{}", "{\"items\":".repeat(100_000), "}".repeat(100_000)),
        "19" => {
            let values: Vec<String> = (0..500_000).map(|i| format!("\"value-number-{i:08}\"")).collect();
            format!("{{\"enum\":[{}]}}", values.join(","))
        }
        "28" => {
            let props: Vec<String> = (0..1_000).map(|i| format!("\"p{i}\":{{\"type\":\"string\"}}")).collect();
            format!("{{\"type\":\"object\",\"properties\":{{{}}}}}", props.join(","))
        }
        _ => return None,
    };
    Some(made.into_bytes())
}

/// One input in this process; prints what it took. `argument` is `KIND:FILE`.
pub fn one(argument: &str) -> Result<(), String> {
    let (kind, file) = argument.split_once(':').ok_or("--one needs KIND:FILE")?;
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let source = match (kind, String::from_utf8(bytes.clone())) {
        ("gbnf", _) => Source::gbnf(bytes),
        (_, Ok(text)) => Ok(Source::JsonSchema(text)),
        (_, Err(_)) => return Err("not UTF-8".to_owned()),
    };
    let compiler = Compiler::new(Tokens::load(None)?.vocabulary);
    // The index of the vocabulary is not the input's doing.
    compiler.compile(&Source::JsonSchema("{}".into())).map_err(|error| error.to_string())?;
    let before = cpu_ms();
    let outcome = match source.and_then(|source| compiler.compile(&source)) {
        Err(error) => format!("refused: {error}"),
        Ok(compiled) => walk(compiled.matcher()),
    };
    let report = json!({"outcome": outcome, "cpu_ms": cpu_ms().saturating_sub(before), "peak_mb": peak_mb()});
    println!("{report}");
    Ok(())
}

/// Follows the grammar for some tokens, chosen in turns from all over what is allowed.
fn walk(mut matcher: smoa::grammar::Matcher) -> String {
    for step in 0..60usize {
        let allowed: Vec<u32> = match matcher.mask() {
            Ok(mask) => mask.iter().collect(),
            Err(error) => return format!("served {step} tokens, then: {error}"),
        };
        let token = allowed[step * 7 % allowed.len()];
        if token == 256 {
            return format!("served, finished after {step} tokens");
        }
        if let Err(error) = matcher.accept(token) {
            return format!("served {step} tokens, then: {error}");
        }
    }
    "served 60 tokens".to_owned()
}

/// CPU time of this process so far, all threads, in milliseconds. From Linux's `/proc`; 0 elsewhere.
pub fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // User and system time, in hundredths of a second.
    (ticks(11) + ticks(12)) * 10
}

/// The most memory this process had, in MB.
pub fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}
