//! Clusters of three real server processes with real disks, seen from outside: through the client, the command line, the
//! files that they leave, and their metrics.
//!
//! Nothing waits for a fixed time: every wait is for a condition, with a deadline.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

mod checkpoints;
mod controls;
mod damage;
mod data_dir;
mod denial;
mod disclosure_needs_quorum;
mod disk;
mod disk_errors;
mod enrolment;
mod evidence;
mod failover;
mod full_disk;
mod groups;
mod harness;
mod identity;
mod load;
mod local;
mod lookups;
mod membership;
mod memory;
mod oidc;
mod passwords;
mod peers;
mod planted;
mod ports;
mod power_loss;
mod purge;
mod quorum;
mod refusals;
mod renewal;
mod require;
mod rotation;
mod seal;
mod slow_link;
mod status;
mod story;
