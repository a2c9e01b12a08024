//! Certificates for tests, also such as `holdfast pki` would never make.

use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;

use crate::clock::{Clock as _, SystemClock};
use crate::domain::{Actor, ClusterId, DeviceId, NodeId, Timestamp};

use super::{Authority, Secret, SigningMaterial, escrow_signer_uri};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
pub(crate) const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
const DAY: u64 = 86_400_000;

pub(crate) fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn days_from_now(days: u64) -> Timestamp {
    Timestamp::from_millis(now().as_millis() + days * DAY)
}

pub(crate) fn operator(name: &str) -> Actor {
    Actor::Operator(name.parse().unwrap())
}

/// A certificate with its private key.
pub(crate) struct Made {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) private_key: Vec<u8>,
}

impl Made {
    pub(crate) fn chain(&self) -> Vec<Bytes> {
        vec![Bytes::copy_from_slice(&self.certificate)]
    }

    pub(crate) fn material(&self) -> SigningMaterial {
        SigningMaterial { chain: self.chain(), private_key: Secret::new(self.private_key.clone()) }
    }
}

/// What to put into a certificate; begins as a node's.
pub(crate) struct Order {
    uris: Vec<String>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    valid_from: Timestamp,
    valid_to: Timestamp,
    algorithm: &'static SignatureAlgorithm,
}

impl Order {
    pub(crate) fn actor(actor: &Actor) -> Self {
        Self::uris(&[&actor.spiffe_uri(CLUSTER)])
    }

    pub(crate) fn node(id: u64) -> Self {
        Self::actor(&Actor::Node(NodeId::new(id)))
    }

    pub(crate) fn escrow_signer() -> Self {
        let usage = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 36]);
        Self { usages: vec![usage], ..Self::uris(&[&escrow_signer_uri(CLUSTER)]) }
    }

    pub(crate) fn uris(uris: &[&str]) -> Self {
        Self {
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
            valid_from: Timestamp::from_millis(now().as_millis() - DAY),
            valid_to: days_from_now(30),
            algorithm: &PKCS_ED25519,
        }
    }

    pub(crate) fn usages(self, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        Self { usages: usages.to_vec(), ..self }
    }

    pub(crate) fn expired(self) -> Self {
        Self { valid_to: Timestamp::from_millis(now().as_millis() - 60_000), ..self }
    }

    pub(crate) fn valid_from(self, valid_from: Timestamp) -> Self {
        Self { valid_from, ..self }
    }

    pub(crate) fn algorithm(self, algorithm: &'static SignatureAlgorithm) -> Self {
        Self { algorithm, ..self }
    }
}

/// A CA in memory.
pub(crate) struct TestCa {
    name: &'static str,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    /// A CA of this name. All of one name have the same subject, but each has a key of its own.
    pub(crate) fn new(name: &'static str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = params(name, days_from_now(0), days_from_now(365));
        params.not_before -= Duration::from_secs(2 * 86_400);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().into();
        Self { name, certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn authority(&self) -> Authority {
        Authority::from_der(self.name, vec![self.certificate.clone()]).unwrap()
    }

    /// Its certificate as a file has it.
    pub(crate) fn pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    pub(crate) fn make(&self, order: &Order) -> Made {
        let key = KeyPair::generate_for(order.algorithm).unwrap();
        let mut params = params("leaf", order.valid_from, order.valid_to);
        let uris = order.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
        params.subject_alt_names = uris.collect();
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.extended_key_usages = order.usages.clone();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().into();
        Made { certificate, private_key: key.serialize_der() }
    }
}

fn params(name: &str, from: Timestamp, to: Timestamp) -> CertificateParams {
    let moment = |time: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(time.as_millis())
    };
    let mut params = CertificateParams::default();
    params.not_before = moment(from);
    params.not_after = moment(to);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
