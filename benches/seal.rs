//! What sealing, opening, signing and verifying cost: the cryptography of one escrow and one disclosure.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use holdfast::cli::pki::{CaKind, Pki, Subject};
use holdfast::clock::{Clock as _, SystemClock};
use holdfast::crypto::{
    Binding, EscrowPublicKey, Part, PrivateKey, ReceiptFacts, StatementVerifier, open, seal,
    system_rng,
};
use holdfast::domain::{
    ClusterId, DeviceId, Epoch, KeyVersion, NodeId, ProtectorId, ProtectorKind, Timestamp, VolumeId,
};
use holdfast::tls::Identity;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const PASSWORD: &[u8] = b"471207-278498-422125-177177-561902-537405-468006-693451";

fn sealing(criterion: &mut Criterion) {
    let private_key = PrivateKey::generate(&mut system_rng());
    let key = private_key.public_key();
    let public_key = EscrowPublicKey { cluster: CLUSTER, epoch: Epoch::new(1), key };
    let binding = Binding {
        cluster: CLUSTER,
        device: DeviceId::from_bytes([2; 16]),
        volume: VolumeId::from_bytes([3; 16]),
        protector: ProtectorId::from_bytes([4; 16]),
        protector_kind: ProtectorKind::BitLockerRecoveryPassword,
        version: KeyVersion::new(1),
    };
    let mut rng = system_rng();
    criterion.bench_function("seal a recovery key", |bencher| {
        bencher.iter(|| seal(&public_key, &binding, Part::Key, black_box(PASSWORD), &mut rng));
    });
    let sealed = seal(&public_key, &binding, Part::Key, PASSWORD, &mut rng).unwrap();
    criterion.bench_function("open a recovery key", |bencher| {
        bencher.iter(|| open(&private_key, &binding, Part::Key, black_box(&sealed)));
    });
}

fn receipts(criterion: &mut Criterion) {
    let now = SystemClock.now();
    let node = NodeId::new(1);
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::init(&directory.path().join("pki"), CLUSTER, now).unwrap();
    let subject = Subject::Node { id: node, hosts: vec!["localhost".to_owned()] };
    let issued = pki.make(&subject, 1, now).unwrap();
    let identity = Identity::new(vec![issued.certificate], issued.private_key).unwrap();
    let signer = identity.node_signer(CLUSTER, node).unwrap();
    let node_ca = pki.authority(CaKind::Node).unwrap();
    let facts = ReceiptFacts {
        device: DeviceId::from_bytes([2; 16]),
        volume: VolumeId::from_bytes([3; 16]),
        protector: ProtectorId::from_bytes([4; 16]),
        version: KeyVersion::new(1),
        sealed_digest: [5; 32],
        term: 1,
        index: 2,
        audit_sequence: 3,
        audit_hash: [6; 32],
        escrowed_at: Timestamp::from_millis(7),
    };
    criterion.bench_function("sign a receipt", |bencher| {
        bencher.iter(|| signer.sign_receipt(black_box(&facts)));
    });
    let signature = signer.sign_receipt(&facts);
    let verifier = StatementVerifier::new(CLUSTER, node_ca.clone());
    criterion.bench_function("verify a receipt of a known node", |bencher| {
        bencher.iter(|| verifier.receipt(&facts, node, signer.chain(), &signature, now).unwrap());
    });
    criterion.bench_function("verify a receipt of a new node", |bencher| {
        bencher.iter(|| {
            let verifier = StatementVerifier::new(CLUSTER, node_ca.clone());
            verifier.receipt(&facts, node, signer.chain(), &signature, now).unwrap();
        });
    });
}

criterion_group!(benches, sealing, receipts);
criterion_main!(benches);
