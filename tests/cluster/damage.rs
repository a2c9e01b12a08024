//! Files of a stopped server that are damaged, cut off or deleted: what can be made again is made again, loudly; what can't
//! is refused, with the file and the way out. Nothing is repaired in silence, and the other two servers go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast::cli::local_cluster::LocalNode;
use holdfast::client::Client;

use crate::data_dir::{contents, copy_dir};
use crate::harness::{Harness, LIMIT, new_escrow, new_key, write_file};

/// The node whose files are damaged.
const NODE: u64 = 3;
const REPLACE: &str = "under a new id";
const SEGMENT: &str = "wal/0000000000000000.log";
/// Bytes before the first batch of a segment, and before the first record of a batch.
const HEADER: usize = 512;
const BATCH: usize = 32;

fn flip(file: &Path, offset: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[offset] ^= 4;
    write_file(file, &bytes);
}

fn cut(file: &Path, length: usize) {
    let bytes = std::fs::read(file).unwrap();
    write_file(file, &bytes[..length]);
}

/// Where the batches of a segment begin: four bytes of magic, then the length of what follows the header.
fn batches(segment: &Path) -> Vec<usize> {
    let bytes = std::fs::read(segment).unwrap();
    let (mut found, mut at) = (Vec::new(), HEADER);
    while bytes[at..].starts_with(b"HFB1") {
        found.push(at);
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        at += (BATCH + usize::try_from(length).unwrap()).next_multiple_of(8);
    }
    found
}

/// The batch with the node's newest vote: a record of kind 4, in a batch of its own.
fn vote_batch(segment: &Path) -> usize {
    let bytes = std::fs::read(segment).unwrap();
    batches(segment).into_iter().rfind(|at| bytes[at + BATCH] == 4).unwrap()
}

/// The segments that hold a batch: the empty one ahead is made anew at each start.
fn in_use(wal: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = contents(wal);
    files.retain(|_, bytes| bytes.get(HEADER..).is_some_and(|rest| rest.starts_with(b"HFB1")));
    files
}

/// A stopped node with a copy of its data.
struct Patient {
    data: PathBuf,
    sound: PathBuf,
}

impl Patient {
    fn of(node: &LocalNode) -> Self {
        let data = node.data_dir();
        let sound = data.with_extension("sound");
        if sound.exists() {
            std::fs::remove_dir_all(&sound).unwrap();
        }
        copy_dir(&data, &sound);
        Self { data, sound }
    }

    fn heal(&self) {
        std::fs::remove_dir_all(&self.data).unwrap();
        copy_dir(&self.sound, &self.data);
    }
}

/// The node refuses to start, says which file is wrong and what to do, and changes nothing in its log.
async fn refuses(harness: &mut Harness, what: &str, words: &[&str]) {
    let wal = harness.cluster.node(NODE).unwrap().data_dir().join("wal");
    std::fs::create_dir_all(&wal).unwrap();
    let before = in_use(&wal);
    harness.cluster.spawn_node(NODE).unwrap();
    let (code, last) = harness.last_word(NODE).await;
    assert_eq!(code, Some(1), "{what}: {last}");
    for word in ["the server can't start"].iter().chain(words) {
        assert!(last.contains(word), "{what}: {word}: {last}");
    }
    // But for segments that hold nothing: a reserve may be made anew.
    assert!(in_use(&wal) == before, "{what}");
}

/// The node starts, says so in its log, and has everything again.
async fn rebuilds(harness: &mut Harness, what: &str, words: &[&str]) {
    let before = harness.log(NODE).len();
    harness.cluster.start_node(NODE).await.unwrap();
    harness.cluster.wait_caught_up(NODE, LIMIT).await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    let log = harness.log(NODE)[before..].to_owned();
    for word in words {
        assert!(log.contains(word), "{what}: {word}: {log}");
    }
    harness.cluster.stop_node(NODE).await.unwrap();
    assert!(!log.contains("panic;"), "{log}");
}

