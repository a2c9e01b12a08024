//! Commands, as they stand in log entries.

use bytes::Bytes;
use holdfast_proto::store::v1 as pb;
use sha2::{Digest as _, Sha256};

use super::common::*;
use super::controls::*;
use super::enrolment::*;
use super::groups::{group_change_from, group_change_to, names_to, reach_from};
use super::{CodecError, decode, encode, required};
use crate::domain::{
    ClusterId, DeviceId, Epoch, FieldError, Fingerprint, KeyIdPrefix, KeyVersion, NodeId,
    ProtectorId, RequestId, ShareSet, ShareSetId, Text, Timestamp, TokenId, VolumeId, limits,
};
use crate::state::{
    Bootstrap, Command, CommandBody, EpochRecord, Escrow, FindQuery, RefusalCount, Rekey,
    ReportCompliance, Reseal, ResealedKey, Rotate, Signer, Unseal, UnsealedBy, Wrapped,
};

/// The bytes of a log entry.
pub fn encode_command(command: &Command) -> Bytes {
    encode(&pb::Command {
        actor: Some(actor_to(&command.actor)),
        request_id: id(command.request_id.as_bytes()),
        time_ms: command.time.as_millis(),
        body: encode(&pb::CommandBody { body: Some(body_to(&command.body)) }),
        certificate: command
            .certificate
            .map_or_else(Bytes::new, |sha256| Bytes::copy_from_slice(sha256.as_bytes())),
        roles: command.roles.iter().copied().map(role_to).collect(),
    })
}

/// The command of a log entry; its bytes share the entry's memory.
///
/// # Errors
/// If this version can't read it.
pub fn decode_command(bytes: &Bytes) -> Result<Command, CodecError> {
    decode_entry(bytes).map(|(command, _)| command)
}

/// The time in a log entry, without reading the rest of it; `None` if that can't be read.
pub fn command_time(bytes: &Bytes) -> Option<Timestamp> {
    /// A command's time. All other fields are skipped.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    struct Timed {
        #[prost(uint64, tag = "3")]
        time_ms: u64,
    }
    let timed: Timed = prost::Message::decode(&**bytes).ok()?;
    Some(time(timed.time_ms))
}

/// The command, and the SHA-256 of its body as it stands in the entry.
pub(in crate::state) fn decode_entry(bytes: &Bytes) -> Result<(Command, [u8; 32]), CodecError> {
    let command: pb::Command = decode(bytes)?;
    let digest = Sha256::digest(&command.body).into();
    let body: pb::CommandBody = decode(&command.body)?;
    let command = Command {
        actor: actor_from(command.actor)?,
        request_id: RequestId::from_slice(&command.request_id)?,
        time: time(command.time_ms),
        certificate: optional_id(&command.certificate, Fingerprint::from_slice)?,
        roles: command.roles.into_iter().map(role_from).collect::<Result<_, _>>()?,
        body: body_from(required(body.body, "body")?)?,
    };
    Ok((command, digest))
}

