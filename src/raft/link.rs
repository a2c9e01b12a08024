//! The way from this node to whoever leads: local if it is this one, one hop over the network if not.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::peer::v1 as pb;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError as OpenraftError};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{OptionalSend, OptionalSync, Raft, ReadPolicy};
use tokio::time::Instant;

use super::api::{Member, RaftError, Refusal};
use super::forward::{ForwardFailure, Forwarder, refusal_to_wire};
use super::machine::{AppliedState, StateMachine};
use super::peers::{Lane, Peers};
use super::time::TimeGuard;
use super::turn::Turn;
use super::types::{CommandBytes, TypeConfig, position};
use super::wire::log_id_from_wire;
use crate::domain::NodeId;
use crate::fs::Fs;
use crate::planted::{self, Plant};
use crate::state::{Applied, Position};
use crate::storage::wal::{Space, Wal};

/// How long a proposal may take in all before its outcome is called unknown.
pub(crate) const PROPOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a linearizable read may wait for its index.
pub(crate) const READ_DEADLINE: Duration = Duration::from_secs(3);
/// How long to wait for news of a leader before trying again all the same.
const LEADER_NEWS: Duration = Duration::from_millis(50);

/// Openraft's handle with our state machine.
pub(crate) type RaftHandle<F> = Raft<TypeConfig, StateMachine<F>>;

/// Why one try gave no outcome.
enum Miss {
    /// Nothing was proposed; try again when there is a leader.
    NotProposed,
    /// It may have been proposed; the state machine recognises it when it comes again.
    Unknown,
    /// Trying again would not help.
    Final(RaftError),
}

/// Finds the leader and talks to it.
pub(crate) struct LeaderLink<F: Fs> {
    pub(crate) raft: RaftHandle<F>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) wal: Wal<F>,
    pub(crate) applied: Arc<AppliedState>,
    /// Held while members are added or removed.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) time: TimeGuard,
    /// What this node tells the others of its next snapshot.
    pub(crate) turn: Turn,
    forwarder: Forwarder,
}

impl<F: Fs> LeaderLink<F> {
    pub(crate) fn new(
        raft: RaftHandle<F>,
        peers: Arc<Peers>,
        wal: Wal<F>,
        applied: Arc<AppliedState>,
        time: TimeGuard,
    ) -> Self {
        let forwarder = Forwarder::new(peers.clone());
        let changing = tokio::sync::Mutex::default();
        Self { raft, peers, wal, applied, changing, time, turn: Turn::default(), forwarder }
    }

    /// This node's own id.
    pub(crate) fn id(&self) -> NodeId {
        self.peers.identity().id
    }

