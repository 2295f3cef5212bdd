//! `if`/`then`/`else`, and what the presence of a key demands: as alternatives.

use serde_json::Value;

use super::super::error::GrammarError;
use super::document::Place;
use super::graph::{Graph, Id};
use super::part::{Obj, Part, tidy};
use super::{exclusive, meet, read};

/// `if` with `then`, or not `if` with `else`.
pub(super) fn if_then_else<'a>(
    graph: &mut Graph<'a>,
    place: &Place<'a>,
    parts: Vec<Part>,
) -> Result<Vec<Part>, GrammarError> {
    let has = |key: &str| place.value.get(key).is_some();
    if !has("then") && !has("else") {
        return Ok(parts);
    }
    let test = read::one(graph, place, &["if"]);
    let test = graph.expand(test)?;
    let then = read::one(graph, place, &["then"]);
    let then = graph.expand(then)?;
    let passed = meet::unions(graph, &parts, &test)?;
    let mut found = meet::unions(graph, &passed, &then)?;
    let failed = exclusive::subtract(graph, &parts, &test)?;
    let other = read::one(graph, place, &["else"]);
    let other = graph.expand(other)?;
    found.extend(meet::unions(graph, &failed, &other)?);
    Ok(tidy(found))
}

/// `dependencies`, `dependentRequired`, `dependentSchemas`: for each key, either it is not there, or it is and the
/// rest holds.
pub(super) fn dependent<'a>(
    graph: &mut Graph<'a>,
    place: &Place<'a>,
    keyword: &str,
    parts: Vec<Part>,
) -> Result<Vec<Part>, GrammarError> {
    let Some(entries) = place.value.get(keyword).and_then(Value::as_object) else {
        return Ok(parts);
    };
    let mut parts = parts;
    for (name, value) in entries {
        let demand = match value {
            Value::Array(names) => {
                let mut object = Obj::any();
                names.iter().filter_map(Value::as_str).for_each(|name| object.require(name));
                vec![Part::Object(object)]
            }
            _ => {
                let id = read::one(graph, place, &[keyword, name]);
                if id == Id::TRUE {
                    continue;
                }
                graph.expand(id)?.to_vec()
            }
        };
        let mut found = Vec::new();
        for part in parts {
            let Part::Object(object) = &part else {
                // About objects only. Lists of values may hold some.
                match &part {
                    Part::Values(values) => {
                        for value in values {
                            let free = value.get(name).is_none() || !value.is_object();
                            let one = [Part::Values(vec![value.clone()])];
                            match free {
                                true => found.extend(one),
                                false => found.extend(meet::unions(graph, &one, &demand)?),
                            }
                        }
                    }
                    _ => found.push(part),
                }
                continue;
            };
            let known = graph.property(object, name)?;
            if known != Id::FALSE {
                let mut with = object.clone();
                with.require(name);
                with.props.insert(name, known); // its place among the keys
                found.extend(meet::unions(graph, &[Part::Object(with)], &demand)?);
            }
            if !object.required.contains(name) {
                let mut absent = Obj::any();
                absent.props.insert(name, Id::FALSE);
                found.extend(meet::unions(graph, std::slice::from_ref(&part), &[Part::Object(absent)])?);
            }
        }
        parts = tidy(found);
    }
    Ok(parts)
}
