//! Envelopes in the language of the engine behind schemas: literal text around JSON.

use serde_json::{Value, json};

use super::{Envelope, ToolCalls};

/// The grammar of `calls`. `schemas`: the checked schema of each tool's arguments, in order; `options`: the engine's
/// options for JSON.
pub(in super::super) fn grammar(calls: &ToolCalls, schemas: Vec<Value>, options: &Value) -> String {
    let arguments = match calls.envelope {
        Envelope::Llama3 => "parameters",
        Envelope::Hermes | Envelope::Mistral => "arguments",
    };
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
    let mut text = format!("start: {start}\ncall: {}\n", names.join(" | "));
    for ((tool, schema), name) in calls.tools.iter().zip(schemas).zip(&names) {
        let mut object = json!({
            "type": "object",
            "properties": { "name": { "const": tool.name } },
            "required": ["name", arguments],
            "additionalProperties": false,
            "x-guidance": options,
        });
        object["properties"][arguments] = schema;
        text.push_str(&format!("{name}: %json {object}\n"));
    }
    text
}