fn body_to(body: &CommandBody) -> pb::command_body::Body {
    use pb::command_body::Body;
    match body {
        CommandBody::Bootstrap(bootstrap) => Body::Bootstrap(bootstrap_to(bootstrap)),
        CommandBody::Escrow(escrow) => Body::Escrow(escrow_to(escrow)),
        CommandBody::ReportCompliance(report) => Body::ReportCompliance(report_to(report)),
        CommandBody::FindKeys(query) => Body::FindKeys(query_to(query)),
        CommandBody::Disclose(disclose) => Body::Disclose(disclose_to(disclose)),
        CommandBody::Grant { operator, role, reach } => Body::Grant(pb::RoleChange {
            operator: operator.as_str().to_owned(),
            role: role_to(*role),
            groups: names_to(reach.groups()),
        }),
        CommandBody::Revoke { operator, role } => Body::Revoke(pb::RoleChange {
            operator: operator.as_str().to_owned(),
            role: role_to(*role),
            groups: Vec::new(),
        }),
        CommandBody::AuditRead { detail } => Body::AuditRead(pb::Note { detail: owned(detail) }),
        CommandBody::Refusals(counts) => {
            Body::Refusals(pb::Refusals { counts: counts.iter().map(refusal_to).collect() })
        }
        CommandBody::ClusterChange { detail } => {
            Body::ClusterChange(pb::Note { detail: owned(detail) })
        }
        CommandBody::Deny { subject, reason } => {
            Body::Deny(pb::Deny { subject: Some(subject_to(subject)), reason: owned(reason) })
        }
        CommandBody::Allow { subject } => Body::Allow(subject_to(subject)),
        CommandBody::Seal { reason } => Body::Seal(pb::Seal { reason: owned(reason) }),
        CommandBody::Unseal(unseal) => Body::Unseal(unseal_to(unseal)),
        CommandBody::Rotate(rotate) => Body::Rotate(pb::Rotate {
            root_check: Bytes::copy_from_slice(&rotate.root_check),
            epoch: Some(epoch_to(&rotate.epoch)),
        }),
        CommandBody::Reseal(reseal) => Body::Reseal(reseal_to(reseal)),
        CommandBody::Rekey(rekey) => Body::Rekey(pb::Rekey {
            replaces: Bytes::copy_from_slice(&rekey.replaces),
            root_check: Bytes::copy_from_slice(&rekey.root_check),
            wrapped_signer: rekey.signer.0.clone(),
            wrapped_epochs: rekey.epochs.iter().map(|epoch| epoch.0.clone()).collect(),
            share_set: rekey.shares.as_ref().map(share_set_to),
            wrapped_agent_cas: rekey.agent_cas.iter().map(|ca| ca.0.clone()).collect(),
        }),
        CommandBody::CreateAgentCa(ca) => Body::CreateAgentCa(new_agent_ca_to(ca)),
        CommandBody::IssueToken(issue) => Body::IssueToken(issue_to(issue)),
        CommandBody::RevokeToken(token) => Body::RevokeToken(id(token.as_bytes())),
        CommandBody::Enrol(enrol) => Body::Enrol(enrol_to(enrol)),
        CommandBody::Renew(renew) => Body::Renew(renew_to(renew)),
        CommandBody::AddToGroup { device, group } => {
            Body::AddToGroup(group_change_to(*device, group))
        }
        CommandBody::RemoveFromGroup { device, group } => {
            Body::RemoveFromGroup(group_change_to(*device, group))
        }
        CommandBody::SetDisclosurePolicy(set) => Body::SetDisclosurePolicy(set_policy_to(set)),
        CommandBody::RequestApproval(request) => {
            Body::RequestApproval(request_approval_to(request))
        }
        CommandBody::DecideApproval(decide) => Body::DecideApproval(decide_to(decide)),
        CommandBody::ProposeMassRecovery(propose) => Body::ProposeMassRecovery(propose_to(propose)),
        CommandBody::ConfirmMassRecovery(number) => Body::ConfirmMassRecovery(*number),
        CommandBody::EndMassRecovery(number) => Body::EndMassRecovery(*number),
    }
}

