//! Clusters of three real server processes with real disks, seen from outside: through the client, the command line, the
//! files that they leave, and their metrics.
//!
//! Nothing waits for a fixed time: every wait is for a condition, with a deadline.

mod failover;
mod harness;
mod identity;
mod membership;
mod planted;
mod refusals;
mod status;
mod story;
