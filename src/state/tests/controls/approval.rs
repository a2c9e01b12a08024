//! Dual control: who may approve what for whom, and how often that is good.

use super::*;
use crate::domain::limits::{APPROVAL_REQUEST_MS, APPROVALS, REQUESTER_APPROVALS};

const DEFAULT_LIFE: u64 = HOUR;

#[test]
fn a_key_of_a_marked_device_takes_the_approval_of_another_person_and_is_on_record_with_it() {
    let mut rig = bounded(marked);
    rig.accept(operator(HUGO), by_hugo(1));
    assert_eq!(rig.refuse(operator(HUGO), by_hugo(4)), Rejection::ApprovalRequired);
    let number = requested(&mut rig, HUGO, 4);
    let asked = rig.last_audit();
    assert_eq!((asked.action, asked.device), (AuditAction::ApprovalRequest, Some(device(2))));
    assert_eq!((asked.user, asked.ticket), (Some(user("eve")), name("INC-7")));
    assert_eq!(asked.detail, name("approval 1 for operator/hugo"));
    let early = rig.refuse(operator(HUGO), disclose_by(4, number));
    assert_eq!(early, unusable(Unusable::Pending));
    rig.accept(operator(ADA), decide_approval(number, true));
    let approved = rig.last_audit();
    assert_eq!(
        (approved.action, approved.actor),
        (AuditAction::ApprovalGrant, Some(operator(ADA)))
    );
    rig.accept(operator(HUGO), disclose_by(4, number));
    let record = rig.last_audit();
    assert_eq!((record.action, record.outcome), (AuditAction::Disclose, AuditOutcome::Ok));
    assert_eq!(record.detail, name("approval 1 by operator/ada"));
}

#[test]
fn an_approval_is_used_up_by_the_first_of_two_disclosures_even_in_one_batch() {
    let mut rig = bounded(marked);
    let number = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ROOT), decide_approval(number, true));
    let both = [0, 1].map(|_| (operator(HUGO), disclose_by(4, number)));
    let answers = rig.batch(both);
    assert!(matches!(answers[0], Ok(Accepted::Disclosed { .. })), "{answers:?}");
    assert_eq!(answers[1], Err(unusable(Unusable::Used)));
    let found = query::approval(rig.store(), approval_id(number)).unwrap().unwrap();
    assert_eq!(found.state, ApprovalState::Used { at: at(rig.now) });
    // Nor is it good for anything else after that.
    for approve in [true, false] {
        let refused = rig.refuse(operator(ADA), decide_approval(number, approve));
        assert_eq!(refused, unusable(Unusable::Decided));
    }
}

#[test]
fn a_retry_of_a_disclosure_by_an_approval_is_answered_again_and_uses_no_other() {
    let mut rig = bounded(marked);
    let number = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ADA), decide_approval(number, true));
    rig.send(operator(HUGO), 7, disclose_by(4, number)).outcome.unwrap();
    let again = rig.send(operator(HUGO), 7, disclose_by(4, number)).outcome.unwrap();
    assert!(matches!(again, Accepted::Disclosed { repeated: true, .. }));
    assert_eq!(rig.last_audit().detail, name("approval 1"));
}

#[test]
fn nobody_approves_their_own_request_whatever_roles_they_have() {
    let mut rig = bounded(marked);
    rig.accept(operator(ROOT), grant(HUGO, Role::AdvancedHelpDesk));
    rig.accept(operator(ROOT), grant(HUGO, Role::Administrator));
    let number = requested(&mut rig, HUGO, 4);
    let refused = rig.refuse(operator(HUGO), decide_approval(number, true));
    assert_eq!(refused, Rejection::SecondPersonRequired);
    // But they may take it back.
    rig.accept(operator(HUGO), decide_approval(number, false));
    let refused = rig.refuse(operator(ADA), decide_approval(number, true));
    assert_eq!(refused, unusable(Unusable::Decided));
}

#[test]
fn advanced_help_desk_and_administrators_approve_and_others_do_not() {
    let mut rig = bounded(marked);
    rig.accept(operator(ROOT), grant("hilde", Role::HelpDesk));
    rig.accept(operator(ROOT), grant("rita", Role::ReportReader));
    let number = requested(&mut rig, HUGO, 4);
    let actors =
        [operator("hilde"), operator("rita"), operator(ODO), operator("nobody"), agent(2), node(1)];
    for actor in actors {
        let refused = rig.refuse(actor.clone(), decide_approval(number, true));
        let action = AuditAction::ApprovalGrant;
        assert_eq!(refused, Rejection::NotGranted { actor, action });
    }
    for approver in [ADA, ROOT] {
        let number = requested(&mut rig, HUGO, 4);
        rig.accept(operator(approver), decide_approval(number, true));
        rig.accept(operator(HUGO), disclose_by(4, number));
    }
    for actor in [operator(ROOT), operator(ODO), agent(2)] {
        let refused = rig.refuse(actor, request_approval(4));
        assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused}");
    }
}

