//! Lists, filters, changes, suggestions, cards.

use super::*;
use crate::gguf::Gguf;

fn filled() -> Home {
    let home = home();
    let mut writer = home.library.writer().expect("a writer");
    for (seed, (domain, region)) in
        [("law", "eu"), ("law", "us"), ("medicine", "eu"), ("cooking", "eu"), ("law", "eu")].iter().enumerate()
    {
        let name = name(&format!("{domain}-{region}-{seed}"));
        writer.add(&name, &content(seed as u32, 100), &card(domain, region), OnConflict::Refuse).expect("added");
    }
    writer.commit().expect("committed");
    home
}

#[test]
fn filters_hold_all_at_once_and_say_the_same_in_memory() {
    let home = filled();
    let base = Filter::default();
    let word = |text: &str| Some(text.to_owned());
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    let region = |text: &str| vec![("region".to_owned(), text.to_owned())];
    let table: Vec<(Filter, &[&str])> = vec![
        (base.clone(), &["cooking-eu-3", "law-eu-0", "law-eu-4", "law-us-1", "medicine-eu-2"]),
        (Filter { tags: tags(&["law"]), ..base.clone() }, &["law-eu-0", "law-eu-4", "law-us-1"]),
        (Filter { tags: tags(&["law"]), attributes: region("eu"), ..base.clone() }, &["law-eu-0", "law-eu-4"]),
        (Filter { tags: tags(&["law", "cooking"]), ..base.clone() }, &[]),
        (Filter { tags: tags(&["Law"]), ..base.clone() }, &[]),
        (Filter { tags: tags(&["'; DROP TABLE adapter; --"]), ..base.clone() }, &[]),
        (Filter { path: word("law"), ..base.clone() }, &["law-eu-0", "law-eu-4", "law-us-1"]),
        (Filter { path: word("medicine/general/"), ..base.clone() }, &["medicine-eu-2"]),
        (Filter { path: word("medic"), ..base.clone() }, &[]),
        (Filter { prefix: word("law-eu"), ..base.clone() }, &["law-eu-0", "law-eu-4"]),
        (Filter { prefix: word("%"), ..base.clone() }, &[]),
        (Filter { text: word("KNOWS medic"), ..base.clone() }, &["medicine-eu-2"]),
        (Filter { text: word("\"law\" OR NOT (cooking*"), ..base.clone() }, &[]),
        (Filter { text: word("*^\"'"), ..base.clone() }, &[]),
        (Filter { text: word("law"), attributes: region("us"), ..base.clone() }, &["law-us-1"]),
        (
            Filter { granularity: Some(Granularity::Nano), prefix: word("l"), ..base.clone() },
            &["law-eu-0", "law-eu-4", "law-us-1"],
        ),
        (Filter { granularity: Some(Granularity::Small), ..base.clone() }, &[]),
        (Filter { specialization: Some(Specialization::Task), ..base.clone() }, &[]),
        (Filter { base: word("b1"), path: word("cooking"), ..base.clone() }, &["cooking-eu-3"]),
        (Filter { base: word("b2"), ..base.clone() }, &[]),
        (Filter { removed: true, ..base.clone() }, &[]),
    ];
    let all: Vec<Entry> = home.library.walk(&base).collect::<Result<_, _>>().expect("listed");
    for (filter, expected) in table {
        assert_eq!(names_of(&home.library, &filter), expected, "{filter:?}");
        assert_eq!(home.library.count(&filter).expect("counted"), expected.len() as u64, "{filter:?}");
        let accepted = all.iter().filter(|entry| filter.accepts(entry)).count();
        assert_eq!(accepted, expected.len(), "{filter:?}");
    }
}

#[test]
fn a_long_list_comes_in_pages_without_gaps() {
    let home = home();
    let count = 100_000_u32;
    let mut writer = home.library.writer().expect("a writer");
    // Two contents are enough: names are listed.
    let contents = [content(1, 64), content(2, 64)];
    for n in 0..count {
        let metadata = if n % 1_000 == 0 { card("rare", "eu") } else { card("law", "eu") };
        let name = name(&format!("n{:06}", u64::from(n) * 7_919 % 100_000));
        writer.add(&name, &contents[n as usize % 2], &metadata, OnConflict::Refuse).expect("added");
    }
    writer.commit().expect("committed");
    let mut seen = 0;
    let mut last = String::new();
    for entry in home.library.walk(&Filter { tags: vec!["law".into()], ..Filter::default() }) {
        let name = entry.expect("sound").name.to_string();
        assert!(name > last, "{name} after {last}");
        last = name;
        seen += 1;
    }
    assert_eq!(seen, count - count / 1_000);
    let rare = Filter { tags: vec!["rare".into()], ..Filter::default() };
    let first = home.library.list(&rare, &Page::first(60)).expect("listed");
    let after = Page { after: first.last().map(|entry| entry.name.clone()), limit: 60 };
    let second = home.library.list(&rare, &after).expect("listed");
    assert_eq!((first.len(), second.len()), (60, 40));
    assert!(first.last().map(|e| &e.name) < second.first().map(|e| &e.name));
    assert_eq!(home.library.count(&Filter::default()).expect("counted"), u64::from(count));
}

