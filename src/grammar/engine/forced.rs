//! What must come next, and texts that come without token borders.

use std::sync::Arc;

use super::super::error::MatcherError;
use super::Run;
use super::arena::{DEAD, StateId};

/// No more bytes are forced at once than this; the rest follows on the next call.
const FORCED: usize = 4096;

impl Run {
    /// See [`Matcher::forced_bytes`](super::super::Matcher::forced_bytes).
    pub fn forced_bytes(&mut self) -> Result<Vec<u8>, MatcherError> {
        self.prepare()?;
        let mut forced = Vec::new();
        let mut state = self.state;
        while forced.len() < FORCED
            && let Some(byte) = self.only_byte(state)?
        {
            state = self.step(state, byte)?;
            forced.push(byte);
        }
        Ok(forced)
    }

    /// The one byte with which any text must go on from `state`; `None` if there is a choice, the end among it.
    fn only_byte(&mut self, state: StateId) -> Result<Option<u8>, MatcherError> {
        if state == DEAD || self.arena.complete(state) {
            return Ok(None);
        }
        let program = Arc::clone(&self.program);
        let network = &program.network;
        let expanded = self.arena.expanded(network, state).map_err(|stop| program.error(stop))?;
        let mut only = None;
        for &(top, _) in expanded.iter() {
            let state = &network.states[top as usize];
            if !state.tokens.is_empty() {
                return Ok(None);
            }
            for edge in &network.bytes[state.bytes.start as usize..state.bytes.end as usize] {
                if edge.low != edge.high || only.is_some_and(|byte| byte != edge.low) {
                    return Ok(None);
                }
                only = Some(edge.low);
            }
        }
        Ok(only)
    }

    /// Whether the text is complete after `bytes`, and nothing can follow.
    pub fn ends_with(&mut self, bytes: &[u8]) -> Result<bool, MatcherError> {
        self.prepare()?;
        let mut state = self.state;
        for &byte in bytes {
            state = self.step(state, byte)?;
        }
        Ok(self.arena.complete(state) && self.arena.kernel(state).is_empty())
    }

    /// Whether the text may go on with `bytes`.
    pub fn allows_bytes(&mut self, bytes: &[u8]) -> Result<bool, MatcherError> {
        self.prepare()?;
        let mut state = self.state;
        for &byte in bytes {
            state = self.step(state, byte)?;
        }
        Ok(state != DEAD)
    }

    /// See [`Matcher::accept_bytes`](super::super::Matcher::accept_bytes).
    pub fn accept_bytes(&mut self, bytes: &[u8]) -> Result<(), MatcherError> {
        self.prepare()?;
        let mut state = self.state;
        for (at, &byte) in bytes.iter().enumerate() {
            state = self.step(state, byte)?;
            if state == DEAD {
                return Err(MatcherError::RefusedText { at });
            }
        }
        self.state = state;
        Ok(())
    }
}
