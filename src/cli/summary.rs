//! The dim line after an answer: which adapters, how many tokens, how fast.

use crate::pipeline::{Answer, Applied};

/// One line about an answer.
pub fn line(answer: &Answer, adapters: &[Applied]) -> String {
    let t = &answer.finished.timings;
    let who = match adapters {
        [] => "base model".to_string(),
        some => some.iter().map(|a| weighted(&a.name, a.scale)).collect::<Vec<_>>().join(" + "),
    };
    let cached = if t.cache_n > 0 { format!(" ({} cached)", t.cache_n) } else { String::new() };
    let prompt = t.cache_n + t.prompt_n;
    format!(
        "{who} | {prompt} tokens read{cached} | {} generated | {:.1} tokens/s",
        t.predicted_n,
        t.predicted_per_second()
    )
}

fn weighted(name: &str, scale: f32) -> String {
    if scale == 1.0 { name.to_string() } else { format!("{name}={scale}") }
}
