//! The one error of the use cases. `grpc::status` maps it to the wire, exhaustively.

use std::time::Duration;

use crate::auth::{Denied, IdentityError};
use crate::crypto::CsrError;
use crate::domain::{FieldError, NodeId};
use crate::raft::RaftError;
use crate::state::{Rejection, StoreError};

/// Why a use case gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Nobody is known to be at the other end.
    #[error("the caller is not known")]
    Unauthenticated(#[from] IdentityError),
    /// A field of the request is not well-formed.
    #[error("a field is not well-formed")]
    Field(#[from] FieldError),
    /// The caller may not do this.
    #[error("denied")]
    Denied(#[from] Denied),
    /// The state machine refused; nothing was changed but the audit chain.
    #[error("refused")]
    Rejected(#[from] Rejection),
    /// The consensus gave no answer.
    #[error("no consensus")]
    Raft(#[from] RaftError),
    /// The local state is too old to decide anything by.
    #[error("no contact with a quorum {}", since(*age))]
    NoQuorumContact {
        /// Since when.
        age: Duration,
    },
    /// The node has no unsealed keyring.
    #[error("this node is sealed: {0}")]
    Sealed(String),
    /// The audit chain here is not the one that was signed before.
    #[error("this node's audit chain is not the one that was signed before: {0}")]
    ChainConflict(String),
    /// The members refuse this node, so that it knows nothing of them that is new.
    #[error("this server is shut out of its cluster: {0}")]
    ShutOut(String),
    /// A certificate request is not acceptable.
    #[error("csr: {0}")]
    Csr(#[from] CsrError),
    /// Nobody has made the CA of devices yet.
    #[error(
        "the cluster has no agent CA yet: an administrator makes it with holdfast agent-ca create"
    )]
    NoAgentCa,
    /// The CA of devices signs nothing any more.
    #[error(
        "the cluster's agent CA has expired: an administrator makes the next one with holdfast agent-ca create --replace"
    )]
    AgentCaExpired,
    /// The cluster was not made yet.
    #[error("the cluster is not initialised")]
    NotInitialised,
    /// The cluster was already made.
    #[error("the cluster is already initialised")]
    AlreadyInitialised,
    /// There is no such device.
    #[error("no such device")]
    NoSuchDevice,
    /// A node that the request names did not answer as it has to.
    #[error("node {node}: {why}")]
    Member {
        /// The node.
        node: NodeId,
        /// What is wrong, for a person.
        why: String,
    },
    /// What is stored does not open or does not verify.
    #[error("an integrity check failed: {0}")]
    Integrity(String),
    /// The local store failed. The node stops.
    #[error("the local store failed")]
    Store(#[from] StoreError),
    /// The state machine gave an answer that does not fit the question: a bug.
    #[error("unexpected: {0}")]
    Unexpected(&'static str),
}

/// For a person; [`Duration::MAX`] means that there never was any.
fn since(age: Duration) -> String {
    match age {
        Duration::MAX => "since this server started".to_owned(),
        age => format!("for {:.1} s", age.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_without_a_quorum_is_said_in_seconds_or_as_never() {
        let said = |age| ServiceError::NoQuorumContact { age }.to_string();
        let long = Duration::from_nanos(8_084_837_386);
        assert_eq!(said(long), "no contact with a quorum for 8.1 s");
        assert_eq!(said(Duration::MAX), "no contact with a quorum since this server started");
    }
}
