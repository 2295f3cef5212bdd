//! Requests to a server: the fields of `wire::parse`, and those that say how the answer is to be told.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::deltas::Split;
use super::fields::{FieldError, Fields, expected};
use super::parse::parse_object;
use crate::error::Failure;
use crate::grammar::tools::{Envelope, Tool, ToolChoice, ToolFormat, ToolRequest};
use crate::request::{Input, Request};

/// Most answers to one request.
pub const MAX_ANSWERS: usize = 16;

/// How an answer is to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Telling {
    /// As it comes.
    pub stream: bool,
    /// With token counts at the end of the stream (`stream_options.include_usage`).
    pub include_usage: bool,
    /// With timings on every piece.
    pub timings_per_token: bool,
    /// With a report of the prompt's progress.
    pub return_progress: bool,
    /// With token ids.
    pub return_tokens: bool,
    /// With log-probabilities, and so many alternatives.
    pub logprobs: Option<usize>,
    /// How often a silent stream shows that it lives (`sse_ping_interval`, seconds; -1 never).
    pub ping: Option<Option<Duration>>,
    /// What to take out of the text.
    pub split: Split,
    /// Most tokens of thoughts.
    pub thinking_budget: Option<usize>,
    /// What is written before thoughts are ended (`reasoning_budget_message`).
    pub thinking_message: String,
    /// Another request may end the thoughts (`reasoning_control`).
    pub thinking_control: bool,
    /// Only these fields of the native result, by path.
    pub response_fields: Vec<String>,
    /// Tell everything (`verbose`).
    pub verbose: bool,
}

/// A request as it came over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The request; of several, the one whose input is the first.
    pub request: Request,
    /// How it is to be told.
    pub telling: Telling,
    /// Answers wanted to each input.
    pub answers: usize,
}

/// What a chat template can do with tools; found out by trying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TemplateCaps {
    /// It shows the tools to the model.
    pub tools: bool,
    /// It wants the arguments of past calls as objects, not as text.
    pub object_arguments: bool,
    /// It opens the thoughts itself, at the end of the prompt.
    pub opens_thoughts: bool,
    /// How it writes calls, where that is known.
    pub envelope: Option<Envelope>,
}

/// Reads the fields of a text completion but for its prompt, which may have several shapes: see
/// [`prompts`](super::prompts).
///
/// # Errors
/// A field is wrong.
pub fn completion(object: Map<String, Value>, defaults: &Request) -> Result<Call, Failure> {
    let mut fields = Fields::new(object);
    let refused = |e: FieldError| Failure::usage(e.to_string());
    let mut telling = telling(&mut fields).map_err(refused)?;
    // OpenAI's text completions and llama-server's own: a number.
    telling.logprobs = match fields.take("logprobs") {
        None | Some(Value::Bool(false)) => None,
        Some(v) => match v.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Some(n),
            None => return Err(refused(expected("logprobs", "a number of alternatives", &v))),
        },
    };
    let answers = answers(&mut fields).map_err(refused)?;
    for name in ["echo", "suffix", "best_of"] {
        let harmless = |v: &Value| *v == json!(false) || *v == json!("") || *v == json!(1) || *v == json!(answers);
        if let Some(v) = fields.take(name).filter(|v| !harmless(v)) {
            return Err(refused(FieldError::new(name, format!("is not supported, and {v} would change the answer"))));
        }
    }
    finish(fields, telling, answers, defaults)
}

