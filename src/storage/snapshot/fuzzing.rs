//! A snapshot from whoever sends one.

use std::path::Path;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Snapshots;
use super::format::{self, BLOCK, CHECKSUM_BYTES, HEADER_BYTES, TRAILER_BYTES};
use crate::fs::sim::SimFs;
use crate::state::{Digest, Table};

/// Bytes that come at once.
const CHUNK: usize = 300;

/// Takes a snapshot in, chunk by chunk, and checks it. What was taken is the current one, has as many records as it says, and is
/// found again at the next start. What was refused leaves nothing behind.
pub(crate) fn taken_in(bytes: &[u8]) -> bool {
    let (fs, dir) = (SimFs::new(), Path::new("/snapshots"));
    let Ok(snapshots) = Snapshots::open(fs.clone(), dir) else { return false };
    let Ok(mut receiver) = snapshots.receiver() else { return false };
    let mut offset = 0;
    for chunk in bytes.chunks(CHUNK) {
        let written = receiver.write_chunk(offset, chunk);
        assert!(written.is_ok(), "{written:?}");
        offset = offset.saturating_add(chunk.len() as u64);
    }
    let Ok(file) = receiver.finish() else {
        let left = crate::fs::Fs::read_dir(&fs, dir);
        assert!(left.is_ok_and(|left| left.is_empty()), "a refused snapshot left something");
        return false;
    };
    let records = file.records().map(|records| {
        records
            .filter(|record| record.as_ref().is_ok_and(|(table, _)| *table != Table::Meta))
            .count()
    });
    assert_eq!(records.ok(), usize::try_from(file.meta().records).ok());
    let again = Snapshots::open(fs.restart(), dir);
    let found = again.ok().and_then(|again| again.current());
    assert_eq!(found.map(|found| found.meta().clone()).as_ref(), Some(file.meta()));
    true
}

/// The same bytes with the checksums, the digest and the number of records that belong to them.
pub(crate) fn mended(bytes: &[u8]) -> Vec<u8> {
    try_mend(bytes).unwrap_or_else(|| bytes.to_vec())
}

fn try_mend(bytes: &[u8]) -> Option<Vec<u8>> {
    let blocks_end = bytes.len().checked_sub(TRAILER_BYTES)?;
    let heads = length(bytes, HEADER_BYTES.checked_sub(4)?)?;
    let mut out = Vec::new();
    let mut offset = piece(bytes, 0, HEADER_BYTES.checked_add(heads)?, blocks_end, &mut out)?;
    let (mut sum, mut count) = (Digest::ZERO, 0);
    while offset < blocks_end {
        let end = length(bytes, offset.checked_add(1)?)?.checked_add(5)?;
        let body = bytes.get(offset.checked_add(5)?..offset.checked_add(end)?)?;
        if bytes.get(offset) == Some(&BLOCK) {
            for (table, (key, value)) in format::records(Bytes::copy_from_slice(body))? {
                if table != Table::Meta {
                    sum.add(Digest::of_record(table, &key, &value));
                    count += 1;
                }
            }
        }
        offset = piece(bytes, offset, end, blocks_end, &mut out)?;
    }
    let start = format::trailer_start(count, sum.to_bytes());
    let mut sha256 = Sha256::new();
    sha256.update(&out);
    sha256.update(&start);
    out.extend_from_slice(&format::trailer(start, &sha256.finalize()));
    Some(out)
}

/// Copies a piece of `length` bytes, and the checksum that belongs to it; gives where the next one begins.
fn piece(
    bytes: &[u8],
    offset: usize,
    length: usize,
    most: usize,
    out: &mut Vec<u8>,
) -> Option<usize> {
    let end = offset.checked_add(length)?;
    let next = end.checked_add(CHECKSUM_BYTES).filter(|next| *next <= most)?;
    let body = bytes.get(offset..end)?;
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    Some(next)
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    use bytes::BytesMut;

    use crate::state::{Heads, Position};

    let file = |heads: &Heads, records: &[(Table, &[u8], &[u8])]| {
        let mut bytes = format::header(&heads.encode()).unwrap().to_vec();
        for records in records.chunks(2) {
            let mut body = BytesMut::new();
            for (table, key, value) in records {
                let record = (*table, (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                format::push_record(&mut body, &record).unwrap();
            }
            bytes.extend_from_slice(&format::block(&body).unwrap());
        }
        bytes.extend_from_slice(&[0; TRAILER_BYTES]);
        mended(&bytes)
    };
    let mut seeds = vec![("snapshot", "empty".to_owned(), file(&Heads::default(), &[]))];
    let mut state: Vec<(Table, &[u8], &[u8])> = vec![
        (Table::Devices, &[1; 16], b"a device"),
        (Table::Audit, &[0, 0, 0, 0, 0, 0, 0, 1], b"a record"),
        (Table::Grants, b"alice\0\x05", b""),
    ];
    let mut sum = Digest::ZERO;
    for (table, key, value) in &state {
        sum.add(Digest::of_record(*table, key, value));
    }
    let heads = Heads {
        position: Some(Position { term: 2, index: 9 }),
        sum,
        records: 3,
        ..Heads::default()
    };
    let encoded = heads.encode();
    let (table, key) = Heads::record_key();
    state.insert(0, (table, key, &encoded));
    seeds.push(("snapshot", "three-records".to_owned(), file(&heads, &state)));
    seeds
}
