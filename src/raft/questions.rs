//! What a node answers about itself and about the cluster.

use std::sync::atomic::Ordering;

use openraft::async_runtime::WatchReceiver as _;

use super::api::{ClusterView, Hello, Member, MemberReport, MemberStatus, NodeMetrics, RaftError};
use super::node::Node;
use crate::domain::{NodeId, Timestamp};
use crate::fs::Fs;

impl<F: Fs> Node<F> {
    /// The cluster as this node sees it; with `all`, every other member is asked too.
    pub async fn statuses(&self, all: bool) -> ClusterView {
        let (leader, members) = {
            let metrics = self.0.link.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
            let members: Vec<(Member, bool)> = membership
                .nodes()
                .map(|(id, member)| (member.clone(), voters.contains(id)))
                .collect();
            (self.known_leader(&metrics), members)
        };
        let asked = members.into_iter().map(|(member, voter)| async move {
            let answer = if member.id == self.0.identity.id {
                Ok(self.report())
            } else if all {
                super::status::ask(&self.0.link.peers, &member).await
            } else {
                Err("not asked".to_owned())
            };
            MemberStatus { member, voter, answer }
        });
        let members = futures::future::join_all(asked).await;
        ClusterView { leader, members, shut_out: self.shut_out() }
    }

    /// What this node says of itself.
    pub(crate) fn report(&self) -> MemberReport {
        let heads = self.0.applied.heads();
        let metrics = self.0.link.raft.metrics();
        let metrics = metrics.borrow_watched();
        MemberReport {
            role: self.role(&metrics),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: heads.position.map_or(0, |position| position.index),
            snapshot_index: metrics.snapshot.as_ref().map_or(0, |id| id.index),
            unsealed: self.0.unsealed.load(Ordering::Relaxed),
            state_digest: heads.state_digest(),
            record_count: heads.records,
            audit: heads.audit,
            log_bytes: self.0.link.wal.disk_bytes(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            divergence: self.0.divergence.lock().clone().unwrap_or_default(),
            disk_low: self.0.link.disk_low(),
        }
    }

    /// Greets a running node at its peer address, this one included.
    ///
    /// # Errors
    /// [`RaftError::Membership`] with the cause, if it can't be reached or is another node.
    pub async fn hello(&self, node: NodeId, peer_address: &str) -> Result<Hello, RaftError> {
        if node == self.0.identity.id {
            return Ok(self.own_hello());
        }
        self.0.link.peers.hello(node, peer_address).await
    }

    pub(crate) fn own_hello(&self) -> Hello {
        Hello {
            id: self.0.identity.id,
            incarnation: self.0.identity.incarnation,
            last_log: self.0.link.wal.last(),
        }
    }

    /// Why the other members want nothing of this node, if they said so just now: it was removed, or lost its data.
    pub fn shut_out(&self) -> Option<String> {
        self.0.link.peers.shut_out.why()
    }

    /// Numbers for the metrics.
    pub fn metrics(&self) -> NodeMetrics {
        let metrics = self.0.link.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = self.known_leader(&metrics);
        let wal = &self.0.link.wal;
        let applied = self.0.applied.index().unwrap_or(0);
        let durable =
            self.view().durable_position().ok().flatten().map_or(0, |position| position.index);
        NodeMetrics {
            term: metrics.current_term,
            leader: leader.map_or(0, NodeId::get),
            is_leader: leader == Some(self.0.identity.id),
            committed_index: metrics.local_committed.as_ref().map_or(0, |id| id.index),
            applied_index: applied,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            elections: self.0.elections.load(Ordering::Relaxed),
            wal_fsyncs: wal.fsyncs(),
            wal_written_bytes: wal.written_bytes(),
            wal_disk_bytes: wal.disk_bytes(),
            overlay_bytes: self.view().overlay_bytes(),
            view_lag_entries: applied.saturating_sub(durable),
            snapshot_age_ms: self.0.snapshots.current().map(|file| self.since(file.meta().time)),
            divergence: self.0.divergence.lock().is_some(),
            clock_ahead: self.0.link.time.own_ahead(),
            disk_low: self.0.link.disk_low(),
        }
    }

    /// Milliseconds since `time` by this machine's clock.
    fn since(&self, time: Timestamp) -> u64 {
        self.0.link.time.now().as_millis().saturating_sub(time.as_millis())
    }
}
