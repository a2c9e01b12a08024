//! `cluster status` tells a healthy cluster from one that lacks members or a leader, by its exit code as well.

use holdfast::cli::local_cluster::wait_for;

use crate::harness::{Harness, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_of_status_tells_health_missing_members_and_no_leader_apart() {
    let mut harness = Harness::start().await;
    let status = ["cluster", "status", "-o", "json"];
    let healthy = harness.run(&harness.administrator, &status).await.ends_with(0).json();
    let members = healthy["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member["reachable"] == true), "{healthy}");

    harness.cluster.kill_node(3).await.unwrap();
    harness.cluster.leader().await.unwrap();
    let partial = wait_for("a leader among the two that are left", LIMIT, || async {
        let ran = harness.run(&harness.administrator, &status).await;
        let json = ran.json();
        if json["leader_id"] == 3 || json["leader_id"] == 0 { Err(ran.stdout()) } else { Ok(ran) }
    })
    .await
    .unwrap()
    .ends_with(7);
    assert!(partial.stderr().contains("node 3"), "{}", partial.stderr());
    let members = partial.json();
    let dead = members["members"].as_array().unwrap().iter().find(|m| m["node_id"] == 3).unwrap();
    assert_eq!(dead["reachable"], false);
    assert!(!dead["error"].as_str().unwrap().is_empty());
    assert!(dead["term"].is_null() && dead["unsealed"].is_null(), "nothing is known of it: {dead}");

    harness.cluster.kill_node(2).await.unwrap();
    let lost = wait_for("there is no majority", LIMIT, || async {
        let ran = harness.run(&harness.administrator, &status).await;
        if ran.json()["quorum"] == false { Ok(ran) } else { Err(ran.stdout()) }
    })
    .await
    .unwrap()
    .ends_with(3);
    assert_eq!(lost.json()["members"].as_array().unwrap().len(), 3, "all are listed all the same");
    assert!(lost.stderr().contains("no majority of the voters answers"), "{}", lost.stderr());
    // Without a majority nothing is written, and nothing is disclosed; it is not the caller's fault.
    harness
        .run(&harness.help_desk, &["key", "find", "00000000", "--timeout", "2"])
        .await
        .ends_with(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_says_at_once_that_nobody_has_made_the_cluster() {
    let harness = Harness::not_initialised().await;
    for args in [&["cluster", "status"][..], &["grant", "list"]] {
        let started = std::time::Instant::now();
        let ran = harness.run(&harness.administrator, &[args, &["--timeout", "60"]].concat()).await;
        let ran = ran.ends_with(6);
        assert!(ran.stderr().contains("holdfast cluster init"), "{}", ran.stderr());
        assert!(started.elapsed() < LIMIT / 2, "it waited {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_the_cluster_for_another_administrator_is_told_so() {
    let harness = Harness::not_initialised().await;
    let pki = harness.cluster.dir().join("pki").display().to_string();
    let mut args = vec!["cluster", "init", "--pki", &pki, "--admin", "zoe"];
    let nodes: Vec<_> = (1..=3).map(|id| harness.cluster.spec(id).unwrap()).collect();
    let written = |node: &holdfast_proto::v1::NodeSpec| {
        format!("{}={},{}", node.node_id, node.client_address, node.peer_address)
    };
    let nodes: Vec<String> = nodes.iter().map(written).collect();
    args.extend(nodes.iter().flat_map(|node| ["--node", node.as_str()]));
    let made = harness.run(&harness.administrator, &args).await.ends_with(0);
    let said = made.stderr();
    assert!(said.contains("zoe is the administrator") && said.contains("admin,"), "{said}");
}
