//! Changing who is in the cluster.

use holdfast::cli::local_cluster::wait_for;
use holdfast::domain::NodeId;
use secrecy::ExposeSecret as _;

use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_replaced_under_a_new_id_and_leadership_is_handed_on() {
    let mut harness = Harness::start().await;
    let (escrow, key) = (new_escrow(harness.device), new_key());
    harness.client(&harness.agent).escrow(&escrow, &key, None).await.unwrap();
    harness.cluster.kill_node(3).await.unwrap();
    harness.cluster.leader().await.unwrap();
    harness.cluster.add_node(4).unwrap();
    harness.cluster.start_node(4).await.unwrap();
    let spec = harness.cluster.spec(4).unwrap();
    let node = format!("4={},{}", spec.client_address, spec.peer_address);
    // A mistyped id is refused before anything is changed.
    let mistyped = harness.run(&harness.administrator, &["cluster", "replace", "7", &node]).await;
    let said = mistyped.ends_with(4).stderr();
    assert!(said.contains("node 7 is no member") && said.contains("nothing was changed"), "{said}");
    let status = harness.client(&harness.administrator).status(true).await.unwrap();
    assert_eq!(status.members.len(), 3, "node 4 was not added");
    let replace = ["cluster", "replace", "3", &node];
    let replaced = harness.run(&harness.administrator, &replace).await.ends_with(0);
    assert!(replaced.stdout().contains("taken the place"), "{}", replaced.stdout());
    // Asked for again by somebody who does not know that it is done.
    let again = harness.run(&harness.administrator, &replace).await.ends_with(0);
    assert!(again.stdout().contains("nothing to do"), "{}", again.stdout());
    assert_eq!(again.stderr(), "");

    let status = harness.cluster.wait_healthy(LIMIT).await.unwrap();
    let mut voters: Vec<_> = status.members.iter().filter(|member| member.voter).collect();
    voters.sort_by_key(|member| member.node.as_ref().map(|node| node.node_id));
    let ids: Vec<_> = voters.iter().filter_map(|m| m.node.as_ref()).map(|n| n.node_id).collect();
    assert_eq!(ids, [1, 2, 4]);
    harness.cluster.wait_caught_up(4, LIMIT).await.unwrap();
    the_old_id_is_never_given_again(&mut harness).await;

    let administrator = harness.client(&harness.administrator);
    let to = if status.leader_id == 4 { 1 } else { 4 };
    let leader = administrator.transfer_leadership(Some(NodeId::new(to))).await.unwrap();
    assert_eq!(leader.get(), to);
    // The new server has everything, and opens keys.
    let helen = harness.client_of_node(4, &harness.help_desk);
    let disclosed = helen.disclose(&disclosure(escrow.protector)).await.unwrap();
    assert_eq!(disclosed.recovery_key.expose_secret(), key.expose_secret());
}

