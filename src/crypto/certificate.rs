//! Certificates: chains that end at one exact CA, and the one URI that names their holder.
//!
//! Used by TLS, by identification and by whoever checks a signature, so that all three agree what a valid certificate is:
//! Ed25519 throughout, in its validity, made for the purpose, with exactly one URI among its names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::domain::{ClusterId, Timestamp};

// Object identifiers in DER, without tag and length.
const CLIENT_AUTH: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 2];
const SERVER_AUTH: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 1];
/// id-kp-documentSigning (RFC 9336): what the escrow signer's certificate is for. TLS does not take it.
const DOCUMENT_SIGNING: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 36];

/// Why a certificate is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read, or holds no certificate.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// No certificate was presented.
    #[error("no certificate was presented")]
    Missing,
    /// It is no X.509 certificate.
    #[error("it is not a well-formed X.509 certificate")]
    Malformed,
    /// A CA's certificate does not say that it is a CA.
    #[error("the certificate is not that of a CA")]
    NotACa,
    /// It, or one between it and its CA, is past its end.
    #[error("the certificate has expired")]
    Expired,
    /// It is not valid yet. Most often a clock is wrong.
    #[error("the certificate is not valid yet; check the clocks")]
    NotYetValid,
    /// Its CA is not the one that issues certificates of its kind.
    #[error("the certificate was not issued by the {0} CA")]
    ForeignCa(&'static str),
    /// It was issued for another purpose.
    #[error("the certificate was not issued for this purpose")]
    WrongPurpose,
    /// It was issued by the right CA, but fails for another reason.
    #[error("the certificate is not valid: {0}")]
    Invalid(String),
    /// It has no URI among its names, or more than one.
    #[error("the certificate must carry exactly one URI, not {0}")]
    UriCount(usize),
    /// Its key is no Ed25519 key.
    #[error("the certificate's key is not an Ed25519 key")]
    KeyType,
}

/// What a certificate has to be issued for (its extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// TLS client.
    Client,
    /// TLS server.
    Server,
    /// Signing of escrow keys.
    EscrowSigner,
}

impl Purpose {
    /// Required, also of a certificate that names no usage: such a one is good for nothing here.
    const fn usage(self) -> KeyUsage {
        KeyUsage::required(match self {
            Self::Client => CLIENT_AUTH,
            Self::Server => SERVER_AUTH,
            Self::EscrowSigner => DOCUMENT_SIGNING,
        })
    }
}

/// The URI that the escrow signer's certificate carries.
pub fn escrow_signer_uri(cluster: ClusterId) -> String {
    format!("spiffe://{cluster}/escrow-signer")
}

/// The facts of a certificate whose chain was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its only URI.
    pub uri: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it, and what is between it and its CA, is valid.
    pub not_after: Timestamp,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
}

impl Leaf {
    /// Reads the facts of a certificate without verifying who issued it.
    ///
    /// # Errors
    /// If it is malformed, has not exactly one URI, or a key other than Ed25519.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let names = certificate.subject_alternative_name();
        let names = names.map_err(|_| CertificateError::Malformed)?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
            .collect();
        let [uri] = uris.as_slice() else { return Err(CertificateError::UriCount(uris.len())) };
        let key = certificate.public_key();
        let public_key = <[u8; 32]>::try_from(key.subject_public_key.data.as_ref())
            .ok()
            .filter(|_| key.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519)
            .ok_or(CertificateError::KeyType)?;
        let (not_before, not_after) = validity(&certificate);
        Ok(Self {
            uri: (*uri).to_owned(),
            not_before,
            not_after,
            serial: hex::encode(certificate.raw_serial()),
            public_key,
        })
    }
}

/// From when all certificates of a chain are valid. Nobody vouches for it before the chain is verified.
///
/// # Errors
/// If there is none, or one is malformed.
pub fn chain_begins(chain: &[impl AsRef<[u8]>]) -> Result<Timestamp, CertificateError> {
    let mut begins = Err(CertificateError::Missing);
    for der in chain {
        let (not_before, _) = validity(&parse(der.as_ref())?);
        begins = Ok(begins.map_or(not_before, |begins: Timestamp| begins.max(not_before)));
    }
    begins
}

/// Until when a certificate is valid. Nobody vouches for it.
///
/// # Errors
/// If it is malformed.
pub fn not_after(der: &[u8]) -> Result<Timestamp, CertificateError> {
    Ok(validity(&parse(der)?).1)
}

/// Until when a CA's certificate is valid, if it is one and its Ed25519 key is this one.
pub(super) fn certificate_end(
    der: &[u8],
    public_key: &[u8],
) -> Result<Timestamp, CertificateError> {
    let certificate = parse(der)?;
    if !certificate.is_ca() {
        return Err(CertificateError::NotACa);
    }
    let key = certificate.public_key();
    let found: &[u8] = key.subject_public_key.data.as_ref();
    if key.algorithm.algorithm != x509_parser::oid_registry::OID_SIG_ED25519 || found != public_key
    {
        return Err(CertificateError::KeyType);
    }
    Ok(validity(&certificate).1)
}

