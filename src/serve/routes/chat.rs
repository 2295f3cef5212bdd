//! Chat in OpenAI's form, and the Responses API on top of it.

use std::sync::Arc;

use axum::extract::{Request as HttpRequest, State as StateOf};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use super::super::conversations::MOST_ID;
use super::super::generate::{self, Plan, SSE};
use super::super::keys::Grant;
use super::super::naming;
use super::super::reply::{Refusal, Reply, ok};
use super::super::state::State;
use super::{Shared, completion, read};
use crate::error::Failure;
use crate::grammar::{Hurry, Source, Trigger};
use crate::pipeline::{CONTINUE, Pipeline};
use crate::request::{Input, Request};
use crate::wire::{self, Call, Problem};

/// POST `/v1/chat/completions`.
pub async fn chat(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let id = conversation(request.headers())?;
    let (body, grant) = read(&state, request).await?;
    // Only a stream can be read again.
    let kept = id.filter(|_| body.get("stream") == Some(&Value::Bool(true))).map(|id| (grant.owner, id));
    generate::run_kept(state, kept, move |state, pipeline| {
        let (call, model) = understand(state, pipeline, body, &grant)?;
        let shape = Box::new(wire::Chat::new(call.telling.clone(), call.answers));
        plan(state, call, shape, SSE, model)
    })
    .await
}

/// The conversation that a request belongs to, if it says so.
fn conversation(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(id) = headers.get("x-conversation-id") else { return Ok(None) };
    let id = id.to_str().ok().filter(|id| id.len() <= MOST_ID);
    let id =
        id.ok_or_else(|| Problem::invalid(format!("X-Conversation-Id: must be up to {MOST_ID} plain characters")))?;
    Ok(Some(id.to_owned()).filter(|id| !id.is_empty()))
}

/// POST `/v1/chat/completions/control`: ends the thoughts of an answer under way, which had said `reasoning_control`.
pub async fn control(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, _) = read(&state, request).await?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (id, action) = (text("id"), text("action"));
    if id.is_empty() {
        return Err(Problem::invalid("id: must be the id of an answer under way").into());
    }
    if action != "reasoning_end" {
        return Err(Problem::invalid(format!("action: must be \"reasoning_end\", not {action:?}")).into());
    }
    // The id of an answer is its key: it cannot be guessed, and only its client was told.
    let message = match state.thoughts.end(id.strip_prefix("chatcmpl-").unwrap_or(id)) {
        Some(true) => return ok(&json!({"success": true})),
        Some(false) => "the thoughts of this answer have ended",
        None => "no answer under way has this id and reasoning_control",
    };
    ok(&json!({"success": false, "message": message}))
}

/// POST `/v1/responses`.
pub async fn responses(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, grant) = read(&state, request).await?;
    generate::run(state, move |state, pipeline| {
        let (body, echo) = wire::responses_to_chat(body)?;
        let (call, model) = understand(state, pipeline, body, &grant)?;
        let shape = Box::new(wire::Responses::new(call.telling.clone(), echo));
        plan(state, single(call)?, shape, SSE, model)
    })
    .await
}

/// A chat request understood: what is asked, and the name of the model that answers.
pub fn understand(
    state: &State,
    pipeline: &Pipeline,
    mut body: Map<String, Value>,
    grant: &Grant,
) -> Result<(Call, String), Refusal> {
    if body.get("grammar").is_some_and(|g| !g.is_null()) && body.get("json_schema").is_some_and(|s| !s.is_null()) {
        return Err(Problem::invalid("json_schema: give one format, not also grammar").into());
    }
    for (field, value) in &state.options.chat_defaults {
        match (body.get_mut(field), value) {
            (None | Some(Value::Null), value) => drop(body.insert(field.clone(), value.clone())),
            (Some(Value::Object(own)), Value::Object(defaults)) => {
                for (key, value) in defaults {
                    own.entry(key).or_insert_with(|| value.clone());
                }
            }
            _ => (),
        }
    }
    let asked = body.get(CONTINUE).is_some_and(|v| !v.is_null() && *v != false);
    let (model, defaults) = naming::resolve(state, &mut body)?;
    let slot = completion::slot(pipeline, &mut body)?;
    let lora = body.remove("lora").filter(|v| !v.is_null());
    let named = body.get("adapters").is_some_and(|v| !v.is_null());
    let caps = state.caps(pipeline);
    let mut call = wire::chat(body, &defaults, caps)?;
    call.request.slot = slot;
    if !state.options.prefill
        && !asked
        && let Input::Chat { kwargs, .. } = &mut call.request.input
    {
        kwargs.insert(CONTINUE.into(), false.into());
    }
    with_loose(state, &mut call.request, lora.as_ref(), named)?;
    naming::permit(state, grant, &mut call.request)?;
    naming::steer(state, &mut call.request)?;
    if state.options.plain_answers {
        call.telling.split = wire::Split::default();
    }
    think(pipeline, &mut call, caps.opens_thoughts)?;
    Ok((call, model))
}

