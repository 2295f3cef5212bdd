//! Turns a list of messages into the text a model was trained to read, with the chat template
//! found in its file.
//!
//! Two promises. The template is a program somebody else wrote: it gets a bounded number of steps
//! and a bounded amount of memory (`meter`, `limits`), and what it cannot finish is an error. And
//! text of a user never becomes a control token: a [`Prompt`] keeps apart what the template wrote
//! and the control-token spellings that came in with a message (`provenance`).
//!
//! Knows no tokens, no files and no clock: control-token spellings and the time come from
//! outside. Turning the pieces of a [`Prompt`] into tokens is the engine's.

mod builtin;
mod civil;
mod error;
mod limits;
mod message;
mod meter;
mod paint;
mod pieces;
mod printing;
mod provenance;
mod spellings;
mod template;
#[cfg(test)]
mod tests;

pub use civil::CivilTime;
pub use error::TemplateError;
pub use message::{Message, Role, UnknownRole};
pub use pieces::{Piece, Prompt};
pub use template::{ChatTemplate, RenderOptions, SpecialTokens};
