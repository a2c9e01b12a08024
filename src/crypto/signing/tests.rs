use super::*;
use crate::crypto::testing::{CLUSTER, DEVICE, Made, Order, TestCa, days_from_now, now, operator};
use crate::crypto::{CertificateError, statement};
use crate::domain::{AuditPosition, Epoch, KeyVersion, ProtectorId, VolumeId};

fn facts() -> ReceiptFacts {
    ReceiptFacts {
        device: DEVICE,
        volume: VolumeId::from_bytes([2; 16]),
        protector: ProtectorId::from_bytes([3; 16]),
        version: KeyVersion::new(4),
        sealed_digest: [5; 32],
        term: 6,
        index: 7,
        audit_sequence: 8,
        audit_hash: [9; 32],
        escrowed_at: Timestamp::from_millis(10),
    }
}

fn node_signer(made: &Made, node: u64) -> Result<NodeSigner, CryptoError> {
    NodeSigner::new(CLUSTER, NodeId::new(node), made.chain(), &made.private_key)
}

#[test]
fn a_receipt_of_a_node_is_accepted_and_a_changed_one_is_not() {
    let ca = TestCa::new("node");
    let signer = node_signer(&ca.make(&Order::node(1)), 1).unwrap();
    let verifier = StatementVerifier::new(CLUSTER, ca.authority());
    let signature = signer.sign_receipt(&facts());
    let check = |facts: &ReceiptFacts, node| {
        verifier.receipt(facts, NodeId::new(node), signer.chain(), &signature, now())
    };
    check(&facts(), 1).unwrap();
    let others = [
        ReceiptFacts { device: crate::domain::DeviceId::from_bytes([0; 16]), ..facts() },
        ReceiptFacts { volume: VolumeId::from_bytes([0; 16]), ..facts() },
        ReceiptFacts { protector: ProtectorId::from_bytes([0; 16]), ..facts() },
        ReceiptFacts { version: KeyVersion::new(0), ..facts() },
        ReceiptFacts { sealed_digest: [0; 32], ..facts() },
        ReceiptFacts { term: 0, ..facts() },
        ReceiptFacts { index: 0, ..facts() },
        ReceiptFacts { audit_sequence: 0, ..facts() },
        ReceiptFacts { audit_hash: [0; 32], ..facts() },
        ReceiptFacts { escrowed_at: Timestamp::from_millis(0), ..facts() },
    ];
    for other in &others {
        assert!(matches!(check(other, 1), Err(CryptoError::BadSignature)), "{other:?}");
    }
    assert!(matches!(check(&facts(), 2), Err(CryptoError::WrongSigner { .. })), "another node");
    for length in [0, 63] {
        let cut = &signature[..length];
        let node = NodeId::new(1);
        assert!(verifier.receipt(&facts(), node, signer.chain(), cut, now()).is_err());
    }
}

#[test]
fn only_a_node_of_the_pinned_ca_signs_receipts() {
    let ca = TestCa::new("node");
    let verifier = StatementVerifier::new(CLUSTER, ca.authority());
    let try_signer = |made: &Made| {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&made.private_key).unwrap();
        let signature = pair.sign(&receipt_statement(CLUSTER, &facts(), NodeId::new(1)));
        verifier.receipt(&facts(), NodeId::new(1), &made.chain(), signature.as_ref(), now())
    };
    try_signer(&ca.make(&Order::node(1))).unwrap();
    let foreign = try_signer(&TestCa::new("node").make(&Order::node(1))).unwrap_err();
    assert!(matches!(foreign, CryptoError::Signer(CertificateError::ForeignCa("node"))));
    let node_two = try_signer(&ca.make(&Order::node(2))).unwrap_err();
    assert!(matches!(node_two, CryptoError::WrongSigner { .. }), "{node_two}");
    let escrow_signer = try_signer(&ca.make(&Order::escrow_signer())).unwrap_err();
    assert!(matches!(escrow_signer, CryptoError::Signer(CertificateError::WrongPurpose)));
    let person = try_signer(&ca.make(&Order::actor(&operator("alice")))).unwrap_err();
    assert!(matches!(person, CryptoError::WrongSigner { .. }));
    let expired = try_signer(&ca.make(&Order::node(1).expired())).unwrap_err();
    assert!(matches!(expired, CryptoError::Signer(CertificateError::Expired)));
    let none: [Bytes; 0] = [];
    let error = verifier.receipt(&facts(), NodeId::new(1), &none, &[0; 64], now()).unwrap_err();
    assert!(matches!(error, CryptoError::Signer(CertificateError::Missing)));
}

