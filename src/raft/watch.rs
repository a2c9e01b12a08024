//! What a node watches over by itself: failures that must stop it, elections, room on the disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;

use super::api::MemberStatus;
use super::membership::Change;
use super::node::Node;
use crate::domain::NodeId;
use crate::fs::Fs;

/// How often the log and the room are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Starts the watchers; they end with the node.
pub(crate) fn start<F: Fs>(node: &Node<F>) {
    tokio::spawn(watch_raft(node.clone()));
    tokio::spawn(watch_room(node.clone()));
    tokio::spawn(super::snapshots::watch(node.clone()));
    tokio::spawn(super::compare::watch(node.clone()));
    tokio::spawn(super::tell::watch(node.clone()));
    tokio::spawn(super::undelivered::watch(node.clone()));
}

/// Counts elections, and turns a failure of the consensus into the end of the node.
async fn watch_raft<F: Fs>(node: Node<F>) {
    let mut metrics = node.0.link.raft.metrics();
    let mut stood_in = 0;
    loop {
        let (state, term, failure) = {
            let now = metrics.borrow_and_update();
            (now.state, now.current_term, now.running_state.as_ref().err().map(ToString::to_string))
        };
        if state == ServerState::Candidate && term != stood_in {
            stood_in = term;
            node.0.elections.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(failure) = failure.filter(|_| !node.0.draining.load(Ordering::Relaxed)) {
            node.fail(&failure);
            return;
        }
        if metrics.changed().await.is_err() {
            if !node.0.draining.load(Ordering::Relaxed) {
                node.fail("the consensus has ended");
            }
            return;
        }
    }
}

impl<F: Fs> Node<F> {
    /// The node can't go on; the first reason counts, and that of the log before all.
    pub(crate) fn fail(&self, why: &str) {
        let storage = self.0.link.wal.failure().map(|error| error.to_string());
        self.0.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| storage.unwrap_or_else(|| why.to_owned()));
            first
        });
    }

    /// Whether the node has failed or is shutting down.
    pub(crate) fn ending(&self) -> bool {
        self.0.failed.borrow().is_some() || self.0.draining.load(Ordering::Relaxed)
    }
}

/// Gives leadership away when the disk is full or the clock is far ahead, and notices a log that can't be written any
/// more.
async fn watch_room<F: Fs>(node: Node<F>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stays = false;
    loop {
        tick.tick().await;
        if node.ending() {
            return;
        }
        if let Some(error) = node.0.link.wal.failure() {
            node.fail(&error.to_string());
            return;
        }
        let leads = node.0.link.leader().is_some_and(|leader| leader.id == node.0.identity.id);
        let full = node.0.link.disk_low();
        stays =
            leads && (full || node.0.link.time.own_ahead()) && !give_way(&node, full, stays).await;
    }
}

/// Hands leadership to a voter with room, if there is one (I9). False if this node has to stay; `said` if it said so before.
async fn give_way<F: Fs>(node: &Node<F>, full: bool, said: bool) -> bool {
    let Some(to) = with_room(&node.statuses(true).await.members, node.0.identity.id) else {
        if !said {
            tracing::warn!(
                full,
                "this node can't take writes, and no other voter has room: writes are refused"
            );
        }
        return false;
    };
    tracing::warn!(full, to = to.get(), "this node can't take writes; leadership is handed on");
    if let Err(error) = node.0.link.change_here(Change::Transfer(Some(to))).await {
        tracing::warn!(%error, "leadership could not be handed on");
    }
    true
}

/// The voter other than `own` that has room on its disk and is furthest ahead.
fn with_room(members: &[MemberStatus], own: NodeId) -> Option<NodeId> {
    let voters = members.iter().filter(|status| status.voter && status.member.id != own);
    let reports =
        voters.filter_map(|status| Some((status.member.id, status.answer.as_ref().ok()?)));
    let fit = reports.filter(|(_, report)| !report.disk_low);
    fit.max_by_key(|(_, report)| report.last_log_index).map(|(id, _)| id)
}
