//! How a failure is named to the outside: one code, one line, one way out.
//!
//! Every module has its own precise error enum; at the seam to a front end they become a [`Failure`].
//! The table of exit codes is the one place where numbers are decided. Knows no terminal and no HTTP.

use std::fmt;

/// The kinds of failure a caller can tell apart. Each has an exit code and a stable name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Anything that has no better name, a failed write among them.
    Other,
    /// The request or the command line is wrong: a flag, a field, a prompt longer than the context.
    Usage,
    /// A model, an adapter or a named format does not exist.
    NotFound,
    /// A file exists but its content is refused.
    InvalidFile,
    /// A grammar or schema does not compile, or cannot be enforced.
    FormatRejected,
    /// Not enough memory on host or device.
    OutOfMemory,
    /// The output ended (limit, context, time) before the format was complete.
    FormatCut,
    /// The queue is full or the engine is stopping.
    Busy,
    /// Some lines of a JSONL run failed; each carries its own error.
    SomeLinesFailed,
    /// Stopped by SIGINT.
    Interrupted,
    /// Stopped by SIGTERM.
    Terminated,
}

impl Code {
    /// All codes, for tables and tests.
    pub const ALL: [Code; 11] = [
        Code::Other,
        Code::Usage,
        Code::NotFound,
        Code::InvalidFile,
        Code::FormatRejected,
        Code::OutOfMemory,
        Code::FormatCut,
        Code::Busy,
        Code::SomeLinesFailed,
        Code::Interrupted,
        Code::Terminated,
    ];

    /// The process exit code; documented in the README.
    pub const fn exit_code(self) -> u8 {
        match self {
            Code::Other => 1,
            Code::Usage => 2,
            Code::NotFound => 3,
            Code::InvalidFile => 4,
            Code::FormatRejected => 5,
            Code::OutOfMemory => 6,
            Code::FormatCut => 7,
            Code::Busy => 8,
            Code::SomeLinesFailed => 9,
            Code::Interrupted => 130,
            Code::Terminated => 143,
        }
    }

    /// The stable name used in JSON errors.
    pub const fn name(self) -> &'static str {
        match self {
            Code::Other => "error",
            Code::Usage => "invalid_request",
            Code::NotFound => "not_found",
            Code::InvalidFile => "invalid_file",
            Code::FormatRejected => "format_rejected",
            Code::OutOfMemory => "out_of_memory",
            Code::FormatCut => "format_cut",
            Code::Busy => "busy",
            Code::SomeLinesFailed => "some_lines_failed",
            Code::Interrupted => "interrupted",
            Code::Terminated => "terminated",
        }
    }
}

/// A failure as a front end reports it: a code and one clear line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub code: Code,
    /// One line without a trailing dot: what is wrong, with the file, field or flag, and the way out.
    pub message: String,
}

impl Failure {
    /// Makes a failure of `code` with `message`; line breaks become spaces so that it stays one line.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let message = if message.contains(['\n', '\r']) {
            message.split(['\n', '\r']).map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
        } else {
            message
        };
        Self { code, message }
    }

    /// A usage failure (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Text from outside (a file's field, an argument) made safe to print: control characters escaped.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escape =
                c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c);
            if escape { c.escape_default().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_its_own_number_and_name() {
        let numbers: HashSet<u8> = Code::ALL.iter().map(|c| c.exit_code()).collect();
        let names: HashSet<&str> = Code::ALL.iter().map(|c| c.name()).collect();
        assert_eq!((numbers.len(), names.len()), (Code::ALL.len(), Code::ALL.len()));
        assert!(!numbers.contains(&0), "0 means success");
    }

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::usage("a\n  b\r\nc").message, "a b c");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\x1b[31mb\u{202e}é"), "a\\u{1b}[31mb\\u{202e}é");
    }
}
