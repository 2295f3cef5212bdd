//! Adding, finding, renaming, describing, removing, restoring, collecting.

use std::time::Duration;

use super::*;

#[test]
fn what_is_added_is_found_byte_for_byte() {
    let home = home();
    let bytes = content(1, 10_001);
    let added = home.library.add(&name("a"), &bytes, &card("law", "eu"), OnConflict::Refuse).expect("added");
    assert_eq!(added.outcome, Outcome::New);
    let pinned = home.library.pin(&name("a")).expect("pinned");
    assert_eq!(pinned.bytes(), bytes);
    assert_eq!(pinned.digest(), added.digest);
    assert_eq!(pinned.bytes().as_ptr() as usize % 64, 0, "tensors stay aligned");
    assert_eq!(pinned.entry().metadata, card("law", "eu"));
    assert_eq!(home.library.find_digest(added.digest).expect("found").name, name("a"));
    assert_clean(&home.library);
}

#[test]
fn a_taken_name_is_treated_as_asked() {
    let home = home();
    let first = put(&home.library, "a", 1);
    let add = |seed, on_conflict| home.library.add(&name("a"), &content(seed, 3_000), &card("law", "us"), on_conflict);
    assert!(matches!(add(2, OnConflict::Refuse), Err(LibraryError::Exists { digest, .. }) if digest == first.digest));
    assert_eq!(add(2, OnConflict::KeepExisting).expect("kept").digest, first.digest);
    assert_eq!(add(1, OnConflict::CompareDigest).expect("the same").outcome, Outcome::Kept);
    assert!(matches!(add(2, OnConflict::CompareDigest), Err(LibraryError::Exists { .. })));
    let wrong = digest(9, 3_000);
    assert!(matches!(add(2, OnConflict::ReplaceIf(wrong)), Err(LibraryError::Changed { .. })));
    let second = add(2, OnConflict::ReplaceIf(first.digest)).expect("replaced");
    assert_eq!(second.outcome, Outcome::Replaced(first.digest));
    let third = add(3, OnConflict::Replace).expect("replaced");
    assert_eq!(home.library.find(&name("a")).expect("found").digest, third.digest);
    assert_eq!(home.library.count(&Filter::default()).expect("counted"), 1);
    assert!(matches!(
        home.library.add(&name("b"), &content(1, 8), &card("x", "y"), OnConflict::ReplaceIf(wrong)),
        Err(LibraryError::NotFound { .. })
    ));
}

#[test]
fn what_is_not_gguf_or_does_not_fit_a_card_is_refused_and_the_writer_goes_on() {
    let home = home();
    let mut writer = home.library.writer().expect("a writer");
    let add = |writer: &mut Writer<'_>, bytes: &[u8], metadata: &Metadata| {
        writer.add(&name("a"), bytes, metadata, OnConflict::Refuse)
    };
    let refused = add(&mut writer, b"PK\x03\x04 a pickle", &Metadata::default()).expect_err("not GGUF");
    assert_eq!(refused.kind(), ErrorKind::InvalidFile);
    let mut bad = card("law", "eu");
    bad.card.keywords = vec![String::new()];
    assert_eq!(add(&mut writer, &content(1, 8), &bad).expect_err("empty word").kind(), ErrorKind::Usage);
    bad.card.keywords = (0..10_000).map(|n| format!("w{n}")).collect();
    let error = add(&mut writer, &content(1, 8), &bad).expect_err("too many words").to_string();
    assert_eq!(error, "keywords: 10000 words, at most 1000 are kept");
    add(&mut writer, &content(1, 8), &card("law", "eu")).expect("added");
    writer.commit().expect("committed");
    assert_eq!(names_of(&home.library, &Filter::default()), ["a"]);
}

