//! The one table from errors to gRPC statuses, with `google.rpc` details. `docs/errors.md` says who acts on each, and how.
//!
//! Exhaustive on purpose: a new error does not compile before it has its line here. No secret stands in any error.
#![deny(clippy::wildcard_enum_match_arm)]

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::auth::{IdentityError, TokenError};
use crate::domain::Timestamp;
use crate::raft::{RaftError, Refusal};
use crate::service::ServiceError;
use crate::state::{Rejection, StoreError, Unusable};

/// `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "holdfast";

/// How soon to try again, here or elsewhere.
const SOON: Duration = Duration::from_millis(250);
/// The same for what takes an operator or a while.
const LATER: Duration = Duration::from_secs(5);

#[allow(clippy::disallowed_types, reason = "the library's choice; nothing depends on its order")]
type Metadata = std::collections::HashMap<String, String>;

/// One line of the table.
struct Line {
    code: Code,
    reason: &'static str,
    message: String,
    details: ErrorDetails,
    metadata: Vec<(&'static str, String)>,
}

impl Line {
    fn new(code: Code, reason: &'static str, message: impl ToString) -> Self {
        let (message, details) = (message.to_string(), ErrorDetails::new());
        Self { code, reason, message, details, metadata: Vec::new() }
    }

    /// Wrong state: names what would have to hold.
    fn precondition(reason: &'static str, subject: &str, message: impl ToString) -> Self {
        let mut line = Self::new(Code::FailedPrecondition, reason, message);
        line.details.add_precondition_failure_violation(reason, subject, &line.message);
        line
    }

    /// A field of the request at fault.
    fn field(reason: &'static str, field: &str, what: &str) -> Self {
        let mut line = Self::new(Code::InvalidArgument, reason, format!("{field}: {what}"));
        line.details.add_bad_request_violation(field, what);
        line
    }

    /// A limit that is reached.
    fn quota(reason: &'static str, subject: &str, message: impl ToString) -> Self {
        let mut line = Self::new(Code::ResourceExhausted, reason, message);
        line.details.add_quota_failure_violation(subject, &line.message);
        line
    }

