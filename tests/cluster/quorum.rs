//! Servers that have lost the others say so, and do nothing that would need them.

use std::time::{Duration, Instant};

use holdfast::cli::local_cluster::wait_for;
use holdfast::cli::pki::IssuedPaths;
use holdfast::crypto::Authority;
use holdfast::domain::ProtectorId;
use holdfast::tls::{Connector, Identity, client_config};
use holdfast_proto::v1;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use rustix::process::Signal;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::harness::{Harness, LIMIT, new_escrow, new_key};
use crate::load::Load;

/// The value of a metric.
async fn metric(harness: &Harness, node: u64, name: &str) -> String {
    let (status, page) = harness.page(node, "/metrics").await;
    assert_eq!(status, 200);
    let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in\n{page}")).split(' ').nth(1).unwrap().to_owned()
}

async fn until_ready(harness: &Harness, node: u64, wanted: u16) {
    wait_for("the server knows how it stands", LIMIT, || async {
        let (status, body) = harness.page(node, "/readyz").await;
        if status == wanted { Ok(()) } else { Err(body) }
    })
    .await
    .unwrap();
}

/// `cluster status` as one server alone answers it: exit code and what it says.
async fn status_of(harness: &Harness, node: u64) -> (i32, Value) {
    let address = harness.cluster.node(node).unwrap().ports().client_address();
    let args = ["--addr", &address, "cluster", "status", "-o", "json"];
    let ran = harness.run(&harness.administrator, &args).await;
    (ran.code(), ran.json())
}

/// A connection to one server, without the client's patience: each call is made once.
async fn connect(harness: &Harness, node: u64, who: &IssuedPaths) -> Channel {
    let ca = Authority::from_pem_file("node", &harness.cluster.client_ca()).unwrap();
    let identity = Identity::load(&who.certificate, &who.private_key).unwrap();
    let config = client_config(&ca, Some(&identity)).unwrap();
    let address = harness.cluster.node(node).unwrap().ports().client_address();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_with_connector(Connector::new(config, LIMIT)).await.unwrap()
}

