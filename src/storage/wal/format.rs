//! The bytes of segments and batches.
//!
//! Segment header, 512 bytes: magic `HFWALSEG`, format (4), bytes that the file was made with (4), segment number (8),
//! salt (8), CRC32C of the 32 bytes before (4), zeros. A segment in use that is shorter than it was made was cut off.
//!
//! Batch header, 32 bytes: magic `HFB1` (4), payload length (4), batch number (8), salt of the segment (8), CRC32C of the
//! payload (4), CRC32C of the 28 bytes before (4). Then the payload, and zeros up to a multiple of 8.
//!
//! Record, in a payload: kind (1), zeros (3), data length (4), term (8), index (8), CRC32C of all of the record with this
//! field as zero (4), zeros (4), data. Kinds: 1 blank entry, 2 command, 3 membership, 4 vote (index: node, data: 1 if
//! committed), 5 committed position, 6 truncate after position, 7 purge up to position, 8 truncate all, 9 at the start of a segment: last entry so far
//! (data: the highest index ever written before (8), and 1 if there is a last entry), 10 log closed.

use bytes::Bytes;

use super::types::{LogEntry, Payload, Vote};
use crate::state::Position;

pub(super) const FORMAT: u32 = 1;
pub(super) const SEGMENT_HEADER: usize = 512;
pub(super) const BATCH_HEADER: usize = 32;
pub(super) const RECORD_HEADER: usize = 32;
const SEGMENT_MAGIC: &[u8; 8] = b"HFWALSEG";
const BATCH_MAGIC: &[u8; 4] = b"HFB1";
const ALIGN: usize = 8;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) salt: u64,
    /// Bytes that the file was made with; 0 if that was not noted.
    pub(super) length: u64,
}

/// Reads fields one after another; short input gives `None`.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        // A length beyond the field is not noted.
        bytes.extend_from_slice(&u32::try_from(self.length).unwrap_or(0).to_le_bytes());
        for number in [self.number, self.salt] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.resize(SEGMENT_HEADER, 0);
        bytes
    }

    /// The header and its format, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u32), &'static str> {
        let short = "the segment header is cut off";
        let mut fields = Fields(bytes);
        let magic: [u8; 8] = fields.take().ok_or(short)?;
        let format = fields.u32().ok_or(short)?;
        let length = fields.u32().ok_or(short)?.into();
        let number = fields.u64().ok_or(short)?;
        let salt = fields.u64().ok_or(short)?;
        let sum = fields.u32().ok_or(short)?;
        let covered = bytes.get(..32).ok_or(short)?;
        if magic != *SEGMENT_MAGIC || crc32c::crc32c(covered) != sum {
            return Err("the segment header is damaged");
        }
        Ok((Self { number, salt, length }, format))
    }
}

/// One thing that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Entry(LogEntry),
    Vote(Vote),
    Committed(Position),
    TruncateAfter(Position),
    TruncateAll,
    Purge(Position),
    /// Last entry when the segment began, and the highest index ever written to the segments before.
    Last(Option<Position>, u64),
    Closed,
}

/// Builds one batch in a buffer that is used again and again.
pub(super) struct BatchBuilder {
    bytes: Vec<u8>,
}

impl BatchBuilder {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BATCH_HEADER] }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.truncate(BATCH_HEADER);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == BATCH_HEADER
    }

    /// Bytes that it will take on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.len().next_multiple_of(ALIGN) as u64
    }

    /// Adds an entry; returns where its record begins, counted from the batch's first byte.
    pub(super) fn entry(&mut self, entry: &LogEntry) -> usize {
        let kind = match entry.payload {
            Payload::Blank => 1,
            Payload::Command(_) => 2,
            Payload::Membership(_) => 3,
        };
        self.push(kind, entry.id, entry.payload.bytes())
    }

    pub(super) fn vote(&mut self, vote: &Vote) {
        // A vote for nobody is kept by its term alone; node ids begin at 1.
        let at = Position { term: vote.term, index: vote.voted_for.unwrap_or(0) };
        self.push(4, at, &[u8::from(vote.committed)]);
    }

    pub(super) fn committed(&mut self, at: Position) {
        self.push(5, at, &[]);
    }

    pub(super) fn truncate_after(&mut self, last: Option<Position>) {
        match last {
            Some(at) => self.push(6, at, &[]),
            None => self.push(8, Position::default(), &[]),
        };
    }

    pub(super) fn purge(&mut self, upto: Position) {
        self.push(7, upto, &[]);
    }

    pub(super) fn last(&mut self, last: Option<Position>, highest: u64) {
        let mut data = highest.to_le_bytes().to_vec();
        data.push(u8::from(last.is_some()));
        self.push(9, last.unwrap_or_default(), &data);
    }

    pub(super) fn closed(&mut self) {
        self.push(10, Position::default(), &[]);
    }

    fn push(&mut self, kind: u8, at: Position, data: &[u8]) -> usize {
        let start = self.bytes.len();
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let mut header = [0u8; RECORD_HEADER];
        {
            let mut rest = &mut header[..];
            let mut put = |field: &[u8]| {
                let (head, tail) = std::mem::take(&mut rest).split_at_mut(field.len());
                head.copy_from_slice(field);
                rest = tail;
            };
            put(&[kind, 0, 0, 0]);
            put(&length.to_le_bytes());
            put(&at.term.to_le_bytes());
            put(&at.index.to_le_bytes());
        }
        let sum = record_sum(&header, data);
        if let Some(field) = header.get_mut(24..28) {
            field.copy_from_slice(&sum.to_le_bytes());
        }
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(data);
        start
    }

    /// The whole batch, ready to be written.
    pub(super) fn finish(&mut self, number: u64, salt: u64) -> &[u8] {
        let payload = self.bytes.get(BATCH_HEADER..).unwrap_or_default();
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut header = Vec::with_capacity(BATCH_HEADER);
        header.extend_from_slice(BATCH_MAGIC);
        header.extend_from_slice(&length.to_le_bytes());
        header.extend_from_slice(&number.to_le_bytes());
        header.extend_from_slice(&salt.to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        let sum = crc32c::crc32c(&header);
        header.extend_from_slice(&sum.to_le_bytes());
        if let Some(head) = self.bytes.get_mut(..BATCH_HEADER) {
            head.copy_from_slice(&header);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        &self.bytes
    }
}

/// The sum of a record's header (its sum field taken as zero) and data.
fn record_sum(header: &[u8; RECORD_HEADER], data: &[u8]) -> u32 {
    let mut clean = *header;
    if let Some(field) = clean.get_mut(24..28) {
        field.fill(0);
    }
    crc32c::crc32c_append(crc32c::crc32c(&clean), data)
}

/// A batch that was found in a segment's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundBatch {
    pub(super) number: u64,
    /// Bytes of the payload.
    pub(super) payload: usize,
    /// Bytes with header and padding.
    pub(super) total: usize,
}

