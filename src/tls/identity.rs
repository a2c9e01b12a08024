//! A certificate with its private key, as read from files.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::crypto::{Leaf, NodeSigner, Secret, read_pem_certificates};
use crate::domain::{Actor, ClusterId, NodeId};

use super::TlsError;

/// A chain of certificates and the private key of its first one. Never prints the key.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    leaf: Leaf,
    private_key: Arc<Secret>,
}

impl Identity {
    /// From a chain (DER, its own certificate first) and its private key (PKCS #8, DER).
    ///
    /// # Errors
    /// If there is no certificate, or the first is malformed.
    pub fn new(chain: Vec<CertificateDer<'static>>, private_key: Secret) -> Result<Self, TlsError> {
        let first = chain.first().ok_or(crate::crypto::CertificateError::Missing)?;
        let leaf = Leaf::read(first)?;
        Ok(Self { chain, leaf, private_key: Arc::new(private_key) })
    }

    /// Reads both from PEM files. The key's file must be for its owner alone.
    ///
    /// # Errors
    /// Names the file and says what is wrong with it.
    pub fn load(certificate: &Path, private_key: &Path) -> Result<Self, TlsError> {
        let chain = read_pem_certificates(certificate)?;
        Self::new(chain, load_private_key(private_key)?)
    }

    /// The facts of its certificate. That the certificate is valid is for others to see.
    pub const fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The chain, its own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Checks that the certificate is that of `actor`.
    ///
    /// # Errors
    /// If it names somebody else.
    pub fn expect(&self, cluster: ClusterId, actor: &Actor) -> Result<(), TlsError> {
        let expected = actor.spiffe_uri(cluster);
        if self.leaf.uri == expected {
            return Ok(());
        }
        Err(TlsError::WrongName { expected, found: self.leaf.uri.clone() })
    }

    /// Signs receipts with this key.
    ///
    /// # Errors
    /// If the certificate is not that of this node, or the key not the certificate's.
    pub fn node_signer(&self, cluster: ClusterId, node: NodeId) -> Result<NodeSigner, TlsError> {
        let chain = self.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
        Ok(NodeSigner::new(cluster, node, chain, self.private_key.expose_secret())?)
    }

    /// The key in the form that rustls takes over.
    pub(super) fn rustls_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.private_key.expose_secret().to_vec()).into()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, [redacted])", self.leaf.uri)
    }
}

fn load_private_key(path: &Path) -> Result<Secret, TlsError> {
    let failed = |source| TlsError::KeyFile { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TlsError::KeyMode { path: path.to_owned(), mode });
    }
    let length = usize::try_from(metadata.len()).unwrap_or(0);
    let mut pem = Zeroizing::new(Vec::with_capacity(length.saturating_add(1)));
    file.read_to_end(&mut pem).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem)
        .map_err(|_| TlsError::KeyContent { path: path.to_owned() })?;
    Ok(Secret::new(key.secret_pkcs8_der().to_vec()))
}
