//! Records of the tables. What a record's key says is not repeated in its value.

use bytes::Bytes;
use holdfast_proto::store::v1 as pb;

use super::command::{epoch_from, epoch_to, share_set_from, share_set_to, signer_from, signer_to};
use super::common::*;
use super::groups::{names_to, reach_from};
use super::{CodecError, decode, encode, required};
use crate::domain::{
    ApprovalId, AuditOutcome, AuditRecord, ClusterId, DeviceId, FieldError, KeyVersion, NodeId,
    OperatorName, ProtectorId, RequestId, Role, Sealed, ShareSet, Text, VolumeId,
};
use crate::state::records::{
    Denial, Device, Grant, KeyRecord, Quota, Remembered, RequestRecord, Seal, Volume, keys,
};
use crate::state::{Digest, EpochRecord, Heads, Signer};

/// More than any count of a state: a damaged one may say so.
const MOST: u64 = u64::MAX / 2;

pub(in crate::state) fn encode_heads(heads: &Heads) -> Bytes {
    encode(&pb::Heads {
        position: heads.position.map(position_to),
        membership: heads.membership.clone(),
        time_ms: heads.time.as_millis(),
        audit: Some(audit_to(&heads.audit)),
        requests_start: heads.requests.start,
        requests_end: heads.requests.end,
        sum: Bytes::copy_from_slice(&heads.sum.to_bytes()),
        records: heads.records,
        cluster_id: heads.cluster.as_ref().map_or_else(Bytes::new, |c| id(c.as_bytes())),
        members: heads.members.iter().map(|node| node.get()).collect(),
        removed: heads.removed.iter().map(|node| node.get()).collect(),
        denials: heads.denials,
        denial_changes: heads.denial_changes,
        seals: heads.seals,
        sealed: heads.sealed,
        tokens: heads.tokens,
        enrolled: heads.enrolled,
        enrolled_again: heads.enrolled_again,
        approvals: heads.approvals,
        approvals_kept: heads.approvals_kept,
        mass_recoveries: heads.mass_recoveries,
        mass_recovery_until_ms: heads.mass_recovery_until.as_millis(),
    })
}

pub(in crate::state) fn decode_heads(bytes: &[u8]) -> Result<Heads, CodecError> {
    let heads: pb::Heads = decode(&Bytes::copy_from_slice(bytes))?;
    if heads.requests_start > heads.requests_end {
        return Err(FieldError::new("requests_start", "is after requests_end").into());
    }
    let audit = audit_from(&required(heads.audit, "audit")?)?;
    // One more must always fit.
    for (field, count) in [
        ("audit.sequence", audit.sequence),
        ("requests_end", heads.requests_end),
        ("records", heads.records),
        ("denials", heads.denials),
        ("denial_changes", heads.denial_changes),
        ("approvals", heads.approvals),
        ("approvals_kept", heads.approvals_kept),
        ("mass_recoveries", heads.mass_recoveries),
    ] {
        if count > MOST {
            return Err(FieldError::new(field, "is more than any state comes to").into());
        }
    }
    Ok(Heads {
        position: heads.position.map(position_from),
        membership: heads.membership,
        time: time(heads.time_ms),
        audit,
        requests: heads.requests_start..heads.requests_end,
        sum: Digest::from_bytes(&digest("sum", &heads.sum)?),
        records: heads.records,
        cluster: optional_id(&heads.cluster_id, ClusterId::from_slice)?,
        members: heads.members.into_iter().map(NodeId::new).collect(),
        removed: heads.removed.into_iter().map(NodeId::new).collect(),
        denials: heads.denials,
        denial_changes: heads.denial_changes,
        seals: heads.seals,
        sealed: heads.sealed,
        tokens: heads.tokens,
        enrolled: heads.enrolled,
        enrolled_again: heads.enrolled_again,
        approvals: heads.approvals,
        approvals_kept: heads.approvals_kept,
        mass_recoveries: heads.mass_recoveries,
        mass_recovery_until: time(heads.mass_recovery_until_ms),
    })
}

pub(in crate::state) fn encode_device(device: &Device) -> Bytes {
    encode(&pb::Device {
        host_name: owned(&device.host_name),
        operating_system: owned(&device.operating_system),
        manufacturer: owned(&device.manufacturer),
        model: owned(&device.model),
        users: users_to(&device.users),
        volumes: device.volumes.iter().map(volume_to).collect(),
        first_seen_ms: device.first_seen.as_millis(),
        last_contact_ms: device.last_contact.as_millis(),
    })
}

