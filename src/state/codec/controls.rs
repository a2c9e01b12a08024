//! What bounds disclosures: its commands, and the records of its tables.

use bytes::Bytes;
use holdfast_proto::store::v1 as pb;

use super::common::*;
use super::{CodecError, decode, encode, required};
use crate::domain::{
    Actor, ApprovalId, DeviceId, DisclosurePolicy, FieldError, GroupName, KeyVersion, PolicyParts,
    ProtectorId, Text, Timestamp, VolumeId,
};
use crate::state::records::{
    Approval, ApprovalState, Decision, MassRecovery, PolicyRecord, Tallies, Tally,
};
use crate::state::{
    DecideApproval, Disclose, ProposeMassRecovery, RequestApproval, SetDisclosurePolicy,
};

pub(super) fn disclose_to(disclose: &Disclose) -> pb::Disclose {
    pb::Disclose {
        protector_id: id(disclose.protector.as_bytes()),
        version: disclose.version.get(),
        reason: Some(reason_to(&disclose.reason)),
        user: disclose.user.as_ref().map(user_to),
        ticket: owned(&disclose.ticket),
        approval: disclose.approval.map_or(0, ApprovalId::get),
    }
}

pub(super) fn disclose_from(disclose: pb::Disclose) -> Result<Disclose, CodecError> {
    Ok(Disclose {
        protector: ProtectorId::from_slice(&disclose.protector_id)?,
        version: KeyVersion::new(disclose.version),
        reason: reason_from(required(disclose.reason, "reason")?)?,
        user: disclose.user.map(user_from).transpose()?,
        ticket: Text::name("ticket", disclose.ticket)?,
        approval: match disclose.approval {
            0 => None,
            number => Some(ApprovalId::new(number)?),
        },
    })
}

pub(super) fn policy_to(policy: &DisclosurePolicy) -> pb::DisclosurePolicy {
    let parts = policy.parts();
    pb::DisclosurePolicy {
        requester_per_hour: parts.requester_hour,
        requester_per_day: parts.requester_day,
        cluster_per_hour: parts.cluster_hour,
        approval_ms: parts.approval_ms,
        dual_control_groups: parts.dual_control.iter().map(GroupName::to_string).collect(),
    }
}

pub(super) fn policy_from(policy: pb::DisclosurePolicy) -> Result<DisclosurePolicy, CodecError> {
    let groups = policy.dual_control_groups.iter().map(|name| name.parse());
    Ok(DisclosurePolicy::new(PolicyParts {
        requester_hour: policy.requester_per_hour,
        requester_day: policy.requester_per_day,
        cluster_hour: policy.cluster_per_hour,
        approval_ms: policy.approval_ms,
        dual_control: groups.collect::<Result<_, FieldError>>()?,
    })?)
}

pub(super) fn set_policy_to(set: &SetDisclosurePolicy) -> pb::SetDisclosurePolicy {
    pb::SetDisclosurePolicy { revision: set.revision, policy: Some(policy_to(&set.policy)) }
}

pub(super) fn set_policy_from(
    set: pb::SetDisclosurePolicy,
) -> Result<SetDisclosurePolicy, CodecError> {
    let policy = policy_from(required(set.policy, "policy")?)?;
    Ok(SetDisclosurePolicy { revision: set.revision, policy })
}

pub(super) fn request_approval_to(request: &RequestApproval) -> pb::RequestApproval {
    pb::RequestApproval {
        protector_id: id(request.protector.as_bytes()),
        version: request.version.get(),
        reason: Some(reason_to(&request.reason)),
        user: request.user.as_ref().map(user_to),
        ticket: owned(&request.ticket),
    }
}

pub(super) fn request_approval_from(
    request: pb::RequestApproval,
) -> Result<RequestApproval, CodecError> {
    Ok(RequestApproval {
        protector: ProtectorId::from_slice(&request.protector_id)?,
        version: KeyVersion::new(request.version),
        reason: reason_from(required(request.reason, "reason")?)?,
        user: request.user.map(user_from).transpose()?,
        ticket: Text::name("ticket", request.ticket)?,
    })
}

