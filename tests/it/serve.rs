//! The server through its socket: every group of routes, streams, adapters, keys, and how it starts and stops.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Server, read_reply};
use crate::support::{App, model, random_lora};

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// A small greedy chat request.
fn chat(text: &str, more: &Value) -> Value {
    let mut body = json!({"messages": user(text), "max_tokens": 12, "temperature": 0});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

fn said(body: &Value) -> String {
    body["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_string()
}

#[test]
fn native_routes_speak_as_llama_server_does() {
    let app = App::new();
    let s = app.serve(&["--metrics", "-np", "2", "--alias", "tiny,other", "--seed", "42"]);
    assert_eq!(s.get("/health").ok(), json!({"status": "ok"}));
    assert_eq!(s.get("/v1/health").status, 200);

    let props = s.get("/props").ok();
    assert_eq!((&props["total_slots"], &props["model_alias"]), (&json!(2), &json!("tiny")));
    assert!(props["model_path"].as_str().is_some_and(|p| p.ends_with(".gguf")), "{props}");
    assert_eq!(props["default_generation_settings"]["params"]["seed"], 42);
    let models = s.get("/v1/models").ok();
    assert_eq!((models["data"][0]["id"].as_str(), models["data"].as_array().map(Vec::len)), (Some("tiny"), Some(1)));
    assert_eq!(s.get("/v1/models/tiny").ok()["object"], "model");
    assert_eq!(s.get("/slots").ok().as_array().map(Vec::len), Some(2));

    let text = "What is the capital of France ?";
    let tokens = s.post("/tokenize", &json!({"content": text})).ok()["tokens"].clone();
    assert!(tokens.as_array().is_some_and(|t| t.len() > 5));
    assert_eq!(s.post("/detokenize", &json!({"tokens": tokens})).ok()["content"], text);
    let pieces = s.post("/tokenize", &json!({"content": "日本 🦙 a", "with_pieces": true})).ok();
    let bytes: Vec<u8> = pieces["tokens"]
        .as_array()
        .expect("tokens")
        .iter()
        .flat_map(|t| match &t["piece"] {
            Value::String(text) => text.as_bytes().to_vec(),
            list => serde_json::from_value(list.clone()).expect("bytes"),
        })
        .collect();
    assert_eq!(String::from_utf8(bytes).as_deref(), Ok("日本 🦙 a"));
    let prompt = s.post("/apply-template", &json!({"messages": user("What is today?")})).ok();
    assert!(
        prompt["prompt"].as_str().is_some_and(|p| p.contains("What is today?") && p.ends_with("assistant\n")),
        "{prompt}"
    );

    let ask = json!({"prompt": "Once upon a time", "n_predict": 6, "temperature": 0, "return_tokens": true});
    let whole = s.post("/completion", &ask).ok();
    assert_eq!(
        (&whole["stop"], &whole["stop_type"], &whole["tokens_predicted"]),
        (&json!(true), &json!("limit"), &json!(6))
    );
    assert_eq!(whole["tokens"].as_array().map(Vec::len), Some(6));
    assert_eq!(whole["generation_settings"]["n_predict"], 6);
    let mut streamed = ask.clone();
    streamed["stream"] = true.into();
    let (events, done) = s.post("/completion", &streamed).events();
    assert!(!done, "llama-server's own stream has no end mark");
    let joined: String = events.iter().filter_map(|e| e["content"].as_str()).collect();
    assert_eq!(joined, whole["content"].as_str().expect("text"));
    assert_eq!(events.last().map(|e| &e["stop"]), Some(&json!(true)));
    let several =
        s.post("/completion", &json!({"prompt": [tokens, "Once upon a time"], "n_predict": 6, "temperature": 0})).ok();
    assert_eq!((several.as_array().map(Vec::len), &several[1]["content"]), (Some(2), &whole["content"]));
    let fields =
        json!({"prompt": "a", "n_predict": 1, "response_fields": ["content", "generation_settings/n_predict"]});
    assert_eq!(s.post("/completion", &fields).ok().as_object().map(serde_json::Map::len), Some(2));
    let probs = s.post("/completion", &json!({"prompt": "a", "n_predict": 3, "n_probs": 4})).ok();
    let first = &probs["completion_probabilities"][0];
    assert_eq!(
        (probs["completion_probabilities"].as_array().map(Vec::len), first["top_logprobs"].as_array().map(Vec::len)),
        (Some(3), Some(4))
    );
    assert!(first["logprob"].as_f64().is_some_and(|p| p <= 0.0));

    let metrics = s.get("/metrics");
    assert!(
        metrics.text().contains("\nllamacpp:tokens_predicted_total ")
            && metrics.text().contains("\nsmoa_adapters_mixed 1\n")
            && metrics.text().contains("\nsmoa_ram_prefixes ")
            && metrics.head.contains("process-start-time-unix")
    );
    for path in ["/embeddings", "/v1/embeddings", "/rerank", "/infill"] {
        let reply = s.post(path, &json!({"input": "x", "input_prefix": "a", "input_suffix": "b"}));
        assert_eq!(
            (reply.status, reply.json()["error"]["type"].as_str()),
            (501, Some("not_supported_error")),
            "{path}"
        );
    }
    let page = s.get("/");
    assert!(page.status == 200 && page.text().starts_with("<!doctype html>"));
}

#[test]
fn openai_answers_whole_and_streamed_are_the_same() {
    let app = App::new();
    let s = app.serve(&["-np", "4"]);
    let whole = s.post("/v1/chat/completions", &chat("Name a colour.", &json!({}))).ok();
    assert!(whole["id"].as_str().is_some_and(|i| i.starts_with("chatcmpl-")), "{whole}");
    assert!(whole["system_fingerprint"].as_str().is_some_and(|f| f.starts_with('b')));
    let u = &whole["usage"];
    assert_eq!(
        u["total_tokens"].as_u64(),
        Some(u["prompt_tokens"].as_u64().unwrap_or(0) + u["completion_tokens"].as_u64().unwrap_or(0))
    );
    assert!(whole["timings"]["predicted_n"].as_u64().is_some_and(|n| n <= 12));

    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let (events, done) = s.post("/v1/chat/completions", &chat("Name a colour.", &more)).events();
    assert!(done);
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": null}));
    let joined: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(joined, said(&whole));
    let last = events.last().expect("events");
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &u["completion_tokens"]));
    assert!(events.iter().all(|e| e["id"] == events[0]["id"]));

    // Alone and without a cached prefix, so that the logits are the same to the last bit.
    let hot = |n: u32| chat("Say something.", &json!({"n": n, "temperature": 1, "seed": 5, "cache_prompt": false}));
    let two = s.post("/v1/chat/completions", &hot(2)).ok();
    assert_eq!(two["choices"].as_array().map(Vec::len), Some(2));
    assert_ne!(two["choices"][0]["message"], two["choices"][1]["message"], "seeds count up");
    let [one, again] = [(); 2].map(|()| s.post("/v1/chat/completions", &hot(1)).ok());
    assert_eq!(one["choices"], again["choices"], "the same seed, the same answer");
    let logs = s.post("/v1/chat/completions", &chat("Hi", &json!({"logprobs": true, "top_logprobs": 3}))).ok();
    let content = logs["choices"][0]["logprobs"]["content"].as_array().expect("logprobs").clone();
    let tokens: String = content.iter().filter_map(|c| c["token"].as_str()).collect();
    assert!(tokens.starts_with(said(&logs).as_str()), "{tokens:?} {logs}");

    let text =
        s.post("/v1/completions", &json!({"prompt": ["One two", "Red green"], "max_tokens": 4, "temperature": 0})).ok();
    assert_eq!((text["object"].as_str(), text["choices"].as_array().map(Vec::len)), (Some("text_completion"), Some(2)));
    let stopped = s
        .post("/v1/completions", &json!({"prompt": "1, 2, 3, 4,", "max_tokens": 30, "temperature": 0, "stop": [" 7"]}))
        .ok();
    let choice = &stopped["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert!(choice["text"].as_str().is_some_and(|t| !t.contains(" 7") && t.contains('6')), "{choice}");
    // An answer that is begun is continued.
    let prefill = json!({"max_tokens": 3, "temperature": 0, "messages": [{"role": "user", "content": "Count."},
        {"role": "assistant", "content": "1 2 3 4 5 6"}]});
    assert!(said(&s.post("/v1/chat/completions", &prefill).ok()).contains('7'));
}

#[test]
fn formats_are_kept_or_refused_never_dropped() {
    let app = App::new();
    let s = app.serve(&[]);
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"], "additionalProperties": false});
    let nested = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    let flat = json!({"type": "json_schema", "schema": schema});
    for format in [nested, flat, json!({"type": "json_object", "schema": schema})] {
        let more = json!({"response_format": format, "max_tokens": 60, "temperature": 1});
        let answer = said(&s.post("/v1/chat/completions", &chat("A number?", &more)).ok());
        let value: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert!(value["n"].is_i64(), "{answer}");
    }
    let word = s.post("/v1/chat/completions", &chat("?", &json!({"grammar": "root ::= \"yes\" | \"no\""}))).ok();
    assert!(["yes", "no"].contains(&said(&word).as_str()), "{word}");
    let named = s.post("/completion", &json!({"prompt": "Great film!", "format": "sentiment"})).ok();
    assert!(named["format_complete"] == true, "{named}");
    let bad = [
        json!({"grammar": "root ::= undefined-rule"}),
        json!({"grammar": "root ::= ("}),
        json!({"response_format": {"type": "sound"}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 123}}}),
        json!({"json_schema": {"type": "string", "pattern": "(?<=a)b"}}),
        json!({"grammar": "root ::= \"a\"", "json_schema": {}}),
    ];
    for more in bad {
        let reply = s.post("/v1/chat/completions", &chat("?", &more));
        assert_eq!(
            (reply.status, reply.json()["error"]["type"].as_str()),
            (400, Some("invalid_request_error")),
            "{more}"
        );
    }
    let good = s.post("/v1/chat/completions", &chat("?", &json!({"grammar": "root ::= \"yes\""}))).ok();
    assert_eq!(said(&good), "yes", "a good grammar after bad ones");

    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"], "additionalProperties": false}}})
    };
    let tools = json!([tool("get_weather"), tool("get_time")]);
    for (choice, expected) in
        [(json!("required"), None), (json!({"type": "function", "function": {"name": "get_time"}}), Some("get_time"))]
    {
        let more = json!({"tools": tools, "tool_choice": choice, "max_tokens": 60});
        let body = s.post("/v1/chat/completions", &chat("Weather in Ulm?", &more)).ok();
        let calls = &body["choices"][0]["message"]["tool_calls"];
        assert_eq!(
            (calls.as_array().map(Vec::len), &body["choices"][0]["finish_reason"]),
            (Some(1), &json!("tool_calls")),
            "{body}"
        );
        let arguments: Value =
            serde_json::from_str(calls[0]["function"]["arguments"].as_str().expect("text")).expect("JSON");
        assert!(arguments["city"].is_string());
        assert!(expected.is_none_or(|name| calls[0]["function"]["name"] == name));

        let mut streamed = more.clone();
        streamed["stream"] = json!(true);
        let (chunks, done) = s.post("/v1/chat/completions", &chat("Weather in Ulm?", &streamed)).events();
        let parts: Vec<&Value> =
            chunks.iter().map(|c| &c["choices"][0]["delta"]["tool_calls"][0]).filter(|c| c.is_object()).collect();
        assert!(done && parts.len() > 3, "arguments come as they are written: {parts:?}");
        assert_eq!(
            (&parts[0]["function"]["name"], &parts[0]["type"]),
            (&calls[0]["function"]["name"], &json!("function"))
        );
        let joined: String = parts.iter().filter_map(|p| p["function"]["arguments"].as_str()).collect();
        assert_eq!(joined, calls[0]["function"]["arguments"].as_str().expect("text"));
        assert_eq!(chunks.last().expect("one")["choices"][0]["finish_reason"], "tool_calls");
    }
    // The model decides: text is free, and what begins as a call is one.
    let free = s.post("/v1/chat/completions", &chat("Say hello.", &json!({"tools": tools}))).ok();
    assert!(free["choices"][0]["message"]["tool_calls"].is_null() && !said(&free).is_empty(), "{free}");
    let begun =
        json!([user("Weather in Ulm?")[0], {"role": "assistant", "content": "<tool_call>\n{\"name\": \"get_w"}]);
    let begun = json!({"messages": begun, "tools": tools, "max_tokens": 60, "temperature": 0});
    assert_eq!(s.post("/v1/chat/completions", &begun).status, 200, "a prefill is no call of this answer");
    let several = json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": true, "max_tokens": 200});
    let several = s.post("/v1/chat/completions", &chat("Weather and time in Ulm?", &several)).ok();
    let calls = several["choices"][0]["message"]["tool_calls"].as_array().expect("calls").clone();
    assert!(!calls.is_empty() && calls.iter().all(|c| c["function"]["arguments"].is_string()), "{several}");
    let both = json!({"tools": tools, "response_format": {"type": "json_object"}});
    assert_eq!(
        s.post("/v1/chat/completions", &chat("?", &both)).status,
        400,
        "a format beside tools that may be called"
    );
}