pub(in crate::state) fn decode_device(key: &[u8], value: &Bytes) -> Result<Device, CodecError> {
    let device: pb::Device = decode(value)?;
    Ok(Device {
        id: DeviceId::from_slice(key)?,
        host_name: Text::name("host_name", device.host_name)?,
        operating_system: Text::name("operating_system", device.operating_system)?,
        manufacturer: Text::name("manufacturer", device.manufacturer)?,
        model: Text::name("model", device.model)?,
        users: users_from(device.users)?,
        volumes: device.volumes.into_iter().map(volume_from).collect::<Result<_, _>>()?,
        first_seen: time(device.first_seen_ms),
        last_contact: time(device.last_contact_ms),
    })
}

fn volume_to(volume: &Volume) -> pb::Volume {
    pb::Volume {
        volume_id: id(volume.id.as_bytes()),
        kind: volume_kind_to(volume.kind),
        key: volume.key.map(key_ref_to),
        rotation_due: volume.rotation_due,
        compliance: volume.compliance.as_ref().map(|(report, _)| compliance_to(report)),
        reported_at_ms: volume.compliance.as_ref().map_or(0, |(_, at)| at.as_millis()),
    }
}

fn volume_from(volume: pb::Volume) -> Result<Volume, CodecError> {
    let reported_at = time(volume.reported_at_ms);
    let compliance = volume.compliance.map(compliance_from).transpose()?;
    Ok(Volume {
        id: VolumeId::from_slice(&volume.volume_id)?,
        kind: volume_kind_from(volume.kind)?,
        key: volume.key.as_ref().map(key_ref_from).transpose()?,
        rotation_due: volume.rotation_due,
        compliance: compliance.map(|report| (report, reported_at)),
    })
}

pub(in crate::state) fn encode_key(key: &KeyRecord) -> Bytes {
    encode(&pb::Key {
        device_id: id(key.device.as_bytes()),
        volume_id: id(key.volume.as_bytes()),
        protector_kind: protector_kind_to(key.protector_kind),
        volume_kind: volume_kind_to(key.volume_kind),
        sealed: Some(sealed_to(&key.sealed)),
        has_package: key.has_package,
        sealed_digest: Bytes::copy_from_slice(&key.sealed_digest),
        position: Some(position_to(key.position)),
        audit: Some(audit_to(&key.audit)),
        escrowed_at_ms: key.escrowed_at.as_millis(),
        request_id: id(key.request_id.as_bytes()),
        disclosed_at_ms: key.disclosed_at.map(|at| at.as_millis()),
        disclosed_superseded: key.disclosed_superseded,
        previous: key.previous.map(key_ref_to),
        imported_by: importer_to(key.imported_by.as_ref()),
    })
}

pub(in crate::state) fn decode_key(key: &[u8], value: &Bytes) -> Result<KeyRecord, CodecError> {
    let at = keys::key_ref(key).ok_or(CodecError::Missing("protector_id and version"))?;
    let key: pb::Key = decode(value)?;
    Ok(KeyRecord {
        at,
        device: DeviceId::from_slice(&key.device_id)?,
        volume: VolumeId::from_slice(&key.volume_id)?,
        protector_kind: protector_kind_from(key.protector_kind)?,
        volume_kind: volume_kind_from(key.volume_kind)?,
        sealed: sealed_key_from(required(key.sealed, "sealed")?)?,
        has_package: key.has_package,
        sealed_digest: digest("sealed_digest", &key.sealed_digest)?,
        position: position_from(required(key.position, "position")?),
        audit: audit_from(&required(key.audit, "audit")?)?,
        escrowed_at: time(key.escrowed_at_ms),
        request_id: RequestId::from_slice(&key.request_id)?,
        disclosed_at: key.disclosed_at_ms.map(time),
        disclosed_superseded: key.disclosed_superseded,
        previous: key.previous.as_ref().map(key_ref_from).transpose()?,
        imported_by: importer_from(&key.imported_by)?,
    })
}

pub(in crate::state) fn encode_package(package: &Sealed) -> Bytes {
    encode(&sealed_to(package))
}

pub(in crate::state) fn decode_package(value: &Bytes) -> Result<Sealed, CodecError> {
    sealed_package_from(decode(value)?)
}

