//! Facts about the server: health, properties, models, slots, metrics.

use axum::body::Body;
use axum::extract::{Path, Query, Request as HttpRequest, State as StateOf};
use axum::http::{Extensions, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::reply::{Refusal, Reply, ok, typed};
use super::super::stage::{Known, Stage};
use super::super::state::State;
use super::super::{engine_numbers, metrics};
use super::ollama::listed;
use super::{Shared, aside, granted};
use crate::library::Entry;
use crate::pipeline::Pipeline;
use crate::wire::{self, Problem};

/// GET `/health`: ready, loading or stopping.
pub async fn health(StateOf(state): Shared) -> Reply {
    state.known()?;
    ok(&json!({"status": "ok"}))
}

/// GET `/props`.
pub async fn props(StateOf(state): Shared) -> Reply {
    aside(move || {
        state.known()?;
        match state.stages.now() {
            Stage::Asleep(snapshot) => ok(&snapshot.props),
            _ => ok(&properties(&state, &*state.pipeline()?, false)),
        }
    })
    .await
}

/// The properties of the server.
pub fn properties(state: &State, pipeline: &Pipeline, sleeping: bool) -> Value {
    let (base, facts, o) = (pipeline.base(), pipeline.facts(), &state.options);
    let spelled = |id: Option<u32>| id.map(|id| pipeline.tokenizer().spelling(id)).unwrap_or_default();
    let caps = state.caps(pipeline);
    json!({
        "default_generation_settings": {"params": wire::settings(&o.defaults), "n_ctx": facts.sequence_context},
        "total_slots": facts.sequences,
        "model_alias": state.model_name(),
        "model_ftype": base.file_type,
        "model_path": o.model.display().to_string(),
        "modalities": {"vision": false, "video": false, "audio": false},
        "endpoint_slots": o.slots,
        "endpoint_props": o.props,
        "endpoint_metrics": o.metrics,
        "ui": o.page,
        "ui_settings": o.page_settings,
        "chat_template": base.chat_template,
        "chat_template_caps": {
            "supports_tools": caps.tools,
            "requires_object_arguments": caps.object_arguments,
            "opens_thoughts": caps.opens_thoughts,
        },
        "bos_token": spelled(base.tokenizer.bos),
        "eos_token": spelled(base.tokenizer.eos),
        "build_info": o.version,
        "is_sleeping": sleeping,
        "formats": crate::grammar::format_names(),
        "embeddings": pipeline.encoder().map(|e| json!({
            "model": e.facts().model, "dimensions": e.facts().dim, "limit": e.facts().limit,
            "pooling": e.facts().pooling.name(),
        })),
        "library": o.library.as_ref().map(|_| state.library().ok().flatten().is_some()),
    })
}

/// POST `/props`: allowed or not, it changes nothing, as in llama-server.
pub async fn set_props(StateOf(state): Shared) -> Reply {
    match state.options.props {
        true => ok(&json!({"success": true})),
        false => {
            Err(Problem::not_supported("This server does not support changing properties. Start it with `--props`")
                .into())
        }
    }
}

/// GET `/metrics`.
pub async fn prometheus(StateOf(state): Shared, request: HttpRequest) -> Reply {
    unlimited(request.extensions())?;
    if !state.options.metrics {
        return Err(
            Problem::not_supported("This server does not support metrics endpoint. Start it with `--metrics`").into()
        );
    }
    let name = state.model_name();
    let vllm = state.options.metrics_vllm.then_some(name.as_str());
    let known = state.known()?;
    let mut text = state.metrics.text(&state.seats, &state.counts(), known.facts.context, vllm);
    match state.stages.now() {
        Stage::Awake(pipeline) => text += &engine_numbers::text(&pipeline),
        Stage::Asleep(snapshot) => text += &snapshot.numbers,
        Stage::Loading => (),
    }
    let mut response = typed(200, "text/plain; version=0.0.4", Body::from(text));
    if let Ok(started) = HeaderValue::from_str(&state.metrics.started_at().to_string()) {
        response.headers_mut().insert("process-start-time-unix", started);
    }
    Ok(response)
}

/// GET `/v1/dashboard`: what the web page plots.
pub async fn dashboard(StateOf(state): Shared, request: HttpRequest) -> Reply {
    unlimited(request.extensions())?;
    aside(move || {
        let mut summary = state.metrics.summary(&state.seats);
        let facts = &state.known()?.facts;
        let drafts = !state.options.defaults.drafts.ways.is_none();
        summary["slots"] = state.seats.describe(facts.sequence_context, drafts);
        summary["context_used"] = metrics::used(&state.counts(), facts.context).into();
        let library = state.library()?;
        let count = library.as_deref().map(|l| l.count(&crate::library::Filter::default()));
        summary["library"] = json!(count.and_then(Result::ok));
        ok(&summary)
    })
    .await
}

/// Keys that are limited to some adapters learn nothing of the others.
pub fn unlimited(extensions: &Extensions) -> Result<(), Problem> {
    match granted(extensions).adapters {
        None => Ok(()),
        Some(_) => Err(Problem::new(403, "permission_error", "this key is limited to some adapters")),
    }
}

/// The query of `/slots`.
#[derive(Debug, Deserialize)]
pub struct SlotsQuery {
    fail_on_no_slot: Option<String>,
}

/// GET `/slots`.
pub async fn slots(StateOf(state): Shared, Query(query): Query<SlotsQuery>, request: HttpRequest) -> Reply {
    unlimited(request.extensions())?;
    if !state.options.slots {
        return Err(
            Problem::not_supported("This server does not support slots endpoint. Start it with `--slots`").into()
        );
    }
    if query.fail_on_no_slot.is_some() && !state.seats.has_free() {
        return Err(Problem::new(503, "unavailable_error", "no slot available").into());
    }
    let drafts = !state.options.defaults.drafts.ways.is_none();
    ok(&state.seats.describe(state.known()?.facts.sequence_context, drafts))
}

fn base_model(state: &State, known: &Known) -> Value {
    let Known { base, facts } = known;
    json!({
        "id": state.model_name(),
        "aliases": state.options.alias,
        "tags": state.options.tags,
        "object": "model",
        "created": state.metrics.started_at(),
        "owned_by": "smoa",
        "parent": null,
        "root": state.model_name(),
        "meta": {
            "n_vocab": base.n_vocab, "n_ctx": facts.sequence_context, "n_ctx_train": base.n_ctx_train, "n_embd": base.n_embd,
            "n_params": base.parameter_count, "size": base.weight_bytes, "ftype": base.file_type,
        },
    })
}

fn adapter_model(state: &State, e: &Entry) -> Value {
    let base = state.model_name();
    let m = &e.metadata;
    json!({
        "id": format!("{base}:{}", e.name),
        "object": "model",
        "created": e.added,
        "owned_by": "smoa",
        "parent": base,
        "root": e.name.as_str(),
        "meta": {"digest": e.digest.to_hex(), "size": e.bytes, "title": m.card.title, "description": m.card.description},
    })
}

/// GET `/v1/models`: the model, then the adapters of the library.
pub async fn models(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let grant = granted(request.extensions());
    aside(move || {
        let mut data = vec![base_model(&state, state.known()?)];
        data.extend(listed(&state, &grant)?.iter().map(|e| adapter_model(&state, e)));
        ok(&json!({"object": "list", "data": data}))
    })
    .await
}

/// GET `/v1/models/{id}`.
pub async fn model(StateOf(state): Shared, Path(id): Path<String>, request: HttpRequest) -> Reply {
    let grant = granted(request.extensions());
    aside(move || {
        let known = state.known()?;
        let base = state.model_name();
        if id == base || state.options.alias.contains(&id) {
            return ok(&base_model(&state, known));
        }
        let library = state.library()?;
        let name = id.strip_prefix(&format!("{base}:")).unwrap_or(&id);
        let parsed = crate::library::AdapterName::new(name).ok().filter(|n| grant.allows(n.as_str()));
        match library.as_deref().zip(parsed).and_then(|(l, n)| l.find(&n).ok()) {
            Some(entry) => ok(&adapter_model(&state, &entry)),
            None => {
                let seen = library.as_deref().filter(|_| grant.adapters.is_none());
                Err(super::super::naming::unknown(seen, &base, name).into())
            }
        }
    })
    .await
}

/// Sound needs a model that hears.
pub async fn no_audio() -> Response {
    Refusal::from(Problem::not_supported("This server does not support audio: its model reads text")).into_response()
}

/// Decisions need a model made for them.
pub async fn no_decisions() -> Reply {
    Err(Problem::not_supported("This server does not support decisions: its model is none for them").into())
}

/// Tools run in the client; llama-server says so where it was not told to run any.
pub async fn no_tools() -> Reply {
    let error = json!({"message": "This feature is disabled: the server runs no tools and no proxy", "type": "feature_disabled"});
    Err(Refusal { status: 403, body: json!({"error": error}) })
}
