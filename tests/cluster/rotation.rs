//! A new epoch and keys that are sealed to it, from outside, while devices go on and a server is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast::cli::local_cluster::wait_for;
use holdfast::client::Client;
use holdfast::domain::{DeviceId, ProtectorId, RecoveryKey};
use secrecy::ExposeSecret as _;

use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key};

/// Escrows a key of a new volume.
async fn escrow(agent: &Client, device: DeviceId) -> (ProtectorId, RecoveryKey) {
    let (escrow, key) = (new_escrow(device), new_key());
    agent.escrow(&escrow, &key, None).await.unwrap();
    (escrow.protector, key)
}

async fn epoch(harness: &Harness) -> u64 {
    let status = harness.run(&harness.administrator, &["operator", "status", "-o", "json"]).await;
    status.json()["epoch"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_opens_after_a_rotation_and_a_reseal_under_escrows_with_a_server_away() {
    let mut harness = Harness::start().await;
    let (agent, device) = (harness.client(&harness.agent), harness.device);
    let mut keys = Vec::new();
    for _ in 0..20 {
        keys.push(escrow(&agent, device).await);
    }
    assert_eq!(epoch(&harness).await, 1);
    let away = harness.cluster.leader().await.unwrap();
    harness.cluster.kill_node(away).await.unwrap();
    wait_for("a new leader makes an epoch", LIMIT, || async {
        let ran = harness.run(&harness.administrator, &["operator", "rotate"]).await;
        if ran.code() == 0 { Ok(()) } else { Err(ran.stderr()) }
    })
    .await
    .unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (agent, stop) = (agent.clone(), Arc::clone(&stop));
        async move {
            let mut written = Vec::new();
            while !stop.load(Ordering::SeqCst) && written.len() < 40 {
                written.push(escrow(&agent, device).await);
            }
            written
        }
    });
    let reseal = ["operator", "reseal", "-o", "json"];
    let ran = harness.run(&harness.administrator, &reseal).await.ends_with(0).json();
    assert!(ran["resealed"].as_u64().unwrap() >= 20, "{ran}");
    assert_eq!((&ran["failed"], &ran["epoch"]), (&0.into(), &2.into()));
    stop.store(true, Ordering::SeqCst);
    keys.extend(writer.await.unwrap());
    let rest = harness.run(&harness.administrator, &reseal).await.ends_with(0).json();
    let none = harness.run(&harness.administrator, &reseal).await.ends_with(0).json();
    assert_eq!(none["resealed"], 0, "{rest} {none}");

    harness.cluster.start_node(away).await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    // The server that was away opens what is sealed to an epoch that it has never seen made.
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
    let alone = harness.client_of_node(away, &harness.help_desk);
    for (protector, key) in &keys {
        let opened = alone.disclose(&disclosure(*protector)).await.unwrap();
        assert_eq!(opened.recovery_key.expose_secret(), key.expose_secret());
    }
}
