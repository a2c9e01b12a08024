//! Openraft's state machine over ours: applies committed entries to the view and makes snapshots of it.
//!
//! Keeps I2: nothing is applied before the log holds it on this node's own disk.

use std::io;
use std::sync::Arc;

use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::compare::{self, Ring, StateAt};
use super::types::{
    Entry, LogId, Response, SnapshotMeta, StoredMembership, TypeConfig, log_id, position,
};
use super::wire::{decode_stored_membership, encode_stored_membership};
use crate::domain::{Actor, NodeId};
use crate::fs::Fs;
use crate::planted::{self, Plant};
use crate::state::{self, Heads, Machine};
use crate::storage::snapshot::{SnapshotFile, Snapshots};
use crate::storage::view::View;
use crate::storage::wal::Wal;

/// Most entries that are applied in one commit. Bounds the time that one step keeps a thread.
const APPLY_BATCH: usize = 256;

/// What readers of the applied state share with the task that applies.
pub(crate) struct AppliedState {
    /// The state itself.
    pub(crate) view: Arc<View>,
    heads: RwLock<Heads>,
    index: watch::Sender<Option<u64>>,
    /// Digests of earlier states, to be compared with other nodes'.
    ring: Mutex<Ring>,
}

impl AppliedState {
    pub(crate) fn new(view: Arc<View>, heads: Heads) -> Self {
        let index = watch::Sender::new(heads.position.map(|position| position.index));
        Self { view, heads: RwLock::new(heads), index, ring: Mutex::default() }
    }

    /// The facts of the state, all of one moment.
    pub(crate) fn heads(&self) -> Heads {
        self.heads.read().clone()
    }

    /// Whether a node was a member once and was removed.
    pub(crate) fn was_removed(&self, id: NodeId) -> bool {
        self.heads.read().removed.contains(&id)
    }

    /// Whether a node is on the deny-list. If that can't be read it counts as denied: the fault will be told elsewhere.
    pub(crate) fn is_denied(&self, id: NodeId) -> bool {
        if self.heads.read().denials == 0 {
            return false;
        }
        match state::query::denial_of(&*self.view, &Actor::Node(id), None) {
            Ok(denial) => denial.is_some(),
            Err(error) => {
                tracing::error!(%error, node = id.get(), "the deny-list can't be read");
                true
            }
        }
    }

    /// The last applied index.
    pub(crate) fn index(&self) -> Option<u64> {
        *self.index.borrow()
    }

    /// Tells when the applied index changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<u64>> {
        self.index.subscribe()
    }

    /// The state now and earlier, at some indexes, ascending.
    pub(crate) fn states(&self) -> Vec<StateAt> {
        let mut states: Vec<_> = self.ring.lock().states().collect();
        let heads = self.heads();
        let now = heads.position.map(|position| (position.index, heads.state_digest()));
        states.extend(now.filter(|now| states.last() != Some(now)));
        states
    }

    fn publish(&self, heads: &Heads) {
        let index = heads.position.map(|position| position.index);
        if let Some(index) = index.filter(|index| index.is_multiple_of(compare::EVERY)) {
            self.ring.lock().push((index, heads.state_digest()));
        }
        *self.heads.write() = heads.clone();
        self.index.send_replace(index);
    }
}

/// Applies entries, one batch after another.
pub(crate) struct StateMachine<F: Fs> {
    machine: Machine<View>,
    applied: Arc<AppliedState>,
    snapshots: Arc<Snapshots<F>>,
    durable: watch::Receiver<Option<u64>>,
    wal: Wal<F>,
}

impl<F: Fs> StateMachine<F> {
    pub(crate) fn open(
        view: Arc<View>,
        snapshots: Arc<Snapshots<F>>,
        wal: &Wal<F>,
    ) -> Result<(Self, Arc<AppliedState>), state::StoreError> {
        let machine = Machine::open(view.clone())?;
        let applied = Arc::new(AppliedState::new(view, machine.heads().clone()));
        let durable = wal.subscribe_durable();
        let wal = wal.clone();
        Ok((Self { machine, applied: applied.clone(), snapshots, durable, wal }, applied))
    }

    async fn apply_batch(&mut self, batch: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let Some((last, _)) = batch.last() else { return Ok(()) };
        let last = last.log_id.index;
        // I2: openraft may ask for entries that a majority holds and this node's disk does not yet.
        self.durable
            .wait_for(|durable| {
                durable.is_some_and(|durable| durable >= last) || planted::is(Plant::ApplyBeforeLog)
            })
            .await
            .map_err(|_| io::Error::other("the log has stopped"))?;
        self.make_room().await?;
        let mut responders = Vec::with_capacity(batch.len());
        let entries: Vec<_> = batch
            .into_iter()
            .map(|(entry, responder)| {
                let at = position(&entry.log_id);
                responders.push(responder);
                (at, state_entry(entry))
            })
            .collect();
        let mut outcomes = self.machine.apply(entries).map_err(io::Error::other)?.into_iter();
        self.applied.publish(self.machine.heads());
        for responder in responders {
            let outcome = outcomes.next();
            if let Some(responder) = responder {
                responder.send(Response(outcome));
            }
        }
        Ok(())
    }

