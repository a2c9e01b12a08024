//! Entries that can't be read, entries out of order, and stores that are damaged.

use std::sync::Arc;

use bytes::Bytes;

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

#[test]
fn an_unreadable_command_is_refused_and_recorded_and_the_next_one_works() {
    let mut rig = Rig::ready();
    for garbage in [&b""[..], b"\xff\xff\xff", b"\x0a\x02\x08\x01", &[0x22; 40]] {
        let applied = rig.entry(Entry::Command(Bytes::copy_from_slice(garbage)));
        assert_eq!(applied.outcome, Err(Rejection::Unreadable));
        let last = rig.last_audit();
        assert_eq!((last.action, last.actor.as_ref()), (AuditAction::Unreadable, None));
        assert_eq!(last.head(), applied.audit);
    }
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
}

#[test]
fn blanks_and_memberships_move_the_position_only() {
    let mut rig = Rig::ready();
    let before = rig.machine.heads().clone();
    rig.entry(Entry::Blank);
    let applied = rig.entry(membership(b"three voters", &[1, 2, 3]));
    assert_eq!(applied.outcome, Ok(Accepted::Nothing));
    let expected = Heads {
        position: Some(applied.position),
        membership: Bytes::from_static(b"three voters"),
        members: [1, 2, 3].map(NodeId::new).into(),
        ..before
    };
    assert_eq!(rig.machine.heads(), &expected);
}

#[test]
fn the_id_of_a_node_that_is_a_member_no_more_stays_removed_for_ever() {
    let mut rig = Rig::ready();
    let removed = |rig: &Rig| -> Vec<u64> {
        rig.machine.heads().removed.iter().map(|node| node.get()).collect()
    };
    rig.entry(membership(b"a", &[1, 2, 3]));
    assert!(removed(&rig).is_empty());
    let before = rig.machine.heads().state_digest();
    rig.entry(membership(b"b", &[1, 3, 4]));
    assert_eq!(removed(&rig), [2]);
    assert_ne!(rig.machine.heads().state_digest(), before, "it is part of the digest");
    rig.entry(membership(b"c", &[1, 5]));
    // Not even a membership that names it again makes it a fresh one.
    rig.entry(membership(b"d", &[1, 2, 5]));
    assert_eq!(removed(&rig), [2, 3, 4]);
    // A machine that is opened anew, as after a restart or a snapshot, knows it too.
    let again = Machine::open(Arc::clone(rig.machine.store())).unwrap();
    assert_eq!(again.heads(), rig.machine.heads());
}

#[test]
fn an_entry_out_of_order_stops_the_machine_and_leaves_nothing_of_its_batch() {
    let mut rig = Rig::ready();
    let store = Arc::clone(rig.machine.store());
    let (records, last) = (store.records(), rig.machine.heads().position.unwrap());
    for skip in [0, 2] {
        let mut machine = Machine::open(Arc::clone(&store)).unwrap();
        let next = Position { index: last.index + 1, ..last };
        let bad = Position { index: next.index + skip, ..last };
        let batch = [next, bad].map(|position| (position, Entry::Command(Bytes::new())));
        assert!(matches!(machine.apply(batch), Err(StoreError::OutOfOrder { .. })));
        assert!(matches!(machine.apply([(next, Entry::Blank)]), Err(StoreError::Failed)));
        assert_eq!(store.records(), records);
    }
    rig.entry(Entry::Blank);
}

#[test]
fn a_missing_record_that_another_points_to_is_damage_and_not_absence() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    rig.escrow(escrow_of(1, 1, 2, 1, 2));
    let remove = |table, key: Bytes| {
        let mut writes = WriteSet::default();
        writes.0.insert((table, key), None);
        rig.store().commit(writes).unwrap();
    };
    let (older, _) =
        rig.store().scan(Table::Keys, protector(1).as_bytes(), &[], 1).unwrap()[0].clone();
    remove(Table::Keys, older);
    let walked = query::keys_of_volume(rig.store(), device(1), volume(1), 9);
    assert!(matches!(walked, Err(StoreError::Corrupt { table: Table::Keys, .. })));
    let gap = Bytes::copy_from_slice(&3_u64.to_be_bytes());
    remove(Table::Audit, gap.clone());
    let read = query::audit_records(rig.store(), 1, 9, 99);
    assert!(matches!(read, Err(StoreError::Corrupt { table: Table::Audit, .. })));
    remove(Table::Requests, gap);
    let opened = Machine::open(Arc::clone(rig.machine.store()));
    assert!(matches!(opened, Err(StoreError::Corrupt { table: Table::Requests, .. })));
}

#[test]
fn an_enum_value_of_a_newer_version_is_an_error_and_no_default() {
    let body = grant(HUGO, Role::HelpDesk);
    let command = Command {
        actor: operator(ROOT),
        certificate: None,
        roles: Default::default(),
        request_id: request(1),
        time: at(1),
        body,
    };
    let bytes = codec::encode_command(&command);
    // The role is the last byte.
    let mut newer = bytes.to_vec();
    *newer.last_mut().unwrap() = 99;
    let error = codec::decode_command(&Bytes::from(newer)).unwrap_err();
    assert!(matches!(error, CodecError::UnknownEnum { field: "role", value: 99 }));
    assert_eq!(codec::decode_command(&bytes).unwrap(), command);
}

