//! Chaos: real servers, a load that does what agents, help desk and auditors do, faults, and checkers that read what came of it.
//!
//! `env` knows hosts, links and disks; `fault` breaks and heals them; `workload` calls the servers and writes the
//! [`history`]; `check` reads the history and nothing else, so that a recorded run can be checked again; `report` tells.
//! [`simulate`] runs the deterministic simulation instead. [`controls`] proves with planted bugs that all this sees something.

#![forbid(unsafe_code)]

pub mod check;
pub mod controls;
pub mod env;
pub mod fault;
pub mod history;
pub mod recorder;
pub mod report;
pub mod run;
mod sample;
mod scan;
pub mod schedule;
pub mod simulate;
pub mod workload;
