//! Flags about cached prefixes, and about how sequences share the context. Names and meaning are llama-server's.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use crate::error::Failure;
use crate::scheduler::{Limits, Share};

/// Cached prefixes and shared context.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cached prefixes (names as in llama-server)")]
pub struct CacheArgs {
    /// Most MiB of RAM for prefixes that have to leave the context (0: none, -1: no limit; llama-server's default is 8192)
    #[arg(long, value_name = "MIB", env = "LLAMA_ARG_CACHE_RAM", default_value_t = 0,
          allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pub cache_ram: i64,
    /// A cached prefix that is a smaller part of a prompt than this is not used, 0 to 1 [short: -sps]
    #[arg(long, value_name = "SIMILARITY", default_value = "0", value_parser = share)]
    pub slot_prompt_similarity: Share,
    /// Let sequences use whatever part of the context is free (they do) [short: -kvu]
    #[arg(long, env = "LLAMA_ARG_KV_UNIFIED", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        require_equals = true, default_missing_value = "true", overrides_with = "no_kv_unified")]
    kv_unified: Option<bool>,
    /// Give each sequence an equal part of the context, and no more [short: -no-kvu]
    #[arg(long, env = "LLAMA_ARG_NO_KV_UNIFIED", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    no_kv_unified: bool,
    /// Read new prompts while answers are generated (they are) [short: -cb]
    #[arg(long, env = "LLAMA_ARG_CONT_BATCHING", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        require_equals = true, default_missing_value = "true", overrides_with = "no_cont_batching")]
    cont_batching: Option<bool>,
    /// Read new prompts only when no answer is being generated [short: -nocb]
    #[arg(long, env = "LLAMA_ARG_NO_CONT_BATCHING", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    no_cont_batching: bool,
    /// Send prefixes of idle sequences to --cache-ram when a request begins, so that the context is free
    #[arg(long, env = "LLAMA_ARG_CACHE_IDLE_SLOTS", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        require_equals = true, default_missing_value = "true", overrides_with = "no_cache_idle_slots")]
    cache_idle_slots: Option<bool>,
    /// Send them when their place is needed (they are)
    #[arg(long)]
    no_cache_idle_slots: bool,
    /// Move parts of a cached prompt to where a new one has them, if they have so many tokens; 0 moves none. Answers are not
    /// quite those of a prompt that is read
    #[arg(long, value_name = "N", env = "LLAMA_ARG_CACHE_REUSE", default_value_t = 0)]
    cache_reuse: usize,
}

fn share(text: &str) -> Result<Share, String> {
    text.parse().ok().and_then(Share::new).ok_or_else(|| "give a number from 0 to 1".to_string())
}

impl CacheArgs {
    /// What the engine's thread may hold, with a queue of `queue` jobs.
    ///
    /// # Errors
    /// Prefixes are to go to RAM that there is none of.
    pub fn limits(&self, queue: usize) -> Result<Limits, Failure> {
        let idle_to_ram = !self.no_cache_idle_slots && self.cache_idle_slots == Some(true);
        if idle_to_ram && self.cache_ram == 0 {
            return Err(Failure::usage("--cache-idle-slots needs --cache-ram"));
        }
        Ok(Limits {
            idle_to_ram,
            least_chunk: self.cache_reuse,
            cache_ram: u64::try_from(self.cache_ram).map_or(u64::MAX, |mib| mib.saturating_mul(1 << 20)),
            least_share: self.slot_prompt_similarity,
            continuous: !self.no_cont_batching && self.cont_batching != Some(false),
            ..Limits::from(queue)
        })
    }

    /// Whether each sequence has an equal part of the context.
    pub fn equal_parts(&self) -> bool {
        self.no_kv_unified || self.kv_unified == Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_their_opposites() {
        let limits = |args: &CacheArgs| args.limits(1).expect("good");
        let plain = CacheArgs::default();
        assert!(!plain.equal_parts() && limits(&plain).continuous && !limits(&plain).idle_to_ram);
        let off = CacheArgs { no_kv_unified: true, no_cont_batching: true, cache_ram: -1, ..CacheArgs::default() };
        assert!(off.equal_parts() && !limits(&off).continuous);
        assert_eq!(limits(&off).cache_ram, u64::MAX);
        let by_variable = CacheArgs { kv_unified: Some(false), cont_batching: Some(false), ..CacheArgs::default() };
        assert!(by_variable.equal_parts() && !limits(&by_variable).continuous);
        let idle = CacheArgs { cache_idle_slots: Some(true), ..CacheArgs::default() };
        assert!(idle.limits(1).is_err_and(|e| e.message.contains("--cache-ram")));
        assert!(limits(&CacheArgs { cache_ram: 1, ..idle }).idle_to_ram);
    }
}
