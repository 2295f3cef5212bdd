//! Sorts the tensors of a file by the module they adapt and the role they have in it.

use std::collections::HashMap;

use super::config::{Config, PeftKind};
use super::error::ImportError;
use super::names;
use super::safetensors::{SafeTensors, Tensor};

/// Roles of tensors, by the parts of the name after the module.
const ROLES: [(&str, Role); 21] = [
    ("lora_A.weight", Role::A),
    ("lora_B.weight", Role::B),
    ("lora_embedding_A", Role::EmbeddingA),
    ("lora_embedding_B", Role::EmbeddingB),
    ("lora_magnitude_vector", Role::Magnitude),
    ("lora_magnitude_vector.weight", Role::Magnitude),
    ("ia3_l", Role::Factors),
    ("hada_w1_a", Role::W1A),
    ("hada_w1_b", Role::W1B),
    ("hada_w2_a", Role::W2A),
    ("hada_w2_b", Role::W2B),
    ("lokr_w1", Role::W1),
    ("lokr_w1_a", Role::W1A),
    ("lokr_w1_b", Role::W1B),
    ("lokr_w2", Role::W2),
    ("lokr_w2_a", Role::W2A),
    ("lokr_w2_b", Role::W2B),
    ("vera_lambda_b", Role::LambdaB),
    ("vera_lambda_d", Role::LambdaD),
    ("vera_A", Role::SharedA),
    ("vera_B", Role::SharedB),
];

/// What a tensor is in its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    Magnitude,
    Factors,
    W1,
    W1A,
    W1B,
    W2,
    W2A,
    W2B,
    LambdaB,
    LambdaD,
    SharedA,
    SharedB,
}

impl Role {
    /// The kinds of adapters that have such tensors.
    fn fits(self, kind: PeftKind) -> bool {
        let lora = matches!(kind, PeftKind::Lora | PeftKind::RsLora | PeftKind::ALora | PeftKind::Dora);
        match self {
            Self::A | Self::B | Self::EmbeddingA | Self::EmbeddingB => lora,
            Self::Magnitude => kind == PeftKind::Dora,
            Self::Factors => kind == PeftKind::Ia3,
            Self::W1A | Self::W1B | Self::W2A | Self::W2B => matches!(kind, PeftKind::LoHa | PeftKind::LoKr),
            Self::W1 | Self::W2 => kind == PeftKind::LoKr,
            Self::LambdaB | Self::LambdaD | Self::SharedA | Self::SharedB => kind == PeftKind::Vera,
        }
    }
}

/// The tensors of one module.
#[derive(Clone, Debug)]
pub(super) struct Module<'a> {
    /// The name as PEFT's patterns see it: `model.layers.0.self_attn.q_proj`.
    pub(super) name: String,
    tensors: Vec<(Role, Tensor<'a>)>,
}

impl<'a> Module<'a> {
    /// The tensor in a role.
    pub(super) fn get(&self, role: Role) -> Option<&Tensor<'a>> {
        self.tensors.iter().find(|(found, _)| *found == role).map(|(_, tensor)| tensor)
    }

    /// The tensor in a role, which must be there.
    pub(super) fn need(&self, role: Role, name: &str) -> Result<&Tensor<'a>, ImportError> {
        self.get(role).ok_or_else(|| ImportError::tensor(&self.name, format!("has no {name}; the file is incomplete")))
    }
}

/// The two matrices that all modules of a VeRA adapter share.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shared<'a> {
    pub(super) a: Option<&'a Tensor<'a>>,
    pub(super) b: Option<&'a Tensor<'a>>,
}

/// Groups the tensors by module, in the order of the file. Tensors without a role are refused by what they are.
pub(super) fn group<'a>(
    tensors: &'a SafeTensors<'a>,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<(Vec<Module<'a>>, Shared<'a>), ImportError> {
    let mut modules: Vec<Module<'a>> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut shared = Shared::default();
    for tensor in tensors.tensors() {
        let Some((module, role)) = split(&tensor.name) else {
            unknown(tensor, notes)?;
            continue;
        };
        if !role.fits(config.kind) {
            let reason =
                format!("does not belong to an adapter of kind {}: is the configuration its own?", config.kind);
            return Err(ImportError::tensor(&tensor.name, reason));
        }
        match role {
            Role::SharedA => shared.a = Some(tensor),
            Role::SharedB => shared.b = Some(tensor),
            _ => {
                let position = *index.entry(module.clone()).or_insert(modules.len());
                if position == modules.len() {
                    modules.push(Module { name: module, tensors: Vec::new() });
                }
                let Some(module) = modules.get_mut(position) else { continue };
                if module.get(role).is_some() {
                    return Err(ImportError::tensor(&tensor.name, "is there twice, under two spellings"));
                }
                module.tensors.push((role, tensor.clone()));
            }
        }
    }
    if modules.is_empty() {
        return Err(ImportError::weights("holds no adapter tensors"));
    }
    Ok((modules, shared))
}

/// The module and the role in a tensor's name. The name of the adapter (`default`) may stand in the role.
fn split(name: &str) -> Option<(String, Role)> {
    let parts: Vec<&str> = name.split('.').filter(|part| *part != "default").collect();
    for length in [2, 1] {
        let Some((module, role)) = parts.len().checked_sub(length).map(|at| parts.split_at(at)) else { continue };
        let role = role.join(".");
        if let Some((_, role)) = ROLES.iter().find(|(known, _)| *known == role) {
            return Some((names::module_name(&module.join(".")), *role));
        }
    }
    None
}

/// A tensor that no kind of adapter has: skipped when it repeats the base model, refused otherwise.
fn unknown(tensor: &Tensor<'_>, notes: &mut Vec<String>) -> Result<(), ImportError> {
    let name = tensor.name.as_str();
    let has = |part: &str| name.split('.').any(|found| found == part);
    if has("base_layer") && name.ends_with(".weight") && !has("modules_to_save") {
        // PEFT saves frozen embeddings with the adapter when they are adapted.
        let note = format!("'{}' repeats the base model's own weights and was left out", super::error::shown(name));
        notes.push(note);
        return Ok(());
    }
    let reason = if name.ends_with(".bias") || has("bias") {
        "is a bias, which a LoRA file cannot carry; train with bias='none' and lora_bias off"
    } else if has("modules_to_save") {
        "is a whole module (modules_to_save), which a LoRA file cannot carry; merge the adapter, or train without it"
    } else if has("token_adapter") || name.contains("trainable_tokens") {
        "holds trained tokens, which a LoRA file cannot carry; merge the adapter instead"
    } else if has("embed_tokens") || has("lm_head") || has("wte") {
        "is a whole embedding or output layer, perhaps with added tokens, which a LoRA file cannot carry; merge the \
         adapter into its base model"
    } else if name.contains("norm") {
        "is a whole norm, which llama.cpp would skip; train without norms"
    } else if name.contains("prompt_embeddings") || name.contains("prompt_encoder") {
        "is a soft prompt, which no adapter of this kind has: is the configuration its own?"
    } else if has("lokr_t2") || has("hada_t1") || has("hada_t2") {
        "is of a convolution, which language models of llama.cpp do not adapt"
    } else if name.contains("absmax") || name.contains("quant_map") || name.contains("quant_state") {
        "belongs to a quantized base model saved with the adapter; save the adapter alone"
    } else {
        "is neither A nor B nor anything else that is known; save the adapter with a current PEFT"
    };
    Err(ImportError::tensor(name, reason))
}
