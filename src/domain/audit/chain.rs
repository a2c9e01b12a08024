//! Checks that records continue the chain.

use super::{AuditPosition, AuditRecord};
use crate::domain::Timestamp;

/// The chain is broken at a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("audit record {sequence} does not continue the chain: {what}")]
pub struct ChainError {
    /// Number that the first bad record should have.
    pub sequence: u64,
    /// What is wrong with it.
    pub what: ChainFault,
}

/// How a record breaks the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// It has another number: a record is missing, doubled or out of order.
    #[error("its number is {0}")]
    Sequence(u64),
    /// Its previous hash is not the hash of the record before: one of the two was changed.
    #[error("its previous hash is not the hash of the record before")]
    PreviousHash,
    /// It is older than the record before.
    #[error("it is older than the record before")]
    Time,
    /// Its content does not have the hash that is known from elsewhere (a receipt, a head).
    #[error("its content does not have its hash")]
    KnownHash,
}

/// Checks that `records` continue the chain after `start` without a gap, and gives the head that they lead to. Compare it
/// with a head that you know to be right (from a receipt, or another node): only that shows that the last record is true.
///
/// # Errors
/// Names the first record that does not continue the chain. A changed record shows as the fault of the one after it,
/// which is why a change of the last one shows only in the head.
pub fn verify_chain<'a>(
    start: AuditPosition,
    records: impl IntoIterator<Item = &'a AuditRecord>,
) -> Result<AuditPosition, ChainError> {
    let mut head = start;
    let mut time = Timestamp::default();
    for record in records {
        let sequence = head.sequence.saturating_add(1);
        let fault = if record.sequence != sequence {
            Some(ChainFault::Sequence(record.sequence))
        } else if record.previous_hash != head.hash {
            Some(ChainFault::PreviousHash)
        } else if record.time < time {
            Some(ChainFault::Time)
        } else {
            None
        };
        if let Some(what) = fault {
            return Err(ChainError { sequence, what });
        }
        time = record.time;
        head = record.head();
    }
    Ok(head)
}

/// Like [`verify_chain`] for records that came with their hashes, as the API sends them: the first record whose content
/// does not have its hash is named itself.
///
/// # Errors
/// Names the first bad record.
pub fn verify_hashed_chain<'a>(
    start: AuditPosition,
    records: impl IntoIterator<Item = (&'a AuditRecord, [u8; 32])>,
) -> Result<AuditPosition, ChainError> {
    let mut head = start;
    for (record, hash) in records {
        head = verify_chain(head, [record])?;
        if head.hash != hash {
            return Err(ChainError { sequence: record.sequence, what: ChainFault::KnownHash });
        }
    }
    Ok(head)
}
