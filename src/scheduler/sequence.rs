//! One request's way from its first prompt token to its last event.

mod drafts;

use std::time::{Duration, Instant};

use super::borders::Borders;
use super::draft::Drafter;
use super::{Job, Shift};
use crate::adapter::Timeline;
use crate::decode::TextStream;
use crate::engine::{EngineError, Sampler, Token, Tokenizer, VIRTUAL};
use crate::error::{Code, Failure};
use crate::event::{Candidate, Event, FinishReason, Finished, Timings, TokenEvent, TokenProbability};
use crate::grammar::Matcher;
use crate::grammar::policy::{self, ChooseError, Forward, Order};
use crate::prompt::Prompt;

/// A request that holds a slot.
pub(super) struct Running {
    /// As submitted. Its `prompt` has moved into `tokens`.
    pub(super) job: Job,
    /// Prompt and answer so far.
    pub(super) tokens: Vec<Token>,
    /// Order of admission.
    pub(super) admitted: u64,
    /// The step it was last part of.
    pub(super) served: u64,
    /// Set aside until another request ends, because the cache had no room for both.
    pub(super) paused: bool,
    sampler: Box<dyn Sampler>,
    /// Where its adapters change.
    borders: Borders,
    drafter: Drafter,
    /// Guessed tokens that the step under way evaluates after all of `tokens`.
    draft: Vec<Token>,
    /// How many tokens there were when they were guessed.
    drafted_at: usize,
    /// Drafts, their tokens, and those that were right, the draft of the step under way aside.
    drafted: (usize, usize, usize),
    text: TextStream,
    prompt_len: usize,
    reused: usize,
    generated: usize,
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// What follows from a new token.
pub(super) enum Next {
    /// The token is to be evaluated.
    Continue,
    /// The request has ended and its last event is sent.
    Ended,
}

impl Running {
    pub(super) fn new(mut job: Job, mut sampler: Box<dyn Sampler>, reused: usize, admitted: u64) -> Self {
        let tokens = std::mem::take(&mut job.prompt);
        // Penalties count the prompt too, as llama-server's do.
        tokens.iter().filter(|t| **t < VIRTUAL).for_each(|t| sampler.accept(*t));
        Self {
            borders: Borders::new(&job.lease.borders),
            drafter: Drafter::default(),
            draft: Vec::new(),
            drafted_at: 0,
            drafted: (0, 0, 0),
            text: TextStream::new(&job.limits.stop),
            prompt_len: tokens.len(),
            reused,
            generated: 0,
            tokens,
            admitted,
            served: admitted,
            paused: false,
            sampler,
            job,
            started: None,
            first: None,
            last: None,
        }
    }

    /// Whether the prompt is still being read.
    pub(super) fn in_prefill(&self) -> bool {
        self.first.is_none()
    }

    /// Notes that a step holds rows of this request.
    pub(super) fn begin_step(&mut self, step: u64) {
        self.served = step;
        self.started.get_or_insert_with(Instant::now);
    }

    /// Chooses the next token from `logits` and says what follows. `context` is the most tokens a sequence can hold. `sets`
    /// are those of the sequence's positions: they change where a border is crossed.
    pub(super) fn advance(
        &mut self,
        logits: &[f32],
        tokenizer: &dyn Tokenizer,
        context: usize,
        can_shift: bool,
        sets: &mut Timeline,
    ) -> Next {
        if self.job.limits.max_tokens == Some(0) {
            // Only the cache was to be filled.
            self.note_time();
            return self.finish(FinishReason::Length, None, TokenEvent::default());
        }
        let order = match self.job.sampling.commutes_with_masks() {
            true => Order::CandidateFirst,
            false => Order::MaskFirst,
        };
        let budget = self.budget(context, can_shift);
        let token = match choose(&mut *self.sampler, self.job.matcher.as_mut(), order, budget, logits) {
            Ok(token) => token,
            Err(failure) => return self.fail(failure),
        };
        self.note_time();
        let probabilities = self.probabilities(logits, token, tokenizer);
        if tokenizer.is_end(token) {
            let out = self.text.push(&self.shown(token, tokenizer, true));
            let reason = if out.stopped.is_some() { FinishReason::StopString } else { FinishReason::Stop };
            return self.finish(reason, out.stopped, TokenEvent { text: out.text, tokens: vec![token], probabilities });
        }
        if let Some(matcher) = &mut self.job.matcher
            && let Err(e) = matcher.accept(token)
        {
            return self.fail(unenforced(&e));
        }
        let mut bytes = self.shown(token, tokenizer, false);
        let mut tokens = vec![token];
        match self.forward(token, budget, tokenizer) {
            // The chosen token may be part of a longer one now; it has not been evaluated yet.
            Ok(Some(forward)) => {
                tokens.truncate(tokens.len() - forward.replace);
                tokens.extend(forward.tokens);
                bytes.extend(forward.text);
            }
            Ok(None) => (),
            Err(failure) => return self.fail(failure),
        }
        self.cross_borders(&tokens, tokenizer, sets);
        self.generated += tokens.len();
        for token in &tokens {
            self.tokens.push(*token);
            self.sampler.accept(*token);
        }
        let out = self.text.push(&bytes);
        let event = TokenEvent { text: out.text, tokens, probabilities };
        if out.stopped.is_some() {
            return self.finish(FinishReason::StopString, out.stopped, event);
        }
        if let Some(reason) = self.limit(context, can_shift) {
            return self.finish(reason, None, event);
        }
        if self.job.events.send(Event::Token(event)).is_err() {
            self.job.cancel.cancel();
        }
        Next::Continue
    }

