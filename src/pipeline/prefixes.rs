//! Prefixes of messages are read once: the state they leave is kept beside the library and handed to later requests.
//!
//! The tokens of a prefix are those that any conversation after it begins with, found by rendering two. A state is used
//! for a request whose prompt begins with exactly these tokens, all under the plain base; its file is stamped, checked
//! and compared with the tokens before. Where none fits, the messages are read by a request of their own, which leaves
//! the state, and the user's request goes on from there.

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::Pipeline;
use crate::adapter::{AdapterDigest, AdapterFile, HeldBytes, Scale, Timeline};
use crate::engine::Token;
use crate::engine::saved::{Saved, Stamp};
use crate::error::{Code, Failure};
use crate::gguf::PrefixState;
use crate::lease::{self, Chosen};
use crate::prompt::{Message, Role};
use crate::request::Input;
use crate::scheduler::{CancelToken, Job, JobLimits, Lease};

/// A prefix of fewer tokens is read again rather than kept.
const WORTH_KEEPING: usize = 64;
/// Prefixes whose states are remembered; mapped files, so what is not used costs no memory.
const REMEMBERED: usize = 256;

/// What is known of the prefixes in use.
#[derive(Default)]
pub(super) struct Prefixes {
    known: Arc<Mutex<HashMap<AdapterDigest, Arc<Known>>>>,
    /// Writers of states, waited for at the end.
    writers: Mutex<Vec<JoinHandle<()>>>,
}

/// A prefix in use.
struct Known {
    /// What every prompt after it begins with; empty when it is too short to be kept.
    tokens: Vec<Token>,
    /// Its state; `None` when it is being made, or cannot be.
    saved: Option<Arc<Saved>>,
}

impl Drop for Prefixes {
    fn drop(&mut self) {
        // The engine has stopped by now, so every writer has its state or never gets one.
        for writer in self.writers.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = writer.join();
        }
    }
}

impl Pipeline {
    /// The state that a request under these adapters may begin with.
    pub(super) fn prefix_state(&self, chosen: &[Chosen], prompt: &[Token], sets: &Timeline) -> Option<Arc<Saved>> {
        let mut prefixes = chosen.iter().filter(|(file, _)| lease::is_prefix(file));
        let (file, None) = (&prefixes.next()?.0, prefixes.next()) else { return None };
        let known = self.known(file);
        let plain = sets.agrees(&Timeline::default()) >= known.tokens.len();
        let fits = !known.tokens.is_empty() && plain && prompt.starts_with(&known.tokens);
        known.saved.clone().filter(|_| fits)
    }

    /// Reads a prefix and gives the state it leaves, with the engine's stamp; `None` when it is too short to be worth
    /// keeping.
    ///
    /// # Errors
    /// States of this model cannot be saved, or the messages do not fit into the context.
    pub fn read_prefix(&self, file: &Arc<AdapterFile>) -> Result<Option<(Stamp, Saved)>, Failure> {
        let stamp = self.worker.stamp()?;
        let tokens = self.prefix_tokens(file)?;
        if tokens.len() < WORTH_KEEPING {
            return Ok(None);
        }
        let (keep, kept) = channel();
        self.worker.submit(self.reading(tokens, keep))?;
        let none = || Failure::new(Code::Other, "the engine stopped before the prefix was read");
        kept.recv().map(|saved| Some((stamp, saved))).map_err(|_| none())
    }

