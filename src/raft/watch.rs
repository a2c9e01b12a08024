//! What a node watches over by itself: failures that must stop it, elections, the size of the log, room on the disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;

use super::membership::Change;
use super::node::Node;
use crate::fs::Fs;
use crate::state::Position;
use crate::storage::wal::Space;

/// How often sizes and room are looked at.
const LOOK: Duration = Duration::from_secs(1);

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

/// Takes snapshots when the log has grown to the size of the last one, gives leadership away when the disk is full, and
/// notices a log that can't be written any more.
async fn watch_sizes<F: Fs>(node: Node<F>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut growth = Growth::default();
    loop {
        tick.tick().await;
        if node.0.failed.borrow().is_some() || node.0.draining.load(Ordering::Relaxed) {
            return;
        }
        if let Some(error) = node.0.link.wal.failure() {
            fail(&node, &error.to_string());
            return;
        }
        let snapshot = node.0.snapshots.current().map(|file| (file.meta().last, file.bytes()));
        let last_bytes = snapshot.map_or(0, |(_, bytes)| bytes);
        let grown = growth.since(snapshot.and_then(|(at, _)| at), node.0.link.wal.disk_bytes());
        if grown > last_bytes.max(node.0.options.sizes.snapshot_floor_bytes)
            && let Err(error) = node.0.link.raft.trigger().snapshot().await
        {
            tracing::warn!(%error, "no snapshot could be started");
        }
        let leads = node.0.link.leader().is_some_and(|leader| leader.id == node.0.identity.id);
        if leads && node.0.link.wal.space() == Space::Low {
            tracing::warn!("the disk is nearly full; leadership is handed on");
            if let Err(error) = node.0.link.change_here(Change::Transfer(None)).await {
                tracing::warn!(%error, "leadership could not be handed on");
            }
        }
    }
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
