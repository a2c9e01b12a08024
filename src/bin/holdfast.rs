//! The `holdfast` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// glibc's allocator gives memory back to the kernel and faults it in again many times a second under load
/// (docs/performance.md). Without transparent huge pages, because to clear one stops a thread for longer than an escrow takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdfast::cli::run()
}
