//! What a request's `model` stands for, and which adapters it may use.

use serde_json::{Map, Value, json};

use super::keys::Grant;
use super::state::State;
use crate::error::Failure;
use crate::library::{AdapterName, Library};
use crate::request::{AdapterChoice, AdapterSource, Request};
use crate::wire::Problem;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The model with whatever adapters the server applies by itself.
    Base,
    /// The model with adapters chosen for the request.
    Auto,
    /// The model without any adapter.
    Plain,
    /// An adapter by name.
    Adapter(String),
    /// None of these.
    Unknown(String),
}

/// Reads a model's name. `bases` are the names of the model itself.
pub fn interpret(asked: &str, bases: &[String], is_adapter: impl Fn(&str) -> bool) -> Named {
    let adapter = |name: &str| match name {
        "auto" => Named::Auto,
        "none" | "base" => Named::Plain,
        // Ollama's clients put a tag behind every name.
        "latest" => Named::Base,
        name => Named::Adapter(name.to_string()),
    };
    let is_base = |name: &str| bases.iter().any(|b| b == name) || matches!(name, "base" | "default");
    let file = asked.strip_suffix(".gguf").unwrap_or(asked);
    match asked.split_once(':') {
        _ if asked.is_empty() || is_base(file) => Named::Base,
        None if asked == "auto" => Named::Auto,
        Some((base, name)) if is_base(base) => adapter(name),
        _ if is_adapter(asked) => Named::Adapter(asked.to_string()),
        Some((name, "latest")) if is_adapter(name) => Named::Adapter(name.to_string()),
        _ => Named::Unknown(asked.to_string()),
    }
}

/// Takes `model` and `lora` out of a request and puts the adapters they mean in. The name of the model that answers,
/// and what a request that is silent about adapters gets.
///
/// # Errors
/// The name or an adapter is unknown (404 with the nearest names), or not for this key.
pub fn resolve(state: &State, body: &mut Map<String, Value>) -> Result<(String, Request), Problem> {
    let mut defaults = state.options.defaults.clone();
    let scales = state.scales();
    let loose = state.options.loras.iter().zip(&scales).filter(|(_, scale)| **scale != 0.0);
    defaults.adapters.extend(loose.map(|(l, scale)| AdapterChoice::file(&l.path, *scale)));
    let asked = match body.remove("model") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(name)) => name,
        Some(_) => return Err(Problem::invalid("model: must be a string")),
    };
    let base = state.model_name();
    let mut bases = state.options.alias.clone();
    bases.push(base.clone());
    bases.push(state.options.model.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default());
    let library = state.library()?;
    let is_adapter = |name: &str| library.as_deref().is_some_and(|l| known(l, name));
    let chosen = |value: Value, body: &mut Map<String, Value>| {
        if body.get("adapters").is_some_and(|v| !v.is_null()) {
            return Err(Problem::invalid("adapters: the model's name chooses an adapter already; give one of the two"));
        }
        body.insert("adapters".into(), value);
        Ok(())
    };
    let name = match interpret(&asked, &bases, is_adapter) {
        Named::Base => base,
        Named::Plain => {
            chosen(json!("none"), body)?;
            base
        }
        Named::Auto => {
            chosen(json!("auto"), body)?;
            format!("{base}:auto")
        }
        Named::Adapter(name) => {
            chosen(json!([{"name": name}]), body)?;
            format!("{base}:{name}")
        }
        // Where there are no adapters, a name cannot be a misspelt one: llama-server takes any name.
        Named::Unknown(_) if library.is_none() => base,
        Named::Unknown(name) => return Err(unknown(library.as_deref(), &base, &name)),
    };
    // Names are looked up now, so that an unknown one is told with its neighbours before anything else is checked.
    Ok((name, defaults))
}

fn known(library: &Library, name: &str) -> bool {
    AdapterName::new(name).is_ok_and(|name| library.find(&name).is_ok())
}

