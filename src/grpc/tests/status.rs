//! The error table against its documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::auth::{Denied, IdentityError, TokenError};
use crate::crypto::{CertificateError, CsrError};
use crate::domain::{
    Actor, ApprovalId, AuditAction, ClusterId, Epoch, FieldError, KeyVersion, NodeId, QuotaScope,
    SpiffeError, Timestamp,
};
use crate::grpc::observe::code_name;
use crate::grpc::status::{from_error, overloaded};
use crate::raft::{RaftError, Refusal};
use crate::service::ServiceError;
use crate::state::{Rejection, StoreError, Unusable};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// Does not compile before a new rejection has its place here, and then in the list below.
fn is_listed(one: &Rejection) {
    match one {
        Rejection::AlreadyBootstrapped
        | Rejection::NotBootstrapped
        | Rejection::NotGranted { .. }
        | Rejection::ForeignDevice
        | Rejection::ForeignVolume
        | Rejection::StaleVersion { .. }
        | Rejection::UnknownEpoch(_)
        | Rejection::UnknownDevice
        | Rejection::UnknownVolume
        | Rejection::UnknownKey
        | Rejection::RequestIdReused
        | Rejection::TooManyVolumes(_)
        | Rejection::TooManyUsers(_)
        | Rejection::UserRequired
        | Rejection::QuotaExceeded { .. }
        | Rejection::LastAdministrator
        | Rejection::CertificateDenied(_)
        | Rejection::TooManyDenials(_)
        | Rejection::TooManyNodesDenied
        | Rejection::RepeatTooLate
        | Rejection::Sealed
        | Rejection::SealedAgain
        | Rejection::KeyringChanged
        | Rejection::UnknownToken
        | Rejection::TokenExpired(_)
        | Rejection::TokenUsed
        | Rejection::TokenRevoked
        | Rejection::TokenForeignDevice
        | Rejection::TokenExists
        | Rejection::TooManyTokens(_)
        | Rejection::RenewalTooEarly(_)
        | Rejection::AgentCaNumber(_)
        | Rejection::UnknownAgentCa(_)
        | Rejection::TooManyGroups(_)
        | Rejection::OutsideGroups
        | Rejection::EscrowedByDevice
        | Rejection::ApprovalRequired
        | Rejection::UnknownApproval(_)
        | Rejection::ApprovalUnusable(
            Unusable::Mismatch
            | Unusable::Pending
            | Unusable::Denied
            | Unusable::Used
            | Unusable::Decided,
        )
        | Rejection::ApprovalExpired(_)
        | Rejection::ApproverRevoked(_)
        | Rejection::TooManyApprovals(_)
        | Rejection::SecondPersonRequired
        | Rejection::PolicyChanged(_)
        | Rejection::NoMassRecovery
        | Rejection::MassRecoveryOn(_)
        | Rejection::Unreadable => {}
    }
}

fn quota_exceeded() -> Rejection {
    let until = Timestamp::from_millis(1_060_000);
    Rejection::QuotaExceeded { scope: QuotaScope::ClusterHour, limit: 200, until }
}

