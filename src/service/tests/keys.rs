//! Escrow, search, compliance and the reading of devices and records.

use super::harness::*;
use crate::auth::Action;
use crate::crypto::testing::{CLUSTER, DEVICE, now, operator};
use crate::crypto::{ReceiptFacts, StatementVerifier};
use crate::domain::{
    AuditAction, ComplianceStatus, EncryptionState, NodeId, Text, VolumeCompliance, VolumeKind,
    verify_chain,
};
use crate::raft::RaftError;
use crate::service::{Filter, ServiceError, SignedCheckpoint};
use crate::state::{CommandBody, FindQuery, Rejection, ReportCompliance};

#[tokio::test]
async fn the_escrow_key_is_signed_by_the_signer_that_agents_trust() {
    let bench = Bench::ready().await;
    let permit = bench.permit_stale(&agent(), Action::GetEscrowKey).unwrap();
    let signed = bench.escrow.escrow_key(&permit).unwrap();
    let verifier = StatementVerifier::new(CLUSTER, bench.ca.authority());
    verifier.escrow_key(&signed.key, &signed.signer_chain, &signed.signature, now()).unwrap();
}

#[tokio::test]
async fn an_escrow_gives_a_receipt_that_verifies_and_a_retry_gives_the_same_facts() {
    let bench = Bench::ready().await;
    let escrow = bench.sealed(luks2_key().as_bytes());
    let permit = bench.permit(&agent(), Action::Escrow { device: DEVICE }).unwrap();
    let receipt = bench.escrow.escrow(&permit, request(10), escrow.clone()).await.unwrap();
    let body = &receipt.body;
    let facts = ReceiptFacts {
        device: DEVICE,
        volume: VOLUME,
        protector: PROTECTOR,
        version: body.version,
        sealed_digest: crate::domain::sealed_digest(&escrow.key, escrow.package.as_ref()),
        term: body.position.term,
        index: body.position.index,
        audit_sequence: body.audit.sequence,
        audit_hash: body.audit.hash,
        escrowed_at: body.escrowed_at,
    };
    let verifier = StatementVerifier::new(CLUSTER, bench.ca.authority());
    let chain = &receipt.signer_chain;
    verifier.receipt(&facts, NodeId::new(1), chain, &receipt.signature, now()).unwrap();
    let again = bench.escrow.escrow(&permit, request(10), escrow).await.unwrap();
    assert_eq!(again, receipt);
}

#[tokio::test]
async fn a_permit_for_one_device_is_none_for_another() {
    let bench = Bench::ready().await;
    let mut escrow = bench.sealed(b"x");
    escrow.device = other_device();
    let permit = bench.permit(&agent(), Action::Escrow { device: DEVICE }).unwrap();
    let before = bench.fake.proposed.lock().len();
    let refused = bench.escrow.escrow(&permit, request(10), escrow).await;
    assert!(matches!(refused, Err(ServiceError::Unexpected(_))));
    assert_eq!(bench.fake.proposed.lock().len(), before);
}

#[tokio::test]
async fn an_escrow_that_stalls_has_an_unknown_outcome_after_its_deadline() {
    let bench = Bench::ready().await;
    let escrow = bench.sealed(b"x");
    let permit = bench.permit(&agent(), Action::Escrow { device: DEVICE }).unwrap();
    *bench.fake.log.lock() = Log::Stalls;
    let unknown = bench.escrow.escrow(&permit, request(10), escrow).await;
    assert!(matches!(unknown, Err(ServiceError::Raft(RaftError::OutcomeUnknown))));
}

#[tokio::test]
async fn a_report_names_the_volumes_that_have_to_rotate() {
    let bench = Bench::ready().await;
    bench.escrow(luks2_key().as_bytes()).await;
    let (recovery, _) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    recovery.disclose(&permit, request(20), disclosure(), false).await.unwrap();
    let report = ReportCompliance {
        device: DEVICE,
        host_name: Text::default(),
        operating_system: Text::default(),
        manufacturer: Text::default(),
        model: Text::default(),
        users: Vec::new(),
        volumes: vec![VolumeCompliance {
            volume: VOLUME,
            kind: VolumeKind::OperatingSystem,
            mount_point: Text::default(),
            status: ComplianceStatus::Compliant,
            codes: Vec::new(),
            encryption: EncryptionState::Encrypted,
            protection_on: true,
            cipher: Text::default(),
            protector_types: Text::default(),
        }],
    };
    let permit = bench.permit(&agent(), Action::ReportCompliance { device: DEVICE }).unwrap();
    let reported = bench.compliance.report(&permit, request(21), report).await.unwrap();
    assert_eq!(reported.rotation_due, [VOLUME]);
}

