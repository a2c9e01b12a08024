//! An export of the audit chain: a header line, a line for each record, and a line that says that it is complete.
//!
//! The chain is verified while it is written, so that no export is made of a chain that doesn't hold.

use std::io::Write;

use bytes::Bytes;
use holdfast_proto::v1;
use serde::{Deserialize, Serialize};

use super::{EvidenceError, Resumable, hex_bytes};
use crate::client::ChainVerifier;
use crate::client::chain::typed;
use crate::domain::{AuditPosition, AuditRecord, ClusterId, FieldError};

pub(super) const FORMAT: &str = "holdfast audit export v1";
pub(super) const WHAT: &str = "audit export";

/// What an export is about: its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHead {
    format: String,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// First record.
    pub first: u64,
    /// Last record.
    pub last: u64,
    /// Hash of the record before the first; zeros if that is record 1.
    #[serde(with = "hex_bytes")]
    pub previous_hash: [u8; 32],
    /// Newest record of the chain when the export began.
    pub head_sequence: u64,
    /// Its hash.
    #[serde(with = "hex_bytes")]
    pub head_hash: [u8; 32],
    /// When it began, in milliseconds since the Unix epoch.
    pub exported_at_ms: u64,
}

impl ExportHead {
    /// Of all records of a chain with this head.
    pub fn new(cluster_id: ClusterId, head: AuditPosition, exported_at_ms: u64) -> Self {
        Self {
            format: FORMAT.to_owned(),
            cluster_id,
            first: 1,
            last: head.sequence,
            previous_hash: [0; 32],
            head_sequence: head.sequence,
            head_hash: head.hash,
            exported_at_ms,
        }
    }

    pub(super) fn check(&self) -> Result<(), EvidenceError> {
        if self.format != FORMAT {
            let found = self.format.clone();
            return Err(EvidenceError::Format { expected: FORMAT, found });
        }
        if self.first == 0 || self.last < self.first || self.head_sequence < self.last {
            let what = "must be numbered from 1, in order, and not after head_sequence";
            return Err(FieldError::new("first, last", what).into());
        }
        if self.first == 1 && self.previous_hash != [0; 32] {
            let what = "must be zeros before record 1";
            return Err(FieldError::new("previous_hash", what).into());
        }
        Ok(())
    }

    /// The place before the first record.
    pub(super) const fn before(&self) -> AuditPosition {
        AuditPosition { sequence: self.first.saturating_sub(1), hash: self.previous_hash }
    }

    /// Checks that the records end where the header says.
    pub(super) fn check_end(&self, end: AuditPosition) -> Result<(), EvidenceError> {
        let differs = |what, stated: String, expected: String| {
            Err(EvidenceError::Differs { what, stated, expected })
        };
        if end.sequence != self.last {
            return differs("last record", end.sequence.to_string(), self.last.to_string());
        }
        if end.sequence == self.head_sequence && end.hash != self.head_hash {
            return differs("head", hex::encode(end.hash), hex::encode(self.head_hash));
        }
        Ok(())
    }
}

/// A record as its line has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordLine {
    pub(super) sequence: u64,
    time_ms: u64,
    term: u64,
    index: u64,
    count: u64,
    version: u32,
    actor: String,
    action: String,
    outcome: String,
    request_id: String,
    device_id: String,
    volume_id: String,
    protector_id: String,
    reason_code: String,
    reason_text: String,
    user_domain: String,
    user_name: String,
    ticket: String,
    detail: String,
    #[serde(with = "hex_bytes")]
    previous_hash: [u8; 32],
    #[serde(with = "hex_bytes")]
    pub(super) hash: [u8; 32],
}

