//! What is rendered is what Jinja in Python renders, in transformers' settings: golden.json is
//! written by golden.py. `smollm2.jinja` is the template in the file of SmolLM2-135M-Instruct;
//! the others are ours, in the manner of the models they are named for.

use crate::prompt::{ChatTemplate, CivilTime, Message, RenderOptions, SpecialTokens, TemplateError};
use serde_json::{Map, Value};

const GOLDEN: &str = include_str!("golden.json");

pub(super) fn source(name: &str) -> &'static str {
    match name {
        "smollm2" => include_str!("smollm2.jinja"),
        "llama3" => include_str!("llama3.jinja"),
        "qwen" => include_str!("qwen.jinja"),
        "gemma" => include_str!("gemma.jinja"),
        "mistral" => include_str!("mistral.jinja"),
        "python" => include_str!("python.jinja"),
        other => panic!("no template {other}"),
    }
}

pub(super) fn tokens() -> SpecialTokens {
    let control = [
        "<s>",
        "</s>",
        "<|im_start|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<start_of_turn>",
        "<end_of_turn>",
        "[INST]",
        "[/INST]",
        "<|user|>",
        "<|assistant|>",
        "<|system|>",
        "<|end|>",
        "<<|im_end|>",
    ];
    SpecialTokens { bos: "<s>".to_owned(), eos: "</s>".to_owned(), control: control.map(str::to_owned).to_vec() }
}

fn message(value: &Value) -> Message {
    let mut extras = value.as_object().unwrap().clone();
    let mut take = |name| extras.shift_remove(name).unwrap().as_str().unwrap().to_owned();
    let (role, content) = (take("role"), take("content"));
    Message { role: role.parse().unwrap(), content, extras }
}

#[test]
fn renders_what_python_renders() {
    let golden: Vec<Map<String, Value>> = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(golden.len(), 42);
    for mut case in golden {
        let mut take = |name| case.shift_remove(name);
        let template = take("template").unwrap();
        let name = format!("{} {}", template, take("conversation").unwrap());
        let messages: Vec<_> = take("messages").unwrap().as_array().unwrap().iter().map(message).collect();
        let (text, raised) = (take("text"), take("raised"));
        let options = RenderOptions {
            add_generation_prompt: take("add_generation_prompt") != Some(Value::Bool(false)),
            tools: take("tools"),
            kwargs: case,
            now: Some(CivilTime::from_unix(1_721_999_045)),
        };
        let template = ChatTemplate::parse(source(template.as_str().unwrap()), tokens()).unwrap();
        let rendered = template.render(&messages, &options);
        match (text, raised) {
            (Some(text), _) => {
                let prompt = rendered.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(prompt.text(), text.as_str().unwrap(), "{name}");
                assert_eq!(prompt.pieces().len(), 1, "{name}: {prompt:?}");
            }
            (_, raised) => {
                let message = raised.unwrap().as_str().unwrap().to_owned();
                assert_eq!(rendered, Err(TemplateError::Raised { message }), "{name}");
            }
        }
    }
}

#[test]
fn built_in_templates_write_their_formats() {
    use crate::prompt::Role::{Assistant, System, User};
    let messages =
        [(System, "S"), (User, "U"), (Assistant, "A"), (User, "V")].map(|(role, content)| Message::new(role, content));
    let expected = [
        (
            "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n\
             <|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "gemma",
            "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n\
             <start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
        ),
        ("llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]"),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]"),
        (
            "phi3",
            "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
        ),
        ("zephyr", "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n<|assistant|>\n"),
    ];
    assert!(ChatTemplate::names().eq(expected.map(|(name, _)| name)));
    for (name, text) in expected {
        let template = ChatTemplate::named(name, tokens()).unwrap();
        let prompt = template.render(&messages, &RenderOptions::default()).unwrap();
        assert_eq!(prompt.text(), text);
    }
    assert!(ChatTemplate::named("none", tokens()).is_none());
}
