//! Runs a network over tokens.
//!
//! [`Program`] is a grammar with its vocabulary, shared; [`Run`] is one sequence. `arena` has the states and moves,
//! `local` what runs share, `walk` the masks, `need` and `closing` how an answer is brought to its end in time, `forced`
//! what must come next.

mod arena;
mod closing;
mod forced;
mod hash;
mod local;
mod need;
mod walk;

use std::sync::Arc;

use super::compiled::MatchResult;
use super::error::MatcherError;
use super::limits::Limits;
use super::mask::TokenMask;
use super::network::{Network, TokenSet};
use super::vocabulary::Vocabulary;
use arena::{Arena, DEAD, Item, StateId, Stop};
use hash::FastMap;
use local::Locals;
use need::Needs;

/// A grammar ready to run.
pub(super) struct Program {
    network: Network,
    vocabulary: Arc<Vocabulary>,
    limits: Limits,
    locals: Locals,
    needs: Arc<Needs>,
}

impl Program {
    pub fn new(network: Network, vocabulary: Arc<Vocabulary>, limits: &Limits) -> Self {
        let needs = Arc::new(Needs::new(&network, vocabulary.single_bytes()));
        Program { network, vocabulary, limits: limits.clone(), locals: Locals::new(), needs }
    }

    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// See [`Compiled::matches`](super::Compiled::matches).
    pub fn matches(self: &Arc<Self>, text: &[u8]) -> Result<MatchResult, MatcherError> {
        Run::new(Arc::clone(self)).matches(text)
    }

    /// Bytes held now and by local masks later.
    pub fn bytes(&self) -> usize {
        let network = &self.network;
        // Local masks come with use; a grammar rarely has more than a few dozen. Counted as if it had.
        let expected = (self.vocabulary.len() / 8 + 256) * 64;
        size_of_val(network.states.as_slice())
            + size_of_val(network.bytes.as_slice())
            + size_of_val(network.calls.as_slice())
            + self.needs.bytes()
            + self.locals.bytes().max(expected.min(Locals::LIMIT))
    }

    fn error(&self, stop: Stop) -> MatcherError {
        match stop {
            Stop::Work => MatcherError::Work { limit: self.limits.step_work },
            Stop::Memory => MatcherError::Memory { limit: self.limits.matcher_bytes },
        }
    }

    /// Whether a token terminal matches `token`. Negated ones match text only: control tokens are always by name.
    fn in_set(&self, set: TokenSet, token: u32) -> bool {
        match set.negated {
            false => set.id == token,
            true => set.id != token && self.vocabulary.is_text(token),
        }
    }
}

/// One sequence of tokens.
pub(super) struct Run {
    program: Arc<Program>,
    arena: Arena,
    state: StateId,
    /// An end token was accepted.
    finished: bool,
    /// Masks by state, bounded by [`MASKS`].
    masks: FastMap<StateId, TokenMask>,
    /// The last closing mask.
    closing: TokenMask,
}

/// Masks a run remembers. A vocabulary of 150,000 tokens makes 19 KB of each.
const MASKS: usize = 64;

impl Run {
    pub fn new(program: Arc<Program>) -> Self {
        let mut arena = Arena::new(program.limits.matcher_bytes, Arc::clone(&program.needs));
        let state = arena.start(&program.network);
        Run { program, arena, state, finished: false, masks: FastMap::default(), closing: TokenMask::default() }
    }

    pub fn may_stop(&self) -> bool {
        !self.finished && self.arena.complete(self.state)
    }

    pub fn must_stop(&self) -> bool {
        self.may_stop() && self.arena.kernel(self.state).is_empty()
    }

    pub fn allows(&mut self, token: u32) -> Result<bool, MatcherError> {
        self.prepare()?;
        if self.program.vocabulary.is_end(token) {
            return Ok(self.may_stop());
        }
        let (state, items) = self.after(token)?;
        Ok(state != DEAD || !items.is_empty())
    }

    /// See [`Matcher::allows_run`](super::Matcher::allows_run).
    pub fn allows_run(&mut self, tokens: &[u32]) -> usize {
        if self.prepare().is_err() {
            return 0;
        }
        // States are numbers of the arena, which forgets none before the next `prepare`.
        let here = self.state;
        let follows = |run: &mut Self, token: u32| {
            run.arena.refuel(run.program.limits.step_work);
            let (state, items) = run.after(token)?;
            run.state = run.join(state, items)?;
            Ok::<bool, MatcherError>(run.state != DEAD)
        };
        let is_end = |token: u32| self.program.vocabulary.is_end(token);
        let until = tokens.iter().position(|token| is_end(*token)).unwrap_or(tokens.len());
        let refused = tokens[..until].iter().position(|token| !follows(self, *token).unwrap_or(false));
        self.state = here;
        refused.unwrap_or(until)
    }

    pub fn accept(&mut self, token: u32) -> Result<(), MatcherError> {
        self.prepare()?;
        if self.program.vocabulary.is_end(token) {
            if !self.may_stop() {
                return Err(MatcherError::Refused { token });
            }
            self.finished = true;
            return Ok(());
        }
        let (state, items) = self.after(token)?;
        let state = self.join(state, items)?;
        if state == DEAD {
            return Err(MatcherError::Refused { token });
        }
        self.state = state;
        Ok(())
    }

