//! What use cases need from the consensus, as a trait: the node implements it, and so does the harness of the tests.

use std::future::Future;
use std::time::Duration;

use crate::domain::NodeId;
use crate::raft::{ClusterView, Freshness, Hello, Member, RaftError};
use crate::state::{Applied, Command, Position, Store};

/// A node of the consensus. Cheap to share; every method may be called at the same time.
pub trait Consensus: Send + Sync + 'static {
    /// The applied state.
    type View: Store;

    /// Proposes a command on any node, forwarding it to the leader at most once, and answers when it is committed and
    /// applied where it was proposed. It does not wait for the local apply.
    ///
    /// # Errors
    /// [`RaftError::OutcomeUnknown`] if it may still commit; any other error if nothing was proposed.
    fn propose(&self, command: Command) -> impl Future<Output = Result<Applied, RaftError>> + Send;

    /// Waits until the local state has applied `index`.
    ///
    /// # Errors
    /// [`RaftError::NoLeader`] if that takes longer than `deadline`, or that the node has stopped.
    fn wait_applied(
        &self,
        index: u64,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), RaftError>> + Send;

    /// Makes the next local read linearizable (ReadIndex); returns the local applied index.
    ///
    /// # Errors
    /// If no quorum answers.
    fn read_barrier(&self) -> impl Future<Output = Result<u64, RaftError>> + Send;

    /// The applied state. Reads see what was applied last.
    fn view(&self) -> &Self::View;

    /// How recent the applied state is.
    fn freshness(&self) -> Freshness;

    /// Whether the node has ever been a member of a cluster.
    fn initialized(&self) -> bool;

    /// The cluster as this node sees it; with `all`, every other member is asked too.
    fn statuses(&self, all: bool) -> impl Future<Output = ClusterView> + Send;

    /// Greets a running node at its peer address, this one included.
    ///
    /// # Errors
    /// [`RaftError::Membership`] with the cause, if it can't be reached or is another node.
    fn hello(
        &self,
        node: NodeId,
        peer_address: &str,
    ) -> impl Future<Output = Result<Hello, RaftError>> + Send;

    /// Makes a cluster of empty nodes.
    ///
    /// # Errors
    /// If the node has been in a cluster before.
    fn initialize(
        &self,
        members: Vec<Member>,
    ) -> impl Future<Output = Result<(), RaftError>> + Send;

    /// Adds a member without a vote; returns the entry.
    ///
    /// # Errors
    /// If the change is not possible or its outcome is not known.
    fn add_learner(
        &self,
        member: Member,
    ) -> impl Future<Output = Result<Position, RaftError>> + Send;

    /// Gives a learner a vote; returns the entry.
    ///
    /// # Errors
    /// If the change is not possible or its outcome is not known.
    fn promote(&self, node: NodeId) -> impl Future<Output = Result<Position, RaftError>> + Send;

    /// Removes a member for ever; returns the entry.
    ///
    /// # Errors
    /// If the change is not possible or its outcome is not known.
    fn remove(&self, node: NodeId) -> impl Future<Output = Result<Position, RaftError>> + Send;

    /// Hands leadership to `to`, or to the voter that is furthest ahead; returns who leads then.
    ///
    /// # Errors
    /// If there is nobody to hand it to, or nobody took it.
    fn transfer(
        &self,
        to: Option<NodeId>,
    ) -> impl Future<Output = Result<NodeId, RaftError>> + Send;

    /// Tells the other members, in status reports, whether this node can open keys.
    fn set_unsealed(&self, unsealed: bool);
}
