//! Why a call failed, in the terms of whoever has to do something about it.
//!
//! A status is turned into a [`Refusal`] once, here; nothing further out looks at gRPC codes. Never holds key material:
//! servers put none into errors, and the client's own errors name fields, not values.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::domain::{FieldError, KeyVersion};

/// Name of the fact that goes with a stale version, as `docs/errors.md` lists it.
const CURRENT_VERSION: &str = "current_version";

/// What a failure means to the caller. Commands turn it into their exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// No server answered, or none could: no quorum, no leader, a time limit. Try again later.
    Unavailable,
    /// The thing asked for doesn't exist.
    NotFound,
    /// The caller has no grant or no valid certificate.
    Denied,
    /// The state is another than the caller expected: a stale version, a request id used twice.
    Conflict,
    /// A field of the request is not well-formed.
    Invalid,
    /// A quota or the server's capacity is used up.
    Exhausted,
    /// A signature, receipt or digest doesn't verify. Trust nothing that came with it.
    Integrity,
    /// A fault of this machine's files or of the server.
    Internal,
}

impl ErrorKind {
    /// Its name in reports, such as those of the load generator.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Exhausted => "exhausted",
            Self::Integrity => "integrity",
            Self::Internal => "internal",
        }
    }
}

/// An error that a server answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it means.
    pub kind: ErrorKind,
    /// Reason in UPPER_SNAKE, as `docs/errors.md` lists it; empty if the server gave none.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// Fields that are not well-formed: name, what is wrong.
    pub fields: Box<[(String, String)]>,
    /// With `STALE_VERSION`: the version of the volume's key that the servers have.
    pub current_version: Option<KeyVersion>,
    /// When a retry may help.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads a status with its google.rpc details.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let current = info.and_then(|info| info.metadata.get(CURRENT_VERSION)?.parse().ok());
        let fields = details.bad_request().map_or_else(Box::default, |bad| {
            let violations = bad.field_violations.iter();
            violations.map(|v| (v.field.clone(), v.description.clone())).collect()
        });
        Self {
            kind: kind_of(status.code()),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            fields,
            current_version: current.map(KeyVersion::new),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            f.write_str(self.kind.as_str())?;
        } else {
            f.write_str(&self.message)?;
        }
        for (field, what) in &self.fields {
            // The message of a single bad field usually says it already.
            if !self.message.contains(what.as_str()) {
                write!(f, "; {field}: {what}")?;
            }
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, " [{}]", self.reason) }
    }
}

/// What each gRPC code means to the caller.
const fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
            ErrorKind::Unavailable
        }
        Code::NotFound => ErrorKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::AlreadyExists | Code::FailedPrecondition => ErrorKind::Conflict,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::DataLoss => ErrorKind::Integrity,
        Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal => ErrorKind::Internal,
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A server answered with an error.
    #[error("{0}")]
    Refused(Refusal),
    /// No server did it within the deadline.
    #[error(
        "no server could do it within {waited:.1?} ({attempts} attempts): {answers}{}",
        unknown(*outcome_unknown)
    )]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// How many attempts were made.
        attempts: u32,
        /// What each server answered last, or why it did not, with its address.
        answers: String,
        /// Whether a server may have carried the request out although its answer never came.
        outcome_unknown: bool,
    },
    /// A server refused the client's certificate in the TLS handshake.
    #[error("{endpoint} refused this client's certificate: {what}")]
    IdentityRefused {
        /// Which server.
        endpoint: String,
        /// The alert.
        what: String,
    },
    /// A server's certificate doesn't chain to the pinned node CA, or isn't for the address that was dialled.
    #[error("{endpoint} is not trusted: {what}; check HOLDFAST_CACERT and the address")]
    ServerNotTrusted {
        /// Which server.
        endpoint: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file of this client can't be read or used.
    #[error("{}", of_file(path, what))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A field is not well-formed; nothing was sent.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The recovery key is not well-formed; nothing was sent.
    #[error("the recovery key is not well-formed: {0}")]
    Format(#[from] crate::domain::FormatError),
    /// Sealing failed; nothing was sent.
    #[error("sealing failed: {0}")]
    Seal(#[from] crate::crypto::CryptoError),
    /// The escrow key that a server gave is not the cluster's; nothing was sealed to it.
    #[error("the escrow key doesn't verify: {0}")]
    EscrowKey(String),
    /// The receipt doesn't prove that the key is stored. Don't use the key for encryption.
    #[error("the receipt doesn't verify: {0}")]
    Receipt(String),
    /// The audit chain doesn't hold.
    #[error("the audit chain doesn't verify: {0}")]
    AuditChain(String),
    /// A server's answer is not well-formed.
    #[error("the server's answer is not well-formed: {0}")]
    Answer(String),
}

/// What is wrong with a file often names it already.
fn of_file(path: &Path, what: &str) -> String {
    let path = path.display().to_string();
    if what.contains(&path) { what.to_owned() } else { format!("{path}: {what}") }
}

const fn unknown(outcome_unknown: bool) -> &'static str {
    if outcome_unknown { "; it may have been carried out all the same" } else { "" }
}

impl ClientError {
    /// What the failure means to the caller.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refusal) => refusal.kind,
            Self::Unreachable { .. } => ErrorKind::Unavailable,
            Self::IdentityRefused { .. } => ErrorKind::Denied,
            Self::Field(_) | Self::Format(_) => ErrorKind::Invalid,
            Self::ServerNotTrusted { .. }
            | Self::EscrowKey(_)
            | Self::Receipt(_)
            | Self::AuditChain(_)
            | Self::Answer(_) => ErrorKind::Integrity,
            Self::File { .. } | Self::Seal(_) => ErrorKind::Internal,
        }
    }

    /// The server's reason in UPPER_SNAKE; empty if no server answered.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.reason,
            Self::Unreachable { .. }
            | Self::IdentityRefused { .. }
            | Self::ServerNotTrusted { .. }
            | Self::File { .. }
            | Self::Field(_)
            | Self::Format(_)
            | Self::Seal(_)
            | Self::EscrowKey(_)
            | Self::Receipt(_)
            | Self::AuditChain(_)
            | Self::Answer(_) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_refusal_names_the_reason_and_the_field() {
        let mut details = ErrorDetails::new();
        let current = ("current_version".to_owned(), "7".to_owned());
        details.set_error_info("BAD_FIELD", "holdfast", [current]);
        details.add_bad_request_violation("device_id", "must be a UUID");
        details.set_retry_info(Some(Duration::from_millis(30)));
        let status = Status::with_error_details(Code::InvalidArgument, "bad request", details);
        let refusal = Refusal::from_status(&status);
        assert_eq!(refusal.kind, ErrorKind::Invalid);
        assert_eq!(refusal.to_string(), "bad request; device_id: must be a UUID [BAD_FIELD]");
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(30)));
        assert_eq!(refusal.current_version, Some(KeyVersion::new(7)));
    }
}
