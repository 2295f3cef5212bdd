//! The automaton of one rule: first with empty moves, as it is built, then without them, as it is run.
//!
//! In the finished form the start state is never final and nothing leads back to it: an automaton stands for the
//! texts of its rule except the empty one. Whoever uses a rule that may be empty adds a way around it. So every call
//! consumes at least a byte, and no loop can turn without consuming.

/// What moves an automaton from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Label {
    /// One byte of an inclusive range.
    Bytes(u8, u8),
    /// A non-empty text of another automaton.
    Call(u32),
    /// A counted repetition, by index.
    Repeat(u32),
    /// A token terminal, by index.
    Token(u32),
}

/// With empty moves. State 0 is the start.
#[derive(Debug)]
pub(super) struct Draft {
    states: Vec<DraftState>,
}

#[derive(Debug, Default)]
struct DraftState {
    empty: Vec<u32>,
    edges: Vec<(Label, u32)>,
    last: bool,
}

/// Without empty moves. State 0 is the start.
#[derive(Debug, Clone, Default)]
pub(super) struct Automaton {
    pub states: Vec<State>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Sorted, without doubles.
    pub edges: Vec<(Label, u32)>,
    /// Whether the rule may end here.
    pub last: bool,
}

/// Too large, or too long to build.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Draft {
    pub fn new() -> Self {
        Draft { states: vec![DraftState::default()] }
    }

    pub fn state(&mut self) -> u32 {
        self.states.push(DraftState::default());
        self.states.len() as u32 - 1
    }

    pub fn edge(&mut self, from: u32, label: Label, to: u32) {
        self.states[from as usize].edges.push((label, to));
    }

    pub fn empty(&mut self, from: u32, to: u32) {
        self.states[from as usize].empty.push(to);
    }

    /// The rule may end in `state`.
    pub fn last(&mut self, state: u32) {
        self.states[state as usize].last = true;
    }

    /// Copies `automaton` in: from `from`, with a new state at which all its ends come together.
    pub fn splice(&mut self, automaton: &Automaton, from: u32) -> u32 {
        let base = self.states.len() as u32;
        let end = base + automaton.states.len() as u32;
        for state in &automaton.states {
            self.states.push(DraftState {
                empty: if state.last { vec![end] } else { Vec::new() },
                edges: state.edges.iter().map(|&(label, to)| (label, base + to)).collect(),
                last: false,
            });
        }
        self.states.push(DraftState::default());
        self.empty(from, base);
        end
    }

    /// Removes the empty moves. `budget` counts down states, edges and moves looked at.
    pub fn finish(self, budget: &mut u64) -> Result<Automaton, TooLarge> {
        const NONE: u32 = u32::MAX;
        // Only the start and the targets of edges are states of the result.
        let mut number = vec![NONE; self.states.len()];
        let mut kept = vec![0u32];
        number[0] = 0;
        let mut seen = vec![NONE; self.states.len()];
        let mut automaton = Automaton::default();
        let mut stack = Vec::new();
        let mut next = 0;
        while let Some(&start) = kept.get(next) {
            let mut state = State::default();
            stack.push(start);
            seen[start as usize] = next as u32;
            while let Some(at) = stack.pop() {
                let at = &self.states[at as usize];
                let cost = 1 + at.edges.len() as u64 + at.empty.len() as u64;
                *budget = budget.checked_sub(cost).ok_or(TooLarge)?;
                state.last |= at.last;
                for &(label, to) in &at.edges {
                    let slot = &mut number[to as usize];
                    if *slot == NONE {
                        *slot = kept.len() as u32;
                        kept.push(to);
                    }
                    state.edges.push((label, *slot));
                }
                for &to in &at.empty {
                    if seen[to as usize] != next as u32 {
                        seen[to as usize] = next as u32;
                        stack.push(to);
                    }
                }
            }
            state.edges.sort_unstable();
            state.edges.dedup();
            automaton.states.push(state);
            next += 1;
        }
        automaton.states[0].last = false;
        Ok(automaton)
    }
}

impl Automaton {
    /// States and edges together.
    pub fn size(&self) -> usize {
        self.states.iter().map(|state| 1 + state.edges.len()).sum()
    }
}
