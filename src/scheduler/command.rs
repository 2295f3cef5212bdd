//! What can be asked of the engine thread beside answers: a slot's state out, in, and away.
//!
//! A command about a slot whose request still runs is carried out when that has ended.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::batch::Batch;
use super::{Worker, stopped};
use crate::adapter::Timeline;
use crate::engine::saved::{Saved, Stamp};
use crate::engine::{Engine, EngineError};
use crate::error::{Code, Failure};

/// Where an answer goes. A receiver that is gone is no error.
type Reply<T> = Sender<Result<T, Failure>>;

/// A command to the engine thread.
pub(super) enum Command {
    Stamp { reply: Reply<Stamp> },
    Save { slot: usize, reply: Reply<Saved> },
    Restore { slot: usize, saved: Arc<Saved>, reply: Reply<()> },
    Erase { slot: usize, reply: Reply<usize> },
}

impl Command {
    /// The slot it has to wait for.
    pub(super) fn slot(&self) -> Option<usize> {
        match self {
            Self::Stamp { .. } => None,
            Self::Save { slot, .. } | Self::Restore { slot, .. } | Self::Erase { slot, .. } => Some(*slot),
        }
    }
}

impl Worker {
    /// What saved states of this engine depend on.
    ///
    /// # Errors
    /// States of this model cannot be saved; the engine has stopped.
    pub fn stamp(&self) -> Result<Stamp, Failure> {
        self.command(|reply| Command::Stamp { reply })
    }

    /// A copy of what a slot's sequence holds. Waits for its request to end.
    ///
    /// # Errors
    /// There is no such slot, it is empty, or states of this model cannot be saved.
    pub fn save(&self, slot: usize) -> Result<Saved, Failure> {
        self.command(|reply| Command::Save { slot, reply })
    }

    /// Makes a slot's sequence hold a saved state, which was read for this engine's [`Worker::stamp`], in place of what
    /// it holds. Waits for its request to end. A later request goes on from it as from any cached prefix: as far as
    /// tokens and adapter sets are equal.
    ///
    /// # Errors
    /// There is no such slot, the context has no room beside running requests, or the engine refuses the state.
    pub fn restore(&self, slot: usize, saved: Arc<Saved>) -> Result<(), Failure> {
        self.command(|reply| Command::Restore { slot, saved, reply })
    }

    /// Forgets what a slot's sequence holds: how many tokens. Waits for its request to end.
    ///
    /// # Errors
    /// There is no such slot.
    pub fn erase(&self, slot: usize) -> Result<usize, Failure> {
        self.command(|reply| Command::Erase { slot, reply })
    }

    fn command<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, Failure> {
        let (reply, answer) = std::sync::mpsc::channel();
        self.send_command(make(reply))?;
        answer.recv().map_err(|_| stopped())?
    }
}

impl<E: Engine> Batch<E> {
    /// Carries a command out whose slot, if any, runs no request.
    pub(super) fn carry_out(&mut self, command: Command) {
        let known = command.slot().is_none_or(|slot| slot < self.slot_count());
        let unknown =
            || Failure::new(Code::NotFound, format!("there is no such slot; there are {}", self.slot_count()));
        // Nobody waits any more when a send fails.
        match command {
            Command::Stamp { reply } => _ = reply.send(self.engine.stamp().map_err(state_failure)),
            Command::Save { slot, reply } => {
                _ = reply.send(if known { self.save(slot) } else { Err(unknown()) });
            }
            Command::Restore { slot, saved, reply } => {
                _ = reply.send(if known { self.restore(slot, &saved) } else { Err(unknown()) });
            }
            Command::Erase { slot, reply } => {
                _ = reply.send(if known { Ok(self.erase(slot)) } else { Err(unknown()) });
            }
        }
    }

    /// What a slot holds.
    pub(super) fn save(&mut self, slot: usize) -> Result<Saved, Failure> {
        let state = self.engine.save(slot).map_err(state_failure)?;
        let (tokens, sets): (_, &Timeline) = self.held(slot);
        Ok(Saved::new(tokens.to_vec(), sets.clone(), state))
    }

    /// Puts a state into a slot, in place of what it holds. Idle prefixes make room for it, the least recently used
    /// ones first.
    pub(super) fn restore(&mut self, slot: usize, saved: &Saved) -> Result<(), Failure> {
        let (length, context) = (saved.tokens.len(), self.engine.facts().sequence_context);
        if length > context {
            return Err(Failure::usage(format!(
                "saved state: it holds {length} tokens, the context {context}; give a larger -c"
            )));
        }
        self.clear(slot);
        loop {
            match self.engine.restore(slot, length, saved.state()) {
                Ok(()) => break,
                Err(EngineError::ContextFull) if self.forget_idle() => (),
                Err(EngineError::ContextFull) => {
                    let message = "saved state: running requests leave no room for it; try again later";
                    return Err(Failure::new(Code::Busy, message));
                }
                Err(e) => return Err(state_failure(e)),
            }
        }
        self.hold(slot, saved.tokens.clone(), saved.sets.clone());
        Ok(())
    }

    fn erase(&mut self, slot: usize) -> usize {
        let tokens = self.held(slot).0.len();
        self.clear(slot);
        tokens
    }
}

fn state_failure(e: EngineError) -> Failure {
    let code = match &e {
        EngineError::OutOfMemory(_) => Code::OutOfMemory,
        EngineError::State(_) => Code::InvalidFile,
        _ => Code::Other,
    };
    Failure::new(code, e.to_string())
}
