//! How a model is loaded and a context is made: llama.cpp's settings by llama.cpp's names, as plain values.

use std::path::PathBuf;

use super::encoder::Pooling;
use crate::gguf::Override;

/// How much of the model goes to the GPU (`-ngl`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuLayers {
    /// All layers where there is a GPU.
    #[default]
    All,
    /// So many layers; 0 keeps the model on the CPU.
    Count(u32),
}

/// How a model is split over several GPUs (`-sm`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SplitMode {
    /// One GPU.
    None,
    /// Whole layers.
    #[default]
    Layer,
    /// Rows of matrices.
    Row,
}

/// How the model file is read (`--load-mode`, `--no-mmap`, `--mlock`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadMode {
    /// Mapped, unless a device cannot.
    #[default]
    Auto,
    /// Read instead of mapping.
    Read,
    /// Mapped.
    Map,
    /// Read and kept in RAM.
    Lock,
    /// Mapped and kept in RAM.
    MapAndLock,
    /// Read past the system's cache where possible.
    Direct,
}

/// How to spread over NUMA nodes (`--numa`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numa {
    /// Over all.
    Distribute,
    /// On the node where it starts.
    Isolate,
    /// As `numactl` said.
    Numactl,
}

/// Where tensors go (`--override-tensor`, `--cpu-moe`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Tensors whose name matches this regular expression.
    pub pattern: String,
    /// A buffer type by its name; `None` for the CPU's.
    pub buffer: Option<String>,
}

/// What few people set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// `--no-kv-offload`.
    pub no_kv_offload: bool,
    /// `--no-op-offload`.
    pub no_op_offload: bool,
    /// `--no-repack`.
    pub no_repack: bool,
    /// `--no-host`.
    pub no_host: bool,
    /// `--check-tensors`.
    pub check_tensors: bool,
    /// `--swa-full`.
    pub swa_full: bool,
    /// `--warmup`.
    pub warm_up: bool,
    /// `--control-vector-layer-range`: the first and the last layer after which control vectors act.
    pub steered_layers: Option<(u32, u32)>,
    /// `--override-kv`: metadata in place of the file's.
    pub overrides: Vec<Override>,
    /// `--numa`.
    pub numa: Option<Numa>,
    /// `--override-tensor` and those that stand for it, the first that matches counts.
    pub placements: Vec<Placement>,
}

/// When to use flash attention (`-fa`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlashAttention {
    /// Where the backend has it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Number format of the key or value cache (`-ctk`, `-ctv`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CacheType {
    F32,
    #[default]
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Iq4Nl,
    Q5_0,
    Q5_1,
}

impl CacheType {
    /// All of them with llama.cpp's names.
    pub const NAMES: [(&'static str, CacheType); 9] = [
        ("f32", CacheType::F32),
        ("f16", CacheType::F16),
        ("bf16", CacheType::Bf16),
        ("q8_0", CacheType::Q8_0),
        ("q4_0", CacheType::Q4_0),
        ("q4_1", CacheType::Q4_1),
        ("iq4_nl", CacheType::Iq4Nl),
        ("q5_0", CacheType::Q5_0),
        ("q5_1", CacheType::Q5_1),
    ];

    /// Whether it is a block format, which llama.cpp allows for values only with flash attention.
    pub const fn is_quantized(self) -> bool {
        !matches!(self, CacheType::F32 | CacheType::F16 | CacheType::Bf16)
    }
}

/// How positions are stretched beyond the trained context (`--rope-scaling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Linearly.
    Linear,
    /// YaRN (<https://arxiv.org/abs/2309.00071>).
    Yarn,
}

/// RoPE and YaRN settings; `None` takes the model's own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rope {
    /// `--rope-scaling`.
    pub scaling: Option<RopeScaling>,
    /// `--rope-scale`: context scaling factor; expands the context by this factor.
    pub scale: Option<f32>,
    /// `--rope-freq-base`.
    pub freq_base: Option<f32>,
    /// `--rope-freq-scale`: expands the context by 1/this.
    pub freq_scale: Option<f32>,
    /// `--yarn-orig-ctx`: tokens.
    pub yarn_orig_ctx: Option<u32>,
    /// `--yarn-ext-factor`.
    pub yarn_ext_factor: Option<f32>,
    /// `--yarn-attn-factor`.
    pub yarn_attn_factor: Option<f32>,
    /// `--yarn-beta-slow`.
    pub yarn_beta_slow: Option<f32>,
    /// `--yarn-beta-fast`.
    pub yarn_beta_fast: Option<f32>,
}