/// All of them.
fn rejections() -> Vec<Rejection> {
    let all = vec![
        Rejection::AlreadyBootstrapped,
        Rejection::NotBootstrapped,
        Rejection::NotGranted { actor: Actor::Node(NodeId::new(1)), action: AuditAction::Disclose },
        Rejection::ForeignDevice,
        Rejection::ForeignVolume,
        Rejection::StaleVersion { expected: KeyVersion::new(1), current: KeyVersion::new(2) },
        Rejection::UnknownEpoch(Epoch::new(9)),
        Rejection::UnknownDevice,
        Rejection::UnknownVolume,
        Rejection::UnknownKey,
        Rejection::RequestIdReused,
        Rejection::TooManyVolumes(64),
        Rejection::TooManyUsers(33),
        Rejection::UserRequired,
        quota_exceeded(),
        Rejection::LastAdministrator,
        Rejection::CertificateDenied(Actor::Node(NodeId::new(1))),
        Rejection::TooManyDenials(10_000),
        Rejection::TooManyNodesDenied,
        Rejection::RepeatTooLate,
        Rejection::Sealed,
        Rejection::SealedAgain,
        Rejection::KeyringChanged,
        Rejection::UnknownToken,
        Rejection::TokenExpired(Timestamp::from_millis(7)),
        Rejection::TokenUsed,
        Rejection::TokenRevoked,
        Rejection::TokenForeignDevice,
        Rejection::TokenExists,
        Rejection::TooManyTokens(10_000),
        Rejection::RenewalTooEarly(Timestamp::from_millis(7)),
        Rejection::AgentCaNumber(2),
        Rejection::UnknownAgentCa(2),
        Rejection::TooManyGroups(16),
        Rejection::OutsideGroups,
        Rejection::EscrowedByDevice,
        Rejection::ApprovalRequired,
        Rejection::UnknownApproval(ApprovalId::after(16)),
        Rejection::ApprovalUnusable(Unusable::Mismatch),
        Rejection::ApprovalUnusable(Unusable::Pending),
        Rejection::ApprovalUnusable(Unusable::Denied),
        Rejection::ApprovalUnusable(Unusable::Used),
        Rejection::ApprovalUnusable(Unusable::Decided),
        Rejection::ApprovalExpired(Timestamp::from_millis(7)),
        Rejection::ApproverRevoked(Actor::Operator("ada".parse().unwrap())),
        Rejection::TooManyApprovals(20),
        Rejection::SecondPersonRequired,
        Rejection::PolicyChanged(3),
        Rejection::NoMassRecovery,
        Rejection::MassRecoveryOn(Timestamp::from_millis(7)),
        Rejection::Unreadable,
    ];
    all.iter().for_each(is_listed);
    all
}

fn tokens() -> [TokenError; 18] {
    [
        TokenError::Off,
        TokenError::Malformed("no"),
        TokenError::TooLarge(9000),
        TokenError::Algorithm,
        TokenError::UnknownKey,
        TokenError::NoKeys,
        TokenError::Signature,
        TokenError::NotAnAccessToken,
        TokenError::Claim("exp"),
        TokenError::Issuer,
        TokenError::Audience,
        TokenError::Expired,
        TokenError::TooOld,
        TokenError::NotYetValid,
        TokenError::Subject(FieldError::new("subject", "must not be empty")),
        TokenError::Binding,
        TokenError::ForeignCertificate,
        TokenError::NoRole,
    ]
}

fn errors() -> Vec<ServiceError> {
    let raft = [
        RaftError::NoLeader,
        RaftError::OutcomeUnknown,
        RaftError::Refused(Refusal::DiskLow),
        RaftError::Refused(Refusal::NotMember),
        RaftError::Refused(Refusal::Draining),
        RaftError::Refused(Refusal::ClockAhead),
        RaftError::NotInitialised,
        RaftError::Membership("no".into()),
        RaftError::RemovedId(NodeId::new(2)),
        RaftError::Stopped("no".into()),
    ];
    let denied = ["NOT_AN_AGENT", "NOT_AN_OPERATOR", "FOREIGN_DEVICE", "ROLE_MISSING"];
    let identity = [
        IdentityError::Certificate(CertificateError::Missing),
        IdentityError::Name(SpiffeError::ForeignCluster(ClusterId::from_bytes([1; 16]))),
        IdentityError::SharedCa,
        IdentityError::Expired,
    ];
    let tokens = tokens().map(IdentityError::Token);
    let own = [
        ServiceError::Field(FieldError::new("users[3].name", "must not be empty")),
        ServiceError::NoQuorumContact { age: Duration::from_secs(2) },
        ServiceError::Sealed("no root key".into()),
        ServiceError::ChainConflict("it ends at record 7".into()),
        ServiceError::ShutOut("node 1 refuses this node".into()),
        ServiceError::NotInitialised,
        ServiceError::AlreadyInitialised,
        ServiceError::NoSuchDevice,
        ServiceError::NoAgentCa,
        ServiceError::AgentCaExpired,
        ServiceError::Member { node: NodeId::new(2), why: "is not empty".into() },
        ServiceError::Integrity("does not open".into()),
        ServiceError::Store(StoreError::Engine("/secret/path".into())),
        ServiceError::Unexpected("/secret/path"),
    ];
    let csr = [
        CsrError::Size,
        CsrError::Malformed,
        CsrError::KeyType,
        CsrError::Signature,
        CsrError::ForeignName,
        CsrError::Extension,
    ];
    let denied =
        denied.map(|reason| ServiceError::Denied(Denied { reason, message: "no".to_owned() }));
    own.into_iter()
        .chain(denied)
        .chain(csr.map(ServiceError::Csr))
        .chain(identity.into_iter().chain(tokens).map(ServiceError::Unauthenticated))
        .chain(raft.map(ServiceError::Raft))
        .chain(rejections().into_iter().map(ServiceError::Rejected))
        .collect()
}

