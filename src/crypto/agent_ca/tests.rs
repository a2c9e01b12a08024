use super::*;
use crate::crypto::testing::{CLUSTER, DEVICE, now, rng};
use crate::crypto::{Authority, DeviceKey, Purpose};

fn root() -> RootKey {
    RootKey::from_bytes([0x4b; 32])
}

fn made(at: Timestamp) -> AgentCaParts {
    AgentCaParts::create(&root(), CLUSTER, 1, at, &mut rng()).unwrap()
}

fn authority(parts: &AgentCaParts) -> Authority {
    Authority::from_der("agent", vec![parts.certificate.to_vec().into()]).unwrap()
}

fn later(days: u64) -> Timestamp {
    Timestamp::from_millis(now().as_millis() + days * DAY_MS)
}

#[test]
fn a_signed_certificate_proves_the_device_for_90_days() {
    let parts = made(now());
    let ca = AgentCaSigner::unlock(&root(), CLUSTER, &parts).unwrap();
    let key = DeviceKey::generate(&mut rng()).unwrap();
    let signed = ca.sign(DEVICE, key.public_key(), now(), &mut rng()).unwrap();
    let verify = |at| authority(&parts).verify(&[&signed.der], Purpose::Client, at);
    let leaf = verify(now()).unwrap();
    assert_eq!(leaf, signed.leaf);
    assert_eq!(leaf.uri, Actor::Agent(DEVICE).spiffe_uri(CLUSTER));
    assert_eq!(&leaf.public_key, key.public_key());
    assert!(verify(later(89)).is_ok());
    assert!(verify(later(91)).is_err());
    assert!(authority(&parts).verify(&[&signed.der], Purpose::Server, now()).is_err());
    let other = ca.sign(DEVICE, key.public_key(), now(), &mut crate::crypto::system_rng());
    assert_ne!(other.unwrap().leaf.serial, leaf.serial);
}

#[test]
fn no_certificate_outlives_its_ca_and_a_ca_that_has_ended_signs_nothing() {
    let parts = made(now());
    let ca = AgentCaSigner::unlock(&root(), CLUSTER, &parts).unwrap();
    let key = DeviceKey::generate(&mut rng()).unwrap();
    let last = ca.sign(DEVICE, key.public_key(), later(3653 - 10), &mut rng()).unwrap();
    let end = crate::crypto::not_after(&parts.certificate).unwrap();
    assert_eq!(last.leaf.not_after, end);
    let refused = ca.sign(DEVICE, key.public_key(), later(3654), &mut rng()).unwrap_err();
    assert!(matches!(refused, CryptoError::AgentCaExpired(1)));
}

#[test]
fn a_ca_opens_by_its_own_root_key_in_its_own_place_only() {
    let parts = made(now());
    let damaged = |root: &RootKey, cluster, parts: &AgentCaParts| {
        let error = AgentCaSigner::unlock(root, cluster, parts).unwrap_err();
        assert!(matches!(error, CryptoError::DamagedKeyring(_)), "{error}");
    };
    damaged(&RootKey::from_bytes([1; 32]), CLUSTER, &parts);
    damaged(&root(), ClusterId::from_bytes([1; 16]), &parts);
    damaged(&root(), CLUSTER, &AgentCaParts { number: 2, ..parts.clone() });
    // The key of one with the certificate of another.
    let mut crossed =
        AgentCaParts::create(&root(), CLUSTER, 1, now(), &mut crate::crypto::system_rng()).unwrap();
    crossed.certificate.clone_from(&parts.certificate);
    damaged(&root(), CLUSTER, &crossed);
    let shown = format!("{:?}", AgentCaSigner::unlock(&root(), CLUSTER, &parts).unwrap());
    assert_eq!(shown, "AgentCaSigner(1, [redacted])");
}
