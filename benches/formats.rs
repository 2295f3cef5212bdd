//! Formats measured on files of schemas and of hostile inputs. `scripts/bench/formats.sh` calls it.
//!
//!   --coverage FILE.jsonl   what is accepted and refused of schemas with instances, per subset
//!   --bad FILE.jsonl        hostile inputs, each in a process of its own
//!   --fuzz N                N schemas made by chance and by damage
//!   --seed N                other schemas (--fuzz)
//!   --model FILE.gguf       whose tokens to use (else single bytes)
//!   --json FILE             the results as JSON too
//!   --key-order any|schema  in which order keys come (with --coverage)
//!   --show                  list what was refused or judged wrongly

#[path = "formats/bad.rs"]
mod bad;
#[path = "formats/coverage.rs"]
mod coverage;
#[path = "formats/fuzz.rs"]
mod fuzz;
#[path = "../src/grammar/schema/tests/random.rs"]
mod random;
#[path = "formats/table.rs"]
mod table;
#[path = "formats/tokens.rs"]
mod tokens;

use std::path::PathBuf;
use std::process::ExitCode;

use smoa::grammar::KeyOrder;

/// What was asked for on the command line.
#[derive(Default)]
pub struct Options {
    coverage: Option<PathBuf>,
    bad: Option<PathBuf>,
    /// One hostile input, in this process.
    one: Option<String>,
    fuzz: Option<u64>,
    seed: u64,
    model: Option<PathBuf>,
    json: Option<PathBuf>,
    show: bool,
    order: KeyOrder,
}

fn options() -> Result<Options, String> {
    let mut found = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--coverage" => found.coverage = Some(value()?.into()),
            "--bad" => found.bad = Some(value()?.into()),
            "--one" => found.one = Some(value()?),
            "--fuzz" => found.fuzz = Some(value()?.parse().map_err(|_| "--fuzz needs a number")?),
            "--seed" => found.seed = value()?.parse().map_err(|_| "--seed needs a number")?,
            "--model" => found.model = Some(value()?.into()),
            "--json" => found.json = Some(value()?.into()),
            "--key-order" => match value()?.as_str() {
                "any" => found.order = KeyOrder::Any,
                "schema" => found.order = KeyOrder::Schema,
                _ => return Err("--key-order: any or schema".to_owned()),
            },
            "--show" => found.show = true,
            "--bench" => {} // cargo says so
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(found)
}

fn run() -> Result<bool, String> {
    let options = options()?;
    let (good, result) = match &options {
        Options { coverage: Some(file), .. } => coverage::run(file, &options)?,
        Options { bad: Some(file), .. } => bad::run(file)?,
        Options { one: Some(id), .. } => return bad::one(id).map(|()| true),
        Options { fuzz: Some(count), .. } => fuzz::run(*count, options.seed)?,
        _ => {
            println!("formats: nothing asked for; see scripts/bench/formats.sh --help");
            return Ok(true);
        }
    };
    if let Some(path) = &options.json {
        std::fs::write(path, result.to_string() + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(good)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("formats: {message}");
            ExitCode::from(2)
        }
    }
}

/// The rows of a file of JSON lines.
pub fn rows(path: &std::path::Path) -> Result<Vec<serde_json::Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| format!("{} line {}: {error}", path.display(), index + 1))
        })
        .collect()
}
