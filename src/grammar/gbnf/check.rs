//! What a grammar must be beyond its form: it has a root, and every rule can finish in reasonable length.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::error::{GrammarError, nearest};
use super::super::limits::Limits;
use super::text::{Span, Text};
use super::{Expr, Grammar, Rule};

/// Facts about the texts of each rule.
#[derive(Debug)]
pub(in super::super) struct Lengths {
    /// Bytes of the shortest text, per rule. Saturates.
    shortest: Vec<u64>,
    /// Whether there is any text but the empty one, per rule.
    nonempty: Vec<bool>,
}

/// Stands for "no text at all" in [`Lengths::shortest`] while it is worked out.
const NEVER: u64 = u64::MAX;

impl Lengths {
    /// Bytes of the shortest text of `expr`; [`NEVER`] if there is none. A token counts as one byte.
    pub fn shortest(&self, expr: &Expr) -> u64 {
        match expr {
            Expr::Literal(text) => text.len() as u64,
            Expr::Class(ranges) => ranges.first().map_or(NEVER, |&(low, _)| utf8_length(low)),
            Expr::Sequence(items) => {
                items.iter().map(|item| self.shortest(item)).fold(0, |sum, length| match (sum, length) {
                    (NEVER, _) | (_, NEVER) => NEVER,
                    // Kept apart from NEVER: too long is another mistake than never.
                    _ => sum.saturating_add(length).min(NEVER - 1),
                })
            }
            Expr::Choice(options) => options.iter().map(|option| self.shortest(option)).min().unwrap_or(NEVER),
            Expr::Repeat { min: 0, .. } => 0,
            Expr::Repeat { body, min, .. } => match self.shortest(body) {
                NEVER => NEVER,
                length => length.saturating_mul(u64::from(*min)).min(NEVER - 1),
            },
            Expr::Rule(index) => self.shortest[*index],
            Expr::Token { .. } => 1,
        }
    }

    /// Whether `expr` matches the empty text.
    pub fn nullable(&self, expr: &Expr) -> bool {
        self.shortest(expr) == 0
    }

    /// Whether `expr` matches any text that is not empty.
    pub fn nonempty(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Literal(text) => !text.is_empty(),
            Expr::Class(_) | Expr::Token { .. } => true,
            Expr::Sequence(items) | Expr::Choice(items) => items.iter().any(|item| self.nonempty(item)),
            Expr::Repeat { body, max, .. } => *max != Some(0) && self.nonempty(body),
            Expr::Rule(index) => self.nonempty[*index],
        }
    }
}

pub(super) fn check(text: Text, rules: Vec<Rule>, limits: &Limits) -> Result<Grammar, GrammarError> {
    let end = Span { start: text.text.len(), end: text.text.len() };
    if rules.is_empty() {
        return Err(text.error(end, None, "the grammar has no rules", None));
    }
    let Some(root) = rules.iter().position(|rule| rule.name == "root") else {
        let near = nearest("root", rules.iter().map(|rule| rule.name.as_str()));
        return Err(text.error(
            rules[0].span,
            None,
            "the grammar has no rule 'root'",
            Some(match near {
                Some(name) => format!("is '{name}' meant to be 'root'?"),
                None => "'root' is the rule that the whole text must match".to_owned(),
            }),
        ));
    };
    let lengths = measure(&rules);
    for (rule, &shortest) in rules.iter().zip(&lengths.shortest) {
        if shortest == NEVER {
            return Err(text.error(
                rule.span,
                Some(&rule.name),
                format!("rule '{}' can never finish", rule.name),
                Some("every way through it comes back to a rule like it; give it a way out".to_owned()),
            ));
        }
    }
    let shortest = lengths.shortest[root];
    if shortest > limits.shortest_text {
        return Err(text.limit(
            Some(rules[root].span),
            "bytes in the shortest text it allows",
            shortest,
            limits.shortest_text,
        ));
    }
    Ok(Grammar { text, rules, root, lengths })
}

/// Shortest lengths by Knuth's form of Dijkstra's algorithm: rules are settled from the shortest up, so each
/// mention of a rule is looked at once.
fn measure(rules: &[Rule]) -> Lengths {
    let mut users = vec![Vec::new(); rules.len()];
    for (index, rule) in rules.iter().enumerate() {
        each_rule(&rule.body, &mut |used| users[used].push(index));
    }
    for list in &mut users {
        list.dedup();
    }
    let mut lengths = Lengths { shortest: vec![NEVER; rules.len()], nonempty: vec![false; rules.len()] };
    let mut settled = vec![false; rules.len()];
    let mut queue: BinaryHeap<_> = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| Reverse((lengths.shortest(&rule.body), index)))
        .filter(|Reverse((length, _))| *length != NEVER)
        .collect();
    while let Some(Reverse((length, index))) = queue.pop() {
        if settled[index] {
            continue;
        }
        settled[index] = true;
        lengths.shortest[index] = length;
        for &user in &users[index] {
            if !settled[user] {
                let length = lengths.shortest(&rules[user].body);
                if length != NEVER {
                    queue.push(Reverse((length, user)));
                }
            }
        }
    }
    let mut queue: Vec<usize> = (0..rules.len()).collect();
    while let Some(index) = queue.pop() {
        if !lengths.nonempty[index] && lengths.nonempty(&rules[index].body) {
            lengths.nonempty[index] = true;
            queue.extend(&users[index]);
        }
    }
    lengths
}

/// Calls `visit` with every rule mentioned in `expr`.
pub(in super::super) fn each_rule(expr: &Expr, visit: &mut impl FnMut(usize)) {
    match expr {
        Expr::Rule(index) => visit(*index),
        Expr::Sequence(items) | Expr::Choice(items) => {
            for item in items {
                each_rule(item, visit);
            }
        }
        Expr::Repeat { body, .. } => each_rule(body, visit),
        Expr::Literal(_) | Expr::Class(_) | Expr::Token { .. } => {}
    }
}

fn utf8_length(code: u32) -> u64 {
    match code {
        0..0x80 => 1,
        0x80..0x800 => 2,
        0x800..0x1_0000 => 3,
        _ => 4,
    }
}
