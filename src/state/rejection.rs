//! Why the state machine says no.

use crate::domain::{
    Actor, ApprovalId, AuditAction, Epoch, KeyVersion, QuotaScope, Timestamp, denied_words,
};

/// Why the state machine refused. Deterministic; the same on every node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The keyring was already made.
    #[error("the cluster is already initialised")]
    AlreadyBootstrapped,
    /// The keyring was not made yet.
    #[error("the cluster is not initialised")]
    NotBootstrapped,
    /// The actor has no grant for this, or is no actor who may do it.
    #[error("{actor} may not {action}")]
    NotGranted {
        /// Who.
        actor: Actor,
        /// What.
        action: AuditAction,
    },
    /// An agent wrote or named a device that is not its own.
    #[error("the device is not the caller's own")]
    ForeignDevice,
    /// The protector id already belongs to a volume of another device, or another volume.
    #[error("the key id belongs to another volume")]
    ForeignVolume,
    /// The volume's key version is another one.
    #[error("the volume's key version is {current}, not {expected}")]
    StaleVersion {
        /// What the client expected.
        expected: KeyVersion,
        /// What it is.
        current: KeyVersion,
    },
    /// No such epoch.
    #[error("the escrow key has no epoch {0}")]
    UnknownEpoch(Epoch),
    /// No such device.
    #[error("no such device")]
    UnknownDevice,
    /// No such volume of the device.
    #[error("no such volume")]
    UnknownVolume,
    /// No such key.
    #[error("no such key")]
    UnknownKey,
    /// The request id was used by the caller for something else.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// The device would have more volumes than allowed.
    #[error("the device has {0} volumes, which is the most")]
    TooManyVolumes(usize),
    /// More users were named than a device may have.
    #[error("{0} users are named, more than a device may have")]
    TooManyUsers(usize),
    /// Help-desk must name the user.
    #[error("help-desk must name the user that the key is for")]
    UserRequired,
    /// Too many keys were disclosed.
    #[error(
        "the quota of {limit} {scope} is used up; wait, or ask for an approval (`holdfast approval request`)"
    )]
    QuotaExceeded {
        /// What it is counted over.
        scope: QuotaScope,
        /// The quota.
        limit: u32,
        /// When there is room again.
        until: Timestamp,
    },
    /// The last administrator can't be removed.
    #[error("the last administrator can't be removed")]
    LastAdministrator,
    /// The actor, or the certificate that it came with, is on the deny-list.
    #[error("{}", denied_words(.0))]
    CertificateDenied(Actor),
    /// The deny-list is full.
    #[error("the deny-list has {0} entries, which is the most")]
    TooManyDenials(u64),
    /// With one more node denied there might be no quorum left, and nobody could allow anything again.
    #[error(
        "no more nodes can be denied, since a quorum has to be left: remove the denied one from the cluster first"
    )]
    TooManyNodesDenied,
    /// A disclosure was asked for again with the same request id, but too late for its answer to be given again.
    #[error("the disclosure was asked for again too late; ask with a new request id")]
    RepeatTooLate,
    /// An operator sealed the cluster.
    #[error(
        "the cluster was sealed by an operator: no key is opened before it is unsealed (`holdfast operator unseal`)"
    )]
    Sealed,
    /// The cluster was sealed again while it was being unsealed.
    #[error("the cluster was sealed again meanwhile; look why (`holdfast operator status`)")]
    SealedAgain,
    /// The keyring is another one than the command was made for: somebody else changed it at the same time.
    #[error(
        "the keyring was changed at the same time; look at it (`holdfast operator status`), and begin anew"
    )]
    KeyringChanged,
    /// There is no such enrolment token, or its secret is another one.
    #[error("no such enrolment token")]
    UnknownToken,
    /// The enrolment token is not valid any more.
    #[error("the enrolment token has expired")]
    TokenExpired(Timestamp),
    /// As many devices have enrolled with the token as may.
    #[error("the enrolment token is used up")]
    TokenUsed,
    /// An administrator revoked the token.
    #[error("the enrolment token was revoked")]
    TokenRevoked,
    /// The token is for another device.
    #[error("the enrolment token is for another device")]
    TokenForeignDevice,
    /// There is a token of this id.
    #[error("there is an enrolment token of this id")]
    TokenExists,
    /// There are too many tokens, none of which has expired or was revoked.
    #[error("there are {0} enrolment tokens, which is the most: revoke those that are not needed")]
    TooManyTokens(u64),
    /// The certificate is not old enough to be renewed.
    #[error("the certificate is to be renewed in the last third of its life")]
    RenewalTooEarly(Timestamp),
    /// A CA of devices was to be made with another number than the next one.
    #[error("the next agent CA is number {0}")]
    AgentCaNumber(u32),
    /// There is no such CA of devices.
    #[error("there is no agent CA {0}")]
    UnknownAgentCa(u32),
    /// The device would be in more groups than allowed.
    #[error("the device is in {0} groups, which is the most")]
    TooManyGroups(usize),
    /// There is nothing of this id in the groups of devices that the actor's grants are limited to. It may be elsewhere, or
    /// nowhere: whoever is limited does not learn which.
    #[error("there is nothing of this id in the groups of devices that the grant is limited to")]
    OutsideGroups,
    /// The device has escrowed a key of the volume itself, which an import must not take the place of.
    #[error("the device has escrowed a key of this volume itself: nothing older is to be imported")]
    EscrowedByDevice,
    /// The device is under dual control: its keys take another person's approval.
    #[error(
        "the device is under dual control: ask for an approval (`holdfast approval request`) and disclose by it"
    )]
    ApprovalRequired,
    /// There is no such request for approval.
    #[error("there is no request for approval {0}")]
    UnknownApproval(ApprovalId),
    /// The approval can't be used, or the request can't be decided on.
    #[error("{0}")]
    ApprovalUnusable(Unusable),
    /// The approval, or the time to decide on the request for it, is over.
    #[error("the approval is over; ask for another one")]
    ApprovalExpired(Timestamp),
    /// Whoever approved it has lost the role, or is denied.
    #[error("{0}, who approved it, may approve nothing any more; ask for another approval")]
    ApproverRevoked(Actor),
    /// There are too many requests for approval that are not over.
    #[error("there are {0} requests for approval, which is the most: decide on some first")]
    TooManyApprovals(u64),
    /// It takes two people, and this is the first one again.
    #[error("it takes another person than the one who asked")]
    SecondPersonRequired,
    /// The policy of disclosures was set by somebody else at the same time.
    #[error("the policy was changed at the same time; look at it, and set it anew")]
    PolicyChanged(u64),
    /// There is no mass recovery of this number to confirm or end, or not any more.
    #[error("there is no such mass recovery to confirm or end (`holdfast disclosure status`)")]
    NoMassRecovery,
    /// Quotas are lifted already.
    #[error("a mass recovery is on already; end it first")]
    MassRecoveryOn(Timestamp),
    /// The command was written by a newer version.
    #[error("the command can't be read by this version")]
    Unreadable,
}

