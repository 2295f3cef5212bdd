//! The dim line after an answer: which adapters, how many tokens, how fast.

use crate::event::Finished;
use crate::pipeline::{Answer, Applied, Compositions};
use crate::router::Route;

/// One line about an answer.
pub fn line(answer: &Answer, adapters: &[Applied]) -> String {
    let t = &answer.finished.timings;
    let who = self::adapters(adapters);
    let cached = if t.cache_n > 0 { format!(" ({} cached)", t.cache_n) } else { String::new() };
    let prompt = t.cache_n + t.prompt_n;
    format!(
        "{who} | {prompt} tokens read{cached} | {} generated | {:.1} tokens/s",
        t.predicted_n,
        t.predicted_per_second()
    )
}

/// The adapters of an answer.
pub fn adapters(adapters: &[Applied]) -> String {
    match adapters {
        [] => "base model".to_string(),
        some => some.iter().map(|a| weighted(&a.name, a.scale)).collect::<Vec<_>>().join(" + "),
    }
}

/// One line about a decision.
pub fn route(route: &Route) -> String {
    format!("route ({}, confidence {:.2}): {}", route.strategy, route.confidence, route.reason)
}

/// What compositions came to, a line each.
pub fn compositions(compositions: &Compositions, finished: &Finished) -> Vec<String> {
    let weighed = compositions.weighed.iter().filter(|w| w.equally.is_none()).map(|w| {
        let parts: Vec<String> = w.parts.iter().map(|(name, share)| format!("{name} {share:.3}")).collect();
        format!("{} by route: {}", w.composition, parts.join(", "))
    });
    let later = compositions.stages.iter().skip(1).zip(&finished.crossed).map(|(stage, from)| {
        let marker = stage.marker.as_deref().unwrap_or_default().escape_debug();
        match from {
            Some(from) => format!("{} from token {from} on, after '{marker}'", adapters(&stage.adapters)),
            None => format!("'{marker}' did not come: {} did not take over", adapters(&stage.adapters)),
        }
    });
    weighed.chain(later).collect()
}

/// A decision with its candidates.
pub fn route_lines(route: &Route) -> Vec<String> {
    let chosen: Vec<String> = route.adapters.iter().map(|a| weighted(&a.name, a.weight)).collect();
    let chosen = if chosen.is_empty() { "base model".to_owned() } else { chosen.join(" + ") };
    let mut lines =
        vec![format!("{chosen}  ({}, confidence {:.2})", route.strategy, route.confidence), route.reason.clone()];
    lines.extend(route.candidates.iter().map(|c| {
        let e = &c.evidence;
        let learned = e.learned.map_or(String::new(), |log| format!("  learned {:.3}", log.exp()));
        format!("  {:<32} score {:>7.3}  meaning {:.3}  words {:.3}{learned}", c.name, c.score, e.semantic, e.keyword)
    }));
    lines
}

fn weighted(name: &str, scale: f32) -> String {
    if scale == 1.0 { name.to_string() } else { format!("{name}={scale}") }
}
