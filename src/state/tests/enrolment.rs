//! Enrolment: tokens, the CA of devices, and who gets which certificate.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

const CHANGED: Outcome = Ok(Accepted::Granted { changed: true });
const UNCHANGED: Outcome = Ok(Accepted::Granted { changed: false });

/// With a CA of devices; the clock stands at the beginning of the certificates of [`enrol_of`].
fn rig() -> Rig {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), agent_ca(1, 0xca));
    rig
}

fn issued(binding: TokenBinding) -> Rig {
    let mut rig = rig();
    rig.accept(operator(ROOT), issue_for(1, binding));
    rig
}

fn got(applied: Applied) -> Enrolled {
    match applied.outcome {
        Ok(Accepted::Enrolled(enrolled)) => enrolled,
        other => panic!("{other:?}"),
    }
}

fn used(rig: &Rig) -> u32 {
    query::token(rig.store(), token_id(1)).unwrap().unwrap().used
}

fn said(rig: &Rig) -> (AuditAction, String, Option<DeviceId>) {
    let record = rig.last_audit();
    (record.action, record.outcome.as_str().to_owned(), record.device)
}

#[test]
fn administrators_alone_make_the_ca_and_issue_and_revoke_tokens() {
    let one = TokenBinding::Device(device(1));
    for body in [agent_ca(2, 1), issue_for(2, one.clone()), CommandBody::RevokeToken(token_id(1))] {
        let mut rig = issued(one.clone());
        for actor in [operator(HUGO), operator(ADA), operator(ODO), agent(1), node(1)] {
            let refused = rig.refuse(actor, body.clone());
            assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused:?}");
        }
        assert_eq!(rig.accept(operator(ROOT), body), Accepted::Granted { changed: true });
    }
}

#[test]
fn a_token_lets_one_device_in_once_and_is_refused_when_it_is_replayed() {
    let mut rig = issued(TokenBinding::Device(device(1)));
    let first = got(rig.send(node(1), 7, enrol_of(1, 1, 1, 0x11)));
    assert_eq!(first.certificate, device_certificate(1, 0x11, 1_700_000_000_000).der);
    assert!(!first.again && !first.repeated);
    assert_eq!(said(&rig), (AuditAction::Enrol, "ok".into(), Some(device(1))));
    assert_eq!(used(&rig), 1);
    // Another request, another key, or another device: whoever it is, the token is spent.
    assert_eq!(rig.refuse(node(1), enrol_of(1, 1, 1, 0x22)), Rejection::TokenUsed);
    assert_eq!(rig.refuse_as(node(1), 7, enrol_of(1, 1, 2, 0x22)), Rejection::TokenUsed);
    assert_eq!(rig.refuse(node(2), enrol_of(1, 2, 2, 0x22)), Rejection::TokenForeignDevice);
    let kept = query::enrolment(rig.store(), device(1)).unwrap().unwrap();
    assert_eq!(kept.certificate.der, first.certificate);
}

#[test]
fn a_retry_gets_the_certificate_that_counts_through_whatever_node_it_comes() {
    let mut rig = issued(TokenBinding::Device(device(1)));
    let first = got(rig.send(node(1), 7, enrol_of(1, 1, 1, 0x11)));
    // The answer was lost; another node has signed anew, and the token has expired meanwhile.
    rig.now += 2 * TTL_MS;
    let again = got(rig.send(node(2), 7, enrol_of(1, 1, 1, 0x99)));
    assert_eq!(again, Enrolled { repeated: true, ..first });
    assert_eq!(said(&rig), (AuditAction::Enrol, "repeated".into(), Some(device(1))));
    assert_eq!(used(&rig), 1);
}

#[test]
fn each_token_that_lets_nobody_in_is_refused_for_its_own_reason() {
    let mut rig = issued(TokenBinding::Device(device(1)));
    let foreign = rig.refuse(node(1), enrol_of(1, 2, 1, 1));
    assert_eq!(foreign, Rejection::TokenForeignDevice);
    assert_eq!(rig.last_audit().device, Some(device(2)));
    assert_eq!(rig.refuse(node(1), enrol_of(9, 1, 1, 1)), Rejection::UnknownToken);
    let CommandBody::Enrol(enrol) = enrol_of(1, 1, 1, 1) else { unreachable!() };
    let forged = CommandBody::Enrol(Enrol { token_digest: [9; 32], ..enrol.clone() });
    assert_eq!(rig.refuse(node(1), forged), Rejection::UnknownToken);
    let other_ca = DeviceCertificate { agent_ca: 2, ..enrol.certificate.clone() };
    let unknown = CommandBody::Enrol(Enrol { certificate: other_ca, ..enrol });
    assert_eq!(rig.refuse(node(1), unknown), Rejection::UnknownAgentCa(2));
    // The last moment is still in time.
    rig.now += TTL_MS + 1;
    let end = at(rig.now - 1);
    assert_eq!(rig.refuse(node(1), enrol_of(1, 1, 1, 1)), Rejection::TokenExpired(end));
    // The clock of one node does not bring it back.
    rig.now -= 10;
    assert_eq!(rig.refuse(node(1), enrol_of(1, 1, 1, 1)), Rejection::TokenExpired(end));
    rig.accept(operator(ROOT), CommandBody::RevokeToken(token_id(1)));
    assert_eq!(rig.refuse(node(1), enrol_of(1, 1, 1, 1)), Rejection::TokenRevoked);
    assert_eq!(used(&rig), 0);
}

