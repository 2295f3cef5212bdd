//! Deterministic automata over characters: "and", "and not", whether anything is left.

use std::collections::HashMap;
use std::rc::Rc;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::super::super::error::GrammarError;
use super::Pattern;

/// States an automaton may have before it is given up.
const STATES: usize = 1_500;
/// States of the automaton with guesses, and groups of characters.
const GUESSES: usize = 6_000;
const GROUPS: usize = 300;

/// An automaton. State 0 is where texts begin.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Automaton {
    /// First characters of groups of characters that are treated alike, from 0 up.
    pub(super) starts: Vec<u32>,
    /// Next state by state and group.
    pub(super) next: Vec<Vec<usize>>,
    pub(super) accepts: Vec<bool>,
}

enum Edge {
    Empty(usize),
    AtStart(usize),
    AtEnd(usize),
    On(u32, u32, usize),
}

#[derive(Default)]
struct Guess {
    edges: Vec<Vec<Edge>>,
}

impl Guess {
    fn state(&mut self) -> usize {
        self.edges.push(Vec::new());
        self.edges.len() - 1
    }

    /// Adds `hir` behind `from`; its end.
    fn add(&mut self, hir: &Hir, from: usize) -> Option<usize> {
        if self.edges.len() > GUESSES {
            return None;
        }
        Some(match hir.kind() {
            HirKind::Empty => from,
            HirKind::Literal(literal) => {
                let mut at = from;
                for c in std::str::from_utf8(&literal.0).ok()?.chars() {
                    let to = self.state();
                    self.edges[at].push(Edge::On(u32::from(c), u32::from(c), to));
                    at = to;
                }
                at
            }
            HirKind::Class(Class::Unicode(class)) => {
                let to = self.state();
                for range in class.ranges() {
                    self.edges[from].push(Edge::On(u32::from(range.start()), u32::from(range.end()), to));
                }
                to
            }
            HirKind::Class(Class::Bytes(class)) => {
                let to = self.state();
                for range in class.ranges() {
                    self.edges[from].push(Edge::On(u32::from(range.start()), u32::from(range.end()), to));
                }
                to
            }
            HirKind::Look(look) => {
                let to = self.state();
                let edge = match look {
                    Look::Start => Edge::AtStart(to),
                    Look::End => Edge::AtEnd(to),
                    _ => return None,
                };
                self.edges[from].push(edge);
                to
            }
            HirKind::Repetition(repetition) => {
                let mut at = from;
                for _ in 0..repetition.min {
                    at = self.add(&repetition.sub, at)?;
                }
                match repetition.max {
                    None => {
                        let hub = self.state();
                        self.edges[at].push(Edge::Empty(hub));
                        let back = self.add(&repetition.sub, hub)?;
                        self.edges[back].push(Edge::Empty(hub));
                        hub
                    }
                    Some(max) => {
                        let end = self.state();
                        for _ in repetition.min..max {
                            self.edges[at].push(Edge::Empty(end));
                            // A fresh state: a repetition must not fall back into the one before.
                            let fresh = self.state();
                            self.edges[at].push(Edge::Empty(fresh));
                            at = self.add(&repetition.sub, fresh)?;
                        }
                        self.edges[at].push(Edge::Empty(end));
                        end
                    }
                }
            }
            HirKind::Capture(capture) => self.add(&capture.sub, from)?,
            HirKind::Concat(subs) => {
                let mut at = from;
                for sub in subs {
                    at = self.add(sub, at)?;
                }
                at
            }
            HirKind::Alternation(subs) => {
                let end = self.state();
                for sub in subs {
                    let begin = self.state();
                    self.edges[from].push(Edge::Empty(begin));
                    let at = self.add(sub, begin)?;
                    self.edges[at].push(Edge::Empty(end));
                }
                end
            }
        })
    }

    /// All states reached without a character.
    fn close(&self, states: &mut Vec<usize>, start: bool, end: bool) {
        let mut at = 0;
        while at < states.len() {
            for edge in &self.edges[states[at]] {
                let to = match edge {
                    Edge::Empty(to) => *to,
                    Edge::AtStart(to) if start => *to,
                    Edge::AtEnd(to) if end => *to,
                    _ => continue,
                };
                if !states.contains(&to) {
                    states.push(to);
                }
            }
            at += 1;
        }
        states.sort_unstable();
    }
}

