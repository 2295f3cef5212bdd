//! One JSON line to one request.

use std::time::Duration;

use serde_json::{Map, Value};

use super::fields::{FieldError, Fields, expected};
use crate::error::Failure;
use crate::grammar::{KeyOrder, SchemaMode, Source};
use crate::prompt::{Message, Role};
use crate::request::{AdapterChoice, Input, Request, Routing};
use crate::sampling::{BiasTarget, LogitBias, Mirostat, SamplerKind, Sampling};
use crate::scheduler::draft::{Drafting, Ways};
use crate::scheduler::{JobLimits, Shift};

/// A parsed line.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The line's own `id`, given back unchanged; null when it had none.
    pub id: Value,
    /// The request.
    pub request: Request,
    /// Whether the result lists token ids.
    pub return_tokens: bool,
}

/// A refused line. Keeps the `id` where one could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct LineError {
    /// The line's `id`, or null.
    pub id: Value,
    /// What is wrong.
    pub failure: Failure,
}

/// Parses a line. Fields it does not have come from `defaults`; fields we do not know are ignored, as llama-server
/// does, but fields we know and cannot honour are errors.
///
/// # Errors
/// It is no JSON object, or a field is wrong; the message names the field.
pub fn parse(line: &str, defaults: &Request) -> Result<Asked, LineError> {
    let bad = |id: Value, message: String| LineError { id, failure: Failure::usage(message) };
    let value: Value = serde_json::from_str(line).map_err(|e| bad(Value::Null, format!("not valid JSON: {e}")))?;
    let Value::Object(object) = value else {
        return Err(bad(Value::Null, "a line must hold a JSON object".into()));
    };
    parse_object(object, defaults)
}

/// As [`parse`], of an object that has been read already.
///
/// # Errors
/// A field is wrong.
pub fn parse_object(object: Map<String, Value>, defaults: &Request) -> Result<Asked, LineError> {
    let bad = |id: Value, message: String| LineError { id, failure: Failure::usage(message) };
    let id = object.get("id").cloned().unwrap_or(Value::Null);
    let mut fields = Fields::new(object);
    let mut request = defaults.clone();
    let return_tokens = read(&mut fields, &mut request).map_err(|e| bad(id.clone(), e.to_string()))?;
    Ok(Asked { id, request, return_tokens })
}

fn read(f: &mut Fields, request: &mut Request) -> Result<bool, FieldError> {
    read_input(f, request)?;
    read_adapters(f, request)?;
    read_format(f, request)?;
    read_sampling(f, &mut request.sampling)?;
    read_limits(f, &mut request.limits)?;
    read_drafts(f, &mut request.drafts)?;
    if let Some(v) = f.bool("cache_prompt")? {
        request.cache_prompt = v;
    }
    if let Some(n) = f.usize("n_probs")? {
        request.n_probs = n;
    }
    for (name, harmless) in [("n", 1), ("n_cmpl", 1)] {
        if f.i64(name)?.is_some_and(|n| n != harmless) {
            return Err(FieldError::new(
                name,
                "several answers per line are not supported; send the line several times",
            ));
        }
    }
    Ok(f.bool("return_tokens")?.unwrap_or(false))
}

fn read_input(f: &mut Fields, request: &mut Request) -> Result<(), FieldError> {
    let chat = f.bool("chat")?;
    let system = f.string("system")?;
    let tools = f.take("tools");
    let kwargs = match f.take("chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(expected("chat_template_kwargs", "an object", &other)),
    };
    request.input = match (f.take("messages"), f.take("prompt")) {
        (Some(_), Some(_)) => return Err(FieldError::new("messages", "give either messages or prompt, not both")),
        (None, None) => return Err(FieldError::new("prompt", "is missing; give prompt or messages")),
        (Some(Value::Array(items)), None) => {
            let messages = items.iter().enumerate().map(|(i, m)| message(i, m)).collect::<Result<Vec<_>, _>>()?;
            Input::Chat { messages: with_system(system, messages), tools, kwargs }
        }
        (Some(other), None) => return Err(expected("messages", "an array of messages", &other)),
        (None, Some(Value::String(text))) if chat == Some(true) => {
            Input::Chat { messages: with_system(system, vec![Message::new(Role::User, text)]), tools, kwargs }
        }
        (None, Some(Value::String(text))) => Input::Raw(text),
        (None, Some(Value::Array(items))) => {
            let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
            let ids = items.iter().map(|v| id(v).ok_or_else(|| expected("prompt", "a text or token ids", v)));
            Input::Tokens(ids.collect::<Result<Vec<_>, _>>()?)
        }
        (None, Some(other)) => return Err(expected("prompt", "a text or an array of token ids", &other)),
    };
    Ok(())
}

