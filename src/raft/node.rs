//! A running node: opens its data directory, takes part in the consensus, and answers the layers above.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Config, Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::api::{NodeOptions, RaftError, RaftTimes, Refusal, StorageSizes};
use super::barrier::Barrier;
use super::contact;
use super::dial::{Dial, TlsDial};
use super::link::LeaderLink;
use super::log_store::LogStore;
use super::machine::{AppliedState, StateMachine};
use super::network::Network;
use super::peers::{Identity, Peers};
use super::time::TimeGuard;
use crate::clock::SharedClock;
use crate::domain::NodeId;
use crate::fs::{Fs, StdFs};
use crate::state::{Applied, Command, codec};
use crate::storage::layout::{DataDir, ExpectedIdentity, LayoutError};
use crate::storage::recovery;
use crate::storage::snapshot::{SnapshotError, Snapshots};
use crate::storage::view::{View, ViewOptions};
use crate::storage::wal::{Wal, WalError, WalOptions};

/// Most entries in one replication request.
const PAYLOAD_ENTRIES: u64 = 512;

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is not usable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The log is not usable.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The snapshots are not usable.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The view can be neither opened nor rebuilt.
    #[error(transparent)]
    Recovery(#[from] recovery::RecoveryError),
    /// The state can't be read.
    #[error(transparent)]
    State(#[from] crate::state::StoreError),
    /// The certificates for the peer port are not usable.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// I7: the node was a member and its log is gone.
    #[error(
        "node {0} was a member of the cluster, but its log is gone. It must not come back under this id: \
         it may have acknowledged entries that it no longer has. Remove it from the cluster, and add it again with an \
         empty data directory under a new id (docs/operations.md, \"Replace a node\")"
    )]
    LogLost(NodeId),
    /// Raft's times contradict each other.
    #[error("raft: {0}")]
    Times(String),
    /// Openraft did not start.
    #[error("the consensus did not start: {0}")]
    Raft(String),
}

pub(crate) struct Inner<F: Fs> {
    pub(crate) identity: Identity,
    pub(crate) options: NodeOptions,
    pub(crate) link: Arc<LeaderLink<F>>,
    pub(crate) snapshots: Arc<Snapshots<F>>,
    pub(crate) applied: Arc<AppliedState>,
    /// Held for its lock.
    _data_dir: DataDir<F>,
    pub(crate) failed: watch::Sender<Option<String>>,
    pub(crate) elections: AtomicU64,
    pub(crate) draining: AtomicBool,
    pub(crate) divergence: Mutex<Option<String>>,
    /// Why the leader is being looked after, counted; see `lost_leader.rs`.
    pub(crate) suspicions: AtomicU32,
    pub(crate) started: Instant,
    /// When a leader last had proof of a quorum, in milliseconds since the start; 0 for never.
    pub(crate) heard_ms: AtomicU64,
    barrier: Barrier,
    pub(crate) unsealed: AtomicBool,
}

/// A node of the cluster. Cheap to clone.
pub struct Node<F: Fs = StdFs>(pub(crate) Arc<Inner<F>>);

impl<F: Fs> Clone for Node<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A size in memory; no machine has more than it can address.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn storage_options(
    sizes: &StorageSizes,
    joined: bool,
    simulated: bool,
) -> (WalOptions, ViewOptions) {
    let wal = WalOptions {
        segment_bytes: sizes.wal_segment_bytes,
        cache_bytes: in_memory(sizes.wal_cache_bytes),
        // I7: whoever has taken part has a log.
        must_exist: joined,
        inline: simulated,
    };
    let view = ViewOptions {
        overlay_bytes: in_memory(sizes.overlay_bytes),
        overlay_age: sizes.overlay_age,
        cache_bytes: sizes.view_cache_bytes,
        ..ViewOptions::default()
    };
    (wal, view)
}

fn peers(
    identity: Identity,
    options: &NodeOptions,
    simulated: Option<Arc<dyn Dial>>,
) -> Result<Arc<Peers>, StartError> {
    let dial = match simulated {
        None => Arc::new(TlsDial::new(identity, &options.tls)?),
        Some(dial) => dial,
    };
    Ok(Arc::new(Peers::new(identity, dial)))
}

