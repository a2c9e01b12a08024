//! Checkpoints that a server writes by itself.

use super::*;
use crate::client::evidence::{Checkpoint, EvidenceError};
use crate::crypto::testing::now;
use crate::domain::{AuditPosition, Role};
use crate::server::checkpoints::tests::signed;
use crate::service::Consensus as _;
use crate::service::tests::harness::luks2_key;
use crate::state::Heads;

fn read(running: &Running) -> Result<Vec<u64>, EvidenceError> {
    let path = running.bench.dir.path().join("checkpoints");
    let bytes = std::fs::read(path).map_err(EvidenceError::Read)?;
    let ca = running.bench.ca.authority();
    let read = Checkpoint::read_all(bytes.as_slice(), &ca, now())?;
    Ok(read.iter().map(|checkpoint| checkpoint.facts.head.sequence).collect())
}

/// Waits until the newest checkpoint is about the newest record.
async fn level(running: &Running) -> Vec<u64> {
    let deadline = Instant::now() + SECOND * 20;
    loop {
        let heads = Heads::load(running.bench.fake.as_ref().view()).unwrap();
        let found = read(running).unwrap_or_default();
        if found.last() == Some(&heads.audit.sequence) {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:?}, not {}", heads.audit.sequence);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn failing(running: &Running, value: u8) {
    metric(running, "audit_checkpoint_failing", value).await;
}

/// Waits until the metric has this value.
pub(super) async fn metric(running: &Running, name: &str, value: u8) {
    let line = format!("holdfast_{name} {value}.0\n");
    let deadline = Instant::now() + SECOND * 20;
    loop {
        let (_, page) = running.get("/metrics").await;
        if page.contains(&line) {
            return;
        }
        assert!(Instant::now() < deadline, "not {line}: {page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_appends_signed_checkpoints_as_the_chain_grows_and_says_if_it_cannot() {
    let bench = Bench::ready().await;
    let mut config = config(&bench, 8);
    let path = bench.dir.path().join("checkpoints");
    config.audit.checkpoint_file = Some(path.clone());
    let running = Running::start_with(bench, config).await;
    let first = level(&running).await;
    running.bench.grant(60, "bob", Role::HelpDesk).await;
    let more = level(&running).await;
    assert!(more.len() > first.len() && more.starts_with(&first), "{first:?} {more:?}");
    failing(&running, 0).await;
    // A file that can't be appended to is an alarm until it can be again; then what is missing is written.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    running.bench.grant(61, "carol", Role::HelpDesk).await;
    failing(&running, 1).await;
    std::fs::remove_dir(&path).unwrap();
    level(&running).await;
    failing(&running, 0).await;
}

/// A server around a cluster with one key, and with this checkpoint in its file, which it has not written itself.
async fn with_checkpoint_of(of: impl Fn(AuditPosition) -> AuditPosition) -> (Running, String) {
    let bench = Bench::ready().await;
    bench.escrow(luks2_key().as_bytes()).await;
    let mut config = config(&bench, 8);
    let path = bench.dir.path().join("checkpoints");
    let head = Heads::load(bench.fake.as_ref().view()).unwrap().audit;
    let line = signed(&bench.ca, of(head)).to_line().unwrap();
    std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), line.as_bytes()).unwrap();
    config.audit.checkpoint_file = Some(path);
    (Running::start_with(bench, config).await, line)
}

async fn disclose(running: &Running) -> Result<(), tonic::Status> {
    let request = v1::DiscloseKeyRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        protector_id: crate::service::tests::harness::PROTECTOR.to_string(),
        reason: Some(v1::Reason { code: "LOST_PIN".into(), text: String::new() }),
        user: Some(v1::User { domain: String::new(), name: "bob".into() }),
        ..Default::default()
    };
    RecoveryServiceClient::new(running.alice().await).disclose_key(request).await.map(drop)
}

type Forgery = fn(AuditPosition) -> AuditPosition;

/// Another hash: the chain was rewritten. A later record: its end was cut off, or all servers were put back to an older state.
#[tokio::test]
async fn a_server_whose_chain_lacks_what_was_signed_says_so_opens_no_key_and_adds_nothing() {
    let rewritten = |_: AuditPosition| AuditPosition { sequence: 2, hash: [9; 32] };
    let cut_off = |head: AuditPosition| AuditPosition { sequence: head.sequence + 100, ..head };
    let cases: [(Forgery, &str); 2] =
        [(rewritten, "the chain was rewritten"), (cut_off, "the records after it are gone")];
    for (of, why) in cases {
        let (running, line) = with_checkpoint_of(of).await;
        metric(&running, "audit_chain_conflict", 1).await;
        let refused = disclose(&running).await.unwrap_err();
        let found = (refused.code(), reason(&refused));
        assert_eq!(found, (Code::Unavailable, "AUDIT_CHAIN_CONFLICT".to_owned()));
        let (code, page) = running.get("/readyz").await;
        assert!(code == 200 && page.contains(why) && page.contains("signed by node 2"), "{page}");
        // Users are not blocked: keys are taken, and found.
        let request = escrow_request(&running.bench);
        let mut escrow = EscrowServiceClient::new(running.agent().await);
        escrow.escrow_recovery_key(request).await.unwrap();
        let path = running.bench.dir.path().join("checkpoints");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line, "nothing is added");
        // A restart takes nothing of that back; only somebody who takes the checkpoint away does.
        let mut config = config(&running.bench, 8);
        config.audit.checkpoint_file = Some(path.clone());
        let running = Running::start_with(running.stop().await.0, config.clone()).await;
        metric(&running, "audit_chain_conflict", 1).await;
        let bench = running.stop().await.0;
        std::fs::rename(&path, bench.dir.path().join("evidence")).unwrap();
        let running = Running::start_with(bench, config).await;
        level(&running).await;
        metric(&running, "audit_chain_conflict", 0).await;
        unsealed(&running).await;
        disclose(&running).await.unwrap();
    }
}

/// Waits until the server can open keys.
async fn unsealed(running: &Running) {
    metric(running, "unsealed", 1).await;
}

#[tokio::test]
async fn a_server_whose_chain_has_what_was_signed_goes_on_with_its_file() {
    let (running, line) = with_checkpoint_of(|head| head).await;
    running.bench.grant(60, "bob", Role::HelpDesk).await;
    level(&running).await;
    let path = running.bench.dir.path().join("checkpoints");
    assert!(std::fs::read_to_string(path).unwrap().starts_with(&line));
    metric(&running, "audit_chain_conflict", 0).await;
    unsealed(&running).await;
    disclose(&running).await.unwrap();
}
