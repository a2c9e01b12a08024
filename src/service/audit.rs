//! Audit: reading the chain of records.
//!
//! A linearizable listing is itself recorded, once; a stale one can't be, since there may be no quorum to record it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::auth::{Action, Permit};
use crate::crypto::{CheckpointFacts, NodeSigner};
use crate::domain::{
    Actor, AuditAction, AuditRecord, ClusterId, DeviceId, NodeId, ProtectorId, Text, Timestamp,
    limits,
};
use crate::state::{Accepted, AuditPosition, CommandBody, Heads, query};

use super::context::{ReadPoint, new_request_id, proposer_of};
use super::{Consensus, Context, ServiceError};

/// Which records to list; all that are set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// First number; 0 for the first record.
    pub first: u64,
    /// Last number, itself included; 0 for the newest when the listing begins.
    pub last: u64,
    /// Only this actor.
    pub actor: Option<Actor>,
    /// Only this action.
    pub action: Option<AuditAction>,
    /// Only this device.
    pub device: Option<DeviceId>,
    /// Only this key id.
    pub protector: Option<ProtectorId>,
    /// Only at or after this time.
    pub since: Option<Timestamp>,
    /// Only before this time; a record of this very time is not listed.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether a record is wanted, its number apart.
    pub fn matches(&self, record: &AuditRecord) -> bool {
        let wanted = |set: bool, equal: bool| !set || equal;
        wanted(self.actor.is_some(), record.actor == self.actor)
            && wanted(self.action.is_some(), Some(record.action) == self.action)
            && wanted(self.device.is_some(), record.device == self.device)
            && wanted(self.protector.is_some(), record.protector == self.protector)
            && self.since.is_none_or(|bound| record.time >= bound)
            && self.until.is_none_or(|bound| record.time < bound)
    }

    /// What was asked for, in words, as the record of the listing has it.
    fn describe(&self) -> Text {
        let mut parts = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            parts.extend(value.map(|value| format!("{name} {value}")));
        };
        add("from", (self.first > 0).then(|| self.first.to_string()));
        add("to", (self.last > 0).then(|| self.last.to_string()));
        add("actor", self.actor.as_ref().map(ToString::to_string));
        add("action", self.action.map(|action| action.to_string()));
        add("device", self.device.map(|device| device.to_string()));
        add("key", self.protector.map(|protector| protector.to_string()));
        add("since", self.since.map(|time| time.to_string()));
        add("until", self.until.map(|time| time.to_string()));
        let text = if parts.is_empty() { "all".to_owned() } else { parts.join(", ") };
        // Every part is bounded: all of them together stay far below the limit.
        Text::free("detail", text).unwrap_or_default()
    }
}

/// Head of the chain, and where it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number and hash of the newest record.
    pub audit: AuditPosition,
    /// Where it was read.
    pub read: ReadPoint,
}

/// A head of the chain, signed by this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The cluster.
    pub cluster: ClusterId,
    /// What is signed.
    pub facts: CheckpointFacts,
    /// This node.
    pub node: NodeId,
    /// Its signature.
    pub signature: Bytes,
    /// Its certificate and its issuers, DER, the node first.
    pub signer_chain: Vec<Bytes>,
}

impl SignedCheckpoint {
    /// Signs where the chain stands; `None` while it has no record.
    fn sign(heads: &Heads, time: Timestamp, signer: &NodeSigner) -> Option<Self> {
        let position = heads.position.filter(|_| heads.audit.sequence > 0)?;
        let facts =
            CheckpointFacts { head: heads.audit, term: position.term, index: position.index, time };
        Some(Self {
            cluster: signer.cluster(),
            facts,
            node: signer.node(),
            signature: signer.sign_checkpoint(&facts),
            signer_chain: signer.chain().to_vec(),
        })
    }
}

/// Signs the head of the chain as this node has applied it, without asking anybody: what is applied is committed, so that
/// every later chain must contain it. `None` while the chain has no record.
///
/// # Errors
/// If the local store fails.
pub fn local_checkpoint<C: Consensus>(
    context: &Context<C>,
    signer: &NodeSigner,
) -> Result<Option<SignedCheckpoint>, ServiceError> {
    Ok(SignedCheckpoint::sign(&context.heads()?, context.now(), signer))
}

/// A listing that has begun. Records never change, so it stays right while the chain grows.
pub struct Listing<C> {
    context: Arc<Context<C>>,
    filter: Filter,
    next: u64,
    last: u64,
    /// Head of the chain when it began, and where that was read.
    pub head: Head,
}

/// Use cases of auditors.
pub struct AuditService<C> {
    context: Arc<Context<C>>,
    signer: watch::Receiver<Arc<NodeSigner>>,
}

impl<C: Consensus> AuditService<C> {
    /// With the node's own key for checkpoints, the newest one.
    pub fn new(context: Arc<Context<C>>, signer: watch::Receiver<Arc<NodeSigner>>) -> Self {
        Self { context, signer }
    }

    /// Head of the chain, and the same signed; the latter is `None` while the chain has no record.
    ///
    /// # Errors
    /// If no quorum answers, unless `stale`.
    pub async fn head(
        &self,
        permit: &Permit,
        stale: bool,
    ) -> Result<(Head, Option<SignedCheckpoint>), ServiceError> {
        proposer_of(permit, Action::ReadAudit)?;
        let read = self.context.read(stale).await?;
        let heads = self.context.heads()?;
        let checkpoint = SignedCheckpoint::sign(&heads, self.context.now(), &self.signer.borrow());
        Ok((Head { audit: heads.audit, read }, checkpoint))
    }

    /// Begins a listing, and records that, unless it is `stale`.
    ///
    /// # Errors
    /// If no quorum answers or records it, unless `stale`.
    pub async fn list(
        &self,
        permit: &Permit,
        filter: Filter,
        stale: bool,
    ) -> Result<Listing<C>, ServiceError> {
        let proposer = proposer_of(permit, Action::ReadAudit)?;
        let read = self.context.read(stale).await?;
        let head = Head { audit: self.context.heads()?.audit, read };
        if !stale {
            let body = CommandBody::AuditRead { detail: filter.describe() };
            let answer = self.context.propose(proposer, new_request_id(), body).await?;
            let Accepted::Recorded = answer.accepted else {
                return Err(ServiceError::Unexpected("a listing's record has another answer"));
            };
        }
        let newest = head.audit.sequence;
        let last = if filter.last == 0 { newest } else { filter.last.min(newest) };
        let next = filter.first.max(1);
        Ok(Listing { context: Arc::clone(&self.context), filter, next, last, head })
    }
}

impl<C: Consensus> Listing<C> {
    /// The next records that match, at most a page of them and possibly none; `None` at the end.
    ///
    /// # Errors
    /// If the local store fails.
    pub async fn next_page(&mut self) -> Result<Option<Vec<AuditRecord>>, ServiceError> {
        if self.next > self.last {
            return Ok(None);
        }
        let (from, to) = (self.next, self.last);
        let page = self
            .context
            .scan(move |view| query::audit_records(view, from, to, limits::PAGE_ITEMS))
            .await?;
        let Some(newest) = page.last() else {
            return Err(ServiceError::Integrity(format!("audit record {from} is missing")));
        };
        self.next = newest.sequence.saturating_add(1);
        Ok(Some(page.into_iter().filter(|record| self.filter.matches(record)).collect()))
    }
}
