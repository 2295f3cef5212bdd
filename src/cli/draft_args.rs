//! Flags about drafts: guesses at the next tokens that one step checks together. Names and meaning are llama-server's.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{cache_type, gpu_layers};
use crate::engine::options::{AdapterBatching, CacheType, EngineOptions, GpuLayers};
use crate::error::Failure;
use crate::scheduler::draft::{ByModel, Drafting, Lookup, Pooled, Ways};

/// Drafts.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Drafts: tokens guessed and checked together (names as in llama-server)")]
pub struct DraftArgs {
    /// Guess tokens out of what was read and written: ngram-simple, ngram-map-k, ngram-map-k4v, ngram-mod, or by a second
    /// model: draft-simple; separated by commas. Answers stay what they are; text that is copied comes faster [default: none]
    #[arg(long, value_name = "TYPES", env = "LLAMA_ARG_SPEC_TYPE", value_delimiter = ',')]
    spec_type: Vec<String>,
    /// --spec-type ngram-mod with its numbers as they are
    #[arg(long)]
    spec_default: bool,
    /// A second, smaller model of the same vocabulary that guesses, without adapters: a GGUF file, or a name of `smoa model
    /// ls`. --spec-type draft-simple, which is so when no type is given [short: -md]
    #[arg(long, alias = "model-draft", value_name = "FILE", env = "LLAMA_ARG_SPEC_DRAFT_MODEL")]
    spec_draft_model: Option<PathBuf>,
    /// That model out of this machine's cache: nothing is downloaded [short: -hfd]
    #[arg(long, alias = "hf-repo-draft", value_name = "USER/MODEL[:QUANT]", env = "LLAMA_ARG_SPEC_DRAFT_HF_REPO")]
    spec_draft_hf: Option<String>,
    /// Its layers on the GPU: a number, `auto` or `all` [short: -ngld]
    #[arg(long, aliases = ["gpu-layers-draft", "n-gpu-layers-draft"], value_name = "N", env = "LLAMA_ARG_N_GPU_LAYERS_DRAFT", value_parser = gpu_layers)]
    spec_draft_ngl: Option<GpuLayers>,
    /// Its devices [short: -devd; default: those of the model]
    #[arg(long, alias = "device-draft", value_name = "DEV1,DEV2,..", value_delimiter = ',')]
    spec_draft_device: Vec<String>,
    /// Its threads [short: -td; default: as --threads]
    #[arg(long, alias = "threads-draft", value_name = "N")]
    spec_draft_threads: Option<u32>,
    /// Its threads for reading [short: -tbd; default: as --spec-draft-threads]
    #[arg(long, alias = "threads-batch-draft", value_name = "N")]
    spec_draft_threads_batch: Option<u32>,
    /// Number format of its key cache [short: -ctkd]
    #[arg(long, alias = "cache-type-k-draft", value_name = "TYPE", env = "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", value_parser = cache_type)]
    spec_draft_type_k: Option<CacheType>,
    /// Number format of its value cache [short: -ctvd]
    #[arg(long, alias = "cache-type-v-draft", value_name = "TYPE", env = "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", value_parser = cache_type)]
    spec_draft_type_v: Option<CacheType>,
    /// Most tokens it guesses
    #[arg(long, value_name = "N", env = "LLAMA_ARG_SPEC_DRAFT_N_MAX", default_value_t = ByModel::default().most as u16)]
    spec_draft_n_max: u16,
    /// Shorter guesses of it are not used
    #[arg(long, value_name = "N", env = "LLAMA_ARG_SPEC_DRAFT_N_MIN", default_value_t = 0)]
    spec_draft_n_min: u16,
    /// A token that it gives less than this ends its guess, 0 to 1
    #[arg(long, alias = "draft-p-min", value_name = "P", env = "LLAMA_ARG_SPEC_DRAFT_P_MIN", default_value = "0", value_parser = share)]
    spec_draft_p_min: f32,
    /// ngram-simple: how many last tokens are looked up
    #[arg(long, value_name = "N", default_value_t = Lookup::default().n as u16, value_parser = sizes())]
    spec_ngram_simple_size_n: u16,
    /// ngram-simple: most tokens guessed
    #[arg(long, value_name = "N", default_value_t = Lookup::default().m as u16, value_parser = sizes())]
    spec_ngram_simple_size_m: u16,
    /// ngram-simple: how often they must have been there before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = hits())]
    spec_ngram_simple_min_hits: u16,
    /// ngram-map-k: how many last tokens are looked up
    #[arg(long, value_name = "N", default_value_t = Lookup::default().n as u16, value_parser = sizes())]
    spec_ngram_map_k_size_n: u16,
    /// ngram-map-k: most tokens guessed
    #[arg(long, value_name = "N", default_value_t = Lookup::default().m as u16, value_parser = sizes())]
    spec_ngram_map_k_size_m: u16,
    /// ngram-map-k: how often they must have been there before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = hits())]
    spec_ngram_map_k_min_hits: u16,
    /// ngram-map-k4v: how many last tokens are looked up
    #[arg(long, value_name = "N", default_value_t = Lookup::default().n as u16, value_parser = sizes())]
    spec_ngram_map_k4v_size_n: u16,
    /// ngram-map-k4v: most tokens guessed
    #[arg(long, value_name = "N", default_value_t = Lookup::default().m as u16, value_parser = sizes())]
    spec_ngram_map_k4v_size_m: u16,
    /// ngram-map-k4v: how often they must have been there before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = hits())]
    spec_ngram_map_k4v_min_hits: u16,
    /// ngram-mod: how many last tokens are looked up
    #[arg(long, value_name = "N", default_value_t = Pooled::default().n as u16, value_parser = sizes())]
    spec_ngram_mod_n_match: u16,
    /// ngram-mod: shorter guesses are not used
    #[arg(long, value_name = "N", default_value_t = Pooled::default().least as u16, value_parser = clap::value_parser!(u16).range(0..=1024))]
    spec_ngram_mod_n_min: u16,
    /// ngram-mod: most tokens guessed
    #[arg(long, value_name = "N", default_value_t = Pooled::default().most as u16, value_parser = clap::value_parser!(u16).range(0..=1024))]
    spec_ngram_mod_n_max: u16,
}

