//! A grammar as a network of byte automata that call each other: the form the engine runs.
//!
//! Knows characters only as their UTF-8 bytes, so tokens that split a character need no special care.

mod automaton;
mod fragment;
mod graph;
mod left;
mod utf8;

use std::ops::Range;

use super::error::GrammarError;
use super::gbnf::Grammar;
use super::limits::Limits;
use super::vocabulary::Vocabulary;
use automaton::{Automaton, Label};

/// All automata in flat tables. Edges refer to states by index into [`Network::states`].
#[derive(Debug)]
pub(super) struct Network {
    pub states: Vec<State>,
    pub bytes: Vec<ByteEdge>,
    pub calls: Vec<Call>,
    pub tokens: Vec<TokenEdge>,
    /// Per automaton its start state. Automata are in calling order: a start only enters later ones.
    pub starts: Vec<u32>,
    pub repetitions: Vec<Repetition>,
    pub token_sets: Vec<TokenSet>,
    /// The automaton of the whole text.
    pub root: u32,
    /// Whether the empty text is complete.
    pub nullable: bool,
    pub classes: ByteClasses,
}

/// One state of one automaton.
#[derive(Debug)]
pub(super) struct State {
    pub bytes: Range<u32>,
    pub calls: Range<u32>,
    pub tokens: Range<u32>,
    /// The automaton may end here.
    pub last: bool,
    /// If this is the start of an automaton, which.
    pub start_of: Option<u32>,
}

impl State {
    /// Whether nothing leads on from here.
    pub fn is_dead_end(&self) -> bool {
        self.bytes.is_empty() && self.calls.is_empty() && self.tokens.is_empty()
    }
}

/// One byte out of `low..=high`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByteEdge {
    pub low: u8,
    pub high: u8,
    pub to: u32,
}

/// A call of another automaton, or of a repetition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub callee: Callee,
    /// The state in which the caller goes on.
    pub back: u32,
    /// Nothing follows in the caller: the callee can answer to the caller's caller.
    pub tail: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Callee {
    /// An automaton, by index into [`Network::starts`].
    Automaton(u32),
    /// A repetition, by index into [`Network::repetitions`].
    Repetition(u32),
}

/// A token out of a set, by index into [`Network::token_sets`].
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenEdge {
    pub set: u32,
    pub to: u32,
}

/// A repetition counted while it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repetition {
    /// The automaton of one turn, by index into [`Network::starts`].
    pub body: u32,
    pub min: u32,
    /// [`Repetition::OPEN`] for no upper bound.
    pub max: u32,
}

impl Repetition {
    /// No upper bound.
    pub const OPEN: u32 = u32::MAX;
}

/// One token, or all text tokens but it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenSet {
    pub id: u32,
    pub negated: bool,
}

/// Bytes that no edge tells apart, as one class.
#[derive(Debug)]
pub(super) struct ByteClasses {
    of: [u8; 256],
    /// One byte of each class.
    sample: Vec<u8>,
}

impl ByteClasses {
    fn new(edges: &[ByteEdge]) -> Self {
        let mut starts = [false; 257];
        starts[0] = true;
        for edge in edges {
            starts[usize::from(edge.low)] = true;
            starts[usize::from(edge.high) + 1] = true;
        }
        let mut of = [0; 256];
        let mut sample: Vec<u8> = Vec::new();
        for byte in 0..=255u8 {
            if starts[usize::from(byte)] {
                sample.push(byte);
            }
            // At least one class has begun, and there are at most 256.
            of[usize::from(byte)] = (sample.len() - 1) as u8;
        }
        ByteClasses { of, sample }
    }

    /// How many classes there are.
    pub fn count(&self) -> usize {
        self.sample.len()
    }

    /// A byte of `class`.
    pub fn sample(&self, class: usize) -> u8 {
        self.sample[class]
    }

    /// The class of `byte`.
    pub fn of(&self, byte: u8) -> usize {
        usize::from(self.of[usize::from(byte)])
    }
}