async fn escrow(client: &Client, harness: &Harness, count: usize) {
    for _ in 0..count {
        client.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_i7_a_damaged_cut_or_lost_log_or_vote_is_refused_and_the_node_is_replaced() {
    let mut harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    escrow(&agent, &harness, 10).await;
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop_node(NODE).await.unwrap();
    let early = Patient::of(harness.cluster.node(NODE).unwrap());
    harness.cluster.start_node(NODE).await.unwrap();
    escrow(&agent, &harness, 10).await;
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop_node(NODE).await.unwrap();
    let older = early.sound.with_extension("older");
    std::fs::rename(&early.sound, &older).unwrap();
    let patient = Patient::of(harness.cluster.node(NODE).unwrap());
    let segment = patient.data.join(SEGMENT);
    let (all, vote) = (batches(&segment), vote_batch(&segment));
    let middle = all[all.len() / 2];

    let damaged = ["the log is damaged", SEGMENT, "fresh node id"];
    flip(&segment, middle + BATCH + 40);
    refuses(&mut harness, "a bit of an entry", &damaged).await;
    patient.heal();
    flip(&segment, vote + BATCH + 8);
    refuses(&mut harness, "a bit of the vote", &damaged).await;
    patient.heal();
    flip(&segment, 20);
    refuses(&mut harness, "a bit of the segment's header", &damaged).await;
    patient.heal();
    cut(&segment, middle + 100);
    refuses(&mut harness, "a log cut within a batch", &damaged).await;
    patient.heal();
    cut(&segment, middle);
    refuses(&mut harness, "a log cut between batches", &damaged).await;
    patient.heal();
    cut(&segment, 0);
    refuses(&mut harness, "an empty log", &["its log is gone", REPLACE]).await;
    patient.heal();
    std::fs::remove_dir_all(patient.data.join("wal")).unwrap();
    refuses(&mut harness, "no log", &["its log is gone", REPLACE]).await;
    refuses(&mut harness, "no log, once more", &["its log is gone", REPLACE]).await;
    patient.heal();
    std::fs::remove_dir_all(patient.data.join("wal")).unwrap();
    copy_dir(&older.join("wal"), &patient.data.join("wal"));
    refuses(&mut harness, "an older copy of the log", &["the log lost entries", REPLACE]).await;
    for file in ["IDENTITY", "FORMAT", "JOINED"] {
        patient.heal();
        flip(&patient.data.join(file), 9);
        refuses(&mut harness, file, &[file, "is damaged"]).await;
    }
    patient.heal();
    std::fs::remove_file(patient.data.join("IDENTITY")).unwrap();
    refuses(&mut harness, "no identity", &["has no IDENTITY"]).await;

    // The other two went on all the time, and a new node takes the place of the damaged one.
    escrow(&agent, &harness, 3).await;
    harness.cluster.add_node(4).unwrap();
    harness.cluster.start_node(4).await.unwrap();
    let spec = harness.cluster.spec(4).unwrap();
    let node = format!("4={},{}", spec.client_address, spec.peer_address);
    let replace = ["cluster", "replace", "3", &node];
    harness.run(&harness.administrator, &replace).await.ends_with(0);
    harness.cluster.wait_caught_up(4, LIMIT).await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop().await.unwrap();
}

/// The largest file of the engine.
fn engine_file(data: &Path) -> PathBuf {
    let files = contents(&data.join("view"));
    let db = files.into_keys().find(|path| path.ends_with("db"));
    db.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_i4_a_damaged_cut_or_deleted_view_is_rebuilt_and_this_is_said_loudly() {
    let mut harness = Harness::start().await;
    escrow(&harness.client(&harness.agent), &harness, 20).await;
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.cluster.stop_node(NODE).await.unwrap();
    let patient = Patient::of(harness.cluster.node(NODE).unwrap());
    let thrown = ["ERROR", "the view is thrown away and rebuilt"];
    let db = engine_file(&patient.data);
    let length = std::fs::read(&db).unwrap().len();

    std::fs::remove_dir_all(patient.data.join("view")).unwrap();
    rebuilds(&mut harness, "no view", &["the view begins empty"]).await;
    patient.heal();
    std::fs::remove_file(&db).unwrap();
    rebuilds(&mut harness, "no engine file", &thrown).await;
    patient.heal();
    cut(&db, length / 2);
    rebuilds(&mut harness, "a cut engine file", &thrown).await;
    patient.heal();
    flip(&patient.data.join("view/CURRENT"), 20);
    rebuilds(&mut harness, "a bit of the marker", &thrown).await;
    // Also where no orderly stop left sums to compare with, and the engine replays its own log: it panics on some of this.
    patient.heal();
    harness.cluster.start_node(NODE).await.unwrap();
    escrow(&harness.client(&harness.agent), &harness, 20).await;
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    harness.metric_is(NODE, "holdfast_view_lag_entries", 0.0).await;
    harness.cluster.kill_node(NODE).await.unwrap();
    let killed = Patient::of(harness.cluster.node(NODE).unwrap());
    let length = std::fs::read(&db).unwrap().len();
    for at in (0..12).map(|part| length * part / 12 + 64) {
        killed.heal();
        // Without its own snapshot the engine replays its whole log.
        for file in contents(&killed.data.join("view")).into_keys() {
            if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
                std::fs::remove_file(killed.data.join("view").join(file)).unwrap();
            }
        }
        flip(&db, at);
        // Either all its records were checked, or it was thrown away; which of them depends on the byte.
        rebuilds(&mut harness, "a bit after a crash", &["holdfast::storage::recovery: the view"])
            .await;
    }
    harness.cluster.start_node(NODE).await.unwrap();
    harness.cluster.stop().await.unwrap();
}
