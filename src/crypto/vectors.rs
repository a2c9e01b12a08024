//! The test vectors of `docs/formats-sealing.md`: made by the code, and compared with the document.

use std::fmt::Write as _;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rand::{CryptoRng, RngCore};

use super::seal::associated_data;
use super::*;
use crate::domain::{
    AuditPosition, ClusterId, DeviceId, Epoch, KeyVersion, NodeId, ProtectorId, ProtectorKind,
    RecoveryKey, Sealed, Timestamp, VolumeId, sealed_digest,
};

const DOCUMENT: &str = include_str!("../../docs/formats-sealing.md");
const CLUSTER: ClusterId =
    ClusterId::from_bytes(*b"\x0a\x1b\x2c\x3d\x4e\x5f\x40\x61\x82\x93\xa4\xb5\xc6\xd7\xe8\xf9");
const DEVICE: DeviceId =
    DeviceId::from_bytes(*b"\x8c\x9d\x0e\x1f\x2a\x3b\x4c\x5d\xae\x7f\x80\x91\xa2\xb3\xc4\xd5");
const VOLUME: VolumeId =
    VolumeId::from_bytes(*b"\x11\x22\x33\x44\x55\x66\x47\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x00");
const PROTECTOR: ProtectorId =
    ProtectorId::from_bytes(*b"\x18\x54\xc1\x1f\x6b\x44\x48\xb0\x91\xdb\x12\x1a\x2f\xbf\x9a\xc0");

/// Gives the same bytes again and again.
struct Fixed(u8);

impl RngCore for Fixed {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes([self.0; 4])
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes([self.0; 8])
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

impl CryptoRng for Fixed {}

fn check(block: &str) {
    assert!(DOCUMENT.contains(block), "not in docs/formats-sealing.md:\n{block}");
}

fn seal_vector(kind: ProtectorKind, part: Part, plaintext: &[u8], seed: u8) -> String {
    sealed_vector(kind, part, plaintext, seed).1
}

/// A sealed vector, and how the document shows it.
fn sealed_vector(kind: ProtectorKind, part: Part, plaintext: &[u8], seed: u8) -> (Sealed, String) {
    let private_key = PrivateKey::from_slice(&[0x42; 32]).unwrap();
    let epoch = Epoch::new(1);
    let public_key = EscrowPublicKey { cluster: CLUSTER, epoch, key: private_key.public_key() };
    let binding = Binding {
        cluster: CLUSTER,
        device: DEVICE,
        volume: VOLUME,
        protector: PROTECTOR,
        protector_kind: kind,
        version: KeyVersion::new(7),
    };
    let sealed = seal(&public_key, &binding, part, plaintext, &mut Fixed(seed)).unwrap();
    let opened = open(&private_key, &binding, part, &sealed).unwrap();
    assert_eq!(opened.expose_secret(), plaintext);
    let mut block = String::new();
    let mut line = |name: &str, value: &str| writeln!(block, "{name:<17} {value}").unwrap();
    match part {
        Part::Key => line("plaintext", std::str::from_utf8(plaintext).unwrap()),
        Part::Package => line("plaintext (hex)", &hex::encode(plaintext)),
    }
    line("ephemeral seed", &hex::encode([seed; 32]));
    line("associated data", &hex::encode(associated_data(&binding, epoch, part)));
    line("encapsulated key", &hex::encode(sealed.encapsulated_key));
    line("ciphertext", &hex::encode(&sealed.ciphertext));
    (sealed, block)
}

#[test]
fn the_document_shows_the_keys_of_the_sealing_vectors() {
    let private_key = PrivateKey::from_slice(&[0x42; 32]).unwrap();
    let mut block = String::new();
    writeln!(block, "private key       {}", hex::encode(private_key.expose_secret())).unwrap();
    writeln!(block, "public key        {}", hex::encode(private_key.public_key())).unwrap();
    writeln!(block, "cluster           {CLUSTER}").unwrap();
    writeln!(block, "device            {DEVICE}").unwrap();
    writeln!(block, "volume            {VOLUME}").unwrap();
    writeln!(block, "key id            {PROTECTOR}").unwrap();
    check(&block);
}

#[test]
fn the_documents_sealing_vectors_are_what_the_code_makes() {
    let published = [
        "471207-278498-422125-177177-561902-537405-468006-693451",
        "599907-126192-034078-378543-435050-262383-683309-100661",
        "563200-557084-108284-218900-019151-415437-694144-239976",
        "236808-089419-192665-495704-618299-073414-538373-542366",
    ];
    let kind = ProtectorKind::BitLockerRecoveryPassword;
    for (text, seed) in published.into_iter().zip(1..) {
        let key = RecoveryKey::parse(kind, text).unwrap();
        check(&seal_vector(kind, Part::Key, key.expose_secret().as_bytes(), seed));
    }
    check(&seal_vector(kind, Part::Package, &[0, 1, 2, 3, 0], 5));
    let kind = ProtectorKind::Luks2RecoveryKey;
    let text = "cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-vutrnlkj-ihgfedbc-vutrnlkj-ihgfedbc";
    let key = RecoveryKey::parse(kind, text).unwrap();
    check(&seal_vector(kind, Part::Key, key.expose_secret().as_bytes(), 6));
}

#[test]
fn the_documents_digests_are_what_the_code_makes() {
    let kind = ProtectorKind::BitLockerRecoveryPassword;
    let text = b"471207-278498-422125-177177-561902-537405-468006-693451";
    let (key, _) = sealed_vector(kind, Part::Key, text, 1);
    let (package, _) = sealed_vector(kind, Part::Package, &[0, 1, 2, 3, 0], 5);
    let mut block = String::new();
    writeln!(block, "key alone         {}", hex::encode(sealed_digest(&key, None))).unwrap();
    let both = sealed_digest(&key, Some(&package));
    writeln!(block, "key and package   {}", hex::encode(both)).unwrap();
    check(&block);
}

#[test]
fn the_documents_statements_are_what_the_code_makes() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[0x51; 32]).unwrap();
    let key = EscrowPublicKey { cluster: CLUSTER, epoch: Epoch::new(1), key: [0x77; 32] };
    let facts = ReceiptFacts {
        device: DEVICE,
        volume: VOLUME,
        protector: PROTECTOR,
        version: KeyVersion::new(7),
        sealed_digest: [0xd1; 32],
        term: 3,
        index: 258,
        audit_sequence: 40,
        audit_hash: [0xa1; 32],
        escrowed_at: Timestamp::from_millis(1_795_392_000_123),
    };
    let escrow = escrow_key_statement(&key);
    let receipt = receipt_statement(CLUSTER, &facts, NodeId::new(2));
    let mut block = String::new();
    writeln!(block, "signer seed       {}", hex::encode([0x51; 32])).unwrap();
    writeln!(block, "signer public key {}", hex::encode(pair.public_key())).unwrap();
    writeln!(block, "escrow statement  {}", hex::encode(&escrow)).unwrap();
    writeln!(block, "signature         {}", hex::encode(pair.sign(&escrow))).unwrap();
    writeln!(block, "receipt statement {}", hex::encode(&receipt)).unwrap();
    writeln!(block, "signature         {}", hex::encode(pair.sign(&receipt))).unwrap();
    check(&block);
}

