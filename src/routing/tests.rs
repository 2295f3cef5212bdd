//! The router over a real library, index and embedder.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::library::{AdapterName, Card, Metadata, OnConflict, synthetic};
use crate::router::embed::StaticEmbedder;

struct Home {
    _folder: tempfile::TempDir,
    library: Library,
}

fn home() -> Home {
    let folder = tempfile::tempdir().expect("a folder");
    let library = Library::create(&folder.path().join("library")).expect("created");
    Home { _folder: folder, library }
}

impl Home {
    fn add(&self, number: u64, name: &str, card: Card) {
        let (bytes, metadata) = synthetic::adapter(number, 1).expect("made");
        let metadata = Metadata { card, ..metadata };
        self.library.add(&self::name(name), &bytes, &metadata, OnConflict::Replace).expect("added");
    }

    fn filled(self) -> Self {
        self.add(1, "alarm", card(&["wake me up at seven", "set an alarm for six", "alarm in ten minutes"]));
        self.add(2, "weather", card(&["will it rain tomorrow", "weather in Paris", "is it sunny outside"]));
        self.add(3, "lost_card", card(&["my card was stolen", "freeze my bank card", "I lost my debit card"]));
        self
    }

    fn router(&self) -> Router {
        Router::open(self.library.dir(), embedder(), &mut |_| ()).expect("opened")
    }
}

fn embedder() -> Arc<dyn Embedder> {
    Arc::new(StaticEmbedder::builtin())
}

fn name(text: &str) -> AdapterName {
    AdapterName::new(text).expect("a name")
}

fn card(examples: &[&str]) -> Card {
    Card { examples: examples.iter().map(|text| (*text).to_owned()).collect(), ..Card::default() }
}

fn ask(text: &str) -> Ask {
    Ask { threshold: Some(0.0), ..Ask::text(text) }
}

fn first(router: &Router, ask: &Ask) -> String {
    let route = router.route(ask).expect("routed");
    route.adapters.first().map(|chosen| chosen.name.clone()).unwrap_or_default()
}

#[test]
fn the_index_follows_the_library() {
    let home = home().filled();
    let router = home.router();
    assert_eq!((router.len(), first(&router, &ask("freeze my card please")).as_str()), (3, "lost_card"));
    home.library.remove(&name("lost_card")).expect("removed");
    assert_ne!(first(&router, &ask("freeze my card please")), "lost_card");
    home.library.restore(&name("lost_card")).expect("restored");
    assert_eq!(first(&router, &ask("freeze my card please")), "lost_card");
    home.library.rename(&name("lost_card"), &name("card")).expect("renamed");
    assert_eq!(first(&router, &ask("freeze my card please")), "card", "and no old name out of the cache");
    home.library.edit(&name("weather"), |card| card.description = Some("zeppelin flights".into())).expect("edited");
    assert_eq!(first(&router, &ask("zeppelin")), "weather");
    home.library.gc().expect("collected");
    assert_eq!((home.router().len(), router.len()), (3, 3));
}

#[test]
fn content_with_two_names_stays_while_one_is_left() {
    let home = home().filled();
    home.add(3, "twin", card(&["something else"]));
    let router = home.router();
    home.library.remove(&name("lost_card")).expect("removed");
    assert_eq!(first(&router, &ask("something else")), "twin", "the twin now speaks for the content");
    home.library.remove(&name("twin")).expect("removed");
    assert_eq!(router.update(&mut |_| ()).expect("updated").removed, 1);
    assert_eq!(router.len(), 2);
}

#[test]
fn the_same_library_and_text_give_the_same_route() {
    let (one, two) = (home().filled(), home().filled());
    for text in ["alarm", "rain or my card", "", "qqq"] {
        let route = one.router().decide(&ask(text));
        assert_eq!(one.router().decide(&ask(text)), route, "opened again");
        assert_eq!(two.router().decide(&ask(text)), route, "another library with the same content");
    }
}

