//! The full-text index: what of an adapter is in it, and how it is asked.

use rusqlite::{Connection, params};

use super::super::{AdapterName, LibraryError, Metadata};

/// Words of a question that are used; more would cost time and say nothing.
const MOST: usize = 32;

/// The text of an adapter.
fn text_of(name: &AdapterName, metadata: &Metadata) -> String {
    let card = &metadata.card;
    let mut text = name.as_str().to_owned();
    let lines = [&card.title, &card.description, &card.path].into_iter().flatten();
    let words = card.all_tags().into_iter();
    let lists = card.keywords.iter().chain(&card.examples);
    for part in lines.map(String::as_str).chain(words).chain(lists.map(String::as_str)) {
        text.push('\n');
        text.push_str(part);
    }
    text
}

/// Puts an adapter into the index.
pub fn insert(db: &Connection, id: i64, name: &AdapterName, metadata: &Metadata) -> Result<(), LibraryError> {
    db.prepare_cached("INSERT INTO words(rowid, text) VALUES(?1, ?2)")?
        .execute(params![id, text_of(name, metadata)])?;
    Ok(())
}

/// Takes an adapter out of the index.
pub fn delete(db: &Connection, id: i64) -> Result<(), LibraryError> {
    db.prepare_cached("DELETE FROM words WHERE rowid = ?1")?.execute([id])?;
    Ok(())
}

/// The words of a text.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(MOST)
}

/// The question that finds texts with all words of `text`, each as the start of a word; `None` without any word.
/// Words are quoted, so nothing of the query language gets through.
pub fn question(text: &str) -> Option<String> {
    let words: Vec<String> = split(text).map(|word| format!("\"{word}\"*")).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Whether every word of `text` starts a word of an adapter's text. The index also ignores accents; this does not.
pub fn occur(text: &str, name: &AdapterName, metadata: &Metadata) -> bool {
    let whole = text_of(name, metadata).to_lowercase();
    let known: Vec<&str> = whole.split(|c: char| !c.is_alphanumeric()).collect();
    let text = text.to_lowercase();
    let mut wanted = split(&text).peekable();
    wanted.peek().is_some() && wanted.all(|word| known.iter().any(|known| known.starts_with(word)))
}

/// The question that finds texts with any word that starts as one of `text`'s words do.
pub fn question_like(text: &str) -> Option<String> {
    let start = |word: &str| word.chars().take(3).collect::<String>();
    let words: Vec<String> = split(text).map(|word| format!("\"{}\"*", start(word))).collect();
    (!words.is_empty()).then(|| words.join(" OR "))
}
