//! The consensus that use cases run on: a node.

use std::time::Duration;

use crate::domain::NodeId;
use crate::fs::Fs;
use crate::raft::{ClusterView, Freshness, Hello, Member, Node, RaftError};
use crate::state::{Applied, Command, Position};
use crate::storage::view::View;

use super::Consensus;

impl<F: Fs> Consensus for Node<F> {
    type View = View;

    async fn propose(&self, command: Command) -> Result<Applied, RaftError> {
        Self::propose(self, command).await
    }

    async fn wait_applied(&self, index: u64, deadline: Duration) -> Result<(), RaftError> {
        Self::wait_applied(self, index, deadline).await
    }

    async fn read_barrier(&self) -> Result<u64, RaftError> {
        Self::read_barrier(self).await
    }

    fn view(&self) -> &View {
        Self::view(self)
    }

    fn freshness(&self) -> Freshness {
        Self::freshness(self)
    }

    fn initialized(&self) -> bool {
        Self::initialized(self)
    }

    async fn statuses(&self, all: bool) -> ClusterView {
        Self::statuses(self, all).await
    }

    async fn hello(&self, node: NodeId, peer_address: &str) -> Result<Hello, RaftError> {
        Self::hello(self, node, peer_address).await
    }

    async fn initialize(&self, members: Vec<Member>) -> Result<(), RaftError> {
        Self::initialize(self, members).await
    }

    async fn add_learner(&self, member: Member) -> Result<Position, RaftError> {
        Self::add_learner(self, member).await
    }

    async fn promote(&self, node: NodeId) -> Result<Position, RaftError> {
        Self::promote(self, node).await
    }

    async fn remove(&self, node: NodeId) -> Result<Position, RaftError> {
        Self::remove(self, node).await
    }

    async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, RaftError> {
        Self::transfer(self, to).await
    }

    fn set_unsealed(&self, unsealed: bool) {
        Self::set_unsealed(self, unsealed);
    }
}
