//! Mixed batches on the real model: every sequence of a step with different adapters gets what it would get alone.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use smoa::adapter::{AdapterDigest, AdapterFile, AdapterSet, HeldBytes, Scale, Timeline};
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::{AdapterBatching, EngineOptions};
use smoa::engine::{Batching, Engine, Row, VIRTUAL};
use smoa::gguf::{Gguf, GgufWriter, SoftPrompt, TensorType};
use smoa::import::{BaseWeights, GgufWeights};

use crate::support::{facts, model, random_lora};

pub struct Held(pub Vec<u8>);

impl HeldBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn file(bytes: Vec<u8>) -> Arc<AdapterFile> {
    let digest = AdapterDigest::of(&bytes);
    Arc::new(AdapterFile::new(Path::new("a.gguf"), Box::new(Held(bytes)), digest, facts()).expect("a sound adapter"))
}

fn engine(batching: AdapterBatching, sequences: u32) -> LlamaEngine {
    let mut options = EngineOptions::new(model());
    (options.context, options.batch, options.micro_batch) = (1024, 256, 256);
    (options.sequences, options.threads, options.threads_batch) = (sequences, 2, 2);
    options.adapter_batching = batching;
    LlamaEngine::load(&options, facts(), &mut |_| true).expect("loaded")
}

fn set(members: &[(&Arc<AdapterFile>, f32)]) -> AdapterSet {
    let member = |(file, scale): &(&Arc<AdapterFile>, f32)| (file.digest(), Scale::new(*scale).expect("in range"));
    AdapterSet::new(members.iter().map(member).collect()).expect("a set")
}

/// The prompt of a sequence: of its own length and words. Short, since from 64 rows on llama.cpp's CPU attention works in
/// tiles, whose sums are made in another order whatever the adapters.
fn prompt(sequence: usize) -> Vec<u32> {
    (0..4 + sequence as u32).map(|i| 1000 + (i * 37 + sequence as u32 * 991) % 20000).collect()
}

/// Token `step` after the prompt: the same whatever the logits, so that runs stay comparable.
fn next(step: usize) -> u32 {
    300 + 17 * step as u32
}

/// Logits after the prompt and after each of `steps` more tokens, alone, on llama.cpp's own path.
fn alone(files: &[Arc<AdapterFile>], set: &AdapterSet, prompt: &[u32], steps: usize) -> Vec<Vec<f32>> {
    let mut engine = engine(AdapterBatching::Grouped, 1);
    engine.load_adapters(files, &HashSet::new()).expect("loaded");
    let sets = std::slice::from_ref(set);
    let mut tokens = prompt.to_vec();
    let mut done = 0;
    let mut out = Vec::new();
    for step in 0..=steps {
        let rows: Vec<Row> = (done..tokens.len())
            .map(|position| Row {
                token: tokens[position],
                position,
                sequence: 0,
                logits: position + 1 == tokens.len(),
                set: 0,
            })
            .collect();
        engine.decode(&rows, sets).expect("decoded");
        done = tokens.len();
        out.push(engine.logits(rows.len() - 1).expect("logits").to_vec());
        tokens.push(next(step));
    }
    out
}

