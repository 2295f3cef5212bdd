//! Objects in the engine's words.

use std::rc::Rc;

use super::super::super::error::GrammarError;
use super::super::graph::Id;
use super::super::holds::in_keys;
use super::super::part::{Obj, Props, Some_};
use super::super::pattern::Pattern;
use super::{Low, LowObj, Lowering};

/// Objects that one object may become.
const MOST: usize = 128;
/// Names that are tried one by one for "there is such a key".
const LISTED: usize = 16;

impl Lowering<'_, '_> {
    pub(super) fn object(&mut self, object: &Obj) -> Result<Vec<Low>, GrammarError> {
        let mut open = vec![object.clone()];
        let mut done = Vec::new();
        while let Some(mut object) = open.pop() {
            if open.len() + done.len() > MOST {
                if let Some(some) = object.some.first() {
                    self.lose(&some.origin, true);
                }
                return Ok(Vec::new());
            }
            match object.some.pop() {
                Some(some) => {
                    let mut simpler = self.some(&object, &some)?;
                    simpler.reverse();
                    open.extend(simpler);
                }
                None => done.push(object),
            }
        }
        let mut found = Vec::new();
        for object in done {
            found.extend(self.plain_object(object)?);
        }
        Ok(found.into_iter().map(Low::Object).collect())
    }

    fn plain_object(&mut self, mut object: Obj) -> Result<Vec<LowObj>, GrammarError> {
        let cells = self.cells(&object)?;
        for name in cells.names.iter().chain(&object.required.clone()) {
            if object.props.get(name).is_none() {
                let node = self.graph.property(&object, name)?;
                object.props.insert(name, node);
            }
        }
        let mut props = Vec::new();
        let names: Vec<String> = object.props.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let node = self.graph.property(&object, &name)?;
            let node = if node != Id::FALSE && self.graph.proved_empty(node, 4)? { Id::FALSE } else { node };
            if node == Id::FALSE && object.required.contains(&name) {
                return Ok(Vec::new());
            }
            props.push((name, node));
        }
        let mut open = cells.rest != Id::FALSE && !self.graph.proved_empty(cells.rest, 4)?;
        for (_, node) in &cells.patterns {
            open |= *node != Id::FALSE && !self.graph.proved_empty(*node, 4)?;
        }
        let low = LowObj {
            props,
            patterns: cells.patterns,
            rest: cells.rest,
            required: object.required.clone(),
            min: object.min,
            max: object.max,
        };
        Ok(self.counted(low, open, object.origin.as_ref()))
    }

    /// The object with one "there is a key" worked in: the key is one of the named ones, or another one.
    fn some(&mut self, object: &Obj, some: &Some_) -> Result<Vec<Obj>, GrammarError> {
        let mut names: Vec<String> = object.props.iter().map(|(name, _)| name.to_owned()).collect();
        names.extend(object.required.iter().filter(|name| object.props.get(name).is_none()).cloned());
        let mut free = true;
        if let Ok(set) = self.set(&some.keys)
            && let Some(list) = set.list(LISTED)
        {
            names.extend(list.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
            free = false;
        }
        let mut found = Vec::new();
        for name in names {
            if in_keys(self.graph, &some.keys, &name)? {
                let known = self.graph.property(object, &name)?;
                let node = self.graph.and(&[known, some.node]);
                if node != Id::FALSE && !self.graph.proved_empty(node, 4)? {
                    let mut one = object.clone();
                    one.props.insert(&name, node);
                    one.require(&name);
                    found.push(one);
                }
            }
        }
        if free && (object.rest != Id::FALSE || !object.patterns.is_empty()) {
            match self.another(object, some) {
                Ok(one) => {
                    self.note(
                        &some.origin.pointer,
                        some.origin.keyword,
                        "keys beside the one demanded are of its kind too",
                    );
                    found.extend(one);
                }
                Err(_) if !found.is_empty() => {
                    self.note(&some.origin.pointer, some.origin.keyword, "the key demanded is one of those named");
                }
                Err(_) => {}
            }
        }
        if found.is_empty() && self.lose(&some.origin, true) {
            found.push(object.clone());
        }
        Ok(found)
    }

    /// Objects whose unnamed keys are all of the kind demanded, at least one of them.
    fn another(&mut self, object: &Obj, some: &Some_) -> Result<Option<Obj>, GrammarError> {
        let mut one = object.clone();
        let mut props = Props::default();
        let mut named = Vec::new();
        for (name, _) in object.props.iter() {
            // What patterns say of it too: they leave named keys out below.
            let required = object.required.iter().any(|known| known == name);
            props.insert(name, if required { self.graph.property(object, name)? } else { Id::FALSE });
            named.push(name);
        }
        let required: Vec<&str> = object.required.iter().map(String::as_str).filter(|n| !named.contains(n)).collect();
        for name in required {
            let node = self.graph.property(object, name)?;
            props.insert(name, node);
            named.push(name);
        }
        let mut set = self.set(&some.keys)?;
        if !named.is_empty() {
            let literals = Pattern::literals(&named).automaton()?;
            set = set.meet(&literals, |a, b| a && !b).ok_or_else(super::keys::too_large)?;
        }
        let Some(pattern) = Pattern::from_automaton(&set)? else { return Ok(None) };
        let pattern = Rc::new(pattern);
        let old: Vec<Rc<Pattern>> = object.patterns.iter().map(|(pattern, _)| Rc::clone(pattern)).collect();
        // Of the keys of the kind, those that no pattern matched were "additional".
        let fresh = match old.is_empty() {
            true => Some(Rc::clone(&pattern)),
            false => Pattern::without(&pattern, &old)?.map(Rc::new),
        };
        one.props = props;
        one.patterns.clear();
        for (known, node) in &object.patterns {
            // What no key may be stays: a key of it can match another pattern, too.
            if let Some(inside) = Pattern::combined(&[Rc::clone(known), Rc::clone(&pattern)], &[])? {
                one.patterns.push((Rc::new(inside), self.graph.and(&[*node, some.node])));
            }
        }
        if let Some(fresh) = fresh {
            let node = self.graph.and(&[object.rest, some.node]);
            if node != Id::FALSE {
                one.patterns.push((fresh, node));
            }
        }
        one.rest = Id::FALSE;
        if one.patterns.iter().all(|(_, node)| *node == Id::FALSE) {
            return Ok(None);
        }
        one.min = one.min.max(one.required.len() as u64 + 1);
        Ok(Some(one))
    }
}