/// Waits until a server that can't serve says why.
async fn until_not_ready(harness: &Harness, node: u64, why: &str) {
    wait_for(&format!("node {node} says {why:?}"), LIMIT, || async {
        let (status, body) = harness.page(node, "/readyz").await;
        if status == 503 && body.contains(why) { Ok(()) } else { Err(body) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_data_is_gone_says_that_it_must_be_replaced() {
    let mut harness = Harness::start().await;
    let emptied = harness.cluster.leader().await.unwrap() % 3 + 1;
    harness.cluster.kill_node(emptied).await.unwrap();
    std::fs::remove_dir_all(harness.cluster.node(emptied).unwrap().data_dir()).unwrap();
    harness.cluster.start_node(emptied).await.unwrap();
    // Not that it is in no cluster yet: somebody might make a new one of it.
    until_not_ready(&harness, emptied, "must be replaced under a new id").await;
    // The others call it many times a second.
    let load = Load::start(&harness.client(&harness.agent), harness.device, 2);
    load.more(20).await;
    let log = harness.log(emptied);
    let said = log.lines().filter(|line| line.contains("a call on the peer port is refused"));
    assert!((1..=2).contains(&said.count()), "once for each caller:\n{log}");
}

/// Node 3 comes back with an empty data directory, as after a lost disk, and asks for its old id.
async fn the_old_id_is_never_given_again(harness: &mut Harness) {
    let spec = harness.cluster.spec(3).unwrap();
    harness.cluster.start_node(3).await.unwrap();
    until_not_ready(harness, 3, "node 3 was removed from the cluster").await;
    // What it remembers of the cluster is old, so a client goes on to a server that knows.
    let ca = harness.cluster.client_ca();
    let hasty = harness.hasty(&spec.client_address, &ca, &harness.administrator);
    wait_for("node 3 tells no status", LIMIT, || async {
        match hasty.status(true).await {
            Err(error) if error.to_string().contains("node 3 was removed from the cluster") => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    harness.cluster.kill_node(3).await.unwrap();
    let data = harness.cluster.node(3).unwrap().data_dir();
    std::fs::remove_dir_all(&data).unwrap();
    harness.cluster.start_node(3).await.unwrap();
    let node = format!("3={},{}", spec.client_address, spec.peer_address);
    for args in [&["cluster", "add-node", &node][..], &["cluster", "replace", "2", &node]] {
        let refused = harness.run(&harness.administrator, args).await.ends_with(6);
        assert!(refused.stderr().contains("node id 3"), "{}", refused.stderr());
        assert!(refused.stderr().contains("never used"), "{}", refused.stderr());
    }
    harness.cluster.kill_node(3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_may_be_removed_and_each_change_may_be_asked_for_again() {
    let mut harness = Harness::start().await;
    harness.cluster.add_node(4).unwrap();
    harness.cluster.start_node(4).await.unwrap();
    let spec = harness.cluster.spec(4).unwrap();
    let administrator = harness.client(&harness.administrator);
    // Each as after an answer that was lost: the call is made anew, by somebody who does not know.
    for _ in 0..2 {
        administrator.add_learner(spec.clone()).await.unwrap();
    }
    for _ in 0..2 {
        administrator.promote(NodeId::new(4)).await.unwrap();
    }
    let leader = harness.cluster.leader().await.unwrap();
    let leads = administrator.transfer_leadership(Some(NodeId::new(leader))).await.unwrap();
    assert_eq!(leads.get(), leader, "it leads already");
    for _ in 0..2 {
        administrator.remove_node(NodeId::new(leader)).await.unwrap();
    }
    let refused = administrator.remove_node(NodeId::new(9)).await.unwrap_err();
    assert!(refused.to_string().contains("no member"), "{refused}");
    harness
        .client(&harness.agent)
        .escrow(&new_escrow(harness.device), &new_key(), None)
        .await
        .unwrap();
    harness.cluster.kill_node(leader).await.unwrap();
    let status = harness.cluster.wait_healthy(LIMIT).await.unwrap();
    assert_ne!(status.leader_id, leader);
    let mut voters: Vec<_> =
        status.members.iter().filter_map(|m| m.node.as_ref()).map(|node| node.node_id).collect();
    voters.sort_unstable();
    assert_eq!(voters, (1..=4).filter(|id| *id != leader).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_would_leave_no_majority_is_refused_and_writes_go_on() {
    let mut harness = Harness::start().await;
    let administrator = harness.client(&harness.administrator);
    let agent = harness.client(&harness.agent);
    let leader = harness.cluster.leader().await.unwrap();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let (dead, alive) = (others[0], others[1]);
    harness.cluster.kill_node(dead).await.unwrap();
    // It is noticed within half a second that the server is gone.
    let refused = wait_for("it is noticed", LIMIT, || async {
        let error = administrator.transfer_leadership(Some(NodeId::new(dead))).await.unwrap_err();
        if error.to_string().contains("does not answer") {
            Ok(error)
        } else {
            Err(error.to_string())
        }
    })
    .await;
    refused.unwrap();
    let refused = administrator.remove_node(NodeId::new(alive)).await.unwrap_err();
    assert!(refused.to_string().contains("no majority"), "{refused}");
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    administrator.remove_node(NodeId::new(dead)).await.unwrap();
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
}
