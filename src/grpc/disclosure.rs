//! `holdfast.v1.DisclosureService`.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_proto::v1;
use holdfast_proto::v1::disclosure_service_server::DisclosureService as Api;
use tonic::{Request, Response, Status};

use crate::auth::Action;
use crate::domain::{
    Actor, ApprovalId, DisclosurePolicy, FieldError, GroupName, KeyVersion, PolicyParts, RequestId,
    Timestamp, limits,
};
use crate::service::{
    Consensus, DisclosureService, DisclosureStatus, Granted, Requested, ServiceError,
};
use crate::state::{
    Approval, ApprovalState, DecideApproval, MassRecovery, Position, ProposeMassRecovery,
    RequestApproval, SetDisclosurePolicy,
};

use super::gate::Gate;
use super::page::{self, Budget};
use super::{decode, encode};

/// Serves those who bound disclosures, and those who are bounded.
pub(super) struct DisclosureApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: DisclosureService<C>,
}

impl<C: Consensus> DisclosureApi<C> {
    async fn request(
        &self,
        request: Request<v1::RequestApprovalRequest>,
    ) -> Result<Requested, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, wanted) = decode_request(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::RequestApproval)?;
        self.service.request(&permit, id, wanted).await
    }

    async fn decide(
        &self,
        request: Request<v1::DecideApprovalRequest>,
    ) -> Result<(Option<Timestamp>, Position), ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, decide) = decode_decide(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::DecideApproval)?;
        self.service.decide(&permit, id, decide).await
    }

    async fn list(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<v1::ListApprovalsResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let size = decode::page_size(request.page_size)?;
        let after = page::approval_of(&request.page_token)?;
        let permit = self.gate.permit(&caller, Action::ListApprovals)?;
        // One more than wanted shows whether a page follows.
        let found = self.service.approvals(&permit, after, size.saturating_add(1)).await?;
        Ok(encode_page(&found, size))
    }

    async fn status(
        &self,
        request: Request<v1::GetDisclosureStatusRequest>,
    ) -> Result<DisclosureStatus, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let permit = self.gate.permit(&caller, Action::GetDisclosureStatus)?;
        self.service.status(&permit).await
    }

    async fn set(
        &self,
        request: Request<v1::SetDisclosurePolicyRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, set) = decode_policy(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::SetDisclosurePolicy)?;
        self.service.set_policy(&permit, id, set).await
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeMassRecoveryRequest>,
    ) -> Result<(u64, Position), ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, propose) = decode_propose(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::ProposeMassRecovery)?;
        self.service.propose_mass_recovery(&permit, id, propose).await
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmMassRecoveryRequest>,
    ) -> Result<(Timestamp, Position), ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let (id, number) = decode_numbered(&request.request_id, request.number)?;
        let permit = self.gate.permit(&caller, Action::ConfirmMassRecovery)?;
        self.service.confirm_mass_recovery(&permit, id, number).await
    }

    async fn end(
        &self,
        request: Request<v1::EndMassRecoveryRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let (id, number) = decode_numbered(&request.request_id, request.number)?;
        let permit = self.gate.permit(&caller, Action::EndMassRecovery)?;
        self.service.end_mass_recovery(&permit, id, number).await
    }
}

