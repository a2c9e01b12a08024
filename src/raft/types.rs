//! Openraft's type parameters, and the way between its types and ours.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::alias::{
    CommittedLeaderIdOf, EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf,
};

use super::api::Member;
use crate::state::{Applied, Position};
use crate::storage::wal;

/// A command as it lies in the log: encoded once by the node that took the request, and never decoded until it is applied.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CommandBytes(pub(crate) Bytes);

impl fmt::Debug for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What apply answers; nothing for blank and membership entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response(pub(crate) Option<Applied>);

openraft::declare_raft_types!(
    /// Openraft's type parameters. One leader a term, as in the Raft paper.
    pub(crate) TypeConfig:
        D = CommandBytes,
        R = Response,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = LeaderId<u64, u64>,
        AsyncRuntime = super::runtime::Runtime,
);

pub(crate) type LogId = LogIdOf<TypeConfig>;
pub(crate) type Vote = VoteOf<TypeConfig>;
pub(crate) type Entry = EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub(crate) type CommittedLeaderId = CommittedLeaderIdOf<TypeConfig>;

/// Openraft's log id of a position.
pub(crate) fn log_id(position: Position) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(position.term), index: position.index }
}

/// The position of openraft's log id.
pub(crate) fn position(log_id: &LogId) -> Position {
    Position { term: log_id.leader_id.term, index: log_id.index }
}

/// The WAL's form of a vote.
pub(crate) fn wal_vote(vote: &Vote) -> wal::Vote {
    wal::Vote {
        term: vote.leader_id.term,
        voted_for: Some(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}

/// Openraft's form of a vote. A vote of nobody is none.
pub(crate) fn raft_vote(vote: wal::Vote) -> Option<Vote> {
    let leader_id = LeaderId { term: vote.term, voted_for: vote.voted_for? };
    Some(Vote { leader_id, committed: vote.committed })
}
