//! Schemas made by chance: compiled, and what they accept held against an independent validator. Nothing may panic,
//! take long, or be accepted that is not valid.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smoa::grammar::{Compiler, MatchResult, Source, Vocabulary};

use crate::bad::peak_mb;
use crate::random::Chance;

/// No schema may take longer, in a process that has a core for itself.
const LONGEST: Duration = Duration::from_secs(1);

/// Runs `count` schemas. The first of the pair: nothing was found.
pub fn run(count: u64, seed: u64) -> Result<(bool, Value), String> {
    let mut pieces: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    pieces.push(Vec::new());
    let control = (0..257).map(|id| id == 256).collect();
    let compiler = Compiler::new(Arc::new(Vocabulary::new(pieces, control, vec![256])));
    let mut chance = Chance(0x5EED_F00D + (seed << 32));
    let (mut compiled_ones, mut checked, mut valid_ones, mut accepted, mut wrong, mut slow) = (0, 0, 0, 0, 0, 0u64);
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    for round in 0..count {
        let schema = chance.schema(1 + (round % 3) as usize);
        let text = match round % 4 {
            3 => damage(&mut chance, schema.to_string()),
            _ => schema.to_string(),
        };
        let started = Instant::now();
        let compiled = compiler.compile(&Source::JsonSchema(text.clone()));
        let took = started.elapsed();
        longest = longest.max(took);
        if took > LONGEST {
            slow += 1;
            println!("slow ({} ms): {text}", took.as_millis());
        }
        let (Ok(compiled), Ok(schema)) = (compiled, serde_json::from_str::<Value>(&text)) else { continue };
        compiled_ones += 1;
        let options = jsonschema::options().offline().should_validate_formats(true);
        let Ok(validator) = options.build(&schema) else { continue };
        for _ in 0..6 {
            let value = chance.value(2);
            let valid = validator.is_valid(&value);
            let accepts = compiled.matches(value.to_string().as_bytes()) == Ok(MatchResult::Complete);
            checked += 1;
            valid_ones += u64::from(valid);
            accepted += u64::from(valid && accepts);
            if accepts && !valid {
                wrong += 1;
                println!("INVALID ACCEPTED: {value} by {text}");
            }
        }
        if round % 100_000 == 99_999 {
            println!("{} schemas, {:.0} s, {} MB", round + 1, begun.elapsed().as_secs_f64(), peak_mb());
        }
    }
    println!(
        "{count} schemas in {:.0} s: {compiled_ones} compile; {checked} values, {valid_ones} valid, {accepted} of these \
         accepted; {wrong} invalid accepted; {slow} over {} s, longest {} ms; peak {} MB",
        begun.elapsed().as_secs_f64(),
        LONGEST.as_secs(),
        longest.as_millis(),
        peak_mb()
    );
    let result = json!({
        "schemas": count, "compiled": compiled_ones, "values": checked, "valid": valid_ones, "accepted": accepted,
        "invalid_accepted": wrong, "slow": slow, "longest_ms": longest.as_millis() as u64, "peak_mb": peak_mb(),
    });
    Ok((wrong == 0 && slow == 0, result))
}

/// The text with some bytes moved, doubled, left out or replaced.
fn damage(chance: &mut Chance, text: String) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..1 + chance.below(3) {
        let at = chance.below(chars.len());
        match chance.below(4) {
            0 => drop(chars.remove(at)),
            1 => chars.insert(at, chars[at]),
            2 => chars[at] = ['"', '{', '}', '[', ']', ':', ',', '9', '\\', 'é', '$', '#'][chance.below(12)],
            _ => {
                let end = (at + 1 + chance.below(12)).min(chars.len());
                let piece: Vec<char> = chars[at..end].to_vec();
                let to = chance.below(chars.len());
                chars.splice(to..to, piece);
            }
        }
        if chars.is_empty() {
            break;
        }
    }
    chars.into_iter().collect()
}
