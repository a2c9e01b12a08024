//! What is proposed, and what apply answers ([`Applied`]).
//!
//! Time and identifiers are minted by the proposing node and travel in the [`Command`]; the [`Actor`] was proven by the
//! node that authenticated the caller.

mod answer;
mod disclosure;
mod keyring;

use std::collections::BTreeSet;

use bytes::Bytes;

pub use crate::domain::AuditPosition;
use crate::domain::{
    Actor, ClusterId, DenialSubject, DeviceId, DisclosurePolicy, Epoch, Fingerprint, GroupName,
    KeyIdPrefix, KeyVersion, OperatorName, ProtectorId, ProtectorKind, Reach, RequestId, Role,
    Sealed, ShareSet, Text, Timestamp, TokenBinding, TokenId, User, VolumeCompliance, VolumeId,
    VolumeKind,
};
pub use answer::{Accepted, Applied, Enrolled, KeySummary, Outcome, ReceiptBody};
pub use disclosure::{
    DecideApproval, Disclose, ProposeMassRecovery, RequestApproval, SetDisclosurePolicy,
};
pub use keyring::{Rekey, Reseal, ResealedKey, Rotate, Unseal, UnsealedBy};

/// Position of an entry in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Term of the leader that wrote it.
    pub term: u64,
    /// Index; the first entry has 0 or 1.
    pub index: u64,
}

/// One entry's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Who asks, proven by the node that took the request.
    pub actor: Actor,
    /// The certificate that proved it; none for what a node does by itself. Apply asks the deny-list for both.
    pub certificate: Option<Fingerprint>,
    /// Roles that an OIDC subject's token gave them. Proven like the actor, by the node that took the request; of anybody else
    /// apply asks the grants, and looks at none of these.
    pub roles: BTreeSet<Role>,
    /// Made by the client; scoped to the actor.
    pub request_id: RequestId,
    /// The proposing node's clock; clamped monotone by apply.
    pub time: Timestamp,
    /// What is asked.
    pub body: CommandBody,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandBody {
    /// The first command of a cluster.
    Bootstrap(Bootstrap),
    /// Stores a sealed recovery key.
    Escrow(Escrow),
    /// Replaces a device's compliance report.
    ReportCompliance(ReportCompliance),
    /// Finds key versions; audited.
    FindKeys(FindQuery),
    /// Permits the disclosure of one key; audited.
    Disclose(Disclose),
    /// Grants a role.
    Grant {
        /// To whom.
        operator: OperatorName,
        /// The role.
        role: Role,
        /// For which devices.
        reach: Reach,
    },
    /// Takes a role away.
    Revoke {
        /// From whom.
        operator: OperatorName,
        /// The role.
        role: Role,
    },
    /// Records that somebody read the audit chain.
    AuditRead {
        /// What was asked for, in words.
        detail: Text,
    },
    /// Records refusals that a node decided on, coalesced per caller and reason. The actor is the node.
    Refusals(Vec<RefusalCount>),
    /// Records a membership change that an administrator asked for, before it is made.
    ClusterChange {
        /// The change, in words.
        detail: Text,
    },
    /// Denies an identity or a certificate.
    Deny {
        /// Whom or what.
        subject: DenialSubject,
        /// Why, in words.
        reason: Text,
    },
    /// Allows an identity or a certificate again.
    Allow {
        /// Whom or what.
        subject: DenialSubject,
    },
    /// Seals all nodes: none opens a key, and none reads the root key by itself, until [`CommandBody::Unseal`].
    Seal {
        /// Why, in words.
        reason: Text,
    },
    /// Ends a seal.
    Unseal(Unseal),
    /// Makes a new epoch of the escrow key. Older ones stay.
    Rotate(Rotate),
    /// Puts keys that are sealed anew in the place of older ones.
    Reseal(Reseal),
    /// Wraps the keyring with another root key.
    Rekey(Rekey),
    /// Makes a CA of devices.
    CreateAgentCa(NewAgentCa),
    /// Issues an enrolment token.
    IssueToken(IssueToken),
    /// Revokes an enrolment token.
    RevokeToken(TokenId),
    /// Enrols a device. The actor is the node, since nothing is proven of the device but that it has a token.
    Enrol(Enrol),
    /// Renews the certificate of a device.
    Renew(Renew),
    /// Puts a device into a group.
    AddToGroup {
        /// The device. It need not have written anything yet.
        device: DeviceId,
        /// The group.
        group: GroupName,
    },
    /// Takes a device out of a group.
    RemoveFromGroup {
        /// The device.
        device: DeviceId,
        /// The group.
        group: GroupName,
    },
    /// Sets the quotas of disclosures and what is under dual control.
    SetDisclosurePolicy(SetDisclosurePolicy),
    /// Asks for an approval.
    RequestApproval(RequestApproval),
    /// Decides on a request for approval.
    DecideApproval(DecideApproval),
    /// Proposes to lift the quotas for a while.
    ProposeMassRecovery(ProposeMassRecovery),
    /// Confirms that proposal, by its number.
    ConfirmMassRecovery(u64),
    /// Ends the mass recovery of this number, or takes the proposal back.
    EndMassRecovery(u64),
}

