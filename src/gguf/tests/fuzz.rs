//! Random damage to sound files: nothing panics, and whatever is accepted keeps its promises.

use super::super::{
    AdapterKind, Gguf, ModelFacts, PrefixState, check_adapter, check_model, check_shard, control_directions,
    soft_prompt_rows,
};
use super::kinds;
use super::sample::{adapter, facts, model, moe_model, set, spm_model, spm_tokens};
use proptest::prelude::*;

/// A small reproducible generator (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Numbers that readers trip over.
const TRAPS: [u64; 16] = [
    0,
    1,
    3,
    9,
    31,
    64,
    255,
    513,
    65_537,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    u64::MAX / 4,
    i64::MAX as u64,
    u64::MAX,
];

/// Damages a file in one to six places; the same seed does the same.
fn mutate(seed: u64, bytes: &[u8]) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(6) {
        if bytes.is_empty() {
            break;
        }
        // The header is where the decisions are, so most damage goes there.
        let reach = if random.below(4) == 0 { bytes.len() } else { bytes.len().min(1_600) };
        let at = random.below(reach);
        match random.below(8) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 | 4 => {
                let trap = TRAPS[random.below(TRAPS.len())].to_le_bytes();
                let size = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + size].copy_from_slice(&trap[..size]);
            }
            5 => {
                let end = at + random.below(64).min(bytes.len() - at);
                bytes.drain(at..end);
            }
            6 => {
                let from = random.below(bytes.len());
                let piece: Vec<u8> = bytes[from..].iter().copied().take(random.below(64)).collect();
                bytes.splice(at..at, piece);
            }
            _ if random.below(4) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
    bytes
}

/// What every accepted file promises, and every refusal.
fn assert_sound(bytes: &[u8], base: &ModelFacts) {
    if let Ok(gguf) = Gguf::read(bytes) {
        assert!(matches!(gguf.version, 2 | 3));
        let mut end = gguf.data_offset;
        for tensor in gguf.tensors() {
            let start = gguf.data_offset + tensor.offset;
            assert!(start >= end, "{} overlaps", tensor.name);
            end = start + tensor.size;
            assert_eq!(gguf.tensor_bytes(tensor).len() as u64, tensor.size);
            assert_eq!(tensor.kind.size_of(&tensor.dims), Some(tensor.size));
            assert!(tensor.dims.iter().all(|dim| *dim >= 1));
            assert_eq!(gguf.tensor(tensor.name), Some(tensor));
        }
        assert!(end <= bytes.len() as u64);
        assert!(gguf.keys().iter().all(|(key, _)| gguf.get(key).is_some()));
    }
    let model = check_model(bytes);
    if let Ok(facts) = &model {
        assert!((1..=512).contains(&facts.n_layer));
        assert!(facts.n_vocab >= 1 && facts.n_embd >= 1 && facts.n_ctx_train >= 1);
        assert!(facts.expert_used_count <= facts.expert_count);
        let tokenizer = &facts.tokenizer;
        for id in [tokenizer.bos, tokenizer.eos, tokenizer.eot].into_iter().flatten() {
            assert!(id < facts.n_vocab);
        }
    }
    let adapter = check_adapter(bytes, base);
    if let Ok(facts) = &adapter {
        assert!(facts.alpha.is_finite() && facts.alpha > 0.0);
        assert!(facts.rank_min <= facts.rank_max && facts.rank_max <= 512);
        match &facts.kind {
            AdapterKind::Lora | AdapterKind::Alora => assert!(facts.rank_min >= 1 && !facts.pairs.is_empty()),
            AdapterKind::Gain => assert!(!facts.gains.is_empty()),
            AdapterKind::SoftPrompt { tokens } => {
                let numbers = soft_prompt_rows(bytes).expect("checked").len();
                assert_eq!(numbers, (*tokens * base.n_embd) as usize);
            }
            AdapterKind::ControlVector { .. } => {
                let numbers = control_directions(bytes, base).expect("checked").len();
                assert_eq!(numbers, (base.n_embd * (base.n_layer - 1)) as usize);
            }
            AdapterKind::PrefixState { messages, tokens, state_bytes } => {
                let read = PrefixState::read(bytes).expect("checked");
                assert_eq!(read.messages.len(), *messages as usize);
                assert_eq!((read.tokens.len(), read.state.len()), (*tokens as usize, *state_bytes as usize));
                assert!(read.tokens.iter().all(|token| *token < base.n_vocab));
            }
        }
        assert!(facts.gains.iter().all(|gain| base.tensors.contains_key(&gain.tensor)));
        assert!(facts.pairs.iter().all(|pair| base.tensors.contains_key(&pair.tensor)));
        assert!(facts.invocation_tokens.iter().all(|token| *token < base.n_vocab));
    }
    let shard = check_shard(bytes);
    if let Ok(facts) = &shard {
        assert!(facts.split.index >= 1 && facts.split.index < facts.split.count);
    }
    for error in [model.err(), adapter.err(), shard.err()].into_iter().flatten() {
        let line = error.to_string();
        assert!(line.len() < 4_096 && !line.chars().any(char::is_control), "{line:?}");
    }
}

/// Sound files of every kind, and the model that the adapter is for.
fn bases() -> (Vec<Vec<u8>>, ModelFacts) {
    let mut part = adapter();
    set(&mut part, "split.no", 1_u16);
    set(&mut part, "split.count", 2_u16);
    set(&mut part, "split.tensors.count", 20_i32);
    let mut rwkv = model();
    set(&mut rwkv, "tokenizer.ggml.model", "rwkv");
    let [gain, soft, control, prefix] = kinds::samples();
    let files = [model(), moe_model(), spm_model(&spm_tokens()), adapter(), part, rwkv, gain, soft, control, prefix];
    (files.iter().map(|file| file.to_bytes()).collect(), ModelFacts { n_layer: 3, ..facts(&moe_model()) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic_and_accepted_ones_are_sound(seed in any::<u64>()) {
        let (files, base) = bases();
        for (number, file) in files.iter().enumerate() {
            for round in 0..8 {
                let seed = seed.wrapping_add(round).rotate_left(number as u32);
                assert_sound(&mutate(seed, file), &base);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (_, base) = bases();
        assert_sound(&bytes, &base);
        let headed = [b"GGUF\x03\0\0\0".as_slice(), &bytes].concat();
        assert_sound(&headed, &base);
    }
}
