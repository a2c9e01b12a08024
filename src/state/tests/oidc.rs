//! People whom a provider vouches for.

use std::collections::BTreeSet;

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

pub(super) fn person(subject: &str) -> Actor {
    let issuer = "https://idp.example/realm".parse().unwrap();
    Actor::Oidc(OidcSubject::new(issuer, subject).unwrap())
}

/// A command of somebody whose token gave these roles.
fn sent(rig: &mut Rig, actor: Actor, roles: &[Role], id: u64, body: CommandBody) -> Outcome {
    let command = Command {
        actor,
        certificate: None,
        roles: roles.iter().copied().collect(),
        request_id: request(id),
        time: at(rig.now),
        body,
    };
    rig.entry(Entry::Command(codec::encode_command(&command))).outcome
}

fn not_granted(outcome: &Outcome) -> bool {
    matches!(outcome, Err(Rejection::NotGranted { .. }))
}

#[test]
fn the_roles_of_a_token_count_for_the_one_command_that_they_came_with() {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let alice = person("alice");
    let granted = query::grants(rig.store(), None, 99).unwrap().len();
    let find = || CommandBody::FindKeys(FindQuery::Prefix(protector(1).prefix()));
    assert!(sent(&mut rig, alice.clone(), &[Role::HelpDesk], 1, find()).is_ok());
    assert_eq!(rig.last_audit().actor, Some(alice.clone()));
    for roles in [[].as_slice(), &[Role::Auditor, Role::Administrator, Role::ReportReader]] {
        let outcome = sent(&mut rig, alice.clone(), roles, 2, find());
        assert!(not_granted(&outcome), "{roles:?}: {outcome:?}");
    }
    assert_eq!(
        query::grants(rig.store(), None, 99).unwrap().len(),
        granted,
        "no grant comes of it"
    );
    // The help desk has to name the user, whoever vouches for it.
    let nameless = sent(&mut rig, alice.clone(), &[Role::HelpDesk], 3, disclose_of(1, 1, None));
    assert_eq!(nameless, Err(Rejection::UserRequired));
    let roles = [Role::AdvancedHelpDesk];
    assert!(sent(&mut rig, alice, &roles, 4, disclose_of(1, 1, None)).is_ok());
}

#[test]
fn roles_in_a_command_are_nothing_to_whom_a_certificate_proves() {
    let mut rig = Rig::ready();
    let body = || CommandBody::AuditRead { detail: name("all") };
    for actor in [operator("nobody"), operator(ROOT), agent(1), node(1)] {
        let outcome = sent(&mut rig, actor.clone(), &Role::ALL, 1, body());
        assert!(not_granted(&outcome), "{actor}: {outcome:?}");
    }
}

#[test]
fn a_person_of_a_provider_is_nobody_else_of_the_same_name() {
    let mut rig = Rig::ready();
    // An operator's grants are not those of a person whom a provider calls the same.
    let outcome = sent(&mut rig, person(ODO), &[], 1, CommandBody::AuditRead { detail: name("x") });
    assert!(not_granted(&outcome), "{outcome:?}");
    // Nor are their request ids: the same id with another body is a request of its own.
    let body = |detail: &str| CommandBody::AuditRead { detail: name(detail) };
    assert!(sent(&mut rig, operator(ODO), &[], 7, body("a")).is_ok());
    assert!(sent(&mut rig, person(ODO), &[Role::Auditor], 7, body("b")).is_ok());
    let again = sent(&mut rig, person(ODO), &[Role::Auditor], 7, body("c"));
    assert_eq!(again, Err(Rejection::RequestIdReused));
}

#[test]
fn who_is_denied_by_name_can_do_nothing_with_any_token() {
    let mut rig = Rig::ready();
    let alice = person("alice");
    let find = || CommandBody::FindKeys(FindQuery::Prefix(protector(1).prefix()));
    rig.accept(operator(ROOT), deny("oidc/https://idp.example/realm#alice"));
    let outcome = sent(&mut rig, alice.clone(), &Role::ALL, 1, find());
    assert_eq!(outcome, Err(Rejection::CertificateDenied(alice.clone())));
    // Others of the provider are not disturbed.
    assert!(sent(&mut rig, person("bob"), &[Role::HelpDesk], 2, find()).is_ok());
    rig.accept(operator(ROOT), allow("oidc/https://idp.example/realm#alice"));
    assert!(sent(&mut rig, alice, &[Role::HelpDesk], 3, find()).is_ok());
}

#[test]
fn an_administrator_by_token_does_what_one_does_but_is_none_to_rely_on() {
    let mut rig = Rig::ready();
    let admin = person("admin");
    let role = [Role::Administrator];
    // The only one who has a grant can't be taken away by somebody whose provider may be gone tomorrow.
    for (id, body) in [(1, revoke(ROOT, Role::Administrator)), (2, deny("operator/root"))] {
        let outcome = sent(&mut rig, admin.clone(), &role, id, body);
        assert_eq!(outcome, Err(Rejection::LastAdministrator));
    }
    let granted = sent(&mut rig, admin.clone(), &role, 3, grant("second", Role::Administrator));
    assert_eq!(granted, Ok(Accepted::Granted { changed: true }));
    let grants = query::grants(rig.store(), None, 99).unwrap();
    let second = grants.iter().find(|grant| grant.operator.as_str() == "second").unwrap();
    assert_eq!(second.granted_by, admin);
    assert!(sent(&mut rig, admin, &role, 4, deny("operator/root")).is_ok());
}

#[test]
fn a_refusal_is_recorded_in_the_name_of_the_person() {
    let mut rig = Rig::ready();
    let refusal = RefusalCount {
        actor: person("alice"),
        action: name("AccessToken"),
        reason: name("OIDC_NO_ROLE"),
        count: 3,
    };
    rig.accept(node(1), CommandBody::Refusals(vec![refusal]));
    let record = rig.last_audit();
    assert_eq!((record.actor, record.count), (Some(person("alice")), 3));
    assert_eq!(record.outcome.as_str(), "OIDC_NO_ROLE");
}

/// Commands of people with tokens, one of them denied, and a denial of one.
pub(super) fn history() -> Vec<Command> {
    let alice = || person("auth0|alice");
    let all: BTreeSet<Role> = Role::ALL.into();
    let refusal = RefusalCount {
        actor: alice(),
        action: name("AccessToken"),
        reason: name("OIDC_NO_ROLE"),
        count: 2,
    };
    let bodies = [
        (operator(ROOT), 0, BTreeSet::new(), bootstrap()),
        (agent(1), 0, BTreeSet::new(), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 0x11))),
        (alice(), 0, [Role::HelpDesk].into(), disclose_of(1, 0, Some("eve"))),
        (alice(), 7, [Role::Auditor, Role::ReportReader].into(), disclose_of(1, 0, Some("eve"))),
        (alice(), 7, all.clone(), grant(HUGO, Role::HelpDesk)),
        (node(2), 0, BTreeSet::new(), CommandBody::Refusals(vec![refusal])),
        (operator(ROOT), 0, BTreeSet::new(), deny("oidc/https://idp.example/realm#auth0|alice")),
        (alice(), 0, all, CommandBody::FindKeys(FindQuery::Device(device(1)))),
    ];
    let numbered = bodies.into_iter().zip(1..);
    let commands = numbered.map(|((actor, shown, roles, body), id)| Command {
        actor,
        certificate: certificate(shown),
        roles,
        request_id: request(id),
        time: at(1_700_000_000_000 + id),
        body,
    });
    commands.collect()
}
