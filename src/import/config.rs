//! `adapter_config.json`: which fields are honoured, which have no effect on the weights, and which are refused.
//!
//! The rule is "never half": a field that changes the mathematics and that a GGUF LoRA cannot carry is refused by
//! name with the way out.

use serde_json::{Map, Value};

use super::error::{ImportError, shown};
use super::limits::MAX_CONFIG_BYTES;
use super::pattern::Patterns;
use crate::gguf;

/// The kinds of adapters that are imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeftKind {
    /// `W + (alpha / r) B A`.
    Lora,
    /// LoRA with the strength `alpha / sqrt(r)`.
    RsLora,
    /// LoRA that is active from an invocation sequence on.
    ALora,
    /// LoRA with a learned norm for every row of the result.
    Dora,
    /// A learned factor for every output or input of a linear.
    Ia3,
    /// The element-wise product of two low ranks.
    LoHa,
    /// The Kronecker product of two small matrices.
    LoKr,
    /// Shared random matrices with learned factors.
    Vera,
    /// Embeddings in front of the prompt.
    PromptTuning,
    /// The same, trained through a small network whose results the folder holds.
    PTuning,
}

impl PeftKind {
    /// The name for people: `rsLoRA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "LoRA",
            Self::RsLora => "rsLoRA",
            Self::ALora => "aLoRA",
            Self::Dora => "DoRA",
            Self::Ia3 => "IA3",
            Self::LoHa => "LoHa",
            Self::LoKr => "LoKr",
            Self::Vera => "VeRA",
            Self::PromptTuning => "prompt tuning",
            Self::PTuning => "P-tuning",
        }
    }

    /// Whether the folder holds embeddings, not changes of weights.
    pub fn is_soft_prompt(self) -> bool {
        matches!(self, Self::PromptTuning | Self::PTuning)
    }
}

impl std::fmt::Display for PeftKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Fields that change nothing in the weights of a trained adapter: how it was trained, where it came from, which
/// modules it was put on (the weights tell that), how its trainer shared the work.
const WITHOUT_EFFECT: [&str; 46] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "d_initial",
    "decompose_both",
    "decompose_factor",
    "ensure_weight_tying",
    "encoder_dropout",
    "encoder_hidden_size",
    "encoder_num_layers",
    "encoder_reparameterization_type",
    "eva_config",
    "exclude_modules",
    "feedforward_modules",
    "inference_mode",
    "init_ia3_weights",
    "init_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "module_dropout",
    "num_attention_heads",
    "num_layers",
    "peft_version",
    "projection_prng_key",
    "prompt_tuning_init",
    "prompt_tuning_init_state_dict_path",
    "prompt_tuning_init_text",
    "qalora_group_size",
    "rank_dropout",
    "rank_dropout_scale",
    "revision",
    "runtime_config",
    "save_projection",
    "target_modules",
    "task_type",
    "token_dim",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
    "trust_remote_code",
    "unsloth_fixed",
    "use_effective_conv2d",
    "vera_dropout",
];

/// Fields that are read elsewhere in this file.
const READ: [&str; 15] = [
    "alora_invocation_tokens",
    "alpha",
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "init_lora_weights",
    "loftq_config",
    "lora_alpha",
    "num_transformer_submodules",
    "num_virtual_tokens",
    "peft_type",
    "r",
    "rank_pattern",
    "use_dora",
    "use_rslora",
];

