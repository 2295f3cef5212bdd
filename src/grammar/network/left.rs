//! Left recursion, taken out of the automata.
//!
//! An automaton whose start calls itself, straight or through others, would be entered without end. Take all
//! automata of such a cycle together. Every text of one of them begins with a non-recursive first step of some
//! member and is then grown to the left-most caller, member by member, until the wanted one is complete. So the
//! automaton of a member is: the non-recursive first steps of all members, their states, and from every end of a
//! member an empty move to wherever another member continues after calling it first. The language is the same, no
//! start calls a member any more.

use super::super::error::GrammarError;
use super::super::gbnf::Grammar;
use super::automaton::{Automaton, Draft, Label};
use super::fragment::Fragments;
use super::graph;

/// Rewrites every left-recursive automaton in `automata`.
pub(super) fn remove(
    fragments: &mut Fragments<'_>,
    automata: &mut [Automaton],
    grammar: &Grammar,
    limit: usize,
) -> Result<(), GrammarError> {
    let firsts: Vec<Vec<usize>> = automata.iter().map(|automaton| first_calls(automaton, fragments)).collect();
    for mut cycle in graph::components(automata.len(), |index| firsts[index].clone()) {
        let recursive = cycle.len() > 1 || firsts[cycle[0]].contains(&cycle[0]);
        if !recursive {
            continue;
        }
        // Messages begin with the first of them in the text.
        cycle.sort_by_key(|&member| grammar.rules[fragments.owner[member]].span.start);
        let names = || cycle_names(fragments, grammar, &cycle, &firsts);
        let place = grammar.rules[fragments.owner[cycle[0]]].span;
        if cycle.iter().any(|&member| repeats(&automata[member], fragments, &cycle)) {
            return Err(grammar.text.error(
                place,
                None,
                format!("left recursion through a counted repetition: {}", names()),
                Some("let the rule begin with something else".to_owned()),
            ));
        }
        let size: usize = cycle.iter().map(|&member| automata[member].size()).sum();
        if size.saturating_mul(cycle.len()) > limit {
            return Err(grammar.text.error(
                place,
                None,
                format!("left recursion through too many rules: {}", names()),
                Some("let the rule begin with something else".to_owned()),
            ));
        }
        let mut budget = (limit as u64).saturating_mul(4);
        let rewritten: Option<Vec<Automaton>> =
            cycle.iter().map(|&goal| rewrite(automata, &cycle, goal).finish(&mut budget).ok()).collect();
        let Some(rewritten) = rewritten else {
            return Err(grammar.text.error(
                place,
                None,
                format!("left recursion grows too large: {}", names()),
                Some("let the rule begin with something else".to_owned()),
            ));
        };
        for (&member, automaton) in cycle.iter().zip(rewritten) {
            automata[member] = automaton;
        }
    }
    Ok(())
}

/// The automata that the start of `automaton` enters without consuming anything.
pub(super) fn first_calls(automaton: &Automaton, fragments: &Fragments<'_>) -> Vec<usize> {
    let edges = &automaton.states[0].edges;
    edges
        .iter()
        .filter_map(|&(label, _)| match label {
            Label::Call(callee) => Some(callee as usize),
            Label::Repeat(index) => Some(fragments.repetitions[index as usize].body as usize),
            Label::Bytes(..) | Label::Token(_) => None,
        })
        .collect()
}

/// Whether the start of `automaton` repeats a member of the cycle.
fn repeats(automaton: &Automaton, fragments: &Fragments<'_>, cycle: &[usize]) -> bool {
    automaton.states[0].edges.iter().any(|&(label, _)| match label {
        Label::Repeat(index) => cycle.contains(&(fragments.repetitions[index as usize].body as usize)),
        _ => false,
    })
}

/// The automaton of `goal`, see the module's head.
fn rewrite(automata: &[Automaton], cycle: &[usize], goal: usize) -> Draft {
    let mut draft = Draft::new();
    let member = |label: Label| match label {
        Label::Call(callee) => cycle.iter().position(|&member| member == callee as usize),
        _ => None,
    };
    // Copies of all states but the starts.
    let base: Vec<u32> = cycle
        .iter()
        .map(|&index| {
            let first = draft.state();
            for _ in 1..automata[index].states.len() {
                draft.state();
            }
            first
        })
        .collect();
    // Where the members go on after calling a member first.
    let mut after: Vec<Vec<u32>> = vec![Vec::new(); cycle.len()];
    for (&index, &base) in cycle.iter().zip(&base) {
        for &(label, to) in &automata[index].states[0].edges {
            match member(label) {
                Some(called) => after[called].push(base + to),
                None => draft.edge(0, label, base + to),
            }
        }
    }
    for ((&index, &base), after) in cycle.iter().zip(&base).zip(&after) {
        // One state per member where all its ends meet, so that moves add up instead of multiplying.
        let done = draft.state();
        for &to in after {
            draft.empty(done, to);
        }
        if index == goal {
            draft.last(done);
        }
        for (number, state) in automata[index].states.iter().enumerate().skip(1) {
            let from = base + number as u32;
            for &(label, to) in &state.edges {
                draft.edge(from, label, base + to);
            }
            if state.last {
                draft.empty(from, done);
            }
        }
    }
    draft
}

/// `a -> b -> a`, for messages.
fn cycle_names(fragments: &Fragments<'_>, grammar: &Grammar, cycle: &[usize], firsts: &[Vec<usize>]) -> String {
    const SHOWN: usize = 8;
    let mut path = vec![cycle[0]];
    while let Some(&last) = path.last() {
        let next = firsts[last].iter().find(|next| cycle.contains(next));
        match next {
            Some(&next) if path.contains(&next) || path.len() > SHOWN => {
                path.push(next);
                break;
            }
            Some(&next) => path.push(next),
            None => break,
        }
    }
    let mut names: Vec<&str> = path.iter().map(|&index| grammar.rules[fragments.owner[index]].name.as_str()).collect();
    names.dedup();
    if path.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("...");
    }
    names.join(" -> ")
}
