//! Compliance reports.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

fn report(d: u8, volumes: Vec<VolumeCompliance>) -> CommandBody {
    CommandBody::ReportCompliance(report_of(d, volumes))
}

#[test]
fn a_report_writes_its_device_and_request_and_no_audit_record() {
    let mut rig = Rig::ready();
    let body = report(1, vec![compliance(1, ComplianceStatus::Compliant)]);
    let changed = rig.changes(|rig| drop(rig.accept(agent(1), body)));
    assert_eq!(changed, [(Table::Meta, 1), (Table::Devices, 1), (Table::Requests, 1)]);
}

#[test]
fn a_volume_that_is_not_listed_keeps_its_last_state() {
    let mut rig = Rig::ready();
    let both = vec![
        compliance(1, ComplianceStatus::NonCompliant),
        compliance(2, ComplianceStatus::NonCompliant),
    ];
    rig.accept(agent(1), report(1, both));
    let first = rig.now;
    rig.now += 5;
    rig.accept(agent(1), report(1, vec![compliance(2, ComplianceStatus::Compliant)]));
    let stored = query::device(rig.store(), device(1)).unwrap().unwrap();
    let states: Vec<_> = stored
        .volumes
        .iter()
        .map(|v| v.compliance.as_ref().map(|(c, at)| (c.status, at.as_millis())).unwrap())
        .collect();
    let expected =
        [(ComplianceStatus::NonCompliant, first), (ComplianceStatus::Compliant, first + 5)];
    assert_eq!(states, expected);
    assert_eq!(stored.last_contact, at(first + 5));
}

#[test]
fn a_repeated_old_report_does_not_undo_a_newer_one() {
    let mut rig = Rig::ready();
    let old = report(1, vec![compliance(1, ComplianceStatus::NonCompliant)]);
    rig.send(agent(1), 7, old.clone()).outcome.unwrap();
    rig.accept(agent(1), report(1, vec![compliance(1, ComplianceStatus::Compliant)]));
    rig.send(agent(1), 7, old).outcome.unwrap();
    let stored = query::device(rig.store(), device(1)).unwrap().unwrap();
    let (state, _) = stored.volumes[0].compliance.clone().unwrap();
    assert_eq!(state.status, ComplianceStatus::Compliant);
}

#[test]
fn an_agent_reports_its_own_device_only() {
    let mut rig = Rig::ready();
    assert_eq!(rig.refuse(agent(2), report(1, vec![])), Rejection::ForeignDevice);
    assert!(matches!(rig.refuse(operator(ROOT), report(1, vec![])), Rejection::NotGranted { .. }));
}

#[test]
fn a_report_cannot_bring_more_than_64_volumes_or_32_users() {
    let mut rig = Rig::ready();
    let volumes = |n| (0..n).map(|v| compliance(v, ComplianceStatus::Unknown)).collect();
    assert_eq!(rig.refuse(agent(1), report(1, volumes(65))), Rejection::TooManyVolumes(0));
    rig.accept(agent(1), report(1, volumes(64)));
    let more = vec![compliance(64, ComplianceStatus::Unknown)];
    assert_eq!(rig.refuse(agent(1), report(1, more)), Rejection::TooManyVolumes(64));
    let mut crowd = report_of(1, vec![]);
    crowd.users = users(33);
    let refused = rig.refuse(agent(1), CommandBody::ReportCompliance(crowd));
    assert_eq!(refused, Rejection::TooManyUsers(33));
}
