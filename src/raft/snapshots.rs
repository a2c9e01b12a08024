//! When snapshots are taken, and what is done about one that can't be taken or has rotted.
//!
//! They are built beside openraft, which takes a failed build for the end of the node: a disk that is full now is no
//! reason for a healthy node to die. A fault of the disk or of the view is one. A published file may rot, too: when a
//! receiver refuses it or it can't be read, it is verified, replaced by a new one, and dropped.

use std::error::Error;
use std::io;
use std::time::Duration;

use holdfast_proto::peer::v1::SnapshotTurn;
use tokio::time::Instant;

use super::node::Node;
use super::turn;
use crate::fs::Fs;
use crate::state::{Position, StoreError};
use crate::storage::snapshot::{SnapshotError, SnapshotFile};
use crate::storage::view::ViewError;

/// How often the size of the log is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often the published snapshot is read and checked, besides at the start: rot would else show only when the snapshot is
/// needed, and then this node may have nothing else to begin from.
const SCRUB: Duration = Duration::from_secs(3600);
/// How many times what makes a snapshot due the log may grow while others take theirs. Then it is taken all the same.
const PATIENCE: u64 = 2;
/// How long to wait after a failure before the next try.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// Takes snapshots when the log has grown to the size of the last one, and looks at those that others refuse; ends
/// with the node.
pub(crate) async fn watch<F: Fs>(node: Node<F>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut growth = Growth::default();
    let mut not_before = Instant::now();
    let mut scrub_at = Instant::now();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = node.0.link.peers.snapshot_refused() => {
                if !replace_if_damaged(&node).await {
                    not_before = Instant::now() + AFTER_FAILURE;
                }
            }
        }
        if node.ending() {
            return;
        }
        if Instant::now() >= scrub_at {
            let pause = if replace_if_damaged(&node).await { SCRUB } else { AFTER_FAILURE };
            scrub_at = Instant::now() + pause;
        }
        let snapshot = node.0.snapshots.current().map(|file| (file.meta().last, file.bytes()));
        let last_bytes = snapshot.map_or(0, |(_, bytes)| bytes);
        let grown = growth.since(snapshot.and_then(|(at, _)| at), node.0.link.wal.disk_bytes());
        let least = last_bytes.max(node.0.options.sizes.snapshot_floor_bytes);
        if grown <= least || Instant::now() < not_before {
            node.0.link.turn.set(SnapshotTurn::Unspecified);
            continue;
        }
        // The state has grown by no more than the log has; the file is made beside the one that it replaces.
        let room = has_room(&node, last_bytes.saturating_add(grown));
        let overdue = grown / PATIENCE > least;
        if room && !overdue && !turn::has_come(&node).await {
            continue;
        }
        if !(room && take(&node).await) {
            not_before = Instant::now() + AFTER_FAILURE;
        }
    }
}

/// Whether there is room on the disk for a snapshot of `needed` bytes.
fn has_room<F: Fs>(node: &Node<F>, needed: u64) -> bool {
    let room = node.0.snapshots.free_bytes().map(|free| free > needed && !node.0.link.disk_low());
    match room {
        Ok(true) => return true,
        Ok(false) => tracing::warn!(needed, "no snapshot is taken: the disk has too little room"),
        Err(error) => tracing::warn!(%error, "the free space can't be asked for"),
    }
    false
}

/// Takes a snapshot, which the others are told meanwhile, and tells openraft of it. False if there is none.
async fn take<F: Fs>(node: &Node<F>) -> bool {
    node.0.link.turn.set(SnapshotTurn::Taking);
    let taken = build(node).await;
    node.0.link.turn.set(SnapshotTurn::Unspecified);
    taken
}

