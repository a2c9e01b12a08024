//! The root key in shares, and the seal, from outside: over restarts, on all servers, and with one that was away.

use holdfast::cli::local_cluster::{LocalCluster, wait_for};
use serde_json::Value;

use crate::harness::{Harness, LIMIT, Ran, new_escrow, new_key, operator};
use holdfast::client::ErrorKind;
use holdfast::domain::{ProtectorId, Role};

/// Takes the root key file out of the servers' configuration.
fn without_key_file(cluster: &LocalCluster) {
    for node in cluster.nodes() {
        let path = node.config_path();
        let mut config: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        config.remove("auto_unseal_key_file").unwrap();
        crate::harness::write_file(&path, config.to_string().as_bytes());
    }
}

/// A cluster of three that `operator init` made, with three of five shares in files.
async fn made_with_shares() -> (Harness, Vec<String>) {
    let mut harness = Harness::not_started();
    without_key_file(&harness.cluster);
    harness.cluster.start_nodes().await.unwrap();
    let dir = harness.cluster.dir().join("shares");
    let (dir, pki) = (dir.display().to_string(), harness.cluster.dir().join("pki"));
    let mut args: Vec<String> =
        ["operator", "init", "--admin", "admin", "-o", "json"].map(str::to_owned).into();
    args.extend(["--pki".to_owned(), pki.display().to_string()]);
    args.extend(["--key-shares", "5", "--key-threshold", "3", "--share-dir"].map(str::to_owned));
    args.push(dir);
    for node in harness.cluster.nodes() {
        let (id, ports) = (node.id(), node.ports());
        args.push("--node".to_owned());
        args.push(format!("{id}={},{}", ports.client_address(), ports.peer_address()));
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let made = harness.run(&harness.administrator, &args).await.ends_with(0).json();
    assert_eq!(made["threshold"], 3);
    let files = made["share_files"].as_array().unwrap().iter();
    let files: Vec<_> = files.map(|file| file.as_str().unwrap().to_owned()).collect();
    assert_eq!(files.len(), 5);
    let cluster = &harness.cluster;
    cluster.grant(&operator("helen"), &[Role::HelpDesk]).await.unwrap();
    cluster.grant(&operator("arthur"), &[Role::Auditor]).await.unwrap();
    (harness, files)
}

async fn status(harness: &Harness) -> Value {
    harness.run(&harness.administrator, &["operator", "status", "-o", "json"]).await.json()
}

/// Waits until so many servers can open keys.
async fn unsealed(harness: &Harness, wanted: usize) {
    wait_for(&format!("{wanted} servers are unsealed"), LIMIT, || async {
        let status = status(harness).await;
        let nodes = status["nodes"].as_array().unwrap();
        let found = nodes.iter().filter(|node| node["unsealed"] == true).count();
        if found == wanted { Ok(()) } else { Err(status.to_string()) }
    })
    .await
    .unwrap();
}

async fn give(harness: &Harness, file: &str) -> Ran {
    // A share is anybody's who has one and a role.
    let args = ["operator", "unseal", "--share-file", file, "-o", "json"];
    harness.run(&harness.auditor, &args).await
}

async fn escrowed(harness: &Harness) -> ProtectorId {
    let escrow = new_escrow(harness.device);
    let agent = harness.client(&harness.agent);
    agent.escrow(&escrow, &new_key(), None).await.unwrap();
    escrow.protector
}

async fn disclose(harness: &Harness, protector: ProtectorId) -> Ran {
    let protector = protector.to_string();
    let args = ["key", "disclose", &protector, "--reason", "LOST_PIN", "--user", "alice"];
    harness.run(&harness.help_desk, &args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_without_the_root_key_take_keys_and_disclose_them_once_three_of_five_shares_are_given()
 {
    let (mut harness, files) = made_with_shares().await;
    unsealed(&harness, 1).await;
    harness.cluster.stop().await.unwrap();
    harness.cluster.start_nodes().await.unwrap();
    let protector = escrowed(&harness).await;
    unsealed(&harness, 0).await;
    let refused = disclose(&harness, protector).await.ends_with(3);
    let said = refused.stderr();
    assert!(said.contains("SEALED") && said.contains("operator unseal"), "{said}");

    let first = give(&harness, &files[1]).await.ends_with(0).json();
    for node in first["nodes"].as_array().unwrap() {
        assert_eq!((&node["shares_given"], &node["unsealed"]), (&1.into(), &false.into()));
    }
    let repeated = give(&harness, &files[1]).await.ends_with(2);
    assert!(repeated.stderr().contains("share 2 was given already"), "{}", repeated.stderr());
    let text = std::fs::read_to_string(&files[2]).unwrap();
    let digit = if text.ends_with("0\n") { "1\n" } else { "0\n" };
    let typed = format!("{}{digit}", &text[..text.len() - 2]);
    let input = ["operator", "unseal", "--share-file", "-"];
    let mistyped = harness.run_with_input(&harness.auditor, &input, &typed).await.ends_with(2);
    assert!(mistyped.stderr().contains("checksum"), "{}", mistyped.stderr());

    give(&harness, &files[4]).await.ends_with(0);
    let sealed = status(&harness).await;
    assert_eq!(sealed["nodes"][2]["shares_given"], 2, "{sealed}");
    let last = give(&harness, &files[0]).await.ends_with(0).json();
    assert!(last["nodes"].as_array().unwrap().iter().all(|node| node["unsealed"] == true));
    unsealed(&harness, 3).await;
    disclose(&harness, protector).await.ends_with(0);

    let records = ["audit", "list", "--action", "unseal", "-o", "json"];
    let records = harness.run(&harness.auditor, &records).await.ends_with(0);
    assert_eq!(records.stdout().matches("by shares 1, 2, 5").count(), 3, "{}", records.stdout());
    for node in 1..=3 {
        let log = harness.log(node);
        for file in &files {
            let share = std::fs::read_to_string(file).unwrap();
            let value = share[18..].split('-').nth(8).unwrap();
            assert!(!log.contains(value), "a share is in the log of node {node}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_holds_on_a_server_that_was_away_and_until_an_operator_ends_it() {
    let mut harness = Harness::start().await;
    let protector = escrowed(&harness).await;
    disclose(&harness, protector).await.ends_with(0);
    let away = harness.cluster.leader().await.unwrap();
    harness.cluster.kill_node(away).await.unwrap();
    wait_for("a new leader seals the cluster", LIMIT, || async {
        let args = ["operator", "seal", "--reason", "incident 7"];
        let ran = harness.run(&harness.administrator, &args).await;
        if ran.code() == 0 { Ok(()) } else { Err(ran.stderr()) }
    })
    .await
    .unwrap();
    let refused = disclose(&harness, protector).await.ends_with(6);
    assert!(refused.stderr().contains("CLUSTER_SEALED"), "{}", refused.stderr());
    harness.cluster.start_node(away).await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    // It has the root key file, and had it at the start.
    harness.says(away, "an operator sealed the cluster").await;
    unsealed(&harness, 0).await;
    let alone = harness.client_of_node(away, &harness.help_desk);
    let refused = alone.disclose(&crate::harness::disclosure(protector)).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.reason()),
        (ErrorKind::Conflict, "CLUSTER_SEALED"),
        "{refused}"
    );
    let second = escrowed(&harness).await;

    harness.cluster.stop().await.unwrap();
    harness.cluster.start_nodes().await.unwrap();
    let sealed = wait_for("the cluster answers again", LIMIT, || async {
        let sealed = status(&harness).await;
        let known = sealed["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().all(|node| node["unsealed"] == false));
        if known { Ok(sealed) } else { Err(sealed.to_string()) }
    });
    let sealed = sealed.await.unwrap();
    assert_eq!(
        (&sealed["cluster_sealed"], &sealed["reason"]),
        (&true.into(), &"incident 7".into())
    );
    assert_eq!(sealed["sealed_by"], "operator/admin");
    let refused =
        harness.run(&harness.help_desk, &["operator", "unseal", "--auto"]).await.ends_with(5);
    assert!(refused.stderr().contains("ROLE_MISSING"), "{}", refused.stderr());
    harness.run(&harness.administrator, &["operator", "unseal", "--auto"]).await.ends_with(0);
    unsealed(&harness, 3).await;
    disclose(&harness, second).await.ends_with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rekey_old_shares_are_named_as_such_and_new_ones_unseal_the_restarted_servers() {
    let (mut harness, old) = made_with_shares().await;
    let protector = escrowed(&harness).await;
    let dir = harness.cluster.dir().join("new-shares").display().to_string();
    let rekey = ["operator", "rekey", "--key-shares", "2", "--key-threshold", "2", "-o", "json"];
    let rekey: Vec<&str> = rekey.into_iter().chain(["--share-dir", &dir]).collect();
    let made = harness.run(&harness.administrator, &rekey).await.ends_with(0).json();
    assert_eq!((&made["changed"], &made["threshold"]), (&true.into(), &2.into()));
    let new: Vec<_> = made["share_files"].as_array().unwrap().iter().collect();
    disclose(&harness, protector).await.ends_with(0);
    let after = status(&harness).await;
    let open: Vec<_> = after["nodes"].as_array().unwrap().iter().map(|n| &n["unsealed"]).collect();
    assert_eq!(open.iter().filter(|open| **open == true).count(), 1, "{after}");

    harness.cluster.stop().await.unwrap();
    harness.cluster.start_nodes().await.unwrap();
    let stale = wait_for("the servers answer again", LIMIT, || async {
        let ran = give(&harness, &old[0]).await;
        if ran.stderr().contains("set") { Ok(ran) } else { Err(ran.stderr()) }
    });
    let stale = stale.await.unwrap().ends_with(2);
    assert!(stale.stderr().contains("the root key was split anew"), "{}", stale.stderr());
    for file in new {
        give(&harness, file.as_str().unwrap()).await.ends_with(0);
    }
    unsealed(&harness, 3).await;
    disclose(&harness, protector).await.ends_with(0);
}
