//! Damaged and half-written files.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::tempdir;

use super::model::{DIM, EMBEDDER, Fact, fact};
use super::{open, put};
use crate::router::index::{Change, Index, IndexError, Query};

fn file(dir: &std::path::Path, end: &str) -> PathBuf {
    let files = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.to_string_lossy().ends_with(end)).max().expect("a file")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_torn_log_holds_the_whole_records_in_front(batches in 1..6_usize, cut in 0.0..1.0_f64, garbage in prop::collection::vec(any::<u8>(), 0..40)) {
        let dir = tempdir().expect("a temporary directory");
        let mut lengths = vec![20];
        {
            let index = open(dir.path());
            for batch in 0..batches as u64 {
                put(&index, &[fact(2 * batch, 1), fact(2 * batch + 1, 1)]);
                lengths.push(fs::metadata(file(dir.path(), ".log")).expect("there").len());
            }
        }
        let log = file(dir.path(), ".log");
        let bytes = fs::read(&log).expect("read");
        let at = 20 + ((bytes.len() - 20) as f64 * cut) as usize;
        fs::write(&log, [&bytes[..at], &garbage].concat()).expect("written");
        let whole = lengths.iter().rposition(|length| *length <= at as u64).expect("the header is whole");
        let index = open(dir.path());
        prop_assert_eq!(index.len(), 2 * whole);
        prop_assert_eq!(index.generation(), whole as u64);
        // The next writer cuts the rest off, and everybody sees what it wrote.
        let other = open(dir.path());
        put(&index, &[fact(99, 1)]);
        for index in [&index, &other, &open(dir.path())] {
            index.renew().expect("read");
            prop_assert_eq!(index.len(), 2 * whole + 1);
            prop_assert!(index.contains(&fact(99, 1).digest));
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0.0..1.0_f64, bit in 0..8_u8, which in 0..3_usize) {
        let dir = tempdir().expect("a temporary directory");
        {
            let index = open(dir.path());
            put(&index, &(0..40).map(|n| fact(n, 1)).collect::<Vec<Fact>>());
            index.compact().expect("compacted");
            put(&index, &(30..50).map(|n| fact(n, 2)).collect::<Vec<Fact>>());
        }
        let path = file(dir.path(), [".seg", ".log", "MANIFEST"][which]);
        let mut bytes = fs::read(&path).expect("read");
        let at = (bytes.len() as f64 * at) as usize;
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).expect("written");
        if let Ok(index) = Index::open(dir.path(), EMBEDDER, DIM) {
            for gate in super::gates(1) {
                let vector = super::vector(5);
                let found = index.search(&Query { vector: &vector, text: "word1 topic2 unique7", gate: &gate, limit: 9 });
                prop_assert!(found.len() <= 18);
            }
            let _ = index.apply(&[Change::Put(fact(77, 1).profile())]);
            let _ = index.compact();
        }
    }
}

#[test]
fn what_a_killed_writer_leaves_is_swept_away() {
    let dir = tempdir().expect("a temporary directory");
    let index = open(dir.path());
    put(&index, &[fact(1, 1)]);
    for name in ["sealing.tmp", "merging.tmp", "00000099.seg", "00000098.log", "MANIFEST.tmp"] {
        fs::write(dir.path().join(name), b"half").expect("written");
    }
    let index = open(dir.path());
    assert_eq!(index.len(), 1);
    index.compact().expect("compacted");
    assert_eq!(index.len(), 1);
    let left = fs::read_dir(dir.path()).expect("listed").count();
    assert_eq!(left, 5, "manifest, one segment, one log, two locks");
}

#[test]
fn a_segment_cut_short_is_refused_by_name() {
    let dir = tempdir().expect("a temporary directory");
    {
        let index = open(dir.path());
        put(&index, &[fact(1, 1)]);
        index.compact().expect("compacted");
    }
    let path = file(dir.path(), ".seg");
    let bytes = fs::read(&path).expect("read");
    fs::File::create(&path).and_then(|mut file| file.write_all(&bytes[..bytes.len() - 64])).expect("written");
    let error = Index::open(dir.path(), EMBEDDER, DIM).expect_err("refused");
    assert!(matches!(error, IndexError::Damaged { .. }) && error.to_string().contains(".seg"), "{error}");
}

/// The directory that a writer to be killed is to write to.
const WRITER: &str = "SMOA_TEST_INDEX_WRITER";

/// Run by the test below in a process of its own: puts pairs in for ever, and says when each is promised to last.
#[test]
fn a_writer() {
    let Some(dir) = std::env::var_os(WRITER) else { return };
    let index = open(std::path::Path::new(&dir));
    for pair in index.len() as u64 / 2.. {
        put(&index, &[fact(2 * pair, 1), fact(2 * pair + 1, 1)]);
        writeln!(std::io::stderr(), "promised {pair}").expect("said");
        if pair % 5 == 0 {
            index.compact().expect("compacted");
        }
    }
}

#[test]
fn what_was_promised_outlives_kill_9_and_nothing_is_seen_half() {
    let dir = tempdir().expect("a temporary directory");
    let name = format!("{}::a_writer", module_path!().split_once("::").expect("a path").1);
    let reader = open(dir.path());
    let mut promised = None;
    for round in 0..6 {
        let mut command = std::process::Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", &name, "--nocapture"]).env(WRITER, dir.path());
        let mut child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().expect("started");
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("piped")));
        let mut pairs =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("promised ")?.parse::<u64>().ok());
        promised = pairs.by_ref().take(4 + 3 * round).last().or(promised);
        child.kill().expect("killed");
        child.wait().expect("gone");
        reader.renew().expect("read");
        for index in [&reader, &open(dir.path())] {
            let last = promised.expect("something was promised");
            assert!(index.len() as u64 >= 2 * (last + 1), "{} of {last}", index.len());
            assert_eq!(index.len() % 2, 0, "half a pair");
            assert!((0..2 * (last + 1)).all(|number| index.contains(&fact(number, 1).digest)));
        }
    }
}
