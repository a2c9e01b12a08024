//! Whoever runs the cluster: makes it, hands leadership on, and changes its members.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use holdfast::domain::Role;
use holdfast_proto::v1;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use rand::Rng as _;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::cluster::{CLIENT_PORT, PEER_PORT};
use super::credentials::host;
use super::sights::Sight;
use super::workload::{Caller, PATIENCE};
use super::world::{Change, World};

/// How long a change of members may take.
const CHANGE: Duration = Duration::from_secs(35);

/// The operator, until the end of the run.
pub(crate) async fn operator(world: Arc<World>) -> turmoil::Result {
    let mut ops = Caller::new(&world, "ops", 200);
    make_cluster(&mut ops).await;
    while !World::is(&world.level) {
        let pause = ops.rng.random_range(300..2500);
        sleep(Duration::from_millis(pause)).await;
        let change = *world.change.lock();
        if let Some(change) = change {
            make_change(&mut ops, change).await;
        } else if !World::is(&world.stopping) {
            transfer(&mut ops).await;
        }
    }
    Ok(())
}

fn spec(id: u64) -> v1::NodeSpec {
    v1::NodeSpec {
        node_id: id,
        peer_address: format!("{}:{PEER_PORT}", host(id)),
        client_address: format!("{}:{CLIENT_PORT}", host(id)),
    }
}

async fn make_change(ops: &mut Caller, change: Change) {
    match change {
        Change::Replace { old, new } => {
            add(ops, new).await;
            remove(ops, old).await;
        }
        Change::Grow(new) => add(ops, new).await,
        Change::Shrink(old) => remove(ops, old).await,
    }
    ops.world.note(format!("done: {change:?}"));
    *ops.world.change.lock() = None;
}

/// Adds a member; it has no vote for a while.
async fn add(ops: &mut Caller, new: u64) {
    let request = v1::AddLearnerRequest { request_id: ops.request_id(), node: Some(spec(new)) };
    until_changed(ops, "add", |channel| {
        let request = request.clone();
        async move { ClusterServiceClient::new(channel).add_learner(request).await }
    })
    .await;
    ops.world.saw(Sight::Added);
    let pause = ops.rng.random_range(0..800);
    sleep(Duration::from_millis(pause)).await;
    let request = v1::PromoteNodeRequest { request_id: ops.request_id(), node_id: new };
    until_changed(ops, "promote", |channel| {
        let request = request.clone();
        async move { ClusterServiceClient::new(channel).promote_node(request).await }
    })
    .await;
    ops.world.saw(Sight::Promoted);
}

/// Removes a member, maybe the one that leads. It runs on for a while.
async fn remove(ops: &mut Caller, old: u64) {
    let led = ops.world.oracle.lock().last_leader() == Some(old);
    let request = v1::RemoveNodeRequest { request_id: ops.request_id(), node_id: old };
    until_changed(ops, "remove", |channel| {
        let request = request.clone();
        async move { ClusterServiceClient::new(channel).remove_node(request).await }
    })
    .await;
    ops.world.saw(if led { Sight::RemovedLeader } else { Sight::Removed });
    if ops.world.machines.lock().contains_key(&old) {
        ops.world.removed.lock().insert(old);
    }
}

/// Asks for a change of members until it is made.
async fn until_changed<T, F>(ops: &mut Caller, what: &str, call: impl Fn(Channel) -> F)
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    loop {
        let node = ops.any_node();
        let channel = ops.channel(node);
        let answer = timeout(CHANGE, call(channel)).await;
        if matches!(answer, Ok(Ok(_))) {
            ops.world.note(format!("{what}: done by n{node}"));
            return;
        }
        ops.world.note(format!("{what} by n{node}: {}", code(&answer)));
        sleep(Duration::from_millis(200)).await;
    }
}

/// Makes the cluster of the first three nodes, and gives the help desk all its roles.
pub(crate) async fn make_cluster(desk: &mut Caller) {
    let nodes = (1..=3).map(spec).collect();
    let signer = &desk.world.credentials.signer;
    let init = v1::InitClusterRequest {
        nodes,
        first_administrator: "desk".to_owned(),
        signer_chain: signer.chain.clone(),
        signer_private_key: Bytes::copy_from_slice(signer.private_key.expose_secret()),
        request_id: desk.request_id(),
        root_key: Bytes::new(),
        share_set: None,
    };
    loop {
        let mut client = ClusterServiceClient::new(desk.channel(1));
        match timeout(Duration::from_secs(30), client.init_cluster(init.clone())).await {
            Ok(Ok(_)) => break,
            Ok(Err(status)) if status.message().contains("already") => break,
            other => desk.world.note(format!("not made yet: {}", code(&other))),
        }
        sleep(Duration::from_millis(200)).await;
    }
    for (number, _) in Role::ALL.iter().enumerate() {
        let grant = v1::GrantRoleRequest {
            request_id: desk.request_id(),
            operator: "desk".to_owned(),
            role: i32::try_from(number + 1).unwrap(),
            groups: Vec::new(),
        };
        let granting = desk.until_answered("grant", |channel| {
            let grant = grant.clone();
            async move { AdminServiceClient::new(channel).grant_role(grant).await }
        });
        granting.await;
    }
    desk.world.note("the cluster is made");
    desk.world.ready.store(true, Ordering::Relaxed);
}

fn code<T>(answer: &Result<Result<T, Status>, tokio::time::error::Elapsed>) -> String {
    match answer {
        Ok(Ok(_)) => "ok".to_owned(),
        Ok(Err(status)) => format!("{:?} {}", status.code(), status.message()),
        Err(_) => "no answer".to_owned(),
    }
}

/// Leadership is handed on now and then. Whether that works out is of no account.
async fn transfer(desk: &mut Caller) {
    let node = desk.any_node();
    let request =
        v1::TransferLeadershipRequest { request_id: desk.request_id(), ..Default::default() };
    let mut client = ClusterServiceClient::new(desk.channel(node));
    let answer = timeout(PATIENCE, client.transfer_leadership(request)).await;
    let done = matches!(answer, Ok(Ok(_)));
    if done {
        desk.world.saw(Sight::Transfer);
    }
    desk.world.note(format!("transfer by n{node}: {done}"));
}
