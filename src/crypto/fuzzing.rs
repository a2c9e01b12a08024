//! What is sealed, wrapped and typed.

use bytes::Bytes;

use super::{
    Binding, CryptoError, EnrolmentToken, KEY_PLAINTEXT_BYTES, Part, PrivateKey, RootKey, Share,
    WrapPurpose, open, read_csr,
};
use crate::domain::{
    Actor, DeviceId, Epoch, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, Sealed, VolumeId,
    limits,
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

/// Reads a certificate request as it is, and what it says signed by a key that everybody knows: only whoever has the key of a
/// request gets past its signature. What is taken gives the key that it was signed with.
pub(crate) fn csr(bytes: &[u8]) -> bool {
    let as_it_is = read_csr(bytes, &uri());
    let Some((signed, key)) = signed_by_us(bytes) else { return as_it_is.is_ok() };
    let ours = read_csr(&signed, &uri());
    if let Ok(found) = &ours {
        assert_eq!(found, &key, "another key than the one that signed");
    }
    as_it_is.is_ok() || ours.is_ok()
}

fn uri() -> String {
    Actor::Agent(DeviceId::from_bytes([1; 16])).spiffe_uri(CLUSTER)
}

/// Begins an Ed25519 key in PKCS #8; its 32 bytes follow.
const PKCS8: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Ed25519 as an algorithm, and what begins a signature of it.
const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x41, 0];

/// The bytes as what a certificate request says (a DER value), with our signature, and our key.
fn signed_by_us(info: &[u8]) -> Option<(Vec<u8>, [u8; 32])> {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&[PKCS8, &[0x66; 32]].concat()).ok()?;
    let key = <[u8; 32]>::try_from(pair.public_key().as_ref()).ok()?;
    let body = [info, ED25519, pair.sign(info).as_ref()].concat();
    let [high, low] = u16::try_from(body.len()).ok()?.to_be_bytes();
    // A sequence, with its length in as few bytes as do.
    let header = match (high, low) {
        (0, ..0x80) => vec![0x30, low],
        (0, _) => vec![0x30, 0x81, low],
        _ => vec![0x30, 0x82, high, low],
    };
    Some(([header, body].concat(), key))
}

/// Reads an enrolment token. What is read is printed as one that is read as the same.
pub(crate) fn enrolment_token(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match text.parse::<EnrolmentToken>() {
        Ok(token) => {
            let again = token.expose_text().parse::<EnrolmentToken>();
            let again = again.map(|again| (again.id(), again.digest()));
            assert_eq!(again, Ok((token.id(), token.digest())));
            true
        }
        Err(error) => {
            assert_eq!(error.field, "token");
            false
        }
    }
}

/// Reads a share of the root key, and the bytes as what a share holds, with the checksum that belongs to them.
pub(crate) fn share(bytes: &[u8]) -> bool {
    let as_it_is = reads_share(bytes);
    reads_share(super::shares::with_checksum(bytes).as_bytes()) || as_it_is
}

/// What is read is printed as one that is read as the same. Alone, or given twice, it gives no key.
fn reads_share(text: &[u8]) -> bool {
    let Ok(share) = Share::parse(text) else { return false };
    let text = share.expose_text();
    let again = Share::parse(text.as_bytes());
    assert!(again.as_ref().is_ok_and(|again| again.label() == share.label()), "{share:?}");
    assert!(Share::combine(&[&share]).is_err(), "{share:?}");
    if let Ok(again) = &again {
        assert!(Share::combine(&[&share, again]).is_err(), "given twice it counts twice");
    }
    true
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
    seeds.extend(credential_seeds());
    seeds
}

#[cfg(test)]
fn credential_seeds() -> Vec<crate::fuzzing::Seed> {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SanType};
    use rustls_pki_types::PrivatePkcs8KeyDer;

    use super::testing::rng;

    let key = [PKCS8, &[0x66; 32]].concat();
    let key = PrivatePkcs8KeyDer::from(key.as_slice());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519).unwrap();
    let mut seeds = Vec::new();
    for (name, names) in [
        ("named", vec![SanType::URI(uri().as_str().try_into().unwrap())]),
        ("nameless", Vec::new()),
    ] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let request = params.serialize_request(&key).unwrap().der().to_vec();
        // What is signed is the first value in the sequence: for fuzzers that are to change it.
        let signed = request.len() - ED25519.len() - 64;
        let begin = match request[1] {
            0x81 => 3,
            0x82 => 4,
            _ => 2,
        };
        seeds.push(("csr", format!("{name}-info"), request[begin..signed].to_vec()));
        seeds.push(("csr", name.to_owned(), request));
    }
    let token = EnrolmentToken::generate(&mut rng());
    seeds.push(("enrolment_token", "token".to_owned(), token.expose_text().as_bytes().to_vec()));
    let root = RootKey::from_bytes([0x24; 32]);
    for (name, splitting) in [("share", (5, 3)), ("share-alone", (2, 2))] {
        let shares = Share::split(&root, CLUSTER, splitting, &mut rng()).unwrap();
        let text = shares[0].expose_text();
        seeds.push(("share", name.to_owned(), text.as_bytes().to_vec()));
        let digits = text.trim_start_matches(super::SHARE_PREFIX).replace('-', "");
        let mut content = hex::decode(digits).unwrap();
        content.truncate(content.len() - 5);
        seeds.push(("share", format!("{name}-content"), content));
        let typed = text.to_uppercase().replace("HOLDFAST-SHARE-V1:", "holdfast-share-v1:");
        let typed = typed.replace('-', " ").replace("holdfast share v1:", " holdfast-share-v1: ");
        seeds.push(("share", format!("{name}-typed"), typed.into_bytes()));
    }
    seeds
}