#[test]
fn an_escrow_key_is_accepted_from_the_escrow_signer_only() {
    let ca = TestCa::new("node");
    let verifier = StatementVerifier::new(CLUSTER, ca.authority());
    let key = EscrowPublicKey { cluster: CLUSTER, epoch: Epoch::new(1), key: [7; 32] };
    let sign = |made: &Made| {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&made.private_key).unwrap();
        pair.sign(&escrow_key_statement(&key)).as_ref().to_vec()
    };
    let made = ca.make(&Order::escrow_signer());
    verifier.escrow_key(&key, &made.chain(), &sign(&made), now()).unwrap();
    let substituted = EscrowPublicKey { key: [8; 32], ..key };
    let error = verifier.escrow_key(&substituted, &made.chain(), &sign(&made), now());
    assert!(matches!(error, Err(CryptoError::BadSignature)));
    let epoch = EscrowPublicKey { epoch: Epoch::new(2), ..key };
    assert!(verifier.escrow_key(&epoch, &made.chain(), &sign(&made), now()).is_err());
    // A node that is compromised can't put its own key in the place of the cluster's.
    let node = ca.make(&Order::node(1));
    let error = verifier.escrow_key(&key, &node.chain(), &sign(&node), now()).unwrap_err();
    assert!(matches!(error, CryptoError::Signer(CertificateError::WrongPurpose)), "{error}");
    let foreign = EscrowPublicKey { cluster: ClusterId::from_bytes([1; 16]), ..key };
    let error = verifier.escrow_key(&foreign, &made.chain(), &sign(&made), now());
    assert!(matches!(error, Err(CryptoError::ForeignCluster)));
}

#[test]
fn a_remembered_chain_is_checked_for_expiry_and_for_its_purpose_all_the_same() {
    let ca = TestCa::new("node");
    let verifier = StatementVerifier::new(CLUSTER, ca.authority());
    let signer = node_signer(&ca.make(&Order::node(1)), 1).unwrap();
    let signature = signer.sign_receipt(&facts());
    let at = |time| verifier.receipt(&facts(), signer.node(), signer.chain(), &signature, time);
    at(now()).unwrap();
    assert_eq!(verifier.chains.lock().len(), 1);
    at(now()).unwrap();
    assert_eq!(verifier.chains.lock().len(), 1);
    let error = at(days_from_now(31)).unwrap_err();
    assert!(matches!(error, CryptoError::Signer(CertificateError::Expired)));
    let key = EscrowPublicKey { cluster: CLUSTER, epoch: Epoch::new(1), key: [7; 32] };
    let error = verifier.escrow_key(&key, signer.chain(), &signature, now()).unwrap_err();
    assert!(matches!(error, CryptoError::Signer(CertificateError::WrongPurpose)));
}

#[test]
fn a_stranger_cannot_make_the_verifier_remember_without_bound() {
    let ca = TestCa::new("node");
    let verifier = StatementVerifier::new(CLUSTER, ca.authority());
    for node in 1..100 {
        let signer = node_signer(&ca.make(&Order::node(node)), node).unwrap();
        let signature = signer.sign_receipt(&facts());
        let node = signer.node();
        verifier.receipt(&facts(), node, signer.chain(), &signature, now()).unwrap();
        assert!(verifier.chains.lock().len() <= REMEMBERED_CHAINS);
    }
}

#[test]
fn a_node_does_not_start_to_sign_with_a_certificate_or_key_of_another() {
    let ca = TestCa::new("node");
    let made = ca.make(&Order::node(2));
    assert!(matches!(node_signer(&made, 3), Err(CryptoError::WrongSigner { .. })));
    let mixed = Made { private_key: ca.make(&Order::node(2)).private_key, ..made };
    assert!(matches!(node_signer(&mixed, 2), Err(CryptoError::KeyMismatch)));
    let signer = node_signer(&ca.make(&Order::node(2)), 2).unwrap();
    assert_eq!(format!("{signer:?}"), "NodeSigner(node 2, [redacted])");
}

#[test]
fn no_statement_can_be_read_as_another() {
    let key = EscrowPublicKey { cluster: CLUSTER, epoch: Epoch::new(1), key: [7; 32] };
    let escrow = statement::escrow_key_statement(&key);
    let receipt = statement::receipt_statement(CLUSTER, &facts(), NodeId::new(1));
    let head = AuditPosition { sequence: 8, hash: [9; 32] };
    let facts = CheckpointFacts { head, term: 6, index: 7, time: Timestamp::from_millis(10) };
    let checkpoint = statement::checkpoint_statement(CLUSTER, &facts, NodeId::new(1));
    let statements = [escrow, receipt, checkpoint];
    assert_eq!(statements.each_ref().map(Vec::len), [75, 192, 117]);
    let label = |statement: &[u8]| statement.iter().position(|byte| *byte == 0).unwrap();
    for (n, one) in statements.iter().enumerate() {
        for other in &statements[n + 1..] {
            let length = label(one).min(label(other)) + 1;
            assert_ne!(one[..length], other[..length]);
        }
    }
}
