//! The replicated state machine: pure, synchronous, deterministic.
//!
//! It reads no clock, draws no randomness and does no I/O of its own: the same log gives the same bytes on every node.

mod command;
mod store;

pub use command::{
    Accepted, Applied, AuditPosition, Bootstrap, Command, CommandBody, Disclose, EpochRecord,
    Escrow, FindQuery, KeySummary, Outcome, Position, ReceiptBody, RefusalCount, Rejection,
    ReportCompliance, Signer, Wrapped,
};
pub use store::{MemoryStore, Record, Store, StoreError, Table, WriteSet};
