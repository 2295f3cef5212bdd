//! The router: which adapters a request gets, and when it gets none.
//!
//! ```text
//! text -> embed -> vector --+
//!                           +--> index.search(vector, words, gate) -> Evidence --+
//! metadata -> Gate ---------+                                                     +--> decide -> Route
//!                       head (trained on the library's example prompts) -> logs --+
//! ```
//!
//! What stands in this folder is policy and pure: values in, values out, no engine, no disk, no clock. The two
//! mechanisms it names, [`embed`] (text to vectors) and [`index`] (a mapped file of vectors, words and attributes),
//! have folders of their own; [`crate::routing`] puts all of it to work on an adapter library.
//!
//! Ties are broken by digest and nothing is random: the same library and the same text give the same route.

mod cache;
mod confidence;
pub mod embed;
pub mod head;
pub mod index;
pub mod measure;
mod mix;
mod policy;
mod route;
mod score;
mod strategy;

#[cfg(test)]
mod tests;

pub use cache::{CacheStats, DecisionCache, Key};
pub(crate) use confidence::solve;
pub use confidence::{Calibration, Judgement, SIGNALS, Signals};
pub use mix::mix;
pub use policy::{Tuning, decide, default_calibration, rank};
pub use route::{Catalogue, Chosen, Evidence, Facts, Policy, Ranked, Route};
pub use score::{Blend, Rerank, Weights};
pub use strategy::{Strategy, UnknownStrategy};
