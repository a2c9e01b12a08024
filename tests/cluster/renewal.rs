//! Certificates are renewed while a server runs.

use holdfast::cli::pki::{IssuedPaths, Subject};
use holdfast::clock::{Clock as _, SystemClock};
use holdfast::crypto::{Authority, Leaf};
use holdfast::domain::NodeId;
use holdfast::tls::{Connector, Identity, client_config};
use rustix::process::Signal;

use crate::harness::{Harness, LIMIT, new_escrow, new_key};

const UNTIL: &str = "holdfast_certificate_not_after_seconds";
const FAILED: &str = "holdfast_certificate_reload_failed";

/// The serial number of the certificate that a server shows to a new connection.
async fn shown(harness: &Harness, node: u64) -> String {
    let ca = Authority::from_pem_file("node", &harness.cluster.client_ca()).unwrap();
    let who = &harness.agent;
    let identity = Identity::load(&who.certificate, &who.private_key).unwrap();
    let connector = Connector::new(client_config(&ca, Some(&identity)).unwrap(), LIMIT);
    let address = harness.cluster.node(node).unwrap().ports().client_address();
    let (host, port) = address.rsplit_once(':').unwrap();
    let stream = connector.connect(host, port.parse().unwrap()).await.unwrap();
    Leaf::read(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap().serial
}

fn serial(paths: &IssuedPaths) -> String {
    let identity = Identity::load(&paths.certificate, &paths.private_key).unwrap();
    identity.leaf().serial.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_without_a_restart_and_half_a_pair_is_not() {
    let harness = Harness::start().await;
    let node = harness.cluster.leader().await.unwrap();
    let pid = harness.cluster.node(node).unwrap().pid();
    let (used, before) = (harness.node_identity(node), shown(&harness, node).await);
    assert_eq!(before, serial(&used));
    let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let subject = Subject::Node { id: NodeId::new(node), hosts };
    let out = harness.cluster.dir().join("renewed");
    let renewed = harness.cluster.pki().issue(&subject, 7, &out, SystemClock.now()).unwrap();

    // The key of this certificate is not there yet.
    std::fs::copy(&renewed.certificate, &used.certificate).unwrap();
    harness.metric_is(node, FAILED, 1.0).await;
    harness.says(node, "those that were read before stay in use").await;
    assert_eq!(shown(&harness, node).await, before);

    std::fs::copy(&renewed.private_key, &used.private_key).unwrap();
    harness.signal(node, Signal::HUP);
    harness.metric_is(node, FAILED, 0.0).await;
    assert_eq!(shown(&harness, node).await, serial(&renewed));
    let week = 7.0 * 86_400.0;
    let left = harness.metric(node, UNTIL).await - SystemClock.now().as_millis() as f64 / 1000.0;
    assert!(left > week - 3600.0 && left < week + 3600.0, "{left}");

    // It still leads or follows, and its receipts are signed with the new key: the client verifies them.
    let agent = harness.client_of_node(node, &harness.agent);
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    // So are its checkpoints.
    let auditor = harness.client_of_node(node, &harness.auditor);
    let checkpoint = auditor.audit_head(true).await.unwrap().checkpoint.unwrap();
    assert_eq!(Leaf::read(&checkpoint.signer_chain[0]).unwrap().serial, serial(&renewed));
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    assert_eq!(harness.cluster.node(node).unwrap().pid(), pid);
}
