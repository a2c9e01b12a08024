//! What the peer port may do with a node: the receiving half of the conversation between nodes.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use holdfast_proto::peer::v1 as pb;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use tonic::{Status, Streaming};

pub use super::peers::{
    CLUSTER, FROM_INCARNATION, FROM_NODE, PEER_MESSAGE_BYTES, TO_INCARNATION, TO_NODE,
};

use super::api::{Hello, RaftError, Refusal};
use super::membership::{change_from_wire, changed_to_wire};
use super::node::Node;
use super::types::TypeConfig;
use super::wire::{
    append_from_wire, append_result_to_wire, log_id_from_wire, vote_from_wire,
    vote_request_from_wire, vote_response_to_wire,
};
use crate::domain::{ClusterId, Incarnation, NodeId};
use crate::fs::Fs;
use crate::state::{Applied, Position};
use crate::storage::wal::Wal;

/// Who sent a call, and whom it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// The cluster that it speaks of.
    pub cluster: ClusterId,
    /// The node, as its certificate proves.
    pub id: NodeId,
    /// The life of its data directory, as it says.
    pub incarnation: Incarnation,
    /// The node that it means to reach.
    pub to: NodeId,
    /// The life of that node's data directory; unknown only before the node is a member.
    pub to_incarnation: Option<Incarnation>,
}

/// What a call asks for, which says who may make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Who is there. Asked also before the node is a member, when nobody knows the life of its data directory.
    Greeting,
    /// The conversation of the consensus. A new leader may be ahead of this node's membership.
    Consensus,
    /// Something that is done for members only.
    OfMember,
}

/// Why a call between nodes is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// Another cluster.
    #[error("the call is for cluster {0}")]
    OtherCluster(ClusterId),
    /// Another node.
    #[error("the call is for node {0}")]
    OtherNode(NodeId),
    /// Another life of this node's data directory.
    #[error(
        "the call is for an earlier incarnation of this node; the node lost its data and must be replaced"
    )]
    OtherIncarnation,
    /// The membership knows the sender by another incarnation.
    #[error(
        "node {0} has another incarnation than the membership says; it lost its data and must be replaced"
    )]
    SenderIncarnation(NodeId),
    /// The call does not say which life of this node's data directory it is for.
    #[error("the call does not say which incarnation of this node it is for")]
    NoIncarnation,
    /// The sender was removed from the cluster.
    #[error("node {0} was removed from the cluster")]
    Removed(NodeId),
    /// The sender is on the deny-list.
    #[error("the certificate of node/{0} was denied by an administrator")]
    Denied(NodeId),
    /// The sender is no member.
    #[error("node {0} is no member of the cluster")]
    NotMember(NodeId),
}

/// The receiving half of a node.
pub struct PeerHandle<F: Fs>(pub(super) Node<F>);

impl<F: Fs> Clone for PeerHandle<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: Fs> PeerHandle<F> {
    /// Of `node`.
    pub fn new(node: &Node<F>) -> Self {
        Self(node.clone())
    }

