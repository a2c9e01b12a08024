//! Dual control: one person asks for a key, another one approves, and the first discloses it by that, once.
//!
//! People are told apart by the identity that their calls are proven by, never by a name that anybody gives themselves.

use super::audit::{Facts, words};
use super::disclosure::check_named;
use super::{Batch, Context, Ruled};
use crate::domain::{
    Actor, ApprovalId, AuditAction, AuditOutcome, DeviceId, Reach, Right, Text, Timestamp, limits,
};
use crate::state::query::{all_approvals, approval_from, granted_from, groups_from, policy_from};
use crate::state::records::{Approval, ApprovalState, Decision, KeyRef, Remembered, keys};
use crate::state::{
    Accepted, DecideApproval, Rejection, RequestApproval, Store, StoreError, Table, Unusable, codec,
};

impl<S: Store> Batch<'_, S> {
    /// Whether a device's keys take a second person.
    pub(super) fn is_marked(&self, device: DeviceId) -> Result<bool, StoreError> {
        let Some(record) = policy_from(&self.txn)?.filter(|record| record.policy.marks_any())
        else {
            return Ok(false);
        };
        let groups = groups_from(&self.txn, device)?;
        Ok(groups.iter().any(|group| record.policy.marks(group)))
    }

    /// The help desk asks for an approval, whether it will need one or not.
    pub(super) fn request_approval(
        &mut self,
        context: &Context<'_>,
        wanted: &RequestApproval,
    ) -> Ruled<Accepted> {
        let permitted = self.permitted(context, Right::DiscloseKeys)?;
        let user = wanted.user.as_ref();
        check_named(&permitted, user)?;
        if let Some(request) = self.recall(context)? {
            let Remembered::Approval(id) = request.answer else {
                let what = "a remembered request for approval has no number".to_owned();
                return Err(StoreError::Corrupt { table: Table::Requests, what }.into());
            };
            return Ok(Accepted::ApprovalRequested { id, expires_at: waits_until(request.time) });
        }
        let at = KeyRef { protector: wanted.protector, version: wanted.version };
        let (key, _) = self.key(&permitted, user, at)?;
        self.make_room_for_approval(&context.command.actor)?;
        let id = ApprovalId::after(self.heads.approvals);
        let now = self.heads.time;
        let approval = Approval {
            id,
            key: key.at,
            device: key.device,
            volume: key.volume,
            requester: context.command.actor.clone(),
            requested_at: now,
            reason: wanted.reason.clone(),
            user: wanted.user.clone(),
            ticket: wanted.ticket.clone(),
            expires_at: waits_until(now),
            state: ApprovalState::Pending,
            decision: None,
        };
        self.put_approval(&approval)?;
        self.heads.approvals = id.get();
        self.heads.approvals_kept += 1;
        let facts = Facts {
            reason: Some(wanted.reason.clone()),
            user: wanted.user.clone(),
            ticket: wanted.ticket.clone(),
            ..about(&approval, String::new())
        };
        self.record(context, AuditAction::ApprovalRequest, AuditOutcome::Ok, facts);
        self.remember(context, Remembered::Approval(id))?;
        Ok(Accepted::ApprovalRequested { id, expires_at: approval.expires_at })
    }

    /// Somebody else decides. Until it is used an approval may still be taken back, and whoever asked may take the request back.
    pub(super) fn decide_approval(
        &mut self,
        context: &Context<'_>,
        decide: &DecideApproval,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ApproveDisclosures)? {
            return Ok(accepted);
        }
        let found = approval_from(&self.txn, decide.approval)?;
        let approval = found.ok_or(Rejection::UnknownApproval(decide.approval))?;
        let permitted = self.permitted(context, Right::ApproveDisclosures)?;
        self.check_reach(&permitted, approval.device)?;
        let actor = &context.command.actor;
        if decide.approve && approval.requester == *actor {
            return Err(Rejection::SecondPersonRequired.into());
        }
        let now = self.heads.time;
        let open = match approval.state {
            ApprovalState::Pending => true,
            ApprovalState::Approved => !decide.approve,
            ApprovalState::Denied | ApprovalState::Used { .. } => false,
        };
        if !open {
            return Err(Rejection::ApprovalUnusable(Unusable::Decided).into());
        }
        if now >= approval.expires_at {
            return Err(Rejection::ApprovalExpired(approval.expires_at).into());
        }
        let (state, expires_at) = if decide.approve {
            (ApprovalState::Approved, self.approved_until()?)
        } else {
            (ApprovalState::Denied, approval.expires_at)
        };
        let decision = Decision { by: actor.clone(), at: now, reason: decide.reason.clone() };
        let approval = Approval { state, expires_at, decision: Some(decision), ..approval };
        self.put_approval(&approval)?;
        let action = action_of_decision(decide);
        let facts = about(&approval, said(&decide.reason));
        self.record(context, action, AuditOutcome::Ok, facts);
        self.remember(context, Remembered::GrantedChanged(true))?;
        Ok(Accepted::Granted { changed: true })
    }

    /// An approval, as it is once it is used by this command for this key. It is written with the disclosure, in the same
    /// entry as the audit record, so that no other disclosure finds it unused.
    pub(super) fn use_approval(
        &self,
        context: &Context<'_>,
        id: ApprovalId,
        key: KeyRef,
    ) -> Ruled<Approval> {
        let approval = approval_from(&self.txn, id)?.ok_or(Rejection::UnknownApproval(id))?;
        let unusable = |why| Err(Rejection::ApprovalUnusable(why).into());
        if approval.requester != context.command.actor || approval.key != key {
            return unusable(Unusable::Mismatch);
        }
        match approval.state {
            ApprovalState::Approved => {}
            ApprovalState::Pending => return unusable(Unusable::Pending),
            ApprovalState::Denied => return unusable(Unusable::Denied),
            ApprovalState::Used { .. } => return unusable(Unusable::Used),
        }
        let now = self.heads.time;
        if now >= approval.expires_at {
            return Err(Rejection::ApprovalExpired(approval.expires_at).into());
        }
        if let Some(decision) = &approval.decision {
            self.check_approver(&decision.by, approval.device)?;
        }
        Ok(Approval { state: ApprovalState::Used { at: now }, ..approval })
    }

    /// A stale permit is no permit: whoever has lost the role since, or the device out of reach, or is denied, has approved
    /// nothing.
    fn check_approver(&self, approver: &Actor, device: DeviceId) -> Ruled<()> {
        let reach = match approver {
            Actor::Operator(name) => {
                granted_from(&self.txn, name)?.reach(Right::ApproveDisclosures)
            }
            // A provider said so when it was given. What it says now nobody here can know: only a denial takes it back.
            Actor::Oidc(_) => Some(Reach::ALL),
            Actor::Agent(_) | Actor::Node(_) => None,
        };
        let groups = groups_from(&self.txn, device)?;
        let may = reach.is_some_and(|reach| reach.covers(&groups));
        if may && !self.is_denied(approver, None)? {
            Ok(())
        } else {
            Err(Rejection::ApproverRevoked(approver.clone()).into())
        }
    }

    pub(super) fn put_approval(&mut self, approval: &Approval) -> Result<(), StoreError> {
        let value = codec::encode_approval(approval);
        self.txn.put(Table::Approvals, &keys::approval(approval.id), value)
    }

    /// Until when what is approved now may be used.
    fn approved_until(&self) -> Result<Timestamp, StoreError> {
        let policy = policy_from(&self.txn)?.map(|record| record.policy).unwrap_or_default();
        let until = self.heads.time.as_millis().saturating_add(policy.approval_ms());
        Ok(Timestamp::from_millis(until))
    }

    /// Refuses a requester who has asked for too much, and forgets what is over where there is no room.
    fn make_room_for_approval(&mut self, requester: &Actor) -> Ruled<()> {
        let now = self.heads.time;
        let all = all_approvals(&self.txn)?;
        let own = all.iter().filter(|of| of.requester == *requester && of.is_open(now)).count();
        if own >= limits::REQUESTER_APPROVALS {
            let most = u64::try_from(own).unwrap_or(u64::MAX);
            return Err(Rejection::TooManyApprovals(most).into());
        }
        if self.heads.approvals_kept < limits::APPROVALS {
            return Ok(());
        }
        let (open, over): (Vec<_>, Vec<_>) = all.into_iter().partition(|of| of.is_open(now));
        if over.is_empty() {
            let most = u64::try_from(open.len()).unwrap_or(u64::MAX);
            return Err(Rejection::TooManyApprovals(most).into());
        }
        for approval in over {
            self.txn.remove(Table::Approvals, &keys::approval(approval.id))?;
            self.heads.approvals_kept = self.heads.approvals_kept.saturating_sub(1);
        }
        Ok(())
    }
}

/// What a decision is called in the audit chain.
pub(super) const fn action_of_decision(decide: &DecideApproval) -> AuditAction {
    if decide.approve { AuditAction::ApprovalGrant } else { AuditAction::ApprovalDeny }
}

fn waits_until(asked_at: Timestamp) -> Timestamp {
    Timestamp::from_millis(asked_at.as_millis().saturating_add(limits::APPROVAL_REQUEST_MS))
}

fn said(reason: &Text) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// What a record says of an approval: its key, its number, and who asked.
fn about(approval: &Approval, more: String) -> Facts {
    Facts {
        device: Some(approval.device),
        volume: Some(approval.volume),
        protector: Some(approval.key.protector),
        version: approval.key.version,
        detail: words(format!("approval {} for {}{more}", approval.id, approval.requester)),
        ..Facts::default()
    }
}