#[test]
fn an_approval_is_for_its_requester_and_its_key_in_its_version_alone() {
    let mut rig = bounded(marked);
    let number = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ROOT), decide_approval(number, true));
    let mismatch = unusable(Unusable::Mismatch);
    assert_eq!(rig.refuse(operator(ADA), disclose_by(4, number)), mismatch);
    assert_eq!(rig.refuse(operator(HUGO), disclose_by(1, number)), mismatch);
    let unknown = rig.refuse(operator(HUGO), disclose_by(4, number + 1));
    assert_eq!(unknown, Rejection::UnknownApproval(approval_id(number + 1)));
    // The device has made a new key of the same id meanwhile.
    rig.escrow(escrow_of(2, 1, 4, 1, 2));
    assert_eq!(rig.refuse(operator(HUGO), disclose_by(4, number)), mismatch);
    let CommandBody::Disclose(newest) = disclose_by(4, number) else { unreachable!() };
    let first = Disclose { version: version(1), ..newest };
    rig.accept(operator(HUGO), CommandBody::Disclose(first));
}

#[test]
fn what_is_over_is_neither_approved_nor_used() {
    let mut rig = bounded(marked);
    let start = rig.now;
    let late = requested(&mut rig, HUGO, 4);
    rig.now = start + APPROVAL_REQUEST_MS;
    let refused = rig.refuse(operator(ADA), decide_approval(late, true));
    assert_eq!(refused, Rejection::ApprovalExpired(at(rig.now)));
    let number = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ADA), decide_approval(number, true));
    rig.now += DEFAULT_LIFE;
    let refused = rig.refuse(operator(HUGO), disclose_by(4, number));
    assert_eq!(refused, Rejection::ApprovalExpired(at(rig.now)));
    // A node whose clock is behind makes it no better.
    rig.now -= DEFAULT_LIFE;
    rig.refuse(operator(HUGO), disclose_by(4, number));
}

#[test]
fn the_life_of_an_approval_is_that_of_the_policy_when_it_was_given() {
    let mut rig = bounded(|parts| {
        marked(parts);
        parts.approval_ms = 5 * MINUTE;
    });
    let number = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ADA), decide_approval(number, true));
    rig.accept(operator(ROOT), set_policy(1, marked));
    rig.now += 5 * MINUTE - 1;
    rig.accept(operator(HUGO), disclose_by(4, number));
    let number = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ADA), decide_approval(number, true));
    rig.now += 5 * MINUTE;
    rig.accept(operator(HUGO), disclose_by(4, number));
}

#[test]
fn what_is_refused_or_taken_back_opens_nothing() {
    let mut rig = bounded(marked);
    let refused = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ADA), decide_approval(refused, false));
    let record = rig.last_audit();
    assert_eq!(record.action, AuditAction::ApprovalDeny);
    assert_eq!(record.detail, name("approval 1 for operator/hugo: who is that?"));
    let taken_back = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ADA), decide_approval(taken_back, true));
    rig.accept(operator(ROOT), decide_approval(taken_back, false));
    for number in [refused, taken_back] {
        let why = rig.refuse(operator(HUGO), disclose_by(4, number));
        assert_eq!(why, unusable(Unusable::Denied));
    }
}

#[test]
fn an_approval_of_somebody_who_may_approve_no_more_is_none() {
    let mut rig = bounded(marked);
    let number = requested(&mut rig, HUGO, 4);
    rig.accept(operator(ADA), decide_approval(number, true));
    rig.accept(operator(ROOT), deny("operator/ada"));
    let gone = Rejection::ApproverRevoked(operator(ADA));
    assert_eq!(rig.refuse(operator(HUGO), disclose_by(4, number)), gone);
    rig.accept(operator(ROOT), allow("operator/ada"));
    rig.accept(operator(ROOT), revoke(ADA, Role::AdvancedHelpDesk));
    assert_eq!(rig.refuse(operator(HUGO), disclose_by(4, number)), gone);
    rig.accept(operator(ROOT), grant(ADA, Role::Administrator));
    rig.accept(operator(HUGO), disclose_by(4, number));
}

