//! What a node watches over by itself: failures that must stop it, elections, the size of the log, room on the disk.

use std::error::Error as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::api::MemberStatus;
use super::membership::Change;
use super::node::Node;
use crate::domain::NodeId;
use crate::fs::Fs;
use crate::state::Position;

/// How often sizes and room are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a snapshot that failed the next one is tried.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(30);

/// Starts the watchers; they end with the node.
pub(crate) fn start<F: Fs>(node: &Node<F>) {
    tokio::spawn(watch_raft(node.clone()));
    tokio::spawn(watch_sizes(node.clone()));
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
            fail(&node, &failure);
            return;
        }
        if metrics.changed().await.is_err() {
            if !node.0.draining.load(Ordering::Relaxed) {
                fail(&node, "the consensus has ended");
            }
            return;
        }
    }
}

fn fail<F: Fs>(node: &Node<F>, why: &str) {
    let storage = node.0.link.wal.failure().map(|error| error.to_string());
    node.0.failed.send_if_modified(|failed| {
        let first = failed.is_none();
        failed.get_or_insert_with(|| storage.unwrap_or_else(|| why.to_owned()));
        first
    });
}

/// What is under way or was said already.
#[derive(Default)]
struct Watched {
    growth: Growth,
    snapshot: Option<JoinHandle<bool>>,
    not_before: Option<Instant>,
    stays: bool,
}

/// Takes snapshots when the log has grown to the size of the last one, gives leadership away when the disk is full, and
/// notices a log that can't be written any more.
async fn watch_sizes<F: Fs>(node: Node<F>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watched = Watched::default();
    loop {
        tick.tick().await;
        if node.0.failed.borrow().is_some() || node.0.draining.load(Ordering::Relaxed) {
            return;
        }
        if let Some(error) = node.0.link.wal.failure() {
            fail(&node, &error.to_string());
            return;
        }
        watched.snapshot(&node).await;
        watched.leadership(&node).await;
    }
}

impl Watched {
    /// Takes a snapshot, beside everything else, when it is time and there is room.
    async fn snapshot<F: Fs>(&mut self, node: &Node<F>) {
        if let Some(running) = self.snapshot.take() {
            if !running.is_finished() {
                self.snapshot = Some(running);
                return;
            }
            if !matches!(running.await, Ok(true)) {
                self.not_before = Instant::now().checked_add(SNAPSHOT_PAUSE);
            }
        }
        let current = node.0.snapshots.current().map(|file| (file.meta().last, file.bytes()));
        let last_bytes = current.map_or(0, |(_, bytes)| bytes);
        let log_bytes = node.0.link.wal.disk_bytes();
        let grown = self.growth.since(current.and_then(|(at, _)| at), log_bytes);
        let due = grown > last_bytes.max(node.0.options.sizes.snapshot_floor_bytes);
        if !due || self.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        // The state has grown by no more than the log has; the file is made beside the one that it replaces.
        let needed = last_bytes.saturating_add(grown);
        match node.0.snapshots.free_bytes() {
            Ok(free) if free > needed && !node.0.link.disk_low() => {
                self.snapshot = Some(tokio::spawn(take_snapshot(node.clone())));
            }
            Ok(free) => {
                self.not_before = Instant::now().checked_add(SNAPSHOT_PAUSE);
                tracing::warn!(free, needed, "no snapshot is taken: the disk has too little room");
            }
            Err(error) => tracing::warn!(%error, "the free space can't be asked for"),
        }
    }

    /// I9: a leader whose disk is full hands over to a voter with room, if there is one.
    async fn leadership<F: Fs>(&mut self, node: &Node<F>) {
        let own = node.0.identity.id;
        let leads = node.0.link.leader().is_some_and(|leader| leader.id == own);
        if !leads || !node.0.link.disk_low() {
            self.stays = false;
            return;
        }
        let Some(to) = with_room(&node.statuses(true).await.members, own) else {
            if !std::mem::replace(&mut self.stays, true) {
                tracing::warn!(
                    "the disk is nearly full, and no other voter has room: writes are refused"
                );
            }
            return;
        };
        tracing::warn!(to = to.get(), "the disk is nearly full; leadership is handed on");
        if let Err(error) = node.0.link.change_here(Change::Transfer(Some(to))).await {
            tracing::warn!(%error, "leadership could not be handed on");
        }
    }
}

/// The voter other than `own` that has room on its disk and is furthest ahead.
fn with_room(members: &[MemberStatus], own: NodeId) -> Option<NodeId> {
    let voters = members.iter().filter(|status| status.voter && status.member.id != own);
    let reports =
        voters.filter_map(|status| Some((status.member.id, status.answer.as_ref().ok()?)));
    let fit = reports.filter(|(_, report)| !report.disk_low);
    fit.max_by_key(|(_, report)| report.last_log_index).map(|(id, _)| id)
}

/// Takes a snapshot and tells the consensus of it; says whether there is one. Its failure, on a full disk for one, is no
/// reason to stop: the older ones and the log stay.
async fn take_snapshot<F: Fs>(node: Node<F>) -> bool {
    let (snapshots, view) = (node.0.snapshots.clone(), node.0.applied.view.clone());
    let file = match tokio::task::spawn_blocking(move || snapshots.build(&view)).await {
        Ok(Ok(file)) => file,
        Ok(Err(error)) => {
            let why = error
                .source()
                .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            tracing::error!(why, "no snapshot could be taken; it is tried again later");
            return false;
        }
        Err(error) => {
            tracing::error!(%error, "no snapshot could be taken");
            return false;
        }
    };
    let index = file.meta().last.map(|last| last.index);
    tracing::info!(index, bytes = file.bytes(), "snapshot taken");
    if let Err(error) = node.0.link.raft.trigger().snapshot().await {
        tracing::warn!(%error, "the snapshot could not be handed to the consensus");
    }
    true
}

/// How far the log has grown since the last snapshot.
#[derive(Default)]
struct Growth {
    snapshot: Option<Position>,
    smallest: u64,
}

impl Growth {
    /// The log's growth, given the newest snapshot's position and the log's present size. The log is at its smallest
    /// some time after a snapshot, when it has been purged.
    fn since(&mut self, snapshot: Option<Position>, bytes: u64) -> u64 {
        if self.snapshot != snapshot {
            *self = Self { snapshot, smallest: bytes };
        }
        self.smallest = self.smallest.min(bytes);
        bytes - self.smallest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_counted_from_the_smallest_size_since_the_last_snapshot() {
        let mut growth = Growth::default();
        let at = |index| Some(Position { term: 1, index });
        assert_eq!(growth.since(None, 100), 100);
        assert_eq!(growth.since(at(5), 150), 0);
        assert_eq!(growth.since(at(5), 40), 0);
        assert_eq!(growth.since(at(5), 90), 50);
        assert_eq!(growth.since(at(9), 90), 0);
    }
}
