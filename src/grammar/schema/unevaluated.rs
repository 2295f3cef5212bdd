//! `unevaluatedProperties` and `unevaluatedItems`.
//!
//! What counts as evaluated depends on which branches hold. The branches are followed one by one; a value is
//! admitted if its other keys (or items) are those that the branch it takes knows. A value for which two branches
//! hold at once, and which needs the keys of both, is refused more strictly than the letter demands.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::super::error::GrammarError;
use super::document::{Draft, Place};
use super::graph::{Graph, Id};
use super::part::{Arr, Obj, Part, tidy};
use super::pattern::Pattern;
use super::{exclusive, join, meet, read, refuse};

/// Branches that are followed.
const BRANCHES: usize = 64;
/// Depth of references and combinations that are followed.
const DEPTH: usize = 40;

/// One choice of branches: what holds then, and what it evaluates.
#[derive(Clone, Default)]
struct Branch {
    holds: Vec<Id>,
    fails: Vec<Id>,
    names: Vec<String>,
    patterns: Vec<Rc<Pattern>>,
    /// All keys, all items.
    all_names: bool,
    prefix: usize,
    all_items: bool,
    contains: Vec<Id>,
}

pub(super) fn properties<'a>(
    graph: &mut Graph<'a>,
    place: &Place<'a>,
    parts: Vec<Part>,
) -> Result<Vec<Part>, GrammarError> {
    let rest = read::one(graph, place, &["unevaluatedProperties"]);
    apply(graph, place, "unevaluatedProperties", parts, |_, branch| {
        let mut object = Obj { rest: if branch.all_names { Id::TRUE } else { rest }, ..Obj::any() };
        branch.names.iter().for_each(|name| object.props.insert(name, Id::TRUE));
        object.patterns.extend(branch.patterns.iter().map(|pattern| (Rc::clone(pattern), Id::TRUE)));
        Part::Object(object)
    })
}

pub(super) fn items<'a>(graph: &mut Graph<'a>, place: &Place<'a>, parts: Vec<Part>) -> Result<Vec<Part>, GrammarError> {
    let rest = read::one(graph, place, &["unevaluatedItems"]);
    apply(graph, place, "unevaluatedItems", parts, |graph, branch| {
        let prefix = vec![Id::TRUE; branch.prefix];
        let mut others = branch.contains.clone();
        others.push(rest);
        let rest = if branch.all_items { Id::TRUE } else { graph.or(&others) };
        Part::Array(Arr { prefix, rest, ..Arr::any() })
    })
}

fn apply<'a>(
    graph: &mut Graph<'a>,
    place: &Place<'a>,
    keyword: &'static str,
    parts: Vec<Part>,
    limit: impl Fn(&mut Graph<'a>, &Branch) -> Part,
) -> Result<Vec<Part>, GrammarError> {
    let mut walker = Walker { keyword, pointer: join(&place.pointer, keyword) };
    let branches = walker.follow(graph, place, true, DEPTH)?;
    let mut found: Vec<Part> = Vec::new();
    for branch in &branches {
        let mut own = parts.clone();
        for &id in &branch.holds {
            let more = graph.expand(id)?;
            own = meet::unions(graph, &own, &more)?;
        }
        for &id in &branch.fails {
            let less = graph.expand(id)?;
            own = exclusive::subtract(graph, &own, &less)?;
        }
        let limit = limit(graph, branch);
        for part in own {
            let same = std::mem::discriminant(&part) == std::mem::discriminant(&limit);
            match part {
                Part::Values(_) => {
                    let mut all = super::part::anything();
                    all.retain(|part| std::mem::discriminant(part) != std::mem::discriminant(&limit));
                    all.push(limit.clone());
                    found.extend(meet::unions(graph, &[part], &all)?);
                }
                part if same => {
                    found.extend(meet::unions(graph, &[part], std::slice::from_ref(&limit))?);
                }
                part => found.push(part),
            }
        }
    }
    Ok(tidy(found))
}

struct Walker {
    keyword: &'static str,
    pointer: String,
}

impl Walker {
    fn too_much(&self) -> GrammarError {
        refuse(&self.pointer, Some(self.keyword), format!("'{}' has too many branches to follow", self.keyword))
    }

