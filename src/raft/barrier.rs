//! Linearizable reads from any node: many readers share one ReadIndex round.
//!
//! A reader is served by a round that begins after it asked, so the round's index covers every write that was
//! acknowledged before. Leases are never used: they trust clocks (and restart at zero after a reboot).

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::api::RaftError;
use crate::state::Position;

/// Readers that may wait for a round.
const QUEUE: usize = 4096;

type Waiter = oneshot::Sender<Result<Position, RaftError>>;

/// Gathers readers into rounds.
#[derive(Clone)]
pub(crate) struct Barrier {
    queue: mpsc::Sender<Waiter>,
}

impl Barrier {
    /// `round` asks the leader, itself or over the network, for an index that covers all acknowledged writes.
    pub(crate) fn start<R, Fut>(round: R) -> Self
    where
        R: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Position, RaftError>> + Send,
    {
        let (queue, mut receiver) = mpsc::channel::<Waiter>(QUEUE);
        let round = Arc::new(round);
        tokio::spawn(async move {
            let mut waiters = Vec::new();
            while receiver.recv_many(&mut waiters, QUEUE).await > 0 {
                let result = round().await;
                for waiter in waiters.drain(..) {
                    // A reader that gave up needs no answer.
                    drop(waiter.send(result.clone()));
                }
            }
        });
        Self { queue }
    }

    /// An index that covers every write acknowledged before the call.
    pub(crate) async fn read_index(&self) -> Result<Position, RaftError> {
        let (sender, receiver) = oneshot::channel();
        let stopped = || RaftError::Stopped("no read index is given any more".into());
        self.queue.send(sender).await.map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn readers_that_wait_together_share_a_round_that_began_after_they_asked() {
        let rounds = Arc::new(AtomicU64::new(0));
        let (gate, opened) = tokio::sync::watch::channel(false);
        let counted = rounds.clone();
        let barrier = Barrier::start(move || {
            let (counted, mut opened) = (counted.clone(), opened.clone());
            async move {
                let index = counted.fetch_add(1, Ordering::SeqCst) + 1;
                opened.wait_for(|open| *open).await.map_err(|_| RaftError::NoLeader)?;
                Ok(Position { term: 1, index })
            }
        });
        let first = tokio::spawn({
            let b = barrier.clone();
            async move { b.read_index().await }
        });
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // These ask while the first round is under way: it must not serve them.
        let mut later = Vec::new();
        for _ in 0..10 {
            let b = barrier.clone();
            later.push(tokio::spawn(async move { b.read_index().await }));
        }
        while barrier.queue.capacity() > QUEUE - 10 {
            tokio::task::yield_now().await;
        }
        gate.send_replace(true);
        assert_eq!(first.await.unwrap().unwrap().index, 1);
        for reader in later {
            assert_eq!(reader.await.unwrap().unwrap().index, 2);
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
    }
}
