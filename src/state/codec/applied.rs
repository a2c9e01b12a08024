//! Answers of apply, as they travel from the leader to the node that took the request.

use bytes::Bytes;
use holdfast_proto::store::v1 as pb;

use super::common::*;
use super::{CodecError, decode, encode, required};
use crate::domain::{
    ApprovalId, DeviceId, Epoch, FieldError, KeyVersion, ProtectorId, QuotaScope, Text, VolumeId,
};
use crate::state::{Accepted, Applied, Enrolled, KeySummary, ReceiptBody, Rejection, Unusable};

/// The bytes of an answer.
pub fn encode_applied(applied: &Applied) -> Bytes {
    use pb::applied::Outcome;
    let outcome = match &applied.outcome {
        Ok(accepted) => Outcome::Accepted(accepted_to(accepted)),
        Err(rejection) => Outcome::Rejected(rejection_to(rejection)),
    };
    encode(&pb::Applied {
        position: Some(position_to(applied.position)),
        audit: Some(audit_to(&applied.audit)),
        outcome: Some(outcome),
    })
}

/// The answer.
///
/// # Errors
/// If this version can't read it.
pub fn decode_applied(bytes: &Bytes) -> Result<Applied, CodecError> {
    use pb::applied::Outcome;
    let applied: pb::Applied = decode(bytes)?;
    Ok(Applied {
        position: position_from(required(applied.position, "position")?),
        audit: audit_from(&required(applied.audit, "audit")?)?,
        outcome: match required(applied.outcome, "outcome")? {
            Outcome::Accepted(accepted) => Ok(accepted_from(accepted)?),
            Outcome::Rejected(rejection) => Err(rejection_from(rejection)?),
        },
    })
}

fn accepted_to(accepted: &Accepted) -> pb::Accepted {
    use pb::accepted::Answer;
    let answer = match accepted {
        Accepted::Bootstrapped => Answer::Bootstrapped(pb::Empty {}),
        Accepted::Escrowed(receipt) => Answer::Escrowed(receipt_to(receipt)),
        Accepted::Reported { rotation_due } => Answer::Reported(pb::Reported {
            rotation_due_volume_ids: rotation_due.iter().map(|v| id(v.as_bytes())).collect(),
        }),
        Accepted::Found { keys, truncated } => Answer::Found(pb::Found {
            keys: keys.iter().map(summary_to).collect(),
            truncated: *truncated,
        }),
        Accepted::Disclosed { key, repeated } => {
            Answer::Disclosed(pb::Disclosed { key: Some(summary_to(key)), repeated: *repeated })
        }
        Accepted::Granted { changed } => Answer::GrantedChanged(*changed),
        Accepted::Resealed { count } => Answer::Resealed(*count),
        Accepted::Enrolled(enrolled) => Answer::Enrolled(pb::Enrolled {
            certificate: enrolled.certificate.clone(),
            not_after_ms: enrolled.not_after.as_millis(),
            agent_ca: enrolled.agent_ca,
            again: enrolled.again,
            repeated: enrolled.repeated,
        }),
        Accepted::ApprovalRequested { id, expires_at } => {
            Answer::ApprovalRequested(pb::ApprovalRequested {
                approval: id.get(),
                expires_at_ms: expires_at.as_millis(),
            })
        }
        Accepted::MassRecoveryProposed { number } => Answer::MassRecoveryProposed(*number),
        Accepted::Recorded => Answer::Recorded(pb::Empty {}),
        Accepted::Nothing => Answer::Nothing(pb::Empty {}),
    };
    pb::Accepted { answer: Some(answer) }
}

