//! CAs with keys that everybody knows, so that a seed that was signed once can be verified ever after.

#![allow(
    clippy::expect_used,
    reason = "what it makes of constants either works or is a fault of a fuzz target"
)]

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SerialNumber,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::auth::Authorities;
use crate::crypto::Authority;
use crate::domain::{ClusterId, Timestamp};

/// The cluster that everything belongs to.
pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
/// The time that it is for all targets: 2027-01-15.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// Begins an Ed25519 key in PKCS #8; its 32 bytes follow.
const PKCS8: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A private key that everybody knows, by number.
fn key(number: u8) -> Vec<u8> {
    [PKCS8, &[number; 32]].concat()
}

fn key_pair(der: &[u8]) -> KeyPair {
    let der = PrivatePkcs8KeyDer::from(der);
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).expect("an Ed25519 key")
}

fn params(name: &str, number: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2096, 1, 1);
    params.serial_number = Some(SerialNumber::from(vec![number; 8]));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca_params((name, number): (&str, u8)) -> CertificateParams {
    let mut params = params(name, number);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn authority(ca: (&'static str, u8)) -> Authority {
    let certificate = ca_params(ca).self_signed(&key_pair(&key(ca.1))).expect("a CA");
    Authority::from_der(ca.0, vec![certificate.into()]).expect("a CA")
}

/// The CA of nodes.
pub(crate) fn node_ca() -> &'static Authority {
    static CA: OnceLock<Authority> = OnceLock::new();
    CA.get_or_init(|| authority(("node", 1)))
}

/// All three CAs.
pub(crate) fn authorities() -> &'static Authorities {
    static CAS: OnceLock<Authorities> = OnceLock::new();
    CAS.get_or_init(|| {
        let (agent, operator) = (authority(("agent", 2)), authority(("operator", 3)));
        Authorities::new(node_ca().clone(), agent, operator).expect("three CAs")
    })
}

#[cfg(test)]
pub(crate) use issuing::{issue, signer};

#[cfg(test)]
mod issuing {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, Other, ServerAuth};
    use rcgen::{Issuer, SanType};

    use super::*;
    use crate::crypto::NodeSigner;
    use crate::domain::{Actor, NodeId};

    /// A certificate (DER) with this URI from the CA of `actor`, and its private key (PKCS #8, DER).
    pub(crate) fn issue(actor: &Actor, uri: &str) -> (Vec<u8>, Vec<u8>) {
        let ca = match actor {
            Actor::Node(_) => ("node", 1),
            Actor::Agent(_) => ("agent", 2),
            Actor::Operator(_) | Actor::Oidc(_) => ("operator", 3),
        };
        let issuer = Issuer::new(ca_params(ca), key_pair(&key(ca.1)));
        let private = key(0x10 + ca.1);
        let mut params = params("leaf", 0x10 + ca.1);
        params.subject_alt_names = vec![
            SanType::URI(uri.try_into().unwrap()),
            SanType::DnsName("localhost".try_into().unwrap()),
        ];
        params.extended_key_usages = if uri.ends_with("/escrow-signer") {
            vec![Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 36])]
        } else {
            vec![ClientAuth, ServerAuth]
        };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key_pair(&private), &issuer).unwrap();
        (certificate.der().to_vec(), private)
    }

    /// Signs as node 1 does.
    pub(crate) fn signer() -> NodeSigner {
        let actor = Actor::Node(NodeId::new(1));
        let (certificate, key) = issue(&actor, &actor.spiffe_uri(CLUSTER));
        NodeSigner::new(CLUSTER, NodeId::new(1), vec![certificate.into()], &key).unwrap()
    }
}
