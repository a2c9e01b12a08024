//! A checkpoint in a file: a head of the audit chain, signed by a node. A file may hold many, one on each line.

use std::io::BufRead;

use bytes::Bytes;
use holdfast_proto::v1;
use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::{EvidenceError, base64_bytes, hex_bytes, not_after_now};
use crate::client::receipt::hash;
use crate::crypto::{Authority, CheckpointFacts, StatementVerifier};
use crate::domain::{AuditPosition, ClusterId, FieldError, NodeId, Timestamp};

const FORMAT: &str = "holdfast audit checkpoint v1";
const WHAT: &str = "checkpoint";

/// A checkpoint as its line has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: String,
    cluster_id: String,
    sequence: u64,
    #[serde(with = "hex_bytes")]
    hash: [u8; 32],
    term: u64,
    index: u64,
    time_ms: u64,
    node_id: u64,
    #[serde(with = "base64_bytes")]
    signature: Bytes,
    #[serde(with = "base64_bytes::list")]
    signer_chain: Vec<Bytes>,
}

/// A head of the audit chain with a node's signature, which [`Checkpoint::verify`] looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The cluster.
    pub cluster: ClusterId,
    /// What is signed.
    pub facts: CheckpointFacts,
    /// The node that signed.
    pub node: NodeId,
    /// Its signature.
    pub signature: Bytes,
    /// Its certificate and its issuers, DER, the node first.
    pub signer_chain: Vec<Bytes>,
}

impl Checkpoint {
    /// From a server's answer.
    ///
    /// # Errors
    /// If a field is missing or not well-formed.
    pub fn from_message(message: v1::AuditCheckpoint) -> Result<Self, FieldError> {
        let missing = |name: &'static str| FieldError::new(name, "is missing");
        let head = message.head.ok_or_else(|| missing("checkpoint.head"))?;
        let position = message.position.ok_or_else(|| missing("checkpoint.position"))?;
        Ok(Self {
            cluster: message.cluster_id.parse()?,
            facts: CheckpointFacts {
                head: AuditPosition {
                    sequence: head.sequence,
                    hash: hash(&head.hash, "checkpoint.head.hash")?,
                },
                term: position.term,
                index: position.index,
                time: Timestamp::from_millis(message.time_ms),
            },
            node: NodeId::new(message.node_id),
            signature: message.signature,
            signer_chain: message.signer_chain,
        })
    }

    /// The checkpoint as one line of JSON, with the newline that ends it.
    ///
    /// # Errors
    /// Never expected: JSON takes every checkpoint.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        let line = Line {
            format: FORMAT.to_owned(),
            cluster_id: self.cluster.to_string(),
            sequence: self.facts.head.sequence,
            hash: self.facts.head.hash,
            term: self.facts.term,
            index: self.facts.index,
            time_ms: self.facts.time.as_millis(),
            node_id: self.node.get(),
            signature: self.signature.clone(),
            signer_chain: self.signer_chain.clone(),
        };
        serde_json::to_string(&line).map(|text| text + "\n")
    }

    /// Reads one line, without its newline.
    ///
    /// # Errors
    /// If it is no checkpoint.
    pub fn from_line(line: &[u8]) -> Result<Self, EvidenceError> {
        let line: Line = serde_json::from_slice(line)
            .map_err(|error| EvidenceError::Malformed { what: WHAT, fault: error.to_string() })?;
        if line.format != FORMAT {
            return Err(EvidenceError::Format { expected: FORMAT, found: line.format });
        }
        Ok(Self {
            cluster: line.cluster_id.parse()?,
            facts: CheckpointFacts {
                head: AuditPosition { sequence: line.sequence, hash: line.hash },
                term: line.term,
                index: line.index,
                time: Timestamp::from_millis(line.time_ms),
            },
            node: NodeId::new(line.node_id),
            signature: line.signature,
            signer_chain: line.signer_chain,
        })
    }

    /// Verifies that a node of its cluster signed it, with a certificate of the CA that was valid then.
    ///
    /// # Errors
    /// Names the check that failed.
    pub fn verify(&self, node_ca: &Authority, now: Timestamp) -> Result<(), EvidenceError> {
        not_after_now(self.facts.time, now)?;
        let verifier = StatementVerifier::new(self.cluster, node_ca.clone());
        let (chain, time) = (&self.signer_chain, self.facts.time);
        verifier
            .checkpoint(&self.facts, self.node, chain, &self.signature, time)
            .map_err(|source| EvidenceError::Signature { node: self.node, source })
    }

    /// Reads a file with one checkpoint on each line, and verifies all of them.
    ///
    /// # Errors
    /// Names the line and the check that failed; also if there is none.
    pub fn read_all(
        reader: impl BufRead,
        node_ca: &Authority,
        now: Timestamp,
    ) -> Result<Vec<Self>, EvidenceError> {
        let mut lines = Lines::new(reader);
        let mut checkpoints = Vec::new();
        while let Some(line) = lines.next_line()? {
            let checkpoint = line.whole().and_then(Self::from_line).and_then(|checkpoint| {
                checkpoint.verify(node_ca, now)?;
                Ok(checkpoint)
            });
            checkpoints.push(checkpoint.map_err(|error| error.at_line(line.number))?);
        }
        if checkpoints.is_empty() {
            return Err(EvidenceError::Malformed { what: WHAT, fault: "it is empty".to_owned() });
        }
        Ok(checkpoints)
    }
}
