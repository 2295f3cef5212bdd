//! Laws of the decode loop, held by the scripted engine: its answers depend on every token and on the adapters each
//! token was evaluated under, so any wrong reuse of a cache gives another answer than a cold run.

mod drafts;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use proptest::prelude::*;

use super::batch::Batch;
use super::borders::Border;
use super::command::Command;
use super::*;
use crate::adapter::{AdapterDigest, AdapterSet, Scale};
use crate::engine::fake::FakeEngine;
use crate::event::{FinishReason, Finished};
use crate::grammar::{Compiler, Marker, Source, Trigger};

fn set(members: &[(u8, f32)]) -> AdapterSet {
    let member = |(n, s): &(u8, f32)| (AdapterDigest::of(&[*n]), Scale::new(*s).expect("in range"));
    AdapterSet::new(members.iter().map(member).collect()).expect("a valid set")
}

fn job(prompt: &str, set: AdapterSet, max_tokens: usize) -> (Job, Receiver<Event>) {
    let (events, receiver) = channel();
    let job = Job {
        prompt: prompt.bytes().map(Token::from).collect(),
        lease: Lease { sets: Timeline::always(set), ..Lease::default() },
        matcher: None,
        sampling: Sampling::default(),
        limits: JobLimits { max_tokens: Some(max_tokens), ..JobLimits::default() },
        cache_prompt: true,
        slot: None,
        saved: None,
        keep: None,
        n_probs: 0,
        special: false,
        drafts: Default::default(),
        events,
        cancel: CancelToken::default(),
        submitted: Instant::now(),
    };
    (job, receiver)
}

fn run(batch: &mut Batch<FakeEngine>) {
    for _ in 0..100_000 {
        if batch.is_idle() {
            return;
        }
        batch.step();
    }
    panic!("the batch never becomes idle");
}

/// Text and end of an answer.
fn outcome(events: &Receiver<Event>) -> (String, Result<Finished, Failure>) {
    let mut text = String::new();
    for event in events.try_iter() {
        match event {
            Event::Token(t) => text += &t.text,
            Event::Finished(f) => return (text, Ok(f)),
            Event::Failed(f) => return (text, Err(f)),
            Event::Prefilled { .. } => (),
        }
    }
    panic!("no last event; so far {text:?}");
}

fn finished(events: &Receiver<Event>) -> (String, Finished) {
    let (text, end) = outcome(events);
    (text, end.expect("finished"))
}

/// The answer of a fresh engine to this request alone.
fn cold(prompt: &str, set: AdapterSet, max_tokens: usize) -> String {
    let mut batch = Batch::new(FakeEngine::new(4096, 1));
    let (job, events) = job(prompt, set, max_tokens);
    batch.enqueue(job);
    run(&mut batch);
    finished(&events).0
}

#[test]
fn the_script_is_answered() {
    let mut batch = Batch::new(FakeEngine::new(256, 1).scripted([("2+2=", "4")]));
    let (job, events) = job("what is 2+2=", AdapterSet::base(), 50);
    batch.enqueue(job);
    run(&mut batch);
    let (text, end) = finished(&events);
    assert_eq!((text.as_str(), end.reason), ("4", FinishReason::Stop));
    assert_eq!((end.timings.prompt_n, end.timings.cache_n, end.timings.predicted_n), (12, 0, 1));
}

#[test]
fn control_tokens_are_shown_where_this_is_asked() {
    for (special, stop, text, reason) in [
        (false, "", "4", FinishReason::Stop),
        (true, "", "4<end>", FinishReason::Stop),
        (true, "<end", "4", FinishReason::StopString),
    ] {
        let mut batch = Batch::new(FakeEngine::new(256, 1).scripted([("2+2=", "4")]));
        let (mut job, events) = job("what is 2+2=", AdapterSet::base(), 50);
        (job.special, job.limits.stop) = (special, vec![stop.to_string()]);
        batch.enqueue(job);
        run(&mut batch);
        let (shown, end) = finished(&events);
        assert_eq!((shown.as_str(), end.reason), (text, reason), "{special} {stop}");
    }
}

#[test]
fn without_continuous_batching_prompts_wait_for_answers() {
    for continuous in [true, false] {
        let mut batch = Batch::new(FakeEngine::new(1024, 2));
        batch.limits.continuous = continuous;
        let (first, first_events) = job("one", AdapterSet::base(), 20);
        batch.enqueue(first);
        batch.step();
        let (second, second_events) = job("two", AdapterSet::base(), 2);
        batch.enqueue(second);
        batch.step();
        let began = second_events.try_iter().any(|e| matches!(e, Event::Prefilled { .. }));
        assert_eq!(began, continuous);
        while !first_events.try_iter().any(|e| matches!(e, Event::Finished(_))) {
            batch.step();
        }
        run(&mut batch);
        assert!(second_events.try_iter().any(|e| matches!(e, Event::Finished(_))), "none waits for ever");
    }
}

