//! "And": `allOf`, keywords beside each other, `$ref` with siblings.

use std::rc::Rc;

use serde_json::Value;

use super::super::error::GrammarError;
use super::graph::{Graph, Id};
use super::part::{Arr, Obj, Part, Props, Text, tidy};
use super::pattern::Pattern;
use super::{holds, refuse};

/// Every pairing of the alternatives of two unions.
pub(super) fn unions(graph: &mut Graph<'_>, a: &[Part], b: &[Part]) -> Result<Vec<Part>, GrammarError> {
    let mut found = Vec::new();
    for a in a {
        for b in b {
            if let Some(both) = parts(graph, a, b)?
                && !graph.part_empty(&both, 0)?
            {
                found.push(both);
            }
        }
        graph.spend(b.len() + found.len())?;
    }
    Ok(tidy(found))
}

fn parts(graph: &mut Graph<'_>, a: &Part, b: &Part) -> Result<Option<Part>, GrammarError> {
    Ok(match (a, b) {
        (Part::Values(values), other) | (other, Part::Values(values)) => {
            let mut kept: Vec<Value> = Vec::new();
            for value in values {
                if holds::part(graph, other, value)? {
                    kept.push(value.clone());
                }
            }
            (!kept.is_empty()).then_some(Part::Values(kept))
        }
        (Part::Number(a), Part::Number(b)) => {
            let too_large = || refuse("", Some("multipleOf"), "the common multiple is too large");
            Some(Part::Number(a.meet(b).ok_or_else(too_large)?))
        }
        (Part::Text(a), Part::Text(b)) => Some(Part::Text(text(a, b))),
        (Part::Array(a), Part::Array(b)) => Some(Part::Array(array(graph, a, b))),
        (Part::Object(a), Part::Object(b)) => Some(Part::Object(object(graph, a, b)?)),
        _ => None,
    })
}

pub(super) fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn join<T: Clone + PartialEq>(a: &[T], b: &[T]) -> Vec<T> {
    let mut all = a.to_vec();
    for one in b {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
    all
}

pub(super) fn text(a: &Text, b: &Text) -> Text {
    Text {
        min: a.min.max(b.min),
        max: least(a.max, b.max),
        like: join(&a.like, &b.like),
        unlike: join(&a.unlike, &b.unlike),
    }
}

/// Whether a pattern is both demanded and excluded.
pub(super) fn text_empty(text: &Text) -> bool {
    text.like.iter().any(|like: &Rc<Pattern>| text.unlike.contains(like))
}

fn array(graph: &mut Graph<'_>, a: &Arr, b: &Arr) -> Arr {
    let length = a.prefix.len().max(b.prefix.len());
    let prefix = (0..length).map(|index| graph.and(&[a.item(index), b.item(index)])).collect();
    Arr {
        min: a.min.max(b.min),
        max: least(a.max, b.max),
        prefix,
        rest: graph.and(&[a.rest, b.rest]),
        contains: join(&a.contains, &b.contains),
        unique: a.unique.clone().or(b.unique.clone()),
        repeats: a.repeats.clone().or(b.repeats.clone()),
        origin: a.origin.clone().or(b.origin.clone()),
    }
}

/// What one object says about a name, `propertyNames` aside.
fn named(graph: &mut Graph<'_>, object: &Obj, name: &str) -> Result<Id, GrammarError> {
    if let Some(node) = object.props.get(name) {
        return Ok(node); // patterns that match are applied when the object is written
    }
    for (pattern, _) in &object.patterns {
        if pattern.found_in(name)? {
            return Ok(Id::TRUE); // likewise
        }
    }
    graph.spend(1)?;
    Ok(object.rest)
}

fn object(graph: &mut Graph<'_>, a: &Obj, b: &Obj) -> Result<Obj, GrammarError> {
    let mut props = Props::default();
    for (name, node) in a.props.iter() {
        let other = named(graph, b, name)?;
        let node = graph.and(&[node, other]);
        props.insert(name, node);
    }
    for (name, node) in b.props.iter() {
        if a.props.get(name).is_none() {
            let other = named(graph, a, name)?;
            let node = graph.and(&[other, node]);
            props.insert(name, node);
        }
    }
    let rest = graph.and(&[a.rest, b.rest]);
    // A key that one side matches by pattern and the other does not know is "additional" to the other.
    let patterns = patterns(graph, a, b)?;
    let mut required = a.required.clone();
    required.extend(b.required.iter().filter(|name| !a.required.contains(name)).cloned());
    Ok(Obj {
        props,
        patterns,
        rest,
        required,
        min: a.min.max(b.min),
        max: least(a.max, b.max),
        names: join(&a.names, &b.names),
        some: join(&a.some, &b.some),
        origin: a.origin.clone().or(b.origin.clone()),
    })
}

/// Patterns of both sides, so that a key gets all that both say of it.
fn patterns(graph: &mut Graph<'_>, a: &Obj, b: &Obj) -> Result<Vec<(Rc<Pattern>, Id)>, GrammarError> {
    if a.rest == Id::TRUE && b.rest == Id::TRUE {
        let mut all = a.patterns.clone();
        for (pattern, node) in &b.patterns {
            add(graph, &mut all, pattern, *node);
        }
        return Ok(all);
    }
    let same = |a: &Obj, b: &Obj| a.patterns.iter().all(|(p, _)| b.patterns.iter().any(|(q, _)| p == q));
    if same(a, b) && same(b, a) {
        let mut all = a.patterns.clone();
        for (pattern, node) in &b.patterns {
            add(graph, &mut all, pattern, *node);
        }
        return Ok(all);
    }
    // Keys matched on one side only meet the other side's rest; keys matched on both do not meet either rest.
    let mut all: Vec<(Rc<Pattern>, Id)> = Vec::new();
    for (one, other) in [(a, b), (b, a)] {
        for (pattern, node) in &one.patterns {
            if other.patterns.iter().any(|(known, _)| known == pattern) || other.rest == Id::TRUE {
                add(graph, &mut all, pattern, *node);
                continue;
            }
            let mut others: Vec<Rc<Pattern>> = other.patterns.iter().map(|(p, _)| Rc::clone(p)).collect();
            let mut names = Vec::new();
            for (name, _) in other.props.iter() {
                if pattern.found_in(name)? {
                    names.push(name);
                }
            }
            if !names.is_empty() {
                others.push(Rc::new(Pattern::literals(&names)));
            }
            let only = Pattern::without(pattern, &others)?;
            add(graph, &mut all, pattern, *node);
            if let Some(only) = only {
                add(graph, &mut all, &Rc::new(only), other.rest);
            }
        }
    }
    Ok(all)
}

fn add(graph: &mut Graph<'_>, all: &mut Vec<(Rc<Pattern>, Id)>, pattern: &Rc<Pattern>, node: Id) {
    match all.iter_mut().find(|(known, _)| known == pattern) {
        Some((_, known)) => *known = graph.and(&[*known, node]),
        None => all.push((Rc::clone(pattern), node)),
    }
}
