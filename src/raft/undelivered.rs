//! A leader whose heartbeats are answered but whose entries reach no majority gives way.
//!
//! Heartbeats and entries go over different connections. A leader can have the first and be unable to open the second: its
//! clock is wrong, so that it takes the certificates of the others for not yet valid, or something between the hosts lets old
//! connections live and no new ones through. Its followers hear it and wait, it hears its followers and leads on, and
//! nothing is written any more. So such a leader falls silent for as long as an election takes, and whoever can be elected
//! then is. It does so only if the others would elect somebody, and if that one could do better.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{RaftMetrics, ReadPolicy, ServerState};
use tokio::time::Instant;

use super::api::{MemberReport, MemberStatus};
use super::contact::quorum_age;
use super::node::Node;
use super::types::TypeConfig;
use crate::domain::NodeId;
use crate::fs::Fs;

/// How often a node looks.
const LOOK: Duration = Duration::from_millis(250);
/// How long entries may be under way before their leader asks who has them.
const PATIENCE: Duration = Duration::from_secs(1);
/// An election begins at the latest when the lease and a timeout are over; both are at most the longest timeout.
const SILENCE_TIMEOUTS: u32 = 3;

/// A leader with entries that are not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    term: u64,
    committed: u64,
}

impl Pending {
    fn of(metrics: &RaftMetrics<TypeConfig>) -> Option<Self> {
        let committed = metrics.local_committed.as_ref().map_or(0, |id| id.index);
        let leads = metrics.state == ServerState::Leader;
        (leads && metrics.last_log_index > Some(committed))
            .then_some(Self { term: metrics.current_term, committed })
    }
}

fn pending<F: Fs>(node: &Node<F>) -> Option<Pending> {
    let metrics = node.0.link.raft.metrics();
    let metrics = metrics.borrow_watched();
    // Without a quorum that answers, the others' own timeouts see to it.
    quorum_age(&metrics).filter(|age| *age < PATIENCE)?;
    Pending::of(&metrics)
}

/// Watches for entries that are not delivered; ends with the node.
pub(crate) async fn watch<F: Fs>(node: Node<F>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting: Option<(Pending, Instant)> = None;
    loop {
        let now = tick.tick().await;
        if node.ending() {
            return;
        }
        let Some(seen) = pending(&node) else {
            waiting = None;
            continue;
        };
        let since = match waiting {
            Some((before, since)) if before == seen => since,
            _ => waiting.insert((seen, now)).1,
        };
        if now.duration_since(since) < PATIENCE {
            continue;
        }
        if is_stuck(&node, seen).await {
            give_way(&node, seen).await;
        }
        waiting = None;
    }
}

async fn is_stuck<F: Fs>(node: &Node<F>, seen: Pending) -> bool {
    // Answers the last committed entry, or the first of this leader if none of its own is committed. Entries between the two are
    // those of earlier leaders, which the others may well have.
    let own = node.0.link.raft.get_read_log_id(ReadPolicy::LeaseRead).await;
    let Ok((read, _)) = own else { return false };
    let first = read.log_id().index;
    let before = if first > seen.committed { first.saturating_sub(1) } else { seen.committed };
    let members = node.statuses(true).await.members;
    pending(node) == Some(seen) && another_would_do(&members, node.0.identity.id, before)
}

/// Whether fewer than a majority of the voters have any entry after `before`, while another one has room, would be elected by
/// those that answer, and would find a majority to write to.
fn another_would_do(members: &[MemberStatus], own: NodeId, before: u64) -> bool {
    let voters: Vec<&MemberStatus> = members.iter().filter(|status| status.voter).collect();
    let majority = voters.len() / 2 + 1;
    let answers =
        || voters.iter().filter_map(|status| Some((status, status.answer.as_ref().ok()?)));
    let count = |fits: &dyn Fn(NodeId, &MemberReport) -> bool| {
        answers().filter(|(status, report)| fits(status.member.id, report)).count()
    };
    // Who has them, and has not yet said that they are on its disk, would be no faster under another leader.
    let received = count(&|_, report| report.last_log_index > before);
    let with_room = count(&|_, report| !report.disk_low);
    let elected = answers().any(|(status, candidate)| {
        let votes =
            count(&|id, report| id != own && report.last_log_index <= candidate.last_log_index);
        status.member.id != own && !candidate.disk_low && votes >= majority
    });
    received < majority && with_room >= majority && elected
}

