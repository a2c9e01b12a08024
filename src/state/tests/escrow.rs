//! Escrow: ownership, compare-and-set, receipts that stay the same, and how little is written.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

#[test]
fn an_escrow_writes_one_record_of_each_table_and_no_second_key() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let mut second = escrow_of(1, 1, 2, 1, 2);
    second.package = Some(sealed(1, 3));
    let changed = rig.changes(|rig| drop(rig.escrow(second)));
    let tables =
        [Table::Meta, Table::Devices, Table::Keys, Table::Packages, Table::Audit, Table::Requests];
    assert_eq!(changed, tables.map(|table| (table, 1)));
}

#[test]
fn a_receipt_names_the_entry_and_the_audit_record_that_stored_the_key() {
    let mut rig = Rig::ready();
    let escrow = escrow_of(1, 1, 1, 0, 1);
    let digest = sealed_digest(&escrow.key, None);
    let receipt = rig.escrow(escrow);
    assert_eq!(receipt.version, version(1));
    assert_eq!(receipt.sealed_digest, digest);
    assert_eq!(Some(receipt.position), rig.machine.heads().position);
    assert_eq!(receipt.audit, rig.last_audit().head());
    assert_eq!(rig.last_audit().version, version(1));
    let stored = query::key(rig.store(), protector(1), KeyVersion::NONE).unwrap().unwrap();
    assert_eq!(stored.receipt, receipt);
}

#[test]
fn an_agent_escrows_for_its_own_device_only() {
    let mut rig = Rig::ready();
    let body = CommandBody::Escrow(escrow_of(1, 1, 1, 0, 1));
    assert_eq!(rig.refuse(agent(2), body.clone()), Rejection::ForeignDevice);
    let actor = operator(ROOT);
    let action = AuditAction::Escrow;
    assert_eq!(rig.refuse(actor.clone(), body), Rejection::NotGranted { actor, action });
}

#[test]
fn an_escrow_with_another_version_is_refused_and_told_the_version() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    for expected in [0, 2, u32::MAX] {
        let refused = rig.refuse_escrow(escrow_of(1, 1, 2, expected, 9));
        let current = version(1);
        assert_eq!(refused, Rejection::StaleVersion { expected: version(expected), current });
    }
}

#[test]
fn a_key_to_an_epoch_that_was_never_made_is_refused() {
    let mut rig = Rig::ready();
    let mut escrow = escrow_of(1, 1, 1, 0, 1);
    escrow.key = sealed(2, 1);
    assert_eq!(rig.refuse_escrow(escrow.clone()), Rejection::UnknownEpoch(Epoch::new(2)));
    escrow.key = sealed(1, 1);
    escrow.package = Some(sealed(3, 1));
    assert_eq!(rig.refuse_escrow(escrow), Rejection::UnknownEpoch(Epoch::new(3)));
}

#[test]
fn a_key_id_may_be_used_again_by_its_own_volume_only() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    assert_eq!(rig.escrow(escrow_of(1, 1, 1, 1, 2)).version, version(2));
    assert_eq!(rig.refuse_escrow(escrow_of(1, 2, 1, 0, 3)), Rejection::ForeignVolume);
    assert_eq!(rig.refuse_escrow(escrow_of(2, 1, 1, 0, 1)), Rejection::ForeignVolume);
}

#[test]
fn a_new_key_supersedes_the_one_before_and_keeps_when_it_was_disclosed() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let disclosed_at = rig.disclose(1, 1).disclosed_at;
    assert!(disclosed_at.is_some());
    rig.escrow(escrow_of(1, 1, 2, 1, 2));
    let keys = query::keys_of_volume(rig.store(), device(1), volume(1), 9).unwrap();
    let states: Vec<_> = keys.iter().map(|k| (k.summary.state, k.summary.disclosed_at)).collect();
    assert_eq!(states, [(KeyState::Active, None), (KeyState::Superseded, disclosed_at)]);
    let stored = query::device(rig.store(), device(1)).unwrap().unwrap();
    assert!(stored.rotation_due().is_empty());
}

#[test]
fn an_identical_escrow_gets_the_same_receipt_after_its_request_was_forgotten() {
    let mut rig = Rig::ready().remembering(2);
    let escrow = escrow_of(1, 1, 1, 0, 1);
    let first = rig.send(agent(1), 7, CommandBody::Escrow(escrow.clone()));
    rig.escrow(escrow_of(1, 1, 1, 1, 2));
    rig.escrow(escrow_of(1, 1, 2, 2, 3));
    let records = rig.machine.heads().audit;
    let again = rig.send(agent(1), 7, CommandBody::Escrow(escrow.clone()));
    assert_eq!(again.outcome, first.outcome);
    let other_id = rig.send(agent(1), 8, CommandBody::Escrow(escrow));
    assert_eq!(other_id.outcome, first.outcome);
    assert_eq!(rig.machine.heads().audit, records, "a repeat leaves no second record");
}

#[test]
fn the_same_escrow_with_other_sealed_bytes_or_another_package_is_not_identical() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let stale = Rejection::StaleVersion { expected: version(0), current: version(1) };
    assert_eq!(rig.refuse_escrow(escrow_of(1, 1, 1, 0, 2)), stale);
    let mut with_package = escrow_of(1, 1, 1, 0, 1);
    with_package.package = Some(sealed(1, 5));
    assert_eq!(rig.refuse_escrow(with_package), stale);
}

#[test]
fn a_device_may_have_64_volumes_and_not_one_more() {
    let mut rig = Rig::ready();
    for v in 0..64 {
        rig.escrow(escrow_of(1, v, v, 0, v));
    }
    let refused = rig.refuse_escrow(escrow_of(1, 64, 64, 0, 64));
    assert_eq!(refused, Rejection::TooManyVolumes(64));
    rig.escrow(escrow_of(1, 63, 63, 1, 99));
}

#[test]
fn a_device_may_have_32_users_and_not_one_more() {
    let mut rig = Rig::ready();
    let mut escrow = escrow_of(1, 1, 1, 0, 1);
    escrow.users = users(33);
    assert_eq!(rig.refuse_escrow(escrow.clone()), Rejection::TooManyUsers(33));
    escrow.users = users(32);
    rig.escrow(escrow);
    let stored = query::device(rig.store(), device(1)).unwrap().unwrap();
    assert_eq!(stored.users.len(), 32);
}

#[test]
fn an_escrow_that_names_no_host_and_no_users_keeps_those_that_are_known() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let mut bare = escrow_of(1, 1, 2, 1, 2);
    (bare.host_name, bare.users) = (Text::default(), Vec::new());
    rig.escrow(bare);
    let stored = query::device(rig.store(), device(1)).unwrap().unwrap();
    assert_eq!((stored.host_name.as_str(), stored.users), ("pc-1", vec![user("eve")]));
    let mut moved = escrow_of(1, 1, 3, 2, 3);
    (moved.host_name, moved.users) = (name("pc-9"), users(2));
    rig.escrow(moved);
    let stored = query::device(rig.store(), device(1)).unwrap().unwrap();
    assert_eq!((stored.host_name.as_str(), stored.users), ("pc-9", users(2)));
}

#[test]
fn nothing_is_taken_before_the_bootstrap() {
    let mut rig = Rig::empty();
    assert_eq!(rig.refuse_escrow(escrow_of(1, 1, 1, 0, 1)), Rejection::NotBootstrapped);
}