impl Rejection {
    /// The reason in UPPER_SNAKE, as audit records and `google.rpc.ErrorInfo` carry it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::AlreadyBootstrapped => "ALREADY_BOOTSTRAPPED",
            Self::NotBootstrapped => "NOT_BOOTSTRAPPED",
            Self::NotGranted { .. } => "NOT_GRANTED",
            Self::ForeignDevice => "FOREIGN_DEVICE",
            Self::ForeignVolume => "FOREIGN_VOLUME",
            Self::StaleVersion { .. } => "STALE_VERSION",
            Self::UnknownEpoch(_) => "UNKNOWN_EPOCH",
            Self::UnknownDevice => "UNKNOWN_DEVICE",
            Self::UnknownVolume => "UNKNOWN_VOLUME",
            Self::UnknownKey => "UNKNOWN_KEY",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::TooManyVolumes(_) => "TOO_MANY_VOLUMES",
            Self::TooManyUsers(_) => "TOO_MANY_USERS",
            Self::UserRequired => "USER_REQUIRED",
            Self::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
            Self::LastAdministrator => "LAST_ADMINISTRATOR",
            Self::CertificateDenied(_) => "CERTIFICATE_DENIED",
            Self::TooManyDenials(_) => "TOO_MANY_DENIALS",
            Self::TooManyNodesDenied => "TOO_MANY_NODES_DENIED",
            Self::RepeatTooLate => "REPEAT_TOO_LATE",
            Self::Sealed => "CLUSTER_SEALED",
            Self::SealedAgain => "SEALED_AGAIN",
            Self::KeyringChanged => "KEYRING_CHANGED",
            Self::UnknownToken => "UNKNOWN_TOKEN",
            Self::TokenExpired(_) => "TOKEN_EXPIRED",
            Self::TokenUsed => "TOKEN_USED",
            Self::TokenRevoked => "TOKEN_REVOKED",
            Self::TokenForeignDevice => "TOKEN_FOREIGN_DEVICE",
            Self::TokenExists => "TOKEN_EXISTS",
            Self::TooManyTokens(_) => "TOO_MANY_TOKENS",
            Self::RenewalTooEarly(_) => "RENEWAL_TOO_EARLY",
            Self::AgentCaNumber(_) => "AGENT_CA_NUMBER",
            Self::UnknownAgentCa(_) => "UNKNOWN_AGENT_CA",
            Self::TooManyGroups(_) => "TOO_MANY_GROUPS",
            Self::OutsideGroups => "OUTSIDE_GROUPS",
            Self::EscrowedByDevice => "ESCROWED_BY_DEVICE",
            Self::ApprovalRequired => "APPROVAL_REQUIRED",
            Self::UnknownApproval(_) => "UNKNOWN_APPROVAL",
            Self::ApprovalUnusable(why) => why.reason(),
            Self::ApprovalExpired(_) => "APPROVAL_EXPIRED",
            Self::ApproverRevoked(_) => "APPROVER_REVOKED",
            Self::TooManyApprovals(_) => "TOO_MANY_APPROVALS",
            Self::SecondPersonRequired => "SECOND_PERSON_REQUIRED",
            Self::PolicyChanged(_) => "POLICY_CHANGED",
            Self::NoMassRecovery => "NO_MASS_RECOVERY",
            Self::MassRecoveryOn(_) => "MASS_RECOVERY_ON",
            Self::Unreadable => "UNREADABLE",
        }
    }
}

/// Why an approval can't be used, or a request for one can't be decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is for another requester, or another key or version of it.
    #[error("the approval is for another requester, or for another key or version of it")]
    Mismatch,
    /// Nobody has decided yet.
    #[error("nobody has approved it yet")]
    Pending,
    /// It was refused.
    #[error("the approval was refused")]
    Denied,
    /// It was used: each is good for one disclosure.
    #[error("the approval was used; ask for another one")]
    Used,
    /// Somebody else decided before.
    #[error("somebody has decided on it already (`holdfast approval list`)")]
    Decided,
}

impl Unusable {
    /// The reason in UPPER_SNAKE.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Mismatch => "APPROVAL_MISMATCH",
            Self::Pending => "APPROVAL_PENDING",
            Self::Denied => "APPROVAL_DENIED",
            Self::Used => "APPROVAL_USED",
            Self::Decided => "APPROVAL_DECIDED",
        }
    }
}
