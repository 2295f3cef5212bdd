//! Slots to files and back. A file holds tokens, the adapter sets they were read under, and the stamp of the engine: what
//! another model, build or setting wrote is refused, and a request goes on from it under the same adapters only.

use std::path::PathBuf;
use std::time::Instant;

use axum::extract::{Path, Query, Request as HttpRequest, State as StateOf};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::reply::{Reply, ok};
use super::super::state::State;
use super::info::unlimited;
use super::{Shared, aside, granted, read};
use crate::wire::Problem;

/// The query of POST `/slots/{id}`.
#[derive(Debug, Deserialize)]
pub struct Action {
    action: Option<String>,
}

/// POST `/slots/{id}?action=save|restore|erase`; waits for the slot's request to end.
pub async fn act(
    StateOf(state): Shared,
    Path(id): Path<String>,
    Query(query): Query<Action>,
    request: HttpRequest,
) -> Reply {
    unlimited(request.extensions())?;
    let owner = granted(request.extensions()).owner;
    let slots = state.pipeline()?.facts().sequences;
    let slot = id.parse::<usize>().ok().filter(|id| *id < slots);
    let slot = slot.ok_or_else(|| Problem::invalid(format!("Invalid slot ID: must be below {slots}")))?;
    let action = query.action.unwrap_or_default();
    let fields = if action == "erase" { Map::new() } else { read(&state, request).await?.0 };
    aside(move || {
        let pipeline = state.pipeline()?;
        let began = Instant::now();
        let ms = || (began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        match action.as_str() {
            "save" => {
                let (name, path) = file(&state, &fields)?;
                let saved = pipeline.save_slot(slot, &path)?;
                ok(&json!({"id_slot": slot, "filename": name, "n_saved": saved.tokens, "n_written": saved.bytes,
                    "timings": {"save_ms": ms()}}))
            }
            "restore" => {
                let (name, path) = file(&state, &fields)?;
                let restored = pipeline.restore_slot(slot, &path, owner)?;
                ok(&json!({"id_slot": slot, "filename": name, "n_restored": restored.tokens, "n_read": restored.bytes,
                    "timings": {"restore_ms": ms()}}))
            }
            "erase" => ok(&json!({"id_slot": slot, "n_erased": pipeline.erase_slot(slot)?})),
            other => {
                let message = format!("Invalid action: must be save, restore or erase, not '{other}'");
                Err(Problem::invalid(message).into())
            }
        }
    })
    .await
}

/// A file of the folder that was named at the start; the name is a plain one.
fn file(state: &State, fields: &Map<String, Value>) -> Result<(String, PathBuf), Problem> {
    let Some(folder) = &state.options.slot_files else {
        let message = "This server does not support slots action. Start it with `--slot-save-path`";
        return Err(Problem::not_supported(message));
    };
    let name = fields.get("filename").and_then(Value::as_str).unwrap_or_default();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !plain {
        let message = "Invalid filename: give 1 to 200 letters, digits, dots, dashes or underscores, no dot first";
        return Err(Problem::invalid(message));
    }
    Ok((name.to_string(), folder.join(name)))
}