pub(super) fn decide_to(decide: &DecideApproval) -> pb::DecideApproval {
    pb::DecideApproval {
        approval: decide.approval.get(),
        approve: decide.approve,
        reason: owned(&decide.reason),
    }
}

pub(super) fn decide_from(decide: pb::DecideApproval) -> Result<DecideApproval, CodecError> {
    Ok(DecideApproval {
        approval: ApprovalId::new(decide.approval)?,
        approve: decide.approve,
        reason: Text::name("reason", decide.reason)?,
    })
}

pub(super) fn propose_to(propose: &ProposeMassRecovery) -> pb::ProposeMassRecovery {
    pb::ProposeMassRecovery { duration_ms: propose.duration_ms, reason: owned(&propose.reason) }
}

pub(super) fn propose_from(
    propose: pb::ProposeMassRecovery,
) -> Result<ProposeMassRecovery, CodecError> {
    let reason = Text::name("reason", propose.reason)?;
    Ok(ProposeMassRecovery { duration_ms: propose.duration_ms, reason })
}

pub(in crate::state) fn encode_approval(approval: &Approval) -> Bytes {
    use pb::ApprovalState as State;
    let (state, used_at) = match approval.state {
        ApprovalState::Pending => (State::Pending, 0),
        ApprovalState::Approved => (State::Approved, 0),
        ApprovalState::Denied => (State::Denied, 0),
        ApprovalState::Used { at } => (State::Used, at.as_millis()),
    };
    let decision = approval.decision.as_ref();
    encode(&pb::Approval {
        key: Some(key_ref_to(approval.key)),
        device_id: id(approval.device.as_bytes()),
        volume_id: id(approval.volume.as_bytes()),
        requester: Some(actor_to(&approval.requester)),
        requested_at_ms: approval.requested_at.as_millis(),
        reason: Some(reason_to(&approval.reason)),
        user: approval.user.as_ref().map(user_to),
        ticket: owned(&approval.ticket),
        expires_at_ms: approval.expires_at.as_millis(),
        state: state.into(),
        decided_by: decision.map(|decision| actor_to(&decision.by)),
        decided_at_ms: decision.map_or(0, |decision| decision.at.as_millis()),
        decision: decision.map_or_else(String::new, |decision| owned(&decision.reason)),
        used_at_ms: used_at,
    })
}

/// Number of a request for approval, from its key.
fn approval_id(key: &[u8]) -> Result<ApprovalId, CodecError> {
    let eight = key.try_into().map_err(|_| FieldError::new("approval", "must have 8 bytes"))?;
    Ok(ApprovalId::new(u64::from_be_bytes(eight))?)
}

pub(in crate::state) fn decode_approval(key: &[u8], value: &Bytes) -> Result<Approval, CodecError> {
    use pb::ApprovalState as State;
    let approval: pb::Approval = decode(value)?;
    let (field, unknown) = ("state", approval.state);
    let state = match State::try_from(approval.state) {
        Ok(State::Pending) => ApprovalState::Pending,
        Ok(State::Approved) => ApprovalState::Approved,
        Ok(State::Denied) => ApprovalState::Denied,
        Ok(State::Used) => ApprovalState::Used { at: time(approval.used_at_ms) },
        Ok(State::Unspecified) | Err(_) => {
            return Err(CodecError::UnknownEnum { field, value: unknown });
        }
    };
    let decision = match approval.decided_by {
        None => None,
        Some(by) => Some(Decision {
            by: actor_from(Some(by))?,
            at: time(approval.decided_at_ms),
            reason: Text::name("decision", approval.decision)?,
        }),
    };
    Ok(Approval {
        id: approval_id(key)?,
        key: key_ref_from(&required(approval.key, "key")?)?,
        device: DeviceId::from_slice(&approval.device_id)?,
        volume: VolumeId::from_slice(&approval.volume_id)?,
        requester: actor_from(approval.requester)?,
        requested_at: time(approval.requested_at_ms),
        reason: reason_from(required(approval.reason, "reason")?)?,
        user: approval.user.map(user_from).transpose()?,
        ticket: Text::name("ticket", approval.ticket)?,
        expires_at: time(approval.expires_at_ms),
        state,
        decision,
    })
}

