use super::*;
use crate::crypto::testing::{CLUSTER, DEVICE, Order, TestCa, now, rng};
use crate::crypto::{CertificateError, StatementVerifier, seal};

fn root() -> RootKey {
    RootKey::from_bytes([0x4b; 32])
}

fn parts(ca: &TestCa) -> KeyringParts {
    let signer = ca.make(&Order::escrow_signer()).material();
    let authority = ca.authority();
    KeyringParts::create(&root(), CLUSTER, &signer, &authority, now(), &mut rng()).unwrap()
}

fn binding() -> Binding {
    Binding {
        cluster: CLUSTER,
        device: DEVICE,
        volume: VolumeId::from_bytes([2; 16]),
        protector: ProtectorId::from_bytes([3; 16]),
        protector_kind: ProtectorKind::Luks2RecoveryKey,
        version: KeyVersion::new(1),
    }
}

#[test]
fn keys_of_every_epoch_open_and_clients_accept_every_epochs_key() {
    let ca = TestCa::new("node");
    let mut parts = parts(&ca);
    let verifier = StatementVerifier::new(CLUSTER, ca.authority());
    let mut sealed = Vec::new();
    for _ in 0..3 {
        let key = parts.current(CLUSTER).unwrap();
        let signature = &parts.epochs.last().unwrap().signature;
        verifier.escrow_key(&key, &parts.signer.chain, signature, now()).unwrap();
        sealed.push(seal(&key, &binding(), Part::Key, b"secret", &mut rng()).unwrap());
        parts.epochs.push(parts.next_epoch(&root(), CLUSTER, &mut rng()).unwrap());
    }
    let unlocked = UnlockedKeyring::unlock(&root(), CLUSTER, &parts, &mut rng()).unwrap();
    assert_eq!(unlocked.newest_epoch(), Some(Epoch::new(4)));
    for (sealed, epoch) in sealed.iter().zip(1..) {
        assert_eq!(sealed.epoch, Epoch::new(epoch));
        let opened = unlocked.open(&binding(), Part::Key, sealed).unwrap();
        assert_eq!(opened.expose_secret(), b"secret");
    }
    let unknown = Sealed { epoch: Epoch::new(5), ..sealed[0].clone() };
    let error = unlocked.open(&binding(), Part::Key, &unknown).unwrap_err();
    assert!(matches!(error, CryptoError::UnknownEpoch(epoch) if epoch.get() == 5));
}

#[test]
fn an_agent_ca_that_does_not_open_is_named_and_keeps_no_key_from_being_opened() {
    let mut parts = parts(&TestCa::new("node"));
    let key = parts.current(CLUSTER).unwrap();
    let sealed = seal(&key, &binding(), Part::Key, b"secret", &mut rng()).unwrap();
    let unlock = |parts: &KeyringParts| {
        UnlockedKeyring::unlock(&root(), CLUSTER, parts, &mut rng()).unwrap()
    };
    assert!(unlock(&parts).agent_ca().unwrap().is_none());
    let ca = AgentCaParts::create(&root(), CLUSTER, 1, now(), &mut rng()).unwrap();
    parts.agent_cas.push(ca.clone());
    assert_eq!(unlock(&parts).agent_ca().unwrap().unwrap().number(), 1);
    // In the place of another one.
    parts.agent_cas.push(AgentCaParts { number: 2, ..ca });
    let unlocked = unlock(&parts);
    assert!(matches!(unlocked.agent_ca(), Err(CryptoError::DamagedKeyring(_))));
    assert!(unlocked.open(&binding(), Part::Key, &sealed).is_ok());
}

#[test]
fn a_wrong_root_key_is_named_as_such_and_nothing_else() {
    let parts = parts(&TestCa::new("node"));
    let wrong = RootKey::from_bytes([0x4c; 32]);
    let error = UnlockedKeyring::unlock(&wrong, CLUSTER, &parts, &mut rng()).unwrap_err();
    assert!(matches!(error, CryptoError::WrongRootKey));
    let error = parts.next_epoch(&wrong, CLUSTER, &mut rng()).unwrap_err();
    assert!(matches!(error, CryptoError::WrongRootKey));
}

#[test]
fn a_public_key_that_does_not_belong_to_its_private_key_fails_the_self_test() {
    let mut parts = parts(&TestCa::new("node"));
    parts.epochs[0].public_key = PrivateKey::generate(&mut rng()).public_key();
    parts.epochs[0].public_key[3] ^= 1;
    let error = UnlockedKeyring::unlock(&root(), CLUSTER, &parts, &mut rng()).unwrap_err();
    assert!(matches!(error, CryptoError::SelfTest(epoch) if epoch.get() == 1), "{error}");
}

#[test]
fn a_damaged_or_gapped_keyring_does_not_unlock() {
    let good = parts(&TestCa::new("node"));
    let unlock = |parts: &KeyringParts| {
        UnlockedKeyring::unlock(&root(), CLUSTER, parts, &mut rng()).unwrap_err()
    };
    let mut damaged = good.clone();
    damaged.epochs[0].private_key = damaged.signer.private_key.clone();
    assert!(matches!(unlock(&damaged), CryptoError::DamagedKeyring(_)));
    let mut gapped = good.clone();
    gapped.epochs[0].epoch = Epoch::new(2);
    assert!(matches!(unlock(&gapped), CryptoError::BadEpochs));
    let empty = KeyringParts { epochs: Vec::new(), ..good };
    assert!(matches!(unlock(&empty), CryptoError::BadEpochs));
}

#[test]
fn only_the_clusters_own_escrow_signer_makes_a_keyring() {
    let ca = TestCa::new("node");
    let create = |made: &SigningMaterial| {
        KeyringParts::create(&root(), CLUSTER, made, &ca.authority(), now(), &mut rng())
            .unwrap_err()
    };
    let foreign = TestCa::new("node").make(&Order::escrow_signer()).material();
    let error = create(&foreign);
    assert!(matches!(error, CryptoError::Signer(CertificateError::ForeignCa("node"))), "{error}");
    let node = ca.make(&Order::node(1)).material();
    assert!(matches!(create(&node), CryptoError::Signer(CertificateError::WrongPurpose)));
    let expired = ca.make(&Order::escrow_signer().expired()).material();
    assert!(matches!(create(&expired), CryptoError::Signer(CertificateError::Expired)));
    let mut mixed = ca.make(&Order::escrow_signer()).material();
    mixed.private_key = ca.make(&Order::escrow_signer()).material().private_key;
    assert!(matches!(create(&mixed), CryptoError::KeyMismatch));
    let mut garbage = ca.make(&Order::escrow_signer()).material();
    garbage.private_key = Secret::new(b"garbage".to_vec());
    assert!(matches!(create(&garbage), CryptoError::BadPrivateKey));
}

#[test]
fn debug_of_key_material_prints_none_of_it() {
    let ca = TestCa::new("node");
    let parts = parts(&ca);
    let unlocked = UnlockedKeyring::unlock(&root(), CLUSTER, &parts, &mut rng()).unwrap();
    assert_eq!(format!("{unlocked:?}"), "UnlockedKeyring(1 epochs, [redacted])");
    let material = ca.make(&Order::escrow_signer()).material();
    assert_eq!(format!("{material:?}"), "SigningMaterial([redacted])");
}
