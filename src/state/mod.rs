//! The replicated state machine: pure, synchronous, deterministic.
//!
//! It reads no clock, draws no randomness and does no I/O of its own: the same log gives the same bytes on every node,
//! however the log was cut into batches. [`Machine`] is the only way to change the state, [`query`] reads it.
#![deny(clippy::wildcard_enum_match_arm)]

mod apply;
pub mod codec;
mod command;
mod digest;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod heads;
mod machine;
pub mod query;
mod records;
mod rejection;
mod store;
#[cfg(test)]
mod tests;
mod txn;

pub use codec::CodecError;
pub use command::{
    Accepted, AgentCa, Applied, AuditPosition, Bootstrap, Command, CommandBody, DecideApproval,
    DeviceCertificate, Disclose, Enrol, Enrolled, EpochRecord, Escrow, FindQuery, IssueToken,
    KeySummary, NewAgentCa, Outcome, Position, ProposeMassRecovery, ReceiptBody, RefusalCount,
    Rekey, Renew, ReportCompliance, RequestApproval, Reseal, ResealedKey, Rotate,
    SetDisclosurePolicy, Signer, Unseal, UnsealedBy, Wrapped,
};
pub use digest::Digest;
pub use heads::Heads;
pub use machine::{Entry, Machine};
pub use records::{
    Approval, ApprovalState, Decision, Denial, Device, Enrolment, Grant, KeyRef, Keyring,
    MassRecovery, PolicyRecord, Seal, SealedKey, StoredKey, Token, Volume,
};
pub use rejection::{Rejection, Unusable};
pub use store::{MemoryStore, Record, Store, StoreError, Table, WriteSet};
