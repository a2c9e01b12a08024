//! What apply answers.

use bytes::Bytes;

use super::{AuditPosition, Position};
use crate::domain::{
    ApprovalId, DeviceId, KeyState, KeyVersion, OperatorName, ProtectorId, ProtectorKind, Text,
    Timestamp, User, VolumeId, VolumeKind,
};
use crate::state::Rejection;

/// What apply answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The entry.
    pub position: Position,
    /// Head of the audit chain after the entry.
    pub audit: AuditPosition,
    /// Accepted or refused.
    pub outcome: Outcome,
}

/// Accepted or refused. A refusal by the state machine is no fault.
pub type Outcome = Result<Accepted, Rejection>;

/// An accepted command's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The keyring is made.
    Bootstrapped,
    /// The key is stored, now or by an earlier identical request.
    Escrowed(ReceiptBody),
    /// The report is stored; these volumes have to rotate.
    Reported {
        /// Volumes whose newest key was disclosed.
        rotation_due: Vec<VolumeId>,
    },
    /// What matched.
    Found {
        /// At most 200.
        keys: Vec<KeySummary>,
        /// Whether more matched.
        truncated: bool,
    },
    /// The key may be opened by the node that authenticated the caller.
    Disclosed {
        /// The key version after the disclosure.
        key: KeySummary,
        /// Whether this repeats an earlier answer.
        repeated: bool,
    },
    /// A grant, a revocation, a denial, a seal or the end of one is done.
    Granted {
        /// Whether it changed anything.
        changed: bool,
    },
    /// Keys are sealed anew.
    Resealed {
        /// How many of those that were sent: what was no longer stored as expected stays as it is.
        count: u32,
    },
    /// The device has this certificate.
    Enrolled(Enrolled),
    /// The request for approval is made.
    ApprovalRequested {
        /// Its number.
        id: ApprovalId,
        /// Until when it waits for somebody to decide.
        expires_at: Timestamp,
    },
    /// A mass recovery is proposed.
    MassRecoveryProposed {
        /// Its number.
        number: u64,
    },
    /// The record is written.
    Recorded,
    /// The entry holds no command: a blank or a membership.
    Nothing,
}

/// What a device got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Its certificate, DER.
    pub certificate: Bytes,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// Number of the CA that signed it.
    pub agent_ca: u32,
    /// Whether the device had enrolled before.
    pub again: bool,
    /// Whether this repeats an earlier answer.
    pub repeated: bool,
}

/// The facts of a receipt. The answering node signs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptBody {
    /// Device that escrowed it.
    pub device: DeviceId,
    /// Volume that it opens.
    pub volume: VolumeId,
    /// The key's id.
    pub protector: ProtectorId,
    /// Version that it got.
    pub version: KeyVersion,
    /// SHA-256 of the sealed bytes as first received.
    pub sealed_digest: [u8; 32],
    /// Entry that first stored it.
    pub position: Position,
    /// Audit chain just after that entry's own record.
    pub audit: AuditPosition,
    /// When it was stored.
    pub escrowed_at: Timestamp,
}

/// A key version without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySummary {
    /// The key's id.
    pub protector: ProtectorId,
    /// Its version.
    pub version: KeyVersion,
    /// Device that escrowed it.
    pub device: DeviceId,
    /// Volume that it opens.
    pub volume: VolumeId,
    /// What kind of secret it is.
    pub protector_kind: ProtectorKind,
    /// What the volume is used for.
    pub volume_kind: VolumeKind,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was escrowed.
    pub escrowed_at: Timestamp,
    /// When it was last disclosed.
    pub disclosed_at: Option<Timestamp>,
    /// Whether a key package was escrowed with it.
    pub has_package: bool,
    /// Name that the device last gave itself.
    pub host_name: Text,
    /// Users that the device last reported.
    pub users: Vec<User>,
    /// Who imported it; `None` if the device escrowed it itself.
    pub imported_by: Option<OperatorName>,
}