    /// The cluster that the node belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.0.identity().cluster
    }

    /// Checks that a call is meant for this node and comes from whom the membership knows (I7).
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, sender: &Sender, call: Call) -> Result<(), PeerRefusal> {
        let checked = self.admits(sender, call);
        if let Err(refusal) = &checked {
            self.0.0.link.peers.shut_out.refused(sender, refusal);
        }
        checked
    }

    fn admits(&self, sender: &Sender, call: Call) -> Result<(), PeerRefusal> {
        let own = self.0.identity();
        if sender.cluster != own.cluster {
            return Err(PeerRefusal::OtherCluster(sender.cluster));
        }
        if sender.to != own.id {
            return Err(PeerRefusal::OtherNode(sender.to));
        }
        if sender.to_incarnation.is_some_and(|meant| meant != own.incarnation) {
            return Err(PeerRefusal::OtherIncarnation);
        }
        if sender.to_incarnation.is_none() && call != Call::Greeting {
            return Err(PeerRefusal::NoIncarnation);
        }
        if self.0.0.applied.is_denied(sender.id) {
            return Err(PeerRefusal::Denied(sender.id));
        }
        let metrics = self.0.0.link.raft.metrics();
        let metrics = metrics.borrow_watched();
        // A leader that was removed hands over before it falls silent.
        let leads = metrics.current_leader == Some(sender.id.get());
        if !leads && self.0.0.applied.was_removed(sender.id) {
            return Err(PeerRefusal::Removed(sender.id));
        }
        match metrics.membership_config.get_node(&sender.id.get()) {
            Some(member) if member.incarnation != sender.incarnation => {
                Err(PeerRefusal::SenderIncarnation(sender.id))
            }
            None if call == Call::OfMember => Err(PeerRefusal::NotMember(sender.id)),
            _ => Ok(()),
        }
    }

    /// Who this node is.
    pub fn hello(&self) -> Hello {
        self.0.own_hello()
    }

    /// Takes a stream of replicated batches and answers each in order once it is on disk.
    pub fn append(
        &self,
        requests: Streaming<pb::AppendRequest>,
    ) -> impl Stream<Item = Result<pb::AppendResponse, Status>> + Send + 'static {
        let (sender, faults) = tokio::sync::mpsc::channel(1);
        let node = self.0.clone();
        // Stops at the first batch that can't be read or taken; what came before is answered.
        let decoded = futures::stream::unfold(Some((requests, sender)), move |state| {
            let node = node.clone();
            async move {
                let (mut requests, sender) = state?;
                let result = match requests.message().await {
                    Ok(Some(request)) => accept(&node, request),
                    Ok(None) => {
                        super::lost_leader::look_after(&node);
                        return None;
                    }
                    Err(status) => {
                        super::lost_leader::look_after(&node);
                        Err(status)
                    }
                };
                match result {
                    Ok(request) => Some((request, Some((requests, sender)))),
                    Err(status) => {
                        drop(sender.send(status).await);
                        None
                    }
                }
            }
        });
        let answers = self.0.0.link.raft.stream_append(decoded).map(|answer| match answer {
            Ok(result) => Ok(append_result_to_wire(result)),
            Err(fatal) => Err(Status::unavailable(fatal.to_string())),
        });
        let fault = tokio_stream::wrappers::ReceiverStream::new(faults).map(Err);
        answers.chain(fault)
    }

    /// Answers a candidate.
    ///
    /// # Errors
    /// If the request is malformed or the node has stopped.
    pub async fn vote(&self, request: pb::VoteRequest) -> Result<pb::VoteResponse, RaftError> {
        let request = vote_request_from_wire(request).map_err(stopped)?;
        self.0
            .0
            .link
            .raft
            .vote(request)
            .await
            .map(|response| vote_response_to_wire(&response))
            .map_err(stopped)
    }

    /// Says whether a vote would be granted.
    ///
    /// # Errors
    /// If the request is malformed or the node has stopped.
    pub async fn pre_vote(&self, request: pb::VoteRequest) -> Result<pb::VoteResponse, RaftError> {
        let request = vote_request_from_wire(request).map_err(stopped)?;
        self.0
            .0
            .link
            .raft
            .pre_vote(request)
            .await
            .map(|response| vote_response_to_wire(&response))
            .map_err(stopped)
    }

    /// Takes a snapshot file, verifies it, and installs it.
    ///
    /// # Errors
    /// If it is malformed, fails its checks, or the node can't store it.
    pub async fn install_snapshot(
        &self,
        chunks: Streaming<pb::SnapshotChunk>,
    ) -> Result<pb::InstallSnapshotResponse, Status> {
        let taken = self.take_in(chunks).await;
        if let Err(status) = &taken {
            self.0.0.link.peers.shut_out.snapshot_not_taken(status.message());
        }
        taken
    }

    /// Stands for election at once, because the leader asks for it.
    ///
    /// # Errors
    /// If the request is malformed or the node has stopped.
    pub async fn transfer_leader(
        &self,
        request: pb::TransferLeaderRequest,
    ) -> Result<pb::TransferLeaderResponse, RaftError> {
        let from = vote_from_wire(request.from).map_err(stopped)?;
        let request =
            TransferLeaderRequest::new(from, request.to, request.last_log_id.map(log_id_from_wire));
        let answer = self.0.0.link.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        let refusal = answer.err().map(|error| error.to_string());
        Ok(pb::TransferLeaderResponse {
            accepted: refusal.is_none(),
            refusal: refusal.unwrap_or_default(),
        })
    }

    /// Proposes a command that a follower forwarded, or says why not.
    ///
    /// # Errors
    /// The reason, as it goes back to the follower.
    pub async fn propose_forwarded(&self, command: Bytes) -> Result<Applied, pb::ForwardError> {
        self.0.0.link.propose_forwarded(command).await
    }

    /// The read index, if this node leads.
    pub async fn read_index(&self) -> Option<Position> {
        self.0.0.link.read_index_for_peer().await
    }

    /// Digests of this node's state, and its clock.
    pub fn compare(&self) -> pb::CompareResponse {
        let link = &self.0.0.link;
        super::compare::write(self.0.0.applied.states(), link.time.now(), link.turn.now())
    }

    /// What this node says of itself.
    pub fn status(&self) -> Bytes {
        super::status::write(&self.0.report())
    }

    /// Changes the membership, if this node leads.
    ///
    /// # Errors
    /// If the change is malformed or can't be made.
    pub async fn change_membership(
        &self,
        request: pb::MembershipRequest,
    ) -> Result<pb::MembershipResponse, RaftError> {
        let change = change_from_wire(request)?;
        if !self.0.0.link.raft.is_leader() {
            return Err(RaftError::NoLeader);
        }
        self.0.0.link.change_here(change).await.map(changed_to_wire)
    }
}

