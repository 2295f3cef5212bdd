//! The conversation as a whole, on the scripted engine and with scripted lines.

use std::collections::HashMap;

use super::lines::Typed;
use super::lines::tests::Script;
use super::talk::{Running, Talk};
use super::{Outcome, Printer, Signals};
use crate::engine::fake::FakeEngine;
use crate::error::Code;
use crate::gguf::{ModelFacts, ModelKind, TokenizerFacts};
use crate::pipeline::Pipeline;
use crate::prompt::{ChatTemplate, SpecialTokens};
use crate::request::{Input, Request};
use crate::shelf::Shelf;

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>";

fn pipeline(context: usize) -> Pipeline {
    let tokenizer = TokenizerFacts {
        model: "llama".into(),
        pre: None,
        n_vocab: 257,
        bos: None,
        eos: None,
        eot: None,
        add_bos: false,
        add_eos: false,
        unknown_merges: 0,
    };
    let facts = ModelFacts {
        architecture: "llama".into(),
        kind: ModelKind::Decoder,
        name: None,
        file_type: "F32".into(),
        n_vocab: 257,
        n_ctx_train: 64,
        n_embd: 8,
        n_layer: 1,
        n_head: 1,
        n_head_kv: 1,
        expert_count: 0,
        expert_used_count: 0,
        pooling_type: None,
        parameter_count: 0,
        weight_bytes: 0,
        tokenizer,
        chat_template: None,
        split: None,
        tensors: HashMap::new(),
    };
    let engine = move || {
        let scripts = [
            ("<user>hi\n<assistant>", "hello"),
            ("<user>and?\n<assistant>", "more\n"),
            ("<user>feel?\n<assistant>", "positive"),
        ];
        Ok(FakeEngine::new(context, 1).scripted(scripts))
    };
    let template = |_: &dyn crate::engine::Tokenizer, _: &ModelFacts| {
        let tokens = SpecialTokens { bos: String::new(), eos: String::new(), control: Vec::new() };
        ChatTemplate::parse(TEMPLATE, tokens).map_err(|e| crate::error::Failure::usage(e.to_string()))
    };
    Pipeline::start(facts, 4, Shelf::default(), engine, template).expect("a pipeline")
}

/// Talks through `lines` and gives the conversation, `role: content` each.
fn talk(context: usize, system: Option<&str>, mut lines: Script) -> (Vec<String>, Result<(), Outcome>) {
    let pipeline = pipeline(context);
    let request = Request::new(Input::Raw(String::new()));
    let watch = (Signals::default(), Running::default());
    let mut talk =
        Talk::new(&pipeline, Printer::new(true, false), watch, request, system.map(String::from)).expect("begun");
    let end = talk.converse(None, &mut lines);
    let messages = talk.session.messages().into_iter().map(|m| format!("{}: {}", m.role, m.content));
    (messages.collect(), end)
}

fn said(lines: &[&str]) -> Vec<String> {
    talk(400, None, Script::of(lines)).0
}

#[test]
fn what_was_said_is_kept_and_commands_change_it() {
    let both = ["user: hi", "assistant: hello", "user: and?", "assistant: more\n"];
    assert_eq!(said(&["hi", "and?"]), both);
    assert_eq!(said(&["hi", "and?", "/undo"]), both[..2]);
    assert_eq!(said(&["hi", "and?", "/regen"]), both);
    assert_eq!(said(&["hi", "/clear", "and?"]), both[2..]);
    assert_eq!(said(&["/system S", "hi"])[0], "system: S");
    assert_eq!(said(&["hi", "/exit", "and?"]), both[..2]);
}

#[test]
fn nothing_that_fails_harms_the_session() {
    let bad = [
        "/nonsense",
        "/undo",
        "/regen",
        "/lora /no/such/file.gguf",
        "/lora x=high",
        "/adapter sql",
        "/format nonsense",
        "/grammar /no/such/file",
        "/regex (",
        "/set temperature hot",
        "/set top_p 7",
        "/load /no/such/file",
        "/read /dev/zero",
        "/save /no/such/folder/x",
        "/edit",
    ];
    for line in bad {
        assert_eq!(said(&[line, "hi"]), ["user: hi", "assistant: hello"], "{line}");
    }
    assert_eq!(
        said(&["/format sentiment", "/format nonsense", "feel?"])[1],
        "assistant: positive",
        "the old format is kept"
    );
}

#[test]
fn a_conversation_that_no_longer_fits_is_kept_as_it_was() {
    let long = "x".repeat(60);
    let (messages, end) = talk(80, None, Script::of(&["hi", &long, "/undo", "hi"]));
    assert!(end.is_ok());
    assert_eq!(messages, ["user: hi", "assistant: hello"]);
}

#[test]
fn a_saved_conversation_goes_on_in_another_session() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("my talk.jsonl").display().to_string();
    let quoted = format!("\"{path}\"");
    let before = said(&["/system S", "hi", &format!("/save {quoted}"), "and?", &format!("/save {quoted}")]);
    assert_eq!(said(&[&format!("/load {quoted}")]), before);
    let text = std::fs::read_to_string(&path).expect("saved");
    assert_eq!(text.lines().count(), 5);
    said(&["hi", &format!("/save {quoted}")]);
    assert_eq!(std::fs::read_to_string(&path).expect("there"), text, "a file of another session is not replaced");
    said(&["hi", &format!("/save -f {quoted}")]);
    assert_ne!(std::fs::read_to_string(&path).expect("there"), text);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1, "no temporary file is left");
}

#[test]
fn a_file_goes_with_the_next_message() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("note.txt");
    std::fs::write(&path, "content\n").expect("written");
    assert_eq!(said(&[&format!("/read {}", path.display()), "hi"])[0], "user: hi\n\ncontent\n");
}

#[test]
fn two_interrupts_at_once_leave_and_one_does_not() {
    let interrupt = |had_text| Typed::Interrupted { had_text };
    let script = |typed: &[Typed]| Script(typed.iter().cloned().collect());
    let hi = Typed::Text("hi".into());
    let (messages, end) = talk(400, None, script(&[interrupt(false), hi.clone()]));
    assert_eq!((messages.len(), end.is_ok()), (2, true));
    let (messages, end) = talk(400, None, script(&[interrupt(false), interrupt(false), hi.clone()]));
    assert_eq!(messages.len(), 0);
    assert!(matches!(end, Err(Outcome::Silent(Code::Interrupted))));
    let (messages, _) = talk(400, None, script(&[interrupt(true), interrupt(true), hi]));
    assert_eq!(messages.len(), 2, "clearing a line is no wish to leave");
}
