use std::fs::{File, OpenOptions};
use std::io::Write as _;

use super::*;
use crate::crypto::CheckpointFacts;
use crate::crypto::testing::{CLUSTER, Order, TestCa, now};
use crate::domain::{AuditPosition, NodeId};

fn find(path: &Path) -> (CheckpointFile, u64) {
    let (file, newest) = CheckpointFile::find(path, CLUSTER).unwrap();
    (file, newest.map_or(0, |newest| newest.facts.head.sequence))
}

pub(in crate::server) fn checkpoint(ca: &TestCa, sequence: u64) -> Checkpoint {
    signed(ca, AuditPosition { sequence, hash: [9; 32] })
}

pub(in crate::server) fn signed(ca: &TestCa, head: AuditPosition) -> Checkpoint {
    let made = ca.make(&Order::node(2));
    let node = NodeId::new(2);
    let signer = NodeSigner::new(CLUSTER, node, made.chain(), &made.private_key).unwrap();
    let facts = CheckpointFacts { head, term: 3, index: 99, time: now() };
    let signature = signer.sign_checkpoint(&facts);
    Checkpoint { cluster: CLUSTER, facts, node, signature, signer_chain: made.chain() }
}

fn read(path: &Path, ca: &TestCa) -> Result<Vec<u64>, EvidenceError> {
    let bytes = std::fs::read(path).unwrap();
    let read = Checkpoint::read_all(bytes.as_slice(), &ca.authority(), now())?;
    Ok(read.iter().map(|checkpoint| checkpoint.facts.head.sequence).collect())
}

fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}

#[test]
fn checkpoints_are_appended_and_a_restart_goes_on_after_the_last_whole_one() {
    let (ca, dir) = (TestCa::new("node"), tempfile::tempdir().unwrap());
    let path = dir.path().join("checkpoints.jsonl");
    let (file, last) = find(&path);
    assert_eq!(last, 0);
    for sequence in [3, 7, 12] {
        file.append(&checkpoint(&ca, sequence)).unwrap();
    }
    assert_eq!(find(&path).1, 12);
    // Wherever a crash cut the last line off, it goes, and the others stay.
    for bytes in [1, 10, 400] {
        cut(&path, bytes);
        assert!(read(&path, &ca).is_err());
        let (file, last) = find(&path);
        assert_eq!(last, 7, "{bytes}");
        file.append(&checkpoint(&ca, 12)).unwrap();
        assert_eq!(read(&path, &ca).unwrap(), [3, 7, 12]);
    }
    // A file that was moved away is begun anew.
    std::fs::rename(&path, dir.path().join("checkpoints.1")).unwrap();
    file.append(&checkpoint(&ca, 15)).unwrap();
    assert_eq!(read(&path, &ca).unwrap(), [15]);
    cut(&path, 1);
    let (_, last) = find(&path);
    assert_eq!(last, 0, "a first line that was cut off is none");
}

#[test]
fn nothing_is_appended_to_a_file_of_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other");
    let texts = [b"a log line\n".to_vec(), b"no newline".to_vec(), vec![b'x'; 200_000]];
    for text in texts {
        File::create(&path).unwrap().write_all(&text).unwrap();
        let error = CheckpointFile::find(&path, CLUSTER).unwrap_err();
        assert!(matches!(error, CheckpointFileError::Content { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), text, "it is as it was");
    }
    let line = checkpoint(&TestCa::new("node"), 3).to_line().unwrap();
    File::create(&path).unwrap().write_all(line.as_bytes()).unwrap();
    let error = CheckpointFile::find(&path, ClusterId::from_bytes([1; 16])).unwrap_err();
    assert!(matches!(error, CheckpointFileError::Foreign { .. }), "{error}");
    let nowhere = CheckpointFile::find(&dir.path().join("none/file"), CLUSTER).unwrap_err();
    assert!(nowhere.to_string().contains("none/file: No such file"), "{nowhere}");
}

#[test]
fn what_another_process_is_appending_is_not_cut_off() {
    let (ca, dir) = (TestCa::new("node"), tempfile::tempdir().unwrap());
    let path = dir.path().join("checkpoints.jsonl");
    let (file, _) = find(&path);
    let mut other = OpenOptions::new().append(true).open(&path).unwrap();
    other.lock().unwrap();
    let line = checkpoint(&ca, 3).to_line().unwrap();
    let (half, rest) = line.split_at(100);
    other.write_all(half.as_bytes()).unwrap();
    let error = file.append(&checkpoint(&ca, 4)).unwrap_err();
    assert!(matches!(error, CheckpointFileError::Io { .. }), "{error}");
    other.write_all(rest.as_bytes()).unwrap();
    other.unlock().unwrap();
    file.append(&checkpoint(&ca, 4)).unwrap();
    assert_eq!(read(&path, &ca).unwrap(), [3, 4]);
}

#[test]
fn a_checkpoint_is_due_after_so_many_records_or_a_minute_if_there_is_any_new_one() {
    let begun = Instant::now();
    let pace = Pace { records: 10, last: 5, written: begun };
    let later = begun + INTERVAL;
    for (head, now, due) in [
        (5, begun, false),
        (5, later, false),
        (4, later, false),
        (6, begun, false),
        (6, later, true),
        (14, begun, false),
        (15, begun, true),
    ] {
        assert_eq!(pace.is_due(head, now), due, "{head}");
    }
}
