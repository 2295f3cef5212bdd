//! What a decode loop does with a matcher: which token to take, when to bring an answer to its end, and how forced
//! text becomes tokens.
//!
//! Pure: a function that draws a token and one that tokenizes are handed in. Nothing here knows an engine, a sampler
//! or a scheduler.

mod choose;
mod forward;

pub use choose::{ChooseError, Chosen, Order, choose};
pub use forward::{Forward, Tokenize, advance, forward};
