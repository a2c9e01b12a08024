//! I4, I5: only whole snapshots are published, offered and installed, and a view is rebuilt from them.

use std::path::Path;

use super::*;
use crate::fs::StdFs;
use crate::state::{Digest, Heads, MemoryStore, Store, Table, WriteSet};
use crate::storage::recovery::{LogBounds, RecoveryError, open_view};
use crate::storage::view::ViewOptions;

pub(super) fn commit(view: &View, model: &MemoryStore, index: u64) {
    let mut changes = WriteSet::default();
    for n in 0..30 {
        let key = |n: u64| Bytes::copy_from_slice(&n.to_be_bytes());
        let value = Some(Bytes::from(vec![u8::try_from(index % 256).unwrap(); 100]));
        changes.0.insert((Table::Keys, key((index * 11 + n * 3) % 400)), value.clone());
        changes.0.insert((Table::Audit, key(index * 30 + n)), value);
    }
    model.commit(changes.clone()).unwrap();
    let (sum, records) = Digest::recount(model.records());
    let position = Some(Position { term: 1, index });
    let heads = Heads { position, sum, records, ..Heads::default() };
    let (table, key) = Heads::record_key();
    changes.0.insert((table, key.into()), Some(heads.encode()));
    model.commit(changes.clone()).unwrap();
    view.commit(changes).unwrap();
}

fn records(view: &View) -> Vec<crate::storage::view::ViewRecord> {
    view.freeze().unwrap().map(Result::unwrap).collect()
}

pub(super) fn at(index: u64) -> Option<Position> {
    Some(Position { term: 1, index })
}

struct Node {
    dir: tempfile::TempDir,
    snapshots: Snapshots<StdFs>,
    model: MemoryStore,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(StdFs, &dir.path().join("snapshots")).unwrap();
        Self { dir, snapshots, model: MemoryStore::default() }
    }

    fn open(&self, purged: Option<u64>, last: u64) -> Result<View, RecoveryError> {
        let bounds = LogBounds { purged: purged.and_then(at), last: at(last), committed: at(last) };
        open_view(&self.view(), ViewOptions::default(), bounds, &self.snapshots)
    }

    fn view(&self) -> PathBuf {
        self.dir.path().join("view")
    }
}

fn overwrite(path: &Path, bytes: &[u8]) {
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes).unwrap();
}

#[test]
fn i5_a_snapshot_taken_and_installed_is_the_state_at_its_position() {
    let node = Node::new();
    let view = node.open(None, 9).unwrap();
    (0..10).for_each(|index| commit(&view, &node.model, index));
    let file = node.snapshots.build(&view).unwrap();
    assert_eq!(file.meta().last, at(9));
    assert_eq!(view.durable_position().unwrap(), at(9), "published before the view reached it");

    let other = Node::new();
    let target = other.open(None, 0).unwrap();
    let mut receiver = other.snapshots.receiver().unwrap();
    let mut offset = 0;
    while offset < file.bytes() {
        let chunk = file.read_chunk(offset, 1000).unwrap();
        receiver.write_chunk(offset, &chunk).unwrap();
        offset += chunk.len() as u64;
    }
    let received = receiver.finish().unwrap();
    other.snapshots.install(&received, &target).unwrap();
    assert_eq!(records(&target), node.model.records());
    target.verify().unwrap();
    drop(target);
    assert_eq!(records(&other.open(Some(9), 9).unwrap()), node.model.records());
}

#[test]
fn i5_two_snapshots_are_kept_and_leftovers_are_removed() {
    let node = Node::new();
    let view = node.open(None, 0).unwrap();
    for index in 0..4 {
        commit(&view, &node.model, index);
        node.snapshots.build(&view).unwrap();
    }
    let dir = node.dir.path().join("snapshots");
    overwrite(&dir.join("build-7.partial"), b"half");
    let again = Snapshots::open(StdFs, &dir).unwrap();
    let positions: Vec<_> = again.all().iter().map(|file| file.meta().last).collect();
    assert_eq!(positions, [at(3), at(2)]);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
}

#[test]
fn i5_a_damaged_or_cut_snapshot_is_refused() {
    let node = Node::new();
    let view = node.open(None, 0).unwrap();
    commit(&view, &node.model, 0);
    let whole = std::fs::read(node.snapshots.build(&view).unwrap().path()).unwrap();
    let refused = |bytes: &[u8]| {
        let mut receiver = node.snapshots.receiver().unwrap();
        receiver.write_chunk(0, bytes).unwrap();
        receiver.finish().is_err()
    };
    for round in 0..40 {
        let mut flipped = whole.clone();
        let byte = round * 7919 % whole.len();
        flipped[byte] ^= 1 << (round % 8);
        assert!(refused(&flipped), "flipped at {byte}");
        assert!(refused(&whole[..byte]), "cut at {byte}");
    }
    assert!(!refused(&whole));
}

