//! Claims about the log, on a simulated disk.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::fs::FsFile as _;
use crate::fs::sim::{SimFs, Survivors};

mod checks;
mod crashes;
mod faults;

const DIR: &str = "/wal";

fn options() -> WalOptions {
    WalOptions { segment_bytes: 8192, cache_bytes: 4096, must_exist: false, inline: true }
}

fn open(fs: &SimFs) -> Result<Wal<SimFs>, WalError> {
    Wal::open(fs.clone(), Path::new(DIR), options())
}

fn at(term: u64, index: u64) -> Position {
    Position { term, index }
}

fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let fill = u8::try_from(term.wrapping_mul(31).wrapping_add(index) % 251).unwrap();
    LogEntry { id: at(term, index), payload: Payload::Command(Bytes::from(vec![fill; bytes])) }
}

/// Whether a request was acknowledged.
type Ack = Arc<Mutex<Option<bool>>>;

fn ack() -> (Ack, Done) {
    let ack = Ack::default();
    let noted = ack.clone();
    (ack, Box::new(move |result| *noted.lock() = Some(result.is_ok())))
}

fn acked(ack: &Ack) -> bool {
    *ack.lock() == Some(true)
}

fn ignore() -> Done {
    Box::new(|_| {})
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    for index in 0..100 {
        wal.append(vec![entry(1, index, 300)], ignore()).unwrap();
    }
    wal.save_vote(Vote { term: 2, voted_for: Some(3), committed: false }, ignore()).unwrap();
    wal.close();
    let wal = open(&fs.restart()).unwrap();
    assert_eq!(wal.last(), Some(at(1, 99)));
    assert_eq!(wal.vote(), Some(Vote { term: 2, voted_for: Some(3), committed: false }));
    let entries = wal.read(0, u64::MAX, usize::MAX).unwrap();
    assert_eq!(entries, (0..100).map(|index| entry(1, index, 300)).collect::<Vec<_>>());
    assert_eq!(wal.read(10, 20, 700).unwrap().len(), 2);
    assert_eq!(wal.read(10, 20, 0).unwrap().len(), 1);
}

#[test]
fn a_gap_and_an_oversize_entry_are_refused_and_change_nothing() {
    let wal = open(&SimFs::new()).unwrap();
    wal.append(vec![entry(1, 0, 10)], ignore()).unwrap();
    assert!(matches!(wal.append(vec![entry(1, 2, 10)], ignore()), Err(WalError::Invalid { .. })));
    let large = entry(1, 1, ENTRY_BYTES + 1);
    assert!(matches!(wal.append(vec![large], ignore()), Err(WalError::Invalid { .. })));
    assert_eq!(wal.last(), Some(at(1, 0)));
    wal.append(vec![entry(1, 1, ENTRY_BYTES)], ignore()).unwrap();
    assert_eq!(wal.durable_index(), Some(1));
}

#[test]
fn i1_a_failed_fsync_is_reported_and_nothing_is_tried_again() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    fs.fail_sync(1);
    let (first, done) = ack();
    wal.append(vec![entry(1, 0, 10)], done).unwrap();
    assert_eq!(*first.lock(), Some(false));
    assert_eq!(wal.durable_index(), None);
    let syncs = fs.syncs();
    let (_, done) = ack();
    assert!(matches!(wal.append(vec![entry(1, 1, 10)], done), Err(WalError::Poisoned(_))));
    assert!(wal.failure().is_some());
    wal.close();
    assert_eq!(fs.syncs(), syncs, "a poisoned log must not sync again");
}

#[test]
fn i1_what_a_failed_fsync_left_in_memory_is_written_again_before_anything_follows_it() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.append(vec![entry(1, 0, 10)], ignore()).unwrap();
    fs.fail_sync(1);
    wal.append(vec![entry(1, 1, 700)], ignore()).unwrap();
    assert!(wal.failure().is_some());
    // Another process finds the bytes, which the kernel takes for clean, and builds on them.
    let fs = fs.restart();
    let wal = open(&fs).unwrap();
    assert_eq!(wal.last(), Some(at(1, 1)));
    let (third, done) = ack();
    wal.append(vec![entry(1, 2, 10)], done).unwrap();
    assert!(acked(&third));
    let wal = open(&fs.crash(Survivors::None)).unwrap();
    assert_eq!(wal.last(), Some(at(1, 2)));
}

#[test]
fn i6_a_segment_that_was_cut_off_is_refused_even_at_a_batch_s_end() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.append(vec![entry(1, 0, 300)], ignore()).unwrap();
    let end = wal.disk_bytes() + 512;
    wal.append(vec![entry(1, 1, 300)], ignore()).unwrap();
    drop(wal);
    let first = segments(&fs)[0].clone();
    fs.open(&first, crate::fs::OpenMode::ReadWrite).unwrap().set_len(end).unwrap();
    let Err(error) = open(&fs.restart()) else { panic!("it opened") };
    assert!(error.to_string().contains("was cut off"), "{error}");
}

#[test]
fn i1_an_acknowledged_entry_survives_a_power_cut_right_after() {
    for survivors in [Survivors::None, Survivors::All, Survivors::Random(7)] {
        let fs = SimFs::new();
        let wal = open(&fs).unwrap();
        let (first, done) = ack();
        wal.append(vec![entry(1, 0, 700)], done).unwrap();
        assert!(acked(&first));
        let wal = open(&fs.crash(survivors)).unwrap();
        assert_eq!(wal.read(0, 9, usize::MAX).unwrap(), vec![entry(1, 0, 700)]);
    }
}

