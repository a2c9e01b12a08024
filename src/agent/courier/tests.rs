#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::*;
use crate::agent::testing::{NOW, disk, open, receipt, report, sealed, volume};
use crate::client::Refusal;

/// Servers that say what the test lays down, and note what they were sent.
#[derive(Default)]
struct Scripted {
    /// Answers to escrows; when there are none left each gets its receipt.
    escrows: Mutex<VecDeque<Result<Receipt, ClientError>>>,
    reports: Mutex<VecDeque<Result<v1::ReportComplianceResponse, ClientError>>>,
    sent: Mutex<Vec<v1::EscrowRecoveryKeyRequest>>,
    reported: Mutex<Vec<String>>,
}

impl Scripted {
    fn answering(answers: impl IntoIterator<Item = Result<Receipt, ClientError>>) -> Self {
        Self { escrows: Mutex::new(answers.into_iter().collect()), ..Self::default() }
    }

    fn sent(&self) -> Vec<(String, u32)> {
        let sent = self.sent.lock();
        sent.iter().map(|sent| (sent.volume_id.clone(), sent.expected_version + 1)).collect()
    }
}

impl Servers for Scripted {
    async fn seal(&self, _: &NewEscrow, _: &RecoveryKey) -> Result<SealedEscrow, ClientError> {
        unreachable!("the courier seals nothing")
    }

    async fn escrow(&self, sealed: &SealedEscrow) -> Result<Receipt, ClientError> {
        self.sent.lock().push(sealed.message().clone());
        self.escrows.lock().pop_front().unwrap_or_else(|| Ok(receipt(sealed)))
    }

    async fn report(
        &self,
        request: &v1::ReportComplianceRequest,
    ) -> Result<v1::ReportComplianceResponse, ClientError> {
        self.reported.lock().push(request.host_name.clone());
        let next = self.reports.lock().pop_front();
        next.unwrap_or_else(|| Ok(v1::ReportComplianceResponse::default()))
    }
}

fn refusal(kind: ErrorKind, reason: &str, current: Option<u32>) -> ClientError {
    ClientError::Refused(Refusal {
        kind,
        reason: reason.to_owned(),
        message: String::new(),
        fields: Box::default(),
        current_version: current.map(KeyVersion::new),
        retry_after: Some(Duration::from_secs(7)),
    })
}

fn nobody() -> ClientError {
    ClientError::Unreachable {
        waited: Duration::from_secs(15),
        attempts: 9,
        answers: "nobody is there".to_owned(),
        outcome_unknown: true,
    }
}

#[tokio::test]
async fn everything_that_waits_is_delivered_once_and_in_order() {
    let fs = disk();
    let mut spool = open(&fs);
    for (of, version) in [(1, 1), (1, 2), (2, 1)] {
        spool.put_escrow(&sealed(of, version), NOW).unwrap();
    }
    spool.put_report(report("fd-0007"), NOW).unwrap();
    let servers = Scripted::default();
    let round = deliver(&mut spool, &servers).await.unwrap();
    assert_eq!(round.obstacle, None);
    assert_eq!(round.events.len(), 4);
    let (one, two) = (volume(1).to_string(), volume(2).to_string());
    assert_eq!(servers.sent(), [(one.clone(), 1), (one, 2), (two, 1)]);
    assert_eq!(*servers.reported.lock(), ["fd-0007"]);
    let again = deliver(&mut spool, &servers).await.unwrap();
    assert!(again.events.is_empty() && again.obstacle.is_none());
    assert_eq!(servers.sent().len(), 3);
}

#[tokio::test]
async fn without_servers_everything_stays_and_is_sent_again_byte_for_byte() {
    let fs = disk();
    let mut spool = open(&fs);
    spool.put_escrow(&sealed(1, 1), NOW).unwrap();
    spool.put_escrow(&sealed(2, 1), NOW).unwrap();
    spool.put_report(report("fd-0007"), NOW).unwrap();
    let servers = Scripted::answering([Err(nobody())]);
    let round = deliver(&mut spool, &servers).await.unwrap();
    assert!(round.events.is_empty());
    assert_eq!(round.obstacle.unwrap().kind, ErrorKind::Unavailable);
    // The other volume and the report would find nobody either.
    assert_eq!((servers.sent().len(), servers.reported.lock().len()), (1, 0));
    drop(spool);
    let mut spool = open(&fs.crash(crate::fs::sim::Survivors::None));
    let round = deliver(&mut spool, &servers).await.unwrap();
    assert_eq!((round.events.len(), round.obstacle), (3, None));
    let sent = servers.sent.lock();
    assert_eq!(sent[0], sent[1]);
}

