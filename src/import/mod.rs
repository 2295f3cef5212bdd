//! Turns adapters as people make them, PEFT folders, into GGUF adapters, and sentence encoders into GGUF models. No
//! Python.
//!
//! Bytes in, bytes out. LoRA in all its spellings, and every kind whose change of a matrix is a product of two thin
//! ones (LoHa, LoKr, VeRA), becomes a GGUF LoRA, exactly, up to the rounding of the stored numbers. DoRA and IA3, which
//! change a matrix in full rank, become gains of outputs beside such pairs, as exactly; or, when plain LoRA is asked for
//! ([`Options::as_lora`]), the true difference against the base model's own weights, cut to a chosen rank by singular
//! values, with the relative error told and refused above a limit. Prompt tuning and P-tuning become soft prompts.
//! Anything that could only half apply is refused by name, with the way out; pickles are refused unread.
//!
//! It does not know: the file system (callers map or read files), llama.cpp, the adapter library, the terminal.
//!
//! ```text
//! config.rs   adapter_config.json, field by field     safetensors.rs  a strict reader        number.rs  16-bit floats
//! pattern.rs  rank_pattern, alpha_pattern             names.rs        modules -> base tensors and rows
//! modules.rs  tensors of one module, by role          permute.rs      rows of q and k in the llama family
//! lora.rs dora.rs ia3.rs loha.rs lokr.rs vera.rs      update.rs       what a module adds to its matrix
//! soft_prompt.rs  prompt tuning and P-tuning          examples.rs     lines of JSON -> messages of a prefix
//! svd.rs      the best low rank of a difference       dequant.rs      the base model's weights
//! quantize.rs block formats, requantize               pack.rs         one alpha, storage, the file
//! limits.rs   caps                                    parallel.rs     a map over threads
//! experts.rs  pairs of a mixture's experts, stacked
//! bert.rs     sentence encoders to GGUF               wheel.rs        their files in a Python wheel
//! ```

mod bert;
mod config;
mod dequant;
mod dora;
mod error;
mod examples;
mod experts;
mod ia3;
pub mod limits;
mod loha;
mod lokr;
mod lora;
mod modules;
mod names;
mod number;
mod pack;
mod parallel;
mod pattern;
mod permute;
mod quantize;
pub mod safetensors;
mod soft_prompt;
mod svd;
mod update;
mod vera;
mod wheel;

#[cfg(test)]
mod tests;

use crate::gguf::{self, ModelFacts};

pub use bert::{BertError, BertFiles, import_bert};
pub use config::PeftKind;
pub use dequant::{BaseWeights, GgufWeights, Matrix};
pub use error::ImportError;
pub use examples::examples;
pub use names::imports_for;
pub use pack::{Storage, TensorError};
pub use quantize::requantize;
pub use wheel::unpack as unpack_wheel;

pub(crate) use dequant::decode;
pub(crate) use svd::{low_rank, low_rank_product};

use config::Config;
use modules::Module;
use names::Names;
use safetensors::SafeTensors;
use update::{Context, Update};

/// A PEFT folder in memory.
#[derive(Clone, Copy, Debug)]
pub struct PeftFolder<'a> {
    /// `adapter_config.json`, the whole text.
    pub config: &'a str,
    /// `adapter_model.safetensors`, the whole file.
    pub weights: &'a [u8],
}

/// How to import.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `general.name` of the result, such as the name of the folder. Default: none.
    pub name: Option<String>,
    /// Rank of converted matrices, 1 to [`gguf::limits::MAX_RANK`]. Exact forms of a higher rank are cut to it as
    /// well. Default: none, which converts to [`limits::DEFAULT_RANK`] and keeps exact forms whole.
    pub rank: Option<u32>,
    /// Largest relative error of a conversion that is accepted, over all matrices together, in the Frobenius norm of
    /// the difference. None accepts any. Default: [`limits::DEFAULT_MAX_RELATIVE_ERROR`].
    pub max_relative_error: Option<f32>,
    /// Make a plain LoRA of DoRA and IA3 too, by conversion. Default: no, they become gains, exactly.
    pub as_lora: bool,
    /// How numbers are stored. Default: [`Storage::F16`].
    pub storage: Storage,
    /// Threads for conversions. Default: those of the machine.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            rank: None,
            max_relative_error: Some(limits::DEFAULT_MAX_RELATIVE_ERROR),
            as_lora: false,
            storage: Storage::F16,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// An adapter that was imported.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The GGUF file. It passes [`gguf::check_adapter`].
    pub gguf: Vec<u8>,
    /// What that check found in it.
    pub facts: gguf::AdapterFacts,
    /// What the folder held.
    pub kind: PeftKind,
    /// Nothing was cut: every matrix is the adapter's own, up to the rounding of the stored numbers.
    pub exact: bool,
    /// For what was cut: the norm of what is missing over the norm of the whole change, over all matrices. None when
    /// exact.
    pub relative_error: Option<f32>,
    /// What storing the numbers cost: the same figure, between the factors before and after rounding.
    pub storage_error: f32,
    /// The figures per matrix, in file order.
    pub errors: Vec<TensorError>,
    /// Smallest rank of any pair.
    pub rank_min: u32,
    /// Largest rank of any pair.
    pub rank_max: u32,
    /// The kinds of linears adapted, sorted: `attn_q`, `ffn_down`, ...
    pub targets: Vec<String>,
    /// What a person should know: fields without effect, numbers kept wider than asked.
    pub notes: Vec<String>,
}

/// Imports a PEFT folder for a base model.
///
/// `weights` gives the base model's numbers; without it DoRA is refused, and IA3 as a plain LoRA. Equal input gives
/// equal bytes on one machine; for converted kinds the last bits of the factors may differ between CPUs.
pub fn import_peft(
    folder: &PeftFolder<'_>,
    base: &ModelFacts,
    weights: Option<&dyn BaseWeights>,
    options: &Options,
) -> Result<Imported, ImportError> {
    let mut config = Config::parse(folder.config)?;
    let mut notes = std::mem::take(&mut config.notes);
    let tensors = SafeTensors::read(folder.weights)?;
    if config.kind.is_soft_prompt() {
        return soft_prompt::import(&tensors, &config, base, options, notes);
    }
    let names = Names::of(base)?;
    let (modules, shared) = modules::group(&tensors, &config, &mut notes)?;
    let context = Context { config: &config, base, weights, names: &names, as_lora: options.as_lora };
    let updates = parallel::map(&modules, options.threads, |module| {
        let update = update_of(&context, module, shared)?;
        pack::settle(update, options)
    })?;
    pack::finish(updates, &config, base, options, notes)
}

/// What one module adds to its matrix.
fn update_of<'a>(
    context: &Context<'_>,
    module: &Module<'a>,
    shared: modules::Shared<'a>,
) -> Result<Update, ImportError> {
    match context.config.kind {
        PeftKind::Lora | PeftKind::RsLora | PeftKind::ALora => lora::update(context, module),
        PeftKind::Dora => dora::update(context, module),
        PeftKind::Ia3 => ia3::update(context, module),
        PeftKind::LoHa => loha::update(context, module),
        PeftKind::LoKr => lokr::update(context, module),
        PeftKind::Vera => vera::update(context, module, shared),
        PeftKind::PromptTuning | PeftKind::PTuning => {
            Err(ImportError::config("peft_type", "is a soft prompt, which has no modules"))
        }
    }
}