/// Reads a chat request in OpenAI's form.
///
/// # Errors
/// A field is wrong.
pub fn chat(mut object: Map<String, Value>, defaults: &Request, caps: TemplateCaps) -> Result<Call, Failure> {
    normalise_messages(&mut object, caps);
    let mut fields = Fields::new(object);
    let refused = |e: FieldError| Failure::usage(e.to_string());
    let mut telling = telling(&mut fields).map_err(refused)?;
    let with = fields.bool("logprobs").map_err(refused)?.unwrap_or(false);
    let top = fields.usize("top_logprobs").map_err(refused)?;
    if top.is_some() && !with {
        return Err(refused(FieldError::new("top_logprobs", "needs logprobs: true")));
    }
    telling.logprobs = with.then(|| top.unwrap_or(20));
    let reasoning = fields.string("reasoning_format").map_err(refused)?;
    telling.split.reasoning = match reasoning.as_deref() {
        None | Some("auto" | "deepseek") => true,
        Some("none") => false,
        Some(other) => {
            let problem = format!("must be \"auto\", \"deepseek\" or \"none\", not {other:?}");
            return Err(refused(FieldError::new("reasoning_format", problem)));
        }
    };
    let answers = answers(&mut fields).map_err(refused)?;
    let format = tools(&mut fields, &mut telling.split, caps).map_err(refused)?;
    telling.thinking_budget = kwargs(&mut fields).map_err(refused)?;
    telling.thinking_message = fields.string("reasoning_budget_message").map_err(refused)?.unwrap_or_default();
    telling.thinking_control = fields.bool("reasoning_control").map_err(refused)?.unwrap_or(false);
    if telling.thinking_control && answers > 1 {
        return Err(refused(FieldError::new("reasoning_control", "needs n = 1: it ends the thoughts of one answer")));
    }
    let mut call = finish(fields, telling, answers, defaults)?;
    let Input::Chat { messages, .. } = &call.request.input else {
        return Err(Failure::usage("messages: is missing"));
    };
    let trailing = messages.iter().rev().take_while(|m| m.role == crate::prompt::Role::Assistant).count();
    if trailing > 1 {
        return Err(Failure::usage("messages: cannot end with two or more assistant messages"));
    }
    if let Some(format) = format {
        if call.request.format.is_some() && call.request.format != defaults.format {
            let message = "tools: a format cannot be asked for beside tools that may be called; \
                give tool_choice \"none\", or leave one of the two";
            return Err(Failure::usage(message));
        }
        call.request.format = Some(format.source);
        call.request.after = format.trigger;
    }
    Ok(call)
}

fn finish(fields: Fields, telling: Telling, answers: usize, defaults: &Request) -> Result<Call, Failure> {
    let mut asked = parse_object(fields.into_inner(), defaults).map_err(|e| e.failure)?;
    if let Some(n) = telling.logprobs {
        asked.request.n_probs = asked.request.n_probs.max(n).max(1);
    }
    let mut telling = telling;
    telling.return_tokens = asked.return_tokens;
    if telling.logprobs.is_none() && asked.request.n_probs > 0 {
        telling.logprobs = Some(asked.request.n_probs);
    }
    Ok(Call { request: asked.request, telling, answers })
}

fn telling(f: &mut Fields) -> Result<Telling, FieldError> {
    let options = match f.take("stream_options") {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(expected("stream_options", "an object", &other)),
    };
    let mut options = Fields::new(options);
    if f.bool("post_sampling_probs")? == Some(true) {
        return Err(FieldError::new(
            "post_sampling_probs",
            "is not supported; probabilities are those before sampling",
        ));
    }
    let ping = match f.i64("sse_ping_interval")? {
        None => None,
        Some(n) if n > 0 => Some(Some(Duration::from_secs(n.unsigned_abs()))),
        Some(_) => Some(None),
    };
    Ok(Telling {
        stream: f.bool("stream")?.unwrap_or(false),
        include_usage: options.bool("include_usage")?.unwrap_or(false),
        timings_per_token: f.bool("timings_per_token")?.unwrap_or(false),
        return_progress: f.bool("return_progress")?.unwrap_or(false),
        response_fields: f.strings("response_fields")?.unwrap_or_default(),
        verbose: f.bool("verbose")?.unwrap_or(false),
        ping,
        ..Telling::default()
    })
}

fn answers(f: &mut Fields) -> Result<usize, FieldError> {
    match f.take_any(&["n", "n_cmpl"]) {
        None => Ok(1),
        Some((name, v)) => {
            let n = v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=MAX_ANSWERS).contains(n));
            n.ok_or_else(|| expected(name, &format!("a number from 1 to {MAX_ANSWERS}"), &v))
        }
    }
}