    pub fn mask(&mut self) -> Result<&TokenMask, MatcherError> {
        self.prepare()?;
        if !self.masks.contains_key(&self.state) {
            let mask = self.compute_mask()?;
            if mask.is_empty() {
                return Err(MatcherError::DeadEnd);
            }
            if self.masks.len() >= MASKS {
                self.masks.clear();
            }
            self.masks.insert(self.state, mask);
        }
        self.masks.get(&self.state).ok_or(MatcherError::DeadEnd)
    }

    /// Before each step: fuel, and room.
    fn prepare(&mut self) -> Result<(), MatcherError> {
        if self.finished {
            return Err(MatcherError::Finished);
        }
        self.arena.refuel(self.program.limits.step_work);
        if self.arena.is_half_full() {
            self.state = self.arena.compact(&self.program.network, self.state);
            self.masks.clear();
            if self.arena.is_half_full() {
                return Err(self.program.error(Stop::Memory));
            }
        }
        Ok(())
    }

    /// Where `token` leads: as text, and the items it leads to as a terminal of its own.
    fn after(&mut self, token: u32) -> Result<(StateId, Vec<Item>), MatcherError> {
        let program = Arc::clone(&self.program);
        let mut state = DEAD;
        if program.vocabulary.is_text(token) {
            state = self.state;
            for &byte in program.vocabulary.piece(token) {
                state = self.step(state, byte)?;
                if state == DEAD {
                    break;
                }
            }
        }
        let mut items = Vec::new();
        for (set, item) in self.token_items()? {
            if program.in_set(set, token) {
                items.push(item);
            }
        }
        Ok((state, items))
    }

    /// The token terminals that may come next, each with the item it leads to.
    fn token_items(&mut self) -> Result<Vec<(TokenSet, Item)>, MatcherError> {
        let program = Arc::clone(&self.program);
        let network = &program.network;
        let mut found = Vec::new();
        if network.tokens.is_empty() {
            return Ok(found);
        }
        let expanded = self.arena.expanded(network, self.state).map_err(|stop| program.error(stop))?;
        for &(top, below) in expanded.iter() {
            let edges = &network.states[top as usize].tokens;
            for edge in &network.tokens[edges.start as usize..edges.end as usize] {
                found.push((network.token_sets[edge.set as usize], (edge.to, below)));
            }
        }
        Ok(found)
    }

    /// The state of everything in `state` and `items`.
    fn join(&mut self, state: StateId, mut items: Vec<Item>) -> Result<StateId, MatcherError> {
        if items.is_empty() {
            return Ok(state);
        }
        items.extend_from_slice(&self.arena.kernel(state));
        let complete = self.arena.complete(state);
        self.arena.settle(&self.program.network, items, complete).map_err(|stop| self.program.error(stop))
    }

    fn step(&mut self, state: StateId, byte: u8) -> Result<StateId, MatcherError> {
        let network = &self.program.network;
        self.arena.step(network, state, network.classes.of(byte)).map_err(|stop| self.program.error(stop))
    }

    fn matches(mut self, text: &[u8]) -> Result<MatchResult, MatcherError> {
        if !self.program.network.tokens.is_empty() {
            return self.matches_tokens(text);
        }
        for (at, &byte) in text.iter().enumerate() {
            self.prepare()?;
            self.state = self.step(self.state, byte)?;
            if self.state == DEAD {
                return Ok(MatchResult::Rejected { at });
            }
        }
        Ok(self.verdict())
    }

    /// As [`Run::matches`] for a grammar with token terminals: follows all ways to cut the text into tokens, by the
    /// state reached at each byte. Never compacts, as it holds many states; long texts meet the memory limit.
    fn matches_tokens(mut self, text: &[u8]) -> Result<MatchResult, MatcherError> {
        let program = Arc::clone(&self.program);
        let mut reached = vec![DEAD; text.len() + 1];
        reached[0] = self.state;
        let mut farthest = 0;
        for at in 0..=text.len() {
            self.state = reached[at];
            if self.state == DEAD {
                continue;
            }
            farthest = at;
            self.arena.refuel(program.limits.step_work);
            let rest = &text[at..];
            let prefixes = program.vocabulary.trie().prefixes(rest);
            for (set, item) in self.token_items()? {
                let piece = program.vocabulary.piece(set.id);
                let lengths: Vec<usize> = match set.negated {
                    false if rest.starts_with(piece) && !piece.is_empty() => vec![piece.len()],
                    false => Vec::new(),
                    true => prefixes
                        .iter()
                        .filter(|&&token| program.in_set(set, token))
                        .map(|&token| program.vocabulary.piece(token).len())
                        .collect(),
                };
                for length in lengths {
                    reached[at + length] = self.join(reached[at + length], vec![item])?;
                }
            }
            if let Some(&byte) = rest.first() {
                let state = self.step(self.state, byte)?;
                let items = self.arena.kernel(state).to_vec();
                let complete = self.arena.complete(state) || self.arena.complete(reached[at + 1]);
                let mut all = items;
                all.extend_from_slice(&self.arena.kernel(reached[at + 1]));
                reached[at + 1] =
                    self.arena.settle(&program.network, all, complete).map_err(|stop| program.error(stop))?;
            }
        }
        self.state = reached[text.len()];
        match self.state {
            DEAD => Ok(MatchResult::Rejected { at: farthest }),
            _ => Ok(self.verdict()),
        }
    }

    fn verdict(&self) -> MatchResult {
        match self.may_stop() {
            true => MatchResult::Complete,
            false => MatchResult::Prefix,
        }
    }
}
