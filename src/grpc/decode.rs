//! From wire messages to the vocabulary: every field is checked, and an error names its path.

use std::str::FromStr;

use bytes::Bytes;
use holdfast_proto::v1;

use crate::domain::{
    ApprovalId, ComplianceStatus, EncryptionState, Epoch, FieldError, GroupName, OperatorName,
    ProtectorKind, Reach, Reason, RequestId, Role, Sealed, Text, User, VolumeCompliance,
    VolumeKind, limits,
};

/// Names the field of `error` by `path`, whatever it called itself.
pub(super) fn at(path: impl Into<String>) -> impl FnOnce(FieldError) -> FieldError {
    let path = path.into();
    move |error| FieldError::new(path, error.what)
}

/// An identifier.
pub(super) fn id<T: FromStr<Err = FieldError>>(
    path: impl Into<String>,
    text: &str,
) -> Result<T, FieldError> {
    text.parse().map_err(at(path))
}

/// An identifier that may be left out.
pub(super) fn optional_id<T: FromStr<Err = FieldError>>(
    path: &'static str,
    text: &str,
) -> Result<Option<T>, FieldError> {
    if text.is_empty() { Ok(None) } else { id(path, text).map(Some) }
}

/// The request's own id. All zeros would make the requests of careless clients one.
pub(super) fn request_id(text: &str) -> Result<RequestId, FieldError> {
    let id: RequestId = id("request_id", text)?;
    if id.uuid().is_nil() {
        return Err(FieldError::new("request_id", "must not be all zeros"));
    }
    Ok(id)
}

/// A message that must be there.
pub(super) fn present<T>(path: &'static str, message: Option<T>) -> Result<T, FieldError> {
    message.ok_or_else(|| FieldError::new(path, "is missing"))
}

/// Refuses lists that are too long.
pub(super) fn at_most<T>(path: &'static str, items: &[T], most: usize) -> Result<(), FieldError> {
    if items.len() > most {
        let what = format!("has {} items, at most {most} are allowed", items.len());
        return Err(FieldError::new(path, what));
    }
    Ok(())
}

fn unset(path: impl Into<String>) -> FieldError {
    FieldError::new(path.into(), "must be one of the named values")
}

/// A kind of key protector.
pub(super) fn protector_kind(path: &str, value: i32) -> Result<ProtectorKind, FieldError> {
    match v1::ProtectorKind::try_from(value) {
        Ok(v1::ProtectorKind::BitlockerRecoveryPassword) => {
            Ok(ProtectorKind::BitLockerRecoveryPassword)
        }
        Ok(v1::ProtectorKind::Luks2RecoveryKey) => Ok(ProtectorKind::Luks2RecoveryKey),
        Ok(v1::ProtectorKind::Unspecified) | Err(_) => Err(unset(path)),
    }
}

/// A kind of volume.
pub(super) fn volume_kind(path: &str, value: i32) -> Result<VolumeKind, FieldError> {
    match v1::VolumeKind::try_from(value) {
        Ok(v1::VolumeKind::OperatingSystem) => Ok(VolumeKind::OperatingSystem),
        Ok(v1::VolumeKind::FixedData) => Ok(VolumeKind::FixedData),
        Ok(v1::VolumeKind::RemovableData) => Ok(VolumeKind::RemovableData),
        Ok(v1::VolumeKind::Unspecified) | Err(_) => Err(unset(path)),
    }
}

fn compliance_status(path: &str, value: i32) -> Result<ComplianceStatus, FieldError> {
    match v1::ComplianceStatus::try_from(value) {
        Ok(v1::ComplianceStatus::Compliant) => Ok(ComplianceStatus::Compliant),
        Ok(v1::ComplianceStatus::NonCompliant) => Ok(ComplianceStatus::NonCompliant),
        Ok(v1::ComplianceStatus::Exempt) => Ok(ComplianceStatus::Exempt),
        Ok(v1::ComplianceStatus::TemporarilyExempt) => Ok(ComplianceStatus::TemporarilyExempt),
        Ok(v1::ComplianceStatus::PolicyNotEnforced) => Ok(ComplianceStatus::PolicyNotEnforced),
        Ok(v1::ComplianceStatus::Unknown) => Ok(ComplianceStatus::Unknown),
        Ok(v1::ComplianceStatus::Unspecified) | Err(_) => Err(unset(path)),
    }
}

fn encryption_state(path: &str, value: i32) -> Result<EncryptionState, FieldError> {
    match v1::EncryptionState::try_from(value) {
        Ok(v1::EncryptionState::NotEncrypted) => Ok(EncryptionState::NotEncrypted),
        Ok(v1::EncryptionState::Encrypting) => Ok(EncryptionState::Encrypting),
        Ok(v1::EncryptionState::Encrypted) => Ok(EncryptionState::Encrypted),
        Ok(v1::EncryptionState::Decrypting) => Ok(EncryptionState::Decrypting),
        Ok(v1::EncryptionState::Unknown) => Ok(EncryptionState::Unknown),
        Ok(v1::EncryptionState::Unspecified) | Err(_) => Err(unset(path)),
    }
}

