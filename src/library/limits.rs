//! Caps on what a card may hold, so that one adapter cannot fill a catalog, a terminal or an index.

use super::{Card, LibraryError};

/// Bytes of a sidecar file.
pub const SIDECAR_BYTES: usize = 256 << 10;
/// Bytes of a tag, a keyword, the name of an attribute or of a figure.
pub const WORD_BYTES: usize = 64;
/// Tags of one kind.
pub const TAGS: usize = 64;
/// Keywords.
pub const KEYWORDS: usize = 1_000;
/// Example prompts.
pub const EXAMPLES: usize = 512;
/// Bytes of a description or an example prompt.
pub const TEXT_BYTES: usize = 16 << 10;
/// Bytes of a title, a licence, an origin, the value of an attribute.
pub const LINE_BYTES: usize = 1 << 10;
/// Attributes, and figures.
pub const PAIRS: usize = 64;
/// Levels of a path.
pub const LEVELS: usize = 8;

/// A refused field.
pub(super) fn refuse(field: &str, reason: impl AsRef<str>) -> LibraryError {
    let one_line = |text: &str| -> String {
        let words: Vec<&str> = text.split(char::is_whitespace).filter(|word| !word.is_empty()).collect();
        words.join(" ").chars().take(300).filter(|c| !c.is_control()).collect()
    };
    LibraryError::Field { field: one_line(field), reason: one_line(reason.as_ref()) }
}

/// A tag or keyword: not empty, short, printable, without spaces at its ends.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= WORD_BYTES && text.trim() == text && !text.chars().any(char::is_control)
}

/// Checks every field of a card.
pub(super) fn check_card(card: &Card) -> Result<(), LibraryError> {
    let words = |field: &str, list: &[String], most: usize| {
        if list.len() > most {
            return Err(refuse(field, format!("{} words, at most {most} are kept", list.len())));
        }
        match list.iter().find(|word| !is_word(word)) {
            Some(bad) => Err(refuse(field, bad_word(bad))),
            None => Ok(()),
        }
    };
    words("tags", &card.tags, TAGS)?;
    words("domains", &card.domains, TAGS)?;
    words("skills", &card.skills, TAGS)?;
    words("tasks", &card.tasks, TAGS)?;
    words("keywords", &card.keywords, KEYWORDS)?;
    words("default_format", card.default_format.as_slice(), 1)?;
    let lines = [("title", &card.title), ("licence", &card.licence), ("origin", &card.origin)];
    for (field, line) in lines {
        check_text(field, line.as_deref().unwrap_or_default(), LINE_BYTES)?;
    }
    check_text("description", card.description.as_deref().unwrap_or_default(), TEXT_BYTES)?;
    if card.examples.len() > EXAMPLES {
        return Err(refuse("examples", format!("{} prompts, at most {EXAMPLES} are kept", card.examples.len())));
    }
    for example in &card.examples {
        check_text("examples", example, TEXT_BYTES)?;
    }
    if card.parents.len() > TAGS {
        return Err(refuse("parents", format!("{} parents, at most {TAGS} are kept", card.parents.len())));
    }
    for parent in &card.parents {
        check_text("parents", parent, LINE_BYTES)?;
    }
    check_path(card.path.as_deref())?;
    check_pairs(card)
}

fn bad_word(word: &str) -> String {
    let shown: String = word.chars().take(WORD_BYTES).flat_map(char::escape_debug).collect();
    format!("'{shown}' is not a word of 1 to {WORD_BYTES} printable bytes")
}

fn check_text(field: &str, text: &str, most: usize) -> Result<(), LibraryError> {
    if text.len() > most {
        return Err(refuse(field, format!("{} bytes, at most {most} are kept", text.len())));
    }
    if text.contains('\0') {
        return Err(refuse(field, "holds a NUL character"));
    }
    Ok(())
}

fn check_path(path: Option<&str>) -> Result<(), LibraryError> {
    let Some(path) = path else { return Ok(()) };
    let levels: Vec<&str> = path.split('/').collect();
    if levels.len() > LEVELS || !levels.iter().all(|level| is_word(level)) {
        return Err(refuse("path", format!("is not 1 to {LEVELS} words with '/' between them: domain/specialty/task")));
    }
    Ok(())
}

fn check_pairs(card: &Card) -> Result<(), LibraryError> {
    if card.attributes.len() > PAIRS || card.evaluation.len() > PAIRS {
        return Err(refuse("attributes, evaluation", format!("at most {PAIRS} of each are kept")));
    }
    for (key, value) in &card.attributes {
        if !is_word(key) || key.contains('=') {
            return Err(refuse("attributes", bad_word(key)));
        }
        check_text("attributes", value, LINE_BYTES)?;
    }
    for (key, value) in &card.evaluation {
        if !is_word(key) || key.contains('=') {
            return Err(refuse("evaluation", bad_word(key)));
        }
        if !value.is_finite() {
            return Err(refuse("evaluation", format!("'{key}' is {value}, not a finite number")));
        }
    }
    Ok(())
}