fn with_system(system: Option<String>, mut messages: Vec<Message>) -> Vec<Message> {
    if let Some(text) = system {
        messages.insert(0, Message::new(Role::System, text));
    }
    messages
}

fn message(index: usize, value: &Value) -> Result<Message, FieldError> {
    let at = |name: &str| format!("messages[{index}].{name}");
    let Value::Object(object) = value else {
        return Err(expected(&format!("messages[{index}]"), "an object", value));
    };
    let role = match object.get("role") {
        Some(Value::String(name)) => name.parse::<Role>().map_err(|e| FieldError::new(at("role"), e.to_string()))?,
        other => return Err(expected(&at("role"), "a string", other.unwrap_or(&Value::Null))),
    };
    let content = match object.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => text_parts(parts, &at("content"))?,
        None | Some(Value::Null) if object.contains_key("tool_calls") => String::new(),
        other => return Err(expected(&at("content"), "a text", other.unwrap_or(&Value::Null))),
    };
    let extras = object.iter().filter(|(k, _)| *k != "role" && *k != "content");
    Ok(Message { role, content, extras: extras.map(|(k, v)| (k.clone(), v.clone())).collect() })
}

fn text_parts(parts: &[Value], field: &str) -> Result<String, FieldError> {
    let text = |part: &Value| {
        let is_text = part.get("type").is_none_or(|t| t == "text");
        let text = part.get("text").and_then(Value::as_str).filter(|_| is_text);
        text.map(String::from).ok_or_else(|| expected(field, "text parts only", part))
    };
    Ok(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n\n"))
}

fn read_adapters(f: &mut Fields, request: &mut Request) -> Result<(), FieldError> {
    let adapters = f.take("adapters");
    let lora = f.take("lora");
    read_routing(f, &adapters, lora.is_some(), request)?;
    if adapters.is_none() && lora.is_none() {
        return Ok(());
    }
    // A line that names adapters in either way names all of its own.
    request.adapters = match adapters {
        None => Vec::new(),
        Some(Value::String(s)) if s == "none" => Vec::new(),
        Some(Value::String(s)) if s == "auto" => Vec::new(),
        Some(Value::Array(items)) => choices("adapters", "name", items, AdapterChoice::named)?,
        Some(other) => return Err(expected("adapters", "\"auto\", \"none\" or an array of {name, scale}", &other)),
    };
    match lora {
        None => Ok(()),
        Some(Value::Array(items)) => {
            request.adapters.extend(choices("lora", "path", items, AdapterChoice::file)?);
            Ok(())
        }
        Some(other) => Err(expected("lora", "an array of {path, scale}", &other)),
    }
}

/// `adapters: "auto"` with `metadata` (texts, numbers, true and false, or arrays of them) and `route`
/// (`strategy`, `top_k`, `threshold`). A line that names adapters is not routed, whatever the defaults are.
fn read_routing(
    f: &mut Fields,
    adapters: &Option<Value>,
    files: bool,
    request: &mut Request,
) -> Result<(), FieldError> {
    match adapters {
        Some(Value::String(s)) if s == "auto" => request.route = Some(request.route.take().unwrap_or_default()),
        Some(_) => request.route = None,
        None if files => request.route = None,
        None => {}
    }
    let Some(routing) = &mut request.route else { return Ok(()) };
    match f.take("metadata") {
        None => {}
        Some(value) => routing.metadata = metadata(&value)?,
    }
    let mut how = match f.take("route") {
        None => return Ok(()),
        Some(Value::Object(object)) => Fields::new(object),
        Some(other) => return Err(expected("route", "an object {strategy, top_k, threshold}", &other)),
    };
    let nested = |e: FieldError| FieldError::new(format!("route.{}", e.field), e.problem);
    *routing = Routing {
        strategy: match how.string("strategy").map_err(nested)? {
            Some(name) => Some(name.parse().map_err(|e| FieldError::new("route.strategy", format!("{e}")))?),
            None => routing.strategy,
        },
        top_k: how.usize("top_k").map_err(nested)?.or(routing.top_k),
        threshold: how.f32("threshold").map_err(nested)?.or(routing.threshold),
        metadata: std::mem::take(&mut routing.metadata),
    };
    routing.validate().map_err(|e| FieldError::new("route", e.to_string()))
}

/// Reads `metadata`.
///
/// # Errors
/// It is no object of texts, numbers, true and false, or lists of them.
pub fn metadata(value: &Value) -> Result<Vec<(String, String)>, FieldError> {
    let object = value.as_object().ok_or_else(|| expected("metadata", "an object", value))?;
    let mut pairs = Vec::new();
    for (key, value) in object {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                other => return Err(expected(&format!("metadata.{key}"), "a text, a number or a list of them", other)),
            };
            pairs.push((key.clone(), text));
        }
    }
    Ok(pairs)
}