fn accepted_from(accepted: pb::Accepted) -> Result<Accepted, CodecError> {
    use pb::accepted::Answer;
    Ok(match required(accepted.answer, "answer")? {
        Answer::Bootstrapped(pb::Empty {}) => Accepted::Bootstrapped,
        Answer::Escrowed(receipt) => Accepted::Escrowed(receipt_from(receipt)?),
        Answer::Reported(reported) => {
            let ids = reported.rotation_due_volume_ids.iter();
            let rotation_due = ids.map(|id| VolumeId::from_slice(id)).collect::<Result<_, _>>()?;
            Accepted::Reported { rotation_due }
        }
        Answer::Found(found) => Accepted::Found {
            keys: found.keys.into_iter().map(summary_from).collect::<Result<_, _>>()?,
            truncated: found.truncated,
        },
        Answer::Disclosed(disclosed) => Accepted::Disclosed {
            key: summary_from(required(disclosed.key, "key")?)?,
            repeated: disclosed.repeated,
        },
        Answer::GrantedChanged(changed) => Accepted::Granted { changed },
        Answer::Resealed(count) => Accepted::Resealed { count },
        Answer::Enrolled(enrolled) => Accepted::Enrolled(Enrolled {
            certificate: enrolled.certificate,
            not_after: time(enrolled.not_after_ms),
            agent_ca: enrolled.agent_ca,
            again: enrolled.again,
            repeated: enrolled.repeated,
        }),
        Answer::ApprovalRequested(requested) => Accepted::ApprovalRequested {
            id: ApprovalId::new(requested.approval)?,
            expires_at: time(requested.expires_at_ms),
        },
        Answer::MassRecoveryProposed(number) => Accepted::MassRecoveryProposed { number },
        Answer::Recorded(pb::Empty {}) => Accepted::Recorded,
        Answer::Nothing(pb::Empty {}) => Accepted::Nothing,
    })
}

fn receipt_to(receipt: &ReceiptBody) -> pb::Receipt {
    pb::Receipt {
        device_id: id(receipt.device.as_bytes()),
        volume_id: id(receipt.volume.as_bytes()),
        protector_id: id(receipt.protector.as_bytes()),
        version: receipt.version.get(),
        sealed_digest: Bytes::copy_from_slice(&receipt.sealed_digest),
        position: Some(position_to(receipt.position)),
        audit: Some(audit_to(&receipt.audit)),
        escrowed_at_ms: receipt.escrowed_at.as_millis(),
    }
}

fn receipt_from(receipt: pb::Receipt) -> Result<ReceiptBody, CodecError> {
    Ok(ReceiptBody {
        device: DeviceId::from_slice(&receipt.device_id)?,
        volume: VolumeId::from_slice(&receipt.volume_id)?,
        protector: ProtectorId::from_slice(&receipt.protector_id)?,
        version: KeyVersion::new(receipt.version),
        sealed_digest: digest("sealed_digest", &receipt.sealed_digest)?,
        position: position_from(required(receipt.position, "position")?),
        audit: audit_from(&required(receipt.audit, "audit")?)?,
        escrowed_at: time(receipt.escrowed_at_ms),
    })
}

fn summary_to(key: &KeySummary) -> pb::KeySummary {
    pb::KeySummary {
        protector_id: id(key.protector.as_bytes()),
        version: key.version.get(),
        device_id: id(key.device.as_bytes()),
        volume_id: id(key.volume.as_bytes()),
        protector_kind: protector_kind_to(key.protector_kind),
        volume_kind: volume_kind_to(key.volume_kind),
        state: key_state_to(key.state),
        escrowed_at_ms: key.escrowed_at.as_millis(),
        disclosed_at_ms: key.disclosed_at.map(|at| at.as_millis()),
        has_package: key.has_package,
        host_name: owned(&key.host_name),
        users: users_to(&key.users),
        imported_by: importer_to(key.imported_by.as_ref()),
    }
}