/// Sends no heartbeats until somebody else leads, entries get through after all, or an election had its time.
async fn give_way<F: Fs>(node: &Node<F>, seen: Pending) {
    tracing::warn!(
        committed = seen.committed,
        "this node leads and is heard, but its entries reach no majority: it can't open connections to the other \
         voters, whose certificates or network should be looked at, and so should its own clock; it gives way"
    );
    let silent = node.0.link.peers.fall_silent();
    let mut news = node.0.link.raft.metrics();
    let over = async {
        loop {
            let now = Pending::of(&news.borrow_and_update());
            if now != Some(seen) || news.changed().await.is_err() {
                return;
            }
        }
    };
    let election = node.0.options.times.election_max * SILENCE_TIMEOUTS;
    if tokio::time::timeout(election, over).await.is_err() {
        tracing::warn!("nobody else was elected; this node leads on");
    }
    drop(silent);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Incarnation;
    use crate::raft::{Member, MemberRole};
    use crate::state::AuditPosition;

    fn status(id: u64, answer: Option<(u64, bool)>) -> MemberStatus {
        let report = |(last_log_index, disk_low)| MemberReport {
            role: MemberRole::Follower,
            term: 1,
            last_log_index,
            applied_index: 0,
            snapshot_index: 0,
            unsealed: true,
            state_digest: [0; 32],
            record_count: 0,
            audit: AuditPosition::default(),
            log_bytes: 0,
            version: String::new(),
            divergence: String::new(),
            disk_low,
        };
        let member = Member {
            id: NodeId::new(id),
            peer_address: String::new(),
            client_address: String::new(),
            incarnation: Incarnation::from_slice(&[7; 16]).unwrap(),
        };
        MemberStatus { member, voter: true, answer: answer.map(report).ok_or_else(String::new) }
    }

    /// Whether node 1, which has entry 10 and knows 9 to be committed, gives way.
    fn gives_way(others: &[Option<(u64, bool)>]) -> bool {
        let others = others.iter().zip(2..).map(|(answer, id)| status(id, *answer));
        let members: Vec<_> = [status(1, Some((10, false)))].into_iter().chain(others).collect();
        another_would_do(&members, NodeId::new(1), 9)
    }

    const LACKS_IT: Option<(u64, bool)> = Some((9, false));
    const HAS_IT: Option<(u64, bool)> = Some((10, false));
    const FULL: Option<(u64, bool)> = Some((9, true));

    #[test]
    fn a_leader_whose_entries_nobody_has_gives_way() {
        assert!(gives_way(&[LACKS_IT, LACKS_IT]));
        assert!(gives_way(&[LACKS_IT, Some((8, false))]));
        assert!(gives_way(&[LACKS_IT, LACKS_IT, LACKS_IT, HAS_IT]));
    }

    #[test]
    fn a_leader_whose_followers_are_slow_to_sync_stays() {
        assert!(!gives_way(&[LACKS_IT, HAS_IT]));
        assert!(!gives_way(&[LACKS_IT, LACKS_IT, HAS_IT, HAS_IT]));
    }

    #[test]
    fn a_leader_stays_if_nobody_else_would_be_elected() {
        assert!(!gives_way(&[LACKS_IT, None]));
        assert!(!gives_way(&[LACKS_IT]));
        assert!(!gives_way(&[]));
    }

    #[test]
    fn a_leader_stays_if_another_one_could_not_write_either() {
        assert!(!gives_way(&[FULL, FULL]));
        assert!(gives_way(&[FULL, LACKS_IT]), "the one with room, and this node");
    }
}