/// Entries of `field`: a text, or an object with `key` and an optional `scale`.
fn choices(
    field: &str,
    key: &str,
    items: Vec<Value>,
    make: impl Fn(String, f32) -> AdapterChoice,
) -> Result<Vec<AdapterChoice>, FieldError> {
    let one = |(i, item): (usize, Value)| {
        let object = match item {
            Value::String(text) => return Ok(make(text, 1.0)),
            Value::Object(object) => object,
            other => return Err(expected(&format!("{field}[{i}]"), &format!("an object {{{key}, scale}}"), &other)),
        };
        let mut entry = Fields::new(object);
        let nested = |e: FieldError| FieldError::new(format!("{field}[{i}].{}", e.field), e.problem);
        if entry.take("id").is_some() {
            return Err(FieldError::new(
                format!("{field}[{i}].id"),
                format!("adapters have no number here; use {key}"),
            ));
        }
        let text = entry.string(key).map_err(nested)?;
        let text = text.ok_or_else(|| FieldError::new(format!("{field}[{i}].{key}"), "is missing"))?;
        let scale = entry.f32("scale").map_err(nested)?.unwrap_or(1.0);
        Ok(make(text, scale))
    };
    items.into_iter().enumerate().map(one).collect()
}

fn read_format(f: &mut Fields, request: &mut Request) -> Result<(), FieldError> {
    let mut found: Vec<(&str, Source)> = Vec::new();
    if let Some(text) = f.string("grammar")?.filter(|t| !t.is_empty()) {
        found.push(("grammar", Source::Gbnf(text)));
    }
    for name in ["grammar_name", "format"] {
        match f.take(name) {
            None => {}
            Some(Value::String(text)) => found.push((name, Source::Named(text))),
            // A format with parameters: {"name": ..., "params": {...}}.
            Some(object @ Value::Object(_)) => found.push((name, Source::Named(object.to_string()))),
            Some(other) => {
                return Err(FieldError::expected(name, "a format's name, or an object with its name", &other));
            }
        }
    }
    if let Some(schema) = f.take("json_schema") {
        found.push(("json_schema", Source::JsonSchema(schema.to_string())));
    }
    if let Some(text) = f.string("regex")? {
        found.push(("regex", Source::Regex(text)));
    }
    if let Some(format) = f.take("response_format") {
        found.extend(response_format(&format)?.map(|s| ("response_format", s)));
    }
    if f.bool("grammar_lazy")? == Some(true) {
        return Err(FieldError::new("grammar_lazy", "is not supported; a format is enforced from the first token"));
    }
    match found.len() {
        0 => (),
        1 => request.format = found.pop().map(|(_, source)| source),
        _ => return Err(FieldError::new(found[1].0, format!("give one format, not also {}", found[0].0))),
    }
    schema_options(f, request)
}