fn raft_config(times: &RaftTimes, sizes: &StorageSizes) -> Result<Arc<Config>, StartError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "holdfast".into(),
        heartbeat_interval: ms(times.heartbeat),
        election_timeout_min: ms(times.election_min),
        election_timeout_max: ms(times.election_max),
        install_snapshot_timeout: ms(times.snapshot_chunk),
        max_payload_entries: PAYLOAD_ENTRIES,
        // Snapshots are taken by size of the log, see `watch.rs`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: sizes.wal_keep_entries,
        enable_pre_vote: Some(true),
        // A leader sends entries on before its own disk has them. Killed and started again, it may lack what a follower
        // holds; leading on in the same term it would give the same log id to another entry, which nobody can detect. So
        // whoever comes back stands for election like everybody else.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| StartError::Times(error.to_string()))
}

impl<F: Fs> Node<F> {
    /// Opens the data directory and starts to take part. A node with an empty directory waits to be made part of a
    /// cluster.
    ///
    /// # Errors
    /// If the data directory, the log, the snapshots or the certificates are not usable. Nothing is repaired silently.
    pub async fn start(
        fs: F,
        options: NodeOptions,
        clock: SharedClock,
    ) -> Result<Self, StartError> {
        Self::start_with(fs, options, clock, None).await
    }

