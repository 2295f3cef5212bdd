//! The routes, one file per group. A route reads its request, hands it to the flow, and tells the answer in its API's
//! shape; what JSON means is decided in `wire`.

mod adapters;
mod anthropic;
mod chat;
mod completion;
mod embedding;
mod files;
mod info;
mod ollama;
mod page;
mod route;
mod slots;
mod stream;
mod text;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::routing::{MethodRouter, delete, get, post};
use serde_json::{Map, Value};

use super::body;
use super::guard::guard;
use super::keys::Grant;
use super::reply::Refusal;
use super::state::State;
use crate::wire::Problem;

pub use info::properties;
pub use text::bytes as spelled;

/// Everything a route gets.
type Shared = axum::extract::State<Arc<State>>;

/// All routes.
pub fn app(state: Arc<State>) -> Router {
    let mut routes: Router<Arc<State>> = Router::new();
    let mut add = |paths: &[&str], method: MethodRouter<Arc<State>>| {
        for path in paths {
            routes = std::mem::take(&mut routes).route(&format!("{}{path}", state.options.prefix), method.clone());
        }
    };
    add(&["/health", "/v1/health"], get(info::health));
    add(&["/props"], get(info::props).post(info::set_props));
    add(&["/metrics"], get(info::prometheus));
    add(&["/slots"], get(info::slots));
    add(&["/slots/{id}"], post(slots::act));
    add(&["/models", "/v1/models"], get(info::models));
    add(&["/models/{*id}", "/v1/models/{*id}"], get(info::model));
    add(&["/tokenize"], post(text::tokenize));
    add(&["/detokenize"], post(text::detokenize));
    add(&["/apply-template"], post(text::apply_template));
    let counting = ["/chat/completions/input_tokens", "/v1/chat/completions/input_tokens"];
    add(&counting, post(text::count_chat));
    add(&["/responses/input_tokens", "/v1/responses/input_tokens"], post(text::count_responses));
    add(&["/v1/messages/count_tokens"], post(anthropic::count));
    add(&["/completion", "/completions"], post(completion::native));
    add(&["/v1/completions"], post(completion::openai));
    add(&["/infill"], post(completion::infill));
    add(&["/chat/completions", "/v1/chat/completions"], post(chat::chat));
    add(&["/v1/stream"], get(stream::replay).delete(stream::stop));
    add(&["/v1/streams/lookup"], post(stream::look_up));
    add(&["/v1/chat/completions/control"], post(chat::control));
    add(&["/responses", "/v1/responses"], post(chat::responses));
    add(&["/v1/messages"], post(anthropic::messages));
    add(&["/lora-adapters"], get(adapters::loose).post(adapters::set_loose));
    add(&["/v1/load_lora_adapter"], post(adapters::load));
    add(&["/v1/unload_lora_adapter"], post(adapters::unload));
    add(&["/v1/adapters"], get(adapters::list).post(adapters::load));
    add(&["/v1/route"], post(route::route));
    add(&["/v1/adapters/{*name}"], get(adapters::show).patch(adapters::edit).merge(delete(adapters::remove)));
    add(&["/v1/feedback"], post(adapters::feedback));
    add(&["/v1/dashboard"], get(info::dashboard));
    add(&["/api/chat"], post(ollama::chat));
    add(&["/api/generate"], post(ollama::generate));
    add(&["/api/tags"], get(ollama::tags));
    add(&["/api/show"], post(ollama::show));
    add(&["/api/ps"], get(ollama::ps));
    add(&["/api/version"], get(ollama::version));
    add(&["/embedding", "/embeddings"], post(embedding::native));
    add(&["/v1/embeddings"], post(embedding::openai));
    add(&["/api/embed"], post(embedding::ollama));
    add(&["/api/embeddings"], post(embedding::ollama_old));
    add(&["/rerank", "/reranking", "/v1/rerank", "/v1/reranking"], post(embedding::rerank));
    add(&["/audio/transcriptions", "/v1/audio/transcriptions"], post(info::no_audio));
    add(&["/v1/systemone"], post(info::no_decisions));
    add(&["/tools", "/cors-proxy"], get(info::no_tools).post(info::no_tools));
    match &state.options.files {
        Some(_) => add(&["/", "/index.html"], get(files::index)),
        None if state.options.page => add(&["/", "/index.html"], get(page::page)),
        None => (),
    }
    routes.fallback(files::file).layer(axum::middleware::from_fn_with_state(state.clone(), guard)).with_state(state)
}

/// The body of a request and what its key grants.
async fn read(state: &State, request: HttpRequest) -> Result<(Map<String, Value>, Grant), Refusal> {
    let (parts, content) = request.into_parts();
    let object = body::object(&parts.headers, content, &state.options.bounds).await?;
    Ok((object, granted(&parts.extensions)))
}

/// What the request's key grants.
fn granted(extensions: &axum::http::Extensions) -> Grant {
    // The guard has put it in; without it nothing is granted but the base.
    extensions.get::<Grant>().cloned().unwrap_or_else(|| Grant { adapters: Some(Arc::new([])), ..Grant::default() })
}

/// Runs work that touches disk or templates away from the HTTP threads.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(500, "server_error", "the request broke off inside the server").into()),
    }
}
