//! Changes of the membership. Only the leader makes them; a follower hands them on over the peer port.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_proto::peer::v1 as pb;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;

use tokio::time::Instant;

use super::api::{Member, RaftError};
use super::contact::last_answers;
use super::link::{LeaderLink, news_or_time};
use super::peers::Lane;
use super::types::{LogId, position};
use super::wire::{log_id_from_wire, log_id_to_wire, member_from_wire, member_to_wire};
use crate::domain::NodeId;
use crate::fs::Fs;
use crate::state::Position;

/// A learner within this many entries of the leader's last one counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 1000;
/// How long a change may take: a learner may have to fetch a snapshot's worth of log first.
const CHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a promotion waits for the learner to catch up before it says how far behind it is.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(3);
/// How often it is looked how far it is meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// A member that has not answered the leader for this long is not counted on.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
/// The same in heartbeats, if those are rare.
const ANSWERS_WITHIN_BEATS: u64 = 4;
/// How long a change of members waits for a majority that answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// A change of the membership, or of who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Adds a member without a vote.
    AddLearner(Member),
    /// Gives a learner a vote.
    Promote(NodeId),
    /// Removes a member.
    Remove(NodeId),
    /// Hands leadership on.
    Transfer(Option<NodeId>),
}

/// What a change led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The entry; none for a transfer.
    pub(crate) position: Option<Position>,
    /// Who leads now.
    pub(crate) leader: Option<NodeId>,
}

pub(crate) fn change_to_wire(change: &Change) -> pb::MembershipRequest {
    use pb::membership_request::Change as Wire;
    let change = match change {
        Change::AddLearner(member) => Wire::AddLearner(member_to_wire(member)),
        Change::Promote(id) => Wire::Promote(id.get()),
        Change::Remove(id) => Wire::Remove(id.get()),
        Change::Transfer(to) => Wire::TransferTo(to.map_or(0, NodeId::get)),
    };
    pb::MembershipRequest { change: Some(change) }
}

pub(crate) fn change_from_wire(request: pb::MembershipRequest) -> Result<Change, RaftError> {
    use pb::membership_request::Change as Wire;
    let bad = |error: &dyn std::fmt::Display| RaftError::Membership(error.to_string());
    Ok(match request.change.ok_or_else(|| bad(&"no change is given"))? {
        Wire::AddLearner(member) => {
            Change::AddLearner(member_from_wire(member).map_err(|error| bad(&error))?)
        }
        Wire::Promote(id) => Change::Promote(NodeId::new(id)),
        Wire::Remove(id) => Change::Remove(NodeId::new(id)),
        Wire::TransferTo(0) => Change::Transfer(None),
        Wire::TransferTo(id) => Change::Transfer(Some(NodeId::new(id))),
    })
}

pub(crate) fn changed_to_wire(changed: Changed) -> pb::MembershipResponse {
    pb::MembershipResponse {
        log_id: changed.position.map(|at| log_id_to_wire(&super::types::log_id(at))),
        leader_id: changed.leader.map_or(0, NodeId::get),
    }
}