    fn follow<'a>(
        &mut self,
        graph: &mut Graph<'a>,
        place: &Place<'a>,
        outer: bool,
        depth: usize,
    ) -> Result<Vec<Branch>, GrammarError> {
        graph.spend(1)?;
        let Some(depth) = depth.checked_sub(1) else { return Err(self.too_much()) };
        let Value::Object(object) = place.value else {
            return Ok(vec![Branch::default()]);
        };
        let mut own = Branch::default();
        self.own(place, object, outer, &mut own)?;
        if let Some(contains) = place.child(&["contains"])
            && place.draft >= Draft::D2020
        {
            own.contains.push(graph.schema(contains));
        }
        let mut branches = vec![own];
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(value) = object.get(keyword) {
                read::reference(graph, place, keyword, value)?; // refuses what leads to several places
                let target = graph.document.resolve(place, keyword, value.as_str().unwrap_or_default())?;
                let more = self.follow(graph, &target, false, depth)?;
                branches = self.cross(branches, more)?;
            }
        }
        for child in children(place, "allOf") {
            let more = self.follow(graph, &child, false, depth)?;
            branches = self.cross(branches, more)?;
        }
        for keyword in ["anyOf", "oneOf"] {
            let list = children(place, keyword);
            if list.is_empty() {
                continue;
            }
            let mut any = Vec::new();
            for child in &list {
                let id = graph.schema(child.clone());
                for mut branch in self.follow(graph, child, false, depth)? {
                    branch.holds.push(id);
                    any.push(branch);
                }
            }
            // Two of `anyOf` at once.
            if keyword == "anyOf" && list.len() <= 4 {
                let single = any.clone();
                for (index, a) in single.iter().enumerate() {
                    any.extend(single[index + 1..].iter().map(|b| both(a, b)));
                }
            }
            branches = self.cross(branches, any)?;
        }
        if let Some(test) = place.child(&["if"]) {
            let id = graph.schema(test.clone());
            let mut passed = self.follow(graph, &test, false, depth)?;
            passed.iter_mut().for_each(|branch| branch.holds.push(id));
            if let Some(then) = place.child(&["then"]) {
                let more = self.follow(graph, &then, false, depth)?;
                passed = self.cross(passed, more)?;
            }
            let failed = Branch { fails: vec![id], ..Branch::default() };
            let mut failed = vec![failed];
            if let Some(other) = place.child(&["else"]) {
                let more = self.follow(graph, &other, false, depth)?;
                failed = self.cross(failed, more)?;
            }
            passed.extend(failed);
            branches = self.cross(branches, passed)?;
        }
        if object.contains_key("dependentSchemas") {
            let message = format!("'{}' beside 'dependentSchemas' cannot be enforced", self.keyword);
            return Err(refuse(&self.pointer, Some(self.keyword), message));
        }
        Ok(branches)
    }

    /// What the keywords of the schema itself evaluate.
    fn own(
        &self,
        place: &Place<'_>,
        object: &Map<String, Value>,
        outer: bool,
        own: &mut Branch,
    ) -> Result<(), GrammarError> {
        own.names.extend(object.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned());
        for text in object.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            let at = |message| refuse(&join(&place.pointer, "patternProperties"), Some("patternProperties"), message);
            let (like, unlike) = Pattern::read(text).map_err(at)?;
            match (&like[..], &unlike[..]) {
                ([one], []) => own.patterns.push(Rc::clone(one)),
                _ => own.patterns.extend(Pattern::combined(&like, &unlike)?.map(Rc::new)),
            }
        }
        let further = !outer && object.contains_key("unevaluatedProperties");
        own.all_names |= object.contains_key("additionalProperties") || further;
        let listed = matches!(object.get("items"), Some(Value::Array(_)));
        let key = if listed { "items" } else { "prefixItems" };
        own.prefix = object.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        let further = !outer && object.contains_key("unevaluatedItems");
        own.all_items |= if listed { object.contains_key("additionalItems") } else { object.contains_key("items") };
        own.all_items |= further;
        Ok(())
    }

    fn cross(&self, a: Vec<Branch>, b: Vec<Branch>) -> Result<Vec<Branch>, GrammarError> {
        if a.len() * b.len() > BRANCHES {
            return Err(self.too_much());
        }
        Ok(a.iter().flat_map(|a| b.iter().map(move |b| both(a, b))).collect())
    }
}

fn children<'a>(place: &Place<'a>, keyword: &str) -> Vec<Place<'a>> {
    let length = place.value.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
    (0..length).filter_map(|index| place.child(&[keyword, &index.to_string()])).collect()
}

fn both(a: &Branch, b: &Branch) -> Branch {
    let mut both = a.clone();
    both.holds.extend(&b.holds);
    both.fails.extend(&b.fails);
    both.names.extend(b.names.iter().cloned());
    both.patterns.extend(b.patterns.iter().cloned());
    both.all_names |= b.all_names;
    both.prefix = both.prefix.max(b.prefix);
    both.all_items |= b.all_items;
    both.contains.extend(&b.contains);
    both
}
