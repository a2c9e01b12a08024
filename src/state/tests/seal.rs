//! The seal in the log: what comes after it opens nothing, and only who may ends it.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

fn changed(accepted: Accepted) -> bool {
    match accepted {
        Accepted::Granted { changed } => changed,
        other => panic!("{other:?}"),
    }
}

fn sealed() -> Rig {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    assert!(changed(rig.accept(operator(ROOT), seal("incident 7"))));
    rig
}

#[test]
fn a_sealed_cluster_discloses_nothing_and_takes_and_finds_keys_all_the_same() {
    let mut rig = sealed();
    for who in [HUGO, ADA] {
        let refused = rig.refuse(operator(who), disclose_of(1, 0, Some("eve")));
        assert_eq!(refused, Rejection::Sealed);
    }
    rig.escrow(escrow_of(1, 1, 2, 1, 2));
    let report = report_of(1, vec![compliance(1, ComplianceStatus::Compliant)]);
    rig.accept(agent(1), CommandBody::ReportCompliance(report));
    assert_eq!(rig.find(FindQuery::Device(device(1))).0.len(), 2);
    rig.accept(operator(ODO), CommandBody::AuditRead { detail: name("all") });
    assert!(changed(rig.accept(operator(ROOT), unseal(1))));
    rig.disclose(2, 0);
}

#[test]
fn not_even_a_disclosure_that_was_answered_before_is_answered_again_once_sealed() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let body = || disclose_of(1, 0, Some("eve"));
    rig.send(operator(HUGO), 7, body()).outcome.unwrap();
    rig.accept(operator(ROOT), seal("incident"));
    assert_eq!(rig.refuse_as(operator(HUGO), 7, body()), Rejection::Sealed);
}

#[test]
fn administrators_alone_seal_and_order_the_end_of_it_and_any_role_may_give_shares() {
    let mut rig = sealed();
    for who in [operator(HUGO), operator(ADA), operator(ODO), agent(1), node(1)] {
        for body in [seal("x"), unseal(1)] {
            let refused = rig.refuse(who.clone(), body);
            assert!(matches!(refused, Rejection::NotGranted { .. }), "{who}: {refused}");
        }
    }
    for who in [operator("nobody"), agent(1), node(2)] {
        let refused = rig.refuse(who, unseal_by_shares(1));
        assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused}");
    }
    assert!(changed(rig.accept(operator(ODO), unseal_by_shares(1))));
}

#[test]
fn who_sealed_it_first_when_and_why_can_be_read_until_it_ends() {
    let mut rig = sealed();
    let at_first = rig.now;
    rig.now += 60_000;
    assert!(!changed(rig.accept(operator(ROOT), seal("again"))));
    let seal = query::seal(rig.store()).unwrap().unwrap();
    assert_eq!((seal.sealed_by, seal.reason), (operator(ROOT), name("incident 7")));
    assert_eq!(seal.sealed_at.as_millis(), at_first);
    rig.accept(operator(ROOT), unseal(2));
    assert_eq!(query::seal(rig.store()).unwrap(), None);
    let heads = rig.machine.heads();
    assert_eq!(Digest::recount(rig.store().records()), (heads.sum, heads.records));
    assert_eq!((heads.seals, heads.sealed), (2, false));
}

#[test]
fn a_seal_that_came_in_between_is_not_undone() {
    let mut rig = sealed();
    rig.accept(operator(ROOT), seal("once more"));
    for body in [unseal(1), unseal_by_shares(1), unseal(3)] {
        assert_eq!(rig.refuse(operator(ROOT), body), Rejection::SealedAgain);
    }
    assert!(changed(rig.accept(operator(ROOT), unseal_by_shares(2))));
    // A node that is given shares later leaves a record, too.
    assert!(!changed(rig.accept(operator(ROOT), unseal_by_shares(2))));
}

#[test]
fn the_records_say_who_sealed_why_and_by_which_shares_which_node_was_unsealed() {
    let mut rig = sealed();
    let record = rig.last_audit();
    assert_eq!((record.action, record.detail), (AuditAction::Seal, name("incident 7")));
    rig.accept(operator(ODO), unseal_by_shares(1));
    let record = rig.last_audit();
    assert_eq!(record.action, AuditAction::Unseal);
    assert_eq!(record.actor, Some(operator(ODO)));
    assert_eq!(record.detail, name("node 2 by shares 1, 3, 5"));
    rig.accept(operator(ROOT), unseal(1));
    assert_eq!(rig.last_audit().detail, name("nodes may read the root key again"));
}

#[test]
fn a_cluster_knows_how_its_root_key_is_split_if_it_is() {
    let mut rig = Rig::empty();
    rig.accept(operator(ROOT), bootstrap_with_shares());
    let keyring = query::keyring(rig.store()).unwrap().unwrap();
    assert_eq!(keyring.shares, Some(share_set()));
    assert_eq!(keyring.epochs.len(), 1);
    let plain = Rig::ready();
    assert_eq!(query::keyring(plain.store()).unwrap().unwrap().shares, None);
}
