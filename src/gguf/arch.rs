//! The architectures that the pinned llama.cpp knows, and what a network of each can do.
//!
//! The table is made from llama.cpp's sources and must be renewed when the pin moves:
//! names from `LLM_ARCH_NAMES` in `src/llama-arch.cpp`; kinds from `llm_arch_is_recurrent`, `llm_arch_is_diffusion`
//! (same file), `llama_model_has_encoder` (`src/llama-model.cpp`) and the graphs; [`Heads`] from the assertions at the
//! top of the graph constructors in `src/models/*.cpp`, which end the process when a context is created:
//! `grep -lE 'GGML_ASSERT\(n_embd_head *== *(hparams\.)?n_(embd_head_k\(\)|rot)' src/models/*.cpp`.

use ModelKind::{Audio, Classifier, Decoder, Diffusion, Draft, Embedding, EncoderDecoder, Projector, Recurrent};

/// What a network of an architecture is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// Generates text, token after token, with attention (perhaps mixed with recurrent layers).
    Decoder,
    /// Generates text, token after token, without any attention.
    Recurrent,
    /// Turns text into a vector, or ranks texts; cannot generate.
    Embedding,
    /// Translates one text into another (T5): needs an encoding step first.
    EncoderDecoder,
    /// Fills in masked text in rounds instead of token after token.
    Diffusion,
    /// Only proposes tokens for a larger model.
    Draft,
    /// Makes or decodes sound.
    Audio,
    /// Scores texts.
    Classifier,
    /// Feeds images or sound into a language model (`mmproj`).
    Projector,
}

impl ModelKind {
    /// Whether such a model generates text token after token.
    pub fn generates(self) -> bool {
        matches!(self, Decoder | Recurrent)
    }

    /// The kind in words, with its article: `an embedding model`.
    pub fn describe(self) -> &'static str {
        match self {
            Decoder => "a language model",
            Recurrent => "a recurrent language model",
            Embedding => "an embedding model",
            EncoderDecoder => "an encoder-decoder model",
            Diffusion => "a diffusion language model",
            Draft => "a draft head for speculative decoding",
            Audio => "an audio model",
            Classifier => "a classifier",
            Projector => "a multimodal projector (mmproj)",
        }
    }
}

/// What the graph of an architecture asserts about the sizes of its attention heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heads {
    /// Nothing.
    Free,
    /// Keys and values are equally wide.
    Equal,
    /// Keys and values are equally wide and rotated over their whole width.
    Rotary,
}

use Heads::{Equal, Free, Rotary};

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Architecture {
    pub(super) name: &'static str,
    pub(super) kind: ModelKind,
    pub(super) heads: Heads,
}

const fn row(name: &'static str, kind: ModelKind, heads: Heads) -> Architecture {
    Architecture { name, kind, heads }
}

/// Whether this build of llama.cpp knows an architecture (`general.architecture`).
pub fn knows_architecture(name: &str) -> bool {
    find(name).is_some()
}

/// The line of an architecture.
pub(super) fn find(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|architecture| architecture.name == name)
}

