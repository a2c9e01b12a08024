use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

use super::*;
use crate::crypto::testing::{CLUSTER, Made, Order, TestCa, days_from_now, now};

fn verify(ca: &TestCa, made: &Made, purpose: Purpose) -> Result<Leaf, CertificateError> {
    ca.authority().verify(&made.chain(), purpose, now())
}

#[test]
fn a_valid_certificate_tells_its_uri_its_key_and_its_end() {
    let ca = TestCa::new("node");
    let made = ca.make(&Order::node(1));
    let leaf = verify(&ca, &made, Purpose::Server).unwrap();
    assert_eq!(leaf.uri, format!("spiffe://{CLUSTER}/node/1"));
    assert!(leaf.not_before < now() && leaf.not_after > days_from_now(29));
    assert!(leaf.serial.len() >= 16 && leaf.serial.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(verify(&ca, &made, Purpose::Client).unwrap(), leaf);
}

#[test]
fn a_certificate_is_good_for_its_purpose_only() {
    let ca = TestCa::new("node");
    let client = ca.make(&Order::node(1).usages(&[ClientAuth]));
    assert!(verify(&ca, &client, Purpose::Client).is_ok());
    assert_eq!(verify(&ca, &client, Purpose::Server), Err(CertificateError::WrongPurpose));
    let server = ca.make(&Order::node(1).usages(&[ServerAuth]));
    assert_eq!(verify(&ca, &server, Purpose::Client), Err(CertificateError::WrongPurpose));
    let signer = ca.make(&Order::escrow_signer());
    assert!(verify(&ca, &signer, Purpose::EscrowSigner).is_ok());
    assert_eq!(verify(&ca, &signer, Purpose::Client), Err(CertificateError::WrongPurpose));
    assert_eq!(verify(&ca, &signer, Purpose::Server), Err(CertificateError::WrongPurpose));
    let none = ca.make(&Order::node(1).usages(&[]));
    for purpose in [Purpose::Client, Purpose::Server, Purpose::EscrowSigner] {
        assert!(verify(&ca, &none, purpose).is_err(), "{purpose:?}");
    }
}

#[test]
fn an_expired_certificate_and_one_of_the_future_are_told_apart() {
    let ca = TestCa::new("node");
    let expired = ca.make(&Order::node(1).expired());
    assert_eq!(verify(&ca, &expired, Purpose::Client), Err(CertificateError::Expired));
    let future = ca.make(&Order::node(1).valid_from(days_from_now(1)));
    assert_eq!(verify(&ca, &future, Purpose::Client), Err(CertificateError::NotYetValid));
}

#[test]
fn a_ca_of_the_same_name_with_another_key_is_foreign() {
    let (ca, other) = (TestCa::new("node"), TestCa::new("node"));
    let made = other.make(&Order::node(1));
    assert_eq!(verify(&ca, &made, Purpose::Client), Err(CertificateError::ForeignCa("node")));
    let named = TestCa::new("agent").make(&Order::node(1));
    assert_eq!(verify(&ca, &named, Purpose::Client), Err(CertificateError::ForeignCa("node")));
    assert!(!ca.authority().overlaps(&other.authority()));
    assert!(ca.authority().overlaps(&ca.authority()));
}

#[test]
fn a_certificate_with_no_uri_or_two_is_refused() {
    let ca = TestCa::new("node");
    let [one, two] = ["node/1", "node/2"].map(|name| format!("spiffe://{CLUSTER}/{name}"));
    let both = ca.make(&Order::uris(&[&one, &two]));
    assert_eq!(verify(&ca, &both, Purpose::Client), Err(CertificateError::UriCount(2)));
    let none = ca.make(&Order::uris(&[]));
    assert_eq!(verify(&ca, &none, Purpose::Client), Err(CertificateError::UriCount(0)));
}

#[test]
fn a_key_of_another_kind_than_ed25519_is_refused() {
    let ca = TestCa::new("node");
    let made = ca.make(&Order::node(1).algorithm(&rcgen::PKCS_ECDSA_P256_SHA256));
    assert_eq!(verify(&ca, &made, Purpose::Client), Err(CertificateError::KeyType));
}

#[test]
fn a_leaf_issues_nothing_and_a_leaf_is_no_ca() {
    let ca = TestCa::new("node");
    let made = ca.make(&Order::node(1));
    let error = Authority::from_der("node", vec![made.certificate.clone()]).unwrap_err();
    assert_eq!(error, CertificateError::NotACa);
    assert_eq!(Authority::from_der("node", vec![]).unwrap_err(), CertificateError::Missing);
    // The CA's own certificate is nobody's.
    let itself = ca.authority().certificates().to_vec();
    assert!(ca.authority().verify(&itself, Purpose::Client, now()).is_err());
}

#[test]
fn bytes_that_are_no_certificate_are_malformed() {
    let ca = TestCa::new("node");
    let good = ca.make(&Order::node(1)).certificate.to_vec();
    let mut longer = good.clone();
    longer.push(0);
    for bytes in [b"".to_vec(), b"garbage".to_vec(), good[..100].to_vec(), longer] {
        let verified = ca.authority().verify(&[bytes], Purpose::Client, now());
        assert_eq!(verified, Err(CertificateError::Malformed));
    }
}

#[test]
fn a_file_without_a_certificate_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.pem");
    let error = Authority::from_pem_file("node", &missing).unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
    let empty = directory.path().join("empty.pem");
    std::fs::File::create(&empty).unwrap();
    let error = Authority::from_pem_file("node", &empty).unwrap_err().to_string();
    assert!(error.contains("empty.pem") && error.contains("BEGIN CERTIFICATE"), "{error}");
}