/// An index of one's own, kept by the changes alone.
#[derive(Default)]
struct Follower {
    cursor: Cursor,
    known: std::collections::BTreeMap<EntryId, String>,
}

impl Follower {
    fn follow(&mut self, library: &Library) -> Vec<String> {
        loop {
            let Changes { changes, next, start_again } = library.changes(self.cursor, 3).expect("changes");
            self.cursor = next;
            if start_again {
                self.known.clear();
                continue;
            }
            let full = changes.len() == 3;
            for change in changes {
                match change {
                    Change::Present(entry) => {
                        self.known.insert(entry.id, entry.name.to_string());
                    }
                    Change::Gone(id, _) => {
                        self.known.remove(&id);
                    }
                }
            }
            if !full {
                let mut names: Vec<String> = self.known.values().cloned().collect();
                names.sort_unstable();
                return names;
            }
        }
    }
}

#[test]
fn whoever_follows_the_changes_knows_the_library() {
    let home = filled();
    let (mut eager, mut lazy) = (Follower::default(), Follower::default());
    let all = |home: &Home| names_of(&home.library, &Filter::default());
    assert_eq!(eager.follow(&home.library), all(&home));
    lazy.follow(&home.library);
    let steps: [fn(&Library); 8] = [
        |library| drop(library.remove(&name("law-eu-0"))),
        |library| drop(library.rename(&name("law-us-1"), &name("zz"))),
        |library| drop(library.gc()),
        |library| drop(library.add(&name("zz"), &content(77, 10), &card("x", "y"), OnConflict::Replace)),
        |library| drop(library.restore(&name("law-eu-0"))),
        |library| drop(library.edit(&name("law-eu-4"), |card| card.tags.push("t".into()))),
        |library| drop(library.remove(&name("cooking-eu-3"))),
        |library| drop(library.gc()),
    ];
    for step in steps {
        let before = home.library.generation().expect("a generation");
        step(&home.library);
        let _ = before;
        assert_eq!(eager.follow(&home.library), all(&home));
    }
    assert_eq!(lazy.follow(&home.library), all(&home), "even after gc forgot what was removed");
    let quiet = home.library.changes(eager.cursor, 10).expect("changes");
    assert!(quiet.changes.is_empty() && quiet.next == eager.cursor && !quiet.start_again);
}

#[test]
fn an_unknown_name_is_answered_with_names_like_it() {
    let home = filled();
    let error = home.library.pin(&name("law-eu-9")).expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.starts_with("no adapter 'law-eu-9' in the library; did you mean 'law-eu-0', 'law-eu-4'"), "{text}");
    let near =
        |text: &str| home.library.suggest(text).expect("names").iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(near("Medicin-eu-2").first().map(String::as_str), Some("medicine-eu-2"));
    assert_eq!(near("eu-cooking"), [""; 0]);
    assert_eq!(near("xyzzy"), [""; 0]);
    assert_eq!(near(""), [""; 0]);
}

