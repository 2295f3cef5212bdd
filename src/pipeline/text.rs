//! From a request's input to tokens, and to what the router reads of it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{CONTINUE, Pipeline};
use crate::engine::Token;
use crate::error::Failure;
use crate::prompt::{CivilTime, Message, Prompt, RenderOptions, Role};
use crate::request::Input;

impl Pipeline {
    /// The tokens a conversation or text becomes.
    ///
    /// # Errors
    /// The template refuses it, it is empty, or it does not fit into the context.
    pub fn tokens(&self, input: Input) -> Result<Vec<Token>, Failure> {
        let tokens = self.prompt_tokens(input)?;
        self.check_length(tokens.len())?;
        Ok(tokens)
    }

    pub(super) fn check_length(&self, tokens: usize) -> Result<(), Failure> {
        let context = self.ready.facts.sequence_context;
        match tokens {
            0 => Err(Failure::usage("the prompt is empty and the model has no token to begin with")),
            n if n >= context => Err(Failure::usage(format!(
                "the prompt has {n} tokens, the context holds {context}; shorten it or give a larger -c"
            ))),
            _ => Ok(()),
        }
    }

    /// The tokens a conversation or text becomes, whether or not they fit into the context.
    ///
    /// # Errors
    /// The template refuses it.
    pub fn prompt_tokens(&self, input: Input) -> Result<Vec<Token>, Failure> {
        Ok(match input {
            Input::Tokens(tokens) => tokens,
            Input::Raw(text) => self.ready.tokenizer.tokenize(&Prompt::raw(text), true),
            Input::Chat { messages, tools, kwargs } => {
                self.ready.tokenizer.tokenize(&self.render(messages, tools, kwargs)?, true)
            }
        })
    }

    /// Puts a conversation through the chat template. One that ends with an assistant's words is continued there.
    /// `add_generation_prompt` among the variables says whether the prompt ends with the opening of an answer, and
    /// `continue_final_message` set to false that an assistant's last words are a whole message.
    ///
    /// # Errors
    /// The template refuses it.
    pub fn render(
        &self,
        mut messages: Vec<Message>,
        tools: Option<serde_json::Value>,
        mut kwargs: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Prompt, Failure> {
        let add_generation_prompt = kwargs.remove("add_generation_prompt").and_then(|v| v.as_bool()).unwrap_or(true);
        let prefill = kwargs.remove(CONTINUE).is_none_or(|v| v == true);
        let begun = |m: &Message| m.role == Role::Assistant && !m.extras.contains_key("tool_calls");
        let begun = match prefill && messages.len() > 1 && add_generation_prompt && messages.last().is_some_and(begun) {
            true => messages.pop().map(|m| m.content),
            false => None,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).ok().map(CivilTime::from_unix);
        let options = RenderOptions { add_generation_prompt, tools, kwargs, now };
        let prompt = self.template.render(&messages, &options).map_err(|e| Failure::usage(e.to_string()))?;
        Ok(match begun {
            Some(text) => prompt.followed_by(text),
            None => prompt,
        })
    }
}

/// Most bytes of the system messages that the router looks at: enough for instructions and a list of tools, too few for
/// a manual to drown the question.
const ROUTED_SYSTEM: usize = 2_000;

/// What the router reads of a request; none of token ids.
pub(super) fn read_by_router(input: &Input) -> Option<String> {
    match input {
        Input::Chat { messages, .. } => Some(routed_text(messages)),
        Input::Raw(text) => Some(text.clone()),
        Input::Tokens(_) => None,
    }
}

/// What the router reads of a conversation: the system messages, which often name the task, and the last question.
fn routed_text(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages.iter().filter(|m| m.role == Role::System) {
        text.push_str(&message.content);
        text.push('\n');
    }
    text.truncate(text.floor_char_boundary(ROUTED_SYSTEM));
    let question = messages.iter().rfind(|m| m.role == Role::User).map(|m| m.content.as_str());
    text + question.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_reads_instructions_and_the_last_question() {
        let say = |role, content: &str| Message::new(role, content);
        let (system, user, answer) = (Role::System, Role::User, Role::Assistant);
        let long = "\u{e9}".repeat(ROUTED_SYSTEM);
        let kept = format!("{}Q", "\u{e9}".repeat(ROUTED_SYSTEM / 2));
        for (messages, expected) in [
            (vec![say(user, "Q")], "Q"),
            (vec![say(system, "Write SQL."), say(user, "Q")], "Write SQL.\nQ"),
            (vec![say(system, "S"), say(user, "first"), say(answer, "A"), say(user, "last")], "S\nlast"),
            (vec![say(system, &long), say(user, "Q")], kept.as_str()),
            (vec![say(answer, "A")], ""),
            (Vec::new(), ""),
        ] {
            assert_eq!(routed_text(&messages), expected);
        }
    }
}