#[test]
fn a_prefix_is_reused_under_the_same_set_only() {
    let mut batch = Batch::new(FakeEngine::new(1024, 1));
    let prompt = "the same long question";
    for (members, cached) in [
        (vec![(1, 1.0)], 0),
        (vec![(1, 1.0)], 21),
        (vec![(1, 0.5)], 0),
        (vec![(2, 1.0)], 0),
        (vec![], 0),
        (vec![], 21),
        (vec![(1, 1.0), (2, 1.0)], 0),
        (vec![(2, 1.0), (1, 1.0)], 21),
    ] {
        answers_as_cold(&mut batch, prompt, &members, cached);
    }
}

/// Asks, and compares the answer with a cold one and the tokens taken from the cache with `cached`.
fn answers_as_cold(batch: &mut Batch<FakeEngine>, prompt: &str, members: &[(u8, f32)], cached: usize) {
    let (job, events) = job(prompt, set(members), 5);
    batch.enqueue(job);
    run(batch);
    let (text, end) = finished(&events);
    assert_eq!(end.timings.cache_n, cached, "{members:?}");
    assert_eq!(text, cold(prompt, set(members), 5), "{members:?}");
}

#[test]
fn a_prefix_that_left_its_slot_comes_back_from_ram_under_its_own_set_only() {
    let mut batch = Batch::new(FakeEngine::new(1024, 1)).with_parked(Parked::new(1 << 20));
    let counters = batch.parked_counters();
    let (p, q) = ("p".repeat(100), "q".repeat(100));
    // P+A, Q+B, P+B, P+none, P+A: the sequence in which a cache of tokens alone goes wrong.
    for (prompt, members, cached) in [
        (&p, vec![(1, 1.0)], 0),
        (&q, vec![(2, 1.0)], 0),
        (&p, vec![(2, 1.0)], 0),
        (&p, vec![], 0),
        (&p, vec![(1, 0.5)], 0),
        (&p, vec![(1, 1.0)], 99),
        (&q, vec![(2, 1.0)], 99),
    ] {
        answers_as_cold(&mut batch, prompt, &members, cached);
    }
    assert_eq!(counters.read().restores, 2);
}

#[test]
fn prefixes_of_idle_slots_go_to_ram_where_this_is_asked() {
    let mut batch = Batch::new(FakeEngine::new(1024, 3)).with_parked(Parked::new(1 << 20));
    batch.limits.idle_to_ram = true;
    let counters = batch.parked_counters();
    let (p, q) = ("p".repeat(100), "q".repeat(100));
    answers_as_cold(&mut batch, &p, &[(1, 1.0)], 0);
    answers_as_cold(&mut batch, &q, &[], 0);
    assert_eq!((counters.read().saves, batch.slots_in_use()), (1, 1), "only the last one is in the context");
    answers_as_cold(&mut batch, &p, &[(2, 1.0)], 0);
    answers_as_cold(&mut batch, &p, &[(1, 1.0)], 99);
    answers_as_cold(&mut batch, &q, &[], 99);
}

#[test]
fn parts_of_a_prompt_are_moved_where_this_is_asked() {
    for (least, cached) in [(0, 10), (20, 51)] {
        let mut batch = Batch::new(FakeEngine::new(1024, 1));
        batch.limits.least_chunk = least;
        let part: String = ('!'..'I').collect();
        let (long, short) = (format!("0123456789{}{part}?", "x".repeat(30)), format!("0123456789{part}?."));
        for (prompt, members, expected) in [(&long, 1, 0), (&short, 1, cached), (&long, 2, 0), (&short, 1, 0)] {
            let (job, events) = job(prompt, set(&[(members, 1.0)]), 1);
            batch.enqueue(job);
            run(&mut batch);
            assert_eq!(finished(&events).1.timings.cache_n, expected, "{least} {prompt} {members}");
        }
    }
}

#[test]
fn a_request_that_keeps_no_cache_leaves_nothing_in_ram() {
    let mut batch = Batch::new(FakeEngine::new(1024, 1)).with_parked(Parked::new(1 << 20));
    for prompt in ["a".repeat(100), "b".repeat(100)] {
        let (mut job, _events) = job(&prompt, AdapterSet::base(), 5);
        job.cache_prompt = false;
        batch.enqueue(job);
        run(&mut batch);
    }
    assert_eq!(batch.parked_counters().read().saves, 0);
}

