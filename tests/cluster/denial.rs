//! The deny-list from outside: on every node, on streams and connections that are open, and between nodes.

use std::time::{Duration, Instant};

use holdfast::cli::local_cluster::wait_for;
use holdfast::cli::pki::{IssuedPaths, Subject};
use holdfast::client::ErrorKind;
use holdfast::clock::{Clock as _, SystemClock};
use holdfast::crypto::Authority;
use holdfast::domain::{Actor, DenialSubject, Fingerprint, NodeId};
use holdfast::tls::{Connector, Identity, client_config};
use holdfast_proto::v1;
use holdfast_proto::v1::audit_service_client::AuditServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt as _;

use crate::harness::{Harness, LIMIT, new_escrow, new_key, operator};

/// How soon after its commit a denial has to be felt everywhere.
const SOON: Duration = Duration::from_secs(1);

/// A connection to one server, without the client's patience: each call is made once.
async fn connect(harness: &Harness, node: u64, who: &IssuedPaths) -> Channel {
    let ca = Authority::from_pem_file("node", &harness.cluster.client_ca()).unwrap();
    let identity = Identity::load(&who.certificate, &who.private_key).unwrap();
    let config = client_config(&ca, Some(&identity)).unwrap();
    let address = harness.cluster.node(node).unwrap().ports().client_address();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_with_connector(Connector::new(config, LIMIT)).await.unwrap()
}

/// A stream that stays open until the server ends it.
async fn watch(channel: &Channel) -> Streaming<HealthCheckResponse> {
    let mut health = HealthClient::new(channel.clone());
    let mut stream = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    stream
}

async fn ending(stream: &mut Streaming<HealthCheckResponse>) -> Status {
    let ended = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended as if nothing were wrong"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(LIMIT, ended).await.expect("the stream goes on")
}

async fn head(channel: &Channel, stale: bool) -> Result<(), Status> {
    let mut audit = AuditServiceClient::new(channel.clone());
    audit.get_head(v1::GetHeadRequest { stale }).await.map(drop)
}

#[track_caller]
fn is_denied(status: &Status) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(info.reason, "CERTIFICATE_DENIED");
    assert_eq!(
        status.message(),
        "the certificate of operator/arthur was denied by an administrator"
    );
}

fn fingerprint(who: &IssuedPaths) -> DenialSubject {
    let identity = Identity::load(&who.certificate, &who.private_key).unwrap();
    DenialSubject::Certificate(Fingerprint::of(&identity.chain()[0]))
}

/// Denies, and waits until an open stream on each server and every other call there has ended as it must.
async fn is_cut_off(harness: &Harness, subject: &DenialSubject) {
    let admin = harness.client(&harness.administrator);
    let mut open = Vec::new();
    for node in 1..=3 {
        let channel = connect(harness, node, &harness.auditor).await;
        head(&channel, false).await.unwrap();
        open.push((watch(&channel).await, channel));
    }
    assert!(admin.deny(subject, "laptop stolen").await.unwrap());
    let committed = Instant::now();
    for (stream, channel) in &mut open {
        is_denied(&ending(stream).await);
        assert!(committed.elapsed() < SOON, "{:?}", committed.elapsed());
        for stale in [false, true] {
            is_denied(&head(channel, stale).await.unwrap_err());
        }
        let mut health = HealthClient::new(channel.clone());
        is_denied(&health.check(HealthCheckRequest::default()).await.unwrap_err());
    }
    println!("cut off on all nodes after {:?}", committed.elapsed());
    for node in 1..=3 {
        let channel = connect(harness, node, &harness.auditor).await;
        is_denied(&head(&channel, false).await.unwrap_err());
    }
    assert!(!admin.deny(subject, "once more").await.unwrap());
}