#[test]
fn whoever_is_limited_to_groups_asks_and_approves_within_them_only() {
    let mut rig = bounded(marked);
    let advanced = |who, group| grant_for(who, Role::AdvancedHelpDesk, &[group]);
    rig.accept(operator(ROOT), advanced("bea", "berlin"));
    rig.accept(operator(ROOT), advanced("vera", "vip"));
    let number = requested(&mut rig, HUGO, 4);
    for body in [decide_approval(number, true), decide_approval(number, false), request_approval(4)]
    {
        assert_eq!(rig.refuse(operator("bea"), body), Rejection::OutsideGroups);
    }
    rig.accept(operator("vera"), decide_approval(number, true));
    rig.accept(operator(ROOT), advanced("vera", "berlin"));
    let gone = rig.refuse(operator(HUGO), disclose_by(4, number));
    assert_eq!(gone, Rejection::ApproverRevoked(operator("vera")));
    assert_eq!(rig.refuse(operator("vera"), request_approval(4)), Rejection::OutsideGroups);
}

#[test]
fn an_approval_opens_a_key_above_every_quota_and_counts_for_none() {
    let mut rig = bounded(|parts| {
        parts.requester_hour = 1;
        parts.cluster_hour = 1;
    });
    let number = requested(&mut rig, HUGO, 1);
    rig.accept(operator(ADA), decide_approval(number, true));
    rig.accept(operator(HUGO), disclose_by(1, number));
    rig.accept(operator(HUGO), by_hugo(1));
    rig.refuse(operator(HUGO), by_hugo(1));
    let number = requested(&mut rig, HUGO, 1);
    rig.accept(operator(ADA), decide_approval(number, true));
    rig.accept(operator(HUGO), disclose_by(1, number));
    // Also where nobody has set a policy.
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    for _ in 0..200 {
        rig.accept(operator(HUGO), by_hugo(1));
    }
    rig.refuse(operator(HUGO), by_hugo(1));
    let number = requested(&mut rig, HUGO, 1);
    rig.accept(operator(ADA), decide_approval(number, true));
    rig.accept(operator(HUGO), disclose_by(1, number));
}

#[test]
fn a_request_for_approval_names_the_user_and_a_key_that_there_is() {
    let mut rig = bounded(marked);
    assert_eq!(rig.refuse(operator(HUGO), request_approval(9)), Rejection::UnknownKey);
    let CommandBody::RequestApproval(named) = request_approval(4) else { unreachable!() };
    let nameless = || CommandBody::RequestApproval(RequestApproval { user: None, ..named.clone() });
    assert_eq!(rig.refuse(operator(HUGO), nameless()), Rejection::UserRequired);
    rig.accept(operator(ADA), nameless());
}

#[test]
fn a_repeated_request_or_decision_is_answered_again_and_makes_nothing_new() {
    let mut rig = bounded(marked);
    let first = rig.send(operator(HUGO), 7, request_approval(4)).outcome;
    rig.now += MINUTE;
    assert_eq!(rig.send(operator(HUGO), 7, request_approval(4)).outcome, first);
    assert_eq!(rig.machine.heads().approvals, 1);
    for _ in 0..2 {
        let decided = rig.send(operator(ADA), 8, decide_approval(1, true)).outcome;
        assert_eq!(decided, Ok(Accepted::Granted { changed: true }));
    }
    assert_eq!(
        rig.refuse_as(operator(ADA), 8, decide_approval(1, false)),
        Rejection::RequestIdReused
    );
}

#[test]
fn one_requester_keeps_a_bounded_number_open_and_what_is_over_makes_room() {
    let mut rig = bounded(marked);
    for _ in 0..REQUESTER_APPROVALS {
        requested(&mut rig, HUGO, 4);
    }
    let most = u64::try_from(REQUESTER_APPROVALS).unwrap();
    let refused = rig.refuse(operator(HUGO), request_approval(4));
    assert_eq!(refused, Rejection::TooManyApprovals(most));
    requested(&mut rig, ADA, 4);
    let mut last = rig.machine.heads().approvals;
    while last < APPROVALS {
        rig.now += APPROVAL_REQUEST_MS;
        for _ in 0..REQUESTER_APPROVALS.min(usize::try_from(APPROVALS - last).unwrap()) {
            last = requested(&mut rig, HUGO, 4);
        }
    }
    assert_eq!(rig.machine.heads().approvals_kept, APPROVALS);
    rig.now += APPROVAL_REQUEST_MS;
    assert_eq!(requested(&mut rig, ADA, 4), APPROVALS + 1);
    let kept = query::approvals(rig.store(), None, 9).unwrap();
    assert_eq!(kept.iter().map(|of| of.id.get()).collect::<Vec<_>>(), [APPROVALS + 1]);
    assert_eq!(rig.machine.heads().approvals_kept, 1);
    let heads = rig.machine.heads();
    assert_eq!(Digest::recount(rig.store().records()), (heads.sum, heads.records));
}
