//! Adapters: the loose ones of the start by number, those of the library by name; changing the library needs an
//! admin key.

use std::path::{Path as FilePath, PathBuf};

use axum::extract::{Path, Query, Request as HttpRequest, State as StateOf};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::guard::presented;
use super::super::reply::{Refusal, Reply, ok};
use super::super::state::State;
use super::super::{body, naming};
use super::{Shared, aside, granted, read};
use crate::adapter::Scale;
use crate::error::{Code, Failure};
use crate::gguf::{self, ModelFacts};
use crate::import::{self, PeftFolder};
use crate::library::{
    AdapterName, Card, Entry, Filter, Judged, Library, Measured, Metadata, OnConflict, Page, base_fingerprint,
};
use crate::mapped::Mapped;
use crate::model_file::open_code;
use crate::pipeline::Question;
use crate::shelf::library_failure;
use crate::wire::{Problem, strict_object};

/// GET `/lora-adapters`: the adapters of the start and their weights.
pub async fn loose(StateOf(state): Shared) -> Reply {
    let one = |(id, (adapter, scale)): (usize, (&super::super::LooseAdapter, f32))| json!({"id": id, "path": adapter.path.display().to_string(), "scale": scale, "task_name": "", "prompt_prefix": ""});
    let all: Value = state.options.loras.iter().zip(state.scales()).enumerate().map(one).collect();
    ok(&all)
}

/// POST `/lora-adapters`: `[{id, scale}]`; those not named are off. Running requests keep what they have.
pub async fn set_loose(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (parts, content) = request.into_parts();
    if granted(&parts.extensions).adapters.is_some() {
        return Err(Problem::new(403, "permission_error", "this key is limited to some adapters").into());
    }
    let bytes = body::bytes(&parts.headers, content, &state.options.bounds).await?;
    let wrapped = [b"{\"list\":".as_slice(), &bytes, b"}"].concat();
    let list = strict_object(&wrapped, state.options.bounds.depth).map_err(Problem::invalid)?.remove("list");
    let Some(Value::Array(items)) = list else {
        return Err(Problem::invalid("Request body must be an array").into());
    };
    let mut scales = vec![0.0; state.options.loras.len()];
    for (i, item) in items.iter().enumerate() {
        let id = item.get("id").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let place = id.and_then(|id| scales.get_mut(id));
        let count = state.options.loras.len();
        let place = place
            .ok_or_else(|| Problem::invalid(format!("[{i}].id: must be below {count}, the number of adapters")))?;
        let scale = item
            .get("scale")
            .and_then(Value::as_f64)
            .ok_or_else(|| Problem::invalid(format!("[{i}].scale: must be a number")))?;
        *place = Scale::new(scale as f32).map_err(|e| Problem::invalid(format!("[{i}]: {e}")))?.get();
    }
    state.set_scales(scales);
    ok(&json!({"success": true}))
}

/// The query of `/v1/adapters`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    text: Option<String>,
    tag: Option<String>,
    prefix: Option<String>,
}

/// Adapters listed at once.
const MOST: usize = 1000;

fn described(library: &Library, e: &Entry) -> Value {
    let usage = library.usage(e.digest).unwrap_or_default();
    let judged = library.feedback(e.digest).unwrap_or_default();
    json!({
        "name": e.name.as_str(),
        "digest": e.digest.to_hex(),
        "bytes": e.bytes,
        "added": e.added,
        "card": e.metadata.card,
        "measured": e.metadata.measured,
        "usage": {"uses": usage.uses, "successes": usage.successes, "latency_ms": usage.latency.as_secs_f64() * 1e3,
            "last_used": usage.last_used, "good": judged.good, "bad": judged.bad},
    })
}

fn refused(e: crate::library::LibraryError) -> Refusal {
    library_failure(&e).into()
}

/// GET `/v1/adapters?text=&tag=&prefix=&after=&limit=`.
pub async fn list(StateOf(state): Shared, Query(q): Query<ListQuery>, request: HttpRequest) -> Reply {
    let grant = granted(request.extensions());
    aside(move || {
        let Some(library) = state.library()? else {
            return ok(&json!({"object": "list", "data": [], "total": 0, "has_more": false}));
        };
        let filter = Filter {
            tags: q.tag.into_iter().collect(),
            prefix: q.prefix,
            text: q.text.filter(|t| !t.trim().is_empty()),
            ..Filter::default()
        };
        let limit = q.limit.unwrap_or(100).clamp(1, MOST);
        let after = q.after.map(AdapterName::new).transpose().map_err(|e| Problem::invalid(format!("after: {e}")))?;
        let entries = library.list(&filter, &Page { after, limit: limit + 1 }).map_err(refused)?;
        let more = entries.len() > limit;
        let seen = entries.iter().take(limit).filter(|e| grant.allows(e.name.as_str()));
        let data: Vec<Value> = seen.map(|e| described(&library, e)).collect();
        let total = match grant.adapters {
            None => library.count(&filter).map_err(refused)?,
            Some(_) => data.len() as u64,
        };
        ok(&json!({"object": "list", "data": data, "total": total, "has_more": more}))
    })
    .await
}

