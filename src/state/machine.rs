//! The door to the state: entries go in, answers come out, and a whole batch becomes visible at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::apply::Batch;
use super::query::{SCAN_RECORDS, corrupt};
use super::records::RequestRecord;
use super::{Applied, Digest, Heads, Position, Store, StoreError, Table, codec};
use crate::domain::{Actor, NodeId, RequestId, limits};

/// What an entry of the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A command, as [`codec::encode_command`] wrote it.
    Command(Bytes),
    /// A membership.
    Membership {
        /// With its own position, opaque.
        bytes: Bytes,
        /// The nodes that it names, with and without a vote.
        members: BTreeSet<NodeId>,
    },
}

/// Remembered requests: what is needed to know one again, and to forget the oldest without reading its record.
#[derive(Debug, Default)]
pub(super) struct RequestIndex {
    /// Where their records are, by who made them.
    sequences: BTreeMap<(Actor, RequestId), u64>,
    /// In the order of their sequences: who made them, and the digests of their records.
    in_order: VecDeque<(Actor, RequestId, Digest)>,
}

impl RequestIndex {
    /// Where the record of a request is.
    pub(super) fn sequence(&self, actor: &Actor, request_id: RequestId) -> Option<u64> {
        self.sequences.get(&(actor.clone(), request_id)).copied()
    }

    /// Adds the newest.
    pub(super) fn push(&mut self, sequence: u64, request: RequestRecord, digest: Digest) {
        let RequestRecord { actor, request_id, .. } = request;
        self.sequences.insert((actor.clone(), request_id), sequence);
        self.in_order.push_back((actor, request_id, digest));
    }

    /// Removes the oldest, and gives the digest of its record.
    pub(super) fn pop(&mut self) -> Option<Digest> {
        let (actor, request_id, digest) = self.in_order.pop_front()?;
        self.sequences.remove(&(actor, request_id));
        Some(digest)
    }
}

/// The replicated state machine over a store. The only writer of that store.
#[derive(Debug)]
pub struct Machine<S: Store> {
    store: Arc<S>,
    heads: Heads,
    requests: RequestIndex,
    remembered: u64,
    failed: bool,
}

impl<S: Store> Machine<S> {
    /// The machine of a store, where the store's last commit left it. Reads the remembered requests
    /// ([`limits::REMEMBERED_REQUESTS`] at most).
    ///
    /// # Errors
    /// A local fault: a record can't be read or is damaged.
    pub fn open(store: Arc<S>) -> Result<Self, StoreError> {
        let heads = Heads::load(store.as_ref())?;
        let requests = load_requests(store.as_ref(), &heads)?;
        let remembered = limits::REMEMBERED_REQUESTS;
        Ok(Self { store, heads, requests, remembered, failed: false })
    }

    /// Remembers fewer requests. Only for tests: all nodes of a cluster have to agree on the number.
    #[cfg(test)]
    pub(super) const fn remembering(mut self, requests: u64) -> Self {
        self.remembered = requests;
        self
    }

    /// Where the state stands.
    pub const fn heads(&self) -> &Heads {
        &self.heads
    }

    /// The store.
    pub const fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// Applies entries, each following the last, in one [`Store::commit`]. One answer for each. An empty batch commits
    /// nothing.
    ///
    /// # Errors
    /// A local fault. Then nothing of the batch is visible, and the machine has to be opened again.
    pub fn apply(
        &mut self,
        batch: impl IntoIterator<Item = (Position, Entry)>,
    ) -> Result<Vec<Applied>, StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        let result = self.apply_all(batch);
        self.failed = result.is_err();
        result
    }

    fn apply_all(
        &mut self,
        batch: impl IntoIterator<Item = (Position, Entry)>,
    ) -> Result<Vec<Applied>, StoreError> {
        let mut work =
            Batch::new(&*self.store, self.heads.clone(), &mut self.requests, self.remembered);
        let mut answers = Vec::new();
        for (position, entry) in batch {
            answers.push(work.entry(position, entry)?);
        }
        if !answers.is_empty() {
            self.heads = work.commit()?;
        }
        Ok(answers)
    }
}

/// Builds the index of remembered requests; a gap is damage.
fn load_requests(store: &impl Store, heads: &Heads) -> Result<RequestIndex, StoreError> {
    let mut index = RequestIndex::default();
    let mut next = heads.requests.start;
    while next < heads.requests.end {
        let records = store.scan(Table::Requests, &[], &next.to_be_bytes(), SCAN_RECORDS)?;
        for (key, value) in &records {
            let sequence = codec::sequence_from(key).map_err(corrupt(Table::Requests))?;
            if sequence != next || sequence >= heads.requests.end {
                let what = format!("request {sequence} stands where {next} should");
                return Err(StoreError::Corrupt { table: Table::Requests, what });
            }
            let request = codec::decode_request(value).map_err(corrupt(Table::Requests))?;
            index.push(sequence, request, Digest::of_record(Table::Requests, key, value));
            next += 1;
        }
        if records.is_empty() {
            let what = format!("request {next} is missing");
            return Err(StoreError::Corrupt { table: Table::Requests, what });
        }
    }
    Ok(index)
}
