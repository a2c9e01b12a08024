//! Words that several messages share.

use bytes::Bytes;
use holdfast_proto::store::v1 as pb;

use super::{CodecError, required};
use crate::domain::{
    Actor, AuditAction, ComplianceStatus, DenialSubject, DeviceId, EncryptionState, Epoch,
    FieldError, Fingerprint, KeyState, NodeId, OidcSubject, OperatorName, ProtectorKind, Reason,
    Role, Sealed, Text, Timestamp, User, VolumeCompliance, VolumeId, VolumeKind, limits,
};
use crate::state::records::KeyRef;
use crate::state::{AuditPosition, Position};

macro_rules! enum_codec {
    ($to:ident, $from:ident, $type:ident, $field:literal, { $($variant:ident = $stored:ident),* $(,)? }) => {
        pub(super) fn $to(value: $type) -> i32 {
            i32::from(match value { $($type::$variant => pb::$type::$stored),* })
        }

        pub(super) fn $from(value: i32) -> Result<$type, CodecError> {
            match pb::$type::try_from(value) {
                $(Ok(pb::$type::$stored) => Ok($type::$variant),)*
                Ok(pb::$type::Unspecified) | Err(_) => {
                    Err(CodecError::UnknownEnum { field: $field, value })
                }
            }
        }
    };
}

enum_codec!(protector_kind_to, protector_kind_from, ProtectorKind, "protector_kind", {
    BitLockerRecoveryPassword = BitlockerRecoveryPassword,
    Luks2RecoveryKey = Luks2RecoveryKey,
});
enum_codec!(volume_kind_to, volume_kind_from, VolumeKind, "volume_kind", {
    OperatingSystem = OperatingSystem,
    FixedData = FixedData,
    RemovableData = RemovableData,
});
enum_codec!(key_state_to, key_state_from, KeyState, "state", {
    Active = Active,
    Disclosed = Disclosed,
    RotationDue = RotationDue,
    Superseded = Superseded,
});
enum_codec!(status_to, status_from, ComplianceStatus, "status", {
    Compliant = Compliant,
    NonCompliant = NonCompliant,
    Exempt = Exempt,
    TemporarilyExempt = TemporarilyExempt,
    PolicyNotEnforced = PolicyNotEnforced,
    Unknown = Unknown,
});
enum_codec!(encryption_to, encryption_from, EncryptionState, "encryption", {
    NotEncrypted = NotEncrypted,
    Encrypting = Encrypting,
    Encrypted = Encrypted,
    Decrypting = Decrypting,
    Unknown = Unknown,
});
enum_codec!(role_to, role_from, Role, "role", {
    HelpDesk = HelpDesk,
    AdvancedHelpDesk = AdvancedHelpDesk,
    ReportReader = ReportReader,
    Auditor = Auditor,
    Administrator = Administrator,
    DataMigration = DataMigration,
});
enum_codec!(audit_action_to, audit_action_from, AuditAction, "action", {
    Bootstrap = Bootstrap,
    Escrow = Escrow,
    Find = Find,
    Disclose = Disclose,
    Grant = Grant,
    Revoke = Revoke,
    AuditRead = AuditRead,
    Refuse = Refuse,
    Report = Report,
    ClusterChange = ClusterChange,
    Deny = Deny,
    Allow = Allow,
    Seal = Seal,
    Unseal = Unseal,
    Rotate = Rotate,
    Reseal = Reseal,
    Rekey = Rekey,
    AgentCa = AgentCa,
    TokenIssue = TokenIssue,
    TokenRevoke = TokenRevoke,
    Enrol = Enrol,
    EnrolAgain = EnrolAgain,
    Renew = Renew,
    GroupAdd = GroupAdd,
    GroupRemove = GroupRemove,
    ApprovalRequest = ApprovalRequest,
    ApprovalGrant = ApprovalGrant,
    ApprovalDeny = ApprovalDeny,
    DisclosurePolicy = DisclosurePolicy,
    MassRecoveryPropose = MassRecoveryPropose,
    MassRecoveryConfirm = MassRecoveryConfirm,
    MassRecoveryEnd = MassRecoveryEnd,
    Unreadable = Unreadable,
});

