//! Import: an operator escrows for devices what they had before, and nothing that could take the place of their own.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

fn import(rig: &mut Rig, escrow: Escrow) -> ReceiptBody {
    match rig.accept(operator(MIA), CommandBody::Escrow(escrow)) {
        Accepted::Escrowed(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_import_gets_a_receipt_and_names_who_imported_it() {
    let mut rig = Rig::ready();
    let escrow = escrow_of(1, 1, 1, 0, 1);
    let receipt = import(&mut rig, escrow.clone());
    assert_eq!((receipt.device, receipt.version), (device(1), version(1)));
    assert_eq!(receipt.sealed_digest, sealed_digest(&escrow.key, None));
    let record = rig.last_audit();
    assert_eq!((record.action, record.actor), (AuditAction::Escrow, Some(operator(MIA))));
    assert_eq!((record.device, record.protector), (Some(device(1)), Some(protector(1))));
    let key = rig.disclose(1, 0);
    assert_eq!(key.imported_by, Some(MIA.parse().unwrap()));
    // A retry gets the same receipt.
    assert_eq!(import(&mut rig, escrow), receipt);
}

#[test]
fn who_may_import_can_do_nothing_else() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    for body in [
        CommandBody::FindKeys(FindQuery::Device(device(1))),
        disclose_of(1, 0, Some("eve")),
        CommandBody::ReportCompliance(report_of(1, vec![])),
        CommandBody::AuditRead { detail: name("all") },
        CommandBody::ClusterChange { detail: name("add node/4") },
        grant(MIA, Role::HelpDesk),
        add_to_group(1, "berlin"),
        deny("operator/hugo"),
        seal("incident"),
        unseal_by_shares(0),
        agent_ca(1, 1),
    ] {
        let refused = rig.refuse(operator(MIA), body.clone());
        assert!(matches!(refused, Rejection::NotGranted { .. }), "{body:?}: {refused:?}");
    }
}

#[test]
fn nobody_else_escrows_for_another_device() {
    let mut rig = Rig::ready();
    for who in [ROOT, HUGO, ADA, ODO, "nobody"] {
        let refused = rig.refuse(operator(who), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 1)));
        assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused:?}");
    }
}

#[test]
fn a_key_that_the_device_escrowed_itself_is_never_followed_by_an_import() {
    let mut rig = Rig::ready();
    assert_eq!(import(&mut rig, escrow_of(1, 1, 1, 0, 1)).version, version(1));
    assert_eq!(import(&mut rig, escrow_of(1, 1, 2, 1, 2)).version, version(2));
    rig.escrow(escrow_of(1, 1, 3, 2, 3));
    for expected in [0, 2, 3] {
        let late = CommandBody::Escrow(escrow_of(1, 1, 4, expected, 4));
        assert_eq!(rig.refuse(operator(MIA), late), Rejection::EscrowedByDevice);
    }
    let (keys, _) = rig.find(FindQuery::Device(device(1)));
    let importers: Vec<_> = keys.iter().map(|key| key.imported_by.is_some()).collect();
    assert_eq!(importers, [true, true, false]);
    // Another volume of the same device has none yet.
    import(&mut rig, escrow_of(1, 2, 5, 0, 5));
}

#[test]
fn an_import_is_compared_and_set_like_any_escrow() {
    let mut rig = Rig::ready();
    import(&mut rig, escrow_of(1, 1, 1, 0, 1));
    let stale = CommandBody::Escrow(escrow_of(1, 1, 2, 0, 2));
    let wanted = Rejection::StaleVersion { expected: version(0), current: version(1) };
    assert_eq!(rig.refuse(operator(MIA), stale), wanted);
    let foreign = CommandBody::Escrow(escrow_of(2, 1, 1, 0, 2));
    assert_eq!(rig.refuse(operator(MIA), foreign), Rejection::ForeignVolume);
}

#[test]
fn an_import_fills_gaps_and_is_no_contact_with_the_device() {
    let mut rig = Rig::ready();
    import(&mut rig, escrow_of(1, 1, 1, 0, 1));
    let known = query::device(rig.store(), device(1)).unwrap().unwrap();
    assert_eq!((known.host_name.as_str(), known.last_contact), ("pc-1", at(0)));
    assert_eq!(known.first_seen, at(rig.now));
    rig.now += 5;
    let report = CommandBody::ReportCompliance(ReportCompliance {
        host_name: name("laptop"),
        users: vec![user("mallory")],
        ..report_of(1, vec![])
    });
    rig.accept(agent(1), report);
    rig.now += 5;
    import(&mut rig, escrow_of(1, 2, 2, 0, 2));
    let known = query::device(rig.store(), device(1)).unwrap().unwrap();
    assert_eq!((known.host_name.as_str(), known.users), ("laptop", vec![user("mallory")]));
    assert_eq!(known.last_contact, at(rig.now - 5));
}

#[test]
fn an_import_that_is_limited_to_a_group_reaches_its_devices_alone() {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), grant_for(MIA, Role::DataMigration, &["berlin"]));
    rig.accept(operator(ROOT), add_to_group(1, "berlin"));
    import(&mut rig, escrow_of(1, 1, 1, 0, 1));
    let outside = CommandBody::Escrow(escrow_of(2, 1, 2, 0, 2));
    assert_eq!(rig.refuse(operator(MIA), outside), Rejection::OutsideGroups);
    assert_eq!(rig.last_audit().device, Some(device(2)));
}
