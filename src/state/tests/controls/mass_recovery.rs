//! The days on which quotas are lifted: by two administrators, for a bounded time.

use super::*;
use crate::domain::limits::{MASS_RECOVERY_MS, MASS_RECOVERY_PROPOSAL_MS};

fn one_an_hour(parts: &mut PolicyParts) {
    marked(parts);
    parts.requester_hour = 1;
    parts.cluster_hour = 1;
}

fn confirm(number: u64) -> CommandBody {
    CommandBody::ConfirmMassRecovery(number)
}

fn end(number: u64) -> CommandBody {
    CommandBody::EndMassRecovery(number)
}

#[test]
fn two_administrators_lift_the_quotas_for_a_while_and_each_disclosure_says_so() {
    let mut rig = bounded(one_an_hour);
    rig.accept(operator(HUGO), by_hugo(1));
    let number = proposed(&mut rig, 60);
    assert_eq!(rig.last_audit().detail, name("mass recovery 1 for 60 min: the update of 19 July"));
    rig.refuse(operator(HUGO), by_hugo(1));
    rig.accept(operator(RUTH), confirm(number));
    let start = rig.now;
    assert_eq!(rig.machine.heads().mass_recovery_until, at(start + HOUR));
    for _ in 0..300 {
        rig.accept(operator(HUGO), by_hugo(1));
        assert_eq!(rig.last_audit().detail, name("mass recovery 1"));
    }
    rig.now = start + HOUR - 1;
    rig.accept(operator(HUGO), by_hugo(1));
    rig.now += 1;
    // What was disclosed meanwhile counts for no quota, and what was before it, an hour ago, not any more.
    rig.now += MINUTE;
    rig.accept(operator(HUGO), by_hugo(1));
    assert_eq!(rig.last_audit().detail, Text::default());
    rig.refuse(operator(HUGO), by_hugo(1));
}

#[test]
fn one_administrator_alone_lifts_nothing() {
    let mut rig = bounded(one_an_hour);
    let number = proposed(&mut rig, 60);
    assert_eq!(rig.refuse(operator(ROOT), confirm(number)), Rejection::SecondPersonRequired);
    for who in [operator(HUGO), operator(ADA), operator(ODO), agent(1), node(1)] {
        for body in [propose_mass_recovery(60), confirm(number), end(number)] {
            let refused = rig.refuse(who.clone(), body);
            assert!(matches!(refused, Rejection::NotGranted { .. }), "{who}: {refused}");
        }
    }
    assert_eq!(rig.machine.heads().mass_recovery_until, at(0));
}

#[test]
fn only_the_very_proposal_is_confirmed_once_and_in_time() {
    let mut rig = bounded(one_an_hour);
    let first = proposed(&mut rig, 60);
    // Another one took its place: whoever confirms has seen the newest.
    let second = proposed(&mut rig, 600);
    for wrong in [first, second + 1, 0] {
        assert_eq!(rig.refuse(operator(RUTH), confirm(wrong)), Rejection::NoMassRecovery);
    }
    rig.now += MASS_RECOVERY_PROPOSAL_MS;
    assert_eq!(rig.refuse(operator(RUTH), confirm(second)), Rejection::NoMassRecovery);
    let third = proposed(&mut rig, 60);
    rig.accept(operator(RUTH), confirm(third));
    let until = at(rig.now + HOUR);
    assert_eq!(
        rig.refuse(operator(ROOT), propose_mass_recovery(5)),
        Rejection::MassRecoveryOn(until)
    );
    rig.now += 30 * MINUTE;
    // It does not get longer by being confirmed again.
    assert_eq!(rig.refuse(operator(RUTH), confirm(third)), Rejection::NoMassRecovery);
    assert_eq!(rig.machine.heads().mass_recovery_until, until);
}

#[test]
fn any_administrator_ends_it_early_or_takes_the_proposal_back() {
    let mut rig = bounded(one_an_hour);
    let number = proposed(&mut rig, 60);
    rig.accept(operator(RUTH), end(number));
    assert_eq!(rig.refuse(operator(RUTH), confirm(number)), Rejection::NoMassRecovery);
    let number = proposed(&mut rig, 60);
    rig.accept(operator(RUTH), confirm(number));
    rig.accept(operator(HUGO), by_hugo(1));
    rig.accept(operator(ROOT), end(number));
    assert_eq!(rig.last_audit().action, AuditAction::MassRecoveryEnd);
    rig.accept(operator(HUGO), by_hugo(1));
    rig.refuse(operator(HUGO), by_hugo(1));
    assert_eq!(rig.refuse(operator(ROOT), end(number)), Rejection::NoMassRecovery);
    let found = query::mass_recovery(rig.store()).unwrap().unwrap();
    assert_eq!(found.ended, Some((operator(ROOT), at(rig.now))));
    // One that is over by itself needs no end.
    let number = proposed(&mut rig, 60);
    rig.accept(operator(RUTH), confirm(number));
    rig.now += HOUR;
    assert_eq!(rig.refuse(operator(ROOT), end(number)), Rejection::NoMassRecovery);
}

#[test]
fn dual_control_of_marked_devices_stays() {
    let mut rig = bounded(one_an_hour);
    let number = proposed(&mut rig, 60);
    rig.accept(operator(RUTH), confirm(number));
    assert_eq!(rig.refuse(operator(HUGO), by_hugo(4)), Rejection::ApprovalRequired);
    let approval = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ADA), decide_approval(approval, true));
    rig.accept(operator(HUGO), disclose_by(4, approval));
    assert_eq!(rig.last_audit().detail, name("approval 1 by operator/ada, mass recovery 1"));
}

#[test]
fn it_never_lasts_longer_than_the_bound_whatever_a_node_has_let_through() {
    let mut rig = bounded(one_an_hour);
    let number = proposed(&mut rig, 100_000);
    rig.accept(operator(RUTH), confirm(number));
    let until = rig.now + *MASS_RECOVERY_MS.end();
    assert_eq!(rig.machine.heads().mass_recovery_until, at(until));
}

#[test]
fn a_seal_is_not_lifted_with_the_quotas() {
    let mut rig = bounded(one_an_hour);
    let number = proposed(&mut rig, 60);
    rig.accept(operator(RUTH), confirm(number));
    rig.accept(operator(ROOT), seal("incident"));
    assert_eq!(rig.refuse(operator(HUGO), by_hugo(1)), Rejection::Sealed);
}

#[test]
fn a_repeated_proposal_has_its_number_and_a_repeated_confirmation_lifts_nothing_again() {
    let mut rig = bounded(one_an_hour);
    let first = rig.send(operator(ROOT), 7, propose_mass_recovery(60)).outcome;
    assert_eq!(rig.send(operator(ROOT), 7, propose_mass_recovery(60)).outcome, first);
    let confirmed = Ok(Accepted::Granted { changed: true });
    assert_eq!(rig.send(operator(RUTH), 8, confirm(1)).outcome, confirmed);
    let until = rig.machine.heads().mass_recovery_until;
    rig.now += MINUTE;
    assert_eq!(rig.send(operator(RUTH), 8, confirm(1)).outcome, confirmed);
    assert_eq!(rig.machine.heads().mass_recovery_until, until);
    rig.accept(operator(ROOT), end(1));
    assert_eq!(rig.send(operator(RUTH), 8, confirm(1)).outcome, confirmed);
    assert_eq!(rig.machine.heads().mass_recovery_until, at(0));
}
