//! Searches: what matches, in which order, and where a reply ends.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

fn found(keys: &[KeySummary]) -> Vec<(ProtectorId, u32)> {
    keys.iter().map(|key| (key.protector, key.version.get())).collect()
}

#[test]
fn eight_digits_find_all_ids_that_begin_with_them_by_id_then_newest_first() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 3, 0, 1));
    rig.escrow(escrow_of(1, 1, 3, 1, 2));
    rig.escrow(escrow_of(2, 1, 2, 0, 3));
    rig.escrow(escrow_of(2, 2, 4, 0, 4));
    let (keys, truncated) = rig.find(FindQuery::Prefix(protector(2).prefix()));
    assert_eq!(found(&keys), [(protector(2), 1), (protector(3), 2), (protector(3), 1)]);
    assert!(!truncated);
    assert_eq!(keys[1].state, KeyState::Active);
    assert_eq!(keys[2].state, KeyState::Superseded);
    let (keys, _) = rig.find(FindQuery::Protector(protector(4)));
    assert_eq!(found(&keys), [(protector(4), 1)]);
    assert_eq!(rig.find(FindQuery::Prefix(protector(200).prefix())), (vec![], false));
}

#[test]
fn device_and_volume_find_their_keys_and_unknown_ones_are_refused() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 5, 0, 1));
    rig.escrow(escrow_of(1, 1, 4, 1, 2));
    rig.escrow(escrow_of(1, 2, 6, 0, 3));
    let (keys, _) = rig.find(FindQuery::Device(device(1)));
    assert_eq!(found(&keys), [(protector(4), 2), (protector(5), 1), (protector(6), 1)]);
    let (keys, _) = rig.find(FindQuery::Volume(device(1), volume(2)));
    assert_eq!(found(&keys), [(protector(6), 1)]);
    let mut refuse = |query| rig.refuse(operator(HUGO), CommandBody::FindKeys(query));
    assert_eq!(refuse(FindQuery::Device(device(9))), Rejection::UnknownDevice);
    assert_eq!(refuse(FindQuery::Volume(device(9), volume(1))), Rejection::UnknownDevice);
    assert_eq!(refuse(FindQuery::Volume(device(1), volume(9))), Rejection::UnknownVolume);
}

#[test]
fn a_reply_holds_200_keys_and_says_that_there_are_more() {
    let mut rig = Rig::ready();
    for expected in 0..200 {
        rig.escrow(escrow_of(1, 1, 1, expected, u8::try_from(expected).unwrap()));
    }
    let queries = [
        FindQuery::Prefix(protector(1).prefix()),
        FindQuery::Protector(protector(1)),
        FindQuery::Device(device(1)),
        FindQuery::Volume(device(1), volume(1)),
    ];
    for query in queries.clone() {
        let (keys, truncated) = rig.find(query);
        assert_eq!((keys.len(), truncated), (200, false));
    }
    rig.escrow(escrow_of(1, 1, 1, 200, 250));
    for query in queries {
        let (keys, truncated) = rig.find(query);
        assert_eq!((keys.len(), truncated), (200, true));
        assert_eq!(keys[0].version, version(201), "the newest is never left out");
    }
}

#[test]
fn a_long_history_of_one_volume_hides_no_newest_key_of_another() {
    let mut rig = Rig::ready();
    for expected in 0..201 {
        rig.escrow(escrow_of(1, 1, 1, expected, u8::try_from(expected).unwrap()));
    }
    rig.escrow(escrow_of(1, 2, 2, 0, 9));
    let (keys, truncated) = rig.find(FindQuery::Device(device(1)));
    assert!(truncated);
    assert!(found(&keys).contains(&(protector(2), 1)));
}

#[test]
fn a_search_writes_its_audit_record_and_request_and_nothing_else() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let changed = rig.changes(|rig| drop(rig.find(FindQuery::Device(device(1)))));
    assert_eq!(changed, [(Table::Meta, 1), (Table::Audit, 1), (Table::Requests, 1)]);
    let body = CommandBody::FindKeys(FindQuery::Device(device(1)));
    for actor in [operator(ROOT), operator(ODO), agent(1)] {
        assert!(matches!(rig.refuse(actor, body.clone()), Rejection::NotGranted { .. }));
    }
}

#[test]
fn a_repeated_search_is_recorded_again() {
    let mut rig = Rig::ready();
    let body = CommandBody::FindKeys(FindQuery::Prefix(protector(1).prefix()));
    let first = rig.send(operator(HUGO), 7, body.clone()).outcome;
    assert_eq!(rig.send(operator(HUGO), 7, body).outcome, first);
    assert_eq!(rig.last_audit().outcome, AuditOutcome::Repeated);
}
