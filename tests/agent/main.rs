//! The agent on a client machine, seen from outside: volumes in files, the machine's own cryptsetup, and one that misbehaves.
//!
//! Nothing waits for a fixed time: every wait is for a condition, with a deadline.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

mod encryption;
mod fake;
mod hostile_tool;
mod interrupted;
mod killed;
mod protectors;
#[path = "../cluster/require.rs"]
mod require;
mod rig;
mod volumes;
