//! I9: a full disk refuses writes, goes on with reads and votes, ends nothing, and recovers by itself.

use std::time::Duration;

use holdfast::cli::local_cluster::wait_for;
use holdfast::client::{ClientError, ErrorKind, KeyQuery};
use holdfast::domain::NodeId;
use holdfast_proto::v1;

use crate::disk::Mount;
use crate::harness::{Harness, LIMIT, new_escrow, new_key};
use crate::load::Load;
use crate::require;

const LOW: &str = "holdfast_disk_low";

/// Three servers on small disks of their own.
async fn on_small_disks() -> Harness {
    let storage = toml::toml! {
        [storage]
        overlay_age_ms = 200
    };
    Harness::start_mounted(storage, |cluster| Mount::tmpfs_each(cluster, 48)).await
}

fn disk(harness: &Harness, node: u64) -> &Mount {
    &harness.mounts[usize::try_from(node).unwrap() - 1]
}

/// Fills a node's disk, and waits until the node has seen that.
async fn fill(harness: &Harness, node: u64) {
    disk(harness, node).fill();
    harness.metric_is(node, LOW, 1.0).await;
}

async fn free(harness: &Harness, node: u64) {
    disk(harness, node).free();
    harness.metric_is(node, LOW, 0.0).await;
}

/// An escrow with one node only is refused, with the reason.
async fn refuses(harness: &Harness, node: u64) {
    let address = harness.cluster.node(node).unwrap().ports().client_address();
    let client = harness.hasty(&address, &harness.cluster.client_ca(), &harness.agent);
    let error = client.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap_err();
    refused(&error);
}

/// The client went on asking until its time was up, and says what it heard last.
fn refused(error: &ClientError) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("[DISK_LOW]"), "{error}");
}

async fn has_caught_up(harness: &mut Harness, node: u64) {
    harness.cluster.wait_caught_up(node, LIMIT).await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
}

