//! Makes a call and writes down what was asked, when, and what came of it.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use holdfast::client::{ClientError, with_causes};

use super::door::locked;
use crate::check::{NOT_DONE, page_name};
use crate::history::{Audit, Call, Event, Finding, Invoke, OpId, Outcome, Reply, Return};
use crate::recorder::Recorder;

/// Refusals that are decided for good by what the log holds or the request says, so that neither this attempt nor an earlier
/// one of the same call takes effect later. Everything else may be one server's opinion, and is unknown.
const DECIDED: [&str; 15] = [
    "FOREIGN_DEVICE",
    "FOREIGN_VOLUME",
    "INVALID_FIELD",
    "NOT_AN_AGENT",
    "NOT_AN_OPERATOR",
    "QUOTA_EXCEEDED",
    "REPEAT_TOO_LATE",
    "REQUEST_ID_REUSED",
    "STALE_VERSION",
    "TOO_MANY_USERS",
    "TOO_MANY_VOLUMES",
    "UNKNOWN_DEVICE",
    "UNKNOWN_KEY",
    "UNKNOWN_VOLUME",
    "USER_REQUIRED",
];

/// Refusals that should not exist, whatever is broken.
const BUG: &str = "BUG";

/// Numbers calls and writes them down.
#[derive(Debug)]
pub(super) struct Caller {
    recorder: Arc<Recorder>,
    next: AtomicU64,
    /// Pages of the audit chain that are written down.
    pages: Mutex<BTreeSet<String>>,
}

/// Who calls, and whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who {
    pub(super) client: u64,
    pub(super) node: Option<u64>,
}

impl Caller {
    pub(super) const fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, next: AtomicU64::new(1), pages: Mutex::new(BTreeSet::new()) }
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Writes a page of the audit chain down unless it is already, and gives its name.
    pub(super) fn page(&self, records: Vec<Audit>) -> String {
        let page = page_name(&records);
        if locked(&self.pages).insert(page.clone()) {
            self.recorder.record(&Event::AuditPage { page: page.clone(), records });
        }
        page
    }

    /// Makes a call; `answer` is not polled before the call is written down.
    pub(super) async fn call(
        &self,
        who: Who,
        call: Call,
        answer: impl Future<Output = Result<Reply, ClientError>>,
    ) -> Outcome {
        let op: OpId = self.next.fetch_add(1, Ordering::Relaxed);
        let at = self.recorder.now();
        let Who { client, node } = who;
        self.recorder.record(&Event::Invoke(Invoke { at, op, client, node, call }));
        let outcome = match answer.await {
            Ok(reply) => Outcome::Ok { reply },
            Err(error) => {
                if let Some(checker) = never(&error) {
                    let what = format!("call {op}: {}", with_causes(&error));
                    let at = self.recorder.now();
                    let checker = checker.to_owned();
                    self.recorder.record(&Event::Finding(Finding { at, checker, bad: true, what }));
                }
                outcome_of(&error)
            }
        };
        let done = Return { at: self.recorder.now(), op, outcome: outcome.clone() };
        self.recorder.record(&Event::Return(done));
        outcome
    }
}

fn outcome_of(error: &ClientError) -> Outcome {
    let message = with_causes(error);
    match error {
        ClientError::Refused(refusal) if DECIDED.contains(&refusal.reason.as_str()) => {
            Outcome::Refused { reason: refusal.reason.clone(), message }
        }
        ClientError::Unreachable { outcome_unknown: false, .. } => {
            Outcome::Unknown { message: format!("{NOT_DONE}{message}") }
        }
        _ => Outcome::Unknown { message },
    }
}

/// The checker of an error that no fault excuses.
fn never(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Receipt(_) | ClientError::EscrowKey(_) => Some("receipt"),
        ClientError::AuditChain(_) => Some("chain"),
        ClientError::Answer(_) => Some("answer"),
        ClientError::Refused(refusal) if refusal.reason == BUG => Some("bug"),
        ClientError::Refused(_)
        | ClientError::Unreachable { .. }
        | ClientError::IdentityRefused { .. }
        | ClientError::ServerNotTrusted { .. }
        | ClientError::File { .. }
        | ClientError::Field(_)
        | ClientError::Format(_)
        | ClientError::Seal(_) => None,
    }
}

/// Whether somebody knows what came of it.
pub(super) const fn known(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Unknown { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast::client::{ErrorKind, Refusal};
    use std::time::Duration;

    fn refused(reason: &str) -> Outcome {
        outcome_of(&ClientError::Refused(Refusal {
            kind: ErrorKind::Conflict,
            reason: reason.to_owned(),
            message: String::new(),
            fields: Box::default(),
            current_version: None,
            retry_after: None,
        }))
    }

    #[test]
    fn only_what_the_log_decides_for_good_is_a_refusal() {
        for reason in DECIDED {
            assert!(matches!(refused(reason), Outcome::Refused { .. }), "{reason}");
        }
        let others = [
            "OUTCOME_UNKNOWN",
            "NODE_STOPPED",
            "LOCAL_FAULT",
            "INTEGRITY_CHECK_FAILED",
            "BUG",
            "CERTIFICATE_INVALID",
            "ROLE_MISSING",
            "NOT_GRANTED",
            "OVERLOADED",
            "UNREADABLE",
            "",
        ];
        for reason in others {
            assert!(matches!(refused(reason), Outcome::Unknown { .. }), "{reason}");
        }
    }

    #[test]
    fn a_call_that_no_server_answered_is_unknown_whatever_the_client_says() {
        for outcome_unknown in [false, true] {
            let error = ClientError::Unreachable {
                waited: Duration::ZERO,
                attempts: 1,
                answers: String::new(),
                outcome_unknown,
            };
            let Outcome::Unknown { message } = outcome_of(&error) else { panic!() };
            assert_eq!(message.starts_with(NOT_DONE), !outcome_unknown);
        }
    }
}
