//! A receipt in a file, and its verification years later.

use std::io::Read;

use bytes::Bytes;
use holdfast_proto::v1;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::{EvidenceError, base64_bytes, hex_bytes, not_after_now, read_bounded, read_statement};
use crate::client::Receipt;
use crate::client::receipt::{Expected, facts};
use crate::crypto::{Authority, CryptoError, Leaf, ReceiptFacts, StatementVerifier, chain_begins};
use crate::domain::{
    ClusterId, DeviceId, KeyVersion, NodeId, ProtectorId, Timestamp, VolumeId, limits,
};

const FORMAT: &str = "holdfast receipt v1";
const WHAT: &str = "receipt";

/// A receipt as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    cluster_id: String,
    device_id: String,
    volume_id: String,
    protector_id: String,
    version: u32,
    #[serde(with = "hex_bytes")]
    sealed_digest: [u8; 32],
    term: u64,
    index: u64,
    audit_sequence: u64,
    #[serde(with = "hex_bytes")]
    audit_hash: [u8; 32],
    escrowed_at_ms: u64,
    node_id: u64,
    #[serde(with = "base64_bytes")]
    signature: Bytes,
    #[serde(with = "base64_bytes::list")]
    signer_chain: Vec<Bytes>,
}

impl File {
    fn of(receipt: &Receipt) -> Self {
        let facts = &receipt.facts;
        Self {
            format: FORMAT.to_owned(),
            cluster_id: receipt.cluster.to_string(),
            device_id: facts.device.to_string(),
            volume_id: facts.volume.to_string(),
            protector_id: facts.protector.to_string(),
            version: facts.version.get(),
            sealed_digest: facts.sealed_digest,
            term: facts.term,
            index: facts.index,
            audit_sequence: facts.audit_sequence,
            audit_hash: facts.audit_hash,
            escrowed_at_ms: facts.escrowed_at.as_millis(),
            node_id: receipt.node.get(),
            signature: receipt.message.signature.clone(),
            signer_chain: receipt.message.signer_chain.clone(),
        }
    }

    fn into_message(self) -> v1::Receipt {
        v1::Receipt {
            cluster_id: self.cluster_id,
            device_id: self.device_id,
            volume_id: self.volume_id,
            protector_id: self.protector_id,
            version: self.version,
            sealed_digest: Bytes::copy_from_slice(&self.sealed_digest),
            position: Some(v1::LogPosition { term: self.term, index: self.index }),
            audit_head: Some(v1::AuditHead {
                sequence: self.audit_sequence,
                hash: Bytes::copy_from_slice(&self.audit_hash),
            }),
            escrowed_at_ms: self.escrowed_at_ms,
            node_id: self.node_id,
            signature: self.signature,
            signer_chain: self.signer_chain,
        }
    }
}

impl Receipt {
    /// The receipt as a file keeps it: everything that its verification takes, but for the pinned CA.
    ///
    /// # Errors
    /// Never expected: JSON takes every receipt.
    pub fn to_file(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&File::of(self)).map(|text| text + "\n")
    }
}

/// What a receipt must say; what is `None` may be anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiptWanted {
    /// The cluster.
    pub cluster: Option<ClusterId>,
    /// The device that escrowed the key.
    pub device: Option<DeviceId>,
    /// The volume that the key opens.
    pub volume: Option<VolumeId>,
    /// The key's id.
    pub protector: Option<ProtectorId>,
    /// The version that the key got.
    pub version: Option<KeyVersion>,
    /// The digest of the sealed bytes.
    pub sealed_digest: Option<[u8; 32]>,
}

impl ReceiptWanted {
    /// What the receipt for a request must say. An agent keeps its encoded `EscrowRecoveryKeyRequest` until it has one.
    ///
    /// # Errors
    /// If it can't be read, is too large, or is no such request.
    pub fn of_request(reader: impl Read) -> Result<Self, EvidenceError> {
        const WHAT: &str = "sealed escrow request";
        let most = u64::try_from(limits::MESSAGE_BYTES).unwrap_or(u64::MAX);
        let bytes = read_bounded(reader, WHAT, most)?;
        let request = v1::EscrowRecoveryKeyRequest::decode(bytes.as_slice())
            .map_err(|error| EvidenceError::Malformed { what: WHAT, fault: error.to_string() })?;
        // Of which cluster it is doesn't stand in it.
        let cluster = ClusterId::from_bytes([0; 16]);
        let expected = Expected::of_request(cluster, &request)?;
        Ok(Self {
            cluster: None,
            device: Some(expected.device),
            volume: Some(expected.volume),
            protector: Some(expected.protector),
            version: Some(expected.version),
            sealed_digest: Some(expected.sealed_digest),
        })
    }

