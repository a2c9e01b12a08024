use super::*;
use crate::crypto::testing::{CLUSTER, DEVICE, rng};

const PASSWORD: &[u8] = b"471207-278498-422125-177177-561902-537405-468006-693451";

fn binding() -> Binding {
    Binding {
        cluster: CLUSTER,
        device: DEVICE,
        volume: VolumeId::from_bytes([2; 16]),
        protector: ProtectorId::from_bytes([3; 16]),
        protector_kind: ProtectorKind::BitLockerRecoveryPassword,
        version: KeyVersion::new(4),
    }
}

fn pair() -> (PrivateKey, EscrowPublicKey) {
    let private_key = PrivateKey::generate(&mut rng());
    let key = private_key.public_key();
    (private_key, EscrowPublicKey { cluster: CLUSTER, epoch: Epoch::new(5), key })
}

fn sealed() -> (PrivateKey, Sealed) {
    let (private_key, public_key) = pair();
    let sealed = seal(&public_key, &binding(), Part::Key, PASSWORD, &mut rng()).unwrap();
    (private_key, sealed)
}

#[test]
fn a_published_hpke_vector_of_this_suite_opens() {
    // DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode, first message; from the RFC's published vectors
    // as AWS-LC carries them (crypto/hpke/hpke_test_vectors.txt).
    let hex = |text| hex::decode(text).unwrap();
    let key = hex("497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d");
    let private_key = PrivateKey::from_slice(&key).unwrap();
    assert_eq!(
        hex::encode(private_key.public_key()),
        "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c"
    );
    let encapsulated = hex("6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256");
    let ciphertext = hex(concat!(
        "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f51",
        "2be9931980a41de125a925cdad859d5b7a"
    ));
    let opened = decrypt(
        &private_key,
        &encapsulated.try_into().unwrap(),
        b"Ode on a Grecian Urn",
        b"Count-0",
        &ciphertext,
    )
    .unwrap();
    assert_eq!(opened.as_slice(), b"Beauty is truth, truth beauty");
}

#[test]
fn what_is_sealed_opens_and_no_two_seals_are_equal() {
    let (private_key, public_key) = pair();
    let mut rng = rng();
    let first = seal(&public_key, &binding(), Part::Key, PASSWORD, &mut rng).unwrap();
    let second = seal(&public_key, &binding(), Part::Key, PASSWORD, &mut rng).unwrap();
    assert_ne!(first.encapsulated_key, second.encapsulated_key);
    assert_ne!(first.ciphertext, second.ciphertext);
    for sealed in [first, second] {
        let opened = open(&private_key, &binding(), Part::Key, &sealed).unwrap();
        assert_eq!(opened.expose_secret(), PASSWORD);
    }
}

#[test]
fn a_sealed_key_with_any_associated_field_changed_does_not_open() {
    let (private_key, sealed) = sealed();
    let bound = binding();
    let others = [
        ("cluster", Binding { cluster: ClusterId::from_bytes([9; 16]), ..bound }),
        ("device", Binding { device: DeviceId::from_bytes([9; 16]), ..bound }),
        ("volume", Binding { volume: VolumeId::from_bytes([9; 16]), ..bound }),
        ("protector", Binding { protector: ProtectorId::from_bytes([9; 16]), ..bound }),
        ("kind", Binding { protector_kind: ProtectorKind::Luks2RecoveryKey, ..bound }),
        ("version", Binding { version: KeyVersion::new(5), ..bound }),
    ];
    for (field, other) in others {
        let opened = open(&private_key, &other, Part::Key, &sealed);
        assert!(matches!(opened, Err(CryptoError::DoesNotOpen)), "{field}");
    }
    let opened = open(&private_key, &bound, Part::Package, &sealed);
    assert!(matches!(opened, Err(CryptoError::DoesNotOpen)), "part");
    let epoch = Sealed { epoch: Epoch::new(6), ..sealed.clone() };
    let opened = open(&private_key, &bound, Part::Key, &epoch);
    assert!(matches!(opened, Err(CryptoError::DoesNotOpen)), "epoch");
    assert!(open(&private_key, &bound, Part::Key, &sealed).is_ok(), "unchanged it opens");
}

