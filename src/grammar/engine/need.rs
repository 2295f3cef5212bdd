//! How much text is still needed: the shortest way to the end, from every state of a network.
//!
//! Lengths are in bytes, and a token terminal counts as one. A byte is only counted where the vocabulary has a token
//! of that one byte, so the length of a way is also a number of tokens that can spell it: least bytes are an upper
//! bound on least tokens. Where a byte has no token of its own there may be no such way; the length is then [`NEVER`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::network::{Callee, Network, Repetition};

/// No way to the end that single-byte tokens can spell.
pub(super) const NEVER: u32 = u32::MAX;

/// Shortest ways through the states of a network.
#[derive(Debug)]
pub(super) struct Needs {
    /// Per state, least bytes to the end of its automaton.
    tails: Vec<u32>,
    /// Per repetition, least bytes of one turn.
    turns: Vec<u32>,
    /// The most by which one byte can raise what an item needs.
    rise: u32,
}

/// Sum that keeps [`NEVER`] apart from "very long".
pub(super) fn add(a: u32, b: u32) -> u32 {
    match (a, b) {
        (NEVER, _) | (_, NEVER) => NEVER,
        _ => a.saturating_add(b).min(NEVER - 1),
    }
}

fn times(count: u32, length: u32) -> u32 {
    match (count, length) {
        (0, _) => 0,
        (_, NEVER) => NEVER,
        _ => count.saturating_mul(length).min(NEVER - 1),
    }
}

impl Needs {
    /// Works out all lengths. `single[byte]`: whether a token of that one byte exists.
    pub fn new(network: &Network, single: &[bool; 256]) -> Self {
        let tails = tails(network, single);
        let turns: Vec<u32> = network
            .repetitions
            .iter()
            .map(|repetition| tails[network.starts[repetition.body as usize] as usize])
            .collect();
        let mut needs = Needs { tails, turns, rise: 0 };
        needs.rise = needs.largest_rise(network);
        needs
    }

    /// Least bytes from `state` to the end of its automaton.
    pub fn tail(&self, state: u32) -> u32 {
        self.tails[state as usize]
    }

    /// Least bytes of the turns that are missing after `count` of them.
    pub fn missing(&self, network: &Network, repetition: u32, count: u32) -> u32 {
        let min = network.repetitions[repetition as usize].min;
        times(min.saturating_sub(count), self.turns[repetition as usize])
    }

    /// The most by which one byte can raise the need of the neediest item of a state.
    pub fn rise(&self) -> u32 {
        self.rise
    }

    pub fn bytes(&self) -> usize {
        size_of_val(self.tails.as_slice()) + size_of_val(self.turns.as_slice())
    }

    fn largest_rise(&self, network: &Network) -> u32 {
        // What the first byte of an automaton can leave to do. Starts only enter later automata.
        let mut first = vec![0u32; network.starts.len()];
        for automaton in (0..network.starts.len()).rev() {
            first[automaton] = self.after_byte(network, network.starts[automaton], &first);
        }
        let largest = (0..network.states.len() as u32).map(|state| {
            let tail = self.tail(state);
            match tail {
                NEVER => 0, // its items are always looked at one by one
                tail => self.after_byte(network, state, &first).saturating_sub(tail),
            }
        });
        // A turn that may be added costs its length too.
        let turn = self.turns.iter().copied().max().unwrap_or(0);
        add(largest.max().unwrap_or(0), turn)
    }

    /// The most that is left to do in `state`'s automaton and those it enters after one byte.
    fn after_byte(&self, network: &Network, state: u32, first: &[u32]) -> u32 {
        let state = &network.states[state as usize];
        let bytes = network.bytes[range(&state.bytes)].iter().map(|edge| self.tail(edge.to));
        let tokens = network.tokens[range(&state.tokens)].iter().map(|edge| self.tail(edge.to));
        let calls = network.calls[range(&state.calls)].iter().map(|call| {
            let inner = match call.callee {
                Callee::Automaton(automaton) => first[automaton as usize],
                Callee::Repetition(repetition) => {
                    let Repetition { body, .. } = network.repetitions[repetition as usize];
                    add(first[body as usize], self.missing(network, repetition, 1))
                }
            };
            add(inner, self.tail(call.back))
        });
        bytes.chain(tokens).chain(calls).max().unwrap_or(0)
    }
}