    /// Who leads, as far as this node knows. A denied leader is none: the others follow it no more.
    pub(crate) fn leader(&self) -> Option<Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let leader = metrics.membership_config.get_node(&leader).cloned()?;
        (!self.peers.is_denied(leader.id)).then_some(leader)
    }

    /// I9: whether the disk has too little room for commands, in the log or in the view.
    pub(crate) fn disk_low(&self) -> bool {
        self.wal.space() == Space::Low || self.applied.view.starved()
    }

    /// Whether the node is a member of anything.
    pub(crate) fn initialized(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().next().is_some()
    }

    /// Proposes an encoded command here or at the leader, again and again until the deadline: the state machine
    /// recognises a command that it has seen.
    pub(crate) async fn propose(&self, command: Bytes) -> Result<Applied, RaftError> {
        match self.until(PROPOSE_DEADLINE, || self.propose_once(command.clone())).await? {
            Ending::Answer(applied) => Ok(applied),
            Ending::Failed { error, in_doubt } => Err(told(error, in_doubt)),
            Ending::TooLate { in_doubt } => Err(told(RaftError::NoLeader, in_doubt)),
        }
    }

    async fn propose_once(&self, command: Bytes) -> Result<Applied, Miss> {
        match self.leader() {
            None => Err(Miss::NotProposed),
            Some(leader) if leader.id == self.id() => self.propose_here(command).await,
            Some(leader) => {
                self.forwarder.forward(&leader, command).await.map_err(|failure| match failure {
                    ForwardFailure::NotLeader => Miss::NotProposed,
                    ForwardFailure::Unknown => Miss::Unknown,
                    ForwardFailure::Refused(error) => Miss::Final(error),
                })
            }
        }
    }

    async fn propose_here(&self, command: Bytes) -> Result<Applied, Miss> {
        if self.disk_low() {
            return Err(Miss::Final(RaftError::Refused(Refusal::DiskLow)));
        }
        self.time.check(&command).map_err(|refusal| Miss::Final(RaftError::Refused(refusal)))?;
        match self.raft.client_write(CommandBytes(command)).await {
            Ok(response) => response.data.0.ok_or_else(|| {
                Miss::Final(RaftError::Stopped("a command was applied without an outcome".into()))
            }),
            Err(OpenraftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Err(Miss::NotProposed)
            }
            Err(OpenraftError::APIError(_)) => Err(Miss::Unknown),
            Err(OpenraftError::Fatal(fatal)) => {
                // It may be in the log already, and others may commit it.
                // Why it stopped is said once, as the process's last word.
                tracing::debug!(%fatal, "the consensus stopped while a command was proposed");
                Err(Miss::Final(RaftError::OutcomeUnknown))
            }
        }
    }

    /// For a command that another node forwarded: proposes it here or says why not; never forwards it again.
    pub(crate) async fn propose_forwarded(
        &self,
        command: Bytes,
    ) -> Result<Applied, pb::ForwardError> {
        use pb::forward_error::Kind;
        let refuse = |kind: Kind, message: String| pb::ForwardError {
            kind: kind.into(),
            leader_id: self.leader().map_or(0, |leader| leader.id.get()),
            message,
            refusal: pb::forward_error::Refusal::Unspecified.into(),
        };
        match self.propose_here(command).await {
            Ok(applied) => Ok(applied),
            Err(Miss::NotProposed) => {
                Err(refuse(Kind::NotLeader, "this node does not lead".into()))
            }
            Err(Miss::Unknown) => Err(refuse(Kind::OutcomeUnknown, String::new())),
            Err(Miss::Final(RaftError::Refused(refusal))) => {
                let error = refuse(Kind::Refused, refusal.to_string());
                Err(pb::ForwardError { refusal: refusal_to_wire(refusal).into(), ..error })
            }
            Err(Miss::Final(error)) => Err(refuse(Kind::OutcomeUnknown, error.to_string())),
        }
    }

    /// An index that covers every write acknowledged before the call.
    pub(crate) async fn read_index(&self) -> Result<Position, RaftError> {
        match self.until(READ_DEADLINE, || self.read_index_once()).await? {
            Ending::Answer(position) => Ok(position),
            Ending::Failed { error, .. } => Err(error),
            Ending::TooLate { .. } => Err(RaftError::NoLeader),
        }
    }

    async fn read_index_once(&self) -> Result<Position, Miss> {
        match self.leader() {
            None => Err(Miss::NotProposed),
            Some(leader) if leader.id == self.id() => self.read_index_here().await,
            Some(leader) => {
                let mut client = self.peers.client(&leader, Lane::Forward).map_err(Miss::Final)?;
                let call = client.read_index(pb::ReadIndexRequest {});
                let response = call.await.map_err(|_| Miss::NotProposed)?.into_inner();
                let id = response.log_id.ok_or(Miss::NotProposed)?;
                Ok(position(&log_id_from_wire(id)))
            }
        }
    }

    /// Confirms with a quorum that this node leads (ReadIndex, never a lease).
    async fn read_index_here(&self) -> Result<Position, Miss> {
        if planted::is(Plant::LocalRead) {
            return self.applied.heads().position.ok_or(Miss::NotProposed);
        }
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(position(read.log_id())),
            Err(OpenraftError::APIError(
                LinearizableReadError::ForwardToLeader(_)
                | LinearizableReadError::QuorumNotEnough(_),
            )) => Err(Miss::NotProposed),
            Err(OpenraftError::Fatal(fatal)) => {
                Err(Miss::Final(RaftError::Stopped(fatal.to_string())))
            }
        }
    }

    /// For a reader on another node.
    pub(crate) async fn read_index_for_peer(&self) -> Option<Position> {
        self.read_index_here().await.ok()
    }

    /// Tries until there is an answer or the deadline has passed. A try is given up when somebody else leads, since a
    /// leader that is paused or cut off may never answer.
    async fn until<T, Fut>(
        &self,
        within: Duration,
        attempt: impl Fn() -> Fut,
    ) -> Result<Ending<T>, RaftError>
    where
        Fut: Future<Output = Result<T, Miss>>,
    {
        if !self.initialized() {
            return Err(RaftError::NotInitialised);
        }
        let deadline = Instant::now() + within;
        let mut in_doubt = false;
        loop {
            // What is known now is no news: without that a proposal without a leader would try again without a pause.
            let mut news = self.raft.server_metrics();
            news.borrow_and_update();
            let leader = self.leader_id();
            tokio::select! {
                biased;
                result = attempt() => match result {
                    Ok(answer) => return Ok(Ending::Answer(answer)),
                    Err(Miss::Final(error)) => return Ok(Ending::Failed { error, in_doubt }),
                    Err(Miss::NotProposed) => {}
                    Err(Miss::Unknown) => in_doubt = true,
                },
                () = self.another_leader(leader) => in_doubt = true,
                () = tokio::time::sleep_until(deadline) => in_doubt = true,
            }
            if Instant::now() >= deadline {
                return Ok(Ending::TooLate { in_doubt });
            }
            // Either there is news of a leader, or it is time to try again: both go on.
            if let Err(error) = news_or_time(&mut news, LEADER_NEWS).await {
                return Ok(Ending::Failed { error, in_doubt });
            }
        }
    }

    fn leader_id(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Returns once somebody other than `leader` leads.
    async fn another_leader(&self, leader: Option<u64>) {
        let mut news = self.raft.server_metrics();
        loop {
            let now = news.borrow_and_update().current_leader;
            if now.is_some() && now != leader {
                return;
            }
            if news.changed().await.is_err() {
                // Openraft has stopped; the try itself says so.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Waits for news of the consensus, or until it is time to look again.
///
/// # Errors
/// If openraft has stopped: no news will ever come, and who looked again would keep a processor busy with that.
pub(crate) async fn news_or_time<T: OptionalSend + OptionalSync>(
    news: &mut WatchReceiverOf<TypeConfig, T>,
    within: Duration,
) -> Result<(), RaftError> {
    match tokio::time::timeout(within, news.changed()).await {
        Ok(Err(ended)) => Err(RaftError::Stopped(ended.to_string())),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

/// What is told of a proposal that failed: an earlier try may have been proposed, whatever the last one came to.
fn told(error: RaftError, in_doubt: bool) -> RaftError {
    if in_doubt { RaftError::OutcomeUnknown } else { error }
}

/// How a series of tries ended.
enum Ending<T> {
    Answer(T),
    /// Trying again would not help.
    Failed {
        /// Why the last try failed.
        error: RaftError,
        /// Whether an earlier try may have been proposed.
        in_doubt: bool,
    },
    TooLate {
        /// Whether a try was given up that may have been proposed.
        in_doubt: bool,
    },
}

#[cfg(test)]
mod tests {
    use openraft::async_runtime::WatchSender as _;
    use openraft::type_config::TypeConfigExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_news_of_a_consensus_that_has_ended_is_told_so() {
        let (sender, mut news) = TypeConfig::watch_channel(1);
        let began = Instant::now();
        assert_eq!(news_or_time(&mut news, LEADER_NEWS).await, Ok(()));
        assert_eq!(began.elapsed(), LEADER_NEWS);
        sender.send(2).unwrap();
        assert_eq!(news_or_time(&mut news, LEADER_NEWS).await, Ok(()));
        assert_eq!(began.elapsed(), LEADER_NEWS);
        drop(sender);
        let told = news_or_time(&mut news, LEADER_NEWS).await;
        assert!(matches!(told, Err(RaftError::Stopped(_))), "{told:?}");
    }

    #[test]
    fn a_refusal_after_a_try_that_may_have_been_proposed_is_an_unknown_outcome() {
        let refused = RaftError::Refused(Refusal::DiskLow);
        assert_eq!(told(refused.clone(), false), refused);
        assert_eq!(told(refused, true), RaftError::OutcomeUnknown);
        assert_eq!(told(RaftError::NoLeader, true), RaftError::OutcomeUnknown);
    }
}