#[test]
fn a_running_prefix_is_shared_and_waited_for() {
    let mut batch = Batch::new(FakeEngine::new(2048, 4));
    let common = "s".repeat(200);
    let jobs: Vec<_> = (0..4).map(|i| job(&format!("{common}{i}"), AdapterSet::base(), 4)).collect();
    let mut receivers = Vec::new();
    for (job, events) in jobs {
        batch.enqueue(job);
        receivers.push(events);
    }
    run(&mut batch);
    for (i, events) in receivers.iter().enumerate() {
        let (text, end) = finished(events);
        assert_eq!(text, cold(&format!("{common}{i}"), AdapterSet::base(), 4));
        assert_eq!(end.timings.cache_n, if i == 0 { 0 } else { 200 });
    }
    let rows: usize = batch.engine.steps.iter().map(|(rows, _)| rows).sum();
    assert!(rows < 2 * 200, "the common prefix is evaluated once, not four times: {rows} rows");
}

#[test]
fn sets_that_mix_share_every_step_and_the_others_take_turns_with_them() {
    let mut batch = Batch::new(FakeEngine::new(4096, 4).alone(|set| set.members().len() > 1));
    let sets = [set(&[(1, 1.0)]), set(&[(2, 0.5)]), AdapterSet::base(), set(&[(1, 1.0), (2, 1.0)])];
    let receivers: Vec<_> = sets
        .iter()
        .enumerate()
        .map(|(i, set)| {
            let (job, events) = job(&format!("question {i}"), set.clone(), 40);
            batch.enqueue(job);
            events
        })
        .collect();
    run(&mut batch);
    for (i, (events, set)) in receivers.iter().zip(&sets).enumerate() {
        assert_eq!(finished(events).0, cold(&format!("question {i}"), set.clone(), 40), "request {i}");
    }
    let steps = &batch.engine.steps;
    assert!(steps.iter().any(|(_, sets)| sets.len() == 3), "three sets in one step");
    let alone = steps.iter().position(|(_, used)| used.contains(&sets[3])).expect("it ran");
    assert!(alone <= 16, "the set that is alone waits no longer than a turn or two, not {alone} steps");
}

#[test]
fn a_long_prompt_does_not_stall_a_running_answer() {
    let mut batch = Batch::new(FakeEngine::new(4096, 2));
    let (short, short_events) = job("hi", AdapterSet::base(), 40);
    batch.enqueue(short);
    batch.step();
    let (long, long_events) = job(&"x".repeat(500), AdapterSet::base(), 1);
    batch.enqueue(long);
    let tokens = |events: &Receiver<Event>| events.try_iter().filter(|e| matches!(e, Event::Token(_))).count();
    tokens(&short_events);
    for step in 0..30 {
        batch.step();
        assert_eq!(tokens(&short_events), 1, "one token in step {step}, however long the other prompt is");
    }
    run(&mut batch);
    assert_eq!(finished(&long_events).1.reason, FinishReason::Length);
}

#[test]
fn cancelling_takes_effect_within_one_step() {
    let mut batch = Batch::new(FakeEngine::new(4096, 1));
    let (running, events) = job(&"x".repeat(1000), AdapterSet::base(), 1000);
    let cancel = running.cancel.clone();
    batch.enqueue(running);
    batch.step();
    cancel.cancel();
    batch.step();
    assert_eq!(finished(&events).1.reason, FinishReason::Cancelled);
    assert!(batch.is_idle());
}

#[test]
fn a_client_that_is_gone_frees_its_slot() {
    let mut batch = Batch::new(FakeEngine::new(4096, 1));
    let (running, events) = job("hello", AdapterSet::base(), 1000);
    batch.enqueue(running);
    batch.step();
    drop(events);
    batch.step();
    batch.step();
    assert!(batch.is_idle());
}

#[test]
fn a_full_context_ends_the_answer_or_shifts() {
    let mut batch = Batch::new(FakeEngine::new(32, 1));
    let (plain, events) = job("0123456789", AdapterSet::base(), 1000);
    batch.enqueue(plain);
    run(&mut batch);
    let (text, end) = finished(&events);
    assert_eq!((end.reason, text.len()), (FinishReason::ContextFull, 22));

    let (mut shifting, events) = job("0123456789", AdapterSet::base(), 100);
    shifting.limits.shift = Some(Shift { keep: 4, discard: None });
    batch.enqueue(shifting);
    run(&mut batch);
    let (text, end) = finished(&events);
    assert_eq!((end.reason, text.len()), (FinishReason::Length, 100));
}

