//! A key is opened only after its disclosure is committed, and applied here.

use std::sync::atomic::Ordering;

use super::harness::*;
use crate::auth::Action;
use crate::crypto::testing::{CLUSTER, operator, rng};
use crate::crypto::{RootKey, UnlockedKeyring};
use crate::domain::{DisclosurePolicy, Role};
use crate::raft::RaftError;
use crate::service::{
    Change, Disclosure, DisclosureService, RecoveryService, Sealing, ServiceError, refresh_sealing,
};
use crate::state::{
    CommandBody, DecideApproval, Disclose, Rejection, RequestApproval, SetDisclosurePolicy, query,
};

fn text(disclosure: &Disclosure) -> &str {
    std::str::from_utf8(disclosure.recovery_key.expose_secret()).unwrap()
}

fn why<T>(result: Result<T, ServiceError>) -> ServiceError {
    result.map(drop).unwrap_err()
}

#[tokio::test]
async fn a_disclosed_key_is_the_one_that_was_sealed() {
    let bench = Bench::ready().await;
    let key = luks2_key();
    bench.escrow(key.as_bytes()).await;
    let (recovery, spy) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let disclosed = recovery.disclose(&permit, request(20), disclosure(), true).await.unwrap();
    assert_eq!(text(&disclosed), key);
    assert_eq!(disclosed.package.as_ref().unwrap().expose_secret(), b"package");
    assert!(!disclosed.malformed && !disclosed.repeated);
    assert_eq!(spy.opened.load(Ordering::SeqCst), 2);
    assert_eq!(bench.context.counters().disclosures(), 1);
    let again = recovery.disclose(&permit, request(20), disclosure(), false).await.unwrap();
    assert!(again.repeated && again.package.is_none());
    assert_eq!(text(&again), key);
}