#[tonic::async_trait]
impl<C: Consensus> Api for DisclosureApi<C> {
    async fn request_approval(
        &self,
        request: Request<v1::RequestApprovalRequest>,
    ) -> Result<Response<v1::RequestApprovalResponse>, Status> {
        let made = self.request(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::RequestApprovalResponse {
            approval_id: made.id.get(),
            expires_at_ms: made.expires_at.as_millis(),
            position: Some(encode::position(made.position)),
        }))
    }

    async fn decide_approval(
        &self,
        request: Request<v1::DecideApprovalRequest>,
    ) -> Result<Response<v1::DecideApprovalResponse>, Status> {
        let decided = self.decide(request).await.map_err(|error| self.gate.status(error))?;
        let (until, position) = decided;
        let (expires_at_ms, position) = (encode::millis(until), Some(encode::position(position)));
        Ok(Response::new(v1::DecideApprovalResponse { expires_at_ms, position }))
    }

    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        self.list(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }

    async fn get_disclosure_status(
        &self,
        request: Request<v1::GetDisclosureStatusRequest>,
    ) -> Result<Response<v1::GetDisclosureStatusResponse>, Status> {
        let status = self.status(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(encode_status(&status)))
    }

    async fn set_disclosure_policy(
        &self,
        request: Request<v1::SetDisclosurePolicyRequest>,
    ) -> Result<Response<v1::SetDisclosurePolicyResponse>, Status> {
        let done = self.set(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::SetDisclosurePolicyResponse { changed: done.changed, position }))
    }

    async fn propose_mass_recovery(
        &self,
        request: Request<v1::ProposeMassRecoveryRequest>,
    ) -> Result<Response<v1::ProposeMassRecoveryResponse>, Status> {
        let proposed = self.propose(request).await.map_err(|error| self.gate.status(error))?;
        let (number, position) = (proposed.0, Some(encode::position(proposed.1)));
        Ok(Response::new(v1::ProposeMassRecoveryResponse { number, position }))
    }

    async fn confirm_mass_recovery(
        &self,
        request: Request<v1::ConfirmMassRecoveryRequest>,
    ) -> Result<Response<v1::ConfirmMassRecoveryResponse>, Status> {
        let confirmed = self.confirm(request).await.map_err(|error| self.gate.status(error))?;
        let (until_ms, position) = (confirmed.0.as_millis(), Some(encode::position(confirmed.1)));
        Ok(Response::new(v1::ConfirmMassRecoveryResponse { until_ms, position }))
    }

    async fn end_mass_recovery(
        &self,
        request: Request<v1::EndMassRecoveryRequest>,
    ) -> Result<Response<v1::EndMassRecoveryResponse>, Status> {
        let done = self.end(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::EndMassRecoveryResponse { position }))
    }
}

pub(super) fn decode_request(
    request: v1::RequestApprovalRequest,
) -> Result<(RequestId, RequestApproval), FieldError> {
    let request_id = decode::request_id(&request.request_id)?;
    let wanted = RequestApproval {
        protector: decode::id("protector_id", &request.protector_id)?,
        version: KeyVersion::new(request.version),
        reason: decode::reason(request.reason)?,
        user: request.user.map(|user| decode::user("user", user)).transpose()?,
        ticket: decode::name("ticket", request.ticket)?,
    };
    Ok((request_id, wanted))
}

pub(super) fn decode_decide(
    request: v1::DecideApprovalRequest,
) -> Result<(RequestId, DecideApproval), FieldError> {
    let request_id = decode::request_id(&request.request_id)?;
    let decide = DecideApproval {
        approval: ApprovalId::new(request.approval_id)?,
        approve: request.approve,
        reason: decode::name("reason", request.reason)?,
    };
    Ok((request_id, decide))
}

pub(super) fn decode_policy(
    request: v1::SetDisclosurePolicyRequest,
) -> Result<(RequestId, SetDisclosurePolicy), FieldError> {
    let request_id = decode::request_id(&request.request_id)?;
    let policy = decode::present("policy", request.policy)?;
    let named = "policy.dual_control_groups";
    // Before they become a set, in which what comes twice is one.
    decode::at_most(named, &policy.dual_control_groups, limits::DUAL_CONTROL_GROUPS)?;
    let groups = policy.dual_control_groups.iter().enumerate();
    let groups: BTreeSet<GroupName> = groups
        .map(|(i, name)| decode::id(format!("{named}[{i}]"), name))
        .collect::<Result<_, _>>()?;
    let parts = PolicyParts {
        requester_hour: policy.requester_per_hour,
        requester_day: policy.requester_per_day,
        cluster_hour: policy.cluster_per_hour,
        approval_ms: policy.approval_ms,
        dual_control: groups,
    };
    let policy = DisclosurePolicy::new(parts).map_err(|error| {
        let field = format!("policy.{}", error.field);
        FieldError::new(field, error.what)
    })?;
    Ok((request_id, SetDisclosurePolicy { revision: request.revision, policy }))
}

pub(super) fn decode_propose(
    request: v1::ProposeMassRecoveryRequest,
) -> Result<(RequestId, ProposeMassRecovery), FieldError> {
    let request_id = decode::request_id(&request.request_id)?;
    if !limits::MASS_RECOVERY_MS.contains(&request.duration_ms) {
        return Err(FieldError::new("duration_ms", "must be from five minutes to 24 hours"));
    }
    let reason = decode::name("reason", request.reason)?;
    if reason.is_empty() {
        return Err(FieldError::new("reason", "must not be empty"));
    }
    Ok((request_id, ProposeMassRecovery { duration_ms: request.duration_ms, reason }))
}

