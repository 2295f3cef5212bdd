//! The state of one sequence out of llama.cpp and back into it.
//!
//! llama.cpp reads a state with checks of its own, but it was not written for bytes of strangers. So the whole layout is
//! walked here first: the cells must be exactly the positions `0..n`, each once, and every length must fit.

use llama_cpp_sys_2 as sys;

use super::LlamaEngine;
use super::context::Context;
use super::log;
use crate::engine::options::{CacheType, EngineOptions, FlashAttention, Rope};
use crate::engine::saved::Stamp;
use crate::engine::{EngineError, Sequence};
use crate::model_file;

/// The build that states depend on; a test compares it with the version in `Cargo.toml`.
const BUILD: &str = "llama-cpp-sys-2 0.1.161";

/// The word every sequence state begins with (`io_magic` in `llama-context.cpp`).
const MAGIC: u32 = 0xaf14_3cd8;

impl Context {
    /// The state of a sequence, which is below `n_seq_max`.
    fn state(&mut self, sequence: Sequence) -> Result<Vec<u8>, EngineError> {
        let refused = || EngineError::State(format!("llama.cpp gave none: {}", log::take_errors()));
        log::take_errors();
        let sequence = sequence as i32;
        // SAFETY: the context exists, the sequence is in range; nothing is written.
        let size = unsafe { sys::llama_state_seq_get_size(self.raw(), sequence) };
        if size == 0 {
            return Err(refused());
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| EngineError::OutOfMemory(format!("a state of {size} bytes")))?;
        bytes.resize(size, 0);
        // SAFETY: as above; at most `size` bytes are written.
        let written = unsafe { sys::llama_state_seq_get_data(self.raw(), bytes.as_mut_ptr(), size, sequence) };
        if written == size { Ok(bytes) } else { Err(refused()) }
    }

    /// Puts a state, which passed [`check`], into a sequence, which is empty and below `n_seq_max`.
    fn set_state(&mut self, sequence: Sequence, state: &[u8]) -> Result<(), EngineError> {
        log::take_errors();
        // SAFETY: the context exists, the sequence is in range; `state.len()` bytes are read. What does not fit this
        // context is answered by 0 read bytes.
        let read = unsafe { sys::llama_state_seq_set_data(self.raw(), state.as_ptr(), state.len(), sequence as i32) };
        if read == state.len() {
            return Ok(());
        }
        let said = log::take_errors();
        self.truncate(sequence, 0);
        match said.contains("available cells") {
            true => Err(EngineError::ContextFull),
            false => Err(EngineError::State(format!("llama.cpp refused it: {said}"))),
        }
    }
}

impl LlamaEngine {
    /// See [`crate::engine::Engine::stamp`].
    pub(super) fn make_stamp(&mut self) -> Result<Stamp, EngineError> {
        if let Some(stamp) = &self.stamp {
            return Ok(stamp.clone());
        }
        self.check_states()?;
        let mut model = model_file::fingerprint(&self.options.model, &self.base)
            .map_err(|e| EngineError::State(format!("the model cannot be identified: {e}")))?;
        let details = &self.options.details;
        if !details.overrides.is_empty() || details.steered_layers.is_some() {
            model += &format!(" with {:?} {:?}", details.overrides, details.steered_layers);
        }
        let original = format!("{}.rope.scaling.original_context_length", self.base.architecture);
        let original = self.model.safe().meta_val_str(&original).ok().and_then(|text| text.parse().ok());
        let stamp = Stamp {
            model,
            build: BUILD.to_owned(),
            cache: cache(&self.options),
            positions: positions(&self.options.rope, original.map(|n: usize| (n, self.facts.context > n))),
        };
        Ok(self.stamp.insert(stamp).clone())
    }

    /// See [`crate::engine::Engine::save`].
    pub(super) fn save_state(&mut self, sequence: Sequence) -> Result<Vec<u8>, EngineError> {
        self.check_states()?;
        match self.lengths.get(sequence) {
            None => Err(EngineError::Misuse(format!("sequence {sequence} of {}", self.facts.sequences))),
            Some(0) => Err(EngineError::State("the sequence is empty".into())),
            Some(length) => {
                let state = self.context.state(sequence)?;
                // A layout that is not known here could not be checked when it comes back.
                check(&state, *length)
                    .map_err(|e| EngineError::State(format!("this model's states cannot be saved: {e}")))?;
                Ok(state)
            }
        }
    }