#[tokio::test]
async fn what_is_above_a_quota_or_not_approved_is_not_opened_and_counted_by_why() {
    let bench = Bench::ready().await;
    bench.escrow(luks2_key().as_bytes()).await;
    bench.grant(120, "bob", Role::AdvancedHelpDesk).await;
    let service = DisclosureService::new(std::sync::Arc::clone(&bench.context));
    let mut parts = DisclosurePolicy::default().parts();
    parts.requester_hour = 1;
    let policy = DisclosurePolicy::new(parts).unwrap();
    let permit = bench.permit(&alice(), Action::SetDisclosurePolicy).unwrap();
    let set = SetDisclosurePolicy { revision: 0, policy };
    assert!(service.set_policy(&permit, request(30), set).await.unwrap().changed);

    let (recovery, spy) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    recovery.disclose(&permit, request(31), disclosure(), false).await.unwrap();
    let over = why(recovery.disclose(&permit, request(32), disclosure(), false).await);
    assert!(matches!(over, ServiceError::Rejected(Rejection::QuotaExceeded { .. })), "{over}");

    let Disclose { protector, version, reason, user, ticket, .. } = disclosure();
    let wanted = RequestApproval { protector, version, reason, user, ticket };
    let asking = bench.permit(&alice(), Action::RequestApproval).unwrap();
    let asked = service.request(&asking, request(33), wanted).await.unwrap();
    let by_it = Disclose { approval: Some(asked.id), ..disclosure() };
    let pending = why(recovery.disclose(&permit, request(34), by_it.clone(), false).await);
    assert!(matches!(pending, ServiceError::Rejected(Rejection::ApprovalUnusable(_))), "{pending}");
    assert_eq!(spy.opened.load(Ordering::SeqCst), 1);

    let bob = bench.permit(&caller(operator("bob")), Action::DecideApproval).unwrap();
    let reason = crate::domain::Text::default();
    let decide = DecideApproval { approval: asked.id, approve: true, reason };
    assert!(service.decide(&bob, request(35), decide).await.unwrap().0.is_some());
    recovery.disclose(&permit, request(36), by_it, false).await.unwrap();
    let counters = bench.context.counters();
    let counted = (counters.over_quota(), counters.unapproved(), counters.by_approval());
    assert_eq!((counted, counters.disclosures()), ((1, 1, 1), 2));
    assert_eq!(spy.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_does_not_commit_is_never_opened() {
    let bench = Bench::ready().await;
    bench.escrow(luks2_key().as_bytes()).await;
    let (recovery, spy) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    for log in [Log::NoLeader, Log::Stalls, Log::CommitsElsewhere] {
        *bench.fake.log.lock() = log;
        let error = why(recovery.disclose(&permit, request(20), disclosure(), true).await);
        let expected = match log {
            Log::NoLeader => RaftError::NoLeader,
            _ => RaftError::OutcomeUnknown,
        };
        assert!(matches!(&error, ServiceError::Raft(found) if *found == expected), "{log:?}");
    }
    assert_eq!(spy.opened.load(Ordering::SeqCst), 0);
    assert_eq!(bench.context.counters().disclosures(), 0);
}

#[tokio::test]
async fn a_sealed_node_refuses_before_it_proposes_anything() {
    let bench = Bench::ready().await;
    bench.escrow(luks2_key().as_bytes()).await;
    let sealing = std::sync::Arc::new(Sealing::new(CLUSTER, None, "/data".into()));
    let recovery = RecoveryService::new(std::sync::Arc::clone(&bench.context), sealing);
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let before = bench.fake.proposed.lock().len();
    let error = why(recovery.disclose(&permit, request(20), disclosure(), false).await);
    assert!(matches!(error, ServiceError::Sealed(_)));
    assert_eq!(bench.fake.proposed.lock().len(), before);
}

#[tokio::test]
async fn a_text_that_is_no_key_of_its_kind_is_given_out_with_a_flag() {
    for (sealed, shown) in
        [(b"123-not-a-key".as_slice(), "123-not-a-key"), (&[0xff, 0xfe, 0x01], "hex:fffe01")]
    {
        let bench = Bench::ready().await;
        bench.escrow(sealed).await;
        let (recovery, _) = bench.recovery();
        let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
        let disclosed = recovery.disclose(&permit, request(20), disclosure(), false).await.unwrap();
        assert!(disclosed.malformed);
        assert_eq!(text(&disclosed), shown);
    }
}

#[tokio::test]
async fn a_key_that_was_sealed_to_another_cluster_is_an_integrity_failure() {
    let bench = Bench::ready().await;
    bench.escrow(b"x").await;
    // Another keyring, with an epoch of the same number.
    let other = Bench::ready().await;
    let keyring = query::keyring(crate::service::Consensus::view(other.fake.as_ref())).unwrap();
    let parts = crate::service::sealing::keyring_parts(&keyring.unwrap());
    let root = RootKey::generate(&mut rng());
    let opener = UnlockedKeyring::unlock(&root, CLUSTER, &parts, &mut rng()).unwrap();
    let sealing = Sealing::with_opener(CLUSTER, std::sync::Arc::new(opener));
    let context = std::sync::Arc::clone(&bench.context);
    let recovery = RecoveryService::new(context, std::sync::Arc::new(sealing));
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let error = why(recovery.disclose(&permit, request(20), disclosure(), false).await);
    assert!(matches!(error, ServiceError::Integrity(_)), "{error}");
    assert!(matches!(bench.last_proposal(), CommandBody::Disclose(_)));
}

#[tokio::test]
async fn a_node_unseals_when_the_keyring_appears_and_says_why_if_it_can_not() {
    let bench = Bench::ready().await;
    assert_eq!(bench.sealing.sealed_because(), None);
    let wrong = bench.dir.path().join("wrong.key");
    {
        use std::io::Write as _;
        use std::os::unix::fs::PermissionsExt as _;
        let mut file = std::fs::File::create(&wrong).unwrap();
        let text = RootKey::from_bytes([1; 32]).expose_file_text();
        file.write_all(text.as_bytes()).unwrap();
        std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o400)).unwrap();
    }
    let sealing = Sealing::new(CLUSTER, Some(wrong), bench.dir.path().join("data"));
    let Change::Sealed(why) = refresh_sealing(&bench.context, &sealing).unwrap() else {
        panic!("a wrong root key unseals nothing");
    };
    assert!(why.contains("wrong.key") && why.contains("not the one"), "{why}");
    assert_eq!(refresh_sealing(&bench.context, &sealing).unwrap(), Change::None);
    assert_eq!(sealing.sealed_because(), Some(why));
}