#[test]
fn thoughts_are_free_bounded_and_taken_out() {
    let app = App::new();
    // A template that opens thoughts, as those of reasoning models do.
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
    let file = app.write("thinking.jinja", template);
    let s = app.serve(&["--chat-template-file", file.to_str().expect("UTF-8")]);
    let budget = json!({"thinking_budget_tokens": 8, "max_tokens": 40, "ignore_eos": true});
    let body = s.post("/v1/chat/completions", &chat("Name a colour.", &budget)).ok();
    let message = &body["choices"][0]["message"];
    let thought = message["reasoning_content"].as_str().expect("thoughts").to_string();
    let tokens = s.post("/tokenize", &json!({"content": thought})).ok()["tokens"].as_array().map(Vec::len);
    assert!(tokens.is_some_and(|n| (1..=9).contains(&n)), "{tokens:?} {thought:?}");
    assert!(!said(&body).is_empty(), "and an answer after them: {body}");
    let mut formatted = budget.clone();
    formatted["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": {"type": "object",
        "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"],
        "additionalProperties": false}}});
    let body = s.post("/v1/chat/completions", &chat("A number.", &formatted)).ok();
    let answer: Value = serde_json::from_str(&said(&body)).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert!(answer["n"].is_u64() && body["choices"][0]["message"]["reasoning_content"].is_string(), "{body}");
    let whole = json!({"reasoning_format": "none", "thinking_budget_tokens": 4, "max_tokens": 30, "ignore_eos": true});
    assert!(said(&s.post("/v1/chat/completions", &chat("Hi", &whole)).ok()).contains("</think>"));
}

