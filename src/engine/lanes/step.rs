//! Which row of a step uses which adapters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::LaneAdapter;
use super::pack::LaneWeight;

/// Which rows a linear is computed for: all of a step, or only those whose logits are wanted (llama.cpp drops the
/// others in the last layer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Every row.
    All,
    /// The rows with logits, in order.
    Outputs,
}

/// The plan of one step: rows in groups, a group for each sequence with adapters, and scratch for `A x`.
///
/// Shared by the threads that compute the step. The scratch is made of atomics so that they can write their own parts
/// of it without `unsafe`; relaxed loads and stores of 32 bits are plain moves.
#[derive(Debug, Default)]
pub struct Step {
    pub(super) groups: Vec<Group>,
    rows: usize,
    outputs: usize,
    scratch: Vec<AtomicU32>,
    used: usize,
}

/// The rows of one sequence, under one weighted set.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) members: Vec<Member>,
    all: Vec<Place>,
    outputs: Vec<Place>,
}

/// An adapter of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) adapter: Arc<LaneAdapter>,
    pub(super) scale: f32,
    /// Where its part of a row's scratch begins.
    pub(super) offset: usize,
}

/// A row: its column in the matrix, and where its scratch begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) column: usize,
    pub(super) scratch: usize,
}

impl Step {
    /// Forgets the last step; memory is kept.
    pub fn clear(&mut self) {
        self.groups.clear();
        (self.rows, self.outputs, self.used) = (0, 0, 0);
    }

    /// Adds the next rows of the step: consecutive rows of one sequence under one set. `wants_logits` has an entry
    /// for each. A set without members is the plain base.
    pub fn push(&mut self, set: &[(Arc<LaneAdapter>, f32)], wants_logits: &[bool]) {
        let (first, first_output) = (self.rows, self.outputs);
        self.rows += wants_logits.len();
        self.outputs += wants_logits.iter().filter(|w| **w).count();
        if set.is_empty() {
            return;
        }
        let mut width = 0;
        let members = set.iter().map(|(adapter, scale)| {
            let offset = width;
            width += adapter.max_rank();
            Member { adapter: adapter.clone(), scale: *scale, offset }
        });
        let members = members.collect();
        let mut group = Group { members, all: Vec::new(), outputs: Vec::new() };
        let mut output = first_output;
        for (i, wanted) in wants_logits.iter().enumerate() {
            let scratch = self.used;
            self.used += width;
            group.all.push(Place { column: first + i, scratch });
            if *wanted {
                group.outputs.push(Place { column: output, scratch });
                output += 1;
            }
        }
        self.groups.push(group);
        if self.scratch.len() < self.used {
            self.scratch.resize_with(self.used, AtomicU32::default);
        }
    }

    /// Which rows a matrix of `columns` columns stands for; `None` when it fits neither number.
    pub fn columns(&self, columns: usize) -> Option<Columns> {
        match columns {
            n if n == self.rows => Some(Columns::All),
            n if n == self.outputs => Some(Columns::Outputs),
            _ => None,
        }
    }

    /// Whether no row has an adapter.
    pub fn is_plain(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn put(&self, at: usize, value: f32) {
        self.scratch[at].store(value.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn get(&self, at: usize) -> f32 {
        f32::from_bits(self.scratch[at].load(Ordering::Relaxed))
    }
}

impl Group {
    /// Its adapters that have a pair at a linear, in the order of the set.
    pub(super) fn at(&self, site: usize) -> impl Iterator<Item = (&Member, &LaneWeight)> {
        self.members.iter().filter_map(move |m| Some((m, m.adapter.weight(site).filter(|w| w.rank > 0)?)))
    }

    /// Its adapters that have gains at a linear.
    pub(super) fn gains(&self, site: usize) -> impl Iterator<Item = (&Member, &[f32])> + Clone {
        self.members.iter().filter_map(move |m| Some((m, m.adapter.weight(site)?.gain.as_deref()?)))
    }

    pub(super) fn places(&self, columns: Columns) -> &[Place] {
        match columns {
            Columns::All => &self.all,
            Columns::Outputs => &self.outputs,
        }
    }
}
