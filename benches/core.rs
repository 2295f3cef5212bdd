//! Benches of our own code, no model needed: what we add to every request and every token.
//!
//! `cargo bench` (with the flags of `scripts/lib.sh`, so that llama.cpp is not compiled again); results of one machine
//! are in docs/measurements.md. For the whole program against llama-server see `scripts/bench/`.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use smoa::decode::TextStream;
use smoa::engine::fake::FakeEngine;
use smoa::grammar::{Compiler, Source, Vocabulary};
use smoa::prompt::{ChatTemplate, Message, Prompt, RenderOptions, Role, SpecialTokens};
use smoa::request::{Input, Request};
use smoa::scheduler::{CancelToken, Job, JobLimits, Lease, Worker};

/// A vocabulary of the size of the default model's: the bytes, then pieces of two to nine letters.
fn vocabulary() -> Arc<Vocabulary> {
    let mut pieces: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
    let mut state = 1u64;
    while pieces.len() < 49_151 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = 2 + (state >> 60) as usize % 8;
        let letter = |i: usize| b" etaoinshrdlu\"{}:,0123"[((state >> (5 * i)) & 31) as usize % 22];
        pieces.push((0..length).map(letter).collect());
    }
    pieces.push(Vec::new());
    let end = pieces.len() as u32 - 1;
    let control = (0..pieces.len() as u32).map(|id| id == end).collect();
    Arc::new(Vocabulary::new(pieces, control, vec![end]))
}

fn grammar(c: &mut Criterion) {
    let compiler = Compiler::new(vocabulary());
    let sources = [
        ("json", Source::Named("json".into())),
        ("sql-select", Source::Named("sql-select".into())),
        ("schema", Source::JsonSchema(r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},"required":["name","age"]}"#.into())),
    ];
    for (name, source) in &sources {
        let compiled = compiler.compile(source).expect("compiled");
        c.bench_function(&format!("grammar/{name}/first-mask"), |b| {
            b.iter_batched(
                || compiled.matcher(),
                |mut m| black_box(m.mask().expect("mask").count()),
                BatchSize::SmallInput,
            );
        });
        c.bench_function(&format!("grammar/{name}/cached-compile"), |b| {
            b.iter(|| black_box(compiler.compile(source).expect("compiled")));
        });
    }
    let compiled = compiler.compile(&sources[0].1).expect("compiled");
    c.bench_function("grammar/json/allows-one-token", |b| {
        let mut matcher = compiled.matcher();
        b.iter(|| black_box(matcher.allows(u32::from(b'{')).expect("asked")));
    });
}

fn decode_loop(c: &mut Criterion) {
    c.bench_function("scheduler/8-requests-of-32-tokens", |b| {
        b.iter_batched(
            || Worker::spawn(64, || Ok(FakeEngine::new(4096, 8))).expect("started"),
            |(worker, ready)| {
                let receivers: Vec<_> = (0..8)
                    .map(|i| {
                        let (events, receiver) = channel();
                        let prompt = ready.tokenizer.tokenize(&Prompt::raw(format!("prompt number {i}")), true);
                        let job = Job {
                            prompt,
                            lease: Lease::default(),
                            matcher: None,
                            sampling: Default::default(),
                            limits: JobLimits { max_tokens: Some(32), ..JobLimits::default() },
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
                        worker.submit(job).expect("queued");
                        receiver
                    })
                    .collect();
                receivers.iter().map(|r| r.iter().count()).sum::<usize>()
            },
            BatchSize::SmallInput,
        );
    });
}

fn text(c: &mut Criterion) {
    c.bench_function("text/1000-pieces-two-stops", |b| {
        b.iter(|| {
            let mut stream = TextStream::new(&["\n\n".into(), "<end>".into()]);
            (0..1000).map(|_| stream.push(black_box(b" word")).text.len()).sum::<usize>()
        });
    });
    let template = ChatTemplate::named("chatml", SpecialTokens::default()).expect("known");
    let messages: Vec<Message> =
        (0..10).map(|i| Message::new(if i % 2 == 0 { Role::User } else { Role::Assistant }, "A few words.")).collect();
    c.bench_function("prompt/10-messages", |b| {
        b.iter(|| black_box(template.render(&messages, &RenderOptions::default()).expect("rendered")));
    });
    let defaults = Request::new(Input::Raw(String::new()));
    let line = r#"{"id": 1, "prompt": "Tell me", "n_predict": 64, "temperature": 0.2, "stop": ["\n"], "lora": [{"path": "a.gguf", "scale": 0.5}]}"#;
    c.bench_function("wire/parse-line", |b| b.iter(|| black_box(smoa::wire::parse(line, &defaults).expect("parsed"))));
}

/// The checks of the default model's header and vocabulary; told and left out where the model is not there.
fn files(c: &mut Criterion) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.is_file() {
        eprintln!("{} is not there; scripts/run.sh fetches it; files/* left out", path.display());
        return;
    }
    c.bench_function("files/check-default-model", |b| {
        b.iter(|| black_box(smoa::model_file::check(&path).expect("sound")));
    });
}

criterion_group!(benches, grammar, decode_loop, text, files);
criterion_main!(benches);