const ARCHITECTURES: [Architecture; 154] = [
    row("clip", Projector, Free),
    row("llama", Decoder, Rotary),
    row("llama4", Decoder, Rotary),
    row("deci", Decoder, Rotary),
    row("falcon", Decoder, Rotary),
    row("grok", Decoder, Rotary),
    row("gpt2", Decoder, Equal),
    row("gptj", Decoder, Free),
    row("gptneox", Decoder, Equal),
    row("mpt", Decoder, Equal),
    row("baichuan", Decoder, Rotary),
    row("starcoder", Decoder, Equal),
    row("refact", Decoder, Equal),
    row("bert", Embedding, Equal),
    row("modern-bert", Embedding, Equal),
    row("nomic-bert", Embedding, Equal),
    row("nomic-bert-moe", Embedding, Equal),
    row("neo-bert", Embedding, Equal),
    row("jina-bert-v2", Embedding, Equal),
    row("jina-bert-v3", Embedding, Equal),
    row("eurobert", Embedding, Equal),
    row("bloom", Decoder, Equal),
    row("stablelm", Decoder, Equal),
    row("qwen", Decoder, Equal),
    row("qwen2", Decoder, Rotary),
    row("qwen2moe", Decoder, Rotary),
    row("qwen2vl", Decoder, Rotary),
    row("qwen3", Decoder, Rotary),
    row("qwen3moe", Decoder, Rotary),
    row("qwen3next", Decoder, Equal),
    row("qwen3vl", Decoder, Rotary),
    row("qwen3vlmoe", Decoder, Rotary),
    row("qwen35", Decoder, Equal),
    row("qwen35moe", Decoder, Equal),
    row("clef", Classifier, Equal),
    row("qwen4exp", Decoder, Equal),
    row("phi2", Decoder, Equal),
    row("phi3", Decoder, Equal),
    row("phimoe", Decoder, Equal),
    row("plamo", Decoder, Rotary),
    row("plamo2", Decoder, Free),
    row("plamo3", Decoder, Free),
    row("codeshell", Decoder, Rotary),
    row("orion", Decoder, Rotary),
    row("internlm2", Decoder, Rotary),
    row("minicpm", Decoder, Rotary),
    row("minicpm3", Decoder, Free),
    row("gemma", Decoder, Free),
    row("gemma2", Decoder, Free),
    row("gemma3", Decoder, Free),
    row("gemma3n", Decoder, Free),
    row("gemma4", Decoder, Free),
    row("gemma4-assistant", Draft, Free),
    row("gemma-embedding", Embedding, Free),
    row("starcoder2", Decoder, Rotary),
    row("mamba", Recurrent, Free),
    row("mamba2", Recurrent, Free),
    row("maple", Decoder, Free),
    row("jamba", Decoder, Free),
    row("falcon-h1", Decoder, Free),
    row("xverse", Decoder, Rotary),
    row("command-r", Decoder, Equal),
    row("cohere2", Decoder, Equal),
    row("cohere2moe", Decoder, Rotary),
    row("dbrx", Decoder, Rotary),
    row("olmo", Decoder, Rotary),
    row("olmo2", Decoder, Rotary),
    row("olmoe", Decoder, Rotary),
    row("muse-glimmer", Decoder, Equal),
    row("openelm", Decoder, Equal),
    row("arctic", Decoder, Rotary),
    row("deepseek", Decoder, Rotary),
    row("deepseek2", Decoder, Free),
    row("deepseek2-ocr", Decoder, Free),
    row("deepseek32", Decoder, Free),
    row("deepseek4", Decoder, Free),
    row("chatglm", Decoder, Equal),
    row("glm4", Decoder, Equal),
    row("glm4moe", Decoder, Equal),
    row("glm-dsa", Decoder, Free),
    row("bitnet", Decoder, Equal),
    row("t5", EncoderDecoder, Equal),
    row("t5encoder", Embedding, Equal),
    row("jais", Decoder, Equal),
    row("jais2", Decoder, Rotary),
    row("nemotron", Decoder, Equal),
    row("nemotron_h", Decoder, Equal),
    row("nemotron_h_moe", Decoder, Equal),
    row("exaone", Decoder, Rotary),
    row("exaone4", Decoder, Free),
    row("exaone-moe", Decoder, Free),
    row("rwkv6", Recurrent, Free),
    row("rwkv6qwen2", Recurrent, Free),
    row("rwkv7", Recurrent, Free),
    row("arwkv7", Recurrent, Free),
    row("granite", Decoder, Rotary),
    row("granitemoe", Decoder, Rotary),
    row("granitehybrid", Decoder, Equal),
    row("graniteswitch", Decoder, Rotary),
    row("granite_swa", Decoder, Rotary),
    row("chameleon", Decoder, Rotary),
    row("wavtokenizer-dec", Audio, Free),
    row("plm", Decoder, Free),
    row("bailingmoe", Decoder, Free),
    row("bailingmoe2", Decoder, Equal),
    row("bailingmoe3", Decoder, Free),
    row("dots1", Decoder, Rotary),
    row("dots3note", Decoder, Free),
    row("arcee", Decoder, Rotary),
    row("afmoe", Decoder, Equal),
    row("laguna", Decoder, Equal),
    row("ernie4_5", Decoder, Rotary),
    row("ernie4_5-moe", Decoder, Rotary),
    row("hunyuan-moe", Decoder, Rotary),
    row("hunyuan-dense", Decoder, Rotary),
    row("hunyuan_vl", Decoder, Rotary),
    row("hy_v3", Decoder, Rotary),
    row("hy_v4", Decoder, Free),
    row("smollm3", Decoder, Rotary),
    row("gpt-oss", Decoder, Free),
    row("lfm2", Decoder, Free),
    row("lfm2moe", Decoder, Free),
    row("dream", Diffusion, Rotary),
    row("smallthinker", Decoder, Rotary),
    row("llada", Diffusion, Rotary),
    row("llada-moe", Diffusion, Rotary),
    row("seed_oss", Decoder, Rotary),
    row("grovemoe", Decoder, Rotary),
    row("apertus", Decoder, Rotary),
    row("minimax-01", Decoder, Equal),
    row("hrm_text", Decoder, Free),
    row("minimax-m2", Decoder, Equal),
    row("minimax-m3", Decoder, Equal),
    row("cogvlm", Decoder, Rotary),
    row("rnd1", Diffusion, Rotary),
    row("pangu-embedded", Decoder, Rotary),
    row("mistral3", Decoder, Rotary),
    row("eagle3", Draft, Free),
    row("dflash", Draft, Free),
    row("mistral4", Decoder, Free),
    row("paddleocr", Decoder, Rotary),
    row("mimo2", Decoder, Free),
    row("step35", Decoder, Free),
    row("spark2_5", Decoder, Equal),
    row("llama-embed", Embedding, Rotary),
    row("maincoder", Decoder, Rotary),
    row("kimi-linear", Decoder, Free),
    row("kimi-k3", Decoder, Free),
    row("glm5-next", Decoder, Free),
    row("talkie", Decoder, Free),
    row("mellum", Decoder, Rotary),
    row("nanbeige", Decoder, Equal),
    row("qwen3tts", Audio, Free),
    row("pockettts", Audio, Free),
];
