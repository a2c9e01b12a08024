//! The `holdfast` program: servers and the operator tools.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast::cli::run()
}
