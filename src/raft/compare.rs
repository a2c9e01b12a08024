//! I4: nodes compare the digests of their states at equal log indexes. A difference is an alarm: one of them has applied
//! something else than the others, and what it answers can't be believed.
//!
//! Each node keeps the digest at every [`EVERY`]-th index for a while, so that two nodes have an index in common also
//! while writes go on. Every few seconds each node asks the others for theirs. The same exchange compares clocks
//! (`time.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::peer::v1 as pb;
use openraft::async_runtime::WatchReceiver as _;

use super::api::Member;
use super::node::Node;
use super::peers::{Lane, Peers};
use crate::domain::{NodeId, Timestamp};
use crate::fs::Fs;

/// Digests are kept at the multiples of this index. Equal on all nodes of a cluster.
pub(crate) const EVERY: u64 = 1024;
/// Digests that are kept.
const KEPT: usize = 64;
/// How often the others are asked.
const ASK: Duration = Duration::from_secs(5);
/// How long another node may take to answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// A log index and the digest of the state after it.
pub(crate) type StateAt = (u64, [u8; 32]);

/// The newest digests at the multiples of [`EVERY`], ascending.
#[derive(Debug, Default)]
pub(crate) struct Ring(VecDeque<StateAt>);

impl Ring {
    pub(crate) fn push(&mut self, at: StateAt) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(at);
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = StateAt> {
        self.0.iter().copied()
    }
}

/// The first index at which both have a state and the states differ.
fn first_difference(own: &[StateAt], theirs: &[StateAt]) -> Option<u64> {
    let differs = |(index, digest): &&StateAt| {
        own.iter().any(|(own_index, own)| own_index == index && own != digest)
    };
    theirs.iter().filter(differs).map(|(index, _)| *index).min()
}

/// What this node answers.
pub(crate) fn write(
    states: Vec<StateAt>,
    now: Timestamp,
    turn: pb::SnapshotTurn,
) -> pb::CompareResponse {
    let states = states
        .into_iter()
        .map(|(index, digest)| pb::StateDigest { index, digest: Bytes::copy_from_slice(&digest) });
    pb::CompareResponse {
        now_ms: now.as_millis(),
        states: states.collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        snapshot_turn: turn.into(),
    }
}

/// States that can be compared; none of a node of another version, which may write its records otherwise.
pub(super) fn read(response: &pb::CompareResponse) -> Vec<StateAt> {
    if response.version != env!("CARGO_PKG_VERSION") {
        return Vec::new();
    }
    let states = response.states.iter();
    states.filter_map(|state| Some((state.index, state.digest.as_ref().try_into().ok()?))).collect()
}

async fn ask(peers: &Peers, member: &Member) -> Option<pb::CompareResponse> {
    let mut client = peers.client(member, Lane::Control).ok()?;
    let call = client.compare(pb::CompareRequest {});
    // A node that does not answer is looked at by others: here it is only asked again.
    Some(tokio::time::timeout(DEADLINE, call).await.ok()?.ok()?.into_inner())
}

/// What the other members answer, and how many members there are in all.
pub(crate) async fn ask_others<F: Fs>(
    node: &Node<F>,
) -> (Vec<(NodeId, pb::CompareResponse)>, usize) {
    let members: Vec<Member> = {
        let metrics = node.0.link.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(_, member)| member.clone()).collect()
    };
    let own = node.0.identity.id;
    let others = members.iter().filter(|member| member.id != own);
    let asked = others.map(|member| async {
        ask(&node.0.link.peers, member).await.map(|answer| (member.id, answer))
    });
    let answers = futures::future::join_all(asked).await;
    (answers.into_iter().flatten().collect(), members.len())
}

/// Compares this node with all others, again and again; ends with the node.
pub(crate) async fn watch<F: Fs>(node: Node<F>) {
    let mut tick = tokio::time::interval(ASK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !node.ending() {
        tick.tick().await;
        let (answers, members) = ask_others(&node).await;
        let states = node.0.applied.states();
        for (id, answer) in &answers {
            if let Some(index) = first_difference(&states, &read(answer)) {
                report(&node, *id, index);
            }
        }
        let clocks: Vec<_> =
            answers.iter().map(|(_, answer)| Timestamp::from_millis(answer.now_ms)).collect();
        node.0.link.time.compare(&clocks, members);
    }
}

/// Kept until the node is started again: what differed once is not made good by further entries.
fn report<F: Fs>(node: &Node<F>, other: NodeId, index: u64) {
    let mut divergence = node.0.divergence.lock();
    if divergence.is_none() {
        tracing::error!(
            node = other.get(),
            index,
            "the state differs from another member's at the same log index"
        );
        *divergence = Some(format!("differs from node {other} at log index {index}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(index: u64, fill: u8) -> StateAt {
        (index, [fill; 32])
    }

    #[test]
    fn states_are_compared_at_equal_indexes_only() {
        let own = [at(1024, 1), at(2048, 2), at(2500, 3)];
        assert_eq!(first_difference(&own, &[at(1024, 1), at(2048, 2), at(2400, 9)]), None);
        assert_eq!(first_difference(&own, &[at(2501, 9)]), None);
        assert_eq!(first_difference(&own, &[at(2500, 9), at(2048, 8), at(1024, 1)]), Some(2048));
        assert_eq!(first_difference(&[], &[at(1024, 1)]), None);
    }

    #[test]
    fn a_node_of_another_version_is_not_compared() {
        let mut answer =
            write(vec![at(7, 1)], Timestamp::from_millis(5), pb::SnapshotTurn::Unspecified);
        assert_eq!(read(&answer), [at(7, 1)]);
        answer.version = "0.0.0-other".into();
        assert_eq!(read(&answer), []);
    }

    #[test]
    fn the_newest_digests_are_kept() {
        let mut ring = Ring::default();
        for n in 0..100 {
            ring.push(at(n * EVERY, 0));
        }
        let indexes: Vec<_> = ring.states().map(|(index, _)| index / EVERY).collect();
        assert_eq!(indexes, (36..100).collect::<Vec<_>>());
    }
}
