//! The start-up check of lanes: on the loaded model, one mixed step must give what llama.cpp's own path gives.

use std::path::Path;
use std::sync::Arc;

use super::adapter::Loaded;
use super::context::Context;
use super::lanes::Lanes;
use super::model::Model;
use crate::adapter::{AdapterDigest, AdapterFile, AdapterSet, HeldBytes, Scale};
use crate::engine::lanes::{Residents, Sites};
use crate::engine::options::EngineOptions;
use crate::engine::{EngineError, Row};
use crate::gguf::{GgufError, GgufWriter, ModelFacts, TensorType};

/// Rows of each sequence. Several, so that the last layer has fewer rows than the others.
const LENGTH: usize = 3;
const RANK: u64 = 4;
/// The relative error that rounding may cause: activations are quantized to 8 bits inside each linear.
const TOLERANCE: f64 = 0.05;

/// Compares logits of a base row, a row with one adapter and a row with a weighted pair, all in one step, with steps of
/// their own under llama.cpp's path. Uses contexts of its own. Gives the linears at which the model's graph asks for
/// adapters.
///
/// # Errors
/// What is different, in one line.
pub(super) fn check(model: &Arc<Model>, base: &ModelFacts, options: &EngineOptions) -> Result<Vec<bool>, String> {
    let text = |e: EngineError| e.to_string();
    let options = EngineOptions { context: 64, batch: 32, micro_batch: 32, sequences: 3, ..options.clone() };
    let sites = Sites::of(base);
    let files = [adapter(base, &sites, 1)?, adapter(base, &sites, 2)?];
    let set = |members: &[(usize, f32)]| {
        let members = members.iter().map(|(i, s)| Ok((files[*i].digest(), Scale::new(*s)?)));
        members.collect::<Result<Vec<_>, _>>().and_then(AdapterSet::new).map_err(|e| e.to_string())
    };
    let sets = [AdapterSet::base(), set(&[(0, 1.0)])?, set(&[(0, 0.5), (1, 1.0)])?];

    let mut expected = Vec::new();
    {
        let loaded = files.iter().map(|f| Loaded::new(model, f.bytes())).collect::<Result<Vec<_>, _>>()?;
        let mut context = Context::new(model.clone(), &options, None).map_err(text)?;
        for (sequence, set) in sets.iter().enumerate() {
            let at = |digest: &AdapterDigest| files.iter().position(|f| f.digest() == *digest).unwrap_or(0);
            let mut raw: Vec<_> = set.members().iter().map(|(digest, _)| loaded[at(digest)].raw()).collect();
            let mut scales: Vec<f32> = set.members().iter().map(|(_, scale)| scale.get()).collect();
            context.set_adapters(&mut raw, &mut scales);
            context.decode(&rows(base, sequence, 0)).map_err(text)?;
            expected.push(context.logits(LENGTH - 1).map_err(text)?.to_vec());
        }
    }

    let residents = Arc::new(Residents::new(sites, 2, usize::MAX));
    let ready = files.iter().map(|f| residents.ready(f)).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let reached = vec![true; residents.sites().len()];
    let mut lanes = Lanes::new(residents);
    lanes.start(model, base, reached)?;
    lanes.lease(ready, |_| true);
    {
        let mut context = Context::new(model.clone(), &options, Some(lanes.callback())).map_err(text)?;
        lanes.switch(true);
        context.set_adapters(&mut [lanes.stub().map_err(text)?], &mut [1.0]);
        let all: Vec<Row> = (0..sets.len()).flat_map(|sequence| rows(base, sequence, sequence)).collect();
        lanes.plan(&all, &sets).map_err(text)?;
        context.decode(&all).map_err(text)?;
        if lanes.was_broken() {
            return Err("the model's graph is not as expected".into());
        }
        for (sequence, expected) in expected.iter().enumerate() {
            let found = context.logits(sequence * LENGTH + LENGTH - 1).map_err(text)?;
            let error = distance(found, expected);
            if error.is_nan() || error > TOLERANCE {
                return Err(format!("logits of sequence {sequence} differ by {error:.3}"));
            }
        }
        let moved = distance(context.logits(2 * LENGTH - 1).map_err(text)?, &expected[0]);
        if moved < 2.0 * TOLERANCE {
            return Err("the adapters had no effect".into());
        }
    }
    Ok(lanes.seen())
}

fn rows(base: &ModelFacts, sequence: usize, set: usize) -> Vec<Row> {
    // Any tokens will do; the same for all sequences, so that only the adapters differ.
    let token = |i: usize| (7 + 31 * i as u32) % base.n_vocab.max(1);
    (0..LENGTH).map(|i| Row { token: token(i), position: i, sequence, logits: i + 1 == LENGTH, set }).collect()
}

/// Norm of the difference over the norm of the expected.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().map(|b| square(*b)).sum::<f64>().max(f64::MIN_POSITIVE)).sqrt()
}

struct Held(Vec<u8>);

impl HeldBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A random adapter on every site, of half floats, strong enough to be seen and weak enough not to drown the model.
fn adapter(base: &ModelFacts, sites: &Sites, seed: u64) -> Result<Arc<AdapterFile>, String> {
    let bytes = random(base, sites, seed).map_err(|e| e.to_string())?;
    let digest = AdapterDigest::of(&bytes);
    let file = AdapterFile::new(Path::new("check"), Box::new(Held(bytes)), digest, base);
    file.map(Arc::new).map_err(|e| e.to_string())
}

fn random(base: &ModelFacts, sites: &Sites, seed: u64) -> Result<Vec<u8>, GgufError> {
    let mut writer = GgufWriter::new();
    writer.set("general.type", "adapter")?.set("adapter.type", "lora")?;
    writer.set("general.architecture", base.architecture.as_str())?.set("adapter.lora.alpha", RANK as f32)?;
    let mut state = seed;
    let mut numbers = |n: usize, size: f32| -> Vec<u8> {
        let mut next = || {
            // Knuth's MMIX generator; the upper bits are good enough for noise.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * size
        };
        (0..n).flat_map(|_| half::f16::from_f32(next()).to_le_bytes()).collect()
    };
    for (name, n_in, n_out) in sites.iter() {
        let (a, b) = (numbers(n_in * RANK as usize, (n_in as f32).powf(-0.5)), numbers(n_out * RANK as usize, 1.0));
        writer.tensor(&format!("{name}.lora_a"), TensorType::F16, &[n_in as u64, RANK], a)?;
        writer.tensor(&format!("{name}.lora_b"), TensorType::F16, &[RANK, n_out as u64], b)?;
    }
    Ok(writer.to_bytes())
}
