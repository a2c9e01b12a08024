//! The cluster's own CA of devices: its private key is wrapped by the root key like those of the epochs, and signs in the
//! memory of unsealed nodes only.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use rand::CryptoRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;

use crate::domain::{Actor, ClusterId, DeviceId, Timestamp, limits};

use super::CryptoError;
use super::certificate::{Leaf, certificate_end};
use super::device_key::{key_pair, new_pkcs8};
use super::root::{RootKey, WrapPurpose};

/// How long a CA is valid: ten years.
const CA_DAYS: u64 = 3653;
const DAY_MS: u64 = 86_400_000;
/// How far a certificate's validity begins in the past, for clocks that are behind.
const SKEW_MS: u64 = 300_000;
/// What an Ed25519 public key begins with as SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const WHAT: &str = "an agent CA's private key";

/// A CA of devices as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCaParts {
    /// Its number, from 1.
    pub number: u32,
    /// Its certificate, DER.
    pub certificate: Bytes,
    /// Its private key, wrapped by the root key.
    pub private_key: Bytes,
}

impl AgentCaParts {
    /// Makes one. It counts once the cluster has stored it.
    ///
    /// # Errors
    /// Never expected; if a library refuses.
    pub fn create(
        root: &RootKey,
        cluster: ClusterId,
        number: u32,
        now: Timestamp,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, CryptoError> {
        let pkcs8 = new_pkcs8(rng)?;
        let key = key_pair(&pkcs8)?;
        let end = now.as_millis().saturating_add(CA_DAYS.saturating_mul(DAY_MS));
        let mut params = params(now, Timestamp::from_millis(end), rng);
        let name = format!("Holdfast agent CA {cluster} {number}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|_| CryptoError::Library("X.509"))?;
        let purpose = WrapPurpose::AgentCa(number);
        let parts = Self {
            number,
            certificate: Bytes::copy_from_slice(certificate.der()),
            private_key: root.wrap(purpose, cluster, pkcs8.expose_secret(), rng)?,
        };
        // One that does not open is not worth being stored.
        AgentCaSigner::unlock(root, cluster, &parts)?;
        Ok(parts)
    }
}

/// A certificate of a device that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDevice {
    /// DER.
    pub der: Bytes,
    /// Its facts.
    pub leaf: Leaf,
    /// Number of the CA that signed it.
    pub agent_ca: u32,
}

/// A CA of devices that signs. Never printed.
pub struct AgentCaSigner {
    cluster: ClusterId,
    number: u32,
    end: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl AgentCaSigner {
    /// Unlocks a CA, and tries it: its key has to be that of its certificate.
    ///
    /// # Errors
    /// [`CryptoError::DamagedKeyring`].
    pub(super) fn unlock(
        root: &RootKey,
        cluster: ClusterId,
        parts: &AgentCaParts,
    ) -> Result<Self, CryptoError> {
        let damaged = || CryptoError::DamagedKeyring(WHAT);
        let key = root.unwrap(WrapPurpose::AgentCa(parts.number), cluster, &parts.private_key)?;
        let key = key_pair(&key.ok_or_else(damaged)?).map_err(|_| damaged())?;
        let certificate = CertificateDer::from(parts.certificate.to_vec());
        let end = certificate_end(&certificate, key.public_key_raw()).map_err(|_| damaged())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| damaged())?;
        Ok(Self { cluster, number: parts.number, end, issuer })
    }

    /// Signs a certificate for a device: for 90 days, but not longer than the CA itself is valid.
    ///
    /// # Errors
    /// [`CryptoError::AgentCaExpired`] if the CA has no time left. Otherwise never expected.
    pub fn sign(
        &self,
        device: DeviceId,
        public_key: &[u8; 32],
        now: Timestamp,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<SignedDevice, CryptoError> {
        if self.end <= now {
            return Err(CryptoError::AgentCaExpired(self.number));
        }
        let refused = |_: rcgen::Error| CryptoError::Library("X.509");
        let actor = Actor::Agent(device);
        let days = u64::from(limits::AGENT_CERTIFICATE_DAYS);
        let end = now.as_millis().saturating_add(days.saturating_mul(DAY_MS));
        let mut params = params(now, self.end.min(Timestamp::from_millis(end)), rng);
        params.distinguished_name.push(DnType::CommonName, actor.to_string());
        let uri = actor.spiffe_uri(self.cluster).try_into().map_err(refused)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let spki = [SPKI.as_slice(), public_key].concat();
        let spki = SubjectPublicKeyInfo::from_der(&spki).map_err(refused)?;
        let certificate = params.signed_by(&spki, &self.issuer).map_err(refused)?;
        let leaf = Leaf::read(certificate.der())?;
        let der = Bytes::copy_from_slice(certificate.der());
        Ok(SignedDevice { der, leaf, agent_ca: self.number })
    }

    /// Its number.
    pub const fn number(&self) -> u32 {
        self.number
    }
}

impl fmt::Debug for AgentCaSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentCaSigner({}, [redacted])", self.number)
    }
}

/// What all certificates share: validity and a random serial number, positive and of full length (RFC 5280, 4.1.2.2).
fn params(
    now: Timestamp,
    end: Timestamp,
    rng: &mut (impl CryptoRng + ?Sized),
) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut serial = [0; 16];
    rng.fill_bytes(&mut serial);
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_millis(now.as_millis().saturating_sub(SKEW_MS));
    params.not_after = epoch + Duration::from_millis(end.as_millis());
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params
}

#[cfg(test)]
mod tests;
