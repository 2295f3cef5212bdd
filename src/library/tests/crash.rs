//! Faults at every operation in turn: what was committed stays, what was not leaves no trace.

use std::collections::BTreeMap;
use std::fs;

use super::disk::{Fault, Faulty, Loss};
use super::*;
use crate::adapter::AdapterDigest;

/// What is expected to be in a library.
type State = BTreeMap<String, AdapterDigest>;

fn state(library: &Library) -> State {
    let entries = library.walk(&Filter::default()).map(|entry| entry.expect("sound"));
    entries.map(|entry| (entry.name.to_string(), entry.digest)).collect()
}

/// Everything in the library can be read and is what its digest says.
fn assert_whole(library: &Library, context: &str) {
    let report = library.verify().expect("looked");
    assert!(report.is_clean(), "{context}: {:?}", report.problems);
    for name in names_of(library, &Filter::default()) {
        let pinned = library.pin(&super::name(&name)).expect(context);
        pinned.check().expect(context);
    }
}

/// One step of a story.
type Step = fn(&Library) -> Result<(), LibraryError>;

/// Every kind of change, one after the other.
const STORY: [Step; 11] = [
    |library| {
        let mut writer = library.writer()?;
        for seed in 0..9 {
            let name = name(&format!("many{seed:02}"));
            writer.add(&name, &content(seed, 9_000), &card("law", "eu"), OnConflict::Refuse)?;
        }
        writer.commit().map(drop)
    },
    |library| library.add(&name("one"), &content(100, 3_000), &card("law", "eu"), OnConflict::Refuse).map(drop),
    |library| library.add(&name("one"), &content(101, 3_000), &card("law", "us"), OnConflict::Replace).map(drop),
    |library| library.rename(&name("many03"), &name("other")).map(drop),
    |library| library.edit(&name("other"), |card| card.tags.push("t".into())).map(drop),
    |library| library.remove(&name("many00")).map(drop),
    |library| library.restore(&name("many00")).map(drop),
    |library| {
        // As an optimization does: two become one content, the journal tells it, all in one transaction.
        let mut writer = library.writer()?;
        let (mut went, mut came) = (Vec::new(), Vec::new());
        for twin in ["many01", "many02"] {
            let old = writer.find(&name(twin))?;
            let new = writer.add(&name(twin), &content(200, 5_000), &old.metadata, OnConflict::Replace)?;
            went.push(old.id);
            came.push(new.id);
        }
        writer.note("two became one", &went, &came)?;
        writer.commit().map(drop)
    },
    |library| library.undo(1).map(drop),
    |library| {
        let mut writer = library.writer()?;
        for seed in 0..5 {
            writer.remove(&name(&format!("many{:02}", seed + 4)))?;
        }
        writer.commit().map(drop)
    },
    |library| library.gc().map(drop),
];

/// Tells the story on a disk with a fault. The states after which each step had been acknowledged, and how the
/// first failing step failed.
fn tell(dir: &Path, disk: &Faulty) -> (State, State, Option<LibraryError>) {
    let library = Library::open_on(Box::new(disk.clone()), dir, Access::Write, options());
    let library = match library {
        Ok(library) => library,
        Err(error) => return (State::new(), State::new(), Some(error)),
    };
    let model = Library::create_with(&dir.with_extension("model"), options()).expect("created");
    for step in STORY {
        let before = state(&model);
        let done = step(&library);
        step(&model).expect("a healthy disk");
        if let Err(error) = done {
            return (before, state(&model), Some(error));
        }
    }
    let after = state(&model);
    (after.clone(), after, None)
}

fn fresh() -> (tempfile::TempDir, std::path::PathBuf) {
    let home = temporary();
    let dir = home.path().join("library");
    drop(Library::create_with(&dir, options()).expect("created"));
    (home, dir)
}

#[test]
fn power_lost_at_any_operation_loses_nothing_committed_and_leaves_nothing_half_done() {
    for loss in [Loss::Everything, Loss::Zeros, Loss::Torn, Loss::Nothing] {
        let mut crashes = 0;
        for at in 0.. {
            let (_home, dir) = fresh();
            let disk = Faulty::at(at, Fault::Crash);
            let (before, after, _) = tell(&dir, &disk);
            if !disk.crashed() {
                break;
            }
            crashes += 1;
            disk.lose(loss);
            let context = format!("{loss:?} at operation {at}");
            let reader = Library::open_with(&dir, Access::Read, options()).expect(&context);
            let found = state(&reader);
            // The power may have gone after the commit and before the answer.
            assert!(found == before || found == after, "{context}: {found:?}");
            assert_whole(&reader, &context);
            let writer = Library::open_with(&dir, Access::Write, options()).expect(&context);
            assert_eq!(writer.verify().expect("looked").leftovers, 0, "{context}: swept");
            assert!(!segment_files(&dir).iter().any(|name| name.ends_with(".tmp")), "{context}");
            put(&writer, "afterwards", 500);
            writer.gc().expect(&context);
            assert_whole(&writer, &context);
            assert_eq!(state(&writer).len(), found.len() + 1, "{context}");
        }
        assert!(crashes > 40, "{loss:?}: {crashes} operations");
    }
}