#[test]
fn a_shift_does_not_disturb_a_sequence_that_shared_its_cells() {
    let mut batch = Batch::new(FakeEngine::new(160, 2));
    let common = "c".repeat(40);
    let (mut shifting, a) = job(&format!("{common}1"), AdapterSet::base(), 200);
    shifting.limits.shift = Some(Shift::default());
    batch.enqueue(shifting);
    for _ in 0..6 {
        batch.step();
    }
    let (steady, b) = job(&format!("{common}2"), AdapterSet::base(), 30);
    batch.enqueue(steady);
    run(&mut batch);
    assert_eq!(finished(&a).1.timings.predicted_n, 200);
    assert_eq!(finished(&b).0, cold(&format!("{common}2"), AdapterSet::base(), 30));
}

#[test]
fn requests_that_do_not_fit_together_take_turns_and_none_is_lost() {
    let mut batch = Batch::new(FakeEngine::new(100, 4));
    let prompts: Vec<String> = (0..4).map(|i| format!("{i}{}", "p".repeat(30))).collect();
    let receivers: Vec<_> = prompts
        .iter()
        .map(|p| {
            let (job, events) = job(p, AdapterSet::base(), 40);
            batch.enqueue(job);
            events
        })
        .collect();
    run(&mut batch);
    for (prompt, events) in prompts.iter().zip(&receivers) {
        let (text, end) = finished(events);
        assert_eq!((text, end.reason), (cold(prompt, AdapterSet::base(), 40), FinishReason::Length));
    }
}

#[test]
fn a_format_is_enforced_and_ends_the_answer() {
    let engine = FakeEngine::new(256, 1).scripted([("say:", "nonsense")]);
    let compiler = Compiler::new(engine.tokenizer().vocabulary());
    let mut batch = Batch::new(engine);
    let compiled = compiler.compile(&Source::Gbnf("root ::= \"yes\" | \"no\"".into())).expect("compiled");
    let (mut asked, events) = job("say:", AdapterSet::base(), 50);
    asked.matcher = Some(compiled.matcher());
    batch.enqueue(asked);
    run(&mut batch);
    let (text, end) = finished(&events);
    assert!(["yes", "no"].contains(&text.as_str()), "{text:?}");
    assert_eq!((end.reason, end.format_complete), (FinishReason::Stop, Some(true)));
}

#[test]
fn a_format_cut_by_the_limit_says_so() {
    let engine = FakeEngine::new(256, 1);
    let compiler = Compiler::new(engine.tokenizer().vocabulary());
    let mut batch = Batch::new(engine);
    let compiled = compiler.compile(&Source::Gbnf("root ::= \"[\" [0-9]{20} \"]\"".into())).expect("compiled");
    let (mut asked, events) = job("x", AdapterSet::base(), 5);
    asked.matcher = Some(compiled.matcher());
    batch.enqueue(asked);
    run(&mut batch);
    let (text, end) = finished(&events);
    assert_eq!((text.len(), end.reason, end.format_complete), (5, FinishReason::Length, Some(false)));
}

#[test]
fn stop_strings_end_the_answer_without_being_shown() {
    let mut batch = Batch::new(FakeEngine::new(256, 1).scripted([("go:", "one END two")]));
    let (mut asked, events) = job("go:", AdapterSet::base(), 50);
    asked.limits.stop = vec!["END".into()];
    batch.enqueue(asked);
    run(&mut batch);
    let (text, end) = finished(&events);
    assert_eq!(
        (text.as_str(), end.reason, end.stopping_text.as_deref()),
        ("one ", FinishReason::StopString, Some("END"))
    );
}

#[test]
fn a_full_queue_refuses_and_a_dropped_worker_ends_its_requests() {
    let (worker, _ready) = Worker::spawn(1, || Ok(FakeEngine::new(1 << 20, 1))).expect("started");
    let (endless, events) = job("x", AdapterSet::base(), usize::MAX);
    worker.submit(endless).expect("queued");
    assert!(matches!(events.recv(), Ok(Event::Prefilled { .. })));
    let mut waiting = Vec::new();
    let busy = (0..50).find_map(|_| {
        let (job, events) = job("y", AdapterSet::base(), 1);
        waiting.push(events);
        worker.try_submit(job).err()
    });
    assert_eq!(busy.expect("refused at last").code, Code::Busy);
    drop(worker);
    let last = events.iter().last().expect("a last event");
    assert!(matches!(last, Event::Finished(Finished { reason: FinishReason::Cancelled, .. })), "{last:?}");
}

#[test]
fn an_engine_that_cannot_be_made_is_reported() {
    let refused = Worker::spawn(1, || Err::<FakeEngine, _>(Failure::usage("no such model")));
    assert_eq!(refused.err().expect("refused").message, "no such model");
}