#[test]
fn other_apis_tell_the_same_answer() {
    let app = App::new();
    let s = app.serve(&[]);
    let expected = said(&s.post("/v1/chat/completions", &chat("Name a colour.", &json!({}))).ok());

    let ask = json!({"messages": user("Name a colour."), "max_tokens": 12, "temperature": 0});
    let message = s.post("/v1/messages", &ask).ok();
    assert_eq!(
        (message["type"].as_str(), message["content"][0]["text"].as_str()),
        (Some("message"), Some(expected.as_str()))
    );
    assert!(message["usage"]["output_tokens"].as_u64().is_some_and(|n| n > 0));
    let mut streamed = ask.clone();
    streamed["stream"] = true.into();
    let (events, _) = s.post("/v1/messages", &streamed).events();
    let joined: String = events.iter().filter_map(|e| e["delta"]["text"].as_str()).collect();
    assert_eq!(joined, expected);
    assert_eq!(
        (events[0]["type"].as_str(), events.last().and_then(|e| e["type"].as_str())),
        (Some("message_start"), Some("message_stop"))
    );
    assert!(s.post("/v1/messages/count_tokens", &ask).ok()["input_tokens"].as_u64().is_some_and(|n| n > 5));
    let error = s.post("/v1/messages", &json!({"max_tokens": 5})).json();
    assert_eq!(
        (error["type"].as_str(), error["error"]["type"].as_str()),
        (Some("error"), Some("invalid_request_error"))
    );

    let ask = json!({"input": "Name a colour.", "max_output_tokens": 12, "temperature": 0});
    let response = s.post("/v1/responses", &ask).ok();
    assert_eq!(response["output"][0]["content"][0]["text"], expected.as_str());
    let mut streamed = ask.clone();
    streamed["stream"] = true.into();
    let (events, _) = s.post("/v1/responses", &streamed).events();
    let numbers: Vec<Option<u64>> = events.iter().map(|e| e["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).map(Some).collect::<Vec<_>>());
    let joined: String = events.iter().filter_map(|e| e["delta"].as_str()).collect();
    assert_eq!(joined, expected);

    let ask =
        json!({"model": "x", "messages": user("Name a colour."), "options": {"temperature": 0, "num_predict": 12}});
    let lines: Vec<Value> =
        s.post("/api/chat", &ask).text().lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let joined: String = lines.iter().filter_map(|l| l["message"]["content"].as_str()).collect();
    assert_eq!((joined, &lines.last().expect("lines")["done"]), (expected.clone(), &json!(true)));
    let ask = json!({"model": "x", "prompt": "Name a colour.", "stream": false, "options": {"temperature": 0, "num_predict": 12}});
    assert_eq!(s.post("/api/generate", &ask).ok()["response"], expected.as_str());
    assert_eq!(s.get("/api/tags").ok()["models"].as_array().map(Vec::len), Some(1));
    assert!(s.get("/api/version").ok()["version"].is_string() && s.get("/api/ps").status == 200);
    assert!(s.post("/api/show", &json!({"model": "x"})).ok()["details"]["family"].is_string());
}

#[test]
fn adapters_are_chosen_by_name_and_never_mixed_up() {
    let app = App::new();
    for (name, seed) in [("alpha", 11), ("beta", 12)] {
        app.write(&format!("{name}.gguf"), random_lora(seed, 8, 0.08));
    }
    let root = app.dir.path().display().to_string();
    let library = app.path("library").display().to_string();
    let s = app.serve(&[
        "-np",
        "1",
        "--library",
        &library,
        "--admin-key",
        "boss",
        "--adapter-root",
        &root,
        "--lora",
        "alpha.gguf",
    ]);
    let admin = [("Authorization", "Bearer boss")];
    let load = |name: &str| json!({"lora_name": name, "lora_path": format!("{name}.gguf")}).to_string();
    assert_eq!(s.request("POST", "/v1/load_lora_adapter", &[], Some(&load("alpha"))).status, 401);
    for name in ["alpha", "beta"] {
        let reply = s.request("POST", "/v1/load_lora_adapter", &admin, Some(&load(name)));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let outside = json!({"lora_name": "x", "lora_path": "/etc/passwd"}).to_string();
    assert_eq!(s.request("POST", "/v1/load_lora_adapter", &admin, Some(&outside)).status, 404);

    let models = s.get("/v1/models").ok();
    let base = models["data"][0]["id"].as_str().expect("a name").to_string();
    assert_eq!((models["data"].as_array().map(Vec::len), &models["data"][1]["parent"]), (Some(3), &json!(base)));
    let shared = "Tell me about the sea and the wind.";
    let ask = |more: Value| s.post("/v1/chat/completions", &chat(shared, &more)).ok();
    let cold = |model: &str| said(&ask(json!({"model": format!("{base}:{model}"), "cache_prompt": false})));
    let (alpha, beta, plain) = (cold("alpha"), cold("beta"), cold("none"));
    assert!(alpha != beta && beta != plain && alpha != plain, "{alpha:?} {beta:?} {plain:?}");
    // Cached prefixes belong to their adapters: P+A, P+B, P, P+A, whatever ran between.
    for round in 0..2 {
        for (model, expected) in [("alpha", &alpha), ("beta", &beta), ("none", &plain), ("alpha", &alpha)] {
            let body = ask(json!({"model": format!("{base}:{model}")}));
            assert_eq!(&said(&body), expected, "{model} in round {round}");
        }
    }
    let twice = ask(json!({"model": format!("{base}:none")}));
    assert_eq!(said(&twice), plain);
    let names = ask(json!({"adapters": [{"name": "beta", "scale": 1.0}]}));
    assert_eq!((said(&names), names["adapters"][0]["name"].as_str()), (beta, Some("beta")));
    assert_eq!(said(&ask(json!({"model": "alpha"}))), alpha, "an adapter's name alone, as in vLLM");
    assert_eq!(said(&ask(json!({"lora": [{"id": 0, "scale": 1.0}]}))), alpha, "by its number");
    assert_eq!(said(&ask(json!({"lora": []}))), plain, "none");
    assert_eq!(said(&ask(json!({}))), alpha, "what the server applies by itself");
    let off = s.request("POST", "/lora-adapters", &[], Some("[{\"id\": 0, \"scale\": 0}]"));
    assert_eq!(off.ok(), json!({"success": true}));
    assert_eq!((&s.get("/lora-adapters").ok()[0]["scale"], said(&ask(json!({})))), (&json!(0.0), plain));

    let unknown = s.post("/v1/chat/completions", &chat("?", &json!({"model": format!("{base}:alpah")})));
    assert_eq!(unknown.status, 404);
    assert!(unknown.message().contains("alpha"), "{}", unknown.message());
    assert_eq!(s.post("/v1/chat/completions", &chat("?", &json!({"model": "gpt-4"}))).status, 404);
    for (more, status) in [
        (json!({"lora": [{"id": 9, "scale": 1}]}), 400),
        (json!({"lora": [{"id": 0, "scale": 1e30}]}), 400),
        (json!({"lora": [{"id": 0, "scale": -1}]}), 400),
        (json!({"adapters": [{"name": "../x"}]}), 400),
        (json!({"adapters": [{"name": "alpha"}, {"name": "alpha"}]}), 400),
        (json!({"model": "alpha", "adapters": "none"}), 400),
    ] {
        assert_eq!(s.post("/v1/chat/completions", &chat("?", &more)).status, status, "{more}");
    }

    let answer = ask(json!({"model": "beta"}));
    let feedback = json!({"id": answer["id"], "success": true});
    assert_eq!(s.post("/v1/feedback", &feedback).ok()["recorded"], 1);
    assert_eq!(s.post("/v1/feedback", &feedback).status, 404, "once");
    assert_eq!(s.get("/v1/adapters/beta").ok()["usage"]["good"], 1);
    let edit =
        s.request("PATCH", "/v1/adapters/beta", &admin, Some("{\"description\": \"The second\", \"tags\": [\"x\"]}"));
    assert_eq!(edit.ok()["card"]["description"], "The second");
    assert_eq!(s.get("/v1/adapters?tag=x").ok()["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(s.request("DELETE", "/v1/adapters/beta", &admin, None).status, 200);
    assert_eq!(s.post("/v1/chat/completions", &chat("?", &json!({"model": "beta"}))).status, 404);
}

#[test]
fn keys_are_asked_everywhere_and_limits_hold() {
    let app = App::new();
    app.write("a.gguf", random_lora(21, 4, 0.03));
    let library = app.path("library").display().to_string();
    let model = model().display().to_string();
    for name in ["mine", "theirs"] {
        // The same bytes under two names would be one adapter; a second file makes them two.
        let file = app.write(&format!("{name}.gguf"), random_lora(name.len() as u64, 4, 0.03)).display().to_string();
        app.run(&["adapter", "add", &file, "-m", &model, "--library", &library], "").ok();
    }
    let keys = app.write("keys", "# all\nfull-key\nlimited-key mine\n").display().to_string();
    let s = app.serve(&["--library", &library, "--api-key-file", &keys, "--metrics"]);
    let routes = [
        ("GET", "/props"),
        ("GET", "/metrics"),
        ("GET", "/slots"),
        ("GET", "/v1/models"),
        ("GET", "/models"),
        ("GET", "/v1/models/x"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("POST", "/apply-template"),
        ("POST", "/completion"),
        ("POST", "/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/infill"),
        ("POST", "/chat/completions"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("GET", "/lora-adapters"),
        ("POST", "/lora-adapters"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("GET", "/v1/adapters"),
        ("GET", "/v1/adapters/mine"),
        ("DELETE", "/v1/adapters/mine"),
        ("POST", "/v1/feedback"),
        ("GET", "/v1/dashboard"),
        ("POST", "/api/chat"),
        ("POST", "/api/generate"),
        ("GET", "/api/tags"),
        ("POST", "/api/show"),
        ("GET", "/api/ps"),
        ("GET", "/api/version"),
        ("POST", "/v1/embeddings"),
        ("POST", "/embedding"),
        ("POST", "/api/embed"),
        ("POST", "/v1/route"),
        ("POST", "/v1/adapters"),
        ("POST", "/v1/rerank"),
        ("GET", "/no/such/route"),
    ];
    let long = "k".repeat(20_000);
    for (method, path) in routes {
        let body = (method == "POST").then_some("{}");
        for headers in [
            vec![],
            vec![("Authorization", "Bearer wrong")],
            vec![("Authorization", "Bearer full-ke")],
            vec![("Authorization", long.as_str())],
            vec![("Authorization", "Bearer full-key"), ("Authorization", "Bearer full-key")],
            vec![("X-Api-Key", "wrong")],
        ] {
            let reply = s.request(method, path, &headers, body);
            assert_eq!(reply.status, 401, "{method} {path} {}", reply.text());
        }
        let query = format!("{path}?api_key=full-key");
        assert_eq!(s.request(method, &query, &[], body).status, 401, "a key in the query is none: {path}");
    }
    assert_eq!(s.get("/health").status, 200);
    assert_eq!(s.get("/").status, 200);
    let full = [("Authorization", "Bearer full-key")];
    let limited = [("X-Api-Key", "limited-key")];
    let count =
        |headers: &[(&str, &str)]| s.request("GET", "/v1/models", headers, None).ok()["data"].as_array().map(Vec::len);
    assert_eq!((count(&full), count(&limited)), (Some(3), Some(2)));
    let ask = |headers: &[(&str, &str)], adapter: &str| {
        let body = chat("?", &json!({"model": adapter, "max_tokens": 2})).to_string();
        s.request("POST", "/v1/chat/completions", headers, Some(&body))
    };
    assert_eq!((ask(&full, "theirs").status, ask(&limited, "mine").status), (200, 200));
    let (hidden, missing) = (ask(&limited, "theirs"), ask(&limited, "nothere"));
    assert_eq!((hidden.status, missing.status), (404, 404));
    assert_eq!(
        hidden.message().replace("theirs", "X"),
        missing.message().replace("nothere", "X"),
        "one answer for both"
    );
    for path in ["/metrics", "/slots", "/v1/dashboard"] {
        assert_eq!(s.request("GET", path, &limited, None).status, 403, "{path}");
    }
}

/// A stream that has begun: its first bytes are read.
fn begun(s: &Server, tokens: usize) -> std::net::TcpStream {
    let body =
        json!({"prompt": "Once upon a time", "n_predict": tokens, "ignore_eos": true, "stream": true}).to_string();
    let mut stream = s.connect();
    stream.write_all(&s.spell("POST", "/completion", &[], Some(&body))).expect("sent");
    let mut first = [0; 200];
    assert!(stream.read(&mut first).expect("read") > 0);
    stream
}

/// Two greedy answers with `n_probs` are the same, token by token, up to a place where the best two were as good as equal:
/// llama.cpp's attention sums in another order when a step has one row and a long cache
/// (`ggml_compute_forward_flash_attn_ext_f16`, `use_split_kv_path`), so a neighbour may tip a tie.
fn same_but_for_ties(one: &Value, other: &Value) {
    let steps = |v: &Value| v["completion_probabilities"].as_array().expect("probabilities").clone();
    let (one, other) = (steps(one), steps(other));
    for (i, (a, b)) in one.iter().zip(&other).enumerate() {
        let best = |n: usize| b["top_logprobs"][n]["logprob"].as_f64().expect("a number");
        if a["id"] != b["id"] {
            let margin = best(0) - best(1);
            assert!(margin < 0.1, "token {i}: {} and {}, {margin} nats apart", a["token"], b["token"]);
            return;
        }
        let (x, y) = (a["logprob"].as_f64().expect("a number"), b["logprob"].as_f64().expect("a number"));
        assert!((x - y).abs() < 0.1, "token {i} {}: {x} and {y}", a["token"]);
    }
    assert_eq!(one.len(), other.len());
}

#[test]
fn a_client_that_goes_frees_its_slot() {
    let app = App::new();
    let s = app.serve(&["-np", "2"]);
    let mine = json!({"prompt": "A day", "n_predict": 40, "temperature": 0, "cache_prompt": false, "n_probs": 2});
    let undisturbed = s.post("/completion", &mine).ok();
    // While an answer is decoded.
    drop(begun(&s, 1500));
    assert!(s.idle_after() < Duration::from_secs(2));
    // One that is not streamed, and others that still wait for a slot.
    let long = json!({"prompt": "Once upon a time", "n_predict": 1500, "ignore_eos": true}).to_string();
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = s.connect();
            stream.write_all(&s.spell("POST", "/completion", &[], Some(&long))).expect("sent");
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    drop(held);
    assert!(s.idle_after() < Duration::from_secs(2));
    // A neighbour is not touched.
    let neighbour = std::thread::scope(|scope| {
        let mine = scope.spawn(|| s.post("/completion", &mine).ok());
        drop(begun(&s, 1500));
        mine.join().expect("answered")
    });
    same_but_for_ties(&neighbour, &undisturbed);
    // Connections that come and go leave nothing behind.
    let before = s.descriptors();
    for _ in 0..300 {
        drop(s.connect());
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(s.descriptors() <= before + 3, "{before} descriptors before, {} after", s.descriptors());
}

#[test]
fn a_full_queue_refuses_at_once() {
    let app = App::new();
    let s = app.serve(&["-np", "1"]);
    let long = json!({"prompt": "Once upon a time", "n_predict": 1500, "ignore_eos": true}).to_string();
    let mut held = Vec::new();
    for _ in 0..80 {
        let mut stream = s.connect();
        stream.write_all(&s.spell("POST", "/completion", &[], Some(&long))).expect("sent");
        held.push(stream);
    }
    // The queue holds 64 and the engine takes two more, so some find no place, not always the last. A request that waits
    // gives no answer in this time.
    std::thread::sleep(Duration::from_secs(1));
    let refused = held.into_iter().rev().find_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
        Some(read_reply(stream)).filter(|reply| reply.status == 429)
    });
    let refused = refused.expect("some are refused, and at once");
    assert_eq!(refused.json()["error"]["code"].as_u64(), Some(429), "{}", refused.text());
    assert!(refused.head.to_ascii_lowercase().contains("retry-after:"), "{}", refused.head);
    s.idle_after();
    assert_eq!(s.post("/completion", &json!({"prompt": "x", "n_predict": 1})).status, 200);
}

#[test]
fn it_listens_before_it_is_ready_and_drains_before_it_leaves() {
    let app = App::new();
    let s = app.serve_loading(&["-np", "2", "--drain-seconds", "6"]);
    // Without the model's check and its loading; generous for a busy machine.
    assert!(s.listening_after < Duration::from_millis(1000), "{:?}", s.listening_after);
    let first = s.get("/health");
    if first.status != 200 {
        assert_eq!((first.status, first.message().as_str()), (503, "Loading model"));
        assert_eq!(s.post("/v1/chat/completions", &json!({})).status, 503);
    }
    while s.get("/health").status != 200 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (short, endless) = (begun(&s, 8), begun(&s, 1900));
    s.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    assert!(std::net::TcpStream::connect(&s.address).is_err(), "no new connections");
    let (short, endless) = (rest(short), rest(endless));
    assert!(short.contains("\"stop\":true"), "a short answer is finished: {short}");
    assert!(
        endless.contains("the server is stopping"),
        "a long one is ended with an error: {}",
        &endless[endless.len() - 300..]
    );
    assert_eq!(s.ended(Duration::from_secs(30)), Some(0));

    let s = app.serve(&["-np", "1"]);
    let _stream = begun(&s, 1900);
    s.signal("INT");
    std::thread::sleep(Duration::from_millis(100));
    s.signal("INT");
    assert_eq!(s.ended(Duration::from_secs(5)), Some(130), "a second signal does not wait");
}

fn rest(mut stream: std::net::TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn streams_are_whole_utf8_and_errors_before_the_first_token_are_http_errors() {
    let app = App::new();
    let s = app.serve(&[]);
    let grammar = "root ::= (\"日\" | \"🦙\" | \"é\"){12}";
    let body = json!({"prompt": "x", "grammar": grammar, "n_predict": 100, "stream": true});
    let (events, _) = s.post("/completion", &body).events();
    let joined: String = events.iter().filter_map(|e| e["content"].as_str()).collect();
    assert!(joined.chars().count() == 12 && !joined.contains('\u{fffd}'), "{joined:?}");
    let long = "word ".repeat(5000);
    for stream in [false, true] {
        let reply = s.post("/v1/chat/completions", &chat(&long, &json!({"stream": stream})));
        let error = &reply.json()["error"];
        assert_eq!((reply.status, error["type"].as_str()), (400, Some("exceed_context_size_error")));
        assert!(error["n_prompt_tokens"].as_u64().is_some_and(|n| n > 5000) && error["n_ctx"] == 2048, "{error}");
        let bad = s.post("/completion", &json!({"prompt": "x", "grammar": "root ::= x", "stream": stream}));
        assert_eq!(bad.status, 400);
    }
}

#[test]
fn a_unix_socket_serves_its_owner() {
    let app = App::new();
    let path = app.path("s.sock");
    let model = model().display().to_string();
    let mut command = app.command(&["serve", "--host", "s.sock", "-m", &model, "-t", "2", "-c", "512"]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("started");
    let started = Instant::now();
    let mut body = String::new();
    while !body.contains("200 OK") {
        assert!(started.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(30));
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&path) else { continue };
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n").expect("sent");
        body.clear();
        stream.read_to_string(&mut body).expect("read");
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let listed = app.run(&["ps"], "").ok();
    assert!(listed.text().contains("unix:s.sock"), "{listed:?}");
    app.run(&["stop"], "").ok();
    assert_eq!(child.wait().expect("waited").code(), Some(0));
    assert!(!path.exists(), "the socket's file is removed");
    assert_eq!(app.run(&["ps"], "").ok().text(), "");
    assert_eq!(app.run(&["stop"], "").code, Some(3));
}

#[test]
fn what_cannot_start_says_so() {
    let app = App::new();
    let s = app.serve(&[]);
    let port = s.address.rsplit(':').next().expect("a port").to_string();
    let model = model().display().to_string();
    let table: [(&[&str], i32, &str); 9] = [
        (&["--port", &port], 8, "in use"),
        (&["--host", "0.0.0.0", "--port", "0"], 2, "give --api-key"),
        (&["--host", "no.such.host.invalid", "--port", "0"], 2, "--host no.such.host.invalid"),
        (&["--port", "99999"], 2, "99999"),
        (
            &["--mmproj", "x.gguf"],
            2,
            "--mmproj is a flag of llama-server that smoa does not have: the model reads text only",
        ),
        (&["-md", "x.gguf", "--port", "0"], 3, "'x.gguf'"),
        (&["--ssl-key-file", "x"], 2, "--ssl-cert-file"),
        (&["--ssl-key-file", "x", "--ssl-cert-file", "y", "--port", "0"], 3, "'y'"),
        (&["--reasoning-budget", "-5", "--port", "0"], 2, "--reasoning-budget"),
    ];
    for (args, code, expected) in table {
        let mut all = vec!["serve", "-m", &model];
        all.extend(args);
        let run = app.run(&all, "");
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
        assert!(run.stderr.contains(expected), "{args:?}: {run:?}");
    }
    let mut command = app.command(&["serve", "-m", &model, "--port", "0"]);
    let out = command.env("LLAMA_ARG_MMPROJ", "x").output().expect("ran");
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("LLAMA_ARG_MMPROJ"));
    // Under llama-server's name, and with flags that say what is always so.
    let link = app.path("llama-server");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_smoa"), &link).expect("linked");
    let out = std::process::Command::new(&link)
        .args(["--jinja", "-cb", "-m", &model, "--port", &port])
        .output()
        .expect("ran");
    assert_eq!(out.status.code(), Some(8), "{}", String::from_utf8_lossy(&out.stderr));
    let flags = app.run(&["doctor", "--flags"], "").ok();
    assert!(flags.text().lines().count() > 200 && flags.text().contains("refused  -mm, --mmproj"), "{}", flags.text());
    let reply = read_reply(s.connect_and_send(b"GET /health HTTP/1.0\r\n\r\n"));
    assert_eq!(reply.status, 200, "HTTP/1.0 needs no Host");
}
