//! Checkpoints that a server writes by itself.

use super::*;
use crate::client::evidence::{Checkpoint, EvidenceError};
use crate::crypto::testing::now;
use crate::domain::Role;
use crate::service::Consensus as _;

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
        let heads = crate::state::Heads::load(running.bench.fake.as_ref().view()).unwrap();
        let found = read(running).unwrap_or_default();
        if found.last() == Some(&heads.audit.sequence) {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:?}, not {}", heads.audit.sequence);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the metric has this value.
async fn failing(running: &Running, value: u8) {
    let line = format!("holdfast_audit_checkpoint_failing {value}.0\n");
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
    config.audit = AuditConfig { checkpoint_file: Some(path.clone()), checkpoint_records: 1 };
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
