//! Counters, and how Prometheus reads them. llama-server's names, and ours with `smoa_`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::seats::Seats;
use crate::event::Timings;
use crate::scheduler::counts::Reading;

/// Adapters told apart; the rest counts as one.
const MAX_LABELS: usize = 256;
/// Samples kept for the page's plots.
const HISTORY: usize = 240;

/// What has happened since the start.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    started_at: u64,
    counts: Mutex<Counts>,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    prompt: u64,
    cached: u64,
    prompt_time: Duration,
    predicted: u64,
    predicted_time: Duration,
    largest: u64,
    queued: Duration,
    drafts: u64,
    drafted: u64,
    accepted: u64,
    answers: BTreeMap<&'static str, u64>,
    statuses: BTreeMap<u16, u64>,
    adapters: BTreeMap<String, u64>,
    /// Since the last scrape.
    recent: Recent,
    routes: u64,
    route_time: Duration,
    /// Decisions of the router, newest last: seconds since the start, seconds it took.
    route_history: std::collections::VecDeque<(f64, f64)>,
    /// Finished answers, newest last: seconds since the start, tokens per second, milliseconds to the first token.
    history: std::collections::VecDeque<(f64, f64, f64)>,
}

#[derive(Clone, Debug, Default)]
struct Recent {
    prompt: u64,
    prompt_time: Duration,
    predicted: u64,
    predicted_time: Duration,
}

impl Default for Metrics {
    fn default() -> Self {
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { started: Instant::now(), started_at, counts: Mutex::default() }
    }
}