fn best(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("tokens") as u32
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// All sets in one batch, prompts and then `steps` tokens; the logits of each sequence as `alone` gives them.
fn together(files: &[Arc<AdapterFile>], sets: &[AdapterSet], steps: usize) -> Vec<Vec<Vec<f32>>> {
    let mut engine = engine(AdapterBatching::Lanes, sets.len() as u32);
    assert_eq!(engine.facts().batching, Batching::Lanes);
    engine.load_adapters(files, &HashSet::new()).expect("loaded");
    assert!(sets.iter().all(|s| engine.mixes(s)));
    let mut tokens: Vec<Vec<u32>> = (0..sets.len()).map(prompt).collect();
    let mut done = vec![0; sets.len()];
    let mut out = vec![Vec::new(); sets.len()];
    for step in 0..=steps {
        let mut rows = Vec::new();
        let mut last = Vec::new();
        for (sequence, tokens) in tokens.iter().enumerate() {
            for position in done[sequence]..tokens.len() {
                let logits = position + 1 == tokens.len();
                rows.push(Row { token: tokens[position], position, sequence, logits, set: sequence });
            }
            last.push(rows.len() - 1);
        }
        engine.decode(&rows, sets).expect("decoded");
        for (sequence, tokens) in tokens.iter_mut().enumerate() {
            done[sequence] = tokens.len();
            out[sequence].push(engine.logits(last[sequence]).expect("logits").to_vec());
            tokens.push(next(step));
        }
    }
    out
}

#[test]
fn a_mixed_batch_gives_the_very_logits_of_cold_runs() {
    // Ranks below, at and above the width of vectors, one adapter of F16 each.
    let files: Vec<_> =
        [(21, 8), (22, 4), (23, 16), (24, 1), (25, 32)].map(|(seed, rank)| file(random_lora(seed, rank, 0.06))).into();
    let single = |i: usize| set(&[(&files[i], 1.0)]);
    let sets = [single(0), AdapterSet::base(), single(1), single(2), single(3), single(4), set(&[(&files[0], 0.5)])];
    let found = together(&files, &sets, 6);
    let base = alone(&[], &AdapterSet::base(), &prompt(0), 0);
    assert!(distance(&found[0][0], &base[0]) > 0.05, "the adapters do something");
    for (sequence, set) in sets.iter().enumerate() {
        let expected = alone(&files, set, &prompt(sequence), 6);
        for (step, (found, expected)) in found[sequence].iter().zip(&expected).enumerate() {
            let error = distance(found, expected);
            println!("sequence {sequence} step {step}: {error:.1e}");
            // With F32 weights the base itself sums one row and several in different orders.
            if cfg!(target_feature = "fma") && !facts().file_type.contains("F32") {
                assert!(found == expected, "sequence {sequence} step {step}: error {error:e}, wanted the same bits");
            }
            assert!(error < 2e-2, "sequence {sequence} step {step}: {error:e}");
        }
    }
}

#[test]
fn weighted_mixes_are_the_sum_of_their_parts() {
    let files: Vec<_> = (0..5).map(|i| file(random_lora(40 + i, [8, 4, 16, 2, 8][i as usize], 0.04))).collect();
    let weights = [1.0, 0.5, 0.25, 2.0, 0.75];
    let mix = |n: usize| set(&files.iter().zip(weights).take(n).collect::<Vec<_>>());
    let sets = [mix(2), mix(5), mix(1), mix(3)];
    let found = together(&files, &sets, 3);
    for (sequence, set) in sets.iter().enumerate() {
        let expected = alone(&files, set, &prompt(sequence), 3);
        for (found, expected) in found[sequence].iter().zip(&expected) {
            let error = distance(found, expected);
            println!("mix of {}: {error:.1e}", set.members().len());
            // Sums in another order, and from there on other roundings of activations to 8 bits; an F32 base has none.
            assert!(error < if facts().file_type.contains("F32") { 1e-3 } else { 5e-2 }, "{error:e}");
            let best = best(expected);
            let second = expected.iter().enumerate().filter(|(i, _)| *i != best as usize).map(|(_, l)| *l);
            let margin = expected[best as usize] - second.fold(f32::MIN, f32::max);
            let noise = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(margin <= 2.0 * noise || self::best(found) == best, "margin {margin}, noise {noise}");
        }
    }
}

fn writer(kind: &str) -> GgufWriter<'static> {
    let mut writer = GgufWriter::new();
    writer.set("general.type", "adapter").expect("set").set("adapter.type", kind).expect("set");
    writer.set("general.architecture", facts().architecture.as_str()).expect("set");
    writer
}

/// Logits of the last of `tokens` under `set`, in an engine with one sequence.
fn last_logits(files: &[Arc<AdapterFile>], sets: &Timeline, tokens: &[u32]) -> Vec<f32> {
    let mut engine = engine(AdapterBatching::Auto, 1);
    engine.load_adapters(files, &HashSet::new()).expect("loaded");
    let all = [sets.at(0).clone(), sets.last().clone()];
    let row = |(position, token): (usize, &u32)| Row {
        token: *token,
        position,
        sequence: 0,
        logits: position + 1 == tokens.len(),
        set: usize::from(sets.at(position) != &all[0]),
    };
    let rows: Vec<Row> = tokens.iter().enumerate().map(row).collect();
    // Sets that do not mix come one after the other.
    for run in rows.chunk_by(|a, b| a.set == b.set) {
        engine.decode(run, &all).expect("decoded");
    }
    engine
        .logits(rows.iter().rev().take_while(|r| r.set == rows[rows.len() - 1].set).count() - 1)
        .expect("logits")
        .to_vec()
}

