//! From the module names of Hugging Face models to the tensor names of GGUF files. All tables.
//!
//! Sources: `gguf-py/gguf/tensor_mapping.py` for the names, `conversion/*.py` for what becomes of rows.

use super::error::ImportError;
use super::limits::MAX_MATRIX;
use crate::gguf::ModelFacts;

/// What converting a model does to the rows of q and k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// Nothing.
    Kept,
    /// Interleaved halves of heads, see [`permute`](super::permute).
    Interleaved,
}

/// Architectures whose adapters are imported. All have the module names of [`LAYER`]; each has a folder in the tests
/// that llama.cpp's own converter made, mixtures of experts aside.
const ARCHITECTURES: [(&str, Rows); 24] = [
    ("arcee", Rows::Interleaved),
    ("cohere2", Rows::Kept),
    ("command-r", Rows::Kept),
    ("ernie4_5", Rows::Kept),
    ("exaone4", Rows::Kept),
    ("gemma", Rows::Kept),
    ("gemma2", Rows::Kept),
    ("gemma3", Rows::Kept),
    ("glm4", Rows::Kept),
    ("granite", Rows::Interleaved),
    // Also Mistral, Mixtral, Yi, InternLM3, TinyLlama, SmolLM and SmolLM2.
    ("llama", Rows::Interleaved),
    ("olmo", Rows::Interleaved),
    ("olmo2", Rows::Kept),
    ("olmoe", Rows::Kept),
    ("phi2", Rows::Kept),
    ("phi3", Rows::Kept),
    ("qwen2", Rows::Kept),
    ("qwen2moe", Rows::Kept),
    ("qwen3", Rows::Kept),
    ("qwen3moe", Rows::Kept),
    ("seed_oss", Rows::Kept),
    ("smollm3", Rows::Interleaved),
    ("stablelm", Rows::Kept),
    ("starcoder2", Rows::Kept),
];

/// Modules of a layer: `model.layers.N.MODULE` is `blk.N.TENSOR.weight`.
const LAYER: [(&str, &str); 19] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.dense", "attn_output"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    // llama.cpp reads the fused matrix of Phi-3 from ffn_up, gate first as in the original.
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
];

/// Linears of one expert: `model.layers.N.BLOCK.E.LINEAR` is matrix `E` of `blk.N.TENSOR.weight`.
const EXPERT: [(&str, &str, &str); 6] = [
    ("mlp.experts.", "gate_proj", "ffn_gate_exps"),
    ("mlp.experts.", "up_proj", "ffn_up_exps"),
    ("mlp.experts.", "down_proj", "ffn_down_exps"),
    ("block_sparse_moe.experts.", "w1", "ffn_gate_exps"),
    ("block_sparse_moe.experts.", "w2", "ffn_down_exps"),
    ("block_sparse_moe.experts.", "w3", "ffn_up_exps"),
];

/// Modules outside the layers.
const OUTSIDE: [(&str, &str); 3] = [("embed_tokens", "token_embd"), ("lm_head", "output"), ("embed_out", "output")];

/// Wrappers around the text model that names may start with: PEFT, Transformers, vision-language models.
const WRAPPERS: [&str; 5] = ["base_model.model.", "model.", "language_model.", "text_model.", "module."];

/// Parts that wrappers of training (FSDP, torch.compile, checkpointing) put anywhere into names.
const TRANSPARENT: [&str; 3] = ["_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"];

/// Parts of names that belong to other towers than the text model.
const OTHER_TOWERS: [&str; 7] =
    ["vision_tower", "vision_model", "visual", "audio_tower", "multi_modal_projector", "mm_projector", "vpm"];

/// Whether PEFT folders can be imported for models of this architecture (`general.architecture`).
pub fn imports_for(architecture: &str) -> bool {
    ARCHITECTURES.iter().any(|(known, _)| *known == architecture)
}