fn summary_from(key: pb::KeySummary) -> Result<KeySummary, CodecError> {
    Ok(KeySummary {
        protector: ProtectorId::from_slice(&key.protector_id)?,
        version: KeyVersion::new(key.version),
        device: DeviceId::from_slice(&key.device_id)?,
        volume: VolumeId::from_slice(&key.volume_id)?,
        protector_kind: protector_kind_from(key.protector_kind)?,
        volume_kind: volume_kind_from(key.volume_kind)?,
        state: key_state_from(key.state)?,
        escrowed_at: time(key.escrowed_at_ms),
        disclosed_at: key.disclosed_at_ms.map(time),
        has_package: key.has_package,
        host_name: Text::name("host_name", key.host_name)?,
        users: users_from(key.users)?,
        imported_by: importer_from(&key.imported_by)?,
    })
}

fn rejection_to(rejection: &Rejection) -> pb::Rejection {
    use pb::rejection::Why;
    let why = match rejection {
        Rejection::AlreadyBootstrapped => Why::AlreadyBootstrapped(pb::Empty {}),
        Rejection::NotBootstrapped => Why::NotBootstrapped(pb::Empty {}),
        Rejection::NotGranted { actor, action } => Why::NotGranted(pb::NotGranted {
            actor: Some(actor_to(actor)),
            action: action.as_str().to_owned(),
        }),
        Rejection::ForeignDevice => Why::ForeignDevice(pb::Empty {}),
        Rejection::ForeignVolume => Why::ForeignVolume(pb::Empty {}),
        Rejection::StaleVersion { expected, current } => {
            Why::StaleVersion(pb::StaleVersion { expected: expected.get(), current: current.get() })
        }
        Rejection::UnknownEpoch(epoch) => Why::UnknownEpoch(epoch.get()),
        Rejection::UnknownDevice => Why::UnknownDevice(pb::Empty {}),
        Rejection::UnknownVolume => Why::UnknownVolume(pb::Empty {}),
        Rejection::UnknownKey => Why::UnknownKey(pb::Empty {}),
        Rejection::RequestIdReused => Why::RequestIdReused(pb::Empty {}),
        Rejection::TooManyVolumes(count) => Why::TooManyVolumes(count_to(*count)),
        Rejection::TooManyUsers(count) => Why::TooManyUsers(count_to(*count)),
        Rejection::UserRequired => Why::UserRequired(pb::Empty {}),
        Rejection::QuotaExceeded { scope, limit, until } => Why::QuotaExceeded(pb::QuotaExceeded {
            limit: *limit,
            until_ms: until.as_millis(),
            scope: scope_to(*scope),
        }),
        Rejection::LastAdministrator => Why::LastAdministrator(pb::Empty {}),
        Rejection::CertificateDenied(actor) => Why::CertificateDenied(actor_to(actor)),
        Rejection::TooManyDenials(count) => Why::TooManyDenials(*count),
        Rejection::TooManyNodesDenied => Why::TooManyNodesDenied(pb::Empty {}),
        Rejection::RepeatTooLate => Why::RepeatTooLate(pb::Empty {}),
        Rejection::Sealed => Why::Sealed(pb::Empty {}),
        Rejection::SealedAgain => Why::SealedAgain(pb::Empty {}),
        Rejection::KeyringChanged => Why::KeyringChanged(pb::Empty {}),
        Rejection::UnknownToken => Why::UnknownToken(pb::Empty {}),
        Rejection::TokenExpired(at) => Why::TokenExpiredMs(at.as_millis()),
        Rejection::TokenUsed => Why::TokenUsed(pb::Empty {}),
        Rejection::TokenRevoked => Why::TokenRevoked(pb::Empty {}),
        Rejection::TokenForeignDevice => Why::TokenForeignDevice(pb::Empty {}),
        Rejection::TokenExists => Why::TokenExists(pb::Empty {}),
        Rejection::TooManyTokens(count) => Why::TooManyTokens(*count),
        Rejection::RenewalTooEarly(at) => Why::RenewalTooEarlyMs(at.as_millis()),
        Rejection::AgentCaNumber(next) => Why::AgentCaNumber(*next),
        Rejection::UnknownAgentCa(number) => Why::UnknownAgentCa(*number),
        Rejection::TooManyGroups(count) => Why::TooManyGroups(count_to(*count)),
        Rejection::OutsideGroups => Why::OutsideGroups(pb::Empty {}),
        Rejection::EscrowedByDevice => Why::EscrowedByDevice(pb::Empty {}),
        Rejection::ApprovalRequired => Why::ApprovalRequired(pb::Empty {}),
        Rejection::UnknownApproval(id) => Why::UnknownApproval(id.get()),
        Rejection::ApprovalUnusable(why) => Why::ApprovalUnusable(unusable_to(*why)),
        Rejection::ApprovalExpired(at) => Why::ApprovalExpiredMs(at.as_millis()),
        Rejection::ApproverRevoked(actor) => Why::ApproverRevoked(actor_to(actor)),
        Rejection::TooManyApprovals(count) => Why::TooManyApprovals(*count),
        Rejection::SecondPersonRequired => Why::SecondPersonRequired(pb::Empty {}),
        Rejection::PolicyChanged(revision) => Why::PolicyChanged(*revision),
        Rejection::NoMassRecovery => Why::NoMassRecovery(pb::Empty {}),
        Rejection::MassRecoveryOn(until) => Why::MassRecoveryOnMs(until.as_millis()),
        Rejection::Unreadable => Why::Unreadable(pb::Empty {}),
    };
    pb::Rejection { why: Some(why) }
}