impl<F: Fs> LeaderLink<F> {
    /// Makes a change here, or has the leader make it.
    pub(crate) async fn change(&self, change: Change) -> Result<Changed, RaftError> {
        let leader = self.leader().ok_or(RaftError::NoLeader)?;
        if leader.id == self.id() {
            return self.change_here(change).await;
        }
        let mut client = self.peers.client(&leader, Lane::Control)?;
        let joining = match &change {
            Change::AddLearner(member) => Some(member.id),
            _ => None,
        };
        let mut request = tonic::Request::new(change_to_wire(&change));
        request.set_timeout(CHANGE_DEADLINE);
        match client.membership(request).await {
            Ok(response) => {
                let response = response.into_inner();
                Ok(Changed {
                    position: response.log_id.map(|id| position(&log_id_from_wire(id))),
                    leader: Some(response.leader_id).filter(|id| *id != 0).map(NodeId::new),
                })
            }
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                Err(RaftError::Membership(status.message().to_owned()))
            }
            Err(status) => match joining.filter(|_| status.code() == tonic::Code::AlreadyExists) {
                Some(id) => Err(RaftError::RemovedId(id)),
                None => Err(RaftError::OutcomeUnknown),
            },
        }
    }

    /// Makes a change as the leader.
    pub(crate) async fn change_here(&self, change: Change) -> Result<Changed, RaftError> {
        let work = async {
            match change {
                Change::AddLearner(member) => self.add_learner(member).await,
                Change::Promote(id) => self.promote(id).await,
                Change::Remove(id) => self.remove(id).await,
                Change::Transfer(to) => return self.transfer(to).await,
            }
            .map(|id| Changed { position: Some(position(&id)), leader: Some(self.id()) })
        };
        tokio::time::timeout(CHANGE_DEADLINE, work).await.unwrap_or(Err(RaftError::OutcomeUnknown))
    }

    async fn add_learner(&self, member: Member) -> Result<LogId, RaftError> {
        // What is checked must still hold when the change is proposed.
        let _one_at_a_time = self.changing.lock().await;
        let (known, at) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = &metrics.membership_config;
            (membership.get_node(&member.id.get()).cloned(), *membership.log_id())
        };
        match (known, at) {
            // Asked again after a lost answer.
            (Some(known), Some(at)) if known == member => return Ok(at),
            (Some(known), _) => {
                let (id, address) = (known.id, known.peer_address);
                let what = format!("node {id} is another member already, at {address}");
                return Err(RaftError::Membership(what));
            }
            (None, at) => {
                self.check_not_removed(member.id, at.map_or(0, |at| at.index)).await?;
            }
        }
        let id = member.id.get();
        self.raft
            .add_learner(id, member, false)
            .await
            .map(|response| response.log_id)
            .map_err(refused)
    }

    /// I7: refuses the id of a former member. The state knows of every removal once it has applied the membership at
    /// `since`, which does not name the node.
    async fn check_not_removed(&self, id: NodeId, since: u64) -> Result<(), RaftError> {
        let mut applied = self.applied.subscribe();
        applied.wait_for(|applied| *applied >= Some(since)).await.map_err(stopped)?;
        if self.applied.heads().removed.contains(&id) {
            return Err(RaftError::RemovedId(id));
        }
        Ok(())
    }

    async fn promote(&self, id: NodeId) -> Result<LogId, RaftError> {
        if let Some(at) = self.voter_since(id) {
            return Ok(at);
        }
        self.wait_until_level(id).await?;
        let _one_at_a_time = self.changing.lock().await;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id.get()]));
        self.check_majority(|voters| {
            voters.insert(id.get());
        })
        .await?;
        let response = self.raft.change_membership(change, false).await;
        response.map(|response| response.log_id).map_err(refused)
    }

    /// Waits a moment for a learner to catch up.
    async fn wait_until_level(&self, id: NodeId) -> Result<(), RaftError> {
        let mut news = self.raft.metrics();
        let deadline = Instant::now() + CATCH_UP_DEADLINE;
        while let Some(why) = self.not_level(id).await? {
            if Instant::now() >= deadline {
                let what = format!("node {id} {why}; promote it when it has caught up");
                return Err(RaftError::Membership(what));
            }
            news_or_time(&mut news, ASK_AGAIN).await?;
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(())
    }

    /// Why a learner is not to have a vote yet. One that has the log and is busy with applying it answers late, and commits may have to
    /// wait for it.
    async fn not_level(&self, id: NodeId) -> Result<Option<String>, RaftError> {
        let (member, entries) = self.behind(id)?;
        match entries {
            None => return Ok(Some("has not taken in anything yet".to_owned())),
            Some(entries) if entries > CAUGHT_UP_ENTRIES => {
                return Ok(Some(format!("is {entries} entries behind")));
            }
            Some(_) => {}
        }
        let own = self.applied.heads().position.map_or(0, |position| position.index);
        Ok(match super::status::ask(&self.peers, &member).await {
            Ok(report) => {
                let left = own.saturating_sub(report.applied_index);
                (left > CAUGHT_UP_ENTRIES).then(|| format!("has {left} entries to apply"))
            }
            Err(why) => Some(format!("does not say how far it is ({why})")),
        })
    }

    /// The membership by which a node has a vote, once it is committed: for a promotion that is asked for again.
    fn voter_since(&self, id: NodeId) -> Option<LogId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.committed_membership_config;
        let joint = membership.membership().get_joint_config();
        joint.iter().all(|voters| voters.contains(&id.get())).then(|| *membership.log_id())?
    }

    pub(super) fn answers_within(&self) -> Duration {
        let beat = self.raft.config().heartbeat_interval;
        ANSWERS_WITHIN.max(Duration::from_millis(beat.saturating_mul(ANSWERS_WITHIN_BEATS)))
    }

    /// Refuses a change after which no majority would answer: nothing could be written any more, and the change could
    /// not even be taken back.
    ///
    /// A member that is only slow, or was added just now, gets a moment to answer.
    async fn check_majority(&self, change: impl Fn(&mut BTreeSet<u64>)) -> Result<(), RaftError> {
        let mut news = self.raft.metrics();
        let deadline = Instant::now() + ANSWER_PATIENCE;
        loop {
            let checked = self.majority_answers(&change);
            if checked.is_ok() || Instant::now() >= deadline {
                return checked;
            }
            news_or_time(&mut news, ANSWERS_WITHIN).await?;
        }
    }

    fn majority_answers(&self, change: impl Fn(&mut BTreeSet<u64>)) -> Result<(), RaftError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        change(&mut voters);
        let answering: BTreeSet<u64> = last_answers(&metrics)
            .filter(|(_, age)| *age <= self.answers_within())
            .map(|(id, _)| id)
            .chain([metrics.id])
            .collect();
        match silent_majority(&voters, &answering) {
            None => Ok(()),
            Some(silent) => Err(RaftError::Membership(format!(
                "no majority would be left that answers: node {silent} does not; bring it back or remove it first"
            ))),
        }
    }

    /// A learner, and how many entries it is behind; none if it has not acknowledged a single one to this leader. Such a one may
    /// have a disk that takes nothing: with a vote it would count for a majority and hold up each write.
    fn behind(&self, id: NodeId) -> Result<(Member, Option<u64>), RaftError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let member = metrics.membership_config.membership().get_node(&id.get());
        let Some(member) = member else {
            return Err(RaftError::Membership(format!("node {id} is no member; add it first")));
        };
        let matched =
            metrics.replication.as_ref().and_then(|all| all.get(&id.get()).copied()).flatten();
        let last = metrics.last_log_index.unwrap_or(0);
        Ok((member.clone(), matched.map(|matched| last.saturating_sub(matched.index))))
    }

    async fn remove(&self, id: NodeId) -> Result<LogId, RaftError> {
        let _one_at_a_time = self.changing.lock().await;
        let metrics = self.raft.metrics();
        let (member, voters, at) = {
            let metrics = metrics.borrow_watched();
            let membership = &metrics.membership_config;
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            (membership.get_node(&id.get()).is_some(), voters, *membership.log_id())
        };
        let is_voter = voters.contains(&id.get());
        if !member {
            // Asked again after a lost answer, unless it never was a member.
            let checked = self.check_not_removed(id, at.map_or(0, |at| at.index)).await;
            let removed = matches!(checked, Err(RaftError::RemovedId(_)));
            return at
                .filter(|_| removed)
                .ok_or_else(|| RaftError::Membership(format!("node {id} is no member")));
        }
        if is_voter && voters.len() == 1 {
            return Err(RaftError::Membership("the last voter can't be removed".into()));
        }
        if is_voter {
            self.check_majority(|voters| {
                voters.remove(&id.get());
            })
            .await?;
        }
        let ids = BTreeSet::from([id.get()]);
        let change = if is_voter {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        };
        self.raft
            .change_membership(change, false)
            .await
            .map(|response| response.log_id)
            .map_err(refused)
    }
}