    /// What is known of a prefix; looked up, or made, at its first use.
    fn known(&self, file: &Arc<AdapterFile>) -> Arc<Known> {
        let lock = || self.prefixes.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&file.digest()) {
            return known.clone();
        }
        // Nothing of this may stop a request: without a state it reads the messages.
        let known = Arc::new(self.look_up(file).unwrap_or(Known { tokens: Vec::new(), saved: None }));
        let mut all = lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.entry(file.digest()).or_insert(known).clone()
    }

    fn look_up(&self, file: &Arc<AdapterFile>) -> Result<Known, Failure> {
        let tokens = self.prefix_tokens(file)?;
        if tokens.len() < WORTH_KEEPING || !self.ready.facts.prefix_reuse {
            return Ok(Known { tokens: Vec::new(), saved: None });
        }
        let stamp = self.worker.stamp()?;
        let (digest, key) = (file.digest(), stamp.key());
        let own = PrefixState::read(file.bytes()).ok().filter(|p| p.stamp.as_deref() == Some(key.as_str()));
        let own = own.map(|p| Box::new(p.state.to_vec()) as Box<dyn HeldBytes>);
        let context = self.ready.facts.sequence_context;
        let sound = |held| read_state(held, &stamp, context, &tokens);
        let saved = own.and_then(sound).or_else(|| self.shelf.state(digest, &key).and_then(sound));
        if saved.is_none() && self.shelf.keeps_states(digest) {
            self.make(digest, stamp, &tokens);
        }
        Ok(Known { tokens, saved })
    }

    /// Queues the reading of a prefix, before the request that waits for it, and keeps the state when it is there.
    fn make(&self, digest: AdapterDigest, stamp: Stamp, tokens: &[Token]) {
        let (keep, kept) = channel();
        if self.worker.try_submit(self.reading(tokens.to_vec(), keep)).is_err() {
            return;
        }
        let (shelf, known, context) =
            (self.shelf.clone(), self.prefixes.known.clone(), self.ready.facts.sequence_context);
        let write = move || {
            let Ok(made) = kept.recv() else { return };
            // A library that cannot be written is still of use.
            let _ = shelf.keep_state(digest, &stamp.key(), &made.to_file(&stamp));
            let saved = shelf.state(digest, &stamp.key());
            let saved = saved.and_then(|held| read_state(held, &stamp, context, &made.tokens));
            let ready = Arc::new(Known { tokens: made.tokens, saved });
            known.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, ready);
        };
        if let Ok(writer) = std::thread::Builder::new().name("prefix".into()).spawn(write) {
            self.prefixes.writers.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
        }
    }

    /// A job that only reads.
    fn reading(&self, prompt: Vec<Token>, keep: std::sync::mpsc::Sender<Saved>) -> Job {
        Job {
            prompt,
            lease: Lease::default(),
            matcher: None,
            sampling: Default::default(),
            limits: JobLimits { max_tokens: Some(0), ..JobLimits::default() },
            cache_prompt: true,
            slot: None,
            saved: None,
            keep: Some(keep),
            n_probs: 0,
            special: false,
            drafts: Default::default(),
            events: channel().0,
            cancel: CancelToken::default(),
            submitted: Instant::now(),
        }
    }

    /// What every prompt after a prefix begins with: what two such prompts have in common.
    fn prefix_tokens(&self, file: &Arc<AdapterFile>) -> Result<Vec<Token>, Failure> {
        let chosen = [(file.clone(), Scale::ONE)];
        let prompt = |question: &str| {
            let asked = Input::chat(vec![Message::new(Role::User, question)]);
            self.prompt_tokens(lease::with_prefixes(asked, &chosen)?)
        };
        let (mut one, other) = (prompt("A")?, prompt("7")?);
        let common = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        one.truncate(common);
        if one.len() >= self.ready.facts.sequence_context {
            return Err(Failure::usage(format!(
                "the prefix has {} tokens and does not fit into the context",
                one.len()
            )));
        }
        Ok(one)
    }
}

/// A kept state, if it is sound, fits the engine and is of these tokens under the plain base.
fn read_state(held: Box<dyn HeldBytes>, stamp: &Stamp, context: usize, tokens: &[Token]) -> Option<Arc<Saved>> {
    let saved = Saved::from_file(held, stamp, context).ok()?;
    (saved.tokens == tokens && saved.sets == Timeline::default()).then(|| Arc::new(saved))
}
