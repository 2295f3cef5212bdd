//! Tool calls: from the tools of a request to a grammar for the envelope that a chat template expects.
//!
//! Every family of models writes calls in its own way ([`Envelope`]); what stands inside is JSON Schema, enforced as any
//! schema is. Pure: definitions in, a [`Source`] and a [`Trigger`] out. Nothing here knows models, templates or requests.

mod lark;
mod read;

use super::compiler::Source;
use super::deferred::Trigger;
use super::error::{GrammarError, nearest};
pub(super) use lark::{arguments_key, grammar, grammar_of_rules};
pub use read::read as read_tools;

/// Tools of one request, at most.
pub const TOOLS: usize = 128;
/// Calls of one answer, at most, where several are allowed.
const CALLS: usize = 16;

/// A tool that may be called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// JSON Schema of its arguments, as JSON text.
    pub parameters: String,
}

/// How a family of models writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Envelope {
    /// `<tool_call>`, a line with `{"name": ..., "arguments": {...}}`, `</tool_call>`; several after each other. Hermes
    /// and Qwen.
    Hermes,
    /// `{"name": ..., "parameters": {...}}` as the whole answer; one call. Llama 3.
    Llama3,
    /// `[TOOL_CALLS]` and a list of `{"name": ..., "arguments": {...}}`. Mistral.
    Mistral,
}

impl Envelope {
    /// The envelope that a chat template describes, by the marks it writes itself. `None` if it knows none of them.
    pub fn of_template(template: &str) -> Option<Self> {
        match template {
            t if t.contains("[TOOL_CALLS]") => Some(Envelope::Mistral),
            t if t.contains("<tool_call>") => Some(Envelope::Hermes),
            t if t.contains("\"parameters\":") && t.contains("\"name\":") => Some(Envelope::Llama3),
            _ => None,
        }
    }

    /// What begins a call.
    fn marker(self) -> &'static str {
        match self {
            Envelope::Hermes => "<tool_call>",
            Envelope::Llama3 => "{\"name\":",
            Envelope::Mistral => "[TOOL_CALLS]",
        }
    }
}

/// Whether a tool must be called, and which.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call; the tools only stand in the prompt.
    None,
    /// At least one call.
    Required,
    /// A call of this tool.
    Named(String),
}

/// What a request says about tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRequest {
    /// The tools.
    pub tools: Vec<Tool>,
    /// How the model writes calls.
    pub envelope: Envelope,
    /// Whether one must be called.
    pub choice: ToolChoice,
    /// Whether several calls may follow each other.
    pub parallel: bool,
    /// Whether text may stand before the first call. Where the model decides, it always may: an answer without a call
    /// is text.
    pub text_before: bool,
}

/// The calls that a grammar is for: a [`Source`] as any other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ToolCalls {
    pub(super) tools: Vec<Tool>,
    pub(super) envelope: Envelope,
    pub(super) most: usize,
}

/// A grammar for the calls, and when it begins to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolFormat {
    /// For [`Compiler::compile`](super::Compiler::compile).
    pub source: Source,
    /// For [`Compiled::matcher_after`](super::Compiled::matcher_after). `None`: it holds from the first token.
    pub trigger: Option<Trigger>,
}

impl ToolRequest {
    /// The format that the answer must have; `None` if no call is wanted.
    ///
    /// # Errors
    /// [`GrammarError::Schema`] if there are no tools, two of one name, a choice that is none of them, or several calls
    /// in an envelope that holds one.
    pub fn format(&self) -> Result<Option<ToolFormat>, GrammarError> {
        let must = match &self.choice {
            ToolChoice::None => return Ok(None),
            ToolChoice::Auto => false,
            ToolChoice::Required | ToolChoice::Named(_) => true,
        };
        self.check()?;
        let mut tools = self.tools.clone();
        if let ToolChoice::Named(name) = &self.choice {
            tools.retain(|tool| tool.name == *name);
            if tools.is_empty() {
                let near = nearest(name, self.tools.iter().map(|tool| tool.name.as_str()));
                let hint = near.map(|near| format!(" (did you mean '{near}'?)")).unwrap_or_default();
                return Err(refuse("/tool_choice", format!("there is no tool '{name}'{hint}")));
            }
        }
        if self.parallel && self.envelope == Envelope::Llama3 {
            return Err(refuse("/parallel_tool_calls", "the model's envelope holds one call"));
        }
        let most = if self.parallel { CALLS } else { 1 };
        let source = Source::ToolCalls(ToolCalls { tools, envelope: self.envelope, most });
        let free = !must || self.text_before;
        // Llama's mark is the beginning of the call itself.
        let inside = self.envelope == Envelope::Llama3;
        let trigger = Trigger { marker: self.envelope.marker().into(), free, must, inside, ..Trigger::default() };
        let at_once = inside && !free;
        Ok(Some(ToolFormat { source, trigger: (!at_once).then_some(trigger) }))
    }

    fn check(&self) -> Result<(), GrammarError> {
        if self.tools.is_empty() || self.tools.len() > TOOLS {
            return Err(refuse("/tools", format!("there must be 1 to {TOOLS} tools, not {}", self.tools.len())));
        }
        for (index, tool) in self.tools.iter().enumerate() {
            if self.tools[..index].iter().any(|other| other.name == tool.name) {
                return Err(refuse(&format!("/tools/{index}"), format!("the name '{}' is given twice", tool.name)));
            }
        }
        Ok(())
    }
}

fn refuse(pointer: &str, message: impl Into<String>) -> GrammarError {
    GrammarError::Schema { pointer: pointer.to_owned(), keyword: None, message: message.into() }
}