/// Fields that must be off, with what they do and what to do instead.
const REFUSED: [(&str, &str); 13] = [
    ("modules_to_save", "holds whole modules, which a LoRA file cannot carry; merge the adapter, or train without it"),
    ("trainable_token_indices", "trains single tokens, which a LoRA file cannot carry; merge the adapter instead"),
    ("lora_bias", "adds biases, which a LoRA file cannot carry; train with lora_bias off"),
    ("use_qalora", "pools the inputs of A, which llama.cpp does not; merge the adapter instead"),
    ("use_bdlora", "makes A or B block diagonal in its own layout, which is not read yet; merge the adapter instead"),
    ("layer_replication", "copies layers of the base model; export the enlarged model as GGUF and train on that"),
    ("target_parameters", "adapts fused expert parameters, which are not imported yet; use convert_lora_to_gguf.py"),
    ("invocation_string", "is of an old aLoRA without token ids; add alora_invocation_tokens, the ids of that text"),
    ("arrow_config", "routes among several adapters; import these one by one"),
    ("kasa_config", "changes the base model (KaSA); merge the adapter instead"),
    (
        "monteclora_config",
        "samples around the weights (MonteCLoRA), which llama.cpp does not; merge the adapter instead",
    ),
    (
        "velora_config",
        "trains through compressed activations (VeLoRA), which is not looked into yet; merge the adapter instead",
    ),
    ("enable_lora", "is of an old layout (MergedLinear), which is not read; save the adapter with a current PEFT"),
];

/// Initialisations that also change the base model: the adapter then belongs to that changed base only.
const CHANGED_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What an adapter's configuration says.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) kind: PeftKind,
    /// The strength is alpha / sqrt(rank), not alpha / rank.
    pub(super) root: bool,
    rank: Option<u32>,
    alpha: f64,
    rank_pattern: Patterns,
    alpha_pattern: Patterns,
    /// Rows of a soft prompt, where the configuration tells.
    pub(super) virtual_tokens: Option<u64>,
    /// The invocation sequence of an aLoRA.
    pub(super) invocation: Vec<u32>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

impl Config {
    /// Reads and checks the whole text.
    pub(super) fn parse(text: &str) -> Result<Self, ImportError> {
        if text.len() > MAX_CONFIG_BYTES {
            let reason = format!("{} bytes, the limit is {MAX_CONFIG_BYTES}", text.len());
            return Err(ImportError::NotConfig { reason });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| ImportError::NotConfig {
            reason: format!("is not a JSON object: {}", shown(&error.to_string())),
        })?;
        let fields = Fields(&fields);
        let mut kind = kind_of(&fields)?;
        refuse(&fields)?;
        let mut notes = Vec::new();
        refuse_unknown(&fields, &mut notes)?;
        let lora = matches!(kind, PeftKind::Lora);
        let root = lora && fields.flag("use_rslora")?;
        let invocation = fields.tokens("alora_invocation_tokens")?;
        if let Some(field) =
            ["use_dora", "use_rslora", "alora_invocation_tokens"].iter().find(|field| fields.is_on(field))
            && !lora
        {
            let reason = format!("is set, which {kind} adapters of PEFT do not have; merge the adapter instead");
            return Err(ImportError::config(field, reason));
        }
        if root {
            kind = PeftKind::RsLora;
        }
        if !invocation.is_empty() && lora {
            kind = PeftKind::ALora;
        }
        if lora && fields.flag("use_dora")? {
            if !invocation.is_empty() {
                let reason = "together with use_dora is not supported; train with one of them";
                return Err(ImportError::config("alora_invocation_tokens", reason));
            }
            kind = PeftKind::Dora;
        }
        let alpha_field = if lora { "lora_alpha" } else { "alpha" };
        let alpha = match kind {
            PeftKind::Ia3 | PeftKind::Vera | PeftKind::PromptTuning | PeftKind::PTuning => 1.0,
            _ => fields.positive(alpha_field)?,
        };
        if fields.flag("fan_in_fan_out")? {
            notes.push("fan_in_fan_out has no effect: the linears of this model are not transposed".to_owned());
        }
        Ok(Self {
            kind,
            root,
            rank: fields.rank()?,
            alpha,
            rank_pattern: fields.patterns("rank_pattern")?,
            alpha_pattern: fields.patterns("alpha_pattern")?,
            virtual_tokens: match kind.is_soft_prompt() {
                true => fields.virtual_tokens()?,
                false => None,
            },
            invocation,
            notes,
        })
    }

    /// The alpha of a module, by the pattern that matches it or for all.
    pub(super) fn alpha(&self, module: &str) -> f64 {
        self.alpha_pattern.get(module).unwrap_or(self.alpha)
    }