async fn is_served_everywhere(harness: &Harness, who: &IssuedPaths) {
    for node in 1..=3 {
        let channel = connect(harness, node, who).await;
        wait_for("the node serves", LIMIT, || async {
            head(&channel, false).await.map_err(|status| status.to_string())
        })
        .await
        .unwrap();
        watch(&channel).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_operator_is_cut_off_on_every_node_within_a_second_until_it_is_allowed_again() {
    let mut harness = Harness::start().await;
    let subject = DenialSubject::Identity("operator/arthur".parse::<Actor>().unwrap());
    let other = connect(&harness, 2, &harness.reader).await;
    let mut others = watch(&other).await;
    is_cut_off(&harness, &subject).await;
    // Whoever is not meant notices nothing.
    let undisturbed = tokio::time::timeout(SOON, others.message()).await;
    assert!(undisturbed.is_err(), "{undisturbed:?}");

    let listed = harness.run(&harness.administrator, &["cert", "list", "-o", "json"]).await;
    let listed = listed.ends_with(0).json();
    assert_eq!(listed["denials"][0]["subject"], "operator/arthur");
    assert_eq!(listed["denials"][0]["reason"], "laptop stolen");
    assert_eq!(listed["denials"][0]["denied_by"], "operator/admin");
    let refused = harness.run(&harness.auditor, &["audit", "list"]).await.ends_with(5);
    assert!(refused.stderr().contains("CERTIFICATE_DENIED"), "{}", refused.stderr());

    let allow = ["cert", "allow", "operator/arthur"];
    harness.run(&harness.administrator, &allow).await.ends_with(0);
    is_served_everywhere(&harness, &harness.auditor).await;

    // A server that stops records what it has refused.
    harness.cluster.stop_node(1).await.unwrap();
    let filter = ["audit", "list", "--actor", "operator/arthur", "-o", "json"];
    let records = harness.run(&harness.auditor, &filter).await.ends_with(0);
    let refusals = records.stdout().matches("CERTIFICATE_DENIED").count();
    assert!((1..=12).contains(&refusals), "coalesced: {}", records.stdout());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_certificate_is_cut_off_and_its_holder_goes_on_with_another_one() {
    let harness = Harness::start().await;
    is_cut_off(&harness, &fingerprint(&harness.auditor)).await;
    let second = harness.cluster.dir().join("second");
    let subject = Subject::Operator(operator("arthur"));
    let issued = harness.cluster.pki().issue(&subject, 1, &second, SystemClock.now()).unwrap();
    is_served_everywhere(&harness, &issued).await;
    let file = harness.auditor.certificate.to_str().unwrap();
    harness.run(&harness.administrator, &["cert", "allow", "--file", file]).await.ends_with(0);
    is_served_everywhere(&harness, &harness.auditor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_device_escrows_nothing_and_the_last_administrator_stays() {
    let harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    let device = format!("agent/{}", harness.device);
    let deny = ["cert", "deny", &device, "--reason", "laptop stolen"];
    harness.run(&harness.administrator, &deny).await.ends_with(0);
    let refused = agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    assert!(refused.to_string().contains("CERTIFICATE_DENIED"), "{refused}");
    let own = ["cert", "deny", "operator/admin", "--reason", "let us see"];
    let last = harness.run(&harness.administrator, &own).await;
    assert!(last.stderr().contains("LAST_ADMINISTRATOR"), "{}", last.stderr());
    let refused = harness.run(&harness.help_desk, &deny).await.ends_with(5);
    assert!(refused.stderr().contains("ROLE_MISSING"), "{}", refused.stderr());
}

/// Escrows on the nodes that are left, until one of them takes it.
async fn goes_on_without(harness: &Harness, denied: u64) {
    let left: Vec<_> = (1..=3).filter(|id| *id != denied).collect();
    for node in left {
        let agent = harness.client_of_node(node, &harness.agent);
        wait_for("the others go on", LIMIT, || async {
            let escrowed = agent.escrow(&new_escrow(harness.device), &new_key(), None).await;
            escrowed.map_err(|error| error.to_string())
        })
        .await
        .unwrap();
    }
}

/// Denies a node, sees that it is out, and takes it in again.
async fn node_is_cut_off(harness: &Harness, node: u64) {
    let admin = harness.client(&harness.administrator);
    let subject = DenialSubject::Identity(Actor::Node(NodeId::new(node)));
    assert!(admin.deny(&subject, "disk stolen").await.unwrap());
    goes_on_without(harness, node).await;
    wait_for("the denied node has lost the others", LIMIT, || async {
        let (status, body) = harness.page(node, "/readyz").await;
        if status == 503 { Ok(()) } else { Err(body) }
    })
    .await
    .unwrap();
    let applied = harness.metric(node, "holdfast_raft_applied_index").await;
    goes_on_without(harness, node).await;
    assert_eq!(harness.metric(node, "holdfast_raft_applied_index").await, applied);
    let other = (1..=3).find(|id| *id != node).unwrap();
    let next = DenialSubject::Identity(Actor::Node(NodeId::new(other)));
    let refused = admin.deny(&next, "another disk").await.unwrap_err();
    assert!(refused.to_string().contains("TOO_MANY_NODES_DENIED"), "{refused}");
    assert!(admin.allow(&subject).await.unwrap());
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_node_is_no_peer_whether_it_follows_or_leads() {
    let harness = Harness::start().await;
    let leader = harness.cluster.leader().await.unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    node_is_cut_off(&harness, follower).await;
    let leader = harness.cluster.leader().await.unwrap();
    node_is_cut_off(&harness, leader).await;
}
