//! Who may do what, and when nobody may.

use std::time::Duration;

use super::harness::*;
use crate::auth::Action;
use crate::crypto::testing::{DEVICE, operator};
use crate::domain::{Actor, GroupName, NodeId, Reach, Role, Text};
use crate::service::{Consensus as _, FRESH_FOR, ServiceError};
use crate::state::{Command, CommandBody, FindQuery, Rejection, Unseal, UnsealedBy};

fn berlin() -> GroupName {
    "berlin".parse().unwrap()
}

#[tokio::test]
async fn each_role_may_do_its_part_and_no_more() {
    use Role::{Administrator, AdvancedHelpDesk, Auditor, DataMigration, HelpDesk, ReportReader};
    let bench = Bench::ready().await;
    let actions = [
        (Action::DiscloseKey, [HelpDesk, AdvancedHelpDesk].as_slice()),
        (Action::FindKeys, &[HelpDesk, AdvancedHelpDesk]),
        (Action::Grant, &[Administrator]),
        (Action::RemoveNode, &[Administrator]),
        (Action::GetDevice, &[HelpDesk, AdvancedHelpDesk, ReportReader, Administrator]),
        (Action::Escrow { device: DEVICE }, &[DataMigration]),
        (Action::GetEscrowKey, &[DataMigration]),
        (Action::ReportCompliance { device: DEVICE }, &[]),
        (Action::AddDeviceToGroup, &[Administrator]),
        (Action::GetStatus, &[HelpDesk, AdvancedHelpDesk, ReportReader, Auditor, Administrator]),
    ];
    for (n, role) in (50..).zip(Role::ALL) {
        bench.grant(n, role.as_str(), role).await;
        let caller = caller(operator(role.as_str()));
        for (action, roles) in actions {
            let may = bench.permit(&caller, action).is_ok();
            assert_eq!(may, roles.contains(&role), "{role} {action:?}");
        }
    }
    // The auditor reads the chain and no keys.
    let auditor = caller(operator(Auditor.as_str()));
    assert!(bench.permit(&auditor, Action::ReadAudit).is_ok());
}

#[tokio::test]
async fn what_a_node_permits_is_what_the_state_machine_accepts() {
    let bench = Bench::ready().await;
    bench.escrow(luks2_key().as_bytes()).await;
    let detail = || Text::free("detail", "x").unwrap();
    let grant = |role| {
        let reach = Reach::ALL;
        CommandBody::Grant { operator: "zoe".parse().unwrap(), role, reach }
    };
    let revoke = |role| CommandBody::Revoke { operator: "zoe".parse().unwrap(), role };
    let unseal = |by| CommandBody::Unseal(Unseal { seals: 0, by });
    let bodies = [
        (Action::FindKeys, CommandBody::FindKeys(FindQuery::Protector(PROTECTOR))),
        (Action::DiscloseKey, CommandBody::Disclose(disclosure())),
        (Action::Grant, grant(Role::HelpDesk)),
        (Action::Revoke, revoke(Role::HelpDesk)),
        (Action::ReadAudit, CommandBody::AuditRead { detail: detail() }),
        (Action::AddLearner, CommandBody::ClusterChange { detail: detail() }),
        (Action::PromoteNode, CommandBody::ClusterChange { detail: detail() }),
        (Action::RemoveNode, CommandBody::ClusterChange { detail: detail() }),
        (Action::TransferLeadership, CommandBody::ClusterChange { detail: detail() }),
        (Action::Escrow { device: DEVICE }, CommandBody::Escrow(bench.sealed(b"other"))),
        (Action::GiveShare, unseal(UnsealedBy::Shares { node: NodeId::new(1), numbers: vec![1] })),
        (Action::UnsealCluster, unseal(UnsealedBy::Order)),
        (Action::SealCluster, CommandBody::Seal { reason: detail() }),
        (Action::AddDeviceToGroup, CommandBody::AddToGroup { device: DEVICE, group: berlin() }),
        (
            Action::RemoveDeviceFromGroup,
            CommandBody::RemoveFromGroup { device: DEVICE, group: berlin() },
        ),
    ];
    let mut callers =
        vec![caller(operator("nobody")), agent(), caller(Actor::Node(NodeId::new(2)))];
    for (n, role) in (50..).zip(Role::ALL) {
        bench.grant(n, role.as_str(), role).await;
        callers.push(caller(operator(role.as_str())));
    }
    let limited = Reach::of(["munich".parse().unwrap()]).unwrap();
    bench.grant_for(70, "mona", Role::DataMigration, limited).await;
    callers.push(caller(operator("mona")));
    for caller in &callers {
        for (n, (action, body)) in (150..).zip(&bodies) {
            let permitted = bench.permit(caller, *action).is_ok();
            let (actor, body) = (caller.actor().clone(), body.clone());
            let command = Command {
                actor,
                certificate: None,
                roles: Default::default(),
                request_id: request(n),
                time: bench.context.now(),
                body,
            };
            let outcome = bench.fake.propose(command).await.unwrap().outcome;
            let refused = matches!(
                outcome,
                Err(Rejection::NotGranted { .. }
                    | Rejection::ForeignDevice
                    | Rejection::OutsideGroups)
            );
            let accepted = !refused;
            assert_eq!(permitted, accepted, "{} {action:?}: {outcome:?}", caller.actor());
        }
    }
}

