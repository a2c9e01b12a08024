//! Members take their snapshots one after another.
//!
//! All have the same log, so all would take one at the same moment; with the processors and disks of all busy, every write
//! would wait for it. While one takes its own, a majority of the others goes on at full speed. Followers go first: the
//! leader has the most to do beside it.

use parking_lot::Mutex;

use holdfast_proto::peer::v1 as pb;
use openraft::async_runtime::WatchReceiver as _;

use super::compare;
use super::node::Node;
use crate::domain::NodeId;
use crate::fs::Fs;

/// What this node tells the others of its next snapshot.
#[derive(Default)]
pub(crate) struct Turn(Mutex<pb::SnapshotTurn>);

impl Turn {
    pub(crate) fn now(&self) -> pb::SnapshotTurn {
        *self.0.lock()
    }

    pub(crate) fn set(&self, turn: pb::SnapshotTurn) {
        *self.0.lock() = turn;
    }
}

/// Whether no other member takes a snapshot, and none that goes first wants to. Who does not answer, and so does not hold
/// anything up either, is not waited for.
pub(crate) async fn has_come<F: Fs>(node: &Node<F>) -> bool {
    node.0.link.turn.set(pb::SnapshotTurn::Wanted);
    let (answers, _) = compare::ask_others(node).await;
    let leader = node.0.link.raft.metrics().borrow_watched().current_leader.map(NodeId::new);
    let others = answers.iter().map(|(id, answer)| (*id, answer.snapshot_turn()));
    goes_first(node.0.identity.id, leader, others)
}

fn goes_first(
    own: NodeId,
    leader: Option<NodeId>,
    mut others: impl Iterator<Item = (NodeId, pb::SnapshotTurn)>,
) -> bool {
    let place = |id: NodeId| (Some(id) == leader, id);
    others.all(|(id, turn)| match turn {
        pb::SnapshotTurn::Unspecified => true,
        pb::SnapshotTurn::Wanted => place(own) < place(id),
        pb::SnapshotTurn::Taking => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::SnapshotTurn::{Taking, Unspecified, Wanted};

    fn first(own: u64, leader: u64, others: &[(u64, pb::SnapshotTurn)]) -> bool {
        let others = others.iter().map(|(id, turn)| (NodeId::new(*id), *turn));
        goes_first(NodeId::new(own), Some(NodeId::new(leader)), others)
    }

    #[test]
    fn of_those_that_want_a_snapshot_one_goes_and_the_leader_last() {
        assert!(!first(1, 1, &[(2, Wanted), (3, Wanted)]));
        assert!(first(2, 1, &[(1, Wanted), (3, Wanted)]));
        assert!(!first(3, 1, &[(1, Wanted), (2, Wanted)]));
        assert!(first(1, 1, &[(2, Unspecified), (3, Unspecified)]));
    }

    #[test]
    fn nobody_goes_while_another_member_takes_one() {
        assert!(!first(2, 1, &[(1, Taking), (3, Unspecified)]));
        assert!(!first(2, 1, &[(1, Wanted), (3, Taking)]));
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        assert!(first(1, 1, &[]));
        assert!(!first(3, 1, &[(2, Wanted)]));
    }
}
