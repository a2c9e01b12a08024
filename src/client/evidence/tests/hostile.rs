//! Files that nobody of us made.

use holdfast_proto::v1;
use prost::Message as _;
use tonic_types::StatusExt as _;

use super::super::*;
use super::checkpoint::checkpoint;
use super::export::{chain, export, message};
use super::receipt::{facts, signed};
use crate::client::Receipt;
use crate::crypto::testing::{CLUSTER, Order, TestCa, now, rng};
use crate::crypto::{
    CheckpointFacts, KeyringParts, RootKey, Secret, SigningMaterial, escrow_signer_uri,
};
use crate::domain::{Actor, NodeId};
use crate::fuzzing::{NOW, issue, node_ca, signer};

#[test]
fn no_bytes_in_a_file_make_a_verifier_panic() {
    let ca = TestCa::new("node");
    let receipt = signed(&ca.make(&Order::node(1)), facts(now())).to_file().unwrap();
    crate::testing::survives(vec![receipt.into_bytes()], |bytes| {
        SavedReceipt::read(bytes)
            .and_then(|saved| saved.verify(ca.authority(), &ReceiptWanted::default(), now()))
            .is_ok()
    });
    let chain = chain(2, "INC-7");
    let line = checkpoint(&ca, chain[1].head()).to_line().unwrap();
    crate::testing::survives(vec![line.into_bytes()], |bytes| {
        Checkpoint::read_all(bytes, &ca.authority(), now()).is_ok()
    });
    crate::testing::survives(vec![export(&chain).into_bytes()], |bytes| {
        drop(resumable(bytes));
        verify_export(bytes, &[]).is_ok()
    });
}

/// Files and answers that hold, for the corpora of `fuzz/`.
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    let (signer, chain) = (signer(), chain(2, "INC-7"));
    let facts = facts(NOW);
    let receipt = v1::Receipt {
        cluster_id: CLUSTER.to_string(),
        device_id: facts.device.to_string(),
        volume_id: facts.volume.to_string(),
        protector_id: facts.protector.to_string(),
        version: facts.version.get(),
        sealed_digest: facts.sealed_digest.to_vec().into(),
        position: Some(v1::LogPosition { term: facts.term, index: facts.index }),
        audit_head: Some(v1::AuditHead {
            sequence: facts.audit_sequence,
            hash: facts.audit_hash.to_vec().into(),
        }),
        escrowed_at_ms: NOW.as_millis(),
        node_id: 1,
        signature: signer.sign_receipt(&facts),
        signer_chain: signer.chain().to_vec(),
    };
    let node = NodeId::new(1);
    let saved = Receipt { cluster: CLUSTER, facts, node, message: receipt.clone() };
    let facts = CheckpointFacts { head: chain[1].head(), term: 3, index: 99, time: NOW };
    let checkpoint = Checkpoint {
        cluster: CLUSTER,
        facts,
        node,
        signature: signer.sign_checkpoint(&facts),
        signer_chain: signer.chain().to_vec(),
    };
    let head = chain[1].head();
    let page = v1::ListRecordsResponse {
        records: chain.iter().map(message).collect(),
        head: Some(v1::AuditHead { sequence: head.sequence, hash: head.hash.to_vec().into() }),
        ..Default::default()
    };
    let mut details = tonic_types::ErrorDetails::new();
    details.set_error_info("BAD_FIELD", "holdfast", []);
    details.add_bad_request_violation("device_id", "must be a UUID");
    let refusal = tonic::Status::with_error_details(tonic::Code::InvalidArgument, "", details);
    let line = checkpoint.to_line().unwrap();
    let root = RootKey::from_bytes([7; 32]);
    let (certificate, key) = issue(&Actor::Node(node), &escrow_signer_uri(CLUSTER));
    let material =
        SigningMaterial { chain: vec![certificate.into()], private_key: Secret::new(key) };
    let keyring =
        KeyringParts::create(&root, CLUSTER, &material, node_ca(), NOW, &mut rng()).unwrap();
    let escrow_key = v1::GetEscrowKeyResponse {
        cluster_id: CLUSTER.to_string(),
        epoch: 1,
        public_key: keyring.epochs[0].public_key.to_vec().into(),
        signature: keyring.epochs[0].signature.clone(),
        signer_chain: keyring.signer.chain.clone(),
    };
    [
        ("audit_export", "two-records", export(&chain).into_bytes()),
        ("audit_checkpoints", "two", line.repeat(2).into_bytes()),
        ("receipt", "saved", saved.to_file().unwrap().into_bytes()),
        ("server_answer", "escrow-key", escrow_key.encode_to_vec()),
        ("server_answer", "receipt", receipt.encode_to_vec()),
        ("server_answer", "records", page.encode_to_vec()),
        ("server_answer", "refusal", refusal.details().to_vec()),
    ]
    .map(|(target, name, bytes)| (target, name.to_owned(), bytes))
    .into()
}
