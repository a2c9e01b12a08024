//! Groups of devices: who puts devices into them, how they come in by enrolling, and how many there may be.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

const CHANGED: Outcome = Ok(Accepted::Granted { changed: true });
const UNCHANGED: Outcome = Ok(Accepted::Granted { changed: false });

fn groups(rig: &Rig, d: u8) -> Vec<String> {
    let groups = query::groups_of(rig.store(), device(d)).unwrap();
    groups.iter().map(ToString::to_string).collect()
}

/// With a CA of devices and tokens for groups and for a device.
fn enrolling() -> Rig {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), agent_ca(1, 0xca));
    rig.accept(operator(ROOT), issue_for(1, group("berlin", 9)));
    rig.accept(operator(ROOT), issue_for(2, group("munich", 9)));
    rig.accept(operator(ROOT), issue_for(3, TokenBinding::Device(device(1))));
    rig
}

#[test]
fn administrators_alone_put_devices_into_groups_and_take_them_out() {
    for body in [add_to_group(1, "vip"), remove_from_group(1, "berlin")] {
        let mut rig = Rig::ready();
        rig.accept(operator(ROOT), add_to_group(1, "berlin"));
        for actor in [operator(HUGO), operator(ADA), operator(ODO), agent(1), node(1)] {
            let refused = rig.refuse(actor, body.clone());
            assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused:?}");
        }
        assert_eq!(rig.run(operator(ROOT), body).outcome, CHANGED);
    }
}

#[test]
fn a_device_is_in_the_groups_that_it_was_put_into_before_it_writes_anything() {
    let mut rig = Rig::ready();
    assert!(groups(&rig, 1).is_empty());
    assert_eq!(rig.run(operator(ROOT), add_to_group(1, "vip")).outcome, CHANGED);
    let record = rig.last_audit();
    assert_eq!((record.action, record.device), (AuditAction::GroupAdd, Some(device(1))));
    assert_eq!(record.detail.as_str(), "group vip");
    rig.accept(operator(ROOT), add_to_group(1, "berlin"));
    assert_eq!(groups(&rig, 1), ["berlin", "vip"]);
    assert_eq!(query::device(rig.store(), device(1)).unwrap(), None);
    assert_eq!(rig.run(operator(ROOT), remove_from_group(1, "vip")).outcome, CHANGED);
    assert_eq!(rig.last_audit().action, AuditAction::GroupRemove);
    assert_eq!(groups(&rig, 1), ["berlin"]);
    assert!(groups(&rig, 2).is_empty());
    // The last one leaves no record behind.
    rig.accept(operator(ROOT), remove_from_group(1, "berlin"));
    assert_eq!(rig.store().scan(Table::DeviceGroups, &[], &[], 9).unwrap(), []);
}

#[test]
fn what_is_so_already_changes_nothing_and_a_retry_says_what_the_first_said() {
    let mut rig = Rig::ready();
    assert_eq!(rig.run(operator(ROOT), remove_from_group(1, "berlin")).outcome, UNCHANGED);
    assert_eq!(rig.send(operator(ROOT), 7, add_to_group(1, "berlin")).outcome, CHANGED);
    assert_eq!(rig.run(operator(ROOT), add_to_group(1, "berlin")).outcome, UNCHANGED);
    rig.accept(operator(ROOT), remove_from_group(1, "berlin"));
    assert_eq!(rig.send(operator(ROOT), 7, add_to_group(1, "berlin")).outcome, CHANGED);
    assert!(groups(&rig, 1).is_empty(), "a late retry does not undo what came after");
    let other = rig.refuse_as(operator(ROOT), 7, add_to_group(1, "munich"));
    assert_eq!(other, Rejection::RequestIdReused);
}

#[test]
fn a_device_that_enrols_with_a_token_for_a_group_is_in_it() {
    let mut rig = enrolling();
    rig.accept(node(1), enrol_of(1, 1, 1, 0x11));
    rig.accept(node(1), enrol_of(3, 1, 1, 0x12));
    assert_eq!(groups(&rig, 1), ["berlin"], "a token for the device alone takes it nowhere");
    let begin = 1_700_000_000_000;
    rig.now = begin + 61 * 86_400_000;
    rig.accept(agent(1), renew_of(1, 2, 0x22, begin));
    assert_eq!(groups(&rig, 1), ["berlin"]);
}

