//! Another root key, in shares or in a file.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use super::harness::*;
use crate::auth::Action;
use crate::crypto::testing::CLUSTER;
use crate::crypto::{RootKey, Share, system_rng};
use crate::domain::Epoch;
use crate::service::{NewRootKey, ServiceError, refresh_sealing};

struct New {
    root: Arc<RootKey>,
    shares: Vec<Share>,
}

fn new_root() -> New {
    let root = Arc::new(RootKey::generate(&mut system_rng()));
    let shares = Share::split(&root, CLUSTER, (3, 2), &mut system_rng()).unwrap();
    New { root, shares }
}

async fn rekey(bench: &Bench, new: &New, split: bool) -> Result<bool, ServiceError> {
    let permit = bench.permit(&alice(), Action::RekeyRootKey).unwrap();
    let shares = split.then(|| new.shares[0].label().set);
    bench.operator.rekey(&permit, NewRootKey { root: Arc::clone(&new.root), shares }).await
}

async fn discloses(bench: &Bench, n: u8, key: &str) {
    let (recovery, _) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let opened = recovery.disclose(&permit, request(n), disclosure(), false).await.unwrap();
    assert_eq!(opened.recovery_key.expose_secret(), key.as_bytes());
}

#[tokio::test]
async fn a_new_root_key_opens_everything_and_the_old_one_nothing() {
    let mut bench = Bench::ready().await;
    let key = luks2_key();
    bench.escrow(key.as_bytes()).await;
    let new = new_root();
    assert!(rekey(&bench, &new, true).await.unwrap());
    discloses(&bench, 20, &key).await;
    // The file has the old one: after a restart it is worth nothing.
    bench.restart();
    let why = bench.sealing.sealed_because().unwrap();
    assert!(why.contains("2 of its 3 shares") && why.contains("root.key"), "{why}");
    let give = bench.permit(&alice(), Action::GiveShare).unwrap();
    let mut shares = new.shares.into_iter();
    for (n, unsealed) in [(21, false), (22, true)] {
        let share = shares.next().unwrap();
        let given = bench.operator.give_share(&give, request(n), share).await.unwrap();
        assert_eq!(given.unsealed, unsealed);
    }
    discloses(&bench, 23, &key).await;
    let permit = bench.permit(&alice(), Action::RotateEscrowKey).unwrap();
    let rotated = bench.operator.rotate(&permit, Epoch::new(1)).await.unwrap();
    assert!(rotated.changed, "the new root key makes epochs");
}

#[tokio::test]
async fn a_rekey_that_is_asked_for_again_changes_nothing() {
    let bench = Bench::ready().await;
    let new = new_root();
    assert!(rekey(&bench, &new, true).await.unwrap());
    assert!(!rekey(&bench, &new, true).await.unwrap());
}

#[tokio::test]
async fn a_node_that_has_the_old_root_key_goes_on_and_takes_the_new_shares_before_it_restarts() {
    let bench = Bench::ready().await;
    let key = luks2_key();
    bench.escrow(key.as_bytes()).await;
    let new = new_root();
    // Another node did it: this one keeps what it has opened.
    let keyring =
        crate::state::query::keyring(crate::service::Consensus::view(bench.fake.as_ref()));
    let keyring = keyring.unwrap().unwrap();
    let parts = crate::service::sealing::keyring_parts(&keyring);
    let anew = parts.rewrap(&bench.root_key(), &new.root, CLUSTER, &mut system_rng()).unwrap();
    let body = crate::state::CommandBody::Rekey(crate::state::Rekey {
        replaces: keyring.root_check,
        root_check: anew.root_check,
        signer: crate::state::Wrapped(anew.signer.private_key),
        epochs: anew.epochs.into_iter().map(|e| crate::state::Wrapped(e.private_key)).collect(),
        agent_cas: Vec::new(),
        shares: Some(new.shares[0].label().set),
    });
    let command = crate::state::Command {
        actor: alice().actor().clone(),
        certificate: None,
        roles: Default::default(),
        request_id: request(30),
        time: bench.context.now(),
        body,
    };
    use crate::service::Consensus as _;
    bench.fake.propose(command).await.unwrap().outcome.unwrap();
    refresh_sealing(&bench.context, &bench.sealing).unwrap();
    assert!(bench.sealing.trouble().unwrap().contains("2 of its 3 shares"));
    discloses(&bench, 20, &key).await;
    let permit = bench.permit(&alice(), Action::RotateEscrowKey).unwrap();
    let refused = bench.operator.rotate(&permit, Epoch::new(1)).await;
    assert!(matches!(refused, Err(ServiceError::Sealed(_))), "another server may do it");
    let give = bench.permit(&alice(), Action::GiveShare).unwrap();
    let mut shares = new.shares.into_iter();
    for n in [21, 22] {
        bench.operator.give_share(&give, request(n), shares.next().unwrap()).await.unwrap();
    }
    assert_eq!(bench.sealing.trouble(), None);
    assert!(bench.operator.rotate(&permit, Epoch::new(1)).await.unwrap().changed);
}

#[tokio::test]
async fn a_root_key_in_a_new_file_is_read_when_it_is_there() {
    let bench = Bench::ready().await;
    let new = new_root();
    assert!(rekey(&bench, &new, false).await.unwrap());
    let path = bench.dir.path().join("root.key");
    std::fs::remove_file(&path).unwrap();
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, new.root.expose_file_text().as_bytes()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    let mut bench = bench;
    bench.restart();
    assert_eq!(bench.sealing.sealed_because(), None);
}

#[tokio::test]
async fn a_node_without_the_old_root_key_changes_nothing() {
    let mut bench = Bench::ready().await;
    std::fs::remove_file(bench.dir.path().join("root.key")).unwrap();
    bench.restart();
    let before = bench.fake.proposed.lock().len();
    assert!(matches!(rekey(&bench, &new_root(), true).await, Err(ServiceError::Sealed(_))));
    assert_eq!(bench.fake.proposed.lock().len(), before);
}