#[test]
fn nobody_but_a_node_speaks_for_a_device_that_enrols() {
    let mut rig = issued(TokenBinding::Device(device(1)));
    for actor in [agent(1), operator(ROOT)] {
        let refused = rig.refuse(actor, enrol_of(1, 1, 1, 1));
        assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused:?}");
    }
}

#[test]
fn a_group_lets_as_many_devices_in_as_it_counts() {
    let mut rig = issued(group("berlin", 2));
    for d in [1, 2] {
        assert!(!got(rig.run(node(1), enrol_of(1, d, d, d))).again);
        let known = query::enrolment(rig.store(), device(d)).unwrap().unwrap();
        assert_eq!(known.group.unwrap().as_str(), "berlin");
    }
    assert_eq!(rig.refuse(node(1), enrol_of(1, 3, 3, 3)), Rejection::TokenUsed);
    assert_eq!(rig.machine.heads().enrolled, 2);
}

#[test]
fn a_device_that_enrols_twice_is_an_event_of_its_own_and_counted() {
    let mut rig = issued(group("berlin", 5));
    got(rig.run(node(1), enrol_of(1, 1, 1, 0x11)));
    let again = got(rig.run(node(1), enrol_of(1, 1, 2, 0x22)));
    assert!(again.again);
    assert_eq!(said(&rig), (AuditAction::EnrolAgain, "ok".into(), Some(device(1))));
    let first = Fingerprint::of(&[0x11; 10]).to_string();
    assert!(rig.last_audit().detail.as_str().contains(&first), "the one before is named");
    let heads = rig.machine.heads();
    assert_eq!((heads.enrolled, heads.enrolled_again), (1, 1));
    assert_eq!(used(&rig), 2);
}

#[test]
fn a_device_that_is_denied_does_not_come_in_again_by_a_token() {
    let mut rig = issued(group("berlin", 5));
    let first = rig.send(node(1), 7, enrol_of(1, 1, 1, 0x11));
    got(first);
    rig.accept(operator(ROOT), deny(&agent(1).to_string()));
    let denied = Rejection::CertificateDenied(agent(1));
    assert_eq!(rig.refuse(node(1), enrol_of(1, 1, 2, 0x22)), denied);
    // Nor is it given again what it had.
    assert_eq!(rig.refuse_as(node(1), 7, enrol_of(1, 1, 1, 0x33)), denied);
    assert_eq!(rig.refuse(agent(1), renew_of(1, 1, 1, 0)), denied);
    rig.accept(operator(ROOT), allow(&agent(1).to_string()));
    assert!(got(rig.run(node(1), enrol_of(1, 1, 2, 0x22))).again);
}

#[test]
fn a_certificate_is_renewed_from_two_thirds_of_its_life_by_its_own_device() {
    let mut rig = issued(TokenBinding::Device(device(1)));
    got(rig.run(node(1), enrol_of(1, 1, 1, 0x11)));
    let begin = 1_700_000_000_000;
    let due = begin + 60 * 86_400_000;
    rig.now = due - 1;
    let early = rig.refuse(agent(1), renew_of(1, 2, 0x22, begin));
    assert_eq!(early, Rejection::RenewalTooEarly(at(due)));
    assert_eq!(rig.refuse(agent(2), renew_of(1, 2, 0x22, begin)), Rejection::ForeignDevice);
    rig.now = due;
    let shown = Some(Fingerprint::of(&[0x11; 10]));
    let renewed = got(rig.send_with(agent(1), shown, 8, renew_of(1, 2, 0x22, begin)));
    assert_eq!(renewed.certificate, vec![0x22; 10]);
    assert_eq!(said(&rig), (AuditAction::Renew, "ok".into(), Some(device(1))));
    assert!(!rig.last_audit().detail.as_str().contains("not its newest"));
    // A lost answer is given again, whatever was signed for the retry.
    let again = got(rig.send_with(agent(1), shown, 8, renew_of(1, 2, 0x99, begin)));
    assert_eq!(again, Enrolled { repeated: true, ..renewed });
    // Who comes with the old one after that may be the device, or somebody who has a copy of it.
    let other = got(rig.send_with(agent(1), shown, 9, renew_of(1, 3, 0x33, begin)));
    assert_eq!(other.certificate, vec![0x33; 10]);
    assert!(rig.last_audit().detail.as_str().ends_with("which is not its newest certificate"));
    let known = query::enrolment(rig.store(), device(1)).unwrap().unwrap();
    assert_eq!((known.times, known.token), (1, Some(token_id(1))));
}

