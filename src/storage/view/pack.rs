//! Packs neighbours of a sequential table into blocks, so that the engine's cost for a record is 1/64th.
//!
//! A block holds the records whose number differs in the lowest six bits only. Its engine key is the tag and the first
//! of those numbers, eight bytes big-endian. Its payload is, for each record that exists, ascending: its offset in the
//! block (one byte), the length of its value (four bytes, little-endian), the value. A block without records does not
//! exist. Nothing here does I/O.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::record::engine_key;
use crate::state::{StoreError, Table};

/// Records in a full block.
pub(super) const BLOCK_RECORDS: u64 = 64;

/// Values of one block by their number.
pub(super) type Block = BTreeMap<u64, Bytes>;

/// The number that a sequential table's key stands for.
pub(super) fn sequence(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// The least number whose key is at or after `from`, which may have any length; `None` if there is none.
pub(super) fn sequence_at_or_after(from: &[u8]) -> Option<u64> {
    match from.split_first_chunk::<8>() {
        Some((number, [])) => Some(u64::from_be_bytes(*number)),
        Some((number, _)) => u64::from_be_bytes(*number).checked_add(1),
        None => {
            let mut number = [0; 8];
            number.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            Some(u64::from_be_bytes(number))
        }
    }
}

/// First number of the block that holds `sequence`.
pub(super) const fn block_start(sequence: u64) -> u64 {
    sequence & !(BLOCK_RECORDS - 1)
}

/// Last number of the block that holds `sequence`.
pub(super) const fn block_end(sequence: u64) -> u64 {
    sequence | (BLOCK_RECORDS - 1)
}

/// The engine key of the block that holds `sequence`.
pub(super) fn block_key(table: Table, sequence: u64) -> Bytes {
    engine_key(table, &block_start(sequence).to_be_bytes())
}

/// The payload of a block.
pub(super) fn encode(block: &Block) -> Result<Bytes, StoreError> {
    let length = block.values().map(|value| value.len() + 5).sum();
    let mut bytes = BytesMut::with_capacity(length);
    for (sequence, value) in block {
        let length = u32::try_from(value.len())
            .map_err(|_| StoreError::Engine("a value is larger than 4 GiB".to_owned()))?;
        bytes.put_u8((*sequence & (BLOCK_RECORDS - 1)) as u8);
        bytes.put_u32_le(length);
        bytes.put_slice(value);
    }
    Ok(bytes.freeze())
}

/// The records of a block. `start` is its first number.
///
/// # Errors
/// [`StoreError::Corrupt`] if the payload is no block.
pub(super) fn decode(table: Table, start: u64, mut payload: Bytes) -> Result<Block, StoreError> {
    let damaged = || StoreError::Corrupt { table, what: "its block can't be decoded".to_owned() };
    let mut block = Block::new();
    while !payload.is_empty() {
        let offset = u64::from(*payload.first().ok_or_else(damaged)?);
        let length: [u8; 4] =
            payload.get(1..5).ok_or_else(damaged)?.try_into().map_err(|_| damaged())?;
        let end = 5 + u32::from_le_bytes(length) as usize;
        if offset >= BLOCK_RECORDS || end > payload.len() {
            return Err(damaged());
        }
        let ascending = block.last_key_value().is_none_or(|(last, _)| *last < start + offset);
        if !ascending {
            return Err(damaged());
        }
        block.insert(start + offset, payload.slice(5..end));
        payload = payload.slice(end..);
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_reads_back() {
        let block: Block =
            [(128, Bytes::from_static(b"")), (130, "two".into()), (191, "last".into())].into();
        let payload = encode(&block).unwrap();
        assert_eq!(decode(Table::Audit, 128, payload.clone()).unwrap(), block);
        for length in 1..payload.len() {
            let cut = decode(Table::Audit, 128, payload.slice(..length));
            assert!(cut.map_or(true, |part| part.len() < block.len()), "cut at {length}");
        }
    }

    #[test]
    fn a_bound_of_any_length_finds_its_number() {
        assert_eq!(sequence_at_or_after(b""), Some(0));
        assert_eq!(sequence_at_or_after(&[0, 0, 0, 0, 0, 0, 1]), Some(256));
        assert_eq!(sequence_at_or_after(&7_u64.to_be_bytes()), Some(7));
        assert_eq!(sequence_at_or_after(&[0, 0, 0, 0, 0, 0, 0, 7, 0]), Some(8));
        assert_eq!(sequence_at_or_after(&[255; 9]), None);
    }
}