    /// See [`crate::engine::Engine::restore`].
    pub(super) fn restore_state(&mut self, sequence: Sequence, length: usize, state: &[u8]) -> Result<(), EngineError> {
        self.check_states()?;
        if self.lengths.get(sequence) != Some(&0) {
            return Err(EngineError::Misuse(format!("sequence {sequence} is not an empty one")));
        }
        if length > self.facts.context {
            return Err(EngineError::ContextFull);
        }
        check(state, length).map_err(EngineError::State)?;
        self.context.set_state(sequence, state)?;
        self.lengths[sequence] = length;
        Ok(())
    }

    fn check_states(&self) -> Result<(), EngineError> {
        let refused = "recurrent, hybrid and sliding-window models keep no states that could be reused";
        if self.facts.prefix_reuse { Ok(()) } else { Err(EngineError::State(refused.into())) }
    }
}

/// What the cache's bytes depend on.
fn cache(options: &EngineOptions) -> String {
    let name = |kind: CacheType| CacheType::NAMES.iter().find(|(_, k)| *k == kind).map_or("?", |(name, _)| name);
    let flash = match options.flash_attention {
        FlashAttention::Auto => "auto",
        FlashAttention::On => "on",
        FlashAttention::Off => "off",
    };
    let (k, v) = (name(options.cache_type_k), name(options.cache_type_v));
    format!("keys {k}, values {v}, flash attention {flash}")
}

/// What the rotations depend on: the settings, and for models with two sets of factors which of them is used.
/// `beyond` is the context such a model was first trained with, and whether this one is longer.
fn positions(rope: &Rope, beyond: Option<(usize, bool)>) -> String {
    let number = |name: &str, value: Option<f32>| value.map(|v| format!("{name} {v}"));
    let scaling = rope.scaling.map(|s| format!("scaling {s:?}").to_lowercase());
    let settings = [
        scaling,
        number("scale", rope.scale),
        number("frequency base", rope.freq_base),
        number("frequency scale", rope.freq_scale),
        rope.yarn_orig_ctx.map(|n| format!("yarn context {n}")),
        number("yarn extrapolation", rope.yarn_ext_factor),
        number("yarn attention", rope.yarn_attn_factor),
        number("yarn slow", rope.yarn_beta_slow),
        number("yarn fast", rope.yarn_beta_fast),
        beyond.map(|(n, longer)| format!("{} {n} tokens", if longer { "beyond" } else { "within" })),
    ];
    let settings: Vec<String> = settings.into_iter().flatten().collect();
    if settings.is_empty() { "the model's own".to_owned() } else { settings.join(", ") }
}