async fn refuses_all_but_stale_reads(harness: &Harness, node: u64) {
    let reason = |status: tonic::Status| status.get_details_error_info().unwrap().reason;
    let mut admin = AdminServiceClient::new(connect(harness, node, &harness.administrator).await);
    let write = v1::GrantRoleRequest {
        request_id: Uuid::new_v4().to_string(),
        operator: "nobody".to_owned(),
        role: v1::Role::Auditor.into(),
        groups: Vec::new(),
    };
    let refused = admin.grant_role(write).await.unwrap_err();
    assert_eq!(reason(refused), "NO_QUORUM_CONTACT");
    let device = |stale| v1::GetDeviceRequest { device_id: harness.device.to_string(), stale };
    let mut reader = AdminServiceClient::new(connect(harness, node, &harness.reader).await);
    let refused = reader.get_device(device(false)).await.unwrap_err();
    assert_eq!(reason(refused), "NO_QUORUM_CONTACT");
    reader.get_device(device(true)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_the_quorum_says_so_and_refuses_all_but_stale_reads() {
    let mut harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    let leader = harness.cluster.leader().await.unwrap();
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    assert_eq!(metric(&harness, leader, "holdfast_raft_is_leader").await, "1.0");

    // The leader alone.
    followers.iter().for_each(|id| harness.signal(*id, Signal::STOP));
    until_ready(&harness, leader, 503).await;
    assert_eq!(metric(&harness, leader, "holdfast_raft_leader").await, "0.0");
    assert_eq!(metric(&harness, leader, "holdfast_raft_is_leader").await, "0.0");
    refuses_all_but_stale_reads(&harness, leader).await;
    let (code, said) = status_of(&harness, leader).await;
    assert_eq!((code, &said["leader_id"]), (3, &Value::from(0)), "{said}");
    let members = said["members"].as_array().unwrap();
    let own = members.iter().find(|member| member["node_id"] == leader).unwrap();
    assert_eq!(own["role"], "isolated leader");

    // With one of them it leads again, or the other does.
    followers.iter().for_each(|id| harness.signal(*id, Signal::CONT));
    for node in 1..=3 {
        until_ready(&harness, node, 200).await;
    }
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();

    // A follower alone.
    let leader = harness.cluster.leader().await.unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let others: Vec<u64> = (1..=3).filter(|id| *id != follower).collect();
    others.iter().for_each(|id| harness.signal(*id, Signal::STOP));
    until_ready(&harness, follower, 503).await;
    assert_eq!(metric(&harness, follower, "holdfast_raft_leader").await, "0.0");
    refuses_all_but_stale_reads(&harness, follower).await;
    assert_eq!(status_of(&harness, follower).await.0, 3);
    others.iter().for_each(|id| harness.signal(*id, Signal::CONT));
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_process_dies_is_replaced_long_before_its_lease_is_over() {
    let times = toml::toml! {
        [raft]
        election_min_ms = 20000
        election_max_ms = 30000
    };
    let mut harness = Harness::start_with(times).await;
    let leader = harness.cluster.leader().await.unwrap();
    let began = Instant::now();
    harness.cluster.kill_node(leader).await.unwrap();
    let agent = harness.client(&harness.agent);
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    // Silence alone would take a lease and a timeout: 50 seconds at least.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_ne!(harness.cluster.leader().await.unwrap(), leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_servers_stop_at_once_the_leader_waits_for_nobody() {
    let mut harness = Harness::start().await;
    harness.cluster.stop().await.unwrap();
    for node in 1..=3 {
        let log = harness.log(node);
        assert!(!log.contains("not handed on in time"), "{log}");
        assert!(!log.contains("did not take over"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_a_snapshot_and_of_divergence_tell_the_truth() {
    let small = toml::toml! {
        [storage]
        snapshot_floor_bytes = 1048576
    };
    let harness = Harness::start_with(small).await;
    let agent = harness.client(&harness.agent);
    for node in 1..=3 {
        assert_eq!(metric(&harness, node, "holdfast_state_divergence").await, "0.0");
        assert_eq!(metric(&harness, node, "holdfast_clock_ahead").await, "0.0");
    }
    let deadline = Instant::now() + LIMIT;
    let mut escrow = new_escrow(harness.device);
    loop {
        let receipt = agent.escrow(&escrow, &new_key(), Some(&[7; 60_000])).await.unwrap();
        escrow.expected_version = receipt.facts.version;
        escrow.protector = ProtectorId::new(Uuid::new_v4());
        let (_, page) = harness.page(1, "/metrics").await;
        let line = page.lines().find(|line| line.starts_with("holdfast_snapshot_age_seconds "));
        if let Some(age) = line.and_then(|line| line.split(' ').nth(1)) {
            assert!(age.parse::<f64>().unwrap() < 60.0, "{age}");
            return;
        }
        assert!(Instant::now() < deadline, "no snapshot has an age: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_member_is_told_once_and_who_leads_whenever_that_changes() {
    let mut harness = Harness::start().await;
    let leader = harness.cluster.leader().await.unwrap();
    let away = leader % 3 + 1;
    harness.says(leader, "this node leads").await;
    harness.says(away, "another node leads").await;
    harness.cluster.kill_node(away).await.unwrap();
    harness.says(leader, "a member does not answer").await;
    // Time for many heartbeats: a load, and a member that comes back.
    let load = Load::start(&harness.client(&harness.agent), harness.device, 2);
    load.more(50).await;
    harness.cluster.start_node(away).await.unwrap();
    harness.says(leader, "a member answers again").await;
    drop(load);

    let log = harness.log(leader);
    let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(count("a member does not answer"), 1, "{log}");
    assert!(count("WARN") <= 5, "{log}");
    harness.cluster.stop().await.unwrap();
}
