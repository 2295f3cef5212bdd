//! Ending an answer from outside: its client has gone, or the server stops.

use std::sync::{Arc, Mutex, PoisonError};

use crate::scheduler::CancelToken;

/// Ends all requests of one answer, also those that are submitted later.
#[derive(Clone, Debug, Default)]
pub struct Abort(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    aborted: bool,
    tokens: Vec<CancelToken>,
}

impl Abort {
    /// Takes charge of a request.
    pub fn add(&self, token: CancelToken) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.aborted {
            token.cancel();
        }
        state.tokens.push(token);
    }

    /// Whether it was ended.
    pub fn is_aborted(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).aborted
    }

    /// Ends them.
    pub fn abort(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.aborted = true;
        state.tokens.iter().for_each(CancelToken::cancel);
    }
}

/// Ends the answer when it is dropped: held by whatever lives as long as the client listens.
#[derive(Debug, Default)]
pub struct AbortOnDrop(pub Abort);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
