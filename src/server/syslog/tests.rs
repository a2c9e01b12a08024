use std::path::Path;

use super::*;
use crate::client::evidence::Checkpoint;
use crate::crypto::testing::{CLUSTER, TestCa};
use crate::domain::ClusterId;
use crate::server::checkpoints::tests::checkpoint;

fn find(dir: &Path) -> (Spool, u64) {
    let (spool, newest) = Spool::find(dir, CLUSTER).unwrap();
    (spool, newest.map_or(0, |newest| newest.facts.head.sequence))
}

fn sequences(batch: &[(u64, Checkpoint)]) -> Vec<u64> {
    batch.iter().map(|(_, checkpoint)| checkpoint.facts.head.sequence).collect()
}

fn numbers(batch: &[(u64, Checkpoint)]) -> Vec<u64> {
    batch.iter().map(|(number, _)| *number).collect()
}

#[test]
fn what_waits_outlives_restarts_and_what_was_handed_over_does_not_come_again() {
    let (ca, dir) = (TestCa::new("node"), tempfile::tempdir().unwrap());
    let dir = dir.path().join("spool");
    let (spool, newest) = find(&dir);
    assert_eq!((newest, spool.waiting()), (0, 0));
    for sequence in [3, 7, 12, 15] {
        spool.append(&checkpoint(&ca, sequence)).unwrap();
    }
    assert_eq!(sequences(&spool.oldest(3).unwrap()), [3, 7, 12]);
    assert_eq!(sequences(&spool.oldest(3).unwrap()), [3, 7, 12], "until it is handed over");
    let batch = spool.oldest(2).unwrap();
    spool.handed_over(&numbers(&batch)).unwrap();
    assert_eq!(spool.waiting(), 2);
    drop(spool);
    let (spool, newest) = find(&dir);
    assert_eq!((newest, spool.waiting()), (15, 2));
    assert_eq!(sequences(&spool.oldest(9).unwrap()), [12, 15]);
    let batch = spool.oldest(9).unwrap();
    spool.handed_over(&numbers(&batch)).unwrap();
    drop(spool);
    // The newest stays, so that it is known where the collector stands.
    let (spool, newest) = find(&dir);
    assert_eq!((newest, spool.waiting(), spool.oldest_signed()), (15, 0, None));
    spool.append(&checkpoint(&ca, 16)).unwrap();
    assert_eq!(sequences(&spool.oldest(9).unwrap()), [16]);
    let files = std::fs::read_dir(&dir).unwrap().count();
    assert_eq!(files, 3, "the lock, one that was handed over and one that waits");
}

#[test]
fn when_too_many_wait_the_newest_makes_room_for_what_vouches_for_more() {
    let (ca, dir) = (TestCa::new("node"), tempfile::tempdir().unwrap());
    let dir = dir.path().join("spool");
    let (mut spool, _) = find(&dir);
    spool.most = 3;
    for sequence in 1..=6 {
        spool.append(&checkpoint(&ca, sequence)).unwrap();
    }
    assert_eq!(sequences(&spool.oldest(9).unwrap()), [1, 2, 6]);
    assert_eq!((spool.waiting(), spool.replaced()), (3, 3));
    drop(spool);
    assert_eq!(find(&dir).1, 6, "and so it is on disk");
}

#[test]
fn a_spool_passes_over_what_is_damaged_and_refuses_what_is_not_its_own() {
    let (ca, root) = (TestCa::new("node"), tempfile::tempdir().unwrap());
    let dir = root.path().join("spool");
    let (spool, _) = find(&dir);
    for sequence in [3, 7, 12] {
        spool.append(&checkpoint(&ca, sequence)).unwrap();
    }
    let file = |number: u64| dir.join(format!("{number:020}.waiting"));
    std::fs::File::options().write(true).open(file(2)).unwrap().set_len(100).unwrap();
    std::fs::remove_file(file(1)).unwrap();
    assert_eq!(sequences(&spool.oldest(9).unwrap()), [12]);
    assert_eq!(spool.waiting(), 1);
    assert!(dir.join("00000000000000000002.damaged").exists(), "it is kept for whoever looks");
    let second = Spool::find(&dir, CLUSTER).unwrap_err();
    assert!(second.to_string().contains("/lock"), "one server at a time: {second}");
    drop(spool);
    let foreign = Spool::find(&dir, ClusterId::from_bytes([1; 16])).unwrap_err();
    assert!(matches!(foreign, CheckpointFileError::Foreign { .. }), "{foreign}");
    drop(std::fs::File::create(dir.join("notes.txt")).unwrap());
    let other = Spool::find(&dir, CLUSTER).unwrap_err();
    assert!(other.to_string().contains("a directory of its own"), "{other}");
    let nowhere = Spool::find(&root.path().join("none/spool"), CLUSTER).unwrap_err();
    assert!(nowhere.to_string().contains("none/spool: No such file"), "{nowhere}");
}

#[test]
fn what_a_crash_left_of_a_file_goes_and_its_number_is_used_again() {
    let (ca, dir) = (TestCa::new("node"), tempfile::tempdir().unwrap());
    let (spool, _) = find(dir.path());
    spool.append(&checkpoint(&ca, 3)).unwrap();
    drop(spool);
    let partial = dir.path().join("00000000000000000002.waiting.tmp");
    drop(std::fs::File::create(&partial).unwrap());
    let (spool, newest) = find(dir.path());
    assert!(newest == 3 && !partial.exists());
    spool.append(&checkpoint(&ca, 4)).unwrap();
    assert_eq!(sequences(&spool.oldest(9).unwrap()), [3, 4]);
}

#[test]
fn pauses_double_to_a_minute_and_no_two_servers_need_have_the_same() {
    let (mut shortest, mut longest) = (Backoff::new(), Backoff::new());
    let mut pauses = Vec::new();
    for _ in 0..9 {
        // Chance is taken modulo half the pause and one.
        let half = u64::try_from(longest.whole.as_millis()).unwrap() / 2;
        pauses.push((shortest.next(0).as_millis(), longest.next(half).as_millis()));
    }
    let doubled = [(500, 1000), (1000, 2000), (2000, 4000), (4000, 8000), (8000, 16_000)];
    assert_eq!(pauses[..5], doubled);
    assert_eq!(pauses[7..], [(30_000, 60_000), (30_000, 60_000)]);
}