impl Automaton {
    /// The texts in which the expression is found. `None`: too large.
    pub fn of(source: &str) -> Option<Automaton> {
        let hir = super::parse(source).ok()?;
        let mut guess = Guess::default();
        let begin = guess.state();
        // Searching: any characters before and after.
        guess.edges[begin].push(Edge::On(0, 0x10FFFF, begin));
        let inner = guess.state();
        guess.edges[begin].push(Edge::Empty(inner));
        let found = guess.add(&hir, inner)?;
        let done = guess.state();
        guess.edges[found].push(Edge::Empty(done));
        guess.edges[done].push(Edge::On(0, 0x10FFFF, done));
        let mut starts = vec![0, 0xD800, 0xE000, 0x110000];
        for edge in guess.edges.iter().flatten() {
            if let Edge::On(first, last, _) = edge {
                starts.extend([*first, last + 1]);
            }
        }
        starts.sort_unstable();
        starts.dedup();
        starts.pop();
        if starts.len() > GROUPS {
            return None;
        }
        let mut first = vec![begin];
        guess.close(&mut first, true, false);
        let mut ids: HashMap<Vec<usize>, usize> = HashMap::from([(first.clone(), 0)]);
        let mut sets = vec![first];
        let (mut next, mut accepts): (Vec<Vec<usize>>, Vec<bool>) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < sets.len() {
            let set = sets[at].clone();
            let mut ended = set.clone();
            guess.close(&mut ended, at == 0, true);
            accepts.push(ended.binary_search(&done).is_ok());
            let mut row = Vec::with_capacity(starts.len());
            for &start in &starts {
                let mut to: Vec<usize> = Vec::new();
                if start != 0xD800 {
                    for edge in set.iter().flat_map(|&state| &guess.edges[state]) {
                        if let Edge::On(low, high, target) = edge
                            && (*low..=*high).contains(&start)
                            && !to.contains(target)
                        {
                            to.push(*target);
                        }
                    }
                }
                guess.close(&mut to, false, false);
                let id = *ids.entry(to.clone()).or_insert_with(|| {
                    sets.push(to);
                    sets.len() - 1
                });
                row.push(id);
            }
            next.push(row);
            at += 1;
            if sets.len() > STATES {
                return None;
            }
        }
        Some(Automaton { starts, next, accepts }.small())
    }

    /// Texts of `min` to `max` characters.
    pub fn lengths(min: u64, max: Option<u64>) -> Option<Automaton> {
        let top = max.map_or(min, |max| max + 1);
        if top > 256 {
            return None;
        }
        let next = (0..=top as usize).map(|at| {
            let to = (at + 1).min(top as usize);
            vec![to, top as usize, to]
        });
        let accepts = (0..=top).map(|at| at >= min && max.is_none_or(|max| at <= max)).collect();
        let mut next: Vec<Vec<usize>> = next.collect();
        if max.is_none() {
            // State `top` is the accepting one: a surrogate must not lead there.
            next.iter_mut().for_each(|row| row[1] = row[0]);
        }
        Some(Automaton { starts: vec![0, 0xD800, 0xE000], next, accepts })
    }

    /// Texts with all of `like` and none of `unlike`. `None`: too large.
    pub fn combined(like: &[Rc<Pattern>], unlike: &[Rc<Pattern>]) -> Result<Option<Automaton>, GrammarError> {
        let mut all: Option<Automaton> = None;
        for (pattern, wanted) in like.iter().map(|p| (p, true)).chain(unlike.iter().map(|p| (p, false))) {
            let one = pattern.automaton()?;
            let one = if wanted { one } else { one.not() };
            all = match all {
                None => Some(one),
                Some(all) => match all.meet(&one, |a, b| a && b) {
                    Some(both) => Some(both),
                    None => return Ok(None),
                },
            };
        }
        Ok(all)
    }

    /// All other texts.
    pub fn not(mut self) -> Automaton {
        self.accepts.iter_mut().for_each(|accepts| *accepts = !*accepts);
        self
    }

    /// Both at once, accepting as `accept` says.
    pub fn meet(&self, other: &Automaton, accept: impl Fn(bool, bool) -> bool) -> Option<Automaton> {
        let mut starts: Vec<u32> = self.starts.iter().chain(&other.starts).copied().collect();
        starts.sort_unstable();
        starts.dedup();
        let mut ids = HashMap::from([((0, 0), 0)]);
        let mut pairs = vec![(0, 0)];
        let (mut next, mut accepts): (Vec<Vec<usize>>, Vec<bool>) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < pairs.len() {
            let (a, b) = pairs[at];
            accepts.push(accept(self.accepts[a], other.accepts[b]));
            let row = starts.iter().map(|&start| {
                let to = (self.next[a][self.group(start)], other.next[b][other.group(start)]);
                *ids.entry(to).or_insert_with(|| {
                    pairs.push(to);
                    pairs.len() - 1
                })
            });
            let row = row.collect();
            next.push(row);
            at += 1;
            if pairs.len() > STATES {
                return None;
            }
        }
        Some(Automaton { starts, next, accepts }.small())
    }