#[test]
fn a_sidecar_is_read_and_its_mistakes_are_named() {
    let card = Card::from_toml(
        "format = 1\ntitle = \"T\"\nspecialization = \"domain\"\ntier = \"heavy\"\npath = \"law/tax/review\"\n\
         domains = [\"law\"]\nkeywords = [\"vat\"]\ndefault_format = \"json\"\n\
         [attributes]\nregion = \"eu\"\n[evaluation]\naccuracy = 0.9\nshots = 5\n",
    )
    .expect("read");
    assert_eq!(card.specialization, Some(Specialization::Domain));
    assert_eq!(card.evaluation.get("shots"), Some(&5.0));
    let refused = |text: &str| Card::from_toml(text).expect_err(text).to_string();
    assert_eq!(
        refused("format = 1\nkeyword = []\n"),
        "keyword: is not a key of a sidecar file; did you mean 'keywords'?"
    );
    assert_eq!(refused("title = \"x\"\n"), "format: is missing; write 'format = 1'");
    assert_eq!(refused("format = 2\n"), "format: 2 is not known, this program reads 1");
    assert!(refused("format = 1\ntier = \"light\"\n").contains("ultralight"));
    assert!(refused("format = 1\nkeywords = [\"\"]\n").starts_with("keywords: '' is not a word"));
    assert!(refused("format = 1\n[evaluation]\na = nan\n").starts_with("evaluation: 'a' is NaN"));
    assert!(refused("format = 1\npath = \"a//b\"\n").starts_with("path: "));
    assert!(!refused("format = \u{1b}[31m").contains('\u{1b}'));
    assert!(refused(&"#".repeat(300_000)).starts_with("sidecar: 300000 bytes"));
}

#[test]
fn every_field_of_a_card_is_a_key_of_sidecars_and_wins_over_the_next() {
    let full = Card {
        title: Some("t".into()),
        description: Some("d".into()),
        specialization: Some(Specialization::Style),
        tier: Some(Tier::Heavy),
        path: Some("p".into()),
        tags: vec!["a".into()],
        domains: vec!["b".into()],
        skills: vec!["c".into()],
        tasks: vec!["d".into()],
        keywords: vec!["e".into()],
        examples: vec!["f".into()],
        attributes: [("g".to_owned(), "h".to_owned())].into(),
        default_format: Some("json".into()),
        licence: Some("MIT".into()),
        evaluation: [("i".to_owned(), 0.5)].into(),
        parents: vec!["j".into()],
        origin: Some("k".into()),
    };
    let json = serde_json::to_value(&full).expect("written");
    let mut keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut fields = Card::FIELDS;
    keys.sort_unstable();
    fields.sort_unstable();
    assert_eq!(keys, fields);
    assert_eq!(Card::default().over(full.clone()), full);
    assert_eq!(full.clone().over(Card { title: Some("other".into()), ..Card::default() }), full);
    let metadata = Metadata { card: full, measured: Measured::default() };
    let text = metadata.to_json().expect("written");
    assert!(text.starts_with("{\"format\":1,"), "{text}");
    assert_eq!(Metadata::from_json(&text), Ok(metadata));
    assert!(Metadata::from_json(&text.replace("\"format\":1", "\"format\":2")).is_err());
}

#[test]
fn a_file_describes_itself() {
    let mut file = GgufWriter::new();
    let set = |file: &mut GgufWriter<'_>, key: &str, value: &str| drop(file.set(key, value).map(|_| ()));
    set(&mut file, "general.name", "Tax helper");
    set(&mut file, "general.license", "apache-2.0");
    set(&mut file, "adapter.lora.task_name", "review");
    set(&mut file, "smoa.description", "ours");
    set(&mut file, "general.description", "theirs");
    set(&mut file, "smoa.specialization", "task");
    file.set("general.tags", &["lora", "", "tax"][..]).expect("set");
    file.set("smoa.attributes", &["region=eu"][..]).expect("set");
    file.set("smoa.evaluation", &["accuracy=0.75"][..]).expect("set");
    let bytes = file.to_bytes();
    let card = Card::from_gguf(&Gguf::read(&bytes).expect("sound")).expect("read");
    assert_eq!(card.title.as_deref(), Some("Tax helper"));
    assert_eq!(card.description.as_deref(), Some("ours"));
    assert_eq!(card.all_tags(), ["lora", "review", "tax"]);
    assert_eq!(card.attributes.get("region").map(String::as_str), Some("eu"));
    assert_eq!(card.evaluation.get("accuracy"), Some(&0.75));
    file.set("smoa.tier", 7_u32).expect("set");
    let bytes = file.to_bytes();
    let refused = Card::from_gguf(&Gguf::read(&bytes).expect("sound")).expect_err("wrong type").to_string();
    assert!(refused.starts_with("smoa.tier: "), "{refused}");
}

#[test]
fn an_adapter_of_another_base_is_refused_with_both_fingerprints() {
    let home = filled();
    let entry = home.library.find(&name("law-eu-0")).expect("found");
    assert!(check_base(&entry, "b1").is_ok());
    let error = check_base(&entry, "b2").expect_err("another base");
    assert_eq!(error.to_string(), "adapter 'law-eu-0' is for base model b1, this one is b2");
    assert_eq!(error.kind(), ErrorKind::InvalidFile);
}
