//! From tokens to text: what may be shown, and when an answer is over. Pure.

mod text;

pub use text::{Emitted, TextStream};
