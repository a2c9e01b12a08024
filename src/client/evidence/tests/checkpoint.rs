//! Checkpoints: who may sign them, and what a file of them must be.

use serde_json::json;

use super::super::*;
use super::export::{chain, with_field};
use crate::client::with_causes;
use crate::crypto::testing::{CLUSTER, Order, TestCa, days_from_now, now};
use crate::crypto::{CheckpointFacts, NodeSigner};
use crate::domain::{AuditPosition, ClusterId, NodeId};

pub(super) fn checkpoint(ca: &TestCa, head: AuditPosition) -> Checkpoint {
    let made = ca.make(&Order::node(2));
    let node = NodeId::new(2);
    let signer = NodeSigner::new(CLUSTER, node, made.chain(), &made.private_key).unwrap();
    let facts = CheckpointFacts { head, term: 3, index: 99, time: now() };
    Checkpoint {
        cluster: CLUSTER,
        facts,
        node,
        signature: signer.sign_checkpoint(&facts),
        signer_chain: made.chain(),
    }
}

#[test]
fn a_checkpoint_counts_only_if_a_node_of_the_cluster_signed_it_then() {
    let (ca, chain) = (TestCa::new("node"), chain(3, "INC-7"));
    let good = checkpoint(&ca, chain[2].head());
    good.verify(&ca.authority(), now()).unwrap();
    good.verify(&ca.authority(), days_from_now(3650)).unwrap();
    let error = |checkpoint: &Checkpoint, ca: &TestCa| {
        with_causes(&checkpoint.verify(&ca.authority(), now()).unwrap_err())
    };
    assert!(error(&good, &TestCa::new("node")).contains("was not issued by the node CA"));
    let facts = good.facts;
    let later = Timestamp::from_millis(facts.time.as_millis() + 11 * 60_000);
    let position = AuditPosition { sequence: 2, ..facts.head };
    let hash = AuditPosition { hash: [1; 32], ..facts.head };
    let changes = [
        (CheckpointFacts { head: position, ..facts }, "the signature is wrong"),
        (CheckpointFacts { head: hash, ..facts }, "the signature is wrong"),
        (CheckpointFacts { term: 4, ..facts }, "the signature is wrong"),
        (CheckpointFacts { index: 4, ..facts }, "the signature is wrong"),
        (CheckpointFacts { time: Timestamp::from_millis(0), ..facts }, "not valid yet"),
        (CheckpointFacts { time: later, ..facts }, "still to come"),
    ];
    for (facts, expected) in changes {
        let said = error(&Checkpoint { facts, ..good.clone() }, &ca);
        assert!(said.contains(expected), "{facts:?}: {said}");
    }
    let said = error(&Checkpoint { node: NodeId::new(3), ..good.clone() }, &ca);
    assert!(said.contains("/node/2, expected"), "{said}");
    let cluster = ClusterId::from_bytes([1; 16]);
    let said = error(&Checkpoint { cluster, ..good.clone() }, &ca);
    assert!(said.contains("signed by spiffe://"), "{said}");
    // A receipt's signature by the same key is none for a checkpoint.
    let made = ca.make(&Order::node(2));
    let signer = NodeSigner::new(CLUSTER, NodeId::new(2), made.chain(), &made.private_key).unwrap();
    let signature = signer.sign_receipt(&super::receipt::facts(now()));
    let of_receipt = Checkpoint { signature, signer_chain: made.chain(), ..good.clone() };
    assert!(error(&of_receipt, &ca).contains("the signature is wrong"));
    let signature = signer.sign_checkpoint(&facts);
    let again = Checkpoint { signature, signer_chain: made.chain(), ..good };
    again.verify(&ca.authority(), now()).unwrap();
}

#[test]
fn a_file_of_checkpoints_is_refused_for_one_bad_line_which_is_named() {
    let (ca, chain) = (TestCa::new("node"), chain(3, "INC-7"));
    let line = |n: usize| checkpoint(&ca, chain[n].head()).to_line().unwrap();
    let read = |text: &str| {
        let read = Checkpoint::read_all(text.as_bytes(), &ca.authority(), now());
        read.map(|found| found.len()).map_err(|error| with_causes(&error))
    };
    assert_eq!(read(&[line(0), line(2)].concat()), Ok(2));
    let bad = with_field(&line(1), "sequence", &json!(3));
    let cases = [
        ([line(0), bad].concat(), "line 2: its signature by node 2 does not verify"),
        ([line(0), "{}\n".to_owned()].concat(), "line 2: it is no well-formed checkpoint"),
        ([line(0), line(1).trim_end().to_owned()].concat(), "line 2: it was cut off"),
        (line(0).replace("checkpoint v1", "checkpoint v9"), "line 1: its format is"),
        (String::new(), "it is empty"),
    ];
    for (text, expected) in cases {
        let error = read(&text).unwrap_err();
        assert!(error.starts_with(expected) || error.contains(expected), "{expected}: {error}");
    }
}
