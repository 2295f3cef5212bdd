//! What the engine's thread has done so far, for metrics. Written by that thread alone, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Counters since the start, and gauges of now.
#[derive(Debug, Default)]
pub struct Counts {
    steps: AtomicU64,
    rows: AtomicU64,
    busy: AtomicU64,
    cells: AtomicU64,
    accepted: Mutex<Vec<u64>>,
}

/// One reading of [`Counts`]; the numbers need not be of the same instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Steps of the engine.
    pub steps: u64,
    /// Rows of all steps.
    pub rows: u64,
    /// Sequences with a request, summed over the steps.
    pub busy: u64,
    /// Tokens that running requests hold in the context now; a prefix that several share counts for each.
    pub cells: u64,
    /// How often the first, second, and so on token of a draft was right; empty before the first draft.
    pub accepted: Vec<u64>,
}

impl Reading {
    /// What two engines have done, one after the other.
    pub fn and(&self, later: Reading) -> Reading {
        let mut accepted = later.accepted;
        accepted.resize(accepted.len().max(self.accepted.len()), 0);
        accepted.iter_mut().zip(&self.accepted).for_each(|(sum, before)| *sum += before);
        Reading {
            accepted,
            steps: self.steps + later.steps,
            rows: self.rows + later.rows,
            busy: self.busy + later.busy,
            cells: later.cells,
        }
    }
}

impl Counts {
    pub(super) fn step(&self, rows: usize, busy: usize) {
        self.steps.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
        self.busy.fetch_add(busy as u64, Relaxed);
    }

    /// A draft of so many tokens was checked, of which so many were right.
    pub(super) fn checked(&self, length: usize, right: usize) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let positions = accepted.len().max(length);
        accepted.resize(positions, 0);
        accepted[..right].iter_mut().for_each(|n| *n += 1);
    }

    pub(super) fn hold(&self, cells: usize) {
        self.cells.store(cells as u64, Relaxed);
    }

    /// Reads them.
    pub fn read(&self) -> Reading {
        Reading {
            steps: self.steps.load(Relaxed),
            rows: self.rows.load(Relaxed),
            busy: self.busy.load(Relaxed),
            cells: self.cells.load(Relaxed),
            accepted: self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
