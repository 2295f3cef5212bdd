//! What was done can be undone, to the bit; feedback and pairs are kept.

use super::*;
use crate::adapter::AdapterDigest;

/// Two twins become one content under both names.
fn merge(library: &Library) -> Result<u64, LibraryError> {
    let mut writer = library.writer()?;
    let (mut went, mut came) = (Vec::new(), Vec::new());
    for twin in ["twin0", "twin1"] {
        let old = writer.find(&name(twin))?;
        let added = writer.add(&name(twin), &content(77, 3_000), &old.metadata, OnConflict::Replace)?;
        went.push(old.id);
        came.push(added.id);
    }
    let number = writer.note("twin0 and twin1 became one", &went, &came)?;
    writer.commit()?;
    Ok(number)
}

#[test]
fn undo_brings_back_every_bit() {
    let home = home();
    let library = &home.library;
    put(library, "twin0", 1);
    put(library, "twin1", 2);
    library.edit(&name("twin1"), |card| card.tags.push("mine".into())).expect("edited");
    let all = |library: &Library| -> Vec<(Entry, Vec<u8>)> {
        let names = names_of(library, &Filter::default());
        let pinned = names.iter().map(|n| library.pin(&name(n)).expect("pinned"));
        pinned.map(|p| (p.entry().clone(), p.bytes().to_vec())).collect()
    };
    let before = all(library);
    let number = merge(library).expect("merged");
    let merged = all(library);
    assert_eq!(merged[0].1, merged[1].1, "one content under two names");
    assert_eq!(merged[1].0.metadata.card.tags, ["mine"], "words stay");
    assert_clean(library);
    let deed = library.undo(number).expect("undone");
    assert!(deed.undone && deed.went.len() == 2);
    assert_eq!(all(library), before);
    assert_eq!(
        library
            .list(&Filter { tags: vec!["mine".into()], ..Filter::default() }, &Page::first(9))
            .expect("listed")
            .len(),
        1
    );
    assert_clean(library);

    for (number, words) in [(number, "was undone before"), (99, "there is no number 99")] {
        assert!(library.undo(number).expect_err("refused").to_string().contains(words));
    }
    let number = merge(library).expect("merged again");
    assert_eq!(
        library.journal(9).expect("read").iter().map(|d| (d.id, d.undone)).collect::<Vec<_>>(),
        [(number, false), (1, true)]
    );
    library.gc().expect("collected");
    let merged = all(library);
    assert!(library.undo(number).expect_err("forgotten").to_string().contains("gc has forgotten"));
    assert_eq!(all(library), merged, "nothing is changed by what is refused");
    assert_clean(library);
}

#[test]
fn a_name_that_was_taken_since_is_not_overwritten() {
    let home = home();
    let library = &home.library;
    put(library, "a", 1);
    let mut writer = library.writer().expect("a writer");
    let gone = writer.remove(&name("a")).expect("removed");
    let number = writer.note("a is not used", &[gone.id], &[]).expect("noted");
    writer.commit().expect("committed");
    put(library, "a", 2);
    assert!(matches!(library.undo(number), Err(LibraryError::Exists { .. })));
    assert_eq!(library.find(&name("a")).expect("there").digest, digest(2, 3_000));
    library.rename(&name("a"), &name("b")).expect("renamed");
    library.undo(number).expect("undone");
    assert_eq!(library.find(&name("a")).expect("back").digest, digest(1, 3_000));
}

#[test]
fn judged_requests_are_kept_cut_and_forgotten() {
    let home = home();
    let library = &home.library;
    let digest = AdapterDigest::of(b"a");
    assert_eq!(library.judged().expect("read"), []);
    let judged = |good, text: &str| Judged { digest, good, text: text.to_owned() };
    let generation = library.generation().expect("read");
    library.keep_judged(&judged(true, "first")).expect("kept");
    library.keep_judged(&judged(false, &"\u{e9}".repeat(4_000))).expect("kept");
    let kept = library.judged().expect("read");
    assert_eq!((&kept[0], kept[1].good, kept[1].text.len()), (&judged(true, "first"), false, 4_000));
    assert_eq!(library.generation().expect("read"), generation);
    assert!(library.verify().expect("looked").is_clean());
    library.forget_judged().expect("forgotten");
    assert_eq!(library.judged().expect("read"), []);
}

#[test]
fn feedback_and_pairs_are_counted() {
    let home = home();
    let library = &home.library;
    let [a, b, c] = [1, 2, 3].map(|seed| digest(seed, 3_000));
    assert_eq!(
        (library.feedback(a).expect("read"), library.used_with(a, 9).expect("read")),
        (Feedback::default(), vec![])
    );
    let generation = library.generation().expect("read");
    library.record_feedback(&[a, b], true).expect("kept");
    library.record_feedback(&[a], false).expect("kept");
    assert_eq!(library.feedback(a).expect("read"), Feedback { good: 1, bad: 1 });
    assert_eq!(
        (library.feedback(a).expect("read").rate(), library.feedback(c).expect("read").rate()),
        (Some(0.5), None)
    );
    for digests in [vec![b, a], vec![a, b, c], vec![a], vec![a, a]] {
        library.record_uses(&digests, true, std::time::Duration::from_millis(2));
    }
    library.flush_uses().expect("written");
    let pairs: Vec<(AdapterDigest, u64)> = library.used_with(a, 9).expect("read");
    assert_eq!(pairs, [(b, 2), (c, 1)]);
    assert_eq!(library.usage(a).expect("read").uses, 5, "each use counts, pairs aside");
    assert_eq!(library.generation().expect("read"), generation, "statistics are no change");
}
