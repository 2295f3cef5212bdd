//! The law of drafts: an answer with them is the answer without, in fewer steps.

use proptest::prelude::*;

use super::draft::{ByModel, Drafting, Lookup, Pooled, Ways};
use super::*;
use crate::event::TokenEvent;

/// What is asked, beside drafts.
#[derive(Clone, Debug, Default)]
struct Question {
    prompt: String,
    set: u8,
    borders: Vec<(&'static str, u8)>,
    most: usize,
    stop: Vec<&'static str>,
    seed: Option<u32>,
    format: Option<Source>,
    shift: bool,
    n_probs: usize,
}

impl Question {
    fn new(prompt: &str, set: u8, most: usize) -> Self {
        Self { prompt: prompt.into(), set, most, ..Self::default() }
    }

    fn job(&self, batch: &Batch<FakeEngine>, drafts: Drafting) -> (Job, Receiver<Event>) {
        let borders: Vec<_> = self.borders.iter().map(|(marker, set)| (*marker, numbered(*set))).collect();
        let (mut job, events) = changing(&self.prompt, numbered(self.set), &borders, self.most);
        job.limits.stop = self.stop.iter().map(|text| (*text).to_owned()).collect();
        job.limits.shift = self.shift.then_some(Shift { keep: 4, discard: None });
        job.sampling.seed = self.seed;
        job.n_probs = self.n_probs;
        job.drafts = drafts;
        if let Some(format) = &self.format {
            let compiler = Compiler::new(batch.engine.tokenizer().vocabulary());
            job.matcher = Some(compiler.compile(format).expect("compiled").matcher());
        }
        (job, events)
    }
}

/// All that is told of an answer, its times aside.
type Told = (TokenEvent, Result<Finished, Failure>);

fn told(events: &Receiver<Event>) -> Told {
    let mut all = TokenEvent::default();
    for event in events.try_iter() {
        match event {
            Event::Token(t) => {
                all.text += &t.text;
                all.tokens.extend(t.tokens);
                all.probabilities.extend(t.probabilities);
            }
            Event::Finished(f) => return (all, Ok(f)),
            Event::Failed(f) => return (all, Err(f)),
            Event::Prefilled { .. } => (),
        }
    }
    panic!("no last event; so far {all:?}");
}

fn timeless((all, end): Told) -> Told {
    (all, end.map(|f| Finished { timings: Default::default(), ..f }))
}

fn each_way() -> Vec<Ways> {
    let (size, none) = (Lookup { n: 3, m: 8, hits: 1 }, Ways::default());
    vec![
        Ways { simple: Some(size), ..none },
        Ways { map_k: Some(size), ..none },
        Ways { map_k4v: Some(size), ..none },
        Ways { pool: Some(Pooled { n: 3, least: 2, most: 9 }), ..none },
        Ways { simple: Some(Lookup { n: 5, ..size }), map_k: Some(Lookup { n: 2, ..size }), ..none },
        Ways { model: Some(ByModel { most: 4, least: 0, p_min: 0.5 }), ..none },
        Ways { simple: Some(size), model: Some(ByModel::default()), ..none },
    ]
}

/// Asks all at once, without drafts and with them in each way: the answers are the same. The steps it took, and the drafted
/// tokens and those that were right, summed over the ways.
fn same(make: impl Fn() -> FakeEngine, questions: &[Question]) -> ((usize, usize), (usize, usize)) {
    let ask = |drafts: Drafting| {
        let mut batch = Batch::new(make());
        let asked: Vec<_> = questions.iter().map(|q| q.job(&batch, drafts)).collect();
        let receivers: Vec<_> = asked
            .into_iter()
            .map(|(job, events)| {
                batch.enqueue(job);
                events
            })
            .collect();
        run(&mut batch);
        (receivers.iter().map(told).collect::<Vec<_>>(), batch.engine.steps.len(), batch.counts.read().accepted)
    };
    let (plain, steps, _) = ask(Drafting::default());
    let plain: Vec<Told> = plain.into_iter().map(timeless).collect();
    let ways = each_way();
    let (mut least, mut drafted, mut right) = (usize::MAX, 0, 0);
    for ways in ways {
        let (answers, steps, at) = ask(Drafting { ways, ..Drafting::default() });
        let timings: Vec<_> = answers.iter().filter_map(|(_, end)| Some(end.as_ref().ok()?.timings)).collect();
        drafted += timings.iter().map(|t| t.draft_n).sum::<usize>();
        right += timings.iter().map(|t| t.draft_n_accepted).sum::<usize>();
        assert!(timings.iter().all(|t| t.draft_n >= t.draft_n_accepted && t.draft_n >= t.drafts));
        let sum: usize = timings.iter().map(|t| t.draft_n_accepted).sum();
        assert_eq!(at.iter().sum::<u64>(), sum as u64, "each is counted by its place, too");
        least = least.min(steps);
        for ((question, plain), answer) in questions.iter().zip(&plain).zip(answers) {
            assert_eq!(timeless(answer), *plain, "{question:?} with {}", ways.names());
        }
    }
    ((steps, least), (drafted, right))
}

fn echo() -> FakeEngine {
    FakeEngine::new(4096, 3).echo(6).drawing().guessed_by(FakeEngine::new(4096, 3).echo(6))
}

#[test]
fn answers_with_drafts_are_those_without_in_fewer_steps() {
    let long = Question::new("once upon a time", 1, 300);
    let table: Vec<(&str, Vec<Question>)> = vec![
        ("one", vec![long.clone()]),
        ("adapters", (0..6).map(|set| Question::new("question", set, 100 + usize::from(set))).collect()),
        ("seeds", [1, 2, 3].map(|seed| Question { seed: Some(seed), ..long.clone() }).to_vec()),
        ("stop strings", ["e", "ab", "th", "zz"].map(|s| Question { stop: vec![s, "qx"], ..long.clone() }).to_vec()),
        ("limits", (1..40).map(|most| Question { most, ..long.clone() }).collect()),
        ("probabilities", vec![Question { n_probs: 2, ..long.clone() }]),
        ("borders", ["e", "t", "o"].map(|m| Question { borders: vec![(m, 2), ("a", 3)], ..long.clone() }).to_vec()),
        ("shifts", vec![Question { most: 5000, shift: true, ..long.clone() }]),
    ];
    for (name, questions) in table {
        let ((plain, drafted), (_, right)) = same(echo, &questions);
        assert!(right > 0 && drafted < plain, "{name}: {right} right, {drafted} steps of {plain}");
    }
}

#[test]
fn the_end_of_an_answer_is_where_it_was() {
    let script = [("say: abcdefgh, ", "abcdefgh, abcdefgh, abcd!")];
    let make = || FakeEngine::new(512, 2).scripted(script).guessed_by(FakeEngine::new(512, 2).scripted(script));
    let question = Question::new("say: abcdefgh, ", 0, 100);
    let (_, (drafted, right)) = same(make, &[question.clone(), Question { stop: vec!["cd!"], ..question }]);
    assert!(right > 0 && right < drafted, "{right} of {drafted}");
}

#[test]
fn formats_hold_and_forced_text_comes_as_before() {
    let list = "root ::= (\"key-of-it:\" [a-f]{2,3} \",\")+ \"end\"";
    let schema = r#"{"type":"array","items":{"type":"object","properties":{"name":{"type":"string","maxLength":5},"value":{"type":"integer","maximum":99}},"required":["name","value"],"additionalProperties":false},"maxItems":9}"#;
    let formats =
        [Source::Gbnf(list.into()), Source::Gbnf("root ::= [a-p]+".into()), Source::JsonSchema(schema.into())];
    for format in formats {
        let question = Question { format: Some(format.clone()), ..Question::new("list: ", 1, 150) };
        let seeded = Question { seed: Some(7), ..question.clone() };
        let probable = Question { n_probs: 1, ..question.clone() };
        let ((plain, drafted), (_, right)) = same(echo, &[question, seeded, probable]);
        assert!(right > 0 && drafted < plain, "{format:?}: {right} right, {drafted} steps of {plain}");
    }
}

#[test]
fn a_context_that_is_too_small_ends_answers_where_it_did() {
    let question = |prompt: &str, most| Question::new(&prompt.repeat(12), 1, most);
    for context in [60, 64, 71, 80, 97, 120] {
        let make = || FakeEngine::new(context, 2).echo(6).guessed_by(FakeEngine::new(context, 2).echo(6));
        same(make, &[question("abc", 500)]);
        same(make, &[question("abc", 20), question("xyz", 20)]);
    }
}

#[test]
fn drafts_take_what_rows_are_left_and_no_sequence_waits_for_them() {
    let ways = each_way()[0];
    let mut batch = Batch::new(FakeEngine::new(4096, 4).echo(6));
    let questions: Vec<Question> = (0..4).map(|n| Question::new(&format!("question {n}"), n, 120)).collect();
    let mut receivers = Vec::new();
    for question in &questions {
        let (job, events) = question.job(&batch, Drafting { ways, ..Drafting::default() });
        batch.enqueue(job);
        receivers.push(events);
    }
    (0..5).for_each(|_| batch.step());
    let tokens = |events: &Receiver<Event>| events.try_iter().filter(|e| matches!(e, Event::Token(_))).count();
    for events in &receivers {
        tokens(events);
    }
    for step in 0..10 {
        batch.step();
        assert!(receivers.iter().all(|events| tokens(events) > 0), "step {step}");
    }
    run(&mut batch);
    let rows: Vec<usize> = batch.engine.steps.iter().map(|(rows, _)| *rows).collect();
    assert!(rows.iter().all(|rows| *rows <= 16) && rows.iter().filter(|rows| **rows == 16).count() > 3, "{rows:?}");
}

#[test]
fn requests_bound_their_drafts() {
    let question = Question::new("once upon a time", 1, 200);
    let ways = each_way()[0];
    let drafts = |asked: Drafting, engine: FakeEngine| {
        let mut batch = Batch::new(engine);
        let (job, events) = question.job(&batch, asked);
        batch.enqueue(job);
        run(&mut batch);
        let timings = finished(&events).1.timings;
        (timings.drafts, timings.draft_n)
    };
    let (all, tokens) = drafts(Drafting { ways, ..Drafting::default() }, echo());
    assert!(tokens > 4 * all);
    assert_eq!(drafts(Drafting { ways, most: Some(0), least: 0 }, echo()), (0, 0));
    assert_eq!(drafts(Drafting { ways, most: None, least: 99 }, echo()), (0, 0));
    assert_eq!(drafts(Drafting { most: Some(3), ..Drafting::default() }, echo()), (0, 0), "there are no ways");
    let (few, tokens) = drafts(Drafting { ways, most: Some(2), least: 2 }, echo());
    assert_eq!(tokens, 2 * few);
    let fixed = echo().prefix_reuse(false);
    assert_eq!(drafts(Drafting { ways, ..Drafting::default() }, fixed), (0, 0), "nothing can be removed there");
}

/// One thing that happens to the loop.
#[derive(Clone, Debug)]
enum Act {
    Ask(Question),
    Cancel(usize),
    Steps(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let question =
        (0u8..3, 1usize..90, 0u8..6, proptest::option::of(0u8..6), 1usize..60, proptest::option::of(0u32..9));
    let ask = question.prop_map(|(kind, length, set, then, most, seed)| {
        let prompt = (0..length).map(|i| char::from(b'a' + kind + (i % 5) as u8)).collect();
        let borders = then.map(|then| (["e", "a", "t", "o"][usize::from(then) % 4], then)).into_iter().collect();
        let stop = if kind == 2 { vec!["bb", "zx"] } else { Vec::new() };
        Act::Ask(Question { prompt, set, borders, most, seed, stop, ..Question::default() })
    });
    prop_oneof![4 => ask, 1 => (0usize..40).prop_map(Act::Cancel), 3 => (1usize..6).prop_map(Act::Steps)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Random traces of questions, cancels and steps, in contexts that do not hold them all: what is answered is what is
    /// answered without drafts.
    #[test]
    fn no_trace_is_answered_otherwise_for_its_drafts(
        acts in proptest::collection::vec(act(), 1..40),
        context in 160usize..400,
        way in 0usize..7,
        mixed in any::<bool>(),
        ram in prop_oneof![Just(0u64), Just(1 << 20)],
    ) {
        let alone: fn(&AdapterSet) -> bool = if mixed { |_| false } else { |set| set.members().len() > 1 };
        let answers = |drafts: Drafting| {
            let engine = FakeEngine::new(context, 3).echo(6).drawing().alone(alone).guessed_by(FakeEngine::new(context, 3).echo(6));
            let mut batch = Batch::new(engine).with_parked(Parked::new(ram));
            let mut asked = Vec::new();
            for act in &acts {
                match act {
                    Act::Ask(question) => {
                        let (job, events) = question.job(&batch, drafts);
                        let cancel = job.cancel.clone();
                        batch.enqueue(job);
                        asked.push((events, cancel));
                    }
                    Act::Cancel(n) => if let Some((_, cancel)) = asked.get(*n) { cancel.cancel() },
                    Act::Steps(n) => (0..*n).for_each(|_| batch.step()),
                }
            }
            run(&mut batch);
            asked.into_iter().map(|(events, cancel)| (timeless(told(&events)), cancel.is_cancelled())).collect::<Vec<_>>()
        };
        let plain = answers(Drafting::default());
        let drafted = answers(Drafting { ways: each_way()[way], ..Drafting::default() });
        for ((plain, cancelled), (drafted, _)) in plain.into_iter().zip(drafted) {
            if cancelled {
                let (a, b) = (&plain.0.text, &drafted.0.text);
                prop_assert!(a.starts_with(b.as_str()) || b.starts_with(a.as_str()), "{} {}", a, b);
            } else {
                prop_assert_eq!(plain, drafted);
            }
        }
    }
}
