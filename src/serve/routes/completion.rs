//! Text completion: llama-server's own, OpenAI's, and fill-in-the-middle.

use axum::extract::{Request as HttpRequest, State as StateOf};
use serde_json::{Map, Value};

use super::super::generate::{self, Plan, SSE};
use super::super::keys::Grant;
use super::super::naming;
use super::super::reply::{Refusal, Reply};
use super::super::state::State;
use super::chat::{repeat, with_loose};
use super::{Shared, read};
use crate::engine::Token;
use crate::pipeline::Pipeline;
use crate::prompt::Prompt;
use crate::request::{Input, Request};
use crate::wire::{self, Call, Part, Problem};

/// POST `/completion`.
pub async fn native(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, grant) = read(&state, request).await?;
    generate::run(state, move |state, pipeline| native_plan(state, pipeline, body, &grant)).await
}

fn native_plan(state: &State, pipeline: &Pipeline, body: Map<String, Value>, grant: &Grant) -> Result<Plan, Refusal> {
    let asked = understand(state, pipeline, body, grant)?;
    let Asked { call, model, inputs, several } = asked;
    let shown = inputs.iter().map(|input| shown(pipeline, input)).collect::<Result<Vec<_>, _>>()?;
    let times = call.answers;
    let shown = shown.into_iter().flat_map(|s| std::iter::repeat_n(s, times)).collect();
    let shape = Box::new(wire::Native::new(call.telling.clone(), &call.request, shown, several || times > 1));
    let requests = inputs.into_iter().map(|input| Request { input, ..call.request.clone() }).collect();
    let requests = repeat(state, requests, times)?;
    Ok(Plan { requests, shape, telling: call.telling, content_type: SSE, model })
}

/// POST `/v1/completions`.
pub async fn openai(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, grant) = read(&state, request).await?;
    generate::run(state, move |state, pipeline| {
        let Asked { call, model, inputs, .. } = understand(state, pipeline, body, &grant)?;
        let shape = wire::Completions::new(call.telling.clone(), inputs.len(), inputs.len() * call.answers);
        let requests = inputs.into_iter().map(|input| Request { input, ..call.request.clone() }).collect();
        let requests = repeat(state, requests, call.answers)?;
        Ok(Plan { requests, shape: Box::new(shape), telling: call.telling, content_type: SSE, model })
    })
    .await
}

/// A text completion understood.
pub struct Asked {
    pub call: Call,
    pub model: String,
    pub inputs: Vec<Input>,
    pub several: bool,
}

/// Reads a text completion with any shape of prompt.
pub fn understand(
    state: &State,
    pipeline: &Pipeline,
    mut body: Map<String, Value>,
    grant: &Grant,
) -> Result<Asked, Refusal> {
    let prompt = body.remove("prompt").filter(|p| !p.is_null());
    let prompt = prompt.ok_or_else(|| Problem::invalid("prompt: is missing"))?;
    let invalid = |e: wire::FieldError| Problem::invalid(e.to_string());
    let (prompts, several) = wire::prompts("prompt", &prompt).map_err(invalid)?;
    if prompts.len() > state.options.bounds.answers {
        let most = state.options.bounds.answers;
        return Err(Problem::invalid(format!("prompt: a request may have at most {most} prompts")).into());
    }
    let inputs: Vec<Input> = prompts.into_iter().map(|parts| input(pipeline, parts)).collect();
    let slot = slot(pipeline, &mut body)?;
    // llama-server: where both are given, the grammar counts.
    if body.get("grammar").and_then(Value::as_str).is_some_and(|g| !g.is_empty()) {
        body.remove("json_schema");
    }
    for chat_only in ["messages", "tools", "chat"] {
        body.remove(chat_only);
    }
    let (model, defaults) = naming::resolve(state, &mut body)?;
    let lora = body.remove("lora").filter(|v| !v.is_null());
    let named = body.get("adapters").is_some_and(|v| !v.is_null());
    body.insert("prompt".into(), "".into());
    let mut call = wire::completion(body, &defaults)?;
    with_loose(state, &mut call.request, lora.as_ref(), named)?;
    naming::permit(state, grant, &mut call.request)?;
    naming::steer(state, &mut call.request)?;
    call.request.slot = slot;
    if let Some(first) = inputs.first() {
        call.request.input = first.clone();
    }
    Ok(Asked { call, model, inputs, several })
}

/// Takes `id_slot` out of a request; -1 is whichever fits best.
pub fn slot(pipeline: &Pipeline, body: &mut Map<String, Value>) -> Result<Option<usize>, Problem> {
    let Some(slot) = body.remove("id_slot").filter(|v| !v.is_null()) else { return Ok(None) };
    let slots = pipeline.facts().sequences;
    match slot.as_i64() {
        Some(-1) => Ok(None),
        Some(n) if usize::try_from(n).is_ok_and(|n| n < slots) => Ok(usize::try_from(n).ok()),
        _ => Err(Problem::invalid(format!("id_slot: must be -1 or below {slots}, not {slot}"))),
    }
}

