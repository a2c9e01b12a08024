//! What is wrong with a piece of evidence. Each variant is a check that failed.

use crate::client::ClientError;
use crate::crypto::CryptoError;
use crate::domain::{ClusterId, FieldError, NodeId, Timestamp};

/// Why a file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[source] std::io::Error),
    /// It can't be written.
    #[error("it can't be written: {0}")]
    Write(#[source] std::io::Error),
    /// It has more bytes than any file of its kind.
    #[error("it is no {what}: it has more than {most} bytes")]
    TooLarge {
        /// What it should be.
        what: &'static str,
        /// Most bytes that such a file has.
        most: u64,
    },
    /// It is not the JSON that it should be.
    #[error("it is no well-formed {what}: {fault}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// Where and why.
        fault: String,
    },
    /// Its format is another one, or of a version that is not known.
    #[error("its format is {found:?}, not {expected:?}")]
    Format {
        /// The format that is read here.
        expected: &'static str,
        /// What it says.
        found: String,
    },
    /// A field has no valid value.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// It is another cluster's.
    #[error("it is of cluster {stated}, not {expected}")]
    Cluster {
        /// The cluster that it is of.
        stated: ClusterId,
        /// The cluster that is wanted.
        expected: ClusterId,
    },
    /// It says something else than is expected.
    #[error("its {what} is {stated}, not {expected}")]
    Differs {
        /// Which fact.
        what: &'static str,
        /// What it says.
        stated: String,
        /// What is expected.
        expected: String,
    },
    /// It is dated later than now.
    #[error(
        "it is dated {}, which is still to come: it is now {} by this machine's clock",
        when(*stated),
        when(*now)
    )]
    Future {
        /// When it says that it was made.
        stated: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// The node that it names did not sign it with a certificate that counts.
    #[error("its signature by node {node} does not verify")]
    Signature {
        /// The node that it names.
        node: NodeId,
        /// Which check failed.
        #[source]
        source: CryptoError,
    },
    /// Something is wrong with one line.
    #[error("line {line}: {source}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What.
        source: Box<Self>,
    },
    /// It stops within a line.
    #[error("it was cut off in the middle of a line")]
    CutLine,
    /// The audit chain is broken at a record, which is named.
    #[error(transparent)]
    Chain(ClientError),
    /// An export has no line at its end that says that it is complete.
    #[error("it was cut off after record {last}: the line that ends an export is missing")]
    NoEnd {
        /// Last record that is there.
        last: u64,
    },
    /// Something stands where it doesn't belong.
    #[error("{0}")]
    Misplaced(&'static str),
    /// The chain ends before a record that is known to exist.
    #[error(
        "it ends at record {last}, but {source_of} shows that record {known} exists: its end was cut off, or it was exported earlier"
    )]
    Short {
        /// Last record that is there.
        last: u64,
        /// The record that is known.
        known: u64,
        /// Where it is known from.
        source_of: String,
    },
    /// A record has another hash than is known of it.
    #[error(
        "record {known} has another hash than {source_of} shows: the chain was rewritten at this record or before{}",
        after(*good)
    )]
    Rewritten {
        /// The record.
        known: u64,
        /// Where its hash is known from.
        source_of: String,
        /// Last record whose hash is the known one; 0 for none.
        good: u64,
    },
    /// What is known is about no record of the file.
    #[error(
        "nothing shows whether it is true: {source_of} is about record {known}, which comes before record {first}, the first of the file"
    )]
    NotCovered {
        /// The record that is known.
        known: u64,
        /// Where it is known from.
        source_of: String,
        /// First record of the file.
        first: u64,
    },
}

fn after(good: u64) -> String {
    if good == 0 { String::new() } else { format!(", and after record {good}, which is as known") }
}

/// A point in time for a person.
pub(crate) fn when(time: Timestamp) -> String {
    let ms = i64::try_from(time.as_millis()).ok();
    let time = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "a time that no calendar has".to_owned(), |time| time.to_string())
}

impl EvidenceError {
    /// The same, about a line.
    pub(super) fn at_line(self, line: u64) -> Self {
        Self::Line { line, source: Box::new(self) }
    }
}