#[test]
fn changed_or_cut_bytes_and_another_private_key_do_not_open() {
    let (private_key, sealed) = sealed();
    for at in 0..sealed.ciphertext.len() {
        let mut bytes = sealed.ciphertext.to_vec();
        bytes[at] ^= 1;
        let changed = Sealed { ciphertext: bytes.into(), ..sealed.clone() };
        assert!(open(&private_key, &binding(), Part::Key, &changed).is_err(), "byte {at}");
    }
    for length in [0, 15, 16, sealed.ciphertext.len() - 1] {
        let cut = Sealed { ciphertext: sealed.ciphertext.slice(..length), ..sealed.clone() };
        assert!(open(&private_key, &binding(), Part::Key, &cut).is_err(), "{length} bytes");
    }
    let mut encapsulated = sealed.clone();
    encapsulated.encapsulated_key[0] ^= 1;
    assert!(open(&private_key, &binding(), Part::Key, &encapsulated).is_err());
    let zero = Sealed { encapsulated_key: [0; 32], ..sealed.clone() };
    assert!(open(&private_key, &binding(), Part::Key, &zero).is_err());
    let other = PrivateKey::from_slice(&[7; 32]).unwrap();
    assert!(open(&other, &binding(), Part::Key, &sealed).is_err());
}

#[test]
fn all_recovery_keys_have_the_same_sealed_length_and_fit_the_limit() {
    let (private_key, public_key) = pair();
    for length in [1, 55, 71, KEY_PLAINTEXT_BYTES] {
        let secret = vec![b'7'; length];
        let sealed = seal(&public_key, &binding(), Part::Key, &secret, &mut rng()).unwrap();
        assert_eq!(sealed.ciphertext.len(), KEY_PLAINTEXT_BYTES + TAG_BYTES);
        assert!(sealed.ciphertext.len() <= limits::SEALED_KEY_BYTES);
        let opened = open(&private_key, &binding(), Part::Key, &sealed).unwrap();
        assert_eq!(opened.expose_secret(), secret);
    }
}

#[test]
fn a_key_package_keeps_its_zero_bytes_and_fills_the_limit_exactly() {
    let (private_key, public_key) = pair();
    for package in [vec![0; 10], vec![0; 65_520]] {
        let sealed = seal(&public_key, &binding(), Part::Package, &package, &mut rng()).unwrap();
        assert!(sealed.ciphertext.len() <= limits::SEALED_PACKAGE_BYTES);
        let opened = open(&private_key, &binding(), Part::Package, &sealed).unwrap();
        assert_eq!(opened.expose_secret(), package);
    }
}

#[test]
fn what_cannot_be_opened_as_it_was_is_not_sealed() {
    let (_, public_key) = pair();
    let try_seal = |part, secret: &[u8]| seal(&public_key, &binding(), part, secret, &mut rng());
    for (part, length) in [(Part::Key, 0), (Part::Key, 129), (Part::Package, 0)] {
        let error = try_seal(part, &vec![b'1'; length]).unwrap_err();
        assert!(matches!(error, CryptoError::PlaintextLength { .. }), "{error}");
    }
    assert!(try_seal(Part::Package, &vec![1; 65_521]).is_err());
    assert!(matches!(try_seal(Part::Key, b"1\0"), Err(CryptoError::PlaintextEnd)));
}

#[test]
fn a_binding_of_another_cluster_and_a_useless_public_key_are_refused() {
    let (_, public_key) = pair();
    let foreign = Binding { cluster: ClusterId::from_bytes([9; 16]), ..binding() };
    let error = seal(&public_key, &foreign, Part::Key, PASSWORD, &mut rng()).unwrap_err();
    assert!(matches!(error, CryptoError::ForeignCluster));
    let small_order = EscrowPublicKey { key: [0; 32], ..public_key };
    let error = seal(&small_order, &binding(), Part::Key, PASSWORD, &mut rng()).unwrap_err();
    assert!(matches!(error, CryptoError::BadPublicKey));
}

#[test]
fn debug_of_a_private_key_prints_none_of_it() {
    assert_eq!(format!("{:?}", pair().0), "PrivateKey([redacted])");
}
