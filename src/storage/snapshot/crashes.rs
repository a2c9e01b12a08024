//! I5: the power goes at every operation of taking and receiving snapshots.

use std::path::Path;

use super::tests::{at, commit};
use super::*;
use crate::fs::StdFs;
use crate::fs::sim::{SimFs, Survivors};
use crate::state::MemoryStore;
use crate::storage::view::ViewOptions;

const DIR: &str = "/data/snapshots";

/// A published snapshot of another node, newer than all that the script takes before it.
struct Other {
    _dir: tempfile::TempDir,
    file: SnapshotFile<StdFs>,
}

impl Other {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let view = View::open(&dir.path().join("view"), ViewOptions::default()).unwrap();
        let model = MemoryStore::default();
        (0..30).for_each(|index| commit(&view, &model, index));
        let snapshots = Snapshots::open(StdFs, &dir.path().join("snapshots")).unwrap();
        let file = snapshots.build(&view).unwrap();
        Self { _dir: dir, file }
    }
}

/// A disk with a data directory on it.
fn disk() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new(DIR).parent().unwrap()).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

/// Takes two snapshots, receives one, and takes another one. Gives the indexes of those that were published: from then on the log
/// may be cut off up to there. Ends at the first failure.
fn script(fs: &SimFs, other: &Other) -> Vec<u64> {
    let dir = tempfile::tempdir().unwrap();
    let view = View::open(&dir.path().join("view"), ViewOptions::default()).unwrap();
    let model = MemoryStore::default();
    let mut published = Vec::new();
    let mut run = || -> Result<(), SnapshotError> {
        let snapshots = Snapshots::open(fs.clone(), Path::new(DIR))?;
        let mut next = 0;
        for last in [9, 19, 39] {
            (next..=last).for_each(|index| commit(&view, &model, index));
            next = last + 1;
            snapshots.build(&view)?;
            published.push(last);
            if last == 19 {
                receive(&snapshots, &other.file)?;
                published.push(29);
            }
        }
        Ok(())
    };
    match run() {
        Ok(()) => assert_eq!(published, [9, 19, 29, 39]),
        Err(error) => assert!(matches!(error, SnapshotError::Io(_)), "{error}"),
    }
    published
}

fn receive(to: &Snapshots<SimFs>, file: &SnapshotFile<StdFs>) -> Result<(), SnapshotError> {
    let mut receiver = to.receiver()?;
    let mut offset = 0;
    while offset < file.bytes() {
        let chunk = file.read_chunk(offset, 20_000).unwrap();
        receiver.write_chunk(offset, &chunk)?;
        offset += chunk.len() as u64;
    }
    receiver.finish().map(drop)
}

/// What must hold on the disk after the power came back, if these had been published.
fn holds(fs: &SimFs, published: &[u64]) -> Result<(), String> {
    let found = Snapshots::open(fs.clone(), Path::new(DIR)).map_err(|error| error.to_string())?;
    for file in found.all() {
        file.verify().map_err(|error| format!("a published file is not whole: {error}"))?;
    }
    let newest = found.current().and_then(|file| file.meta().last);
    if newest < published.last().and_then(|index| at(*index)) {
        return Err(format!("{newest:?} is the newest, and {published:?} were published"));
    }
    let names = fs.read_dir(Path::new(DIR)).unwrap();
    match names.iter().find(|name| name.ends_with(TEMPORARY)) {
        Some(left) => Err(format!("{left} is left")),
        None => Ok(()),
    }
}

#[test]
fn i5_after_a_power_cut_at_any_operation_every_published_snapshot_is_whole_and_none_is_lost() {
    let other = Other::new();
    let whole = disk();
    script(&whole, &other);
    let points = whole.operations();
    assert!(points > 20, "{points}");
    for point in 0..points {
        let fs = disk();
        fs.power_cut_at(point);
        let published = script(&fs, &other);
        for survivors in
            [Survivors::None, Survivors::All, Survivors::Random(point), Survivors::Random(!point)]
        {
            let held = holds(&fs.crash(survivors), &published);
            assert_eq!(held, Ok(()), "cut at operation {point} of {points}, {survivors:?}");
        }
    }
}

#[test]
fn i5_a_disk_that_lies_about_syncs_would_be_seen_here() {
    let other = Other::new();
    let fs = disk();
    fs.lying_sync(true);
    let published = script(&fs, &other);
    assert!(holds(&fs.crash(Survivors::None), &published).is_err());
}

#[test]
fn i5_a_snapshot_whose_sync_or_write_fails_is_not_published() {
    let other = Other::new();
    let whole = disk();
    script(&whole, &other);
    for n in 1..whole.syncs() {
        let fs = disk();
        fs.fail_sync(n);
        let published = script(&fs, &other);
        assert!(published.len() < 4, "sync {n} failed and nobody noticed");
        assert_eq!(holds(&fs.crash(Survivors::None), &published), Ok(()), "sync {n}");
        assert_eq!(holds(&fs.restart(), &published), Ok(()), "sync {n}");
    }
    for n in 1..=whole.operations() {
        let fs = disk();
        fs.fail_write(n);
        let published = script(&fs, &other);
        assert_eq!(holds(&fs.crash(Survivors::None), &published), Ok(()), "write {n}");
    }
}
