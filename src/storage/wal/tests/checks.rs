//! Each check that tells the log's own bytes from others is needed: these fail without it.

use super::super::format::{BATCH_HEADER, BatchBuilder, SEGMENT_HEADER, SegmentHeader, records};
use super::super::index::Index;
use super::super::segment::{Segment, Stored};
use super::*;
use crate::fs::{Fs as _, OpenMode};

fn voted(term: u64) -> Vote {
    Vote { term, voted_for: Some(1), committed: false }
}

fn file(fs: &SimFs) -> <SimFs as crate::fs::Fs>::File {
    fs.open(&segments(fs)[0], OpenMode::ReadWrite).unwrap()
}

/// What the only segment holds from `offset` on.
fn bytes_at(fs: &SimFs, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file(fs).read_at(&mut bytes, offset).unwrap();
    bytes
}

fn end(wal: &Wal<SimFs>) -> u64 {
    SEGMENT_HEADER as u64 + wal.disk_bytes()
}

/// The records of a batch have one sum in common, and each its own: an entry is read back alone.
#[test]
fn a_record_with_a_changed_byte_is_refused_by_its_own_sum() {
    let mut builder = BatchBuilder::new();
    builder.entry(&entry(1, 0, 40));
    let payload = builder.finish(0, 7)[BATCH_HEADER..].to_vec();
    assert!(records(&Bytes::from(payload.clone())).is_ok());
    for byte in [8, 16, 24, 32, 71] {
        let mut changed = payload.clone();
        changed[byte] ^= 1;
        assert!(records(&Bytes::from(changed)).is_err(), "byte {byte} is covered by no sum");
    }
}

#[test]
fn an_entry_that_rots_while_the_log_is_open_is_refused_when_it_is_read() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    (0..12).for_each(|index| wal.append(vec![entry(1, index, 500)], ignore()).unwrap());
    assert!(wal.read(0, 1, usize::MAX).is_ok());
    let data = (SEGMENT_HEADER + BATCH_HEADER + 32 + 100) as u64;
    fs.flip_bit(&segments(&fs)[0], data, 0).unwrap();
    assert!(matches!(wal.read(0, 1, usize::MAX), Err(WalError::Damaged { .. })));
}

#[test]
fn a_batch_that_another_segment_left_in_the_file_is_none_of_this_one() {
    let (fs, other) = (SimFs::new(), SimFs::new());
    let [wal, old] = [&fs, &other].map(|fs| open(fs).unwrap());
    wal.save_vote(voted(1), ignore()).unwrap();
    old.save_vote(voted(1), ignore()).unwrap();
    let offset = end(&old);
    assert_eq!(offset, end(&wal));
    // The next number, in the next place, whole; only the salt is another.
    old.save_vote(voted(9), ignore()).unwrap();
    let left = bytes_at(&other, offset, usize::try_from(end(&old) - offset).unwrap());
    file(&fs).write_at(&left, offset).unwrap();
    assert_eq!(open(&fs.restart()).unwrap().vote(), Some(voted(1)));
}

#[test]
fn a_batch_that_is_written_a_second_time_further_on_is_refused_by_its_number() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.save_vote(voted(1), ignore()).unwrap();
    let first = bytes_at(&fs, SEGMENT_HEADER as u64, usize::try_from(wal.disk_bytes()).unwrap());
    wal.save_vote(voted(2), ignore()).unwrap();
    file(&fs).write_at(&first, end(&wal)).unwrap();
    let Err(error) = open(&fs.restart()) else { panic!("the vote went back") };
    assert!(error.to_string().contains("batch 0 stands where 2 should"), "{error}");
}

/// As a disk leaves it that wrote to the wrong place. What was acknowledged in front of it would be refused with it.
#[test]
fn i6_an_older_batch_further_on_is_refused_before_anything_is_acknowledged_in_front_of_it() {
    // Where the next batch would end, within it, and far behind; and behind a last batch that is torn.
    for (gap, torn) in [(64, false), (8, false), (4096, false), (64, true), (4096, true)] {
        let fs = SimFs::new();
        let wal = open(&fs).unwrap();
        wal.save_vote(voted(1), ignore()).unwrap();
        let first = usize::try_from(wal.disk_bytes()).unwrap();
        let first = bytes_at(&fs, SEGMENT_HEADER as u64, first);
        wal.save_vote(voted(2), ignore()).unwrap();
        let last = end(&wal);
        wal.save_vote(voted(3), ignore()).unwrap();
        if torn {
            fs.flip_bit(&segments(&fs)[0], last + 40, 0).unwrap();
        }
        file(&fs).write_at(&first, end(&wal) + gap).unwrap();
        let Err(error) = open(&fs.restart()) else { panic!("gap {gap}, torn {torn}: it opened") };
        assert!(matches!(error, WalError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("batch 0 stands a second time"), "{error}");
    }
}

#[test]
fn what_a_torn_tail_left_is_told_once_and_is_gone_then() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.save_vote(voted(1), ignore()).unwrap();
    let at = end(&wal);
    fs.tear_write(1, 900);
    wal.append(vec![entry(1, 0, 1500)], ignore()).unwrap();
    let fs = fs.crash(Survivors::All);
    let torn = |fs: &SimFs| super::super::recover::recover(fs, Path::new(DIR), 0).unwrap().torn;
    assert_eq!(torn(&fs), Some((segments(&fs)[0].clone(), at)));
    // Without a word of its own, or a short one, the next start would find the rest of it.
    drop(open(&fs).unwrap());
    assert_eq!(torn(&fs.crash(Survivors::None)), None);
    assert_eq!(bytes_at(&fs, at, 2000), vec![0; 2000]);
}

#[test]
fn i2_an_entry_that_was_replaced_while_it_was_written_does_not_make_its_successor_durable() {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new(DIR)).unwrap();
    let header = SegmentHeader { number: 0, salt: 7, length: 8192 };
    let segment = Arc::new(Segment::create(&fs, Path::new(DIR), header, 8192).unwrap());
    let stored = || Stored { segment: segment.clone(), offset: 512, length: 10 };
    let mut index: Index<SimFs> = Index::new(4096);
    let first = index.append(&[entry(1, 0, 10)]).unwrap();
    index.truncate_after(None).unwrap();
    let second = index.append(&[entry(2, 0, 10)]).unwrap();
    // The disk is done with the first one only now.
    index.written(0, first, stored());
    assert_eq!(index.durable(), None);
    index.written(0, second, stored());
    assert_eq!(index.durable(), Some(0));
}

#[test]
fn a_log_whose_numbers_have_no_next_is_refused() {
    let header = SegmentHeader { number: 0, salt: 7, length: 0 };
    for (number, opens) in [(3, true), (u64::MAX - 1, false), (u64::MAX, false)] {
        let mut builder = BatchBuilder::new();
        builder.vote(&voted(1));
        let bytes = [header.encode(), builder.finish(number, 7).to_vec()].concat();
        let fs = SimFs::new();
        fs.create_dir_all(Path::new(DIR)).unwrap();
        let path = Path::new(DIR).join("0000000000000000.log");
        fs.open(&path, OpenMode::CreateNew).unwrap().write_at(&bytes, 0).unwrap();
        assert_eq!(open(&fs).is_ok(), opens, "batch {number}");
    }
    let fs = SimFs::new();
    fs.create_dir_all(Path::new(DIR)).unwrap();
    let path = Path::new(DIR).join("fffffffffffffffe.log");
    drop(fs.open(&path, OpenMode::CreateNew).unwrap());
    assert!(matches!(open(&fs), Err(WalError::Damaged { .. })));
}
