//! What masks cost in the ready formats: first and repeated, compiled anew and shared.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use smoa::grammar::{Compiled, Compiler, MatchResult, Source, Vocabulary, format_names};

use super::Options;
use super::random::Random;
use super::tokens::Tokens;

/// Answers walked per format where no texts are given.
const WALKS: usize = 12;
/// Tokens of a walk.
const LENGTH: usize = 120;

pub fn run(options: &Options) -> Result<(bool, Value), String> {
    let tokens = Tokens::load(options.model.as_deref())?;
    println!("masks: {}", tokens.what);
    // The trie over the vocabulary is built once per model, at first use.
    let start = Instant::now();
    let warm = Compiler::new(tokens.vocabulary.clone()).compile(&Source::Named("yes-no".to_owned()));
    warm.map_err(|error| error.to_string())?.matcher().mask().map_err(|error| error.to_string())?;
    println!("  first use of the vocabulary {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let mut results = Map::new();
    let mut all = Times::default();
    for name in format_names() {
        let mut times = Times::default();
        let start = Instant::now();
        let compiler = Compiler::new(tokens.vocabulary.clone());
        let compiled = compiler.compile(&Source::Named((*name).to_owned())).map_err(|error| error.to_string())?;
        let compile = start.elapsed();
        let mut answers: Vec<Vec<u32>> = Vec::new();
        for (_, file) in options.texts.iter().filter(|(format, _)| format == name) {
            let texts = super::rows(file)?;
            let texts = texts.iter().filter_map(Value::as_str);
            answers.extend(
                texts
                    .filter(|text| compiled.matches(text.as_bytes()) == Ok(MatchResult::Complete))
                    .filter_map(|text| tokens.cut(text)),
            );
        }
        if answers.is_empty() {
            let mut random = Random(0x5EED_3001);
            answers = (0..WALKS).map(|_| walk(&compiled, &tokens.vocabulary, &mut random)).collect::<Result<_, _>>()?;
        }
        for answer in &answers {
            // As for a request with a grammar never seen before: nothing is shared with earlier answers.
            let fresh = Compiler::new(tokens.vocabulary.clone()).compile(&Source::Named((*name).to_owned()));
            time(&*fresh.map_err(|error| error.to_string())?, answer, &mut times.fresh, &mut Vec::new())?;
            time(&compiled, answer, &mut times.shared, &mut times.accept)?;
        }
        println!("  {name}: compiled in {:.2} ms, {} answers", compile.as_secs_f64() * 1e3, answers.len());
        let result = times.report();
        results.insert((*name).to_owned(), json!({"compile_ms": compile.as_secs_f64() * 1e3, "times_us": result}));
        all.extend(times);
    }
    println!("  all formats:");
    let total = all.report();
    let good = total["fresh"]["p50"].as_f64() <= Some(300.0) && total["fresh"]["p99"].as_f64() <= Some(3000.0);
    results.insert("all".to_owned(), total);
    Ok((good, Value::Object(results)))
}

/// A random answer along the masks.
fn walk(compiled: &Compiled, vocabulary: &Vocabulary, random: &mut Random) -> Result<Vec<u32>, String> {
    let mut matcher = compiled.matcher();
    let mut answer = Vec::new();
    while answer.len() < LENGTH && !matcher.must_stop() {
        let allowed: Vec<u32> = matcher.mask().map_err(|error| error.to_string())?.iter().collect();
        let token = allowed[random.below(allowed.len())];
        if vocabulary.is_end(token) {
            break;
        }
        matcher.accept(token).map_err(|error| error.to_string())?;
        answer.push(token);
    }
    Ok(answer)
}

fn time(
    compiled: &Compiled,
    answer: &[u32],
    masks: &mut Vec<Duration>,
    accepts: &mut Vec<Duration>,
) -> Result<(), String> {
    let mut matcher = compiled.matcher();
    for &token in answer {
        let start = Instant::now();
        std::hint::black_box(matcher.mask().map_err(|error| error.to_string())?.words());
        masks.push(start.elapsed());
        let start = Instant::now();
        matcher.allows(token).and_then(|_| matcher.accept(token)).map_err(|error| error.to_string())?;
        accepts.push(start.elapsed());
    }
    Ok(())
}

#[derive(Default)]
struct Times {
    fresh: Vec<Duration>,
    shared: Vec<Duration>,
    accept: Vec<Duration>,
}

impl Times {
    fn extend(&mut self, other: Times) {
        self.fresh.extend(other.fresh);
        self.shared.extend(other.shared);
        self.accept.extend(other.accept);
    }

    fn report(&mut self) -> Value {
        let mut result = Map::new();
        for (name, times) in [("fresh", &mut self.fresh), ("shared", &mut self.shared), ("accept", &mut self.accept)] {
            if times.is_empty() {
                continue;
            }
            times.sort_unstable();
            let micros = |time: Duration| time.as_secs_f64() * 1e6;
            let at = |share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
            let average = times.iter().copied().map(micros).sum::<f64>() / times.len() as f64;
            println!(
                "    {name:<7} n {:<6} average {average:8.1}  p50 {:8.1}  p95 {:8.1}  p99 {:8.1}  max {:8.1} us",
                times.len(),
                at(0.5),
                at(0.95),
                at(0.99),
                at(1.0)
            );
            result.insert(name.to_owned(), json!({"n": times.len(), "average": average, "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)}));
        }
        Value::Object(result)
    }
}
