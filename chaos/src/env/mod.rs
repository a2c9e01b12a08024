//! Hosts, links and disks, so that they can fail one by one.
//!
//! As root, each host has a network namespace on a bridge that reaches nothing else, and an ext4 of its own. Without, all are
//! processes on loopback, every connection goes over a [`proxy`] that can cut and slow it, and what needs more is left out.

mod cluster;
pub mod command;
pub mod disk;
pub mod files;
mod interrupt;
mod line;
mod members;
pub mod network;
mod pki;
pub mod proxy;
mod registry;
mod server;
mod world;

pub(crate) use cluster::{LEADER, own_word};
pub use interrupt::Interrupt;
pub use line::Line;
pub use members::CHANGE;
pub use pki::{ADMINISTRATOR, AUDITOR, HELP_DESK, Papers, READER};
pub use registry::{Registry, began};
pub use server::{Addresses, Server};
pub(crate) use world::beside;
pub use world::{Plan, World};