fn range(range: &std::ops::Range<u32>) -> std::ops::Range<usize> {
    range.start as usize..range.end as usize
}

/// One way on from a state, with what its length is made of.
#[derive(Clone, Copy)]
struct Step {
    from: u32,
    to: u32,
    /// `None`: one byte. Otherwise the start of an automaton and how often it is passed.
    through: Option<(u32, u32)>,
}

/// Least bytes from every state to the end of its automaton, by Knuth's form of Dijkstra's algorithm: states are
/// settled from the nearest up, and a call is looked at when both the called automaton and the rest are settled.
fn tails(network: &Network, single: &[bool; 256]) -> Vec<u32> {
    let mut steps = Vec::with_capacity(network.bytes.len() + network.calls.len() + network.tokens.len());
    for (from, state) in network.states.iter().enumerate() {
        let from = from as u32;
        for edge in &network.bytes[range(&state.bytes)] {
            if (edge.low..=edge.high).any(|byte| single[usize::from(byte)]) {
                steps.push(Step { from, to: edge.to, through: None });
            }
        }
        for edge in &network.tokens[range(&state.tokens)] {
            steps.push(Step { from, to: edge.to, through: None });
        }
        for call in &network.calls[range(&state.calls)] {
            let (automaton, turns) = match call.callee {
                Callee::Automaton(automaton) => (automaton, 1),
                Callee::Repetition(repetition) => {
                    let Repetition { body, min, .. } = network.repetitions[repetition as usize];
                    (body, min.max(1))
                }
            };
            steps.push(Step { from, to: call.back, through: Some((network.starts[automaton as usize], turns)) });
        }
    }
    let users = Users::new(network.states.len(), &steps);
    let mut tails = vec![NEVER; network.states.len()];
    let mut settled = vec![false; network.states.len()];
    let mut queue: BinaryHeap<Reverse<(u32, u32)>> = BinaryHeap::new();
    for (index, state) in network.states.iter().enumerate() {
        if state.last {
            queue.push(Reverse((0, index as u32)));
        }
    }
    while let Some(Reverse((length, state))) = queue.pop() {
        if std::mem::replace(&mut settled[state as usize], true) {
            continue;
        }
        tails[state as usize] = length;
        for &step in users.of(state) {
            let Step { from, to, through } = steps[step as usize];
            if settled[from as usize] {
                continue;
            }
            let inner = match through {
                None => 1,
                Some((start, turns)) => times(turns, tails[start as usize]),
            };
            let length = add(inner, tails[to as usize]);
            if length != NEVER && length < tails[from as usize] {
                // Not settled: only a better guess, which the queue puts in order.
                tails[from as usize] = length;
                queue.push(Reverse((length, from)));
            }
        }
    }
    tails
}

/// For every state the steps whose length depends on it.
struct Users {
    starts: Vec<u32>,
    steps: Vec<u32>,
}

impl Users {
    fn new(states: usize, steps: &[Step]) -> Self {
        let parts = |step: &Step| [Some(step.to), step.through.map(|(start, _)| start)].into_iter().flatten();
        let mut starts = vec![0u32; states + 1];
        for step in steps {
            parts(step).for_each(|state| starts[state as usize + 1] += 1);
        }
        for index in 0..states {
            starts[index + 1] += starts[index];
        }
        let mut next = starts.clone();
        let mut users = vec![0u32; starts[states] as usize];
        for (index, step) in steps.iter().enumerate() {
            for state in parts(step) {
                let slot = &mut next[state as usize];
                users[*slot as usize] = index as u32;
                *slot += 1;
            }
        }
        Users { starts, steps: users }
    }

    fn of(&self, state: u32) -> &[u32] {
        &self.steps[self.starts[state as usize] as usize..self.starts[state as usize + 1] as usize]
    }
}