#[test]
fn metadata_gates() {
    let home = home().filled();
    home.library.edit(&name("alarm"), |c| drop(c.attributes.insert("region".into(), "eu".into()))).expect("edited");
    let router = home.router();
    let with = |value: &str, strict| Ask {
        metadata: vec![("region".into(), value.into())],
        strict,
        ..ask("set an alarm for six")
    };
    assert_eq!(first(&router, &with("eu", false)), "alarm");
    assert_ne!(first(&router, &with("us", false)), "alarm");
    assert_eq!(first(&router, &with("us", true)), "", "nobody says anything of us");
    assert_eq!(first(&router, &with("eu", true)), "alarm");
}

#[test]
fn one_of_several_that_read_the_same_has_what_the_head_gives_to_all_of_them() {
    let home = home().filled();
    let alarm = card(&["wake me up at seven", "set an alarm for six", "alarm in ten minutes"]);
    for (number, region) in [(10, "eu"), (11, "us"), (12, "asia")] {
        home.add(number, region, Card { attributes: [("region".into(), region.into())].into(), ..alarm.clone() });
    }
    home.library.remove(&name("alarm")).expect("removed");
    let router = home.router();
    let options = TrainOptions { force: true, ..TrainOptions::default() };
    router.train(&[], &options, &mut |_| ()).expect("trained");
    // Weights fitted on three adapters that cannot be told apart are of no use; what the head says is looked at.
    for region in ["eu", "us", "asia"] {
        let metadata = vec![("region".into(), region.into())];
        let route = router.decide(&Ask { metadata, ..ask("set an alarm for six") });
        let said = |name: &str| route.candidates.iter().find(|c| c.name == name).and_then(|c| c.evidence.learned);
        assert!(said(region).is_some_and(|log| log.exp() > 0.8), "{region}: {:?}", route.candidates);
        assert!(
            ["eu", "us", "asia"].iter().filter(|name| said(name).is_some()).count() == 1,
            "the others are kept out"
        );
    }
}

#[test]
fn a_decision_is_remembered_until_the_library_changes() {
    let home = home().filled();
    let router = home.router();
    (0..3).for_each(|_| drop(first(&router, &ask("rain"))));
    assert_eq!((router.cache_stats().hits, router.cache_stats().misses), (2, 1));
    home.library.remove(&name("weather")).expect("removed");
    drop(first(&router, &ask("rain")));
    assert_eq!(router.cache_stats().stale, 1);
}

#[test]
fn an_index_that_is_damaged_or_gone_is_made_again() {
    let home = home().filled();
    drop(home.router());
    let folder = upkeep::folder(&home.library, &*embedder());
    let files = std::fs::read_dir(folder.join("index")).expect("there").flatten();
    files.filter(|f| f.path().is_file()).for_each(|f| std::fs::write(f.path(), b"nonsense").expect("written"));
    let mut told = Vec::new();
    let router = Router::open(home.library.dir(), embedder(), &mut |text| told.push(text)).expect("opened");
    assert_eq!((router.len(), told.len()), (3, 1), "{told:?}");
    drop(router);
    std::fs::remove_dir_all(folder).expect("removed");
    assert_eq!(home.router().len(), 3);
    std::fs::write(upkeep::folder(&home.library, &*embedder()).join("head"), b"nonsense").expect("written");
    assert!(!home.router().is_trained());
}