#[test]
fn answers_survive_their_way_from_node_to_node() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let mut answers = vec![
        rig.run(agent(1), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 1))),
        rig.run(operator(ADA), disclose_of(1, 0, None)),
        rig.run(agent(1), CommandBody::ReportCompliance(report_of(1, vec![]))),
        rig.run(operator(HUGO), CommandBody::FindKeys(FindQuery::Device(device(1)))),
        rig.run(operator(ROOT), grant("x", Role::Auditor)),
        rig.run(operator(HUGO), request_approval(1)),
        rig.run(operator(ROOT), propose_mass_recovery(60)),
        rig.run(operator(ROOT), CommandBody::AuditRead { detail: name("all") }),
        rig.entry(Entry::Blank),
    ];
    let Applied { position, audit, .. } = answers[0];
    let until = at(7);
    let rejections = [
        Rejection::AlreadyBootstrapped,
        Rejection::NotBootstrapped,
        Rejection::NotGranted { actor: agent(1), action: AuditAction::ClusterChange },
        Rejection::ForeignDevice,
        Rejection::ForeignVolume,
        Rejection::StaleVersion { expected: version(0), current: version(1) },
        Rejection::UnknownEpoch(Epoch::new(2)),
        Rejection::UnknownDevice,
        Rejection::UnknownVolume,
        Rejection::UnknownKey,
        Rejection::RequestIdReused,
        Rejection::TooManyVolumes(64),
        Rejection::TooManyUsers(33),
        Rejection::UserRequired,
        Rejection::QuotaExceeded { scope: QuotaScope::RequesterHour, limit: 200, until },
        Rejection::QuotaExceeded { scope: QuotaScope::RequesterDay, limit: 200, until },
        Rejection::QuotaExceeded { scope: QuotaScope::ClusterHour, limit: 200, until },
        Rejection::ApprovalRequired,
        Rejection::UnknownApproval(ApprovalId::after(16)),
        Rejection::ApprovalUnusable(Unusable::Mismatch),
        Rejection::ApprovalUnusable(Unusable::Pending),
        Rejection::ApprovalUnusable(Unusable::Denied),
        Rejection::ApprovalUnusable(Unusable::Used),
        Rejection::ApprovalUnusable(Unusable::Decided),
        Rejection::ApprovalExpired(until),
        Rejection::ApproverRevoked(operator(ADA)),
        Rejection::TooManyApprovals(20),
        Rejection::SecondPersonRequired,
        Rejection::PolicyChanged(3),
        Rejection::NoMassRecovery,
        Rejection::MassRecoveryOn(until),
        Rejection::LastAdministrator,
        Rejection::RepeatTooLate,
        Rejection::Unreadable,
    ];
    answers.extend(rejections.map(|rejection| Applied {
        position,
        audit,
        outcome: Err(rejection),
    }));
    answers.push(Applied { position, audit, outcome: Ok(Accepted::Bootstrapped) });
    for applied in answers {
        let bytes = codec::encode_applied(&applied);
        assert_eq!(codec::decode_applied(&bytes).unwrap(), applied);
    }
}

/// The state of `rig` with other heads, opened anew.
fn opened_with(rig: &Rig, heads: &Heads) -> Result<Machine<MemoryStore>, StoreError> {
    let store = MemoryStore::default();
    let mut records = WriteSet::default();
    for (table, (key, value)) in rig.store().records() {
        records.0.insert((table, key), Some(value));
    }
    let (table, key) = Heads::record_key();
    records.0.insert((table, Bytes::from_static(key)), Some(heads.encode()));
    store.commit(records).unwrap();
    Machine::open(Arc::new(store))
}

#[test]
fn heads_with_a_count_that_has_no_next_are_damage() {
    let rig = Rig::ready();
    let heads = rig.machine.heads();
    assert!(opened_with(&rig, heads).is_ok());
    let audit = AuditPosition { sequence: u64::MAX, ..heads.audit };
    for (field, damaged) in [
        ("audit.sequence", Heads { audit, ..heads.clone() }),
        ("requests_end", Heads { requests: u64::MAX..u64::MAX, ..heads.clone() }),
        ("records", Heads { records: u64::MAX, ..heads.clone() }),
        ("denials", Heads { denials: u64::MAX, ..heads.clone() }),
        ("denial_changes", Heads { denial_changes: u64::MAX, ..heads.clone() }),
    ] {
        let Err(error) = opened_with(&rig, &damaged) else { panic!("{field} was taken") };
        assert!(matches!(&error, StoreError::Corrupt { table: Table::Meta, .. }), "{error}");
    }
}

#[test]
fn a_denial_that_is_not_counted_is_damage_when_it_is_taken_back() {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), deny("operator/hugo"));
    let uncounted = Heads { denials: 0, ..rig.machine.heads().clone() };
    let mut machine = opened_with(&rig, &uncounted).unwrap();
    let command = Command {
        actor: operator(ROOT),
        certificate: None,
        roles: Default::default(),
        request_id: request(9),
        time: at(rig.now),
        body: allow("operator/hugo"),
    };
    let index = uncounted.position.unwrap().index + 1;
    let entry = Entry::Command(codec::encode_command(&command));
    let applied = machine.apply([(Position { term: 1, index }, entry)]);
    assert!(matches!(applied, Err(StoreError::Corrupt { table: Table::Meta, .. })), "{applied:?}");
}
