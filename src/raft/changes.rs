//! Changes of who takes part and who leads, as a node is asked for them.

use super::api::{Member, RaftError};
use super::membership::Change;
use super::node::Node;
use crate::domain::NodeId;
use crate::fs::Fs;
use crate::state::Position;

impl<F: Fs> Node<F> {
    /// Makes a cluster of empty nodes.
    ///
    /// # Errors
    /// If the node has been in a cluster before.
    pub async fn initialize(&self, members: Vec<Member>) -> Result<(), RaftError> {
        let members: std::collections::BTreeMap<u64, Member> =
            members.into_iter().map(|member| (member.id.get(), member)).collect();
        self.0
            .link
            .raft
            .initialize(members)
            .await
            .map_err(|error| RaftError::Membership(error.to_string()))
    }

    async fn change(&self, change: Change) -> Result<Position, RaftError> {
        self.check_running()?;
        self.0.link.change(change).await?.position.ok_or(RaftError::OutcomeUnknown)
    }

    /// Adds a member without a vote; returns the entry.
    ///
    /// # Errors
    /// If the change is not possible or its outcome is not known.
    pub async fn add_learner(&self, member: Member) -> Result<Position, RaftError> {
        self.change(Change::AddLearner(member)).await
    }

    /// Gives a learner a vote, once it has caught up; returns the entry.
    ///
    /// # Errors
    /// If the change is not possible or its outcome is not known.
    pub async fn promote(&self, node: NodeId) -> Result<Position, RaftError> {
        self.change(Change::Promote(node)).await
    }

    /// Removes a member for ever; returns the entry.
    ///
    /// # Errors
    /// If the change is not possible or its outcome is not known.
    pub async fn remove(&self, node: NodeId) -> Result<Position, RaftError> {
        self.change(Change::Remove(node)).await
    }

    /// Hands leadership to `to`, or to the voter that is furthest ahead; returns who leads then.
    ///
    /// # Errors
    /// If there is nobody to hand it to, or nobody took it.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, RaftError> {
        self.0.link.change(Change::Transfer(to)).await?.leader.ok_or(RaftError::OutcomeUnknown)
    }
}
