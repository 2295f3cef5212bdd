//! kill -9 at random: `cargo bench --bench library_torture -- DIR ROUNDS`. A child changes a library and says what it does; the parent kills it and
//! compares what is there with what was said: additions, removals, renames, gc, and what an optimization does (merges, removals
//! with a note in the journal, undoing them). `... -- share DIR [SECONDS]`: one writing and eight reading processes, for a minute unless told otherwise.
use smoa::adapter::AdapterDigest;
use smoa::gguf::{GgufWriter, TensorType};
use smoa::library::{
    Access, AdapterName, ErrorKind, Filter, Library, LibraryError, Metadata, OnConflict, synthetic, synthetic::Numbers,
};
use smoa::optimize::{OptimizeError, apply_merge, apply_prune};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

type State = BTreeMap<String, u64>;

fn content(seed: u64) -> Vec<u8> {
    let mut file = GgufWriter::new();
    file.set("test.seed", seed).expect("set");
    let mut n = Numbers::new(seed);
    let words = 500 + n.below(4_000);
    let data: Vec<u8> = (0..words).flat_map(|_| (n.draw() as u32).to_le_bytes()).collect();
    file.tensor("t", TensorType::F32, &[words], data).expect("tensor");
    file.to_bytes()
}

fn name(n: u64) -> AdapterName {
    AdapterName::new(format!("a{n:02}")).expect("name")
}

/// What an operation does to a state; None if it is refused. `before` is the state before the last operation.
fn apply(state: &State, before: Option<&State>, op: &str) -> Option<State> {
    let words: Vec<&str> = op.split(' ').collect();
    let mut next = state.clone();
    match words[0] {
        "add" => {
            for pair in words[1..].chunks(2) {
                next.insert(pair[0].into(), pair[1].parse().expect("seed"));
            }
        }
        "rm" => drop(next.remove(words[1])?),
        "mv" => {
            if next.contains_key(words[2]) {
                return None;
            }
            let seed = next.remove(words[1])?;
            next.insert(words[2].into(), seed);
        }
        "merge" => {
            for name in &words[1..3] {
                *next.get_mut(*name)? = words[3].parse().expect("seed");
            }
        }
        "prune" => {
            for name in &words[1..3] {
                next.remove(*name)?;
            }
        }
        "undo" => return before.cloned(),
        "gc" => {}
        _ => unreachable!(),
    }
    Some(next)
}

fn child(dir: &Path, seed: u64) {
    let library = Library::open(dir, Access::Write).expect("opened");
    let mut n = Numbers::new(seed);
    let mut out = std::io::stdout();
    let mut say = |text: String| {
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).expect("said");
    };
    say("ready\n".into());
    // The number of the last operation's note.
    let mut deed: Option<u64> = None;
    loop {
        let undoable = deed.take();
        let other = |n: &mut Numbers, one: u64| name((one + 1 + n.below(39)) % 40);
        let op = match n.below(14) {
            _ if undoable.is_some() && n.below(2) == 0 => "undo".to_owned(),
            9..11 => {
                let one = n.below(40);
                format!("merge {} {} {}", name(one), other(&mut n, one), n.below(1_000_000))
            }
            11..13 => {
                let one = n.below(40);
                format!("prune {} {}", name(one), other(&mut n, one))
            }
            0..3 => format!("add {} {}", name(n.below(40)), n.below(1_000_000)),
            3..5 => (0..1 + n.below(12))
                .fold("add".into(), |t, _| format!("{t} {} {}", name(n.below(40)), n.below(1_000_000))),
            5..7 => format!("rm {}", name(n.below(40))),
            7..9 => format!("mv {} {}", name(n.below(40)), name(n.below(40))),
            _ => "gc".into(),
        };
        say(format!("try {op}\n"));
        let words: Vec<&str> = op.split(' ').collect();
        let at = |n: usize| AdapterName::new(words[n]).expect("name");
        let done = match words[0] {
            "add" => (|| {
                let mut writer = library.writer()?;
                for pair in words[1..].chunks(2) {
                    let bytes = content(pair[1].parse().expect("seed"));
                    writer.add(&AdapterName::new(pair[0])?, &bytes, &Metadata::default(), OnConflict::Replace)?;
                }
                writer.commit().map(drop)
            })(),
            "rm" => library.remove(&at(1)).map(drop),
            "mv" => {
                if words[1] == words[2] {
                    Err(smoa::library::LibraryError::Exists { name: at(1), digest: AdapterDigest::of(b"") })
                } else {
                    library.rename(&at(1), &at(2)).map(drop)
                }
            }
            "merge" | "prune" => (|| {
                let two = [library.find(&at(1))?, library.find(&at(2))?];
                let two = [&two[0], &two[1]];
                let noted = match words[0] {
                    "merge" => {
                        let bytes = content(words[3].parse().expect("seed"));
                        apply_merge(&library, &two, &bytes, (&synthetic::facts(1), 0.0), "merged")
                    }
                    _ => apply_prune(&library, &two, "removed"),
                };
                let refused = |e| match e {
                    OptimizeError::Library(e) => e,
                    other => panic!("{other}"),
                };
                deed = Some(noted.map_err(refused)?);
                Ok::<(), LibraryError>(())
            })(),
            "undo" => library.undo(undoable.expect("a deed")).map(drop),
            _ => library.gc().map(drop),
        };
        match done {
            Ok(()) => say("did\n".into()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Usage) => say("no\n".into()),
            Err(e) => {
                say(format!("failed {e}\n"));
                return;
            }
        }
    }
}