fn share(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| "give a number from 0 to 1".to_string())
}

fn sizes() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=1024)
}

fn hits() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

/// Types of llama-server that need heads or files which are not read here.
const REFUSED: [&str; 5] = ["draft-eagle3", "draft-mtp", "draft-dflash", "draft-dspark", "ngram-cache"];

impl DraftArgs {
    /// How answers are drafted.
    ///
    /// # Errors
    /// A type is unknown, or not in this version.
    pub fn asked(&self) -> Result<Drafting, Failure> {
        Ok(Drafting { ways: self.ways()?, ..Drafting::default() })
    }

    fn ways(&self) -> Result<Ways, Failure> {
        let lookup = |n: u16, m: u16, hits: u16| Lookup { n: n.into(), m: m.into(), hits: hits.into() };
        let pool = || Pooled {
            n: self.spec_ngram_mod_n_match.into(),
            least: self.spec_ngram_mod_n_min.into(),
            most: self.spec_ngram_mod_n_max.into(),
        };
        let model = ByModel {
            most: self.spec_draft_n_max.into(),
            least: self.spec_draft_n_min.into(),
            p_min: self.spec_draft_p_min,
        };
        let mut ways = Ways::default();
        if self.spec_default {
            ways.pool = Some(Pooled::default());
        }
        // One `none` switches all off, as in llama-server.
        let given: &[String] = if self.spec_type.iter().any(|name| name == "none") { &[] } else { &self.spec_type };
        for name in given {
            match name.as_str() {
                "ngram-simple" => {
                    let hits = self.spec_ngram_simple_min_hits;
                    ways.simple = Some(lookup(self.spec_ngram_simple_size_n, self.spec_ngram_simple_size_m, hits));
                }
                "ngram-map-k" => {
                    let hits = self.spec_ngram_map_k_min_hits;
                    ways.map_k = Some(lookup(self.spec_ngram_map_k_size_n, self.spec_ngram_map_k_size_m, hits));
                }
                "ngram-map-k4v" => {
                    let hits = self.spec_ngram_map_k4v_min_hits;
                    ways.map_k4v = Some(lookup(self.spec_ngram_map_k4v_size_n, self.spec_ngram_map_k4v_size_m, hits));
                }
                "ngram-mod" => ways.pool = Some(pool()),
                "draft-simple" if self.has_model() => ways.model = Some(model),
                "draft-simple" => return Err(Failure::usage("--spec-type draft-simple: give the model with -md")),
                other => {
                    let known = "none, ngram-simple, ngram-map-k, ngram-map-k4v, ngram-mod and draft-simple";
                    let why = if REFUSED.contains(&other) { "is not in this version" } else { "is no type" };
                    return Err(Failure::usage(format!("--spec-type {other}: {why}; there are {known}")));
                }
            }
        }
        if self.spec_type.is_empty() && !self.spec_default && self.has_model() {
            ways.model = Some(model);
        }
        Ok(ways)
    }

