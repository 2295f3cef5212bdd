//! The one error of the checker: which field, and why. Safe to print whatever the file held.

use std::fmt::Write as _;

/// Characters of a name or text that an error repeats before it is cut.
const MAX_SHOWN: usize = 160;

/// A file was refused. Displays as one line, `FIELD: REASON`; callers prefix the file name.
///
/// Both texts are escaped when the error is made: no control character, line break or text-direction mark of the file
/// reaches a terminal or a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct GgufError {
    /// What was wrong: a metadata key, a tensor name, or a part of the header such as `magic`.
    pub field: String,
    /// Why it was refused, with the values that matter.
    pub reason: String,
    /// The class of the refusal, for callers that choose a hint or an exit code by it.
    pub kind: GgufErrorKind,
}

/// Classes of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GgufErrorKind {
    /// Not a GGUF file at all.
    NotGguf,
    /// The file ends before something it promises.
    Truncated,
    /// A format version, tensor type, tokenizer or architecture that this build of llama.cpp lacks.
    Unsupported,
    /// Beyond a cap in [`limits`](super::limits).
    TooLarge,
    /// The structure breaks the format: overlaps, duplicates, bad text.
    Malformed,
    /// A key is stored with another type than llama.cpp reads.
    WrongType,
    /// A key or tensor that is required is absent.
    Missing,
    /// A value that cannot work.
    Invalid,
    /// Two files do not belong together: adapter and model, or parts of a split model.
    Mismatch,
    /// A sound file of another kind: an adapter where a model is expected, an embedding model, a projector.
    WrongKind,
}

impl GgufError {
    /// Makes an error, escaping and shortening both texts.
    pub(super) fn new(kind: GgufErrorKind, field: impl AsRef<str>, reason: impl AsRef<str>) -> Self {
        Self { field: escape(field.as_ref(), MAX_SHOWN * 2), reason: escape(reason.as_ref(), MAX_SHOWN * 2), kind }
    }
}

/// Makes a text of a file printable on one line: control characters and direction marks become `\u{..}`, and it is
/// cut after `most` characters.
pub fn escape(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (shown, c) in text.chars().enumerate() {
        if shown == most {
            out.push_str("...");
            break;
        }
        match c {
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// Text of the file for use inside a message: lossy UTF-8, cut to a length that leaves room for the reason.
pub(super) fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..MAX_SHOWN).unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < bytes.len() {
        text.push_str("...");
    }
    text
}