fn body_from(body: pb::command_body::Body) -> Result<CommandBody, CodecError> {
    use pb::command_body::Body;
    Ok(match body {
        Body::Bootstrap(bootstrap) => CommandBody::Bootstrap(bootstrap_from(bootstrap)?),
        Body::Escrow(escrow) => CommandBody::Escrow(escrow_from(escrow)?),
        Body::ReportCompliance(report) => CommandBody::ReportCompliance(report_from(report)?),
        Body::FindKeys(find) => CommandBody::FindKeys(query_from(find)?),
        Body::Disclose(disclose) => CommandBody::Disclose(disclose_from(disclose)?),
        Body::Grant(change) => {
            let role = role_from(change.role)?;
            let reach = reach_from(role, &change.groups)?;
            CommandBody::Grant { operator: operator_from(&change.operator)?, role, reach }
        }
        Body::Revoke(change) => CommandBody::Revoke {
            operator: operator_from(&change.operator)?,
            role: role_from(change.role)?,
        },
        Body::AuditRead(note) => {
            CommandBody::AuditRead { detail: Text::free("detail", note.detail)? }
        }
        Body::Refusals(refusals) => CommandBody::Refusals(
            refusals.counts.into_iter().map(refusal_from).collect::<Result<_, _>>()?,
        ),
        Body::ClusterChange(note) => {
            CommandBody::ClusterChange { detail: Text::free("detail", note.detail)? }
        }
        Body::Deny(deny) => CommandBody::Deny {
            subject: subject_from(required(deny.subject, "subject")?)?,
            reason: Text::name("reason", deny.reason)?,
        },
        Body::Allow(subject) => CommandBody::Allow { subject: subject_from(subject)? },
        Body::Seal(seal) => CommandBody::Seal { reason: Text::name("reason", seal.reason)? },
        Body::Unseal(unseal) => CommandBody::Unseal(unseal_from(unseal)?),
        Body::Rotate(rotate) => CommandBody::Rotate(Rotate {
            root_check: digest("root_check", &rotate.root_check)?,
            epoch: epoch_from(required(rotate.epoch, "epoch")?)?,
        }),
        Body::Reseal(reseal) => CommandBody::Reseal(reseal_from(reseal)?),
        Body::Rekey(rekey) => CommandBody::Rekey(Rekey {
            replaces: digest("replaces", &rekey.replaces)?,
            root_check: digest("root_check", &rekey.root_check)?,
            signer: Wrapped(rekey.wrapped_signer),
            epochs: rekey.wrapped_epochs.into_iter().map(Wrapped).collect(),
            agent_cas: rekey.wrapped_agent_cas.into_iter().map(Wrapped).collect(),
            shares: rekey.share_set.map(share_set_from).transpose()?,
        }),
        Body::CreateAgentCa(ca) => CommandBody::CreateAgentCa(new_agent_ca_from(ca)?),
        Body::IssueToken(issue) => CommandBody::IssueToken(issue_from(issue)?),
        Body::RevokeToken(token) => CommandBody::RevokeToken(TokenId::from_slice(&token)?),
        Body::Enrol(enrol) => CommandBody::Enrol(enrol_from(enrol)?),
        Body::Renew(renew) => CommandBody::Renew(renew_from(renew)?),
        Body::AddToGroup(change) => {
            let (device, group) = group_change_from(&change)?;
            CommandBody::AddToGroup { device, group }
        }
        Body::RemoveFromGroup(change) => {
            let (device, group) = group_change_from(&change)?;
            CommandBody::RemoveFromGroup { device, group }
        }
        Body::SetDisclosurePolicy(set) => CommandBody::SetDisclosurePolicy(set_policy_from(set)?),
        Body::RequestApproval(request) => {
            CommandBody::RequestApproval(request_approval_from(request)?)
        }
        Body::DecideApproval(decide) => CommandBody::DecideApproval(decide_from(decide)?),
        Body::ProposeMassRecovery(propose) => {
            CommandBody::ProposeMassRecovery(propose_from(propose)?)
        }
        Body::ConfirmMassRecovery(number) => CommandBody::ConfirmMassRecovery(number),
        Body::EndMassRecovery(number) => CommandBody::EndMassRecovery(number),
    })
}

fn bootstrap_to(bootstrap: &Bootstrap) -> pb::Bootstrap {
    pb::Bootstrap {
        cluster_id: id(bootstrap.cluster.as_bytes()),
        administrator: bootstrap.administrator.as_str().to_owned(),
        root_check: Bytes::copy_from_slice(&bootstrap.root_check),
        signer: Some(signer_to(&bootstrap.signer)),
        epoch: Some(epoch_to(&bootstrap.epoch)),
        share_set: bootstrap.shares.as_ref().map(share_set_to),
        disclosure_policy: bootstrap.disclosure_policy.as_ref().map(policy_to),
    }
}

fn bootstrap_from(bootstrap: pb::Bootstrap) -> Result<Bootstrap, CodecError> {
    Ok(Bootstrap {
        cluster: ClusterId::from_slice(&bootstrap.cluster_id)?,
        administrator: operator_from(&bootstrap.administrator)?,
        root_check: digest("root_check", &bootstrap.root_check)?,
        signer: signer_from(required(bootstrap.signer, "signer")?),
        epoch: epoch_from(required(bootstrap.epoch, "epoch")?)?,
        shares: bootstrap.share_set.map(share_set_from).transpose()?,
        disclosure_policy: bootstrap.disclosure_policy.map(policy_from).transpose()?,
    })
}

