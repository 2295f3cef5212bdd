//! Envelopes in the language of the engine behind schemas: literal text around JSON.

use serde_json::{Value, json};

use super::super::schema::Rules;
use super::{Envelope, ToolCalls};

/// The key that the arguments of a call stand under.
pub(in super::super) fn arguments_key(calls: &ToolCalls) -> &'static str {
    match calls.envelope {
        Envelope::Llama3 => "parameters",
        Envelope::Hermes | Envelope::Mistral => "arguments",
    }
}

/// The grammar of `calls`, one rule per tool, which `call` writes.
fn envelope(calls: &ToolCalls, call: impl Fn(usize) -> String) -> String {
    let more = calls.most.saturating_sub(1);
    let repeated = |text: &str| if more == 0 { String::new() } else { format!(" ({text}){{0,{more}}}") };
    let start = match calls.envelope {
        // The first mark is found by the trigger.
        Envelope::Hermes => {
            let call = "\"\\n\"? call \"\\n\"? \"</tool_call>\"";
            format!("{call}{}", repeated(&format!("\"\\n\"? \"<tool_call>\" {call}")))
        }
        Envelope::Llama3 => "call".to_owned(),
        Envelope::Mistral => format!("\" \"? \"[\" call{} \"]\"", repeated("\",\" \" \"? call")),
    };
    let names: Vec<String> = (0..calls.tools.len()).map(|index| format!("call_{index}")).collect();
    let rules = names.iter().enumerate().map(|(index, name)| format!("{name}: {}\n", call(index)));
    format!("start: {start}\ncall: {}\n{}", names.join(" | "), rules.collect::<String>())
}

/// The grammar of `calls`. `rules`: of each tool's arguments, in order, their keys in any order.
pub(in super::super) fn grammar_of_rules(calls: &ToolCalls, rules: &[Rules]) -> String {
    let literal = |text: &str| Value::from(text).to_string().replace('\x7f', "\\u007f");
    let arguments = literal(&Value::from(arguments_key(calls)).to_string());
    envelope(calls, |index| {
        let name = literal(&Value::from(calls.tools[index].name.as_str()).to_string());
        let object = |root: &str| format!("\"{{\" \"\\\"name\\\"\" \":\" {name} \",\" {arguments} \":\" {root} \"}}\"");
        format!("%lark {{\n{}}}", rules[index].text(object))
    })
}

/// The grammar of `calls`. `schemas`: the checked schema of each tool's arguments, in order; `options`: the engine's
/// options for JSON.
pub(in super::super) fn grammar(calls: &ToolCalls, schemas: &[Value], options: &Value) -> String {
    let arguments = arguments_key(calls);
    envelope(calls, |index| {
        let mut object = json!({
            "type": "object",
            "properties": { "name": { "const": calls.tools[index].name } },
            "required": ["name", arguments],
            "additionalProperties": false,
            "x-guidance": options,
        });
        object["properties"][arguments] = schemas[index].clone();
        format!("%json {object}")
    })
}
