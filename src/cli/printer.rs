//! The only place that prints: answers to stdout, talk to stderr.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use crate::error::{Code, Failure, printable};

/// Where output goes, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    stdout_terminal: bool,
    stderr_terminal: bool,
    color: bool,
    quiet: bool,
    verbose: bool,
}

impl Printer {
    /// Looks at the terminal, `NO_COLOR` and `TERM`. Notes are shown on a terminal only, unless `verbose`.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        let stderr_terminal = io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self {
            stdout_terminal: io::stdout().is_terminal(),
            stderr_terminal,
            color: stderr_terminal && !plain,
            quiet,
            verbose,
        }
    }

    /// The same with colors on or off.
    #[must_use]
    pub fn with_color(self, color: bool) -> Self {
        Self { color, ..self }
    }

    /// Whether colors are used.
    pub fn color(&self) -> bool {
        self.color
    }

    /// Whether answers go to a terminal.
    pub fn answers_on_terminal(&self) -> bool {
        self.stdout_terminal
    }

    /// Whether notes and progress are shown.
    pub fn shows_notes(&self) -> bool {
        !self.quiet && (self.stderr_terminal || self.verbose)
    }

    /// Whether a progress bar may be drawn.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && self.stderr_terminal
    }

    /// Writes answer text and flushes, so that a reader sees it at once: byte for byte into a pipe or file, with
    /// control characters escaped on a terminal, so that an answer cannot speak to it.
    ///
    /// # Errors
    /// A closed pipe is [`Output::Closed`]; anything else is a failure.
    pub fn answer(&self, text: &str) -> Result<(), Output> {
        let text = if self.stdout_terminal { Cow::from(shown(text)) } else { Cow::from(text) };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Output::from)
    }

    /// Writes a line to stdout.
    ///
    /// # Errors
    /// As [`Printer::answer`].
    pub fn line(&self, text: &str) -> Result<(), Output> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Output::from)
    }

    /// A dim remark on stderr, on a terminal or when asked for.
    pub fn note(&self, text: &str) {
        if self.shows_notes() {
            let (dim, reset) = if self.color { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
            let _ = writeln!(io::stderr(), "{dim}{}{reset}", printable(text));
        }
    }

    /// Something the user asked to be told, on stderr, so that stdout holds answers only.
    pub fn told(&self, text: &str) {
        for line in text.split('\n') {
            let _ = writeln!(io::stderr(), "{}", printable(line));
        }
    }

    /// A prompt on stderr, where no line editor shows it.
    pub fn prompt(&self, text: &str) {
        let mut out = io::stderr().lock();
        let _ = write!(out, "{}", printable(text)).and_then(|()| out.flush());
    }

    /// Something the user should know even when nothing is wrong yet. One line; silent only with `--quiet`.
    pub fn warning(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "smoa: warning: {}", printable(text));
        }
    }

    /// One line that says what failed.
    pub fn failure(&self, failure: &Failure) {
        let (red, reset) = if self.color { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(io::stderr(), "{red}smoa:{reset} {}", printable(&failure.message));
    }
}

/// A model's text made safe for a terminal: control characters but line breaks and tabs are escaped.
pub fn shown(text: &str) -> String {
    let pieces = text.split_inclusive(['\n', '\t']).map(|piece| match piece.char_indices().next_back() {
        Some((at, end @ ('\n' | '\t'))) => format!("{}{end}", printable(&piece[..at])),
        _ => printable(piece),
    });
    pieces.collect()
}

/// Why stdout took no more.
#[derive(Debug)]
pub enum Output {
    /// The reader has gone; that is no error (`| head`).
    Closed,
    /// The write failed.
    Failed(Failure),
}

impl From<io::Error> for Output {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Output::Closed,
            _ => Output::Failed(Failure::new(Code::Other, format!("standard output: {e}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn an_answer_cannot_send_escape_sequences() {
        let table = [
            ("plain\n\ttext é\n", "plain\n\ttext é\n"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("a\x07b\u{9b}31m\n", "a\\u{7}b\\u{9b}31m\n"),
            ("over\rwritten", "over\\rwritten"),
            ("\u{202e}abc", "\\u{202e}abc"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected);
        }
    }
}
