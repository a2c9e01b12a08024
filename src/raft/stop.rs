//! How a node stops in order: leadership is handed on first, then what is applied is brought to disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use super::membership::Change;
use super::node::Node;
use crate::fs::Fs;

/// How long a node that stops and has given leadership away waits to see who takes it.
const ELECTION_MOMENT: Duration = Duration::from_millis(300);

impl<F: Fs> Node<F> {
    /// Hands leadership on if the node leads, and takes no proposals any more.
    pub async fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        let leads = self.0.link.leader().is_some_and(|leader| leader.id == self.0.identity.id);
        if !leads {
            return;
        }
        tokio::select! {
            biased;
            handed = self.0.link.change_here(Change::Transfer(None)) => {
                if let Err(error) = handed {
                    tracing::warn!(%error, "leadership could not be handed on");
                }
            }
            () = self.led_no_more() => {}
        }
    }

    /// Returns a moment after this node stopped to lead: somebody stands by then, and it is for the others to elect.
    async fn led_no_more(&self) {
        let mut news = self.0.link.raft.server_metrics();
        while news.borrow_and_update().state.is_leader() {
            if news.changed().await.is_err() {
                return;
            }
        }
        tokio::time::sleep(ELECTION_MOMENT).await;
    }

    /// Stops taking part, and brings what is applied to disk, so that the next start is quick.
    pub async fn shutdown(&self) {
        if let Err(error) = self.0.link.raft.shutdown().await {
            tracing::error!(%error, "the consensus did not stop in order");
        }
        let (view, wal) = (self.0.applied.view.clone(), self.0.link.wal.clone());
        let closed = crate::turns::blocking(move || {
            let closed = view.close_clean();
            wal.close();
            closed
        })
        .await;
        match closed {
            Ok(Ok(())) => tracing::info!("the data directory is closed"),
            Ok(Err(error)) => {
                tracing::error!(%error, "the view could not be closed; it will be checked at the next start")
            }
            Err(error) => tracing::error!(%error, "the data directory could not be closed"),
        }
    }
}
