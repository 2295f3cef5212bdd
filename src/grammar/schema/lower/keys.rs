//! Keys by pattern. The engine takes patterns that no key matches twice, and no condition on all names at once; so the
//! keys are cut into pieces.

use std::rc::Rc;

use super::super::super::error::GrammarError;
use super::super::graph::Id;
use super::super::part::{Keys, Obj, Part};
use super::super::pattern::{Automaton, Pattern};
use super::super::refuse;
use super::Lowering;

/// Patterns that may overlap in one object.
const OVERLAPPING: usize = 5;
/// Names that are written out one by one.
const LISTED: usize = 64;
/// Names that patterns stand for and that are written out where keys are counted.
const COUNTED: usize = 8;

/// Keys that are not named: by pattern, then all others.
pub(super) struct Cells {
    pub patterns: Vec<(String, Id)>,
    pub rest: Id,
    /// Names to be named: the only ones there can be besides those that are.
    pub names: Vec<String>,
}

/// Patterns of keys with the schemas of their values.
type Anchored = Vec<(Rc<Pattern>, Id)>;

impl Lowering<'_, '_> {
    /// Cuts the keys of an object into pieces that do not overlap.
    pub(super) fn cells(&mut self, object: &Obj) -> Result<Cells, GrammarError> {
        let mut cells = match object.patterns.len() {
            0 => Vec::new(),
            1 => object.patterns.clone(),
            _ => self.pieces(object)?,
        };
        let mut rest = if std::mem::take(&mut self.closed) { Id::FALSE } else { object.rest };
        let mut names = Vec::new();
        if !object.names.is_empty() {
            let allowed = self.language(&object.names)?;
            if let Some(list) = allowed.list(LISTED) {
                return Ok(Cells { patterns: Vec::new(), rest: Id::FALSE, names: list });
            }
            // What no pattern matches is a piece of its own now, as far as the names go.
            let mut others = allowed.clone();
            let mut cut = Vec::new();
            for (pattern, node) in &cells {
                let automaton = pattern.automaton()?;
                let inside = automaton.meet(&allowed, |a, b| a && b).ok_or_else(too_large)?;
                others = others.meet(&automaton, |a, b| a && !b).ok_or_else(too_large)?;
                if let Some(pattern) = Pattern::from_automaton(&inside)? {
                    cut.push((Rc::new(pattern), *node));
                }
            }
            cells = cut;
            if rest != Id::FALSE
                && let Some(pattern) = self.short(object, &others)?
            {
                cells.push((pattern, rest));
            }
            rest = Id::FALSE;
            names.clear();
        }
        // Where keys are counted, it must be seen that none is left.
        if rest == Id::FALSE && object.min > object.required.len() as u64 && names.is_empty() {
            let mut listed: Option<Vec<String>> = Some(Vec::new());
            for (pattern, _) in &cells {
                let list = pattern.automaton()?.list(COUNTED);
                listed = listed.zip(list).map(|(mut all, list)| {
                    all.extend(list);
                    all
                });
            }
            if let Some(names) = listed.filter(|names| !names.is_empty() && names.len() <= COUNTED) {
                return Ok(Cells { patterns: Vec::new(), rest, names });
            }
        }
        let mut patterns = Vec::new();
        for (pattern, node) in cells {
            // The engine joins a named key with the pattern it matches; both are joined here already.
            let mut named = Vec::new();
            if node != Id::TRUE {
                for (name, _) in object.props.iter() {
                    if pattern.found_in(name)? {
                        named.push(name);
                    }
                }
            }
            let mut source = pattern.source().to_owned();
            if !named.is_empty() {
                let named = Rc::new(Pattern::literals(&named));
                match Pattern::without(&pattern, &[named]) {
                    Ok(Some(without)) => source = without.source().to_owned(),
                    Ok(None) => continue,
                    Err(_) => {} // joined twice, then
                }
            }
            patterns.push((source, node));
        }
        Ok(Cells { patterns, rest, names })
    }

    /// The names' language as one pattern, in the author's words if it is a single one.
    fn short(&mut self, object: &Obj, others: &Automaton) -> Result<Option<Rc<Pattern>>, GrammarError> {
        if let ([names], true) = (&object.names[..], object.patterns.is_empty()) {
            let parts = self.graph.expand(*names)?;
            let texts: Vec<_> =
                parts.iter().filter(|part| part.kind() == Some(super::super::part::Kind::Text)).collect();
            if let [Part::Text(text)] = texts[..]
                && let ([like], [], 0, None) = (&text.like[..], &text.unlike[..], text.min, text.max)
            {
                return Ok(Some(Rc::clone(like)));
            }
        }
        Ok(Pattern::from_automaton(others)?.map(Rc::new))
    }