async fn build<F: Fs>(node: &Node<F>) -> bool {
    let started = Instant::now();
    let (view, snapshots) = (node.0.applied.view.clone(), node.0.snapshots.clone());
    let built = crate::turns::blocking(move || snapshots.build(&view)).await;
    match built {
        Ok(Ok(file)) => {
            let index = file.meta().last.map(|last| last.index);
            let seconds = started.elapsed().as_secs_f32();
            tracing::info!(index, bytes = file.bytes(), seconds, "snapshot taken");
        }
        Ok(Err(error)) => {
            if is_fault(&error) {
                node.fail(&chain(&error));
            } else {
                tracing::warn!(
                    error = chain(&error),
                    "no snapshot could be taken; tried again later"
                );
            }
            return false;
        }
        Err(error) => {
            tracing::error!(%error, "the building of a snapshot was cut off");
            return false;
        }
    }
    if let Err(error) = node.0.link.raft.trigger().snapshot().await {
        tracing::warn!(%error, "the consensus was not told of a snapshot");
    }
    true
}

/// Verifies the snapshot that this node offers, and replaces it by a new one if it is damaged. False if that failed.
async fn replace_if_damaged<F: Fs>(node: &Node<F>) -> bool {
    let Some(file) = node.0.snapshots.current() else { return true };
    let checked = {
        let file: SnapshotFile<F> = file.clone();
        crate::turns::blocking(move || file.verify_behind()).await
    };
    match checked {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::error!(error = chain(&error), "a published snapshot is damaged"),
        Err(error) => {
            tracing::error!(%error, "the check of a snapshot was cut off");
            return false;
        }
    }
    // First the new one: without any, openraft has nothing to send, and takes that for the end of the node.
    let replaced = take(node).await;
    if replaced {
        node.0.snapshots.discard(&file);
    }
    replaced
}

/// Whether a failed build says that the node can't be trusted any more. Want of room passes, and so does what an export is given
/// up for: a snapshot that came from the leader meanwhile, or more writes than it could keep apart.
fn is_fault(error: &SnapshotError) -> bool {
    // The view says want of room in its own words; every other cause of it is the operating system's.
    let passes = matches!(
        error,
        SnapshotError::TooLarge
            | SnapshotError::View(ViewError::Store(
                StoreError::NoRoom | StoreError::Abandoned(_) | StoreError::Closed
            ))
    );
    if passes {
        return false;
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return false;
        }
        cause = error.source();
    }
    true
}

fn chain(error: &SnapshotError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// How far the log has grown since the last snapshot.
#[derive(Default)]
struct Growth {
    /// The snapshot that growth is counted from; `None` before the first look.
    since: Option<Option<Position>>,
    smallest: u64,
}

impl Growth {
    /// The log's growth, given the newest snapshot's position and the log's present size. The log is at its smallest
    /// some time after a snapshot, when it has been purged. How small it was before the node started nobody knows: what
    /// it had grown to by then counts, or a node that is often started again would never take a snapshot.
    fn since(&mut self, snapshot: Option<Position>, bytes: u64) -> u64 {
        if self.since != Some(snapshot) {
            let smallest = if self.since.is_none() { 0 } else { bytes };
            *self = Self { since: Some(snapshot), smallest };
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

    #[test]
    fn what_the_log_had_grown_to_before_a_start_counts() {
        let at = Some(Position { term: 1, index: 5 });
        assert_eq!(Growth::default().since(at, 100), 100);
    }

    #[test]
    fn a_full_disk_passes_and_any_other_failure_of_a_build_is_a_fault() {
        let io = |kind: io::ErrorKind| SnapshotError::Io(io::Error::from(kind));
        assert!(!is_fault(&io(io::ErrorKind::StorageFull)));
        assert!(!is_fault(&io(io::ErrorKind::QuotaExceeded)));
        assert!(!is_fault(&SnapshotError::TooLarge));
        assert!(!is_fault(&StoreError::NoRoom.into()));
        // A snapshot of the leader replaced the view meanwhile.
        assert!(!is_fault(&StoreError::Abandoned("the view was replaced").into()));
        assert!(is_fault(&StoreError::Engine("it failed".into()).into()));
        assert!(is_fault(&io(io::ErrorKind::Other)));
        assert!(is_fault(&SnapshotError::Damaged { path: "x".into(), what: "changed" }));
    }
}