/// Where thoughts stand before the answer: where they end, and what they may cost.
fn think(pipeline: &Pipeline, call: &mut Call, opens: bool) -> Result<(), Refusal> {
    let Input::Chat { messages, tools, kwargs } = &call.request.input else { return Ok(()) };
    let budget = call.telling.thinking_budget;
    let bounded = budget.is_some() || call.telling.thinking_control;
    if !opens {
        let thinks = pipeline.base().chat_template.as_deref().is_some_and(|t| t.contains("<think>"));
        // A model that does not think stays below any budget, and has no thoughts to end.
        if bounded && thinks {
            let field = if budget.is_some() { "thinking_budget_tokens" } else { "reasoning_control" };
            let message = "the model's template does not open thoughts, so their end cannot be told; a budget of 0 switches \
                them off";
            return Err(Problem::invalid(format!("{field}: {message}")).into());
        }
        return Ok(());
    }
    if !call.telling.split.reasoning && !bounded {
        return Ok(());
    }
    let prompt = pipeline.render(messages.clone(), tools.clone(), kwargs.clone())?;
    let thinking = prompt.text().trim_end().ends_with("<think>");
    call.telling.split.thinking = thinking && call.telling.split.reasoning;
    if !thinking || call.request.after.is_some() {
        return Ok(());
    }
    let hurry = call.telling.thinking_control.then(Hurry::default);
    let message = std::mem::take(&mut call.telling.thinking_message).into_bytes();
    let answer = Trigger { budget, message, hurry, ..Trigger::answer_after("</think>") };
    match &call.request.format {
        // Thoughts are free; the format is that of the answer after them.
        Some(_) => call.request.after = Some(answer),
        None if bounded => {
            call.request.format = Some(Source::Gbnf("root ::= [^\\x00]*".into()));
            call.request.after = Some(Trigger { must: false, ..answer });
        }
        None => (),
    }
    Ok(())
}

/// Applies `lora`: what it names, and nothing that the server would apply by itself.
pub fn with_loose(state: &State, request: &mut Request, lora: Option<&Value>, named: bool) -> Result<(), Failure> {
    let Some(lora) = lora else { return Ok(()) };
    let chosen = naming::loose(state, lora)?;
    if !named {
        request.adapters.clear();
    }
    request.adapters.extend(chosen);
    Ok(())
}

/// A call of an API that knows no several answers.
///
/// # Errors
/// Several were asked for.
pub fn single(call: Call) -> Result<Call, Refusal> {
    match call.answers {
        1 => Ok(call),
        _ => Err(Problem::invalid("n: this route gives one answer").into()),
    }
}

/// One request per answer.
pub fn plan(
    state: &State,
    call: Call,
    shape: Box<dyn wire::Shape>,
    content_type: &'static str,
    model: String,
) -> Result<Plan, Refusal> {
    let requests = repeat(state, vec![call.request], call.answers)?;
    Ok(Plan { requests, shape, telling: call.telling, content_type, model })
}

/// Each request so many times; a seed grows by one with each.
pub fn repeat(state: &State, requests: Vec<Request>, times: usize) -> Result<Vec<Request>, Refusal> {
    let most = state.options.bounds.answers;
    if requests.len() * times > most {
        return Err(Problem::invalid(format!("prompt: a request may have at most {most} answers in all")).into());
    }
    let again = |request: Request| {
        (0..times).map(move |i| {
            let mut request = request.clone();
            let step = u32::try_from(i).unwrap_or(0);
            request.sampling.seed = request.sampling.seed.map(|s| s.wrapping_add(step));
            request
        })
    };
    Ok(requests.into_iter().flat_map(again).collect())
}

/// Kept so that plans can be sent to their thread.
const _: fn() = || {
    fn sent<T: Send>() {}
    sent::<Plan>();
    sent::<Arc<State>>();
};
