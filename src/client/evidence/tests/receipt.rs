//! Receipts in files: what still holds after years, and what never does.

use prost::Message as _;
use serde_json::{Value, json};

use super::super::*;
use crate::client::{Receipt, with_causes};
use crate::crypto::testing::{CLUSTER, DEVICE, Made, Order, TestCa, days_from_now, now, operator};
use crate::crypto::{NodeSigner, ReceiptFacts};
use crate::domain::{ClusterId, DeviceId, KeyVersion, NodeId, ProtectorId, VolumeId};
use holdfast_proto::v1;

const DAY: u64 = 86_400_000;

pub(super) fn facts(escrowed_at: Timestamp) -> ReceiptFacts {
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
        escrowed_at,
    }
}

pub(super) fn signed(made: &Made, facts: ReceiptFacts) -> Receipt {
    let node = NodeId::new(1);
    let signer = NodeSigner::new(CLUSTER, node, made.chain(), &made.private_key).unwrap();
    let message = v1::Receipt {
        signature: signer.sign_receipt(&facts),
        signer_chain: made.chain(),
        ..v1::Receipt::default()
    };
    Receipt { cluster: CLUSTER, facts, node, message }
}

fn verify_as(
    text: &str,
    ca: &TestCa,
    wanted: &ReceiptWanted,
    now: Timestamp,
) -> Result<VerifiedReceipt, String> {
    let verified = SavedReceipt::read(text.as_bytes())
        .and_then(|saved| saved.verify(ca.authority(), wanted, now));
    verified.map_err(|error| with_causes(&error))
}

fn verify(text: &str, ca: &TestCa, now: Timestamp) -> Result<VerifiedReceipt, String> {
    verify_as(text, ca, &ReceiptWanted::default(), now)
}

#[test]
fn a_kept_receipt_holds_ten_years_after_the_certificate_of_its_node_expired() {
    let ca = TestCa::new("node");
    let text = signed(&ca.make(&Order::node(1)), facts(now())).to_file().unwrap();
    for days in [0, 29, 31, 3650] {
        let verified = verify(&text, &ca, days_from_now(days)).unwrap();
        assert_eq!(verified.receipt.facts.version.get(), 4);
        assert!(verified.signer.uri.ends_with("/node/1"));
    }
}

#[test]
fn a_receipt_given_once_more_with_a_certificate_that_began_after_the_escrow_holds() {
    let ca = TestCa::new("node");
    let long_ago = Timestamp::from_millis(now().as_millis() - 400 * DAY);
    let text = signed(&ca.make(&Order::node(1)), facts(long_ago)).to_file().unwrap();
    verify(&text, &ca, now()).unwrap();
    // But not before that certificate began: nobody can have signed with it then.
    let before = Timestamp::from_millis(now().as_millis() - 2 * DAY);
    let error = verify(&text, &ca, before).unwrap_err();
    assert!(error.contains("still to come"), "{error}");
}

#[test]
fn a_receipt_signed_with_a_certificate_that_had_expired_before_the_escrow_is_refused() {
    let ca = TestCa::new("node");
    let text = signed(&ca.make(&Order::node(1)), facts(days_from_now(31))).to_file().unwrap();
    let error = verify(&text, &ca, days_from_now(40)).unwrap_err();
    assert!(error.contains("the certificate has expired"), "{error}");
}

#[test]
fn a_receipt_from_the_future_is_refused() {
    let ca = TestCa::new("node");
    let ahead = |minutes: u64| Timestamp::from_millis(now().as_millis() + minutes * 60_000);
    let made = ca.make(&Order::node(1));
    verify(&signed(&made, facts(ahead(9))).to_file().unwrap(), &ca, now()).unwrap();
    let error = verify(&signed(&made, facts(ahead(11))).to_file().unwrap(), &ca, now());
    assert!(error.unwrap_err().contains("still to come"));
}

