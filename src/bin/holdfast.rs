//! The `holdfast` program.

use std::process::ExitCode;

/// glibc's allocator gives memory back to the kernel and faults it in again many times a second here: it cost more than
/// a tenth of the processor under load (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdfast::cli::run()
}