/// The number of a mass recovery.
pub(super) fn decode_numbered(
    request_id: &str,
    number: u64,
) -> Result<(RequestId, u64), FieldError> {
    let request_id = decode::request_id(request_id)?;
    if number == 0 {
        return Err(FieldError::new("number", "must be 1 or more"));
    }
    Ok((request_id, number))
}

fn encode_page(found: &[Approval], size: usize) -> v1::ListApprovalsResponse {
    let mut budget = Budget::default();
    let approvals: Vec<_> = found
        .iter()
        .take(size)
        .map(encode_approval)
        .take_while(|approval| budget.takes(approval))
        .collect();
    let last = approvals.len().checked_sub(1).and_then(|last| found.get(last));
    let more = approvals.len() < found.len();
    let next = last.filter(|_| more).map(|approval| page::token_after_approval(approval.id));
    v1::ListApprovalsResponse { approvals, next_page_token: next.unwrap_or_default() }
}

fn encode_approval(approval: &Approval) -> v1::Approval {
    use v1::ApprovalState as State;
    let (state, used_at) = match approval.state {
        ApprovalState::Pending => (State::Pending, None),
        ApprovalState::Approved => (State::Approved, None),
        ApprovalState::Denied => (State::Denied, None),
        ApprovalState::Used { at } => (State::Used, Some(at)),
    };
    let decision = approval.decision.as_ref();
    v1::Approval {
        approval_id: approval.id.get(),
        protector_id: approval.key.protector.to_string(),
        version: approval.key.version.get(),
        device_id: approval.device.to_string(),
        volume_id: approval.volume.to_string(),
        requester: approval.requester.to_string(),
        requested_at_ms: approval.requested_at.as_millis(),
        reason: Some(v1::Reason {
            code: approval.reason.code().to_owned(),
            text: approval.reason.text().to_owned(),
        }),
        user: approval.user.as_ref().map(encode::user),
        ticket: approval.ticket.to_string(),
        state: state.into(),
        expires_at_ms: approval.expires_at.as_millis(),
        decided_by: decision.map(|decision| decision.by.to_string()).unwrap_or_default(),
        decided_at_ms: encode::millis(decision.map(|decision| decision.at)),
        decision: decision.map(|decision| decision.reason.to_string()).unwrap_or_default(),
        used_at_ms: encode::millis(used_at),
    }
}

fn encode_status(status: &DisclosureStatus) -> v1::GetDisclosureStatusResponse {
    let record = status.policy.as_ref();
    v1::GetDisclosureStatusResponse {
        policy: record.map(|record| encode_policy(&record.policy)),
        revision: record.map_or(0, |record| record.revision),
        set_by: record.map(|record| record.set_by.to_string()).unwrap_or_default(),
        set_at_ms: encode::millis(record.map(|record| record.set_at)),
        mass_recovery: status.mass_recovery.as_ref().map(encode_mass_recovery),
        time_ms: status.time.as_millis(),
    }
}

fn encode_policy(policy: &DisclosurePolicy) -> v1::DisclosurePolicy {
    let parts = policy.parts();
    v1::DisclosurePolicy {
        requester_per_hour: parts.requester_hour,
        requester_per_day: parts.requester_day,
        cluster_per_hour: parts.cluster_hour,
        approval_ms: parts.approval_ms,
        dual_control_groups: parts.dual_control.iter().map(ToString::to_string).collect(),
    }
}

fn encode_mass_recovery(recovery: &MassRecovery) -> v1::MassRecovery {
    let who = |done: &Option<(Actor, Timestamp)>| {
        done.as_ref().map(|(by, _)| by.to_string()).unwrap_or_default()
    };
    let when = |done: &Option<(Actor, Timestamp)>| encode::millis(done.as_ref().map(|(_, at)| *at));
    let proposed_at_ms = recovery.proposed_at.as_millis();
    v1::MassRecovery {
        number: recovery.number,
        duration_ms: recovery.duration_ms,
        reason: recovery.reason.to_string(),
        proposed_by: recovery.proposed_by.to_string(),
        proposed_at_ms,
        proposal_expires_at_ms: proposed_at_ms.saturating_add(limits::MASS_RECOVERY_PROPOSAL_MS),
        confirmed_by: who(&recovery.confirmed),
        confirmed_at_ms: when(&recovery.confirmed),
        until_ms: encode::millis(recovery.until()),
        ended_by: who(&recovery.ended),
        ended_at_ms: when(&recovery.ended),
    }
}
