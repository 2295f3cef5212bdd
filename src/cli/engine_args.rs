//! Flags about how llama.cpp loads and computes, which few people need. Names and meaning are llama.cpp's.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

use crate::engine::options::{Details, LoadMode, Numa, Placement};
use crate::error::Failure;
use crate::gguf::Override;

/// Loading and computing in detail.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Loading and computing (names as in llama.cpp)")]
pub struct EngineArgs {
    /// Model of a Hugging Face repository, out of this machine's cache: nothing is downloaded [short: -hf]
    #[arg(long, value_name = "USER/MODEL[:QUANT]", env = "LLAMA_ARG_HF_REPO")]
    pub hf_repo: Option<String>,
    /// Which file of the repository [short: -hff]
    #[arg(long, value_name = "FILE", env = "LLAMA_ARG_HF_FILE", requires = "hf_repo")]
    pub hf_file: Option<String>,
    /// List the models of the cache and exit [short: -cl]
    #[arg(long)]
    pub cache_list: bool,
    /// How the model file is read [short: -lm]
    #[arg(long, value_name = "MODE", env = "LLAMA_ARG_LOAD_MODE")]
    pub load_mode: Option<LoadModeArg>,
    /// Keep the key-value cache in host memory [short: -nkvo]
    #[arg(long, env = "LLAMA_ARG_NO_KV_OFFLOAD", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub no_kv_offload: bool,
    /// Keep operations on host tensors in the host
    #[arg(long)]
    pub no_op_offload: bool,
    /// Leave weights as they are in the file [short: -nr]
    #[arg(long, env = "LLAMA_ARG_NO_REPACK", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub no_repack: bool,
    /// Bypass host buffers, so that extra buffers can be used
    #[arg(long, env = "LLAMA_ARG_NO_HOST", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub no_host: bool,
    /// Check the numbers of all tensors when loading
    #[arg(long)]
    pub check_tensors: bool,
    /// A cache of full size for models with a sliding window
    #[arg(long, env = "LLAMA_ARG_SWA_FULL", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub swa_full: bool,
    /// Compute one step before the first request
    #[arg(long, overrides_with = "no_warmup")]
    pub warmup: bool,
    /// Do not (it is so)
    #[arg(long)]
    pub no_warmup: bool,
    /// Metadata in place of the model file's: KEY=TYPE:VALUE, type int, float, bool or str; separated by commas
    #[arg(long, value_name = "KEY=TYPE:VALUE,..", value_delimiter = ',')]
    pub override_kv: Vec<String>,
    /// The first and the last layer after which control vectors act
    #[arg(long, value_names = ["START", "END"], num_args = 2)]
    pub control_vector_layer_range: Vec<u32>,
    /// A model by its address, out of llama.cpp's cache: nothing is downloaded [short: -mu]
    #[arg(long, value_name = "URL", env = "LLAMA_ARG_MODEL_URL")]
    pub model_url: Option<String>,
    /// A model of Docker Hub, out of llama.cpp's cache: nothing is downloaded [short: -dr]
    #[arg(long, value_name = "[REPO/]MODEL[:QUANT]", env = "LLAMA_ARG_DOCKER_REPO")]
    pub docker_repo: Option<String>,
    /// How to spread over NUMA nodes
    #[arg(long, value_name = "TYPE", env = "LLAMA_ARG_NUMA")]
    pub numa: Option<NumaArg>,
    /// Put tensors whose name matches a pattern into a kind of buffer: PATTERN=BUFFER, separated by commas [short: -ot]
    #[arg(long, value_name = "PATTERN=BUFFER,..", env = "LLAMA_ARG_OVERRIDE_TENSOR", value_delimiter = ',')]
    pub override_tensor: Vec<String>,
    /// Keep all experts in the CPU [short: -cmoe]
    #[arg(long, env = "LLAMA_ARG_CPU_MOE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub cpu_moe: bool,
    /// Keep the experts of the first N layers in the CPU [short: -ncmoe]
    #[arg(long, value_name = "N", env = "LLAMA_ARG_N_CPU_MOE")]
    pub n_cpu_moe: Option<u32>,
    /// Keep the feed-forward weights of the first N layers in the CPU [short: -ncffn]
    #[arg(long, value_name = "N", env = "LLAMA_ARG_N_CPU_FFN")]
    pub n_cpu_ffn: Option<u32>,
}

/// Values of --load-mode.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum LoadModeArg {
    Auto,
    None,
    Mmap,
    Mlock,
    #[value(name = "mmap+mlock")]
    MmapMlock,
    Dio,
}

/// Values of --numa.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum NumaArg {
    Distribute,
    Isolate,
    Numactl,
}

/// llama.cpp's pattern for the weights of experts.
const EXPERTS: &str = "\\.ffn_(up|down|gate|gate_up)_(ch|)exps";
/// And for those of a dense feed-forward part.
const DENSE: &str = "\\.ffn_(up|down|gate)\\.";
/// Layers that a flag may count.
const LAYERS: u32 = 10_000;

