//! The server's log: what happened, never what was said. No prompt, no answer and no key is written at any level.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::error::{Code, Failure};

/// Where the log goes, and how much of it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// No log
    #[arg(long)]
    log_disable: bool,
    /// Append the log to a file instead of standard error
    #[arg(long, value_name = "FILE", env = "LLAMA_ARG_LOG_FILE")]
    log_file: Option<PathBuf>,
    /// One JSON object per line
    #[arg(long, env = "LLAMA_ARG_LOG_JSONL", action = clap::ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(), overrides_with = "no_log_jsonl")]
    log_jsonl: bool,
    /// Lines for people (they are)
    #[arg(long)]
    no_log_jsonl: bool,
    /// 0 nothing, 1 errors, 2 warnings, 3 requests (default), 4 connections, 5 everything [short: -lv]
    #[arg(long, alias = "verbosity", value_name = "N", env = "LLAMA_ARG_LOG_VERBOSITY", default_value_t = 3)]
    log_verbosity: u8,
    /// Colours in the log: on, off, or auto where it goes to a terminal
    #[arg(long, value_name = "WHEN", env = "LLAMA_ARG_LOG_COLORS", num_args = 0..=1, default_missing_value = "on")]
    log_colors: Option<Colours>,
    /// Show the level of each line (it is shown)
    #[arg(long, env = "LLAMA_ARG_LOG_PREFIX", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        require_equals = true, default_missing_value = "true", overrides_with = "no_log_prefix")]
    log_prefix: Option<bool>,
    /// Do not show the level
    #[arg(long)]
    no_log_prefix: bool,
    /// Show the time of each line (it is shown)
    #[arg(long, env = "LLAMA_ARG_LOG_TIMESTAMPS", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        require_equals = true, default_missing_value = "true", overrides_with = "no_log_timestamps")]
    log_timestamps: Option<bool>,
    /// Do not show the time
    #[arg(long)]
    no_log_timestamps: bool,
}

/// Values of --log-colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Colours {
    On,
    Off,
    Auto,
}

/// The time of a line, or nothing.
struct Clock(bool);

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        if self.0 { SystemTime.format_time(w) } else { Ok(()) }
    }
}

impl LogArgs {
    /// Starts logging.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn start(&self) -> Result<(), Failure> {
        let level = match self.log_verbosity {
            _ if self.log_disable => LevelFilter::OFF,
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        let jsonl = self.log_jsonl && !self.no_log_jsonl;
        let terminal = self.log_file.is_none() && std::io::stderr().is_terminal();
        let colours = match self.log_colors {
            Some(Colours::On) => true,
            Some(Colours::Off) => false,
            Some(Colours::Auto) | None => terminal,
        };
        let builder = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(colours && !jsonl)
            .with_target(false)
            .with_level(!self.no_log_prefix && self.log_prefix != Some(false))
            .with_timer(Clock(!self.no_log_timestamps && self.log_timestamps != Some(false)));
        // A second start in one process (tests) keeps the first log.
        let _ = match &self.log_file {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file =
                    file.map_err(|e| Failure::new(Code::Other, format!("--log-file '{}': {e}", path.display())))?;
                let file = std::sync::Mutex::new(file);
                match jsonl {
                    true => builder.json().with_writer(file).try_init(),
                    false => builder.with_writer(file).try_init(),
                }
            }
            None if jsonl => builder.json().with_writer(std::io::stderr).try_init(),
            None => builder.with_writer(std::io::stderr).try_init(),
        };
        Ok(())
    }
}
