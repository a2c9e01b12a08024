//! Showing certificates.

use std::net::IpAddr;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::crypto::{CertificateError, read_pem_certificates};
use crate::domain::Timestamp;

use super::PkiError;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Its subject.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// Whether it is a CA's.
    pub is_ca: bool,
    /// Its URIs.
    pub uris: Vec<String>,
    /// Its DNS names and IP addresses.
    pub hosts: Vec<String>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// Reads all certificates of a PEM file.
///
/// # Errors
/// If the file can't be read, or holds no certificate, or a malformed one.
pub fn summaries(path: &Path) -> Result<Vec<CertificateSummary>, PkiError> {
    read_pem_certificates(path)?.iter().map(summary).collect()
}

pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Result<Timestamp, PkiError> {
    Ok(summary(certificate)?.not_after)
}

fn summary(der: &CertificateDer<'_>) -> Result<CertificateSummary, PkiError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    let mut uris = Vec::new();
    let mut hosts = Vec::new();
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::URI(uri) = name {
            uris.push((*uri).to_owned());
        } else if let GeneralName::DNSName(host) = name {
            hosts.push((*host).to_owned());
        } else if let GeneralName::IPAddress(bytes) = name {
            hosts.push(address(bytes));
        }
    }
    let millis = |seconds: i64| {
        Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
    };
    Ok(CertificateSummary {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: hex::encode(certificate.raw_serial()),
        is_ca: certificate.is_ca(),
        uris,
        hosts,
        not_before: millis(certificate.validity().not_before.timestamp()),
        not_after: millis(certificate.validity().not_after.timestamp()),
    })
}

fn address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        IpAddr::from(v4).to_string()
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        IpAddr::from(v6).to_string()
    } else {
        hex::encode(bytes)
    }
}