#[tokio::test]
async fn what_is_no_verdict_on_the_bytes_sets_nothing_aside() {
    let answers = [
        nobody(),
        ClientError::Receipt("it is for another key id".to_owned()),
        ClientError::EscrowKey("its signature doesn't hold".to_owned()),
        ClientError::IdentityRefused { endpoint: "a:1".to_owned(), what: "expired".to_owned() },
        ClientError::ServerNotTrusted { endpoint: "a:1".to_owned(), what: "foreign".to_owned() },
        ClientError::Answer("receipt is missing".to_owned()),
        refusal(ErrorKind::Denied, "FOREIGN_DEVICE", None),
        refusal(ErrorKind::Denied, "CERTIFICATE_DENIED", None),
        refusal(ErrorKind::Exhausted, "TOO_MANY_VOLUMES", None),
        refusal(ErrorKind::Conflict, "CLUSTER_NOT_INITIALISED", None),
        refusal(ErrorKind::Internal, "BUG", None),
        ClientError::Field(crate::domain::FieldError::new("device_id", "of this client's making")),
    ];
    for answer in answers {
        let said = answer.to_string();
        let mut spool = open(&disk());
        spool.put_escrow(&sealed(1, 1), NOW).unwrap();
        let round = deliver(&mut spool, &Scripted::answering([Err(answer)])).await.unwrap();
        assert!(round.events.is_empty(), "{said}");
        assert!(round.obstacle.unwrap().what.contains(&said));
        assert_eq!((spool.waiting().count(), spool.refused().count()), (1, 0), "{said}");
    }
}

#[tokio::test]
async fn a_refusal_for_good_sets_the_entry_aside_and_says_which_version_is_current() {
    let answers = [
        refusal(ErrorKind::Conflict, "STALE_VERSION", Some(4)),
        refusal(ErrorKind::Conflict, "UNKNOWN_EPOCH", None),
        refusal(ErrorKind::Invalid, "BAD_FIELD", None),
    ];
    let mut currents = Vec::new();
    for answer in answers {
        let expected = answer.reason().to_owned();
        let mut spool = open(&disk());
        spool.put_escrow(&sealed(1, 1), NOW).unwrap();
        let servers = Scripted::answering([Err(answer)]);
        let round = deliver(&mut spool, &servers).await.unwrap();
        let [Event::Refused { reason, current, volume: of, .. }] = &round.events[..] else {
            panic!("{round:?}");
        };
        assert_eq!((reason, *of), (&expected, volume(1)));
        currents.push(current.map(KeyVersion::get));
        assert_eq!((spool.waiting().count(), spool.refused().count()), (0, 1));
        assert_eq!(round.obstacle, None);
    }
    assert_eq!(currents, [Some(4), None, None]);
}

#[tokio::test]
async fn a_volume_that_has_no_room_does_not_hold_up_the_others() {
    let mut spool = open(&disk());
    spool.put_escrow(&sealed(1, 1), NOW).unwrap();
    spool.put_escrow(&sealed(1, 2), NOW).unwrap();
    spool.put_escrow(&sealed(2, 1), NOW).unwrap();
    let full = refusal(ErrorKind::Exhausted, "TOO_MANY_VOLUMES", None);
    let servers = Scripted::answering([Err(full)]);
    let round = deliver(&mut spool, &servers).await.unwrap();
    let (one, two) = (volume(1).to_string(), volume(2).to_string());
    assert_eq!(servers.sent(), [(one, 1), (two, 1)]);
    assert_eq!(round.events.len(), 1);
    assert_eq!(round.obstacle.unwrap().retry_after, Some(Duration::from_secs(7)));
    assert_eq!(spool.waiting().count(), 2);
}

#[tokio::test]
async fn a_receipt_that_the_disk_does_not_take_leaves_the_entry_waiting() {
    let fs = disk();
    let mut spool = open(&fs);
    spool.put_escrow(&sealed(1, 1), NOW).unwrap();
    fs.set_capacity(Some(fs.used_bytes()));
    let servers = Scripted::default();
    assert!(deliver(&mut spool, &servers).await.is_err());
    assert_eq!(spool.waiting().count(), 1);
    fs.set_capacity(None);
    let round = deliver(&mut spool, &servers).await.unwrap();
    assert_eq!((round.events.len(), spool.waiting().count()), (1, 0));
}

#[tokio::test]
async fn orders_to_rotate_arrive_and_what_is_no_volume_is_passed_over() {
    let mut spool = open(&disk());
    spool.put_report(report("fd-0007"), NOW).unwrap();
    let servers = Scripted::default();
    servers.reports.lock().push_back(Ok(v1::ReportComplianceResponse {
        rotation_due_volume_ids: vec![volume(3).to_string(), "C:".to_owned()],
        position: None,
    }));
    let round = deliver(&mut spool, &servers).await.unwrap();
    assert_eq!(round.events, [Event::Reported { rotation_due: vec![volume(3)] }]);
    assert_eq!(spool.report(), None);
}

#[tokio::test]
async fn a_report_waits_for_the_servers_unless_they_will_never_take_it() {
    let mut spool = open(&disk());
    spool.put_report(report("fd-0007"), NOW).unwrap();
    let servers = Scripted::default();
    servers.reports.lock().push_back(Err(nobody()));
    let invalid = refusal(ErrorKind::Invalid, "BAD_FIELD", None);
    servers.reports.lock().push_back(Err(invalid));
    let round = deliver(&mut spool, &servers).await.unwrap();
    assert!(round.obstacle.is_some() && spool.report().is_some());
    let round = deliver(&mut spool, &servers).await.unwrap();
    assert!(round.obstacle.is_none() && round.events.is_empty());
    assert_eq!(spool.report(), None);
}
