//! The vocabulary of Holdfast, in the terms of BitLocker, LUKS and MBAM.
//!
//! Pure values with validation at construction: a value of one of these types is well-formed. No I/O, no clock, no
//! async, no wire or storage encoding.

mod access;
mod actor;
mod audit;
mod compliance;
mod denial;
mod disclosure;
mod enrolment;
mod error;
mod groups;
mod ids;
mod key;
pub mod limits;
mod oidc;
mod people;
mod reason;
mod recovery_key;
mod shares;

pub use access::Right;
pub use actor::{Actor, SpiffeError};
pub use audit::{
    AUDIT_LABEL, AuditAction, AuditOutcome, AuditPosition, AuditRecord, ChainError, ChainFault,
    verify_chain, verify_hashed_chain,
};
pub use compliance::{ComplianceStatus, EncryptionState, VolumeCompliance};
pub use denial::{DenialSubject, Fingerprint, denied_words};
pub use disclosure::{ApprovalId, DisclosurePolicy, PolicyParts, QuotaScope};
pub use enrolment::TokenBinding;
pub use error::FieldError;
pub use groups::{Grants, GroupName, Reach};
pub use ids::{
    ClusterId, DeviceId, Epoch, Incarnation, KeyIdPrefix, KeyVersion, NodeId, ProtectorId,
    RequestId, Timestamp, TokenId, VolumeId,
};
pub use key::{KeyState, ProtectorKind, Sealed, VolumeKind, sealed_digest};
pub use oidc::{Issuer, OidcSubject};
pub use people::{OperatorName, Role, Text, User};
pub use reason::{REASONS, Reason, ReasonCode};
pub use recovery_key::{FormatError, GroupFault, RecoveryKey};
pub use shares::{ShareSet, ShareSetId};
