//! From the vocabulary to wire messages that several services share.

use bytes::Bytes;
use holdfast_proto::v1;

use crate::domain::{
    ComplianceStatus, EncryptionState, KeyState, ProtectorKind, Role, Timestamp, User,
    VolumeCompliance, VolumeKind,
};
use crate::state::{AuditPosition, KeySummary, Position};

/// A position.
pub(super) fn position(position: Position) -> v1::LogPosition {
    v1::LogPosition { term: position.term, index: position.index }
}

/// Head of the audit chain.
pub(super) fn audit_head(audit: &AuditPosition) -> v1::AuditHead {
    v1::AuditHead { sequence: audit.sequence, hash: Bytes::copy_from_slice(&audit.hash) }
}

/// A user.
pub(super) fn user(user: &User) -> v1::User {
    v1::User { domain: user.domain().to_owned(), name: user.name().to_owned() }
}

/// Users.
pub(super) fn users(list: &[User]) -> Vec<v1::User> {
    list.iter().map(user).collect()
}

/// Milliseconds, 0 for never.
pub(super) fn millis(time: Option<Timestamp>) -> u64 {
    time.map_or(0, Timestamp::as_millis)
}

/// A kind of key protector.
pub(super) fn protector_kind(kind: ProtectorKind) -> v1::ProtectorKind {
    match kind {
        ProtectorKind::BitLockerRecoveryPassword => v1::ProtectorKind::BitlockerRecoveryPassword,
        ProtectorKind::Luks2RecoveryKey => v1::ProtectorKind::Luks2RecoveryKey,
    }
}

/// A kind of volume.
pub(super) fn volume_kind(kind: VolumeKind) -> v1::VolumeKind {
    match kind {
        VolumeKind::OperatingSystem => v1::VolumeKind::OperatingSystem,
        VolumeKind::FixedData => v1::VolumeKind::FixedData,
        VolumeKind::RemovableData => v1::VolumeKind::RemovableData,
    }
}

/// A key's state.
pub(super) fn key_state(state: KeyState) -> v1::KeyState {
    match state {
        KeyState::Active => v1::KeyState::Active,
        KeyState::Disclosed => v1::KeyState::Disclosed,
        KeyState::RotationDue => v1::KeyState::RotationDue,
        KeyState::Superseded => v1::KeyState::Superseded,
    }
}

/// A role.
pub(super) fn role(role: Role) -> v1::Role {
    match role {
        Role::HelpDesk => v1::Role::HelpDesk,
        Role::AdvancedHelpDesk => v1::Role::AdvancedHelpDesk,
        Role::ReportReader => v1::Role::ReportReader,
        Role::Auditor => v1::Role::Auditor,
        Role::Administrator => v1::Role::Administrator,
        Role::DataMigration => v1::Role::DataMigration,
    }
}

fn compliance_status(status: ComplianceStatus) -> v1::ComplianceStatus {
    match status {
        ComplianceStatus::Compliant => v1::ComplianceStatus::Compliant,
        ComplianceStatus::NonCompliant => v1::ComplianceStatus::NonCompliant,
        ComplianceStatus::Exempt => v1::ComplianceStatus::Exempt,
        ComplianceStatus::TemporarilyExempt => v1::ComplianceStatus::TemporarilyExempt,
        ComplianceStatus::PolicyNotEnforced => v1::ComplianceStatus::PolicyNotEnforced,
        ComplianceStatus::Unknown => v1::ComplianceStatus::Unknown,
    }
}

fn encryption_state(state: EncryptionState) -> v1::EncryptionState {
    match state {
        EncryptionState::NotEncrypted => v1::EncryptionState::NotEncrypted,
        EncryptionState::Encrypting => v1::EncryptionState::Encrypting,
        EncryptionState::Encrypted => v1::EncryptionState::Encrypted,
        EncryptionState::Decrypting => v1::EncryptionState::Decrypting,
        EncryptionState::Unknown => v1::EncryptionState::Unknown,
    }
}

/// A volume's last report.
pub(super) fn compliance(volume: &VolumeCompliance) -> v1::VolumeCompliance {
    v1::VolumeCompliance {
        volume_id: volume.volume.to_string(),
        volume_kind: volume_kind(volume.kind).into(),
        mount_point: volume.mount_point.to_string(),
        status: compliance_status(volume.status).into(),
        reasons: volume.codes.iter().map(|code| u32::from(*code)).collect(),
        encryption_state: encryption_state(volume.encryption).into(),
        protection_on: volume.protection_on,
        cipher: volume.cipher.to_string(),
        protector_types: volume.protector_types.to_string(),
    }
}

/// A key version without its secret.
pub(super) fn key_summary(key: &KeySummary) -> v1::KeySummary {
    v1::KeySummary {
        protector_id: key.protector.to_string(),
        version: key.version.get(),
        device_id: key.device.to_string(),
        volume_id: key.volume.to_string(),
        protector_kind: protector_kind(key.protector_kind).into(),
        volume_kind: volume_kind(key.volume_kind).into(),
        state: key_state(key.state).into(),
        escrowed_at_ms: key.escrowed_at.as_millis(),
        disclosed_at_ms: millis(key.disclosed_at),
        has_key_package: key.has_package,
        host_name: key.host_name.to_string(),
        users: users(&key.users),
        imported_by: key.imported_by.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Age of a stale read in milliseconds; the largest number if the node never had proof of a quorum.
pub(super) fn age_ms(age: std::time::Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
