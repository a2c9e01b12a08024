//! The deny-list.

use super::fixtures::*;
use crate::domain::limits::DENIALS;
use crate::domain::*;
use crate::state::*;

const CHANGED: Outcome = Ok(Accepted::Granted { changed: true });
const UNCHANGED: Outcome = Ok(Accepted::Granted { changed: false });

fn denied(who: &Actor) -> Rejection {
    Rejection::CertificateDenied(who.clone())
}

/// What each kind of actor asks for, and may.
fn asked() -> Vec<(Actor, CommandBody)> {
    vec![
        (agent(1), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 1))),
        (agent(1), CommandBody::ReportCompliance(report_of(1, vec![]))),
        (operator(HUGO), CommandBody::FindKeys(FindQuery::Prefix(protector(1).prefix()))),
        (operator(HUGO), disclose_of(1, 1, Some("eve"))),
        (operator(ODO), CommandBody::AuditRead { detail: name("all") }),
        (operator("second"), grant("x", Role::HelpDesk)),
        (operator("second"), deny("agent/01010101-0101-0101-0101-010101010101")),
        (operator("second"), allow("node/2")),
        (operator("second"), CommandBody::ClusterChange { detail: name("add node/4") }),
        (node(1), CommandBody::Refusals(Vec::new())),
    ]
}

/// With a second administrator, a key, and three members.
fn rig() -> Rig {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), grant("second", Role::Administrator));
    rig.entry(membership(b"three", &[1, 2, 3]));
    rig
}

#[test]
fn administrators_alone_deny_and_allow() {
    for body in [deny("node/2"), allow("node/2")] {
        let mut rig = rig();
        for actor in [operator(HUGO), operator(ADA), operator(ODO), agent(1), node(1)] {
            let refused = rig.refuse(actor, body.clone());
            assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused:?}");
        }
        rig.accept(operator(ROOT), body);
    }
}

#[test]
fn a_denied_identity_is_refused_whatever_it_asks_for_until_it_is_allowed_again() {
    for (n, (actor, body)) in asked().into_iter().enumerate() {
        let mut rig = rig();
        rig.escrow(escrow_of(2, 2, 1, 0, 9));
        let body = if n == 0 { CommandBody::Escrow(escrow_of(1, 1, 3, 0, 1)) } else { body };
        let subject = actor.to_string();
        rig.accept(operator(ROOT), deny(&subject));
        for certificate in [None, certificate(7)] {
            let applied = rig.send_with(actor.clone(), certificate, 7, body.clone());
            assert_eq!(applied.outcome, Err(denied(&actor)), "{body:?}");
        }
        assert_eq!(rig.refuse(actor.clone(), body.clone()), denied(&actor));
        rig.accept(operator(ROOT), allow(&subject));
        rig.accept(actor, body);
    }
}

#[test]
fn a_denied_certificate_shuts_out_who_shows_it_and_not_its_holder_by_another_one() {
    let mut rig = rig();
    let subject = DenialSubject::Certificate(certificate(7).unwrap()).to_string();
    rig.accept(operator(ROOT), deny(&subject));
    let find = || CommandBody::FindKeys(FindQuery::Prefix(protector(1).prefix()));
    let (hugo, ada) = (operator(HUGO), operator(ADA));
    let refused = rig.send_with(hugo.clone(), certificate(7), 1, find()).outcome;
    assert_eq!(refused, Err(denied(&hugo)));
    assert_eq!(rig.last_audit().outcome.as_str(), "CERTIFICATE_DENIED");
    // Whose certificate it is does not matter.
    let refused = rig.send_with(ada.clone(), certificate(7), 1, find()).outcome;
    assert_eq!(refused, Err(denied(&ada)));
    for other in [None, certificate(8)] {
        assert!(rig.send_with(hugo.clone(), other, 1, find()).outcome.is_ok());
    }
    rig.accept(operator(ROOT), allow(&subject));
    assert!(rig.send_with(hugo, certificate(7), 9, find()).outcome.is_ok());
}

#[test]
fn a_command_counts_by_its_place_in_the_log_also_within_one_batch() {
    let mut rig = rig();
    let find = || CommandBody::FindKeys(FindQuery::Prefix(protector(1).prefix()));
    let outcomes = rig.batch([
        (operator(HUGO), find()),
        (operator(ROOT), deny("operator/hugo")),
        (operator(HUGO), find()),
    ]);
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1..], [CHANGED, Err(denied(&operator(HUGO)))]);
}

#[test]
fn an_answer_that_was_given_is_not_given_again_to_who_was_denied_since() {
    let mut rig = rig();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    let body = disclose_of(1, 1, Some("eve"));
    assert!(rig.send(operator(HUGO), 7, body.clone()).outcome.is_ok());
    rig.accept(operator(ROOT), deny("operator/hugo"));
    assert_eq!(rig.refuse_as(operator(HUGO), 7, body), denied(&operator(HUGO)));
}