#[test]
fn a_device_with_a_certificate_from_elsewhere_renews_into_the_cluster() {
    let mut rig = rig();
    rig.now = 1_700_000_000_000 + 61 * 86_400_000;
    let shown = certificate(7);
    got(rig.send_with(agent(4), shown, 8, renew_of(4, 2, 0x22, 1_700_000_000_000)));
    assert!(rig.last_audit().detail.as_str().ends_with("of another CA"));
    let heads = rig.machine.heads();
    assert_eq!((heads.enrolled, heads.enrolled_again), (1, 0));
}

#[test]
fn cas_follow_one_another_and_a_retry_learns_that_its_own_is_there() {
    let mut rig = Rig::ready();
    assert_eq!(rig.refuse(operator(ROOT), agent_ca(2, 1)), Rejection::AgentCaNumber(1));
    assert_eq!(rig.send(operator(ROOT), 5, agent_ca(1, 1)).outcome, CHANGED);
    // Signed anew by another node.
    assert_eq!(rig.send(operator(ROOT), 5, agent_ca(1, 9)).outcome, UNCHANGED);
    let other = rig.refuse_as(operator(ROOT), 5, agent_ca(2, 9));
    assert_eq!(other, Rejection::RequestIdReused);
    assert_eq!(rig.refuse(operator(ROOT), agent_ca(1, 1)), Rejection::AgentCaNumber(2));
    for number in 2..=16 {
        rig.accept(operator(ROOT), agent_ca(number, 1));
    }
    assert_eq!(rig.refuse(operator(ROOT), agent_ca(17, 1)), Rejection::AgentCaNumber(17));
    let cas = query::agent_cas(rig.store()).unwrap();
    assert_eq!(cas.iter().map(|ca| ca.number).collect::<Vec<_>>(), (1..=16).collect::<Vec<_>>());
    assert_eq!(cas[0].certificate, vec![1; 8]);
    assert_eq!(query::keyring(rig.store()).unwrap().unwrap().agent_cas, cas);
}

#[test]
fn tokens_are_issued_and_revoked_once_whatever_is_repeated() {
    let mut rig = rig();
    let body = issue_for(1, TokenBinding::Device(device(1)));
    assert_eq!(rig.send(operator(ROOT), 5, body.clone()).outcome, CHANGED);
    assert_eq!(rig.last_audit().action, AuditAction::TokenIssue);
    rig.now += 1000;
    assert_eq!(rig.send(operator(ROOT), 5, body.clone()).outcome, CHANGED);
    let token = query::token(rig.store(), token_id(1)).unwrap().unwrap();
    assert_eq!(token.expires_at, at(rig.now - 1000 + TTL_MS), "a retry does not prolong it");
    assert_eq!(rig.refuse(operator(ROOT), body), Rejection::TokenExists);
    let revoke = CommandBody::RevokeToken(token_id(1));
    assert_eq!(rig.run(operator(ROOT), revoke.clone()).outcome, CHANGED);
    assert_eq!(rig.last_audit().action, AuditAction::TokenRevoke);
    assert_eq!(rig.run(operator(ROOT), revoke).outcome, UNCHANGED);
    let unknown = rig.refuse(operator(ROOT), CommandBody::RevokeToken(token_id(9)));
    assert_eq!(unknown, Rejection::UnknownToken);
}

#[test]
fn there_are_at_most_10000_tokens_and_dead_ones_make_room() {
    let mut rig = rig();
    let body = |n: u64| {
        let id = TokenId::new(uuid::Uuid::from_u128(u128::from(n)));
        let binding = group("berlin", 1);
        CommandBody::IssueToken(IssueToken { id, digest: [1; 32], binding, ttl_ms: TTL_MS })
    };
    let outcomes = rig.batch((0..limits::TOKENS).map(|n| (operator(ROOT), body(n))));
    assert!(outcomes.iter().all(|outcome| *outcome == CHANGED));
    assert_eq!(rig.machine.heads().tokens, 10_000);
    let full = rig.refuse(operator(ROOT), body(limits::TOKENS));
    assert_eq!(full, Rejection::TooManyTokens(10_000));
    let revoked = TokenId::new(uuid::Uuid::from_u128(5));
    rig.accept(operator(ROOT), CommandBody::RevokeToken(revoked));
    rig.accept(operator(ROOT), body(limits::TOKENS));
    assert_eq!(rig.machine.heads().tokens, 10_000);
    assert_eq!(query::token(rig.store(), revoked).unwrap(), None);
    rig.now += TTL_MS + 1;
    rig.accept(operator(ROOT), body(limits::TOKENS + 1));
    assert_eq!(rig.machine.heads().tokens, 1);
    assert_eq!(query::tokens(rig.store(), None, 9).unwrap().len(), 1);
}

#[test]
fn tokens_come_in_pages_and_each_once() {
    let mut rig = rig();
    for n in [3, 1, 2] {
        rig.accept(operator(ROOT), issue_for(n, group("berlin", 1)));
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = query::tokens(rig.store(), after, 1).unwrap();
        let Some(token) = page.into_iter().next() else { break };
        listed.push(token.id);
        after = Some(token.id);
    }
    assert_eq!(listed, [1, 2, 3].map(token_id));
}