pub(in crate::state) fn encode_audit(record: &AuditRecord) -> Bytes {
    encode(&pb::AuditRecord {
        time_ms: record.time.as_millis(),
        actor: record.actor.as_ref().map(actor_to),
        action: audit_action_to(record.action),
        outcome: record.outcome.as_str().to_owned(),
        request_id: record.request_id.as_ref().map_or_else(Bytes::new, |i| id(i.as_bytes())),
        device_id: record.device.as_ref().map_or_else(Bytes::new, |i| id(i.as_bytes())),
        volume_id: record.volume.as_ref().map_or_else(Bytes::new, |i| id(i.as_bytes())),
        protector_id: record.protector.as_ref().map_or_else(Bytes::new, |i| id(i.as_bytes())),
        version: record.version.get(),
        reason: record.reason.as_ref().map(reason_to),
        user: record.user.as_ref().map(user_to),
        ticket: owned(&record.ticket),
        detail: owned(&record.detail),
        count: record.count,
        position: Some(pb::Position { term: record.log_term, index: record.log_index }),
        previous_hash: Bytes::copy_from_slice(&record.previous_hash),
    })
}

pub(in crate::state) fn decode_audit(key: &[u8], value: &Bytes) -> Result<AuditRecord, CodecError> {
    let record: pb::AuditRecord = decode(value)?;
    let position = required(record.position, "position")?;
    Ok(AuditRecord {
        sequence: sequence_from(key)?,
        time: time(record.time_ms),
        log_term: position.term,
        log_index: position.index,
        count: record.count,
        actor: record.actor.map(|actor| actor_from(Some(actor))).transpose()?,
        action: audit_action_from(record.action)?,
        outcome: AuditOutcome::from(record.outcome.as_str()),
        request_id: optional_id(&record.request_id, RequestId::from_slice)?,
        device: optional_id(&record.device_id, DeviceId::from_slice)?,
        volume: optional_id(&record.volume_id, VolumeId::from_slice)?,
        protector: optional_id(&record.protector_id, ProtectorId::from_slice)?,
        version: KeyVersion::new(record.version),
        reason: record.reason.map(reason_from).transpose()?,
        user: record.user.map(user_from).transpose()?,
        ticket: Text::name("ticket", record.ticket)?,
        detail: Text::free("detail", record.detail)?,
        previous_hash: digest("previous_hash", &record.previous_hash)?,
    })
}

/// The number that a key of a sequential table is.
pub(in crate::state) fn sequence_from(key: &[u8]) -> Result<u64, CodecError> {
    let eight = key.try_into().map_err(|_| FieldError::new("sequence", "must have 8 bytes"))?;
    Ok(u64::from_be_bytes(eight))
}

pub(in crate::state) fn encode_request(request: &RequestRecord) -> Bytes {
    use pb::request::Answer;
    let answer = match request.answer {
        Remembered::Body => None,
        Remembered::Key(key) => Some(Answer::Key(key_ref_to(key))),
        Remembered::GrantedChanged(changed) => Some(Answer::GrantedChanged(changed)),
        Remembered::Resealed(count) => Some(Answer::Resealed(count)),
        Remembered::Approval(id) => Some(Answer::Approval(id.get())),
        Remembered::MassRecovery(number) => Some(Answer::MassRecovery(number)),
    };
    encode(&pb::Request {
        actor: Some(actor_to(&request.actor)),
        request_id: id(request.request_id.as_bytes()),
        body_digest: Bytes::copy_from_slice(&request.body_digest),
        time_ms: request.time.as_millis(),
        answer,
    })
}

pub(in crate::state) fn decode_request(value: &Bytes) -> Result<RequestRecord, CodecError> {
    use pb::request::Answer;
    let request: pb::Request = decode(value)?;
    Ok(RequestRecord {
        actor: actor_from(request.actor)?,
        request_id: RequestId::from_slice(&request.request_id)?,
        body_digest: digest("body_digest", &request.body_digest)?,
        time: time(request.time_ms),
        answer: match request.answer {
            None => Remembered::Body,
            Some(Answer::Key(key)) => Remembered::Key(key_ref_from(&key)?),
            Some(Answer::GrantedChanged(changed)) => Remembered::GrantedChanged(changed),
            Some(Answer::Resealed(count)) => Remembered::Resealed(count),
            Some(Answer::Approval(number)) => Remembered::Approval(ApprovalId::new(number)?),
            Some(Answer::MassRecovery(number)) => Remembered::MassRecovery(number),
        },
    })
}

