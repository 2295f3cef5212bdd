//! Isolation on the real engine: whatever else runs, whatever was cached, and however often a name changed what it stands
//! for, a request gets what it would get alone in a fresh engine, on llama.cpp's own path and without a cache.
//!
//! `SMOA_TRACE_ACTS` and `SMOA_TRACE_SEED` make the random trace longer and another (`scripts/bench/isolation.sh`).

use std::collections::HashMap;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::{AdapterBatching, CacheType, EngineOptions, FlashAttention};
use smoa::event::FinishReason;
use smoa::gguf::{Gguf, GgufWriter, ModelFacts, TensorType};
use smoa::pipeline::{Answer, Pipeline, Ticket};
use smoa::prompt::{ChatTemplate, SpecialTokens};
use smoa::request::{AdapterChoice, Input, Request};
use smoa::shelf::Shelf;

use crate::support::{App, facts, model, random_lora, random_lora_for};

/// Adapters to choose from, and the names that stand for one of them at a time.
const CONTENTS: usize = 4;
const NAMES: usize = 3;

/// A model or an adapter with its half floats as 32-bit ones: then no activation is rounded to half floats on the way.
pub fn exact(bytes: &[u8]) -> Vec<u8> {
    let halves = Gguf::read(bytes).expect("sound");
    let mut exact = GgufWriter::new();
    for (key, value) in halves.keys().iter().filter(|(key, _)| *key != "general.alignment") {
        exact.set(key, *value).expect("set");
    }
    exact.set("general.file_type", 0_u32).expect("set");
    for tensor in halves.tensors() {
        let used = tensor.dims.iter().rposition(|n| *n > 1).map_or(1, |at| at + 1);
        let mut data = halves.tensor_bytes(tensor).to_vec();
        if tensor.kind == TensorType::F16 {
            let float = |b: &[u8]| half::f16::from_le_bytes([b[0], b[1]]).to_f32().to_le_bytes();
            data = data.chunks_exact(2).flat_map(float).collect();
        }
        exact.tensor(tensor.name, TensorType::F32, &tensor.dims[..used], data).expect("added");
    }
    exact.to_bytes()
}

/// The tiny llama of the PEFT corpus: fast, and exact, so that a wrong entry of the cache stands out from the noise.
pub fn tiny(app: &App) -> (PathBuf, ModelFacts) {
    let halves = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/peft/base.gguf");
    let path = app.write("tiny.gguf", exact(&std::fs::read(halves).expect("read")));
    let facts = smoa::model_file::check(&path).expect("a sound model");
    (path, facts)
}

/// Options under which a mixed step and a step alone sum in the same order.
pub fn options(path: PathBuf, batching: AdapterBatching, sequences: u32, cache: CacheType) -> EngineOptions {
    let mut options = EngineOptions::new(path);
    (options.cache_type_k, options.cache_type_v) = (cache, cache);
    if cache == CacheType::F32 {
        // Flash attention reads keys and values as half floats, whatever the cache holds (`llm_graph_context::build_attn_mha`).
        options.flash_attention = FlashAttention::Off;
    }
    // Less context than all sequences can want, fewer slots than adapters: prefixes and adapters have to go. Less than 64
    // rows in a step, since from there on llama.cpp's attention sums in another order.
    (options.context, options.batch, options.micro_batch) = (256, 48, 48);
    (options.sequences, options.threads, options.threads_batch) = (sequences, 2, 2);
    (options.adapter_batching, options.adapter_slots) = (batching, 3);
    options
}

pub fn pipeline(
    (path, facts): (PathBuf, ModelFacts),
    batching: AdapterBatching,
    sequences: u32,
    cache: CacheType,
) -> Pipeline {
    let options = options(path, batching, sequences, cache);
    let template = |_: &dyn smoa::engine::Tokenizer, _: &ModelFacts| {
        let tokens = SpecialTokens { bos: String::new(), eos: String::new(), control: Vec::new() };
        Ok(ChatTemplate::named("chatml", tokens).expect("there is one"))
    };
    let base = facts.clone();
    let make = move || LlamaEngine::load(&options, &base, &mut |_| true);
    Pipeline::start(facts, 64, Shelf::default(), make, template).expect("started")
}

pub fn request(prompt: &[u32], adapters: Vec<AdapterChoice>, tokens: usize) -> Request {
    let mut request = Request { adapters, n_probs: 2, ..Request::new(Input::Tokens(prompt.to_vec())) };
    request.sampling.temperature = 0.0;
    request.sampling.ignore_eos = true;
    request.limits.max_tokens = Some(tokens);
    request
}