#[tokio::test]
async fn a_search_finds_the_key_by_what_the_user_reads_off_the_screen() {
    let bench = Bench::ready().await;
    bench.escrow(luks2_key().as_bytes()).await;
    let (recovery, spy) = bench.recovery();
    let permit = bench.permit(&alice(), Action::FindKeys).unwrap();
    let query = FindQuery::Prefix(PROTECTOR.prefix());
    let found = recovery.find(&permit, request(20), query).await.unwrap();
    assert_eq!(found.keys.len(), 1);
    assert_eq!(found.keys[0].protector, PROTECTOR);
    assert_eq!(spy.opened.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn reading_a_device_proposes_nothing() {
    let bench = Bench::ready().await;
    bench.escrow(b"x").await;
    let before = bench.fake.proposed.lock().len();
    let permit = bench.permit(&alice(), Action::GetDevice).unwrap();
    let (device, read) = bench.admin.device(&permit, DEVICE, false).await.unwrap();
    assert_eq!(device.device.host_name.as_str(), "pc-1");
    assert!(read.age.is_zero() && read.applied_index > 0);
    assert_eq!(bench.fake.proposed.lock().len(), before);
    let absent = bench.admin.device(&permit, other_device(), false).await;
    assert!(matches!(absent, Err(ServiceError::NoSuchDevice)));
}

#[tokio::test]
async fn a_listing_is_recorded_once_and_shows_an_unbroken_chain() {
    let bench = Bench::ready().await;
    bench.escrow(b"x").await;
    let permit = bench.permit(&alice(), Action::ReadAudit).unwrap();
    let before = bench.fake.proposed.lock().len();
    let mut listing = bench.audit.list(&permit, Filter::default(), false).await.unwrap();
    let mut records = Vec::new();
    while let Some(page) = listing.next_page().await.unwrap() {
        records.extend(page);
    }
    assert_eq!(bench.fake.proposed.lock().len(), before + 1);
    assert!(matches!(bench.last_proposal(), CommandBody::AuditRead { .. }));
    let head = verify_chain(Default::default(), &records).unwrap();
    assert_eq!(head, listing.head.audit);
}

#[tokio::test]
async fn the_head_comes_signed_by_the_node_whether_a_quorum_answers_or_not() {
    let bench = Bench::ready().await;
    bench.escrow(b"x").await;
    let verifier = StatementVerifier::new(CLUSTER, bench.ca.authority());
    for stale in [false, true] {
        let permit = bench.permit_stale(&alice(), Action::ReadAudit).unwrap();
        let (head, checkpoint) = bench.audit.head(&permit, stale).await.unwrap();
        let SignedCheckpoint { cluster, facts, node, signature, signer_chain } =
            checkpoint.unwrap();
        assert_eq!((cluster, node, facts.head), (CLUSTER, NodeId::new(1), head.audit));
        assert!(facts.head.sequence > 0 && facts.index > 0);
        verifier.checkpoint(&facts, node, &signer_chain, &signature, now()).unwrap();
        *bench.fake.log.lock() = Log::NoLeader;
    }
    let empty = Bench::empty(true);
    let permit = bench.permit_stale(&alice(), Action::ReadAudit).unwrap();
    let (_, checkpoint) = empty.audit.head(&permit, true).await.unwrap();
    assert_eq!(checkpoint, None, "there is nothing to sign yet");
}

#[tokio::test]
async fn a_stale_listing_is_stamped_and_needs_nobody() {
    let bench = Bench::ready().await;
    bench.escrow(b"x").await;
    *bench.fake.log.lock() = Log::NoLeader;
    *bench.fake.age.lock() = std::time::Duration::from_secs(90);
    let before = bench.fake.proposed.lock().len();
    let permit = bench.permit_stale(&alice(), Action::ReadAudit).unwrap();
    let filter = Filter { action: Some(AuditAction::Escrow), ..Filter::default() };
    let mut listing = bench.audit.list(&permit, filter, true).await.unwrap();
    let page = listing.next_page().await.unwrap().unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(listing.head.read.age.as_secs(), 90);
    assert_eq!(bench.fake.proposed.lock().len(), before);
}

#[test]
fn every_filter_of_a_listing_has_to_match() {
    let record = crate::domain::AuditRecord {
        sequence: 1,
        time: crate::domain::Timestamp::from_millis(50),
        log_term: 1,
        log_index: 1,
        count: 1,
        actor: Some(operator("alice")),
        action: AuditAction::Disclose,
        outcome: crate::domain::AuditOutcome::Ok,
        request_id: None,
        device: Some(DEVICE),
        volume: None,
        protector: Some(PROTECTOR),
        version: Default::default(),
        reason: None,
        user: None,
        ticket: Text::default(),
        detail: Text::default(),
        previous_hash: [0; 32],
    };
    let all = Filter {
        first: 0,
        last: 0,
        actor: record.actor.clone(),
        action: Some(AuditAction::Disclose),
        device: Some(DEVICE),
        protector: Some(PROTECTOR),
        since: Some(crate::domain::Timestamp::from_millis(50)),
        until: Some(crate::domain::Timestamp::from_millis(51)),
    };
    assert!(all.matches(&record));
    for wrong in [
        Filter { actor: Some(operator("bob")), ..all.clone() },
        Filter { action: Some(AuditAction::Find), ..all.clone() },
        Filter { device: Some(other_device()), ..all.clone() },
        Filter { protector: Some(crate::domain::ProtectorId::from_bytes([4; 16])), ..all.clone() },
        Filter { since: all.until, ..all.clone() },
        Filter { until: all.since, ..all.clone() },
    ] {
        assert!(!wrong.matches(&record), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_refusal_by_the_state_machine_reaches_the_caller_as_such() {
    let bench = Bench::ready().await;
    let (recovery, spy) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let refused = recovery.disclose(&permit, request(20), disclosure(), false).await;
    assert!(matches!(refused, Err(ServiceError::Rejected(Rejection::UnknownKey))));
    assert_eq!(spy.opened.load(std::sync::atomic::Ordering::SeqCst), 0);
}
