//! Files that nobody of us made.

use super::super::*;
use super::checkpoint::checkpoint;
use super::export::{chain, export};
use super::receipt::{facts, signed};
use crate::crypto::testing::{Order, TestCa, now};

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
