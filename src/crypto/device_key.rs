//! The private key of a device, as the device makes it for itself: it never leaves there.

use std::fmt;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::CryptoRng;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519, SanType};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::{CryptoError, Secret};

/// Characters of base64 on a line of PEM (RFC 7468).
const LINE: usize = 64;

/// An Ed25519 key in PKCS #8.
pub(super) fn new_pkcs8(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Secret, CryptoError> {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(seed.as_mut());
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
        .map_err(|_| CryptoError::Library("Ed25519"))?;
    let pkcs8 = pair.to_pkcs8().map_err(|_| CryptoError::Library("PKCS #8"))?;
    Ok(Secret::new(pkcs8.as_ref().to_vec()))
}

/// The key in the form that makes certificates and requests.
pub(super) fn key_pair(pkcs8: &Secret) -> Result<KeyPair, CryptoError> {
    let der = PrivatePkcs8KeyDer::from(pkcs8.expose_secret());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
        .map_err(|_| CryptoError::BadPrivateKey)
}

/// A device's private key. Wiped from memory when dropped, never printed.
pub struct DeviceKey {
    pkcs8: Secret,
    public_key: [u8; 32],
}

impl DeviceKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// Never expected; if the library refuses.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, CryptoError> {
        Self::of(new_pkcs8(rng)?)
    }

    /// Reads one from the text of its file.
    ///
    /// # Errors
    /// [`CryptoError::BadPrivateKey`] if it is none.
    pub fn from_pem(pem: &str) -> Result<Self, CryptoError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|_| CryptoError::BadPrivateKey)?;
        Self::of(Secret::new(der.secret_pkcs8_der().to_vec()))
    }

    fn of(pkcs8: Secret) -> Result<Self, CryptoError> {
        let public_key = key_pair(&pkcs8)?.public_key_raw().try_into();
        Ok(Self { public_key: public_key.map_err(|_| CryptoError::BadPrivateKey)?, pkcs8 })
    }

    /// Its public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// The text of its file.
    pub fn expose_pem(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(STANDARD.encode(self.pkcs8.expose_secret()));
        Zeroizing::new(armoured("PRIVATE KEY", &digits))
    }

    /// A certificate request that is signed by it: for `uri`, or for whatever name the cluster gives.
    ///
    /// # Errors
    /// If `uri` can't stand in a certificate.
    pub fn csr(&self, uri: Option<&str>) -> Result<Vec<u8>, CryptoError> {
        let refused = |_: rcgen::Error| CryptoError::Library("PKCS #10");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(uri) = uri {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(refused)?)];
        }
        let request = params.serialize_request(&key_pair(&self.pkcs8)?).map_err(refused)?;
        Ok(request.der().to_vec())
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey([redacted])")
    }
}

/// A certificate as text.
pub fn certificate_pem(der: &[u8]) -> String {
    armoured("CERTIFICATE", &STANDARD.encode(der))
}

fn armoured(label: &str, digits: &str) -> String {
    // Room for all of it from the start: growing would leave copies behind.
    let lines = digits.len().div_ceil(LINE);
    let mut text = String::with_capacity(digits.len() + lines + 2 * label.len() + 64);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && n.is_multiple_of(LINE) {
            text.push('\n');
        }
        text.push(digit);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{CsrError, read_csr, system_rng};

    #[test]
    fn a_key_survives_its_file_and_its_request_is_what_the_cluster_takes() {
        let key = DeviceKey::generate(&mut system_rng()).unwrap();
        let read = DeviceKey::from_pem(&key.expose_pem()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        let uri = "spiffe://c/agent/d";
        for wish in [None, Some(uri)] {
            assert_eq!(read_csr(&read.csr(wish).unwrap(), uri), Ok(*key.public_key()));
        }
        let foreign = read.csr(Some("spiffe://c/operator/root")).unwrap();
        assert_eq!(read_csr(&foreign, uri), Err(CsrError::ForeignName));
        assert_eq!(format!("{key:?}"), "DeviceKey([redacted])");
        assert!(DeviceKey::from_pem("").is_err());
    }
}
