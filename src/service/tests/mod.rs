//! Use cases over the real state machine, with a log that commits, stalls or fails on demand.

mod access;
mod chain;
mod cluster;
mod disclose;
mod enrolment;
pub(crate) mod harness;
mod keys;
mod rekey;
mod rotation;
mod seal;
