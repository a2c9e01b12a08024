//! Where the state stands: one record, written with every commit.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::records::keys;
use super::{AuditPosition, CodecError, Digest, Position, Store, StoreError, Table, codec};
use crate::domain::{ClusterId, NodeId, Timestamp};

/// Where the state stands. Stored as record `heads` of [`Table::Meta`], and equal on all nodes at the same entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heads {
    /// Last entry that was applied.
    pub position: Option<Position>,
    /// Last membership, opaque, with its own position; empty before the first.
    pub membership: Bytes,
    /// The state's clock: never runs backwards.
    pub time: Timestamp,
    /// Head of the audit chain.
    pub audit: AuditPosition,
    /// Remembered requests: sequences in [`Table::Requests`].
    pub requests: Range<u64>,
    /// Sum of the digests of all records but those of [`Table::Meta`].
    pub sum: Digest,
    /// Number of all records but those of [`Table::Meta`].
    pub records: u64,
    /// The cluster; `None` before the bootstrap.
    pub cluster: Option<ClusterId>,
    /// The nodes that the membership names.
    pub members: BTreeSet<NodeId>,
    /// Nodes that were members once. Such an id is never given again (I7): it may have acknowledged what it lost.
    pub removed: BTreeSet<NodeId>,
    /// Number of entries of the deny-list.
    pub denials: u64,
    /// How often the deny-list was changed. Who holds a stream open for somebody looks again when this moves.
    pub denial_changes: u64,
    /// How often an operator sealed the cluster. Whoever holds opened keys forgets them when this moves.
    pub seals: u64,
    /// Whether the cluster is sealed: nobody opens a key, and no node reads the root key by itself.
    pub sealed: bool,
    /// Number of enrolment tokens.
    pub tokens: u64,
    /// Number of devices that have enrolled.
    pub enrolled: u64,
    /// How often a device enrolled that had enrolled before.
    pub enrolled_again: u64,
    /// Number of the last request for approval.
    pub approvals: u64,
    /// How many requests for approval are kept.
    pub approvals_kept: u64,
    /// Number of the last mass recovery that was proposed.
    pub mass_recoveries: u64,
    /// Until when quotas are lifted; zero if they are not, and past once that is over.
    pub mass_recovery_until: Timestamp,
}

impl Heads {
    /// The heads that `store` holds; those of an empty state if it holds none.
    ///
    /// # Errors
    /// If the record can't be read or is damaged.
    pub fn load(store: &impl Store) -> Result<Self, StoreError> {
        match store.get(Table::Meta, keys::HEADS)? {
            Some(value) => Self::decode(&value).map_err(|error| StoreError::Corrupt {
                table: Table::Meta,
                what: format!("heads: {error}"),
            }),
            None => Ok(Self::default()),
        }
    }

    /// Notes a membership and its nodes; those that it lacks are removed for ever.
    pub(super) fn note_membership(&mut self, membership: Bytes, members: BTreeSet<NodeId>) {
        let old = std::mem::replace(&mut self.members, members);
        self.removed.extend(old.difference(&self.members));
        self.membership = membership;
    }

    /// The table and key that they are stored at.
    pub const fn record_key() -> (Table, &'static [u8]) {
        (Table::Meta, keys::HEADS)
    }

    /// Their stored bytes.
    pub fn encode(&self) -> Bytes {
        codec::encode_heads(self)
    }

    /// From their stored bytes.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode_heads(bytes)
    }

    /// Digest of the whole state: SHA-256 over the ASCII text `holdfast state v1`, a zero byte, and the stored bytes of the
    /// heads, which hold sum and number of all records. Equal on all nodes of one version at the same entry.
    pub fn state_digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"holdfast state v1\0");
        hash.update(self.encode());
        hash.finalize().into()
    }
}