/// How a JSON Schema is enforced: `json_schema_mode` and `json_schema_key_order`.
fn schema_options(f: &mut Fields, request: &mut Request) -> Result<(), FieldError> {
    const MODE: &str = "json_schema_mode";
    const ORDER: &str = "json_schema_key_order";
    let mode = match f.string(MODE)?.as_deref() {
        None => None,
        Some("strict") => Some(SchemaMode::Strict),
        Some("check") => Some(SchemaMode::Check),
        Some(other) => {
            return Err(FieldError::new(MODE, format!("must be \"strict\" or \"check\", not {other:?}")));
        }
    };
    let order = match f.string(ORDER)?.as_deref() {
        None => None,
        Some("any") => Some(KeyOrder::Any),
        Some("schema") => Some(KeyOrder::Schema),
        Some(other) => {
            return Err(FieldError::new(ORDER, format!("must be \"any\" or \"schema\", not {other:?}")));
        }
    };
    if mode.is_none() && order.is_none() {
        return Ok(());
    }
    let field = if mode.is_some() { MODE } else { ORDER };
    let format = request.format.take().and_then(|source| source.with_schema_options(mode, order));
    request.format = Some(format.ok_or_else(|| FieldError::new(field, "needs a JSON Schema"))?);
    Ok(())
}

/// OpenAI's `response_format`, in the nested and the flat spelling.
fn response_format(format: &Value) -> Result<Option<Source>, FieldError> {
    let schema = |v: Option<&Value>| v.map(|s| Source::JsonSchema(s.to_string()));
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => {
            Ok(schema(format.get("schema")).or_else(|| Some(Source::JsonSchema("{\"type\":\"object\"}".into()))))
        }
        Some("json_schema") => {
            let nested = format.get("json_schema").and_then(|j| j.get("schema"));
            let found = schema(nested.or_else(|| format.get("schema")));
            found.map(Some).ok_or_else(|| FieldError::new("response_format.json_schema.schema", "is missing"))
        }
        _ => Err(expected("response_format.type", "\"text\", \"json_object\" or \"json_schema\"", format)),
    }
}

fn read_sampling(f: &mut Fields, s: &mut Sampling) -> Result<(), FieldError> {
    if let Some(seed) = f.i64("seed")? {
        s.seed = match seed {
            -1 | 0xFFFF_FFFF => None,
            n => Some(
                u32::try_from(n).map_err(|_| FieldError::new("seed", format!("must be -1 to 4294967295, not {n}")))?,
            ),
        };
    }
    let floats: [(&str, &mut f32); 18] = [
        ("temperature", &mut s.temperature),
        ("dynatemp_range", &mut s.dynatemp_range),
        ("dynatemp_exponent", &mut s.dynatemp_exponent),
        ("top_p", &mut s.top_p),
        ("min_p", &mut s.min_p),
        ("typical_p", &mut s.typical_p),
        ("top_n_sigma", &mut s.top_n_sigma),
        ("xtc_probability", &mut s.xtc_probability),
        ("xtc_threshold", &mut s.xtc_threshold),
        ("repeat_penalty", &mut s.repeat_penalty),
        ("frequency_penalty", &mut s.frequency_penalty),
        ("presence_penalty", &mut s.presence_penalty),
        ("dry_multiplier", &mut s.dry_multiplier),
        ("dry_base", &mut s.dry_base),
        ("mirostat_tau", &mut s.mirostat_tau),
        ("mirostat_eta", &mut s.mirostat_eta),
        ("adaptive_target", &mut s.adaptive_target),
        ("adaptive_decay", &mut s.adaptive_decay),
    ];
    for (name, place) in floats {
        if let Some(v) = f.f32(name)? {
            *place = v;
        }
    }
    let ints: [(&str, &mut i32); 4] = [
        ("top_k", &mut s.top_k),
        ("repeat_last_n", &mut s.repeat_last_n),
        ("dry_allowed_length", &mut s.dry_allowed_length),
        ("dry_penalty_last_n", &mut s.dry_penalty_last_n),
    ];
    for (name, place) in ints {
        if let Some(v) = f.i32(name)? {
            *place = v;
        }
    }
    if let Some(n) = f.usize("min_keep")? {
        s.min_keep = n;
    }
    if let Some(v) = f.strings("dry_sequence_breakers")? {
        s.dry_sequence_breakers = v;
    }
    if let Some(v) = f.bool("ignore_eos")? {
        s.ignore_eos = v;
    }
    if let Some(v) = f.i64("mirostat")? {
        s.mirostat = match v {
            0 => Mirostat::Off,
            1 => Mirostat::V1,
            2 => Mirostat::V2,
            other => return Err(FieldError::new("mirostat", format!("must be 0, 1 or 2, not {other}"))),
        };
    }
    if let Some(v) = f.take("samplers") {
        s.order = sampler_order(&v)?;
    }
    if let Some(v) = f.take("logit_bias") {
        s.logit_bias = logit_bias(&v)?;
    }
    Ok(())
}

