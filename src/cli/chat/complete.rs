//! What Tab offers. Pure but for the folder it is given to look into.

use std::path::{Path, PathBuf};

use super::command::{self, TABLE, Takes};
use super::{settings, words};
use crate::grammar::format_names;

/// Something Tab offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// As listed.
    pub display: String,
    /// As typed.
    pub replacement: String,
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is a folder.
    pub folder: bool,
}

/// Most entries of a folder looked at.
const MAX_ENTRIES: usize = 10_000;

/// What could stand where `line` ends, and the byte from which it would stand. `look` lists a folder.
pub fn complete(line: &str, look: impl Fn(&Path) -> Vec<Entry>) -> (usize, Vec<Offer>) {
    let Some(typed) = line.strip_prefix('/') else {
        return (0, Vec::new());
    };
    let Some(at) = typed.find(char::is_whitespace) else {
        return (0, commands(typed));
    };
    let (Some(row), from) = (command::find(&typed[..at]), 1 + at) else {
        return (0, Vec::new());
    };
    let arguments = &line[from..];
    let split = words::split(arguments);
    let ends_blank = arguments.ends_with(char::is_whitespace) && split.last().is_none_or(|w| w.open.is_none());
    let (start, text, open, index) = match split.last() {
        Some(w) if !ends_blank => (w.start, w.text.as_str(), w.open, split.len() - 1),
        _ => (arguments.len(), "", None, split.len()),
    };
    let mut offers = match row.takes {
        Takes::Nothing => Vec::new(),
        Takes::Formats if index == 0 => words_from(format_names().iter().copied().chain(["off"]), text),
        Takes::Settings if index == 0 => words_from(settings::TABLE.iter().map(|s| s.name), text),
        Takes::Settings if index == 1 => words_from(["default"], text),
        Takes::Formats | Takes::Settings => Vec::new(),
        Takes::Files(ending, others) => {
            let others = words_from(others.iter().copied().filter(|_| index == 0), text);
            files(text, ending, open, look).into_iter().chain(others).collect()
        }
    };
    offers.sort_by(|a, b| a.display.cmp(&b.display));
    (from + start, offers)
}

fn commands(typed: &str) -> Vec<Offer> {
    let matching =
        TABLE.iter().flat_map(|row| row.names.iter().map(move |n| (row, *n))).filter(|(_, n)| n.starts_with(typed));
    let offer = |(row, name): (&command::Row, &str)| {
        let blank = if row.arguments.is_empty() { "" } else { " " };
        Offer { display: format!("/{name}"), replacement: format!("/{name}{blank}") }
    };
    matching.map(offer).collect()
}

fn words_from<'a>(names: impl IntoIterator<Item = &'a str>, typed: &str) -> Vec<Offer> {
    let matching = names.into_iter().filter(|n| n.starts_with(typed));
    matching.map(|n| Offer { display: n.to_string(), replacement: n.to_string() }).collect()
}

/// Files and folders that begin like `typed`, with the folder that `typed` names kept as it was typed.
fn files(typed: &str, ending: &str, open: Option<char>, look: impl Fn(&Path) -> Vec<Entry>) -> Vec<Offer> {
    let cut = typed.rfind('/').map_or(0, |i| i + 1);
    let (folder, begins) = typed.split_at(cut);
    let path = if folder.is_empty() { PathBuf::from(".") } else { expand(folder) };
    let fits = |e: &Entry| {
        let right_kind = e.folder || ending.is_empty() || Path::new(&e.name).extension().is_some_and(|x| x == ending);
        let hidden = e.name.starts_with('.') && !begins.starts_with('.');
        e.name.starts_with(begins) && right_kind && !hidden && !e.name.contains(char::is_control)
    };
    let offer = |e: Entry| {
        let shown = if e.folder { format!("{}/", e.name) } else { e.name };
        let whole = format!("{folder}{shown}");
        let replacement = open.map_or_else(|| words::escape(&whole), |quote| format!("{quote}{whole}"));
        Offer { display: shown, replacement }
    };
    look(&path).into_iter().filter(fits).map(offer).collect()
}

/// The entries of a folder of this machine; none when it cannot be read.
pub fn look(folder: &Path) -> Vec<Entry> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let entries = entries.flatten().take(MAX_ENTRIES);
    let entry =
        |e: std::fs::DirEntry| Some(Entry { name: e.file_name().into_string().ok()?, folder: e.path().is_dir() });
    entries.filter_map(entry).collect()
}

/// The path with a leading `~/` as the home folder.
pub fn expand(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(rest), Ok(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(folder: &Path) -> Vec<Entry> {
        let (files, folders): (&[&str], &[&str]) = match folder.to_str() {
            Some(".") => (&["sql.gguf", "my model.gguf", "notes.txt", ".hidden.gguf", "bad\u{1b}.gguf"], &["sub"]),
            Some("sub/") => (&["deep.gguf"], &[]),
            _ => (&[], &[]),
        };
        let entry = |folder| move |n: &&str| Entry { name: (*n).into(), folder };
        files.iter().map(entry(false)).chain(folders.iter().map(entry(true))).collect()
    }

    #[test]
    fn tab_offers_what_can_follow() {
        let table: [(&str, usize, &[&str]); 17] = [
            ("hello", 0, &[]),
            ("/re", 0, &["/regen", "/retry", "/regex ", "/read "]),
            ("/q", 0, &["/quit"]),
            ("/nothing x", 0, &[]),
            ("/undo ", 6, &[]),
            ("/lora ", 6, &["my\\ model.gguf", "none", "off", "sql.gguf", "sub/"]),
            ("/lora s", 6, &["sql.gguf", "sub/"]),
            ("/lora sql.gguf ", 15, &["my\\ model.gguf", "sql.gguf", "sub/"]),
            ("/lora sub/", 6, &["sub/deep.gguf"]),
            ("/lora my\\ m", 6, &["my\\ model.gguf"]),
            ("/lora \"my m", 6, &["\"my model.gguf"]),
            ("/lora .h", 6, &[".hidden.gguf"]),
            ("/read n", 6, &["notes.txt"]),
            ("/format se", 8, &["sentiment"]),
            ("/format o", 8, &["off"]),
            ("/set top_", 5, &["top_k", "top_n_sigma", "top_p"]),
            ("/set top_k d", 11, &["default"]),
        ];
        for (line, start, expected) in table {
            let (at, offers) = complete(line, fake);
            let texts: Vec<&str> = offers.iter().map(|o| o.replacement.as_str()).collect();
            assert_eq!((at, texts.as_slice()), (start, expected), "{line}");
        }
    }
}
