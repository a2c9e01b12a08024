//! What the tables hold, as values. How they are stored is the codec's affair.

mod controls;
pub(super) mod keys;

use bytes::Bytes;

use super::{
    AgentCa, AuditPosition, DeviceCertificate, EpochRecord, KeySummary, Position, ReceiptBody,
    Signer,
};
use crate::domain::{
    Actor, ApprovalId, ClusterId, DenialSubject, DeviceId, GroupName, KeyState, KeyVersion,
    OperatorName, ProtectorId, ProtectorKind, Reach, RequestId, Role, Sealed, ShareSet, Text,
    Timestamp, TokenBinding, TokenId, User, VolumeCompliance, VolumeId, VolumeKind,
};
pub use controls::{Approval, ApprovalState, Decision, MassRecovery, PolicyRecord};
pub(super) use controls::{Tallies, Tally, Window};

/// A device with its volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Name that it last gave itself.
    pub host_name: Text,
    /// Operating system that it last reported; empty before the first report.
    pub operating_system: Text,
    /// Manufacturer that it last reported; empty before the first report.
    pub manufacturer: Text,
    /// Model that it last reported; empty before the first report.
    pub model: Text,
    /// Users that it last reported, at most 32.
    pub users: Vec<User>,
    /// Its volumes, ascending by id, at most 64.
    pub volumes: Vec<Volume>,
    /// When it first wrote, or a key was imported for it.
    pub first_seen: Timestamp,
    /// When it last wrote; zero if only others have for it.
    pub last_contact: Timestamp,
}

/// A volume of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id; unique within its device only.
    pub id: VolumeId,
    /// What it is used for.
    pub kind: VolumeKind,
    /// Its newest key; `None` if none was escrowed.
    pub key: Option<KeyRef>,
    /// Whether its newest key was disclosed and has to be rotated.
    pub rotation_due: bool,
    /// Its last report and when that came.
    pub compliance: Option<(VolumeCompliance, Timestamp)>,
}

/// Names a key version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRef {
    /// The key's id.
    pub protector: ProtectorId,
    /// Its version.
    pub version: KeyVersion,
}

impl Device {
    /// A volume.
    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        let at = self.volumes.binary_search_by_key(&id, |volume| volume.id).ok()?;
        self.volumes.get(at)
    }

    pub(super) fn volume_mut(&mut self, id: VolumeId) -> Option<&mut Volume> {
        let at = self.volumes.binary_search_by_key(&id, |volume| volume.id).ok()?;
        self.volumes.get_mut(at)
    }

    /// A volume; put in its place if there is none.
    pub(super) fn volume_or_insert(
        &mut self,
        id: VolumeId,
        new: impl FnOnce() -> Volume,
    ) -> &mut Volume {
        let at = match self.volumes.binary_search_by_key(&id, |volume| volume.id) {
            Ok(at) => at,
            Err(at) => {
                self.volumes.insert(at, new());
                at
            }
        };
        #[allow(clippy::indexing_slicing, reason = "found or inserted at this place just above")]
        &mut self.volumes[at]
    }

    /// Volumes whose newest key was disclosed.
    pub fn rotation_due(&self) -> Vec<VolumeId> {
        self.volumes.iter().filter(|volume| volume.rotation_due).map(|volume| volume.id).collect()
    }
}

impl Volume {
    /// Version of its newest key; [`KeyVersion::NONE`] if none was escrowed.
    pub fn key_version(&self) -> KeyVersion {
        self.key.map_or(KeyVersion::NONE, |key| key.version)
    }

    /// State of its newest key.
    pub fn key_state(&self) -> Option<KeyState> {
        let state = if self.rotation_due { KeyState::RotationDue } else { KeyState::Active };
        self.key.map(|_| state)
    }
}

/// A key version with its secret still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// What a search shows of it.
    pub summary: KeySummary,
    /// The sealed key.
    pub sealed: Sealed,
    /// The facts of its receipt.
    pub receipt: ReceiptBody,
    /// Request that stored it.
    pub request_id: RequestId,
    /// The volume's key before it.
    pub previous: Option<KeyRef>,
}

/// A key version as it is sealed at the moment, for who seals it anew or tests whether it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Which one.
    pub at: KeyRef,
    /// Device that escrowed it.
    pub device: DeviceId,
    /// Volume that it opens.
    pub volume: VolumeId,
    /// What kind of secret it is.
    pub protector_kind: ProtectorKind,
    /// The key.
    pub sealed: Sealed,
    /// Its package, if it has one.
    pub package: Option<Sealed>,
}

/// The record of a key version. It never changes with its successors: whether it is superseded follows from the volume, so
/// that an escrow writes one key record and not two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRecord {
    pub(super) at: KeyRef,
    pub(super) device: DeviceId,
    pub(super) volume: VolumeId,
    pub(super) protector_kind: ProtectorKind,
    pub(super) volume_kind: VolumeKind,
    pub(super) sealed: Sealed,
    pub(super) has_package: bool,
    pub(super) sealed_digest: [u8; 32],
    pub(super) position: Position,
    pub(super) audit: AuditPosition,
    pub(super) escrowed_at: Timestamp,
    pub(super) request_id: RequestId,
    pub(super) disclosed_at: Option<Timestamp>,
    pub(super) disclosed_superseded: bool,
    pub(super) previous: Option<KeyRef>,
    /// Who imported it; `None` if the device escrowed it itself.
    pub(super) imported_by: Option<OperatorName>,
}

