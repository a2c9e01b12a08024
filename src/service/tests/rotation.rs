//! New epochs, keys that are sealed anew, and the test of stored keys.

use super::harness::*;
use crate::auth::Action;
use crate::crypto::Part;
use crate::domain::{Epoch, KeyVersion, ProtectorId, VolumeId};
use crate::service::{Consensus as _, ResealStep, Rotated, Sealing, ServiceError};
use crate::state::{CommandBody, Rejection, query};

const ONE: Epoch = Epoch::new(1);
const TWO: Epoch = Epoch::new(2);

async fn rotate(bench: &Bench, current: Epoch) -> Result<Rotated, ServiceError> {
    let permit = bench.permit(&alice(), Action::RotateEscrowKey).unwrap();
    bench.operator.rotate(&permit, current).await
}

async fn reseal(bench: &Bench) -> ResealStep {
    let permit = bench.permit(&alice(), Action::ResealKeys).unwrap();
    bench.operator.reseal(&permit, None).await.unwrap()
}

fn epoch_given_out(bench: &Bench) -> Epoch {
    let permit = bench.permit_stale(&agent(), Action::GetEscrowKey).unwrap();
    bench.escrow.escrow_key(&permit).unwrap().key.epoch
}

/// Escrows more keys: versions of one volume.
async fn escrow_more(bench: &Bench, keys: u8) {
    let permit = bench.permit_stale(&agent(), Action::GetEscrowKey).unwrap();
    let key = bench.escrow.escrow_key(&permit).unwrap().key;
    for n in 1..=keys {
        let mut escrow = bench.sealed(b"x");
        escrow.volume = VolumeId::from_bytes([0x77; 16]);
        escrow.protector = ProtectorId::from_bytes([n + 100; 16]);
        escrow.expected_version = KeyVersion::new(u32::from(n) - 1);
        let binding = crate::crypto::Binding {
            cluster: key.cluster,
            device: escrow.device,
            volume: escrow.volume,
            protector: escrow.protector,
            protector_kind: escrow.protector_kind,
            version: KeyVersion::new(n.into()),
        };
        let (text, mut rng) = (format!("key {n}"), crate::crypto::testing::rng());
        let sealed = crate::crypto::seal(&key, &binding, Part::Key, text.as_bytes(), &mut rng);
        escrow.key = sealed.unwrap();
        escrow.package = None;
        let permit = bench.permit(&agent(), Action::Escrow { device: escrow.device }).unwrap();
        bench.escrow.escrow(&permit, request(120 + n), escrow).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_epoch_is_given_out_and_what_was_sealed_before_opens_still() {
    let bench = Bench::ready().await;
    let key = luks2_key();
    bench.escrow(key.as_bytes()).await;
    assert_eq!(rotate(&bench, ONE).await.unwrap(), Rotated { epoch: TWO, changed: true });
    assert_eq!(epoch_given_out(&bench), TWO);
    let (recovery, _) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let opened = recovery.disclose(&permit, request(20), disclosure(), false).await.unwrap();
    assert_eq!(opened.recovery_key.expose_secret(), key.as_bytes());
}

#[tokio::test]
async fn a_rotation_that_is_asked_for_again_makes_no_other_epoch() {
    let bench = Bench::ready().await;
    rotate(&bench, ONE).await.unwrap();
    let again = rotate(&bench, ONE).await.unwrap();
    assert_eq!(again, Rotated { epoch: TWO, changed: false });
    let refused = rotate(&bench, Epoch::new(5)).await;
    assert!(matches!(refused, Err(ServiceError::Rejected(Rejection::KeyringChanged))));
}

#[tokio::test]
async fn a_sealed_node_makes_no_epoch_and_reseals_nothing() {
    let mut bench = Bench::ready().await;
    std::fs::remove_file(bench.dir.path().join("root.key")).unwrap();
    bench.restart();
    assert!(matches!(rotate(&bench, ONE).await, Err(ServiceError::Sealed(_))));
    let permit = bench.permit(&alice(), Action::ResealKeys).unwrap();
    let refused = bench.operator.reseal(&permit, None).await;
    assert!(matches!(refused, Err(ServiceError::Sealed(_))));
}

#[tokio::test]
async fn an_unsealed_node_gives_out_no_epoch_that_it_can_not_open() {
    let bench = Bench::ready().await;
    // An epoch whose private key is damaged, as a faulty node could have stored it.
    let keyring = query::keyring(bench.fake.view()).unwrap().unwrap();
    let mut epoch = keyring.epochs[0].clone();
    epoch.epoch = TWO;
    let rotate = crate::state::Rotate { root_check: keyring.root_check, epoch };
    let command = crate::state::Command {
        actor: alice().actor().clone(),
        certificate: None,
        roles: Default::default(),
        request_id: request(30),
        time: bench.context.now(),
        body: CommandBody::Rotate(rotate),
    };
    bench.fake.propose(command).await.unwrap().outcome.unwrap();
    assert_eq!(query::keyring(bench.fake.view()).unwrap().unwrap().epochs.len(), 2);
    crate::service::refresh_sealing(&bench.context, &bench.sealing).unwrap();
    assert_eq!(epoch_given_out(&bench), ONE);
    assert_eq!(bench.sealing.newest_opened(), Some(ONE), "it goes on with what it had");
}

#[tokio::test]
async fn all_keys_are_sealed_to_the_newest_epoch_in_bounded_steps_and_open_as_before() {
    let bench = Bench::ready().await;
    let key = luks2_key();
    bench.escrow(key.as_bytes()).await;
    escrow_more(&bench, 100).await;
    rotate(&bench, ONE).await.unwrap();
    let permit = bench.permit(&alice(), Action::ResealKeys).unwrap();
    let (mut after, mut resealed, mut steps) = (None, 0, 0);
    loop {
        let step = bench.operator.reseal(&permit, after).await.unwrap();
        assert!(step.resealed <= 64 && step.failed == 0 && step.changed_meanwhile == 0);
        (resealed, steps) = (resealed + step.resealed, steps + 1);
        after = step.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((resealed, steps), (101, 2));
    for stored in query::sealed_keys(bench.fake.view(), None, 999).unwrap() {
        assert_eq!(stored.sealed.epoch, TWO);
        assert!(stored.package.is_none_or(|package| package.epoch == TWO));
    }
    let (recovery, _) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let opened = recovery.disclose(&permit, request(20), disclosure(), true).await.unwrap();
    assert_eq!(opened.recovery_key.expose_secret(), key.as_bytes());
    assert_eq!(opened.package.unwrap().expose_secret(), b"package");
    assert_eq!(reseal(&bench).await.resealed, 0, "there is nothing left");
}

#[tokio::test]
async fn a_key_that_does_not_open_stays_as_it_is_and_is_counted() {
    let bench = Bench::ready().await;
    let mut damaged = bench.sealed(b"x");
    let mut ciphertext = damaged.key.ciphertext.to_vec();
    ciphertext[0] ^= 1;
    damaged.key.ciphertext = ciphertext.into();
    let permit = bench.permit(&agent(), Action::Escrow { device: damaged.device }).unwrap();
    bench.escrow.escrow(&permit, request(10), damaged.clone()).await.unwrap();
    rotate(&bench, ONE).await.unwrap();
    let step = reseal(&bench).await;
    assert_eq!((step.looked_at, step.resealed, step.failed), (1, 0, 1));
    let stored = query::sealed_keys(bench.fake.view(), None, 9).unwrap();
    assert_eq!(stored[0].sealed, damaged.key);
    let test = bench.context.self_test(&bench.sealing).await.unwrap().unwrap();
    assert_eq!(test.failed, [PROTECTOR.prefix().to_string()]);
    assert!(test.escrow_key_opens && !test.passed());
    assert!(bench.context.counters().self_test_failed());
}

#[tokio::test]
async fn stored_keys_are_tested_while_unsealed_and_not_while_sealed() {
    let bench = Bench::ready().await;
    bench.escrow(luks2_key().as_bytes()).await;
    let test = bench.context.self_test(&bench.sealing).await.unwrap().unwrap();
    assert!(test.passed() && test.tested == 1, "{test:?}");
    assert_eq!(bench.context.counters().self_tested_keys(), 1);
    let sealed = Sealing::new(bench.context.cluster(), None, "/data".into());
    assert_eq!(bench.context.self_test(&sealed).await.unwrap(), None);
}
