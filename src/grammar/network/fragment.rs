//! From the expressions of a grammar to automata, one per rule and one per counted repetition.

use std::collections::HashMap;

use super::super::error::GrammarError;
use super::super::gbnf::{Expr, Grammar, Span, TokenName};
use super::super::limits::Limits;
use super::super::vocabulary::Vocabulary;
use super::automaton::{Automaton, Draft, Label};
use super::{Repetition, TokenSet, graph, utf8};

/// Automata up to this size (states and edges) are copied into their users instead of being called.
const INLINE: usize = 64;
/// The same for automata with a single user.
const INLINE_SINGLE: usize = 1024;
/// Repetitions up to this size are unrolled; larger ones are counted.
const UNROLL: usize = 64;

/// All automata of a grammar, before left recursion is dealt with.
pub(super) struct Fragments<'a> {
    grammar: &'a Grammar,
    vocabulary: &'a Vocabulary,
    limits: &'a Limits,
    budget: u64,
    /// Per rule, then per counted repetition body. `None` while a rule is not built.
    pub automata: Vec<Option<Automaton>>,
    /// Whether uses of the rule copy it.
    inline: Vec<bool>,
    pub repetitions: Vec<Repetition>,
    pub tokens: Vec<TokenSet>,
    /// For messages: the rule each automaton belongs to.
    pub owner: Vec<usize>,
    /// The rule being built.
    current: usize,
}

/// Builds the automata of `grammar`.
pub(super) fn build<'a>(
    grammar: &'a Grammar,
    vocabulary: &'a Vocabulary,
    limits: &'a Limits,
) -> Result<Fragments<'a>, GrammarError> {
    let rules = grammar.rules.len();
    let mut uses = vec![0usize; rules];
    let users: Vec<Vec<usize>> = grammar
        .rules
        .iter()
        .map(|rule| {
            let mut used = Vec::new();
            super::super::gbnf::each_rule(&rule.body, &mut |index| {
                uses[index] += 1;
                used.push(index);
            });
            used
        })
        .collect();
    let mut fragments = Fragments {
        grammar,
        vocabulary,
        limits,
        // Empty moves that lead nowhere cost time but no space, hence the factor.
        budget: limits.network_size as u64 * 4,
        automata: vec![None; rules],
        inline: vec![false; rules],
        repetitions: Vec::new(),
        tokens: Vec::new(),
        owner: (0..rules).collect(),
        current: 0,
    };
    for component in graph::components(rules, |rule| users[rule].clone()) {
        for &rule in &component {
            fragments.current = rule;
            let automaton = fragments.automaton(&grammar.rules[rule].body)?;
            let recursive = component.len() > 1 || users[rule].contains(&rule);
            let bound = if uses[rule] == 1 { INLINE_SINGLE } else { INLINE };
            fragments.inline[rule] = !recursive && automaton.size() <= bound;
            fragments.automata[rule] = Some(automaton);
        }
    }
    Ok(fragments)
}

