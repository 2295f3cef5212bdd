//! Caps and defaults of the import. All caps are far above what published adapters use.

/// Bytes of `adapter_config.json`.
pub const MAX_CONFIG_BYTES: usize = 4 << 20;
/// Bytes of a safetensors header. The format itself allows 100 MB; real headers stay under one.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Tensors in one safetensors file.
pub const MAX_TENSORS: usize = 65_536;
/// Dimensions of a safetensors tensor.
pub const MAX_DIMS: usize = 8;
/// Entries in `rank_pattern` or `alpha_pattern`.
pub const MAX_PATTERNS: usize = 4_096;
/// Bytes of one compiled pattern.
pub const MAX_PATTERN_BYTES: usize = 256 << 10;
/// Elements of one matrix of the base model: 1 GiB of F32.
pub const MAX_MATRIX: u64 = 1 << 28;
/// Rank of converted matrices unless chosen.
pub const DEFAULT_RANK: u32 = 64;
/// Largest relative error of a conversion unless chosen.
pub const DEFAULT_MAX_RELATIVE_ERROR: f32 = 0.05;
/// Bytes of one file of a wheel.
pub const MAX_MEMBER_BYTES: u64 = 4 << 30;
/// Layers of a sentence encoder.
pub const MAX_BERT_LAYERS: u32 = 256;
/// Width of a sentence encoder.
pub const MAX_BERT_WIDTH: u32 = 1 << 14;
/// A matrix that F16 or BF16 would change by more than this (relative error) is stored as F32 instead.
pub const MAX_ROUNDING_ERROR: f32 = 2e-3;
