//! What a node knows of the quorum, and since when: the truth about who leads.
//!
//! A leader that has lost its majority does not know that at once, and a follower that hears such a leader knows even
//! less. So proof has an age: a leader counts from the last time that a quorum answered it and says so with each batch, and a
//! follower counts on from there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use super::api::{Freshness, MemberRole};
use super::node::Node;
use super::types::TypeConfig;
use crate::domain::NodeId;
use crate::fs::Fs;

/// A leader without proof of a quorum for longer than this leads no more, as far as anybody is told.
const LEADS_FOR: Duration = Duration::from_secs(1);

type Metrics = openraft::RaftMetrics<TypeConfig>;

/// Time since a leader last had proof of a quorum; `None` if it never had, or does not lead.
pub(crate) fn quorum_age(metrics: &Metrics) -> Option<Duration> {
    if metrics.current_leader != Some(metrics.id) {
        return None;
    }
    // The only voter is its own quorum.
    if metrics.membership_config.voter_ids().all(|voter| voter == metrics.id) {
        return Some(Duration::ZERO);
    }
    metrics.last_quorum_acked.as_ref().map(|at| openraft::Instant::elapsed(&**at))
}

/// Time since each other member last answered this leader; those that never did are left out.
pub(crate) fn last_answers(metrics: &Metrics) -> impl Iterator<Item = (u64, Duration)> {
    let all = metrics.heartbeat.iter().flatten();
    all.filter_map(|(id, at)| Some((*id, openraft::Instant::elapsed(&**at.as_ref()?))))
}

impl<F: Fs> Node<F> {
    /// Notes that a leader was heard from, which had proof of a quorum `age` before.
    pub(crate) fn note_leader_heard(&self, age: Option<Duration>) {
        // A leader that never had proof is none to trust yet.
        let Some(age) = age else { return };
        let Some(proof) = self.0.started.elapsed().checked_sub(age) else { return };
        let proof = u64::try_from(proof.as_millis()).unwrap_or(u64::MAX);
        self.0.heard_ms.fetch_max(proof.max(1), Ordering::Relaxed);
    }

    fn proof_age(&self, metrics: &Metrics) -> Duration {
        if metrics.current_leader == Some(metrics.id) {
            return quorum_age(metrics).unwrap_or(Duration::MAX);
        }
        match self.0.heard_ms.load(Ordering::Relaxed) {
            0 => Duration::MAX,
            heard => self.0.started.elapsed().saturating_sub(Duration::from_millis(heard)),
        }
    }

    /// How recent the applied state is known to be.
    pub fn freshness(&self) -> Freshness {
        let applied_index = self.0.applied.index().unwrap_or(0);
        let metrics = self.0.link.raft.metrics();
        let age = self.proof_age(&metrics.borrow_watched());
        Freshness { applied_index, age }
    }

    /// Who leads, if there was proof of that just now.
    pub(crate) fn known_leader(&self, metrics: &Metrics) -> Option<NodeId> {
        let leader = metrics.current_leader.map(NodeId::new)?;
        (self.proof_age(metrics) <= LEADS_FOR).then_some(leader)
    }

    /// How this node takes part.
    pub(crate) fn role(&self, metrics: &Metrics) -> MemberRole {
        match metrics.state {
            openraft::ServerState::Leader if self.proof_age(metrics) > LEADS_FOR => {
                MemberRole::IsolatedLeader
            }
            openraft::ServerState::Leader => MemberRole::Leader,
            openraft::ServerState::Candidate => MemberRole::Candidate,
            openraft::ServerState::Learner => MemberRole::Learner,
            _ => MemberRole::Follower,
        }
    }
}
