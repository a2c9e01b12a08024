//! The audit chain as outsiders check it.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

fn chain() -> (Vec<AuditRecord>, AuditPosition) {
    let mut rig = Rig::ready();
    for expected in 0..6 {
        rig.escrow(escrow_of(1, 1, 1, expected, u8::try_from(expected).unwrap()));
    }
    let records = query::audit_records(rig.store(), 0, u64::MAX, 100).unwrap();
    (records, rig.machine.heads().audit)
}

#[test]
fn the_chain_is_dense_from_1_and_leads_to_the_head() {
    let (records, head) = chain();
    assert_eq!(records[0].sequence, 1);
    assert_eq!(records[0].previous_hash, [0; 32]);
    assert_eq!(verify_chain(AuditPosition::default(), &records), Ok(head));
    assert_eq!(verify_chain(records[3].head(), &records[4..]), Ok(head));
}

#[test]
fn a_changed_record_breaks_the_chain_at_the_next_and_with_its_hash_at_itself() {
    let (good, head) = chain();
    let hashes: Vec<_> = good.iter().map(AuditRecord::hash).collect();
    for n in 0..good.len() {
        let mut bad = good.clone();
        bad[n].version = version(77);
        match verify_chain(AuditPosition::default(), &bad) {
            Err(error) => assert_eq!(error.sequence, bad[n].sequence + 1),
            Ok(other) => assert!(n + 1 == good.len() && other != head),
        }
        let pairs = bad.iter().zip(hashes.iter().copied());
        let error = verify_hashed_chain(AuditPosition::default(), pairs).unwrap_err();
        assert_eq!((error.sequence, error.what), (bad[n].sequence, ChainFault::KnownHash));
    }
}

#[test]
fn a_record_that_is_missing_doubled_moved_or_older_is_named() {
    let (good, _) = chain();
    let check = |bad: &[AuditRecord]| verify_chain(AuditPosition::default(), bad).unwrap_err();
    let mut bad = good.clone();
    bad.remove(4);
    let error = ChainError { sequence: 5, what: ChainFault::Sequence(6) };
    assert_eq!(check(&bad), error);
    let mut bad = good.clone();
    bad.insert(4, good[3].clone());
    assert_eq!(check(&bad), ChainError { sequence: 5, what: ChainFault::Sequence(4) });
    let mut bad = good.clone();
    bad.swap(4, 5);
    assert_eq!(check(&bad), error);
    let mut bad = good;
    bad[4].time = at(1);
    assert_eq!(check(&bad), ChainError { sequence: 5, what: ChainFault::Time });
}
