//! Damaged, cut and foreign files: an error that names the place, never a wrong answer, never a signal.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A library with one segment of three adapters.
fn three() -> (Home, PathBuf, Vec<u8>) {
    let home = home();
    let mut writer = home.library.writer().expect("a writer");
    for seed in 0..3 {
        let name = name(&format!("a{seed}"));
        writer
            .add(&name, &content(seed, 2_500 + seed as usize * 2_000), &card("law", "eu"), OnConflict::Refuse)
            .expect("added");
    }
    writer.commit().expect("committed");
    let path = home.library.dir().join(SEGMENTS).join("00000001.pack");
    let bytes = fs::read(&path).expect("the segment");
    (home, path, bytes)
}

/// Puts other bytes in the place of a file, under another inode.
fn replace(path: &std::path::Path, bytes: &[u8]) {
    fs::remove_file(path).expect("removed");
    fs::write(path, bytes).expect("written");
}

fn reopened(home: &Home) -> Library {
    Library::open_with(home.library.dir(), Access::Read, options()).expect("opened")
}

#[test]
fn a_flipped_byte_anywhere_in_a_segment_is_found_and_the_segment_named() {
    let (home, path, bytes) = three();
    assert_clean(&home.library);
    // Every byte of the parts that are read as structure, and samples of the rest.
    let end = bytes.len();
    let structure = (0..80).chain(4096..4096 + 80).chain(end - 96 - 3 * 48..end);
    for at in structure.chain((0..end).step_by(509)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        replace(&path, &damaged);
        let library = reopened(&home);
        let report = library.verify().expect("looked");
        assert!(!report.is_clean(), "byte {at}");
        assert!(report.problems.iter().all(|problem| problem.file == path), "byte {at}: {:?}", report.problems);
        for seed in 0..3 {
            let wanted = content(seed, 2_500 + seed as usize * 2_000);
            match library.pin(&name(&format!("a{seed}"))) {
                Ok(pinned) => assert_eq!(pinned.check().is_ok(), pinned.bytes() == wanted, "byte {at}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidFile, "byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn flipped_headers_are_refused_before_any_content_is_given_out() {
    let (home, path, bytes) = three();
    let end = bytes.len();
    for at in (0..64).chain(4096..4096 + 64).chain(end - 96..end) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        replace(&path, &damaged);
        let error = reopened(&home).pin(&name("a0")).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidFile, "byte {at}: {error}");
        assert!(error.to_string().contains("00000001.pack"), "{error}");
    }
}

#[test]
fn a_segment_cut_at_any_page_is_an_error_and_never_a_signal() {
    let (home, path, bytes) = three();
    let lengths = (0..bytes.len()).step_by(4096).chain([1, 63, 95, bytes.len() - 1, bytes.len() - 97]);
    for length in lengths {
        replace(&path, &bytes[..length]);
        let library = reopened(&home);
        for seed in 0..3 {
            let error = library.pin(&name(&format!("a{seed}"))).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidFile, "{length}: {error}");
        }
        let report = library.verify().expect("looked");
        assert!(report.problems.iter().any(|problem| problem.file == path), "{length}");
    }
    let mut long = bytes.clone();
    long.extend_from_slice(&[0; 4096]);
    replace(&path, &long);
    assert!(reopened(&home).pin(&name("a0")).is_err());
    fs::remove_file(&path).expect("removed");
    let error = reopened(&home).pin(&name("a0")).expect_err("missing").to_string();
    assert!(error.contains("00000001.pack") && error.contains("missing"), "{error}");
}

#[test]
fn a_segment_cut_while_it_is_mapped_is_refused_by_the_next_pin() {
    let (home, path, bytes) = three();
    home.library.pin(&name("a0")).expect("pinned");
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(4096)).expect("cut");
    let error = home.library.pin(&name("a0")).expect_err("refused");
    assert!(error.to_string().contains(&format!("the catalog says {}", bytes.len())), "{error}");
}

#[test]
fn segments_that_changed_places_are_refused() {
    let home = home();
    put(&home.library, "a", 1);
    put(&home.library, "b", 2);
    let file = |n: u32| home.library.dir().join(SEGMENTS).join(format!("{n:08}.pack"));
    let (first, second) = (fs::read(file(1)).expect("read"), fs::read(file(2)).expect("read"));
    assert_eq!(first.len(), second.len());
    replace(&file(1), &second);
    replace(&file(2), &first);
    let library = reopened(&home);
    assert_eq!(library.pin(&name("a")).expect_err("refused").kind(), ErrorKind::InvalidFile);
    assert_eq!(library.verify().expect("looked").problems.len(), 2);
}

#[test]
fn a_newer_library_is_refused_politely() {
    let home = home();
    let dir = home.library.dir().to_owned();
    fs::write(dir.join("FORMAT"), "smoa library 7\n").expect("written");
    let error = Library::open(&dir, Access::Read).expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::InvalidFile);
    assert!(
        error.to_string().ends_with("has library format 7, this program reads up to 1; use a newer smoa"),
        "{error}"
    );
    fs::write(dir.join("FORMAT"), "smoa library 1\n").expect("written");
    let db = rusqlite::Connection::open(dir.join("catalog.sqlite")).expect("opened");
    db.pragma_update(None, "user_version", 2).expect("set");
    drop(db);
    assert!(matches!(Library::open(&dir, Access::Read), Err(LibraryError::Newer { .. })));
}