/// A job whose set changes inside its answer.
fn changing(
    prompt: &str,
    first: AdapterSet,
    borders: &[(&str, AdapterSet)],
    max_tokens: usize,
) -> (Job, Receiver<Event>) {
    let (mut job, events) = job(prompt, first, max_tokens);
    let border = |(marker, set): &(&str, AdapterSet)| Border { marker: Marker::new(*marker), set: set.clone() };
    job.lease.borders = borders.iter().map(border).collect();
    (job, events)
}

/// The answer of a fresh engine to this request alone, the part before the change read as a prompt: nothing of it depends
/// on how sets change inside answers.
fn cold_rest(prompt: &str, said: &str, sets: Timeline, max_tokens: usize) -> String {
    let mut batch = Batch::new(FakeEngine::new(4096, 1));
    let (mut job, events) = job(&format!("{prompt}{said}"), AdapterSet::base(), max_tokens);
    job.lease.sets = sets;
    batch.enqueue(job);
    run(&mut batch);
    finished(&events).0
}

/// What an answer with changes ought to be, and which tokens cross the borders, put together from answers without any.
fn pieced(prompt: &str, first: AdapterSet, borders: &[(&str, AdapterSet)], max: usize) -> (String, Vec<Option<usize>>) {
    let mut sets = Timeline::always(first);
    let (mut said, mut crossed, mut from) = (String::new(), Vec::new(), 0);
    for (marker, set) in borders {
        let on = cold_rest(prompt, &said, sets.clone(), max - said.len());
        said += &on;
        let Some(at) = said[from..].find(marker) else { break };
        from += at + marker.len();
        said.truncate(from);
        crossed.push(Some(from - 1));
        sets.change(prompt.len() + from - 1, set.clone());
    }
    if said.len() < max {
        said += &cold_rest(prompt, &said, sets, max - said.len());
    }
    crossed.resize(borders.len(), None);
    (said, crossed)
}

#[test]
fn an_answer_goes_on_under_another_set_from_the_token_that_completes_the_marker() {
    let [a, b, c] = [1, 2, 3].map(|n| set(&[(n, 1.0)]));
    let prompt = "think first";
    let plain = cold(prompt, a.clone(), 40);
    // A marker of two tokens that comes, and one that does not.
    let marker = &plain[9..11];
    for (borders, most) in [
        (vec![(marker, b.clone())], 40),
        (vec![("#", b.clone())], 40),
        (vec![(marker, AdapterSet::base()), ("e", c.clone())], 120),
        (vec![(marker, b.clone())], plain.find(marker).expect("there") + 2),
    ] {
        for alone in
            [(|_| false) as fn(&AdapterSet) -> bool, |set| set.members().iter().any(|m| m.0 == AdapterDigest::of(&[2]))]
        {
            let mut batch = Batch::new(FakeEngine::new(4096, 3).alone(alone));
            let (other, others) = job("somebody else", c.clone(), 60);
            batch.enqueue(other);
            let (asked, events) = changing(prompt, a.clone(), &borders, most);
            batch.enqueue(asked);
            run(&mut batch);
            let (text, end) = finished(&events);
            assert_eq!((text, end.crossed), pieced(prompt, a.clone(), &borders, most), "{borders:?}");
            assert_eq!(finished(&others).0, cold("somebody else", c.clone(), 60));
        }
    }
    let (text, crossed) = pieced(prompt, a.clone(), &[(marker, b)], 40);
    assert!(text != plain && text[..11] == plain[..11] && crossed[0] <= Some(10), "the sets differ: {text} {plain}");
}

#[test]
fn a_prefix_with_a_change_is_reused_as_far_as_its_sets_are_the_same() {
    let [a, b] = [1, 2].map(|n| set(&[(n, 1.0)]));
    let prompt = "think first";
    let marker = &cold(prompt, a.clone(), 40)[9..11];
    let borders = [(marker, b.clone())];
    let (answer, crossed) = pieced(prompt, a.clone(), &borders, 30);
    let change = prompt.len() + crossed[0].expect("it comes");
    let all = format!("{prompt}{answer} and?");
    let switching = Timeline::switching(a.clone(), change, b.clone());
    for (sets, cached) in [
        (switching.clone(), prompt.len() + 29), // the last token of an answer is never evaluated
        (Timeline::always(a.clone()), change),
        (Timeline::always(b.clone()), 0),
        (Timeline::switching(a.clone(), change + 3, b.clone()), change),
        (Timeline::switching(a.clone(), change - 2, b.clone()), change - 2),
    ] {
        let mut batch = Batch::new(FakeEngine::new(4096, 1));
        let (first, _events) = changing(prompt, a.clone(), &borders, 30);
        batch.enqueue(first);
        run(&mut batch);
        let (mut next, events) = job(&all, AdapterSet::base(), 6);
        next.lease.sets = sets.clone();
        batch.enqueue(next);
        run(&mut batch);
        let (text, end) = finished(&events);
        assert_eq!((end.timings.cache_n, text), (cached, cold_rest(&all, "", sets.clone(), 6)), "{sets:?}");
    }
    // Cancelled before a token was evaluated under the later set: what stays is the earlier one's.
    let mut batch = Batch::new(FakeEngine::new(4096, 1));
    let (first, events) = changing(prompt, a.clone(), &borders, 30);
    let cancel = first.cancel.clone();
    batch.enqueue(first);
    let crossing = crossed[0].expect("it comes") + 1;
    let mut tokens = 0;
    while tokens < crossing {
        batch.step();
        tokens += events.try_iter().filter(|e| matches!(e, Event::Token(_))).count();
    }
    cancel.cancel();
    run(&mut batch);
    let (next, events) = job(&all, a.clone(), 6);
    batch.enqueue(next);
    run(&mut batch);
    let (text, end) = finished(&events);
    assert_eq!((end.timings.cache_n, text), (change, cold(&all, a, 6)));
}