/// The CA (or CAs, while one takes the place of the other) that issues certificates of one kind.
#[derive(Debug, Clone)]
pub struct Authority {
    name: &'static str,
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Authority {
    /// The CA of this name (`node`, `agent` or `operator`; errors show it).
    ///
    /// # Errors
    /// If there is no certificate, or one is malformed or not a CA's.
    pub fn from_der(
        name: &'static str,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CertificateError> {
        if certificates.is_empty() {
            return Err(CertificateError::Missing);
        }
        let mut anchors = Vec::with_capacity(certificates.len());
        for der in &certificates {
            if !parse(der)?.is_ca() {
                return Err(CertificateError::NotACa);
            }
            let anchor =
                webpki::anchor_from_trusted_cert(der).map_err(|_| CertificateError::Malformed)?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self { name, certificates, anchors })
    }

    /// Reads it from a PEM file.
    ///
    /// # Errors
    /// As [`Authority::from_der`]; the file is named.
    pub fn from_pem_file(name: &'static str, path: &Path) -> Result<Self, CertificateError> {
        let file = |what: String| CertificateError::File { path: path.to_owned(), what };
        let certificates = read_pem_certificates(path)?;
        Self::from_der(name, certificates).map_err(|error| file(error.to_string()))
    }

    /// Its certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// This one and more certificates of the same kind of CA.
    ///
    /// # Errors
    /// If one is malformed or not a CA's.
    pub fn and(&self, more: &[CertificateDer<'static>]) -> Result<Self, CertificateError> {
        let certificates = [self.certificates.as_slice(), more].concat();
        Self::from_der(self.name, certificates)
    }

    /// Whether it shares a public key with another one, so that the two can't be told apart.
    pub fn overlaps(&self, other: &Self) -> bool {
        let shared = |anchor: &TrustAnchor<'_>| {
            other
                .anchors
                .iter()
                .any(|theirs| theirs.subject_public_key_info == anchor.subject_public_key_info)
        };
        self.anchors.iter().any(shared)
    }

    /// Verifies that a chain (the holder's certificate first) ends at this CA, is valid now and made for the purpose.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn verify(
        &self,
        chain: &[impl AsRef<[u8]>],
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Leaf, CertificateError> {
        let (first, between) = chain.split_first().ok_or(CertificateError::Missing)?;
        let first = CertificateDer::from(first.as_ref());
        let between: Vec<CertificateDer<'_>> =
            between.iter().map(|der| CertificateDer::from(der.as_ref())).collect();
        let end = EndEntityCert::try_from(&first).map_err(|_| CertificateError::Malformed)?;
        let time = UnixTime::since_unix_epoch(Duration::from_millis(now.as_millis()));
        end.verify_for_usage(
            &[webpki::aws_lc_rs::ED25519],
            &self.anchors,
            &between,
            time,
            purpose.usage(),
            None,
            None,
        )
        .map_err(|error| self.explain(error))?;
        let mut leaf = Leaf::read(&first)?;
        for der in &between {
            leaf.not_after = leaf.not_after.min(validity(&parse(der)?).1);
        }
        Ok(leaf)
    }

    fn explain(&self, error: webpki::Error) -> CertificateError {
        use webpki::Error;
        match error {
            Error::CertExpired { .. } => CertificateError::Expired,
            Error::CertNotValidYet { .. } => CertificateError::NotYetValid,
            Error::UnknownIssuer => CertificateError::ForeignCa(self.name),
            // The issuer's name is right, its key is not: a CA of another cluster.
            Error::InvalidSignatureForPublicKey => CertificateError::ForeignCa(self.name),
            Error::RequiredEkuNotFoundContext(_) => CertificateError::WrongPurpose,
            other => CertificateError::Invalid(other.to_string()),
        }
    }
}

/// Reads all certificates of a PEM file, in their order; there must be at least one.
///
/// # Errors
/// If the file can't be read or holds none; it is named.
pub(crate) fn read_pem_certificates(
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let file = |what: String| CertificateError::File { path: path.to_owned(), what };
    let pem = std::fs::read(path).map_err(|error| file(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| file(format!("bad PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(file("holds no certificate (a line BEGIN CERTIFICATE)".to_owned()));
    }
    Ok(certificates)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateError::Malformed),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let millis = |seconds: i64| {
        Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
    };
    let validity = certificate.validity();
    (millis(validity.not_before.timestamp()), millis(validity.not_after.timestamp()))
}

#[cfg(test)]
mod tests;
