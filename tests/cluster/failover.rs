//! Servers die, and nothing that was acknowledged is lost.

use holdfast::client::KeyQuery;
use holdfast::domain::{KeyVersion, ProtectorId};
use secrecy::ExposeSecret as _;
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