/// Compares tokens and their log probabilities, which may differ by `noise`; the most they differ by.
fn compare(found: &Answer, cold: &Answer, noise: f32) -> Result<f32, String> {
    let mut most = 0.0_f32;
    for (i, (found, cold)) in found.probabilities.iter().zip(&cold.probabilities).enumerate() {
        let margin = cold.top[0].logprob - cold.top[1].logprob;
        if found.chosen.token != cold.chosen.token {
            // A near tie may fall either way, and the rest with it.
            return if margin < noise { Ok(most) } else { Err(format!("token {i}, by a margin of {margin}")) };
        }
        let apart = (found.chosen.logprob - cold.chosen.logprob).abs();
        if apart > noise {
            return Err(format!("the log probability of token {i}, by {apart}"));
        }
        most = most.max(apart);
    }
    Ok(most)
}

/// Differences of log probabilities that sums in another order make in the tiny model of 32-bit floats (2e-4 in
/// 6,000 acts), and roundings of
/// activations to 8 bits in the default one. Another adapter makes far greater ones, which the tests show too.
pub const NOISE: f32 = 1e-3;
const NOISE_OF_8_BITS: f32 = 0.5;

/// A weighted choice out of files: `(file, scale)`.
type Set = Vec<(usize, f32)>;

/// Answers of requests alone, each in an engine that has forgotten all others.
struct Cold {
    pipeline: Pipeline,
    files: Vec<PathBuf>,
    known: HashMap<String, Answer>,
}

impl Cold {
    fn answer(&mut self, prompt: &[u32], set: &Set, tokens: usize) -> &Answer {
        let key = format!("{prompt:?} {set:?} {tokens}");
        let (pipeline, files) = (&self.pipeline, &self.files);
        self.known.entry(key).or_insert_with(|| {
            let adapters = set.iter().map(|(file, scale)| AdapterChoice::file(&files[*file], *scale)).collect();
            let request = Request { cache_prompt: false, ..request(prompt, adapters, tokens) };
            pipeline.submit(request).expect("submitted").wait(|_| ()).expect("answered")
        })
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// A prompt of a family that shares its beginning, under names with scales.
    Submit { family: u32, length: usize, names: Vec<(usize, u8)>, tokens: usize },
    /// One of the last requests.
    Cancel(usize),
    /// A name stands for another content from now on.
    Reload { name: usize, content: usize },
    /// Until the oldest has answered.
    Wait,
}

fn act() -> impl Strategy<Value = Act> {
    let names = proptest::sample::subsequence((0..NAMES).collect::<Vec<_>>(), 0..=2);
    let names =
        (names, 0u8..3).prop_map(|(names, scale)| names.into_iter().map(|n| (n, scale)).collect::<Vec<(usize, u8)>>());
    prop_oneof![
        6 => (0u32..3, prop_oneof![Just(12usize), Just(25), Just(40)], names, prop_oneof![Just(1usize), Just(5)])
            .prop_map(|(family, length, names, tokens)| Act::Submit { family, length, names, tokens }),
        1 => (0usize..6).prop_map(Act::Cancel),
        1 => (0..NAMES, 0..CONTENTS).prop_map(|(name, content)| Act::Reload { name, content }),
        2 => Just(Act::Wait),
    ]
}

fn prompt(family: u32, length: usize, vocabulary: u32) -> Vec<u32> {
    // The first fifteen are the same for all families.
    (0..length as u32).map(|i| 3 + (i * 37 + if i < 15 { 0 } else { family * 991 }) % (vocabulary - 3)).collect()
}

/// A request under way, and what it is.
struct Asked {
    ticket: Ticket,
    prompt: Vec<u32>,
    set: Set,
    tokens: usize,
    cancelled: bool,
}

#[test]
fn no_trace_of_requests_reads_what_another_adapter_wrote() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}: '{v}' is no number")))
    };
    let (acts, seed) = (number("SMOA_TRACE_ACTS", 60), number("SMOA_TRACE_SEED", 1));
    let app = App::new();
    let base = tiny(&app);
    let lora = |seed| exact(&random_lora_for(&base.1, seed, 8, 0.2).to_bytes());
    let files: Vec<PathBuf> =
        (0..CONTENTS).map(|i| app.write(&format!("content{i}.gguf"), lora(300 + i as u64))).collect();
    let name = |n: usize| app.path(&format!("name{n}.gguf"));
    let reload = |n: usize, content: usize| {
        std::fs::copy(&files[content], app.path("next")).expect("copied");
        std::fs::rename(app.path("next"), name(n)).expect("renamed");
    };
    let mut stands_for = [0, 1, 2];
    (0..NAMES).for_each(|n| reload(n, stands_for[n]));
    let warm = pipeline(base.clone(), AdapterBatching::Lanes, 6, CacheType::F32);
    let mut cold = Cold {
        pipeline: pipeline(base.clone(), AdapterBatching::Grouped, 1, CacheType::F32),
        files: files.clone(),
        known: HashMap::new(),
    };

    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut running: VecDeque<Asked> = VecDeque::new();
    let (mut checked, mut reused, mut cancelled, mut most) = (0, 0, 0, 0.0_f32);
    let mut finish = |asked: Asked, act: u64| {
        let answer = match asked.ticket.wait(|_| ()) {
            Ok(answer) => answer,
            Err(failure) => {
                assert!(asked.cancelled, "act {act}: {}", failure.message);
                return cancelled += 1;
            }
        };
        let whole = answer.finished.reason == FinishReason::Length;
        assert!(whole || asked.cancelled, "act {act}: {:?}", answer.finished);
        assert!(!whole || answer.tokens.len() == asked.tokens, "act {act}");
        let expected = cold.answer(&asked.prompt, &asked.set, asked.tokens);
        let apart = compare(&answer, expected, NOISE);
        most = most.max(apart.unwrap_or_else(|what| panic!("act {act}, {:?}: {what}", asked.set)));
        checked += 1;
        cancelled += u64::from(!whole);
        reused += u64::from(answer.finished.timings.cache_n > 0);
    };
    for at in 0..acts {
        match act().new_tree(&mut runner).expect("an act").current() {
            Act::Submit { family, length, names, tokens } => {
                let scale = |s: u8| [1.0, 0.5, 1.5][usize::from(s)];
                let choices = names.iter().map(|(n, s)| AdapterChoice::file(name(*n), scale(*s))).collect();
                let set: Set = names.iter().map(|(n, s)| (stands_for[*n], scale(*s))).collect();
                if set.len() == 2 && set[0].0 == set[1].0 {
                    continue; // One content twice is refused, see the tests of adapter sets.
                }
                let prompt = prompt(family, length, base.1.n_vocab);
                let ticket = warm.submit(request(&prompt, choices, tokens)).expect("submitted");
                running.push_back(Asked { ticket, prompt, set, tokens, cancelled: false });
                if running.len() > 12 {
                    finish(running.pop_front().expect("one"), at);
                }
            }
            Act::Cancel(n) => {
                if let Some(asked) = running.iter_mut().rev().nth(n) {
                    asked.ticket.cancel.cancel();
                    asked.cancelled = true;
                }
            }
            Act::Reload { name: n, content } => {
                reload(n, content);
                stands_for[n] = content;
            }
            Act::Wait => {
                if let Some(asked) = running.pop_front() {
                    finish(asked, at);
                }
            }
        }
    }
    running.into_iter().for_each(|asked| finish(asked, acts));
    println!(
        "{acts} acts: {checked} answers as cold runs give them, {reused} went on from a cache, {cancelled} cancelled; \
         log probabilities at most {most:.1e} apart"
    );
    assert!(checked > acts / 4 && reused > 0);

    // That the comparison would have seen another adapter's cache: answers of other sets are told apart, by one prompt or
    // another (a near tie at the first token tells nothing).
    let sets: Vec<Set> = vec![vec![], vec![(0, 1.0)], vec![(1, 1.0)], vec![(1, 0.5)], vec![(0, 1.0), (1, 1.0)]];
    let prompts: Vec<Vec<u32>> = (0..3).map(|family| prompt(family, 25, base.1.n_vocab)).collect();
    let mut answers = |set: &Set| -> Vec<Answer> { prompts.iter().map(|p| cold.answer(p, set, 5).clone()).collect() };
    let answers: Vec<Vec<Answer>> = sets.iter().map(&mut answers).collect();
    for (i, a) in answers.iter().enumerate() {
        for (j, b) in answers.iter().enumerate() {
            let same = a.iter().zip(b).all(|(a, b)| compare(a, b, NOISE).is_ok());
            assert_eq!(same, i == j, "{:?} and {:?}", sets[i], sets[j]);
        }
    }
}

