//! The log under bytes that are no log of ours.

use std::path::Path;

use super::format::{BATCH_HEADER, RECORD_HEADER, SEGMENT_HEADER};
use super::{LogEntry, Payload, Vote, Wal, WalError, WalOptions};
use crate::fs::sim::SimFs;
use crate::state::Position;

const DIR: &str = "/wal";
const FILE: &str = "/wal/0000000000000000.log";

const fn options() -> WalOptions {
    // Nothing is cached, so that all is read back.
    WalOptions { segment_bytes: 2048, cache_bytes: 0, must_exist: false, inline: true }
}

fn open(fs: &SimFs) -> Result<Wal<SimFs>, WalError> {
    Wal::open(fs.clone(), Path::new(DIR), options())
}

/// What a log says.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    purged: Option<Position>,
    last: Option<Position>,
    vote: Option<Vote>,
    entries: Vec<LogEntry>,
}

fn said(wal: &Wal<SimFs>) -> Result<Said, WalError> {
    let entries = wal.read(0, u64::MAX, usize::MAX)?;
    Ok(Said { purged: wal.purged(), last: wal.last(), vote: wal.vote(), entries })
}

/// Opens a log of one segment. What opens can be read to its end, says the same when it is opened again, and can be written on.
pub(crate) fn opens(bytes: &[u8]) -> bool {
    let Ok(fs) = crate::storage::fuzzing::disk(Path::new(FILE), bytes) else { return false };
    let wal = match open(&fs) {
        Ok(wal) => wal,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let first = said(&wal);
    assert!(first.is_ok(), "what was opened can't be read: {first:?}");
    let next = wal.last().map_or(0, |last| last.index.saturating_add(1));
    let term = wal.last().map_or(1, |last| last.term);
    let entry = LogEntry { id: Position { term, index: next }, payload: Payload::Blank };
    // The last index of all can't be appended; anything else can.
    let appended =
        wal.append(vec![entry.clone()], Box::new(|done| assert!(done.is_ok(), "{done:?}")));
    assert!(appended.is_ok() || next == u64::MAX, "{appended:?}");
    wal.close();
    drop(wal);
    let again = open(&fs.restart()).and_then(|wal| said(&wal));
    assert!(again.is_ok(), "what was opened can't be opened again: {again:?}");
    let (Ok(first), Ok(mut again)) = (first, again) else { return false };
    if appended.is_ok() {
        assert_eq!(again.entries.pop(), Some(entry), "what was acknowledged is gone");
        again.last = first.last;
    }
    assert_eq!(again, first);
    first.last.is_some() || first.vote.is_some()
}

/// The same bytes with every checksum right that stands where one belongs.
pub(crate) fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    set_sum(&mut bytes, 0, 32);
    let mut offset = SEGMENT_HEADER;
    while let Some(length) = number(&bytes, offset.saturating_add(4)) {
        let start = offset.saturating_add(BATCH_HEADER);
        let end = start.saturating_add(length);
        if end > bytes.len() {
            break;
        }
        mend_records(bytes.get_mut(start..end).unwrap_or_default());
        let sum = crc32c::crc32c(bytes.get(start..end).unwrap_or_default());
        put(&mut bytes, offset.saturating_add(24), sum);
        set_sum(&mut bytes, offset, 28);
        offset = end.next_multiple_of(8);
    }
    bytes
}

fn mend_records(payload: &mut [u8]) {
    let mut offset = 0;
    while let Some(length) = number(payload, offset + 4) {
        let end = offset.saturating_add(RECORD_HEADER).saturating_add(length);
        let Some(record) = payload.get_mut(offset..end) else { break };
        put(record, 24, 0);
        let sum = crc32c::crc32c(record);
        put(record, 24, sum);
        offset = end;
    }
}

/// Puts the checksum of the `length` bytes from `start` behind them.
fn set_sum(bytes: &mut [u8], start: usize, length: usize) {
    let end = start.saturating_add(length);
    let Some(covered) = bytes.get(start..end) else { return };
    let sum = crc32c::crc32c(covered);
    put(bytes, end, sum);
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *field = number.to_le_bytes();
    }
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    use bytes::Bytes;

    use super::Done;
    use super::format::{BatchBuilder, SegmentHeader};

    fn ignore() -> Done {
        Box::new(|done| done.unwrap())
    }
    let at = |index| Position { term: 1, index };
    let entry = |index, payload| LogEntry { id: at(index), payload };
    let salted = |length, batches: &mut dyn FnMut(&mut Vec<u8>)| {
        let mut bytes = SegmentHeader { number: 0, salt: 7, length }.encode();
        batches(&mut bytes);
        bytes
    };
    let vote = Vote { term: 3, voted_for: Some(2), committed: true };
    // Each kind of record, in the order in which a log writes them.
    let mut builder = BatchBuilder::new();
    builder.last(Some(at(4)), 4);
    builder.vote(&vote);
    builder.committed(at(4));
    builder.purge(at(4));
    builder.entry(&entry(5, Payload::Blank));
    builder.entry(&entry(6, Payload::Command(Bytes::from_static(b"a command"))));
    let first = builder.finish(0, 7).to_vec();
    builder.clear();
    builder.truncate_after(Some(at(5)));
    builder.entry(&entry(6, Payload::Membership(Bytes::from_static(b"a membership"))));
    builder.closed();
    let second = builder.finish(1, 7).to_vec();
    let whole = salted(0, &mut |bytes| {
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&second);
    });
    let torn = salted(0, &mut |bytes| {
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&second[..40]);
    });
    // And one that the log itself made.
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.save_vote(vote, ignore()).unwrap();
    wal.append(vec![entry(0, Payload::Blank)], ignore()).unwrap();
    wal.truncate_after(None, ignore()).unwrap();
    wal.append(vec![entry(0, Payload::Command(Bytes::from_static(b"again")))], ignore()).unwrap();
    wal.close();
    let mut made = crate::fs::read_file(&fs, Path::new(FILE)).unwrap();
    made.truncate(1536);
    put(&mut made, 12, 0);
    let made = mended(&made);
    [("every-record", whole), ("torn", torn), ("made", made)]
        .into_iter()
        .map(|(name, bytes)| ("wal", name.to_owned(), bytes))
        .collect()
}
