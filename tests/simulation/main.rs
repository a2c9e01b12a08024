//! Deterministic simulation: whole clusters of real nodes (state, log, raft, services, gRPC) on one thread, over a simulated
//! network and simulated disks, with faults drawn from a seed. The same seed gives the same run.
//!
//! One seed a process, since some of what is drawn is drawn for the process. `HOLDFAST_SIM_SEED=7 cargo test --test
//! simulation -- --ignored --exact seeds::one_seed --nocapture` repeats one; `HOLDFAST_SIM_SEEDS=0..1000` and
//! `HOLDFAST_SIM_JOBS=2` make
//! `nothing_that_was_promised_breaks_under_many_seeds` run others than those of every day. See docs/simulation.md.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

mod aimed;
mod cluster;
mod credentials;
mod disks;
mod members;
mod nemesis;
mod net;
mod operator;
mod oracle;
mod probes;
mod run;
mod scenarios;
mod seeds;
mod sights;
mod workload;
mod world;
