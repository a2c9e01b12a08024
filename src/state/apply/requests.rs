//! Remembered requests: what makes a retry known as one.
//!
//! Every accepted command is remembered, scoped to its actor; a refused one is not, so that refusals can't push accepted
//! requests out. Only the newest are kept, so an old retry counts as a new request: an identical escrow is safe even then
//! (see the escrow rule), a disclosure would be a new one with its own charge and record.

use super::{Batch, Context, Ruled};
use crate::state::query::corrupt;
use crate::state::records::{Remembered, RequestRecord, keys};
use crate::state::{Rejection, Store, StoreError, Table, codec};

impl<S: Store> Batch<'_, S> {
    /// The earlier request that this one repeats; `None` if it is new.
    pub(super) fn recall(&mut self, context: &Context<'_>) -> Ruled<Option<RequestRecord>> {
        let command = context.command;
        let who = (command.actor.clone(), command.request_id);
        let Some(&sequence) = self.requests.get(&who) else {
            return Ok(None);
        };
        let request = self.request(sequence)?;
        if request.body_digest == context.body_digest {
            Ok(Some(request))
        } else {
            Err(Rejection::RequestIdReused.into())
        }
    }

    /// Whether the actor's request id is remembered, for whatever body.
    pub(super) fn is_remembered(&self, context: &Context<'_>) -> bool {
        let who = (context.command.actor.clone(), context.command.request_id);
        self.requests.contains_key(&who)
    }

    /// Remembers an accepted request and forgets the oldest beyond the limit.
    pub(super) fn remember(
        &mut self,
        context: &Context<'_>,
        answer: Remembered,
    ) -> Result<(), StoreError> {
        let command = context.command;
        let request = RequestRecord {
            actor: command.actor.clone(),
            request_id: command.request_id,
            body_digest: context.body_digest,
            time: self.heads.time,
            answer,
        };
        let sequence = self.heads.requests.end;
        let value = codec::encode_request(&request);
        self.txn.insert(Table::Requests, keys::sequence(sequence), value);
        self.requests.insert((request.actor, request.request_id), sequence);
        self.heads.requests.end = sequence + 1;
        while self.heads.requests.end - self.heads.requests.start > self.remembered {
            self.forget(self.heads.requests.start)?;
            self.heads.requests.start += 1;
        }
        Ok(())
    }

    fn forget(&mut self, sequence: u64) -> Result<(), StoreError> {
        let request = self.request(sequence)?;
        self.requests.remove(&(request.actor, request.request_id));
        self.txn.remove(Table::Requests, &keys::sequence(sequence))
    }

    /// A request that the heads or the index say is there; a missing one is damage.
    fn request(&mut self, sequence: u64) -> Result<RequestRecord, StoreError> {
        let value = self.txn.get(Table::Requests, &keys::sequence(sequence))?;
        let value = value.ok_or_else(|| StoreError::Corrupt {
            table: Table::Requests,
            what: format!("request {sequence} is missing"),
        })?;
        codec::decode_request(&value).map_err(corrupt(Table::Requests))
    }
}
