//! The statements that are signed, byte by byte. `docs/formats-sealing.md` and
//! `docs/formats-evidence.md` repeat them.
//!
//! Each begins with a label of its own that ends in a zero byte, and every field has a fixed length, so that no
//! statement can be read as another one.

use crate::domain::{
    AuditPosition, ClusterId, DeviceId, KeyVersion, NodeId, ProtectorId, Timestamp, VolumeId,
};

use super::EscrowPublicKey;

const ESCROW_KEY: &[u8] = b"holdfast escrow key v1\0";
const RECEIPT: &[u8] = b"holdfast receipt v1\0";
const CHECKPOINT: &[u8] = b"holdfast audit checkpoint v1\0";

/// The facts of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptFacts {
    /// Device that escrowed the key.
    pub device: DeviceId,
    /// Volume that it opens.
    pub volume: VolumeId,
    /// Its id.
    pub protector: ProtectorId,
    /// Version that it got.
    pub version: KeyVersion,
    /// SHA-256 of the sealed bytes as first received; see [`crate::domain::sealed_digest`].
    pub sealed_digest: [u8; 32],
    /// Term of the entry that stored it.
    pub term: u64,
    /// Index of the entry that stored it.
    pub index: u64,
    /// Number of the audit record of that entry.
    pub audit_sequence: u64,
    /// Hash of the audit record of that entry.
    pub audit_hash: [u8; 32],
    /// When it was stored.
    pub escrowed_at: Timestamp,
}

/// The facts of a checkpoint: where the audit chain stood on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Number and hash of the newest audit record.
    pub head: AuditPosition,
    /// Term of the last entry that the node had applied.
    pub term: u64,
    /// Index of the last entry that the node had applied.
    pub index: u64,
    /// When it was signed, by the node's clock.
    pub time: Timestamp,
}

/// What the escrow signer signs: that this is the public key of this epoch of this cluster.
pub fn escrow_key_statement(key: &EscrowPublicKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ESCROW_KEY.len().saturating_add(52));
    bytes.extend_from_slice(ESCROW_KEY);
    bytes.extend_from_slice(key.cluster.as_bytes());
    bytes.extend_from_slice(&key.epoch.get().to_be_bytes());
    bytes.extend_from_slice(&key.key);
    bytes
}

/// What a node signs: that the cluster stores this key.
pub fn receipt_statement(cluster: ClusterId, facts: &ReceiptFacts, node: NodeId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECEIPT.len().saturating_add(172));
    bytes.extend_from_slice(RECEIPT);
    bytes.extend_from_slice(cluster.as_bytes());
    bytes.extend_from_slice(facts.device.as_bytes());
    bytes.extend_from_slice(facts.volume.as_bytes());
    bytes.extend_from_slice(facts.protector.as_bytes());
    bytes.extend_from_slice(&facts.version.get().to_be_bytes());
    bytes.extend_from_slice(&facts.sealed_digest);
    bytes.extend_from_slice(&facts.term.to_be_bytes());
    bytes.extend_from_slice(&facts.index.to_be_bytes());
    bytes.extend_from_slice(&facts.audit_sequence.to_be_bytes());
    bytes.extend_from_slice(&facts.audit_hash);
    bytes.extend_from_slice(&facts.escrowed_at.as_millis().to_be_bytes());
    bytes.extend_from_slice(&node.get().to_be_bytes());
    bytes
}

/// What a node signs: that the audit chain had this head.
pub fn checkpoint_statement(cluster: ClusterId, facts: &CheckpointFacts, node: NodeId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHECKPOINT.len().saturating_add(88));
    bytes.extend_from_slice(CHECKPOINT);
    bytes.extend_from_slice(cluster.as_bytes());
    bytes.extend_from_slice(&facts.head.sequence.to_be_bytes());
    bytes.extend_from_slice(&facts.head.hash);
    bytes.extend_from_slice(&facts.term.to_be_bytes());
    bytes.extend_from_slice(&facts.index.to_be_bytes());
    bytes.extend_from_slice(&facts.time.as_millis().to_be_bytes());
    bytes.extend_from_slice(&node.get().to_be_bytes());
    bytes
}