pub(super) fn share_set_to(set: &ShareSet) -> pb::ShareSet {
    pb::ShareSet {
        id: Bytes::copy_from_slice(set.id().as_bytes()),
        shares: set.shares().into(),
        threshold: set.threshold().into(),
    }
}

pub(super) fn share_set_from(set: pb::ShareSet) -> Result<ShareSet, CodecError> {
    // What does not fit into a byte is more than there may be.
    let byte = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    let id = ShareSetId::from_slice(&set.id)?;
    Ok(ShareSet::new(id, byte(set.shares), byte(set.threshold))?)
}

fn reseal_to(reseal: &Reseal) -> pb::Reseal {
    let key = |key: &ResealedKey| pb::ResealedKey {
        key: Some(key_ref_to(key.at)),
        replaces: Bytes::copy_from_slice(&key.replaces),
        sealed: Some(sealed_to(&key.sealed)),
        package: key.package.as_ref().map(sealed_to),
    };
    pb::Reseal { epoch: reseal.epoch.get(), keys: reseal.keys.iter().map(key).collect() }
}

fn reseal_from(reseal: pb::Reseal) -> Result<Reseal, CodecError> {
    if reseal.keys.len() > limits::RESEALED_KEYS {
        return Err(FieldError::new("keys", "are more than one entry may hold").into());
    }
    let key = |key: pb::ResealedKey| {
        Ok::<_, CodecError>(ResealedKey {
            at: key_ref_from(&required(key.key, "key")?)?,
            replaces: digest("replaces", &key.replaces)?,
            sealed: sealed_key_from(required(key.sealed, "sealed")?)?,
            package: key.package.map(sealed_package_from).transpose()?,
        })
    };
    let keys = reseal.keys.into_iter().map(key).collect::<Result<_, _>>()?;
    Ok(Reseal { epoch: Epoch::new(reseal.epoch), keys })
}

fn unseal_to(unseal: &Unseal) -> pb::Unseal {
    let (node, shares) = match &unseal.by {
        UnsealedBy::Order => (0, Bytes::new()),
        UnsealedBy::Shares { node, numbers } => (node.get(), Bytes::copy_from_slice(numbers)),
    };
    pb::Unseal { seals: unseal.seals, node, shares }
}

fn unseal_from(unseal: pb::Unseal) -> Result<Unseal, CodecError> {
    let by = match unseal.node {
        0 => UnsealedBy::Order,
        _ if unseal.shares.len() > usize::from(limits::KEY_SHARES) => {
            return Err(FieldError::new("shares", "are more than there may be").into());
        }
        node => UnsealedBy::Shares { node: NodeId::new(node), numbers: unseal.shares.to_vec() },
    };
    Ok(Unseal { seals: unseal.seals, by })
}

pub(super) fn signer_to(signer: &Signer) -> pb::Signer {
    pb::Signer { chain: signer.chain.clone(), wrapped_private_key: signer.private_key.0.clone() }
}

pub(super) fn signer_from(signer: pb::Signer) -> Signer {
    Signer { chain: signer.chain, private_key: Wrapped(signer.wrapped_private_key) }
}

pub(super) fn epoch_to(epoch: &EpochRecord) -> pb::EpochRecord {
    pb::EpochRecord {
        epoch: epoch.epoch.get(),
        public_key: Bytes::copy_from_slice(&epoch.public_key),
        wrapped_private_key: epoch.private_key.0.clone(),
        signature: epoch.signature.clone(),
    }
}

pub(super) fn epoch_from(epoch: pb::EpochRecord) -> Result<EpochRecord, CodecError> {
    if epoch.epoch == 0 {
        return Err(FieldError::new("epoch", "must be 1 or more").into());
    }
    Ok(EpochRecord {
        epoch: Epoch::new(epoch.epoch),
        public_key: digest("public_key", &epoch.public_key)?,
        private_key: Wrapped(epoch.wrapped_private_key),
        signature: epoch.signature,
    })
}

fn escrow_to(escrow: &Escrow) -> pb::Escrow {
    pb::Escrow {
        device_id: id(escrow.device.as_bytes()),
        volume_id: id(escrow.volume.as_bytes()),
        protector_id: id(escrow.protector.as_bytes()),
        protector_kind: protector_kind_to(escrow.protector_kind),
        volume_kind: volume_kind_to(escrow.volume_kind),
        expected_version: escrow.expected_version.get(),
        key: Some(sealed_to(&escrow.key)),
        package: escrow.package.as_ref().map(sealed_to),
        host_name: owned(&escrow.host_name),
        users: users_to(&escrow.users),
    }
}

