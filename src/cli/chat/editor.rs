//! Lines from a terminal, with rustyline: editing, history, completion.

use std::borrow::Cow;
use std::cell::Cell;
use std::fs::DirBuilder;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Behavior, Cmd, ColorMode, CompletionType, Config, Context, ExternalPrinter, Helper, KeyCode, KeyEvent, Modifiers,
};

use super::lines::{Lines, Typed};
use super::multiline::{self, State};
use super::{command, complete};
use crate::error::{Code, Failure};

/// Messages kept in the history.
const HISTORY: usize = 1000;

/// Most bytes of a message that is kept; a pasted book is not something to go back to with the arrow keys.
const MAX_REMEMBERED: usize = 16 << 10;

/// A line editor.
pub struct Editor {
    rustyline: rustyline::Editor<Assistant, FileHistory>,
    /// Where the history is kept; `None` once that has failed or was not wanted.
    history: Option<PathBuf>,
    offered: String,
    /// With one of these alive, rustyline waits with `select` and so hears a signal that another thread got.
    _awake: Option<Box<dyn ExternalPrinter>>,
}

impl Editor {
    /// An editor on the terminal; with the history of earlier sessions where `history` names a file. Gives a line to
    /// warn with when that cannot be used.
    ///
    /// # Errors
    /// The terminal cannot be used.
    pub fn open(history: Option<PathBuf>, color: bool) -> Result<(Self, Option<String>), Failure> {
        let behavior = match io::stdout().is_terminal() {
            true => Behavior::Stdio,
            // Answers go elsewhere, the conversation stays here.
            false => Behavior::PreferTerm,
        };
        let config = Config::builder()
            .max_history_size(HISTORY)
            .and_then(|c| c.history_ignore_dups(true))
            .map_err(terminal)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .color_mode(if color { ColorMode::Enabled } else { ColorMode::Disabled })
            .behavior(behavior)
            .build();
        let mut rustyline = rustyline::Editor::<Assistant, FileHistory>::with_config(config).map_err(terminal)?;
        for key in [KeyEvent(KeyCode::Enter, Modifiers::ALT), KeyEvent::alt('\r')] {
            rustyline.bind_sequence(key, Cmd::Newline);
        }
        rustyline.set_helper(Some(Assistant { has_text: Cell::new(false), color }));
        let awake = rustyline.create_external_printer().ok().map(|p| Box::new(p) as Box<dyn ExternalPrinter>);
        let mut editor = Self { rustyline, history, offered: String::new(), _awake: awake };
        let warning = editor.load_history();
        Ok((editor, warning))
    }

    fn load_history(&mut self) -> Option<String> {
        let path = self.history.clone()?;
        let loaded = prepare(&path).and_then(|there| match there {
            true => self.rustyline.load_history(&path).map_err(|e| e.to_string()),
            false => Ok(()),
        });
        self.unless_failed(&path, loaded)
    }

    /// Gives up the file after a failure.
    fn unless_failed(&mut self, path: &Path, result: Result<(), String>) -> Option<String> {
        let reason = result.err()?;
        self.history = None;
        Some(format!("history '{}': {reason}; messages are not kept for the next session", path.display()))
    }
}

impl Lines for Editor {
    fn next(&mut self, prompt: (&str, &str)) -> Result<Typed, Failure> {
        let offered = std::mem::take(&mut self.offered);
        match self.rustyline.readline_with_initial(&prompt, (&offered, "")) {
            Ok(text) => Ok(Typed::Text(text)),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(ReadlineError::Interrupted) => {
                let had_text = self.rustyline.helper().is_some_and(|h| h.has_text.get());
                Ok(Typed::Interrupted { had_text })
            }
            Err(ReadlineError::Io(e)) if e.kind() == io::ErrorKind::InvalidData => {
                Err(Failure::usage("what was typed is not UTF-8 text"))
            }
            // The terminal has gone; there is nobody to tell.
            Err(_) => Ok(Typed::End),
        }
    }

    fn interactive(&self) -> bool {
        true
    }

    fn offer(&mut self, text: &str) -> bool {
        self.offered = text.to_string();
        true
    }

    fn remember(&mut self, message: &str) -> Option<String> {
        if message.len() > MAX_REMEMBERED {
            return None;
        }
        let added = self.rustyline.add_history_entry(message).map_err(|e| e.to_string());
        let path = self.history.clone()?;
        let kept = added.and_then(|_| self.rustyline.append_history(&path).map_err(|e| e.to_string()));
        self.unless_failed(&path, kept)
    }
}

fn terminal(e: ReadlineError) -> Failure {
    Failure::new(Code::Other, format!("terminal: {e}"))
}

/// Where the history is kept: `$XDG_STATE_HOME/smoa/history`.
pub fn history_path() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.state_dir().unwrap_or_else(|| base.data_dir()).join("smoa").join("history"))
}

/// Makes the folder, open to its owner alone. Gives whether the file is there (rustyline makes it 0600).
fn prepare(path: &Path) -> Result<bool, String> {
    if let Some(folder) = path.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(|e| e.to_string())?;
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(true),
        Ok(_) => Err("is not a regular file".into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

/// What rustyline asks while a line is edited.
struct Assistant {
    /// Whether the line holds something; rustyline does not say so when Ctrl-C gives the line up.
    has_text: Cell<bool>,
    color: bool,
}

impl Helper for Assistant {}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (at, offers) = complete::complete(&line[..pos], complete::look);
        Ok((at, offers.into_iter().map(|o| Pair { display: o.display, replacement: o.replacement }).collect()))
    }
}

/// The arguments of a command, shown while they are missing.
struct Arguments(&'static str);

impl Hint for Arguments {
    fn display(&self) -> &str {
        self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = Arguments;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Arguments> {
        self.has_text.set(!line.is_empty());
        // Without colors a hint looks like typed text.
        let missing = self.color && pos == line.len() && line.ends_with(' ');
        let (name, arguments) = command::split_name(line).filter(|_| missing)?;
        let row = command::find(name).filter(|_| arguments.is_empty())?;
        Some(Arguments(row.arguments))
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl Validator for Assistant {
    /// Enter adds a line to an open `"""`. A backslash at the end is not looked at here, so that one inside a pasted
    /// text stays.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match multiline::state(context.input()) {
            State::Open(_) => ValidationResult::Incomplete,
            State::Whole(_) | State::Continued(_) => ValidationResult::Valid(None),
        })
    }
}
