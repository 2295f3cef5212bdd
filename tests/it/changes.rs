//! Adapters that change inside one answer, on the real engine: after the marker the numbers are those of a cold run in which
//! what stands before was read under the first adapters and the rest under the next.

use std::collections::HashSet;
use std::sync::Arc;

use smoa::adapter::{AdapterDigest, AdapterFile, AdapterSet, Scale, Timeline};
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::{AdapterBatching, CacheType};
use smoa::engine::{Engine, Row};
use smoa::pipeline::{Answer, Pipeline};
use smoa::request::{AdapterChoice, Request, Then};

use crate::isolation::{NOISE, exact, options, pipeline, request, tiny};
use crate::lanes::Held;
use crate::support::{App, random_lora_for};

/// Tokens of the answers.
const TOKENS: usize = 24;

fn answered(pipeline: &Pipeline, request: Request) -> Answer {
    pipeline.submit(request).expect("submitted").wait(|_| ()).expect("answered")
}

/// Logits after each of `tokens`, one at a time, on llama.cpp's own path.
fn cold(mut engine: LlamaEngine, files: &[Arc<AdapterFile>], sets: &Timeline, tokens: &[u32]) -> Vec<Vec<f32>> {
    engine.load_adapters(files, &HashSet::new()).expect("loaded");
    let logits = |(position, token): (usize, &u32)| {
        let row = Row { token: *token, position, sequence: 0, logits: true, set: 0 };
        engine.decode(&[row], std::slice::from_ref(sets.at(position))).expect("decoded");
        engine.logits(0).expect("logits").to_vec()
    };
    tokens.iter().enumerate().map(logits).collect()
}

fn log_probability(logits: &[f32], token: u32) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
    logits[token as usize] - most - sum.ln() as f32
}

#[test]
fn after_the_marker_the_numbers_are_those_of_a_cold_run() {
    let app = App::new();
    let base = tiny(&app);
    let lora = |seed| exact(&random_lora_for(&base.1, seed, 8, 0.2).to_bytes());
    let paths = [401, 402, 403].map(|seed| app.write(&format!("{seed}.gguf"), lora(seed)));
    let held = |seed| {
        let bytes = lora(seed);
        let digest = AdapterDigest::of(&bytes);
        let file = AdapterFile::new(std::path::Path::new("a.gguf"), Box::new(Held(bytes)), digest, &base.1);
        Arc::new(file.expect("a sound adapter"))
    };
    let files = [401, 402].map(held);
    let set = |file: &Arc<AdapterFile>| AdapterSet::new(vec![(file.digest(), Scale::ONE)]).expect("a set");
    let [a, b, c] = [0, 1, 2].map(|n: usize| vec![AdapterChoice::file(&paths[n], 1.0)]);
    let prompt: Vec<u32> = (0..16).map(|i| 3 + (i * 37) % (base.1.n_vocab - 3)).collect();

    for batching in [AdapterBatching::Lanes, AdapterBatching::Grouped] {
        let warm = pipeline(base.clone(), batching, 4, CacheType::F32);
        let plain = answered(&warm, request(&prompt, a.clone(), TOKENS));
        // A marker that the answer under the first adapters has, complete with token `at`.
        let vocabulary = warm.tokenizer().vocabulary();
        let pieces: Vec<&[u8]> = plain.tokens.iter().map(|token| vocabulary.piece(*token)).collect();
        let marked = (4..TOKENS - 8).find_map(|at| {
            let marker =
                std::str::from_utf8(pieces[at]).ok().filter(|text| !text.is_empty() && !text.contains('\0'))?;
            let before = pieces[..at].concat();
            let all = [&before[..], marker.as_bytes()].concat();
            let first = all.windows(marker.len()).position(|window| window == marker.as_bytes())?;
            (first == before.len()).then(|| (at, marker.to_owned()))
        });
        let (at, marker) = marked.unwrap_or_else(|| panic!("no token of {pieces:?} is text that comes first there"));

        let changing = Request {
            then: vec![Then { marker: marker.clone(), adapters: b.clone() }],
            ..request(&prompt, a.clone(), TOKENS)
        };
        // Beside others, under other adapters.
        let beside: Vec<_> = [c.clone(), Vec::new(), b.clone()]
            .into_iter()
            .map(|adapters| warm.submit(request(&prompt, adapters, TOKENS)).expect("submitted"))
            .collect();
        let answer = answered(&warm, changing.clone());
        beside.into_iter().for_each(|ticket| drop(ticket.wait(|_| ()).expect("answered")));
        assert_eq!(answer.finished.crossed, [Some(at)], "{marker:?}");
        assert_eq!(answer.tokens[..=at], plain.tokens[..=at], "before the marker nothing differs");

        let all = [&prompt[..], &answer.tokens].concat();
        let run = |timeline: &Timeline| {
            let engine = LlamaEngine::load(
                &options(base.0.clone(), AdapterBatching::Grouped, 1, CacheType::F32),
                &base.1,
                &mut |_| true,
            );
            cold(engine.expect("loaded"), &files, timeline, &all)
        };
        let switching = run(&Timeline::switching(set(&files[0]), prompt.len() + at, set(&files[1])));
        let (first, second) = (run(&Timeline::always(set(&files[0]))), run(&Timeline::always(set(&files[1]))));
        let mut others = [0.0_f32; 2];
        for (n, probability) in answer.probabilities.iter().enumerate() {
            let before = prompt.len() + n - 1;
            let token = probability.chosen.token;
            let apart = (probability.chosen.logprob - log_probability(&switching[before], token)).abs();
            assert!(apart < NOISE, "{batching:?}: token {n} of the answer, by {apart}");
            if n > at {
                for (most, logits) in others.iter_mut().zip([&first, &second]) {
                    let apart = (probability.chosen.logprob - log_probability(&logits[before], token)).abs();
                    *most = most.max(apart);
                }
            }
        }
        assert!(others.iter().all(|apart| *apart > 50.0 * NOISE), "neither the one nor the other: {others:?}");

        // What was cached is of use exactly as far as it was made under the same adapters.
        let again = answered(&warm, changing);
        assert_eq!((again.tokens, again.finished.crossed), (answer.tokens.clone(), answer.finished.crossed.clone()));
        let next = answered(&warm, Request { slot: None, ..request(&all, a.clone(), 2) });
        assert_eq!(next.finished.timings.cache_n, prompt.len() + at, "as far as the first adapters reach");
    }
}
