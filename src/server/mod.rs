//! The composition root: configuration, listeners, health, metrics and shutdown. Nothing here decides anything about keys.

mod build;
mod checkpoints;
mod chores;
pub mod config;
mod credentials;
mod expiry;
mod health;
mod http;
mod metrics;
mod node;
mod process;
mod readiness;
mod renewal;
mod serve;
mod syslog;
#[cfg(test)]
mod tests;

pub use checkpoints::CheckpointFileError;
pub use credentials::Credentials;
pub use node::ServerNode;
pub use process::{ServerArgs, run};
pub use serve::{BuiltNode, Listeners, Outcome, ServeError, Server};
