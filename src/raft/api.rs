//! What the layers above know of a node of the consensus: plain values and the one error.
//!
//! No openraft type appears here, so that nothing above this layer depends on it.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{ClusterId, Incarnation, NodeId};
use crate::state::{AuditPosition, Position};

/// A member of the cluster as the replicated membership names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// `host:port` that other nodes reach it at.
    pub peer_address: String,
    /// `host:port` that clients reach it at.
    pub client_address: String,
    /// The life of its data directory that is a member.
    pub incarnation: Incarnation,
}

/// How recent the local state is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Last entry that the local state has applied; 0 before the first.
    pub applied_index: u64,
    /// Time since the node last had proof of a quorum; [`Duration::MAX`] if it never had.
    pub age: Duration,
}

/// How a member takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// It leads.
    Leader,
    /// It votes and follows.
    Follower,
    /// It votes and asks for votes.
    Candidate,
    /// It gets the log and has no vote.
    Learner,
    /// It led, and had no contact with a majority for a second: it leads no more, and does not know by whom it is
    /// replaced.
    IsolatedLeader,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReport {
    /// How it takes part.
    pub role: MemberRole,
    /// Its term.
    pub term: u64,
    /// Last entry in its log.
    pub last_log_index: u64,
    /// Last entry that it applied.
    pub applied_index: u64,
    /// Last entry in its newest snapshot; 0 if it has none.
    pub snapshot_index: u64,
    /// Whether it has the root key in memory.
    pub unsealed: bool,
    /// Digest of its state at `applied_index`.
    pub state_digest: [u8; 32],
    /// Number of records in its state.
    pub record_count: u64,
    /// Head of its audit chain.
    pub audit: AuditPosition,
    /// Bytes of its log on disk.
    pub log_bytes: u64,
    /// Version of its program.
    pub version: String,
    /// Where its state was found to differ from another member's, for a person; empty if it was not.
    pub divergence: String,
    /// Whether it takes no commands for want of room on its disk.
    pub disk_low: bool,
}

/// A member, and what it said or why it said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// The member.
    pub member: Member,
    /// Whether it votes.
    pub voter: bool,
    /// Its report, or why there is none, for a person.
    pub answer: Result<MemberReport, String>,
}

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Who leads; `None` if nobody is known to.
    pub leader: Option<NodeId>,
    /// Every configured member, reachable or not, ascending by id.
    pub members: Vec<MemberStatus>,
    /// Why the members refuse this node, if they just did: it was removed, or its data is gone. What it knows of them is old then.
    pub shut_out: Option<String>,
}

/// What a running node answers to a greeting, before or after it is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The node that answered.
    pub id: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Last entry in its log; `None` for a node that has never been in a cluster.
    pub last_log: Option<Position>,
}

/// Why a node takes no proposals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its disk has too little room left.
    #[error("the disk has too little room left")]
    DiskLow,
    /// It is no member of the cluster.
    #[error("the node is no member of the cluster")]
    NotMember,
    /// It is shutting down.
    #[error("the node is shutting down")]
    Draining,
    /// The command's time is far ahead of the clock that counts: that of the leader, or of a majority.
    #[error("the clock of the server that took the request is far ahead")]
    ClockAhead,
}

/// Why the consensus gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaftError {
    /// No leader is known or reachable; nothing was proposed.
    #[error("no leader is known")]
    NoLeader,
    /// It was proposed, and nobody knows whether it will commit.
    #[error("it is not known whether the request was done")]
    OutcomeUnknown,
    /// The node takes no proposals; nothing was proposed.
    #[error("the request was not taken: {0}")]
    Refused(Refusal),
    /// The cluster was not made yet.
    #[error("the cluster is not initialised")]
    NotInitialised,
    /// A change of members is not possible; for a person.
    #[error("the membership can't be changed so: {0}")]
    Membership(String),
    /// The id belonged to a member that was removed.
    #[error(
        "node id {0} belonged to a server that was removed from this cluster, and is never given again; \
         take an id that was never used"
    )]
    RemovedId(NodeId),
    /// The node has stopped; for a person.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

/// Numbers of a node, for its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeMetrics {
    /// Its term.
    pub term: u64,
    /// Id of the leader; 0 if none is known, or a quorum was last known to follow it more than a second ago.
    pub leader: u64,
    /// Whether it leads, a quorum having followed it within the last second.
    pub is_leader: bool,
    /// Last entry that it knows to be committed.
    pub committed_index: u64,
    /// Last entry that it applied.
    pub applied_index: u64,
    /// Last entry in its log.
    pub last_log_index: u64,
    /// Elections that it stood in since it started.
    pub elections: u64,
    /// Successful fdatasync calls of the log since it started.
    pub wal_fsyncs: u64,
    /// Bytes written to the log since it started.
    pub wal_written_bytes: u64,
    /// Bytes of the log on disk.
    pub wal_disk_bytes: u64,
    /// Bytes that are applied and not yet in the engine.
    pub overlay_bytes: u64,
    /// Entries that are applied and not yet in the engine.
    pub view_lag_entries: u64,
    /// Time since the newest command in the newest snapshot, in milliseconds; `None` if there is no snapshot.
    pub snapshot_age_ms: Option<u64>,
    /// Whether the state was found to differ from another member's at the same log index.
    pub divergence: bool,
    /// Whether this node's clock is far ahead of a majority's.
    pub clock_ahead: bool,
    /// Whether the disk has too little room left for proposals.
    pub disk_low: bool,
}

/// Where a node's certificate for the peer port lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTls {
    /// CA of the nodes, PEM.
    pub node_ca: PathBuf,
    /// The node's certificate and its issuers, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Raft's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftTimes {
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// Shortest silence before a follower stands.
    pub election_min: Duration,
    /// Longest silence before a follower stands.
    pub election_max: Duration,
    /// How long one chunk of a snapshot may take.
    pub snapshot_chunk: Duration,
}

/// Sizes of what lies on disk and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageSizes {
    /// Bytes of one log segment.
    pub wal_segment_bytes: u64,
    /// Entries that stay in the log behind a snapshot, so that a follower that was briefly away needs none.
    pub wal_keep_entries: u64,
    /// Bytes of entries kept in memory for followers.
    pub wal_cache_bytes: u64,
    /// Most bytes that are applied and not yet in the engine.
    pub overlay_bytes: u64,
    /// Longest time that something is applied and not yet in the engine.
    pub overlay_age: Duration,
    /// Bytes of the engine's page cache.
    pub view_cache_bytes: u64,
    /// Least size of the log before a snapshot is taken.
    pub snapshot_floor_bytes: u64,
}

/// All that a node needs to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its id.
    pub id: NodeId,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// `host:port` that other nodes reach it at.
    pub peer_address: String,
    /// `host:port` that clients reach it at.
    pub client_address: String,
    /// Its certificate for the peer port.
    pub tls: PeerTls,
    /// Raft's times.
    pub times: RaftTimes,
    /// Sizes.
    pub sizes: StorageSizes,
}