/// Variables of the template that have fields of their own; the most tokens of thoughts, where that is said.
fn kwargs(f: &mut Fields) -> Result<Option<usize>, FieldError> {
    let mut kwargs = match f.take("chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(expected("chat_template_kwargs", "an object", &other)),
    };
    let generation = f.bool("add_generation_prompt")?;
    match f.take("continue_final_message") {
        None | Some(Value::Bool(false)) => (),
        Some(_) if generation == Some(true) => {
            let problem = "cannot be true together with add_generation_prompt";
            return Err(FieldError::new("continue_final_message", problem));
        }
        // The last message is continued anyway when it is the assistant's.
        Some(Value::Bool(true)) => (),
        Some(Value::String(s)) if s == "content" => (),
        Some(other) => return Err(expected("continue_final_message", "true, false or \"content\"", &other)),
    }
    if let Some(on) = generation {
        kwargs.insert("add_generation_prompt".into(), on.into());
    }
    if let Some(effort) = f.string("reasoning_effort")? {
        if effort == "none" {
            kwargs.entry("enable_thinking").or_insert(false.into());
        } else {
            kwargs.entry("reasoning_effort").or_insert(effort.into());
        }
    }
    let mut budget = None;
    for name in ["reasoning_budget_tokens", "thinking_budget_tokens"] {
        match f.i64(name)? {
            Some(0) => drop(kwargs.entry("enable_thinking").or_insert(false.into())),
            Some(n) => budget = usize::try_from(n).ok(),
            None => (),
        }
    }
    f.put("chat_template_kwargs", kwargs.into());
    Ok(budget)
}

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`. The format that calls have, and when it begins to hold. Tools
/// that the template cannot show stand in a system message.
fn tools(f: &mut Fields, split: &mut Split, caps: TemplateCaps) -> Result<Option<ToolFormat>, FieldError> {
    let choice = f.take("tool_choice");
    let parallel = f.bool("parallel_tool_calls")?.unwrap_or(false);
    let tools = match f.take("tools") {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(expected("tools", "an array", &other)),
    };
    let named: Vec<Tool> = tools.iter().enumerate().map(|(i, tool)| declared(i, tool)).collect::<Result<_, _>>()?;
    let choice = match &choice {
        None => ToolChoice::Auto,
        Some(Value::String(s)) if s == "auto" => ToolChoice::Auto,
        Some(Value::String(s)) if s == "none" => return Ok(None),
        Some(Value::String(s)) if s == "required" && named.is_empty() => {
            return Err(FieldError::new("tool_choice", "\"required\" needs tools"));
        }
        Some(Value::String(s)) if s == "required" => ToolChoice::Required,
        Some(object @ Value::Object(_)) => {
            let name = object.pointer("/function/name").or_else(|| object.get("name")).and_then(Value::as_str);
            let name = name.ok_or_else(|| FieldError::new("tool_choice.function.name", "is missing"))?;
            if !named.iter().any(|tool| tool.name == name) {
                return Err(FieldError::new("tool_choice", format!("there is no tool '{name}' among the tools")));
            }
            ToolChoice::Named(name.to_string())
        }
        Some(other) => {
            let what = "\"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ..}}";
            return Err(expected("tool_choice", what, other));
        }
    };
    if named.is_empty() {
        return Ok(None);
    }
    // A template that shows tools in a way of its own which is not known here would have the model answer so, too.
    let shown = caps.envelope.filter(|_| caps.tools);
    let envelope = shown.unwrap_or(Envelope::Hermes);
    split.tools = named.iter().map(|tool| tool.name.clone()).collect();
    split.envelope = Some(envelope);
    match shown {
        Some(_) => f.put("tools", tools.into()),
        None => describe(f, &tools)?,
    }
    let parallel = parallel && envelope != Envelope::Llama3;
    let asked = ToolRequest { tools: named, envelope, choice, parallel, text_before: caps.opens_thoughts };
    asked.format().map_err(|e| FieldError::new("tools", e.to_string()))
}

/// A tool's name and the schema of its arguments.
fn declared(i: usize, tool: &Value) -> Result<Tool, FieldError> {
    let at = |name: &str| format!("tools[{i}].{name}");
    if tool.get("type").is_some_and(|t| t != "function") {
        return Err(expected(&at("type"), "\"function\"", &tool["type"]));
    }
    let function = tool.get("function").unwrap_or(tool);
    let name = function.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| FieldError::new(at("function.name"), "is missing"))?;
    let schema = match function.get("parameters") {
        None | Some(Value::Null) => json!({"type": "object"}),
        Some(Value::Object(map)) if map.is_empty() => json!({"type": "object"}),
        Some(schema @ Value::Object(_)) => schema.clone(),
        Some(other) => return Err(expected(&at("function.parameters"), "a JSON Schema object", other)),
    };
    Ok(Tool { name: name.to_string(), parameters: schema.to_string() })
}

/// Puts the tools into the system message, for a template that does not show them.
fn describe(f: &mut Fields, tools: &[Value]) -> Result<(), FieldError> {
    let lines: Vec<String> = tools.iter().map(|t| t.get("function").unwrap_or(t).to_string()).collect();
    let text = format!(
        "You may call these tools:\n{}\nTo call one, answer with nothing but \
         <tool_call>{{\"name\": NAME, \"arguments\": OBJECT}}</tool_call>.",
        lines.join("\n")
    );
    let messages = f.take("messages");
    let Some(Value::Array(mut messages)) = messages else {
        messages.into_iter().for_each(|m| f.put("messages", m));
        return Ok(());
    };
    match messages.first_mut().filter(|m| m.get("role").is_some_and(|r| r == "system")) {
        Some(system) if system["content"].is_string() => {
            let joined = format!("{}\n\n{text}", system["content"].as_str().unwrap_or_default());
            system["content"] = joined.into();
        }
        _ => messages.insert(0, json!({"role": "system", "content": text})),
    }
    f.put("messages", messages.into());
    Ok(())
}

/// Roles and arguments as templates know them: `developer` is `system`, arguments of past calls are objects where
/// the template wants them.
fn normalise_messages(object: &mut Map<String, Value>, caps: TemplateCaps) {
    let Some(Value::Array(messages)) = object.get_mut("messages") else { return };
    for message in messages {
        if message.get("role").is_some_and(|r| r == "developer") {
            message["role"] = "system".into();
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten().filter(|_| caps.object_arguments) {
            let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
            let object = arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
            if let Some(object) = object {
                *arguments = object.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::Source;

    fn read(body: Value, caps: TemplateCaps) -> Result<Call, Failure> {
        let Value::Object(object) = body else { panic!("an object") };
        chat(object, &Request::new(Input::Raw(String::new())), caps)
    }

    fn user() -> Value {
        json!([{"role": "user", "content": "hi"}])
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}})
    }

    #[test]
    fn calls_are_a_format_and_forced_ones_hold_at_once() {
        let named = json!({"type": "function", "function": {"name": "b"}});
        for envelope in [Envelope::Hermes, Envelope::Llama3, Envelope::Mistral] {
            let caps = TemplateCaps { tools: true, envelope: Some(envelope), ..TemplateCaps::default() };
            for (choice, called, free) in [
                (json!("required"), true, false),
                (named.clone(), true, false),
                (json!("auto"), true, true),
                (json!("none"), false, true),
            ] {
                let body = json!({"messages": user(), "tools": [tool("a"), tool("b")], "tool_choice": choice});
                let call = read(body, caps).expect("accepted");
                let format = matches!(call.request.format, Some(Source::ToolCalls(_)));
                assert_eq!((format, !call.telling.split.tools.is_empty()), (called, called), "{choice}");
                // A call that must begin at once may need no mark before it.
                let waits = call.request.after.is_some_and(|t| t.free && !t.must);
                assert_eq!(waits, called && free, "{choice} {envelope:?}");
            }
        }
    }

    #[test]
    fn tools_a_template_cannot_show_stand_in_the_system_message() {
        let body = json!({"messages": user(), "tools": [tool("a")]});
        let Input::Chat { messages, tools, .. } = read(body, TemplateCaps::default()).expect("read").request.input
        else {
            panic!("a chat")
        };
        assert!(tools.is_none() && messages[0].content.contains("\"name\":\"a\""), "{messages:?}");
    }

    #[test]
    fn bad_requests_name_their_field() {
        let table = [
            (json!({"messages": user(), "tool_choice": "required"}), "tool_choice: \"required\" needs tools"),
            (
                json!({"messages": user(), "tools": [tool("a")], "tool_choice": {"function": {"name": "x"}}}),
                "tool_choice: there is no tool 'x'",
            ),
            (json!({"messages": user(), "tools": [{"function": {}}]}), "tools[0].function.name: is missing"),
            (json!({"messages": user(), "top_logprobs": 3}), "top_logprobs: needs logprobs: true"),
            (json!({"messages": user(), "n": 0}), "n: must be a number from 1 to 16"),
            (json!({"messages": user(), "reasoning_format": "x"}), "reasoning_format: must be"),
            (
                json!({"messages": user(), "add_generation_prompt": true, "continue_final_message": true}),
                "continue_final_message: cannot be true together",
            ),
            (json!({"messages": null}), "prompt: is missing"),
            (json!({"prompt": "x"}), "messages: is missing"),
            (json!({"messages": []}), ""),
            (
                json!({"messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]}),
                "messages: cannot end with two",
            ),
            (
                json!({"messages": user(), "tools": [tool("a")], "tool_choice": "required", "json_schema": {}}),
                "tools: a format cannot",
            ),
            (json!({"messages": user(), "tools": [tool("a")], "json_schema": {}}), "tools: a format cannot"),
            (json!({"messages": user(), "tools": [tool("a"), tool("a")]}), "tools: "),
        ];
        for (body, expected) in table {
            match read(body.clone(), TemplateCaps::default()) {
                Err(e) => assert!(e.message.starts_with(expected), "{body}: {}", e.message),
                Ok(_) => assert!(expected.is_empty(), "{body} was accepted"),
            }
        }
    }
}
