//! What bounds disclosures: approvals by a second person, the policy, and mass recovery. The rules are those of apply; nothing
//! here decides anything.

use std::sync::Arc;

use crate::auth::{Action, Permit};
use crate::domain::{ApprovalId, Reach, RequestId, Right, Timestamp, limits};
use crate::state::{
    Accepted, Approval, CommandBody, DecideApproval, MassRecovery, PolicyRecord, Position,
    ProposeMassRecovery, RequestApproval, SetDisclosurePolicy, Store, StoreError, query,
};

use super::context::proposer_of;
use super::{Consensus, Context, Granted, ServiceError};

/// A request for approval is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requested {
    /// Its number.
    pub id: ApprovalId,
    /// Until when it waits for somebody to decide.
    pub expires_at: Timestamp,
    /// Entry that made it.
    pub position: Position,
}

/// What bounds disclosures now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisclosureStatus {
    /// The policy in force; `None` in a cluster of an earlier version until somebody sets one.
    pub policy: Option<PolicyRecord>,
    /// The mass recovery that was proposed last.
    pub mass_recovery: Option<MassRecovery>,
    /// The time: that of the state, or this node's if it is later, since the state's stands still while nothing is written.
    pub time: Timestamp,
}

/// Use cases of those who bound disclosures, and of those who are bounded.
pub struct DisclosureService<C> {
    context: Arc<Context<C>>,
}

impl<C: Consensus> DisclosureService<C> {
    /// Over the shared context.
    pub fn new(context: Arc<Context<C>>) -> Self {
        Self { context }
    }

    /// Asks for an approval.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn request(
        &self,
        permit: &Permit,
        request_id: RequestId,
        wanted: RequestApproval,
    ) -> Result<Requested, ServiceError> {
        let proposer = proposer_of(permit, Action::RequestApproval)?;
        let body = CommandBody::RequestApproval(wanted);
        let answer = self.context.propose(proposer, request_id, body).await?;
        let Accepted::ApprovalRequested { id, expires_at } = answer.accepted else {
            return Err(ServiceError::Unexpected("a request for approval has another answer"));
        };
        Ok(Requested { id, expires_at, position: answer.position })
    }

    /// Approves or refuses a request; answers until when the approval may be used, if it is one.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn decide(
        &self,
        permit: &Permit,
        request_id: RequestId,
        decide: DecideApproval,
    ) -> Result<(Option<Timestamp>, Position), ServiceError> {
        let proposer = proposer_of(permit, Action::DecideApproval)?;
        let (id, approve) = (decide.approval, decide.approve);
        let body = CommandBody::DecideApproval(decide);
        let done = self.context.change(proposer, request_id, body).await?;
        self.context.wait_applied(done.position).await?;
        // It may be over and gone by the time of a late retry.
        let found = query::approval(self.context.consensus().view(), id)?;
        let until = found.filter(|_| approve).map(|approval| approval.expires_at);
        Ok((until, done.position))
    }

    /// At most `limit` requests for approval that the caller's grants reach, in the order of their numbers; the first, or those
    /// after `after`.
    ///
    /// # Errors
    /// If no quorum answers.
    pub async fn approvals(
        &self,
        permit: &Permit,
        after: Option<ApprovalId>,
        limit: usize,
    ) -> Result<Vec<Approval>, ServiceError> {
        let action = Action::ListApprovals;
        proposer_of(permit, action)?;
        self.context.read(false).await?;
        let reach = self.context.reach(permit.actor(), action, Right::ReadApprovals)?;
        self.context.scan(move |view| reached(view, after, limit, &reach)).await
    }

    /// The policy in force, and the mass recovery that was proposed last.
    ///
    /// # Errors
    /// If no quorum answers.
    pub async fn status(&self, permit: &Permit) -> Result<DisclosureStatus, ServiceError> {
        proposer_of(permit, Action::GetDisclosureStatus)?;
        self.context.read(false).await?;
        let view = self.context.consensus().view();
        Ok(DisclosureStatus {
            policy: query::disclosure_policy(view)?,
            mass_recovery: query::mass_recovery(view)?,
            time: self.context.now().max(self.context.heads()?.time),
        })
    }

    /// Sets the policy.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn set_policy(
        &self,
        permit: &Permit,
        request_id: RequestId,
        set: SetDisclosurePolicy,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::SetDisclosurePolicy)?;
        self.context.change(proposer, request_id, CommandBody::SetDisclosurePolicy(set)).await
    }

    /// Proposes a mass recovery; answers its number.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn propose_mass_recovery(
        &self,
        permit: &Permit,
        request_id: RequestId,
        propose: ProposeMassRecovery,
    ) -> Result<(u64, Position), ServiceError> {
        let proposer = proposer_of(permit, Action::ProposeMassRecovery)?;
        let body = CommandBody::ProposeMassRecovery(propose);
        let answer = self.context.propose(proposer, request_id, body).await?;
        let Accepted::MassRecoveryProposed { number } = answer.accepted else {
            return Err(ServiceError::Unexpected("a proposal has another answer"));
        };
        Ok((number, answer.position))
    }

    /// Confirms a mass recovery; answers until when quotas are lifted.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn confirm_mass_recovery(
        &self,
        permit: &Permit,
        request_id: RequestId,
        number: u64,
    ) -> Result<(Timestamp, Position), ServiceError> {
        let proposer = proposer_of(permit, Action::ConfirmMassRecovery)?;
        let body = CommandBody::ConfirmMassRecovery(number);
        let done = self.context.change(proposer, request_id, body).await?;
        self.context.wait_applied(done.position).await?;
        let until = self.context.heads()?.mass_recovery_until;
        tracing::warn!(number, "quotas of disclosures are lifted");
        Ok((until, done.position))
    }

    /// Ends a mass recovery, or takes a proposal back.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn end_mass_recovery(
        &self,
        permit: &Permit,
        request_id: RequestId,
        number: u64,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::EndMassRecovery)?;
        self.context.change(proposer, request_id, CommandBody::EndMassRecovery(number)).await
    }
}

/// Requests for approval of devices that are in reach. All that are kept are looked at: there are never more than a page holds.
fn reached(
    view: &impl Store,
    after: Option<ApprovalId>,
    limit: usize,
    reach: &Reach,
) -> Result<Vec<Approval>, StoreError> {
    let most = usize::try_from(limits::APPROVALS).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    for approval in query::approvals(view, after, most)? {
        if found.len() < limit && reach.covers(&query::groups_of(view, approval.device)?) {
            found.push(approval);
        }
    }
    Ok(found)
}