#[test]
fn a_full_or_failing_disk_at_any_operation_leaves_the_old_state_whole() {
    for fault in [Fault::Full, Fault::Io] {
        for at in 0.. {
            let (_home, dir) = fresh();
            let disk = Faulty::at(at, fault);
            let (before, after, error) = tell(&dir, &disk);
            if disk.operations() <= at {
                break;
            }
            let context = format!("{fault:?} at operation {at}");
            let reader = Library::open_with(&dir, Access::Read, options()).expect(&context);
            let found = state(&reader);
            match error {
                // A removal may fail without harm: it is made up for at the next opening.
                None => assert_eq!(found, after, "{context}"),
                Some(error) => {
                    assert_eq!(error.kind(), ErrorKind::Disk, "{context}: {error}");
                    assert_eq!(found, before, "{context}");
                }
            }
            assert_whole(&reader, &context);
            drop(Library::open_with(&dir, Access::Write, options()).expect(&context));
            assert_eq!(reader.verify().expect("looked").leftovers, 0, "{context}");
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more() {
    let mut poisoned = 0;
    for at in 0.. {
        let (_home, dir) = fresh();
        let disk = Faulty::at(at, Fault::Io);
        let library = Library::open_on(Box::new(disk.clone()), &dir, Access::Write, options()).expect("opened");
        let add = |seed: u32| {
            library.add(&name(&format!("a{seed}")), &content(seed, 3_000), &card("x", "y"), OnConflict::Refuse)
        };
        let first = add(1);
        if disk.operations() <= at {
            break;
        }
        let error = first.expect_err("refused");
        let sync = error.to_string().starts_with("fsync ");
        let second = add(2);
        if sync {
            poisoned += 1;
            assert!(matches!(second, Err(LibraryError::Poisoned { .. })), "{second:?}");
            assert!(library.remove(&name("a1")).is_err() && library.gc().is_err());
            assert_eq!(state(&library).len(), 0, "reading goes on");
        } else {
            second.expect("a failed write alone does no harm");
        }
        let again = Library::open_with(&dir, Access::Write, options()).expect("opened again");
        put(&again, "a3", 3);
        assert_whole(&again, "opened again");
    }
    assert_eq!(poisoned, 2, "the segment and its directory");
}

#[test]
fn files_of_a_killed_writer_are_swept_away_and_strangers_are_not() {
    let (_home, dir) = fresh();
    let segments = dir.join(SEGMENTS);
    for file in ["00000007.pack.tmp", "00000009.pack", "keep.txt"] {
        fs::write(segments.join(file), "x").expect("written");
    }
    drop(Library::open_with(&dir, Access::Read, options()).expect("opened"));
    assert_eq!(segment_files(&dir).len(), 3, "a reader takes nothing away");
    let library = Library::open_with(&dir, Access::Write, options()).expect("opened");
    assert_eq!(segment_files(&dir), ["keep.txt"]);
    put(&library, "a", 1);
    assert_eq!(segment_files(&dir), ["00000010.pack", "keep.txt"], "numbers are not given twice");
}

#[test]
fn files_of_a_writer_at_work_are_not_swept_away() {
    let (_home, dir) = fresh();
    let library = Library::open_with(&dir, Access::Write, options()).expect("opened");
    let mut writer = library.writer().expect("a writer");
    for seed in 0..30 {
        let name = name(&format!("a{seed}"));
        writer.add(&name, &content(seed, 9_000), &card("x", "y"), OnConflict::Refuse).expect("added");
    }
    let before = segment_files(&dir);
    assert!(before.len() > 2, "{before:?}");
    drop(Library::open_with(&dir, Access::Write, options()).expect("opened beside it"));
    assert_eq!(segment_files(&dir), before);
    writer.commit().expect("committed");
    assert_whole(&library, "afterwards");
}