/// The batch that begins at `offset`, if a whole and undamaged one of this segment does.
pub(super) fn batch_at(segment: &[u8], offset: usize, salt: u64) -> Option<FoundBatch> {
    let header = segment.get(offset..offset.checked_add(BATCH_HEADER)?)?;
    let mut fields = Fields(header);
    let magic: [u8; 4] = fields.take()?;
    let payload = usize::try_from(fields.u32()?).ok()?;
    let number = fields.u64()?;
    let found_salt = fields.u64()?;
    let payload_sum = fields.u32()?;
    let header_sum = fields.u32()?;
    if magic != *BATCH_MAGIC
        || found_salt != salt
        || crc32c::crc32c(header.get(..28)?) != header_sum
    {
        return None;
    }
    let start = offset.checked_add(BATCH_HEADER)?;
    let bytes = segment.get(start..start.checked_add(payload)?)?;
    let total = BATCH_HEADER.checked_add(payload)?.next_multiple_of(ALIGN);
    (crc32c::crc32c(bytes) == payload_sum).then_some(FoundBatch { number, payload, total })
}

/// The first whole batch of this segment at or after `from`, whatever its number, and where it stands.
pub(super) fn batch_behind(segment: &[u8], from: usize, salt: u64) -> Option<(usize, FoundBatch)> {
    let from = from.next_multiple_of(ALIGN);
    (from..segment.len()).step_by(ALIGN).find_map(|offset| {
        let magic = segment.get(offset..).is_some_and(|rest| rest.starts_with(BATCH_MAGIC));
        let batch = magic.then(|| batch_at(segment, offset, salt)).flatten();
        batch.map(|batch| (offset, batch))
    })
}

/// A record with where it stands in its payload.
pub(super) struct Located {
    /// Where the record begins in the payload.
    pub(super) offset: usize,
    pub(super) record: Record,
}

/// All records of a payload. `shared` is the same bytes, so that entries need no copy.
pub(super) fn records(payload: &Bytes) -> Result<Vec<Located>, &'static str> {
    let mut found = Vec::new();
    let mut offset = 0usize;
    while offset < payload.len() {
        let (record, length) = record_at(&payload.slice(offset..))?;
        found.push(Located { offset, record });
        offset = offset.saturating_add(length);
    }
    Ok(found)
}

/// The record at the start of `bytes`, and its length.
pub(super) fn record_at(bytes: &Bytes) -> Result<(Record, usize), &'static str> {
    let short = "a record is cut off";
    let header: &[u8; RECORD_HEADER] = bytes.first_chunk().ok_or(short)?;
    let mut fields = Fields(header);
    let [kind, ..]: [u8; 4] = fields.take().ok_or(short)?;
    let length = usize::try_from(fields.u32().ok_or(short)?).map_err(|_| short)?;
    let id = Position { term: fields.u64().ok_or(short)?, index: fields.u64().ok_or(short)? };
    let sum = fields.u32().ok_or(short)?;
    let end = RECORD_HEADER.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(short)?;
    let data = bytes.slice(RECORD_HEADER..end);
    if record_sum(header, &data) != sum {
        return Err("a record is damaged");
    }
    let record = match kind {
        1 => Record::Entry(LogEntry { id, payload: Payload::Blank }),
        2 => Record::Entry(LogEntry { id, payload: Payload::Command(data) }),
        3 => Record::Entry(LogEntry { id, payload: Payload::Membership(data) }),
        4 => Record::Vote(Vote {
            term: id.term,
            voted_for: Some(id.index).filter(|node| *node != 0),
            committed: data.first() == Some(&1),
        }),
        5 => Record::Committed(id),
        6 => Record::TruncateAfter(id),
        7 => Record::Purge(id),
        8 => Record::TruncateAll,
        9 => {
            let mut data = Fields(&data);
            let highest = data.u64().ok_or(short)?;
            let [present]: [u8; 1] = data.take().ok_or(short)?;
            Record::Last((present == 1).then_some(id), highest)
        }
        10 => Record::Closed,
        _ => return Err("a record has an unknown kind"),
    };
    Ok((record, end))
}