    /// Every combination of patterns that some key can match.
    fn pieces(&mut self, object: &Obj) -> Result<Vec<(Rc<Pattern>, Id)>, GrammarError> {
        let patterns = &object.patterns;
        let mut automata = Vec::new();
        for (pattern, _) in patterns {
            automata.push(pattern.automaton()?);
        }
        let mut crossing = vec![false; patterns.len()];
        for a in 0..patterns.len() {
            for b in a + 1..patterns.len() {
                self.graph.spend(10)?;
                let both = automata[a].meet(&automata[b], |a, b| a && b).ok_or_else(too_large)?;
                if !both.is_empty() {
                    crossing[a] = true;
                    crossing[b] = true;
                }
            }
        }
        let (mut found, mut mixed) = (Vec::new(), Vec::new());
        for (index, (pattern, node)) in patterns.iter().enumerate() {
            match crossing[index] {
                false => found.push((Rc::clone(pattern), *node)),
                true => mixed.push(index),
            }
        }
        if mixed.len() > OVERLAPPING {
            let pointer = object.origin.as_ref().map_or("", |origin| &origin.pointer);
            let message = format!("more than {OVERLAPPING} patterns overlap, which cannot be enforced");
            return Err(refuse(&super::super::join(pointer, "patternProperties"), Some("patternProperties"), message));
        }
        match self.mixed(object, &mixed, &automata) {
            Ok(pieces) => found.extend(pieces),
            Err(error) => found.extend(self.anchored(object, &mixed, &automata)?.ok_or(error)?),
        }
        Ok(found)
    }

    /// The pieces of patterns that overlap.
    fn mixed(
        &mut self,
        object: &Obj,
        mixed: &[usize],
        automata: &[Automaton],
    ) -> Result<Vec<(Rc<Pattern>, Id)>, GrammarError> {
        let patterns = &object.patterns;
        let mut found = Vec::new();
        for set in 1u32..1 << mixed.len() {
            let mut piece: Option<Automaton> = None;
            let mut nodes = Vec::new();
            for (bit, &index) in mixed.iter().enumerate() {
                let inside = set >> bit & 1 == 1;
                if inside {
                    nodes.push(patterns[index].1);
                }
                let one = if inside { automata[index].clone() } else { automata[index].clone().not() };
                piece = Some(match piece {
                    None => one,
                    Some(piece) => piece.meet(&one, |a, b| a && b).ok_or_else(too_large)?,
                });
            }
            if let Some(piece) = piece
                && let Some(pattern) = Pattern::from_automaton(&piece)?
            {
                found.push((Rc::new(pattern), self.graph.and(&nodes)));
            }
        }
        Ok(found)
    }

    /// Where the pieces are too large to write: only keys that a pattern matches as a whole and no other pattern
    /// matches, and then no other keys at all.
    fn anchored(
        &mut self,
        object: &Obj,
        mixed: &[usize],
        automata: &[Automaton],
    ) -> Result<Option<Anchored>, GrammarError> {
        let mut found = Vec::new();
        for &index in mixed {
            let (pattern, node) = &object.patterns[index];
            let Ok(whole) = Pattern::whole(pattern.source()) else { return Ok(None) };
            let automaton = whole.automaton()?;
            for &other in mixed.iter().filter(|other| **other != index) {
                let both = automaton.meet(&automata[other], |a, b| a && b).ok_or_else(too_large)?;
                if !both.is_empty() {
                    return Ok(None);
                }
            }
            found.push((Rc::new(whole), *node));
        }
        // Everything else that one of them matches.
        self.closed = true;
        let pointer = object.origin.as_ref().map_or("", |origin| &origin.pointer).to_owned();
        self.note(&pointer, "patternProperties", "keys are written that one pattern matches as a whole, and no others");
        Ok(Some(found))
    }

    /// The names that all these schemas admit.
    pub(super) fn language(&mut self, names: &[Id]) -> Result<Automaton, GrammarError> {
        let node = self.graph.and(names);
        let parts = self.graph.expand(node)?;
        let mut all: Option<Automaton> = None;
        for part in parts.iter() {
            let one = match part {
                Part::Text(text) => {
                    let mut one = match (&text.like[..], &text.unlike[..]) {
                        ([], []) => Automaton::lengths(0, None),
                        (like, unlike) => Automaton::combined(like, unlike)?,
                    };
                    if text.min > 0 || text.max.is_some() {
                        let lengths = Automaton::lengths(text.min, text.max).ok_or_else(too_large)?;
                        one = one.and_then(|one| one.meet(&lengths, |a, b| a && b));
                    }
                    one.ok_or_else(too_large)?
                }
                Part::Values(values) => {
                    let texts: Vec<&str> = values.iter().filter_map(|value| value.as_str()).collect();
                    if texts.is_empty() {
                        continue;
                    }
                    Pattern::literals(&texts).automaton()?
                }
                _ => continue,
            };
            all = Some(match all {
                None => one,
                Some(all) => all.meet(&one, |a, b| a || b).ok_or_else(too_large)?,
            });
        }
        let nothing = || Automaton::lengths(0, None).map(Automaton::not).ok_or_else(too_large);
        all.map_or_else(nothing, Ok)
    }

    /// The keys of a set, as an automaton.
    pub(super) fn set(&mut self, keys: &Keys) -> Result<Automaton, GrammarError> {
        match keys {
            Keys::Like(pattern) => pattern.automaton(),
            Keys::Not(names) => Ok(self.language(&[*names])?.not()),
            Keys::Other(named, patterns) => {
                let mut unlike = patterns.clone();
                if !named.is_empty() {
                    let named: Vec<&str> = named.iter().map(String::as_str).collect();
                    unlike.push(Rc::new(Pattern::literals(&named)));
                }
                match unlike.is_empty() {
                    true => Automaton::lengths(0, None).ok_or_else(too_large),
                    false => Automaton::combined(&[], &unlike)?.ok_or_else(too_large),
                }
            }
        }
    }
}

pub(super) fn too_large() -> GrammarError {
    refuse("", Some("propertyNames"), "the patterns of the names are too large to work out together")
}
