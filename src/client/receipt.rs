//! Receipts: the proof that a majority has a sealed key on disk.

use holdfast_proto::v1;

use super::error::ClientError;
use crate::crypto::{ReceiptFacts, StatementVerifier};
use crate::domain::{
    ClusterId, DeviceId, Epoch, FieldError, KeyVersion, NodeId, ProtectorId, Sealed, Timestamp,
    VolumeId, limits, sealed_digest,
};

/// What a receipt must say to be the one for an escrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) cluster: ClusterId,
    pub(super) device: DeviceId,
    pub(super) volume: VolumeId,
    pub(super) protector: ProtectorId,
    pub(super) version: KeyVersion,
    pub(super) sealed_digest: [u8; 32],
}

impl Expected {
    /// What the escrow must have been for a receipt to be its own.
    pub(super) const fn of_receipt(receipt: &Receipt) -> Self {
        Self::stated(receipt.cluster, &receipt.facts)
    }

    const fn stated(cluster: ClusterId, facts: &ReceiptFacts) -> Self {
        Self {
            cluster,
            device: facts.device,
            volume: facts.volume,
            protector: facts.protector,
            version: facts.version,
            sealed_digest: facts.sealed_digest,
        }
    }

    /// What the receipt for a request must say.
    pub(super) fn of_request(
        cluster: ClusterId,
        request: &v1::EscrowRecoveryKeyRequest,
    ) -> Result<Self, FieldError> {
        let key = request.sealed_key.as_ref();
        let key = key.ok_or_else(|| FieldError::new("sealed_key", "is missing"))?;
        let key = sealed("sealed_key", key, limits::SEALED_KEY_BYTES)?;
        let package = request.sealed_key_package.as_ref();
        let package = package
            .map(|part| sealed("sealed_key_package", part, limits::SEALED_PACKAGE_BYTES))
            .transpose()?;
        let version = KeyVersion::new(request.expected_version).next();
        Ok(Self {
            cluster,
            device: request.device_id.parse()?,
            volume: request.volume_id.parse()?,
            protector: request.protector_id.parse()?,
            version: version.ok_or_else(|| FieldError::new("expected_version", "is the last"))?,
            sealed_digest: sealed_digest(&key, package.as_ref()),
        })
    }
}

fn sealed(field: &'static str, message: &v1::SealedKey, most: usize) -> Result<Sealed, FieldError> {
    let (epoch, ciphertext) = (Epoch::new(message.epoch), message.ciphertext.clone());
    Sealed::new(field, epoch, &message.encapsulated_key, ciphertext, most)
}

/// A receipt that was checked: it is for what was sent, and a node of the cluster signed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The cluster.
    pub cluster: ClusterId,
    /// What was stored, where and when.
    pub facts: ReceiptFacts,
    /// The node that signed.
    pub node: NodeId,
    /// The receipt as it came, to be kept as evidence.
    pub message: v1::Receipt,
}

impl Receipt {
    /// Checks a receipt against what was sent, then its signature and chain.
    pub(super) fn check(
        message: v1::Receipt,
        expected: &Expected,
        verifier: &StatementVerifier,
        now: Timestamp,
    ) -> Result<Self, ClientError> {
        let malformed = |error: FieldError| ClientError::Receipt(error.to_string());
        let facts = facts(&message).map_err(malformed)?;
        let cluster: ClusterId = message.cluster_id.parse().map_err(malformed)?;
        let stated = Expected::stated(cluster, &facts);
        if let Some(what) = difference(&stated, expected) {
            return Err(ClientError::Receipt(format!("it is for another {what}")));
        }
        let node = NodeId::new(message.node_id);
        verifier
            .receipt(&facts, node, &message.signer_chain, &message.signature, now)
            .map_err(|error| ClientError::Receipt(error.to_string()))?;
        Ok(Self { cluster, facts, node, message })
    }
}

fn difference(stated: &Expected, expected: &Expected) -> Option<&'static str> {
    let checks = [
        (stated.cluster == expected.cluster, "cluster"),
        (stated.device == expected.device, "device"),
        (stated.volume == expected.volume, "volume"),
        (stated.protector == expected.protector, "key id"),
        (stated.version == expected.version, "version"),
        (stated.sealed_digest == expected.sealed_digest, "sealed key"),
    ];
    checks.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
}

/// The facts that a receipt states. Nobody vouches for them before its signature is verified.
pub(super) fn facts(message: &v1::Receipt) -> Result<ReceiptFacts, FieldError> {
    let missing = |name: &'static str| FieldError::new(name, "is missing");
    let position = message.position.as_ref().ok_or_else(|| missing("position"))?;
    let head = message.audit_head.as_ref().ok_or_else(|| missing("audit_head"))?;
    Ok(ReceiptFacts {
        device: message.device_id.parse()?,
        volume: message.volume_id.parse()?,
        protector: message.protector_id.parse()?,
        version: KeyVersion::new(message.version),
        sealed_digest: hash(&message.sealed_digest, "sealed_digest")?,
        term: position.term,
        index: position.index,
        audit_sequence: head.sequence,
        audit_hash: hash(&head.hash, "audit_head.hash")?,
        escrowed_at: Timestamp::from_millis(message.escrowed_at_ms),
    })
}

/// A digest or hash of a message.
pub(super) fn hash(bytes: &[u8], name: &'static str) -> Result<[u8; 32], FieldError> {
    bytes.try_into().map_err(|_| FieldError::new(name, "must have 32 bytes"))
}
