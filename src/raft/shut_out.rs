//! What a node learns of calls between nodes being refused: said once, not with every call; and whether it is itself the one
//! that is shut out, so that it can tell why it finds no leader.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::peer::{PeerRefusal, Sender};
use crate::domain::NodeId;

/// How often one and the same refusal is said.
const AGAIN: Duration = Duration::from_secs(60);
/// Different refusals that are remembered.
const REMEMBERED: usize = 64;
/// For how long a node counts as shut out after it was last told so. Pre-votes come more often.
const LASTS: Duration = Duration::from_secs(10);

/// The refusals of one node, in both directions.
#[derive(Default)]
pub(crate) struct ShutOut {
    said: Mutex<BTreeMap<String, Instant>>,
    told: Mutex<Option<(Instant, String)>>,
}

impl ShutOut {
    /// This node refused a call.
    pub(crate) fn refused(&self, sender: &Sender, refusal: &PeerRefusal) {
        if self.first(format!("{} {refusal}", sender.id), Instant::now()) {
            tracing::warn!(from = sender.id.get(), %refusal, "a call on the peer port is refused");
        }
        if *refusal == PeerRefusal::OtherIncarnation {
            self.tell(format!(
                "node {} knows this node by another data directory: this one is new or was emptied, \
                 and the node must be replaced under a new id",
                sender.id
            ));
        }
    }

    /// A member refused a call of this node.
    pub(crate) fn refused_by(&self, member: NodeId, why: &str) {
        self.tell(format!("node {member} refuses this node: {why}"));
    }

    /// This node could not take in the snapshot that its leader sent. The leader sends it again.
    pub(crate) fn snapshot_not_taken(&self, error: &str) {
        if self.first(format!("not taken: {error}"), Instant::now()) {
            tracing::warn!(error, "the leader's snapshot could not be taken in");
        }
    }

    /// A member did not take in a snapshot of this node. It is sent again.
    pub(crate) fn snapshot_not_taken_by(&self, member: NodeId, error: &str) {
        if self.first(format!("not taken by {member}: {error}"), Instant::now()) {
            tracing::warn!(to = member.get(), error, "a member did not take in the snapshot");
        }
    }

    /// Why this node is shut out, if it was told so just now.
    pub(crate) fn why(&self) -> Option<String> {
        self.why_at(Instant::now())
    }

    fn why_at(&self, now: Instant) -> Option<String> {
        let told = self.told.lock();
        told.as_ref().filter(|(at, _)| now.duration_since(*at) < LASTS).map(|(_, why)| why.clone())
    }

    fn tell(&self, why: String) {
        let now = Instant::now();
        if self.first(why.clone(), now) {
            tracing::warn!(why, "this node is shut out of its cluster");
        }
        *self.told.lock() = Some((now, why));
    }

    /// Whether this has not been said for a while.
    fn first(&self, what: String, now: Instant) -> bool {
        let mut said = self.said.lock();
        if said.get(&what).is_some_and(|at| now.duration_since(*at) < AGAIN) {
            return false;
        }
        if said.len() >= REMEMBERED {
            said.retain(|_, at| now.duration_since(*at) < AGAIN);
        }
        if said.len() < REMEMBERED {
            said.insert(what, now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_once_a_minute_and_shuts_out_for_as_long_as_it_is_repeated() {
        let shut_out = ShutOut::default();
        let now = Instant::now();
        assert_eq!(shut_out.why(), None);
        assert!(shut_out.first("a".into(), now));
        assert!(!shut_out.first("a".into(), now + AGAIN / 2));
        assert!(shut_out.first("b".into(), now));
        assert!(shut_out.first("a".into(), now + AGAIN));
        shut_out.refused_by(NodeId::new(2), "node 1 was removed from the cluster");
        let why = shut_out.why().unwrap();
        assert_eq!(why, "node 2 refuses this node: node 1 was removed from the cluster");
        assert_eq!(shut_out.why_at(Instant::now() + LASTS), None);
    }

    #[test]
    fn no_number_of_different_refusals_takes_more_memory() {
        let shut_out = ShutOut::default();
        for n in 0..1000 {
            assert!(shut_out.first(n.to_string(), Instant::now()));
        }
        assert_eq!(shut_out.said.lock().len(), REMEMBERED);
    }
}