    fn has_model(&self) -> bool {
        self.spec_draft_model.is_some() || self.spec_draft_hf.is_some()
    }

    /// The second model, where guesses by one are asked for.
    ///
    /// # Errors
    /// It is not there.
    pub fn model(&self) -> Result<Option<PathBuf>, Failure> {
        if self.ways()?.model.is_none() {
            return Ok(None);
        }
        match (&self.spec_draft_hf, &self.spec_draft_model) {
            // With a repository, -md is the file of it, as in llama-server.
            (Some(repository), file) => {
                let file = file.as_ref().map(|file| file.to_string_lossy().into_owned());
                super::hub::find(repository, file.as_deref()).map(Some)
            }
            (None, Some(path)) => super::start::named_model(path).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The options of the second model, of those of the first and the cells that its context has.
    pub fn options(&self, path: &Path, first: &EngineOptions, cells: usize) -> EngineOptions {
        let d = EngineOptions::new(path);
        let threads = self.spec_draft_threads.unwrap_or(first.threads);
        EngineOptions {
            gpu_layers: self.spec_draft_ngl.unwrap_or(d.gpu_layers),
            devices: if self.spec_draft_device.is_empty() { &first.devices } else { &self.spec_draft_device }.clone(),
            split_mode: first.split_mode,
            main_gpu: first.main_gpu,
            load_mode: first.load_mode,
            context: u32::try_from(cells).unwrap_or(u32::MAX),
            batch: first.batch,
            micro_batch: first.micro_batch,
            sequences: first.sequences,
            threads,
            threads_batch: self.spec_draft_threads_batch.or(self.spec_draft_threads).unwrap_or(first.threads_batch),
            flash_attention: first.flash_attention,
            cache_type_k: self.spec_draft_type_k.unwrap_or(d.cache_type_k),
            cache_type_v: self.spec_draft_type_v.unwrap_or(d.cache_type_v),
            adapter_batching: AdapterBatching::Grouped,
            ..d
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        drafts: DraftArgs,
    }

    fn ways(flags: &[&str]) -> Result<Ways, Failure> {
        let line = Line::try_parse_from(std::iter::once(&"smoa").chain(flags));
        line.map_err(|e| Failure::usage(e.to_string()))?.drafts.ways()
    }

    #[test]
    fn types_and_their_numbers() {
        assert!(ways(&[]).expect("none").is_none());
        let simple = ways(&["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "5"]).expect("good");
        assert_eq!(simple, Ways { simple: Some(Lookup { n: 5, ..Lookup::default() }), ..Ways::default() });
        let two = ways(&["--spec-type", "ngram-mod,ngram-map-k4v", "--spec-ngram-mod-n-max", "9"]).expect("good");
        assert_eq!((two.names().as_str(), two.pool.map(|p| p.most)), ("ngram-map-k4v,ngram-mod", Some(9)));
        assert_eq!(ways(&["--spec-default"]).expect("good").pool, Some(Pooled::default()));
        assert!(ways(&["--spec-type", "none,ngram-simple"]).expect("good").is_none());
        let by_model = |flags: &[&str]| ways(&[&["--model-draft", "x.gguf"], flags].concat()).expect("good");
        assert_eq!(by_model(&[]), Ways { model: Some(ByModel::default()), ..Ways::default() });
        assert!(by_model(&["--spec-type", "none"]).is_none());
        let both = by_model(&["--spec-type", "draft-simple,ngram-simple", "--draft-p-min", "0.5"]);
        assert_eq!((both.names().as_str(), both.model.map(|m| m.p_min)), ("ngram-simple,draft-simple", Some(0.5)));
        for (flags, expected) in [
            (["--spec-type", "draft-simple"], "give the model with -md"),
            (["--spec-draft-p-min", "2"], "from 0 to 1"),
            (["--spec-type", "draft-mtp"], "draft-mtp: is not in this version"),
            (["--spec-type", "ngram-simpel"], "ngram-simpel: is no type"),
            (["--spec-ngram-simple-size-n", "0"], "1..=1024"),
            (["--spec-ngram-map-k-size-m", "1025"], "1..=1024"),
            (["--spec-ngram-map-k4v-min-hits", "0"], "1.."),
        ] {
            assert!(ways(&flags).expect_err(expected).message.contains(expected), "{flags:?}");
        }
    }
}