#[test]
fn no_field_of_a_kept_receipt_can_be_changed() {
    let ca = TestCa::new("node");
    let text = signed(&ca.make(&Order::node(1)), facts(now())).to_file().unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    let fields = whole.as_object().unwrap();
    assert_eq!(fields.len(), 15);
    for (name, value) in fields {
        let mut changed = fields.clone();
        let other = match value {
            Value::Number(number) => json!(number.as_u64().unwrap() - 1),
            Value::String(text) => {
                let (first, rest) = text.split_at(1);
                json!(format!("{}{rest}", if first == "0" { "1" } else { "0" }))
            }
            Value::Array(_) => {
                let other = ca.make(&Order::node(1));
                use base64::Engine as _;
                json!([base64::engine::general_purpose::STANDARD.encode(&other.certificate)])
            }
            other => panic!("{other}"),
        };
        changed.insert(name.clone(), other);
        let error = verify(&Value::Object(changed).to_string(), &ca, now()).unwrap_err();
        let expected = match name.as_str() {
            "format" => "its format is",
            // The certificate names both.
            "cluster_id" | "node_id" => "signed by spiffe://",
            _ => "the signature is wrong",
        };
        assert!(error.contains(expected), "{name}: {error}");
        let mut without = fields.clone();
        without.remove(name);
        let error = verify(&Value::Object(without).to_string(), &ca, now()).unwrap_err();
        assert!(error.contains(&format!("missing field `{name}`")), "{name}: {error}");
    }
}

#[test]
fn a_receipt_signed_by_anybody_but_a_node_of_the_pinned_ca_is_refused_by_name() {
    let ca = TestCa::new("node");
    let try_signer = |made: &Made| {
        let mut receipt = signed(&ca.make(&Order::node(1)), facts(now()));
        let pair =
            aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&made.private_key);
        let statement = crate::crypto::receipt_statement(CLUSTER, &receipt.facts, NodeId::new(1));
        let signature = pair.unwrap().sign(&statement);
        receipt.message.signature = bytes::Bytes::copy_from_slice(signature.as_ref());
        receipt.message.signer_chain = made.chain();
        verify(&receipt.to_file().unwrap(), &ca, now()).map_err(|error| {
            assert!(error.starts_with("its signature by node 1 does not verify: "), "{error}");
            error
        })
    };
    try_signer(&ca.make(&Order::node(1))).unwrap();
    let cases = [
        (TestCa::new("node").make(&Order::node(1)), "was not issued by the node CA"),
        (ca.make(&Order::node(2)), "/node/2, expected"),
        (ca.make(&Order::escrow_signer()), "was not issued for this purpose"),
        (ca.make(&Order::actor(&operator("alice"))), "/operator/alice, expected"),
    ];
    for (made, expected) in cases {
        let error = try_signer(&made).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let mut receipt = signed(&ca.make(&Order::node(1)), facts(now()));
    receipt.message.signer_chain.clear();
    let error = verify(&receipt.to_file().unwrap(), &ca, now()).unwrap_err();
    assert!(error.contains("no certificate was presented"), "{error}");
}