#[test]
fn the_same_content_is_stored_once() {
    let home = home();
    put(&home.library, "a", 1);
    let before = segment_files(home.library.dir());
    put(&home.library, "b", 1);
    assert_eq!(segment_files(home.library.dir()), before);
    home.library.remove(&name("a")).expect("removed");
    home.library.gc().expect("collected");
    assert_eq!(home.library.pin(&name("b")).expect("pinned").bytes(), content(1, 3_000));
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    let home = home();
    let mut writer = home.library.writer().expect("a writer");
    for seed in 0..50 {
        let name = name(&format!("a{seed:02}"));
        writer.add(&name, &content(seed, 5_000), &card("law", "eu"), OnConflict::Refuse).expect("added");
    }
    assert_eq!(home.library.count(&Filter::default()).expect("counted"), 0);
    drop(writer);
    assert_eq!(segment_files(home.library.dir()), [""; 0], "undone");
    let before = home.library.generation().expect("a generation");
    let mut writer = home.library.writer().expect("a writer");
    for seed in 0..50 {
        let name = name(&format!("a{seed:02}"));
        writer.add(&name, &content(seed, 5_000), &card("law", "eu"), OnConflict::Refuse).expect("added");
    }
    let generation = writer.commit().expect("committed");
    assert_eq!(home.library.generation().expect("a generation"), generation);
    assert!(generation > before);
    assert_eq!(home.library.count(&Filter::default()).expect("counted"), 50);
    assert!(segment_files(home.library.dir()).len() > 4, "several segments");
    for seed in 0..50 {
        let pinned = home.library.pin(&name(&format!("a{seed:02}"))).expect("pinned");
        assert_eq!(pinned.bytes(), content(seed, 5_000));
        pinned.check().expect("sound");
    }
    assert_clean(&home.library);
}

#[test]
fn a_batch_sees_what_it_did_itself() {
    let home = home();
    let mut writer = home.library.writer().expect("a writer");
    let mut add = |seed| writer.add(&name("a"), &content(seed, 100), &card("law", "eu"), OnConflict::Replace);
    let first = add(1).expect("added").digest;
    assert_eq!(add(2).expect("replaced").outcome, Outcome::Replaced(first));
    writer.rename(&name("a"), &name("b")).expect("renamed");
    writer.remove(&name("b")).expect("removed");
    writer.restore(&name("b")).expect("restored");
    assert_eq!(writer.find(&name("b")).expect("found").digest, digest(2, 100));
    writer.commit().expect("committed");
    assert_eq!(names_of(&home.library, &Filter { tags: vec!["law".into()], ..Filter::default() }), ["b"]);
    home.library.gc().expect("collected");
    assert_eq!(home.library.pin(&name("b")).expect("pinned").bytes(), content(2, 100));
    assert_clean(&home.library);
}

#[test]
fn a_pin_survives_replacement_rename_removal_and_gc() {
    let home = home();
    let old = content(1, 3_000);
    put(&home.library, "a", 1);
    let pinned = home.library.pin(&name("a")).expect("pinned");
    home.library.add(&name("a"), &content(2, 3_000), &card("law", "eu"), OnConflict::Replace).expect("replaced");
    home.library.rename(&name("a"), &name("b")).expect("renamed");
    home.library.remove(&name("b")).expect("removed");
    let report = home.library.gc().expect("collected");
    assert_eq!((report.adapters, report.blobs, report.bytes_after), (2, 2, 0));
    assert_eq!(segment_files(home.library.dir()), [""; 0]);
    assert_eq!(pinned.bytes(), old);
    pinned.check().expect("sound");
    assert!(matches!(home.library.pin_digest(pinned.digest()), Err(LibraryError::NoDigest(_))));
    assert_clean(&home.library);
}

#[test]
fn a_new_name_leaves_nothing_under_the_old_one() {
    let home = home();
    let added = put(&home.library, "contracts-eu", 1);
    put(&home.library, "other", 2);
    assert!(matches!(home.library.rename(&name("contracts-eu"), &name("other")), Err(LibraryError::Exists { .. })));
    let entry = home.library.rename(&name("contracts-eu"), &name("torts")).expect("renamed");
    assert_eq!((entry.id, entry.digest), (added.id, added.digest));
    assert!(matches!(home.library.find(&name("contracts-eu")), Err(LibraryError::NotFound { .. })));
    let text = |text: &str| Filter { text: Some(text.into()), ..Filter::default() };
    assert_eq!(names_of(&home.library, &text("torts")), ["torts"]);
    assert_eq!(names_of(&home.library, &text("contracts")), [""; 0]);
    assert_clean(&home.library);
}

#[test]
fn an_edited_card_is_what_filters_see() {
    let home = home();
    put(&home.library, "a", 1);
    let tagged = |tag: &str| Filter { tags: vec![tag.into()], ..Filter::default() };
    assert_eq!(names_of(&home.library, &tagged("law")), ["a"]);
    let entry = home.library.edit(&name("a"), |card| {
        card.domains = vec!["tax".into()];
        card.tags.push("new".into());
        card.path = None;
    });
    assert_eq!(entry.expect("edited").metadata.card.all_tags(), ["new", "tax"]);
    assert_eq!(names_of(&home.library, &tagged("law")), [""; 0]);
    assert_eq!(names_of(&home.library, &tagged("tax")), ["a"]);
    assert_eq!(home.library.tags(10).expect("tags"), [("new".into(), 1), ("tax".into(), 1)]);
    let refused = home.library.edit(&name("a"), |card| card.tags.push("\n".into()));
    assert_eq!(refused.expect_err("not a word").kind(), ErrorKind::Usage);
    assert_eq!(names_of(&home.library, &tagged("new")), ["a"]);
    assert_clean(&home.library);
}

