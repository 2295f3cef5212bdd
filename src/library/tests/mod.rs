//! The laws of a library. Each file holds one kind.

mod catalog;
mod changing;
mod crash;
mod damage;
mod disk;
mod journal;
mod sharing;

use std::path::Path;

use super::store::SEGMENTS;
use super::*;
use crate::gguf::{GgufWriter, TensorType};

/// A library in a directory that goes away with it.
pub(super) struct Home {
    pub library: Library,
    pub dir: tempfile::TempDir,
}

/// Small segments, and no patience: tests do not wait for each other.
pub(super) fn options() -> Options {
    Options {
        busy_timeout: std::time::Duration::from_millis(50),
        segment_bytes: 64 << 10,
        mapped_segments: 4,
        ..Options::default()
    }
}

/// A temporary directory, in memory where there is such a place: these tests sync thousands of files.
pub(super) fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

pub(super) fn home() -> Home {
    let dir = temporary();
    let library = Library::create_with(&dir.path().join("library"), options()).expect("created");
    Home { library, dir }
}

pub(super) fn name(text: &str) -> AdapterName {
    AdapterName::new(text).expect("a name")
}

/// A sound GGUF file of `bytes` and a little more, which differs by `seed`.
pub(super) fn content(seed: u32, bytes: usize) -> Vec<u8> {
    let mut file = GgufWriter::new();
    file.set("general.type", "adapter").expect("set").set("test.seed", seed).expect("set");
    let data: Vec<u8> = (0..bytes.next_multiple_of(4)).map(|at| (at as u32 ^ seed) as u8).collect();
    file.tensor("t", TensorType::F32, &[data.len() as u64 / 4], data).expect("tensor");
    file.to_bytes()
}

pub(super) fn digest(seed: u32, bytes: usize) -> crate::adapter::AdapterDigest {
    crate::adapter::AdapterDigest::of(&content(seed, bytes))
}

pub(super) fn card(domain: &str, region: &str) -> Metadata {
    let card = Card {
        description: Some(format!("Knows {domain} well")),
        domains: vec![domain.into()],
        path: Some(format!("{domain}/general")),
        specialization: Some(Specialization::Domain),
        attributes: [("region".to_owned(), region.to_owned())].into(),
        ..Card::default()
    };
    Metadata { card, measured: Measured { parameters: 5_000, base: Some("b1".into()), ..Measured::default() } }
}

pub(super) fn put(library: &Library, text: &str, seed: u32) -> Added {
    library.add(&name(text), &content(seed, 3_000), &card("law", "eu"), OnConflict::Refuse).expect("added")
}

pub(super) fn names_of(library: &Library, filter: &Filter) -> Vec<String> {
    let names = library.walk(filter).map(|entry| entry.expect("sound").name.to_string());
    names.collect()
}

pub(super) fn segment_files(dir: &Path) -> Vec<String> {
    let items = std::fs::read_dir(dir.join(SEGMENTS)).expect("the folder of segments");
    let mut names: Vec<String> =
        items.map(|item| item.expect("an item").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

pub(super) fn assert_clean(library: &Library) {
    let report = library.verify().expect("looked");
    assert!(report.is_clean(), "{:?}", report.problems);
}
