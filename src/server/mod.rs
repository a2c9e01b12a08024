//! The composition root: configuration, listeners, health, metrics and shutdown. Nothing here decides anything about keys.

mod build;
mod chores;
pub mod config;
mod health;
mod http;
mod metrics;
mod node;
mod process;
mod readiness;
mod serve;

pub use node::ServerNode;
pub use process::{ServerArgs, run};
pub use serve::{BuiltNode, Credentials, Listeners, Outcome, ServeError, Server};
