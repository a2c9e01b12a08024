//! Making the cluster, and changing its members.

use super::harness::*;
use crate::auth::Action;
use crate::crypto::testing::{CLUSTER, Order, TestCa};
use crate::domain::{Epoch, NodeId};
use crate::raft::RaftError;
use crate::service::{InitCluster, ServiceError};
use crate::state::CommandBody;

#[tokio::test]
async fn a_cluster_is_made_once_and_unseals_its_node() {
    let bench = Bench::empty(true);
    assert_eq!(bench.init().await.unwrap(), Epoch::new(1));
    assert_eq!(bench.fake.members.lock().as_ref().unwrap().len(), 1);
    assert_eq!(bench.sealing.sealed_because(), None);
    let permit = bench.permit_stale(&alice(), Action::GetStatus).unwrap();
    let status = bench.cluster.status(&permit, true).await.unwrap();
    assert_eq!(status.cluster, Some(CLUSTER));
    assert!(matches!(bench.init().await, Err(ServiceError::AlreadyInitialised)));
}

#[tokio::test]
async fn nothing_is_made_without_a_root_key() {
    let bench = Bench::empty(false);
    assert!(matches!(bench.init().await, Err(ServiceError::Sealed(_))));
    assert!(bench.fake.members.lock().is_none());
}

async fn refused(bench: &Bench, init: InitCluster) -> ServiceError {
    let permit = bench.permit_stale(&alice(), Action::InitCluster).unwrap();
    let error = bench.cluster.init(&permit, request(1), init).await.unwrap_err();
    assert!(bench.fake.members.lock().is_none(), "the consensus was not touched");
    error
}

#[tokio::test]
async fn a_bad_signer_or_node_is_found_before_anything_is_made() {
    let bench = Bench::empty(true);
    let foreign = TestCa::new("node").make(&Order::escrow_signer()).material();
    let init = InitCluster { signer: foreign, ..bench.init_request(1) };
    let error = refused(&bench, init).await;
    assert!(matches!(&error, ServiceError::Field(e) if e.field == "signer_chain"), "{error}");
    let mut mixed = bench.init_request(1);
    mixed.signer.private_key = bench.init_request(1).signer.private_key;
    let error = refused(&bench, mixed).await;
    assert!(matches!(&error, ServiceError::Field(e) if e.field == "signer_private_key"));
    let mut twice = bench.init_request(2);
    twice.nodes[1].id = NodeId::new(1);
    assert!(matches!(refused(&bench, twice).await, ServiceError::Field(e) if e.field == "nodes"));
    let mut others = bench.init_request(2);
    others.nodes.remove(0);
    assert!(matches!(refused(&bench, others).await, ServiceError::Field(e) if e.field == "nodes"));
    bench.fake.used.lock().push(NodeId::new(2));
    let error = refused(&bench, bench.init_request(3)).await;
    assert!(matches!(error, ServiceError::Member { node, .. } if node.get() == 2));
}

#[tokio::test]
async fn a_cluster_whose_first_command_is_missing_is_finished_by_a_second_call() {
    let bench = Bench::empty(true);
    *bench.fake.members.lock() = Some(Vec::new());
    assert_eq!(bench.init().await.unwrap(), Epoch::new(1));
}

#[tokio::test]
async fn a_change_of_members_is_recorded_before_it_is_made() {
    let bench = Bench::ready().await;
    let permit = bench.permit(&alice(), Action::AddLearner).unwrap();
    bench.cluster.add_learner(&permit, request(30), node(4)).await.unwrap();
    let CommandBody::ClusterChange { detail } = bench.last_proposal() else { panic!("no record") };
    assert!(detail.as_str().starts_with("add learner 4 at host:4"), "{detail}");
    let permit = bench.permit(&alice(), Action::PromoteNode).unwrap();
    bench.cluster.promote(&permit, request(31), NodeId::new(4)).await.unwrap();
    let permit = bench.permit(&alice(), Action::RemoveNode).unwrap();
    bench.cluster.remove(&permit, request(32), NodeId::new(2)).await.unwrap();
    let permit = bench.permit(&alice(), Action::TransferLeadership).unwrap();
    let leader = bench.cluster.transfer(&permit, request(33), None).await.unwrap();
    assert_eq!(leader, NodeId::new(2));
    let made = ["add 4", "promote 4", "remove 2", "transfer"];
    assert_eq!(*bench.fake.changes.lock(), made);
    // Without a record there is no change.
    *bench.fake.log.lock() = Log::NoLeader;
    let permit = bench.permit(&alice(), Action::RemoveNode).unwrap();
    assert!(bench.cluster.remove(&permit, request(34), NodeId::new(3)).await.is_err());
    assert_eq!(*bench.fake.changes.lock(), made);
}

#[tokio::test]
async fn the_id_of_a_removed_server_is_refused_before_anything_is_recorded() {
    let bench = Bench::ready().await;
    bench.fake.membership(&[1, 2, 3]);
    bench.fake.membership(&[1, 3]);
    let recorded = bench.fake.proposed.lock().len();
    let permit = bench.permit(&alice(), Action::AddLearner).unwrap();
    let error = bench.cluster.add_learner(&permit, request(30), node(2)).await.unwrap_err();
    let ServiceError::Raft(RaftError::RemovedId(id)) = error else { panic!("{error:?}") };
    assert_eq!(id, NodeId::new(2));
    assert!(RaftError::RemovedId(id).to_string().contains("id 2"), "names the id");
    assert_eq!(bench.fake.proposed.lock().len(), recorded);
    assert!(bench.fake.changes.lock().is_empty());
    bench.cluster.add_learner(&permit, request(31), node(4)).await.unwrap();
}