#[test]
fn i4_a_deleted_view_is_rebuilt_from_snapshot_or_log() {
    let node = Node::new();
    for index in 0..6 {
        let purged = (index >= 3).then_some(2);
        let view = node.open(purged, index).unwrap();
        // The log is applied again from where the view stands.
        let from = view.durable_position().unwrap().map_or(0, |position| position.index + 1);
        let model = MemoryStore::default();
        (0..=index).for_each(|entry| {
            let before = View::in_memory();
            commit(if entry >= from { &view } else { &before }, &model, entry);
        });
        assert_eq!(records(&view), model.records(), "after {index}");
        if index == 2 {
            node.snapshots.build(&view).unwrap();
        }
        if index % 2 == 0 {
            view.close_clean().unwrap()
        } else {
            view.flush().unwrap()
        }
        drop(view);
        std::fs::remove_dir_all(node.view()).unwrap();
    }
}

#[test]
fn i7_a_whole_view_ahead_of_the_log_shows_that_the_log_lost_entries() {
    let node = Node::new();
    let view = node.open(None, 0).unwrap();
    (0..5).for_each(|index| commit(&view, &node.model, index));
    view.close_clean().unwrap();
    drop(view);
    let error = node.open(None, 3).unwrap_err().to_string();
    assert!(error.contains("ends at index 3") && error.contains("up to 4"), "{error}");
}

#[test]
fn i4_a_damaged_snapshot_gives_way_to_an_older_one_that_suffices() {
    for purged in [0, 1] {
        let node = Node::new();
        let view = node.open(None, 0).unwrap();
        commit(&view, &node.model, 0);
        node.snapshots.build(&view).unwrap();
        commit(&view, &node.model, 1);
        let newest = node.snapshots.build(&view).unwrap();
        drop(view);
        std::fs::remove_dir_all(node.view()).unwrap();
        let mut bytes = std::fs::read(newest.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        overwrite(newest.path(), &bytes);
        match node.open(Some(purged), 1) {
            Ok(view) => assert_eq!((view.durable_position().unwrap(), purged), (at(0), 0)),
            Err(error) => {
                assert_eq!(purged, 1);
                assert!(error.to_string().contains("under a new id"), "{error}");
            }
        }
    }
}

#[test]
fn a_published_snapshot_that_rots_is_replaced_by_a_new_one_and_dropped() {
    let node = Node::new();
    let view = node.open(None, 9).unwrap();
    (0..10).for_each(|index| commit(&view, &node.model, index));
    // Nothing was applied in between: the new one gets the same name.
    let rotten = node.snapshots.build(&view).unwrap();
    rot(rotten.path());
    assert!(matches!(rotten.verify(), Err(SnapshotError::Damaged { .. })));
    let new = node.snapshots.build(&view).unwrap();
    node.snapshots.discard(&rotten);
    assert_eq!(node.snapshots.all().len(), 1);
    new.verify().unwrap();
    assert!(new.path().exists());
    // Something was: the rotten one would be kept as the second.
    rot(new.path());
    commit(&view, &node.model, 10);
    let newer = node.snapshots.build(&view).unwrap();
    assert_eq!(node.snapshots.all().len(), 2);
    node.snapshots.discard(&new);
    assert!(!new.path().exists());
    let left: Vec<_> = node.snapshots.all().iter().map(|file| file.meta().last).collect();
    assert_eq!(left, [at(10)]);
    newer.verify().unwrap();
}

#[test]
fn i5_a_file_that_reads_back_otherwise_than_it_was_written_is_refused() {
    let node = Node::new();
    let view = node.open(None, 9).unwrap();
    (0..10).for_each(|index| commit(&view, &node.model, index));
    let file = node.snapshots.build(&view).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let written: [u8; 32] = *bytes[..bytes.len() - 4].last_chunk().unwrap();
    file.verify_bytes(&written).unwrap();
    // Another file, whole in itself.
    assert!(matches!(file.verify_bytes(&[7; 32]), Err(SnapshotError::Damaged { .. })));
    rot(file.path());
    assert!(matches!(file.verify_bytes(&written), Err(SnapshotError::Damaged { .. })));
}

/// Flips a bit in the middle of a file, in place.
fn rot(path: &Path) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
}
