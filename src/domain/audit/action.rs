//! What a record says was done, and how it ended.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::domain::FieldError;

/// What was done or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditAction {
    /// The keyring and the first administrator were made.
    Bootstrap,
    /// A key was escrowed.
    Escrow,
    /// Keys were searched for.
    Find,
    /// A key was disclosed.
    Disclose,
    /// A role was granted.
    Grant,
    /// A role was taken away.
    Revoke,
    /// The audit chain was read.
    AuditRead,
    /// A node refused something before it was proposed.
    Refuse,
    /// A compliance report was refused.
    Report,
    /// A change of the cluster's members.
    ClusterChange,
    /// An identity or a certificate was denied.
    Deny,
    /// An identity or a certificate was allowed again.
    Allow,
    /// All nodes were sealed.
    Seal,
    /// A node was unsealed by shares of the root key, or nodes may read it themselves again.
    Unseal,
    /// A new epoch of the escrow key was made.
    Rotate,
    /// Keys were sealed anew, to a newer epoch.
    Reseal,
    /// The root key was changed.
    Rekey,
    /// A CA of devices was made.
    AgentCa,
    /// An enrolment token was issued.
    TokenIssue,
    /// An enrolment token was revoked.
    TokenRevoke,
    /// A device enrolled.
    Enrol,
    /// A device enrolled that had enrolled before.
    EnrolAgain,
    /// A device renewed its certificate.
    Renew,
    /// A device was put into a group.
    GroupAdd,
    /// A device was taken out of a group.
    GroupRemove,
    /// Somebody asked for an approval to disclose a key.
    ApprovalRequest,
    /// Somebody else approved it.
    ApprovalGrant,
    /// Somebody refused it, or took an approval back.
    ApprovalDeny,
    /// The quotas of disclosures, or what is under dual control, were set.
    DisclosurePolicy,
    /// An administrator proposed to lift the quotas for a while.
    MassRecoveryPropose,
    /// Another administrator confirmed it: the quotas are lifted.
    MassRecoveryConfirm,
    /// An administrator ended it, or took a proposal back.
    MassRecoveryEnd,
    /// A command that this version can't read.
    Unreadable,
}

impl AuditAction {
    /// All actions.
    pub const ALL: [Self; 33] = [
        Self::Bootstrap,
        Self::Escrow,
        Self::Find,
        Self::Disclose,
        Self::Grant,
        Self::Revoke,
        Self::AuditRead,
        Self::Refuse,
        Self::Report,
        Self::ClusterChange,
        Self::Deny,
        Self::Allow,
        Self::Seal,
        Self::Unseal,
        Self::Rotate,
        Self::Reseal,
        Self::Rekey,
        Self::AgentCa,
        Self::TokenIssue,
        Self::TokenRevoke,
        Self::Enrol,
        Self::EnrolAgain,
        Self::Renew,
        Self::GroupAdd,
        Self::GroupRemove,
        Self::ApprovalRequest,
        Self::ApprovalGrant,
        Self::ApprovalDeny,
        Self::DisclosurePolicy,
        Self::MassRecoveryPropose,
        Self::MassRecoveryConfirm,
        Self::MassRecoveryEnd,
        Self::Unreadable,
    ];

    /// Its name in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Escrow => "escrow",
            Self::Find => "find",
            Self::Disclose => "disclose",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
            Self::AuditRead => "audit-read",
            Self::Refuse => "refuse",
            Self::Report => "report",
            Self::ClusterChange => "cluster-change",
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Seal => "seal",
            Self::Unseal => "unseal",
            Self::Rotate => "rotate",
            Self::Reseal => "reseal",
            Self::Rekey => "rekey",
            Self::AgentCa => "agent-ca",
            Self::TokenIssue => "token-issue",
            Self::TokenRevoke => "token-revoke",
            Self::Enrol => "enrol",
            Self::EnrolAgain => "enrol-again",
            Self::Renew => "renew",
            Self::GroupAdd => "group-add",
            Self::GroupRemove => "group-remove",
            Self::ApprovalRequest => "approval-request",
            Self::ApprovalGrant => "approval-grant",
            Self::ApprovalDeny => "approval-deny",
            Self::DisclosurePolicy => "disclosure-policy",
            Self::MassRecoveryPropose => "mass-recovery-propose",
            Self::MassRecoveryConfirm => "mass-recovery-confirm",
            Self::MassRecoveryEnd => "mass-recovery-end",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuditAction {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| FieldError::new("action", "is not the name of an audit action"))
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Ok,
    /// An earlier answer was given again.
    Repeated,
    /// It was refused: the reason in UPPER_SNAKE.
    Refused(Cow<'static, str>),
}

impl AuditOutcome {
    /// Its name in records.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ok => "ok",
            Self::Repeated => "repeated",
            Self::Refused(reason) => reason,
        }
    }
}

impl From<&str> for AuditOutcome {
    fn from(text: &str) -> Self {
        match text {
            "ok" => Self::Ok,
            "repeated" => Self::Repeated,
            reason => Self::Refused(Cow::Owned(reason.to_owned())),
        }
    }
}