#[test]
fn it_learns_and_a_damaged_head_is_refused() {
    let home = home().filled();
    let router = home.router();
    let strangers = [Labelled { text: "sing me a song".into(), label: OUT_OF_SCOPE.into() }];
    let options = TrainOptions { force: true, ..TrainOptions::default() };
    let report = router.train(&strangers, &options, &mut |_| ()).expect("trained");
    assert_eq!((report.classes, report.prompts, report.held), (3, 9, 9), "{report:?}");
    let route = router.decide(&ask("wake me at six"));
    assert_eq!((route.strategy, route.adapters[0].name.as_str()), (Strategy::Learned, "alarm"));
    assert_eq!(home.router().decide(&ask("wake me at six")), route, "it comes back from disk");
    home.add(4, "chess", card(&["play chess with me", "your move in chess"]));
    assert_eq!(first(&router, &ask("play chess with me")), "chess", "an adapter added later is found all the same");
    let path = upkeep::folder(&home.library, &*embedder()).join("tuning.json");
    let whole = std::fs::read_to_string(&path).expect("read");
    for other in [whole.replacen("\"format\": 4", "\"format\": 3", 1), "{".to_owned()] {
        std::fs::write(&path, other).expect("written");
        let mut told = Vec::new();
        let router = Router::open(home.library.dir(), embedder(), &mut |text| told.push(text)).expect("opened");
        assert!(!router.is_trained() && told[0].contains("train-router"), "{told:?}");
    }
    std::fs::write(&path, whole).expect("written");
    let path = path.with_file_name("head");
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let mut told = Vec::new();
    let router = Router::open(home.library.dir(), embedder(), &mut |text| told.push(text)).expect("opened");
    assert!(!router.is_trained() && told[0].contains("train-router"), "{told:?}");
    let empty = self::home();
    let refused = empty.router().train(&[], &options, &mut |_| ()).expect_err("nothing to learn");
    assert!(refused.to_string().contains("two adapters"), "{refused}");
}

/// What people said of answers: odd words that no card has.
fn judge(home: &Home, rounds: std::ops::Range<u32>) {
    let digest = |text: &str| home.library.find(&name(text)).expect("there").digest;
    for round in rounds {
        for (word, right, wrong) in
            [("flibber", "alarm", "weather"), ("quonk", "weather", "lost_card"), ("zarp", "lost_card", "alarm")]
        {
            for (adapter, good) in [(right, true), (wrong, false)] {
                let judged = Judged { digest: digest(adapter), good, text: format!("{word} number {round} please") };
                home.library.keep_judged(&judged).expect("kept");
                home.library.record_feedback(&[judged.digest], good).expect("kept");
            }
        }
    }
}

#[test]
fn it_learns_from_judgements_and_keeps_the_router_that_people_agree_with() {
    let home = home().filled();
    judge(&home, 0..60);
    let router = home.router();
    let report = router.train(&[], &TrainOptions::default(), &mut |_| ()).expect("trained");
    assert_eq!(report.judged + report.judged_held, 360, "{report:?}");
    assert!(report.judged_held >= 40, "{report:?}");
    assert!(report.judged_right[1] > 0.9 && report.judged_right[1] > report.judged_right[0], "{report:?}");
    assert!(report.replaced && report.kept && router.is_trained(), "{report:?}");
    let learned = router.decide(&ask("flibber number 1000 please"));
    assert_eq!(learned.adapters[0].name, "alarm");
    assert_eq!(home.router().decide(&ask("flibber number 1000 please")), learned, "it comes back from disk");

    // Labels that say otherwise, many times: the new router would do worse on what was held back.
    let pairs = [("flibber", "weather"), ("quonk", "lost_card"), ("zarp", "alarm")];
    let wrong = (0..750).map(|n| {
        let (word, label) = pairs[n % 3];
        Labelled { text: format!("{word} number {} please", 1_000 + n), label: label.into() }
    });
    let wrong: Vec<Labelled> = wrong.collect();
    let report = router.train(&wrong, &TrainOptions::default(), &mut |_| ()).expect("trained");
    assert!(report.judged_right[1] < report.judged_right[0] && !report.replaced, "{report:?}");
    assert_eq!(router.decide(&ask("flibber number 1000 please")), learned, "the one in use stays");
    assert_eq!(home.router().decide(&ask("flibber number 1000 please")), learned);
    let force = TrainOptions { force: true, ..TrainOptions::default() };
    assert!(router.train(&wrong, &force, &mut |_| ()).expect("trained").replaced);
}

