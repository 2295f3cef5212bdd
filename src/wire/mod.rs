//! JSON requests and results, with llama-server's field names: the edge between text and types.
//!
//! Core types know no serde; they convert here. Used by the pipe (`--jsonl`, `--output json`); no terminal, no files.

mod fields;
mod parse;
mod result;

pub use fields::FieldError;
pub use parse::{Asked, LineError, metadata, parse};
pub use result::{cut, error_value, result_value, route_value, with_route};