/// Where a module of a Hugging Face model went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The base tensor: `blk.3.attn_q.weight`.
    pub(super) tensor: String,
    /// Inputs of the linear, or tokens of the embedding.
    pub(super) inputs: usize,
    /// Outputs of the linear, or the width of the embedding.
    pub(super) outputs: usize,
    /// The token embedding.
    pub(super) embedding: bool,
    /// Rows of a head when the rows are interleaved.
    pub(super) head: Option<usize>,
    /// Which of how many experts that the tensor stacks.
    pub(super) expert: Option<(u32, u32)>,
}

impl Target {
    /// Refuses matrices that are too large to be worked out in full.
    pub(super) fn check_whole(&self) -> Result<(), ImportError> {
        let (high, wide) = (self.outputs as u64, self.inputs as u64);
        if high.saturating_mul(wide) <= MAX_MATRIX {
            return Ok(());
        }
        let reason = format!("has {high} x {wide} numbers, too many for a conversion (the limit is {MAX_MATRIX})");
        Err(ImportError::base(&self.tensor, reason))
    }
}

/// The names of one base model.
#[derive(Clone, Debug)]
pub(super) struct Names<'a> {
    base: &'a ModelFacts,
    rows: Rows,
}

impl<'a> Names<'a> {
    /// The names of a model. Refuses architectures without a table.
    pub(super) fn of(base: &'a ModelFacts) -> Result<Self, ImportError> {
        let found = ARCHITECTURES.iter().find(|(name, _)| *name == base.architecture);
        let Some((_, rows)) = found else {
            let names: Vec<_> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
            let reason = format!(
                "is '{}'; PEFT folders are imported for {}. Convert this one with convert_lora_to_gguf.py",
                base.architecture,
                names.join(", ")
            );
            return Err(ImportError::base("general.architecture", reason));
        };
        Ok(Self { base, rows: *rows })
    }

    /// Where a module went, by its name in the adapter, with the sizes of its matrix.
    pub(super) fn find(&self, module: &str) -> Result<Target, ImportError> {
        let (tensor, expert) = self.tensor(module)?;
        let refuse = |reason: String| Err(ImportError::tensor(module, reason));
        let Some(shape) = self.base.tensors.get(&tensor) else {
            return refuse(self.missing(&tensor));
        };
        let [columns, rows, stacked, 1] = *shape else {
            return refuse(format!("goes to '{tensor}' of shape {shape:?}, which is not one matrix"));
        };
        let expert = match (expert, u32::try_from(stacked)) {
            (Some(at), Ok(all)) if at < all => Some((at, all)),
            (Some(at), _) => return refuse(format!("adapts expert {at} of {stacked}: another base model?")),
            (None, Ok(1)) => None,
            _ => return refuse(format!("goes to '{tensor}' of shape {shape:?}, which is not one matrix")),
        };
        let sizes = usize::try_from(columns).ok().zip(usize::try_from(rows).ok());
        let Some((columns, rows)) = sizes else {
            return refuse(format!("goes to '{tensor}' of shape {shape:?}, which is too large"));
        };
        let embedding = tensor == "token_embd.weight";
        if embedding && !self.base.tensors.contains_key("output.weight") {
            return refuse(
                "adapts the embedding, which this model shares with its output layer, and llama.cpp cannot adapt that; \
                 train without embed_tokens"
                    .to_owned(),
            );
        }
        Ok(Target {
            head: self.head(&tensor, rows)?,
            expert,
            tensor,
            inputs: if embedding { rows } else { columns },
            outputs: if embedding { columns } else { rows },
            embedding,
        })
    }

