//! Several handles, threads and processes at one library.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::adapter::AdapterDigest;

fn another(home: &Home, access: Access) -> Library {
    Library::open_with(home.library.dir(), access, options()).expect("opened")
}

#[test]
fn a_reader_sees_what_another_handle_commits() {
    let home = home();
    let reader = another(&home, Access::Read);
    let before = reader.generation().expect("a generation");
    put(&home.library, "a", 1);
    assert!(reader.generation().expect("a generation") > before);
    assert_eq!(reader.pin(&name("a")).expect("pinned").bytes(), content(1, 3_000));
    home.library.remove(&name("a")).expect("removed");
    assert!(reader.pin(&name("a")).is_err());
}

#[test]
fn a_second_writer_waits_and_then_is_told() {
    let home = home();
    let second = another(&home, Access::Write);
    let writer = home.library.writer().expect("a writer");
    let start = Instant::now();
    let error = second.writer().expect_err("busy");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(start.elapsed() >= Duration::from_millis(40));
    assert_eq!(home.library.writer().expect_err("one per handle, too").kind(), ErrorKind::Busy);
    std::thread::scope(|scope| {
        let patient = Options { busy_timeout: Duration::from_secs(20), ..options() };
        let third = Library::open_with(home.library.dir(), Access::Write, patient).expect("opened while one writes");
        let waiting =
            scope.spawn(move || third.add(&name("late"), &content(5, 10), &card("x", "y"), OnConflict::Refuse));
        std::thread::sleep(Duration::from_millis(30));
        drop(writer);
        waiting.join().expect("ended").expect("added");
    });
    assert_eq!(names_of(&home.library, &Filter::default()), ["late"]);
}

#[test]
fn a_reader_may_not_write() {
    let home = home();
    let reader = another(&home, Access::Read);
    let error = reader.add(&name("a"), &content(1, 8), &card("x", "y"), OnConflict::Refuse).expect_err("refused");
    assert!(matches!(error, LibraryError::ReadOnly { .. }));
    assert!(reader.gc().is_err() && reader.remove(&name("a")).is_err() && reader.writer().is_err());
}

#[test]
fn readers_are_not_disturbed_by_writers_and_gc() {
    let home = home();
    for seed in 0..8 {
        put(&home.library, &format!("fixed{seed}"), seed);
    }
    let stop = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4_u64)
            .map(|reader| {
                let (library, stop) = (another(&home, Access::Read), &stop);
                scope.spawn(move || {
                    let mut numbers = synthetic::Numbers::new(reader);
                    let mut reads = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let seed = numbers.below(8) as u32;
                        let pinned = library.pin(&name(&format!("fixed{seed}"))).expect("pinned");
                        assert_eq!(pinned.bytes(), content(seed, 3_000));
                        // One name that is replaced all the time: always wholly one content or the other.
                        if let Ok(pinned) = library.pin(&name("moving")) {
                            pinned.check().expect("whole");
                        }
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let start = Instant::now();
        let mut round = 100;
        while start.elapsed() < Duration::from_millis(1_500) {
            home.library
                .add(&name("moving"), &content(round, 2_000), &card("x", "y"), OnConflict::Replace)
                .expect("replaced");
            if round % 5 == 0 {
                home.library.gc().expect("collected");
            }
            round += 1;
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("no error")).sum::<u64>()
    });
    assert!(reads > 100, "{reads}");
    assert_clean(&home.library);
}

#[test]
fn segments_mapped_at_once_are_bounded_and_pins_are_not() {
    let home = home();
    for seed in 0..12 {
        put(&home.library, &format!("a{seed:02}"), seed);
    }
    let pins: Vec<Pinned> =
        (0..12).map(|seed| home.library.pin(&name(&format!("a{seed:02}"))).expect("pinned")).collect();
    for (seed, pinned) in pins.iter().enumerate() {
        assert_eq!(pinned.bytes(), content(seed as u32, 3_000));
    }
    assert_eq!(home.library.maps.len(), options().mapped_segments);
}

#[test]
fn an_interrupted_creation_is_finished_by_the_next() {
    let dir = temporary();
    let path = dir.path().join("library");
    drop(Library::create(&path).expect("created"));
    std::fs::remove_file(path.join("FORMAT")).expect("removed");
    assert!(Library::open(&path, Access::Read).is_err());
    put(&Library::create(&path).expect("finished"), "a", 1);
    let again = Library::create(&path).expect("opened: it is there already");
    assert_eq!(names_of(&again, &Filter::default()), ["a"]);
}

#[test]
fn uses_are_written_off_the_path_of_requests() {
    let home = home();
    let (used, other) = (content(1, 100), content(2, 100));
    for (text, bytes) in [("used", &used), ("other", &other)] {
        home.library.add(&name(text), bytes, &Metadata::default(), OnConflict::Refuse).expect("added");
    }
    let before = home.library.generation().expect("read");
    let recorder = UseRecorder::new(&home.dir.path().join("library"));
    let digest = AdapterDigest::of(&used);
    for success in [true, true, false] {
        recorder.record(vec![digest], success, Duration::from_millis(7));
    }
    drop(recorder);
    let usage = home.library.usage(digest).expect("read");
    assert_eq!((usage.uses, usage.successes, usage.latency), (3, 2, Duration::from_millis(21)));
    assert_eq!(home.library.usage(AdapterDigest::of(&other)).expect("read"), Usage::default());
    assert_eq!(home.library.generation().expect("read"), before, "statistics are no change of adapters");
}

#[test]
fn uses_never_wait_for_a_writer_nor_fail_without_a_library() {
    let home = home();
    home.library.add(&name("a"), &content(1, 100), &Metadata::default(), OnConflict::Refuse).expect("added");
    let writer = home.library.writer().expect("a writer at work");
    let start = Instant::now();
    let recorder = UseRecorder::new(&home.dir.path().join("library"));
    for _ in 0..10_000 {
        recorder.record(vec![AdapterDigest::of(b"a")], true, Duration::ZERO);
    }
    let noted = start.elapsed();
    drop(recorder);
    assert!(noted < Duration::from_secs(2), "10,000 notes took {noted:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "the end waits a moment, not for the writer");
    drop(writer);
    UseRecorder::new(&home.dir.path().join("nothing")).record(vec![AdapterDigest::of(b"a")], true, Duration::ZERO);
}

#[test]
fn what_a_router_chose_is_fetched_ahead() {
    let home = home();
    let bytes = content(1, 30_000);
    home.library.add(&name("a"), &bytes, &Metadata::default(), OnConflict::Refuse).expect("added");
    let there = AdapterDigest::of(&bytes);
    assert_eq!(home.library.prefetch(&[there, AdapterDigest::of(b"gone"), there]), 2);
    assert_eq!(home.library.pin(&name("a")).expect("pinned").bytes(), bytes);
}