/// GET `/v1/adapters/{name}`.
pub async fn show(StateOf(state): Shared, Path(name): Path<String>, request: HttpRequest) -> Reply {
    let grant = granted(request.extensions());
    aside(move || {
        let library = state.library()?;
        let seen = library.as_deref().filter(|_| grant.adapters.is_none());
        let parsed = AdapterName::new(name.as_str()).ok().filter(|n| grant.allows(n.as_str()));
        match library.as_deref().zip(parsed).and_then(|(l, n)| l.find(&n).ok().map(|e| (l, e))) {
            Some((library, entry)) => ok(&described(library, &entry)),
            None => Err(naming::unknown(seen, &state.model_name(), &name).into()),
        }
    })
    .await
}

/// Lets the bearer of an admin key through.
fn admin(state: &State, headers: &HeaderMap) -> Result<(), Problem> {
    let keys = &state.options.admin_keys;
    if keys.is_empty() {
        let message = "the library cannot be changed over HTTP; start with --admin-key to allow it";
        return Err(Problem::new(403, "permission_error", message));
    }
    match presented(headers).and_then(|key| keys.check(key)) {
        Some(_) => Ok(()),
        None => Err(Problem::new(401, "authentication_error", "an admin key is needed")),
    }
}

/// PATCH `/v1/adapters/{name}`: fields of the card.
pub async fn edit(StateOf(state): Shared, Path(name): Path<String>, request: HttpRequest) -> Reply {
    admin(&state, request.headers())?;
    let (fields, _) = read(&state, request).await?;
    aside(move || {
        let library = state.writable_library()?;
        let name = parsed(&name)?;
        let entry = library.find(&name).map_err(refused)?;
        let card = serde_json::to_value(&entry.metadata.card).unwrap_or_else(|_| json!({}));
        let Value::Object(mut card) = card else { return Err(Problem::invalid("card: is no object").into()) };
        for (field, value) in fields {
            if !Card::FIELDS.contains(&field.as_str()) {
                let known = Card::FIELDS.join(", ");
                return Err(Problem::invalid(format!("{field}: a card has no such field; it has {known}")).into());
            }
            match value {
                Value::Null => drop(card.remove(&field)),
                value => drop(card.insert(field, value)),
            }
        }
        let card: Card = serde_json::from_value(card.into()).map_err(|e| Problem::invalid(format!("card: {e}")))?;
        let entry = library.edit(&name, |c| *c = card).map_err(refused)?;
        ok(&described(&library, &entry))
    })
    .await
}

/// DELETE `/v1/adapters/{name}`: it can be restored until the next gc.
pub async fn remove(StateOf(state): Shared, Path(name): Path<String>, request: HttpRequest) -> Reply {
    admin(&state, request.headers())?;
    aside(move || {
        let library = state.writable_library()?;
        let entry = library.remove(&parsed(&name)?).map_err(refused)?;
        ok(&json!({"name": entry.name.as_str(), "digest": entry.digest.to_hex(), "removed": true}))
    })
    .await
}

fn parsed(name: &str) -> Result<AdapterName, Problem> {
    AdapterName::new(name).map_err(|e| Problem::invalid(format!("name: {e}")))
}

fn text(fields: &mut Map<String, Value>, name: &str) -> Result<String, Problem> {
    match fields.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(Problem::invalid(format!("{name}: must be a text"))),
    }
}

/// POST `/v1/load_lora_adapter`, vLLM's (also POST `/v1/adapters`, with `name` and `path`): adds a GGUF file or a PEFT
/// folder of the server's adapter folder.
pub async fn load(StateOf(state): Shared, request: HttpRequest) -> Reply {
    admin(&state, request.headers())?;
    let (mut fields, _) = read(&state, request).await?;
    aside(move || {
        for (ours, theirs) in [("name", "lora_name"), ("path", "lora_path")] {
            if let Some(value) = fields.remove(ours) {
                fields.entry(theirs).or_insert(value);
            }
        }
        let name = text(&mut fields, "lora_name")?;
        let path = within(&state, &text(&mut fields, "lora_path")?)?;
        let replace = matches!(fields.get("load_inplace"), Some(Value::Bool(true)));
        let pipeline = state.pipeline()?.clone();
        let (bytes, metadata) = adapter_at(&path, &state.options.model, pipeline.base())?;
        let library = state.writable_library()?;
        let conflict = if replace { OnConflict::Replace } else { OnConflict::CompareDigest };
        let added = library.add(&parsed(&name)?, &bytes, &metadata, conflict).map_err(refused)?;
        ok(&json!({"message": format!("Success: LoRA adapter '{name}' added successfully."),
            "name": name, "digest": added.digest.to_hex()}))
    })
    .await
}