#[test]
fn what_is_not_a_library_is_refused_by_name() {
    let home = home();
    let dir = home.library.dir().to_owned();
    let open = |dir: &Path| Library::open(dir, Access::Read).expect_err("refused").to_string();
    assert!(open(&home.dir.path().join("nowhere")).ends_with("it does not exist"));
    assert!(open(home.dir.path()).contains("FORMAT"));
    fs::write(dir.join("holiday.jpg"), "x").expect("written");
    assert!(open(&dir).contains("'holiday.jpg' does not belong into it"));
    let error = Library::create(&dir).expect_err("refused").to_string();
    assert!(error.contains("holiday.jpg"), "{error}");
    fs::remove_file(dir.join("holiday.jpg")).expect("removed");
    fs::write(dir.join(".DS_Store"), "x").expect("written");
    Library::open(&dir, Access::Read).expect("names with a dot belong to the system");
    for text in ["", "smoa library", "smoa library x", "SQLite format 3\0", "smoa library 1 2"] {
        fs::write(dir.join("FORMAT"), text).expect("written");
        assert!(open(&dir).contains("FORMAT does not say"), "{text}");
    }
    assert_clean(&home.library);
    fs::write(dir.join(SEGMENTS).join("notes.txt"), "x").expect("written");
    let report = home.library.verify().expect("looked");
    assert!(report.problems[0].to_string().ends_with("notes.txt: does not belong into a library"));
}

#[test]
fn a_damaged_catalog_is_an_error_and_never_a_wrong_answer() {
    let (home, _, _) = three();
    let dir = home.library.dir().to_owned();
    let Home { library, dir: keep } = home;
    drop(library);
    let file = dir.join("catalog.sqlite");
    // Into the one file, without a log.
    let db = rusqlite::Connection::open(&file).expect("opened");
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("emptied");
    drop(db);
    let bytes = fs::read(&file).expect("read");
    let mut wrong = 0;
    for at in (0..bytes.len()).step_by(211) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x21;
        fs::write(&file, &damaged).expect("written");
        let _ = fs::remove_file(dir.join("catalog.sqlite-shm"));
        let _ = fs::remove_file(dir.join("catalog.sqlite-wal"));
        let Ok(library) = Library::open_with(&dir, Access::Read, options()) else { continue };
        for seed in 0..3 {
            if let Ok(pinned) = library.pin(&name(&format!("a{seed}"))) {
                assert_eq!(pinned.bytes(), content(seed, 2_500 + seed as usize * 2_000), "byte {at}");
                assert_eq!(pinned.entry().metadata, card("law", "eu"), "byte {at}");
            }
        }
        let _ = library.list(&Filter { text: Some("law".into()), ..Filter::default() }, &Page::first(10));
        wrong += usize::from(!library.verify().is_ok_and(|report| report.is_clean()));
    }
    // Most of a small catalog is free space.
    assert!(wrong > 5, "{wrong}");
    for length in (0..bytes.len()).step_by(4096) {
        fs::write(&file, &bytes[..length]).expect("written");
        if let Ok(library) = Library::open_with(&dir, Access::Read, options()) {
            let _ = library.pin(&name("a0"));
            assert!(!library.verify().is_ok_and(|report| report.is_clean()), "cut to {length}");
        }
    }
    drop(keep);
}
