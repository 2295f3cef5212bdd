//! Bad inputs by the rows of the reliability table (M1-M21, A1-A7), valid inputs, random damage, and a kept corpus.
//!
//! Each file starts from a sound file made by [`sample`], damages one thing, and asks for the field and the reason.

mod adapter;
mod corpus;
mod fuzz;
mod header;
mod kinds;
mod model;
pub(crate) mod sample;
mod shard;
mod vocab;
mod write;

use super::{GgufError, GgufErrorKind};

/// What a refusal must say: the field, a part of the reason, and the kind.
struct Refusal(&'static str, &'static str, GgufErrorKind);

/// Asserts that a check refused, and how it said so.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(label: &str, result: Result<T, GgufError>, expected: Refusal) {
    let Refusal(field, reason, kind) = expected;
    let error = match result {
        Ok(facts) => panic!("{label}: accepted as {facts:?}"),
        Err(error) => error,
    };
    assert_eq!(error.field, field, "{label}: {error}");
    assert!(error.reason.contains(reason), "{label}: {error}\nexpected reason: {reason}");
    assert_eq!(error.kind, kind, "{label}: {error}");
    assert!(!error.to_string().chars().any(char::is_control), "{label}: {error:?}");
}
