//! Looking at the disks of machines that don't run.

use std::path::Path;

use holdfast::fs::Fs as _;
use holdfast::fs::sim::SimFs;
use holdfast::storage::wal::{Payload, Wal, WalOptions};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::cluster::{DATA, wal_dir};
use super::oracle::{HASH_BEGIN, hash};
use super::sights::Sight;
use super::world::World;

/// Compares the committed entries on a disk with all that were seen before. Works on a copy.
pub(crate) fn check_log(world: &World, id: u64, disk: &SimFs) {
    let copy = disk.restart();
    if !copy.exists(&wal_dir()).unwrap_or(false) {
        return;
    }
    let options = WalOptions { inline: true, segment_bytes: 16 * 1024, ..WalOptions::default() };
    // What can't be opened is for the node to refuse.
    let Ok(wal) = Wal::open(copy, &wal_dir(), options) else { return };
    if wal.purged().is_some() {
        world.saw(Sight::Purged);
    }
    let Some(committed) = wal.committed() else { return };
    let from = wal.purged().map_or(0, |purged| purged.index + 1);
    let Ok(entries) = wal.read(from, committed.index + 1, usize::MAX) else { return };
    let at = world.millis();
    let mut oracle = world.oracle.lock();
    for entry in entries {
        let kind = match entry.payload {
            Payload::Blank => 0,
            Payload::Command(_) => 1,
            Payload::Membership(_) => 2,
        };
        let bytes = hash(hash(HASH_BEGIN, &[kind]), entry.payload.bytes());
        oracle.committed(at, id, entry.id.index, (entry.id.term, bytes));
    }
}

/// Flips a bit of a published snapshot. False if there is none.
pub(crate) fn rot_snapshot(disk: &SimFs, rng: &mut StdRng) -> bool {
    let directory = Path::new(DATA).join("snapshots");
    let names = disk.read_dir(&directory).unwrap_or_default();
    let Some(name) = names.last() else { return false };
    let path = directory.join(name);
    let Ok(length) = disk.file_len(&path) else { return false };
    length > 0 && disk.flip_bit(&path, rng.random_range(0..length), rng.random_range(0..8)).is_ok()
}

/// Flips a bit of the log's oldest segment, if that is one that nothing is appended to any more. False if there is none.
pub(crate) fn rot_log(disk: &SimFs, rng: &mut StdRng) -> bool {
    let names = disk.read_dir(&wal_dir()).unwrap_or_default();
    let segments: Vec<_> = names.iter().filter(|name| name.ends_with(".log")).collect();
    // The last is the reserve, and the one before it is being written.
    if segments.len() < 3 {
        return false;
    }
    let path = wal_dir().join(segments[0]);
    let Ok(length) = disk.file_len(&path) else { return false };
    disk.flip_bit(&path, rng.random_range(0..length), rng.random_range(0..8)).is_ok()
}