#[test]
fn a_removed_adapter_comes_back_until_gc() {
    let home = home();
    put(&home.library, "a", 1);
    home.library.remove(&name("a")).expect("removed");
    assert!(matches!(home.library.find(&name("a")), Err(LibraryError::NotFound { .. })));
    assert!(matches!(home.library.remove(&name("a")), Err(LibraryError::NotFound { .. })));
    let removed = Filter { removed: true, ..Filter::default() };
    assert_eq!(names_of(&home.library, &removed), ["a"]);
    assert_clean(&home.library);
    let back = home.library.restore(&name("a")).expect("restored");
    assert_eq!((back.digest, back.removed), (digest(1, 3_000), None));
    assert_eq!(names_of(&home.library, &Filter { tags: vec!["law".into()], ..Filter::default() }), ["a"]);
    home.library.add(&name("a"), &content(2, 3_000), &card("law", "eu"), OnConflict::Replace).expect("replaced");
    assert!(matches!(home.library.restore(&name("a")), Err(LibraryError::Exists { .. })));
    home.library.remove(&name("a")).expect("removed");
    assert_eq!(home.library.restore(&name("a")).expect("the last one").digest, digest(2, 3_000));
    home.library.remove(&name("a")).expect("removed");
    home.library.gc().expect("collected");
    assert!(matches!(home.library.restore(&name("a")), Err(LibraryError::NotFound { .. })));
    assert_clean(&home.library);
}

#[test]
fn gc_gives_bytes_back_and_joins_small_segments() {
    let home = home();
    for seed in 0..12 {
        put(&home.library, &format!("a{seed:02}"), seed);
    }
    assert_eq!(segment_files(home.library.dir()).len(), 12);
    for seed in 0..6 {
        home.library.remove(&name(&format!("a{seed:02}"))).expect("removed");
    }
    let report = home.library.gc().expect("collected");
    assert_eq!((report.adapters, report.blobs, report.segments), (6, 6, 12));
    assert!(report.bytes_after < report.bytes_before / 2, "{report:?}");
    assert_eq!(segment_files(home.library.dir()).len(), 1);
    for seed in 6..12 {
        let pinned = home.library.pin(&name(&format!("a{seed:02}"))).expect("pinned");
        assert_eq!(pinned.bytes(), content(seed, 3_000));
    }
    let again = home.library.gc().expect("collected");
    assert_eq!((again.segments, again.bytes_before), (0, again.bytes_after), "nothing to do");
    assert_clean(&home.library);
}

#[test]
fn uses_are_counted_by_content_and_last() {
    let home = home();
    let digest = put(&home.library, "a", 1).digest;
    let generation = home.library.generation().expect("a generation");
    home.library.record_use(digest, true, Duration::from_millis(30));
    home.library.record_use(digest, false, Duration::from_millis(10));
    let seen = home.library.usage(digest).expect("usage");
    assert_eq!((seen.uses, seen.successes, seen.latency), (2, 1, Duration::from_millis(40)));
    home.library.flush_uses().expect("written");
    home.library.record_use(digest, true, Duration::from_millis(5));
    assert_eq!(home.library.generation().expect("a generation"), generation, "adapters did not change");
    let Home { library, dir } = home;
    drop(library);
    let again = Library::open(&dir.path().join("library"), Access::Read).expect("opened");
    let seen = again.usage(digest).expect("usage");
    assert_eq!((seen.uses, seen.successes), (3, 2), "written when dropped");
    assert!(seen.last_used > 0);
    assert_eq!(again.most_used(5).expect("usage"), [(digest, seen)]);
}

#[test]
fn uses_wait_while_a_writer_is_at_work() {
    let home = home();
    let digest = put(&home.library, "a", 1).digest;
    home.library.record_use(digest, true, Duration::from_millis(30));
    let writer = home.library.writer().expect("a writer");
    assert_eq!(home.library.flush_uses().expect_err("busy").kind(), ErrorKind::Busy);
    drop(writer);
    home.library.flush_uses().expect("written");
    assert_eq!(home.library.usage(digest).expect("usage").uses, 1);
}
