//! Use cases, free of any transport.
//!
//! Each needs a [`crate::auth::Permit`], mints time, proposes, and turns the outcome into an answer. Nothing here knows a
//! wire format, and no plaintext of a key is kept or logged.

mod admin;
mod audit;
mod chain;
mod cluster;
mod compliance;
mod consensus;
mod context;
mod denials;
mod enrolment;
mod error;
mod escrow;
mod node;
mod operator;
mod recovery;
mod refusals;
mod rekey;
mod rotation;
mod sealing;
mod self_test;
#[cfg(test)]
pub(crate) mod tests;
mod unsealing;

pub use admin::{AdminService, Granted};
pub use audit::{AuditService, Filter, Head, Listing, SignedCheckpoint, local_checkpoint};
pub use chain::{Contained, Missing};
pub use cluster::{ClusterService, InitCluster, MOST_NODES, NodeSpec, SplitRootKey, Status};
pub use compliance::{ComplianceService, Reported};
pub use consensus::Consensus;
pub use context::{Context, Counters, Deadlines, FRESH_FOR, ReadPoint, Staleness};
pub use enrolment::{AgentCaView, EnrolmentService, Issued, IssuedToken};
pub use error::ServiceError;
pub use escrow::{EscrowService, SignedEscrowKey, SignedReceipt};
pub use operator::{Given, OperatorService, SealStatus};
pub use recovery::{Disclosure, Found, RecoveryService};
pub use refusals::{MOST_KINDS, Refusals};
pub use rekey::NewRootKey;
pub use rotation::{ResealStep, Rotated};
pub use sealing::{Change, Opener, SealMark, Sealing, refresh_sealing};
pub use self_test::{SAMPLE, SelfTest};
pub use unsealing::SHARES_KEPT;
