//! What is sealed, wrapped and typed.

use bytes::Bytes;

use super::{
    Binding, CryptoError, KEY_PLAINTEXT_BYTES, Part, PrivateKey, RootKey, WrapPurpose, open,
};
use crate::domain::{
    DeviceId, Epoch, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, Sealed, VolumeId, limits,
};
use crate::fuzzing::CLUSTER;

/// The private key of the epoch; everybody knows it.
const PRIVATE_KEY: [u8; 32] = [0x42; 32];
const KINDS: [ProtectorKind; 2] =
    [ProtectorKind::BitLockerRecoveryPassword, ProtectorKind::Luks2RecoveryKey];

const fn binding() -> Binding {
    Binding {
        cluster: CLUSTER,
        device: DeviceId::from_bytes([1; 16]),
        volume: VolumeId::from_bytes([2; 16]),
        protector: ProtectorId::from_bytes([3; 16]),
        protector_kind: ProtectorKind::BitLockerRecoveryPassword,
        version: KeyVersion::new(1),
    }
}

/// Opens a sealed key: the encapsulated key and the ciphertext behind it. What opens is read as a recovery key, as a disclosure
/// does. What is changed does not open.
pub(crate) fn sealed_key(bytes: &[u8]) -> bool {
    let (encapsulated, ciphertext) = bytes.split_at_checked(32).unwrap_or((bytes, &[]));
    let sealed = Sealed::new(
        "sealed_key",
        Epoch::new(1),
        encapsulated,
        Bytes::copy_from_slice(ciphertext),
        limits::SEALED_PACKAGE_BYTES,
    );
    let (Ok(sealed), Ok(key)) = (sealed, PrivateKey::from_slice(&PRIVATE_KEY)) else {
        return false;
    };
    let opened = [Part::Key, Part::Package].map(|part| open(&key, &binding(), part, &sealed));
    let moved = Binding { version: KeyVersion::new(2), ..binding() };
    let moved = open(&key, &moved, Part::Key, &sealed);
    assert!(matches!(moved, Err(CryptoError::DoesNotOpen)), "another version's key opens");
    let ([Ok(secret), _] | [_, Ok(secret)]) = &opened else { return false };
    // Only a seed does, or what says the same: nobody forges a tag.
    assert!(secret.expose_secret().len() <= KEY_PLAINTEXT_BYTES.max(ciphertext.len()));
    if let Ok(text) = std::str::from_utf8(secret.expose_secret()) {
        typed(text);
    }
    true
}

/// Unwraps a private key with the root key, for each purpose.
pub(crate) fn wrapped_key(bytes: &[u8]) -> bool {
    let root = RootKey::from_bytes([0x24; 32]);
    let purposes = [WrapPurpose::Signer, WrapPurpose::Epoch(Epoch::new(1))];
    let unwrapped = purposes.map(|purpose| root.unwrap(purpose, CLUSTER, bytes));
    assert!(unwrapped.iter().all(Result::is_ok), "the library refuses");
    let opened = unwrapped.into_iter().flatten().flatten();
    let keys: Vec<_> =
        opened.map(|secret| PrivateKey::from_slice(secret.expose_secret())).collect();
    assert!(keys.len() <= 1, "one purpose's key opens for the other");
    !keys.is_empty()
}

/// Reads a recovery key of either kind, strictly and as people type it. What is read has one canonical form.
pub(crate) fn recovery_key(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(typed)
}

fn typed(text: &str) -> bool {
    let read = KINDS.map(|kind| {
        let strict = RecoveryKey::parse(kind, text);
        let lenient = RecoveryKey::parse_lenient(kind, text);
        if let Ok(strict) = &strict {
            assert!(lenient.as_ref() == Ok(strict), "read leniently it is another key");
        }
        lenient.is_ok_and(|key| {
            assert!(RecoveryKey::parse(kind, key.expose_secret()).as_ref() == Ok(&key));
            assert_eq!(
                key.bitlocker_key().is_some(),
                kind == ProtectorKind::BitLockerRecoveryPassword
            );
            true
        })
    });
    read.contains(&true)
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    use super::{EscrowPublicKey, seal, testing::rng};

    const TEXT: &str = "471207-278498-422125-177177-561902-537405-468006-693451";
    const LUKS2: &str = "hbrclucn-fjvbnnkt-ihrlfjed-kvjdinel-dgbfcjer-lgkbfnev-kntkhrhl-ddjvjhrg";
    let key = PrivateKey::from_slice(&PRIVATE_KEY).unwrap();
    let public = EscrowPublicKey { cluster: CLUSTER, epoch: Epoch::new(1), key: key.public_key() };
    let mut seeds = Vec::new();
    let secrets = [
        ("key", Part::Key, TEXT.as_bytes()),
        ("no-key", Part::Key, b"no recovery key"),
        ("package", Part::Package, &[7; 200]),
    ];
    for (name, part, secret) in secrets {
        let sealed = seal(&public, &binding(), part, secret, &mut rng()).unwrap();
        let bytes = [&sealed.encapsulated_key[..], &sealed.ciphertext].concat();
        seeds.push(("sealed_key", name.to_owned(), bytes));
    }
    let root = RootKey::from_bytes([0x24; 32]);
    for (name, purpose) in
        [("signer", WrapPurpose::Signer), ("epoch", WrapPurpose::Epoch(Epoch::new(1)))]
    {
        let wrapped = root.wrap(purpose, CLUSTER, &PRIVATE_KEY, &mut rng()).unwrap();
        seeds.push(("wrapped_key", name.to_owned(), wrapped.to_vec()));
    }
    let typed = format!("  {}\n", TEXT.replace('-', " \u{2013} "));
    for (name, text) in [
        ("bitlocker", TEXT),
        ("bitlocker-typed", &typed),
        ("luks2", LUKS2),
        ("luks2-typed", &LUKS2.replace('-', "").to_uppercase()),
    ] {
        seeds.push(("recovery_key", name.to_owned(), text.as_bytes().to_vec()));
    }
    seeds
}
