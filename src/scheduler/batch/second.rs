//! Guesses of a second, smaller model: its own engine, of which each sequence holds what the same sequence of the first one
//! holds, without adapters. All sequences that want a guess share its steps.

use crate::adapter::AdapterSet;
use crate::engine::{Engine, EngineError, Row, Token, VIRTUAL};

/// Tokens among which the best one's probability counts, as in llama-server.
const AMONG: usize = 10;
/// Rounds without guesses after its context was too small for what is asked: to find that out costs reading.
const REST: usize = 32;

/// The second model.
pub(super) struct Second {
    engine: Box<dyn Engine>,
    /// What its sequences hold.
    held: Vec<Vec<Token>>,
    /// Rounds left of a rest.
    rest: usize,
    broken: bool,
}

/// What a guess is wanted of.
pub(super) struct Ask<'a> {
    /// The sequence.
    pub(super) slot: usize,
    /// All its tokens.
    pub(super) tokens: &'a [Token],
    /// Most tokens to guess, 1 or more.
    pub(super) most: usize,
    /// A token less likely than this ends the guess.
    pub(super) p_min: f32,
    /// Tokens of the first model's vocabulary.
    pub(super) vocabulary: usize,
}

/// A sequence in this round: its guess, and what comes next with what probability.
#[derive(Clone, Default)]
struct Line {
    guess: Vec<Token>,
    next: Option<(Token, f32)>,
}

impl Second {
    pub(super) fn new(engine: Box<dyn Engine>) -> Self {
        let held = vec![Vec::new(); engine.facts().sequences];
        let broken = !engine.facts().prefix_reuse;
        Self { engine, held, rest: 0, broken }
    }