#[test]
fn denying_and_allowing_are_idempotent_and_the_first_reason_stays() {
    let mut rig = rig();
    assert_eq!(rig.run(operator(ROOT), deny("operator/hugo")).outcome, CHANGED);
    let record = rig.last_audit();
    assert_eq!((record.action, record.outcome), (AuditAction::Deny, AuditOutcome::Ok));
    assert_eq!(record.detail.as_str(), "operator/hugo: laptop stolen");
    let again = CommandBody::Deny {
        subject: "operator/hugo".parse().unwrap(),
        reason: name("another reason"),
    };
    assert_eq!(rig.run(operator("second"), again).outcome, UNCHANGED);
    let listed = query::denials(rig.store(), None, 9).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].reason.as_str(), "laptop stolen");
    assert_eq!(listed[0].denied_by, operator(ROOT));
    assert_eq!(rig.run(operator(ROOT), allow("operator/hugo")).outcome, CHANGED);
    assert_eq!(rig.last_audit().action, AuditAction::Allow);
    assert_eq!(rig.run(operator(ROOT), allow("operator/hugo")).outcome, UNCHANGED);
    assert_eq!(query::denials(rig.store(), None, 9).unwrap(), []);
}

#[test]
fn the_last_administrator_who_is_not_denied_can_be_neither_denied_nor_removed() {
    let mut rig = Rig::ready();
    let alone = rig.refuse(operator(ROOT), deny("operator/root"));
    assert_eq!(alone, Rejection::LastAdministrator);
    rig.accept(operator(ROOT), grant("second", Role::Administrator));
    rig.accept(operator(ROOT), deny("operator/second"));
    // There are two, but one of them can't do anything.
    let last = rig.refuse(operator(ROOT), deny("operator/root"));
    assert_eq!(last, Rejection::LastAdministrator);
    let last = rig.refuse(operator(ROOT), revoke(ROOT, Role::Administrator));
    assert_eq!(last, Rejection::LastAdministrator);
    rig.accept(operator(ROOT), revoke("second", Role::Administrator));
}

#[test]
fn who_denied_themselves_is_told_so_again_when_it_is_repeated_and_nothing_else() {
    let mut rig = rig();
    let body = deny("operator/root");
    assert_eq!(rig.send(operator(ROOT), 7, body.clone()).outcome, CHANGED);
    assert_eq!(rig.send(operator(ROOT), 7, body.clone()).outcome, CHANGED);
    assert_eq!(rig.refuse(operator(ROOT), body), denied(&operator(ROOT)));
    let undo = rig.refuse(operator(ROOT), allow("operator/root"));
    assert_eq!(undo, denied(&operator(ROOT)));
    rig.accept(operator("second"), allow("operator/root"));
}

#[test]
fn the_last_administrator_does_not_deny_the_certificate_at_hand() {
    let mut rig = Rig::ready();
    let own = DenialSubject::Certificate(certificate(7).unwrap()).to_string();
    let refused = rig.send_with(operator(ROOT), certificate(7), 1, deny(&own)).outcome;
    assert_eq!(refused, Err(Rejection::LastAdministrator));
    // The stolen one, with another one that the operator CA issued.
    assert_eq!(rig.send_with(operator(ROOT), certificate(8), 1, deny(&own)).outcome, CHANGED);
}

#[test]
fn one_member_may_be_denied_and_the_next_only_when_that_one_is_removed() {
    let mut rig = rig();
    rig.accept(operator(ROOT), deny("node/9"));
    rig.accept(operator(ROOT), deny("node/2"));
    assert_eq!(rig.refuse(operator(ROOT), deny("node/3")), Rejection::TooManyNodesDenied);
    rig.entry(membership(b"other", &[1, 3, 4]));
    rig.accept(operator(ROOT), deny("node/3"));
    let mut two = Rig::ready();
    two.entry(membership(b"two", &[1, 2]));
    assert_eq!(two.refuse(operator(ROOT), deny("node/2")), Rejection::TooManyNodesDenied);
}

#[test]
fn the_list_has_at_most_10000_entries() {
    let mut rig = rig();
    let body = |n: u64| {
        let mut sha256 = [0; 32];
        sha256[..8].copy_from_slice(&n.to_be_bytes());
        let subject = DenialSubject::Certificate(Fingerprint::from_bytes(sha256));
        CommandBody::Deny { subject, reason: name("laptop stolen") }
    };
    rig.batch((0..DENIALS).map(|n| (operator(ROOT), body(n))));
    assert_eq!(rig.machine.heads().denials, 10_000);
    let refused = rig.refuse(operator(ROOT), body(DENIALS));
    assert_eq!(refused, Rejection::TooManyDenials(10_000));
    assert_eq!(rig.run(operator(ROOT), body(5)).outcome, UNCHANGED);
    let CommandBody::Deny { subject, .. } = body(5) else { unreachable!() };
    rig.accept(operator(ROOT), CommandBody::Allow { subject });
    rig.accept(operator(ROOT), body(DENIALS));
}

#[test]
fn the_list_comes_in_pages_and_each_entry_once() {
    let mut rig = rig();
    let own = DenialSubject::Certificate(certificate(7).unwrap()).to_string();
    let subjects = ["operator/hugo", "node/9", &own, "operator/hugo-two"];
    for subject in subjects {
        rig.accept(operator(ROOT), deny(subject));
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = query::denials(rig.store(), after.as_ref(), 1).unwrap();
        let Some(denial) = page.into_iter().next() else { break };
        listed.push(denial.subject.to_string());
        after = Some(denial.subject);
    }
    assert_eq!(listed, ["node/9", "operator/hugo", "operator/hugo-two", &own]);
}