    /// The same within a simulation: the node reaches the others as `dial` does. Its log is written in turn, and its view is
    /// in memory, so that each start rebuilds it from snapshot and log.
    ///
    /// # Errors
    /// As [`Node::start`]; and on a thread that is no simulation's ([`crate::turns`]).
    pub async fn start_simulated(
        fs: F,
        options: NodeOptions,
        clock: SharedClock,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, StartError> {
        if !crate::turns::simulated() {
            return Err(StartError::Raft("this is no simulation".to_owned()));
        }
        Self::start_with(fs, options, clock, Some(dial)).await
    }

    async fn start_with(
        fs: F,
        options: NodeOptions,
        clock: SharedClock,
        simulated: Option<Arc<dyn Dial>>,
    ) -> Result<Self, StartError> {
        let expected = ExpectedIdentity { cluster: options.cluster, node: options.id };
        let data_dir = DataDir::open_or_create(fs.clone(), &options.data_dir, expected)?;
        let incarnation = data_dir.identity().incarnation;
        let identity = Identity { cluster: options.cluster, id: options.id, incarnation };
        let joined = data_dir.joined().is_noted()?;
        let (wal_options, view_options) =
            storage_options(&options.sizes, joined, simulated.is_some());
        let wal = match Wal::open(fs.clone(), &data_dir.wal(), wal_options) {
            Err(WalError::Gone { .. }) => return Err(StartError::LogLost(options.id)),
            opened => opened?,
        };
        if wal.vote().is_some() || wal.last().is_some() {
            data_dir.joined().note()?;
        }
        let snapshots = Arc::new(Snapshots::open(fs.clone(), &data_dir.snapshots())?);
        let bounds = recovery::LogBounds {
            purged: wal.purged(),
            last: wal.last(),
            committed: wal.committed(),
        };
        let view = match &simulated {
            None => recovery::open_view(&data_dir.view(), view_options, bounds, &snapshots),
            Some(_) => recovery::open_view_in_memory(view_options, bounds, &snapshots),
        };
        let view = Arc::new(view?);
        let (machine, applied) = StateMachine::open(view, snapshots.clone(), &wal)?;
        let peers = peers(identity, &options, simulated)?;
        let network = Network::<F>::new(peers.clone());
        let config = raft_config(&options.times, &options.sizes)?;
        let log = LogStore::new(wal.clone(), data_dir.joined());
        let raft = Raft::new(options.id.get(), config, network, log, machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        peers.tell_quorum_age(Box::new({
            let metrics = raft.metrics();
            move || contact::quorum_age(&metrics.borrow_watched())
        }));
        peers.tell_denied(applied.clone());
        let time = TimeGuard::new(clock);
        let link = Arc::new(LeaderLink::new(raft, peers, wal, applied.clone(), time));
        let barrier = Barrier::start({
            let link = link.clone();
            move || {
                let link = link.clone();
                async move { link.read_index().await }
            }
        });
        let node = Self(Arc::new(Inner {
            identity,
            options,
            link,
            snapshots,
            applied,
            _data_dir: data_dir,
            failed: watch::Sender::new(None),
            elections: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            divergence: Mutex::default(),
            suspicions: AtomicU32::new(0),
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            barrier,
            unsealed: AtomicBool::new(false),
        }));
        super::watch::start(&node);
        Ok(node)
    }

    /// Who this node is towards the others.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Turns to the reason when the node has failed for good; the process must stop then.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.0.failed.subscribe()
    }

    /// Takes another certificate and CA towards the other nodes.
    pub fn renew(&self, authority: crate::crypto::Authority, certificate: crate::tls::Identity) {
        self.0.link.peers.renew(authority, certificate);
    }

    /// Proposes a command on any node, forwarding it to the leader at most once a try, and answers when it is committed
    /// and applied where it was proposed. Does not wait for the local apply.
    ///
    /// # Errors
    /// [`RaftError::OutcomeUnknown`] if it may still commit; any other error if nothing was proposed.
    pub async fn propose(&self, command: Command) -> Result<Applied, RaftError> {
        self.check_running()?;
        self.check_room()?;
        #[cfg(feature = "planted")]
        if let Some(applied) = super::foretold::answer(self, &command).await {
            return Ok(applied);
        }
        self.0.link.propose(codec::encode_command(&command)).await
    }

    pub(crate) fn check_running(&self) -> Result<(), RaftError> {
        if let Some(why) = self.0.failed.borrow().as_ref() {
            return Err(RaftError::Stopped(why.clone()));
        }
        if self.0.draining.load(Ordering::Relaxed) {
            Err(RaftError::Refused(Refusal::Draining))
        } else if self.0.applied.was_removed(self.0.identity.id) {
            Err(RaftError::Refused(Refusal::NotMember))
        } else {
            Ok(())
        }
    }

    /// A node that takes no entries can't follow either, so whoever asks it is better served by another one.
    fn check_room(&self) -> Result<(), RaftError> {
        if self.0.link.disk_low() { Err(RaftError::Refused(Refusal::DiskLow)) } else { Ok(()) }
    }

    /// Waits until the local state has applied `index`.
    ///
    /// # Errors
    /// [`RaftError::NoLeader`] if that takes longer than `deadline`.
    pub async fn wait_applied(&self, index: u64, deadline: Duration) -> Result<(), RaftError> {
        let mut applied = self.0.applied.subscribe();
        let reached = applied.wait_for(|applied| applied.is_some_and(|applied| applied >= index));
        match tokio::time::timeout(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(RaftError::Stopped("nothing is applied any more".into())),
            Err(_) => Err(RaftError::NoLeader),
        }
    }

    /// Makes the next local read linearizable (ReadIndex); returns the local applied index.
    ///
    /// # Errors
    /// If no quorum answers.
    pub async fn read_barrier(&self) -> Result<u64, RaftError> {
        let read = self.0.barrier.read_index().await?;
        if self.0.applied.index() < Some(read.index) {
            self.check_room()?;
        }
        self.wait_applied(read.index, super::link::READ_DEADLINE).await?;
        Ok(self.0.applied.index().unwrap_or(0))
    }

    /// The applied state.
    pub fn view(&self) -> &View {
        &self.0.applied.view
    }

    /// Whether the node is, or was, a member of a cluster.
    pub fn initialized(&self) -> bool {
        self.0.link.initialized()
    }

    /// Tells the other members, in status reports, whether this node can open keys.
    pub fn set_unsealed(&self, unsealed: bool) {
        self.0.unsealed.store(unsealed, Ordering::Relaxed);
    }
}
