//! Certificate requests of devices (PKCS #10, RFC 2986): read strictly, since whoever sends one is nobody yet.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer as _, GeneralName};
use x509_parser::x509::X509Version;

use crate::domain::limits;

/// Why a certificate request is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is empty or too long.
    #[error("must have 1 to {max} bytes", max = limits::CSR_BYTES)]
    Size,
    /// It is no certificate request.
    #[error("is no well-formed certificate request (PKCS #10, DER)")]
    Malformed,
    /// Its key is of another kind than the one that is allowed.
    #[error("has a key that is not an Ed25519 key")]
    KeyType,
    /// It is not signed by the key that it names: whoever sends it may not have the private key.
    #[error("is not signed by its own key")]
    Signature,
    /// It asks for a name that is not the device's.
    #[error("asks for another name than the device's own URI")]
    ForeignName,
    /// It asks for something besides a name.
    #[error("asks for something besides a name")]
    Extension,
}

impl CsrError {
    /// The reason in UPPER_SNAKE, as audit records and errors carry it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Size => "CSR_SIZE",
            Self::Malformed => "CSR_MALFORMED",
            Self::KeyType => "CSR_KEY_TYPE",
            Self::Signature => "CSR_SIGNATURE",
            Self::ForeignName => "CSR_FOREIGN_NAME",
            Self::Extension => "CSR_EXTENSION",
        }
    }
}

/// Reads a certificate request, and gives the Ed25519 public key that is to be certified. It must be signed by that key.
/// It may ask for one name, `uri`, and for nothing else. Its subject is not looked at, because it is not used.
///
/// # Errors
/// Says what is wrong.
pub fn read_csr(der: &[u8], uri: &str) -> Result<[u8; 32], CsrError> {
    if !(1..=limits::CSR_BYTES).contains(&der.len()) {
        return Err(CsrError::Size);
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
        return Err(CsrError::Malformed);
    };
    let info = &request.certification_request_info;
    if info.version != X509Version::V1 {
        return Err(CsrError::Malformed);
    }
    let key = &info.subject_pki;
    let ed25519 = |found: &x509_parser::x509::AlgorithmIdentifier<'_>| {
        found.algorithm == OID_SIG_ED25519 && found.parameters.is_none()
    };
    if !ed25519(&key.algorithm) || !ed25519(&request.signature_algorithm) {
        return Err(CsrError::KeyType);
    }
    let public_key = <[u8; 32]>::try_from(key.subject_public_key.data.as_ref())
        .map_err(|_| CsrError::KeyType)?;
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(info.raw, request.signature_value.data.as_ref())
        .map_err(|_| CsrError::Signature)?;
    check_wishes(&request, uri)?;
    Ok(public_key)
}

/// At most one list of extensions, with at most one extension in it: the name.
fn check_wishes(request: &X509CertificationRequest<'_>, uri: &str) -> Result<(), CsrError> {
    let mut lists = request.certification_request_info.iter_attributes();
    let Some(first) = lists.next() else { return Ok(()) };
    let ParsedCriAttribute::ExtensionRequest(wishes) = first.parsed_attribute() else {
        return Err(CsrError::Extension);
    };
    let mut wishes = wishes.extensions.iter();
    if lists.next().is_some() {
        return Err(CsrError::Extension);
    }
    let Some(wish) = wishes.next() else { return Ok(()) };
    let ParsedExtension::SubjectAlternativeName(names) = wish.parsed_extension() else {
        return Err(CsrError::Extension);
    };
    if wishes.next().is_some() {
        return Err(CsrError::Extension);
    }
    match names.general_names.as_slice() {
        [GeneralName::URI(wished)] if *wished == uri => Ok(()),
        _ => Err(CsrError::ForeignName),
    }
}

#[cfg(test)]
mod tests;