/// A role.
pub(super) fn role(path: &str, value: i32) -> Result<Role, FieldError> {
    match v1::Role::try_from(value) {
        Ok(v1::Role::HelpDesk) => Ok(Role::HelpDesk),
        Ok(v1::Role::AdvancedHelpDesk) => Ok(Role::AdvancedHelpDesk),
        Ok(v1::Role::ReportReader) => Ok(Role::ReportReader),
        Ok(v1::Role::Auditor) => Ok(Role::Auditor),
        Ok(v1::Role::Administrator) => Ok(Role::Administrator),
        Ok(v1::Role::DataMigration) => Ok(Role::DataMigration),
        Ok(v1::Role::Unspecified) | Err(_) => Err(unset(path)),
    }
}

/// A request for approval that is named, 0 for none.
pub(super) fn optional_approval(number: u64) -> Result<Option<ApprovalId>, FieldError> {
    if number == 0 { Ok(None) } else { ApprovalId::new(number).map(Some) }
}

/// An operator's name.
pub(super) fn operator(path: &str, text: &str) -> Result<OperatorName, FieldError> {
    text.parse().map_err(at(path))
}

/// Groups that a grant of this role is limited to; none for all devices.
pub(super) fn reach(path: &'static str, names: &[String], role: Role) -> Result<Reach, FieldError> {
    at_most(path, names, limits::GRANT_GROUPS)?;
    let names = names.iter().enumerate();
    let groups = names.map(|(i, name)| id::<GroupName>(format!("{path}[{i}]"), name));
    let reach = Reach::of(groups.collect::<Result<Vec<_>, _>>()?).map_err(at(path))?;
    reach.check(role).map_err(at(path))?;
    Ok(reach)
}

/// A name of at most 256 bytes.
pub(super) fn name(path: &'static str, text: String) -> Result<Text, FieldError> {
    Text::name(path, text)
}

/// A user; errors are `path.domain` or `path.name`.
pub(super) fn user(path: &str, user: v1::User) -> Result<User, FieldError> {
    User::new(user.domain, user.name).map_err(|error| {
        let inner = error.field.strip_prefix("user.").unwrap_or(&error.field);
        FieldError::new(format!("{path}.{inner}"), error.what.clone())
    })
}

/// The users of a device.
pub(super) fn users(path: &'static str, list: Vec<v1::User>) -> Result<Vec<User>, FieldError> {
    at_most(path, &list, limits::DEVICE_USERS)?;
    list.into_iter().enumerate().map(|(i, item)| user(&format!("{path}[{i}]"), item)).collect()
}

/// A reason.
pub(super) fn reason(reason: Option<v1::Reason>) -> Result<Reason, FieldError> {
    let reason = reason.unwrap_or_default();
    Reason::new(&reason.code, reason.text)
}

/// A sealed key or package of at most `most` bytes.
pub(super) fn sealed(
    field: &'static str,
    sealed: v1::SealedKey,
    most: usize,
) -> Result<Sealed, FieldError> {
    let ciphertext: Bytes = sealed.ciphertext;
    Sealed::new(field, Epoch::new(sealed.epoch), &sealed.encapsulated_key, ciphertext, most)
}

/// What a device says of one of its volumes; errors begin with `path`.
pub(super) fn compliance(
    path: &str,
    volume: v1::VolumeCompliance,
) -> Result<VolumeCompliance, FieldError> {
    let part = |name: &str| format!("{path}.{name}");
    let named = |name: &str, text: String| Text::name("name", text).map_err(at(part(name)));
    Ok(VolumeCompliance {
        volume: id(part("volume_id"), &volume.volume_id)?,
        kind: volume_kind(&part("volume_kind"), volume.volume_kind)?,
        mount_point: named("mount_point", volume.mount_point)?,
        status: compliance_status(&part("status"), volume.status)?,
        codes: VolumeCompliance::check_codes(&volume.reasons).map_err(at(part("reasons")))?,
        encryption: encryption_state(&part("encryption_state"), volume.encryption_state)?,
        protection_on: volume.protection_on,
        cipher: named("cipher", volume.cipher)?,
        protector_types: named("protector_types", volume.protector_types)?,
    })
}

/// Number of items on a page: 0 stands for 100.
pub(super) fn page_size(size: u32) -> Result<usize, FieldError> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    match size {
        0 => Ok(100),
        _ if size <= limits::PAGE_ITEMS => Ok(size),
        _ => {
            let what = format!("is {size}, at most {} are allowed", limits::PAGE_ITEMS);
            Err(FieldError::new("page_size", what))
        }
    }
}
