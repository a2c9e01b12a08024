//! Verifying the audit chain as its records stream in.
//!
//! The hash of each record is computed here from its own fields, laid out as `docs/formats-audit.md` says; neither the
//! server's hashes nor its canonical bytes are believed, they must agree.

use holdfast_proto::v1;

use super::error::ClientError;
use crate::domain::{
    Actor, AuditPosition, AuditRecord, ChainError, FieldError, KeyVersion, Reason, Text, Timestamp,
    User, verify_hashed_chain,
};

/// Follows a chain record by record.
#[derive(Debug, Clone, Default)]
pub struct ChainVerifier {
    head: AuditPosition,
    last_time: u64,
}

impl ChainVerifier {
    /// From the chain's beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// After this place, which is trusted.
    pub const fn after(head: AuditPosition) -> Self {
        Self { head, last_time: 0 }
    }

    /// The last record that held.
    pub const fn head(&self) -> AuditPosition {
        self.head
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// If it doesn't continue the chain, or its fields are not what was hashed.
    pub fn take(&mut self, record: &v1::AuditRecord) -> Result<(), ClientError> {
        self.take_message(record).map(drop)
    }

    /// Takes the next record and gives it in our own terms.
    pub(super) fn take_message(
        &mut self,
        record: &v1::AuditRecord,
    ) -> Result<AuditRecord, ClientError> {
        let broken = |what: String| broken(record.sequence, &what);
        let typed = typed(record).map_err(|error| broken(error.to_string()))?;
        if typed.canonical() != record.canonical {
            return Err(broken("its fields are not the bytes that were hashed".to_owned()));
        }
        let hash = record.hash.as_ref().try_into();
        let hash = hash.map_err(|_| broken("its hash has not 32 bytes".to_owned()))?;
        self.take_record(&typed, hash)?;
        Ok(typed)
    }

    /// Takes the next record, of which nothing is known but its fields and the hash that it should have.
    pub(super) fn take_record(
        &mut self,
        record: &AuditRecord,
        hash: [u8; 32],
    ) -> Result<(), ClientError> {
        let time = record.time.as_millis();
        if time < self.last_time {
            return Err(broken(record.sequence, "it is older than the record before"));
        }
        let head = verify_hashed_chain(self.head, [(record, hash)]);
        self.head = head.map_err(|error: ChainError| ClientError::AuditChain(error.to_string()))?;
        self.last_time = time;
        Ok(())
    }

    /// Ends at the head that a server named.
    ///
    /// # Errors
    /// If the chain ends elsewhere.
    pub fn finish(&self, head: &v1::AuditHead) -> Result<AuditPosition, ClientError> {
        if self.head.sequence == head.sequence && self.head.hash.as_slice() == head.hash.as_ref() {
            return Ok(self.head);
        }
        let what = format!(
            "it ends at record {}, but the server named record {} with hash {} as its head",
            self.head.sequence,
            head.sequence,
            hex::encode(&head.hash)
        );
        Err(ClientError::AuditChain(what))
    }
}

fn broken(number: u64, what: &str) -> ClientError {
    ClientError::AuditChain(format!("record {number}: {what}"))
}

fn optional<T: std::str::FromStr<Err = FieldError>>(text: &str) -> Result<Option<T>, FieldError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// A record in our own terms. Nobody vouches for it before it is found on the chain.
pub(super) fn typed(record: &v1::AuditRecord) -> Result<AuditRecord, FieldError> {
    let position = record.position.unwrap_or_default();
    let actor: Option<Actor> = optional(&record.actor)?;
    let reason = match &record.reason {
        Some(reason) if !reason.code.is_empty() || !reason.text.is_empty() => {
            Some(Reason::new(&reason.code, reason.text.clone())?)
        }
        Some(_) | None => None,
    };
    let user = match &record.user {
        Some(user) if !user.name.is_empty() || !user.domain.is_empty() => {
            Some(User::new(user.domain.clone(), user.name.clone())?)
        }
        Some(_) | None => None,
    };
    let previous_hash = record.previous_hash.as_ref().try_into();
    Ok(AuditRecord {
        sequence: record.sequence,
        time: Timestamp::from_millis(record.time_ms),
        log_term: position.term,
        log_index: position.index,
        count: record.count,
        actor,
        action: record.action.parse()?,
        outcome: record.outcome.as_str().into(),
        request_id: optional(&record.request_id)?,
        device: optional(&record.device_id)?,
        volume: optional(&record.volume_id)?,
        protector: optional(&record.protector_id)?,
        version: KeyVersion::new(record.version),
        reason,
        user,
        ticket: Text::name("ticket", record.ticket.clone())?,
        detail: Text::free("detail", record.detail.clone())?,
        previous_hash: previous_hash
            .map_err(|_| FieldError::new("previous_hash", "must have 32 bytes"))?,
    })
}
