//! Masks of single network states, worked out once per grammar and shared by all its runs.
//!
//! What a token does often does not depend on the whole stack: inside a JSON string nearly every token stays inside
//! the string. So the mask of an item is split: tokens that are decided by its top alone (a [`Local`] mask, walked
//! once over the whole trie), and the *exits*, places of the trie at which the top has returned and what lies below
//! decides. A mask is then a union of a few local masks and some short walks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::mask::TokenMask;

/// What a local mask depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LocalKey {
    /// The network state on top.
    pub state: u32,
    /// The repetition right below, if the item's frame is one.
    pub turns: Option<Turns>,
}

/// A repetition with its count, as far as one token can tell: numbers past the longest token are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Turns {
    pub repetition: u32,
    /// Turns still missing.
    pub missing: u32,
    /// Turns still allowed.
    pub allowed: u32,
}

/// What the top of an item decides about all tokens.
#[derive(Debug)]
pub(super) struct Local {
    /// Tokens allowed whatever lies below.
    pub mask: TokenMask,
    /// Trie nodes whose parent's bytes bring the top to its end, with the byte of the node, sorted. Left out where
    /// all tokens below are in the mask already.
    pub exits: Vec<(u8, u32)>,
}

impl Local {
    fn bytes(&self) -> usize {
        size_of_val(self.mask.words()) + size_of_val(self.exits.as_slice()) + 128
    }
}

/// The local masks of a grammar. Forgets all of them when they grow past a limit.
pub(super) struct Locals {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_key: HashMap<LocalKey, Arc<Local>>,
    bytes: usize,
}

impl Locals {
    /// Bytes of local masks that one grammar keeps.
    pub const LIMIT: usize = 16 << 20;

    pub fn new() -> Self {
        Locals { inner: Mutex::default() }
    }

    pub fn get(&self, key: &LocalKey) -> Option<Arc<Local>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.by_key.get(key).map(Arc::clone)
    }

    pub fn put(&self, key: LocalKey, local: &Arc<Local>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.bytes + local.bytes() > Self::LIMIT {
            *inner = Inner::default();
        }
        if inner.by_key.insert(key, Arc::clone(local)).is_none() {
            inner.bytes += local.bytes();
        }
    }

    pub fn bytes(&self) -> usize {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes
    }
}