/// Key of a grant: operator, a zero byte, the role's number.
pub(in crate::state) fn grant_key(operator: &OperatorName, role: Role) -> Bytes {
    let mut key = keys::grants_of(operator);
    // Numbers of roles are small; one that did not fit would be refused at decoding.
    key.push(u8::try_from(role_to(role)).unwrap_or(0));
    key.into()
}

pub(in crate::state) fn encode_grant(grant: &Grant) -> Bytes {
    encode(&pb::Grant {
        granted_by: Some(actor_to(&grant.granted_by)),
        granted_at_ms: grant.granted_at.as_millis(),
        groups: names_to(grant.reach.groups()),
    })
}

pub(in crate::state) fn decode_grant(key: &[u8], value: &Bytes) -> Result<Grant, CodecError> {
    let Some((role, [operator @ .., 0])) = key.split_last() else {
        return Err(CodecError::Missing("operator and role"));
    };
    let operator =
        std::str::from_utf8(operator).map_err(|_| FieldError::new("operator", "must be UTF-8"))?;
    let grant: pb::Grant = decode(value)?;
    let role = role_from(i32::from(*role))?;
    Ok(Grant {
        operator: operator_from(operator)?,
        role,
        reach: reach_from(role, &grant.groups)?,
        granted_by: actor_from(grant.granted_by)?,
        granted_at: time(grant.granted_at_ms),
    })
}

pub(in crate::state) fn encode_denial(denial: &Denial) -> Bytes {
    encode(&pb::Denial {
        denied_by: Some(actor_to(&denial.denied_by)),
        denied_at_ms: denial.denied_at.as_millis(),
        reason: owned(&denial.reason),
    })
}

pub(in crate::state) fn decode_denial(key: &[u8], value: &Bytes) -> Result<Denial, CodecError> {
    let subject = keys::denial_subject(key).ok_or(CodecError::Missing("subject"))?;
    let denial: pb::Denial = decode(value)?;
    Ok(Denial {
        subject,
        denied_by: actor_from(denial.denied_by)?,
        denied_at: time(denial.denied_at_ms),
        reason: Text::name("reason", denial.reason)?,
    })
}

pub(in crate::state) fn encode_root(cluster: ClusterId, check: &[u8; 32]) -> Bytes {
    encode(&pb::Root { cluster_id: id(cluster.as_bytes()), check: Bytes::copy_from_slice(check) })
}

pub(in crate::state) fn decode_root(value: &Bytes) -> Result<(ClusterId, [u8; 32]), CodecError> {
    let root: pb::Root = decode(value)?;
    Ok((ClusterId::from_slice(&root.cluster_id)?, digest("check", &root.check)?))
}

pub(in crate::state) fn encode_signer(signer: &Signer) -> Bytes {
    encode(&signer_to(signer))
}

pub(in crate::state) fn decode_signer(value: &Bytes) -> Result<Signer, CodecError> {
    decode(value).map(signer_from)
}

pub(in crate::state) fn encode_epoch(epoch: &EpochRecord) -> Bytes {
    encode(&epoch_to(epoch))
}

pub(in crate::state) fn decode_epoch(value: &Bytes) -> Result<EpochRecord, CodecError> {
    epoch_from(decode(value)?)
}

pub(in crate::state) fn encode_share_set(set: &ShareSet) -> Bytes {
    encode(&share_set_to(set))
}

pub(in crate::state) fn decode_share_set(value: &Bytes) -> Result<ShareSet, CodecError> {
    share_set_from(decode(value)?)
}

pub(in crate::state) fn encode_seal(seal: &Seal) -> Bytes {
    encode(&pb::SealRecord {
        sealed_by: Some(actor_to(&seal.sealed_by)),
        sealed_at_ms: seal.sealed_at.as_millis(),
        reason: owned(&seal.reason),
    })
}

pub(in crate::state) fn decode_seal(value: &Bytes) -> Result<Seal, CodecError> {
    let seal: pb::SealRecord = decode(value)?;
    Ok(Seal {
        sealed_by: actor_from(seal.sealed_by)?,
        sealed_at: time(seal.sealed_at_ms),
        reason: Text::name("reason", seal.reason)?,
    })
}

pub(in crate::state) fn encode_quota(quota: Quota) -> Bytes {
    encode(&pb::Quota { window_start_ms: quota.window_start.as_millis(), used: quota.used })
}

pub(in crate::state) fn decode_quota(value: &Bytes) -> Result<Quota, CodecError> {
    let quota: pb::Quota = decode(value)?;
    Ok(Quota { window_start: time(quota.window_start_ms), used: quota.used })
}
