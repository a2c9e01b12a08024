//! Between the vocabulary and the messages on the wire.

use holdfast_proto::v1;

use super::error::ClientError;
use crate::domain::{
    DisclosurePolicy, FieldError, PolicyParts, ProtectorKind, Reason, Role, ShareSet, User,
    VolumeKind,
};

/// A kind of protector on the wire.
pub const fn protector_kind(kind: ProtectorKind) -> v1::ProtectorKind {
    match kind {
        ProtectorKind::BitLockerRecoveryPassword => v1::ProtectorKind::BitlockerRecoveryPassword,
        ProtectorKind::Luks2RecoveryKey => v1::ProtectorKind::Luks2RecoveryKey,
    }
}

/// A kind of volume on the wire.
pub const fn volume_kind(kind: VolumeKind) -> v1::VolumeKind {
    match kind {
        VolumeKind::OperatingSystem => v1::VolumeKind::OperatingSystem,
        VolumeKind::FixedData => v1::VolumeKind::FixedData,
        VolumeKind::RemovableData => v1::VolumeKind::RemovableData,
    }
}

/// A role on the wire.
pub const fn role(role: Role) -> v1::Role {
    match role {
        Role::HelpDesk => v1::Role::HelpDesk,
        Role::AdvancedHelpDesk => v1::Role::AdvancedHelpDesk,
        Role::ReportReader => v1::Role::ReportReader,
        Role::Auditor => v1::Role::Auditor,
        Role::Administrator => v1::Role::Administrator,
        Role::DataMigration => v1::Role::DataMigration,
    }
}

/// How a root key is split, on the wire.
pub fn share_set(set: &ShareSet) -> v1::ShareSet {
    v1::ShareSet {
        id: set.id().to_string(),
        shares: set.shares().into(),
        threshold: set.threshold().into(),
    }
}

/// A user on the wire.
pub fn user(user: &User) -> v1::User {
    v1::User { domain: user.domain().to_owned(), name: user.name().to_owned() }
}

/// A reason on the wire.
pub fn reason(reason: &Reason) -> v1::Reason {
    v1::Reason { code: reason.code().to_owned(), text: reason.text().to_owned() }
}

/// What bounds disclosures, on the wire.
pub fn disclosure_policy(policy: &DisclosurePolicy) -> v1::DisclosurePolicy {
    let parts = policy.parts();
    v1::DisclosurePolicy {
        requester_per_hour: parts.requester_hour,
        requester_per_day: parts.requester_day,
        cluster_per_hour: parts.cluster_hour,
        approval_ms: parts.approval_ms,
        dual_control_groups: parts.dual_control.iter().map(ToString::to_string).collect(),
    }
}

/// What bounds disclosures, from the wire.
///
/// # Errors
/// If a part is out of its limits.
pub fn parse_policy(policy: &v1::DisclosurePolicy) -> Result<DisclosurePolicy, FieldError> {
    let groups = policy.dual_control_groups.iter().map(|name| name.parse());
    DisclosurePolicy::new(PolicyParts {
        requester_hour: policy.requester_per_hour,
        requester_day: policy.requester_per_day,
        cluster_hour: policy.cluster_per_hour,
        approval_ms: policy.approval_ms,
        dual_control: groups.collect::<Result<_, FieldError>>()?,
    })
}

/// A user from `domain\name`, `name@domain` or `name`.
///
/// # Errors
/// If the name is empty or too long.
pub fn parse_user(text: &str) -> Result<User, FieldError> {
    if let Some((domain, name)) = text.split_once('\\') {
        return User::new(domain, name);
    }
    match text.split_once('@') {
        Some((name, domain)) => User::new(domain, name),
        None => User::new("", text),
    }
}

/// A part of an answer that must be there.
pub(super) fn present<T>(part: Option<T>, name: &'static str) -> Result<T, ClientError> {
    part.ok_or_else(|| ClientError::Answer(format!("{name} is missing")))
}

/// A field of an answer that must be well-formed.
pub(super) fn well_formed<T>(field: Result<T, FieldError>) -> Result<T, ClientError> {
    field.map_err(|error| ClientError::Answer(error.to_string()))
}

/// A digest or a hash of an answer.
pub(super) fn bytes32(bytes: &[u8], name: &'static str) -> Result<[u8; 32], ClientError> {
    bytes.try_into().map_err(|_| ClientError::Answer(format!("{name} has not 32 bytes")))
}