#[test]
fn a_soft_prompt_of_token_embeddings_reads_as_those_tokens() {
    let tokens = [1000u32, 2000, 3000];
    let bytes = std::fs::read(model()).expect("read");
    let gguf = Gguf::read(&bytes).expect("sound");
    let parts = [gguf];
    let table = GgufWeights::new(&parts).dequantized("token_embd.weight").expect("a known format");
    let width = facts().n_embd as usize;
    let rows: Vec<f32> = tokens.iter().flat_map(|t| table.row(*t as usize).to_vec()).collect();
    let prompt = SoftPrompt {
        architecture: &facts().architecture,
        name: None,
        n_embd: width as u32,
        rows: &rows,
        halves: false,
    };
    let soft = file(prompt.to_gguf().expect("written").to_bytes());
    let rest = [500u32, 600, 700];
    let expected = last_logits(&[], &Timeline::default(), &[&tokens[..], &rest].concat());
    let virtual_tokens: Vec<u32> = (0..3).map(|i| VIRTUAL + i).collect();
    let sets = Timeline::always(set(&[(&soft, 1.0)]));
    let found = last_logits(&[soft], &sets, &[&virtual_tokens[..], &rest].concat());
    let error = distance(&found, &expected);
    assert!(error < 1e-3, "{error:e}");
}

#[test]
fn gains_control_vectors_and_activated_loras_act_where_they_should() {
    let tokens: Vec<u32> = (0..12).map(|i| 900 + 31 * i).collect();
    let base = last_logits(&[], &Timeline::default(), &tokens);
    let n_out = facts().tensors["blk.3.ffn_up.weight"][1] as usize;
    let gain = |value: f32| {
        let mut w = writer("lora_gain");
        w.set("adapter.lora.alpha", 1.0f32).expect("set");
        let numbers = value.to_le_bytes().repeat(n_out);
        w.tensor("blk.3.ffn_up.weight.gain", TensorType::F32, &[n_out as u64], numbers).expect("added");
        file(w.to_bytes())
    };
    let always = |f: &Arc<AdapterFile>, scale: f32| Timeline::always(set(&[(f, scale)]));
    let none = gain(0.0);
    assert!(
        last_logits(std::slice::from_ref(&none), &always(&none, 1.0), &tokens) == base,
        "a gain of one changes nothing"
    );
    // Half of it off, by a gain of -0.5 or by half of a gain of -1.
    let (half, whole) = (gain(-0.5), gain(-1.0));
    let a = last_logits(std::slice::from_ref(&half), &always(&half, 1.0), &tokens);
    let b = last_logits(std::slice::from_ref(&whole), &always(&whole, 0.5), &tokens);
    assert!(a == b && distance(&a, &base) > 1e-3);

    let width = facts().n_embd as usize;
    let mut w = GgufWriter::new();
    w.set("general.architecture", "controlvector").expect("set");
    w.set("controlvector.model_hint", facts().architecture.as_str()).expect("set");
    let direction: Vec<u8> = (0..width).flat_map(|i| ((i % 7) as f32 / 7.0 - 0.5).to_le_bytes()).collect();
    w.tensor("direction.5", TensorType::F32, &[width as u64], direction).expect("added");
    let steering = file(w.to_bytes());
    let steered = last_logits(std::slice::from_ref(&steering), &always(&steering, 1.0), &tokens);
    assert!(distance(&steered, &base) > 1e-3, "the direction is felt");

    let plain = file(random_lora(77, 8, 0.06));
    let late = Timeline::switching(AdapterSet::base(), 6, set(&[(&plain, 1.0)]));
    let switched = last_logits(std::slice::from_ref(&plain), &late, &tokens);
    let whole = last_logits(std::slice::from_ref(&plain), &always(&plain, 1.0), &tokens);
    assert!(distance(&switched, &base) > 1e-3 && distance(&switched, &whole) > 1e-3, "neither the base nor all of it");
}
