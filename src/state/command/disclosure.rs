//! Commands that bound disclosures.

use crate::domain::{ApprovalId, DisclosurePolicy, KeyVersion, ProtectorId, Reason, Text, User};

/// Asks for the disclosure of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disclose {
    /// The key's id.
    pub protector: ProtectorId,
    /// Its version; [`KeyVersion::NONE`] for the newest of this id.
    pub version: KeyVersion,
    /// Why.
    pub reason: Reason,
    /// For whom.
    pub user: Option<User>,
    /// Ticket number; may be empty.
    pub ticket: Text,
    /// The approval that it is made by. It is used up by it, whether it was needed or not.
    pub approval: Option<ApprovalId>,
}

/// Sets what bounds disclosures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetDisclosurePolicy {
    /// How often it had been set when this was asked for: nobody's change is taken back unseen.
    pub revision: u64,
    /// The policy.
    pub policy: DisclosurePolicy,
}

/// Asks another person to approve the disclosure of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestApproval {
    /// The key's id.
    pub protector: ProtectorId,
    /// Its version; [`KeyVersion::NONE`] for the newest of this id.
    pub version: KeyVersion,
    /// Why.
    pub reason: Reason,
    /// For whom.
    pub user: Option<User>,
    /// Ticket number; may be empty.
    pub ticket: Text,
}

/// Decides on a request for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecideApproval {
    /// Which one.
    pub approval: ApprovalId,
    /// Whether it is approved.
    pub approve: bool,
    /// Why, in words; may be empty.
    pub reason: Text,
}

/// Proposes to lift the quotas for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposeMassRecovery {
    /// For how long, in milliseconds, from its confirmation on.
    pub duration_ms: u64,
    /// Why, in words.
    pub reason: Text,
}
