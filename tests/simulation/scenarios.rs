//! Single faults, told step by step: what once went wrong, and must not again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::time::sleep;

use super::credentials::{AGENTS, agent_host};
use super::nemesis::Nemesis;
use super::operator::make_cluster;
use super::run::{step, three_nodes};
use super::workload::{self, Caller};
use super::world::World;

/// How long it may take until entries that are not delivered are noticed, and somebody else is elected.
const REPLACED: u64 = 2_500;

/// Runs a cluster with its agents until `story` has been told or something is wrong.
fn tell<S>(seed: u64, story: impl Fn(Caller) -> S)
where
    S: Future<Output = ()> + 'static,
{
    holdfast::turns::simulate(seed);
    let world = World::new(seed, std::env::var_os("HOLDFAST_SIM_ECHO").is_some());
    let mut sim = three_nodes(&world, &mut Nemesis::new(seed));
    for number in 1..=AGENTS {
        sim.client(agent_host(number), workload::agent(Arc::clone(&world), number));
    }
    let story = story(Caller::new(&world, "ops", 200));
    let told = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&told);
    sim.client("desk", async move {
        story.await;
        end.store(true, Ordering::Relaxed);
        Ok(())
    });
    while !told.load(Ordering::Relaxed) && step(&mut sim, &world) {}
    let oracle = world.oracle.lock();
    assert_eq!(oracle.violations, [""; 0], "{}", oracle.events.join("\n"));
}

/// Who leads, as the node says.
async fn leader(ops: &mut Caller, node: u64) -> u64 {
    let mut client = ClusterServiceClient::new(ops.channel(node));
    let status = client.get_status(v1::GetStatusRequest { all_members: true }).await;
    status.map_or(0, |status| status.into_inner().leader_id)
}

fn written(ops: &Caller) -> usize {
    ops.world.oracle.lock().escrows.len()
}

/// Waits for `more` acknowledged escrows.
async fn wait_for_escrows(ops: &Caller, more: usize, within: u64) {
    let (before, began) = (written(ops), ops.world.millis());
    while written(ops) < before + more {
        if ops.world.millis() > began + within {
            ops.world.violation(format!("no write was acknowledged for {within} ms"));
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// holdfast-chaos, seed 7, `clock-behind`: a leader that could not connect, but was heard over the connections that it had, led on
/// while nothing was written.
#[test]
fn a_leader_that_can_send_heartbeats_and_no_entries_is_replaced() {
    tell(1, |mut ops| async move {
        make_cluster(&mut ops).await;
        wait_for_escrows(&ops, 20, 10_000).await;
        let first = leader(&mut ops, 1).await;
        let victim = first % 3 + 1;
        // It asks the others how they are: over these connections it will ask for votes, and send heartbeats.
        assert_eq!(leader(&mut ops, victim).await, first);
        ops.world.machines.lock()[&victim].closed.store(true, Ordering::Relaxed);
        ops.world.note(format!("n{victim} can't connect any more"));
        let request =
            v1::TransferLeadershipRequest { request_id: ops.request_id(), node_id: victim };
        let mut client = ClusterServiceClient::new(ops.channel(first));
        client.transfer_leadership(request).await.unwrap();
        let began = ops.world.millis();
        assert_eq!(leader(&mut ops, victim).await, victim, "elected over what it had");
        while [0, victim].contains(&leader(&mut ops, first).await) {
            if ops.world.millis() > began + REPLACED {
                ops.world.violation(format!("n{victim} was not replaced within {REPLACED} ms"));
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        wait_for_escrows(&ops, 1, 1_000).await;
    });
}