pub(in crate::state) fn encode_policy(record: &PolicyRecord) -> Bytes {
    encode(&pb::PolicyRecord {
        revision: record.revision,
        policy: Some(policy_to(&record.policy)),
        set_by: Some(actor_to(&record.set_by)),
        set_at_ms: record.set_at.as_millis(),
    })
}

pub(in crate::state) fn decode_policy(value: &Bytes) -> Result<PolicyRecord, CodecError> {
    let record: pb::PolicyRecord = decode(value)?;
    if record.revision == u64::MAX {
        return Err(FieldError::new("revision", "is more than any state comes to").into());
    }
    Ok(PolicyRecord {
        revision: record.revision,
        policy: policy_from(required(record.policy, "policy")?)?,
        set_by: actor_from(record.set_by)?,
        set_at: time(record.set_at_ms),
    })
}

/// Who did something and when, if anybody did.
fn done_to(done: Option<&(Actor, Timestamp)>) -> (Option<pb::Actor>, u64) {
    let (by, at) = done.map(|(by, at)| (actor_to(by), at.as_millis())).unzip();
    (by, at.unwrap_or_default())
}

fn done_from(by: Option<pb::Actor>, at: u64) -> Result<Option<(Actor, Timestamp)>, CodecError> {
    by.map(|by| Ok((actor_from(Some(by))?, time(at)))).transpose()
}

pub(in crate::state) fn encode_mass_recovery(recovery: &MassRecovery) -> Bytes {
    let (confirmed_by, confirmed_at_ms) = done_to(recovery.confirmed.as_ref());
    let (ended_by, ended_at_ms) = done_to(recovery.ended.as_ref());
    encode(&pb::MassRecovery {
        number: recovery.number,
        duration_ms: recovery.duration_ms,
        reason: owned(&recovery.reason),
        proposed_by: Some(actor_to(&recovery.proposed_by)),
        proposed_at_ms: recovery.proposed_at.as_millis(),
        confirmed_by,
        confirmed_at_ms,
        ended_by,
        ended_at_ms,
    })
}

pub(in crate::state) fn decode_mass_recovery(value: &Bytes) -> Result<MassRecovery, CodecError> {
    let recovery: pb::MassRecovery = decode(value)?;
    Ok(MassRecovery {
        number: recovery.number,
        duration_ms: recovery.duration_ms,
        reason: Text::name("reason", recovery.reason)?,
        proposed_by: actor_from(recovery.proposed_by)?,
        proposed_at: time(recovery.proposed_at_ms),
        confirmed: done_from(recovery.confirmed_by, recovery.confirmed_at_ms)?,
        ended: done_from(recovery.ended_by, recovery.ended_at_ms)?,
    })
}

fn tally_to(tally: &Tally) -> Vec<pb::Tally> {
    tally.0.iter().map(|(span, count)| pb::Tally { span: *span, count: *count }).collect()
}

fn tally_from(tallies: Vec<pb::Tally>) -> Result<Tally, CodecError> {
    let tally: Vec<_> = tallies.into_iter().map(|tally| (tally.span, tally.count)).collect();
    if tally.is_sorted_by(|(a, _), (b, _)| a < b) {
        Ok(Tally(tally))
    } else {
        Err(FieldError::new("span", "must be greater than the one before").into())
    }
}

pub(in crate::state) fn encode_tallies(tallies: &Tallies) -> Bytes {
    encode(&pb::Tallies { minutes: tally_to(&tallies.minutes), hours: tally_to(&tallies.hours) })
}

pub(in crate::state) fn decode_tallies(value: &Bytes) -> Result<Tallies, CodecError> {
    let tallies: pb::Tallies = decode(value)?;
    Ok(Tallies { minutes: tally_from(tallies.minutes)?, hours: tally_from(tallies.hours)? })
}