    /// A guess for each; empty ones where there is none. Texts are read a step at a time, so that nobody waits for long.
    pub(super) fn guess(&mut self, asks: &[Ask<'_>]) -> Vec<Vec<Token>> {
        let mut lines = vec![Line::default(); asks.len()];
        if self.broken || self.rest > 0 {
            self.rest = self.rest.saturating_sub(1);
        } else if let Err(error) = self.follow(asks, &mut lines) {
            match error {
                EngineError::ContextFull => {
                    (0..self.held.len()).for_each(|slot| self.forget(slot, 0));
                    self.rest = REST;
                }
                other => {
                    tracing::warn!("the draft model is used no more: {other}");
                    self.broken = true;
                }
            }
        }
        lines.into_iter().map(|line| line.guess).collect()
    }

    fn follow(&mut self, asks: &[Ask<'_>], lines: &mut [Line]) -> Result<(), EngineError> {
        let rows = self.missing(asks);
        match self.evaluate(&rows, asks, lines) {
            // What no one asks for now makes room.
            Err(EngineError::ContextFull) => {
                let idle = |slot: &usize| asks.iter().all(|ask| ask.slot != *slot);
                (0..self.held.len()).filter(idle).for_each(|slot| self.forget(slot, 0));
                self.evaluate(&rows, asks, lines)?;
            }
            other => other?,
        }
        loop {
            let mut rows = Vec::new();
            for (ask, line) in asks.iter().zip(lines.iter_mut()) {
                let likely = |(token, p): &(Token, f32)| *p >= ask.p_min && (*token as usize) < ask.vocabulary;
                let Some((token, _)) = line.next.take().filter(likely) else { continue };
                line.guess.push(token);
                let position = self.held[ask.slot].len();
                if line.guess.len() < ask.most && position < self.engine.facts().sequence_context {
                    rows.push(Row { token, position, sequence: ask.slot, logits: true, set: 0 });
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
            self.evaluate(&rows, asks, lines)?;
        }
    }

    /// The rows that its sequences lack of what is asked, a step of them, after what is not of it was removed. The last row of
    /// a text is always among what it lacks.
    fn missing(&mut self, asks: &[Ask<'_>]) -> Vec<Row> {
        let facts = self.engine.facts();
        let (longest, most) = (facts.sequence_context, facts.micro_batch.min(facts.batch));
        let mut rows = Vec::new();
        for ask in asks {
            let text: Vec<Token> = ask.tokens.iter().copied().filter(|t| *t < VIRTUAL).collect();
            let Some(last) = text.len().checked_sub(1).filter(|last| *last < longest) else { continue };
            let same = self.held[ask.slot].iter().zip(&text).take_while(|(held, token)| held == token).count();
            self.forget(ask.slot, same.min(last));
            let lacking = (self.held[ask.slot].len()..text.len()).take(most.saturating_sub(rows.len()));
            rows.extend(lacking.map(|position| {
                let logits = position == last;
                Row { token: text[position], position, sequence: ask.slot, logits, set: 0 }
            }));
        }
        rows
    }

    /// Evaluates a step, and notes what comes next.
    fn evaluate(&mut self, rows: &[Row], asks: &[Ask<'_>], lines: &mut [Line]) -> Result<(), EngineError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.engine.decode(rows, &[AdapterSet::base()])?;
        for (at, row) in rows.iter().enumerate() {
            self.held[row.sequence].push(row.token);
            let line = asks.iter().position(|ask| ask.slot == row.sequence).filter(|_| row.logits);
            if let Some(line) = line {
                lines[line].next = Some(best(self.engine.logits(at)?));
            }
        }
        Ok(())
    }

    /// Removes what a sequence holds from a position on.
    fn forget(&mut self, slot: usize, from: usize) {
        if from < self.held[slot].len() {
            let kept = if self.engine.truncate(slot, from) { from } else { 0 };
            self.held[slot].truncate(kept);
        }
    }
}

/// The best token, and its probability among the best ones.
fn best(logits: &[f32]) -> (Token, f32) {
    let (mut top, mut token) = ([f32::NEG_INFINITY; AMONG], 0);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > top[AMONG - 1] {
            if logit > top[0] {
                token = id as Token;
            }
            let at = top.partition_point(|other| *other >= logit);
            top[at..].rotate_right(1);
            top[at] = logit;
        }
    }
    let sum: f32 = top.iter().map(|other| (other - top[0]).exp()).sum();
    (token, 1.0 / sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeEngine;

    fn ask(slot: usize, tokens: &[Token], most: usize) -> Ask<'_> {
        Ask { slot, tokens, most, p_min: 0.0, vocabulary: 256 }
    }

    #[test]
    fn the_best_of_ten_and_its_probability() {
        assert_eq!(best(&[0.0, 3.0, f32::NEG_INFINITY]).0, 1);
        let (token, p) = best(&[1.0; 100]);
        assert!(token == 0 && (p - 0.1).abs() < 1e-6);
        let mut logits = vec![-50.0; 100];
        (logits[7], logits[93]) = (1.0, 1.0 + 2f32.ln());
        let (token, p) = best(&logits);
        assert!(token == 93 && (p - 2.0 / 3.0).abs() < 1e-5, "{token} {p}");
    }

    /// What is guessed once the texts are read.
    fn settled(second: &mut Second, asks: &[Ask<'_>]) -> Vec<Vec<Token>> {
        second.guess(asks);
        second.guess(asks);
        second.guess(asks)
    }

    #[test]
    fn sequences_share_steps_and_only_what_is_new_is_read() {
        let mut second = Second::new(Box::new(FakeEngine::new(200, 2)));
        let texts = ["a longer question", "short"].map(|t| t.bytes().map(Token::from).collect::<Vec<_>>());
        let asks = [ask(0, &texts[0], 4), ask(1, &texts[1], 2)];
        assert!(second.guess(&asks).concat().is_empty() && second.held[0].len() == 16, "a step at a time");
        let guesses = settled(&mut second, &asks);
        assert_eq!((guesses[0].len(), guesses[1].len()), (4, 2));
        assert_eq!((second.held[0].len(), second.held[1].len()), (17 + 3, 5 + 1), "the last guess is not evaluated");
        // The first two came true, then something else.
        let next = [&texts[0][..], &guesses[0][..2], &[33]].concat();
        let mut cold = Second::new(Box::new(FakeEngine::new(200, 2)));
        assert_eq!(second.guess(&[ask(0, &next, 3)]), settled(&mut cold, &[ask(0, &next, 3)]));
        assert_eq!(second.held[0].len(), 20 + 2);
        let sure = Ask { p_min: 1.1, ..ask(0, &next, 3) };
        let other_words = Ask { vocabulary: 50, ..ask(0, &next, 3) };
        for none in [sure, other_words] {
            assert_eq!(second.guess(&[none]), [Vec::<Token>::new()]);
        }
    }

    #[test]
    fn a_context_that_is_too_small_gives_no_guess_and_harms_nobody() {
        let mut second = Second::new(Box::new(FakeEngine::new(40, 3)));
        let text = |n: usize| (0..n as Token).map(|t| 97 + t % 20).collect::<Vec<_>>();
        let (long, middle) = (text(30), text(25));
        assert_eq!(settled(&mut second, &[ask(0, &long, 2)])[0].len(), 2);
        assert_eq!(settled(&mut second, &[ask(1, &middle, 2)])[0].len(), 2, "the idle one goes");
        let both = [ask(0, &long, 2), ask(1, &middle, 2)];
        while second.rest == 0 {
            second.guess(&both);
        }
        assert!(second.held.iter().all(Vec::is_empty));
        for _ in 0..REST {
            assert!(second.guess(&both).concat().is_empty());
        }
        assert_eq!(settled(&mut second, &[ask(0, &long, 2)])[0].len(), 2);
        assert!(settled(&mut second, &[ask(1, &text(60), 2)]).concat().is_empty(), "longer than the context");
    }
}
