//! The directory of a PKI: `cluster.json` and three CAs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::auth::Authorities;
use crate::crypto::{Authority, CertificateError};
use crate::domain::{ClusterId, Timestamp};

use super::PkiError;
use super::files::{PRIVATE, PUBLIC, create_private_dir, io, read_private, write_new};

const CLUSTER_FILE: &str = "cluster.json";
const FORMAT: u32 = 1;
/// How long a CA is valid: ten years.
const CA_DAYS: u32 = 3653;
/// How far a certificate's validity begins in the past, for clocks that are behind.
const SKEW: Duration = Duration::from_secs(300);

/// Whose certificates a CA issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaKind {
    /// Servers, and the signer of escrow keys.
    Node,
    /// Client machines.
    Agent,
    /// People.
    Operator,
}

impl CaKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Node, Self::Agent, Self::Operator];

    /// Its name in files and errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Agent => "agent",
            Self::Operator => "operator",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    format: u32,
    cluster_id: ClusterId,
}

/// The PKI of one cluster, in a directory.
#[derive(Debug, Clone)]
pub struct Pki {
    directory: PathBuf,
    cluster: ClusterId,
}

impl Pki {
    /// Makes a PKI in a directory that is new or empty.
    ///
    /// # Errors
    /// If the directory holds anything, or something can't be made.
    pub fn init(directory: &Path, cluster: ClusterId, now: Timestamp) -> Result<Self, PkiError> {
        create_private_dir(directory)?;
        let mut entries = std::fs::read_dir(directory).map_err(io(directory, "can't be read"))?;
        if entries.next().is_some() {
            return Err(PkiError::NotEmpty(directory.to_owned()));
        }
        let pki = Self { directory: directory.to_owned(), cluster };
        for kind in CaKind::ALL {
            pki.make_ca(kind, now)?;
        }
        // Last, so that an interrupted start is not taken for a PKI.
        let file = ClusterFile { format: FORMAT, cluster_id: cluster };
        let path = directory.join(CLUSTER_FILE);
        let mut text = serde_json::to_vec_pretty(&file)
            .map_err(|source| PkiError::ClusterFile { path: path.clone(), source })?;
        text.push(b'\n');
        write_new(&path, &text, PUBLIC)?;
        Ok(pki)
    }

    /// Opens a PKI that [`Pki::init`] made.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        let path = directory.join(CLUSTER_FILE);
        let text = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => PkiError::NoPki(directory.to_owned()),
            _ => io(&path, "can't be read")(error),
        })?;
        let file: ClusterFile = serde_json::from_slice(&text)
            .map_err(|source| PkiError::ClusterFile { path: path.clone(), source })?;
        if file.format != FORMAT {
            return Err(PkiError::NewerFormat { path, format: file.format });
        }
        Ok(Self { directory: directory.to_owned(), cluster: file.cluster_id })
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// File of a CA's certificate, which others need to verify what it issued.
    pub fn ca_path(&self, kind: CaKind) -> PathBuf {
        self.directory.join(format!("{}-ca.pem", kind.as_str()))
    }

    fn ca_key_path(&self, kind: CaKind) -> PathBuf {
        self.directory.join(format!("{}-ca.key", kind.as_str()))
    }

    /// A CA, to verify what it issued.
    ///
    /// # Errors
    /// If its file can't be read.
    pub fn authority(&self, kind: CaKind) -> Result<Authority, PkiError> {
        Ok(Authority::from_pem_file(kind.as_str(), &self.ca_path(kind))?)
    }

    /// All three CAs, to tell callers from one another.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn authorities(&self) -> Result<Authorities, PkiError> {
        let [node, agent, operator] =
            [CaKind::Node, CaKind::Agent, CaKind::Operator].map(|kind| self.authority(kind));
        Ok(Authorities::new(node?, agent?, operator?)?)
    }

    fn make_ca(&self, kind: CaKind, now: Timestamp) -> Result<(), PkiError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = base_params(now, CA_DAYS);
        let name = format!("Holdfast {} CA {}", kind.as_str(), self.cluster);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let pem = zeroize::Zeroizing::new(key.serialize_pem());
        write_new(&self.ca_key_path(kind), pem.as_bytes(), PRIVATE)?;
        write_new(&self.ca_path(kind), certificate.pem().as_bytes(), PUBLIC)
    }

    /// A CA, to issue certificates, and until when it is valid.
    pub(super) fn issuer(
        &self,
        kind: CaKind,
        now: Timestamp,
    ) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>), PkiError> {
        let authority = self.authority(kind)?;
        let certificate = authority.certificates().first().ok_or(CertificateError::Missing)?;
        if super::show::not_after(certificate)? < now {
            return Err(PkiError::CaExpired(kind.as_str()));
        }
        let path = self.ca_key_path(kind);
        let pem = read_private(&path)?;
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ED25519)
            .map_err(|_| PkiError::KeyContent(path))?;
        Ok((Issuer::from_ca_cert_der(certificate, key)?, certificate.clone()))
    }
}

/// Parameters that all certificates share: validity and a random serial number.
pub(super) fn base_params(now: Timestamp, days: u32) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(now.as_millis());
    let lifetime = Duration::from_secs(u64::from(days).saturating_mul(86_400));
    let mut serial = *uuid::Uuid::new_v4().as_bytes();
    if let Some(first) = serial.first_mut() {
        // Positive and of full length (RFC 5280, 4.1.2.2).
        *first = (*first & 0x7f) | 0x40;
    }
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(SKEW);
    params.not_after = epoch + now.saturating_add(lifetime);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params
}
