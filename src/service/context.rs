//! What all use cases share: the consensus, the clock, deadlines, and the reading of a state that is recent enough.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::auth::{Action, Caller, Denied, Permit, authorize};
use crate::clock::SharedClock;
use crate::domain::{Actor, ClusterId, Fingerprint, NodeId, RequestId, Right, Role, Timestamp};
use crate::raft::RaftError;
use crate::state::{
    Accepted, Applied, AuditPosition, Command, CommandBody, Heads, Position, Rejection, StoreError,
    query,
};

use super::chain::ChainConflict;
use super::{Consensus, Granted, Refusals, SelfTest, ServiceError};

/// A node without proof of a quorum for longer than this refuses everything but stale reads: its grants may be old.
pub const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long use cases wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a proposal, all in all; then its outcome counts as unknown.
    pub propose: Duration,
    /// For a linearizable read to be possible.
    pub read: Duration,
    /// For the local state to reach an entry that is committed.
    pub apply: Duration,
    /// For a change of members: a learner may first have to catch up.
    pub membership: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let five = Duration::from_secs(5);
        Self { propose: five, read: five, apply: five, membership: Duration::from_secs(30) }
    }
}

/// Numbers that use cases count, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    disclosures: AtomicU64,
    over_quota: AtomicU64,
    unapproved: AtomicU64,
    by_approval: AtomicU64,
    refusals: AtomicU64,
    self_tested: AtomicU64,
    self_test_failed: AtomicBool,
    enrolments: AtomicU64,
    enrolments_again: AtomicU64,
    enrolments_refused: AtomicU64,
    renewals: AtomicU64,
}

impl Counters {
    /// Keys that were opened since the start.
    pub fn disclosures(&self) -> u64 {
        self.disclosures.load(Ordering::Relaxed)
    }

    /// Disclosures that this node was refused for a quota since the start.
    pub fn over_quota(&self) -> u64 {
        self.over_quota.load(Ordering::Relaxed)
    }

    /// Disclosures that this node was refused for want of an approval since the start.
    pub fn unapproved(&self) -> u64 {
        self.unapproved.load(Ordering::Relaxed)
    }

    /// Keys that were opened by an approval since the start.
    pub fn by_approval(&self) -> u64 {
        self.by_approval.load(Ordering::Relaxed)
    }

    /// Counts a disclosure that apply refused.
    pub(super) fn disclosure_refused(&self, why: &Rejection) {
        match why {
            Rejection::QuotaExceeded { .. } => self.over_quota.fetch_add(1, Ordering::Relaxed),
            Rejection::ApprovalRequired
            | Rejection::ApprovalUnusable(_)
            | Rejection::ApprovalExpired(_)
            | Rejection::ApproverRevoked(_) => self.unapproved.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// Refusals for want of a grant since the start.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Stored keys that were opened to see whether they open, since the start.
    pub fn self_tested_keys(&self) -> u64 {
        self.self_tested.load(Ordering::Relaxed)
    }

    /// Whether something did not open at the last test of itself.
    pub fn self_test_failed(&self) -> bool {
        self.self_test_failed.load(Ordering::Relaxed)
    }

    pub(super) fn self_tested(&self, test: &SelfTest) {
        self.self_tested.fetch_add(test.tested, Ordering::Relaxed);
        self.self_test_failed.store(!test.passed(), Ordering::Relaxed);
    }

    /// Devices that this node enrolled since the start.
    pub fn enrolments(&self) -> u64 {
        self.enrolments.load(Ordering::Relaxed)
    }

    /// Those among them that had enrolled before.
    pub fn enrolments_again(&self) -> u64 {
        self.enrolments_again.load(Ordering::Relaxed)
    }

    /// Enrolments and renewals that were refused since the start.
    pub fn enrolments_refused(&self) -> u64 {
        self.enrolments_refused.load(Ordering::Relaxed)
    }

    /// Certificates of devices that this node renewed since the start.
    pub fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::Relaxed)
    }

    pub(super) fn enrolled(&self, again: bool) {
        self.enrolments.fetch_add(1, Ordering::Relaxed);
        self.enrolments_again.fetch_add(again.into(), Ordering::Relaxed);
    }