#[test]
fn changes_outlive_shifts_and_being_read_again() {
    let [a, b] = [1, 2].map(|n| set(&[(n, 1.0)]));
    let mut batch = Batch::new(FakeEngine::new(40, 1));
    let (mut shifting, events) = changing("0123456789", a.clone(), &[("e", b.clone())], 200);
    shifting.limits.shift = Some(Shift { keep: 4, discard: None });
    batch.enqueue(shifting);
    run(&mut batch);
    let (text, end) = finished(&events);
    assert_eq!((text.len(), end.reason), (200, FinishReason::Length));
    assert_eq!(end.crossed, [Some(text.find('e').expect("one letter of 26, 200 times"))]);

    // Two that do not fit together: the younger one steps back and is read again, before and after its change.
    let mut batch = Batch::new(FakeEngine::new(120, 2));
    let prompts = ["p".repeat(30), "q".repeat(30)];
    let asked: Vec<_> = prompts.iter().map(|p| changing(p, a.clone(), &[("e", b.clone())], 60)).collect();
    let mut receivers = Vec::new();
    for (job, events) in asked {
        batch.enqueue(job);
        receivers.push(events);
    }
    run(&mut batch);
    for (prompt, events) in prompts.iter().zip(&receivers) {
        let (text, end) = finished(events);
        assert_eq!((text, end.crossed), pieced(prompt, a.clone(), &[("e", b.clone())], 60));
    }
}

#[test]
fn a_format_holds_after_the_marker_and_under_the_later_set() {
    let [a, b] = [1, 2].map(|n| set(&[(n, 1.0)]));
    let engine = FakeEngine::new(256, 1);
    let vocabulary = engine.tokenizer().vocabulary();
    let compiled = Compiler::new(vocabulary.clone()).compile(&Source::Gbnf("root ::= \"(yes)\" | \"(no)\"".into()));
    let compiled = compiled.expect("compiled");
    let marked = |marker: &str, most: usize| {
        let mut batch = Batch::new(FakeEngine::new(256, 1));
        let (mut asked, events) = changing("say:", a.clone(), &[(marker, b.clone())], most);
        let matcher = compiled.matcher().after(Trigger::answer_after(marker), &vocabulary);
        asked.matcher = Some(matcher.expect("it can wait"));
        batch.enqueue(asked);
        run(&mut batch);
        let (text, end) = finished(&events);
        let under: Vec<AdapterSet> = batch.engine.steps.iter().flat_map(|(_, sets)| sets.clone()).collect();
        (text, end, under)
    };
    // One that the model writes; one that it would never write, and has to before its limit.
    let free = cold("say:", a.clone(), 100);
    for (marker, most) in [(&free[4..6], 100), ("#!", 40)] {
        let (text, end, under) = marked(marker, most);
        let (thoughts, answer) = text.split_once(marker).expect("the marker");
        assert!(["(yes)", "(no)"].contains(&answer) && free.starts_with(thoughts), "{text}");
        assert_eq!((end.format_complete, end.crossed), (Some(true), vec![Some(thoughts.len() + marker.len() - 1)]));
        assert!(under.contains(&b) && under[0] == a, "{under:?}");
    }
}

/// One thing that happens to the loop.
#[derive(Clone, Debug)]
enum Act {
    Submit { prompt: u8, length: usize, set: u8, then: Option<u8>, tokens: usize },
    Cancel(usize),
    Steps(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0u8..3, prop_oneof![1usize..60, 60usize..140], 0u8..6, proptest::option::of(0u8..6), 1usize..12)
            .prop_map(|(prompt, length, set, then, tokens)| Act::Submit { prompt, length, set, then, tokens }),
        1 => (0usize..40).prop_map(Act::Cancel),
        3 => (1usize..6).prop_map(Act::Steps),
    ]
}