#[test]
fn i6_a_torn_tail_is_dropped() {
    for kept in [0, 40, 512, 700] {
        let fs = SimFs::new();
        let wal = open(&fs).unwrap();
        wal.append(vec![entry(1, 0, 700)], ignore()).unwrap();
        fs.tear_write(1, kept);
        let (second, done) = ack();
        wal.append(vec![entry(1, 1, 1500)], done).unwrap();
        assert!(!acked(&second));
        let fs = fs.crash(Survivors::All);
        let torn = super::recover::recover(&fs, Path::new(DIR), 0).unwrap().torn;
        assert_eq!(torn.is_some(), kept > 0, "what is dropped is told");
        let wal = open(&fs).unwrap();
        assert_eq!(wal.last(), Some(at(1, 0)), "{kept} bytes of the second batch were kept");
        wal.append(vec![entry(2, 1, 20)], ignore()).unwrap();
        assert_eq!(open(&fs.restart()).unwrap().last(), Some(at(2, 1)));
    }
}

fn segments(fs: &SimFs) -> Vec<std::path::PathBuf> {
    fs.read_dir(Path::new(DIR)).unwrap().iter().map(|name| Path::new(DIR).join(name)).collect()
}

fn filled(fs: &SimFs) -> Wal<SimFs> {
    let wal = open(fs).unwrap();
    wal.save_vote(Vote { term: 1, voted_for: Some(1), committed: true }, ignore()).unwrap();
    for index in 0..60 {
        wal.append(vec![entry(1, index, 500)], ignore()).unwrap();
    }
    wal
}

#[test]
fn i6_a_flipped_bit_anywhere_before_the_last_batch_is_refused_with_the_file_and_a_way_out() {
    let fs = SimFs::new();
    filled(&fs).close();
    let files = segments(&fs);
    assert!(files.len() > 3);
    for (file, offset) in [(0, 3), (0, 30), (0, 512), (0, 600), (0, 2000), (1, 700), (2, 513)] {
        let broken = fs.restart();
        let broken = broken.crash(Survivors::All);
        broken.flip_bit(&files[file], offset, 2).unwrap();
        let error = open(&broken).err().unwrap_or_else(|| panic!("{file} {offset} was taken"));
        let text = error.to_string();
        assert!(matches!(error, WalError::Damaged { .. }), "{text}");
        assert!(text.contains(".log") && text.contains("fresh node id"), "{text}");
    }
}

#[test]
fn i6_the_last_batch_of_a_log_that_was_closed_in_order_is_no_torn_tail() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.save_vote(Vote { term: 1, voted_for: Some(1), committed: false }, ignore()).unwrap();
    wal.close();
    let file = segments(&fs)[0].clone();
    fs.flip_bit(&file, 560, 0).unwrap();
    assert!(matches!(open(&fs.restart()), Err(WalError::Damaged { .. })));
}

#[test]
fn i6_a_deleted_segment_is_refused_unless_all_of_it_was_purged() {
    let fs = SimFs::new();
    filled(&fs).close();
    for victim in 0..segments(&fs).len() - 1 {
        let broken = fs.crash(Survivors::All);
        broken.remove_file(&segments(&broken)[victim]).unwrap();
        let result = open(&broken);
        assert!(matches!(result, Err(WalError::Damaged { .. })), "segment {victim} was not missed");
    }
}

#[test]
fn purging_removes_whole_segments_and_keeps_vote_and_bound() {
    let fs = SimFs::new();
    let wal = filled(&fs);
    let before = segments(&fs).len();
    wal.purge(at(1, 40), ignore()).unwrap();
    assert!(segments(&fs).len() < before);
    assert_eq!(wal.read(0, u64::MAX, usize::MAX).unwrap().len(), 19);
    let wal = open(&fs.crash(Survivors::None)).unwrap();
    assert_eq!((wal.purged(), wal.last()), (Some(at(1, 40)), Some(at(1, 59))));
    assert_eq!(wal.vote(), Some(Vote { term: 1, voted_for: Some(1), committed: true }));
    assert_eq!(wal.read(0, u64::MAX, usize::MAX).unwrap().len(), 19);
}

#[test]
fn purging_beyond_the_end_makes_the_log_begin_there() {
    let fs = SimFs::new();
    let wal = filled(&fs);
    wal.purge(at(3, 500), ignore()).unwrap();
    assert_eq!(wal.last(), Some(at(3, 500)));
    wal.append(vec![entry(3, 501, 10)], ignore()).unwrap();
    let wal = open(&fs.restart()).unwrap();
    assert_eq!((wal.purged(), wal.last()), (Some(at(3, 500)), Some(at(3, 501))));
}

#[test]
fn i9_on_a_full_disk_the_reserve_keeps_votes_going_and_room_is_noticed_again() {
    let fs = SimFs::new();
    let wal = filled(&fs);
    assert_eq!(wal.space(), Space::Plenty);
    fs.set_capacity(Some(fs.used_bytes()));
    let mut index = 60;
    while wal.space() == Space::Plenty {
        wal.append(vec![entry(1, index, 500)], ignore()).unwrap();
        index += 1;
        assert!(index < 200, "the disk never became full");
    }
    for term in 2..20 {
        let (saved, done) = ack();
        wal.save_vote(Vote { term, voted_for: Some(2), committed: false }, done).unwrap();
        assert!(acked(&saved), "vote {term} did not fit into the reserve");
    }
    fs.set_capacity(None);
    wal.save_vote(Vote { term: 30, voted_for: Some(2), committed: false }, ignore()).unwrap();
    assert_eq!(wal.space(), Space::Plenty);
    assert!(wal.failure().is_none());
}