#[test]
fn a_receipt_for_something_else_than_is_wanted_is_refused_and_says_what() {
    let ca = TestCa::new("node");
    let text = signed(&ca.make(&Order::node(1)), facts(now())).to_file().unwrap();
    let right = ReceiptWanted {
        cluster: Some(CLUSTER),
        device: Some(DEVICE),
        volume: Some(VolumeId::from_bytes([2; 16])),
        protector: Some(ProtectorId::from_bytes([3; 16])),
        version: Some(KeyVersion::new(4)),
        sealed_digest: Some([5; 32]),
    };
    verify_as(&text, &ca, &right, now()).unwrap();
    let cases = [
        ("cluster", ReceiptWanted { cluster: Some(ClusterId::from_bytes([0; 16])), ..right }),
        ("device", ReceiptWanted { device: Some(DeviceId::from_bytes([0; 16])), ..right }),
        ("volume", ReceiptWanted { volume: Some(VolumeId::from_bytes([0; 16])), ..right }),
        ("key id", ReceiptWanted { protector: Some(ProtectorId::from_bytes([0; 16])), ..right }),
        ("version", ReceiptWanted { version: Some(KeyVersion::new(5)), ..right }),
        ("sealed digest", ReceiptWanted { sealed_digest: Some([6; 32]), ..right }),
    ];
    for (what, wanted) in cases {
        let error = verify_as(&text, &ca, &wanted, now()).unwrap_err();
        let expected =
            if what == "cluster" { "it is of cluster" } else { &format!("its {what} is") };
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn what_is_no_receipt_is_refused_in_words() {
    let ca = TestCa::new("node");
    let good = signed(&ca.make(&Order::node(1)), facts(now())).to_file().unwrap();
    let cases = [
        (String::new(), "EOF"),
        ("{".to_owned(), "EOF"),
        ("[1, 2]".to_owned(), "invalid"),
        (good.replacen('{', "{\"more\": 1,", 1), "unknown field `more`"),
        (good.replacen('{', "{\"version\": 4,", 1), "duplicate field `version`"),
        (good.replace("receipt v1", "receipt v2"), "its format is \"holdfast receipt v2\""),
        (good.replace("\"version\": 4", "\"version\": -4"), "invalid value"),
        (good.replace("\"signature\": \"", "\"signature\": \"%"), "bad base64"),
        (good.replace(&"05".repeat(32), "0505"), "64 hexadecimal digits"),
        (good.replace(&DEVICE.to_string(), "nobody"), "device_id: must be a UUID"),
        (format!("{good}{good}"), "trailing characters"),
        (" ".repeat(64 * 1024) + &good, "more than 65536 bytes"),
    ];
    for (text, expected) in cases {
        let error = verify(&text, &ca, now()).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // A file without an end is not read to its end.
    let endless = SavedReceipt::read(std::io::repeat(b' ')).unwrap_err();
    assert!(matches!(endless, EvidenceError::TooLarge { .. }), "{endless}");
}

#[test]
fn a_receipt_is_held_against_the_very_request_that_an_agent_kept() {
    let ca = TestCa::new("node");
    let request = v1::EscrowRecoveryKeyRequest {
        device_id: DEVICE.to_string(),
        volume_id: VolumeId::from_bytes([2; 16]).to_string(),
        protector_id: ProtectorId::from_bytes([3; 16]).to_string(),
        expected_version: 3,
        sealed_key: Some(v1::SealedKey {
            epoch: 1,
            encapsulated_key: vec![8; 32].into(),
            ciphertext: vec![7; 144].into(),
        }),
        ..v1::EscrowRecoveryKeyRequest::default()
    };
    let sealed = crate::domain::Sealed {
        epoch: crate::domain::Epoch::new(1),
        encapsulated_key: [8; 32],
        ciphertext: vec![7; 144].into(),
    };
    let sealed_digest = crate::domain::sealed_digest(&sealed, None);
    let facts = ReceiptFacts { sealed_digest, ..facts(now()) };
    let text = signed(&ca.make(&Order::node(1)), facts).to_file().unwrap();
    let held = |request: &v1::EscrowRecoveryKeyRequest| {
        let wanted = ReceiptWanted::of_request(request.encode_to_vec().as_slice());
        let wanted = wanted.map_err(|error| error.to_string())?;
        verify_as(&text, &ca, &wanted, now()).map(drop)
    };
    held(&request).unwrap();
    let mut other = request.clone();
    other.sealed_key.as_mut().unwrap().ciphertext = vec![6; 144].into();
    assert!(held(&other).unwrap_err().contains("its sealed digest is"));
    let package = request.sealed_key.clone();
    let other = v1::EscrowRecoveryKeyRequest { sealed_key_package: package, ..request.clone() };
    assert!(held(&other).unwrap_err().contains("its sealed digest is"));
    let other = v1::EscrowRecoveryKeyRequest { expected_version: 4, ..request.clone() };
    assert!(held(&other).unwrap_err().contains("its version is 4, not 5"));
    let other = v1::EscrowRecoveryKeyRequest { sealed_key: None, ..request };
    assert!(held(&other).unwrap_err().contains("sealed_key: is missing"));
    let endless = ReceiptWanted::of_request(std::io::repeat(0)).unwrap_err();
    assert!(matches!(endless, EvidenceError::TooLarge { .. }), "{endless}");
    let nonsense = ReceiptWanted::of_request(b"nonsense".as_slice()).unwrap_err();
    assert!(nonsense.to_string().contains("no well-formed sealed escrow request"), "{nonsense}");
}