fn numbered(n: u8) -> AdapterSet {
    match n {
        0 => AdapterSet::base(),
        1 => set(&[(1, 1.0)]),
        2 => set(&[(1, 0.5)]),
        3 => set(&[(2, 1.0)]),
        4 => set(&[(1, 1.0), (2, 1.0)]),
        _ => set(&[(1, 1.0), (2, 0.5)]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Random traces of submit, cancel and step, with prompts that share prefixes: whatever is answered is what a
    /// cold run answers. Fails if the cache key, in slots or in RAM, forgets the adapter or its scale.
    #[test]
    fn no_trace_reads_a_cache_of_another_set(
        acts in proptest::collection::vec(act(), 1..60),
        context in 160usize..400,
        alone in 0usize..3,
        ram in prop_oneof![Just(0u64), Just(3000), Just(1 << 20)],
    ) {
        // All sets mix; none does; those of two adapters do not.
        let alone: fn(&AdapterSet) -> bool = match alone {
            0 => |_| false,
            1 => |_| true,
            _ => |set| set.members().len() > 1,
        };
        let mut batch = Batch::new(FakeEngine::new(context, 3).alone(alone)).with_parked(Parked::new(ram));
        let mut asked = Vec::new();
        for act in acts {
            match act {
                Act::Submit { prompt, length, set, then, tokens } => {
                    let text: String = (0..length).map(|i| char::from(b'a' + prompt * (u8::from(i > 20)) + (i % 5) as u8)).collect();
                    // One letter of four is a marker, so that most answers change.
                    let borders: Vec<_> = then.map(|then| (["e", "a", "t", "o"][usize::from(then) % 4], numbered(then))).into_iter().collect();
                    let (job, events) = changing(&text, numbered(set), &borders, tokens);
                    let cancel = job.cancel.clone();
                    batch.enqueue(job);
                    asked.push((text, numbered(set), borders, tokens, events, cancel));
                }
                Act::Cancel(n) => if let Some((.., cancel)) = asked.get(n) { cancel.cancel() },
                Act::Steps(n) => (0..n).for_each(|_| batch.step()),
            }
        }
        run(&mut batch);
        for (text, set, borders, tokens, events, cancel) in asked {
            let (answer, end) = outcome(&events);
            let (expected, _) = pieced(&text, set, &borders, tokens);
            match end {
                Ok(Finished { reason: FinishReason::Length | FinishReason::Stop, .. }) => prop_assert_eq!(answer, expected),
                _ => {
                    prop_assert!(cancel.is_cancelled());
                    prop_assert!(expected.starts_with(&answer));
                }
            }
        }
    }
}

/// What a command of the worker does, without its thread.
fn order<T>(
    batch: &mut Batch<FakeEngine>,
    make: impl FnOnce(Sender<Result<T, Failure>>) -> Command,
) -> Result<T, Failure> {
    let (reply, answer) = channel();
    batch.order(make(reply));
    run(batch);
    answer.recv().expect("an answer")
}

#[test]
fn a_saved_slot_is_restored_in_another_engine_and_keeps_its_sets() {
    let mut first = Batch::new(FakeEngine::new(1024, 2));
    let prompt = "a question of more than thirty-two tokens, all in all";
    let (job_a, events) = job(prompt, set(&[(1, 1.0)]), 5);
    first.enqueue(Job { slot: Some(1), ..job_a });
    run(&mut first);
    let answer = finished(&events).0;
    assert!(order(&mut first, |reply| Command::Save { slot: 0, reply }).is_err(), "it ran in slot 1");
    let saved = order(&mut first, |reply| Command::Save { slot: 1, reply }).expect("saved");
    let stamp = order(&mut first, |reply| Command::Stamp { reply }).expect("a stamp");
    let file = saved.to_file(&stamp);

    let mut second = Batch::new(FakeEngine::new(1024, 3));
    let own = order(&mut second, |reply| Command::Stamp { reply }).expect("a stamp");
    let saved = Arc::new(Saved::from_file(Box::new(file), &own, 1024).expect("sound"));
    order(&mut second, |reply| Command::Restore { slot: 0, saved: saved.clone(), reply }).expect("restored");
    for (members, cached) in [(vec![(2, 1.0)], 0), (vec![(1, 0.5)], 0), (vec![(1, 1.0)], prompt.len() - 1)] {
        let (job, events) = job(prompt, set(&members), 5);
        second.enqueue(job);
        run(&mut second);
        let (text, end) = finished(&events);
        assert_eq!((end.timings.cache_n, text), (cached, cold(prompt, set(&members), 5)), "{members:?}");
    }
    assert_eq!(answer, cold(prompt, set(&[(1, 1.0)]), 5));
    let erased = order(&mut second, |reply| Command::Erase { slot: 0, reply }).expect("erased");
    assert!(erased > 0);
    assert_eq!(order(&mut second, |reply| Command::Erase { slot: 0, reply }), Ok(0));
    assert!(order(&mut second, |reply| Command::Erase { slot: 3, reply }).is_err(), "no such slot");
}

#[test]
fn a_command_waits_for_its_slot() {
    let mut batch = Batch::new(FakeEngine::new(1024, 2));
    let (job_a, events) = job("a long answer", AdapterSet::base(), 20);
    batch.enqueue(Job { slot: Some(0), ..job_a });
    batch.step();
    let (reply, erased) = channel();
    batch.order(Command::Erase { slot: 0, reply });
    let (reply, other) = channel();
    batch.order(Command::Erase { slot: 1, reply });
    batch.step();
    assert_eq!(other.try_recv().expect("slot 1 is free"), Ok(0));
    assert!(erased.try_recv().is_err(), "slot 0 is not");
    run(&mut batch);
    assert_eq!(finished(&events).0, cold("a long answer", AdapterSet::base(), 20));
    assert!(erased.recv().expect("an answer").expect("erased") > 13);
}

#[test]
fn a_job_goes_on_from_its_saved_state_when_no_slot_holds_more() {
    let prefix = "examples ".repeat(10);
    let mut batch = Batch::new(FakeEngine::new(400, 2));
    let (keep, kept) = channel();
    let (warm, _events) = job(&prefix, AdapterSet::base(), 0);
    batch.enqueue(Job { keep: Some(keep), ..warm });
    run(&mut batch);
    let saved = Arc::new(kept.recv().expect("kept"));
    assert_eq!(saved.tokens.len(), prefix.len());

    let mut batch = Batch::new(FakeEngine::new(400, 2));
    let prompt = format!("{prefix}and a question");
    for (members, cached) in [(vec![], prefix.len()), (vec![], prompt.len() - 1), (vec![(1, 1.0)], 0)] {
        let (job, events) = job(&prompt, set(&members), 5);
        batch.enqueue(Job { saved: Some(saved.clone()), ..job });
        run(&mut batch);
        let (text, end) = finished(&events);
        assert_eq!((end.timings.cache_n, text), (cached, cold(&prompt, set(&members), 5)), "{members:?}");
    }
    // Idle prefixes make room; a running request does not, and then the tokens are evaluated.
    let (long, held) = job(&"x".repeat(330), AdapterSet::base(), 20);
    batch.enqueue(long);
    (0..40).for_each(|_| batch.step());
    let (job, events) = job(&prompt, AdapterSet::base(), 3);
    batch.enqueue(Job { saved: Some(saved.clone()), ..job });
    run(&mut batch);
    assert_eq!(finished(&held).0, cold(&"x".repeat(330), AdapterSet::base(), 20));
    assert_eq!(finished(&events).0, cold(&prompt, AdapterSet::base(), 3));
    // Bytes that are no state of so many tokens.
    let broken = Arc::new(Saved::new(prompt.bytes().map(Token::from).collect(), Timeline::default(), vec![1, 2, 3]));
    let (other, events) = self::job(&prompt, AdapterSet::base(), 3);
    batch.enqueue(Job { saved: Some(broken.clone()), ..other });
    run(&mut batch);
    assert_eq!(finished(&events).0, cold(&prompt, AdapterSet::base(), 3));
    let refused = order(&mut batch, |reply| Command::Restore { slot: 0, saved: broken, reply }).expect_err("refused");
    assert_eq!(refused.code, Code::InvalidFile, "{refused}");
    let wrong = self::job(&prompt, AdapterSet::base(), 3);
    batch.enqueue(Job { slot: Some(7), ..wrong.0 });
    assert!(outcome(&wrong.1).1.is_err(), "no such slot");
}

#[test]
fn the_worker_answers_commands_while_idle() {
    let (worker, _) = Worker::spawn(1, || Ok(FakeEngine::new(256, 1))).expect("started");
    assert!(worker.save(0).is_err(), "nothing there");
    let (job, events) = job("hello", AdapterSet::base(), 3);
    worker.submit(job).expect("queued");
    while !matches!(events.recv(), Ok(Event::Finished(_)) | Err(_)) {}
    let saved = worker.save(0).expect("saved");
    assert_eq!(worker.erase(0), Ok(saved.tokens.len()));
    worker.restore(0, Arc::new(saved)).expect("restored");
    assert_eq!(worker.stamp().expect("a stamp").model, "fake");
}
