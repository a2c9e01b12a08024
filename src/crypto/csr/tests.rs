use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
};

use super::*;
use crate::crypto::testing::{CLUSTER, DEVICE};
use crate::domain::{Actor, DeviceId};
use crate::testing::survives;

fn uri() -> String {
    Actor::Agent(DEVICE).spiffe_uri(CLUSTER)
}

fn san(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// A request with what the change makes of it, and the key that signed it.
fn request(change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    change(&mut params);
    (params.serialize_request(&key).unwrap().der().to_vec(), key)
}

#[test]
fn a_request_for_the_devices_own_name_or_for_none_gives_its_key() {
    let (named, key) = request(|params| params.subject_alt_names = vec![san(&uri())]);
    assert_eq!(read_csr(&named, &uri()).unwrap().as_slice(), key.public_key_raw());
    // Whatever it calls itself besides is not looked at.
    let (nameless, key) = request(|params| {
        params.distinguished_name.push(DnType::CommonName, "operator/root");
    });
    assert_eq!(read_csr(&nameless, &uri()).unwrap().as_slice(), key.public_key_raw());
}

#[test]
fn any_other_name_is_refused() {
    let other = Actor::Agent(DeviceId::from_bytes([9; 16])).spiffe_uri(CLUSTER);
    let operator = Actor::Operator("root".parse().unwrap()).spiffe_uri(CLUSTER);
    let dns = SanType::DnsName("localhost".try_into().unwrap());
    for names in [
        vec![san(&other)],
        vec![san(&operator)],
        vec![san(&uri()), san(&operator)],
        vec![san(&uri()), san(&uri())],
        vec![san(&uri()), dns.clone()],
        vec![dns],
        vec![SanType::IpAddress([127, 0, 0, 1].into())],
        vec![SanType::Rfc822Name("root@example.org".try_into().unwrap())],
    ] {
        let (der, _) = request(|params| params.subject_alt_names = names.clone());
        assert_eq!(read_csr(&der, &uri()), Err(CsrError::ForeignName), "{names:?}");
    }
}

#[test]
fn whoever_asks_for_more_than_a_name_is_refused() {
    let (der, _) = request(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![san(&uri())];
    });
    assert_eq!(read_csr(&der, &uri()), Err(CsrError::Extension));
    let (der, _) = request(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    assert_eq!(read_csr(&der, &uri()), Err(CsrError::Extension));
}

#[test]
fn a_request_that_its_own_key_has_not_signed_is_refused() {
    let (mut der, _) = request(|params| params.subject_alt_names = vec![san(&uri())]);
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_eq!(read_csr(&der, &uri()), Err(CsrError::Signature));
    // The key of somebody else in an otherwise good request.
    let (der, key) = request(|_| {});
    let (_, other) = request(|_| {});
    let at = der.windows(32).position(|bytes| bytes == key.public_key_raw()).unwrap();
    let mut stolen = der;
    stolen[at..at + 32].copy_from_slice(other.public_key_raw());
    assert_eq!(read_csr(&stolen, &uri()), Err(CsrError::Signature));
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    assert_eq!(read_csr(&der, &uri()), Err(CsrError::KeyType));
}

#[test]
fn any_bytes_are_taken_or_refused() {
    let (named, _) = request(|params| params.subject_alt_names = vec![san(&uri())]);
    assert_eq!(read_csr(&[], &uri()), Err(CsrError::Size));
    assert_eq!(read_csr(&[0; limits::CSR_BYTES + 1], &uri()), Err(CsrError::Size));
    let mut longer = named.clone();
    longer.push(0);
    assert_eq!(read_csr(&longer, &uri()), Err(CsrError::Malformed));
    survives(vec![named], |bytes| read_csr(bytes, &uri()).is_ok());
}