fn rejection_from(rejection: pb::Rejection) -> Result<Rejection, CodecError> {
    use pb::rejection::Why;
    Ok(match required(rejection.why, "why")? {
        Why::AlreadyBootstrapped(pb::Empty {}) => Rejection::AlreadyBootstrapped,
        Why::NotBootstrapped(pb::Empty {}) => Rejection::NotBootstrapped,
        Why::NotGranted(why) => Rejection::NotGranted {
            actor: actor_from(why.actor)?,
            action: why.action.parse().map_err(CodecError::Invalid)?,
        },
        Why::ForeignDevice(pb::Empty {}) => Rejection::ForeignDevice,
        Why::ForeignVolume(pb::Empty {}) => Rejection::ForeignVolume,
        Why::StaleVersion(why) => Rejection::StaleVersion {
            expected: KeyVersion::new(why.expected),
            current: KeyVersion::new(why.current),
        },
        Why::UnknownEpoch(epoch) => Rejection::UnknownEpoch(Epoch::new(epoch)),
        Why::UnknownDevice(pb::Empty {}) => Rejection::UnknownDevice,
        Why::UnknownVolume(pb::Empty {}) => Rejection::UnknownVolume,
        Why::UnknownKey(pb::Empty {}) => Rejection::UnknownKey,
        Why::RequestIdReused(pb::Empty {}) => Rejection::RequestIdReused,
        Why::TooManyVolumes(count) => Rejection::TooManyVolumes(count_from(count)?),
        Why::TooManyUsers(count) => Rejection::TooManyUsers(count_from(count)?),
        Why::UserRequired(pb::Empty {}) => Rejection::UserRequired,
        Why::QuotaExceeded(why) => Rejection::QuotaExceeded {
            scope: scope_from(why.scope)?,
            limit: why.limit,
            until: time(why.until_ms),
        },
        Why::LastAdministrator(pb::Empty {}) => Rejection::LastAdministrator,
        Why::CertificateDenied(actor) => Rejection::CertificateDenied(actor_from(Some(actor))?),
        Why::TooManyDenials(count) => Rejection::TooManyDenials(count),
        Why::TooManyNodesDenied(pb::Empty {}) => Rejection::TooManyNodesDenied,
        Why::RepeatTooLate(pb::Empty {}) => Rejection::RepeatTooLate,
        Why::Sealed(pb::Empty {}) => Rejection::Sealed,
        Why::SealedAgain(pb::Empty {}) => Rejection::SealedAgain,
        Why::KeyringChanged(pb::Empty {}) => Rejection::KeyringChanged,
        Why::UnknownToken(pb::Empty {}) => Rejection::UnknownToken,
        Why::TokenExpiredMs(at) => Rejection::TokenExpired(time(at)),
        Why::TokenUsed(pb::Empty {}) => Rejection::TokenUsed,
        Why::TokenRevoked(pb::Empty {}) => Rejection::TokenRevoked,
        Why::TokenForeignDevice(pb::Empty {}) => Rejection::TokenForeignDevice,
        Why::TokenExists(pb::Empty {}) => Rejection::TokenExists,
        Why::TooManyTokens(count) => Rejection::TooManyTokens(count),
        Why::RenewalTooEarlyMs(at) => Rejection::RenewalTooEarly(time(at)),
        Why::AgentCaNumber(next) => Rejection::AgentCaNumber(next),
        Why::UnknownAgentCa(number) => Rejection::UnknownAgentCa(number),
        Why::TooManyGroups(count) => Rejection::TooManyGroups(count_from(count)?),
        Why::OutsideGroups(pb::Empty {}) => Rejection::OutsideGroups,
        Why::EscrowedByDevice(pb::Empty {}) => Rejection::EscrowedByDevice,
        Why::ApprovalRequired(pb::Empty {}) => Rejection::ApprovalRequired,
        Why::UnknownApproval(number) => Rejection::UnknownApproval(ApprovalId::new(number)?),
        Why::ApprovalUnusable(why) => Rejection::ApprovalUnusable(unusable_from(why)?),
        Why::ApprovalExpiredMs(at) => Rejection::ApprovalExpired(time(at)),
        Why::ApproverRevoked(actor) => Rejection::ApproverRevoked(actor_from(Some(actor))?),
        Why::TooManyApprovals(count) => Rejection::TooManyApprovals(count),
        Why::SecondPersonRequired(pb::Empty {}) => Rejection::SecondPersonRequired,
        Why::PolicyChanged(revision) => Rejection::PolicyChanged(revision),
        Why::NoMassRecovery(pb::Empty {}) => Rejection::NoMassRecovery,
        Why::MassRecoveryOnMs(until) => Rejection::MassRecoveryOn(time(until)),
        Why::Unreadable(pb::Empty {}) => Rejection::Unreadable,
    })
}

