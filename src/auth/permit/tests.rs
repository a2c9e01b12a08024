use super::*;
use crate::domain::{NodeId, Timestamp};

const DEVICE: DeviceId = DeviceId::from_bytes([1; 16]);
const OTHER: DeviceId = DeviceId::from_bytes([2; 16]);
const ACTIONS: [Action; 31] = [
    Action::GetEscrowKey,
    Action::Escrow { device: DEVICE },
    Action::ReportCompliance { device: DEVICE },
    Action::FindKeys,
    Action::DiscloseKey,
    Action::ListReasons,
    Action::ReadAudit,
    Action::Grant,
    Action::Revoke,
    Action::ListGrants,
    Action::GetDevice,
    Action::ListDevices,
    Action::AddDeviceToGroup,
    Action::RemoveDeviceFromGroup,
    Action::ListDeviceGroups,
    Action::Deny,
    Action::Allow,
    Action::ListDenials,
    Action::GetSealStatus,
    Action::GiveShare,
    Action::SealCluster,
    Action::UnsealCluster,
    Action::RotateEscrowKey,
    Action::ResealKeys,
    Action::RekeyRootKey,
    Action::InitCluster,
    Action::GetStatus,
    Action::AddLearner,
    Action::PromoteNode,
    Action::RemoveNode,
    Action::TransferLeadership,
];

fn caller(actor: Actor) -> Caller {
    Caller::proven(actor, Timestamp::from_millis(u64::MAX), "01")
}

fn alice() -> Caller {
    caller(Actor::Operator("alice".parse().unwrap()))
}

/// What a caller may do, by name.
fn allowed(caller: &Caller, roles: &[Role]) -> Vec<&'static str> {
    let roles = roles.iter().copied().collect();
    let may = |action: &&Action| authorize(caller, **action, &roles).is_ok();
    ACTIONS.iter().filter(may).map(Action::name).collect()
}

#[test]
fn each_role_may_do_its_own_and_nothing_else() {
    let common = ["ListReasons", "GetStatus", "GetSealStatus", "GiveShare"];
    let expect = |roles: &[Role], own: &[&str]| {
        let mut expected: Vec<&str> = own.iter().chain(&common).copied().collect();
        expected.push("InitCluster");
        let mut found = allowed(&alice(), roles);
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{roles:?}");
    };
    let help_desk = ["FindKeys", "DiscloseKey", "GetDevice", "ListDevices", "ListDeviceGroups"];
    expect(&[Role::HelpDesk], &help_desk);
    expect(&[Role::AdvancedHelpDesk], &help_desk);
    expect(&[Role::ReportReader], &["GetDevice", "ListDevices", "ListDeviceGroups"]);
    expect(&[Role::Auditor], &["ReadAudit", "ListGrants", "ListDenials"]);
    let administrator = [
        "GrantRole",
        "RevokeRole",
        "ListGrants",
        "GetDevice",
        "ListDevices",
        "AddDeviceToGroup",
        "RemoveDeviceFromGroup",
        "ListDeviceGroups",
        "DenyCertificate",
        "AllowCertificate",
        "ListDenials",
        "SealCluster",
        "UnsealCluster",
        "RotateEscrowKey",
        "ResealKeys",
        "RekeyRootKey",
        "AddLearner",
        "PromoteNode",
        "RemoveNode",
        "TransferLeadership",
    ];
    expect(&[Role::Administrator], &administrator);
    expect(
        &[Role::Auditor, Role::ReportReader],
        &["ReadAudit", "ListGrants", "ListDenials", "GetDevice", "ListDevices", "ListDeviceGroups"],
    );
}

#[test]
fn an_operator_without_a_grant_may_only_make_a_cluster() {
    assert_eq!(allowed(&alice(), &[]), ["InitCluster"]);
    let denied = authorize(&alice(), Action::GetStatus, &BTreeSet::new()).unwrap_err();
    assert_eq!(denied.reason, "ROLE_MISSING");
}

#[test]
fn who_imports_keys_escrows_for_any_device_and_sees_nothing() {
    let expected = ["GetEscrowKey", "EscrowRecoveryKey", "InitCluster"];
    assert_eq!(allowed(&alice(), &[Role::DataMigration]), expected);
    let roles = BTreeSet::from([Role::DataMigration]);
    let report = Action::ReportCompliance { device: DEVICE };
    assert_eq!(authorize(&alice(), report, &roles).unwrap_err().reason, "NOT_AN_AGENT");
    // Not by an access token: a key remembers who imported it by the name in a certificate.
    let Ok(Actor::Oidc(subject)) = "oidc/https://idp.example/realm#alice".parse() else { panic!() };
    let person = Caller::by_token(subject, Timestamp::from_millis(u64::MAX), roles.clone(), None);
    for action in [Action::GetEscrowKey, Action::Escrow { device: DEVICE }] {
        assert_eq!(authorize(&person, action, &roles).unwrap_err().reason, "NOT_AN_AGENT");
    }
}

#[test]
fn an_agent_acts_for_its_own_device_only_whatever_is_granted() {
    let expected = ["GetEscrowKey", "EscrowRecoveryKey", "ReportCompliance"];
    let agent = caller(Actor::Agent(DEVICE));
    assert_eq!(allowed(&agent, &[]), expected);
    assert_eq!(allowed(&agent, &Role::ALL), expected, "roles are for operators");
    for action in [Action::Escrow { device: OTHER }, Action::ReportCompliance { device: OTHER }] {
        let denied = authorize(&agent, action, &BTreeSet::new()).unwrap_err();
        assert_eq!(denied.reason, "FOREIGN_DEVICE");
    }
}

#[test]
fn a_node_may_do_nothing_on_the_client_port() {
    let node = caller(Actor::Node(NodeId::new(1)));
    assert_eq!(allowed(&node, &Role::ALL), [""; 0]);
}

#[test]
fn a_refusal_says_who_what_and_why() {
    let roles = BTreeSet::from([Role::ReportReader]);
    let denied = authorize(&alice(), Action::DiscloseKey, &roles).unwrap_err();
    assert_eq!(denied.reason, "ROLE_MISSING");
    assert_eq!(
        denied.to_string(),
        "operator/alice may not call DiscloseKey: it takes the role help-desk or advanced-help-desk"
    );
    let agent = caller(Actor::Agent(DEVICE));
    let denied = authorize(&agent, Action::DiscloseKey, &roles).unwrap_err();
    assert_eq!(denied.reason, "NOT_AN_OPERATOR");
    let denied = authorize(&alice(), Action::Escrow { device: DEVICE }, &roles).unwrap_err();
    assert_eq!(denied.reason, "ROLE_MISSING");
    assert!(denied.to_string().ends_with("it takes the role data-migration"), "{denied}");
    let report = Action::ReportCompliance { device: DEVICE };
    let denied = authorize(&alice(), report, &roles).unwrap_err();
    assert_eq!(denied.reason, "NOT_AN_AGENT");
}

#[test]
fn a_permit_names_what_it_permits() {
    let roles = BTreeSet::from([Role::Auditor]);
    let permit = authorize(&alice(), Action::ReadAudit, &roles).unwrap();
    assert_eq!((permit.actor(), permit.action()), (alice().actor(), Action::ReadAudit));
}
