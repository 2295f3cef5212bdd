//! How a command ends: one place that turns outcomes into exit codes.

use std::process::ExitCode;

use super::printer::{Output, Printer};
use crate::error::{Code, Failure};

/// Why a command ended without success.
#[derive(Debug)]
pub enum Outcome {
    /// With a failure to report.
    Failed(Failure),
    /// With an exit code, everything being said already.
    Silent(Code),
    /// The reader of our output has gone: a quiet success.
    ReaderGone,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        match output {
            Output::Closed => Outcome::ReaderGone,
            Output::Failed(failure) => Outcome::Failed(failure),
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Outcome::Failed(failure)
    }
}

/// Reports the outcome and gives the exit code.
pub fn finish(result: Result<(), Outcome>, printer: &Printer) -> ExitCode {
    match result {
        Ok(()) | Err(Outcome::ReaderGone) => ExitCode::SUCCESS,
        Err(Outcome::Silent(code)) => ExitCode::from(code.exit_code()),
        Err(Outcome::Failed(failure)) => {
            if !matches!(failure.code, Code::Interrupted | Code::Terminated) {
                printer.failure(&failure);
            }
            ExitCode::from(failure.code.exit_code())
        }
    }
}