fn escrow_from(escrow: pb::Escrow) -> Result<Escrow, CodecError> {
    Ok(Escrow {
        device: DeviceId::from_slice(&escrow.device_id)?,
        volume: VolumeId::from_slice(&escrow.volume_id)?,
        protector: ProtectorId::from_slice(&escrow.protector_id)?,
        protector_kind: protector_kind_from(escrow.protector_kind)?,
        volume_kind: volume_kind_from(escrow.volume_kind)?,
        expected_version: KeyVersion::new(escrow.expected_version),
        key: sealed_key_from(required(escrow.key, "key")?)?,
        package: escrow.package.map(sealed_package_from).transpose()?,
        host_name: Text::name("host_name", escrow.host_name)?,
        users: users_from(escrow.users)?,
    })
}

fn report_to(report: &ReportCompliance) -> pb::ReportCompliance {
    pb::ReportCompliance {
        device_id: id(report.device.as_bytes()),
        host_name: owned(&report.host_name),
        operating_system: owned(&report.operating_system),
        manufacturer: owned(&report.manufacturer),
        model: owned(&report.model),
        users: users_to(&report.users),
        volumes: report.volumes.iter().map(compliance_to).collect(),
    }
}

fn report_from(report: pb::ReportCompliance) -> Result<ReportCompliance, CodecError> {
    Ok(ReportCompliance {
        device: DeviceId::from_slice(&report.device_id)?,
        host_name: Text::name("host_name", report.host_name)?,
        operating_system: Text::name("operating_system", report.operating_system)?,
        manufacturer: Text::name("manufacturer", report.manufacturer)?,
        model: Text::name("model", report.model)?,
        users: users_from(report.users)?,
        volumes: report.volumes.into_iter().map(compliance_from).collect::<Result<_, _>>()?,
    })
}

fn query_to(query: &FindQuery) -> pb::FindKeys {
    use pb::find_keys::Query;
    let query = match query {
        FindQuery::Prefix(prefix) => Query::Prefix(Bytes::copy_from_slice(prefix.as_bytes())),
        FindQuery::Protector(protector) => Query::ProtectorId(id(protector.as_bytes())),
        FindQuery::Device(device) => Query::DeviceId(id(device.as_bytes())),
        FindQuery::Volume(device, volume) => Query::Volume(pb::VolumeRef {
            device_id: id(device.as_bytes()),
            volume_id: id(volume.as_bytes()),
        }),
    };
    pb::FindKeys { query: Some(query) }
}

fn query_from(find: pb::FindKeys) -> Result<FindQuery, CodecError> {
    use pb::find_keys::Query;
    Ok(match required(find.query, "query")? {
        Query::Prefix(prefix) => {
            let four = <[u8; 4]>::try_from(prefix.as_ref())
                .map_err(|_| FieldError::new("prefix", "must have 4 bytes"))?;
            FindQuery::Prefix(KeyIdPrefix::from_bytes(four))
        }
        Query::ProtectorId(protector) => FindQuery::Protector(ProtectorId::from_slice(&protector)?),
        Query::DeviceId(device) => FindQuery::Device(DeviceId::from_slice(&device)?),
        Query::Volume(volume) => FindQuery::Volume(
            DeviceId::from_slice(&volume.device_id)?,
            VolumeId::from_slice(&volume.volume_id)?,
        ),
    })
}

fn refusal_to(refusal: &RefusalCount) -> pb::RefusalCount {
    pb::RefusalCount {
        actor: Some(actor_to(&refusal.actor)),
        action: owned(&refusal.action),
        reason: owned(&refusal.reason),
        count: refusal.count,
    }
}

fn refusal_from(refusal: pb::RefusalCount) -> Result<RefusalCount, CodecError> {
    Ok(RefusalCount {
        actor: actor_from(refusal.actor)?,
        action: Text::name("action", refusal.action)?,
        reason: Text::name("reason", refusal.reason)?,
        count: refusal.count,
    })
}
