//! Servers die, and nothing that was acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast::cli::local_cluster::wait_for;
use holdfast::client::{Client, KeyQuery};
use holdfast::domain::{DeviceId, KeyVersion, ProtectorId};
use holdfast_proto::v1;
use secrecy::ExposeSecret as _;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_when_the_leader_is_killed_and_it_catches_up_after_a_restart() {
    let mut harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let load = Load::start(&agent, harness.device, 3);
    load.more(10).await;
    let leader = harness.cluster.leader().await.unwrap();
    harness.cluster.kill_node(leader).await.unwrap();
    load.more(10).await;
    assert_ne!(harness.cluster.leader().await.unwrap(), leader);

    harness.cluster.start_node(leader).await.unwrap();
    harness.cluster.wait_caught_up(leader, LIMIT).await.unwrap();
    load.stop().all_are_there(&harness.client_of_node(leader, &harness.agent)).await;
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop().await.unwrap();
}

/// Escrows to one volume after the other, and panics if one is not acknowledged.
fn strict_writer(client: Client, device: DeviceId, count: Arc<AtomicUsize>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut next = new_escrow(device);
        loop {
            let sealed = client.seal(&next, &new_key(), None).await.unwrap();
            let receipt = client.send(&sealed).await.unwrap();
            next.expected_version = receipt.facts.version;
            next.protector = ProtectorId::new(Uuid::new_v4());
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_fails_while_one_server_after_the_other_is_stopped_in_order() {
    let mut harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let count = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> =
        (0..4).map(|_| strict_writer(agent.clone(), harness.device, Arc::clone(&count))).collect();
    more(&count).await;
    for _ in 0..2 {
        let leader = harness.cluster.leader().await.unwrap();
        // It must end with exit code 0, and soon.
        harness.cluster.stop_node(leader).await.unwrap();
        more(&count).await;
        harness.cluster.start_node(leader).await.unwrap();
        harness.cluster.wait_caught_up(leader, LIMIT).await.unwrap();
    }
    assert!(writers.iter().all(|writer| !writer.is_finished()), "a write failed");
    writers.iter().for_each(JoinHandle::abort);
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop().await.unwrap();
}

async fn more(count: &AtomicUsize) {
    let goal = count.load(Ordering::Relaxed) + 10;
    wait_for("ten more writes are acknowledged", LIMIT, || async {
        let now = count.load(Ordering::Relaxed);
        if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_kill_of_all_three_servers_at_once() {
    let mut harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let load = Load::start(&agent, harness.device, 3);
    load.more(20).await;
    for node in [1, 2, 3] {
        harness.cluster.kill_node(node).await.unwrap();
    }
    let written = load.stop();
    harness.cluster.start().await.unwrap();
    written.all_are_there(&agent).await;
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_deleted_while_its_server_is_stopped_is_rebuilt() {
    let mut harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let (escrow, key) = (new_escrow(harness.device), new_key());
    agent.escrow(&escrow, &key, None).await.unwrap();
    for node in [1, 2, 3] {
        harness.cluster.stop_node(node).await.unwrap();
        let view = harness.cluster.node(node).unwrap().data_dir().join("view");
        assert!(view.is_dir());
        std::fs::remove_dir_all(view).unwrap();
        // The other two go on without it.
        let more = new_escrow(harness.device);
        agent.escrow(&more, &new_key(), None).await.unwrap();
        harness.cluster.start_node(node).await.unwrap();
        harness.cluster.wait_caught_up(node, LIMIT).await.unwrap();
    }
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    let helen = harness.client_of_node(3, &harness.help_desk);
    let disclosed = helen.disclose(&disclosure(escrow.protector)).await.unwrap();
    assert_eq!(disclosed.recovery_key.expose_secret(), key.expose_secret());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_takes_every_kind_of_request_whoever_leads() {
    let harness = Harness::start().await;
    for node in [1, 2, 3] {
        let agent = harness.client_of_node(node, &harness.agent);
        let (mut escrow, key) = (new_escrow(harness.device), new_key());
        let receipt = agent.escrow(&escrow, &key, None).await.unwrap();
        assert_eq!(receipt.node.get(), node, "whoever answers signs");
        let helen = harness.client_of_node(node, &harness.help_desk);
        let found = helen.find_keys(KeyQuery::Prefix(escrow.protector.prefix())).await.unwrap();
        assert_eq!(found.keys.len(), 1);
        let disclosed = helen.disclose(&disclosure(escrow.protector)).await.unwrap();
        assert_eq!(disclosed.recovery_key.expose_secret(), key.expose_secret());
        // A key that was just escrowed elsewhere is seen here: reads are linearizable.
        let other = harness.client_of_node(node % 3 + 1, &harness.agent);
        escrow.expected_version = KeyVersion::new(1);
        escrow.protector = ProtectorId::new(Uuid::new_v4());
        other.escrow(&escrow, &new_key(), None).await.unwrap();
        let rita = harness.client_of_node(node, &harness.reader);
        let device = rita.device(harness.device, false).await.unwrap().device.unwrap();
        let volume = escrow.volume.to_string();
        let volume = device.volumes.iter().find(|found| found.volume_id == volume).unwrap();
        assert_eq!(volume.key_version, 2);
        assert_eq!(volume.protector_id, escrow.protector.to_string());
    }
}

/// A killed leader may lack the last entries that it sent to others. Leading on in its old term, it would give their log
/// ids to other entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_comes_back_after_a_kill_never_leads_on_in_its_old_term() {
    let mut harness = Harness::start().await;
    let old = term_of_the_leader(&harness).await;
    for node in [1, 2, 3] {
        harness.cluster.kill_node(node).await.unwrap();
    }
    harness.cluster.start().await.unwrap();
    let new = term_of_the_leader(&harness).await;
    assert!(new > old, "term {old} went on after a restart of all servers");
    harness.cluster.stop().await.unwrap();
}

async fn term_of_the_leader(harness: &Harness) -> u64 {
    let client = harness.client(&harness.administrator);
    let leads = |member: &&v1::MemberStatus| member.role == v1::MemberRole::Leader as i32;
    wait_for("a member says that it leads", LIMIT, || async {
        let status = client.status(true).await.map_err(|error| error.to_string())?;
        let term = status.members.iter().find(leads).map(|member| member.term);
        term.ok_or_else(|| "nobody does".to_owned())
    })
    .await
    .unwrap()
}