    /// The rank that the configuration gives a module.
    pub(super) fn rank(&self, module: &str) -> Option<f64> {
        self.rank_pattern.get(module).or(self.rank.map(f64::from))
    }

    /// The strength of a module whose factors have this rank, times the rank: the alpha that llama.cpp divides by it.
    pub(super) fn effective_alpha(&self, module: &str, rank: usize) -> f64 {
        match self.root {
            true => self.alpha(module) * (rank as f64).sqrt(),
            false => self.alpha(module),
        }
    }
}

/// The kind that `peft_type` names. Kinds that are not imported are refused, each with its way out.
fn kind_of(fields: &Fields<'_>) -> Result<PeftKind, ImportError> {
    let name = match fields.get("peft_type") {
        Some(Value::String(name)) => name.to_ascii_uppercase(),
        // Very old folders of LoRA adapters have no type.
        None if fields.get("r").is_some() && fields.get("lora_alpha").is_some() => "LORA".to_owned(),
        None => return Err(ImportError::config("peft_type", "is missing: is this the folder of a PEFT adapter?")),
        Some(_) => return Err(ImportError::config("peft_type", "is not a text")),
    };
    let reason = match name.as_str() {
        "LORA" => return Ok(PeftKind::Lora),
        "IA3" => return Ok(PeftKind::Ia3),
        "LOHA" => return Ok(PeftKind::LoHa),
        "LOKR" => return Ok(PeftKind::LoKr),
        "VERA" => return Ok(PeftKind::Vera),
        "PROMPT_TUNING" => return Ok(PeftKind::PromptTuning),
        "P_TUNING" => return Ok(PeftKind::PTuning),
        "PREFIX_TUNING" | "CARTRIDGE" | "ADAPTION_PROMPT" => {
            format!(
                "is '{name}', which trains keys and values of every layer; llama.cpp takes none from outside. Train \
                 with PROMPT_TUNING or P_TUNING, or make a prefix of examples with `smoa adapter from-examples`"
            )
        }
        "MULTITASK_PROMPT_TUNING" | "CPT" => {
            format!("is '{name}', which is not imported; save the embeddings of one task as PROMPT_TUNING")
        }
        "ADALORA" => {
            "is 'ADALORA', which is not imported yet; merge it and extract a LoRA of the difference".to_owned()
        }
        "XLORA" | "POLY" | "MIXED" => {
            format!("is '{name}', a mixture of adapters; import its parts one by one")
        }
        "TRAINABLE_TOKENS" | "LN_TUNING" => {
            format!(
                "is '{name}', which trains tokens or norms; a LoRA file cannot carry these, merge the adapter instead"
            )
        }
        _ => format!("is '{name}', which is not imported; merge the adapter and extract a LoRA of the difference"),
    };
    Err(ImportError::config("peft_type", reason))
}

/// Refuses fields that would have to be honoured and cannot be.
fn refuse(fields: &Fields<'_>) -> Result<(), ImportError> {
    for (field, reason) in REFUSED {
        if fields.is_on(field) {
            return Err(ImportError::config(field, format!("is set; it {reason}")));
        }
    }
    match fields.get("bias") {
        None => {}
        Some(Value::String(bias)) if bias == "none" => {}
        Some(other) => {
            let reason = format!("is {other}: trained biases cannot be carried by a LoRA file; train with bias='none'");
            return Err(ImportError::config("bias", reason));
        }
    }
    if let Some(Value::String(init)) = fields.get("init_lora_weights")
        && CHANGED_BASE.iter().any(|changed| init.to_ascii_lowercase().starts_with(changed))
    {
        let reason = format!(
            "is '{init}', which also changed the base model; save the adapter as a plain LoRA of the original base \
             (save_pretrained with path_initial_model_for_weight_conversion)"
        );
        return Err(ImportError::config("init_lora_weights", reason));
    }
    if let Some(Value::Object(loftq)) = fields.get("loftq_config")
        && !loftq.is_empty()
    {
        let reason = "is set: LoftQ changed the base model; merge the adapter into that base instead";
        return Err(ImportError::config("loftq_config", reason));
    }
    Ok(())
}