    /// Waits, off the async threads, while too much is applied and not yet in the engine (I3).
    async fn make_room(&self) -> io::Result<()> {
        if self.applied.view.has_room() {
            return Ok(());
        }
        let view = self.applied.view.clone();
        crate::turns::blocking(move || view.wait_for_room())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }
}

/// A batch ends at the indexes whose digests are kept (I4), so that all nodes see the state there.
fn ends_batch(batch: &[EntryResponder<TypeConfig>]) -> bool {
    batch.last().is_some_and(|(entry, _)| entry.log_id.index.is_multiple_of(compare::EVERY))
}

fn state_entry(entry: Entry) -> state::Entry {
    match entry.payload {
        EntryPayload::Blank => state::Entry::Blank,
        EntryPayload::Normal(command) => state::Entry::Command(command.0),
        EntryPayload::Membership(membership) => {
            let members = membership.nodes().map(|(id, _)| NodeId::new(*id)).collect();
            let stored = StoredMembership::new(Some(entry.log_id), membership);
            state::Entry::Membership { bytes: encode_stored_membership(&stored), members }
        }
    }
}

fn raft_meta(last: Option<state::Position>, membership: &[u8]) -> io::Result<SnapshotMeta> {
    let last_membership = decode_stored_membership(membership).map_err(io::Error::other)?;
    Ok(SnapshotMeta { last_log_id: last.map(log_id), last_membership })
}

impl<F: Fs> RaftStateMachine<TypeConfig> for StateMachine<F> {
    type SnapshotData = SnapshotFile<F>;
    type SnapshotBuilder = SnapshotBuilder<F>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let heads = self.machine.heads();
        let membership = decode_stored_membership(&heads.membership).map_err(io::Error::other)?;
        Ok((heads.position.map(log_id), membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.try_next().await? {
            let mut batch = vec![first];
            while batch.len() < APPLY_BATCH && !ends_batch(&batch) {
                match entries.next().now_or_never().flatten() {
                    Some(entry) => batch.push(entry?),
                    None => break,
                }
            }
            self.apply_batch(batch).await?;
        }
        Ok(())
    }

    /// Openraft takes a failed build for the end of the node. So snapshots are built beside it (`snapshots.rs`), and it
    /// is only handed what is there already, or told that there is nothing. It must have one when it starts with a log
    /// that was purged and no snapshot.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder<F>> {
        match self.snapshots.current() {
            Some(file) if !force => Some(SnapshotBuilder::Ready(file)),
            None if !force => None,
            _ => Some(self.get_snapshot_builder().await),
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<F> {
        SnapshotBuilder::Build(self.applied.view.clone(), self.snapshots.clone())
    }

    /// The file was read back and checked in full when it had come (`peer.rs`): one that is damaged on the way is refused there,
    /// and the sender looks at its own and sends another. What fails here is this node's disk or view, and openraft does
    /// the right thing with that: the node stops. The old view stays until the new one is whole.
    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotFile<F>,
    ) -> Result<(), io::Error> {
        let (view, snapshots) = (self.applied.view.clone(), self.snapshots.clone());
        let bytes = snapshot.bytes();
        crate::turns::blocking(move || snapshots.install(&snapshot, &view))
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        self.machine = Machine::open(self.applied.view.clone()).map_err(io::Error::other)?;
        self.applied.publish(self.machine.heads());
        let index = self.applied.index().unwrap_or(0);
        tracing::info!(index, bytes, "snapshot installed");
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotFile<F>>>, io::Error> {
        if let Some(file) = self.snapshots.current() {
            let meta = raft_meta(file.meta().last, &file.meta().membership)?;
            return Ok(Some(openraft::storage::Snapshot { meta, snapshot: file }));
        }
        // All that there were are damaged. What was purged from the log can reach a member by a snapshot only.
        if self.wal.purged().is_none() {
            return Ok(None);
        }
        tracing::warn!("there is no whole snapshot any more; a new one is taken");
        self.get_snapshot_builder().await.build_snapshot().await.map(Some)
    }
}

/// Gives openraft a snapshot.
pub(crate) enum SnapshotBuilder<F: Fs> {
    /// One that is published.
    Ready(SnapshotFile<F>),
    /// One that is made while writes go on.
    Build(Arc<View>, Arc<Snapshots<F>>),
}

impl<F: Fs> RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder<F> {
    type SnapshotData = SnapshotFile<F>;

    async fn build_snapshot(
        &mut self,
    ) -> Result<SnapshotOf<TypeConfig, SnapshotFile<F>>, io::Error> {
        let file = match self {
            Self::Ready(file) => file.clone(),
            Self::Build(view, snapshots) => {
                let (view, snapshots) = (view.clone(), snapshots.clone());
                crate::turns::blocking(move || snapshots.build(&view))
                    .await
                    .map_err(io::Error::other)?
                    .map_err(io::Error::other)?
            }
        };
        let meta = raft_meta(file.meta().last, &file.meta().membership)?;
        Ok(openraft::storage::Snapshot { meta, snapshot: file })
    }
}
