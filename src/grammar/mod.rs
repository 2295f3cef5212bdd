//! Guarantees the form of an answer: which tokens may come next, and when the text is complete.
//!
//! A [`Source`] (a ready format, GBNF text, a JSON Schema or a regular expression) is compiled once into a
//! [`Compiled`] grammar; every request takes its own [`Matcher`] from it and asks, token by token, what is
//! allowed. Everything fails closed: what cannot be enforced is an error before the first token, and a
//! [`MatcherError`] ends the request. There is no path on which a text continues unconstrained.
//!
//! What this module does not know: the engine, the model, the disk, the network, the clock. All it is given is a
//! [`Vocabulary`]: the tokens of a model as bytes.
//!
//! Two engines stand behind the one interface. GBNF is parsed (`gbnf`), turned into a network of byte automata
//! (`network`) and run by our own matcher (`engine`); regular expressions take the same way (`regex`). JSON Schemas are
//! rewritten (`schema`) and then enforced by the crate `llguidance` (`guided`); what that leaves open, if the request
//! allows it, is checked when the answer is complete (`report`).

mod compiled;
mod compiler;
mod deferred;
mod engine;
mod error;
mod export;
mod formats;
mod gbnf;
mod guided;
mod limits;
mod marker;
mod mask;
mod matcher;
mod network;
mod path;
mod plan;
pub mod policy;
mod regex;
mod report;
mod schema;
pub mod tools;
mod trial;
mod trie;
mod unique;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use compiled::{Compiled, MatchResult};
pub use compiler::{Compiler, Source};
pub use deferred::{Hurry, Trigger};
pub use error::{GrammarError, MatcherError, Place, SyntaxError};
pub use export::gbnf_from_schema;
pub use formats::{Format, Parameterised, format_text, get as format, names as format_names, parameterised};
pub use limits::Limits;
pub use marker::Marker;
pub use mask::TokenMask;
pub use matcher::Matcher;
pub use report::{SchemaReport, SchemaViolation};
pub use schema::{KeyOrder, SchemaMode, SchemaNote};
pub use vocabulary::Vocabulary;
