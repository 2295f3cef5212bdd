//! Flags of `smoa serve` that people have in their command lines for llama-server, and few look for by themselves.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use serde_json::{Map, Value};

use super::args::read_text;
use crate::error::Failure;

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
    /// What the page begins with, as a JSON object: systemMessage, temperature, max_tokens, adapter, format
    #[arg(long, alias = "webui-config", value_name = "JSON", env = "LLAMA_ARG_UI_CONFIG")]
    ui_config: Option<String>,
    /// A file with that
    #[arg(
        long,
        alias = "webui-config-file",
        value_name = "FILE",
        env = "LLAMA_ARG_UI_CONFIG_FILE",
        conflicts_with = "ui_config"
    )]
    ui_config_file: Option<PathBuf>,
    #[command(flatten)]
    only: OnlyArgs,
}

impl CompatArgs {
    /// Whether a last message of the assistant is continued.
    pub fn prefill(&self) -> bool {
        !self.no_prefill_assistant && self.prefill_assistant != Some(false)
    }

    /// What the page begins with.
    ///
    /// # Errors
    /// It is no JSON object, or a setting is unknown or has a wrong type.
    pub fn page_settings(&self) -> Result<Map<String, Value>, Failure> {
        let (flag, text) = match (&self.ui_config, &self.ui_config_file) {
            (Some(text), _) => ("--ui-config", text.clone()),
            (None, Some(path)) => ("--ui-config-file", read_text(path, "--ui-config-file")?),
            (None, None) => return Ok(Map::new()),
        };
        let wrong = |what: String| Failure::usage(format!("{flag}: {what}"));
        let settings: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| wrong(format!("must be a JSON object: {e}")))?;
        for (name, value) in &settings {
            let good = match name.as_str() {
                "systemMessage" | "adapter" | "format" => value.is_string(),
                "temperature" => value.as_f64().is_some_and(|t| (0.0..=2.0).contains(&t)),
                "max_tokens" => value.as_u64().is_some_and(|n| n > 0),
                _ => {
                    let known = "systemMessage, temperature, max_tokens, adapter and format";
                    return Err(wrong(format!("the page has no setting '{name}'; it has {known}")));
                }
            };
            if !good {
                return Err(wrong(format!("{name}: {value} is not a value for it")));
            }
        }
        Ok(settings)
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
    #[arg(long, hide = true, env = "LLAMA_ARG_CTX_CHECKPOINTS", value_parser = ["0"])]
    ctx_checkpoints: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_page_are_known_and_of_their_types() {
        let read = |text: &str| CompatArgs { ui_config: Some(text.into()), ..CompatArgs::default() }.page_settings();
        let good = r#"{"systemMessage": "Be brief", "temperature": 0.2, "max_tokens": 64, "adapter": "sql", "format": "json"}"#;
        assert_eq!(read(good).expect("read").len(), 5);
        assert!(CompatArgs::default().page_settings().expect("none").is_empty());
        for (text, expected) in [
            ("[]", "JSON object"),
            (r#"{"theme": "dark"}"#, "no setting 'theme'"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"max_tokens": 0}"#, "max_tokens"),
        ] {
            assert!(read(text).expect_err(text).message.contains(expected), "{text}");
        }
    }
}