fn sampler_order(v: &Value) -> Result<Vec<SamplerKind>, FieldError> {
    let unknown = |what: &str| {
        let known: Vec<&str> = SamplerKind::DEFAULT_ORDER.iter().map(|k| k.name()).collect();
        FieldError::new("samplers", format!("unknown sampler '{what}'; known are {}", known.join(", ")))
    };
    match v {
        Value::String(letters) => {
            letters.chars().map(|c| SamplerKind::by_letter(c).ok_or_else(|| unknown(&c.to_string()))).collect()
        }
        Value::Array(names) => names
            .iter()
            .map(|n| {
                let name = n.as_str().ok_or_else(|| expected("samplers", "names", n))?;
                SamplerKind::by_name(name).ok_or_else(|| unknown(name))
            })
            .collect(),
        other => Err(expected("samplers", "an array of names or a string of letters", other)),
    }
}

/// `[[token or text, bias or false], ...]` or `{"token or text": bias or false, ...}`.
fn logit_bias(v: &Value) -> Result<Vec<LogitBias>, FieldError> {
    let bias = |v: &Value| match v {
        Value::Bool(false) => Ok(f32::NEG_INFINITY),
        other => other.as_f64().map(|n| n as f32).ok_or_else(|| expected("logit_bias", "a number or false", other)),
    };
    let target = |v: &Value| match v {
        Value::String(text) => Ok(BiasTarget::Text(text.clone())),
        other => other
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .map(BiasTarget::Token)
            .ok_or_else(|| expected("logit_bias", "a token id or a text", other)),
    };
    let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([t, b]) => Ok(LogitBias { target: target(t)?, bias: bias(b)? }),
        _ => Err(expected("logit_bias", "pairs [token, bias]", pair)),
    };
    match v {
        Value::Array(items) => items.iter().map(pair).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, b)| {
                let target = key.parse().map_or_else(|_| BiasTarget::Text(key.clone()), BiasTarget::Token);
                Ok(LogitBias { target, bias: bias(b)? })
            })
            .collect(),
        other => Err(expected("logit_bias", "an array of pairs or an object", other)),
    }
}

/// Names as llama-server had them; the version that flags are those of reads none of them. A type can only be switched off.
fn read_drafts(f: &mut Fields, drafts: &mut Drafting) -> Result<(), FieldError> {
    if let Some(n) = f.usize("speculative.n_max")? {
        drafts.most = Some(n);
    }
    if let Some(n) = f.usize("speculative.n_min")? {
        drafts.least = n;
    }
    for name in ["speculative.type", "speculative.types"] {
        match f.string(name)?.as_deref() {
            None => (),
            Some("none") => drafts.ways = Ways::default(),
            Some(types) if types == drafts.ways.names() => (),
            Some(other) => {
                let ways = drafts.ways.names();
                let problem =
                    format!("{other}: drafts come as they were asked for at the start ({ways}), or not: none");
                return Err(FieldError::new(name, problem));
            }
        }
    }
    Ok(())
}

