//! The one error of this layer. No variant holds any byte of a secret.

use std::path::PathBuf;

use crate::domain::Epoch;

use super::{CertificateError, RootKeyFault};

/// Sealing, opening, unlocking, signing or verifying failed.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    /// What is to be sealed does not fit.
    #[error("{what} of {bytes} bytes can't be sealed; {allowed} are allowed")]
    PlaintextLength {
        /// The recovery key or the key package.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// What would be right.
        allowed: &'static str,
    },
    /// A recovery key to be sealed ends in a zero byte, which the padding could not be told from.
    #[error("a recovery key can't end in a zero byte")]
    PlaintextEnd,
    /// The escrow public key is no usable X25519 key (a point of small order).
    #[error("the escrow public key is not usable")]
    BadPublicKey,
    /// The sealed bytes are not those that were sealed to this key for this purpose: another key, device, volume, key id,
    /// kind, version, epoch or part, or changed bytes.
    #[error("the sealed bytes don't open: they are damaged or belong to something else")]
    DoesNotOpen,
    /// The keyring holds no such epoch.
    #[error("the keyring has no epoch {0}")]
    UnknownEpoch(Epoch),
    /// The keyring's epochs are not 1, 2, 3 and so on, or there is none.
    #[error("the keyring's epochs are not numbered 1, 2, 3 ...")]
    BadEpochs,
    /// The last epoch has the greatest number that there is.
    #[error("there is no epoch after {0}")]
    NoMoreEpochs(Epoch),
    /// The root key file can't be used.
    #[error("root key file {}: {fault}", path.display())]
    RootKeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        fault: RootKeyFault,
    },
    /// The root key is not the one that the cluster was made with.
    #[error("the root key is not the one that this cluster was made with")]
    WrongRootKey,
    /// Something wrapped by the root key is damaged, although the root key is right.
    #[error("{0} in the keyring is damaged")]
    DamagedKeyring(&'static str),
    /// Sealing to an epoch's public key and opening again did not give the same bytes.
    #[error("the self-test of epoch {0} failed: what is sealed to it does not open")]
    SelfTest(Epoch),
    /// A private key is no Ed25519 key in PKCS #8.
    #[error("the private key is not an Ed25519 key in PKCS #8")]
    BadPrivateKey,
    /// A private key does not belong to the certificate that came with it.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// A signer's certificate is not acceptable.
    #[error("the signer's certificate is not acceptable")]
    Signer(#[from] CertificateError),
    /// A valid certificate, but of somebody else.
    #[error("signed by {found}, expected {expected}")]
    WrongSigner {
        /// Who may sign this.
        expected: String,
        /// Who did.
        found: String,
    },
    /// The signature is not over this statement.
    #[error("the signature is wrong")]
    BadSignature,
    /// The statement is about another cluster.
    #[error("the statement is of another cluster")]
    ForeignCluster,
    /// There is no CA of devices yet.
    #[error("there is no agent CA yet")]
    NoAgentCa,
    /// The CA of devices signs nothing any more.
    #[error("agent CA {0} has expired")]
    AgentCaExpired(u32),
    /// The library refused; never expected.
    #[error("{0} failed")]
    Library(&'static str),
}
