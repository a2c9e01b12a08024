//! Unsealing by shares, and the seal of an operator.

use std::sync::Arc;

use super::harness::*;
use crate::auth::Action;
use crate::crypto::testing::CLUSTER;
use crate::crypto::{RootKey, Share, system_rng};
use crate::domain::{AuditAction, ClusterId, Role, Text};
use crate::raft::RaftError;
use crate::service::{
    Given, InitCluster, SHARES_KEPT, Sealing, ServiceError, SplitRootKey, refresh_sealing,
};
use crate::state::{Rejection, query};

/// A cluster whose root key is in five shares of which three open it, and its node after a restart.
struct Split {
    bench: Bench,
    root: Arc<RootKey>,
    texts: Vec<String>,
}

fn texts(root: &RootKey, cluster: ClusterId) -> Vec<String> {
    let shares = Share::split(root, cluster, (5, 3), &mut system_rng()).unwrap();
    shares.iter().map(|share| share.expose_text().to_string()).collect()
}

fn share(text: &str) -> Share {
    Share::parse(text.as_bytes()).unwrap()
}

fn init(bench: &Bench, root: &Arc<RootKey>, text: &str) -> InitCluster {
    let split = SplitRootKey { root: Arc::clone(root), set: share(text).label().set };
    InitCluster { split: Some(split), ..bench.init_request(1) }
}

impl Split {
    async fn made() -> Self {
        let bench = Bench::empty(false);
        let root = Arc::new(RootKey::generate(&mut system_rng()));
        let texts = texts(&root, CLUSTER);
        let permit = bench.permit_stale(&alice(), Action::InitCluster).unwrap();
        let init = init(&bench, &root, &texts[0]);
        bench.cluster.init(&permit, request(1), init).await.unwrap();
        for (n, role) in (100..).zip(Role::ALL) {
            bench.grant(n, "alice", role).await;
        }
        Self { bench, root, texts }
    }

    /// The same after a restart: nothing is left in memory.
    async fn restarted() -> Self {
        let mut split = Self::made().await;
        split.bench.restart();
        split
    }

    async fn give(&self, n: u8, number: usize) -> Result<Given, ServiceError> {
        self.give_text(n, &self.texts[number - 1]).await
    }

    async fn give_text(&self, n: u8, text: &str) -> Result<Given, ServiceError> {
        let permit = self.bench.permit(&alice(), Action::GiveShare).unwrap();
        self.bench.operator.give_share(&permit, request(n), share(text)).await
    }

    async fn seal(&self, n: u8) {
        let permit = self.bench.permit(&alice(), Action::SealCluster).unwrap();
        let reason = Text::name("reason", "incident").unwrap();
        self.bench.operator.seal(&permit, request(n), reason).await.unwrap();
    }

    fn last_action(&self) -> (AuditAction, String) {
        let view = crate::service::Consensus::view(self.bench.fake.as_ref());
        let head = crate::state::Heads::load(view).unwrap().audit.sequence;
        let record = query::audit_records(view, head, head, 1).unwrap().pop().unwrap();
        (record.action, record.detail.to_string())
    }
}