    pub(super) fn group(&self, c: u32) -> usize {
        self.starts.partition_point(|&start| start <= c) - 1
    }

    /// Whether no text is accepted.
    pub fn is_empty(&self) -> bool {
        // Surrogates are no characters: their group leads nowhere that counts.
        let mut seen = vec![false; self.next.len()];
        let mut queue = vec![0];
        seen[0] = true;
        while let Some(state) = queue.pop() {
            if self.accepts[state] {
                return false;
            }
            for (group, &to) in self.next[state].iter().enumerate() {
                if self.starts[group] != 0xD800 && !seen[to] {
                    seen[to] = true;
                    queue.push(to);
                }
            }
        }
        true
    }

    /// The texts, if they are at most `most`, none longer than 64 characters.
    pub fn list(&self, most: usize) -> Option<Vec<String>> {
        let alive = self.alive();
        let mut found = Vec::new();
        let mut queue = vec![(0usize, String::new())];
        let mut steps = 0;
        while let Some((state, text)) = queue.pop() {
            steps += 1;
            if steps > most * 64 || text.chars().count() > 64 {
                return None;
            }
            if self.accepts[state] {
                found.push(text.clone());
                if found.len() > most {
                    return None;
                }
            }
            for (group, &to) in self.next[state].iter().enumerate() {
                let (first, last) = (self.starts[group], self.last(group));
                if !alive[to] || first == 0xD800 {
                    continue;
                }
                if (last - first) as usize > most {
                    return None;
                }
                for c in (first..=last).filter_map(char::from_u32) {
                    queue.push((to, format!("{text}{c}")));
                }
            }
        }
        found.sort();
        Some(found)
    }

    pub(super) fn last(&self, group: usize) -> u32 {
        self.starts.get(group + 1).map_or(0x10FFFF, |next| next - 1)
    }

    /// States from which a text can still be accepted.
    pub(super) fn alive(&self) -> Vec<bool> {
        let mut alive = self.accepts.clone();
        loop {
            let mut changed = false;
            for (state, row) in self.next.iter().enumerate() {
                let lives = row.iter().enumerate().any(|(group, &to)| self.starts[group] != 0xD800 && alive[to]);
                if !alive[state] && lives {
                    alive[state] = true;
                    changed = true;
                }
            }
            if !changed {
                return alive;
            }
        }
    }

    /// The same texts with fewest states and groups.
    fn small(self) -> Automaton {
        let mut class: Vec<usize> = self.accepts.iter().map(|&accepts| usize::from(accepts)).collect();
        let mut count = 0;
        loop {
            let mut ids: HashMap<(usize, Vec<usize>), usize> = HashMap::new();
            let mut refined = Vec::with_capacity(class.len());
            for (state, row) in self.next.iter().enumerate() {
                let key = (class[state], row.iter().map(|&to| class[to]).collect());
                let id = ids.len();
                refined.push(*ids.entry(key).or_insert(id));
            }
            class = refined;
            if ids.len() == count {
                break;
            }
            count = ids.len();
        }
        let mut next = vec![Vec::new(); count];
        let mut accepts = vec![false; count];
        // State 0 met first, so its class is 0.
        for (state, row) in self.next.iter().enumerate() {
            if next[class[state]].is_empty() {
                next[class[state]] = row.iter().map(|&to| class[to]).collect();
            }
            accepts[class[state]] = self.accepts[state];
        }
        let mut starts: Vec<u32> = Vec::new();
        let mut kept: Vec<usize> = Vec::new();
        for (group, &start) in self.starts.iter().enumerate() {
            let special = |c: u32| c == 0xD800 || c == 0xE000 || c == 0;
            let same = |&last: &usize| next.iter().all(|row: &Vec<usize>| row[last] == row[group]);
            if special(start) || !kept.last().is_some_and(same) {
                starts.push(start);
                kept.push(group);
            }
        }
        let next = next.iter().map(|row| kept.iter().map(|&group| row[group]).collect()).collect();
        Automaton { starts, next, accepts }
    }
}
