//! Files and answers that a client does not trust.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::v1;
use prost::Message;
use tonic::{Code, Status};

use super::chain::ChainVerifier;
use super::escrow::stated;
use super::evidence::{Checkpoint, ReceiptWanted, SavedReceipt, resumable, verify_export};
use super::receipt::{Expected, Receipt};
use super::{Refusal, with_causes};
use crate::crypto::StatementVerifier;
use crate::domain::{DeviceId, KeyVersion, ProtectorId, VolumeId};
use crate::fuzzing::{CLUSTER, NOW, node_ca};

/// What every receipt here is for.
const EXPECTED: Expected = Expected {
    cluster: CLUSTER,
    device: DeviceId::from_bytes([0xd1; 16]),
    volume: VolumeId::from_bytes([2; 16]),
    protector: ProtectorId::from_bytes([3; 16]),
    version: KeyVersion::new(4),
    sealed_digest: [5; 32],
};

/// An export that verifies is complete; one that can be resumed is no longer than its file.
pub(crate) fn audit_export(bytes: &[u8]) -> bool {
    let left = resumable(bytes);
    let verified = verify_export(bytes, &[]);
    if let Ok(left) = &left {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        assert!(left.length <= length, "{} of {length} bytes are good", left.length);
    }
    if let Err(error) = &verified {
        assert!(!error.to_string().is_empty());
    }
    verified.is_ok_and(|verified| {
        assert!(left.is_ok_and(|left| left.complete), "it verifies, and is not complete");
        assert_eq!(verified.records, verified.end.sequence - verified.head.first + 1);
        true
    })
}

/// A file of checkpoints.
pub(crate) fn audit_checkpoints(bytes: &[u8]) -> bool {
    Checkpoint::read_all(bytes, node_ca(), NOW).is_ok()
}

/// A receipt in a file, and the request that it should be for.
pub(crate) fn receipt(bytes: &[u8]) -> bool {
    let wanted = ReceiptWanted::of_request(bytes);
    let read = SavedReceipt::read(bytes);
    let verified = read
        .and_then(|saved| saved.verify(node_ca().clone(), &ReceiptWanted::default(), NOW))
        .is_ok();
    verified || wanted.is_ok()
}

/// A server's escrow key, its answer to an escrow or to a question for records, or its refusal.
pub(crate) fn server_answer(bytes: &[u8]) -> bool {
    [escrow_key(bytes), escrowed(bytes), records(bytes), checkpoint(bytes), refused(bytes)]
        .contains(&true)
}

fn escrow_key(bytes: &[u8]) -> bool {
    let Ok(answer) = v1::GetEscrowKeyResponse::decode(bytes) else { return false };
    let Ok(key) = stated(&answer) else { return false };
    verifier().escrow_key(&key, &answer.signer_chain, &answer.signature, NOW).is_ok()
}

fn verifier() -> Arc<StatementVerifier> {
    Arc::new(StatementVerifier::new(CLUSTER, node_ca().clone()))
}

fn escrowed(bytes: &[u8]) -> bool {
    let Ok(message) = v1::Receipt::decode(bytes) else { return false };
    Receipt::check(message, &EXPECTED, &verifier(), NOW).is_ok_and(|receipt| {
        assert_eq!(receipt.facts.sealed_digest, EXPECTED.sealed_digest);
        true
    })
}

fn records(bytes: &[u8]) -> bool {
    let Ok(page) = v1::ListRecordsResponse::decode(bytes) else { return false };
    let mut chain = ChainVerifier::new();
    let holds = page.records.iter().all(|record| match chain.take(record) {
        Ok(()) => true,
        Err(error) => {
            assert!(!with_causes(&error).is_empty());
            false
        }
    });
    holds && page.head.is_some_and(|head| chain.finish(&head).is_ok())
}

fn checkpoint(bytes: &[u8]) -> bool {
    let Ok(message) = v1::AuditCheckpoint::decode(bytes) else { return false };
    let checkpoint = Checkpoint::from_message(message);
    checkpoint.is_ok_and(|checkpoint| checkpoint.verify(node_ca(), NOW).is_ok())
}

fn refused(bytes: &[u8]) -> bool {
    let status = Status::with_details(Code::Internal, "", Bytes::copy_from_slice(bytes));
    let refusal = Refusal::from_status(&status);
    assert!(!refusal.to_string().is_empty());
    !refusal.reason.is_empty()
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    super::evidence::seeds()
}