async fn member(harness: &Harness, node: u64) -> v1::MemberStatus {
    let administrator = harness.client(&harness.administrator);
    let status = administrator.status(true).await.unwrap();
    let of = |member: &v1::MemberStatus| member.node.as_ref().map(|node| node.node_id);
    status.members.into_iter().find(|member| of(member) == Some(node)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_a_follower_with_a_full_disk_refuses_entries_votes_all_the_same_and_catches_up() {
    if !require::root() {
        return;
    }
    let mut harness = on_small_disks().await;
    let agent = harness.client(&harness.agent);
    let load = Load::start(&agent, harness.device, 3);
    load.more(20).await;
    let leader = harness.cluster.leader().await.unwrap();
    let (full, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    fill(&harness, full).await;
    refuses(&harness, full).await;
    // The other two go on; the full one takes none of it, and still follows.
    let before = member(&harness, full).await;
    assert!(before.disk_low && before.reachable, "{before:?}");
    load.more(50).await;
    let after = member(&harness, full).await;
    let ahead = member(&harness, leader).await;
    assert_eq!((after.last_log_index, after.term), (before.last_log_index, ahead.term));
    assert!(ahead.last_log_index >= after.last_log_index + 50, "{ahead:?} {after:?}");
    // What it has, it still shows.
    let rita = harness.client_of_node(full, &harness.reader);
    assert!(rita.device(harness.device, true).await.unwrap().device.is_some());

    // Its vote is needed now, and given.
    harness.cluster.kill_node(leader).await.unwrap();
    wait_for("the other one leads by the vote of the full one", LIMIT, || async {
        let now = harness.cluster.leader().await.map_err(|error| error.to_string())?;
        if now == other { Ok(()) } else { Err(now.to_string()) }
    })
    .await
    .unwrap();
    harness.cluster.start_node(leader).await.unwrap();
    load.more(20).await;

    free(&harness, full).await;
    let written = load.stop();
    has_caught_up(&mut harness, full).await;
    written.all_are_there(&harness.client_of_node(full, &harness.agent)).await;
    harness.cluster.stop().await.unwrap();
}

async fn hands_over(harness: &Harness, leader: u64) {
    wait_for("leadership is handed over", Duration::from_secs(10), || async {
        let now = harness.cluster.leader().await.map_err(|error| error.to_string())?;
        if now == leader { Err(now.to_string()) } else { Ok(()) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_a_leader_with_a_full_disk_hands_over_and_writes_go_on() {
    if !require::root() {
        return;
    }
    let mut harness = on_small_disks().await;
    let agent = harness.client(&harness.agent);
    let load = Load::start(&agent, harness.device, 3);
    load.more(20).await;
    let leader = harness.cluster.leader().await.unwrap();
    fill(&harness, leader).await;
    hands_over(&harness, leader).await;
    load.more(30).await;
    harness.cluster.check_running().unwrap();
    free(&harness, leader).await;
    let written = load.stop();
    has_caught_up(&mut harness, leader).await;
    written.all_are_there(&agent).await;
    harness.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_a_disk_that_fills_up_all_at_once_while_much_is_written_ends_nothing() {
    if !require::root() {
        return;
    }
    let mut harness = on_small_disks().await;
    let agent = harness.client(&harness.agent);
    let load = Load::with_package(&agent, harness.device, 6, 6 * 1024);
    load.more(60).await;
    for round in 0..3 {
        let leader = harness.cluster.leader().await.unwrap();
        let full = (leader + round) % 3 + 1;
        fill(&harness, full).await;
        harness.cluster.check_running().unwrap();
        free(&harness, full).await;
        load.more(60).await;
    }
    let written = load.stop();
    for node in [1, 2, 3] {
        has_caught_up(&mut harness, node).await;
    }
    written.all_are_there(&agent).await;
    harness.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_a_new_server_gets_no_vote_before_its_disk_has_taken_anything() {
    if !require::root() {
        return;
    }
    let mut harness = on_small_disks().await;
    harness.cluster.add_node(4).unwrap();
    let data = harness.cluster.node(4).unwrap().data_dir();
    harness.mounts.push(Mount::tmpfs(data, 48));
    harness.cluster.start_node(4).await.unwrap();
    // Room for its first vote, and for nothing in the log.
    disk(&harness, 4).fill_all_but(64 << 10);
    harness.metric_is(4, LOW, 1.0).await;
    let spec = harness.cluster.spec(4).unwrap();
    let administrator = harness.client(&harness.administrator);
    administrator.add_learner(spec).await.unwrap();
    // The log is short: by the number of entries that it lacks alone it would pass.
    let error = administrator.promote(NodeId::new(4)).await.unwrap_err();
    assert!(error.to_string().contains("has not taken in anything yet"), "{error}");
    assert!(!member(&harness, 4).await.voter);

    free(&harness, 4).await;
    has_caught_up(&mut harness, 4).await;
    administrator.promote(NodeId::new(4)).await.unwrap();
    assert!(member(&harness, 4).await.voter);
    harness.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_with_all_disks_full_writes_are_refused_reads_go_on_and_room_heals_it() {
    if !require::root() {
        return;
    }
    let mut harness = on_small_disks().await;
    let agent = harness.client(&harness.agent);
    let load = Load::start(&agent, harness.device, 2);
    load.more(20).await;
    let written = load.stop();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    // The leader first: the next one has to find out what it has, by entries that it can't take.
    let leader = harness.cluster.leader().await.unwrap();
    fill(&harness, leader).await;
    hands_over(&harness, leader).await;
    for node in [1, 2, 3] {
        disk(&harness, node).fill();
    }
    for node in [1, 2, 3] {
        harness.metric_is(node, LOW, 1.0).await;
        refuses(&harness, node).await;
    }
    // A search writes an audit record: without one there is no answer.
    let all = harness.cluster.endpoints();
    let helen = harness.hasty(&all, &harness.cluster.client_ca(), &harness.help_desk);
    refused(&helen.find_keys(KeyQuery::Device(harness.device)).await.unwrap_err());
    // Linearizable reads that write nothing are answered by all, and nobody hands leadership round in circles.
    let term = member(&harness, 1).await.term;
    for _ in 0..20 {
        for node in [1, 2, 3] {
            let rita = harness.client_of_node(node, &harness.reader);
            assert!(rita.device(harness.device, false).await.unwrap().device.is_some());
        }
    }
    assert_eq!(member(&harness, 1).await.term, term);
    harness.cluster.check_running().unwrap();

    for node in [1, 2, 3] {
        free(&harness, node).await;
    }
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    written.all_are_there(&agent).await;
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop().await.unwrap();
}