/// A voter that does not answer, if those that do are no majority.
fn silent_majority(voters: &BTreeSet<u64>, answering: &BTreeSet<u64>) -> Option<u64> {
    let present = voters.intersection(answering).count();
    let missing = voters.difference(answering).next().copied();
    missing.filter(|_| present <= voters.len() / 2)
}

fn stopped(error: impl std::fmt::Display) -> RaftError {
    RaftError::Stopped(error.to_string())
}

fn refused(
    error: openraft::errors::RaftError<
        super::types::TypeConfig,
        openraft::errors::ClientWriteError<super::types::TypeConfig>,
    >,
) -> RaftError {
    match error {
        openraft::errors::RaftError::Fatal(fatal) => stopped(fatal),
        openraft::errors::RaftError::APIError(
            openraft::errors::ClientWriteError::ForwardToLeader(_),
        ) => RaftError::NoLeader,
        openraft::errors::RaftError::APIError(error) => RaftError::Membership(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_the_voters_that_are_left_has_to_answer() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(silent_majority(&set(&[1, 2, 3]), &set(&[1, 2])), None);
        assert_eq!(silent_majority(&set(&[1, 2, 3]), &set(&[1, 9])), Some(2));
        assert_eq!(silent_majority(&set(&[1, 3]), &set(&[1, 2])), Some(3));
        assert_eq!(silent_majority(&set(&[1, 2, 3, 4]), &set(&[1, 2])), Some(3));
        assert_eq!(silent_majority(&set(&[1]), &set(&[1])), None);
    }
}