#[test]
fn the_statement_of_a_checkpoint_in_the_document_is_what_the_code_makes() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[0x51; 32]).unwrap();
    let facts = CheckpointFacts {
        head: AuditPosition { sequence: 40, hash: [0xa1; 32] },
        term: 3,
        index: 258,
        time: Timestamp::from_millis(1_795_392_000_123),
    };
    let statement = checkpoint_statement(CLUSTER, &facts, NodeId::new(2));
    let mut block = String::new();
    writeln!(block, "statement         {}", hex::encode(&statement)).unwrap();
    writeln!(block, "signature         {}", hex::encode(pair.sign(&statement))).unwrap();
    let document = include_str!("../../docs/formats-evidence.md");
    assert!(document.contains(&block), "not in docs/formats-evidence.md:\n{block}");
}

/// Counts, so that every coefficient of the sharing is another one.
struct Counting(u8);

impl RngCore for Counting {
    fn next_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1);
        u32::from_be_bytes([self.0; 4])
    }

    fn next_u64(&mut self) -> u64 {
        let half = u64::from(self.next_u32());
        half << 32 | half
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        out.fill(0x55);
    }
}

impl CryptoRng for Counting {}

#[test]
fn the_documents_shares_are_what_the_code_makes_and_give_the_root_key() {
    let root = RootKey::from_bytes([0x4b; 32]);
    let shares = Share::split(&root, CLUSTER, (5, 3), &mut Counting(0)).unwrap();
    let shown = [&shares[0], &shares[1], &shares[4]];
    let mut block = String::new();
    writeln!(block, "shared root key   {}", hex::encode([0x4b; 32])).unwrap();
    for share in shown {
        let number = share.label().number;
        writeln!(block, "share {number}           {}", share.expose_text().as_str()).unwrap();
    }
    check(&block);
    let combined = Share::combine(&shown).unwrap();
    combined.check(CLUSTER, &root.check_value(CLUSTER).unwrap()).unwrap();
}

#[test]
fn the_documents_root_key_vectors_are_what_the_code_makes() {
    let root = RootKey::from_bytes([0x4b; 32]);
    let purpose = WrapPurpose::Epoch(Epoch::new(1));
    let wrapped = root.wrap(purpose, CLUSTER, &[0x42; 32], &mut Fixed(9)).unwrap();
    let mut block = String::new();
    writeln!(block, "root key          {}", hex::encode([0x4b; 32])).unwrap();
    writeln!(block, "check value       {}", hex::encode(root.check_value(CLUSTER).unwrap()))
        .unwrap();
    writeln!(block, "secret            {}", hex::encode([0x42; 32])).unwrap();
    writeln!(block, "wrapped           {}", hex::encode(&wrapped)).unwrap();
    check(&block);
}
