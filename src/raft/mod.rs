//! Consensus: the only layer that knows openraft.
//!
//! It orders commands and says when they are durable on a majority; it never looks into one.

mod api;
mod log_store;
mod types;
mod wire;

pub use api::{
    ClusterView, Freshness, Hello, Member, MemberReport, MemberRole, MemberStatus, NodeMetrics,
    NodeOptions, PeerTls, RaftError, RaftTimes, Refusal, StorageSizes,
};