    /// The first thing that a receipt says otherwise.
    fn compare(&self, facts: &ReceiptFacts) -> Result<(), EvidenceError> {
        fn same<T: PartialEq>(
            what: &'static str,
            stated: &T,
            wanted: Option<&T>,
            show: impl Fn(&T) -> String,
        ) -> Result<(), EvidenceError> {
            match wanted {
                Some(wanted) if wanted != stated => Err(EvidenceError::Differs {
                    what,
                    stated: show(stated),
                    expected: show(wanted),
                }),
                Some(_) | None => Ok(()),
            }
        }
        same("device", &facts.device, self.device.as_ref(), ToString::to_string)?;
        same("volume", &facts.volume, self.volume.as_ref(), ToString::to_string)?;
        same("key id", &facts.protector, self.protector.as_ref(), ToString::to_string)?;
        same("version", &facts.version, self.version.as_ref(), |version| {
            version.get().to_string()
        })?;
        let digest = self.sealed_digest.as_ref();
        same("sealed digest", &facts.sealed_digest, digest, |digest| hex::encode(digest))
    }
}

/// A receipt that was read from a file. Nothing of it is verified yet.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedReceipt {
    cluster: ClusterId,
    facts: ReceiptFacts,
    message: v1::Receipt,
}

/// A receipt from a file that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedReceipt {
    /// The receipt.
    pub receipt: Receipt,
    /// The certificate that it was signed with.
    pub signer: Leaf,
}

impl SavedReceipt {
    /// Reads it.
    ///
    /// # Errors
    /// If it can't be read, is too large, or is no receipt.
    pub fn read(reader: impl Read) -> Result<Self, EvidenceError> {
        let bytes = read_statement(reader, WHAT)?;
        let file: File = serde_json::from_slice(&bytes)
            .map_err(|error| EvidenceError::Malformed { what: WHAT, fault: error.to_string() })?;
        if file.format != FORMAT {
            return Err(EvidenceError::Format { expected: FORMAT, found: file.format });
        }
        let cluster = file.cluster_id.parse()?;
        let message = file.into_message();
        Ok(Self { cluster, facts: facts(&message)?, message })
    }

    /// Verifies it: it says what is wanted, and a node of the cluster signed it with a certificate of the CA that was valid
    /// at the time of the escrow or came into force later. The latter is a receipt that was given once more, by a node that
    /// has renewed its certificate or joined since; who has the key of such a certificate can't be told from one who had it
    /// then. A certificate that had expired before the escrow is refused; one that has expired since is not.
    ///
    /// # Errors
    /// Names the check that failed.
    pub fn verify(
        self,
        node_ca: Authority,
        wanted: &ReceiptWanted,
        now: Timestamp,
    ) -> Result<VerifiedReceipt, EvidenceError> {
        let Self { cluster, facts, message } = self;
        if let Some(expected) = wanted.cluster.filter(|expected| *expected != cluster) {
            return Err(EvidenceError::Cluster { stated: cluster, expected });
        }
        wanted.compare(&facts)?;
        let node = NodeId::new(message.node_id);
        let failed = |source: CryptoError| EvidenceError::Signature { node, source };
        let begins = chain_begins(&message.signer_chain).map_err(|error| failed(error.into()))?;
        let signed = facts.escrowed_at.max(begins);
        not_after_now(signed, now)?;
        let verifier = StatementVerifier::new(cluster, node_ca);
        verifier
            .receipt(&facts, node, &message.signer_chain, &message.signature, signed)
            .map_err(failed)?;
        let first = message.signer_chain.first().map(Bytes::as_ref).unwrap_or_default();
        let signer = Leaf::read(first).map_err(|error| failed(error.into()))?;
        Ok(VerifiedReceipt { receipt: Receipt { cluster, facts, node, message }, signer })
    }
}