fn read_limits(f: &mut Fields, limits: &mut JobLimits) -> Result<(), FieldError> {
    if let Some((name, v)) = f.take_any(&["n_predict", "max_tokens", "max_completion_tokens"]) {
        limits.max_tokens = match v.as_i64() {
            Some(-1) => None,
            Some(n) if n >= 0 => usize::try_from(n).ok(),
            _ => return Err(expected(name, "a whole number of -1 or more", &v)),
        };
    }
    if let Some(stop) = f.strings("stop")? {
        limits.stop = stop;
    }
    if let Some(ms) = f.i64("t_max_predict_ms")?
        && ms > 0
    {
        limits.max_time = Some(Duration::from_millis(ms.unsigned_abs()));
    }
    if let Some(on) = f.bool("context_shift")? {
        limits.shift = on.then(|| limits.shift.unwrap_or_default());
    }
    let keep = f.i64("n_keep")?;
    let discard = f.usize("n_discard")?;
    if let Some(shift) = &mut limits.shift {
        *shift = Shift {
            // -1 keeps the whole prompt, as in llama.cpp.
            keep: keep.map_or(shift.keep, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            discard: discard.filter(|n| *n > 0).or(shift.discard),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn defaults() -> Request {
        Request::new(Input::Raw(String::new()))
    }

    fn asked(line: &str) -> Asked {
        parse(line, &defaults()).unwrap_or_else(|e| panic!("{line}: {}", e.failure))
    }

    #[test]
    fn llama_server_fields_are_understood() {
        let a = asked(
            r#"{"id": 7, "prompt": "x", "n_predict": 5, "temperature": 0, "top_k": 3.0, "stop": "END", "seed": 42,
                "logit_bias": {"5": false, "no": -1.5}, "samplers": "kt", "lora": [{"path": "a.gguf", "scale": 0.5}],
                "json_schema": {"type": "object"}, "unknown_field": 1, "min_p": null, "return_tokens": true}"#,
        );
        assert_eq!(a.id, 7);
        assert!(a.return_tokens);
        let r = a.request;
        assert_eq!(r.input, Input::Raw("x".into()));
        assert_eq!((r.limits.max_tokens, r.limits.stop), (Some(5), vec!["END".to_string()]));
        assert_eq!((r.sampling.temperature, r.sampling.top_k, r.sampling.seed), (0.0, 3, Some(42)));
        assert_eq!(r.sampling.min_p, 0.05, "null is the default");
        assert_eq!(r.sampling.order, [SamplerKind::TopK, SamplerKind::Temperature]);
        assert_eq!(r.sampling.logit_bias.len(), 2);
        assert_eq!(r.adapters, [AdapterChoice::file("a.gguf", 0.5)]);
        assert_eq!(r.format, Some(Source::JsonSchema(r#"{"type":"object"}"#.into())));
    }

    #[test]
    fn messages_and_chat_prompts_go_through_the_template() {
        let a = asked(
            r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}"#,
        );
        assert_eq!(a.request.input, Input::chat(vec![Message::new(Role::User, "a\n\nb")]));
        let a = asked(r#"{"prompt": "hi", "chat": true, "system": "be brief"}"#);
        let expected = vec![Message::new(Role::System, "be brief"), Message::new(Role::User, "hi")];
        assert_eq!(a.request.input, Input::chat(expected));
        assert_eq!(asked(r#"{"prompt": [1, 2]}"#).request.input, Input::Tokens(vec![1, 2]));
    }

    #[test]
    fn defaults_hold_where_a_line_is_silent() {
        let mut d = defaults();
        d.limits.max_tokens = Some(9);
        d.format = Some(Source::Named("json".into()));
        d.sampling.temperature = 0.1;
        let r = parse(r#"{"prompt": "x"}"#, &d).expect("parsed").request;
        assert_eq!((r.limits.max_tokens, r.format, r.sampling.temperature), (Some(9), d.format.clone(), 0.1));
    }

    #[test]
    fn a_line_bounds_its_drafts_or_does_without() {
        let mut d = defaults();
        d.drafts.ways.simple = Some(Default::default());
        let drafts = |line: &str| parse(line, &d).expect("parsed").request.drafts;
        assert_eq!(drafts(r#"{"prompt": "x", "speculative.types": "ngram-simple"}"#), d.drafts);
        let bounded = drafts(r#"{"prompt": "x", "speculative.n_max": 3, "speculative.n_min": 2}"#);
        assert_eq!(bounded, Drafting { most: Some(3), least: 2, ..d.drafts });
        assert!(drafts(r#"{"prompt": "x", "speculative.types": "none"}"#).ways.is_none());
    }

    #[test]
    fn bad_lines_name_the_field_and_keep_their_id() {
        let table = [
            ("{", "not valid JSON"),
            ("[1]", "a line must hold a JSON object"),
            (r#"{"id": 1}"#, "prompt: is missing"),
            (r#"{"id": 1, "prompt": 5}"#, "prompt: must be a text or an array of token ids, not 5"),
            (r#"{"id": 1, "prompt": [1, -2]}"#, "prompt: must be a text or token ids, not -2"),
            (r#"{"id": 1, "prompt": "x", "messages": []}"#, "messages: give either"),
            (r#"{"id": 1, "messages": "x"}"#, "messages: must be an array"),
            (r#"{"id": 1, "messages": [{"role": "root", "content": "x"}]}"#, "messages[0].role: role \"root\""),
            (r#"{"id": 1, "messages": [{"role": "user", "content": null}]}"#, "messages[0].content: must be a text"),
            (r#"{"id": 1, "prompt": "x", "temperature": "hot"}"#, "temperature: must be a number, not \"hot\""),
            (r#"{"id": 1, "prompt": "x", "top_k": 1.5}"#, "top_k: must be a whole number"),
            (r#"{"id": 1, "prompt": "x", "top_k": 1099511627776}"#, "top_k: must be a whole number of 32 bits"),
            (r#"{"id": 1, "prompt": "x", "n_predict": -5}"#, "n_predict: must be a whole number of -1 or more"),
            (r#"{"id": 1, "prompt": "x", "stop": [1]}"#, "stop: must be a string or an array"),
            (
                r#"{"id": 1, "prompt": "x", "grammar": "root ::= \"a\"", "json_schema": {}}"#,
                "json_schema: give one format",
            ),
            (r#"{"id": 1, "prompt": "x", "lora": [{"id": 0}]}"#, "lora[0].id: adapters have no number"),
            (r#"{"id": 1, "prompt": "x", "lora": [{"scale": 1}]}"#, "lora[0].path: is missing"),
            (r#"{"id": 1, "prompt": "x", "adapters": "some"}"#, "adapters: must be"),
            (r#"{"id": 1, "prompt": "x", "samplers": ["top_q"]}"#, "samplers: unknown sampler 'top_q'"),
            (r#"{"id": 1, "prompt": "x", "n": 2}"#, "n: several answers"),
            (r#"{"id": 1, "prompt": "x", "speculative.n_max": -1}"#, "speculative.n_max: must be"),
            (
                r#"{"id": 1, "prompt": "x", "speculative.type": "ngram-mod"}"#,
                "speculative.type: ngram-mod: drafts come",
            ),
            (r#"{"id": 1, "prompt": "x", "response_format": {"type": "sound"}}"#, "response_format.type: must be"),
        ];
        for (line, expected) in table {
            let e = parse(line, &defaults()).expect_err(line);
            assert!(
                e.failure.message.starts_with(expected),
                "{line}: {:?} should start with {expected:?}",
                e.failure.message
            );
            assert_eq!(e.failure.code, Code::Usage);
            assert_eq!(e.id, if line.contains("id\": 1") { Value::from(1) } else { Value::Null }, "{line}");
        }
        let deep = format!("{{\"prompt\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(parse(&deep, &defaults()).is_err(), "depth is bounded");
    }
}