impl KeyRecord {
    /// The facts of its receipt, the same for ever.
    pub(super) fn receipt(&self) -> ReceiptBody {
        ReceiptBody {
            device: self.device,
            volume: self.volume,
            protector: self.at.protector,
            version: self.at.version,
            sealed_digest: self.sealed_digest,
            position: self.position,
            audit: self.audit,
            escrowed_at: self.escrowed_at,
        }
    }

    /// Whether it is the newest key of its volume.
    pub(super) fn is_newest(&self, device: &Device) -> bool {
        device.volume(self.volume).is_some_and(|volume| volume.key == Some(self.at))
    }

    /// Where it is in its life, given its device.
    pub(super) fn state(&self, device: &Device) -> KeyState {
        match (self.is_newest(device), self.disclosed_superseded, self.disclosed_at) {
            (true, _, Some(_)) => KeyState::RotationDue,
            (true, _, None) => KeyState::Active,
            (false, true, _) => KeyState::Disclosed,
            (false, false, _) => KeyState::Superseded,
        }
    }

    /// What a search shows of it, given its device.
    pub(super) fn summary(&self, device: &Device) -> KeySummary {
        KeySummary {
            protector: self.at.protector,
            version: self.at.version,
            device: self.device,
            volume: self.volume,
            protector_kind: self.protector_kind,
            volume_kind: self.volume_kind,
            state: self.state(device),
            escrowed_at: self.escrowed_at,
            disclosed_at: self.disclosed_at,
            has_package: self.has_package,
            host_name: device.host_name.clone(),
            users: device.users.clone(),
            imported_by: self.imported_by.clone(),
        }
    }

    /// The same for those outside.
    pub(super) fn into_stored(self, device: &Device) -> StoredKey {
        StoredKey {
            summary: self.summary(device),
            receipt: self.receipt(),
            request_id: self.request_id,
            previous: self.previous,
            sealed: self.sealed,
        }
    }
}

/// A remembered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestRecord {
    pub(super) actor: Actor,
    pub(super) request_id: RequestId,
    pub(super) body_digest: [u8; 32],
    pub(super) time: Timestamp,
    pub(super) answer: Remembered,
}

/// What is needed to answer a request again, beside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remembered {
    /// The body is enough.
    Body,
    /// The key that was stored or disclosed.
    Key(KeyRef),
    /// Whether a grant, a revocation, a denial, a seal or the end of one changed anything.
    GrantedChanged(bool),
    /// How many keys were sealed anew.
    Resealed(u32),
    /// The request for approval that was made.
    Approval(ApprovalId),
    /// The mass recovery that was proposed.
    MassRecovery(u64),
}

/// A role that an operator has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who has it.
    pub operator: OperatorName,
    /// What they have.
    pub role: Role,
    /// For which devices.
    pub reach: Reach,
    /// Who granted it.
    pub granted_by: Actor,
    /// When.
    pub granted_at: Timestamp,
}

/// An entry of the deny-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Whom or what it shuts out.
    pub subject: DenialSubject,
    /// Who denied it.
    pub denied_by: Actor,
    /// When.
    pub denied_at: Timestamp,
    /// Why, in words.
    pub reason: Text,
}

/// An enrolment token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What its secret hashes to.
    pub digest: [u8; 32],
    /// Whom it is for.
    pub binding: TokenBinding,
    /// How many devices have enrolled with it.
    pub used: u32,
    /// Who issued it.
    pub issued_by: Actor,
    /// When.
    pub issued_at: Timestamp,
    /// Until when it is valid.
    pub expires_at: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// What is known of a device's certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The device.
    pub device: DeviceId,
    /// Its newest certificate.
    pub certificate: DeviceCertificate,
    /// Token that it enrolled with last; `None` if it came with a certificate from elsewhere.
    pub token: Option<TokenId>,
    /// Group of that token, if it was for one and the device was not taken out of it.
    pub group: Option<GroupName>,
    /// When it enrolled last; zero if never.
    pub enrolled_at: Timestamp,
    /// How often it enrolled.
    pub times: u32,
    /// When it last got a certificate.
    pub issued_at: Timestamp,
    /// Request that gave it the newest certificate.
    pub request_id: RequestId,
}

/// All that is stored about the escrow keys. Private parts are encrypted by the root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    /// The cluster.
    pub cluster: ClusterId,
    /// What a right root key derives to.
    pub root_check: [u8; 32],
    /// The signer of escrow keys.
    pub signer: Signer,
    /// All epochs, ascending; the last is the current one.
    pub epochs: Vec<EpochRecord>,
    /// How the root key is split; `None` if it is not, so that each node has it in a file.
    pub shares: Option<ShareSet>,
    /// The CAs of devices, ascending; the last one signs. None before an administrator has made one.
    pub agent_cas: Vec<AgentCa>,
}

/// Who sealed the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Who.
    pub sealed_by: Actor,
    /// When.
    pub sealed_at: Timestamp,
    /// Why, in words.
    pub reason: Text,
}

/// Disclosures counted for one requester where no policy was ever set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) window_start: Timestamp,
    pub(super) used: u32,
}