/// Builds the network of `grammar`.
pub(super) fn build(grammar: &Grammar, vocabulary: &Vocabulary, limits: &Limits) -> Result<Network, GrammarError> {
    let mut fragments = fragment::build(grammar, vocabulary, limits)?;
    let mut automata: Vec<Automaton> =
        std::mem::take(&mut fragments.automata).into_iter().map(Option::unwrap_or_default).collect();
    left::remove(&mut fragments, &mut automata, grammar, limits.network_size)?;

    // Callers first: the reverse of the order in which components come.
    let firsts = |index: usize| left::first_calls(&automata[index], &fragments);
    let mut order: Vec<usize> = graph::components(automata.len(), firsts).concat();
    order.reverse();
    let reached = reached(grammar.root, &automata, &fragments.repetitions);
    order.retain(|&index| reached[index]);

    let size: usize = order.iter().map(|&index| automata[index].size()).sum();
    if size > limits.network_size {
        return Err(grammar.text.limit(
            Some(grammar.rules[grammar.root].span),
            "states and edges of the automata",
            size as u64,
            limits.network_size as u64,
        ));
    }
    Ok(flatten(grammar, automata, &order, fragments.repetitions, fragments.tokens))
}

/// Which automata the root needs.
fn reached(root: usize, automata: &[Automaton], repetitions: &[Repetition]) -> Vec<bool> {
    let mut reached = vec![false; automata.len()];
    let mut stack = vec![root];
    while let Some(index) = stack.pop() {
        if std::mem::replace(&mut reached[index], true) {
            continue;
        }
        for &(label, _) in automata[index].states.iter().flat_map(|state| &state.edges) {
            match label {
                Label::Call(callee) => stack.push(callee as usize),
                Label::Repeat(repetition) => {
                    stack.push(repetitions[repetition as usize].body as usize);
                }
                Label::Bytes(..) | Label::Token(_) => {}
            }
        }
    }
    reached
}

/// Lays the automata of `order` out in tables.
fn flatten(
    grammar: &Grammar,
    automata: Vec<Automaton>,
    order: &[usize],
    mut repetitions: Vec<Repetition>,
    token_sets: Vec<TokenSet>,
) -> Network {
    // Old numbers of automata to new; those left out are never looked up.
    let mut number = vec![0u32; automata.len()];
    for (new, &old) in order.iter().enumerate() {
        number[old] = new as u32;
    }
    for repetition in &mut repetitions {
        repetition.body = number[repetition.body as usize];
    }
    let mut states = Vec::new();
    let (mut bytes, mut calls, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    let mut starts = Vec::with_capacity(order.len());
    for &index in order {
        let automaton = &automata[index];
        let base = states.len() as u32;
        starts.push(base);
        for (place, state) in automaton.states.iter().enumerate() {
            let from = (bytes.len() as u32, calls.len() as u32, tokens.len() as u32);
            for &(label, to) in &state.edges {
                let target = &automaton.states[to as usize];
                let to = base + to;
                let mut call = |callee| {
                    calls.push(Call { callee, back: to, tail: target.last && target.edges.is_empty() });
                };
                match label {
                    Label::Bytes(low, high) => bytes.push(ByteEdge { low, high, to }),
                    Label::Call(callee) => call(Callee::Automaton(number[callee as usize])),
                    Label::Repeat(repetition) => call(Callee::Repetition(repetition)),
                    Label::Token(set) => tokens.push(TokenEdge { set, to }),
                }
            }
            states.push(State {
                bytes: from.0..bytes.len() as u32,
                calls: from.1..calls.len() as u32,
                tokens: from.2..tokens.len() as u32,
                last: state.last,
                start_of: (place == 0).then(|| starts.len() as u32 - 1),
            });
        }
    }
    Network {
        classes: ByteClasses::new(&bytes),
        states,
        bytes,
        calls,
        tokens,
        starts,
        repetitions,
        token_sets,
        root: number[grammar.root],
        nullable: grammar.lengths.nullable(&super::gbnf::Expr::Rule(grammar.root)),
    }
}