impl Fragments<'_> {
    /// The automaton of all non-empty texts of `expr`.
    fn automaton(&mut self, expr: &Expr) -> Result<Automaton, GrammarError> {
        let mut draft = Draft::new();
        let end = self.expr(&mut draft, expr, 0)?;
        draft.last(end);
        draft.finish(&mut self.budget).map_err(|_| self.too_large())
    }

    fn too_large(&self) -> GrammarError {
        let limit = self.limits.network_size as u64;
        let span = self.grammar.rules[self.current].span;
        let text = &self.grammar.text;
        text.limit(Some(span), "states and edges of the automata, at least", limit + 1, limit)
    }

    /// Adds `expr` to `draft` beginning at `from`; returns the state where it ends.
    fn expr(&mut self, draft: &mut Draft, expr: &Expr, from: u32) -> Result<u32, GrammarError> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| self.too_large())?;
        match expr {
            Expr::Literal(text) => Ok(text.bytes().fold(from, |at, byte| {
                let next = draft.state();
                draft.edge(at, Label::Bytes(byte, byte), next);
                next
            })),
            Expr::Class(ranges) => Ok(class(draft, ranges, from)),
            Expr::Sequence(items) => items.iter().try_fold(from, |at, item| self.expr(draft, item, at)),
            Expr::Choice(options) => {
                let end = draft.state();
                for option in options {
                    let at = self.expr(draft, option, from)?;
                    draft.empty(at, end);
                }
                Ok(end)
            }
            Expr::Repeat { body, min, max } => self.repeat(draft, body, *min, *max, from),
            Expr::Rule(rule) => self.rule(draft, *rule, from),
            Expr::Token { token, negated, span } => {
                let id = self.token(token, *span)?;
                let set = TokenSet { id, negated: *negated };
                self.tokens.push(set);
                let end = draft.state();
                draft.edge(from, Label::Token(self.tokens.len() as u32 - 1), end);
                Ok(end)
            }
        }
    }

    fn rule(&mut self, draft: &mut Draft, rule: usize, from: u32) -> Result<u32, GrammarError> {
        let reference = Expr::Rule(rule);
        let lengths = &self.grammar.lengths;
        if !lengths.nonempty(&reference) {
            return Ok(from);
        }
        let end = match &self.automata[rule] {
            Some(automaton) if self.inline[rule] => {
                let size = automaton.size() as u64;
                self.budget = self.budget.checked_sub(size).ok_or_else(|| self.too_large())?;
                draft.splice(automaton, from)
            }
            _ => {
                let end = draft.state();
                draft.edge(from, Label::Call(rule as u32), end);
                end
            }
        };
        if lengths.nullable(&reference) {
            draft.empty(from, end);
        }
        Ok(end)
    }

    fn repeat(
        &mut self,
        draft: &mut Draft,
        body: &Expr,
        min: u32,
        max: Option<u32>,
        from: u32,
    ) -> Result<u32, GrammarError> {
        let lengths = &self.grammar.lengths;
        if max == Some(0) || !lengths.nonempty(body) {
            return Ok(from);
        }
        // Only non-empty turns are counted; empty ones can stand for any that are missing.
        let min = if lengths.nullable(body) { 0 } else { min };
        let turns = max.unwrap_or(min.max(1));
        if turns > 1 && self.size(body).saturating_mul(turns as usize) > UNROLL {
            return self.counted(draft, body, min, max, from);
        }
        let mut at = from;
        // The turns that must be, except the one that an open end repeats.
        let fixed = if max.is_none() { min.saturating_sub(1) } else { min };
        for _ in 0..fixed {
            at = self.expr(draft, body, at)?;
        }
        let Some(max) = max else {
            let head = draft.state();
            draft.empty(at, head);
            let tail = self.expr(draft, body, head)?;
            draft.empty(tail, head);
            return Ok(if min == 0 { head } else { tail });
        };
        let end = draft.state();
        for _ in min..max {
            draft.empty(at, end);
            at = self.expr(draft, body, at)?;
        }
        draft.empty(at, end);
        Ok(end)
    }

    /// A repetition that is counted when it runs: its size does not depend on its bounds.
    fn counted(
        &mut self,
        draft: &mut Draft,
        body: &Expr,
        min: u32,
        max: Option<u32>,
        from: u32,
    ) -> Result<u32, GrammarError> {
        let automaton = self.automaton(body)?;
        self.automata.push(Some(automaton));
        self.owner.push(self.current);
        self.repetitions.push(Repetition {
            body: self.automata.len() as u32 - 1,
            min,
            max: max.unwrap_or(Repetition::OPEN),
        });
        let end = draft.state();
        draft.edge(from, Label::Repeat(self.repetitions.len() as u32 - 1), end);
        if min == 0 {
            draft.empty(from, end);
        }
        Ok(end)
    }

    /// About how many states and edges `expr` will add.
    fn size(&self, expr: &Expr) -> usize {
        match expr {
            Expr::Literal(text) => text.len(),
            Expr::Class(ranges) if ranges.iter().all(|range| range.1 < 0x80) => 1,
            Expr::Class(ranges) => 8 + ranges.len(),
            Expr::Sequence(items) | Expr::Choice(items) => items.iter().map(|item| self.size(item)).sum(),
            Expr::Repeat { body, min, max } => {
                let turns = max.unwrap_or((*min).max(1)) as usize;
                let size = self.size(body).saturating_mul(turns);
                if turns > 1 && size > UNROLL { 1 } else { size }
            }
            Expr::Rule(rule) => match &self.automata[*rule] {
                Some(automaton) if self.inline[*rule] => automaton.size() / 2,
                _ => 1,
            },
            Expr::Token { .. } => 1,
        }
    }

    /// The token a terminal names.
    fn token(&self, token: &TokenName, span: Span) -> Result<u32, GrammarError> {
        let rule = &self.grammar.rules[self.current].name;
        let refuse = |message: String, hint: Option<String>| self.grammar.text.error(span, Some(rule), message, hint);
        let vocabulary = self.vocabulary;
        let id = match token {
            TokenName::Id(id) => {
                u32::try_from(*id).ok().filter(|&id| (id as usize) < vocabulary.len()).ok_or_else(|| {
                    let last = vocabulary.len().saturating_sub(1);
                    refuse(
                        format!("token {id} is not in the vocabulary"),
                        Some(format!("token ids go from 0 to {last}")),
                    )
                })?
            }
            TokenName::Text(text) => vocabulary.find(text.as_bytes()).ok_or_else(|| {
                refuse(
                    format!("{text} is not one token of the vocabulary"),
                    Some("a token can be named by its id: <[1000]>".to_owned()),
                )
            })?,
        };
        match vocabulary.is_end(id) {
            true => Err(refuse(format!("token {id} ends the answer and cannot be part of it"), None)),
            false => Ok(id),
        }
    }
}

/// Adds one character out of `ranges`. Continuation bytes that lead to the same places share their states.
fn class(draft: &mut Draft, ranges: &[(u32, u32)], from: u32) -> u32 {
    let end = draft.state();
    let mut sequences = Vec::new();
    for &(low, high) in ranges {
        utf8::sequences(low, high, &mut sequences);
    }
    let mut shared: HashMap<(u8, u8, u32), u32> = HashMap::new();
    for sequence in sequences {
        let mut to = end;
        for &(low, high) in sequence.iter().skip(1).rev() {
            to = *shared.entry((low, high, to)).or_insert_with(|| {
                let state = draft.state();
                draft.edge(state, Label::Bytes(low, high), to);
                state
            });
        }
        if let Some(&(low, high)) = sequence.first() {
            draft.edge(from, Label::Bytes(low, high), to);
        }
    }
    end
}