fn observed(library: &Library) -> BTreeMap<String, AdapterDigest> {
    library.walk(&Filter::default()).map(|e| e.expect("sound")).map(|e| (e.name.to_string(), e.digest)).collect()
}

fn digests(state: &State) -> BTreeMap<String, AdapterDigest> {
    state.iter().map(|(name, seed)| (name.clone(), AdapterDigest::of(&content(*seed)))).collect()
}

fn torture(dir: &Path, rounds: u64) {
    drop(Library::create(dir).expect("created"));
    let mut state = State::new();
    // Notes of the journal, and how many of them were undone.
    let mut notes = (0, 0);
    let noted = |notes: &mut (usize, usize), op: &str| {
        notes.0 += usize::from(op.starts_with("merge") || op.starts_with("prune"));
        notes.1 += usize::from(op == "undo");
    };
    let mut n = Numbers::new(std::process::id().into());
    let (mut ops, mut undecided, mut taken) = (0_u64, 0_u64, 0_u64);
    let mut left = 0;
    let start = Instant::now();
    for round in 0..rounds {
        let mut kid = Command::new(std::env::current_exe().expect("me"))
            .args(["child", dir.to_str().expect("path"), &(n.draw() >> 1).to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let mut lines = BufReader::new(kid.stdout.take().expect("stdout"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("ready");
        std::thread::sleep(Duration::from_micros(n.below(80_000)));
        kid.kill().expect("killed");
        kid.wait().expect("gone");
        let mut trying: Option<(State, String)> = None;
        // The state before the last operation, where it can be undone.
        let mut before: Option<State> = None;
        for line in lines.lines().map_while(Result::ok) {
            if let Some(op) = line.strip_prefix("try ") {
                trying = Some((apply(&state, before.as_ref(), op).unwrap_or_else(|| state.clone()), op.to_owned()));
            } else if line == "did" {
                let (next, op) = trying.take().expect("tried");
                let undoable = op.starts_with("merge") || op.starts_with("prune");
                before = Some(std::mem::replace(&mut state, next)).filter(|_| undoable);
                noted(&mut notes, &op);
                ops += 1;
            } else if line == "no" {
                (trying, before) = (None, None);
                ops += 1;
            } else {
                panic!("round {round}: child said {line}");
            }
        }
        let reader = Library::open(dir, Access::Read).expect("opened after kill");
        let seen = observed(&reader);
        if seen != digests(&state) {
            let (after, op) = trying.clone().expect("nothing was being tried, and yet the state differs");
            assert_eq!(seen, digests(&after), "round {round}");
            state = after;
            noted(&mut notes, &op);
            taken += 1;
        }
        // A note is there exactly where what it tells was done.
        let journal = reader.journal(usize::MAX >> 1).expect("read");
        assert_eq!((journal.len(), journal.iter().filter(|deed| deed.undone).count()), notes, "round {round}");
        undecided += u64::from(trying.is_some());
        let report = reader.verify().expect("looked");
        assert!(report.is_clean(), "round {round}: {:?}", report.problems);
        left += u64::from(report.leftovers > 0);
        drop(Library::open(dir, Access::Write).expect("opened for writing"));
        assert_eq!(reader.verify().expect("looked").leftovers, 0, "round {round}");
    }
    println!(
        "{rounds} kills, {ops} operations acknowledged, killed within an operation {undecided} times ({taken} of them committed), {left} times with files left to sweep, {} adapters, {} merges and removals in the journal, {} of them undone, {:.1} s: all states as expected",
        state.len(),
        notes.0,
        notes.1,
        start.elapsed().as_secs_f64()
    );
}

fn share(dir: &Path, seconds: u64) {
    let library = Library::create(dir).expect("created");
    for n in 0..40 {
        library.add(&name(n), &content(n), &Metadata::default(), OnConflict::Replace).expect("added");
    }
    let kids: Vec<_> = (0..8)
        .map(|_| {
            Command::new(std::env::current_exe().expect("me"))
                .args(["read", dir.to_str().expect("p"), &seconds.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .expect("child")
        })
        .collect();
    let (start, mut n, mut writes, mut gcs) = (Instant::now(), Numbers::new(5), 0, 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        library
            .add(&name(n.below(40)), &content(n.below(1_000)), &Metadata::default(), OnConflict::Replace)
            .expect("added");
        writes += 1;
        if n.below(20) == 0 {
            library.gc().expect("gc");
            gcs += 1;
        }
    }
    let mut reads = 0_u64;
    for kid in kids {
        let out = kid.wait_with_output().expect("ended");
        assert!(out.status.success());
        reads += String::from_utf8_lossy(&out.stdout).trim().parse::<u64>().expect("count");
    }
    assert!(library.verify().expect("looked").is_clean());
    println!(
        "{seconds} s: {writes} replacements and {gcs} gcs by one process, {reads} pins (each hashed) by eight others, no error"
    );
}

fn read(dir: &Path, seconds: u64) {
    let library = Library::open(dir, Access::Read).expect("opened");
    let (start, mut n, mut reads) = (Instant::now(), Numbers::new(std::process::id().into()), 0_u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let pinned = library.pin(&name(n.below(40))).expect("pinned");
        pinned.check().expect("whole");
        reads += 1;
    }
    println!("{reads}");
}

fn main() {
    let args: Vec<String> = std::env::args().filter(|arg| arg != "--bench").collect();
    if args.len() < 3 {
        println!("usage: DIR ROUNDS, or share DIR [SECONDS]; nothing done");
        return;
    }
    match args[1].as_str() {
        "child" => child(Path::new(&args[2]), args[3].parse().expect("seed")),
        "read" => read(Path::new(&args[2]), args[3].parse().expect("seconds")),
        "share" => share(Path::new(&args[2]), args.get(3).map_or(60, |seconds| seconds.parse().expect("seconds"))),
        "op" => {
            // one addition, for fault injection from outside
            let library = match Library::open(Path::new(&args[2]), Access::Write) {
                Ok(l) => l,
                Err(e) => {
                    println!("open {:?} {e}", e.kind());
                    std::process::exit(4)
                }
            };
            let seed: u64 = args[3].parse().expect("seed");
            let done = if seed == 0 {
                library.gc().map(drop)
            } else {
                library.add(&name(seed % 40), &content(seed), &Metadata::default(), OnConflict::Replace).map(drop)
            };
            drop(library);
            match done {
                Ok(()) => println!("did"),
                Err(e) => {
                    println!("{:?} {e}", e.kind());
                    std::process::exit(4)
                }
            }
        }
        "state" => {
            let l = Library::open(Path::new(&args[2]), Access::Read).expect("opened");
            let r = l.verify().expect("looked");
            println!("{} {:?}", r.is_clean(), observed(&l));
            if !r.is_clean() {
                println!("{:?}", r.problems);
                std::process::exit(1)
            }
        }
        _ => torture(Path::new(&args[1]), args[2].parse().expect("rounds")),
    }
}
