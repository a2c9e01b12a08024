//! Hosts, links and disks, so that they can fail one by one.
//!
//! As root, each host has a network namespace on a bridge that reaches nothing else, and an ext4 of its own. Without, all are
//! processes on loopback, and what needs more than a process is left out.

pub mod command;
pub mod disk;
pub mod files;
pub mod network;
mod pki;
mod registry;
mod server;
mod world;

pub use pki::{ADMINISTRATOR, AUDITOR, HELP_DESK, Papers, READER};
pub use registry::{Registry, began};
pub use server::{Addresses, Server};
pub(crate) use world::{LEADER, beside, own_word};
pub use world::{Plan, World};