/// How requests with different adapters share the engine (`--adapter-batching`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdapterBatching {
    /// In one batch where the model and machine allow it and the check at the start agrees, else in turns.
    #[default]
    Auto,
    /// In one batch, or not at all.
    Lanes,
    /// In turns, by llama.cpp's own path.
    Grouped,
}

/// Everything needed to load a model and make a context.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// The GGUF file; of a split model, its first part.
    pub model: PathBuf,
    /// `-ngl`.
    pub gpu_layers: GpuLayers,
    /// `-sm`.
    pub split_mode: SplitMode,
    /// `-ts`: share of each GPU; empty for even.
    pub tensor_split: Vec<f32>,
    /// `-mg`.
    pub main_gpu: usize,
    /// `-dev`: names as `--list-devices` prints them; empty for all.
    pub devices: Vec<String>,
    /// `--load-mode`, `--no-mmap`, `--mlock`.
    pub load_mode: LoadMode,
    /// `-c`: tokens; 0 takes the model's trained context.
    pub context: u32,
    /// `--kv-unified-per-slot`: tokens that one sequence may hold; all of them when not given.
    pub sequence_context: Option<u32>,
    /// `--no-kv-unified`: one sequence may hold no more than an equal part of the context.
    pub equal_parts: bool,
    /// `-b`: most tokens of one step.
    pub batch: u32,
    /// `-ub`: tokens computed at once.
    pub micro_batch: u32,
    /// `-np`: sequences.
    pub sequences: u32,
    /// `-t`: threads for generation.
    pub threads: u32,
    /// `-tb`: threads for prompts.
    pub threads_batch: u32,
    /// `-fa`.
    pub flash_attention: FlashAttention,
    /// `-ctk`.
    pub cache_type_k: CacheType,
    /// `-ctv`.
    pub cache_type_v: CacheType,
    /// `--rope-*`, `--yarn-*`.
    pub rope: Rope,
    /// Most adapters laid out for the engine and kept; those in use always stay.
    pub adapter_slots: u32,
    /// Most bytes of them; an adapter larger than this is laid out for the requests that use it.
    pub adapter_device_bytes: u64,
    /// `--adapter-batching`.
    pub adapter_batching: AdapterBatching,
    /// `--embeddings`: whether texts can be made vectors too, with `--pooling` or the model's own.
    pub embeddings: Option<Option<Pooling>>,
    /// The rest.
    pub details: Details,
}

impl EngineOptions {
    /// llama.cpp's defaults for `model`, with one sequence and as many threads as physical cores.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        let threads = default_threads();
        Self {
            model: model.into(),
            gpu_layers: GpuLayers::All,
            split_mode: SplitMode::Layer,
            tensor_split: Vec::new(),
            main_gpu: 0,
            devices: Vec::new(),
            load_mode: LoadMode::Auto,
            context: 0,
            sequence_context: None,
            equal_parts: false,
            batch: 2048,
            micro_batch: 512,
            sequences: 1,
            threads,
            threads_batch: threads,
            flash_attention: FlashAttention::Auto,
            cache_type_k: CacheType::F16,
            cache_type_v: CacheType::F16,
            rope: Rope::default(),
            adapter_slots: 1024,
            adapter_device_bytes: 1 << 30,
            adapter_batching: AdapterBatching::Auto,
            embeddings: None,
            details: Details::default(),
        }
    }
}

impl EngineOptions {
    /// The most tokens that one sequence may hold in a context of `cells`.
    pub fn most_of_one(&self, cells: usize) -> usize {
        let part = if self.equal_parts { cells / (self.sequences as usize).max(1) } else { cells };
        self.sequence_context.map_or(part, |n| part.min(n as usize))
    }
}

/// One thread per physical core that this process may use.
pub fn default_threads() -> u32 {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(num_cpus::get_physical().min(usable).max(1)).unwrap_or(1)
}