/// POST `/v1/unload_lora_adapter`, vLLM's.
pub async fn unload(StateOf(state): Shared, request: HttpRequest) -> Reply {
    admin(&state, request.headers())?;
    let (mut fields, _) = read(&state, request).await?;
    aside(move || {
        let name = text(&mut fields, "lora_name")?;
        state.writable_library()?.remove(&parsed(&name)?).map_err(refused)?;
        ok(&json!({"message": format!("Success: LoRA adapter '{name}' removed successfully."), "name": name}))
    })
    .await
}

/// A path inside the folder that adapters may be loaded from.
fn within(state: &State, path: &str) -> Result<PathBuf, Problem> {
    let Some(root) = &state.options.adapter_root else {
        let message = "adapters cannot be loaded by path; start with --adapter-root DIR to allow it";
        return Err(Problem::new(403, "permission_error", message));
    };
    // One answer for what is not there and what is elsewhere: nothing is told of other folders.
    let outside = || Problem::not_found("lora_path: there is no such file or folder in the server's adapter folder");
    let root = root.canonicalize().map_err(|_| outside())?;
    let found = root.join(path).canonicalize().map_err(|_| outside())?;
    if found.starts_with(&root) { Ok(found) } else { Err(outside()) }
}

/// Reads and checks an adapter: a GGUF file, or a PEFT folder that is converted.
fn adapter_at(path: &FilePath, model: &FilePath, base: &ModelFacts) -> Result<(Vec<u8>, Metadata), Failure> {
    let invalid = |e: &dyn std::fmt::Display| Failure::new(Code::InvalidFile, format!("lora_path: {e}"));
    let open = |p: &FilePath| Mapped::open(p).map_err(|e| Failure::new(open_code(&e), format!("lora_path: {e}")));
    let measured = Some(base_fingerprint(base));
    if path.is_dir() {
        let config = open(&path.join("adapter_config.json"))?;
        let config = std::str::from_utf8(config.bytes()).map_err(|e| invalid(&e))?;
        let weights = open(&path.join("adapter_model.safetensors"))?;
        let base_map = open(model)?;
        let base_gguf = gguf::Gguf::read(base_map.bytes()).map_err(|e| invalid(&e))?;
        let base_weights = import::GgufWeights::new(std::slice::from_ref(&base_gguf));
        let peft = PeftFolder { config, weights: weights.bytes() };
        let options = import::Options::default();
        let imported = import::import_peft(&peft, base, Some(&base_weights), &options).map_err(|e| invalid(&e))?;
        let mut measured = Measured::of(&imported.facts, measured);
        measured.relative_error = imported.relative_error.map(f64::from);
        let card = Card { origin: Some(format!("PEFT {}", imported.kind)), ..Card::default() };
        return Ok((imported.gguf, Metadata { card, measured }));
    }
    let map = open(path)?;
    let facts = gguf::check_adapter(map.bytes(), base).map_err(|e| invalid(&e))?;
    let header = gguf::Gguf::read(map.bytes()).map_err(|e| invalid(&e))?;
    let card = Card::from_gguf(&header).map_err(|e| invalid(&e))?;
    Ok((map.bytes().to_vec(), Metadata { card, measured: Measured::of(&facts, measured) }))
}

/// POST `/v1/feedback`: `{id, success}` about an answer, counted for its adapters, once.
pub async fn feedback(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (mut fields, _) = read(&state, request).await?;
    aside(move || {
        let id = text(&mut fields, "id")?;
        let Some(Value::Bool(success)) = fields.get("success") else {
            return Err(Problem::invalid("success: must be true or false").into());
        };
        let nonce = id.rsplit(['-', '_']).next().unwrap_or_default();
        let answered = state.recall(nonce);
        let answered = answered
            .ok_or_else(|| Problem::not_found("id: there is no such answer, or its feedback has come already"))?;
        if let Some(library) = state.library()? {
            library.record_feedback(&answered.adapters, *success).map_err(refused)?;
            if let Some(Question { adapter, text }) = answered.question {
                library.keep_judged(&Judged { digest: adapter, good: *success, text }).map_err(refused)?;
            }
        }
        ok(&json!({"id": id, "recorded": answered.adapters.len()}))
    })
    .await
}
