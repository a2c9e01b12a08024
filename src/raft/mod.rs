//! Consensus: the only layer that knows openraft.
//!
//! It orders commands and says when they are durable on a majority; it never looks into one.

mod api;
mod barrier;
mod compare;
mod contact;
mod dial;
mod forward;
#[cfg(test)]
mod hostile;
mod link;
mod log_store;
mod lost_leader;
mod machine;
mod membership;
mod network;
mod node;
pub mod peer;
mod peers;
mod runtime;
mod snapshots;
mod status;
mod time;
mod types;
mod watch;
mod wire;

pub use api::{
    ClusterView, Freshness, Hello, Member, MemberReport, MemberRole, MemberStatus, NodeMetrics,
    NodeOptions, PeerTls, RaftError, RaftTimes, Refusal, StorageSizes,
};
pub use dial::Dial;
pub use node::{Node, StartError};
pub use peers::Identity;