#[tokio::test]
async fn a_role_that_is_taken_away_counts_no_more() {
    let bench = Bench::ready().await;
    bench.grant(50, "bob", Role::HelpDesk).await;
    let bob = caller(operator("bob"));
    assert!(bench.permit(&bob, Action::FindKeys).is_ok());
    let permit = bench.permit(&alice(), Action::Revoke).unwrap();
    let name = "bob".parse().unwrap();
    bench.admin.revoke(&permit, request(51), name, Role::HelpDesk).await.unwrap();
    assert!(matches!(bench.permit(&bob, Action::FindKeys), Err(ServiceError::Denied(_))));
}

#[tokio::test]
async fn a_stale_permit_is_no_permit() {
    let bench = Bench::ready().await;
    *bench.fake.age.lock() = FRESH_FOR;
    assert!(bench.permit(&alice(), Action::DiscloseKey).is_ok());
    *bench.fake.age.lock() = FRESH_FOR + Duration::from_millis(1);
    for (caller, action) in [
        (alice(), Action::DiscloseKey),
        (alice(), Action::FindKeys),
        (alice(), Action::Grant),
        (agent(), Action::Escrow { device: DEVICE }),
    ] {
        let refused = bench.permit(&caller, action);
        assert!(matches!(refused, Err(ServiceError::NoQuorumContact { .. })), "{action:?}");
    }
    // A read that is marked as stale itself is served.
    assert!(bench.permit_stale(&alice(), Action::GetDevice).is_ok());
}

#[tokio::test]
async fn before_there_is_a_cluster_only_its_making_is_permitted() {
    let bench = Bench::empty(true);
    for action in [Action::GetStatus, Action::FindKeys, Action::Grant] {
        let refused = bench.permit_stale(&alice(), action);
        assert!(matches!(refused, Err(ServiceError::NotInitialised)), "{action:?}");
    }
    assert!(bench.permit_stale(&alice(), Action::InitCluster).is_ok());
    assert!(bench.permit_stale(&agent(), Action::InitCluster).is_err());
}

#[tokio::test]
async fn refusals_become_one_record_with_counts() {
    let bench = Bench::ready().await;
    let mallory = caller(operator("mallory"));
    for _ in 0..7 {
        assert!(bench.permit(&mallory, Action::DiscloseKey).is_err());
    }
    assert_eq!(bench.context.counters().refusals(), 7);
    *bench.fake.log.lock() = Log::NoLeader;
    assert!(bench.context.flush_refusals().await.is_err());
    let failed = bench.fake.proposed.lock().pop().unwrap();
    *bench.fake.log.lock() = Log::Commits;
    bench.context.flush_refusals().await.unwrap();
    let command = bench.fake.proposed.lock().last().unwrap().clone();
    assert_eq!(command.request_id, failed.request_id, "the same request is made again");
    assert_eq!(command.actor, Actor::Node(NodeId::new(1)));
    let CommandBody::Refusals(counts) = command.body else { panic!("no refusals") };
    assert_eq!(counts.len(), 1);
    assert_eq!((counts[0].count, &counts[0].actor), (7, mallory.actor()));
    assert_eq!(counts[0].reason.as_str(), "ROLE_MISSING");
    let proposals = bench.fake.proposed.lock().len();
    bench.context.flush_refusals().await.unwrap();
    assert_eq!(bench.fake.proposed.lock().len(), proposals, "nothing is recorded twice");
}