    pub(super) fn enrolment_refused(&self) {
        self.enrolments_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn renewed(&self) {
        self.renewals.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn disclosed(&self, by_approval: bool) {
        self.disclosures.fetch_add(1, Ordering::Relaxed);
        self.by_approval.fetch_add(by_approval.into(), Ordering::Relaxed);
    }
}

/// What all use cases share.
pub struct Context<C> {
    consensus: Arc<C>,
    clock: SharedClock,
    cluster: ClusterId,
    node: NodeId,
    deadlines: Deadlines,
    refusals: Refusals,
    counters: Counters,
    fault: watch::Sender<Option<String>>,
    pub(super) chain: ChainConflict,
    /// How often the deny-list was changed, as far as this node has looked.
    pub(super) denials: watch::Sender<u64>,
}

/// A state to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPoint {
    /// Log index that the local state had applied, at least.
    pub applied_index: u64,
    /// For a stale read: time since the node last had proof of a quorum. Zero for a linearizable one.
    pub age: Duration,
}

/// An accepted command's answer, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) position: Position,
    pub(super) audit: AuditPosition,
    pub(super) accepted: Accepted,
}

impl<C: Consensus> Context<C> {
    /// For a node of a cluster.
    pub fn new(
        consensus: Arc<C>,
        clock: SharedClock,
        cluster: ClusterId,
        node: NodeId,
        deadlines: Deadlines,
    ) -> Self {
        let refusals = Refusals::new(Actor::Node(node));
        Self {
            consensus,
            clock,
            cluster,
            node,
            deadlines,
            refusals,
            counters: Counters::default(),
            fault: watch::Sender::new(None),
            chain: ChainConflict::default(),
            denials: watch::Sender::new(0),
        }
    }

    /// The consensus.
    pub fn consensus(&self) -> &Arc<C> {
        &self.consensus
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// This node.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Its deadlines.
    pub const fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// What it counts.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Permits `action` to `caller` by the local state's grants, which have to be recent unless the answer may be old
    /// too. What changes something is checked again by apply. A refusal is counted, to be recorded later.
    ///
    /// # Errors
    /// [`ServiceError::NoQuorumContact`] or [`ServiceError::Denied`].
    pub fn permit(
        &self,
        caller: &Caller,
        action: Action,
        staleness: Staleness,
    ) -> Result<Permit, ServiceError> {
        // Before there is a cluster nobody has a role, and nothing but its making makes sense.
        if action != Action::InitCluster && !self.consensus.initialized() {
            return Err(ServiceError::NotInitialised);
        }
        // Before all else: whoever is known to be denied is denied, however old that knowledge is.
        self.refuse_denied(caller, action.name())?;
        if staleness == Staleness::Refused {
            self.check_fresh()?;
        }
        let roles = match caller.actor() {
            Actor::Operator(name) => query::roles_of(self.consensus.view(), name)?,
            Actor::Oidc(_) => caller.roles().clone(),
            Actor::Agent(_) | Actor::Node(_) => Default::default(),
        };
        let permit = authorize(caller, action, &roles).map_err(|denied| {
            self.count_refusal(caller, action.name(), &denied);
            ServiceError::Denied(denied)
        })?;
        if let (Action::Escrow { device }, Actor::Operator(_)) = (action, caller.actor()) {
            self.check_reach(caller.actor(), action, Right::ImportKeys, device)?;
        }
        Ok(permit)
    }

    pub(super) fn count_refusal(&self, caller: &Caller, what: &'static str, denied: &Denied) {
        self.count_denied(caller.actor(), what, denied.reason);
    }

    /// Counts what somebody was refused, to be recorded later.
    pub(super) fn count_denied(&self, actor: &Actor, what: &'static str, reason: &'static str) {
        self.counters.refusals.fetch_add(1, Ordering::Relaxed);
        self.refusals.count(actor, what, reason);
    }

    /// Counts something else that a caller was refused.
    pub(super) fn count_refused(&self, caller: &Caller, what: &'static str, reason: &'static str) {
        self.count_denied(caller.actor(), what, reason);
    }

    /// Counts something that was refused to somebody of whom nothing is proven, in this node's own name.
    pub(super) fn count_stranger(&self, what: &'static str, reason: &'static str) {
        self.count_denied(&Actor::Node(self.node), what, reason);
    }

    /// What this node proposes in its own name.
    pub(super) const fn own(&self) -> Proposer {
        Proposer { actor: Actor::Node(self.node), certificate: None, roles: BTreeSet::new() }
    }

    fn check_fresh(&self) -> Result<(), ServiceError> {
        let age = self.consensus.freshness().age;
        if age <= FRESH_FOR { Ok(()) } else { Err(ServiceError::NoQuorumContact { age }) }
    }

    /// Proposes a command in the name of `proposer` and waits for its outcome, at most for the deadline.
    pub(super) async fn propose(
        &self,
        proposer: Proposer,
        request_id: RequestId,
        body: CommandBody,
    ) -> Result<Answer, ServiceError> {
        let Proposer { actor, certificate, roles } = proposer;
        let time = self.now();
        let command = Command { actor, certificate, roles, request_id, time, body };
        let proposed = self.consensus.propose(command);
        let applied = tokio::time::timeout(self.deadlines.propose, proposed).await;
        let Applied { position, audit, outcome } =
            applied.map_err(|_| RaftError::OutcomeUnknown)??;
        Ok(Answer { position, audit, accepted: outcome? })
    }

    /// The same for a command that answers no more than whether it changed something.
    pub(super) async fn change(
        &self,
        proposer: Proposer,
        request_id: RequestId,
        body: CommandBody,
    ) -> Result<Granted, ServiceError> {
        let answer = self.propose(proposer, request_id, body).await?;
        let Accepted::Granted { changed } = answer.accepted else {
            return Err(ServiceError::Unexpected("a change has another answer"));
        };
        Ok(Granted { changed, position: answer.position })
    }

    /// Waits until the local state has applied a committed entry. If that fails the request was still done, so that its
    /// caller has to ask again with the same request id.
    pub(super) async fn wait_applied(&self, position: Position) -> Result<(), ServiceError> {
        let waited = self.consensus.wait_applied(position.index, self.deadlines.apply).await;
        waited.map_err(|error| match error {
            RaftError::Stopped(_) => ServiceError::Raft(error),
            _ => ServiceError::Raft(RaftError::OutcomeUnknown),
        })
    }

    /// Finds a state to read from: the newest that a quorum knows, or what this node has.
    pub(super) async fn read(&self, stale: bool) -> Result<ReadPoint, ServiceError> {
        if stale {
            let fresh = self.consensus.freshness();
            return Ok(ReadPoint { applied_index: fresh.applied_index, age: fresh.age });
        }
        let barrier = self.consensus.read_barrier();
        let applied_index = tokio::time::timeout(self.deadlines.read, barrier)
            .await
            .map_err(|_| RaftError::NoLeader)??;
        Ok(ReadPoint { applied_index, age: Duration::ZERO })
    }

    /// Reads something large from the state without holding up other calls.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&C::View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let consensus = Arc::clone(&self.consensus);
        crate::turns::blocking(move || read(consensus.view()))
            .await
            .map_err(|_| ServiceError::Unexpected("a read was cut off"))?
            .map_err(ServiceError::from)
    }