impl Metrics {
    /// Seconds since 1970 when the server began.
    pub fn started_at(&self) -> u64 {
        self.started_at
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// An answer is complete.
    pub fn answered(&self, t: &Timings, reason: &'static str, adapters: &[String]) {
        let mut c = self.lock();
        c.prompt += t.prompt_n as u64;
        c.cached += t.cache_n as u64;
        c.prompt_time += t.prompt;
        // The first token comes with the prompt: rates are over the steps after it.
        c.predicted += t.predicted_n as u64;
        c.predicted_time += t.predicted;
        c.queued += t.queued;
        c.drafts += t.drafts as u64;
        c.drafted += t.draft_n as u64;
        c.accepted += t.draft_n_accepted as u64;
        c.largest = c.largest.max((t.cache_n + t.prompt_n + t.predicted_n) as u64);
        c.recent.prompt += t.prompt_n as u64;
        c.recent.prompt_time += t.prompt;
        c.recent.predicted += t.predicted_n.saturating_sub(1) as u64;
        c.recent.predicted_time += t.predicted;
        *c.answers.entry(reason).or_default() += 1;
        for name in adapters {
            let known = c.adapters.contains_key(name) || c.adapters.len() < MAX_LABELS;
            let label = if known { name.clone() } else { "(others)".into() };
            *c.adapters.entry(label).or_default() += 1;
        }
        let at = self.started.elapsed().as_secs_f64();
        let first = (t.queued + t.prompt).as_secs_f64() * 1e3;
        let sample = (at, t.predicted_per_second(), first);
        if c.history.len() == HISTORY {
            c.history.pop_front();
        }
        c.history.push_back(sample);
    }

    /// The router chose adapters.
    pub fn routed(&self, took: Duration) {
        let mut c = self.lock();
        c.routes += 1;
        c.route_time += took;
        if c.route_history.len() == HISTORY {
            c.route_history.pop_front();
        }
        let sample = (self.started.elapsed().as_secs_f64(), took.as_secs_f64());
        c.route_history.push_back(sample);
    }

    /// Texts were made vectors: so many tokens were read.
    pub fn encoded(&self, tokens: usize, took: Duration) {
        let mut c = self.lock();
        c.prompt += tokens as u64;
        c.prompt_time += took;
        c.recent.prompt += tokens as u64;
        c.recent.prompt_time += took;
    }

    /// A response was sent.
    pub fn responded(&self, status: u16) {
        *self.lock().statuses.entry(status).or_default() += 1;
    }

    /// The text of `/metrics`. Rates are over the time since the last call. `context`: the tokens it holds.
    pub fn text(&self, seats: &Seats, engine: &Reading, context: usize, vllm: Option<&str>) -> String {
        let (busy, waiting) = seats.counts();
        let mut c = self.lock();
        let recent = std::mem::take(&mut c.recent);
        let rate = |n: u64, t: Duration| if t.is_zero() { 0.0 } else { n as f64 / t.as_secs_f64() };
        let mut out = String::new();
        let mut metric = |kind: &str, name: &str, help: &str, values: &[(String, f64)]| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, v) in values {
                let _ = writeln!(out, "{name}{labels} {v}");
            }
        };
        let one = |v: f64| vec![(String::new(), v)];
        let secs = |d: Duration| one(d.as_secs_f64());
        for (name, help, value) in [
            ("llamacpp:prompt_tokens_total", "Number of prompt tokens processed.", one(c.prompt as f64)),
            ("llamacpp:prompt_tokens_cached_total", "Number of prompt tokens reused from cache.", one(c.cached as f64)),
            ("llamacpp:prompt_seconds_total", "Prompt process time", secs(c.prompt_time)),
            ("llamacpp:tokens_predicted_total", "Number of generation tokens processed.", one(c.predicted as f64)),
            ("llamacpp:tokens_predicted_seconds_total", "Predict process time", secs(c.predicted_time)),
            ("llamacpp:n_tokens_max", "Largest observed n_tokens.", one(c.largest as f64)),
            ("llamacpp:n_decode_total", "Total number of llama_decode() calls", one(engine.steps as f64)),
            ("llamacpp:spec_decode_num_draft_tokens_total", "Number of draft tokens.", one(c.drafted as f64)),
            (
                "llamacpp:spec_decode_num_accepted_tokens_total",
                "Number of accepted draft tokens.",
                one(c.accepted as f64),
            ),
            ("llamacpp:spec_decode_num_drafts_total", "Number of drafts.", one(c.drafts as f64)),
            ("smoa_rows_total", "Rows of all steps of the engine.", one(engine.rows as f64)),
            ("smoa_routes_total", "Decisions of the router.", one(c.routes as f64)),
            ("smoa_route_seconds_total", "Time they took.", secs(c.route_time)),
            ("smoa_queue_seconds_total", "Time answers waited for a free sequence.", secs(c.queued)),
        ] {
            metric("counter", name, help, &value);
        }
        let predicted = rate(recent.predicted, recent.predicted_time);
        for (name, help, value) in [
            (
                "llamacpp:prompt_tokens_seconds",
                "Average prompt throughput in tokens/s.",
                rate(recent.prompt, recent.prompt_time),
            ),
            ("llamacpp:predicted_tokens_seconds", "Average generation throughput in tokens/s.", predicted),
            ("llamacpp:requests_processing", "Number of requests processing.", busy as f64),
            ("llamacpp:requests_deferred", "Number of requests deferred.", waiting as f64),
            (
                "llamacpp:n_busy_slots_per_decode",
                "Average number of busy slots per llama_decode() call",
                if engine.steps == 0 { 0.0 } else { engine.busy as f64 / engine.steps as f64 },
            ),
            ("smoa_context_used_ratio", "Share of the context that running answers hold.", used(engine, context)),
            ("smoa_uptime_seconds", "Time since the start.", self.started.elapsed().as_secs_f64()),
        ] {
            metric("gauge", name, help, &one(value));
        }
        let labelled = |label: &str, map: Vec<(String, u64)>| -> Vec<(String, f64)> {
            map.into_iter().map(|(k, v)| (format!("{{{label}=\"{}\"}}", escape(&k)), v as f64)).collect()
        };
        let answers = labelled("reason", c.answers.iter().map(|(k, v)| ((*k).to_string(), *v)).collect());
        if !engine.accepted.is_empty() {
            let positions = engine.accepted.iter().enumerate();
            let positions: Vec<(String, f64)> =
                positions.map(|(at, n)| (format!("{{position=\"{at}\"}}"), *n as f64)).collect();
            let name = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total";
            metric("counter", name, "Number of accepted draft tokens by position.", &positions);
        }
        metric("counter", "smoa_answers_total", "Answers by how they ended.", &answers);
        let statuses = labelled("status", c.statuses.iter().map(|(k, v)| (k.to_string(), *v)).collect());
        metric("counter", "smoa_responses_total", "HTTP responses by status.", &statuses);
        let adapters = labelled("adapter", c.adapters.iter().map(|(k, v)| (k.clone(), *v)).collect());
        metric("counter", "smoa_adapter_answers_total", "Answers by adapter.", &adapters);
        if let Some(model) = vllm {
            let labels = |v: f64| vec![(format!("{{model_name=\"{}\"}}", escape(model)), v)];
            metric("gauge", "vllm:num_requests_running", "Requests being answered.", &labels(busy as f64));
            metric("gauge", "vllm:num_requests_waiting", "Requests that wait.", &labels(waiting as f64));
            metric(
                "gauge",
                "vllm:kv_cache_usage_perc",
                "Share of the cache in use; 1 is all of it.",
                &labels(used(engine, context)),
            );
            let (running, queued) = seats.adapters();
            let labels = format!(
                "{{max_lora=\"{}\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"}}",
                seats.len(),
                escape(&running.join(",")),
                escape(&queued.join(","))
            );
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            metric("gauge", "vllm:lora_requests_info", "Adapters in use and waited for.", &[(labels, now)]);
        }
        out
    }

    /// What the page's dashboard shows.
    pub fn summary(&self, seats: &Seats) -> Value {
        let c = self.lock();
        let (busy, waiting) = seats.counts();
        json!({
            "uptime_s": self.started.elapsed().as_secs_f64(),
            "busy": busy,
            "waiting": waiting,
            "prompt_tokens": c.prompt,
            "cached_tokens": c.cached,
            "predicted_tokens": c.predicted,
            "predicted_seconds": c.predicted_time.as_secs_f64(),
            "answers": c.answers,
            "adapters": c.adapters,
            "history": c.history,
            "routes": {"count": c.routes, "seconds": c.route_time.as_secs_f64(), "history": c.route_history},
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The share of the context that running answers hold; prefixes that they share may make it too large.
pub fn used(engine: &Reading, context: usize) -> f64 {
    (engine.cells as f64 / context.max(1) as f64).min(1.0)
}

/// A label's value as Prometheus wants it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_help_type_and_value_of_each() {
        let m = Metrics::default();
        let t = Timings {
            cache_n: 2,
            prompt_n: 3,
            predicted_n: 5,
            predicted: Duration::from_secs(2),
            drafts: 1,
            draft_n: 2,
            draft_n_accepted: 1,
            ..Timings::default()
        };
        m.answered(&t, "stop", &["a\"b".into()]);
        m.responded(200);
        let seats = Seats::default();
        let text = m.text(&seats, &Reading { cells: 1, accepted: vec![1, 0], ..Reading::default() }, 4, Some("base"));
        for line in [
            "llamacpp:prompt_tokens_total 3",
            "llamacpp:prompt_tokens_cached_total 2",
            "llamacpp:tokens_predicted_total 5",
            "llamacpp:predicted_tokens_seconds 2",
            "llamacpp:spec_decode_num_drafts_total 1",
            "llamacpp:spec_decode_num_draft_tokens_total 2",
            "llamacpp:spec_decode_num_accepted_tokens_total 1",
            "llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position=\"0\"} 1",
            "smoa_adapter_answers_total{adapter=\"a\\\"b\"} 1",
            "smoa_responses_total{status=\"200\"} 1",
            "vllm:num_requests_running{model_name=\"base\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(
            m.text(&seats, &Reading::default(), 1, None).contains("llamacpp:predicted_tokens_seconds 0\n"),
            "averages begin anew"
        );
        let names = text.lines().filter(|l| l.starts_with("# TYPE")).count();
        assert_eq!(names, text.lines().filter(|l| l.starts_with("# HELP")).count());
    }

    #[test]
    fn labels_are_bounded() {
        let m = Metrics::default();
        for n in 0..MAX_LABELS + 50 {
            m.answered(&Timings::default(), "stop", &[format!("a{n}")]);
        }
        assert_eq!(m.lock().adapters.len(), MAX_LABELS + 1);
        assert_eq!(m.lock().adapters["(others)"], 50);
    }
}
