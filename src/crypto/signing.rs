//! Signatures over statements: a node signs receipts and checkpoints, and whoever got one checks it.
//!
//! A signature counts only if the certificate that came with it ends at the cluster's node CA and names exactly who may
//! sign such a statement.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::domain::{Actor, ClusterId, NodeId, Timestamp};

use super::certificate::{Authority, Leaf, Purpose, escrow_signer_uri};
use super::statement::{
    CheckpointFacts, ReceiptFacts, checkpoint_statement, escrow_key_statement, receipt_statement,
};
use super::{CryptoError, EscrowPublicKey};

/// Most verified chains that a [`StatementVerifier`] remembers; a cluster has a handful of nodes.
const REMEMBERED_CHAINS: usize = 64;

/// A key pair with the certificate that vouches for it.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
    leaf: Leaf,
}

impl Signer {
    /// From a chain of certificates (DER, its own first) and its private key (PKCS #8, DER).
    pub(super) fn new(chain: &[Bytes], private_key: &[u8]) -> Result<Self, CryptoError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private_key)
            .map_err(|_| CryptoError::BadPrivateKey)?;
        let first = chain.first().ok_or(super::CertificateError::Missing)?;
        let leaf = Leaf::read(first)?;
        if pair.public_key().as_ref() != leaf.public_key {
            return Err(CryptoError::KeyMismatch);
        }
        Ok(Self { pair, leaf })
    }

    pub(super) fn expect_uri(&self, expected: &str) -> Result<(), CryptoError> {
        expect_uri(&self.leaf, expected)
    }

    pub(super) fn sign(&self, statement: &[u8]) -> Bytes {
        Bytes::copy_from_slice(self.pair.sign(statement).as_ref())
    }
}

/// Signs receipts and checkpoints with a node's own key.
pub struct NodeSigner {
    cluster: ClusterId,
    node: NodeId,
    chain: Vec<Bytes>,
    signer: Signer,
}

impl NodeSigner {
    /// From the node's chain of certificates (DER, its own first) and its private key (PKCS #8, DER).
    ///
    /// # Errors
    /// If the key is no Ed25519 key or not the certificate's, or the certificate is not this node's.
    pub fn new(
        cluster: ClusterId,
        node: NodeId,
        chain: Vec<Bytes>,
        private_key: &[u8],
    ) -> Result<Self, CryptoError> {
        let signer = Signer::new(&chain, private_key)?;
        signer.expect_uri(&Actor::Node(node).spiffe_uri(cluster))?;
        Ok(Self { cluster, node, chain, signer })
    }

    /// The node's certificate and its issuers, DER, its own first.
    pub fn chain(&self) -> &[Bytes] {
        &self.chain
    }

    /// The node.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Signs a receipt: 64 bytes.
    pub fn sign_receipt(&self, facts: &ReceiptFacts) -> Bytes {
        self.signer.sign(&receipt_statement(self.cluster, facts, self.node))
    }

    /// Signs a checkpoint: 64 bytes.
    pub fn sign_checkpoint(&self, facts: &CheckpointFacts) -> Bytes {
        self.signer.sign(&checkpoint_statement(self.cluster, facts, self.node))
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }
}

impl fmt::Debug for NodeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeSigner(node {}, [redacted])", self.node)
    }
}

/// Checks signed statements of one cluster. Verified chains are remembered, since the same few nodes sign all receipts.
pub struct StatementVerifier {
    cluster: ClusterId,
    node_ca: Authority,
    chains: Mutex<BTreeMap<[u8; 32], Leaf>>,
}

impl StatementVerifier {
    /// For a cluster and the CA that its nodes' certificates end at.
    pub fn new(cluster: ClusterId, node_ca: Authority) -> Self {
        Self { cluster, node_ca, chains: Mutex::new(BTreeMap::new()) }
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Checks that the escrow signer of the cluster signed this escrow key.
    ///
    /// # Errors
    /// Says what is wrong. The key must not be used then.
    pub fn escrow_key(
        &self,
        key: &EscrowPublicKey,
        chain: &[impl AsRef<[u8]>],
        signature: &[u8],
        now: Timestamp,
    ) -> Result<(), CryptoError> {
        if key.cluster != self.cluster {
            return Err(CryptoError::ForeignCluster);
        }
        let leaf = self.leaf(chain, Purpose::EscrowSigner, now)?;
        expect_uri(&leaf, &escrow_signer_uri(self.cluster))?;
        verify(&leaf, &escrow_key_statement(key), signature)
    }

    /// Checks that this node of the cluster signed this receipt. That its facts are those of one's own request is for the
    /// caller to compare.
    ///
    /// # Errors
    /// Says what is wrong. The key that was escrowed must not be used then.
    pub fn receipt(
        &self,
        facts: &ReceiptFacts,
        node: NodeId,
        chain: &[impl AsRef<[u8]>],
        signature: &[u8],
        now: Timestamp,
    ) -> Result<(), CryptoError> {
        let leaf = self.leaf(chain, Purpose::Server, now)?;
        expect_uri(&leaf, &Actor::Node(node).spiffe_uri(self.cluster))?;
        verify(&leaf, &receipt_statement(self.cluster, facts, node), signature)
    }

    /// Checks that this node of the cluster signed this checkpoint, with a certificate that was valid at `when`.
    ///
    /// # Errors
    /// Says what is wrong. The checkpoint proves nothing then.
    pub fn checkpoint(
        &self,
        facts: &CheckpointFacts,
        node: NodeId,
        chain: &[impl AsRef<[u8]>],
        signature: &[u8],
        when: Timestamp,
    ) -> Result<(), CryptoError> {
        let leaf = self.leaf(chain, Purpose::Server, when)?;
        expect_uri(&leaf, &Actor::Node(node).spiffe_uri(self.cluster))?;
        verify(&leaf, &checkpoint_statement(self.cluster, facts, node), signature)
    }

    fn leaf(
        &self,
        chain: &[impl AsRef<[u8]>],
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Leaf, CryptoError> {
        let digest = chain_digest(chain, purpose);
        if let Some(leaf) = self.chains.lock().get(&digest)
            && leaf.not_before <= now
            && now <= leaf.not_after
        {
            return Ok(leaf.clone());
        }
        let leaf = self.node_ca.verify(chain, purpose, now)?;
        let mut chains = self.chains.lock();
        if chains.len() >= REMEMBERED_CHAINS {
            chains.clear();
        }
        chains.insert(digest, leaf.clone());
        Ok(leaf)
    }
}

fn expect_uri(leaf: &Leaf, expected: &str) -> Result<(), CryptoError> {
    if leaf.uri == expected {
        return Ok(());
    }
    Err(CryptoError::WrongSigner { expected: expected.to_owned(), found: leaf.uri.clone() })
}

fn verify(leaf: &Leaf, statement: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
    UnparsedPublicKey::new(&ED25519, leaf.public_key)
        .verify(statement, signature)
        .map_err(|_| CryptoError::BadSignature)
}

fn chain_digest(chain: &[impl AsRef<[u8]>], purpose: Purpose) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([u8::from(purpose == Purpose::EscrowSigner)]);
    for der in chain {
        let der = der.as_ref();
        hash.update(u64::try_from(der.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(der);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