    /// Where the local state stands.
    pub(super) fn heads(&self) -> Result<Heads, ServiceError> {
        Heads::load(self.consensus.view()).map_err(ServiceError::from)
    }

    /// Reports a local fault that a use case came upon: the node must not go on.
    pub fn report_fault(&self, error: &StoreError) {
        self.fault.send_if_modified(|fault| {
            let first = fault.is_none();
            if first {
                *fault = Some(error.to_string());
            }
            first
        });
    }

    /// Waits for the first local fault that was reported.
    pub async fn faulted(&self) -> String {
        let mut fault = self.fault.subscribe();
        loop {
            if let Some(what) = fault.borrow_and_update().clone() {
                return what;
            }
            if fault.changed().await.is_err() {
                // Never: the sender lives as long as this context.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Proposes the refusals that were counted since the last time, if any.
    ///
    /// # Errors
    /// If the proposal failed; they are kept for the next time.
    pub async fn flush_refusals(&self) -> Result<(), ServiceError> {
        let Some((request_id, counts)) = self.refusals.begin() else { return Ok(()) };
        let proposed = self.propose(self.own(), request_id, CommandBody::Refusals(counts)).await;
        match proposed {
            // Refused by the state machine: asking again would not help.
            Ok(_) | Err(ServiceError::Rejected(_)) => self.refusals.done(),
            Err(_) => {}
        }
        proposed.map(drop)
    }
}

/// Whether old grants are good enough for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// They are not: the node must have had proof of a quorum just now.
    Refused,
    /// They are: the answer is marked as old itself, or is about this node alone.
    Accepted,
}

impl Staleness {
    /// For a read that may be `stale`.
    pub const fn of_read(stale: bool) -> Self {
        if stale { Self::Accepted } else { Self::Refused }
    }
}

/// In whose name a command is proposed.
#[derive(Debug, Clone)]
pub(super) struct Proposer {
    actor: Actor,
    certificate: Option<Fingerprint>,
    roles: BTreeSet<Role>,
}

/// Who a permit was made for, if it is one for this action.
pub(super) fn proposer_of(permit: &Permit, action: Action) -> Result<Proposer, ServiceError> {
    if permit.action() == action {
        Ok(Proposer {
            actor: permit.actor().clone(),
            certificate: permit.certificate(),
            roles: permit.roles().clone(),
        })
    } else {
        Err(ServiceError::Unexpected("the permit is for another action"))
    }
}

/// A new request id for a command that a node proposes by itself.
pub(super) fn new_request_id() -> RequestId {
    RequestId::new(crate::turns::draw_uuid())
}
