//! The one error of this module.

use std::path::PathBuf;

use crate::crypto::CertificateError;
use crate::domain::FieldError;

/// A certificate, a CA or a root key could not be made, or not be read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or directory can't be read or written.
    #[error("{}: {what}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Something is there already.
    #[error("{} exists already; nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// The directory for a new PKI holds something.
    #[error("{} is not empty; choose a new directory", .0.display())]
    NotEmpty(PathBuf),
    /// No PKI was made in the directory, or making it was interrupted.
    #[error("{} holds no PKI (cluster.json is missing); run holdfast pki init", .0.display())]
    NoPki(PathBuf),
    /// `cluster.json` is not what `pki init` writes.
    #[error("{} is damaged", path.display())]
    ClusterFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// `cluster.json` was written by a newer version.
    #[error("{} has format {format}; this program knows format 1", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// Others than its owner may read a CA's private key.
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
    /// A CA's private key file holds something else.
    #[error("{} does not hold the CA's private key", .0.display())]
    KeyContent(PathBuf),
    /// A certificate can't be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Two of the CAs are the same.
    #[error(transparent)]
    Authorities(#[from] crate::auth::IdentityError),
    /// A value given is not acceptable.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The CA itself has expired.
    #[error("the {0} CA has expired")]
    CaExpired(&'static str),
    /// The certificate could not be made.
    #[error("the certificate can't be made")]
    Make(#[from] rcgen::Error),
}
