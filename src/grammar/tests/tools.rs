//! Envelopes of tool calls.

use serde_json::json;

use super::super::tools::{Envelope, ToolChoice, ToolFormat, ToolRequest, read_tools};
use super::super::{MatchResult, Matcher};
use super::{compile, toy};

fn request(envelope: Envelope, choice: ToolChoice) -> ToolRequest {
    let tools = json!([
        {"type": "function", "function": {"name": "weather", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false}}},
        {"name": "clock"},
    ]);
    ToolRequest { tools: read_tools(&tools).unwrap(), envelope, choice, parallel: false, text_before: false }
}

fn matcher(request: &ToolRequest) -> Matcher {
    let ToolFormat { source, trigger } = request.format().unwrap().unwrap();
    let compiled = compile(source).unwrap_or_else(|error| panic!("{error}"));
    match trigger {
        Some(trigger) => compiled.matcher_after(&trigger).unwrap(),
        None => compiled.matcher(),
    }
}

fn verdict(request: &ToolRequest, text: &str) -> MatchResult {
    let mut matcher = matcher(request);
    if let Err(error) = matcher.accept_bytes(text.as_bytes()) {
        assert!(error.to_string().contains("not allowed"), "{error}");
        return MatchResult::Rejected { at: 0 };
    }
    match matcher.may_stop() {
        true => MatchResult::Complete,
        false => MatchResult::Prefix,
    }
}

fn check(request: &ToolRequest, accepts: &[&str], rejects: &[&str]) {
    for text in accepts {
        assert_eq!(verdict(request, text), MatchResult::Complete, "must accept {text:?}");
    }
    for text in rejects {
        assert_ne!(verdict(request, text), MatchResult::Complete, "must reject {text:?}");
    }
}

const HERMES: &str = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Kyoto\"}}\n</tool_call>";
const CLOCK: &str = "<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>";

#[test]
fn hermes() {
    let mut request = request(Envelope::Hermes, ToolChoice::Required);
    let two = format!("{HERMES}\n{CLOCK}");
    let text = format!("Let me look.\n{HERMES}");
    let wrong = HERMES.replace("city", "town");
    let unknown = HERMES.replace("weather", "wether");
    check(&request, &[HERMES, CLOCK], &["", "Hello", &two, &text, &wrong, &unknown]);
    request.parallel = true;
    check(&request, &[HERMES, &two, &format!("{two}\n{HERMES}")], &[&text]);
    request.text_before = true;
    check(&request, &[&text, HERMES], &["Hello", &wrong]);
    request.choice = ToolChoice::Auto;
    check(&request, &["", "Hello", &text, &two], &[&wrong, "<tool_call>{", &format!("Hello {unknown}")]);
    request.choice = ToolChoice::Named("clock".to_owned());
    request.parallel = false;
    request.text_before = false;
    check(&request, &[CLOCK], &[HERMES, "Hello"]);
    request.choice = ToolChoice::None;
    assert_eq!(request.format(), Ok(None));
}

#[test]
fn llama3_and_mistral() {
    let call = "{\"name\": \"weather\", \"parameters\": {\"city\": \"Kyoto\"}}";
    let mut request = request(Envelope::Llama3, ToolChoice::Required);
    check(&request, &[call], &["Hello", "", &format!("{call}{call}"), &format!("Well: {call}")]);
    request.choice = ToolChoice::Auto;
    check(&request, &[call, "Hello", "{\"other\": 1}"], &["{\"name\": \"nobody\", \"parameters\": {}}"]);
    request.parallel = true;
    let message = request.format().unwrap_err().to_string();
    assert!(message.contains("'/parallel_tool_calls': the model's envelope holds one call"), "{message}");
    request.envelope = Envelope::Mistral;
    request.choice = ToolChoice::Required;
    let one = "{\"name\": \"weather\", \"arguments\": {\"city\": \"Kyoto\"}}";
    let (list, two) = (format!("[TOOL_CALLS][{one}]"), format!("[TOOL_CALLS] [{one}, {one}]"));
    check(&request, &[&list, &two], &[one, "[TOOL_CALLS][]", "Hello"]);
}

#[test]
fn the_envelope_is_known_by_the_template() {
    assert_eq!(Envelope::of_template("{{ '<tool_call>' }}"), Some(Envelope::Hermes));
    assert_eq!(Envelope::of_template("{{ '[TOOL_CALLS]' }}"), Some(Envelope::Mistral));
    assert_eq!(Envelope::of_template("{\"name\": x, \"parameters\": y}"), Some(Envelope::Llama3));
    assert_eq!(Envelope::of_template("{{ message.content }}"), None);
}

#[test]
fn mistakes_name_the_tool_and_the_place() {
    for (tools, message) in [
        (json!({}), "at '/tools': must be a list"),
        (json!([]), "1 to 128 tools, not 0"),
        (json!([{"type": "function", "function": {}}]), "at '/tools/0/function': a tool needs a 'name'"),
        (json!([{"type": "web", "function": {"name": "a"}}]), "at '/tools/0/type'"),
        (json!([{"name": "a", "parameters": 3}]), "at '/tools/0/parameters': must be a JSON Schema"),
        (json!([{"name": "a\nb"}]), "at '/tools/0/name'"),
    ] {
        let refused = read_tools(&tools).unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
    let mut asked = request(Envelope::Hermes, ToolChoice::Named("wheather".to_owned()));
    let message = asked.format().unwrap_err().to_string();
    assert!(message.contains("there is no tool 'wheather' (did you mean 'weather'?)"), "{message}");
    asked.tools[1].name = "weather".to_owned();
    assert!(asked.format().unwrap_err().to_string().contains("given twice"));
    let tools = json!([{"name": "a"}, {"name": "b", "parameters": {"properties": {"x": {"type": "strnig"}}}}]);
    let request = ToolRequest {
        tools: read_tools(&tools).unwrap(),
        choice: ToolChoice::Required,
        ..request(Envelope::Hermes, ToolChoice::Auto)
    };
    let message = compile(request.format().unwrap().unwrap().source).unwrap_err().to_string();
    assert!(message.contains("/tools/1/function/parameters/properties/x") && message.contains("tool 'b'"), "{message}");
}

#[test]
fn calls_are_brought_to_their_end() {
    let vocabulary = toy();
    let request = ToolRequest { text_before: true, ..request(Envelope::Hermes, ToolChoice::Required) };
    for budget in [120, 160] {
        let mut matcher = matcher(&request);
        assert!(matcher.tokens_to_finish().unwrap().unwrap() <= budget);
        let mut text = Vec::new();
        for left in (1..=budget).rev() {
            if matcher.must_stop() {
                break;
            }
            let wish = u32::from(b"Talk "[left % 5]);
            let token = match matcher.allows_closing(wish, left).unwrap() {
                true => wish,
                false => matcher.mask_closing(left).unwrap().iter().next().unwrap(),
            };
            matcher.accept(token).unwrap();
            text.extend_from_slice(vocabulary.piece(token));
        }
        assert!(matcher.may_stop(), "{}", String::from_utf8_lossy(&text));
    }
}
