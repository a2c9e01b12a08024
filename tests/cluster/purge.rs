//! The log gives way to snapshots: old segments go, and who was away too long gets the state as a file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast::cli::local_cluster::wait_for;
use holdfast::client::Client;

use crate::harness::{Harness, LIMIT, write_file};
use crate::load::{Load, Written};

/// Bytes of a key package: nearly the largest, so that little work fills the log.
const PACKAGE: usize = 60 * 1024;
/// Escrows of a burst: somewhat more than two segments of the log, the one in use and the reserve.
const BURST: usize = 160;
/// How long the servers get after a burst.
const PAUSE: Duration = Duration::from_secs(6);
const FIRST_SEGMENT: &str = "wal/0000000000000000.log";

/// Three servers that take a snapshot for each few megabytes of log, and keep few entries behind it.
async fn with_short_logs() -> Harness {
    let storage = toml::toml! {
        [storage]
        snapshot_floor_bytes = 2097152
        wal_keep_entries = 8
        overlay_age_ms = 200
    };
    Harness::start_with(storage).await
}

/// Escrows until these nodes have removed every segment that their log has now: who knows nothing later can't go on from
/// their logs. In bursts: a snapshot yields to writes, so on a busy machine a load without end would only make the state
/// larger that it has to read.
async fn until_removed(harness: &Harness, agent: &Client, nodes: &[u64]) -> Vec<Written> {
    let old: Vec<_> = nodes.iter().flat_map(|node| segments(&data(harness, *node))).collect();
    let begun = Instant::now();
    let mut written = Vec::new();
    loop {
        let load = Load::with_package(agent, harness.device, 4, PACKAGE);
        load.more(BURST).await;
        written.push(load.stop());
        let removed = wait_for("old segments are removed", PAUSE, || async {
            match old.iter().find(|path| path.exists()) {
                Some(path) => Err(format!("{} is there", path.display())),
                None => Ok(()),
            }
        });
        match removed.await {
            Ok(()) => return written,
            Err(error) => {
                assert!(begun.elapsed() < LIMIT, "{error} after {} bursts", written.len());
            }
        }
    }
}

fn data(harness: &Harness, node: u64) -> PathBuf {
    harness.cluster.node(node).unwrap().data_dir()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn segments(data: &Path) -> Vec<PathBuf> {
    files(&data.join("wal"))
}

/// Oldest first.
fn snapshots(data: &Path) -> Vec<PathBuf> {
    let mut files = files(&data.join("snapshots"));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "snap"));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_purged_segments_go_a_restart_finds_the_rest_and_who_was_away_gets_a_snapshot() {
    let mut harness = with_short_logs().await;
    let agent = harness.client(&harness.agent);
    let first = until_removed(&harness, &agent, &[1, 2, 3]).await;
    for node in [1, 2, 3] {
        let data = data(&harness, node);
        assert!(!data.join(FIRST_SEGMENT).exists());
        // Of the log since the last snapshot, what was written while that was taken, and the reserve. The others go one by
        // one.
        wait_for("few segments are left", LIMIT, || async {
            let left = segments(&data).len();
            if left <= 8 { Ok(()) } else { Err(format!("{left} segments")) }
        })
        .await
        .unwrap();
        assert!((1..=2).contains(&snapshots(&data).len()), "{:?}", snapshots(&data));
        harness.cluster.kill_node(node).await.unwrap();
    }
    harness.cluster.start().await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();

    // One is away for longer than the others keep their logs.
    let away = harness.cluster.leader().await.unwrap() % 3 + 1;
    let others: Vec<u64> = (1..=3).filter(|node| *node != away).collect();
    harness.cluster.stop_node(away).await.unwrap();
    let before = snapshots(&data(&harness, away));
    let second = until_removed(&harness, &agent, &others).await;
    harness.cluster.start_node(away).await.unwrap();
    harness.cluster.wait_caught_up(away, LIMIT).await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    let received = snapshots(&data(&harness, away)).last().cloned().unwrap();
    assert!(!before.contains(&received), "it came from another node");
    for written in first.into_iter().chain(second) {
        written.all_are_there(&harness.client_of_node(away, &harness.agent)).await;
    }
    harness.cluster.stop().await.unwrap();
}

/// Waits until a server has a snapshot besides these. It has the name of one of them if nothing was written after that: the bytes
/// tell them apart.
async fn until_fresh(harness: &Harness, node: u64, damaged: &[(PathBuf, Vec<u8>)]) {
    wait_for("there is a new snapshot", LIMIT, || async {
        let now = snapshots(&data(harness, node));
        let fresh = |file: &PathBuf| match std::fs::read(file) {
            Ok(bytes) => !damaged.contains(&(file.clone(), bytes)),
            Err(_) => false,
        };
        if now.iter().any(fresh) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_damaged_snapshot_is_not_served_and_a_new_one_is_taken() {
    let mut harness = with_short_logs().await;
    let agent = harness.client(&harness.agent);
    let away = harness.cluster.leader().await.unwrap() % 3 + 1;
    let others: Vec<u64> = (1..=3).filter(|node| *node != away).collect();
    harness.cluster.stop_node(away).await.unwrap();
    until_removed(&harness, &agent, &others).await;

    // A stopped server's snapshots: one with a damaged header, the other one cut off. It takes a new one at start.
    let patient = others[0];
    harness.cluster.stop_node(patient).await.unwrap();
    let mut damaged = Vec::new();
    for (number, file) in snapshots(&data(&harness, patient)).iter().enumerate() {
        let mut bytes = std::fs::read(file).unwrap();
        if number == 0 {
            bytes[20] ^= 1
        } else {
            bytes.truncate(bytes.len() / 2)
        }
        write_file(file, &bytes);
        damaged.push((file.clone(), bytes));
    }
    assert!(!damaged.is_empty());
    harness.cluster.start_node(patient).await.unwrap();
    harness.says(patient, "a snapshot is passed over").await;
    harness.cluster.wait_caught_up(patient, LIMIT).await.unwrap();
    until_fresh(&harness, patient, &damaged).await;

    // A bit in the middle of a stopped server's snapshots shows soon after its start, before anybody needs them.
    harness.cluster.stop_node(patient).await.unwrap();
    let mut rotten = Vec::new();
    for file in snapshots(&data(&harness, patient)) {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        write_file(&file, &bytes);
        rotten.push((file, bytes));
    }
    harness.cluster.start_node(patient).await.unwrap();
    harness.says(patient, "a published snapshot is damaged").await;
    until_fresh(&harness, patient, &rotten).await;
    harness.cluster.wait_caught_up(patient, LIMIT).await.unwrap();

    // One that rots in the leader's snapshots while it runs shows when somebody needs them.
    let leader = harness.cluster.leader().await.unwrap();
    for file in snapshots(&data(&harness, leader)) {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // In place: the server has the file open.
        let open = std::fs::File::options().write(true).open(&file).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&open, &bytes[middle..=middle], middle as u64)
            .unwrap();
    }
    harness.cluster.start_node(away).await.unwrap();
    harness.says(leader, "a published snapshot is damaged").await;
    harness.cluster.wait_caught_up(away, LIMIT).await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop().await.unwrap();
}