    fn retry(mut self, after: Duration) -> Self {
        self.details.set_retry_info(Some(after));
        self
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    fn into_status(mut self) -> Status {
        let metadata = self.metadata.into_iter().map(|(key, value)| (key.to_owned(), value));
        self.details.set_error_info(self.reason, DOMAIN, metadata.collect::<Metadata>());
        Status::with_error_details(self.code, self.message, self.details)
    }
}

/// The status of an error. Errors that no caller can do anything about are logged here, and only here.
pub(super) fn from_error(error: &ServiceError, now: Timestamp) -> Status {
    let line = service_line(error, now);
    if matches!(line.code, Code::Internal | Code::DataLoss) {
        tracing::error!(reason = line.reason, error = %chain(error), "call failed");
    } else {
        let outcome = super::observe::code_name(line.code);
        tracing::debug!(outcome, reason = line.reason, error = %chain(error), "call refused");
    }
    line.into_status()
}

/// Too many calls at once.
pub(super) fn overloaded() -> Status {
    Line::quota("OVERLOADED", "requests", "the node serves as many calls as it may; try another")
        .retry(SOON)
        .into_status()
}

/// An error with all its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn service_line(error: &ServiceError, now: Timestamp) -> Line {
    match error {
        ServiceError::Unauthenticated(error) => identity_line(error),
        ServiceError::Field(error) => Line::field("INVALID_FIELD", &error.field, &error.what),
        ServiceError::Denied(denied) => {
            Line::new(Code::PermissionDenied, denied.reason, &denied.message)
        }
        ServiceError::Rejected(rejection) => rejection_line(rejection, now),
        ServiceError::Raft(error) => raft_line(error),
        ServiceError::NoQuorumContact { .. } => {
            Line::new(Code::Unavailable, "NO_QUORUM_CONTACT", error).retry(SOON)
        }
        // Another node may well be unsealed: clients go on to it by themselves.
        ServiceError::Sealed(_) => Line::new(Code::Unavailable, "SEALED", error).retry(LATER),
        // What was signed, and what is here in its place, is for the log and for operators.
        ServiceError::ChainConflict(_) => Line::new(
            Code::Unavailable,
            "AUDIT_CHAIN_CONFLICT",
            "this node's audit chain is not the one that was signed before: it opens no key until an operator has looked",
        )
        .retry(LATER),
        ServiceError::ShutOut(_) => {
            Line::new(Code::Unavailable, "NOT_A_MEMBER", error).retry(LATER)
        }
        ServiceError::Csr(error) => Line::field(error.reason(), "csr", &error.to_string()),
        ServiceError::NoAgentCa => Line::precondition("NO_AGENT_CA", "agent-ca", error),
        ServiceError::AgentCaExpired => Line::precondition("AGENT_CA_EXPIRED", "agent-ca", error),
        ServiceError::NotInitialised => {
            Line::precondition("CLUSTER_NOT_INITIALISED", "cluster", error)
        }
        ServiceError::AlreadyInitialised => {
            Line::precondition("CLUSTER_ALREADY_INITIALISED", "cluster", error)
        }
        ServiceError::NoSuchDevice => Line::new(Code::NotFound, "UNKNOWN_DEVICE", error),
        ServiceError::Member { node, why: _ } => {
            Line::precondition("NODE_NOT_READY", &format!("node/{node}"), error)
                .with("node_id", node)
        }
        ServiceError::Integrity(_) => Line::new(Code::DataLoss, "INTEGRITY_CHECK_FAILED", error),
        // A call that was still there when the server had stopped.
        ServiceError::Store(StoreError::Closed) => {
            Line::new(Code::Unavailable, "DRAINING", error).retry(SOON)
        }
        // What went wrong inside is for the log: its line carries the request id that the reply has too.
        ServiceError::Store(_) => internal("LOCAL_FAULT"),
        ServiceError::Unexpected(_) => internal("BUG"),
    }
}

fn internal(reason: &'static str) -> Line {
    Line::new(Code::Internal, reason, "internal error; the node's log has it under x-request-id")
}

fn identity_line(error: &IdentityError) -> Line {
    let reason = match error {
        IdentityError::Certificate(_) => "CERTIFICATE_INVALID",
        IdentityError::Name(_) => "CERTIFICATE_NAME_INVALID",
        IdentityError::Expired => "CERTIFICATE_EXPIRED",
        IdentityError::SharedCa => return internal("BUG"),
        IdentityError::Token(error) => return token_line(error),
    };
    Line::new(Code::Unauthenticated, reason, error)
}

fn token_line(error: &TokenError) -> Line {
    let code = match error {
        // Another node may have them.
        TokenError::NoKeys => {
            return Line::new(Code::Unavailable, error.reason(), error).retry(LATER);
        }
        // Who it is, is proven; what they may do is not.
        TokenError::NoRole | TokenError::ForeignCertificate => Code::PermissionDenied,
        TokenError::Off
        | TokenError::Malformed(_)
        | TokenError::TooLarge(_)
        | TokenError::Algorithm
        | TokenError::UnknownKey
        | TokenError::Signature
        | TokenError::NotAnAccessToken
        | TokenError::Claim(_)
        | TokenError::Issuer
        | TokenError::Audience
        | TokenError::Expired
        | TokenError::TooOld
        | TokenError::NotYetValid
        | TokenError::Subject(_)
        | TokenError::Binding => Code::Unauthenticated,
    };
    Line::new(code, error.reason(), error)
}

fn raft_line(error: &RaftError) -> Line {
    match error {
        RaftError::NoLeader => Line::new(Code::Unavailable, "NO_LEADER", error).retry(SOON),
        RaftError::OutcomeUnknown => Line::new(
            Code::DeadlineExceeded,
            "OUTCOME_UNKNOWN",
            "it is not known whether the request was done; repeat it with the same request_id",
        )
        .retry(SOON),
        RaftError::Refused(refusal) => match refusal {
            Refusal::DiskLow => Line::new(Code::Unavailable, "DISK_LOW", error).retry(LATER),
            Refusal::NotMember => Line::new(Code::Unavailable, "NOT_A_MEMBER", error).retry(LATER),
            Refusal::Draining => Line::new(Code::Unavailable, "DRAINING", error).retry(SOON),
            Refusal::ClockAhead => Line::new(Code::Unavailable, "CLOCK_AHEAD", error).retry(LATER),
        },
        RaftError::NotInitialised => {
            Line::precondition("CLUSTER_NOT_INITIALISED", "cluster", error)
        }
        RaftError::Membership(_) => {
            Line::precondition("MEMBERSHIP_CHANGE_REFUSED", "cluster", error)
        }
        RaftError::RemovedId(node) => {
            Line::precondition("NODE_ID_REMOVED", &format!("node/{node}"), error)
                .with("node_id", node)
        }
        RaftError::Stopped(_) => Line::new(Code::Unavailable, "NODE_STOPPED", error).retry(LATER),
    }
}

fn rejection_line(rejection: &Rejection, now: Timestamp) -> Line {
    let reason = rejection.reason();
    match rejection {
        Rejection::AlreadyBootstrapped | Rejection::NotBootstrapped => {
            Line::precondition(reason, "cluster", rejection)
        }
        Rejection::NotGranted { .. }
        | Rejection::ForeignDevice
        | Rejection::ApproverRevoked(_)
        | Rejection::SecondPersonRequired => Line::new(Code::PermissionDenied, reason, rejection),
        Rejection::ForeignVolume => Line::precondition(reason, "protector_id", rejection),
        Rejection::StaleVersion { expected, current } => {
            Line::precondition(reason, "expected_version", rejection)
                .with("expected_version", expected)
                .with("current_version", current)
        }
        Rejection::UnknownEpoch(_) => Line::precondition(reason, "sealed_key.epoch", rejection),
        Rejection::UnknownDevice
        | Rejection::UnknownVolume
        | Rejection::UnknownKey
        | Rejection::UnknownApproval(_) => Line::new(Code::NotFound, reason, rejection),
        Rejection::RequestIdReused => Line::new(Code::AlreadyExists, reason, rejection),
        Rejection::TooManyVolumes(_) => Line::quota(reason, "volumes", rejection),
        Rejection::TooManyUsers(_) => Line::field(reason, "users", &rejection.to_string()),
        Rejection::UserRequired => Line::field(reason, "user", &rejection.to_string()),
        Rejection::QuotaExceeded { .. } => quota_line(rejection, now),
        Rejection::LastAdministrator => Line::precondition(reason, "operator", rejection),
        Rejection::CertificateDenied(_) => Line::new(Code::PermissionDenied, reason, rejection),
        Rejection::TooManyDenials(_) => Line::quota(reason, "denials", rejection),
        Rejection::TooManyNodesDenied => Line::precondition(reason, "subject", rejection),
        // No other node would do: all are sealed.
        Rejection::Sealed | Rejection::SealedAgain => {
            Line::precondition(reason, "cluster", rejection)
        }
        Rejection::KeyringChanged => Line::precondition(reason, "keyring", rejection),
        Rejection::RepeatTooLate => Line::precondition(reason, "request_id", rejection),
        Rejection::TokenExpired(at) => {
            Line::new(Code::PermissionDenied, reason, rejection).with("expired_ms", at)
        }
        Rejection::UnknownToken => Line::new(Code::NotFound, reason, rejection),
        Rejection::TokenUsed | Rejection::TokenRevoked | Rejection::TokenForeignDevice => {
            Line::new(Code::PermissionDenied, reason, rejection)
        }
        Rejection::TokenExists => Line::new(Code::AlreadyExists, reason, rejection),
        Rejection::TooManyTokens(_) => Line::quota(reason, "tokens", rejection),
        Rejection::RenewalTooEarly(from) => {
            Line::precondition(reason, "certificate", rejection).with("from_ms", from)
        }
        Rejection::AgentCaNumber(next) => {
            Line::precondition(reason, "number", rejection).with("next_number", next)
        }
        Rejection::UnknownAgentCa(_) => Line::precondition(reason, "agent-ca", rejection),
        Rejection::OutsideGroups => Line::new(Code::PermissionDenied, reason, rejection),
        Rejection::EscrowedByDevice => Line::precondition(reason, "volume_id", rejection),
        Rejection::TooManyGroups(_) => Line::quota(reason, "groups", rejection),
        Rejection::ApprovalRequired => Line::precondition(reason, "approval_id", rejection),
        Rejection::ApprovalUnusable(why) => unusable_line(*why),
        Rejection::ApprovalExpired(at) => {
            Line::precondition(reason, "approval_id", rejection).with("expired_ms", at)
        }
        Rejection::TooManyApprovals(_) => Line::quota(reason, "approvals", rejection),
        Rejection::PolicyChanged(revision) => {
            Line::precondition(reason, "revision", rejection).with("revision", revision)
        }
        Rejection::NoMassRecovery => Line::precondition(reason, "mass_recovery", rejection),
        Rejection::MassRecoveryOn(until) => {
            Line::precondition(reason, "mass_recovery", rejection).with("until_ms", until)
        }
        Rejection::Unreadable => Line::precondition(reason, "version", rejection),
    }
}

/// A quota of disclosures that is used up: which one, and when there is room again.
fn quota_line(rejection: &Rejection, now: Timestamp) -> Line {
    let line = Line::quota(rejection.reason(), "disclosures", rejection);
    let Rejection::QuotaExceeded { scope, limit, until } = rejection else { return line };
    let wait = until.as_millis().saturating_sub(now.as_millis()).max(1);
    line.retry(Duration::from_millis(wait))
        .with("scope", scope.as_str())
        .with("limit", limit)
        .with("until_ms", until)
}

fn unusable_line(why: Unusable) -> Line {
    match why {
        Unusable::Mismatch | Unusable::Denied => {
            Line::new(Code::PermissionDenied, why.reason(), why)
        }
        Unusable::Pending | Unusable::Used | Unusable::Decided => {
            Line::precondition(why.reason(), "approval_id", why)
        }
    }
}
