//! GBNF measured and compared. `scripts/bench/formats_gbnf.sh` calls it.
//!
//!   --gbnf FILE.jsonl       texts that grammars must accept and refuse
//!   --agree N               N pairs of random grammar and text, against llama.cpp's grammar sampler; wants --model
//!   --masks                 time of masks in the ready formats, on walks of their own; texts given by --texts join in
//!   --texts FORMAT FILE     a file of JSON lines: strings that have FORMAT (repeatable)
//!   --fuzz N                N grammars made by chance and by damage, each compiled and run
//!   --seed N                other pairs (--agree) or grammars (--fuzz)
//!   --model FILE.gguf       whose tokens to use (else single bytes)
//!   --json FILE             the results as JSON too
//!
//! llama.cpp's grammar code runs here and in no other place of this project, and only on grammars that are safe for it.

#[path = "gbnf/agree.rs"]
mod agree;
#[path = "gbnf/cases.rs"]
mod cases;
#[path = "gbnf/fuzz.rs"]
mod fuzz;
#[path = "gbnf/masks.rs"]
mod masks;
#[path = "gbnf/random.rs"]
mod random;
#[path = "gbnf/tokens.rs"]
mod tokens;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value};

/// What was asked for on the command line.
#[derive(Default)]
pub struct Options {
    gbnf: Option<PathBuf>,
    agree: Option<u64>,
    masks: bool,
    texts: Vec<(String, PathBuf)>,
    fuzz: Option<u64>,
    seed: u64,
    model: Option<PathBuf>,
    json: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut found = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--gbnf" => found.gbnf = Some(value()?.into()),
            "--agree" => found.agree = Some(value()?.parse().map_err(|_| "--agree needs a number")?),
            "--masks" => found.masks = true,
            "--texts" => {
                let format = value()?;
                found.texts.push((format, value()?.into()));
            }
            "--fuzz" => found.fuzz = Some(value()?.parse().map_err(|_| "--fuzz needs a number")?),
            "--seed" => found.seed = value()?.parse().map_err(|_| "--seed needs a number")?,
            "--model" => found.model = Some(value()?.into()),
            "--json" => found.json = Some(value()?.into()),
            "--bench" => {} // cargo says so
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(found)
}

fn run() -> Result<bool, String> {
    let options = options()?;
    let mut good = true;
    let mut results = Map::new();
    let mut note = |name: &str, (passed, result): (bool, Value)| {
        good &= passed;
        results.insert(name.to_owned(), result);
    };
    if let Some(file) = &options.gbnf {
        note("gbnf", cases::run(file)?);
    }
    if let Some(pairs) = options.agree {
        let model = options.model.as_deref().ok_or("--agree wants --model: llama.cpp needs a vocabulary")?;
        note("agree", agree::run(model, pairs, options.seed)?);
    }
    if options.masks {
        note("masks", masks::run(&options)?);
    }
    if let Some(count) = options.fuzz {
        note("fuzz", fuzz::run(count, options.seed));
    }
    if results.is_empty() {
        println!("gbnf: nothing asked for; see scripts/bench/formats_gbnf.sh --help");
    }
    if let Some(path) = &options.json {
        let text = Value::Object(results).to_string() + "\n";
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(good)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("gbnf: {message}");
            ExitCode::from(2)
        }
    }
}

/// The rows of a file of JSON lines.
pub fn rows(path: &Path) -> Result<Vec<Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| format!("{} line {}: {error}", path.display(), index + 1))
        })
        .collect()
}