    /// Notes where in these tokens, which come next and are not evaluated yet, another set begins to apply.
    fn cross_borders(&mut self, tokens: &[Token], tokenizer: &dyn Tokenizer, sets: &mut Timeline) {
        if self.borders.is_done() {
            return;
        }
        // The bytes that formats after markers see too: those of control tokens are among them.
        let vocabulary = tokenizer.vocabulary();
        for (at, token) in tokens.iter().enumerate() {
            if let Some(set) = self.borders.cross(self.generated + at, vocabulary.piece(*token)) {
                sets.change(self.tokens.len() + at, set);
            }
        }
    }

    /// What the answer's text shows of a token: of one that ends it nothing, unless control tokens are to be seen.
    fn shown(&self, token: Token, tokenizer: &dyn Tokenizer, end: bool) -> Vec<u8> {
        let piece = if end { Vec::new() } else { tokenizer.piece(token) };
        match self.job.special && piece.is_empty() {
            true => tokenizer.spelling(token).into_bytes(),
            false => piece,
        }
    }

    /// Tokens that may still be generated; `None` without a limit.
    fn budget(&self, context: usize, can_shift: bool) -> Option<usize> {
        let asked = self.job.limits.max_tokens.map(|max| max.saturating_sub(self.generated));
        let shifts = can_shift && self.job.limits.shift.is_some();
        let room = (!shifts).then(|| context.saturating_sub(self.tokens.len()));
        asked.into_iter().chain(room).min()
    }

    /// What the format leaves no choice about after `token`, as tokens that need no sampling; the matcher has then
    /// accepted their text. None when probabilities are wanted of every token.
    fn forward(
        &mut self,
        token: Token,
        budget: Option<usize>,
        tokenizer: &dyn Tokenizer,
    ) -> Result<Option<Forward>, Failure> {
        let Some(matcher) = self.job.matcher.as_mut().filter(|_| self.job.n_probs == 0) else { return Ok(None) };
        let forced = matcher.forced_bytes().map_err(|e| unenforced(&e))?;
        if forced.is_empty() {
            return Ok(None);
        }
        let mut answer = self.tokens[self.prompt_len.min(self.tokens.len())..].to_vec();
        answer.push(token);
        let vocabulary = tokenizer.vocabulary();
        let cut = |text: &str| tokenizer.tokenize(&Prompt::literal(text), false);
        let found = policy::forward(&answer, &forced, false, 1, &vocabulary, &cut);
        let Some(found) = found else { return Ok(None) };
        if let Some(budget) = budget {
            let more = found.tokens.len() - found.replace;
            let need = matcher.tokens_to_finish().map_err(|e| unenforced(&e))?.unwrap_or(0);
            // Near the limit: what it takes beyond the way to the end, and a token of that way that it cuts in two.
            let beyond = more.saturating_sub(vocabulary.fewest(&found.text).map_or(0, |tokens| tokens.len()));
            if more + 1 >= budget || need + beyond + 2 >= budget {
                return Ok(None);
            }
        }
        matcher.accept_bytes(&found.text).map_err(|e| unenforced(&e))?;
        Ok(Some(found))
    }

    /// The limit that the answer has reached, if any.
    fn limit(&mut self, context: usize, can_shift: bool) -> Option<FinishReason> {
        if self.job.matcher.as_mut().is_some_and(Matcher::must_stop) {
            return Some(FinishReason::Stop);
        }
        if self.job.limits.max_tokens.is_some_and(|max| self.generated >= max) {
            return Some(FinishReason::Length);
        }
        let elapsed = self.first.map_or(Duration::ZERO, |t| t.elapsed());
        if self.job.limits.max_time.is_some_and(|max| elapsed >= max) {
            return Some(FinishReason::TimeLimit);
        }
        let shifts = can_shift && self.job.limits.shift.is_some();
        (self.tokens.len() >= context && !shifts).then_some(FinishReason::ContextFull)
    }