impl RecordLine {
    fn of(record: &AuditRecord) -> Self {
        fn text(value: Option<impl ToString>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        let (reason, user) = (record.reason.as_ref(), record.user.as_ref());
        Self {
            sequence: record.sequence,
            time_ms: record.time.as_millis(),
            term: record.log_term,
            index: record.log_index,
            count: record.count,
            version: record.version.get(),
            actor: text(record.actor.as_ref()),
            action: record.action.to_string(),
            outcome: record.outcome.as_str().to_owned(),
            request_id: text(record.request_id),
            device_id: text(record.device),
            volume_id: text(record.volume),
            protector_id: text(record.protector),
            reason_code: text(reason.map(|reason| reason.code())),
            reason_text: text(reason.map(|reason| reason.text())),
            user_domain: text(user.map(|user| user.domain())),
            user_name: text(user.map(|user| user.name())),
            ticket: record.ticket.to_string(),
            detail: record.detail.to_string(),
            previous_hash: record.previous_hash,
            hash: record.hash(),
        }
    }

    /// The record in our own terms. It must be written as [`RecordLine::of`] writes it, so that no byte of the line can be
    /// changed without being noticed.
    pub(super) fn record(&self) -> Result<AuditRecord, FieldError> {
        let message = v1::AuditRecord {
            sequence: self.sequence,
            time_ms: self.time_ms,
            actor: self.actor.clone(),
            action: self.action.clone(),
            outcome: self.outcome.clone(),
            request_id: self.request_id.clone(),
            device_id: self.device_id.clone(),
            volume_id: self.volume_id.clone(),
            protector_id: self.protector_id.clone(),
            version: self.version,
            reason: Some(v1::Reason {
                code: self.reason_code.clone(),
                text: self.reason_text.clone(),
            }),
            user: Some(v1::User { domain: self.user_domain.clone(), name: self.user_name.clone() }),
            ticket: self.ticket.clone(),
            detail: self.detail.clone(),
            count: self.count,
            position: Some(v1::LogPosition { term: self.term, index: self.index }),
            previous_hash: Bytes::copy_from_slice(&self.previous_hash),
            hash: Bytes::new(),
            canonical: Bytes::new(),
        };
        let record = typed(&message)?;
        let written = Self { hash: self.hash, ..Self::of(&record) };
        if written == *self {
            Ok(record)
        } else {
            Err(FieldError::new("record", "is not written as an export writes it"))
        }
    }
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportEnd {
    pub(super) count: u64,
    pub(super) last: u64,
    #[serde(with = "hex_bytes")]
    pub(super) hash: [u8; 32],
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase")]
pub(super) enum ExportLine {
    Header(ExportHead),
    Record(Box<RecordLine>),
    End(ExportEnd),
}

/// Writes an export, record by record.
#[derive(Debug)]
pub struct ExportWriter<W> {
    out: W,
    head: ExportHead,
    chain: ChainVerifier,
    records: u64,
}

impl<W: Write> ExportWriter<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// If the header makes no sense, or it can't be written.
    pub fn begin(out: W, head: ExportHead) -> Result<Self, EvidenceError> {
        head.check()?;
        let chain = ChainVerifier::after(head.before());
        let mut writer = Self { out, head, chain, records: 0 };
        writer.line(&ExportLine::Header(writer.head.clone()))?;
        Ok(writer)
    }

    /// Goes on after what an earlier, interrupted export has left.
    pub fn resume(out: W, left: Resumable) -> Self {
        let Resumable { head, chain, records, .. } = left;
        Self { out, head, chain, records }
    }

    /// Number of the next record; `None` after the last.
    pub fn next(&self) -> Option<u64> {
        let next = self.chain.head().sequence.saturating_add(1);
        (next <= self.head.last).then_some(next)
    }

    /// Verifies and writes the next record.
    ///
    /// # Errors
    /// If it doesn't continue the chain, or can't be written.
    pub fn take(&mut self, record: &v1::AuditRecord) -> Result<(), EvidenceError> {
        let record = self.chain.take_message(record).map_err(EvidenceError::Chain)?;
        self.records = self.records.saturating_add(1);
        self.line(&ExportLine::Record(Box::new(RecordLine::of(&record))))
    }

    /// Ends it, once the last record is there.
    ///
    /// # Errors
    /// If records are missing, the last one has not the hash of the head, or it can't be written.
    pub fn finish(mut self) -> Result<(W, u64, AuditPosition), EvidenceError> {
        let end = self.chain.head();
        self.head.check_end(end)?;
        let line = ExportEnd { count: self.records, last: end.sequence, hash: end.hash };
        self.line(&ExportLine::End(line))?;
        self.out.flush().map_err(EvidenceError::Write)?;
        Ok((self.out, self.records, end))
    }

    fn line(&mut self, line: &ExportLine) -> Result<(), EvidenceError> {
        let write = |error: serde_json::Error| EvidenceError::Write(error.into());
        let mut text = serde_json::to_vec(line).map_err(write)?;
        text.push(b'\n');
        self.out.write_all(&text).map_err(EvidenceError::Write)
    }
}
