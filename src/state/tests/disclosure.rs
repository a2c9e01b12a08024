//! Disclosure: who may, for whom, how often, what it marks, and retries.

use super::fixtures::*;
use crate::domain::limits::{DISCLOSURE_REPEAT_MS, QUOTA_DISCLOSURES, QUOTA_WINDOW_MS};
use crate::domain::*;
use crate::state::*;

fn with_key() -> Rig {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    rig
}

#[test]
fn a_disclosure_is_recorded_with_reason_user_ticket_and_version() {
    let mut rig = with_key();
    let applied = rig.run(operator(HUGO), disclose_of(1, 0, Some("eve")));
    let record = rig.last_audit();
    assert_eq!(applied.audit, record.head());
    assert_eq!(record.action, AuditAction::Disclose);
    assert_eq!(record.outcome, AuditOutcome::Ok);
    assert_eq!(record.reason.unwrap().code(), "LOST_PIN");
    assert_eq!(record.user, Some(user("eve")));
    assert_eq!(record.ticket.as_str(), "INC-7");
    assert_eq!(record.version, version(1));
    assert_eq!((record.device, record.volume), (Some(device(1)), Some(volume(1))));
}

#[test]
fn only_the_help_desk_may_disclose() {
    let mut rig = with_key();
    for actor in [operator(ROOT), operator(ODO), operator("nobody"), agent(1), node(1)] {
        let refused = rig.refuse(actor.clone(), disclose_of(1, 0, Some("eve")));
        assert_eq!(refused, Rejection::NotGranted { actor, action: AuditAction::Disclose });
    }
}

#[test]
fn help_desk_names_the_user_and_advanced_help_desk_need_not_and_wins() {
    let mut rig = with_key();
    let body = disclose_of(1, 0, None);
    assert_eq!(rig.refuse(operator(HUGO), body.clone()), Rejection::UserRequired);
    rig.accept(operator(ADA), body.clone());
    rig.accept(operator(ROOT), grant(HUGO, Role::AdvancedHelpDesk));
    rig.accept(operator(HUGO), body);
}

#[test]
fn the_newest_key_becomes_due_for_rotation_on_its_volume_too() {
    let mut rig = with_key();
    assert_eq!(rig.disclose(1, 0).state, KeyState::RotationDue);
    let report = CommandBody::ReportCompliance(report_of(1, vec![]));
    let rotation_due = vec![volume(1)];
    assert_eq!(rig.accept(agent(1), report), Accepted::Reported { rotation_due });
}

#[test]
fn a_superseded_key_becomes_disclosed_and_nothing_has_to_rotate() {
    let mut rig = with_key();
    rig.escrow(escrow_of(1, 1, 2, 1, 2));
    assert_eq!(rig.disclose(1, 1).state, KeyState::Disclosed);
    let stored = query::device(rig.store(), device(1)).unwrap().unwrap();
    assert!(stored.rotation_due().is_empty());
}

#[test]
fn version_0_means_the_newest_of_the_id_and_an_unknown_one_is_refused() {
    let mut rig = with_key();
    rig.escrow(escrow_of(1, 1, 1, 1, 2));
    assert_eq!(rig.disclose(1, 0).version, version(2));
    assert_eq!(rig.disclose(1, 1).version, version(1));
    assert_eq!(rig.refuse(operator(ADA), disclose_of(1, 3, None)), Rejection::UnknownKey);
    assert_eq!(rig.refuse(operator(ADA), disclose_of(9, 0, None)), Rejection::UnknownKey);
}

#[test]
fn a_retry_in_time_is_answered_with_the_first_version_recorded_and_not_charged() {
    let mut rig = with_key();
    rig.send(operator(ADA), 7, disclose_of(1, 0, None)).outcome.unwrap();
    rig.escrow(escrow_of(1, 1, 1, 1, 2));
    rig.now += DISCLOSURE_REPEAT_MS;
    let changed = rig.changes(|rig| {
        let again = rig.send(operator(ADA), 7, disclose_of(1, 0, None)).outcome.unwrap();
        let Accepted::Disclosed { key, repeated: true } = again else { panic!("{again:?}") };
        assert_eq!(key.version, version(1));
    });
    assert_eq!(changed, [(Table::Meta, 1), (Table::Audit, 1)]);
    assert_eq!(rig.last_audit().outcome, AuditOutcome::Repeated);
    rig.now += 1;
    let late = rig.refuse_as(operator(ADA), 7, disclose_of(1, 0, None));
    assert_eq!(late, Rejection::RepeatTooLate);
}

#[test]
fn a_retry_with_another_body_or_without_the_role_is_refused() {
    let mut rig = with_key();
    rig.send(operator(HUGO), 7, disclose_of(1, 0, Some("eve"))).outcome.unwrap();
    let other = rig.refuse_as(operator(HUGO), 7, disclose_of(1, 0, Some("mallory")));
    assert_eq!(other, Rejection::RequestIdReused);
    rig.accept(operator(ROOT), revoke(HUGO, Role::HelpDesk));
    let revoked = rig.refuse_as(operator(HUGO), 7, disclose_of(1, 0, Some("eve")));
    assert!(matches!(revoked, Rejection::NotGranted { .. }));
}

#[test]
fn the_same_request_id_of_another_caller_is_another_request() {
    let mut rig = with_key();
    rig.send(operator(ADA), 7, disclose_of(1, 0, Some("eve"))).outcome.unwrap();
    let other = rig.send(operator(HUGO), 7, disclose_of(1, 0, Some("eve"))).outcome.unwrap();
    assert!(matches!(other, Accepted::Disclosed { repeated: false, .. }));
}

#[test]
fn the_quota_of_200_is_counted_per_requester_and_ends_with_its_window() {
    let mut rig = with_key();
    let start = rig.now;
    for _ in 0..QUOTA_DISCLOSURES {
        rig.disclose(1, 0);
    }
    let until = at(start + QUOTA_WINDOW_MS);
    rig.now = start + QUOTA_WINDOW_MS - 1;
    let refused = rig.refuse(operator(ADA), disclose_of(1, 0, None));
    let scope = QuotaScope::RequesterHour;
    assert_eq!(refused, Rejection::QuotaExceeded { scope, limit: 200, until });
    rig.accept(operator(HUGO), disclose_of(1, 0, Some("eve")));
    rig.now += 1;
    rig.disclose(1, 0);
}

#[test]
fn turning_a_node_clock_back_opens_no_new_window() {
    let mut rig = with_key();
    rig.disclose(1, 0);
    let time = rig.machine.heads().time;
    rig.now -= 10 * QUOTA_WINDOW_MS;
    rig.disclose(1, 0);
    assert_eq!(rig.machine.heads().time, time);
    assert_eq!(rig.last_audit().time, time);
}