#[test]
fn a_device_leaves_no_group_by_enrolling_again() {
    let mut rig = enrolling();
    rig.accept(operator(ROOT), add_to_group(1, "vip"));
    rig.accept(node(1), enrol_of(1, 1, 1, 0x11));
    rig.accept(node(1), enrol_of(2, 1, 1, 0x12));
    assert_eq!(groups(&rig, 1), ["berlin", "munich", "vip"]);
    rig.accept(node(1), enrol_of(1, 1, 1, 0x13));
    assert_eq!(groups(&rig, 1), ["berlin", "munich", "vip"]);
}

#[test]
fn a_device_is_taken_out_of_the_group_that_it_enrolled_into() {
    let mut rig = enrolling();
    rig.accept(node(1), enrol_of(1, 1, 1, 0x11));
    rig.accept(node(1), enrol_of(2, 1, 1, 0x12));
    for group in ["munich", "berlin"] {
        assert_eq!(rig.run(operator(ROOT), remove_from_group(1, group)).outcome, CHANGED);
    }
    assert!(groups(&rig, 1).is_empty());
    let known = query::enrolment(rig.store(), device(1)).unwrap().unwrap();
    assert_eq!((known.times, known.token), (2, Some(token_id(2))), "the rest of it stays");
    rig.accept(node(1), enrol_of(2, 1, 1, 0x13));
    assert_eq!(groups(&rig, 1), ["munich"], "who enrols anew comes in anew");
}

#[test]
fn a_device_is_in_at_most_16_groups() {
    let mut rig = enrolling();
    for n in 0..15 {
        rig.accept(operator(ROOT), add_to_group(1, &format!("g{n}")));
    }
    rig.accept(node(1), enrol_of(1, 1, 1, 0x11));
    assert_eq!(groups(&rig, 1).len(), limits::DEVICE_GROUPS);
    let full = Rejection::TooManyGroups(16);
    assert_eq!(rig.refuse(operator(ROOT), add_to_group(1, "more")), full);
    assert_eq!(rig.refuse(node(1), enrol_of(2, 1, 1, 0x12)), full);
    // It is in these already.
    rig.accept(operator(ROOT), add_to_group(1, "berlin"));
    rig.accept(node(1), enrol_of(1, 1, 1, 0x13));
    rig.accept(node(1), enrol_of(3, 1, 1, 0x14));
    assert_eq!(groups(&rig, 1).len(), 16);
    rig.accept(operator(ROOT), remove_from_group(1, "g0"));
    rig.accept(node(1), enrol_of(2, 1, 1, 0x15));
    assert_eq!(groups(&rig, 1).len(), 16);
}

#[test]
fn a_search_for_a_groups_devices_ends_at_what_it_may_look_at_and_says_how_far_it_came() {
    let mut rig = Rig::ready();
    for d in 1..=9 {
        rig.escrow(escrow_of(d, 1, d, 0, d));
    }
    for d in [2, 3, 8] {
        rig.accept(operator(ROOT), add_to_group(d, "berlin"));
    }
    let berlin = group_name("berlin");
    let look = |from: Option<u8>, limit, most| {
        let wanted = |groups: &std::collections::BTreeSet<GroupName>| groups.contains(&berlin);
        let found = query::devices_in(rig.store(), from.map(device), (limit, most), wanted);
        let (found, looked_to) = found.unwrap();
        (found.into_iter().map(|(device, _)| device.id).collect::<Vec<_>>(), looked_to)
    };
    assert_eq!(look(None, 9, 100), (vec![device(2), device(3), device(8)], None));
    assert_eq!(look(None, 2, 100), (vec![device(2), device(3)], None));
    assert_eq!(look(None, 9, 5), (vec![device(2), device(3)], Some(device(5))));
    assert_eq!(look(Some(4), 9, 4), (vec![], Some(device(7))), "there may be more");
    assert_eq!(look(Some(6), 9, 4), (vec![device(8)], Some(device(9))));
    assert_eq!(look(Some(6), 9, 5), (vec![device(8)], None));
}