fn statuses() -> Vec<Status> {
    errors().iter().map(|error| from_error(error, NOW)).chain([overloaded()]).collect()
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("every status has an ErrorInfo");
    assert_eq!(info.domain, "holdfast");
    info.reason
}

#[test]
fn the_documentation_lists_every_reason_with_its_code_and_no_other() {
    let made: BTreeMap<String, &str> =
        statuses().iter().map(|status| (reason(status), code_name(status.code()))).collect();
    let page = include_str!("../../../docs/errors.md");
    let documented: BTreeMap<String, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| {
            let (reason, rest) = line.split_once("` | ")?;
            Some((reason.to_owned(), rest.split_once(" |")?.0))
        })
        .collect();
    assert_eq!(documented, made);
}

#[test]
fn a_reason_has_one_code_only_and_is_written_in_upper_snake() {
    let pairs: BTreeSet<(String, &str)> =
        statuses().iter().map(|status| (reason(status), code_name(status.code()))).collect();
    let reasons: BTreeSet<_> = pairs.iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons.len(), pairs.len());
    for reason in reasons {
        assert!(reason.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{reason}");
    }
}

#[test]
fn whoever_may_try_again_is_told_when() {
    for status in statuses() {
        let retry = status.get_details_retry_info().is_some();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => assert!(retry, "{status:?}"),
            Code::ResourceExhausted => {
                let for_good = [
                    "TOO_MANY_VOLUMES",
                    "TOO_MANY_DENIALS",
                    "TOO_MANY_TOKENS",
                    "TOO_MANY_GROUPS",
                    "TOO_MANY_APPROVALS",
                ];
                assert_eq!(retry, !for_good.contains(&reason(&status).as_str()));
            }
            _ => assert!(!retry, "{status:?}"),
        }
    }
}

#[test]
fn details_say_which_field_state_or_limit_is_meant() {
    for status in statuses() {
        match status.code() {
            Code::InvalidArgument => {
                assert!(status.get_details_bad_request().is_some(), "{status:?}");
            }
            Code::FailedPrecondition => {
                assert!(status.get_details_precondition_failure().is_some(), "{status:?}");
            }
            Code::ResourceExhausted => {
                assert!(status.get_details_quota_failure().is_some(), "{status:?}");
            }
            _ => {}
        }
    }
    let field = ServiceError::Field(FieldError::new("users[3].name", "must not be empty"));
    let bad = from_error(&field, NOW).get_details_bad_request().unwrap();
    assert_eq!(bad.field_violations[0].field, "users[3].name");
}

#[test]
fn a_used_up_quota_says_how_long_it_lasts() {
    let status = from_error(&ServiceError::Rejected(quota_exceeded()), NOW);
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(60)));
    let told = status.get_details_error_info().unwrap().metadata;
    for (name, value) in [("scope", "cluster-hour"), ("limit", "200"), ("until_ms", "1060000")] {
        assert_eq!(told.get(name).map(String::as_str), Some(value));
    }
}

#[test]
fn internal_errors_show_nothing_of_the_inside() {
    for status in statuses().iter().filter(|status| status.code() == Code::Internal) {
        assert!(!status.message().contains("/secret/path"), "{status:?}");
        assert!(!String::from_utf8_lossy(status.details()).contains("/secret/path"));
    }
}
