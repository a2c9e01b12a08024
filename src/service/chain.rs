//! Whether the audit chain of this node is the one that was signed before.
//!
//! What a node signs it has applied, and what is applied is committed: every later chain of the cluster has that record, with
//! that hash. A chain without it was rewritten, or put back to an older state, on so many servers that the consensus takes it for
//! its own. No server can mend that; what each can do is to say it, and to open no key whose record would stand in such a
//! chain.

use std::sync::OnceLock;

use crate::domain::AuditPosition;
use crate::state::{StoreError, Table, query};

use super::{Consensus, Context, ServiceError};

/// Whether a chain has a record that is known from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contained {
    /// It has.
    Yes,
    /// This node does not reach that far, and has no proof that nobody does.
    NotYet,
    /// It has not.
    No(Missing),
}

/// What a chain has in the place of a record that is known from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The record is another one.
    #[error("that record has another hash here: the chain was rewritten at it or before it")]
    Another,
    /// The chain ends before, on a majority of the servers.
    #[error("the chain ends at record {ends}: the records after it are gone")]
    Beyond {
        /// Its last record.
        ends: u64,
    },
}

/// Notes that the chain of this node is not the one that was signed before. Once set it stays: only a person can tell what
/// happened.
#[derive(Debug, Default)]
pub(super) struct ChainConflict(OnceLock<String>);

impl<C: Consensus> Context<C> {
    /// Whether the chain has this record. If it does not reach so far here, a quorum is asked.
    ///
    /// # Errors
    /// If the local store fails.
    pub async fn chain_contains(&self, known: AuditPosition) -> Result<Contained, ServiceError> {
        if let Some(found) = self.has_record(known)? {
            return Ok(found);
        }
        match self.read(false).await {
            Ok(_) => {}
            Err(error @ ServiceError::Store(_)) => return Err(error),
            // No proof that the others don't reach further.
            Err(_) => return Ok(Contained::NotYet),
        }
        let ends = self.heads()?.audit.sequence;
        Ok(self.has_record(known)?.unwrap_or(Contained::No(Missing::Beyond { ends })))
    }

    /// `None` if the chain does not reach so far here.
    fn has_record(&self, known: AuditPosition) -> Result<Option<Contained>, StoreError> {
        let AuditPosition { sequence, hash } = known;
        let view = self.consensus().view();
        if crate::state::Heads::load(view)?.audit.sequence < sequence {
            return Ok(None);
        }
        let found = query::audit_records(view, sequence, sequence, 1)?;
        let Some(record) = found.first() else {
            let what = format!("record {sequence} is missing");
            return Err(StoreError::Corrupt { table: Table::Audit, what });
        };
        let same = record.hash() == hash;
        Ok(Some(if same { Contained::Yes } else { Contained::No(Missing::Another) }))
    }

    /// Notes that the chain is not the one that was signed before, and why; true the first time.
    pub fn report_chain_conflict(&self, why: String) -> bool {
        self.chain.0.set(why).is_ok()
    }

    /// Why the chain is not the one that was signed before, if that is known.
    pub fn chain_conflict(&self) -> Option<&str> {
        self.chain.0.get().map(String::as_str)
    }

    /// # Errors
    /// [`ServiceError::ChainConflict`] if no key may be opened here for want of a chain that can be believed.
    pub(super) fn check_chain(&self) -> Result<(), ServiceError> {
        match self.chain_conflict() {
            Some(why) => Err(ServiceError::ChainConflict(why.to_owned())),
            None => Ok(()),
        }
    }
}