pub(super) fn id(bytes: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(super) fn digest(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], CodecError> {
    bytes.try_into().map_err(|_| FieldError::new(field, "must have 32 bytes").into())
}

pub(super) fn owned(text: &Text) -> String {
    text.as_str().to_owned()
}

/// An id that may be left out: empty stands for `None`.
pub(super) fn optional_id<T>(
    bytes: &[u8],
    from: impl FnOnce(&[u8]) -> Result<T, FieldError>,
) -> Result<Option<T>, CodecError> {
    if bytes.is_empty() { Ok(None) } else { Ok(Some(from(bytes)?)) }
}

pub(super) fn position_to(position: Position) -> pb::Position {
    pb::Position { term: position.term, index: position.index }
}

pub(super) fn position_from(position: pb::Position) -> Position {
    Position { term: position.term, index: position.index }
}

pub(super) fn audit_to(audit: &AuditPosition) -> pb::AuditHead {
    pb::AuditHead { sequence: audit.sequence, hash: Bytes::copy_from_slice(&audit.hash) }
}

pub(super) fn audit_from(audit: &pb::AuditHead) -> Result<AuditPosition, CodecError> {
    Ok(AuditPosition { sequence: audit.sequence, hash: digest("audit.hash", &audit.hash)? })
}

pub(super) fn actor_to(actor: &Actor) -> pb::Actor {
    let kind = match actor {
        Actor::Node(node) => pb::actor::Kind::Node(node.get()),
        Actor::Agent(device) => pb::actor::Kind::Agent(id(device.as_bytes())),
        Actor::Operator(name) => pb::actor::Kind::Operator(name.as_str().to_owned()),
        Actor::Oidc(person) => pb::actor::Kind::Oidc(pb::OidcSubject {
            issuer: person.issuer().as_str().to_owned(),
            subject: person.subject().to_owned(),
        }),
    };
    pb::Actor { kind: Some(kind) }
}

pub(super) fn actor_from(actor: Option<pb::Actor>) -> Result<Actor, CodecError> {
    match required(actor.and_then(|actor| actor.kind), "actor")? {
        pb::actor::Kind::Node(0) => Err(FieldError::new("actor.node", "must be 1 or more").into()),
        pb::actor::Kind::Node(node) => Ok(Actor::Node(NodeId::new(node))),
        pb::actor::Kind::Agent(device) => Ok(Actor::Agent(DeviceId::from_slice(&device)?)),
        pb::actor::Kind::Operator(name) => Ok(Actor::Operator(name.parse()?)),
        pb::actor::Kind::Oidc(person) => {
            Ok(Actor::Oidc(OidcSubject::new(person.issuer.parse()?, person.subject)?))
        }
    }
}

pub(super) fn subject_to(subject: &DenialSubject) -> pb::DenialSubject {
    use pb::denial_subject::Subject;
    let subject = match subject {
        DenialSubject::Identity(actor) => Subject::Identity(actor_to(actor)),
        DenialSubject::Certificate(certificate) => {
            Subject::Certificate(Bytes::copy_from_slice(certificate.as_bytes()))
        }
    };
    pb::DenialSubject { subject: Some(subject) }
}

pub(super) fn subject_from(subject: pb::DenialSubject) -> Result<DenialSubject, CodecError> {
    use pb::denial_subject::Subject;
    Ok(match required(subject.subject, "subject")? {
        Subject::Identity(actor) => DenialSubject::Identity(actor_from(Some(actor))?),
        Subject::Certificate(certificate) => {
            DenialSubject::Certificate(Fingerprint::from_slice(&certificate)?)
        }
    })
}

pub(super) fn operator_from(name: &str) -> Result<OperatorName, CodecError> {
    Ok(name.parse()?)
}

/// Who imported a key: empty for nobody.
pub(super) fn importer_to(importer: Option<&OperatorName>) -> String {
    importer.map(ToString::to_string).unwrap_or_default()
}

pub(super) fn importer_from(name: &str) -> Result<Option<OperatorName>, CodecError> {
    if name.is_empty() { Ok(None) } else { operator_from(name).map(Some) }
}

pub(super) fn user_to(user: &User) -> pb::User {
    pb::User { domain: user.domain().to_owned(), name: user.name().to_owned() }
}

pub(super) fn user_from(user: pb::User) -> Result<User, CodecError> {
    Ok(User::new(user.domain, user.name)?)
}

pub(super) fn users_to(users: &[User]) -> Vec<pb::User> {
    users.iter().map(user_to).collect()
}

pub(super) fn users_from(users: Vec<pb::User>) -> Result<Vec<User>, CodecError> {
    users.into_iter().map(user_from).collect()
}

pub(super) fn reason_to(reason: &Reason) -> pb::Reason {
    pb::Reason { code: reason.code().to_owned(), text: reason.text().to_owned() }
}

pub(super) fn reason_from(reason: pb::Reason) -> Result<Reason, CodecError> {
    Ok(Reason::new(&reason.code, reason.text)?)
}

pub(super) fn sealed_to(sealed: &Sealed) -> pb::Sealed {
    pb::Sealed {
        epoch: sealed.epoch.get(),
        encapsulated_key: Bytes::copy_from_slice(&sealed.encapsulated_key),
        ciphertext: sealed.ciphertext.clone(),
    }
}

pub(super) fn sealed_key_from(sealed: pb::Sealed) -> Result<Sealed, CodecError> {
    sealed_from("sealed_key", sealed, limits::SEALED_KEY_BYTES)
}

pub(super) fn sealed_package_from(sealed: pb::Sealed) -> Result<Sealed, CodecError> {
    sealed_from("sealed_key_package", sealed, limits::SEALED_PACKAGE_BYTES)
}

fn sealed_from(field: &'static str, sealed: pb::Sealed, most: usize) -> Result<Sealed, CodecError> {
    let epoch = Epoch::new(sealed.epoch);
    Ok(Sealed::new(field, epoch, &sealed.encapsulated_key, sealed.ciphertext, most)?)
}

pub(super) fn key_ref_to(key: KeyRef) -> pb::KeyRef {
    pb::KeyRef { protector_id: id(key.protector.as_bytes()), version: key.version.get() }
}

pub(super) fn key_ref_from(key: &pb::KeyRef) -> Result<KeyRef, CodecError> {
    Ok(KeyRef {
        protector: crate::domain::ProtectorId::from_slice(&key.protector_id)?,
        version: crate::domain::KeyVersion::new(key.version),
    })
}

pub(super) fn compliance_to(volume: &VolumeCompliance) -> pb::VolumeCompliance {
    pb::VolumeCompliance {
        volume_id: id(volume.volume.as_bytes()),
        volume_kind: volume_kind_to(volume.kind),
        mount_point: owned(&volume.mount_point),
        status: status_to(volume.status),
        codes: volume.codes.iter().copied().map(u32::from).collect(),
        encryption: encryption_to(volume.encryption),
        protection_on: volume.protection_on,
        cipher: owned(&volume.cipher),
        protector_types: owned(&volume.protector_types),
    }
}

pub(super) fn compliance_from(
    volume: pb::VolumeCompliance,
) -> Result<VolumeCompliance, CodecError> {
    Ok(VolumeCompliance {
        volume: VolumeId::from_slice(&volume.volume_id)?,
        kind: volume_kind_from(volume.volume_kind)?,
        mount_point: Text::name("mount_point", volume.mount_point)?,
        status: status_from(volume.status)?,
        codes: VolumeCompliance::check_codes(&volume.codes)?,
        encryption: encryption_from(volume.encryption)?,
        protection_on: volume.protection_on,
        cipher: Text::name("cipher", volume.cipher)?,
        protector_types: Text::name("protector_types", volume.protector_types)?,
    })
}

pub(super) fn time(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}
