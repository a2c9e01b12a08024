//! Issuing certificates.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ED25519,
    SanType,
};
use rustls_pki_types::{CertificateDer, ServerName};
use zeroize::Zeroizing;

use crate::crypto::{Secret, SigningMaterial, escrow_signer_uri};
use crate::domain::{Actor, DeviceId, FieldError, NodeId, OperatorName, Timestamp};

use super::files::{PRIVATE, PUBLIC, create_private_dir, write_new};
use super::store::{CaKind, Pki, base_params};
use super::{PkiError, show};

/// id-kp-documentSigning (RFC 9336): the signer's certificate is for signing, and TLS does not take it.
const DOCUMENT_SIGNING: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 36];
/// Longest common name (RFC 5280, ub-common-name).
const COMMON_NAME: usize = 64;
/// Most days that a certificate may be valid: ten years.
const MOST_DAYS: u32 = 3653;

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A server, with the names and addresses that it is reached at.
    Node {
        /// Its id.
        id: NodeId,
        /// DNS names and IP addresses; at least one.
        hosts: Vec<String>,
    },
    /// A client machine.
    Agent(DeviceId),
    /// A person.
    Operator(OperatorName),
}

impl Subject {
    /// The actor that the certificate names.
    pub fn actor(&self) -> Actor {
        match self {
            Self::Node { id, .. } => Actor::Node(*id),
            Self::Agent(device) => Actor::Agent(*device),
            Self::Operator(name) => Actor::Operator(name.clone()),
        }
    }

    /// How long its certificate is valid unless somebody says otherwise, in days.
    pub const fn default_days(&self) -> u32 {
        match self {
            Self::Node { .. } | Self::Operator(_) => 365,
            Self::Agent(_) => 90,
        }
    }

    const fn ca(&self) -> CaKind {
        match self {
            Self::Node { .. } => CaKind::Node,
            Self::Agent(_) => CaKind::Agent,
            Self::Operator(_) => CaKind::Operator,
        }
    }

    /// Name of its files, without extension.
    fn stem(&self) -> String {
        match self {
            Self::Node { id, .. } => format!("node-{id}"),
            Self::Agent(device) => format!("agent-{device}"),
            Self::Operator(name) => format!("operator-{name}"),
        }
    }
}

/// A new certificate with its private key.
pub struct Issued {
    /// The certificate, DER.
    pub certificate: CertificateDer<'static>,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8, DER.
    pub private_key: Secret,
    private_key_pem: Zeroizing<String>,
}

/// Where a new certificate and its private key were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedPaths {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM, mode 0600.
    pub private_key: PathBuf,
}

impl Pki {
    /// Issues a certificate and writes it and its private key to `out` as `<stem>.pem` and `<stem>.key`, where the stem is
    /// `node-1`, `agent-<device>` or `operator-<name>`.
    ///
    /// # Errors
    /// If either file exists, or the certificate can't be made.
    pub fn issue(
        &self,
        subject: &Subject,
        days: u32,
        out: &Path,
        now: Timestamp,
    ) -> Result<IssuedPaths, PkiError> {
        let stem = subject.stem();
        let paths = IssuedPaths {
            certificate: out.join(format!("{stem}.pem")),
            private_key: out.join(format!("{stem}.key")),
        };
        for path in [&paths.certificate, &paths.private_key] {
            if path.exists() {
                return Err(PkiError::Exists(path.clone()));
            }
        }
        let issued = self.make(subject, days, now)?;
        create_private_dir(out)?;
        write_new(&paths.private_key, issued.private_key_pem.as_bytes(), PRIVATE)?;
        write_new(&paths.certificate, issued.certificate_pem.as_bytes(), PUBLIC)?;
        Ok(paths)
    }

    /// Issues a certificate without writing anything.
    ///
    /// # Errors
    /// If a value is not acceptable, or the CA can't be used.
    pub fn make(&self, subject: &Subject, days: u32, now: Timestamp) -> Result<Issued, PkiError> {
        let actor = subject.actor();
        let mut params = base_params(now, checked_days(days)?);
        params.subject_alt_names = vec![uri(&actor.spiffe_uri(self.cluster()))?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Subject::Node { hosts, .. } = subject {
            if hosts.is_empty() {
                return Err(FieldError::new("host", "a node needs at least one").into());
            }
            for host in hosts {
                params.subject_alt_names.push(host_name(host)?);
            }
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let name = Some(actor.to_string()).filter(|name| name.len() <= COMMON_NAME);
        let name = name.unwrap_or_else(|| subject.ca().as_str().to_owned());
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, subject.ca(), now)
    }

    /// Makes the signer of escrow keys for a new cluster: a certificate of the node CA that is valid as long as the CA,
    /// and its private key. It is for `InitCluster` alone and never written to a file.
    ///
    /// # Errors
    /// If the CA can't be used.
    pub fn signer(&self, now: Timestamp) -> Result<SigningMaterial, PkiError> {
        let mut params = base_params(now, MOST_DAYS);
        params.subject_alt_names = vec![uri(&escrow_signer_uri(self.cluster()))?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(DOCUMENT_SIGNING.into())];
        params.distinguished_name.push(DnType::CommonName, "escrow-signer");
        let issued = self.sign(params, CaKind::Node, now)?;
        Ok(SigningMaterial {
            chain: vec![Bytes::copy_from_slice(&issued.certificate)],
            private_key: issued.private_key,
        })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        ca: CaKind,
        now: Timestamp,
    ) -> Result<Issued, PkiError> {
        let (issuer, ca_certificate) = self.issuer(ca, now)?;
        let ca_end = rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_millis(show::not_after(&ca_certificate)?.as_millis());
        // What outlives its CA is not valid any more; its own end should say so.
        params.not_after = params.not_after.min(ca_end);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            certificate: certificate.into(),
            private_key: Secret::new(key.serialized_der().to_vec()),
            private_key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }
}

fn checked_days(days: u32) -> Result<u32, FieldError> {
    if (1..=MOST_DAYS).contains(&days) {
        Ok(days)
    } else {
        Err(FieldError::new("days", "must be 1 to 3653"))
    }
}

fn uri(text: &str) -> Result<SanType, PkiError> {
    Ok(SanType::URI(text.try_into()?))
}

fn host_name(host: &str) -> Result<SanType, PkiError> {
    let bad = || FieldError::new("host", format!("{host:?} is no DNS name and no IP address"));
    match ServerName::try_from(host.to_owned()).map_err(|_| bad())? {
        ServerName::IpAddress(address) => Ok(SanType::IpAddress(address.into())),
        ServerName::DnsName(name) => Ok(SanType::DnsName(name.as_ref().try_into()?)),
        _ => Err(bad().into()),
    }
}
