//! Remembered requests: what makes a retry known as one.
//!
//! Every accepted command is remembered, scoped to its actor; a refused one is not, so that refusals can't push accepted
//! requests out. Only the newest are kept, so an old retry counts as a new request: an identical escrow is safe even then
//! (see the escrow rule), a disclosure would be a new one with its own charge and record.

use super::{Batch, Context, Ruled};
use crate::planted::{self, Plant};
use crate::state::query::corrupt;
use crate::state::records::{Remembered, RequestRecord, keys};
use crate::state::{Digest, Rejection, Store, StoreError, Table, codec};

impl<S: Store> Batch<'_, S> {
    /// The earlier request that this one repeats; `None` if it is new.
    pub(super) fn recall(&mut self, context: &Context<'_>) -> Ruled<Option<RequestRecord>> {
        let command = context.command;
        if planted::is(Plant::RepeatsForgotten) {
            return Ok(None);
        }
        let Some(sequence) = self.requests.sequence(&command.actor, command.request_id) else {
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
        let command = context.command;
        self.requests.sequence(&command.actor, command.request_id).is_some()
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
        let (key, value) = (keys::sequence(sequence), codec::encode_request(&request));
        let digest = Digest::of_record(Table::Requests, &key, &value);
        self.txn.insert(Table::Requests, key, value);
        self.requests.push(sequence, request, digest);
        self.heads.requests.end = sequence + 1;
        while self.heads.requests.end - self.heads.requests.start > self.remembered {
            self.forget(self.heads.requests.start)?;
            self.heads.requests.start += 1;
        }
        Ok(())
    }

    fn forget(&mut self, sequence: u64) -> Result<(), StoreError> {
        let digest = self.requests.pop().ok_or_else(|| missing(sequence))?;
        self.txn.remove_known(Table::Requests, keys::sequence(sequence), digest);
        Ok(())
    }

    /// A request that the heads or the index say is there; a missing one is damage.
    fn request(&mut self, sequence: u64) -> Result<RequestRecord, StoreError> {
        let value = self.txn.get(Table::Requests, &keys::sequence(sequence))?;
        let value = value.ok_or_else(|| missing(sequence))?;
        codec::decode_request(&value).map_err(corrupt(Table::Requests))
    }
}

fn missing(sequence: u64) -> StoreError {
    let what = format!("request {sequence} is missing");
    StoreError::Corrupt { table: Table::Requests, what }
}