    /// Which positions to forget when the context is full: `from..to`. `None` when nothing can be.
    pub(super) fn shift_range(&self) -> Option<(usize, usize)> {
        let Shift { keep, discard } = self.job.limits.shift?;
        let keep = keep.min(self.prompt_len).min(self.tokens.len().saturating_sub(4));
        let left = self.tokens.len() - keep;
        let discard = discard.unwrap_or(left / 2).clamp(1, left.saturating_sub(1).max(1));
        Some((keep, keep + discard))
    }

    /// Forgets the tokens of a shift.
    pub(super) fn forget(&mut self, from: usize, to: usize) {
        self.tokens.drain(from..to);
        self.drafter.forget();
    }

    /// Ends with an error.
    pub(super) fn fail(&mut self, failure: Failure) -> Next {
        let _ = self.job.events.send(Event::Failed(failure));
        Next::Ended
    }

    /// Ends with what there is.
    pub(super) fn stop(&mut self, reason: FinishReason) {
        self.finish(reason, None, TokenEvent::default());
    }

    fn finish(&mut self, reason: FinishReason, stop: Option<usize>, mut last: TokenEvent) -> Next {
        if stop.is_none() {
            last.text += &self.text.finish();
        }
        let format_complete = self.job.matcher.as_mut().map(Matcher::may_stop);
        let stopping_text = stop.map(|index| self.job.limits.stop[index].clone());
        let crossed = self.borders.crossed();
        let finished = Finished { reason, stopping_text, format_complete, crossed, timings: self.timings() };
        let _ = self.job.events.send(Event::Token(last));
        let _ = self.job.events.send(Event::Finished(finished));
        Next::Ended
    }

    fn note_time(&mut self) {
        let now = Instant::now();
        if self.first.is_none() {
            self.first = Some(now);
            let _ = self.job.events.send(Event::Prefilled { prompt: self.prompt_len, cached: self.reused });
        }
        self.last = Some(now);
    }

    fn timings(&self) -> Timings {
        let between = |a: Option<Instant>, b: Option<Instant>| match (a, b) {
            (Some(a), Some(b)) => b.saturating_duration_since(a),
            _ => Duration::ZERO,
        };
        let (drafts, draft_n, draft_n_accepted) = self.drafts();
        Timings {
            drafts,
            draft_n,
            draft_n_accepted,
            cache_n: self.reused,
            prompt_n: self.prompt_len - self.reused,
            prompt: between(self.started, self.first),
            predicted_n: self.generated,
            predicted: between(self.first, self.last),
            queued: between(Some(self.job.submitted), self.started),
        }
    }

    fn probabilities(&self, logits: &[f32], chosen: Token, tokenizer: &dyn Tokenizer) -> Vec<TokenProbability> {
        let n = self.job.n_probs.min(logits.len());
        if n == 0 {
            return Vec::new();
        }
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|l| f64::from(l - max).exp()).sum();
        let log_sum = max + sum.ln() as f32;
        let candidate = |token: Token| Candidate {
            token,
            bytes: self.shown(token, tokenizer, false),
            logprob: (logits[token as usize] - log_sum).min(0.0),
        };
        let mut ids: Vec<Token> = (0..logits.len() as Token).collect();
        let better = |a: &Token, b: &Token| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if n < ids.len() {
            ids.select_nth_unstable_by(n, better);
            ids.truncate(n);
        }
        ids.sort_unstable_by(better);
        vec![TokenProbability { chosen: candidate(chosen), top: ids.into_iter().map(candidate).collect() }]
    }
}

/// Chooses a token that the format allows, see [`policy::choose`]; `budget` as there. A matcher that fails ends the
/// request: never an unmasked choice.
fn choose(
    sampler: &mut dyn Sampler,
    matcher: Option<&mut Matcher>,
    order: Order,
    budget: Option<usize>,
    logits: &[f32],
) -> Result<Token, Failure> {
    let Some(matcher) = matcher else {
        return sampler.choose(logits, None).map_err(|e| Failure::new(Code::Other, e.to_string()));
    };
    let draw = |allowed: Option<&dyn Fn(Token) -> bool>| sampler.choose(logits, allowed);
    match policy::choose(matcher, order, budget, draw) {
        Ok(chosen) => Ok(chosen.token),
        Err(ChooseError::Matcher(e)) => Err(unenforced(&e)),
        Err(ChooseError::Draw(EngineError::NoCandidate)) => Err(unenforced(&"no token can continue it")),
        Err(ChooseError::Draw(e)) => Err(Failure::new(Code::Other, e.to_string())),
    }
}

fn unenforced(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::FormatRejected, format!("the format could not be enforced: {why}"))
}
