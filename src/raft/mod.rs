//! Consensus: the only layer that knows openraft.
//!
//! It orders commands and says when they are durable on a majority; it never looks into one.

mod api;
mod barrier;
mod changes;
mod chunks;
mod compare;
mod contact;
mod dial;
#[cfg(feature = "planted")]
mod foretold;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod hostile;
mod install;
mod link;
mod log_store;
mod lost_leader;
mod machine;
mod membership;
mod network;
mod node;
mod outgoing;
pub mod peer;
mod peers;
mod questions;
mod runtime;
mod shut_out;
mod snapshots;
mod status;
mod stop;
mod tell;
mod time;
mod transfer;
mod turn;
mod types;
mod undelivered;
mod watch;
mod wire;

pub use api::{
    ClusterView, Freshness, Hello, Member, MemberReport, MemberRole, MemberStatus, NodeMetrics,
    NodeOptions, PeerTls, RaftError, RaftTimes, Refusal, StorageSizes,
};
pub use dial::Dial;
pub use node::{Node, StartError};
pub use peers::Identity;

/// What the log shows of the consensus library at a bare level. It warns of each message to a member that is down, dozens of
/// lines a second, and of each client that has gone away; this layer says once what they mean. Its calls complain of every
/// stop, also of one in order; why a node stops is said by `Node::fail`.
pub const QUIETER_LOG: &str = "openraft=error,openraft::raft=off";