impl EngineArgs {
    /// How the file is read; `no_mmap` and `mlock` are the older flags.
    pub fn load_mode(&self, no_mmap: bool, mlock: bool) -> LoadMode {
        match (self.load_mode, no_mmap, mlock) {
            (Some(LoadModeArg::Auto), ..) | (None, false, false) => LoadMode::Auto,
            (Some(LoadModeArg::None), ..) | (None, true, false) => LoadMode::Read,
            (Some(LoadModeArg::Mmap), ..) => LoadMode::Map,
            (Some(LoadModeArg::Mlock), ..) | (None, true, true) => LoadMode::Lock,
            (Some(LoadModeArg::MmapMlock), ..) | (None, false, true) => LoadMode::MapAndLock,
            (Some(LoadModeArg::Dio), ..) => LoadMode::Direct,
        }
    }

    /// The rest.
    ///
    /// # Errors
    /// A placement that is none.
    pub fn details(&self) -> Result<Details, Failure> {
        let cpu = |pattern: String| Placement { pattern, buffer: None };
        let mut placements = Vec::new();
        for text in &self.override_tensor {
            let (pattern, buffer) =
                text.rsplit_once('=').filter(|(p, b)| !p.is_empty() && !b.is_empty()).ok_or_else(|| {
                    Failure::usage(format!("--override-tensor {text}: give PATTERN=BUFFER, for example exps=CPU"))
                })?;
            placements.push(Placement { pattern: pattern.into(), buffer: Some(buffer.into()) });
        }
        if self.cpu_moe {
            placements.push(cpu(EXPERTS.into()));
        }
        for (flag, count, what) in [("--n-cpu-moe", self.n_cpu_moe, EXPERTS), ("--n-cpu-ffn", self.n_cpu_ffn, DENSE)] {
            let count = count.unwrap_or(0);
            if count > LAYERS {
                return Err(Failure::usage(format!("{flag} {count}: no model has so many layers")));
            }
            placements.extend((0..count).map(|layer| cpu(format!("blk\\.{layer}{what}"))));
        }
        let steered_layers = match self.control_vector_layer_range.as_slice() {
            [] => None,
            [first, last] if first <= last && *last > 0 => Some((*first, *last)),
            other => {
                let message = format!("--control-vector-layer-range {other:?}: give the first and the last layer");
                return Err(Failure::usage(message));
            }
        };
        Ok(Details {
            overrides: self.overrides()?,
            steered_layers,
            no_kv_offload: self.no_kv_offload,
            no_op_offload: self.no_op_offload,
            no_repack: self.no_repack,
            no_host: self.no_host,
            check_tensors: self.check_tensors,
            swa_full: self.swa_full,
            warm_up: self.warmup && !self.no_warmup,
            numa: self.numa.map(|n| match n {
                NumaArg::Distribute => Numa::Distribute,
                NumaArg::Isolate => Numa::Isolate,
                NumaArg::Numactl => Numa::Numactl,
            }),
            placements,
        })
    }

    /// Metadata in place of the file's.
    ///
    /// # Errors
    /// One that is none.
    pub fn overrides(&self) -> Result<Vec<Override>, Failure> {
        let read =
            |text: &String| Override::parse(text).map_err(|e| Failure::usage(format!("--override-kv {text}: {e}")));
        self.override_kv.iter().map(read).collect()
    }

    /// The file that `--hf-repo`, `--model-url` or `--docker-repo` names, if one is given.
    ///
    /// # Errors
    /// It is not in the cache.
    pub fn cached_model(&self) -> Option<Result<PathBuf, Failure>> {
        let by_address = || {
            let url = self.model_url.as_deref().map(super::hub::find_address);
            url.or_else(|| self.docker_repo.as_deref().map(super::hub::find_docker))
        };
        self.hf_repo.as_deref().map(|repo| super::hub::find(repo, self.hf_file.as_deref())).or_else(by_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_are_llama_cpps() {
        let args = EngineArgs {
            override_tensor: vec!["token_embd=CPU".into()],
            cpu_moe: true,
            n_cpu_ffn: Some(2),
            ..EngineArgs::default()
        };
        let all = args.details().expect("read").placements;
        let patterns: Vec<&str> = all.iter().map(|p| p.pattern.as_str()).collect();
        let expected = ["token_embd", EXPERTS, "blk\\.0\\.ffn_(up|down|gate)\\.", "blk\\.1\\.ffn_(up|down|gate)\\."];
        assert_eq!((patterns.as_slice(), all[0].buffer.as_deref()), (expected.as_slice(), Some("CPU")));
        for bad in ["x", "=CPU", "x="] {
            let args = EngineArgs { override_tensor: vec![bad.into()], ..EngineArgs::default() };
            assert!(args.details().is_err(), "{bad}");
        }
    }

    #[test]
    fn old_and_new_flags_for_reading_agree() {
        let args = EngineArgs::default();
        assert_eq!(args.load_mode(false, false), LoadMode::Auto);
        assert_eq!(args.load_mode(true, true), LoadMode::Lock);
        let new = EngineArgs { load_mode: Some(LoadModeArg::Dio), ..EngineArgs::default() };
        assert_eq!(new.load_mode(true, true), LoadMode::Direct);
    }
}