/// The first command of a cluster: makes the keyring and the first administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The cluster.
    pub cluster: ClusterId,
    /// The first administrator.
    pub administrator: OperatorName,
    /// What a right root key derives to; tells a wrong root key from a right one.
    pub root_check: [u8; 32],
    /// Signs escrow keys.
    pub signer: Signer,
    /// The first epoch.
    pub epoch: EpochRecord,
    /// How the root key is split, if it is.
    pub shares: Option<ShareSet>,
    /// What bounds disclosures; `None` in the first entries of earlier versions, after which the one quota of their time counts
    /// until somebody sets a policy.
    pub disclosure_policy: Option<DisclosurePolicy>,
}

/// Encrypted by the root key (AES-256-GCM); opaque here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped(pub Bytes);

/// The signer of escrow keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Its certificate and its issuers, DER, the signer first.
    pub chain: Vec<Bytes>,
    /// Its private key.
    pub private_key: Wrapped,
}

/// An epoch of the escrow key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRecord {
    /// Its number.
    pub epoch: Epoch,
    /// X25519 public key.
    pub public_key: [u8; 32],
    /// X25519 private key.
    pub private_key: Wrapped,
    /// The signer's Ed25519 signature over {cluster, epoch, public key}.
    pub signature: Bytes,
}

/// Stores a sealed recovery key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escrow {
    /// The device; must be the actor, or one that the actor may import for.
    pub device: DeviceId,
    /// The volume.
    pub volume: VolumeId,
    /// The key's id.
    pub protector: ProtectorId,
    /// What kind of secret it is.
    pub protector_kind: ProtectorKind,
    /// What the volume is used for.
    pub volume_kind: VolumeKind,
    /// The version that this one follows.
    pub expected_version: KeyVersion,
    /// The recovery key.
    pub key: Sealed,
    /// The key package.
    pub package: Option<Sealed>,
    /// Name of the device; empty if it stays.
    pub host_name: Text,
    /// Users of the device; none if they stay.
    pub users: Vec<User>,
}

/// A device's compliance report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportCompliance {
    /// The device; must be the actor.
    pub device: DeviceId,
    /// Name of the device.
    pub host_name: Text,
    /// Operating system.
    pub operating_system: Text,
    /// Manufacturer.
    pub manufacturer: Text,
    /// Model.
    pub model: Text,
    /// Users of the device.
    pub users: Vec<User>,
    /// Its volumes.
    pub volumes: Vec<VolumeCompliance>,
}

/// What keys to search for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindQuery {
    /// First eight digits of the key id.
    Prefix(KeyIdPrefix),
    /// The whole key id.
    Protector(ProtectorId),
    /// All keys of a device.
    Device(DeviceId),
    /// All keys of a volume.
    Volume(DeviceId, VolumeId),
}

/// Equal refusals of one caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalCount {
    /// Who was refused.
    pub actor: Actor,
    /// What was asked, as an RPC name.
    pub action: Text,
    /// Why, in UPPER_SNAKE.
    pub reason: Text,
    /// How often.
    pub count: u64,
}

/// A CA of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCa {
    /// Its number, from 1.
    pub number: u32,
    /// Its certificate, DER.
    pub certificate: Bytes,
    /// Its private key.
    pub private_key: Wrapped,
}

/// Makes a CA of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgentCa {
    /// The CA.
    pub ca: AgentCa,
    /// Check value of the root key that its private key is wrapped by.
    pub root_check: [u8; 32],
}

/// Issues an enrolment token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueToken {
    /// Its id.
    pub id: TokenId,
    /// What its secret hashes to. The secret itself is known to those alone who have the token.
    pub digest: [u8; 32],
    /// Whom it is for.
    pub binding: TokenBinding,
    /// How long it is valid, in milliseconds, by the state's clock. A time and no end, so that a retry is the same request.
    pub ttl_ms: u64,
}

/// A certificate of a device, and what apply decides by. The node that signed it vouches that they agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// DER.
    pub der: Bytes,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
    /// Number of the CA that signed it.
    pub agent_ca: u32,
}

/// Enrols a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrol {
    /// Token that came with the request.
    pub token: TokenId,
    /// What the secret that came with it hashes to.
    pub token_digest: [u8; 32],
    /// The device.
    pub device: DeviceId,
    /// Its new certificate, which nobody gets before this is applied.
    pub certificate: DeviceCertificate,
}

/// Renews the certificate of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renew {
    /// The device; must be the actor.
    pub device: DeviceId,
    /// Its new certificate, which nobody gets before this is applied.
    pub certificate: DeviceCertificate,
    /// From when the old one is valid.
    pub old_not_before: Timestamp,
    /// Until when the old one is valid.
    pub old_not_after: Timestamp,
}
