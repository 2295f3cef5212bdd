//! Counts over a conversation. Pure.

use super::screen::short;
use crate::event::Timings;

/// What all answers of this session took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    answers: usize,
    sum: Timings,
    /// Tokens that were generated after the first of an answer: those whose time is counted.
    timed: usize,
}

impl Totals {
    /// Adds an answer.
    pub fn add(&mut self, t: &Timings) {
        self.answers += 1;
        self.sum.cache_n += t.cache_n;
        self.sum.prompt_n += t.prompt_n;
        self.sum.prompt += t.prompt;
        self.sum.predicted_n += t.predicted_n;
        self.sum.predicted += t.predicted;
        self.timed += t.predicted_n.saturating_sub(1);
    }

    /// Two lines for `/stats`.
    pub fn lines(&self) -> [(&'static str, String); 2] {
        let s = &self.sum;
        let all = s.cache_n + s.prompt_n;
        let percent = (100 * s.cache_n).checked_div(all).unwrap_or(0);
        let read = format!(
            "{} tokens, {percent}% from the cache, the rest at {:.1} tokens/s",
            short(all),
            s.prompt_per_second()
        );
        let seconds = s.predicted.as_secs_f64();
        let rate = if seconds > 0.0 { self.timed as f64 / seconds } else { 0.0 };
        let said = format!("{} tokens in {} answers at {rate:.1} tokens/s", short(s.predicted_n), self.answers);
        [("read", read), ("generated", said)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn totals_are_sums_and_speeds_leave_out_first_tokens() {
        let mut totals = Totals::default();
        assert_eq!(totals.lines()[1].1, "0 tokens in 0 answers at 0.0 tokens/s");
        let second = Duration::from_secs(1);
        let t = Timings {
            cache_n: 50,
            prompt_n: 50,
            prompt: second,
            predicted_n: 11,
            predicted: second,
            ..Timings::default()
        };
        totals.add(&t);
        totals.add(&t);
        let [read, said] = totals.lines();
        assert_eq!(read.1, "200 tokens, 50% from the cache, the rest at 50.0 tokens/s");
        assert_eq!(said.1, "22 tokens in 2 answers at 10.0 tokens/s");
    }
}
