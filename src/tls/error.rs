//! The one error of this layer.

use std::path::PathBuf;

use crate::crypto::{CertificateError, CryptoError};

/// A certificate, a key or a TLS configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A private key file can't be read.
    #[error("private key file {} can't be read", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner may use a private key file.
    #[error(
        "private key file {} has mode {mode:04o}, so others than its owner may use it: run chmod 0600",
        path.display()
    )]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A private key file holds something else.
    #[error("private key file {} must hold an Ed25519 key as PEM (BEGIN PRIVATE KEY)", path.display())]
    KeyContent {
        /// The file.
        path: PathBuf,
    },
    /// A certificate can't be used.
    #[error("certificate not usable")]
    Certificate(#[from] CertificateError),
    /// A certificate and its private key can't be used together.
    #[error("the certificate and its private key can't be used")]
    Crypto(#[from] CryptoError),
    /// The certificate names somebody else.
    #[error("the certificate is that of {found}, expected {expected}")]
    WrongName {
        /// Who it should be.
        expected: String,
        /// Who it is.
        found: String,
    },
    /// The CA of agents and the CA of operators share a key.
    #[error("the agent CA and the operator CA must be different")]
    SharedCa,
    /// rustls refuses the configuration.
    #[error("TLS configuration")]
    Rustls(#[from] rustls::Error),
    /// rustls refuses a CA for client certificates.
    #[error("TLS configuration of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}
