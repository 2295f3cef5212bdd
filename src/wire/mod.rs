//! JSON requests and results, with llama-server's field names: the edge between text and types.
//!
//! Core types know no serde; they convert here. Used by the pipe (`--jsonl`, `--output json`) and the server; no
//! terminal, no files, no HTTP.

mod anthropic;
mod asked;
mod calls;
mod deltas;
mod embeddings;
mod fields;
mod native;
mod ollama;
mod openai;
mod parse;
mod problem;
mod responses;
mod result;
mod shape;
mod strict;

pub use anthropic::{Messages, messages_to_chat};
pub use asked::{Call, MAX_ANSWERS, Telling, TemplateCaps, chat, completion};
pub use deltas::{Delta, Parts, Split, Splitter};
pub use embeddings::{
    MAX_TEXTS, RankCall, VectorCall, VectorRoute, normalise, ranking, ranking_value, vectors, vectors_value,
};
pub use fields::FieldError;
pub use native::{Native, Part, prompts, settings};
pub use ollama::{Ollama, OllamaRoute, ollama_to_chat};
pub use openai::{Chat, Completions};
pub use parse::{Asked, LineError, metadata, parse, parse_object};
pub use problem::{Problem, anthropic_error, context_error};
pub use responses::{Responses, responses_to_chat};
pub use result::{cut, error_value, result_value, route_value, with_compositions, with_route};
pub use shape::{Frame, Head, Shape, adapters_value};
pub use strict::strict_object;
