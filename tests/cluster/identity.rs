//! Certificates: whoever has the wrong one, or none of the right kind, gets nowhere.

use holdfast::cli::local_cluster::wait_for;
use holdfast::cli::pki::{CaKind, Pki, Subject};
use holdfast::client::{ErrorKind, KeyQuery};
use holdfast::clock::{Clock as _, SystemClock};
use holdfast::domain::{DeviceId, KeyIdPrefix, NodeId, Timestamp};
use secrecy::ExposeSecret as _;
use tokio::process::Command;
use uuid::Uuid;

use crate::harness::{
    Harness, LIMIT, binary, disclosure, new_escrow, new_key, operator, write_file,
};

const ANY: KeyQuery = KeyQuery::Prefix(KeyIdPrefix::from_bytes([0; 4]));

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_the_wrong_kind_authority_or_time_are_refused() {
    let harness = Harness::start().await;
    let ca = harness.cluster.client_ca();
    let endpoints = harness.cluster.endpoints();
    let peer_port = harness.cluster.node(1).unwrap().ports().peer_address();
    let out = harness.cluster.dir().join("others");
    let now = SystemClock.now();

    // An agent or an operator at the peer port, and a node at the client port.
    for who in [&harness.agent, &harness.administrator] {
        let refused = harness.hasty(&peer_port, &ca, who).find_keys(ANY).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    }
    let node = harness.node_identity(2);
    let refused = harness.hasty(&endpoints, &ca, &node).find_keys(ANY).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    // A node's certificate does get through to the peer port, where there is no such service.
    let answered = harness.hasty(&peer_port, &ca, &node).find_keys(ANY).await.unwrap_err();
    assert_eq!(answered.kind(), ErrorKind::Internal, "{answered}");

    // A server that refuses the certificate, or is not to be trusted, does not keep a client from the next one.
    let second = harness.cluster.node(2).unwrap().ports().client_address();
    let helped = harness.hasty(&format!("{peer_port},{second}"), &ca, &harness.help_desk);
    helped.find_keys(ANY).await.unwrap();

    // A foreign authority that claims the same cluster and the same name.
    let cluster = harness.cluster.pki().cluster();
    let foreign = Pki::init(&harness.cluster.dir().join("foreign"), cluster, now).unwrap();
    let helen = Subject::Operator(operator("helen"));
    let forged = foreign.issue(&helen, 1, &out.join("forged"), now).unwrap();
    let refused = harness.hasty(&endpoints, &ca, &forged).find_keys(ANY).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    // Nor does the client talk to servers that its own authority does not vouch for.
    let pinned = foreign.ca_path(CaKind::Node);
    let untrusted = harness.hasty(&endpoints, &pinned, &harness.help_desk);
    let untrusted = untrusted.find_keys(ANY).await.unwrap_err();
    assert_eq!(untrusted.kind(), ErrorKind::Integrity, "{untrusted}");

    // An expired certificate of the right authority.
    let past = Timestamp::from_millis(now.as_millis() - 3 * 86_400_000);
    let old = harness.cluster.pki().issue(&helen, 1, &out.join("old"), past).unwrap();
    let refused = harness.hasty(&endpoints, &ca, &old).find_keys(ANY).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");

    // A valid operator without a grant, and an agent who asks for keys.
    let nobody = harness.cluster.operator(&operator("nobody")).unwrap();
    for who in [&nobody, &harness.agent] {
        let denied = harness.client(who).find_keys(ANY).await.unwrap_err();
        assert_eq!(denied.kind(), ErrorKind::Denied, "{denied}");
        assert!(!denied.reason().is_empty());
    }
    // A device writes its own keys only.
    let stranger = harness.cluster.agent(DeviceId::new(Uuid::new_v4())).unwrap();
    let escrow = new_escrow(harness.device);
    let denied = harness.client(&stranger).escrow(&escrow, &new_key(), None).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_wrong_root_key_or_a_foreign_certificate_opens_nothing() {
    let mut harness = Harness::start().await;
    let (escrow, key) = (new_escrow(harness.device), new_key());
    harness.client(&harness.agent).escrow(&escrow, &key, None).await.unwrap();
    harness.cluster.stop_node(3).await.unwrap();
    let config = harness.cluster.node(3).unwrap().config_path();
    let right = std::fs::read_to_string(&config).unwrap();

    // Another node's certificate: the server does not start, and says why.
    let run = Command::new(binary())
        .args(["server", "--config"])
        .arg(&config)
        .arg("--tls-cert")
        .arg(harness.node_identity(2).certificate)
        .arg("--tls-key")
        .arg(harness.node_identity(2).private_key)
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(LIMIT, run).await.unwrap().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(said.contains("node/2") && said.contains("node/3"), "{said}");

    // Another root key: it takes part, but opens nothing, and says that it is sealed.
    let other = harness.cluster.dir().join("other.key");
    holdfast::cli::pki::write_root_key(&other).unwrap();
    let root_key = harness.cluster.dir().join("root.key");
    let wrong = right.replace(&root_key.display().to_string(), &other.display().to_string());
    assert_ne!(wrong, right);
    write_file(&config, wrong.as_bytes());
    harness.cluster.start_node(3).await.unwrap();
    let helen = harness.hasty(
        &harness.cluster.node(3).unwrap().ports().client_address(),
        &harness.cluster.client_ca(),
        &harness.help_desk,
    );
    let refused = helen.disclose(&disclosure(escrow.protector)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    let sealed = wait_for("all answer, one of them sealed", LIMIT, || async {
        let ran = harness.run(&harness.administrator, &["cluster", "status"]).await;
        if ran.stderr().contains("does not answer") { Err(ran.stderr()) } else { Ok(ran) }
    });
    let sealed = sealed.await.unwrap().ends_with(7);
    assert!(sealed.stderr().contains("node 3 is sealed"), "{}", sealed.stderr());
    assert!(!sealed.stderr().contains("node 1"), "{}", sealed.stderr());
    let disclosed =
        harness.client(&harness.help_desk).disclose(&disclosure(escrow.protector)).await;
    assert_eq!(disclosed.unwrap().recovery_key.expose_secret(), key.expose_secret());

    // With the right one again, all is well.
    harness.cluster.stop_node(3).await.unwrap();
    write_file(&config, right.as_bytes());
    harness.cluster.start_node(3).await.unwrap();
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
    let helen = harness.client_of_node(3, &harness.help_desk);
    helen.disclose(&disclosure(escrow.protector)).await.unwrap();
    assert_eq!(harness.cluster.node(3).unwrap().id(), NodeId::new(3).get());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_in_use_or_of_another_node_is_refused() {
    let mut harness = Harness::start().await;
    let start = async |config: &std::path::Path, data: &std::path::Path| {
        let run = Command::new(binary())
            .args(["server", "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(data)
            .args(["--client-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"])
            .args(["--http-listen", "127.0.0.1:0", "--client-address", "127.0.0.1:1"])
            .args(["--peer-address", "127.0.0.1:2"])
            .kill_on_drop(true)
            .output();
        let ran = tokio::time::timeout(LIMIT, run).await.unwrap().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let config = |id: u64| harness.cluster.node(id).unwrap().config_path();
    let data = |id: u64| harness.cluster.node(id).unwrap().data_dir();
    let (code, said) = start(&config(1), &data(1)).await;
    assert_eq!(code, Some(1), "in use: {said}");
    let (two, three) = (data(2), config(3));
    harness.cluster.stop_node(2).await.unwrap();
    let (code, said) = start(&three, &two).await;
    assert_eq!(code, Some(1), "another node's: {said}");
    harness.cluster.start_node(2).await.unwrap();
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
}