    /// The base tensor of a module, and which expert of it.
    fn tensor(&self, module: &str) -> Result<(String, Option<u32>), ImportError> {
        let name = text_name(module);
        if let Some((_, tensor)) = OUTSIDE.iter().find(|(outside, _)| *outside == name) {
            return Ok((format!("{tensor}.weight"), None));
        }
        let in_layer = name.strip_prefix("layers.").and_then(|rest| {
            let (layer, rest) = rest.split_once('.')?;
            let layer = layer.parse::<u32>().ok()?;
            if let Some((_, tensor)) = LAYER.iter().find(|(known, _)| *known == rest) {
                return Some((format!("blk.{layer}.{tensor}.weight"), None));
            }
            EXPERT.iter().find_map(|(block, linear, tensor)| {
                let (expert, found) = rest.strip_prefix(block)?.split_once('.')?;
                let expert = expert.parse::<u32>().ok().filter(|_| found == *linear)?;
                Some((format!("blk.{layer}.{tensor}.weight"), Some(expert)))
            })
        });
        in_layer.ok_or_else(|| {
            let reason = if name.split('.').any(|part| OTHER_TOWERS.contains(&part)) {
                "adapts the vision or audio part, which is no part of this text model; train the language layers alone"
            } else if name.contains("expert") {
                "adapts experts of a mixture in a form that is not imported; use convert_lora_to_gguf.py"
            } else if name == "score" || name == "classifier" {
                "is a classification head, which llama.cpp does not read; train with task type CAUSAL_LM"
            } else {
                "is a module that this program does not know; train on attention and MLP linears alone"
            };
            ImportError::tensor(module, reason)
        })
    }

    fn missing(&self, tensor: &str) -> String {
        let tensors = &self.base.tensors;
        if tensor == "output.weight" {
            return "adapts lm_head, which this model shares with its embedding, and llama.cpp cannot adapt that; train \
                    without lm_head"
                .to_owned();
        }
        let fused = tensor
            .rsplit_once(".attn_")
            .is_some_and(|(layer, _)| tensors.contains_key(&format!("{layer}.attn_qkv.weight")));
        if fused {
            let way = "convert the model without fused q, k and v";
            return format!("goes to '{tensor}', but this model stores q, k and v in one; {way}");
        }
        let layers = self.base.n_layer;
        format!("goes to '{tensor}', which the model lacks (it has {layers} layers): another base model?")
    }

    /// Rows of a head for matrices whose rows are interleaved.
    fn head(&self, tensor: &str, rows: usize) -> Result<Option<usize>, ImportError> {
        let heads = match tensor.rsplit_once('.').and_then(|(name, _)| name.rsplit_once('.')) {
            Some((_, "attn_q")) => self.base.n_head,
            Some((_, "attn_k")) => self.base.n_head_kv,
            _ => return Ok(None),
        };
        if self.rows == Rows::Kept {
            return Ok(None);
        }
        // Layers may have different numbers of heads, of one size: the largest matrix has the largest number.
        let (_, kind) = tensor.split_at(tensor.find(".attn_").unwrap_or(0));
        let high = |(name, shape): (&String, &[u64; 4])| name.ends_with(kind).then_some(shape[1]);
        let most = self.base.tensors.iter().filter_map(high).max().unwrap_or(0);
        let head = most.checked_div(u64::from(heads)).and_then(|head| usize::try_from(head).ok()).unwrap_or(0);
        if head < 2 || head % 2 == 1 || !rows.is_multiple_of(head) || !most.is_multiple_of(u64::from(heads)) {
            return Err(ImportError::base(tensor, format!("has {rows} rows, which are no whole heads")));
        }
        Ok(Some(head))
    }
}

/// The name of a module as PEFT's patterns see it: without its own wrapper and those of training.
pub(super) fn module_name(name: &str) -> String {
    let parts: Vec<_> = name.split('.').filter(|part| !TRANSPARENT.contains(part)).collect();
    let name = parts.join(".");
    name.strip_prefix("base_model.model.").map(str::to_owned).unwrap_or(name)
}

/// The name of a module within the text model: `layers.3.mlp.up_proj`.
fn text_name(module: &str) -> &str {
    let mut name = module;
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name
}
