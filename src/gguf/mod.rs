//! Reads and checks GGUF files before llama.cpp sees a byte of them.
//!
//! llama.cpp's loaders answer many malformed files with `GGML_ASSERT`, which ends the process, and a few with
//! memory errors. A model or an adapter is hostile input, so this module reads the whole header first, in safe Rust,
//! and refuses by name whatever the pinned llama.cpp would abort on, crash on or read wrongly. What it accepts is
//! described by plain values: [`ModelFacts`], [`ShardFacts`], [`AdapterFacts`].
//!
//! It borrows from the bytes it is given, reads no weight of a model (only those of an adapter), takes linear time and
//! never allocates in proportion to a size that a file merely claims.
//!
//! It does not know: the file system (callers map or read files, and prefix errors with a file name), llama.cpp
//! itself (no call into it), other formats, or what the program does with a model.
//!
//! ```text
//! header.rs   magic, counts, keys, tensor table    value.rs   typed metadata      tensor.rs  tensor types and sizes
//! model.rs    check_model -> ModelFacts            hparams.rs sizes of the network  vocab.rs   tokenizer
//! shard.rs    split models                         adapter/   check_adapter -> AdapterFacts  scan.rs  NaN, Inf, zero
//! arch.rs     architectures this llama.cpp knows   write.rs   a writer              limits.rs  all the caps
//! ```

mod adapter;
mod arch;
mod error;
mod hash;
mod header;
mod hparams;
pub mod limits;
mod model;
mod overrides;
mod scan;
mod shard;
mod tensor;
mod value;
mod vocab;
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub use adapter::{
    AdapterFacts, AdapterKind, GainVector, LoraPair, PrefixMessage, PrefixState, SoftPrompt, check_adapter,
    control_directions, gains, soft_prompt_rows,
};
pub use arch::{ModelKind, knows_architecture};
pub use error::{GgufError, GgufErrorKind, escape};
pub use header::Gguf;
pub use model::{ModelFacts, check_model, check_model_with};
pub use overrides::{Override, OverrideValue};
pub use shard::{ShardFacts, Split, check_shard, check_shards, shard_paths};
pub use tensor::{Shape, TensorInfo, TensorType};
pub use value::{Array, Value, ValueType};
pub use vocab::TokenizerFacts;
pub use write::{GgufWriter, OwnedValue};
