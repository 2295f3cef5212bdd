//! Caps on what a GGUF file may claim. All are far above what published models use; each bounds time or memory.

/// Tensors in one file.
pub const MAX_TENSORS: u64 = 65_536;
/// Metadata keys in one file.
pub const MAX_KEYS: u64 = 4_096;
/// Bytes in the name of a key (the GGUF specification's own limit).
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Bytes in one metadata value, string lengths included.
pub const MAX_VALUE_BYTES: u64 = 16 << 20;
/// Bytes in one value whose key starts with `tokenizer.`: vocabularies and embedded `tokenizer.json` texts.
pub const MAX_VOCABULARY_BYTES: u64 = 128 << 20;
/// Bytes in a tensor name, the ending NUL of `GGML_MAX_NAME` (64) included: names are shorter than this.
pub const MAX_NAME_BYTES: usize = 64;
/// Dimensions of a tensor (`GGML_MAX_DIMS`).
pub const MAX_DIMS: u32 = 4;
/// Smallest `general.alignment`, in bytes.
pub const MIN_ALIGNMENT: u32 = 8;
/// Largest `general.alignment`, in bytes.
pub const MAX_ALIGNMENT: u32 = 65_536;
/// Alignment in bytes that llama.cpp asserts for memory-mapped weights (`TENSOR_ALIGNMENT` in `ggml-impl.h`).
pub const MAPPED_ALIGNMENT: u64 = 32;
/// Tokens in a vocabulary.
pub const MAX_TOKENS: usize = 1_000_000;
/// Bytes in the text of one token. llama.cpp builds recursive tries of this depth.
pub const MAX_TOKEN_BYTES: usize = 4_096;
/// Sum of the squared token lengths in bytes. llama.cpp's unknown-byte rendering and PLaMo-2 suffix table are
/// quadratic in the length of a token, so this bounds the memory that a vocabulary can cost.
pub const MAX_TOKEN_WORK: u64 = 1 << 29;
/// Bytes of a unigram tokenizer's normalisation table; each reachable entry is followed for every byte.
pub const MAX_CHARSMAP_BYTES: usize = 4 << 20;
/// Bytes in a chat template.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Layers of a network (`LLAMA_MAX_LAYERS`).
pub const MAX_LAYERS: u32 = 512;
/// Experts of a mixture (`LLAMA_MAX_EXPERTS`).
pub const MAX_EXPERTS: u32 = 1_024;
/// Width of a network.
pub const MAX_EMBEDDING: u32 = 1 << 20;
/// Rank of a LoRA pair.
pub const MAX_RANK: u64 = 512;
/// Invocation tokens of an activated LoRA.
pub const MAX_INVOCATION_TOKENS: usize = 1_024;
/// Parts of a split model.
pub const MAX_SHARDS: u16 = 1_024;
/// Rows of a soft prompt.
pub const MAX_SOFT_PROMPT_TOKENS: u64 = 4_096;
/// Messages of a prefix.
pub const MAX_PREFIX_MESSAGES: usize = 4_096;
/// Bytes of a prefix's messages, as JSON.
pub const MAX_PREFIX_BYTES: usize = 4 << 20;
/// Tokens whose state a prefix holds.
pub const MAX_PREFIX_TOKENS: u64 = 1 << 20;
/// Bytes of a text that says which build and cache format a state is of.
pub const MAX_STAMP_BYTES: usize = 1_024;
