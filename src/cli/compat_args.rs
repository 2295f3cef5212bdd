//! Flags of `smoa serve` that people have in their command lines for llama-server, and few look for by themselves.

use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// See the module.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "As in llama-server")]
pub struct CompatArgs {
    /// Show control tokens in answers, as the vocabulary spells them [short: -sp]
    #[arg(long)]
    pub special: bool,
    /// Continue a last message of the assistant (it is)
    #[arg(long, env = "LLAMA_ARG_PREFILL_ASSISTANT", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        require_equals = true, default_missing_value = "true", overrides_with = "no_prefill_assistant")]
    prefill_assistant: Option<bool>,
    /// Take a last message of the assistant as a whole one, unless a request says continue_final_message
    #[arg(long, env = "LLAMA_ARG_NO_PREFILL_ASSISTANT", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    no_prefill_assistant: bool,
    /// Print a script for bash that completes the flags, and exit
    #[arg(long)]
    pub completion_bash: bool,
    /// Free model, context and caches after so many seconds without work, until a request needs them; -1 never
    #[arg(long, value_name = "SECONDS", default_value = "-1", allow_negative_numbers = true, value_parser = idle)]
    sleep_idle_seconds: i64,
    #[command(flatten)]
    only: OnlyArgs,
}

impl CompatArgs {
    /// Whether a last message of the assistant is continued.
    pub fn prefill(&self) -> bool {
        !self.no_prefill_assistant && self.prefill_assistant != Some(false)
    }

    /// How long the server may be idle before it sleeps.
    pub fn sleep(&self) -> Option<Duration> {
        u64::try_from(self.sleep_idle_seconds).ok().filter(|n| *n > 0).map(Duration::from_secs)
    }
}

fn idle(text: &str) -> Result<i64, String> {
    let seconds = text.parse().ok().filter(|n| *n == -1 || *n > 0);
    seconds.ok_or_else(|| "give seconds, 1 or more, or -1".to_owned())
}

/// Flags of which only the values are taken that ask for what is so here.
#[derive(Args, Clone, Debug, Default)]
#[allow(dead_code)]
struct OnlyArgs {
    /// Nothing is downloaded, so it is not needed.
    #[arg(long, hide = true)]
    hf_token: Option<String>,
    #[arg(long, hide = true, env = "LLAMA_ARG_FIT", value_parser = ["off"])]
    fit: Option<String>,
    #[arg(long, hide = true, env = "LLAMA_ARG_SPEC_TYPE", value_parser = ["none"])]
    spec_type: Option<String>,
    #[arg(long, hide = true, env = "LLAMA_ARG_CACHE_REUSE", value_parser = ["0"])]
    cache_reuse: Option<String>,
    #[arg(long, hide = true, env = "LLAMA_ARG_CTX_CHECKPOINTS", value_parser = ["0"])]
    ctx_checkpoints: Option<String>,
}
