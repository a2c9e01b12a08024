//! Grants that are limited to groups of devices: what they reach, and how little those who have them learn of the rest.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

/// Helps in Berlin, and must name the user.
const BEA: &str = "bea";

/// Device 1 is in Berlin and device 2 is not; each has a key, and their ids begin with the same digits.
fn rig() -> Rig {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), add_to_group(1, "berlin"));
    rig.accept(operator(ROOT), add_to_group(2, "munich"));
    rig.accept(operator(ROOT), grant_for(BEA, Role::HelpDesk, &["berlin"]));
    rig.escrow(escrow_of(1, 1, 2, 0, 1));
    rig.escrow(escrow_of(2, 1, 3, 0, 2));
    rig
}

fn found(rig: &mut Rig, query: FindQuery) -> Vec<ProtectorId> {
    match rig.accept(operator(BEA), CommandBody::FindKeys(query)) {
        Accepted::Found { keys, truncated: false } => {
            keys.iter().map(|key| key.protector).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn disclosed(rig: &mut Rig, who: &str, p: u8, named: Option<&str>) -> Outcome {
    rig.run(operator(who), disclose_of(p, 0, named)).outcome
}

#[test]
fn a_key_of_the_group_is_disclosed_and_any_other_is_refused_and_the_record_names_its_device() {
    let mut rig = rig();
    assert!(disclosed(&mut rig, BEA, 2, Some("eve")).is_ok());
    let refused = rig.refuse(operator(BEA), disclose_of(3, 0, Some("eve")));
    assert_eq!(refused, Rejection::OutsideGroups);
    let record = rig.last_audit();
    assert_eq!((record.action, record.device), (AuditAction::Disclose, Some(device(2))));
    assert_eq!(record.protector, Some(protector(3)));
    assert_eq!((record.user, record.ticket.as_str()), (Some(user("eve")), "INC-7"));
}

#[test]
fn what_is_outside_and_what_is_nowhere_are_refused_in_the_same_words() {
    let mut rig = rig();
    let asked = [
        (disclose_of(3, 0, Some("eve")), disclose_of(9, 0, Some("eve"))),
        (
            CommandBody::FindKeys(FindQuery::Device(device(2))),
            CommandBody::FindKeys(FindQuery::Device(device(9))),
        ),
        (
            CommandBody::FindKeys(FindQuery::Volume(device(2), volume(1))),
            CommandBody::FindKeys(FindQuery::Volume(device(9), volume(1))),
        ),
    ];
    for (outside, nowhere) in asked {
        let first = rig.refuse(operator(BEA), outside);
        assert_eq!(first, Rejection::OutsideGroups);
        assert_eq!(rig.refuse(operator(BEA), nowhere), first);
    }
    // Within the group nothing is hidden.
    let unknown = CommandBody::FindKeys(FindQuery::Volume(device(1), volume(9)));
    assert_eq!(rig.refuse(operator(BEA), unknown), Rejection::UnknownVolume);
    rig.accept(operator(ROOT), add_to_group(7, "berlin"));
    let silent = CommandBody::FindKeys(FindQuery::Device(device(7)));
    assert_eq!(rig.refuse(operator(BEA), silent), Rejection::UnknownDevice);
    // The record of what is nowhere names no device.
    rig.refuse(operator(BEA), disclose_of(9, 0, Some("eve")));
    assert_eq!(rig.last_audit().device, None);
}

#[test]
fn digits_find_the_keys_of_the_group_alone_and_not_that_there_are_others() {
    let mut rig = rig();
    let digits = FindQuery::Prefix(protector(2).prefix());
    assert_eq!(found(&mut rig, digits.clone()), [protector(2)]);
    assert_eq!(rig.find(digits).0.len(), 2, "whoever is not limited finds both");
    assert!(found(&mut rig, FindQuery::Protector(protector(3))).is_empty());
    assert!(found(&mut rig, FindQuery::Protector(protector(9))).is_empty());
    assert_eq!(found(&mut rig, FindQuery::Device(device(1))), [protector(2)]);
}

#[test]
fn a_group_that_shares_its_digits_with_a_long_history_elsewhere_still_finds_its_own() {
    let mut rig = rig();
    // Before it in the order of ids, and far more than a reply holds.
    let expected = |n: u32| escrow_of(2, 2, 4, n, u8::try_from(n % 256).unwrap());
    for n in 0..300 {
        rig.escrow(expected(n));
    }
    rig.escrow(escrow_of(1, 2, 5, 0, 9));
    assert_eq!(found(&mut rig, FindQuery::Prefix(protector(4).prefix())), [protector(5)]);
}

#[test]
fn a_device_that_changes_its_group_changes_who_may_have_its_keys_at_once() {
    let mut rig = rig();
    let first = rig.send(operator(BEA), 7, disclose_of(2, 0, Some("eve")));
    assert!(first.outcome.is_ok());
    rig.accept(operator(ROOT), remove_from_group(1, "berlin"));
    let again = rig.refuse_as(operator(BEA), 7, disclose_of(2, 0, Some("eve")));
    assert_eq!(again, Rejection::OutsideGroups, "not even an earlier answer is given again");
    rig.accept(operator(ROOT), add_to_group(2, "berlin"));
    assert!(disclosed(&mut rig, BEA, 3, Some("eve")).is_ok());
}

#[test]
fn a_device_is_reached_by_enrolling_into_the_group() {
    let mut rig = rig();
    rig.accept(operator(ROOT), agent_ca(1, 0xca));
    rig.accept(operator(ROOT), issue_for(1, group("berlin", 2)));
    assert_eq!(disclosed(&mut rig, BEA, 3, Some("eve")), Err(Rejection::OutsideGroups));
    rig.accept(node(1), enrol_of(1, 2, 1, 0x11));
    assert!(disclosed(&mut rig, BEA, 3, Some("eve")).is_ok());
}

#[test]
fn advanced_help_desk_for_a_group_need_not_name_the_user_there_and_must_elsewhere() {
    let mut rig = rig();
    rig.accept(operator(ROOT), grant_for(HUGO, Role::AdvancedHelpDesk, &["berlin"]));
    assert!(disclosed(&mut rig, HUGO, 2, None).is_ok());
    assert_eq!(rig.refuse(operator(HUGO), disclose_of(3, 0, None)), Rejection::UserRequired);
    assert!(disclosed(&mut rig, HUGO, 3, Some("eve")).is_ok());
    // One who is nothing but limited learns of no key elsewhere by that.
    rig.accept(operator(ROOT), grant_for(BEA, Role::AdvancedHelpDesk, &["berlin"]));
    assert_eq!(rig.refuse(operator(BEA), disclose_of(3, 0, None)), Rejection::OutsideGroups);
}

#[test]
fn two_roles_reach_what_either_does() {
    let mut rig = rig();
    rig.accept(operator(ROOT), grant_for(BEA, Role::AdvancedHelpDesk, &["munich"]));
    assert!(disclosed(&mut rig, BEA, 2, Some("eve")).is_ok());
    assert!(disclosed(&mut rig, BEA, 3, None).is_ok());
    assert_eq!(rig.refuse(operator(BEA), disclose_of(2, 0, None)), Rejection::UserRequired);
    rig.escrow(escrow_of(3, 1, 6, 0, 3));
    let refused = rig.refuse(operator(BEA), disclose_of(6, 0, Some("eve")));
    assert_eq!(refused, Rejection::OutsideGroups);
}

#[test]
fn a_grant_takes_the_groups_that_were_granted_last() {
    let mut rig = rig();
    let changed = |rig: &mut Rig, body| rig.run(operator(ROOT), body).outcome;
    let granted = |rig: &Rig| query::granted(rig.store(), &BEA.parse().unwrap()).unwrap();
    let same = grant_for(BEA, Role::HelpDesk, &["berlin"]);
    assert_eq!(changed(&mut rig, same), Ok(Accepted::Granted { changed: false }));
    let other = grant_for(BEA, Role::HelpDesk, &["munich", "berlin"]);
    assert_eq!(changed(&mut rig, other), Ok(Accepted::Granted { changed: true }));
    assert_eq!(rig.last_audit().detail.as_str(), "help-desk to bea for devices of berlin, munich");
    assert_eq!(granted(&rig).reach(Right::FindKeys), Some(reach(&["berlin", "munich"])));
    assert!(disclosed(&mut rig, BEA, 3, Some("eve")).is_ok());
    let all = grant(BEA, Role::HelpDesk);
    assert_eq!(changed(&mut rig, all), Ok(Accepted::Granted { changed: true }));
    assert_eq!(rig.last_audit().detail.as_str(), "help-desk to bea");
    assert_eq!(granted(&rig).reach(Right::FindKeys), Some(Reach::ALL));
    rig.accept(operator(ROOT), revoke(BEA, Role::HelpDesk));
    assert_eq!(granted(&rig), Grants::default());
}

#[test]
fn the_longest_grant_is_audited_with_all_its_groups() {
    let mut rig = Rig::ready();
    let name = "o".repeat(limits::NAME_BYTES);
    let groups: Vec<_> = (0..limits::GRANT_GROUPS).map(|n| format!("{n:064}")).collect();
    let names: Vec<_> = groups.iter().map(String::as_str).collect();
    rig.accept(operator(ROOT), grant_for(&name, Role::AdvancedHelpDesk, &names));
    let detail = rig.last_audit().detail.to_string();
    assert!(detail.ends_with(&format!(" for devices of {}", groups.join(", "))), "{detail}");
}

#[test]
fn a_limit_on_a_role_that_is_not_about_devices_can_be_read_by_nobody() {
    let mut rig = Rig::ready();
    let good = Command {
        actor: operator(ROOT),
        certificate: None,
        roles: Default::default(),
        request_id: request(1),
        time: at(rig.now),
        body: CommandBody::Grant {
            operator: BEA.parse().unwrap(),
            role: Role::Auditor,
            reach: reach(&["berlin"]),
        },
    };
    let entry = Entry::Command(codec::encode_command(&good));
    assert_eq!(rig.entry(entry).outcome, Err(Rejection::Unreadable));
}
