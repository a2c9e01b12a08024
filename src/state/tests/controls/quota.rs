//! How many disclosures there may be.

use super::*;

fn small(parts: &mut PolicyParts) {
    parts.requester_hour = 3;
    parts.requester_day = 5;
    parts.cluster_hour = 4;
}

#[test]
fn a_new_cluster_begins_with_the_default_policy_and_an_old_one_with_the_quota_of_its_time() {
    let CommandBody::Bootstrap(old) = bootstrap() else { unreachable!() };
    let policy = Some(DisclosurePolicy::default());
    let new = Bootstrap { disclosure_policy: policy.clone(), ..old };
    let mut rig = Rig::empty();
    rig.accept(operator(ROOT), CommandBody::Bootstrap(new));
    let record = query::disclosure_policy(rig.store()).unwrap().unwrap();
    assert_eq!((record.revision, Some(record.policy)), (0, policy));
    assert_eq!(query::disclosure_policy(Rig::ready().store()).unwrap(), None);
}

#[test]
fn each_quota_refuses_by_its_own_name_and_says_when_there_is_room() {
    let mut rig = bounded(small);
    rig.now = 500_000 * HOUR;
    for _ in 0..3 {
        rig.accept(operator(HUGO), by_hugo(1));
    }
    let own = rig.refuse(operator(HUGO), by_hugo(1));
    assert_eq!(quota_of(&own), (QuotaScope::RequesterHour, 3, 500_001 * HOUR + MINUTE));
    rig.accept(operator(ADA), by_hugo(1));
    let all = rig.refuse(operator(ADA), by_hugo(1));
    assert_eq!(quota_of(&all), (QuotaScope::ClusterHour, 4, 500_001 * HOUR + MINUTE));
    rig.now = 500_001 * HOUR + MINUTE - 1;
    rig.refuse(operator(HUGO), by_hugo(1));
    rig.now += 1;
    for _ in 0..2 {
        rig.accept(operator(HUGO), by_hugo(1));
    }
    let day = rig.refuse(operator(HUGO), by_hugo(1));
    assert_eq!(quota_of(&day), (QuotaScope::RequesterDay, 5, 500_025 * HOUR));
    rig.now = 500_025 * HOUR;
    rig.accept(operator(HUGO), by_hugo(1));
}

#[test]
fn what_is_refused_and_what_is_repeated_is_not_counted() {
    let mut rig = bounded(small);
    rig.send(operator(HUGO), 7, by_hugo(1)).outcome.unwrap();
    for _ in 0..5 {
        let again = rig.send(operator(HUGO), 7, by_hugo(1)).outcome.unwrap();
        assert!(matches!(again, Accepted::Disclosed { repeated: true, .. }));
        rig.refuse(operator(HUGO), by_hugo(9));
    }
    rig.accept(operator(HUGO), by_hugo(1));
    rig.accept(operator(HUGO), by_hugo(1));
    rig.refuse(operator(HUGO), by_hugo(1));
}

#[test]
fn a_window_does_not_begin_anew_so_that_two_quotas_meet_at_its_end() {
    let mut rig = bounded(|parts| parts.requester_hour = 4);
    let start = 500_000 * HOUR + 30 * MINUTE;
    rig.now = start;
    rig.accept(operator(HUGO), by_hugo(1));
    rig.now = start + 59 * MINUTE;
    for _ in 0..3 {
        rig.accept(operator(HUGO), by_hugo(1));
    }
    rig.now = start + 61 * MINUTE;
    rig.accept(operator(HUGO), by_hugo(1));
    rig.refuse(operator(HUGO), by_hugo(1));
}

#[test]
fn a_node_whose_clock_is_behind_opens_no_quota_whoever_proposes_in_between() {
    let mut rig = bounded(|parts| parts.requester_hour = 3);
    let now = 500_000 * HOUR;
    for n in 0..3 {
        // One node is right, one an hour behind.
        rig.now = if n % 2 == 0 { now } else { now - HOUR };
        rig.accept(operator(HUGO), by_hugo(1));
    }
    for behind in [0, HOUR, 10 * HOUR, now] {
        rig.now = now - behind;
        let refused = rig.refuse(operator(HUGO), by_hugo(1));
        assert_eq!(quota_of(&refused).2, now + HOUR + MINUTE);
        assert_eq!(rig.machine.heads().time, at(now));
    }
}

#[test]
fn administrators_alone_set_the_policy_and_nobody_unsets_what_they_have_not_seen() {
    let mut rig = bounded(small);
    for who in [HUGO, ADA, ODO] {
        let refused = rig.refuse(operator(who), set_policy(1, |_| {}));
        assert!(matches!(refused, Rejection::NotGranted { .. }), "{who}: {refused}");
    }
    let refused = rig.refuse(operator(RUTH), set_policy(0, |_| {}));
    assert_eq!(refused, Rejection::PolicyChanged(1));
    let changed = rig.accept(operator(RUTH), set_policy(1, marked));
    assert_eq!(changed, Accepted::Granted { changed: true });
    let record = rig.last_audit();
    assert_eq!(record.action, AuditAction::DisclosurePolicy);
    assert!(record.detail.as_str().ends_with("dual control for vip"), "{}", record.detail);
    let same = rig.accept(operator(ROOT), set_policy(2, marked));
    assert_eq!(same, Accepted::Granted { changed: false });
    let found = query::disclosure_policy(rig.store()).unwrap().unwrap();
    assert_eq!((found.revision, found.set_by), (2, operator(RUTH)));
}

#[test]
fn a_lower_quota_counts_what_was_disclosed_before_it() {
    let mut rig = bounded(|_| {});
    for _ in 0..10 {
        rig.accept(operator(HUGO), by_hugo(1));
    }
    rig.accept(operator(ROOT), set_policy(1, small));
    rig.refuse(operator(HUGO), by_hugo(1));
    rig.accept(operator(ROOT), set_policy(2, |parts| parts.requester_hour = 11));
    rig.accept(operator(HUGO), by_hugo(1));
    rig.refuse(operator(HUGO), by_hugo(1));
}