/// The answer to a name that stands for nothing.
pub fn unknown(library: Option<&Library>, base: &str, name: &str) -> Problem {
    let near = library.and_then(|l| l.suggest(name.rsplit(':').next().unwrap_or(name)).ok()).unwrap_or_default();
    let near: Vec<String> = near.iter().take(3).map(|n| format!("'{base}:{n}'")).collect();
    let hint = match near.is_empty() {
        true => format!("the model is '{base}'"),
        false => format!("the model is '{base}'; with an adapter: {}", near.join(", ")),
    };
    Problem::not_found(format!("there is no model '{}'; {hint}", crate::error::printable(name)))
}

/// The adapters that `lora` names: places in the list of the start, with weights. Those not named are off.
///
/// # Errors
/// No array, an unknown id, a weight that is no number.
pub fn loose(state: &State, lora: &Value) -> Result<Vec<AdapterChoice>, Failure> {
    let Value::Array(items) = lora else {
        return Err(Failure::usage("lora: must be an array of {id, scale}"));
    };
    let count = state.options.loras.len();
    let one = |(i, item): (usize, &Value)| {
        let id = item.get("id").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let Some(adapter) = id.and_then(|id| state.options.loras.get(id)) else {
            let what = item.get("id").map_or("is missing".into(), |v| {
                format!("{v} is not one of the {count} adapters given at the start (--lora)")
            });
            return Err(Failure::usage(format!(
                "lora[{i}].id: {what}; adapters of the library are named in \"adapters\""
            )));
        };
        let scale = match item.get("scale") {
            None => 1.0,
            Some(v) => {
                v.as_f64().ok_or_else(|| Failure::usage(format!("lora[{i}].scale: must be a number, not {v}")))?
            }
        };
        Ok(AdapterChoice::file(&adapter.path, scale as f32))
    };
    let chosen = items.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    // A weight of 0 is how clients of llama-server switch one off.
    Ok(chosen.into_iter().filter(|choice| choice.scale != 0.0).collect())
}

/// Refuses adapters that a key may not use, in the words for those that do not exist.
///
/// # Errors
/// 404.
pub fn permit(state: &State, grant: &Grant, request: &mut Request) -> Result<(), Problem> {
    request.owner = grant.owner;
    if grant.adapters.is_none() {
        return Ok(());
    }
    if request.route.is_some() {
        return Err(Problem::invalid(
            "adapters: this key may use some adapters only, and cannot have them chosen; name one",
        ));
    }
    for adapter in &request.adapters {
        match &adapter.source {
            AdapterSource::Name(name) if grant.allows(name) => (),
            AdapterSource::Name(name) => return Err(unknown(None, &state.model_name(), name)),
            // What the server applies by itself is for everyone.
            AdapterSource::File(path) if state.options.loras.iter().any(|l| l.path == *path) => (),
            AdapterSource::File(_) => return Err(unknown(None, &state.model_name(), "of a file")),
        }
    }
    Ok(())
}

/// Adds the control vectors of the start, which act on every answer.
///
/// # Errors
/// The adapters are still to be chosen, which leaves no place for them.
pub fn steer(state: &State, request: &mut Request) -> Result<(), Problem> {
    if state.options.steering.is_empty() {
        return Ok(());
    }
    if request.route.is_some() {
        return Err(Problem::invalid("adapters: auto cannot be had beside --control-vector; name adapters"));
    }
    request.adapters.extend(state.options.steering.iter().cloned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models() {
        let bases = ["tiny".to_string(), "my-alias".to_string()];
        let table = [
            ("", Named::Base),
            ("tiny", Named::Base),
            ("tiny.gguf", Named::Base),
            ("my-alias", Named::Base),
            ("tiny:latest", Named::Base),
            ("auto", Named::Auto),
            ("tiny:auto", Named::Auto),
            ("tiny:none", Named::Plain),
            ("tiny:sql", Named::Adapter("sql".into())),
            ("tiny:typo", Named::Adapter("typo".into())),
            ("sql", Named::Adapter("sql".into())),
            ("sql:latest", Named::Adapter("sql".into())),
            ("other:sql", Named::Unknown("other:sql".into())),
            ("gpt-4", Named::Unknown("gpt-4".into())),
        ];
        for (asked, expected) in table {
            assert_eq!(interpret(asked, &bases, |n| n == "sql"), expected, "{asked}");
        }
    }
}
