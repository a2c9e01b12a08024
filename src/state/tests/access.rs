//! Bootstrap, grants, notes and refusals.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

#[test]
fn the_bootstrap_makes_keyring_and_first_administrator_once() {
    let mut rig = Rig::empty();
    assert_eq!(rig.send(operator("any"), 1, bootstrap()).outcome, Ok(Accepted::Bootstrapped));
    let keyring = query::keyring(rig.store()).unwrap().unwrap();
    assert_eq!(keyring.cluster, CLUSTER);
    assert_eq!(keyring.epochs.len(), 1);
    assert_eq!(rig.machine.heads().cluster, Some(CLUSTER));
    let roles = query::roles_of(rig.store(), &ROOT.parse().unwrap()).unwrap();
    assert_eq!(roles.into_iter().collect::<Vec<_>>(), [Role::Administrator]);
    assert_eq!(rig.send(operator("any"), 1, bootstrap()).outcome, Ok(Accepted::Bootstrapped));
    assert_eq!(rig.refuse(operator("any"), bootstrap()), Rejection::AlreadyBootstrapped);
}

#[test]
fn no_agent_and_no_node_may_bootstrap() {
    let mut rig = Rig::empty();
    for actor in [agent(1), node(1)] {
        assert!(matches!(rig.refuse(actor, bootstrap()), Rejection::NotGranted { .. }));
    }
    assert_eq!(query::keyring(rig.store()).unwrap(), None);
}

#[test]
fn administrators_alone_grant_revoke_and_change_the_cluster() {
    let change = CommandBody::ClusterChange { detail: name("add node/4") };
    for body in [grant("x", Role::HelpDesk), revoke(HUGO, Role::HelpDesk), change] {
        let mut rig = Rig::ready();
        for actor in [operator(HUGO), operator(ADA), operator(ODO), agent(1), node(1)] {
            let refused = rig.refuse(actor, body.clone());
            assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused:?}");
        }
        rig.accept(operator(ROOT), body);
    }
}

#[test]
fn the_last_administrator_cannot_be_removed_but_one_of_two_can() {
    let mut rig = Rig::ready();
    let body = revoke(ROOT, Role::Administrator);
    assert_eq!(rig.refuse(operator(ROOT), body.clone()), Rejection::LastAdministrator);
    rig.accept(operator(ROOT), grant("second", Role::Administrator));
    assert_eq!(rig.accept(operator(ROOT), body), Accepted::Granted { changed: true });
    let last = revoke("second", Role::Administrator);
    assert_eq!(rig.refuse(operator("second"), last), Rejection::LastAdministrator);
}

#[test]
fn a_repeated_grant_says_what_the_first_said_and_does_not_undo_a_revocation() {
    let mut rig = Rig::ready();
    let body = grant("x", Role::Auditor);
    let first = rig.send(operator(ROOT), 7, body.clone()).outcome;
    assert_eq!(first, Ok(Accepted::Granted { changed: true }));
    rig.accept(operator(ROOT), revoke("x", Role::Auditor));
    assert_eq!(rig.send(operator(ROOT), 7, body).outcome, first);
    assert!(query::roles_of(rig.store(), &"x".parse().unwrap()).unwrap().is_empty());
}

#[test]
fn roles_of_an_operator_are_not_those_of_one_whose_name_is_longer() {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), grant("bob", Role::Auditor));
    rig.accept(operator(ROOT), grant("bobby", Role::HelpDesk));
    let roles = query::roles_of(rig.store(), &"bob".parse().unwrap()).unwrap();
    assert_eq!(roles.into_iter().collect::<Vec<_>>(), [Role::Auditor]);
}

#[test]
fn auditors_alone_read_the_audit_chain_and_that_is_recorded() {
    let body = CommandBody::AuditRead { detail: name("1 to 9") };
    let mut rig = Rig::ready();
    for other in [operator(ROOT), operator(HUGO), operator(ADA), agent(1), node(1)] {
        let refused = rig.refuse(other, body.clone());
        assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused:?}");
    }
    assert_eq!(rig.accept(operator(ODO), body), Accepted::Recorded);
    assert_eq!(rig.last_audit().action, AuditAction::AuditRead);
    assert_eq!(rig.last_audit().detail.as_str(), "1 to 9");
}

#[test]
fn the_first_administrator_can_appoint_an_auditor() {
    let mut rig = Rig::empty();
    rig.accept(operator(ROOT), bootstrap());
    let body = CommandBody::AuditRead { detail: name("all") };
    assert!(matches!(rig.refuse(operator(ROOT), body.clone()), Rejection::NotGranted { .. }));
    rig.accept(operator(ROOT), grant(ODO, Role::Auditor));
    assert_eq!(rig.accept(operator(ODO), body), Accepted::Recorded);
}

#[test]
fn a_node_reports_refusals_with_one_record_each_and_a_retry_counts_none_twice() {
    let refusal = |n, count| RefusalCount {
        actor: agent(n),
        action: name("EscrowRecoveryKey"),
        reason: name("FOREIGN_DEVICE"),
        count,
    };
    let body = CommandBody::Refusals(vec![refusal(1, 3), refusal(2, 40)]);
    let mut rig = Rig::ready();
    let head = rig.machine.heads().audit.sequence;
    for _ in 0..2 {
        assert_eq!(rig.send(node(2), 7, body.clone()).outcome, Ok(Accepted::Recorded));
        assert_eq!(rig.machine.heads().audit.sequence, head + 2);
    }
    let last = rig.last_audit();
    assert_eq!((last.actor, last.count), (Some(agent(2)), 40));
    assert_eq!(last.outcome.as_str(), "FOREIGN_DEVICE");
    assert_eq!(last.detail.as_str(), "EscrowRecoveryKey at node/2");
    assert!(matches!(rig.refuse(operator(ROOT), body), Rejection::NotGranted { .. }));
}

#[test]
fn who_gave_up_the_role_that_allowed_it_is_told_so_again_when_it_is_repeated() {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), grant("second", Role::Administrator));
    let body = revoke(ROOT, Role::Administrator);
    let first = rig.send(operator(ROOT), 7, body.clone()).outcome;
    assert_eq!(first, Ok(Accepted::Granted { changed: true }));
    assert_eq!(rig.send(operator(ROOT), 7, body.clone()).outcome, first);
    // Nothing else is permitted by that, and not the same with another id.
    let other = rig.refuse_as(operator(ROOT), 7, grant("x", Role::Auditor));
    assert!(matches!(other, Rejection::NotGranted { .. }), "{other:?}");
    assert!(matches!(rig.refuse(operator(ROOT), body), Rejection::NotGranted { .. }));
}