/// Refuses fields of later PEFT versions that switch something on; others are only noted.
fn refuse_unknown(fields: &Fields<'_>, notes: &mut Vec<String>) -> Result<(), ImportError> {
    let known = |field: &str| {
        WITHOUT_EFFECT.contains(&field) || READ.contains(&field) || REFUSED.iter().any(|(name, _)| *name == field)
    };
    for (field, value) in fields.0.iter().filter(|(field, _)| !known(field)) {
        if matches!(value, Value::Bool(true)) || matches!(value, Value::Object(map) if !map.is_empty()) {
            let reason = "is not known to this program and is set; it may change the weights. Save the adapter without \
                          it, or merge the adapter instead";
            return Err(ImportError::config(field, reason));
        }
        if fields.is_on(field) {
            notes.push(format!("adapter_config.json: '{}' is not known and was not looked at", shown(field)));
        }
    }
    Ok(())
}

/// The fields, read by type. `null` is the same as absent.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Whether a field is anything but absent, null, false, 0 or empty.
    fn is_on(&self, field: &str) -> bool {
        match self.get(field) {
            None => false,
            Some(Value::Null) => false,
            Some(Value::Bool(on)) => *on,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, ImportError> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(on)) => Ok(*on),
            Some(other) => Err(ImportError::config(field, format!("is {other}, expected true or false"))),
        }
    }

    fn positive(&self, field: &str) -> Result<f64, ImportError> {
        let Some(value) = self.get(field) else {
            return Err(ImportError::config(field, "is missing"));
        };
        match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 && number <= f64::from(f32::MAX) => Ok(number),
            _ => Err(ImportError::config(field, format!("is {value}, expected a number above 0"))),
        }
    }

    fn rank(&self) -> Result<Option<u32>, ImportError> {
        let Some(value) = self.get("r") else { return Ok(None) };
        match value.as_u64() {
            Some(rank @ 1..=gguf::limits::MAX_RANK) => Ok(Some(rank as u32)),
            _ => {
                let reason = format!("is {value}, expected 1 to {}", gguf::limits::MAX_RANK);
                Err(ImportError::config("r", reason))
            }
        }
    }

    fn virtual_tokens(&self) -> Result<Option<u64>, ImportError> {
        if let Some(parts) = self.get("num_transformer_submodules").filter(|parts| parts.as_u64() != Some(1)) {
            let reason = format!("is {parts}: soft prompts of encoder-decoder models are not imported");
            return Err(ImportError::config("num_transformer_submodules", reason));
        }
        let Some(value) = self.get("num_virtual_tokens") else { return Ok(None) };
        match value.as_u64() {
            Some(tokens @ 1..=gguf::limits::MAX_SOFT_PROMPT_TOKENS) => Ok(Some(tokens)),
            _ => {
                let reason = format!("is {value}, expected 1 to {}", gguf::limits::MAX_SOFT_PROMPT_TOKENS);
                Err(ImportError::config("num_virtual_tokens", reason))
            }
        }
    }

    fn patterns(&self, field: &str) -> Result<Patterns, ImportError> {
        match self.get(field) {
            None => Ok(Patterns::default()),
            Some(Value::Object(map)) => Patterns::parse(field, map),
            Some(_) => Err(ImportError::config(field, "is not an object of patterns and numbers")),
        }
    }

    fn tokens(&self, field: &str) -> Result<Vec<u32>, ImportError> {
        let Some(value) = self.get(field) else { return Ok(Vec::new()) };
        let refuse = || ImportError::config(field, "is not a list of token ids");
        let items = value.as_array().ok_or_else(refuse)?;
        if items.len() > gguf::limits::MAX_INVOCATION_TOKENS {
            let limit = gguf::limits::MAX_INVOCATION_TOKENS;
            return Err(ImportError::config(field, format!("has {} tokens, the limit is {limit}", items.len())));
        }
        let id = |item: &Value| item.as_u64().and_then(|id| u32::try_from(id).ok());
        items.iter().map(|item| id(item).ok_or_else(refuse)).collect()
    }
}