#[test]
fn l7_many_keywords_empty_ones_and_patterns_are_words() {
    let home = home().filled();
    let too_many = |card: &mut Card| card.keywords = (0..10_000).map(|n| format!("k{n}")).collect();
    assert!(home.library.edit(&name("alarm"), too_many).is_err());
    assert!(home.library.edit(&name("alarm"), |card| card.keywords = vec![String::new()]).is_err());
    let bombs = |card: &mut Card| card.keywords = (0..1000).map(|n| format!("(a+)+${n}")).collect();
    home.library.edit(&name("alarm"), bombs).expect("words like others");
    let router = home.router();
    let start = Instant::now();
    router.decide(&ask(&"a".repeat(1 << 20)));
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
}

#[test]
fn hostile_texts_are_routed_in_bounded_time() {
    let home = home().filled();
    let router = home.router();
    for text in
        [String::new(), "x ".repeat(1 << 19), "\u{0}\u{1b}[2J\u{202e}\u{feff}".into(), "日本語 עברית ελ 🦜".into()]
    {
        for strategy in Strategy::ALL {
            let start = Instant::now();
            let route = router.decide(&Ask { strategy: Some(strategy), ..Ask::text(text.as_str()) });
            assert!((0.0..=1.0).contains(&route.confidence) && !route.reason.is_empty());
            assert!(start.elapsed().as_secs() < 2, "{strategy}: {:?}", start.elapsed());
        }
    }
    let none = self::home();
    let route = none.router().decide(&ask("anything"));
    assert!(route.adapters.is_empty() && route.reason.contains("base model"), "{}", route.reason);
}

#[test]
fn parts_of_a_mix_get_shares_by_how_well_they_fit() {
    let home = home().filled();
    let router = home.router();
    let digest = |text: &str| home.library.find(&name(text)).expect("there").digest;
    let all = ["alarm", "weather", "lost_card"].map(digest);
    let shares = |text: &str, parts: &[AdapterDigest]| router.shares(text, parts).expect("read");
    let found = shares("will it rain in Paris tomorrow", &all).expect("known");
    assert!(found[1] > found[0] && found[1] > found[2] && found.iter().all(|share| *share <= 1.0), "{found:?}");
    assert_eq!(shares("will it rain in Paris tomorrow", &all).expect("known"), found, "the same each time");
    let turned = shares("will it rain in Paris tomorrow", &[all[1], all[0], all[2]]).expect("known");
    assert_eq!([turned[1], turned[0], turned[2]], found[..]);
    // Only those that were asked about count.
    let two = shares("will it rain in Paris tomorrow", &all[..1]);
    assert_eq!(two, Some(vec![1.0]));
    let unknown = AdapterDigest::of(b"never added");
    assert_eq!(shares("rain", &[unknown]), None);
    assert_eq!(shares("rain", &[unknown, all[1]]), Some(vec![0.0, 1.0]));
    // The same numbers as a search gives, sealed or not.
    let text = "someone stole my card";
    let before = shares(text, &all);
    let route = router.route(&ask(text)).expect("routed");
    let index = router.index.read().expect("whole");
    let vector = router.embedder.embed(text);
    let query = Query { vector: &vector, text, gate: &Gate::open(), limit: 8 };
    let looked_up: Vec<Evidence> =
        index.look_up(&query, &all).into_iter().flatten().map(|c| Evidence::of(c, None)).collect();
    for candidate in &route.candidates {
        assert!(looked_up.contains(&candidate.evidence), "{candidate:?}");
    }
    index.compact().expect("sealed");
    drop(index);
    let after = shares(text, &all).expect("known");
    let apart = |(a, b): (&f32, &f32)| (a - b).abs();
    assert!(before.expect("known").iter().zip(&after).map(apart).all(|d| d < 0.02), "numbers are rounded anew");
}
