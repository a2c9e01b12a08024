//! The real consensus behind the use cases: a node of the cluster.

use std::future::Future;
use std::time::Duration;

use super::Consensus;
use crate::domain::NodeId;
use crate::fs::Fs;
use crate::raft::{ClusterView, Freshness, Hello, Member, Node, RaftError};
use crate::state::{Applied, Command, Position};
use crate::storage::view::View;

impl<F: Fs> Consensus for Node<F> {
    type View = View;

    fn propose(&self, command: Command) -> impl Future<Output = Result<Applied, RaftError>> + Send {
        Self::propose(self, command)
    }

    fn wait_applied(
        &self,
        index: u64,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), RaftError>> + Send {
        Self::wait_applied(self, index, deadline)
    }

    fn read_barrier(&self) -> impl Future<Output = Result<u64, RaftError>> + Send {
        Self::read_barrier(self)
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

    fn statuses(&self, all: bool) -> impl Future<Output = ClusterView> + Send {
        Self::statuses(self, all)
    }

    fn hello(
        &self,
        node: NodeId,
        peer_address: &str,
    ) -> impl Future<Output = Result<Hello, RaftError>> + Send {
        Self::hello(self, node, peer_address)
    }

    fn initialize(
        &self,
        members: Vec<Member>,
    ) -> impl Future<Output = Result<(), RaftError>> + Send {
        Self::initialize(self, members)
    }

    fn add_learner(
        &self,
        member: Member,
    ) -> impl Future<Output = Result<Position, RaftError>> + Send {
        Self::add_learner(self, member)
    }

    fn promote(&self, node: NodeId) -> impl Future<Output = Result<Position, RaftError>> + Send {
        Self::promote(self, node)
    }

    fn remove(&self, node: NodeId) -> impl Future<Output = Result<Position, RaftError>> + Send {
        Self::remove(self, node)
    }

    fn transfer(
        &self,
        to: Option<NodeId>,
    ) -> impl Future<Output = Result<NodeId, RaftError>> + Send {
        Self::transfer(self, to)
    }

    fn set_unsealed(&self, unsealed: bool) {
        Self::set_unsealed(self, unsealed);
    }
}