/// The shortest sequences in which a cache keyed by less than the whole set goes wrong, in one slot.
#[test]
fn the_known_holes_are_closed() {
    let app = App::new();
    let files: Vec<PathBuf> = (0..2).map(|i| app.write(&format!("{i}.gguf"), random_lora(300 + i, 8, 0.08))).collect();
    let base = || (model(), facts().clone());
    let mut cold = Cold {
        pipeline: pipeline(base(), AdapterBatching::Grouped, 1, CacheType::F16),
        files: files.clone(),
        known: HashMap::new(),
    };
    let (p, q) = (prompt(0, 30, 20_000), prompt(1, 30, 20_000));
    let (a, b, none): (Set, Set, Set) = (vec![(0, 1.0)], vec![(1, 1.0)], vec![]);
    for (batching, sequences) in
        [(AdapterBatching::Lanes, 1), (AdapterBatching::Lanes, 2), (AdapterBatching::Grouped, 1)]
    {
        let warm = pipeline(base(), batching, sequences, CacheType::F16);
        for (i, (prompt, set)) in [(&p, &a), (&q, &b), (&p, &b), (&p, &none), (&p, &a)].into_iter().enumerate() {
            let adapters = set.iter().map(|(file, scale)| AdapterChoice::file(&files[*file], *scale)).collect();
            let answer = warm.submit(request(prompt, adapters, 6)).expect("submitted").wait(|_| ()).expect("answered");
            compare(&answer, cold.answer(prompt, set, 6), NOISE_OF_8_BITS)
                .unwrap_or_else(|what| panic!("request {i}: {what}"));
        }
    }
}
