//! The `smoa` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    smoa::cli::main(std::env::args_os())
}
