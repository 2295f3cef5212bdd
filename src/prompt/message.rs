//! A message of a conversation, as a chat template sees it.

use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

/// Who speaks.
///
/// A closed set: templates write control tokens with the role inside (`<|user|>`), so a role is
/// trusted text and must not come from a user unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool the model called.
    Tool,
}

impl Role {
    /// The role as it is spelled in requests and templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        [Role::System, Role::User, Role::Assistant, Role::Tool]
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or_else(|| UnknownRole { name: name.chars().take(40).collect() })
    }
}

/// A role no template is asked to render.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("role {name:?} is not one of system, user, assistant, tool")]
pub struct UnknownRole {
    /// The role as it was given, cut to 40 characters.
    pub name: String,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// Further fields a template may read: `name`, `tool_calls`, `tool_call_id`,
    /// `reasoning_content`. Fields named `role` or `content` here are ignored.
    pub extras: Map<String, Value>,
}

impl Message {
    /// A message with no further fields.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), extras: Map::new() }
    }

    /// The same message with one further field.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.extras.insert(field.to_owned(), value);
        self
    }
}
