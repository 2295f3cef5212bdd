//! Answers whose thoughts another request may end, by their ids.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::grammar::Hurry;

/// The answers under way that can be told to end their thoughts.
#[derive(Debug, Default)]
pub struct Thoughts(Mutex<HashMap<String, Hurry>>);

/// One of them; taken off the list when dropped.
#[derive(Debug)]
pub struct Listed {
    all: Arc<Thoughts>,
    id: String,
}

impl Thoughts {
    /// Puts an answer on the list.
    pub fn list(self: &Arc<Self>, id: String, hurry: Hurry) -> Listed {
        self.lock().insert(id.clone(), hurry);
        Listed { all: self.clone(), id }
    }

    /// Asks for the end of an answer's thoughts: whether there were any to end; `None` when it is not listed.
    pub fn end(&self, id: &str) -> Option<bool> {
        self.lock().get(id).map(Hurry::ask)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Hurry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_listed_while_it_runs() {
        let all = Arc::new(Thoughts::default());
        let one = all.list("a".into(), Hurry::default());
        assert_eq!((all.end("a"), all.end("b")), (Some(true), None));
        drop(one);
        assert_eq!(all.end("a"), None);
    }
}