fn fault(result: Result<Given, ServiceError>) -> String {
    match result.unwrap_err() {
        ServiceError::Field(error) => {
            assert_eq!(error.field, "share");
            error.what.to_string()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_node_that_makes_a_cluster_with_shares_is_unsealed_and_says_what_it_takes() {
    let split = Split::made().await;
    assert_eq!(split.bench.sealing.sealed_because(), None);
    let permit = split.bench.permit_stale(&alice(), Action::GetSealStatus).unwrap();
    let status = split.bench.operator.status(&permit).unwrap();
    assert_eq!(status.shares, Some(share(&split.texts[0]).label().set));
    assert!(!status.reads_key_file && status.seal.is_none());
}

#[tokio::test]
async fn a_lost_answer_to_the_making_is_given_again_to_who_has_the_root_key_and_to_nobody_else() {
    let split = Split::made().await;
    let permit = split.bench.permit_stale(&alice(), Action::InitCluster).unwrap();
    let again = init(&split.bench, &split.root, &split.texts[0]);
    split.bench.cluster.init(&permit, request(1), again).await.unwrap();
    // What unseals a node that was restarted since is its shares, and nothing that leaves no record.
    let mut split = split;
    split.bench.restart();
    let again = init(&split.bench, &split.root, &split.texts[0]);
    split.bench.cluster.init(&permit, request(1), again).await.unwrap();
    assert!(split.bench.sealing.sealed_because().is_some());
    let other = Arc::new(RootKey::generate(&mut system_rng()));
    for init in [init(&split.bench, &other, &split.texts[0]), split.bench.init_request(1)] {
        let refused = split.bench.cluster.init(&permit, request(2), init).await;
        assert!(matches!(refused, Err(ServiceError::AlreadyInitialised)));
    }
}

#[tokio::test]
async fn a_node_with_a_root_key_file_takes_no_other_root_key() {
    let bench = Bench::empty(true);
    let root = Arc::new(RootKey::generate(&mut system_rng()));
    let permit = bench.permit_stale(&alice(), Action::InitCluster).unwrap();
    let init = init(&bench, &root, &texts(&root, CLUSTER)[0]);
    let refused = bench.cluster.init(&permit, request(1), init).await.unwrap_err();
    assert!(matches!(&refused, ServiceError::Field(error) if error.field == "root_key"));
    assert!(bench.fake.members.lock().is_none(), "nothing was made");
}

#[tokio::test]
async fn three_shares_of_five_unseal_a_node_after_its_record_is_committed() {
    let split = Split::restarted().await;
    split.bench.escrow(luks2_key().as_bytes()).await;
    let why = split.bench.sealing.sealed_because().unwrap();
    assert!(why.contains("3 of its 5 shares") && why.contains("operator unseal"), "{why}");
    assert_eq!(split.give(20, 4).await.unwrap().given, 1);
    let second = split.give(21, 1).await.unwrap();
    assert_eq!((second.given, second.threshold, second.unsealed), (2, 3, false));
    let done = split.give(22, 5).await.unwrap();
    assert!(done.unsealed && split.bench.sealing.sealed_because().is_none());
    let expected = (AuditAction::Unseal, "node 1 by shares 1, 4, 5".to_owned());
    assert_eq!(split.last_action(), expected);
    assert_eq!(split.bench.sealing.shares_given(), 0, "they are wiped");
    let (recovery, _) = split.bench.recovery();
    let permit = split.bench.permit(&alice(), Action::DiscloseKey).unwrap();
    recovery.disclose(&permit, request(30), disclosure(), false).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_share_is_named_and_those_before_it_stay() {
    let split = Split::restarted().await;
    split.give(20, 2).await.unwrap();
    let repeated = fault(split.give(21, 2).await);
    assert!(repeated.contains("share 2 was given already") && repeated.contains("1 of the 3"));
    let foreign = &texts(&split.root, ClusterId::from_bytes([9; 16]))[0];
    let foreign = fault(split.give_text(22, foreign).await);
    assert!(foreign.contains("share 1 is of cluster 09090909"), "{foreign}");
    let older = &texts(&split.root, CLUSTER)[2];
    let set = share(older).label().set.id();
    let older = fault(split.give_text(23, older).await);
    assert!(older.contains(&format!("share 3 is of set {set}")), "{older}");
    assert_eq!(split.bench.sealing.shares_given(), 1);
    assert_eq!(split.give(24, 1).await.unwrap().given, 2);
}

#[tokio::test]
async fn the_same_request_again_is_no_second_share() {
    let split = Split::restarted().await;
    assert_eq!(split.give(20, 2).await.unwrap().given, 1);
    assert_eq!(split.give(20, 2).await.unwrap().given, 1);
}

#[tokio::test]
async fn a_forged_share_is_found_out_and_nothing_is_recorded() {
    let split = Split::restarted().await;
    let mut forged = hex::decode(split.texts[2][18..].replace('-', "")).unwrap();
    forged[30] ^= 1;
    let forged = with_checksum(&forged);
    split.give(20, 1).await.unwrap();
    split.give(21, 2).await.unwrap();
    let before = split.bench.fake.proposed.lock().len();
    let why = fault(split.give_text(22, &forged).await);
    assert!(why.contains("forged"), "{why}");
    assert_eq!(split.bench.fake.proposed.lock().len(), before);
    assert_eq!(split.bench.sealing.shares_given(), 0);
    assert!(split.bench.sealing.sealed_because().is_some());
}

/// A share's text with a right checksum, as the format's page says.
fn with_checksum(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let content = &bytes[..59];
    let digest = sha2::Sha256::new_with_prefix(b"holdfast share v1\0").chain_update(content);
    let checksum = &digest.finalize()[..5];
    format!("holdfast-share-v1:{}{}", hex::encode(content), hex::encode(checksum))
}

#[tokio::test]
async fn without_a_quorum_nothing_is_unsealed_and_the_shares_are_not_lost() {
    let split = Split::restarted().await;
    split.give(20, 1).await.unwrap();
    split.give(21, 2).await.unwrap();
    for log in [Log::ReadsOnly, Log::NoLeader] {
        *split.bench.fake.log.lock() = log;
        let error = split.give(22, 3).await.unwrap_err();
        assert!(matches!(error, ServiceError::Raft(RaftError::NoLeader)), "{error}");
        assert!(split.bench.sealing.sealed_because().is_some(), "not before it is recorded");
        assert_eq!(split.bench.sealing.shares_given(), 3);
    }
    *split.bench.fake.log.lock() = Log::Commits;
    assert!(split.give(22, 3).await.unwrap().unsealed);
}

#[tokio::test(start_paused = true)]
async fn shares_are_forgotten_when_nobody_goes_on() {
    let split = Split::restarted().await;
    split.give(20, 1).await.unwrap();
    tokio::time::advance(SHARES_KEPT / 2).await;
    split.give(21, 2).await.unwrap();
    tokio::time::advance(SHARES_KEPT).await;
    assert_eq!(split.bench.sealing.shares_given(), 2);
    tokio::time::advance(std::time::Duration::from_millis(1)).await;
    refresh_sealing(&split.bench.context, &split.bench.sealing).unwrap();
    assert_eq!(split.bench.sealing.shares_given(), 0);
    assert_eq!(split.give(22, 3).await.unwrap().given, 1);
}

#[tokio::test]
async fn a_seal_makes_a_node_forget_its_keys_and_the_shares_that_it_was_given() {
    let split = Split::made().await;
    split.bench.escrow(luks2_key().as_bytes()).await;
    split.seal(20).await;
    let why = split.bench.sealing.sealed_because().unwrap();
    assert!(why.contains("an operator sealed the cluster"), "{why}");
    assert!(split.bench.sealing.root_key().is_err(), "the root key is forgotten");
    let sealing = Arc::clone(&split.bench.sealing);
    let context = Arc::clone(&split.bench.context);
    let recovery = crate::service::RecoveryService::new(context, sealing);
    let permit = split.bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let refused = recovery.disclose(&permit, request(21), disclosure(), false).await;
    assert!(matches!(refused, Err(ServiceError::Rejected(Rejection::Sealed))));
    split.give(22, 1).await.unwrap();
    split.give(23, 2).await.unwrap();
    split.seal(24).await;
    assert_eq!(split.bench.sealing.shares_given(), 0);
    for (n, number) in [(25, 1), (26, 2), (27, 3)] {
        split.give(n, number).await.unwrap();
    }
    assert_eq!(split.bench.sealing.sealed_because(), None);
    recovery.disclose(&permit, request(28), disclosure(), false).await.unwrap();
}

#[tokio::test]
async fn a_sealed_node_with_a_root_key_file_stays_sealed_over_restarts_until_an_operator_unseals() {
    let mut bench = Bench::ready().await;
    let permit = bench.permit(&alice(), Action::SealCluster).unwrap();
    let reason = Text::name("reason", "incident").unwrap();
    bench.operator.seal(&permit, request(20), reason).await.unwrap();
    bench.restart();
    refresh_sealing(&bench.context, &bench.sealing).unwrap();
    let why = bench.sealing.sealed_because().unwrap();
    assert!(why.contains("an operator sealed the cluster"), "{why}");
    // Nor is the file read for anything else.
    let before = bench.fake.proposed.lock().len();
    let permit = bench.permit(&alice(), Action::RotateEscrowKey).unwrap();
    let refused = bench.operator.rotate(&permit, crate::domain::Epoch::new(1)).await;
    assert!(matches!(refused, Err(ServiceError::Rejected(Rejection::Sealed))));
    let permit = bench.permit(&alice(), Action::RekeyRootKey).unwrap();
    let root = Arc::new(RootKey::generate(&mut system_rng()));
    let new = crate::service::NewRootKey { root, shares: None };
    let refused = bench.operator.rekey(&permit, new).await;
    assert!(matches!(refused, Err(ServiceError::Rejected(Rejection::Sealed))));
    assert_eq!(bench.fake.proposed.lock().len(), before);
    let permit = bench.permit(&alice(), Action::UnsealCluster).unwrap();
    assert!(bench.operator.unseal(&permit, request(21)).await.unwrap().changed);
    assert_eq!(bench.sealing.sealed_because(), None);
}

#[tokio::test]
async fn a_cluster_whose_root_key_is_in_a_file_takes_no_shares_and_says_so() {
    let bench = Bench::ready().await;
    let root = RootKey::generate(&mut system_rng());
    let permit = bench.permit(&alice(), Action::GiveShare).unwrap();
    let given = share(&texts(&root, CLUSTER)[0]);
    let why = fault(bench.operator.give_share(&permit, request(20), given).await);
    assert!(why.contains("not split") && why.contains("auto_unseal_key_file"), "{why}");
}

#[tokio::test]
async fn nobody_can_read_the_root_key_of_a_node_that_has_none() {
    let sealing = Sealing::new(CLUSTER, None, "/data".into());
    assert!(matches!(sealing.root_key(), Err(ServiceError::Sealed(_))));
}