const fn scope_to(scope: QuotaScope) -> u32 {
    match scope {
        QuotaScope::RequesterHour => 0,
        QuotaScope::RequesterDay => 1,
        QuotaScope::ClusterHour => 2,
    }
}

fn scope_from(scope: u32) -> Result<QuotaScope, CodecError> {
    match scope {
        0 => Ok(QuotaScope::RequesterHour),
        1 => Ok(QuotaScope::RequesterDay),
        2 => Ok(QuotaScope::ClusterHour),
        _ => Err(FieldError::new("scope", "is not known").into()),
    }
}

const fn unusable_to(why: Unusable) -> u32 {
    match why {
        Unusable::Mismatch => 1,
        Unusable::Pending => 2,
        Unusable::Denied => 3,
        Unusable::Used => 4,
        Unusable::Decided => 5,
    }
}

fn unusable_from(why: u32) -> Result<Unusable, CodecError> {
    match why {
        1 => Ok(Unusable::Mismatch),
        2 => Ok(Unusable::Pending),
        3 => Ok(Unusable::Denied),
        4 => Ok(Unusable::Used),
        5 => Ok(Unusable::Decided),
        _ => Err(FieldError::new("approval_unusable", "is not known").into()),
    }
}

/// A `usize` has at most 64 bits on every platform that Rust runs on.
fn count_to(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn count_from(count: u64) -> Result<usize, CodecError> {
    usize::try_from(count).map_err(|_| FieldError::new("count", "is too large").into())
}