/// Walks a state: one stream, `length` cells with the positions `0..length`, keys and values of so many rows.
fn check(state: &[u8], length: usize) -> Result<(), String> {
    let mut walk = Walk { rest: state };
    if walk.u32()? != MAGIC {
        return Err("it is no state of a sequence".into());
    }
    walk.u32()?; // The sequence it was saved from.
    let (streams, cells) = (walk.u32()?, walk.u32()? as usize);
    if streams != 1 || cells != length {
        return Err(format!("it has {cells} cells in {streams} streams, expected {length} in one"));
    }
    let mut seen = vec![false; length];
    for _ in 0..length {
        let (position, sequences) = (walk.u32()? as usize, walk.u32()?);
        walk.u32()?;
        match seen.get_mut(position) {
            Some(seen) if !*seen && sequences == 1 => *seen = true,
            _ => return Err(format!("position {position} of {length} stands twice or is none")),
        }
    }
    let (transposed, layers) = (walk.u32()?, walk.u32()? as usize);
    if transposed > 1 || layers > state.len() {
        return Err("its layers are not as expected".into());
    }
    walk.skip(8)?; // Rotations of keys and of values.
    for _ in 0..layers {
        walk.u32()?;
        let row = walk.u64()?;
        walk.rows(row, length)?;
    }
    // Some models have values in some layers only.
    let mut blocks = 0;
    while !walk.rest.is_empty() {
        blocks += 1;
        if blocks > layers {
            return Err("it has more values than keys".into());
        }
        walk.u32()?;
        let row = match transposed {
            0 => walk.u64()?,
            _ => u64::from(walk.u32()?).checked_mul(u64::from(walk.u32()?)).ok_or("its rows are too long")?,
        };
        walk.rows(row, length)?;
    }
    Ok(())
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    fn skip(&mut self, bytes: usize) -> Result<&[u8], String> {
        let (skipped, rest) = self.rest.split_at_checked(bytes).ok_or("it is cut short")?;
        self.rest = rest;
        Ok(skipped)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(self.skip(4)?.try_into().map_or(0, u32::from_le_bytes))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(self.skip(8)?.try_into().map_or(0, u64::from_le_bytes))
    }

    fn rows(&mut self, row: u64, rows: usize) -> Result<(), String> {
        let bytes = usize::try_from(row).ok().and_then(|row| row.checked_mul(rows)).ok_or("its rows are too long")?;
        self.skip(bytes).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state of two layers with rows of 3 bytes, its cells in this order.
    fn state(positions: &[u32], transposed: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let n = positions.len();
        let mut words = |words: &[u32]| words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
        words(&[MAGIC, 5, 1, n as u32]);
        positions.iter().for_each(|p| words(&[*p, 1, 5]));
        words(&[u32::from(transposed), 2, 0, 0]);
        for block in 0..4 {
            out.extend_from_slice(&1u32.to_le_bytes());
            match block > 1 && transposed {
                true => [1u32, 3].iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes())),
                false => out.extend_from_slice(&3u64.to_le_bytes()),
            }
            out.extend(std::iter::repeat_n(9, 3 * n));
        }
        out
    }

    #[test]
    fn whole_states_pass() {
        for transposed in [false, true] {
            assert_eq!(check(&state(&[0, 1, 2], transposed), 3), Ok(()));
            assert_eq!(check(&state(&[2, 0, 1], transposed), 3), Ok(()), "cells stand in any order");
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        for (bytes, length) in [
            (state(&[0, 1, 2], false), 2),
            (state(&[0, 1, 1], false), 3),
            (state(&[0, 1, 3], false), 3),
            (state(&[0, 1, u32::MAX], false), 3),
            (Vec::new(), 0),
        ] {
            assert!(check(&bytes, length).is_err(), "{length}");
        }
        for transposed in [false, true] {
            let sound = state(&[0, 1, 2], transposed);
            let blocks: Vec<usize> = (0..2).map(|missing| sound.len() - missing * (12 + 9)).collect();
            for end in (0..sound.len()).filter(|end| !blocks.contains(end)) {
                let missing_values = check(&sound[..end], 3);
                assert!(missing_values.is_err() || (sound.len() - end).is_multiple_of(21), "cut at {end}");
            }
            for at in (0..sound.len()).filter(|at| *at < 16 || at % 7 == 0) {
                let mut bad = sound.clone();
                bad[at] = 0xff;
                // Values of cells may be anything; lengths may not. Whatever it says, it does not panic.
                let _ = check(&bad, 3);
            }
            let mut longer = sound.clone();
            longer.extend([0; 40]);
            assert!(check(&longer, 3).is_err());
        }
    }

    #[test]
    fn the_stamp_names_what_states_depend_on() {
        assert!(include_str!("../../../Cargo.toml").contains(&format!(
            "llama-cpp-sys-2 = {{ version = \"={}\"",
            BUILD.rsplit(' ').next().expect("a version")
        )));
        let options = EngineOptions { cache_type_k: CacheType::Q8_0, ..EngineOptions::new("m") };
        assert_eq!(cache(&options), "keys q8_0, values f16, flash attention auto");
        assert_eq!(positions(&Rope::default(), None), "the model's own");
        let rope = Rope { freq_base: Some(1e4), ..Rope::default() };
        assert_eq!(positions(&rope, Some((4096, true))), "frequency base 10000, beyond 4096 tokens");
    }
}