/// A prompt as the pipeline takes it.
fn input(pipeline: &Pipeline, mut parts: Vec<Part>) -> Input {
    if let [Part::Text(text)] = parts.as_mut_slice() {
        return Input::Raw(std::mem::take(text));
    }
    let mut tokens: Vec<Token> = Vec::new();
    let mut first = true;
    for part in parts {
        match part {
            Part::Token(token) => tokens.push(token),
            // The model's BOS goes before the first text only, as in llama-server.
            Part::Text(text) => {
                let begins = std::mem::replace(&mut first, false);
                tokens.extend(pipeline.tokenizer().tokenize(&Prompt::raw(text), begins));
            }
        }
    }
    Input::Tokens(tokens)
}

/// The prompt as the model reads it, control tokens spelled.
fn shown(pipeline: &Pipeline, input: &Input) -> Result<String, Refusal> {
    let tokens = pipeline.prompt_tokens(input.clone())?;
    Ok(String::from_utf8_lossy(&super::text::bytes(pipeline, &tokens)).into_owned())
}

/// Spellings of the tokens that fill-in-the-middle needs, of the models that have them: before the prefix, before the
/// suffix, before the middle.
const FIM: [[&str; 3]; 7] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["<PRE>", "<SUF>", "<MID>"],
    ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
];
/// Before a file of the context that `input_extra` gives.
const FIM_FILE: [&str; 4] = ["<|file_sep|>", "<file_sep>", "<|file_separator|>", "<fim_sep>"];

/// POST `/infill`.
pub async fn infill(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (mut body, grant) = read(&state, request).await?;
    generate::run(state, move |state, pipeline| {
        let tokens = infill_prompt(state, pipeline, &mut body)?;
        body.insert("prompt".into(), tokens.into());
        native_plan(state, pipeline, body, &grant)
    })
    .await
}

/// Lays a fill-in-the-middle prompt out as llama-server does: files, then prefix and prompt, suffix, middle; prefix
/// and suffix cut so that both fit a batch.
fn infill_prompt(state: &State, pipeline: &Pipeline, body: &mut Map<String, Value>) -> Result<Vec<Token>, Refusal> {
    let special = state.special_tokens(pipeline);
    let find = |text: &str| special.get(text).copied();
    let Some([pre, suf, mid]) = FIM.iter().find_map(|[a, b, c]| Some([find(a)?, find(b)?, find(c)?])) else {
        return Err(Problem::not_supported("this model has no tokens for infilling").into());
    };
    let mut text = |name: &str| match body.remove(name) {
        Some(Value::String(text)) => Ok(text),
        None if name == "prompt" => Ok(String::new()),
        Some(Value::Null) | None => Err(Problem::invalid(format!("{name}: is missing"))),
        Some(other) => Err(Problem::invalid(format!("{name}: must be a text, not {other}"))),
    };
    let (prefix, suffix, prompt) = (text("input_prefix")?, text("input_suffix")?, text("prompt")?);
    let tokens = |text: String| pipeline.tokenizer().tokenize(&Prompt::default().followed_by(text), false);
    let facts = pipeline.facts();
    let mut extra = Vec::new();
    match body.remove("input_extra") {
        None | Some(Value::Null) => (),
        Some(Value::Array(items)) => {
            let separator = FIM_FILE.iter().find_map(|t| find(t));
            for (i, item) in items.iter().enumerate() {
                let name = match item.get("filename") {
                    None => "tmp",
                    Some(Value::String(name)) => name,
                    Some(_) => {
                        return Err(Problem::invalid(format!("input_extra[{i}].filename: must be a text")).into());
                    }
                };
                let Some(Value::String(content)) = item.get("text") else {
                    return Err(Problem::invalid(format!("input_extra[{i}].text: must be a text")).into());
                };
                match separator {
                    Some(token) => {
                        extra.push(token);
                        extra.extend(tokens(format!("{name}\n")));
                    }
                    None => extra.extend(tokens("\n\n--- snippet ---\n\n".into())),
                }
                extra.extend(tokens(content.clone()));
            }
        }
        Some(_) => return Err(Problem::invalid("input_extra: must be an array of {filename, text}").into()),
    }
    let (mut prefix, mut suffix, prompt) = (tokens(prefix), tokens(suffix), tokens(prompt));
    let batch = facts.batch;
    prefix.drain(..prefix.len().saturating_sub(3 * (batch / 4)));
    suffix.truncate((batch / 4).saturating_sub(2 + prompt.len()));
    let room = facts.sequence_context.saturating_sub(batch + 2 * prompt.len());
    extra.drain(..extra.len().saturating_sub(room));
    let bos = pipeline.base().tokenizer.bos.filter(|_| pipeline.base().tokenizer.add_bos);
    let mut all: Vec<Token> = bos.into_iter().collect();
    all.extend(extra);
    let before = [vec![pre], prefix, prompt].concat();
    let after = [vec![suf], suffix].concat();
    let (first, second) = if state.options.suffix_first { (after, before) } else { (before, after) };
    all.extend(first);
    all.extend(second);
    all.push(mid);
    Ok(all)
}