/// Reads one batch, and refuses it if it brings commands while the disk is full (I9): openraft itself takes a failed append for the
/// end. A new leader begins with a batch from the middle of the log, to find out where the logs part: what is there already takes no room.
fn accept<F: Fs>(
    node: &Node<F>,
    request: pb::AppendRequest,
) -> Result<openraft::raft::AppendEntriesRequest<TypeConfig>, Status> {
    if node.0.link.disk_low() && brings_commands(&node.0.link.wal, &request.entries) {
        return Err(Status::resource_exhausted(Refusal::DiskLow.to_string()));
    }
    let age = request.quorum_age_ms.map(Duration::from_millis);
    let request =
        append_from_wire(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
    node.note_leader_heard(age);
    Ok(request)
}

/// Whether any of these entries is a command that the log does not have. Where the last one stands in both, all before it do.
fn brings_commands<F: Fs>(wal: &Wal<F>, entries: &[pb::Entry]) -> bool {
    let is_command =
        |entry: &&pb::Entry| matches!(entry.payload, Some(pb::entry::Payload::Command(_)));
    let Some(last) = entries.iter().rfind(is_command) else { return false };
    let Some(id) = &last.log_id else { return true };
    if wal.purged().is_some_and(|purged| id.index <= purged.index) {
        return false;
    }
    let own = wal.read(id.index, id.index.saturating_add(1), usize::MAX);
    !own.is_ok_and(|own| own.first().is_some_and(|entry| entry.id.term == id.term))
}

fn stopped(error: impl std::fmt::Display) -> RaftError {
    RaftError::Stopped(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::sim::SimFs;
    use crate::storage::wal::{LogEntry, Payload, WalOptions};

    fn entry(term: u64, index: u64) -> pb::Entry {
        let payload = pb::entry::Payload::Command(Bytes::from_static(b"command"));
        pb::Entry { log_id: Some(pb::LogId { term, index }), payload: Some(payload) }
    }

    #[test]
    fn i9_a_batch_of_commands_that_are_there_already_takes_no_room() {
        let options =
            WalOptions { inline: true, segment_bytes: 16 * 1024, ..WalOptions::default() };
        let wal = Wal::open(SimFs::new(), Path::new("/wal"), options).unwrap();
        let command = |index| LogEntry {
            id: Position { term: 2, index },
            payload: Payload::Command(Bytes::from_static(b"command")),
        };
        wal.append((0..=5).map(command).collect(), Box::new(|done| done.unwrap())).unwrap();
        let blank = pb::Entry {
            log_id: Some(pb::LogId { term: 3, index: 6 }),
            payload: Some(pb::entry::Payload::Blank(true)),
        };
        assert!(!brings_commands(&wal, &[entry(2, 4), entry(2, 5), blank.clone()]));
        assert!(!brings_commands(&wal, &[blank]));
        assert!(brings_commands(&wal, &[entry(2, 5), entry(2, 6)]));
        assert!(brings_commands(&wal, &[entry(3, 5)]), "another entry at the same place");
    }
}
